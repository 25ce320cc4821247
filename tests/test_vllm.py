"""What vLLM is asked. Its own package stands in here (there is no GPU), so this shows our side of the call alone."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from xinglin.backbone import Precision
from xinglin.errors import UserError
from xinglin.inference.engine import load_engine
from xinglin.inference.generation import Generation
from xinglin.inference.vllm import load_vllm
from xinglin.records import Example, Turn

FP32 = Precision(torch.float32, "test")
ASKED = [Example(str(n), (Turn("user", "问" * (n + 1)),)) for n in range(5)]


@pytest.fixture
def vllm(monkeypatch):
    """A package of that name which notes what it is given and answers with the number of prompt tokens."""
    calls: dict[str, object] = {}

    class LLM:
        def __init__(self, **options):
            calls["options"] = options

        def generate(self, prompts, settings, lora_request):
            calls.update(prompts=prompts, settings=settings, lora=lora_request)
            texts = [f" 共{len(one['prompt_token_ids'])}\n问题：又" for one in prompts]
            return [SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason="stop")]) for text in texts]

    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = LLM, lambda **settings: settings
    request.LoRARequest = lambda *named: named
    for name, module in (("vllm", package), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_it_is_asked_the_same_prompts(vllm, tiny_base):
    engine = load_vllm(str(tiny_base), "", "med_template", FP32)
    ours = load_engine(str(tiny_base), "", "med_template", FP32)
    made = {one.id: one for one in engine.answer(ASKED, Generation(9, temperature=0.5, seed=3))}
    assert sorted(one["prompt_token_ids"] for one in vllm["prompts"]) == sorted(ours.prompt(one) for one in ASKED)
    assert [made[one.id].answer for one in ASKED] == [f"共{len(ours.prompt(one))}" for one in ASKED]
    settings = vllm["settings"]
    assert (settings["max_tokens"], settings["temperature"], settings["seed"]) == (9, 0.5, 3)
    assert set(settings["stop_token_ids"]) == set(ours.stops)
    assert "\n问题：" in settings["stop"]
    assert vllm["lora"] is None
    assert vllm["options"]["dtype"] == "float32"


def test_what_it_cannot_take_is_refused(vllm, tiny_base, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "BOTTLENECK"}')
    with pytest.raises(UserError, match="no bottleneck adapter"):
        load_vllm(str(tiny_base), str(tmp_path), "auto", FP32)
    with pytest.raises(UserError, match="not in 8 bit"):
        load_vllm(str(tiny_base), "", "auto", FP32, "8bit")


def test_without_vllm(tiny_base, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="pip install vllm"):
        load_vllm(str(tiny_base), "", "auto", FP32)
