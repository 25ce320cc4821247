"""One engine behind everything that answers: the base, an adapter, and the prompt stored with it."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache, TextIteratorStreamer

from xinglin.backbone import Precision, agree, find_base, load_base
from xinglin.dataset.encode import Encoding
from xinglin.prompts import RUN_FILE, Prompt, choose_thinking, open_prompt, prompt_text, stored_prompt
from xinglin.records import Example, Prediction
from xinglin.tokenizer import Tokenizer, load_tokenizer
from xinglin.tuning.methods import adapter_settings, put_on

log = logging.getLogger(__name__)

_WORTH_SHARING = 64
"""Tokens that a common prefix must have for being run apart; the preface of a template is not worth a pass."""


@dataclass(frozen=True)
class Generation:
    """How answers are made: greedy, so that the same question gets the same answer."""

    max_new_tokens: int = 256

    def record(self) -> dict[str, Any]:
        """As stored with a Prediction."""
        return {"max_new_tokens": self.max_new_tokens, "do_sample": False}


@dataclass(frozen=True)
class Engine:
    """A model ready to answer. Build it with `load_engine`."""

    model: Any
    encoding: Encoding
    base: str
    adapter: str

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Ids that end an answer: the prompt's own, EOS, and what the base says of itself."""
        own = self.model.generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own] if own is not None else []
        return tuple(dict.fromkeys((self.encoding.end_id, self.encoding.tokenizer.eos_id, *listed)))

    def answer(self, examples: Sequence[Example], generation: Generation, batch_size: int = 16) -> Iterator[Prediction]:
        """Answer the last question of each example, in batches of prompts of similar length.

        Predictions come as batches finish, not in the order asked; their ids tell them apart.
        """
        asked = [(example, self.encoding.prompt(_question(example))) for example in examples]
        asked.sort(key=lambda pair: -len(pair[1]))
        for start in range(0, len(asked), batch_size):
            group = asked[start : start + batch_size]
            began = time.perf_counter()
            answers = self._generate([ids for _, ids in group], generation)
            seconds = (time.perf_counter() - began) / len(group)
            for (example, _), (text, reason) in zip(group, answers, strict=True):
                yield self.as_prediction(example, generation, text, reason, seconds)

    def stream(self, example: Example, generation: Generation) -> Iterator[str]:
        """The answer to one example, in pieces as they are made."""
        streamer = TextIteratorStreamer(self.encoding.tokenizer.inner, skip_prompt=True, skip_special_tokens=True)
        ids_BT = torch.tensor([self.encoding.prompt(_question(example))], device=self.model.device)
        failures: list[Exception] = []

        def work() -> None:
            try:
                self._run(ids_BT, torch.ones_like(ids_BT), generation, streamer)
            except Exception as error:
                failures.append(error)
                streamer.end()  # else the reader below waits for ever

        thread = Thread(target=work, daemon=True)
        thread.start()
        yield from streamer
        thread.join()
        if failures:
            raise failures[0]

    def as_prediction(
        self, example: Example, generation: Generation, text: str, reason: str = "stop", seconds: float = 0.0
    ) -> Prediction:
        """An answer to the last question of an example, as a record."""
        return Prediction(
            id=example.id,
            prompt=prompt_text(self.encoding.template, _question(example)),
            answer=text,
            model=self.base,
            adapter=self.adapter,
            generation=generation.record(),
            facts=example.facts if example.question.input else (),
            finish_reason=reason,
            seconds=round(seconds, 3),
        )

    def _generate(self, prompts: list[list[int]], generation: Generation) -> list[tuple[str, str]]:
        """(text, finish reason) of each prompt.

        What all prompts begin with is run once; the rest is padded on the left, so that all answers begin together.
        """
        shared = _common_prefix(prompts) if len(prompts) > 1 else 0
        shared = shared if shared >= _WORTH_SHARING else 0
        longest = max(map(len, prompts))
        pad = self.encoding.tokenizer.pad_id
        device = self.model.device
        ids = [p[:shared] + [pad] * (longest - len(p)) + p[shared:] for p in prompts]
        mask = [[1] * shared + [0] * (longest - len(p)) + [1] * (len(p) - shared) for p in prompts]
        cache = self._prefix_cache(prompts[0][:shared], len(prompts)) if shared else None
        made_BT = self._run(
            torch.tensor(ids, device=device), torch.tensor(mask, device=device), generation, cache=cache
        )
        return [self._ended(new.tolist()) for new in made_BT[:, longest:]]

    @torch.inference_mode()
    def _prefix_cache(self, prefix: list[int], copies: int) -> DynamicCache:
        """Keys and values of a prefix, computed once and repeated for each row."""
        cache = DynamicCache(config=self.model.config)
        self.model(
            input_ids=torch.tensor([prefix], device=self.model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(copies)
        return cache

    def _ended(self, ids: list[int]) -> tuple[str, str]:
        end = next((place for place, token in enumerate(ids) if token in self.stops), None)
        return self.encoding.tokenizer.decode(ids[:end]).strip(), "length" if end is None else "stop"

    @torch.inference_mode()
    def _run(
        self,
        ids_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        generation: Generation,
        streamer: Any = None,
        cache: DynamicCache | None = None,
    ) -> Any:
        tokenizer = self.encoding.tokenizer
        return self.model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=generation.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(self.stops),
            pad_token_id=tokenizer.pad_id,
            streamer=streamer,
            past_key_values=cache,
        )


def _common_prefix(prompts: list[list[int]]) -> int:
    """How many first ids all prompts share; each keeps at least one of its own."""
    first, last = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    return next((n for n in range(limit) if first[n] != last[n]), limit)


def _question(example: Example) -> tuple[Any, ...]:
    """The turns up to the last question."""
    return example.turns[:-1] if example.turns[-1].role == "assistant" else example.turns


def load_engine(
    base_model: str,
    adapter: str,
    template: str,
    precision: Precision,
    quantization: str = "",
    thinking: str = "auto",
) -> Engine:
    """Load a base and, unless `adapter` is empty, put the adapter on.

    Args:
        adapter: what `finetune` wrote; a whole model (method full) takes the base's place.
        template: a prompt's name or file; `auto` takes the one stored with the weights, else the base's own.
        quantization: `4bit`, `8bit`, or an empty string.
        thinking: `true`, `false`, or `auto` for as the prompt has it.

    Raises:
        UserError: base or adapter missing or not fitting each other, unknown prompt.
    """
    if holds_whole_model(adapter):
        base_model, adapter = adapter, ""
    elif adapter:
        adapter_settings(adapter)
    found = find_base(base_model)
    tokenizer = load_tokenizer(found)
    prompt = choose_thinking(_prompt(template, adapter or found, tokenizer), thinking)
    model = load_base(base_model, precision, quantization=quantization)
    agree(model, tokenizer)
    if adapter:
        model = _fold(put_on(model, adapter, base_model), quantization)
    return Engine(model.eval(), Encoding(tokenizer, prompt), base_model, adapter)


def require_tuned(folder: str) -> None:
    """Refuse a folder that `finetune` did not write, before anything is loaded.

    Raises:
        UserError: it holds neither an adapter nor a whole model.
    """
    if not holds_whole_model(folder):
        adapter_settings(folder)


def holds_whole_model(folder: str) -> bool:
    """Whether a folder holds a model whose every weight was tuned (method full)."""
    return bool(folder) and all((Path(folder) / name).is_file() for name in ("config.json", RUN_FILE))


def _prompt(asked: str, stored: str, tokenizer: Tokenizer) -> Prompt:
    """The prompt asked for, with a warning where weights were tuned with another."""
    chosen = open_prompt(asked, tokenizer.inner, stored)
    own = stored_prompt(stored, tokenizer.inner)
    if own and own.digest() != chosen.digest():
        log.warning("prompt template %r is not the one the weights were tuned with (%r)", asked, own.name)
    return chosen


def _fold(tuned: Any, quantization: str) -> Any:
    """Fold a LoRA into a base of whole numbers, which saves two matmuls a layer; anything else stays beside it."""
    if isinstance(tuned, PeftModel):
        return tuned if quantization else tuned.merge_and_unload()
    tuned.adapters_to(tuned.dtype)
    return tuned
