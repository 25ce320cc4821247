"""The alpaca-lora recipe in plain transformers and PEFT: what our trainer is compared with. Imports nothing of ours.

python benchmarks/train_speed/recipe.py --base_model DIR --data_path FILE --prompt_template FILE --output OUT.json

Records are taken in the file's order, never shuffled. The output file holds what happened at each optimizer step: the
loss in nats per target token, the seconds (from the end of the step before), the tokens (padding not counted); and over
all of them the tokens, the targets, the seconds of `train()` and the peak of memory.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


class Meter(TrainerCallback):
    """Times the optimizer steps, and counts what they were given."""

    def __init__(self):
        self.marks: list[float] = []
        self.tokens: list[Any] = [0]

    def on_train_begin(self, *_, **__) -> None:
        """Where the first step begins."""
        self.marks.append(time.perf_counter())

    def on_step_end(self, *_, **__) -> None:
        """Where a step ends and the next begins."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        self.tokens.append(0)


class InOrder(Trainer):
    """Takes the records as they come."""

    def __init__(self, meter: Meter, **rest):
        super().__init__(callbacks=[meter], **rest)
        self.meter = meter

    def training_step(self, model: Any, inputs: dict[str, Any], *rest, **more) -> torch.Tensor:
        """A pass forward and back."""
        self.meter.tokens[-1] += inputs["attention_mask"].sum()
        return super().training_step(model, inputs, *rest, **more)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


def read_records(path: str) -> list[dict[str, str]]:
    """A JSON list, or JSON Lines, of {"instruction", "input", "output"}."""
    text = Path(path).read_text("utf-8")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def render(record: dict[str, str], template: dict[str, str]) -> str:
    """The prompt, up to where the answer begins."""
    form = template["prompt_input" if record.get("input") else "prompt_no_input"]
    return form.format(instruction=record["instruction"], input=record.get("input", ""))


def encode(prompt: str, output: str, tokenizer: Any, cutoff: int, train_on_inputs: bool) -> dict[str, list[int]]:
    """Prompt and answer as one text; cut, or else ended with EOS; labels -100 over the prompt's length."""
    ids = tokenizer(prompt + output, truncation=True, max_length=cutoff)["input_ids"]
    if len(ids) < cutoff and ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
    masked = 0 if train_on_inputs else len(tokenizer(prompt, truncation=True, max_length=cutoff)["input_ids"])
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * masked + ids[masked:]}


def load_model(asked: argparse.Namespace) -> Any:
    """The base with an adapter beside it: fresh, or as `--lora_init` has it."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[asked.base_dtype]
    model = AutoModelForCausalLM.from_pretrained(asked.base_model, dtype=dtype)
    model.config.use_cache = False
    modules = asked.lora_target_modules
    lora = LoraConfig(
        r=asked.lora_r,
        lora_alpha=asked.lora_alpha,
        lora_dropout=asked.lora_dropout,
        target_modules=modules if modules == "all-linear" else modules.split(","),
        bias="none",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)
    if asked.lora_init:
        tensors = load_file(asked.lora_init)
        expected = sum(".lora_" in name for name, _ in model.named_parameters())
        if set_peft_model_state_dict(model, tensors).unexpected_keys or len(tensors) != expected:
            raise SystemExit(
                f"{asked.lora_init}: {len(tensors)} tensors, but the adapter has {expected} of other names"
            )
    return model


def arguments(asked: argparse.Namespace) -> TrainingArguments:
    """The recipe's settings; what it leaves to the Trainer (clipping at norm 1) is left to it here."""
    return TrainingArguments(
        output_dir=str(Path(asked.output).parent),  # nothing is saved there
        per_device_train_batch_size=asked.micro_batch_size,
        gradient_accumulation_steps=asked.batch_size // asked.micro_batch_size,
        num_train_epochs=asked.num_epochs,
        learning_rate=asked.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=asked.warmup_steps,
        optim="adamw_torch",
        weight_decay=0.0,
        bf16=asked.bf16,
        use_cpu=asked.device == "cpu",
        dataloader_pin_memory=asked.device != "cpu",
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
    for name, value in {"batch_size": 128, "micro_batch_size": 4, "cutoff_len": 256, "lora_r": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--num_epochs", type=float, default=3)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--warmup_steps", type=int, default=0)
    parser.add_argument("--lora_alpha", type=int, default=16)
    parser.add_argument("--lora_dropout", type=float, default=0.0)
    parser.add_argument("--lora_target_modules", default="q_proj,v_proj", help="comma-separated, or all-linear")
    parser.add_argument(
        "--lora_init", help="safetensors with the adapter's start, keys as in adapter_model.safetensors"
    )
    parser.add_argument("--base_dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--bf16", action="store_true", help="train under bf16 autocast")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--train_on_inputs", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train, and write what happened."""
    asked = parse()
    set_seed(42)
    template = json.loads(Path(asked.prompt_template).read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(asked.base_model)
    tokenizer.padding_side = "left"
    tokenizer.pad_token_id = 0  # not EOS; mask and labels keep it out of everything
    rows = [
        encode(render(record, template), record["output"], tokenizer, asked.cutoff_len, asked.train_on_inputs)
        for record in read_records(asked.data_path)
    ]
    collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, return_tensors="pt", padding=True)
    meter = Meter()
    model = load_model(asked)
    trainer = InOrder(meter, model=model, args=arguments(asked), data_collator=collator, train_dataset=rows)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    tokens = [int(count) for count in meter.tokens[: len(meter.marks) - 1]]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "versions": {name: version(name) for name in ("transformers", "peft", "accelerate", "torch")},
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "step_seconds": [end - start for start, end in zip(meter.marks, meter.marks[1:], strict=False)],
        "step_tokens": tokens,
        "tokens": sum(tokens),
        "targets": round(asked.num_epochs * sum(label != -100 for row in rows for label in row["labels"][1:])),
        "seconds": seconds,
        "peak_memory_mb": peak if asked.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20,
    }
    Path(asked.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
