"""However a batch is split, loss and gradients are those of the whole batch."""

import pytest
import torch
from torch.nn import functional as F

from xinglin.dataset.encode import IGNORE, Encoded
from xinglin.tuning.losses import token_losses
from xinglin.tuning.packing import micro_batches, pack, packed_tokens, share


def rows(lengths):
    generator = torch.Generator().manual_seed(1)
    made = []
    for number, length in enumerate(lengths):
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        prompt = length // 2
        made.append(Encoded(str(number), ids, [IGNORE] * prompt + ids[prompt:], False))
    return made


def test_groups_keep_to_both_limits_and_lose_no_row():
    made = rows([5, 40, 7, 8, 100, 30, 6])
    groups = micro_batches(made, 3, 80)
    assert sorted(row.id for group in groups for row in group) == sorted(row.id for row in made)
    for group in groups:
        assert len(group) <= 3
        assert len(group) == 1 or packed_tokens(group) <= 80
    assert [row.id for row in groups[0]] == ["4"]  # longer than the budget: alone, and first


@pytest.fixture
def model(tiny_base):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)


def reference(model, made):
    """Loss per target token, one row at a time, from all logits."""
    losses = []
    for row in made:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        losses.append(F.cross_entropy(logits, torch.tensor(row.labels[1:]), ignore_index=IGNORE, reduction="none"))
    kept = torch.cat(losses)
    return kept.sum() / sum(row.targets for row in made)


@pytest.mark.parametrize("limits", [(8, 10_000), (1, 10_000), (8, 60), (2, 90)])
def test_any_split_gives_the_whole_batch_loss_and_gradient(model, limits):
    made = rows([12, 33, 7, 25, 18])
    expected = reference(model, made)
    expected.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for group in micro_batches(made, *limits):
        losses, owner = token_losses(model, pack(group, "cpu"))
        assert torch.bincount(owner).tolist() == [row.targets for row in group]
        loss = losses.sum() / sum(row.targets for row in made)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-4, atol=1e-7)


def test_only_answer_positions_reach_the_output_layer(model):
    made = rows([40, 40])
    seen = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(out.shape))
    token_losses(model, pack(made, "cpu"))
    hook.remove()
    assert seen == [torch.Size([1, sum(row.targets for row in made), model.config.vocab_size])]


@pytest.mark.parametrize("lengths", [[5, 40, 7, 8, 100, 30, 6], [9], [20, 21], [50] * 8 + [5] * 3])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_a_batch_in_equally_many_micro_batches(lengths, processes):
    made = rows(lengths)
    shares = [share(made, 2, 90, processes, rank) for rank in range(processes)]
    assert len({len(groups) for groups in shares}) == 1
    held = [row for groups in shares for group in groups for row in group]
    assert sorted(row.id for row in held if row.id) == sorted(row.id for row in made)
    fillers = [row for row in held if not row.id]
    assert all(row.targets == 0 and len(row.input_ids) == min(lengths) for row in fillers)
    if processes == 1:
        assert not fillers


def test_a_row_with_nothing_to_learn_adds_nothing(model):
    filler = Encoded("", [5, 6, 7], [IGNORE] * 3, False)
    losses, owner = token_losses(model, pack([filler], "cpu"))
    assert losses.numel() == owner.numel() == 0
    model.zero_grad()
    losses.sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
