"""How well, and how fast, the linker finds what a sentence names.

    python benchmarks/linking/run.py            the half that nothing was tuned on
    python benchmarks/linking/run.py --half dev --errors

`sentences.jsonl` holds 240 sentences, half in patients' and half in doctors' words, labelled by hand before the linker
first saw them. Sentences with an odd number are the development half: their errors were read. The even ones never were.

A mention counts as found when its place overlaps the labelled one and its entity is among the accepted names.
"""

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.link import Linker, negations
from xinglin.knowledge.terms import normalize

HERE = Path(__file__).parent
KINDS = {"disease", "symptom", "examination", "department", "drug", "herb"}


def load_sentences():
    """The labelled sentences."""
    return [json.loads(line) for line in (HERE / "sentences.jsonl").read_text("utf-8").splitlines()]


def places(record):
    """The labelled mentions with their places in the normalised text."""
    text, start, found = normalize(record["text"]), 0, []
    for mention in record["mentions"]:
        word = normalize(mention["text"])
        start = text.index(word, start)
        found.append((start, start + len(word), mention))
        start += len(word)
    return text, found


def score(record, linker):
    """Counts of one sentence: labelled, found, returned, right, and the negations among the found ones."""
    text, gold = places(record)
    everything = linker.find(text)
    denied = dict(zip(everything, negations(text, everything), strict=True))
    made = [one for one in everything if one.kind in KINDS]
    counts, errors, right = Counter(labelled=len(gold), returned=len(made)), [], set()
    for start, end, mention in gold:
        names = {normalize(name) for name in mention["entity"]} | {normalize(mention["text"])}
        hits = [one for one in made if one.start < end and one.end > start and {one.entity, one.text} & names]
        overlaps = [one for one in made if one.start < end and one.end > start]
        counts["overlapped"] += bool(overlaps)
        if not hits:
            errors.append(f"missed {mention['text']} {mention['entity']} got {[o.entity for o in overlaps]}")
            continue
        counts["found"] += 1
        right.update(hits)
        said = any(denied[one] for one in hits)
        counts[f"negated {mention['negated']} said {said}"] += 1
        if said != mention["negated"]:
            errors.append(f"negation of {mention['text']}: {said}, should be {mention['negated']}")
    counts["right"] = len(right)
    errors += [f"wrong {one.text} → {one.entity} ({one.kind})" for one in made if one not in right]
    return counts, errors


def ratio(parts, top, bottom):
    """A ratio of sums with its 95 % bootstrap interval over sentences (2,000 draws)."""

    def value(rows):
        below = sum(row[name] for row in rows for name in bottom)
        return sum(row[name] for row in rows for name in top) / below if below else float("nan")

    rng = random.Random(0)
    draws = sorted(value(rng.choices(parts, k=len(parts))) for _ in range(2000))
    return {"value": round(value(parts), 3), "low": round(draws[50], 3), "high": round(draws[1949], 3)}


def figures(parts):
    """Recall, precision and negation of some sentences."""
    yes, no = ["negated True said True"], ["negated False said True"]
    return {
        "sentences": len(parts),
        "mentions": sum(row["labelled"] for row in parts),
        "recall": ratio(parts, ["found"], ["labelled"]),
        "recall, place only": ratio(parts, ["overlapped"], ["labelled"]),
        "precision": ratio(parts, ["right"], ["returned"]),
        "negation recall": ratio(parts, yes, [*yes, "negated True said False"]),
        "negation precision": ratio(parts, yes, yes + no),
    }


def speed(linker, records):
    """MB of UTF-8 text a second on one core, negation included."""
    text = "\n".join(record["text"] for record in records)
    size, best = len(text.encode()) / 1e6, 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20):
            whole = normalize(text + " ")
            negations(whole, linker.find(whole))
        best = max(best, 20 * size / (time.perf_counter() - began))
    return round(best, 2)


def main():
    """Print the figures; write them to results.json for the test half."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("test", "dev", "all"), default="test")
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    records = load_sentences()
    wanted = {"test": (0,), "dev": (1,), "all": (0, 1)}[options.half]
    chosen = [record for record in records if int(record["id"][1:]) % 2 in wanted]
    linker = Linker.from_graph(load_cmekg())
    scored = [(record, *score(record, linker)) for record in chosen]
    if options.errors:
        for record, _, errors in scored:
            print(record["id"], record["text"], *errors, sep="\n    ") if errors else None
    result = {"all": figures([counts for _, counts, _ in scored])}
    for voice in ("patient", "doctor"):
        result[voice] = figures([counts for record, counts, _ in scored if record["voice"] == voice])
    if options.half == "test":  # half of these were read
        result["all 240 sentences"] = figures([score(record, linker)[0] for record in records])
    result["MB a second"] = speed(linker, records)
    result["terms"] = len(linker.terms)
    print(json.dumps(result, ensure_ascii=False, indent=1))
    if options.half == "test":
        (HERE / "results.json").write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
