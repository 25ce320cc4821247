"""What `xinglin doctor` foretells of four runs on the default base, and what they then took.

python benchmarks/doctor/run.py --data_path data/llama_data.json
"""

import argparse
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from xinglin.records import write_json, write_json_list

ROOT = Path(__file__).parents[2]
RUNS = {
    "lora": (360, ["--batch_size", 16, "--micro_batch_size", 16, "--learning_rate", 1e-3]),
    "adapter": (360, ["--method", "adapter", "--batch_size", 8, "--micro_batch_size", 8, "--bottleneck_size", 32]),
    "full": (240, ["--method", "full", "--batch_size", 4, "--eval_steps", 25, "--max_tokens_per_micro_batch", 2048]),
    "qlora": (160, ["--method", "qlora", "--batch_size", 8, "--micro_batch_size", 4, "--cutoff_len", 512]),
}
"""Records, and what differs from the defaults."""
_LINE = re.compile(r"estimate: (?:(\d+) min )?(\d+) s for (\d+) steps, peak memory ([\d.]+) GB")


def measure(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Doctor, then the run."""
    options = ["--base_model", "smollm2-135m", "--data_path", data, "--output_dir", folder / name, "--num_epochs", 1]
    options = [str(part) for part in [*options, "--val_set_size", 40, *RUNS[name][1]]]
    command = [sys.executable, "-m", "xinglin"]
    said = subprocess.run([*command, "doctor", *options], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    found = _LINE.search(said)
    assert found is not None, said
    subprocess.run([*command, "finetune", *options], check=True, cwd=ROOT)
    metrics = json.loads((folder / name / "metrics.json").read_text("utf-8"))
    return {
        "steps": metrics["steps"],
        "seconds": {"doctor": 60 * int(found[1] or 0) + int(found[2]), "run": metrics["seconds"]},
        "peak_memory_gb": {"doctor": float(found[4]), "run": round(metrics["peak_memory_mb"] * 2**20 / 1e9, 2)},
    }


def main() -> None:
    """Print the table and write results.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_path", type=Path, required=True, help="instruction data, a JSON list")
    parser.add_argument("--runs", nargs="+", default=list(RUNS))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    records = json.loads(asked.data_path.read_text("utf-8"))
    random.Random(1).shuffle(records)
    results = {}
    for name in asked.runs:
        write_json_list(folder / f"{name}.json", records[: RUNS[name][0]])
        results[name] = measure(name, folder / f"{name}.json", folder)
        pairs = {key: results[name][key] for key in ("seconds", "peak_memory_gb")}
        print(
            name,
            *(f"{key} {one['doctor']} {one['run']} ({one['doctor'] / one['run']:.2f})" for key, one in pairs.items()),
        )
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    write_json(Path(__file__).with_name("results.json"), {"machine": machine, "runs": results})


if __name__ == "__main__":
    main()
