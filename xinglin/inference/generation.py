"""How answers are made, token by token: greedy or sampled, and when to stop.

An answer depends on its question and on these settings alone, not on the batch that it came in: a sampled one draws
from a generator of its own (Gumbel-max), so batching, streaming and another order of questions change nothing but
what a number format's rounding does.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria, TopPLogitsWarper

from xinglin.errors import UserError, one_line
from xinglin.prompts import RUN_FILE

_LOOK_EVERY = 8  # tokens, between looks for a loop
_LONGEST_PERIOD = 64  # tokens of what is said again and again
_SPAN, _TIMES = 32, 3  # a loop fills so many tokens at least, and says its piece so many times
_MARK_TOKENS = 24  # no mark of a turn is longer


@dataclass(frozen=True)
class Generation:
    """How answers are made.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 takes the likeliest token always (greedy); above, tokens are drawn.
        top_p: drawn from the likeliest tokens that have this share of the probability together.
        repetition_penalty: above 1 makes tokens that stood before less likely, those of the facts too.
        seed: of what is drawn.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse what no answer can be made with.

        Raises:
            UserError: a setting out of its range.
        """
        ranges = {
            "max_new_tokens": self.max_new_tokens >= 1,
            "temperature": 0 <= self.temperature <= 5,
            "top_p": 0 < self.top_p <= 1,
            "repetition_penalty": 0 < self.repetition_penalty <= 10,
        }
        for name, fine in ranges.items():
            if not fine:
                raise UserError(f"{name} {getattr(self, name)} makes no sense; {_ADVICE[name]}")

    def record(self) -> dict[str, Any]:
        """As stored with a Prediction."""
        plain = {"max_new_tokens": self.max_new_tokens, "do_sample": bool(self.temperature)}
        return plain | {name: value for name, value in asdict(self).items() if value != getattr(Generation, name)}


_ADVICE = {
    "max_new_tokens": "must be at least 1",
    "temperature": "0 is greedy, up to 5 can be drawn with",
    "top_p": "must be above 0 and at most 1",
    "repetition_penalty": "1 is none, up to 10",
}


def stored_generation(folder: str) -> Generation:
    """The settings that `finetune` stored with tuned weights; the defaults where there are none.

    Raises:
        UserError: the file is broken, or a setting out of its range.
    """
    path = Path(folder) / RUN_FILE
    if not folder or not path.is_file():
        return Generation()
    try:
        said = dict(json.loads(path.read_text("utf-8")).get("generation", {}))
        return Generation(**{name: said[name] for name in Generation.__dataclass_fields__ if name in said})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its generation settings cannot be read: {one_line(error)}") from None


class Drawing(LogitsProcessor):  # type: ignore[misc]
    """Turns the greedy choice into a draw: scores of (B, V) get noise, each row from its own generator."""

    def __init__(self, generation: Generation, generators: Sequence[torch.Generator]) -> None:
        self._temperature = generation.temperature
        self._nucleus = TopPLogitsWarper(generation.top_p) if generation.top_p < 1 else None
        self._generators = generators

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Scores whose maximum is the token drawn. Source: Gumbel 1954; Maddison et al., "A* Sampling", 2014."""
        scores_BV: torch.Tensor = scores.float() / self._temperature
        if self._nucleus:
            scores_BV = self._nucleus(input_ids, scores_BV)  # type: ignore[arg-type]
        noise_BV = torch.stack([torch.rand(scores_BV.shape[1], generator=one) for one in self._generators])
        noise_BV = noise_BV.clamp_min(torch.finfo(torch.float32).tiny).to(scores_BV.device)
        return scores_BV - torch.log(-torch.log(noise_BV))


def generator(seed: int, ids: Sequence[int]) -> torch.Generator:
    """What the answer to a prompt is drawn with."""
    digest = hashlib.sha256(f"{seed} {list(ids)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


class Ending(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at an end token, where it begins another turn, or when it goes round in circles.

    Attributes:
        reasons: row → (tokens that belong to the answer, `stop` or `repetition`), of rows that have ended.
    """

    def __init__(
        self, starts: Sequence[int], stops: Sequence[int], marks: Sequence[str], decode: Callable[[list[int]], str]
    ) -> None:
        self._starts, self._stops, self._marks, self._decode = starts, frozenset(stops), marks, decode
        self.reasons: dict[int, tuple[int, str]] = {}

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows are done, (B,)."""
        lengths = [input_ids.shape[1] - start for start in self._starts]
        look = any(length % _LOOK_EVERY == 0 for length in lengths)
        looping = set(_looping(input_ids, lengths)) if look else set()
        tails = input_ids[:, -_MARK_TOKENS:].tolist()
        for row, (tail, length) in enumerate(zip(tails, lengths, strict=True)):
            if row in self.reasons:
                continue
            if tail[-1] in self._stops:
                self.reasons[row] = (length - 1, "stop")
            elif self._marks and _marked(self._decode(tail[-length:]), self._marks):
                self.reasons[row] = (length, "stop")
            elif length % _LOOK_EVERY == 0 and row in looping:
                self.reasons[row] = (length, "repetition")
        return torch.tensor([row in self.reasons for row in range(len(tails))], device=input_ids.device)


def _marked(text: str, marks: Sequence[str]) -> bool:
    return any(mark in text for mark in marks)


def before_marks(text: str, marks: Sequence[str]) -> str:
    """What stands before the first mark of a turn."""
    return text[: min((place for mark in marks if (place := text.find(mark)) >= 0), default=len(text))]


def _looping(ids_BT: torch.Tensor, lengths: Sequence[int]) -> list[int]:
    """Rows whose end is one piece, said again and again; of each row the last `lengths` tokens are the answer."""
    columns = ids_BT.shape[1]
    own_B = torch.tensor(lengths, device=ids_BT.device)
    found_B = torch.zeros(len(ids_BT), dtype=torch.bool, device=ids_BT.device)
    for period in range(1, _LONGEST_PERIOD + 1):
        span = period * max(_TIMES, -(-_SPAN // period))
        if span <= max(lengths):
            same_B = (ids_BT[:, columns - span + period :] == ids_BT[:, columns - span : columns - period]).all(1)
            found_B |= same_B & (own_B >= span)
    return found_B.nonzero().flatten().tolist()
