"""Base against tuned, on diseases that were not trained on.

xinglin compare --base_model smollm2-135m --lora_weights runs/demo/adapter \
        --records_path runs/demo/data/llama_data.records.jsonl
"""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from xinglin.backbone import choose_precision
from xinglin.console import stderr
from xinglin.errors import UserError
from xinglin.evaluation.controls import lookup, with_turns_before, worked_examples
from xinglin.evaluation.metrics import answer_nats
from xinglin.evaluation.options import CompareConfig
from xinglin.evaluation.questions import report_questions, unseen_questions, without_knowledge
from xinglin.evaluation.report import Report, write_report
from xinglin.evaluation.statistics import mean_score, paired_difference, ratio_score
from xinglin.inference.engine import Engine, load_engine, require_tuned
from xinglin.inference.generation import Generation
from xinglin.knowledge.check import AnswerCheck, check_answer
from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.link import Linker
from xinglin.prompts import CHAT_FILE, TEMPLATE_FILE
from xinglin.records import Example, Prediction, Score, read_examples, write_jsonl

SYSTEMS = {
    "base": "基座（不给资料）",
    "tuned": "微调后（不给资料）",
    "tuned_facts": "微调后 + 资料",
    "lookup": "对照：查表 + 固定句式，不用模型",
    "base_facts_3": "对照：基座 + 资料 + 三个示例",
}
"""System → how the report names it."""


@dataclass(frozen=True)
class Asked:
    """The questions, closed-book and with facts, in the same order; the report's own two come first."""

    own: list[Example]
    unseen: list[Example]
    shots: tuple[Any, ...]

    @property
    def closed(self) -> list[Example]:
        """All questions without knowledge."""
        return [without_knowledge(example) for example in (*self.own, *self.unseen)]

    @property
    def with_facts(self) -> list[Example]:
        """All questions with facts in `input`."""
        return [*self.own, *self.unseen]


def check(config: CompareConfig) -> None:
    """Refuse numbers that cannot work, before anything is asked."""
    for name in ("num_questions", "max_new_tokens", "batch_size"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(config, name)}")


def compare(config: CompareConfig) -> dict[str, Any]:
    """Ask every system the same questions, score the answers, write the report.

    Returns:
        The contents of `report.json`.

    Raises:
        UserError: files or adapter missing, or too few questions.
    """
    check(config)
    require_tuned(config.lora_weights)
    records = read_examples(config.records_path)
    graph = load_cmekg()
    shots = worked_examples([one for one in records if one.split == "train"], config.seed)
    asked = Asked(report_questions(graph), unseen_questions(records, config.num_questions), shots)
    linker = Linker.from_graph(graph)
    answers: dict[str, dict[str, Prediction]] = {"lookup": _lookup_answers(asked)}
    nats: dict[str, list[float]] = {}
    for adapter in ("", config.lora_weights):
        _ask(config, adapter, asked, answers, nats)
    scores = _scores(asked, answers, nats, linker)
    folder = Path(config.output_dir)
    everything = (answers[system][example.id] for system in SYSTEMS for example in asked.with_facts)
    write_jsonl(folder / "predictions.jsonl", everything)
    report = Report(
        systems=SYSTEMS,
        scores=scores,
        questions=asked.with_facts,
        answers={system: {key: one.answer for key, one in made.items()} for system, made in answers.items()},
        base=config.base_model,
        adapter=Path(config.lora_weights),
    )
    return write_report(report, folder)


def _lookup_answers(asked: Asked) -> dict[str, Prediction]:
    return {
        example.id: Prediction(example.id, "", lookup(example), "lookup", "", {}, finish_reason="stop")
        for example in asked.with_facts
    }


def _ask(
    config: CompareConfig,
    adapter: str,
    asked: Asked,
    answers: dict[str, dict[str, Prediction]],
    nats: dict[str, list[float]],
) -> None:
    """All questions to one model; the model is gone from memory when this returns."""
    name = "tuned" if adapter else "base"
    engine = load_engine(config.base_model, adapter, _template_of(config), choose_precision(config.precision))
    rounds = {name: asked.closed}
    if adapter:
        rounds["tuned_facts"] = asked.with_facts
    else:
        rounds["base_facts_3"] = [with_turns_before(example, asked.shots) for example in asked.with_facts]
    for system, examples in rounds.items():
        answers[system] = _answers(engine, examples, config, SYSTEMS[system])
    closed = [without_knowledge(example) for example in asked.unseen]
    nats[name] = answer_nats(engine.model, closed, engine.encoding)
    nats[f"{name}_facts"] = answer_nats(engine.model, asked.unseen, engine.encoding)
    del engine
    gc.collect()


def _template_of(config: CompareConfig) -> str:
    files = (Path(config.lora_weights) / name for name in (TEMPLATE_FILE, CHAT_FILE))
    return next((str(file) for file in files if file.is_file()), "auto")


def _answers(engine: Engine, examples: list[Example], config: CompareConfig, label: str) -> dict[str, Prediction]:
    made = engine.answer(examples, Generation(config.max_new_tokens), config.batch_size)
    return {one.id: one for one in track(made, label, total=len(examples), console=stderr())}


def _scores(
    asked: Asked, answers: dict[str, dict[str, Prediction]], nats: dict[str, list[float]], linker: Linker
) -> list[Score]:
    """Every figure of the report; differences are taken question by question."""
    characters = [float(len(example.answer)) for example in asked.unseen]
    scores = [ratio_score("nll_per_character", values, characters, label=system) for system, values in nats.items()]
    checks: dict[str, list[AnswerCheck]] = {
        system: [check_answer(made[one.id].answer, one.facts, linker, one.question.content) for one in asked.unseen]
        for system, made in answers.items()
    }
    recall = {system: [one.recall for one in made] for system, made in checks.items()}
    for system in SYSTEMS:
        scores.append(mean_score("fact_recall", recall[system], label=system))
        scores.append(mean_score("fact_precision", [one.precision for one in checks[system]], label=system))
        ended = [float(answers[system][example.id].finish_reason == "stop") for example in asked.unseen]
        scores.append(mean_score("ended_by_itself", ended, label=system))
    for form in sorted({example.form for example in asked.unseen}):
        chosen = [
            value for value, example in zip(recall["tuned_facts"], asked.unseen, strict=True) if example.form == form
        ]
        scores.append(mean_score("fact_recall", chosen, label=f"tuned_facts/{form}"))
    scores.append(paired_difference("nll_difference", nats["tuned"], nats["base"], characters, label="tuned-base"))
    ones = [1.0] * len(characters)
    ours, theirs = recall["tuned_facts"], recall["base_facts_3"]
    scores.append(paired_difference("recall_difference", ours, theirs, ones, label="tuned_facts-base_facts_3"))
    return scores
