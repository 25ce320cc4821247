"""Which illness a person means who does not say its name as the graph has it.

胆里头有石头一公分多   →   胆囊结石 · 胆石症 · …
脊梁骨是歪的           →   脊柱侧凸 · …

What ranks are two likenesses of character n-grams, added: of the question to everything that a disease is called
together, and to the single name that it has most of. Names are the graph's, their aliases, lay names and tellings.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xinglin.dataset.clean import Entry
from xinglin.inference.namer import Words, namer
from xinglin.knowledge.terms import normalize

_WEIGHTS, _BIAS = (-0.57, 1.05, 3.6, 3.81, 0.84, 7.82, -0.89, -1.19), -2.23
"""Of the chance, for SIGNS: a logistic regression on the candidates of the development questions
(benchmarks/grounding/weights.py)."""
_WEIGHTS_AT_ALL, _BIAS_AT_ALL = (4.96, 3.5, 2.02, 5.92, 1.09, 2.78, -1.45, 0.31, 1.53), -6.57
"""And of the chance that any illness is meant, for SIGNS of the likeliest and the logarithm of the characters."""
_FORMAL = re.compile("([^的了是得患有叫说怕像为会，。、,.？！?! ]{2,6}?)(综合征|综合症|(?<![炎癌病])症)")
"""A name as doctors make them: who says one that the graph has not means no other."""
_SHARED = 0.7  # share of its characters that a mistyped one has in common with the name that is meant
_LONGEST = (3, 2)  # characters of an n-gram, for the one likeness and the other
_RANKED, _BY_LEARNED = 20, 5  # candidates by the likenesses, and by what was learned
_LEAST = 1e-9  # probability that is none
_SHORT = 12.0  # weight of a name that is too short to be told by the share of it alone: about two characters


SIGNS = ("likeness", "held", "share", "nearest", "learned", "said", "shown", "narrower")
"""What tells that a candidate is meant: attributes of `Likely`."""


@dataclass(frozen=True)
class Likely:
    """An illness that may be meant.

    Attributes:
        score: the two likenesses as shares of the best ones, added; 0 to 2.
        likeness: to everything that it is called, 0 to 1.
        held: how much of one of its names the question has, 0 to 1.
        share: its likeness as a share of the greatest.
        nearest: likeness to the telling of it that is most like the question, 0 to 1.
        learned: the logarithm of its probability by what was learned of its names and tellings (`namer.py`).
        said: the share of the question that one of its names takes, 0 where none is in it.
        shown: it is a complaint as well (便秘), which people tell of other illnesses too.
        narrower: it is more special than what was said.
    """

    name: str
    score: float
    likeness: float
    held: float
    share: float
    nearest: float
    learned: float
    said: float = 0.0
    shown: bool = False
    narrower: bool = False

    @property
    def chance(self) -> float:
        """That it is meant, if any is, 0 to 1."""
        return _logistic(_BIAS, _WEIGHTS, self.signs)

    @property
    def signs(self) -> list[float]:
        """SIGNS, in their order."""
        return [float(getattr(self, sign)) for sign in SIGNS]


class Recognizer:
    """Ranks diseases by how like a question is to their names. Made in six seconds for cMeKG, at first in a minute.

    Args:
        entries: the diseases.
        lay: what people call them → the graph's names.
        told: the graph's names → how people tell of having them.
        words: what else people say in their messages.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        lay: Mapping[str, Sequence[str]],
        told: Mapping[str, Sequence[str]],
        words: Words,
    ) -> None:
        # imported only here: it takes a second, and nothing else needs it
        from sklearn.feature_extraction.text import TfidfVectorizer

        diseases = [entry for entry in entries if entry.kind == "disease"]
        self._names = [entry.name for entry in diseases]
        place = {name: number for number, name in enumerate(self._names)}
        called: dict[str, list[str]] = defaultdict(list)
        for name, meant in lay.items():
            for one in meant:
                if one in place:
                    called[one].append(name)
        tellings = {name: [normalize(one) for one in each] for name, each in told.items() if name in place}
        for name, each in tellings.items():
            called[name] += each
        own = [(entry.name, [normalize(name) for name in entry.aliases]) for entry in diseases]
        # the own name weighs more than one alias, which may be anything
        texts = [" ".join([name] * 3 + aliases + called[name] * 2) for name, aliases in own]
        self._whole = TfidfVectorizer(analyzer="char", ngram_range=(1, _LONGEST[0]), sublinear_tf=True)
        self._texts_DF = self._whole.fit_transform(texts)
        whose = [(place[name], one) for name, each in tellings.items() for one in each]
        self._teller_M = np.array([owner for owner, _ in whose], dtype=int)
        self._tellings_MF = self._whole.transform([telling for _, telling in whose]) if whose else None
        single = [
            (name, owner)
            for owner, (first, aliases) in enumerate(own)
            for name in dict.fromkeys((first, *aliases, *called[first]))
            if len(name) > 1
        ]
        self._owner_N = np.array([owner for _, owner in single])
        self._part = TfidfVectorizer(analyzer="char", ngram_range=(1, _LONGEST[1]), binary=True, norm=None)
        self._single_NF = self._part.fit_transform([name for name, _ in single])
        self._mass_N = np.asarray(self._single_NF.sum(axis=1)).ravel()
        examples = [(name, owner) for owner, (first, aliases) in enumerate(own) for name in (first, *aliases)]
        self._learned = namer([*examples, *((one, place[name]) for name in called for one in called[name])], words)

    def rank(self, text: str) -> list[Likely]:
        """The likeliest diseases by all their likenesses, and by what was learned; by the former, the best first.

        Args:
            text: normalised.
        """
        learned_D = self._learned.chances(text)
        whole_F = self._whole.transform([text])
        likeness_D, nearest_D = _dense(whole_F @ self._texts_DF.T), np.zeros(len(self._names))
        if self._tellings_MF is not None:
            np.maximum.at(nearest_D, self._teller_M, _dense(whole_F @ self._tellings_MF.T))
        asked_F = self._part.transform([text])
        asked_F.data[:] = 1
        share_N = _dense(asked_F @ self._single_NF.T) / self._mass_N
        held_N = share_N**2 * np.log1p(self._mass_N)  # a long name that is there says more than a short one
        held_D, most_D = np.zeros(len(self._names)), np.zeros(len(self._names))
        np.maximum.at(held_D, self._owner_N, held_N)
        np.maximum.at(most_D, self._owner_N, share_N * (self._mass_N > _SHORT))
        if not likeness_D.any() or not held_D.any():
            return []
        score_D = likeness_D / likeness_D.max() + held_D / held_D.max()
        share_D = likeness_D / likeness_D.max()
        best = [*_first(score_D, _RANKED), *_first(learned_D, _BY_LEARNED)]
        return [
            Likely(
                self._names[one],
                score=float(score_D[one]),
                likeness=float(likeness_D[one]),
                held=float(most_D[one]),
                share=float(share_D[one]),
                nearest=float(nearest_D[one]),
                learned=math.log(learned_D[one] + _LEAST),
            )
            for one in dict.fromkeys(best)
        ]


def any_meant(likeliest: Likely, text: str) -> float:
    """The chance that a text means an illness at all, 0 to 1; told from the likeliest one."""
    return _logistic(_BIAS_AT_ALL, _WEIGHTS_AT_ALL, [*likeliest.signs, math.log(len(text))])


def _logistic(bias: float, weights: Sequence[float], values: Sequence[float]) -> float:
    return 1 / (1 + math.exp(-bias - sum(weight * value for weight, value in zip(weights, values, strict=True))))


def other_name(text: str, name: str) -> bool:
    """Whether a text has a name as doctors make them, and it is another one."""
    named = [found[1] for found in _FORMAL.finditer(text)]
    return bool(named) and all(sum(part in name for part in one) < _SHARED * len(one) for one in named)


def _first(values: np.ndarray, number: int) -> list[int]:
    """Places of the greatest values, the greatest first."""
    places: list[int] = np.argsort(-values, kind="stable")[:number].tolist()
    return places


def _dense(row: Any) -> Any:
    return row.toarray().ravel()
