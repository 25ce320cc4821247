"""How several files of data become one epoch.

    --data_path expert.json,general.json --data_weights 0.8,0.2

An epoch is one pass over the first file; of the others it takes their share, each time other records, until all were
seen, then again. Without weights every record of every file comes once an epoch.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from xinglin.config import listed
from xinglin.errors import UserError


@dataclass(frozen=True)
class Mixture:
    """Which records an epoch takes, and in which order: a pure function of the seed and the epoch's number.

    Attributes:
        sizes: records of each source.
        weights: share of each source in an epoch; they sum to 1. Empty for no mixing.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()
    seed: int = 42

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Records that an epoch takes of each source."""
        if not self.weights:
            return self.sizes
        whole = self.sizes[0] / self.weights[0]
        return self.sizes[0], *(max(1, round(whole * weight)) for weight in self.weights[1:])

    def epoch(self, number: int) -> list[int]:
        """The records of an epoch in order, as places in the sources put one after the other."""
        starts = (0, *accumulate(self.sizes))
        taken = [
            start + place
            for source, (start, count) in enumerate(zip(starts, self.counts, strict=False))
            for place in self._stretch(source, number * count, (number + 1) * count)
        ]
        random.Random(f"{self.seed} {number}").shuffle(taken)
        return taken

    def _stretch(self, source: int, start: int, end: int) -> Iterator[int]:
        """A stretch of the endless row of passes over a source, each pass in an order of its own."""
        size = self.sizes[source]
        for number in range(start // size, -(-end // size)):
            order = list(range(size))
            random.Random(f"{self.seed} {source} {number}").shuffle(order)
            yield from order[max(0, start - number * size) : end - number * size]


def read_weights(given: str | list[float], sources: int) -> tuple[float, ...]:
    """`0.8,0.2` or a list of numbers, checked against the number of data files.

    Raises:
        UserError: not numbers, not one a file, not above 0, or not 1 in sum.
    """
    try:
        weights = tuple(map(float, listed(given)))
    except ValueError:
        raise UserError(f"data_weights {given!r}: give numbers joined by commas, such as 0.8,0.2") from None
    if not weights:
        return ()
    if len(weights) != sources:
        raise UserError(f"data_weights has {len(weights)} numbers, data_path {sources} files; give one for each file")
    if not all(0 < weight <= 1 for weight in weights):
        raise UserError(f"data_weights {given!r}: each must be above 0 and at most 1")
    total = sum(weights)
    if abs(total - 1) > 1e-3:
        would = ",".join(f"{weight / total:.3g}" for weight in weights)
        raise UserError(f"data_weights sum to {total:.4g}, not 1; in the same proportions: {would}")
    return weights
