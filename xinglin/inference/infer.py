"""Ask questions.

xinglin infer --base_model smollm2-135m --lora_weights runs/demo/adapter
    xinglin infer --base_model smollm2-135m --lora_weights runs/demo/adapter \
        --instruct_dir questions.json --output_path answers.jsonl
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from xinglin.backbone import choose_precision
from xinglin.dataset import formats
from xinglin.errors import UserError
from xinglin.inference.batch import answer_file, fingerprint, read_questions
from xinglin.inference.documents import Documents
from xinglin.inference.engine import Engine, holds_whole_model, load_engine
from xinglin.inference.generation import Generation
from xinglin.inference.grounding import Answer, Grounding, Prepared, answer_grounded
from xinglin.inference.options import ChatConfig, InferConfig
from xinglin.inference.vllm import load_vllm
from xinglin.knowledge.graph import open_graph
from xinglin.prompts import disarmed, with_knowledge
from xinglin.records import Example, Prediction, Turn

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
    """Answer every question: streamed to the terminal, or in batches to `output_path`.

    Raises:
        UserError: options that do not go together, files or weights missing, broken or not fitting.
    """
    _check(config)
    adapter = config.lora_weights if config.use_lora else ""
    load = load_vllm if config.backend == "vllm" else load_engine
    engine = load(
        config.base_model,
        adapter,
        config.prompt_template,
        choose_precision(config.precision),
        quantization="4bit" if config.load_4bit else "8bit" if config.load_8bit else "",
        thinking=config.enable_thinking,
    )
    generation = asked_generation(config, engine.generation)
    questions, rejected = _questions(config, engine)
    documents = Documents(config.knowledge) if config.knowledge else None
    grounding = Grounding(open_graph(config.graph), documents) if config.ground else None
    if config.output_path:
        ask = partial(_ask, engine, generation, config, grounding)
        settings = {
            "model": [engine.base, fingerprint(engine.base)],
            "adapter": [engine.adapter, fingerprint(engine.adapter)],
            "prompt": engine.encoding.template.digest(),
            "generation": generation.record(),
            "ground": [config.graph, config.knowledge] if config.ground else [],
        }
        made = answer_file(ask, questions, rejected, Path(config.output_path), settings)
        print(f"{config.output_path}: {made} answers")
        if rejected:
            print(f"{config.output_path}.rejected: {len(rejected)} questions that could not be asked, and why")
        return
    for one in rejected:
        log.warning("%s: %s; left out", one["where"], one["reason"])
    for example in questions:
        _to_terminal(engine, example, generation, grounding)
    print(f"\n{DISCLAIMER}")


def _check(config: InferConfig) -> None:
    """Refuse what cannot work, before anything is loaded."""
    if config.use_lora and not config.lora_weights and not holds_whole_model(config.base_model):
        raise UserError("use_lora needs --lora_weights FOLDER; give --use_lora False to ask the plain base")
    if config.batch_size < 1 or config.batch_tokens < 1:
        raise UserError("batch_size and batch_tokens must be at least 1")
    if config.load_4bit and config.load_8bit:
        raise UserError("load_4bit and load_8bit: give one of them")
    if config.output_path and (Path(config.output_path).is_dir() or not _writable(Path(config.output_path))):
        raise UserError(f"output_path {config.output_path!r}: cannot be written; give a file in a writable folder")
    if config.backend == "vllm" and not config.output_path:
        raise UserError("backend vllm answers many questions to a file; give --instruct_dir FILE --output_path FILE")
    if config.knowledge and not config.ground:
        raise UserError("knowledge is what grounded answers stand on; give --ground True")
    asked_generation(config, Generation())
    if config.instruct_dir:
        formats.detect(config.instruct_dir, need_output=False, broken=_ignored)


def _ignored(where: str, why: str) -> None:
    """For what is told of later."""


def asked_generation(config: InferConfig | ChatConfig, stored: Generation) -> Generation:
    """The settings stored with the weights, with what was asked for in their place.

    Raises:
        UserError: a setting out of its range.
    """
    asked = {name: value for name in Generation.__dataclass_fields__ if (value := getattr(config, name)) is not None}
    return replace(stored, **asked)


def _writable(path: Path) -> bool:
    """Whether a file can be put there, found out before hours of generating."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)


def _questions(config: InferConfig, engine: Engine) -> tuple[list[Example], list[dict[str, str]]]:
    if config.instruct_dir:
        return read_questions(config.instruct_dir, engine.prompt)
    return [Example(id=f"built-in-{number}", turns=(turn,)) for number, turn in enumerate(QUESTIONS, 1)], []


def _ask(
    engine: Engine,
    generation: Generation,
    config: InferConfig,
    grounding: Grounding | None,
    examples: Sequence[Example],
) -> Iterator[Prediction]:
    """Answers to some questions, in any order."""
    answer = partial(engine.answer, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
    if grounding is None:
        yield from answer(examples, generation)
        return
    for example, grounded in answer_grounded(engine, grounding, examples, generation, answer):
        yield _as_prediction(example, grounded, engine, generation)


def _as_prediction(example: Example, answer: Answer, engine: Engine, generation: Generation) -> Prediction:
    """A grounded answer as a record, whether a model was asked for it or not."""
    made = answer.prediction or Prediction(
        example.id, "", "", engine.base, engine.adapter, generation.record(), finish_reason="stop"
    )
    return replace(
        made,
        answer=answer.text,
        facts=answer.facts,
        kind=answer.kind,
        unsupported=answer.unsupported,
        question=with_knowledge(example.question),
    )


def show_grounded(engine: Engine, generation: Generation, grounding: Grounding, prepared: Prepared) -> Answer:
    """Print an answer as it is made, with the facts that it stands on and what they do not support."""
    if prepared.example is None or prepared.found is None:
        print(f"回答：{prepared.text}")
        return grounding.finish(prepared, None)
    for text, source in prepared.sources:
        print(f"资料：{text}〔{source}〕")
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


def _to_terminal(engine: Engine, example: Example, generation: Generation, grounding: Grounding | None) -> None:
    shown = disarmed(example.question, ())  # no control character reaches the terminal
    print(f"\n问题：{shown.content}")
    if grounding:
        show_grounded(engine, generation, grounding, grounding.prepare(example))
        return
    if shown.input:
        print(f"资料：{shown.input}")
    print("回答：", end="", flush=True)
    for piece in engine.stream(example, generation):
        print(piece, end="", flush=True)
    print()
