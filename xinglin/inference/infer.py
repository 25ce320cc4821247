"""Ask questions.

xinglin infer --base_model smollm2-135m --lora_weights runs/demo/adapter
    xinglin infer --base_model smollm2-135m --lora_weights runs/demo/adapter \
        --instruct_dir questions.json --output_path answers.jsonl
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from xinglin.backbone import choose_precision
from xinglin.console import stderr
from xinglin.dataset import formats
from xinglin.errors import UserError
from xinglin.inference.engine import Engine, Generation, holds_whole_model, load_engine
from xinglin.inference.grounding import Answer, Grounding, Prepared, answer_grounded
from xinglin.inference.options import InferConfig
from xinglin.knowledge.graph import open_graph
from xinglin.records import Example, Prediction, Turn, write_jsonl

log = logging.getLogger(__name__)

DISCLAIMER = "（AI 生成，仅供研究，不作诊疗依据；没有给资料的回答没有依据，不可采信。身体不适请就医，急症请拨打 120。）"

QUESTIONS = (
    Turn("user", "慢性咽炎应该挂哪个科？"),
    Turn("user", "急性阑尾炎有哪些症状？"),
    Turn("user", "怀疑缺铁性贫血要查什么？", "缺铁性贫血的检查：血常规、血清铁蛋白、骨髓检查\n胃息肉的检查：胃镜检查"),
    Turn("user", "带状疱疹有哪些并发症？", "带状疱疹的就诊科室：皮肤科"),
)
"""Two without knowledge, one whose knowledge answers it, one whose knowledge does not."""


def infer(config: InferConfig) -> None:
    """Answer every question: streamed to the terminal, or in batches to `output_path`."""
    if config.use_lora and not config.lora_weights and not holds_whole_model(config.base_model):
        raise UserError("use_lora needs --lora_weights FOLDER; give --use_lora False to ask the plain base")
    if config.max_new_tokens < 1 or config.batch_size < 1:
        raise UserError("max_new_tokens and batch_size must be at least 1")
    if config.load_4bit and config.load_8bit:
        raise UserError("load_4bit and load_8bit: give one of them")
    if config.output_path and (Path(config.output_path).is_dir() or not _writable(Path(config.output_path))):
        raise UserError(f"output_path {config.output_path!r}: cannot be written; give a file in a writable folder")
    questions = _questions(config)
    adapter = config.lora_weights if config.use_lora else ""
    engine = load_engine(
        config.base_model,
        adapter,
        config.prompt_template,
        choose_precision(config.precision),
        quantization="4bit" if config.load_4bit else "8bit" if config.load_8bit else "",
        thinking=config.enable_thinking,
    )
    generation = Generation(config.max_new_tokens)
    grounding = Grounding(open_graph(config.graph)) if config.ground else None
    if config.output_path:
        _to_file(engine, questions, generation, config, grounding)
    elif grounding:
        _grounded_to_terminal(engine, questions, generation, grounding)
    else:
        _to_terminal(engine, questions, generation)


def _writable(path: Path) -> bool:
    """Whether a file can be put there, found out before hours of generating."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)


def _questions(config: InferConfig) -> list[Example]:
    if config.instruct_dir:
        return [row.example for row in formats.read(config.instruct_dir, need_output=False) if row.example]
    return [Example(id=f"built-in-{number}", turns=(turn,)) for number, turn in enumerate(QUESTIONS, 1)]


def _to_file(
    engine: Engine,
    questions: list[Example],
    generation: Generation,
    config: InferConfig,
    grounding: Grounding | None,
) -> None:
    answers: Iterable[Prediction] = engine.answer(questions, generation, config.batch_size)
    if grounding:
        grounded = answer_grounded(engine, grounding, questions, generation, config.batch_size)
        answers = (_as_prediction(example, answer, engine, generation) for example, answer in grounded)
    made = {one.id: one for one in track(answers, "answers", total=len(questions), console=stderr())}
    write_jsonl(Path(config.output_path), (made[example.id] for example in questions))
    print(f"{config.output_path}: {len(made)} answers")


def _as_prediction(example: Example, answer: Answer, engine: Engine, generation: Generation) -> Prediction:
    """A grounded answer as a record, whether a model was asked for it or not."""
    made = answer.prediction or Prediction(
        example.id, "", "", engine.base, engine.adapter, generation.record(), finish_reason="stop"
    )
    return replace(made, answer=answer.text, facts=answer.facts, kind=answer.kind, unsupported=answer.unsupported)


def _grounded_to_terminal(
    engine: Engine, questions: list[Example], generation: Generation, grounding: Grounding
) -> None:
    for example in questions:
        print(f"\n问题：{example.question.content}")
        show_grounded(engine, generation, grounding, grounding.prepare(example))
    print(f"\n{DISCLAIMER}")


def show_grounded(engine: Engine, generation: Generation, grounding: Grounding, prepared: Prepared) -> Answer:
    """Print an answer as it is made, with the facts that it stands on and what they do not support."""
    if prepared.example is None or prepared.found is None:
        print(f"回答：{prepared.text}")
        return grounding.finish(prepared, None)
    for line in prepared.found.lines:
        sources = "、".join(dict.fromkeys(fact.source for fact in line.facts))
        print(f"资料：{line.text}〔{sources}〕")
    print(f"回答：{prepared.text}", end="", flush=True)
    pieces = []
    for piece in engine.stream(prepared.example, generation):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print()
    answer = grounding.finish(prepared, engine.as_prediction(prepared.example, generation, "".join(pieces)))
    if answer.worded_by == "program":
        why = f"资料不支持其中的{'、'.join(answer.unsupported)}" if answer.unsupported else "漏了资料里的内容"
        print(f"更正：{answer.text}〔上面模型的回答{why}〕")
    return answer


def _to_terminal(engine: Engine, questions: list[Example], generation: Generation) -> None:
    for example in questions:
        print(f"\n问题：{example.question.content}")
        if example.question.input:
            print(f"资料：{example.question.input}")
        print("回答：", end="", flush=True)
        for piece in engine.stream(example, generation):
            print(piece, end="", flush=True)
        print()
    print(f"\n{DISCLAIMER}")
