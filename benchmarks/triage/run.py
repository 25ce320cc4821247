"""How many red flags triage finds, and how often it cries wolf.

    python benchmarks/triage/run.py                    the held-out sets, each by itself; writes results.json
    python benchmarks/triage/run.py --development      the packaged messages, each set judged by what the others teach
    python benchmarks/triage/run.py --development --errors

The errors of the held-out sets are not shown: they are worth something only as long as nobody has looked.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer

import xinglin.inference
from xinglin.evaluation.statistics import mean_score
from xinglin.inference.classify import Classifier
from xinglin.inference.triage import Alert, label, plain, triage
from xinglin.knowledge.terms import normalize
from xinglin.records import write_json

HERE = Path(__file__).parent
HELD_OUT = ("heldout", "heldout_2")
PACKAGED = Path(xinglin.inference.__file__).with_name("triage.jsonl")
ALIKE = 0.5
"""Cosine of character trigrams from which two messages are nearly the same."""
LETHAL = ("cardiac", "stroke", "anaphylaxis", "airway", "bleeding", "suicide", "poisoning")

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Labelled messages."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def held_out(name: str) -> Iterator[tuple[Row, Alert | None]]:
    """A held-out set with what triage says of each message, without those that a packaged one is nearly the same as.

    Written apart, short messages still come out alike now and then; they would be remembered, not judged.
    """
    rows, packaged = read(HERE / f"{name}.jsonl"), read(PACKAGED)
    pieces = TfidfVectorizer(analyzer="char", ngram_range=(3, 3), binary=True)
    known = pieces.fit_transform([normalize(row["text"]) for row in packaged])
    alike = (pieces.transform([normalize(row["text"]) for row in rows]) @ known.T).max(axis=1).toarray().ravel()
    for row, likeness in zip(rows, alike.tolist(), strict=True):
        if likeness <= ALIKE:
            yield row, triage(row["text"])


def crosswise() -> Iterator[tuple[Row, Alert | None]]:
    """The packaged messages; those of a set are judged by what the other sets teach (the rules saw them all)."""
    rows = read(PACKAGED)
    for name in sorted({row["set"] for row in rows}):
        others = [row for row in rows if row["set"] != name]
        classifier = Classifier([plain(row["text"]) for row in others], [label(row) for row in others])
        for row in rows:
            if row["set"] == name:
                yield row, triage(row["text"], classifier)


def share(hits: int, total: int) -> dict[str, Any]:
    """A share with its counts and 95 % interval."""
    score = mean_score("share", [1.0] * hits + [0.0] * (total - hits))
    return {
        "share": round(score.value, 4),
        "hits": hits,
        "of": total,
        "interval": [round(score.low, 4), round(score.high, 4)],
    }


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--errors", action="store_true", help="print what is wrong; with --development alone")
    asked = parser.parse_args()
    if asked.errors and not asked.development:
        parser.error("--errors needs --development")
    if asked.development:
        print(json.dumps(judged(crosswise(), asked.errors), ensure_ascii=False, indent=1))
        return
    results = {name: judged(held_out(name)) for name in HELD_OUT}
    print(json.dumps(results, ensure_ascii=False, indent=1))
    write_json(HERE / "results.json", results)


def judged(messages: Iterable[tuple[Row, Alert | None]], errors: bool = False) -> dict[str, Any]:
    """What was found of messages, and what was not.

    Args:
        errors: print what is wrong.
    """
    got: Counter[tuple[str, str]] = Counter()
    missed: Counter[str] = Counter()
    for row, alert in messages:
        said = "nothing" if alert is None else "emergency" if alert.urgent else "medication"
        got[row["label"], said] += 1
        missed[row["class"]] += row["label"] == "emergency" and said != "emergency"
        if errors and (row["label"] == "emergency") != (said == "emergency"):
            print(f"{row['label']}/{row['class']} → {said}: {row['text']}  [{alert.name if alert else ''}]")
    total = {
        one: sum(n for (wanted, _), n in got.items() if wanted == one) for one in ("emergency", "benign", "medication")
    }
    return {
        "emergencies_found": share(got["emergency", "emergency"], total["emergency"]),
        "false_alarms": share(got["benign", "emergency"], total["benign"]),
        "drug_questions_found": share(got["medication", "medication"], total["medication"]),
        "drug_questions_called_emergency": share(got["medication", "emergency"], total["medication"]),
        "harmless_called_drug_question": share(got["benign", "medication"], total["benign"]),
        "emergencies_missed_by_class": {name: n for name, n in missed.items() if n},
        "lethal_classes_missed": sum(missed[one] for one in LETHAL),
    }


if __name__ == "__main__":
    main()
