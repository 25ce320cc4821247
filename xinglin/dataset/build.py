"""Build instruction data from a knowledge graph.

    xinglin data build --output_path data/llama_data.json

writes `llama_data.json` (Alpaca, the training split) and beside it `.records.jsonl` (full records of every split),
`.dropped.jsonl` (the ledger: each fact that was not used, and the rule) and `.summary.json`. Same seed, same bytes.
"""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from xinglin.dataset.clean import Cleaned, Dropped, Entry, clean
from xinglin.dataset.forms import MAKERS
from xinglin.dataset.pool import Pool
from xinglin.dataset.split import held_out
from xinglin.dataset.wording import MAX_OBJECTS, Line, Made, Wording, Writer, load_wording
from xinglin.errors import UserError, nearest
from xinglin.knowledge.check import check_answer
from xinglin.knowledge.graph import Graph, open_graph
from xinglin.knowledge.link import Linker
from xinglin.records import Example, Turn, atomic_write, json_line, to_alpaca, to_json

log = logging.getLogger(__name__)

EXTRA_OBJECTS = (1, MAX_OBJECTS)
"""How many objects a line that does not answer lists: as many as one that does, so that length tells nothing."""
_FACTS, _OTHER, _NONE = "facts", "other_facts", "none"


@dataclass(frozen=True)
class DataBuild:
    """Build instruction data from a knowledge graph.

    Args:
        output_path: the Alpaca JSON file to write; full records, ledger and summary go beside it.
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        num_records: how many training records; 0 takes everything that the graph gives.
        num_eval: how many records each of the two evaluation splits gets.
        forms: question forms joined by commas, or all.
        forms_path: a YAML file with weights or phrasings of your own, like xinglin/dataset/forms.yaml; a form that it
            does not name is left out, what it does not say of a form it names stays as packaged.
        grounded: share of training records whose `input` holds the facts that answer.
        unanswerable: share whose `input` holds facts that do not answer; the rest has no `input`.
        seed: the same seed gives the same bytes.
    """

    output_path: str = "data/llama_data.json"
    graph: str = "cmekg"
    num_records: int = 8000
    num_eval: int = 300
    forms: str = "all"
    forms_path: str = ""
    grounded: float = 0.60
    unanswerable: float = 0.15
    seed: int = 42


class Builder:
    """Makes the examples of one split.

    Attributes:
        only: facts that may be cited; all where it is None.
        refused: form → answers that the fact check did not find clean; they are left out.
    """

    def __init__(self, pool: Pool, split: str, wording: Wording, licences: dict[str, str], linker: Linker) -> None:
        self.pool, self.split, self.wording = pool, split, wording
        self.licences = licences
        self.only: set[tuple[str, str, str]] | None = None
        self.linker = linker
        self.refused: Counter[str] = Counter()

    def examples(self, form: str, shares: tuple[float, float], seed: int) -> Iterator[Example]:
        """All examples of a form, in random order, until the split gives no more.

        Args:
            shares: of records with the facts that answer, and of those with other facts.
        """
        rng = random.Random(f"{seed}/{self.split}/{form}")
        said = self.wording.forms[form]
        train = self.split == "train"
        writer = Writer(self.wording, said, said.train if train else said.evaluation, train, rng)
        kinds = kinds_of_input(shares, rng)
        for made in MAKERS[form](self.pool, writer):
            cited = {(fact.subject, fact.predicate, fact.object) for line in made.lines for fact in line.facts}
            if self.only is not None and not cited <= self.only:
                continue
            example = self._example(form, made, next(kinds), writer)
            if check_answer(example.answer, cited, self.linker, made.question).clean:
                yield example
            else:
                self.refused[form] += 1

    def _example(self, form: str, made: Made, kind: str, writer: Writer) -> Example:
        answer, facts = made.answer, [fact for line in made.lines for fact in line.facts]
        shown: list[Line] = []
        if kind == _FACTS:
            shown = [*made.lines, *self._extras(made, writer, certain=self.split != "train")]
        elif kind == _OTHER and (shown := self._unanswering(made, writer)):
            answer, facts = self._abstain(form, made, writer), []
        writer.rng.shuffle(shown)
        turns = (Turn("user", made.question, "\n".join(line.text for line in shown)), Turn("assistant", answer))
        key = "/".join((form, *(entry.name for entry in made.about), made.key, made.question))
        sources = dict.fromkeys(fact.source for line in (*made.lines, *shown) for fact in line.facts)
        return Example(
            id=f"{form}-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
            turns=turns,
            form=form,
            facts=tuple(dict.fromkeys((fact.subject, fact.predicate, fact.object) for fact in facts)),
            source="、".join(sources),
            licence="; ".join(dict.fromkeys(self.licences[name] for name in sources)),
            split=self.split,
            knowledge=kind if shown else _NONE,  # a graph of one disease has nothing else to show
        )

    def _unanswering(self, made: Made, writer: Writer) -> list[Line]:
        """Lines that do not answer; of two subjects the one is there, the other is what is missing."""
        there = made.about[0]
        topic = made.topic if made.topic in there.facts else ""
        one_of_two = [writer.line(there, topic)] if topic and len(made.about) > 1 and made.topic != "signs" else []
        return [*one_of_two, *self._extras(made, writer, certain=True)]

    def _abstain(self, form: str, made: Made, writer: Writer) -> str:
        """The answer where nothing in `input` answers; what is urgent is said all the same."""
        if made.topic == "signs":
            return made.warning + writer.rng.choice(self.wording.abstain_vignette)
        if form == "verify_alias":
            return writer.rng.choice(self.wording.abstain_alias)
        missing = made.about[-1]
        return writer.say(self.wording.abstain, [missing], d=missing.name, w=self.wording.words[made.topic])

    def _extras(self, made: Made, writer: Writer, *, certain: bool) -> list[Line]:
        """Lines that do not answer: another topic of the subject, the same topic of another subject."""
        rng, lines, shown = writer.rng, [], {(line.about, line.word) for line in made.lines}
        topic = "symptoms" if made.topic == "signs" else made.topic
        first = made.about[0]
        others = [
            one
            for one in first.facts
            if one != topic and (first.name, self.wording.words[one]) not in shown and not _gives_away(made, one)
        ]
        if others and made.topic != "signs" and rng.random() < 0.4:
            lines.append(writer.line(first, rng.choice(others), rng.randint(*EXTRA_OBJECTS)))
        stranger = self._stranger(made, topic, rng) if certain or rng.random() < 0.85 else None
        if stranger:
            lines.append(writer.line(stranger, topic, rng.randint(*EXTRA_OBJECTS)))
        return lines

    def _stranger(self, made: Made, topic: str, rng: random.Random) -> Entry | None:
        """Another subject of the topic; for a patient's signs, one that shows some of them."""
        asked = {name for entry in made.about for name in (entry.name, *entry.aliases)}
        having = self.pool.having(topic)
        tries = [one for one in (rng.choice(having) for _ in range(12)) if not asked & {one.name, *one.aliases}]
        if made.topic == "signs" and tries:
            signs = set(made.key.split("、"))
            return max(tries, key=lambda one: len(signs & set(one.objects("symptoms"))))
        return next(iter(tries), None)


def _gives_away(made: Made, topic: str) -> bool:
    """Whether a topic answers another one: a route says that a disease is passed on."""
    return {made.topic, topic} in ({"infectious", "route"}, {"aliases", "icd10"})


def shares_of(config: DataBuild, split: str) -> tuple[float, float]:
    """(with facts that answer, with other facts): unseen diseases are asked with facts, seen facts without."""
    return {"train": (config.grounded, config.unanswerable), "unseen_disease": (0.8, 0.2)}.get(split, (0.0, 0.0))


def kinds_of_input(shares: tuple[float, float], rng: random.Random) -> Iterator[str]:
    """What each record's `input` holds, in random order and in the asked proportions within every twenty."""
    done = 0
    while True:
        ends = [round((done + 20) * share) - round(done * share) for share in (shares[0], sum(shares))]
        block = [_FACTS] * ends[0] + [_OTHER] * (ends[1] - ends[0]) + [_NONE] * (20 - ends[1])
        rng.shuffle(block)
        yield from block
        done += 20


def take(sources: dict[str, Iterator[Example]], weights: dict[str, float], number: int) -> list[Example]:
    """`number` examples (0: all) in the proportion of the weights; what one form lacks the others give."""
    if not number:
        return [example for form, weight in weights.items() if weight for example in sources[form]]
    made: list[Example] = []
    left = {form: weight for form, weight in weights.items() if weight}
    while left and len(made) < number:
        missing, total = number - len(made), sum(left.values())
        for form, weight in list(left.items()):
            quota = min(max(1, round(missing * weight / total)), number - len(made))
            more = list(islice(sources[form], quota))
            made += more
            if len(more) < quota:
                del left[form]
    return made


def split_entries(cleaned: Cleaned) -> tuple[list[Entry], list[Entry], list[Dropped]]:
    """(training subjects, held-out subjects, training facts left out since they name a held-out subject)."""
    held = held_out(cleaned.entries)
    names = held | {alias for entry in cleaned.entries if entry.name in held for alias in entry.aliases}
    train, left_out = [], []
    for entry in cleaned.entries:
        if entry.name not in held:
            naming = [fact for said in entry.facts.values() for one, fact in said.items() if one in names]
            left_out += [Dropped(fact, "names a held-out subject") for fact in naming]
            facts = {
                topic: {o: fact for o, fact in said.items() if o not in names} for topic, said in entry.facts.items()
            }
            train.append(replace(entry, facts={topic: said for topic, said in facts.items() if said}))
    return train, [entry for entry in cleaned.entries if entry.name in held], left_out


def check(config: DataBuild, wording: Wording) -> dict[str, float]:
    """The weights of the wanted forms.

    Raises:
        UserError: numbers that make no sense, or a form that is not known.
    """
    if min(config.grounded, config.unanswerable) < 0 or config.grounded + config.unanswerable > 1:
        raise UserError(f"grounded {config.grounded} + unanswerable {config.unanswerable} must lie between 0 and 1")
    if config.num_records < 0 or config.num_eval < 0:
        raise UserError("num_records and num_eval must not be negative")
    names = list(wording.forms) if config.forms == "all" else [name.strip() for name in config.forms.split(",")]
    for name in names:
        if name not in wording.forms:
            raise UserError(f"forms: {name!r} is unknown{nearest(name, wording.forms)}")
    weights = {name: float(wording.forms[name].weight) for name in names}
    if not any(weights.values()):
        raise UserError("forms: all weights are 0")
    return weights


@dataclass(frozen=True)
class Built:
    """What a build gives.

    Attributes:
        examples: of all splits, training first.
        dropped: the whole ledger, of the cleaning and of the split.
        refused: split/form → answers that the fact check refused.
    """

    examples: list[Example]
    dropped: list[Dropped]
    refused: dict[str, int]


def build_examples(cleaned: Cleaned, graph: Graph, config: DataBuild, linker: Linker | None = None) -> Built:
    """Build every split.

    Raises:
        UserError: as `check`, or more records asked for than the graph gives.
    """
    wording = load_wording(config.forms_path)
    weights = check(config, wording)
    linker = linker or Linker.from_graph(graph)
    train, held, left_out = split_entries(cleaned)
    examples: list[Example] = []
    refused: dict[str, int] = {}
    for split, entries, number in (
        ("train", train, config.num_records),
        ("unseen_disease", held, config.num_eval),
        ("seen_fact", train, config.num_eval),
    ):
        builder = Builder(Pool(entries, cleaned.entries), split, wording, graph.licences, linker)
        if split == "seen_fact":
            builder.only = {fact for example in examples if example.split == "train" for fact in example.facts}
        sources = {form: builder.examples(form, shares_of(config, split), config.seed) for form in weights}
        made = take(sources, weights, number) if number or split == "train" else []
        if split == "train":
            _enough(len(made), config)
        elif len(made) < number:
            log.warning("%s: %s records instead of %s; the graph gives no more", split, len(made), number)
        random.Random(f"{config.seed}/{split}").shuffle(made)
        examples += made
        refused |= {f"{split}/{form}": count for form, count in builder.refused.items()}
    return Built(examples, [*cleaned.dropped, *left_out], refused)


def _enough(made: int, config: DataBuild) -> None:
    if not made:
        raise UserError(f"graph {config.graph}: nothing to build records from; see `xinglin kg check`")
    if made < config.num_records:
        raise UserError(
            f"num_records {config.num_records}: the graph gives only {made} with these forms; ask for fewer"
        )


def summarize(built: Built, cleaned: Cleaned, graph: Graph, config: DataBuild) -> dict[str, Any]:
    """Counts per split, form and kind of input, and what became of the graph's facts."""
    counts: dict[str, Any] = {}
    for example in built.examples:
        for key, value in (("form", example.form), ("knowledge", example.knowledge)):
            table = counts.setdefault(example.split, {}).setdefault(key, Counter())
            table[value] += 1
    return {
        "sources": graph.licences,
        "seed": config.seed,
        "records": dict(Counter(example.split for example in built.examples)),
        "splits": counts,
        "subjects": dict(Counter(entry.kind for entry in cleaned.entries)),
        "facts_looked_at": cleaned.facts,
        "facts_normalised": cleaned.normalised,
        "facts_dropped_by_rule": dict(Counter(one.rule for one in built.dropped).most_common()),
        "triples_without_a_form": cleaned.unused,
        "answers_refused_by_the_fact_check": built.refused,
    }


def records_path(output_path: str | Path) -> Path:
    """Where the full records of an Alpaca file lie."""
    return Path(output_path).with_suffix(".records.jsonl")


def written_beside(output: Path) -> list[Path]:
    """The four files of a build: summary, ledger, full records, and the Alpaca file itself."""
    return [output.with_suffix(".summary.json"), output.with_suffix(".dropped.jsonl"), records_path(output), output]


def write_data(config: DataBuild) -> None:
    """Build the data and write the four files; they appear together, or none of them.

    Raises:
        UserError: as `build_examples`, or an output_path that is a folder.
    """
    output = Path(config.output_path)
    if output.is_dir():
        raise UserError(
            f"output_path {config.output_path!r} is a folder; give a file, e.g. {output / 'llama_data.json'}"
        )
    check(config, load_wording(config.forms_path))
    graph = open_graph(config.graph)
    cleaned = clean(graph)
    built = build_examples(cleaned, graph, config)
    summary = summarize(built, cleaned, graph, config)
    with ExitStack() as files:  # all are written before the first takes its place
        new = [files.enter_context(atomic_write(path)) for path in written_beside(output)]
        new[0].write(json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
        new[1].writelines(json_line(to_json(one)) + "\n" for one in built.dropped)
        new[2].writelines(json_line(to_json(one)) + "\n" for one in built.examples)
        rows = [json_line(to_alpaca(one)) for one in built.examples if one.split == "train"]
        new[3].write("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{output}: {summary['records']['train']:,} training records; {records_path(output).name}: all splits, full")
