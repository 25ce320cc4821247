"""Training speed of our trainer beside its peers: same records, base, batch, precision and start of the adapter.

    make bench                                                       the whole comparison on this machine
    .venv/bin/python benchmarks/train_speed/run.py --systems recipe,ours --precision fp32       a part of it
    … --device cuda --base random:llama-7b --batch_size 128 --micro_batch_size 8                on a GPU

The systems run in turn, each in a process of its own, `--rounds` times over. Speed is useful tokens (of the records;
padding does not count, a beginning that records share counts in each) per second from the second step on: the first
one warms up. Writes results-cpu.json or results-cuda.json, the table in README.md and the plot.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import shapes
import torch
import transformers
from limit import needed
from peft import get_peft_model_state_dict
from report import write_report
from safetensors.torch import save_file
from transformers import AutoConfig

from xinglin import console
from xinglin.backbone import choose_precision, find_base, load_base
from xinglin.dataset import formats
from xinglin.dataset.encode import Encoded, Encoding
from xinglin.prompts import load_template
from xinglin.records import Example, to_alpaca, write_json, write_jsonl
from xinglin.tokenizer import load_tokenizer
from xinglin.tuning.methods import attach
from xinglin.tuning.mixing import Mixture
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import shared_beginning

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".bench"
SEED = 42
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 FLOP/s with fp32 sums, as the makers state them, by part of a GPU's name."""
REPORT = 10 * 8658
"""Records that the report's training sees: ten epochs."""
PARTS = ("packing", "shared-beginning", "answer-logits", "cross-entropy", "attention", "lora", "kept-memory")


@dataclass(frozen=True)
class System:
    """Something that trains.

    Attributes:
        title: as the results name it.
        script: beside this file.
        options: besides those that all get.
        environment: folder of its own Python environment; an empty string for ours.
    """

    title: str
    script: str
    options: tuple[str, ...] = ()
    environment: str = ""

    def python(self) -> Path:
        """Its interpreter."""
        return ENVIRONMENTS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)


SYSTEMS = {
    "recipe": System("alpaca-lora recipe", "recipe.py"),
    "trl": System("TRL, padded", "trl_sft.py", environment="trl"),
    "trl-packed": System("TRL, packed", "trl_sft.py", ("--packing",), "trl"),
    "llama-factory": System("LLaMA-Factory, padded", "llama_factory.py", (), "llama-factory"),
    "llama-factory-packed": System(
        "LLaMA-Factory, neat_packing", "llama_factory.py", ("--neat_packing",), "llama-factory"
    ),
    "ours": System("Xinglin", "ours.py"),
    "ours-compiled": System("Xinglin, --compile true", "ours.py", ("--compile", "true")),
} | {f"without-{part}": System(f"Xinglin without {part}", "ours.py", ("--without", part)) for part in PARTS}


def epoch_order(count: int, seed: int) -> list[int]:
    """The order in which our trainer takes `count` records in its first epoch."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # before some would be held back for evaluation
    return [order[place] for place in Mixture((count,), (), seed).epoch(0)]


def fitting(asked: argparse.Namespace, encoding: Encoding, count: int) -> tuple[list[Example], list[Encoded]]:
    """The first `count` records that fit the cutoff with their EOS: what to do with others the systems decide apart.

    Raises:
        SystemExit: there are fewer.
    """
    examples, encoded = [], []
    for read in formats.read(asked.data_path):
        rows = encoding.rows(read.example) if read.example else []
        if len(rows) == 1 and not rows[0].cut:
            examples.append(read.example)
            encoded += rows
        if len(examples) == count:
            return examples, encoded
    raise SystemExit(f"{asked.data_path}: {len(examples)} records fit {asked.cutoff_len} tokens, {count} are needed")


def plain_template(name: str, folder: Path) -> Path:
    """A template in alpaca-lora's own format, which has its preface in both forms."""
    packaged = ROOT / "xinglin" / "templates" / f"{name}.json"
    template = json.loads((Path(name) if name.endswith(".json") else packaged).read_text("utf-8"))
    forms = {key: template["preface"] + template[key] for key in ("prompt_input", "prompt_no_input")}
    path = folder / "template.json"
    path.write_text(json.dumps({"description": name} | forms, ensure_ascii=False), "utf-8")
    return path


def write_start(path: Path, base: str, asked: argparse.Namespace) -> None:
    """The adapter's start, for every system."""
    transformers.set_seed(SEED)
    model = load_base(base, choose_precision(asked.precision))
    config = FinetuneConfig(base, "", "", lora_r=asked.lora_r, lora_alpha=2 * asked.lora_r)
    tensors = get_peft_model_state_dict(attach(model, config))
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)


def train(system: System, asked: argparse.Namespace, base: str, folder: Path) -> dict[str, Any]:
    """Let one system train once; what it wrote.

    Raises:
        SystemExit: it failed.
    """
    ours = system.script == "ours.py"
    options = {
        "base_model": base,
        "data_path": folder / ("ours.jsonl" if ours else "ordered.jsonl"),
        "prompt_template": folder / "template.json",
        "output": folder / "out.json",
        "lora_init": folder / "start.safetensors",
        "base_dtype": asked.precision,
        "num_epochs": 1,
        "learning_rate": 3e-4,
        "lora_alpha": 2 * asked.lora_r,
        "lora_target_modules": "all-linear",
    } | {name: getattr(asked, name) for name in ("batch_size", "micro_batch_size", "cutoff_len", "lora_r")}
    options |= {"seed": SEED, "micro_batch_size": asked.batch_size} if ours else {"device": asked.device}
    if ours and asked.max_tokens_per_micro_batch:
        options["max_tokens_per_micro_batch"] = asked.max_tokens_per_micro_batch
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    flags += [*system.options, *(["--bf16"] if asked.precision == "bf16" and not ours else [])]
    log = folder / "log.txt"
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        command = [system.python(), HERE / system.script, *flags]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{system.title} failed:\n{log.read_text('utf-8')[-3000:]}")
    return json.loads((folder / "out.json").read_text("utf-8"))


def tokens_per_second(run: dict[str, Any]) -> float:
    """Of one run, without its first step."""
    return sum(run["step_tokens"][1:]) / sum(run["step_seconds"][1:])


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What results keep of a system's runs."""
    speeds = [tokens_per_second(run) for run in runs]
    kept = {
        "system": SYSTEMS[name].title,
        "useful_tokens_per_second": {
            "min": round(min(speeds), 1),
            "median": round(statistics.median(speeds), 1),
            "max": round(max(speeds), 1),
        },
        "peak_memory_mb": round(max(run["peak_memory_mb"] for run in runs)),
        "tokens": runs[0]["tokens"],
        "loss_by_step": [round(loss, 6) for loss in runs[0]["losses"]],
        "versions": runs[0]["versions"],
    }
    before = [run["seconds_before_first_step"] for run in runs if "seconds_before_first_step" in run]
    return kept | ({"seconds_before_first_step": round(statistics.median(before), 1)} if before else {})


def measure_limit(base: str, asked: argparse.Namespace) -> float:
    """FLOP/s of matmuls at the base's shapes, measured in a process of its own."""
    command = [sys.executable, HERE / "limit.py", "--base_model", base, "--device", asked.device]
    command += ["--dtype", asked.precision]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["flops_per_second"])


def machine(device: str) -> str:
    """The processor or GPU, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


def utilisation(gpu: str, flops_per_second: float) -> dict[str, float]:
    """Model FLOP utilisation: the share of what a GPU's maker states; nothing for a GPU that is not known."""
    peak = next((peak for name, peak in PEAKS.items() if name in gpu), None)
    return {"model_flops_utilisation": round(flops_per_second / peak, 3)} if peak else {}


def chosen(asked: argparse.Namespace) -> list[str]:
    """The systems to run: those asked for, or all that are installed.

    Raises:
        SystemExit: an unknown name, or none is left.
    """
    names = asked.systems.split(",") if asked.systems else list(SYSTEMS)
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        raise SystemExit(f"no system {unknown[0]!r}; there are {', '.join(SYSTEMS)}")
    missing = [name for name in names if not SYSTEMS[name].python().exists()]
    for name in missing:
        print(f"{SYSTEMS[name].title}: not installed, left out (make bench installs it)")
    return [name for name in names if name not in missing]


def compare(asked: argparse.Namespace, base: str, folder: Path) -> dict[str, Any]:
    """Run everything; what the results file keeps."""
    template = plain_template(asked.template, folder)
    encoding = Encoding(load_tokenizer(base), load_template(str(template)), asked.cutoff_len)
    examples, rows = fitting(asked, encoding, asked.steps * asked.batch_size)
    write_jsonl(folder / "ours.jsonl", map(to_alpaca, examples))
    write_jsonl(folder / "ordered.jsonl", [to_alpaca(examples[n]) for n in epoch_order(len(examples), SEED)])
    write_start(folder / "start.safetensors", base, asked)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen(asked)}
    limits = []
    for number in range(1, asked.rounds + 1):
        limits.append(measure_limit(base, asked))
        print(f"round {number}: matmuls {limits[-1] / 1e9:.0f} GFLOP/s", flush=True)
        for name, done in runs.items():
            done.append(train(SYSTEMS[name], asked, base, folder))
            speed, memory = tokens_per_second(done[-1]), done[-1]["peak_memory_mb"]
            print(f"round {number}: {name:<24} {speed:>8.0f} tokens/s {memory:>7.0f} MB", flush=True)
    a_token = needed(AutoConfig.from_pretrained(base), [(len(r.input_ids), r.targets) for r in rows], asked.lora_r)
    a_token /= sum(len(row.input_ids) for row in rows)
    limit = {
        "matmul_flops_per_second": statistics.median(limits),
        "flops_per_useful_token": a_token,
        "useful_tokens_per_second": statistics.median(limits) / a_token,
    }
    systems = [summary(name, done) for name, done in runs.items()]
    recipe = next((tokens_per_round(runs[name]) for name in runs if name == "recipe"), None)
    for system, done in zip(systems, runs.values(), strict=True):
        speeds = tokens_per_round(done)
        if recipe:
            system["ratio_to_alpaca_lora"] = round(median_ratio(speeds, recipe), 3)
        system["share_of_matmul_limit"] = round(statistics.median(speeds) / limit["useful_tokens_per_second"], 3)
        system |= utilisation(machine(asked.device), statistics.median(speeds) * a_token)
        hours = REPORT * sum(len(row.input_ids) for row in rows) / len(rows) / statistics.median(speeds) / 3600
        system["hours_for_ten_epochs_of_8658"] = round(hours, 2)
    settings = {name: value for name, value in vars(asked).items() if name not in ("data_path", "systems", "output")}
    settings |= {"data": Path(asked.data_path).name, "template": Path(asked.template).stem, "records": len(rows)}
    settings["tokens_shared"] = shared_beginning(rows)
    return {
        "date": date.today().isoformat(),
        "machine": machine(asked.device),
        "settings": settings,
        "limit": limit,
        "systems": systems,
    }


def tokens_per_round(runs: list[dict[str, Any]]) -> list[float]:
    """The speed in every round."""
    return [tokens_per_second(run) for run in runs]


def median_ratio(ones: list[float], others: list[float]) -> float:
    """The median over rounds of how much faster."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default=str(ROOT.parent / "shared" / "data" / "bentsao_2000.jsonl"))
    parser.add_argument("--base", default="smollm2-135m", help="a base, or random:SHAPE: " + ", ".join(shapes.SHAPES))
    parser.add_argument("--systems", default="", help="comma-separated; all that are installed unless given")
    parser.add_argument("--template", default=str(HERE / "preface.json"), help="a packaged template, or a file")
    for name, value in {"steps": 4, "rounds": 3, "batch_size": 16, "cutoff_len": 512, "lora_r": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--micro_batch_size", type=int, default=2, help="of the peers; ours splits by tokens")
    parser.add_argument("--max_tokens_per_micro_batch", type=int, default=0, help="ours alone")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--output", default="", help="folder for results, table and plot; beside this file unless given"
    )
    return parser.parse_args()


def main() -> None:
    """Compare, print and write."""
    asked = parse()
    console.set_up_logging()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = shapes.make(asked.base, folder / "base") if asked.base.startswith("random:") else find_base(asked.base)
        results = compare(asked, str(base), folder)
    output = Path(asked.output or HERE)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / f"results-{asked.device}.json", results)
    write_report(results, output, asked.device)


if __name__ == "__main__":
    main()
