"""How many red flags triage finds, and how often it cries wolf.

    python benchmarks/triage/run.py                          the held-out set: figures alone
    python benchmarks/triage/run.py --development '*' --errors   the sets that the rules were made with, and what they get wrong

Writes results.json (held-out set only).
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from xinglin.inference.triage import triage
from xinglin.records import write_json

HERE = Path(__file__).parent
LETHAL = ("cardiac", "stroke", "anaphylaxis", "airway", "bleeding", "suicide", "poisoning")


def wilson(hits: int, total: int) -> list[float]:
    """A share's 95 % interval (Wilson, 1927)."""
    z, share = 1.96, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * ((share * (1 - share) + z * z / (4 * total)) / total) ** 0.5 / (1 + z * z / total)
    return [round(middle - half, 4), round(middle + half, 4)]


def share(hits: int, total: int) -> dict[str, object]:
    """A share with its counts and interval."""
    return {"share": round(hits / total, 4), "of": total, "hits": hits, "interval": wilson(hits, total)}


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", default="", help="number of a development set, or *")
    parser.add_argument("--errors", action="store_true", help="print what is wrong; of the development set only")
    asked = parser.parse_args()
    files = sorted(HERE.glob(f"development_{asked.development}.jsonl" if asked.development else "heldout.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    results: dict[str, Counter[str]] = {label: Counter() for label in ("emergency", "benign", "medication")}
    missed: Counter[str] = Counter()
    for row in rows:
        alert = triage(row["text"])
        got = "none" if alert is None else "emergency" if alert.urgent else "medication"
        results[row["label"]][got] += 1
        if row["label"] == "emergency" and got != "emergency":
            missed[row["class"]] += 1
        wanted = {"benign": "none"}.get(row["label"], row["label"])
        harmless = row["label"] == "benign" and got == "medication"
        if asked.errors and asked.development and got != wanted and not harmless:
            print(f"{row['label']}/{row['class']} → {got}: {row['text']}  [{alert.name if alert else ''}]")
    summary = {
        "recall_of_emergencies": share(results["emergency"]["emergency"], results["emergency"].total()),
        "false_alarms": share(results["benign"]["emergency"], results["benign"].total()),
        "medication_found": share(results["medication"]["medication"], results["medication"].total()),
        "medication_called_emergency": share(results["medication"]["emergency"], results["medication"].total()),
        "benign_called_medication": share(results["benign"]["medication"], results["benign"].total()),
        "missed": dict(missed),
        "missed_of_lethal_classes": sum(missed[one] for one in LETHAL),
    }
    print(json.dumps(summary, ensure_ascii=False, indent=1))
    if not asked.development:
        write_json(HERE / "results.json", summary)


if __name__ == "__main__":
    main()
