"""Build instruction data from the knowledge graph.

    xinglin data build --output_path data/llama_data.json

writes `llama_data.json` (Alpaca, the training split), `llama_data.records.jsonl` (full records of every split)
and `llama_data.summary.json`. The same seed gives the same bytes.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.dataset.clean import Cleaned, Disease, clean
from xinglin.dataset.forms import (
    ABSTAIN,
    COMPARISON_EVALUATION,
    COMPARISON_TRAIN,
    FORMS,
    TOPIC_WORDS,
    Form,
    Line,
    choose,
    comparable,
    compared,
    single,
    urgent,
)
from xinglin.dataset.split import held_out
from xinglin.errors import UserError
from xinglin.knowledge.graph import CMEKG, CMEKG_LICENCE, load_cmekg
from xinglin.records import Example, Turn, atomic_write, to_alpaca, write_json, write_jsonl

WEIGHTS = {"symptoms": 0.36, "department": 0.30, "examinations": 0.15, "comparison": 0.11, "complications": 0.08}
EXTRA_OBJECTS = 2
"""How many objects a line that does not answer may list; it is there to be passed over, not to be read out."""


@dataclass(frozen=True)
class DataBuild:
    """Build instruction data from cMeKG.

    Args:
        output_path: the Alpaca JSON file to write; full records and a summary go beside it.
        num_records: how many training records.
        num_eval: how many records each of the two evaluation splits gets.
        grounded: share of training records whose `input` holds the facts that answer.
        unanswerable: share whose `input` holds facts that do not answer; the rest has no `input`.
        seed: the same seed gives the same bytes.
    """

    output_path: str = "data/llama_data.json"
    num_records: int = 8000
    num_eval: int = 300
    grounded: float = 0.60
    unanswerable: float = 0.15
    seed: int = 42


class Builder:
    """Makes examples of one split; distractors and comparison pairs come from that split only."""

    def __init__(self, diseases: list[Disease], split: str, rng: random.Random) -> None:
        self.split = split
        self.rng = rng
        self.by_topic = {
            topic: [disease for disease in diseases if disease.objects.get(topic)] for topic in TOPIC_WORDS
        }
        self.department: dict[str, list[Disease]] = {}
        for disease in self.by_topic["symptoms"]:
            for name in disease.objects.get("department", ()):
                self.department.setdefault(name, []).append(disease)

    def take(self, form: str, number: int, phrased: str, kinds: list[str]) -> Iterator[Example]:
        """Up to `number` examples of a form; `kinds` says in turn what each one's `input` holds."""
        subjects = self._pairs(number) if form == "comparison" else self._singles(FORMS[form], number)
        for subject, kind in zip(subjects, kinds, strict=False):
            if form == "comparison":
                phrasings = COMPARISON_TRAIN if phrased == "train" else COMPARISON_EVALUATION
                question, answer, lines = compared(subject[0], subject[1], self.rng, phrasings)
            else:
                phrasings = getattr(FORMS[form], phrased)
                question, answer, lines = single(FORMS[form], subject[0], self.rng, phrasings)
            yield self._example(form, subject, (question, answer, lines), kind)

    def _singles(self, form: Form, number: int) -> list[tuple[Disease, ...]]:
        able = [disease for disease in self.by_topic[form.topic] if len(disease.objects[form.topic]) >= form.minimum]
        return [(disease,) for disease in self.rng.sample(able, min(number, len(able)))]

    def _pairs(self, number: int) -> list[tuple[Disease, ...]]:
        """Pairs of diseases of one department, each disease first in at most one pair."""
        found: list[tuple[Disease, ...]] = []
        order = self.rng.sample(self.by_topic["symptoms"], len(self.by_topic["symptoms"]))
        for one in order:
            near = [other for name in one.objects.get("department", ()) for other in self.department[name]]
            tries = self.rng.sample(near, min(30, len(near)))
            other = next((other for other in tries if other is not one and comparable(one, other)), None)
            if other:
                found.append((one, other))
            if len(found) == number:
                break
        return found

    def _example(
        self, form: str, subject: tuple[Disease, ...], made: tuple[str, str, list[Line]], kind: str
    ) -> Example:
        question, answer, lines = made
        topic = "symptoms" if form == "comparison" else form
        facts = [triple for line in lines for triple in line.triples]
        shown: list[Line] = []
        if kind == "facts":
            shown = [*lines, *self._extras(subject, topic, certain=self.split != "train")]
        elif kind == "other_facts":
            shown, facts = self._extras(subject, topic, certain=True), []
            if form == "comparison":  # one of the two is there, the other is what is missing
                shown += [line for line in lines if line.about == subject[0].name]
            answer = ABSTAIN.format(d=subject[-1].name, topic=TOPIC_WORDS[topic]) + urgent(subject[-1].name)
        self.rng.shuffle(shown)
        turns = (Turn("user", question, "\n".join(line.text for line in shown)), Turn("assistant", answer))
        key = f"{form}/{'/'.join(disease.name for disease in subject)}/{question}"
        return Example(
            id=f"{form}-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
            turns=turns,
            form=form,
            facts=tuple(facts),
            source=CMEKG,
            licence=CMEKG_LICENCE,
            split=self.split,
            knowledge=kind,
        )

    def _extras(self, subject: tuple[Disease, ...], topic: str, *, certain: bool) -> list[Line]:
        """Lines that do not answer: another topic of the disease, the same topic of another disease."""
        lines: list[Line] = []
        other_topics = [name for name in subject[0].objects if name != topic]
        if other_topics and self.rng.random() < 0.4:
            lines.append(choose(subject[0], self.rng.choice(other_topics), self.rng, EXTRA_OBJECTS))
        if certain or self.rng.random() < 0.85:
            names = {disease.name for disease in subject}
            stranger = self.rng.choice(self.by_topic[topic])
            while stranger.name in names:
                stranger = self.rng.choice(self.by_topic[topic])
            lines.append(choose(stranger, topic, self.rng, EXTRA_OBJECTS))
        return lines


def kinds_of_input(number: int, grounded: float, unanswerable: float, rng: random.Random) -> list[str]:
    """A shuffled list of `facts`, `other_facts` and `none` in exactly the asked proportions."""
    facts, other = round(number * grounded), round(number * unanswerable)
    kinds = ["facts"] * facts + ["other_facts"] * other
    kinds += ["none"] * (number - len(kinds))
    rng.shuffle(kinds)
    return kinds


def quotas(number: int) -> dict[str, int]:
    """How many records of each form make up `number`."""
    counts = {form: round(number * weight) for form, weight in WEIGHTS.items()}
    counts["symptoms"] += number - sum(counts.values())
    return counts


def _without_held_out(disease: Disease, held: set[str]) -> Disease:
    """Take out training facts that name a held-out disease as object."""
    objects = {topic: tuple(one for one in objects if one not in held) for topic, objects in disease.objects.items()}
    return Disease(disease.name, {t: o for t, o in objects.items() if o}, disease.predicate, disease.aliases)


def split_diseases(cleaned: Cleaned) -> tuple[list[Disease], list[Disease]]:
    """(training, held-out) diseases."""
    held = held_out(cleaned.diseases)
    names = held | {alias for disease in cleaned.diseases if disease.name in held for alias in disease.aliases}
    train = [_without_held_out(disease, names) for disease in cleaned.diseases if disease.name not in held]
    return train, [disease for disease in cleaned.diseases if disease.name in held]


def build_examples(cleaned: Cleaned, config: DataBuild) -> list[Example]:
    """All examples of all splits, training first.

    Raises:
        UserError: shares that make no sense, or more records asked for than the graph gives.
    """
    if min(config.grounded, config.unanswerable) < 0 or config.grounded + config.unanswerable > 1:
        raise UserError(f"grounded {config.grounded} + unanswerable {config.unanswerable} must lie between 0 and 1")
    if config.num_records < 1 or config.num_eval < 0:
        raise UserError("num_records must be at least 1 and num_eval at least 0")
    rng = random.Random(config.seed)
    train, held = split_diseases(cleaned)
    wanted: tuple[tuple[str, list[Disease], int, Callable[[int], list[str]]], ...] = (
        ("train", train, config.num_records, lambda n: kinds_of_input(n, config.grounded, config.unanswerable, rng)),
        ("unseen_disease", held, config.num_eval, lambda n: ["facts"] * n),
        ("seen_fact", train, config.num_eval, lambda n: ["none"] * n),
    )
    examples: list[Example] = []
    for split, diseases, number, kinds in wanted:
        builder = Builder(diseases, split, rng)
        phrased = "train" if split == "train" else "evaluation"
        made: list[Example] = []
        for form, quota in quotas(number).items():
            made += builder.take(form, quota, phrased, kinds(quota))
        if split == "train" and len(made) < number:
            raise UserError(f"num_records {number}: the graph gives only {len(made)} with these forms; ask for fewer")
        rng.shuffle(made)
        examples += made
    return examples


def summarize(examples: list[Example], cleaned: Cleaned, config: DataBuild) -> dict[str, Any]:
    """Counts per split, form and kind of input, and what the filters dropped."""
    counts: dict[str, Any] = {}
    for example in examples:
        for key, value in (("form", example.form), ("knowledge", example.knowledge)):
            table = counts.setdefault(example.split, {}).setdefault(key, Counter())
            table[value] += 1
    return {
        "source": CMEKG,
        "licence": CMEKG_LICENCE,
        "seed": config.seed,
        "records": dict(Counter(example.split for example in examples)),
        "splits": counts,
        "diseases": len(cleaned.diseases),
        "dropped_facts_by_rule": dict(cleaned.dropped.most_common()),
    }


def records_path(output_path: str | Path) -> Path:
    """Where the full records of an Alpaca file lie."""
    return Path(output_path).with_suffix(".records.jsonl")


def write_data(config: DataBuild) -> None:
    """Build the data and write the three files; each appears whole or not at all.

    Raises:
        UserError: as `build_examples`, or an output_path that is a folder.
    """
    output = Path(config.output_path)
    if output.is_dir():
        raise UserError(
            f"output_path {config.output_path!r} is a folder; give a file, e.g. {output / 'llama_data.json'}"
        )
    cleaned = clean(load_cmekg().of_type("disease"))
    examples = build_examples(cleaned, config)
    write_jsonl(records_path(output), examples)
    with atomic_write(output) as file:
        rows = [json.dumps(to_alpaca(one), ensure_ascii=False) for one in examples if one.split == "train"]
        file.write("[\n" + ",\n".join(rows) + "\n]\n")
    summary = summarize(examples, cleaned, config)
    write_json(output.with_suffix(".summary.json"), summary)
    print(f"{output}: {summary['records']['train']:,} training records; {records_path(output).name}: all splits, full")
