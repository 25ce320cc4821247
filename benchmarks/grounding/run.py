"""What grounded answers are worth, beside closed-book ones and beside none at all.

    python benchmarks/grounding/run.py --lora_weights runs/demo/adapter --records_path data/llama_data.records.jsonl

`records_path`: of `data build --num_eval 420`, whose unseen diseases give 333 questions with facts. Asked are these
(the question alone, the facts have to be found), the same diseases for what the graph has not, `unanswerable.jsonl` and
`lay_questions.jsonl`. Writes results.json and each system's answers into --output_dir.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xinglin import console
from xinglin.backbone import choose_precision
from xinglin.dataset.wording import MAX_OBJECTS, load_wording
from xinglin.evaluation.controls import with_turns_before, worked_examples
from xinglin.evaluation.questions import without_knowledge
from xinglin.evaluation.statistics import mean_score, ratio_score
from xinglin.inference.engine import Engine, load_engine
from xinglin.inference.generation import Generation
from xinglin.inference.grounding import Answer, Grounding, answer_grounded, in_plain_words
from xinglin.inference.retrieve import Retriever
from xinglin.knowledge.check import check_answer
from xinglin.knowledge.graph import load_cmekg
from xinglin.records import Example, Score, Turn, read_examples, to_json, write_json, write_jsonl

HERE = Path(__file__).parent
PAIRS = ("comparison", "same_cause", "same_department", "verify_alias")
Asked = dict[str, list[Example]]


def kind_of(form: str) -> str:
    """single, comparison or vignette."""
    return "vignette" if form.startswith("vignette") else "comparison" if form in PAIRS else "single"


def questions(records: Sequence[Example], retriever: Retriever) -> Asked:
    """Name of a set → its questions; `facts` hold what an answer may stand on, nothing where it must abstain."""
    unseen = [one for one in records if one.split == "unseen_disease" and one.knowledge == "facts"]
    sets: Asked = {}
    for one in unseen:
        sets.setdefault(kind_of(one.form), []).append(one)
    sets["missing"] = missing(unseen, retriever)
    for mark in ("", "_2"):
        sets[f"unanswerable{mark}"] = [
            Example(id=f"none{mark}-{n}", turns=(Turn("user", row["question"]),), form=row["kind"])
            for n, row in enumerate(read(f"unanswerable{mark}.jsonl"))
        ]
    for file, mark in LAY.items():
        for n, row in enumerate(read(file)):
            fitting = [facts for name in row["about"] if (facts := facts_of(retriever, name, row["topic"]))]
            every = tuple(dict.fromkeys(fact for facts in fitting for fact in facts))
            example = Example(f"lay{mark}-{n}", (Turn("user", row["question"]),), facts=every, form=row["topic"])
            ANY_OF[example.id] = fitting
            sets.setdefault(f"lay_{row['kind']}{mark}", []).append(example)
    return sets


LAY = {"lay_questions.jsonl": "", **{f"lay_questions_{n}.jsonl": f"_{n}" for n in (2, 3, 4)}}
"""Files of questions in lay words → what marks their sets."""


ANY_OF: dict[str, list[list[tuple[str, str, str]]]] = {}
"""Lay question → the facts of each disease that it fits; an answer about any of them is right."""


def facts_of(retriever: Retriever, name: str, topic: str) -> list[tuple[str, str, str]]:
    """Everything that may be said of a disease on a topic; of `disease`, that it is this one (its department)."""
    entry = retriever.entry(name)
    said = entry.facts.get("department" if topic == "disease" else topic, {})
    return [(fact.subject, fact.predicate, fact.object) for fact in said.values()]


def missing(unseen: Sequence[Example], retriever: Retriever) -> list[Example]:
    """The same diseases, asked for a topic that the graph has not, in the evaluation phrasings."""
    forms = load_wording().forms
    made = []
    for number, one in enumerate(unseen):
        entry = retriever.entry(one.facts[0][0])
        lacking = [topic for topic in forms if topic in LACKABLE and not entry.objects(topic)]
        if entry.kind == "disease" and lacking:
            topic = lacking[number % len(lacking)]
            phrasing = forms[topic].evaluation[number % len(forms[topic].evaluation)]
            turns = (Turn("user", phrasing.format(d=entry.name, kin="家里人")),)
            made.append(Example(id=f"missing-{number}", turns=turns, form=topic))
    return made


LACKABLE = ("examinations", "complications", "causes", "treatment", "body_site", "population", "route", "department")


def read(name: str) -> list[dict[str, Any]]:
    """The lines of a file beside this one."""
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


def score(name: str, asked: Sequence[Example], answers: dict[str, Answer], grounding: Grounding) -> list[Score]:
    """Recall and unsupported mentions of a set that can be answered; how often nothing is claimed, of every set."""
    silent = [float(answers[one.id].kind in ("referred", "abstained")) for one in asked]
    scores = [mean_score("abstained", silent, label=name)]
    able = [one for one in asked if one.facts]
    if able:
        checks = [check_answer(answers[one.id].text, one.facts, grounding.linker, one.question.content) for one in able]
        recall = [
            max(recall_of(answers[one.id].text, facts, grounding, one) for facts in ANY_OF.get(one.id, [one.facts]))
            for one in able
        ]
        wrong = [float(len(set(c.unsupported) | set(c.contradicted))) for c in checks]
        said = [len(c.supported) + bad for c, bad in zip(checks, wrong, strict=True)]
        scores.append(mean_score("fact_recall", recall, label=name))
        if sum(said):
            scores.append(ratio_score("unsupported", wrong, said, label=name))
    return scores


def recall_of(answer: str, facts: Sequence[tuple[str, str, str]], grounding: Grounding, asked: Example) -> float:
    """Share of one disease's facts that an answer says; of a lay question's, those beyond five are not expected."""
    check = check_answer(answer, facts, grounding.linker, asked.question.content)
    said, known = len(check.supported), len(check.supported) + len(check.missed)
    expected = min(MAX_OBJECTS, known) if asked.id in ANY_OF else known
    return min(1.0, said / expected) if expected else 1.0


def closed(
    engine: Engine, asked: Iterable[Example], generation: Generation, shots: tuple[Turn, ...] = ()
) -> dict[str, Answer]:
    """Answers of a model by itself."""
    examples = [with_turns_before(one, shots) if shots else without_knowledge(one) for one in asked]
    made = engine.answer(examples, generation, 32)
    return {one.id: Answer("answered", one.answer, (), (), (), one) for one in made}


def grounded(
    engine: Engine, grounding: Grounding, asked: Iterable[Example], generation: Generation
) -> dict[str, Answer]:
    """Grounded answers."""
    return {one.id: answer for one, answer in answer_grounded(engine, grounding, list(asked), generation)}


def by_lookup(grounding: Grounding, asked: Iterable[Example]) -> dict[str, Answer]:
    """The control without a model: what was found, in a fixed sentence."""
    answers = {}
    for one in asked:
        prepared = grounding.prepare(one)
        answer = grounding.finish(prepared, None)
        text = in_plain_words(prepared.found) if prepared.example and prepared.found else prepared.text
        answers[one.id] = replace(answer, text=text)
    return answers


def as_worded(answers: dict[str, Answer]) -> dict[str, Answer]:
    """The same answers as the model worded them, before the check replaced any."""
    return {key: replace(one, text=one.prediction.answer) if one.prediction else one for key, one in answers.items()}


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Ask every system; what results.json keeps."""
    records = read_examples(asked.records_path)
    grounding = Grounding(load_cmekg())
    sets = questions(records, grounding.retriever)
    every = [one for group in sets.values() for one in group]
    answerable = [one for one in every if one.facts]
    generation = Generation(128)
    results: dict[str, Any] = {"questions": {name: len(group) for name, group in sets.items()}, "scores": []}
    shots = worked_examples([one for one in records if one.split == "train"], 42)

    def keep(system: str, answers: dict[str, Answer]) -> None:
        for name, group in sets.items():
            if all(one.id in answers for one in group):
                results["scores"] += [{"system": system, **to_json(s)} for s in score(name, group, answers, grounding)]
        rows = [
            {"system": system, "id": one.id, "question": one.question.content, **to_json(answers[one.id])}
            for one in every
            if one.id in answers
        ]
        write_jsonl(Path(asked.output_dir) / f"{system}.jsonl", rows)

    keep("lookup", by_lookup(grounding, every))
    systems: dict[str, Callable[[Engine], dict[str, Answer]]] = {
        "base": lambda engine: closed(engine, answerable, generation),
        "tuned": lambda engine: closed(engine, answerable, generation),
        "tuned_grounded": lambda engine: grounded(engine, grounding, every, generation),
        "base_grounded_3": lambda engine: closed(engine, found(grounding, answerable), generation, shots),
    }
    for adapter, names in ((asked.lora_weights, ("tuned_grounded", "tuned")), ("", ("base", "base_grounded_3"))):
        wanted = [name for name in names if name in asked.systems.split(",")]
        if wanted:
            engine = load_engine(asked.base_model, adapter, asked.template, choose_precision("auto"))
            for name in wanted:
                answers = systems[name](engine)
                keep(name, answers)
                if name == "tuned_grounded":
                    keep("tuned_grounded_unchecked", as_worded(answers))
                    made = [one for one in answers.values() if one.prediction]
                    by_model = sum(one.worded_by == "model" for one in made) / len(made)
                    results["worded_by_the_model"] = round(by_model, 3)
            del engine
    return results


def found(grounding: Grounding, asked: Iterable[Example]) -> list[Example]:
    """Questions with what was found for them."""
    prepared = [(one, grounding.prepare(one)) for one in asked]
    return [ready.example or without_knowledge(one) for one, ready in prepared]


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="smollm2-135m")
    parser.add_argument("--lora_weights", required=True)
    parser.add_argument("--records_path", required=True)
    parser.add_argument("--template", default="med_template")
    parser.add_argument("--systems", default="base,tuned,tuned_grounded,base_grounded_3")
    parser.add_argument("--output_dir", default=str(HERE / "out"))
    asked = parser.parse_args()
    console.set_up_logging()
    Path(asked.output_dir).mkdir(parents=True, exist_ok=True)
    results = run(asked)
    for one in results["scores"]:
        interval = f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] n={one['n']}"
        print(f"{one['system']:<25} {one['slice']:<13} {one['metric']:<12} {interval}")
    write_json(Path(asked.output_dir) / "results.json", results)


if __name__ == "__main__":
    main()
