"""Which illness a person's words are most like, learned from what illnesses are called and how people tell of them.

脊梁骨长歪了，一边肩膀高，学校体检查出来的  →  脊柱侧凸

Character n-grams are embedded and averaged, and a linear layer over the illnesses is learned by softmax: the way of
fastText (Joulin et al. 2017, arXiv:1607.01759). It is learned among what else people say (`Words`), so that the rest
of a story weighs little. Shape suffixes: D illnesses, G n-grams, W width.
"""

import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xinglin.inference.classify import kept
from xinglin.records import atomic_write

log = logging.getLogger(__name__)

_BUCKETS_LOG2 = 18
_WIDTH = 96
_LONGEST = 3  # characters of an n-gram
_EPOCHS, _BATCH, _RATE = 5, 256, 8e-3
_AMONG = 0.5  # share of the examples that are put among other words
_MOST_AROUND = 5
_MANY = 10_000  # examples that are not learned at once
CLAUSE = re.compile("[，。！？、,.!?；;：:… \n]+")
_FACTOR, _SPREAD = np.uint64(1_000_003), np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Words:
    """What people say around an illness.

    Attributes:
        around: of their stories, a clause each.
        asking: how they ask.
    """

    around: tuple[str, ...] = ()
    asking: tuple[str, ...] = ()


class Namer:
    """Learned by `learn_names`, or read by `load`."""

    def __init__(self, grams: nn.EmbeddingBag, names: nn.Linear) -> None:
        self._grams, self._names = grams, names

    def chances(self, text: str) -> np.ndarray:
        """The probability of each illness, [D].

        Args:
            text: normalised.
        """
        with torch.inference_mode():
            chances_D: np.ndarray = self._scores([_places(text)])[0].softmax(-1).numpy()
        return chances_D

    def _scores(self, batch: Sequence[np.ndarray]) -> torch.Tensor:
        sizes = [len(places) for places in batch]
        starts = torch.tensor([0, *np.cumsum(sizes[:-1])])
        summed_BW = self._grams(torch.from_numpy(np.concatenate(batch)), starts)
        scores_BD: torch.Tensor = self._names(summed_BW / torch.tensor(sizes)[:, None] ** 0.5)
        return scores_BD

    def rounded(self) -> "Namer":
        """The same with numbers that fp16 holds, so that what is kept is what was learned."""
        with torch.no_grad():
            for weight in self._weights.values():
                weight.copy_(weight.half())
        return self

    @property
    def _weights(self) -> dict[str, torch.Tensor]:
        return {"grams": self._grams.weight, "names": self._names.weight, "bias": self._names.bias}

    def save(self, path: Path) -> None:
        """Write it as arrays of fp16, for `load`."""
        arrays: dict[str, Any] = {name: weight.detach().half().numpy() for name, weight in self._weights.items()}
        with atomic_write(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Namer":
        """Read what `save` wrote.

        Raises:
            OSError, ValueError, KeyError: it is not there, or broken.
        """
        with np.load(path, allow_pickle=False) as arrays:
            made = _untaught(len(arrays["bias"]))
            with torch.no_grad():
                for name, weight in made._weights.items():
                    weight.copy_(torch.from_numpy(arrays[name]))
        return made


def namer(examples: Sequence[tuple[str, int]], words: Words) -> Namer:
    """What `learn_names` learns, from the cache where it is kept."""
    settings = [_BUCKETS_LOG2, _WIDTH, _LONGEST, _EPOCHS, _BATCH, _RATE, _AMONG, _MOST_AROUND]

    def learn() -> Namer:
        if len(examples) > _MANY:
            log.info("learning what people call illnesses: a minute, this once")
        return learn_names(examples, words)

    return kept("names", [settings, list(examples), words.around, words.asking], Namer.load, learn)


def learn_names(examples: Sequence[tuple[str, int]], words: Words) -> Namer:
    """Learn; the same examples on the same machine give the same namer.

    Args:
        examples: normalised words for an illness, and its number.
        words: among which half of them are put.
    """
    chance = random.Random(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = _untaught(1 + max(number for _, number in examples))
    texts = [(_places(text), number) for text, number in examples]
    around, asking = ([_places(one) for one in said] for said in (words.around or ("",), words.asking or ("",)))

    def among_others(places: np.ndarray) -> np.ndarray:
        if chance.random() >= _AMONG:
            return places
        drawn = chance.choices(around, k=chance.randint(0, _MOST_AROUND))
        return np.concatenate([places, *drawn, *chance.choices(asking, k=chance.randint(0, 1))])

    steps = _EPOCHS * (len(texts) // _BATCH + 1)
    learners = (
        torch.optim.SparseAdam(made._grams.parameters(), lr=_RATE),
        torch.optim.Adam(made._names.parameters(), lr=_RATE),
    )
    plans = [torch.optim.lr_scheduler.OneCycleLR(one, _RATE, total_steps=steps) for one in learners]
    for _ in range(_EPOCHS):
        chance.shuffle(texts)
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            scores_BD = made._scores([among_others(places) for places, _ in batch])
            meant_B = torch.tensor([number for _, number in batch])
            nn.functional.cross_entropy(scores_BD, meant_B, label_smoothing=0.05).backward()  # type: ignore[no-untyped-call]
            for learner, plan in zip(learners, plans, strict=True):
                learner.step()
                plan.step()
                learner.zero_grad()
    return made.rounded()


def _untaught(illnesses: int) -> Namer:
    grams = nn.EmbeddingBag(1 << _BUCKETS_LOG2, _WIDTH, mode="sum", sparse=True)
    nn.init.zeros_(grams.weight)  # what was never seen says nothing
    return Namer(grams, nn.Linear(_WIDTH, illnesses))


def _places(text: str) -> np.ndarray:
    """The bucket of each n-gram of each clause, [G]; a clause begins and ends with a blank."""
    found = []
    for clause in CLAUSE.split(text):
        gram = codes = np.frombuffer(f" {clause} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        for longer in range(_LONGEST):
            found.append(gram + np.uint64(longer))
            gram = gram[:-1] * _FACTOR + codes[longer + 1 :]
    return (np.concatenate(found) * _SPREAD >> np.uint64(64 - _BUCKETS_LOG2)).astype(np.int64)
