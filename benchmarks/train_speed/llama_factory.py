"""The same training in LLaMA-Factory, in an environment of its own: a peer of our trainer. Imports nothing of ours.

python3 -m venv DIR && DIR/bin/pip install torch==2.13.0
DIR/bin/pip install --no-deps -r benchmarks/train_speed/llama-factory.txt
DIR/bin/python benchmarks/train_speed/llama_factory.py --base_model DIR --data_path FILE --prompt_template FILE ...

LLaMA-Factory reads the records, tokenises, builds model and trainer and trains, as `run_sft` does it; its trainer is
only watched, given the base's dtype and the adapter's start, and kept from saving. Prompts reach it rendered, as
instructions under a template that adds nothing but EOS after the answer. It tokenises prompt and answer apart: the
same tokens where the tokenizer never merges across that border. Its checkpointing of activations and its shuffling
are off. torchaudio, which it imports for speech alone, is replaced by an empty module where it is missing.

`--neat_packing` is its own: every 1000 records are sorted into rows of `cutoff_len` - 1 tokens, padded to
`cutoff_len`. The collator makes a 4-D block mask of every row, so records do not see each other. How many records
share a step cannot be chosen then: a step has as many rows as hold the tokens of `batch_size` average records,
rounded, and a pass on a CPU takes one row.

The output file holds what happened at each optimizer step: the loss in nats per target token, the seconds (from the
end of the step before), the tokens (padding not counted); and over all of them the tokens, the targets, the seconds
of `train()` and the peak of memory.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

if find_spec("torchaudio") is None:
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.data.template import register_template
from llamafactory.hparams import get_train_args
from llamafactory.train.sft import workflow
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer


class Meter(TrainerCallback):
    """Times the optimizer steps, and counts what they were given."""

    def __init__(self):
        self.marks: list[float] = []
        self.tokens: list[Any] = [0]
        self.targets: Any = 0
        self.losses: list[float] = []
        self.seconds = 0.0

    def see(self, batch: dict[str, Any]) -> None:
        """One pass's batch. Sums stay on the device: reading them would make it wait."""
        mask = batch["attention_mask"]
        if mask.dim() == 4:  # a packed row's: real tokens see themselves, padding does not
            mask = mask[:, 0].diagonal(dim1=1, dim2=2) == 0
        self.tokens[-1] += mask.sum()
        self.targets += (batch["labels"][:, 1:] != -100).sum()

    def on_train_begin(self, *_, **__) -> None:
        """Where the first step begins."""
        self.marks.append(time.perf_counter())

    def on_step_end(self, *_, **__) -> None:
        """Where a step ends and the next begins."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        self.tokens.append(0)

    def on_log(self, *_, logs: dict[str, float], **__) -> None:
        """A step's loss; the closing summary has none under this name."""
        if "loss" in logs:
            self.losses.append(logs["loss"])


class Metered(CustomSeq2SeqTrainer):
    """LLaMA-Factory's trainer, watched."""

    def __init__(self, meter: Meter, asked: argparse.Namespace, **rest):
        self.meter = meter
        model = rest["model"]
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to({"bf16": torch.bfloat16, "fp32": torch.float32}[asked.base_dtype])
        if asked.lora_init:
            tensors = load_file(asked.lora_init)
            expected = sum(".lora_" in name for name, _ in model.named_parameters())
            if set_peft_model_state_dict(model, tensors).unexpected_keys or len(tensors) != expected:
                raise SystemExit(f"{asked.lora_init}: not the tensors of this adapter")
        super().__init__(**rest)

    def train(self, *args, **more) -> Any:
        """The training, timed."""
        started = time.perf_counter()
        result = super().train(*args, **more)
        self.meter.seconds = time.perf_counter() - started
        return result

    def training_step(self, model: Any, inputs: dict[str, Any], *rest, **more) -> torch.Tensor:
        """A pass forward and back."""
        self.meter.see(inputs)
        return super().training_step(model, inputs, *rest, **more)

    def save_model(self, *_, **__) -> None:
        """Nothing is kept."""

    def create_model_card(self, *_, **__) -> None:
        """Nothing is described."""


def rendered(path: str, template: dict[str, str]) -> list[dict[str, str]]:
    """The records with their whole prompt as instruction."""
    records = []
    for line in filter(str.strip, Path(path).read_text("utf-8").split("\n")):
        record = {"input": "", **json.loads(line)}
        form = template["prompt_input" if record["input"] else "prompt_no_input"]
        prompt = form.format(instruction=record["instruction"], input=record["input"])
        records.append({"instruction": prompt, "input": "", "output": record["output"]})
    return records


def passes(asked: argparse.Namespace, records: list[dict[str, str]]) -> tuple[int, int]:
    """Rows of a pass, and passes of a step."""
    if not asked.neat_packing:
        return asked.micro_batch_size, asked.batch_size // asked.micro_batch_size
    tokenizer = AutoTokenizer.from_pretrained(asked.base_model)
    ids = tokenizer([record["instruction"] + record["output"] for record in records])["input_ids"]
    mean = sum(min(len(row) + 1, asked.cutoff_len - 1) for row in ids) / len(ids)
    rows = 1 if asked.device == "cpu" else max(1, round(asked.micro_batch_size * mean / asked.cutoff_len))
    return rows, max(1, round(asked.batch_size * mean / asked.cutoff_len / rows))


def settings(asked: argparse.Namespace, folder: str, records: list[dict[str, str]]) -> dict[str, Any]:
    """The recipe's settings in LLaMA-Factory's names. `folder` has the records and takes what it writes."""
    files = {"records.json": records, "dataset_info.json": {"records": {"file_name": "records.json"}}}
    for name, content in files.items():
        (Path(folder) / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    register_template(name="rendered")
    rows, accumulated = passes(asked, records)
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "model_name_or_path": asked.base_model,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "dataset_dir": folder,
        "dataset": "records",
        "cache_dir": folder,
        "template": "rendered",
        "cutoff_len": asked.cutoff_len,
        "neat_packing": asked.neat_packing,
        "disable_shuffling": True,
        "lora_rank": asked.lora_r,
        "lora_alpha": asked.lora_alpha,
        "lora_dropout": asked.lora_dropout,
        "lora_target": asked.lora_target_modules.replace("all-linear", "all"),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": asked.num_epochs,
        "learning_rate": asked.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": asked.bf16,
        "use_cpu": asked.device == "cpu",
        "dataloader_pin_memory": asked.device != "cpu",
        "output_dir": str(Path(folder) / "out"),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base_model", "data_path", "prompt_template", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name, value in {"batch_size": 16, "micro_batch_size": 8, "cutoff_len": 512, "lora_r": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--num_epochs", type=float, default=1)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--lora_alpha", type=int, default=16)
    parser.add_argument("--lora_dropout", type=float, default=0.0)
    parser.add_argument("--lora_target_modules", default="all-linear", help="comma-separated, or all-linear")
    parser.add_argument(
        "--lora_init", help="safetensors with the adapter's start, keys as in adapter_model.safetensors"
    )
    parser.add_argument("--base_dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--bf16", action="store_true", help="train under bf16 autocast")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--neat_packing", action="store_true", help="LLaMA-Factory's packed rows")
    return parser.parse_args()


def main() -> None:
    """Train, and write what happened."""
    asked = parse()
    if torch.cuda.is_available() != (asked.device == "cuda"):
        raise SystemExit(
            "LLaMA-Factory takes the GPU that it sees: hide it with CUDA_VISIBLE_DEVICES= for --device cpu"
        )
    template = json.loads(Path(asked.prompt_template).read_text("utf-8"))
    meter = Meter()
    workflow.CustomSeq2SeqTrainer = partial(Metered, meter, asked)  # run_sft makes its trainer from this name
    with tempfile.TemporaryDirectory() as folder:
        groups = get_train_args(settings(asked, folder, rendered(asked.data_path, template)))
        workflow.run_sft(*groups, callbacks=[meter])
    tokens = [int(count) for count in meter.tokens[: len(meter.marks) - 1]]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "system": "LLaMA-Factory" + (", neat packing" if asked.neat_packing else ""),
        "versions": {name: version(name) for name in ("llamafactory", "transformers", "peft", "accelerate", "torch")},
        "losses": meter.losses,
        "step_seconds": [end - start for start, end in zip(meter.marks, meter.marks[1:], strict=False)],
        "step_tokens": tokens,
        "tokens": sum(tokens),
        "targets": int(meter.targets),
        "seconds": meter.seconds,
        "peak_memory_mb": peak if asked.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20,
    }
    Path(asked.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
