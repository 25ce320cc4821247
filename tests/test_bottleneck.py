"""The bottleneck adapter: against another library's numbers, against finite differences, and as a folder with verbs."""

import json
from pathlib import Path

import pytest
import torch
from bases import KINDS, make_base
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from xinglin.errors import UserError
from xinglin.tuning.bottleneck import BottleneckConfig, BottleneckModel

REFERENCE = Path(__file__).parent / "reference"
IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {kind: make_base(folder / kind, kind) for kind in KINDS}


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def shaken(model: BottleneckModel, seed: int = 0) -> BottleneckModel:
    """Adapters that change something."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.adapter_state().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


@pytest.mark.parametrize("activation", ["silu", "relu", "gelu"])
def test_logits_and_gradients_are_those_of_the_adapters_library(activation, tmp_path):
    stored = load_file(REFERENCE / "bottleneck.safetensors")
    base = load(REFERENCE / "base")
    with torch.no_grad():
        torch.testing.assert_close(base(stored["input_ids"]).logits, stored["logits.base"], rtol=0, atol=1e-5)
    model = BottleneckModel(base, BottleneckConfig(4, activation))
    own = model.adapter_state()
    adapter = {key.removeprefix("adapter."): value for key, value in stored.items() if key.startswith("adapter.")}
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in adapter.items()}
    for key, value in adapter.items():
        own[key].copy_(value)
    made = model(input_ids=stored["input_ids"]).logits
    torch.testing.assert_close(made, stored[f"logits.{activation}"], rtol=0, atol=1e-5)
    made.square().mean().backward()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert weight.grad is None
            continue
        key = "base_model.model." + name.removeprefix("base_model.").replace(".bottleneck.default.", ".bottleneck.")
        torch.testing.assert_close(weight.grad, stored[f"gradient.{activation}.{key}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(bases, kind):
    base = load(bases[kind])
    before = logits(base)
    model = BottleneckModel(base, BottleneckConfig(4)).eval()
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-6)
    shaken(model)
    assert (logits(model) - before).abs().max() > 1e-2
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    assert (logits(model) - before).abs().max() > 1e-2
    base = model.unload()
    torch.testing.assert_close(logits(base), before, rtol=0, atol=0)
    assert not any("bottleneck" in name for name, _ in base.named_modules())


def in_fp64(folder):
    """A base that computes in fp64 throughout: transformers' norms, and its eager softmax, would go through fp32."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa").eval()
    for norm in (module for module in base.modules() if type(module).__name__.endswith("RMSNorm")):
        one = 1.0 if type(norm).__name__.startswith("Gemma") else 0.0
        eps = getattr(norm, "variance_epsilon", None) or norm.eps

        def exact(x, norm=norm, one=one, eps=eps):
            return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * (norm.weight + one)

        norm.forward = exact
    return base


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_gradients_by_finite_differences(bases, kind):
    torch.manual_seed(0)
    base = in_fp64(bases[kind])
    torch.testing.assert_close(logits(base).float(), logits(load(bases[kind])), rtol=0, atol=1e-5)
    model = BottleneckModel(base, BottleneckConfig(3)).eval()
    model.adapters_to(torch.float64)
    shaken(model)

    def loss():
        scores = model(input_ids=IDS, use_cache=False).logits
        assert scores.dtype == torch.float64
        return torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())

    loss().backward()
    step, checked = 1e-6, 0
    for key, tensor in model.adapter_state().items():
        gradient = dict(model.named_parameters())[_own(key)].grad
        for place in (0, tensor.numel() // 2, tensor.numel() - 1):
            flat = tensor.view(-1)
            at, sides = flat[place].item(), []
            for change in (step, -step):
                flat[place] = at + change
                with torch.no_grad():
                    sides.append(loss().item())
            flat[place] = at
            expected = (sides[0] - sides[1]) / (2 * step)
            assert gradient.view(-1)[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-8), key
            checked += 1
    assert checked == 3 * 4 * 2 * 2  # places, tensors an adapter, adapters a layer, layers


def _own(key: str) -> str:
    return "base_model." + key.removeprefix("base_model.model.").replace(".bottleneck.", ".bottleneck.default.")


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_is_read_back_as_it_was(bases, tmp_path, safe):
    model = shaken(BottleneckModel(load(bases["llama"]), BottleneckConfig(4, "relu", 0.1, "some/base")))
    model.eval().save_pretrained(str(tmp_path), safe_serialization=safe)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "adapter_config.json",
        f"adapter_model.{'safetensors' if safe else 'bin'}",
    ]
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["peft_type"] == "BOTTLENECK"
    assert stored["base_model_name_or_path"] == "some/base"
    again = BottleneckModel.from_pretrained(load(bases["llama"]), tmp_path).eval()
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=0)
    assert again.peft_config["default"] == model.peft_config["default"]


def test_several_adapters_on_one_base(bases, tmp_path):
    alone = []
    for seed in (1, 2):
        model = shaken(BottleneckModel(load(bases["qwen3"]), BottleneckConfig(4)), seed).eval()
        model.save_pretrained(str(tmp_path / str(seed)))
        alone.append(logits(model))
    both = BottleneckModel.from_pretrained(load(bases["qwen3"]), tmp_path / "1", "first").eval()
    both.load_adapter(tmp_path / "2", "second")
    torch.testing.assert_close(logits(both), alone[0], rtol=0, atol=0)
    both.set_adapter("second")
    torch.testing.assert_close(logits(both), alone[1], rtol=0, atol=0)
    both.delete_adapter("first")
    with pytest.raises(ValueError, match="no adapter 'first'; there are second"):
        both.set_adapter("first")


def test_plain_peft_says_that_it_does_not_know_it(bases, tmp_path):
    from peft import PeftModel

    BottleneckModel(load(bases["llama"]), BottleneckConfig(4)).save_pretrained(str(tmp_path))
    with pytest.raises(KeyError, match="BOTTLENECK"):
        PeftModel.from_pretrained(load(bases["llama"]), str(tmp_path))


def test_layers_of_another_build_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=9))
    with pytest.raises(UserError, match="GPT2LMHeadModel has .*take --method lora"):
        BottleneckModel(base, BottleneckConfig(4))
