"""Weights of which illness a person's own words mean, and of whether they mean any (`inference/recognize.py`).

    python benchmarks/grounding/weights.py

Two logistic regressions on the development questions: of the candidates of those that mean an illness, and of the
likeliest candidate of all. Questions about no disease mean none, nor does an asking by itself (那要挂什么科). Prints
the weights and, with each fifth of the questions judged by the others, how many would be answered, and rightly.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from xinglin.inference.grounding import Grounding
from xinglin.inference.question import askings
from xinglin.inference.recognize import SIGNS
from xinglin.inference.retrieve import Retriever
from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.terms import normalize

HERE = Path(__file__).parent
FILES = (
    "lay_development.jsonl",
    *(f"lay_development_{n}.jsonl" for n in (2, 3, 4)),
    "unanswerable_development.jsonl",
    "unanswerable_development_2.jsonl",
)
ONE = ("name", "single")  # kinds of questions that mean one illness
NONE = ("invented", "not_medical", "asking")  # and of those that mean none
NAMED = 20  # of so many illnesses, one is asked for by its name
ASKED = 9  # and of so many askings, one by itself


def questions(retriever: Retriever) -> Iterator[dict[str, Any]]:
    """The development questions, some that name an illness as the graph does, and some askings by themselves."""
    for file in FILES:
        yield from map(json.loads, (HERE / file).read_text("utf-8").splitlines())
    said = askings()
    for number, name in enumerate(retriever.diseases[::NAMED]):
        yield {"question": name + said[number % len(said)], "kind": "single", "about": [name]}
    for one in said[::ASKED]:
        yield {"question": one, "kind": "asking"}


def main() -> None:
    """Fit, judge, print."""
    retriever = Grounding(load_cmekg()).retriever
    rows, fits, group, asked = [], [], [], []
    for said in questions(retriever):
        text = normalize(said["question"])
        candidates = retriever.candidates(text, retriever.told(text))
        if said["kind"] in ONE + NONE and candidates:
            rows += [one.signs for one in candidates]
            fits += [said["kind"] in ONE and one.name in said["about"] for one in candidates]
            group += [len(asked)] * len(candidates)
            asked.append((said["kind"] in ONE, math.log(len(text))))
    signs, right, groups = np.array(rows), np.array(fits), np.array(group)
    means, length = np.array([one for one, _ in asked]), np.array([one for _, one in asked])

    def first(chances: np.ndarray) -> np.ndarray:
        """The likeliest candidate of each question."""
        places = (np.flatnonzero(groups == number) for number in range(len(asked)))
        return np.array([each[chances[each].argmax()] for each in places])

    def learn(use: np.ndarray) -> tuple[LogisticRegression, LogisticRegression]:
        which = LogisticRegression(C=10, max_iter=5000).fit(signs[use], right[use])
        best = first(which.predict_proba(signs)[:, 1])
        mine = np.isin(np.arange(len(asked)), groups[use])
        any_at_all = LogisticRegression(C=5, max_iter=5000, class_weight="balanced")
        return which, any_at_all.fit(np.column_stack([signs[best], length])[mine], means[mine])

    for name, learner in zip(("which", "any at all"), learn(np.arange(len(right))), strict=True):
        names = SIGNS if name == "which" else (*SIGNS, "length")
        print(name, dict(zip(names, learner.coef_[0].round(2).tolist(), strict=True)), learner.intercept_.round(2))
    likely, hit = np.zeros(len(asked)), np.zeros(len(asked), bool)
    for learned, judged in GroupKFold(5).split(signs, right, groups):
        which, any_at_all = learn(learned)
        best = first(which.predict_proba(signs)[:, 1])
        mine = np.unique(groups[judged])
        likely[mine] = any_at_all.predict_proba(np.column_stack([signs[best], length]))[mine, 1]
        hit[mine] = right[best][mine]
    for least in (0.15, 0.25, 0.4, 0.6, 0.8):
        sure = likely >= least
        print(
            f"from {least}: one meant, answered {sure[means].mean():.2f}, rightly {(sure & hit)[means].mean():.2f}; ",
            end="",
        )
        print(f"none meant, answered {sure[~means].mean():.2f} (n={means.sum()}, {(~means).sum()})")


if __name__ == "__main__":
    main()
