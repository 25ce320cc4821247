"""Weights of the chance that a candidate is the illness which a person's own words mean (`inference/recognize.py`).

    python benchmarks/grounding/weights.py

A logistic regression on the ten likeliest candidates of every development question. Questions about complaints or about
no disease have none that fits, nor has an asking by itself (那要挂什么科). Prints the weights and, with each fifth of
the questions judged by the others, how many would be answered, and answered rightly, from which chance on.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from xinglin.inference.grounding import Grounding
from xinglin.inference.recognize import SIGNS, other_name
from xinglin.inference.retrieve import narrower
from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.terms import normalize

HERE = Path(__file__).parent
FILES = (
    "lay_development.jsonl",
    "lay_development_2.jsonl",
    "lay_development_3.jsonl",
    "unanswerable_development.jsonl",
)
NAMED = ("name", "single")  # kinds of questions that mean one illness
NONE = ("signs", "invented", "not_medical", "asking")  # and of those that name none


def questions() -> Iterator[dict[str, Any]]:
    """All development questions, and the asking of every ninth example of topics by itself."""
    for file in FILES:
        yield from map(json.loads, (HERE / file).read_text("utf-8").splitlines())
    examples = resources.files("xinglin.inference").joinpath("intents.jsonl").read_text("utf-8").splitlines()
    for said in map(json.loads, examples[::9]):
        if "【病】" in said["question"]:
            yield {"question": said["question"].replace("【病】", ""), "kind": "asking"}


def main() -> None:
    """Fit, judge, print."""
    retriever = Grounding(load_cmekg()).retriever
    rows, fits, question, kinds = [], [], [], []
    for said in questions():
        if said["kind"] not in NAMED + NONE:
            continue
        text = normalize(said["question"])
        for one in retriever.likely(text)[:10]:
            if not other_name(text, one.name) and not narrower(text, one.name):
                rows.append([getattr(one, sign) for sign in SIGNS])
                fits.append(said["kind"] in NAMED and one.name in said["about"])
                question.append(len(kinds))
        kinds.append(said["kind"])
    signs, right, groups = np.array(rows), np.array(fits), np.array(question)
    learner = LogisticRegression(C=10, max_iter=5000).fit(signs, right)
    print(dict(zip(SIGNS, learner.coef_[0].round(2).tolist(), strict=True)), learner.intercept_.round(2).tolist())
    chances = np.zeros(len(right))
    for learned, judged in GroupKFold(5).split(signs, right, groups):
        learner = LogisticRegression(C=10, max_iter=5000).fit(signs[learned], right[learned])
        chances[judged] = learner.predict_proba(signs[judged])[:, 1]
    best = [group[chances[group].argmax()] for n in range(len(kinds)) if len(group := np.flatnonzero(groups == n))]
    for least in (0.15, 0.2, 0.25, 0.3, 0.4):
        for named in (True, False):
            of = [one for one in best if (kinds[groups[one]] in NAMED) is named]
            sure = [one for one in of if chances[one] >= least]
            print(f"from {least}: {'one meant' if named else 'none meant':<10} n={len(of)}", end="  ")
            print(f"answered {len(sure) / len(of):.2f}, rightly {sum(right[one] for one in sure) / len(of):.2f}")


if __name__ == "__main__":
    main()
