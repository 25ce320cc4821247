"""Packed rows with their beginning computed once give what one row at a time gives: losses and every gradient."""

import copy
import random
import weakref
from contextlib import nullcontext

import pytest
import torch
from bases import KINDS, make_base
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from xinglin.backbone import Precision, load_base
from xinglin.dataset.encode import IGNORE, Encoded
from xinglin.tuning import attention, blockwise, lora, methods
from xinglin.tuning import losses as losses_module
from xinglin.tuning.losses import isolates, token_losses
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import pack

FP32 = Precision(torch.float32, "test")


def rows(lengths, shared, *, learn_prompt=False):
    """Rows that begin alike; longer than a Gemma's window and, some of them, than a block of queries."""
    dice = random.Random(1)
    beginning = [dice.randrange(3, 200) for _ in range(shared)]
    made = []
    for number, length in enumerate(lengths):
        ids = [*beginning, *(dice.randrange(3, 200) for _ in range(length - shared))]
        prompt = 0 if learn_prompt else (shared + length) // 2
        made.append(Encoded(str(number), ids, [IGNORE] * prompt + ids[prompt:], cut=False))
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: make_base(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def tuned(folder, method):
    """A base with a method on it whose updates are no longer zero."""
    config = FinetuneConfig(str(folder), "", "", method=method, lora_r=4, bottleneck_size=8)
    torch.manual_seed(0)
    model = methods.attach(load_base(str(folder), FP32, quantization=methods.quantization(config)), config)
    for weight in model.parameters():
        if weight.requires_grad and method != "full":
            torch.nn.init.normal_(weight, std=0.05)
    return model.train()


def one_by_one(model, made):
    """transformers' and PEFT's own way: no packs, all logits, a row at a time."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, lora._Quick):
            layer.__class__ = type(layer).__bases__[1]  # PEFT's own
    losses = []
    for row in made:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        found = F.cross_entropy(logits, torch.tensor(row.labels[1:]), ignore_index=IGNORE, reduction="none")
        losses.append(found[torch.tensor(row.labels[1:]) != IGNORE])
    losses = torch.cat(losses)
    losses.mean().backward()
    return losses.detach(), gradients(model)


def packed(model, made):
    model = copy.deepcopy(model)
    losses, _ = token_losses(model, pack(made, "cpu"))
    losses.mean().backward()
    return losses.detach(), gradients(model)


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def assert_the_same(model, made):
    (losses, grads), (expected, wanted) = packed(model, made), one_by_one(model, made)
    assert losses.mean().item() == pytest.approx(expected.mean().item(), rel=1e-6)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        assert (grad - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


@pytest.mark.parametrize("method", ["lora", "qlora", "adapter", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_one_row_at_a_time(folders, kind, method):
    assert_the_same(tuned(folders[kind], method), rows([60, 90, 31, 75, 44], shared=30))


@pytest.mark.parametrize(
    "lengths, shared", [([300, 700], 20), ([600, 290], 270), ([9, 5, 6], 4), ([40], 0), ([8, 9], 0)]
)
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_rows_of_any_length_and_beginning(folders, kind, lengths, shared):
    assert_the_same(tuned(folders[kind], "lora"), rows(lengths, shared))


def test_weights_that_are_computed_again_give_the_same(folders, monkeypatch):
    monkeypatch.setattr(blockwise, "_KEEP", 0)
    blockwise._layout.cache_clear()
    assert_the_same(tuned(folders["llama"], "lora"), rows([300, 90], shared=30))


def test_a_learned_beginning_counts_for_every_row(folders):
    assert_the_same(tuned(folders["llama"], "lora"), rows([20, 30, 25], shared=12, learn_prompt=True))


def test_a_row_with_nothing_to_learn(folders):
    model = tuned(folders["llama"], "lora")
    losses, owners = token_losses(model, pack([Encoded("", [3, 4, 5], [IGNORE] * 3, cut=False)], "cpu"))
    losses.sum().backward()
    assert losses.shape == owners.shape == (0,)
    assert not any(grad.any() for grad in gradients(model).values())


def test_equal_rows_keep_a_token_of_their_own(folders):
    row = rows([20], 0)[0]
    assert_the_same(tuned(folders["llama"], "lora"), [row, row])


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_sees_another(folders, kind):
    model = tuned(folders[kind], "lora")
    made = rows([40, 30, 50], shared=10)
    changed = Encoded("1", [*made[1].input_ids[:10], *reversed(made[1].input_ids[10:])], made[1].labels, cut=False)
    losses, owner = token_losses(model, pack(made, "cpu"))
    others, _ = token_losses(model, pack([made[0], changed, made[2]], "cpu"))
    assert torch.equal(losses[owner != 1], others[owner != 1])
    assert not torch.equal(losses[owner == 1], others[owner == 1])


def test_a_model_whose_rows_would_mix_is_found_out(folders, monkeypatch):
    model = load_base(str(folders["llama"]), FP32)
    assert isolates(model)
    monkeypatch.setattr(losses_module, "packing", lambda model: nullcontext())  # as a base that attends its own way
    assert not isolates(model)
    monkeypatch.undo()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    assert not isolates(model.train())
    assert model.training


@pytest.mark.parametrize("kind", KINDS)
def test_masters_in_fp32_that_compute_in_half_precision_are_packed(folders, kind):
    model = load_base(str(folders[kind]), FP32)
    with torch.autocast("cpu", torch.bfloat16):
        assert isolates(model, half=True)


def test_a_base_that_cannot_be_packed_at_all_is_left_as_it_was(folders, monkeypatch):
    model = load_base(str(folders["llama"]), FP32).eval()
    monkeypatch.setattr(blockwise, "_alike", lambda lengths: 1 / 0)
    blockwise._layout.cache_clear()
    assert not isolates(model)
    assert not model.training


class Largest(TorchDispatchMode):
    """Rows of the largest tensor as wide as the vocabulary that any operation gave."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        given = operation(*args, **(kwargs or {}))
        for part in pytree.tree_leaves(given):
            if torch.is_tensor(part) and part.shape[-1:] == (self.vocabulary,):
                self.rows = max(self.rows, part.numel() // self.vocabulary)
        return given


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_no_tensor_holds_all_logits_where_the_output_layer_is_the_last_step(folders, kind, monkeypatch):
    monkeypatch.setitem(losses_module._SLAB, True, 16)
    model, made = tuned(folders[kind], "lora"), rows([60, 90], 10)
    token_losses(model, pack(made, "cpu"))  # whether its logits are capped is found out
    with Largest(model.config.vocab_size) as largest:
        losses, _ = token_losses(model, pack(made, "cpu"))
        losses.sum().backward()
    targets = sum(row.targets for row in made)
    assert largest.rows == targets if kind == "gemma2" else largest.rows < targets / 2


@pytest.mark.parametrize("change", ["biased", "trained", "scaled in place"])
def test_an_output_layer_of_another_kind(folders, change):
    model = tuned(folders["llama"], "lora")
    head = model.get_output_embeddings()
    if change == "biased":
        head.bias = torch.nn.Parameter(torch.randn(len(head.weight)), requires_grad=False)
    elif change == "trained":
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    else:
        kind = type(model.base_model.model)

        def scaled(self, *args, **kwargs):
            output = kind.forward(self, *args, **kwargs)
            output.logits *= 0.5
            return output

        model.base_model.model.__class__ = type("Scaled", (kind,), {"forward": scaled})
    assert_the_same(model, rows([60, 90], 10))


def test_the_logits_are_freed_on_the_way_back(folders):
    model, made = tuned(folders["gemma2"], "lora"), []
    model.get_output_embeddings().register_forward_hook(lambda module, given, output: made.append(weakref.ref(output)))
    losses, _ = token_losses(model, pack(rows([40, 50], 10), "cpu"))
    losses.sum().backward()
    assert {one() for one in made} == {None}


def test_in_half_precision_the_losses_are_near(folders):
    model = load_base(str(folders["llama"]), Precision(torch.bfloat16, "test"))
    made = rows([60, 90, 31], shared=30)
    whole = load_base(str(folders["llama"]), FP32)
    torch.testing.assert_close(
        token_losses(model, pack(made, "cpu"))[0], token_losses(whole, pack(made, "cpu"))[0], rtol=0.02, atol=0.02
    )


def varlen_by_its_words(query, key, value, *where, scale, window_size, enable_gqa):
    """What `varlen_attn` says it does, a sequence at a time: queries stand beside the last keys."""
    query_ends, key_ends, *longest = where
    assert enable_gqa and longest == [query_ends.diff().max(), key_ends.diff().max()]
    outputs = []
    for first, end, seen, until in zip(query_ends, query_ends[1:], key_ends, key_ends[1:], strict=False):
        keys, values = (part[seen:until].repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:end], keys) * scale
        behind = (until - seen - (end - first) + torch.arange(end - first))[:, None] - torch.arange(until - seen)
        hidden = (behind < 0) | ((behind > window_size[0]) if window_size[0] >= 0 else False)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("shared", [0, 30])
def test_what_a_gpu_is_asked_for_is_the_same_attention(folders, kind, shared, monkeypatch):
    monkeypatch.setattr(attention, "_fits_varlen", lambda query, rule: True)
    monkeypatch.setattr(attention, "varlen_attn", varlen_by_its_words)
    assert_the_same(tuned(folders[kind], "lora"), rows([60, 90, 31], shared))
