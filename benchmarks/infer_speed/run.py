r"""Answers a minute, beside the ways in which others ask the same model; greedy, same prompts, same number format.

    python benchmarks/infer_speed/run.py --lora_weights runs/demo/adapter \\
        --records_path runs/demo/data/llama_data.records.jsonl
    python benchmarks/infer_speed/run.py … --llama_python PATH      with llama-cpp-python, from its own environment

relatives     one question at a time through `generate`, the LoRA beside the base (alpaca-lora and those after it)
merged_1      one question at a time through `generate`, the LoRA folded in
ours_1        our engine, one question at a time
ours          our engine as `infer --output_path` uses it
llama_cpp     single stream of the plain base's GGUF; beside it ours_base, the same tokens through our engine

In every round each system answers the same questions, with facts and without, of all forms and lengths; those that
answer one at a time, for which one question more is no help, only every fourth of them. Writes results.json.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from xinglin import assets, console
from xinglin.backbone import choose_precision, load_base
from xinglin.evaluation.questions import without_knowledge
from xinglin.inference.engine import Engine, load_engine
from xinglin.inference.generation import Generation
from xinglin.records import Example, read_examples, write_json

HERE = Path(__file__).parent
LLAMA = """
import json, sys, time
from llama_cpp import Llama
said = json.load(sys.stdin)
model = Llama(said["gguf"], n_ctx=2048, n_threads=said["threads"], n_threads_batch=said["threads"], verbose=False)
made = seconds = 0
for ids in said["prompts"]:
    model.reset()
    began, count = time.perf_counter(), 0
    for token in model.generate(ids, temp=0.0, reset=True):
        count += 1
        if count == said["new"]:
            break
    seconds += time.perf_counter() - began
    made += count
print(json.dumps({"tokens": made, "seconds": seconds}))
"""


def chosen(path: str, count: int) -> list[Example]:
    """Questions about unseen diseases, every second one with its facts."""
    records = [one for one in read_examples(path) if one.split == "unseen_disease" and one.facts]
    step = max(1, len(records) // count)
    picked = records[::step][:count]
    return [one if number % 2 else without_knowledge(one) for number, one in enumerate(picked)]


def one_by_one(model: Any, prompts: Sequence[list[int]], stops: list[int], pad: int, new: int) -> list[list[int]]:
    """The plain way: each prompt by itself through `generate`; the ids of the answers."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=pad,
            )
        answers.append(made[0, ids.shape[1] :].tolist())
    return answers


class Alone:
    """The relatives' way, in a process of its own: without our settings of a process (memory, attention)."""

    def __init__(self, base: str, adapter: str) -> None:
        self._pool = get_context("spawn").Pool(1, _load, (base, adapter))

    def answer(self, *asked: Any) -> list[list[int]]:
        """What `one_by_one` gives."""
        return self._pool.apply(_answer, asked)


_LOADED: list[Any] = []


def _load(base: str, adapter: str) -> None:
    model = load_base(base, choose_precision("auto"))
    _LOADED.append(PeftModel.from_pretrained(model, adapter).eval())


def _answer(*asked: Any) -> list[list[int]]:
    return one_by_one(_LOADED[0], *asked)


def by_engine(engine: Engine, questions: Sequence[Example], new: int, batch_size: int) -> list[str]:
    """Our engine, in the order asked."""
    numbered = [replace(one, id=str(place)) for place, one in enumerate(questions)]
    made = {one.id: one.answer for one in engine.answer(numbered, Generation(new), batch_size)}
    return [made[one.id] for one in numbered]


def single_stream(engine: Engine, prompts: Sequence[list[int]], new: int) -> dict[str, float]:
    """Exactly `new` tokens after each prompt, one at a time."""
    began = time.perf_counter()
    for ids in prompts:
        with torch.inference_mode():
            engine.model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                min_new_tokens=new,
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=engine.encoding.tokenizer.pad_id,
            )
    return {"tokens": new * len(prompts), "seconds": time.perf_counter() - began}


def llama_cpp(python: str, gguf: Path, prompts: Sequence[list[int]], new: int) -> dict[str, float]:
    """The same through llama.cpp, in a process of its own; loading is not counted."""
    said = {"gguf": str(gguf), "prompts": list(prompts), "new": new, "threads": torch.get_num_threads()}
    done = subprocess.run([python, "-c", LLAMA], input=json.dumps(said), capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(systems: dict[str, Callable[[], list[str]]], rounds: int) -> tuple[dict[str, Any], Any]:
    """Seconds an answer of every system in every round, and the answers of the last."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    answers: dict[str, list[str]] = {}
    for number in range(rounds):
        for name, ask in systems.items():
            began = time.perf_counter()
            answers[name] = ask()
            seconds[name].append((time.perf_counter() - began) / len(answers[name]))
            print(f"round {number + 1}: {name:<10} {60 / seconds[name][-1]:7.1f} answers a minute", flush=True)
    return seconds, answers


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="smollm2-135m")
    parser.add_argument("--lora_weights", required=True)
    parser.add_argument("--records_path", required=True)
    parser.add_argument("--llama_python", default="", help="a Python that has llama-cpp-python")
    parser.add_argument("--questions", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--output_path", default=str(HERE / "results.json"))
    asked = parser.parse_args()
    console.set_up_logging()
    precision, new = choose_precision("auto"), asked.max_new_tokens
    questions = chosen(asked.records_path, asked.questions)
    # every fourth, with facts and without, as among all
    alone = [one for place, one in enumerate(questions) if place % 8 in (0, 5)]
    engine = load_engine(asked.base_model, asked.lora_weights, "auto", precision)
    relatives = Alone(asked.base_model, asked.lora_weights)
    prompts, encoding = [engine.prompt(one) for one in alone], engine.encoding
    plainly = (prompts, list(engine.stops), encoding.tokenizer.pad_id, new)
    relatives.answer(prompts[:2], *plainly[1:])  # loads

    def said(answers: list[list[int]]) -> list[str]:
        return [encoding.tokenizer.decode(ids).strip() for ids in answers]

    systems: dict[str, Callable[[], list[str]]] = {
        "relatives": lambda: said(relatives.answer(*plainly)),
        "merged_1": lambda: said(one_by_one(engine.model, *plainly)),
        "ours_1": lambda: by_engine(engine, alone, new, 1),
        "ours": lambda: by_engine(engine, questions, new, 64),
    }
    by_engine(engine, questions[:2], 8, 2)  # what a first call sets up
    seconds, answers = measured(systems, asked.rounds)
    answers["ours"] = [answers["ours"][questions.index(one)] for one in alone]
    results: dict[str, Any] = {
        "questions": len(questions),
        "one_at_a_time": len(alone),
        "threads": torch.get_num_threads(),
        "precision": precision.name,
        "answers_per_minute": {name: round(60 / statistics.median(took), 1) for name, took in seconds.items()},
        "times_relatives": ratios(seconds, "relatives"),
        "times_merged_1": ratios(seconds, "merged_1"),
        "same_answer_as_ours_1": {
            name: round(sum(map(str.__eq__, made, answers["ours_1"])) / len(alone), 3) for name, made in answers.items()
        },
    }
    if asked.llama_python:
        base = load_engine(asked.base_model, "", "med_template", precision)
        prompts, gguf = [base.prompt(one) for one in questions[:8]], assets.fetch(asked.base_model)
        rounds = [
            (llama_cpp(asked.llama_python, gguf, prompts, 64), single_stream(base, prompts, 64))
            for _ in range(asked.rounds)
        ]
        speeds = [[one["tokens"] / one["seconds"] for one in pair] for pair in rounds]
        results["single_stream_tokens_per_second"] = {
            "gguf": gguf.name,
            "llama_cpp": round(statistics.median(theirs for theirs, _ in speeds), 1),
            "ours_base": round(statistics.median(ours for _, ours in speeds), 1),
            "ours_to_llama_cpp": round(statistics.median(ours / theirs for theirs, ours in speeds), 2),
        }
    print(json.dumps(results, ensure_ascii=False, indent=1))
    write_json(Path(asked.output_path), results)


def ratios(seconds: dict[str, list[float]], beside: str) -> dict[str, float]:
    """How many times faster than one system, the median of the rounds' ratios."""
    return {
        name: round(statistics.median(b / own for b, own in zip(seconds[beside], took, strict=True)), 2)
        for name, took in seconds.items()
    }


if __name__ == "__main__":
    main()
