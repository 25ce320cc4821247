"""One training step, part by part: attention implementation and the adapter's compute dtype, in turn, round by round.

    .venv/bin/python benchmarks/train_step/run.py --rounds 5

Prints tokens of records per second (padding not counted) for each variant: median, minimum, maximum, and the ratio to
the first variant taken round by round. Writes results.json beside this file.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from peft.helpers import disable_input_dtype_casting

from xinglin.backbone import choose_precision, find_base, load_base
from xinglin.dataset.build import DataBuild, build_examples
from xinglin.dataset.clean import clean
from xinglin.dataset.encode import Encoding, encode_all
from xinglin.knowledge.graph import load_cmekg
from xinglin.prompts import load_template
from xinglin.tokenizer import load_tokenizer
from xinglin.tuning.methods import attach_lora
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import collate, micro_batches, token_losses

VARIANTS = {
    "sdpa, adapter in fp32 (PEFT's default)": ("sdpa", False),
    "sdpa, adapter in bf16": ("sdpa", True),
    "eager, adapter in fp32": ("eager", False),
    "eager, adapter in bf16 (ours)": ("eager", True),
}


def step(model, rows, budget: int, half: bool) -> None:
    """Forward and backward over one global batch."""
    targets = sum(row.targets for row in rows)
    for group in micro_batches(rows, len(rows), budget):
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            losses, _ = token_losses(model, collate(group, 0, model.device))
        (losses.sum() / targets).backward()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--budget", type=int, default=1024)
    asked = parser.parse_args()
    base = find_base("smollm2-135m")
    graph = load_cmekg()
    examples = build_examples(clean(graph), graph, DataBuild()).examples
    encoding = Encoding(load_tokenizer(base), load_template("med_template"))
    rows = encode_all(examples[: asked.batch_size * (asked.rounds + 1)], encoding).rows
    config = FinetuneConfig("", "", "", lora_r=16)
    models = {name: attach_lora(load_base(base, choose_precision(), v[0]), config) for name, v in VARIANTS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(asked.rounds + 1):  # the first round warms up
        batch = rows[number * asked.batch_size : (number + 1) * asked.batch_size]
        for name, (_, half) in VARIANTS.items():
            with disable_input_dtype_casting(models[name], active=half):
                started = time.perf_counter()
                step(models[name], batch, asked.budget, half)
                seconds = time.perf_counter() - started
            if number:
                speeds[name].append(sum(len(row.input_ids) for row in batch) / seconds)
    first = next(iter(speeds.values()))
    results = {
        name: {
            "tokens_per_second": {"min": min(v), "median": statistics.median(v), "max": max(v)},
            "ratio_to_first": statistics.median(a / b for a, b in zip(v, first, strict=True)),
        }
        for name, v in speeds.items()
    }
    for name, row in results.items():
        speed = row["tokens_per_second"]
        shown = f"{speed['median']:.0f} tokens/s ({speed['min']:.0f}–{speed['max']:.0f}), x{row['ratio_to_first']:.2f}"
        print(f"{name:<42} {shown}")
    contents = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__}
    contents |= vars(asked) | {"variants": results}
    (Path(__file__).parent / "results.json").write_text(json.dumps(contents, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
