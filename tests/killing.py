"""Kill training runs at random moments (SIGKILL), resume them, and compare with a run that nobody stopped.

python tests/killing.py --runs 20

Half of the kills strike at any moment of the training, the others while a checkpoint is being written. A run may be
killed several times. What counts: the final adapter's bytes, every logged loss, and the metrics.
"""

import argparse
import hashlib
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bases import make_base
from two import SERVER

from xinglin.tuning.options import FinetuneConfig

VARIANTS: list[dict[str, Any]] = [
    {},
    {"eval_steps": 4, "save_steps": 3, "save_total_limit": 2},
    {"num_epochs": 3.5, "save_steps": 1, "method": "adapter", "lora_r": 8, "lora_dropout": 0.0, "adapter_dropout": 0.1},
    {"num_epochs": 20, "learning_rate": 0.5, "early_stopping_patience": 2, "val_set_size": 8},
]
"""Evaluations once an epoch; in between; with the last epoch cut short; until they no longer get better."""


def make_config(folder: Path, **changes: Any) -> FinetuneConfig:
    """A tiny run with everything that a resumed one must restore: dropout, warm-up, evaluation, the best of them."""
    base = make_base(folder / "base", "llama")
    records = [
        {"instruction": f"第{n}种病有哪些症状？", "input": "", "output": "恶心、呕吐。" * (n % 4 + 1)}
        for n in range(44)
    ]
    (folder / "data.json").write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    config = FinetuneConfig(
        base_model=str(base),
        data_path=str(folder / "data.json"),
        output_dir=str(folder / "whole"),
        batch_size=8,
        num_epochs=6,
        val_set_size=4,
        learning_rate=1e-2,
        warmup_ratio=0.2,
        lora_r=32,
        lora_dropout=0.1,
        save_steps=2,
        precision="fp32",
    )
    return replace(config, **changes)


def _work(options: dict[str, Any]) -> None:
    from xinglin.console import set_up_logging
    from xinglin.tuning.train import finetune

    set_up_logging()
    logging.disable(logging.INFO)
    finetune(FinetuneConfig(**options))


def start(config: FinetuneConfig) -> Any:
    """Begin a run in a process of its own."""
    process = SERVER.Process(target=_work, args=(asdict(config),))
    process.start()
    return process


def outcome(folder: Path) -> dict[str, Any]:
    """What two equal runs have in common, to the last bit."""
    weights = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    losses = [[line["step"], line.get("loss"), line.get("eval_loss"), line.get("learning_rate")] for line in lines]
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    return {"weights": weights, "losses": losses} | {key: metrics[key] for key in ("train_loss", "eval_loss", "steps")}


def training_seconds(folder: Path) -> float:
    """How long a run trained, its preflight and its end not counted."""
    return float(json.loads((folder / "log.jsonl").read_text("utf-8").splitlines()[-1])["seconds"])


def kill_once(config: FinetuneConfig, seconds: float, dice: random.Random) -> str:
    """Start a run and kill it at a random moment of its training; says when, empty where the run was quicker."""
    folder = Path(config.output_dir)
    log = folder / "log.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    process = start(config)
    while process.is_alive() and not (log.exists() and log.stat().st_mtime_ns > before):  # until the training begins
        time.sleep(0.001)
    time.sleep(dice.uniform(0, seconds))
    if dice.random() < 0.5:
        while process.is_alive() and not any(folder.glob(".scratch-*")):
            pass
        time.sleep(dice.uniform(0, 0.02))
    process.kill()
    process.join()
    if process.exitcode == 0:
        return ""
    writing = sorted(path.name.removeprefix(".scratch-") for path in folder.glob(".scratch-*"))
    whole = sorted((path.name for path in folder.glob("checkpoint-*")), key=len)
    return f"writing {', '.join(writing) or 'nothing'}; whole: {', '.join(whole) or 'none'}"


def kill_and_resume(config: FinetuneConfig, seconds: float, dice: random.Random) -> list[str]:
    """Kill a run one to three times, then let it end; says when it was killed."""
    kills: list[str] = []
    while not kills:
        shutil.rmtree(config.output_dir, ignore_errors=True)
        for _ in range(dice.randint(1, 3)):
            kills += [kill_once(config, seconds, dice)]
        kills = [said for said in kills if said]
    process = start(config)
    process.join()
    assert process.exitcode == 0
    return kills


def main() -> None:
    """Print one line a run and the sum."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    folder = Path(tempfile.mkdtemp())
    configs = [replace(make_config(folder), output_dir=str(folder / f"whole-{n}"), **VARIANTS[n]) for n in range(4)]
    for config in configs:  # one after another: how long they take says when to kill
        start(config).join()
    equal = 0
    for number in range(asked.runs):
        config = configs[number % 4]
        one = replace(config, output_dir=str(folder / f"run-{number}"), resume_from_checkpoint="True")
        kills = kill_and_resume(one, training_seconds(Path(config.output_dir)), dice)
        same = outcome(Path(one.output_dir)) == outcome(Path(config.output_dir))
        equal += same
        said = f"{'equal' if same else 'DIFFERENT'} after {len(kills)} kills"
        print(f"run {number + 1}: {said} ({' | '.join(kills)})", flush=True)
    print(f"{equal} of {asked.runs} equal the runs that nobody stopped")
    shutil.rmtree(folder)
    sys.exit(equal < asked.runs)


if __name__ == "__main__":
    main()
