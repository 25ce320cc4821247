"""Lengths of records in characters and tokens, and what a cutoff does to them."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xinglin.dataset.encode import Encoding
from xinglin.dataset.quality.detect import Texts
from xinglin.records import Example

EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Where the bars of a histogram begin; the last has no end."""


def figures(values: Sequence[int]) -> dict[str, Any]:
    """Minimum, median, 95th percentile, maximum, mean and a histogram over `EDGES`."""
    found = np.asarray(values)
    counts = np.histogram(found, [*EDGES, np.inf])[0]
    quantiles = {"min": 0, "median": 50, "p95": 95, "max": 100}
    return {
        **{name: int(np.percentile(found, share, method="lower")) for name, share in quantiles.items()},
        "mean": round(float(found.mean()), 1),
        "histogram": counts.tolist(),
    }


class Lengths:
    """Characters of questions (with their knowledge) and answers."""

    def __init__(self) -> None:
        self._question, self._answer = array("I"), array("I")

    def add(self, texts: Texts) -> None:
        """Measure one record."""
        self._question.append(len(texts.asked) + len(texts.context))
        self._answer.append(len(texts.answer))

    def figures(self) -> dict[str, Any]:
        """Figures of `question` and `answer`."""
        return {"question": figures(self._question), "answer": figures(self._answer)}


class TokenLengths:
    """Tokens of whole records as training would see them, and what the cutoff costs.

    Our encoder ends a cut record with EOS. Plain truncation does not: there every record over the cutoff loses its EOS,
    and the model does not learn to stop.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._whole = replace(encoding, cutoff_len=1 << 40)
        self._tokens = array("I")
        self._refused = self._characters = 0

    def add(self, example: Example) -> None:
        """Encode one record."""
        tokens = max(len(row.input_ids) for row in self._whole.rows(example))
        self._tokens.append(tokens)
        self._characters += sum(len(turn.content) + len(turn.input) for turn in example.turns)
        if tokens > self._encoding.cutoff_len:
            self._refused += not any(row.targets for row in self._encoding.rows(example))

    def figures(self) -> dict[str, Any]:
        """Figures of the lengths, and the counts.

        `cut` records are cut by training; as many would lose their EOS under plain truncation; of `refused` ones the
        cutoff leaves nothing to learn.
        """
        cut = int((np.asarray(self._tokens) > self._encoding.cutoff_len).sum())
        counts = {"cut": cut, "eos_lost_when_truncated_plainly": cut, "eos_lost_by_ours": 0, "refused": self._refused}
        per_character = round(sum(self._tokens) / max(self._characters, 1), 3)
        return {**counts, "tokens_per_character": per_character, "lengths": figures(self._tokens)}
