"""How answers are made, token by token: greedy or sampled, and when to stop.

An answer depends on its question and on these settings alone, not on the batch that it came in: a sampled one draws
from a generator of its own (Gumbel-max), so batching, streaming and another order of questions change nothing but
what a number format's rounding does.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

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


def drawn(scores_BV: torch.Tensor, generation: Generation, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Scores whose maximum is the token drawn, each row's from its own generator.

    Source: Gumbel 1954; Maddison et al., "A* Sampling", 2014.
    """
    scores_BV = scores_BV.float() / generation.temperature
    if generation.top_p < 1:
        scores_BV = TopPLogitsWarper(generation.top_p)(None, scores_BV)  # type: ignore[arg-type,assignment]
    noise_BV = torch.stack([torch.rand(scores_BV.shape[1], generator=one) for one in generators])
    noise_BV = noise_BV.clamp_min(torch.finfo(torch.float32).tiny).to(scores_BV.device)
    return scores_BV - torch.log(-torch.log(noise_BV))


def penalized(scores_BV: torch.Tensor, before: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Scores with what stood before in a row made less likely; row by row, since padding must not count."""
    lower = RepetitionPenaltyLogitsProcessor(penalty)
    rows = zip(scores_BV, before, strict=True)
    return torch.cat([lower(torch.tensor([ids], device=scores_V.device), scores_V[None]) for scores_V, ids in rows])  # type: ignore[arg-type]


def generator(seed: int, ids: Sequence[int]) -> torch.Generator:
    """What the answer to a prompt is drawn with."""
    digest = hashlib.sha256(f"{seed} {list(ids)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def why_ended(
    answer: Sequence[int], stops: Collection[int], marks: Sequence[str], decode: Callable[[list[int]], str]
) -> str:
    """Why an answer ends with its last token: `stop` at an end token or where it begins another turn, `repetition` when
    it goes round in circles; an empty string where it goes on.
    """
    if answer[-1] in stops:
        return "stop"
    if marks and before_marks(tail := decode(list(answer[-_MARK_TOKENS:])), marks) != tail:
        return "stop"
    return "repetition" if len(answer) % _LOOK_EVERY == 0 and _looping(answer) else ""


def before_marks(text: str, marks: Sequence[str]) -> str:
    """What stands before the first mark of a turn."""
    return text[: min((place for mark in marks if (place := text.find(mark)) >= 0), default=len(text))]


def _looping(ids: Sequence[int]) -> bool:
    """Whether the end of an answer is one piece, said again and again."""
    for period in range(1, _LONGEST_PERIOD + 1):
        span = period * max(_TIMES, -(-_SPAN // period))
        if span <= len(ids) and ids[-span + period :] == ids[-span:-period]:
            return True
    return False
