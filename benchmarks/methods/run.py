"""Every tuning method on the same 1,000 built records and the default base, one after the other, as a user runs them.

    .venv/bin/python benchmarks/methods/run.py

Each is tuned by finetune.py and asked by infer.py, in processes of their own. Prints a table in Markdown and writes
results.json beside this file: trainable parameters, peak memory of the process, tokens of records per second
(evaluation included), evaluation loss at the same steps, and what each answered to the same held-back questions.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from xinglin.dataset.build import DataBuild, build_examples
from xinglin.dataset.clean import clean
from xinglin.knowledge.graph import load_cmekg
from xinglin.records import to_alpaca, write_json, write_json_list
from xinglin.tuning.runlog import LOG_FILE, read_log

ROOT = Path(__file__).parents[2]
HELD_BACK = 60
OPTIONS = {
    "lora": ["--learning_rate", "1e-3"],
    "qlora": ["--learning_rate", "1e-3"],
    "adapter": ["--learning_rate", "1e-3"],
    "full": ["--learning_rate", "5e-5"],
}


def tune(method: str, data: Path, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One method, as the command line runs it; what metrics.json and log.jsonl say."""
    command = ["finetune.py", "--base_model", "smollm2-135m", "--data_path", data, "--output_dir", folder / method]
    command += ["--method", method, "--prompt_template_name", "med_template", "--num_epochs", 1, *OPTIONS[method]]
    command += ["--batch_size", asked.batch_size, "--micro_batch_size", asked.batch_size]
    command += ["--val_set_size", HELD_BACK, "--eval_steps", asked.eval_steps]
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
    metrics = json.loads((folder / method / "metrics.json").read_text("utf-8"))
    history = read_log(folder / method / LOG_FILE)
    losses = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    kept = ("trainable_parameters", "peak_memory_mb", "tokens", "seconds", "tokens_per_second", "precision", "steps")
    return {key: metrics[key] for key in kept} | {"eval_loss": losses}


def ask(method: str, questions: Path, folder: Path) -> list[dict[str, str]]:
    """What the tuned model answers, read back by infer.py."""
    out = folder / f"{method}.jsonl"
    command = ["infer.py", "--base_model", "smollm2-135m", "--lora_weights", folder / method, "--output_path", out]
    command += ["--instruct_dir", questions, "--max_new_tokens", 128, *(["--load_4bit"] if method == "qlora" else [])]
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    steps = sorted({step for row in results.values() for step in row["eval_loss"]})
    head = ["method", "trainable parameters", "peak memory, MiB", "tokens/s", *(f"eval loss, step {s}" for s in steps)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, row in results.items():
        figures = [f"{row['trainable_parameters']:,}", f"{row['peak_memory_mb']:,}", f"{row['tokens_per_second']:.0f}"]
        figures += [f"{row['eval_loss'][step]:.3f}" for step in steps]
        lines.append("| " + " | ".join([method, *figures]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all methods, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--eval_steps", type=int, default=21)
    parser.add_argument("--methods", default=",".join(OPTIONS))
    asked = parser.parse_args()
    graph = load_cmekg()
    examples = build_examples(clean(graph), graph, DataBuild()).examples
    train = [example for example in examples if example.split == "train"][: asked.records + HELD_BACK]
    unseen = [to_alpaca(example) for example in examples if example.split == "unseen_disease"][:4]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json_list(folder / "data.json", map(to_alpaca, train))
        write_json_list(folder / "questions.json", [{**row, "output": ""} for row in unseen])
        for method in asked.methods.split(","):
            results[method] = tune(method, folder / "data.json", folder, asked)
            results[method]["answers"] = ask(method, folder / "questions.json", folder)
    print(table(results))
    machine = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__}
    contents = machine | vars(asked) | {"references": [row["output"] for row in unseen], "results": results}
    write_json(Path(__file__).parent / "results.json", contents)


if __name__ == "__main__":
    main()
