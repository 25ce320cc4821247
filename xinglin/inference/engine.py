"""One engine behind everything that answers: the base, an adapter, and the prompt stored with it."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache, TextIteratorStreamer

from xinglin.backbone import Precision, find_base, load_base
from xinglin.dataset.encode import Encoding
from xinglin.errors import UserError, one_line
from xinglin.prompts import PromptTemplate, load_template
from xinglin.records import Example, Prediction
from xinglin.tokenizer import load_tokenizer

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
                yield self._prediction(example, generation, text, reason, seconds)

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

    def _prediction(
        self, example: Example, generation: Generation, text: str, reason: str, seconds: float
    ) -> Prediction:
        return Prediction(
            id=example.id,
            prompt=self.encoding.template.prompt(_question(example)),
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
        end = self.encoding.tokenizer.eos_id
        stopped = end in ids
        kept = ids[: ids.index(end)] if stopped else ids
        return self.encoding.tokenizer.decode(kept).strip(), "stop" if stopped else "length"

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
            eos_token_id=tokenizer.eos_id,
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


def require_adapter(folder: str) -> None:
    """Refuse a folder that holds no adapter.

    Raises:
        UserError: it has no adapter_config.json.
    """
    if not folder or not (Path(folder) / "adapter_config.json").is_file():
        raise UserError(f"lora_weights {folder!r}: no adapter_config.json there; give the folder that finetune wrote")


def load_engine(base_model: str, adapter: str, template: str, precision: Precision) -> Engine:
    """Load a base and, unless `adapter` is empty, put the adapter on.

    Args:
        template: a template's name or file; `auto` takes the one stored with the adapter.

    Raises:
        UserError: base or adapter missing or not fitting each other, unknown template.
    """
    if adapter:
        require_adapter(adapter)
    chosen = _template(template, adapter)
    found = find_base(base_model)
    encoding = Encoding(load_tokenizer(found), chosen)
    model = load_base(base_model, precision)
    if adapter:
        model = _put_on(model, adapter)
    model.eval()
    return Engine(model, encoding, base_model, adapter)


def _template(asked: str, adapter: str) -> PromptTemplate:
    stored = Path(adapter) / "prompt_template.json" if adapter else None
    own = load_template(str(stored)) if stored and stored.is_file() else None
    if asked == "auto":
        return own or load_template("med_template")
    chosen = load_template(asked)
    if own and own.digest() != chosen.digest():
        log.warning("prompt template %r is not the one the adapter was tuned with (%r)", asked, own.name)
    return chosen


def _put_on(model: Any, adapter: str) -> Any:
    """Load the adapter (weights only: a .bin that carries code is refused) and fold it into the base's weights."""
    try:
        tuned = PeftModel.from_pretrained(model, adapter)
    except Exception as error:
        raise UserError(f"lora_weights {adapter!r} does not load onto this base: {one_line(error)}") from None
    updates = [weight for name, weight in tuned.named_parameters() if ".lora_B." in name]
    if updates and not any(weight.any() for weight in updates):
        raise UserError(
            f"lora_weights {adapter!r}: every update is zero, so it changes nothing; is it for another base?"
        )
    return tuned.merge_and_unload()
