"""Our trainer beside the alpaca-lora recipe (recipe.py): the loss of every step, same records, same order, same start.

    .venv/bin/python benchmarks/recipe/run.py --steps 64 --precision fp32

Prints both losses step by step with their relative difference, and tokens of records per second (padding not counted).
Writes results.json beside this file, one entry for each precision.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from xinglin.backbone import choose_precision, find_base, load_base
from xinglin.dataset import formats
from xinglin.dataset.encode import Encoding
from xinglin.prompts import load_template
from xinglin.records import Example, to_alpaca, write_json, write_jsonl
from xinglin.tokenizer import load_tokenizer
from xinglin.tuning.methods import attach
from xinglin.tuning.mixing import Mixture
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.runlog import LOG_FILE, read_log

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
TEMPLATE = "med_template"
SEED = 42


def epoch_order(count: int, seed: int) -> list[int]:
    """The order in which our trainer takes `count` records in its first epoch."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # before some would be held back for evaluation
    return [order[place] for place in Mixture((count,), (), seed).epoch(0)]


def fitting(path: str, base: str, cutoff_len: int, count: int) -> list[Example]:
    """The first `count` records that fit the cutoff with their EOS: what to do with others the two decide differently.

    Raises:
        SystemExit: there are fewer.
    """
    encoding = Encoding(load_tokenizer(base), load_template(TEMPLATE), cutoff_len)
    examples = (row.example for row in formats.read(path) if row.example)
    fits = [example for example in examples if not any(row.cut for row in encoding.rows(example))]
    if len(fits) < count:
        raise SystemExit(f"{path}: {len(fits)} records fit {cutoff_len} tokens, {count} are needed; take fewer --steps")
    return fits[:count]


def write_start(path: Path, base: str, asked: argparse.Namespace) -> None:
    """The adapter as our trainer draws it after `set_seed`, for the recipe to start from."""
    transformers.set_seed(SEED)
    model = load_base(base, choose_precision(asked.precision))
    config = FinetuneConfig(base, "", "", lora_r=asked.lora_r, lora_alpha=2 * asked.lora_r)
    tensors = get_peft_model_state_dict(attach(model, config))
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)


def train_both(base: str, asked: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the recipe, then ours, each in a process of its own.

    Returns:
        For the recipe and for ours: `losses` of all steps, `tokens` of the records, `tokens_per_second`.
    """
    both = ["--base_model", base, "--batch_size", asked.batch_size, "--micro_batch_size", asked.micro_batch_size]
    both += ["--cutoff_len", asked.cutoff_len, "--num_epochs", 1, "--learning_rate", 3e-4, "--lora_r", asked.lora_r]
    both += ["--lora_alpha", 2 * asked.lora_r, "--lora_dropout", 0, "--lora_target_modules", "all-linear"]
    recipe = [Path(__file__).with_name("recipe.py"), *both, "--data_path", folder / "recipe.jsonl"]
    recipe += ["--prompt_template", ROOT / "xinglin" / "templates" / f"{TEMPLATE}.json"]
    recipe += ["--lora_init", folder / "start.safetensors", "--output", folder / "recipe.json"]
    recipe += ["--base_dtype", asked.precision, *(["--bf16"] if asked.precision == "bf16" else [])]
    ours = [ROOT / "finetune.py", *both, "--data_path", folder / "ours.jsonl", "--output_dir", folder / "ours"]
    ours += ["--prompt_template_name", TEMPLATE, "--val_set_size", 0, "--precision", asked.precision, "--seed", SEED]
    for command in (recipe, ours):
        subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
    theirs = json.loads((folder / "recipe.json").read_text("utf-8"))
    theirs["tokens_per_second"] = theirs["tokens"] / theirs["seconds"]
    metrics = json.loads((folder / "ours" / "metrics.json").read_text("utf-8"))
    history = read_log(folder / "ours" / LOG_FILE)
    return theirs, metrics | {"losses": [entry["loss"] for entry in history if "loss" in entry]}


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Print the table.

    Returns:
        What results.json keeps.

    Raises:
        SystemExit: the two did not see the same tokens, or not in the same number of steps.
    """
    if theirs["tokens"] != ours["tokens"]:
        raise SystemExit(f"the recipe saw {theirs['tokens']} tokens, ours {ours['tokens']}: nothing to compare")
    if len(theirs["losses"]) != len(ours["losses"]):
        raise SystemExit(f"the recipe made {len(theirs['losses'])} steps, ours {len(ours['losses'])} (logged)")
    print(f"{'step':>4} {'recipe':>9} {'ours':>9} {'rel. diff':>9}")
    differences = []
    for step, (their, our) in enumerate(zip(theirs["losses"], ours["losses"], strict=True), 1):
        differences.append(abs(our - their) / their)
        print(f"{step:>4} {their:>9.5f} {our:>9.5f} {differences[-1]:>9.1e}")
    speeds = {"recipe": theirs["tokens_per_second"], "ours": ours["tokens_per_second"]}
    print(f"largest relative difference {max(differences):.1e}")
    print(f"tokens/s: recipe {speeds['recipe']:.0f}, ours {speeds['ours']:.0f} (x{ours_over(speeds):.2f})")
    return {
        "max_relative_difference": max(differences),
        "tokens": ours["tokens"],
        "tokens_per_second": speeds | {"ratio": ours_over(speeds)},
        "losses": {"recipe": theirs["losses"], "ours": ours["losses"]},
    }


def ours_over(speeds: dict[str, float]) -> float:
    """Our speed as a multiple of the recipe's."""
    return speeds["ours"] / speeds["recipe"]


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default=str(ROOT.parent / "shared" / "data" / "bentsao_2000.jsonl"))
    for name, value in {"steps": 64, "batch_size": 8, "micro_batch_size": 8, "cutoff_len": 512, "lora_r": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32")
    asked = parser.parse_args()
    base = find_base("smollm2-135m")
    examples = fitting(asked.data_path, base, asked.cutoff_len, asked.steps * asked.batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "ours.jsonl", map(to_alpaca, examples))
        ordered = [to_alpaca(examples[place]) for place in epoch_order(len(examples), SEED)]
        write_jsonl(folder / "recipe.jsonl", ordered)
        write_start(folder / "start.safetensors", base, asked)
        result = compare(*train_both(base, asked, folder))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    settings = vars(asked) | {"data_path": Path(asked.data_path).name, "machine": f"{platform.machine()}, {device}"}
    versions = {library.__name__: library.__version__ for library in (torch, transformers, peft)}
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    write_json(RESULTS, results | {asked.precision: settings | versions | result})


if __name__ == "__main__":
    main()
