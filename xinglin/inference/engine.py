"""One engine behind everything that answers: the base, an adapter, and the prompt stored with it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig

from xinglin.backbone import Precision, agree, find_base, keep_memory, load_base
from xinglin.dataset.encode import Encoding
from xinglin.errors import UserError
from xinglin.inference.generation import Generation, before_marks, drawn, penalized, stored_generation, why_ended
from xinglin.inference.on_cpu import attend_by_matmul, lay_out
from xinglin.inference.rows import Batch, Row
from xinglin.prompts import (
    RUN_FILE,
    Prompt,
    choose_thinking,
    disarmed,
    open_prompt,
    prompt_text,
    stored_prompt,
    with_knowledge,
)
from xinglin.records import Example, Prediction, Turn
from xinglin.tokenizer import Tokenizer, load_tokenizer
from xinglin.tuning.methods import Beside, adapter_settings, is_bottleneck, put_on

log = logging.getLogger(__name__)

_STAGE = 16
"""Tokens made at most before the answers that are done leave a batch, and others move up."""
_MANY = 0.12
"""Share of a batch's answers that are done, for them to leave at once."""
BATCH_TOKENS = 16_384
"""Tokens of a batch, answers included. In bf16 their keys and values take 0.4 GB of the default base, 9 GB of a LLaMA
7B."""


@dataclass(frozen=True)
class Engine:
    """A model ready to answer. Build it with `load_engine`, or several on one base with `load_engines`.

    Attributes:
        generation: the settings stored with the weights.
        activate: makes this engine's adapter the active one, where several share a base.
    """

    model: Any
    encoding: Encoding
    base: str
    adapter: str
    generation: Generation = field(default_factory=Generation)
    activate: Callable[[], None] = lambda: None

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Ids that end an answer: the prompt's own, EOS, what the base says of itself, and what parts turns."""
        inner = self.encoding.tokenizer.inner
        own = self.model.generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own] if own is not None else []
        parting = [token for token in self.encoding.prompt((Turn("user", "甲"),)) if token in inner.all_special_ids]
        return tuple(dict.fromkeys((self.encoding.end_id, self.encoding.tokenizer.eos_id, *listed, *parting)))

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """What no question may bring along: marks of turns, special tokens."""
        return (*self.encoding.template.marks, *self.encoding.tokenizer.inner.all_special_tokens)

    def prompt(self, example: Example) -> list[int]:
        """Ids up to the answer to an example's last question.

        Raises:
            UserError: they leave no room for an answer.
        """
        ids = self.encoding.prompt(self._asked(example))
        room: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if room and len(ids) >= room:
            raise UserError(f"{example.id}: the question takes {len(ids)} tokens, the base {room}; shorten it")
        return ids

    def answer(
        self,
        examples: Sequence[Example],
        generation: Generation,
        batch_size: int = 64,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Iterator[Prediction]:
        """Answer the last question of each example, in batches of prompts of similar length.

        Predictions come as batches finish, not in the order asked; their ids tell them apart.

        Args:
            batch_size: most questions in a batch.
            batch_tokens: most tokens in a batch, the answers' room counted; a question alone may take more.

        Raises:
            UserError: as `prompt`.
        """
        rows = (Row(example, self.prompt(example)) for example in examples)
        # the shortest first: those that join are as long as those that are there have become
        waiting = sorted(rows, key=lambda row: len(row.prompt))
        batch = self._batch()
        while waiting or batch.rows:
            began = time.perf_counter()
            self.activate()
            longest = max([batch.columns, *(len(row.prompt) for row in waiting[:batch_size])])
            longest += generation.max_new_tokens
            room = max(1, min(batch_size, batch_tokens // longest)) - len(batch.rows)
            if waiting and room > 0:
                batch.add(waiting[:room])
                waiting = waiting[room:]
            # in stages, so that a row which ends early makes room for another
            self._go_on(batch, generation, _STAGE)
            seconds = (time.perf_counter() - began) / len(batch.rows)
            for row in batch.rows:
                row.seconds += seconds
            for row in batch.leave(lambda row: bool(row.reason)):
                text = self._text(row.answer)
                yield self.as_prediction(row.example, generation, text, row.reason, row.seconds)

    def stream(self, example: Example, generation: Generation) -> Iterator[str]:
        """The answer to one example, in pieces as they are made; together they are what `answer` gives.

        Raises:
            UserError: as `prompt`.
        """
        row, batch, shown = Row(example, self.prompt(example)), self._batch(), ""
        self.activate()
        batch.add([row])
        while not row.reason:
            self.activate()  # another engine on the same base may have answered in between
            self._go_on(batch, generation, 1)
            text = self._certain(row.answer)
            if text.startswith(shown) and text != shown:
                yield text[len(shown) :]
                shown = text
        yield self._text(row.answer)[len(shown) :]

    def _certain(self, ids: list[int]) -> str:
        """What of an unfinished answer will stay: no half character, no blank at its end, no beginning of a mark."""
        text = self._text(ids).rstrip("\ufffd")
        begun = [mark[:n] for mark in self.encoding.template.marks for n in range(1, len(mark))]
        cut = max((len(one) for one in begun if text.endswith(one)), default=0)
        return text[: len(text) - cut].rstrip()

    def as_prediction(
        self, example: Example, generation: Generation, text: str, reason: str = "stop", seconds: float = 0.0
    ) -> Prediction:
        """An answer to the last question of an example, as a record."""
        return Prediction(
            id=example.id,
            prompt=self.prompt_text(example),
            answer=text,
            model=self.base,
            adapter=self.adapter,
            generation=generation.record(),
            facts=example.facts if example.question.input else (),
            finish_reason=reason,
            seconds=round(seconds, 3),
            question=with_knowledge(example.question),
        )

    def prompt_text(self, example: Example) -> str:
        """What is asked, as text."""
        return prompt_text(self.encoding.template, self._asked(example))

    def _asked(self, example: Example) -> tuple[Turn, ...]:
        """The turns up to the last question, none of which can break the prompt."""
        turns = example.turns[:-1] if example.turns[-1].role == "assistant" else example.turns
        return tuple(disarmed(turn, self._marks) for turn in turns)

    def _batch(self) -> Batch:
        return Batch(self.model, self.encoding.tokenizer.pad_id)

    def _go_on(self, batch: Batch, generation: Generation, steps: int) -> None:
        """Make some more tokens of every row's answer, and note which are done; stops early where many are."""
        draws = [row.draw(generation) for row in batch.rows] if generation.temperature else []
        for _ in range(steps):
            scores_BV = batch.step()
            if generation.repetition_penalty != 1:
                ids = [row.ids for row in batch.rows]
                scores_BV = penalized(scores_BV, ids, generation.repetition_penalty)
            if draws:
                scores_BV = drawn(scores_BV, generation, draws)
            batch.append(scores_BV.argmax(1).tolist())
            for row in batch.rows:
                row.reason = row.reason or self._ended(row, generation)
            if sum(bool(row.reason) for row in batch.rows) >= len(batch.rows) * _MANY:
                return

    def _ended(self, row: Row, generation: Generation) -> str:
        """Why a row ends here, if it does."""
        reason = why_ended(row.answer, self.stops, self.encoding.template.marks, self.encoding.tokenizer.decode)
        return reason or ("length" if row.made >= generation.max_new_tokens else "")

    def _text(self, ids: list[int]) -> str:
        """An answer's text, up to its end token or the mark of another turn."""
        end = next((place for place, token in enumerate(ids) if token in self.stops), len(ids))
        return before_marks(self.encoding.tokenizer.decode(ids[:end]), self.encoding.template.marks).strip()


def load_engine(
    base_model: str,
    adapter: str,
    template: str,
    precision: Precision,
    quantization: str = "",
    thinking: str = "auto",
) -> Engine:
    """Load a base and, unless `adapter` is empty, put the adapter on; a LoRA is folded in where that can be.

    Args:
        adapter: what `finetune` wrote; a whole model (method full) takes the base's place.
        template: a prompt's name or file; `auto` takes the one stored with the weights, else the base's own.
        quantization: `4bit`, `8bit`, or an empty string.
        thinking: `true`, `false`, or `auto` for as the prompt has it.

    Raises:
        UserError: base or adapter missing or not fitting each other, unknown prompt.
    """
    base_model, adapter = adapter_or_base(base_model, adapter)
    tokenizer = load_tokenizer(find_base(base_model))
    prompt = prompt_for(base_model, adapter, template, thinking, tokenizer)
    model = _base(base_model, precision, quantization, tokenizer)
    if adapter:
        model = _fold(put_on(model, adapter, base_model), quantization)
    lay_out(model)
    generation = stored_generation(adapter or base_model)
    return Engine(model.eval(), Encoding(tokenizer, prompt), base_model, adapter, generation)


def load_engines(
    base_model: str,
    adapters: Sequence[str],
    template: str,
    precision: Precision,
    quantization: str = "",
    thinking: str = "auto",
) -> list[Engine]:
    """Load a base once, and an engine for each adapter beside it; asking another engine switches, nothing is reloaded.

    An adapter beside its base takes two matmuls more a layer than one that `load_engine` folds in.

    Args:
        adapters: folders of LoRA or bottleneck adapters; an empty string is the plain base.

    Raises:
        UserError: as `load_engine`, or a whole model among the adapters.
    """
    for adapter in filter(None, adapters):
        if holds_whole_model(adapter):
            raise UserError(f"{adapter}: is a whole model, which stands beside no other; ask it by itself")
        adapter_settings(adapter)
    tokenizer = load_tokenizer(find_base(base_model))
    prompts = [prompt_for(base_model, adapter, template, thinking, tokenizer) for adapter in adapters]
    base = _base(base_model, precision, quantization, tokenizer)
    beside = Beside(base, base_model)
    # every LoRA first: what a LoRA tunes is found by names, among which there must be none of another adapter's
    for adapter in sorted(filter(None, adapters), key=is_bottleneck):
        beside.add(adapter)
    beside.activate("")
    return [
        Engine(
            base.eval(),
            Encoding(tokenizer, prompt),
            base_model,
            adapter,
            stored_generation(adapter),
            partial(beside.activate, adapter),
        )
        for adapter, prompt in zip(adapters, prompts, strict=True)
    ]


def _base(base_model: str, precision: Precision, quantization: str, tokenizer: Tokenizer) -> Any:
    """The base, which generates as it is told and not by settings of its own (a repetition penalty, say)."""
    keep_memory()
    model = load_base(base_model, precision, quantization=quantization)
    agree(model, tokenizer)
    attend_by_matmul(model)
    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
    return model


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


def adapter_or_base(base_model: str, adapter: str) -> tuple[str, str]:
    """(base, adapter) as they are to be loaded: a whole model takes the base's place.

    Raises:
        UserError: the adapter's folder holds neither.
    """
    if holds_whole_model(adapter):
        return adapter, ""
    if adapter:
        adapter_settings(adapter)
    return base_model, adapter


def prompt_for(base_model: str, adapter: str, asked: str, thinking: str, tokenizer: Tokenizer) -> Prompt:
    """The prompt asked for, with a warning where weights were tuned with another.

    Raises:
        UserError: no such prompt, or it has no thinking switch.
    """
    stored = adapter or find_base(base_model)
    chosen = open_prompt(asked, tokenizer.inner, stored)
    own = stored_prompt(stored, tokenizer.inner)
    if own and own.digest() != chosen.digest():
        log.warning("prompt template %r is not the one the weights were tuned with (%r)", asked, own.name)
    return choose_thinking(chosen, thinking)


def _fold(tuned: Any, quantization: str) -> Any:
    """Fold a LoRA into a base of whole numbers, which saves two matmuls a layer; anything else stays beside it."""
    if isinstance(tuned, PeftModel):
        return tuned if quantization else tuned.merge_and_unload()
    tuned.adapters_to(tuned.dtype)
    return tuned
