"""The same training in TRL's `SFTTrainer` with PEFT: a peer of our trainer. Imports nothing of ours.

python benchmarks/train_speed/trl_sft.py --base_model DIR --data_path FILE --prompt_template FILE --output OUT.json

Records come encoded (prompt and answer as one text, then EOS; labels on the answer only) and in the file's order.

`--packing` is TRL's own ("bfd"): it puts records of any place in the file together into rows of `cutoff_len` tokens,
and hands the rows of a pass to the model as one long row, without padding and without a mask, but with the positions
of every record starting at 0. From those transformers builds a block mask for SDPA, so records do not see each other;
the mask covers the whole long row, which is why a pass on a CPU takes one row. How many records share a step cannot be
chosen then: a step has as many rows as hold the tokens of `batch_size` average records, rounded.

The output file holds what happened at each optimizer step: the loss in nats per target token, the seconds (from the
end of the step before), the tokens (padding not counted); and over all of them the tokens, the targets, the seconds
of `train()` and the peak of memory.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Meter(TrainerCallback):
    """Times the optimizer steps, and counts what they were given."""

    def __init__(self):
        self.marks: list[float] = []
        self.tokens: list[Any] = [0]
        self.targets: Any = 0

    def see(self, batch: dict[str, Any]) -> None:
        """One pass's batch. Sums stay on the device: reading them would make it wait."""
        mask = batch.get("attention_mask")
        self.tokens[-1] += batch["input_ids"].numel() if mask is None else mask.sum()
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


class Metered(SFTTrainer):
    """Shows every batch to the meter."""

    def __init__(self, meter: Meter, **rest):
        super().__init__(callbacks=[meter], **rest)
        self.meter = meter

    def training_step(self, model: Any, inputs: dict[str, Any], *rest, **more) -> torch.Tensor:
        """A pass forward and back."""
        self.meter.see(inputs)
        return super().training_step(model, inputs, *rest, **more)


def encode(record: dict[str, str], template: dict[str, str], tokenizer: Any, cutoff: int) -> dict[str, list[int]]:
    """Prompt and answer as one text; cut, or else ended with EOS; labels -100 over the prompt's length."""
    form = template["prompt_input" if record.get("input") else "prompt_no_input"]
    prompt = form.format(instruction=record["instruction"], input=record.get("input", ""))
    ids = tokenizer(prompt + record["output"], truncation=True, max_length=cutoff)["input_ids"]
    if len(ids) < cutoff and ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
    masked = len(tokenizer(prompt, truncation=True, max_length=cutoff)["input_ids"])
    return {"input_ids": ids, "labels": [-100] * masked + ids[masked:]}


def passes(asked: argparse.Namespace, mean: float) -> tuple[int, int]:
    """Rows of a pass, and passes of a step, for records of `mean` tokens."""
    if not asked.packing:
        return asked.micro_batch_size, asked.batch_size // asked.micro_batch_size
    rows = 1 if asked.device == "cpu" else max(1, round(asked.micro_batch_size * mean / asked.cutoff_len))
    return rows, max(1, round(asked.batch_size * mean / asked.cutoff_len / rows))


def arguments(asked: argparse.Namespace, mean: float) -> SFTConfig:
    """The recipe's settings, and TRL's checkpointing of activations off."""
    rows, accumulated = passes(asked, mean)
    return SFTConfig(
        output_dir=str(Path(asked.output).parent),  # nothing is saved there
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulated,
        num_train_epochs=asked.num_epochs,
        learning_rate=asked.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=asked.bf16,
        use_cpu=asked.device == "cpu",
        dataloader_pin_memory=asked.device != "cpu",
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        max_length=asked.cutoff_len,
        packing=asked.packing,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


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
    parser.add_argument("--packing", action="store_true", help="TRL's packed rows")
    return parser.parse_args()


def main() -> None:
    """Train, and write what happened."""
    asked = parse()
    template = json.loads(Path(asked.prompt_template).read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(asked.base_model)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # not EOS; the labels keep it out of everything
    lines = Path(asked.data_path).read_text("utf-8").split("\n")
    rows = [encode(json.loads(line), template, tokenizer, asked.cutoff_len) for line in lines if line.strip()]
    modules = asked.lora_target_modules
    meter = Meter()
    trainer = Metered(
        meter,
        model=AutoModelForCausalLM.from_pretrained(
            asked.base_model,
            dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[asked.base_dtype],
            attn_implementation="sdpa",
        ),
        args=arguments(asked, sum(len(row["input_ids"]) for row in rows) / len(rows)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=asked.lora_r,
            lora_alpha=asked.lora_alpha,
            lora_dropout=asked.lora_dropout,
            target_modules=modules if modules == "all-linear" else modules.split(","),
            task_type="CAUSAL_LM",
        ),
    )
    if asked.lora_init:
        tensors = load_file(asked.lora_init)
        expected = sum(".lora_" in name for name, _ in trainer.model.named_parameters())
        if set_peft_model_state_dict(trainer.model, tensors).unexpected_keys or len(tensors) != expected:
            raise SystemExit(f"{asked.lora_init}: not the tensors of this adapter")
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    tokens = [int(count) for count in meter.tokens[: len(meter.marks) - 1]]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "system": "TRL SFTTrainer" + (", packing" if asked.packing else ""),
        "versions": {name: version(name) for name in ("trl", "transformers", "peft", "accelerate", "torch")},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "step_seconds": [end - start for start, end in zip(meter.marks, meter.marks[1:], strict=False)],
        "step_tokens": tokens,
        "tokens": sum(tokens),
        "targets": int(meter.targets),
        "seconds": seconds,
        "peak_memory_mb": peak if asked.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20,
    }
    Path(asked.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
