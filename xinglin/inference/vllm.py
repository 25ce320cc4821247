"""The same prompts through vLLM: many questions on one GPU or several. Needs `pip install vllm`.

    xinglin infer --backend vllm --base_model PATH --lora_weights FOLDER --instruct_dir q.jsonl --output_path a.jsonl

It takes all GPUs that CUDA_VISIBLE_DEVICES shows, and splits the model over them. What decides an answer is ours: the
prompt's token ids, the settings, where it stops. Only the guard against going round in circles is not there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from xinglin.backbone import Precision, find_base
from xinglin.dataset.encode import Encoding
from xinglin.errors import UserError, one_line
from xinglin.inference.engine import BATCH_TOKENS, Engine, adapter_or_base, prompt_for
from xinglin.inference.generation import Generation, before_marks, stored_generation
from xinglin.records import Example, Prediction
from xinglin.tokenizer import load_tokenizer
from xinglin.tuning.methods import adapter_settings, is_bottleneck


@dataclass(frozen=True)
class VllmEngine(Engine):
    """An engine whose model is vLLM's.

    Attributes:
        model: what an engine asks of a model beside answers: its config and generation config.
        llm: vLLM's.
        lora: vLLM's request for the adapter; None for none.
    """

    llm: Any = None
    lora: Any = None

    def answer(
        self,
        examples: Sequence[Example],
        generation: Generation,
        batch_size: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Iterator[Prediction]:
        """As `Engine.answer`; vLLM makes its batches itself."""
        from vllm import SamplingParams

        marks = self.encoding.template.marks
        settings = SamplingParams(
            max_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            top_p=generation.top_p,
            repetition_penalty=generation.repetition_penalty,
            seed=generation.seed,
            stop=list(marks),
            stop_token_ids=list(self.stops),
            skip_special_tokens=True,
        )
        asked = [{"prompt_token_ids": self.prompt(one)} for one in examples]
        for example, made in zip(examples, self.llm.generate(asked, settings, lora_request=self.lora), strict=True):
            [answer] = made.outputs
            text = before_marks(answer.text, marks).strip()
            yield self.as_prediction(example, generation, text, answer.finish_reason)


def load_vllm(
    base_model: str,
    adapter: str,
    template: str,
    precision: Precision,
    quantization: str = "",
    thinking: str = "auto",
) -> VllmEngine:
    """As `load_engine`.

    Raises:
        UserError: vLLM is missing, refuses the model, or cannot take the adapter; or as `load_engine`.
    """
    base_model, adapter = adapter_or_base(base_model, adapter)
    if adapter and is_bottleneck(adapter):
        raise UserError(f"lora_weights {adapter!r}: vLLM takes no bottleneck adapter; leave out --backend vllm")
    if quantization == "8bit":
        raise UserError("backend vllm loads in 4 bit or in half precision, not in 8 bit; leave out --load_8bit")
    try:
        from vllm import LLM
        from vllm.lora.request import LoRARequest
    except ImportError:
        raise UserError("backend vllm: vLLM is not installed; pip install vllm (on a machine with a GPU)") from None
    found = find_base(base_model)
    tokenizer = load_tokenizer(found)
    prompt = prompt_for(base_model, adapter, template, thinking, tokenizer)
    config = AutoConfig.from_pretrained(found)
    try:
        ends = GenerationConfig.from_pretrained(found).eos_token_id
    except OSError:  # a base without the file
        ends = config.eos_token_id
    rank = {"enable_lora": True, "max_lora_rank": adapter_settings(adapter)["r"]} if adapter else {}
    try:
        llm = LLM(
            model=str(found),
            dtype={torch.bfloat16: "bfloat16", torch.float16: "float16"}.get(precision.dtype, "float32"),
            tensor_parallel_size=max(1, torch.cuda.device_count()),
            quantization="bitsandbytes" if quantization else None,
            **rank,
        )
    except Exception as error:  # vLLM raises what it likes
        raise UserError(f"backend vllm: {one_line(error)}") from None
    return VllmEngine(
        SimpleNamespace(config=config, generation_config=SimpleNamespace(eos_token_id=ends)),
        Encoding(tokenizer, prompt),
        base_model,
        adapter,
        stored_generation(adapter or base_model),
        llm=llm,
        lora=LoRARequest("adapter", 1, adapter) if adapter else None,
    )
