"""The only training entry.

xinglin finetune --base_model smollm2-135m --data_path data/llama_data.json --output_dir runs/first
"""

import dataclasses
import logging
import math
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerControl

from xinglin.backbone import Precision, choose_precision, find_base, load_base, training_attention
from xinglin.dataset.encode import Encoded, EncodedSet, Encoding, encode_all
from xinglin.errors import UserError
from xinglin.prompts import load_template
from xinglin.records import read_instructions, write_json
from xinglin.tokenizer import Tokenizer, load_tokenizer
from xinglin.tuning import checkpoint
from xinglin.tuning.methods import attach_lora, trainable_parameters
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import collate, micro_batches, token_losses
from xinglin.tuning.plot import loss_curve
from xinglin.tuning.progress import ProgressBar
from xinglin.tuning.trackers import choose_tracker

log = logging.getLogger(__name__)

_GENERATION = {"max_new_tokens": 256, "do_sample": False}
"""Stored with the adapter, so that everyone asks the model in the same way."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything known before the model is loaded."""

    encoding: Encoding
    train: EncodedSet
    val: EncodedSet | None
    steps: int


def _check(config: FinetuneConfig) -> None:
    """Refuse settings that cannot work, naming values that can."""
    positive = ("batch_size", "micro_batch_size", "num_epochs", "learning_rate", "lora_r", "lora_alpha")
    for name in positive:
        if not 0 < getattr(config, name) < math.inf:
            raise UserError(f"{name} must be above 0, got {getattr(config, name)}")
    for name in ("lora_dropout", "warmup_ratio"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}")
    if config.batch_size % config.micro_batch_size:
        works = [n for n in range(1, config.batch_size + 1) if config.batch_size % n == 0]
        raise UserError(
            f"batch_size {config.batch_size} is not divisible by micro_batch_size {config.micro_batch_size}; "
            f"micro_batch_size may be {', '.join(map(str, works))}"
        )
    if config.cutoff_len < 8:
        raise UserError(f"cutoff_len must be at least 8 tokens, got {config.cutoff_len}")
    if config.max_tokens_per_micro_batch < 0 or config.eval_steps < 0:
        raise UserError("max_tokens_per_micro_batch and eval_steps must not be negative")
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; on a CPU take bf16, fp32 or auto")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("this version trains in one process; start it without torchrun")


def _val_count(size: int | float, total: int) -> int:
    """Turn `val_set_size` (a count, or a fraction below 1) into a count.

    Raises:
        UserError: it leaves nothing to train on.
    """
    count = max(1, round(total * size)) if 0 < size < 1 else int(size)
    if size < 0 or count >= total:
        raise UserError(f"val_set_size {size} leaves nothing of {total} records to train on; give a smaller one")
    return count


def _prepare(config: FinetuneConfig, tokenizer: Tokenizer) -> Prepared:
    """Read, split and encode the data."""
    template = load_template(config.prompt_template_name)
    encoding = Encoding(tokenizer, template, config.cutoff_len, config.train_on_inputs)
    examples = read_instructions(config.data_path)
    count = _val_count(config.val_set_size, len(examples))
    random.Random(config.seed).shuffle(examples)
    val = encode_all(examples[:count], encoding) if count else None
    train = encode_all(examples[count:], encoding)
    refused = train.refused + (val.refused if val else [])
    cut = train.cut + (val.cut if val else 0)
    log.info(
        "data: %d records to train on, %d to evaluate on; %d cut at %d tokens; template %s",
        *(len(train.rows), len(val.rows) if val else 0, cut, config.cutoff_len, template.name),
    )
    if refused:
        log.warning("%d rows left out: their prompt alone fills the cutoff (first: %s)", len(refused), refused[0])
    steps = math.ceil(math.ceil(len(train.rows) / config.batch_size) * config.num_epochs)
    return Prepared(encoding, train, val, steps)


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer with a global batch as one item, split by a token budget inside the step.

    Loss, in training and evaluation, is the mean over target tokens of the whole batch or set.
    """

    def __init__(self, config: FinetuneConfig, pad_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        budget = config.max_tokens_per_micro_batch or (8192 if torch.cuda.is_available() else 1024)
        self.limits = (config.micro_batch_size, budget)
        self.pad_id = pad_id
        self.tokens_seen = 0  # in this session; a resumed run does not count what it did not do

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over a global batch; the gradient is that of the mean over its target tokens."""
        model.train()
        rows: list[Encoded] = inputs["rows"]
        targets = sum(row.targets for row in rows)
        self.tokens_seen += sum(len(row.input_ids) for row in rows)
        total = torch.zeros((), device=self.args.device)
        for group in micro_batches(rows, *self.limits):
            losses_N, _ = token_losses(model, collate(group, self.pad_id, self.args.device))
            loss = losses_N.sum() / targets
            if not torch.isfinite(loss):
                where = ", ".join(row.id for row in group[:3])
                raise UserError(f"loss is {loss.item()} at step {self.state.global_step + 1} (rows: {where})")
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per target token over the whole evaluation set."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        started, total, count = time.perf_counter(), 0.0, 0
        for group in micro_batches(rows, *self.limits):
            losses_N, _ = token_losses(self.model, collate(group, self.pad_id, self.args.device))
            total, count = total + float(losses_N.sum()), count + losses_N.numel()
        metrics = {
            f"{metric_key_prefix}_loss": total / count,
            f"{metric_key_prefix}_runtime": time.perf_counter() - started,
        }
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _arguments(config: FinetuneConfig, folder: Path, prepared: Prepared, precision: Precision) -> TrainingArguments:
    tracker = choose_tracker(config)
    when = ("steps" if config.eval_steps else "epoch") if prepared.val else "no"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.num_epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.floor(prepared.steps * config.warmup_ratio),
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        bf16=precision.name == "bf16",
        fp16=precision.name == "fp16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1 if prepared.steps <= 500 else 10,
        eval_strategy=when,
        save_strategy=when,
        eval_steps=config.eval_steps or None,
        save_steps=config.eval_steps or 500,
        save_total_limit=1,
        load_best_model_at_end=prepared.val is not None,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        remove_unused_columns=False,
        report_to=[] if tracker == "none" else [tracker],
        run_name=config.wandb_run_name or None,
        seed=config.seed,
        dataloader_pin_memory=False,
        disable_tqdm=True,  # our own bar
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are torchrun's work; DataParallel would split rows
    return arguments


def _resume(config: FinetuneConfig) -> str | None:
    named = {"true": True, "false": False}  # the flag takes a path too, so `True` arrives as text
    resume = named.get(str(config.resume_from_checkpoint).lower(), config.resume_from_checkpoint)
    if isinstance(resume, str) and resume and not Path(resume, "trainer_state.json").is_file():
        raise UserError(f"resume_from_checkpoint {resume!r}: not a checkpoint folder (it has no trainer_state.json)")
    if resume is True:
        whole = checkpoint.whole_checkpoints(Path(config.output_dir))
        if not whole:
            raise UserError(f"resume_from_checkpoint: {config.output_dir} holds no whole checkpoint-N folder")
        return str(whole[-1])
    return resume or None


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Tune the base on the data and write the run's folder.

    Returns:
        The contents of `metrics.json`.

    Raises:
        UserError: anything about the settings, files or disk that the user can put right.
    """
    _check(config)
    resume = _resume(config)
    load_template(config.prompt_template_name)
    found = find_base(config.base_model)
    prepared = _prepare(config, load_tokenizer(found))
    with checkpoint.output_folder(
        config.output_dir, overwrite=config.overwrite_output_dir, resume=resume is not None
    ) as folder:
        return _train(config, folder, prepared, resume)


def _train(config: FinetuneConfig, folder: Path, prepared: Prepared, resume: str | None) -> dict[str, Any]:
    set_seed(config.seed)
    precision = choose_precision(config.precision)
    arguments = _arguments(config, folder, prepared, precision)
    model = attach_lora(load_base(config.base_model, precision, training_attention(config.cutoff_len)), config)
    trainable = trainable_parameters(model)
    checkpoint.require_room(folder, 4 * trainable * 7)  # two checkpoints with Adam's two moments, and the result
    if config.overwrite_output_dir and resume is None:
        checkpoint.clear_run(folder)
    log.info("precision: %s (%s); trainable: %s parameters", precision.name, precision.reason, f"{trainable:,}")
    log.info("steps: %d of %d records", prepared.steps, config.batch_size)
    progress = ProgressBar()
    trainer = AnswerTrainer(
        config,
        prepared.encoding.tokenizer.pad_id,
        model=model,
        args=arguments,
        train_dataset=prepared.train.rows,
        eval_dataset=prepared.val.rows if prepared.val else None,
        data_collator=lambda rows: {"rows": rows},
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress)
    started = time.perf_counter()
    # under autocast PEFT's own cast would only make fp32 copies of every input
    half = disable_input_dtype_casting(model, active=precision.name != "fp32")
    with checkpoint.disk_errors(folder):
        with progress.bar, half:
            trainer.train(resume_from_checkpoint=resume)
        seconds = time.perf_counter() - started
        metrics = _metrics(trainer, prepared, seconds)
        metrics |= {"trainable_parameters": trainable, "precision": precision.name}
        return _finish(config, folder, trainer, prepared, metrics)


def _metrics(trainer: AnswerTrainer, prepared: Prepared, seconds: float) -> dict[str, Any]:
    losses = [
        entry["loss"] for entry in trainer.state.log_history if "loss" in entry
    ]  # of the whole run, resumed or not
    best = trainer.state.best_metric
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    sets = [part for part in (prepared.train, prepared.val) if part]
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        "train_loss": sum(losses) / len(losses),
        "eval_loss": best if best is not None else (evaluated[-1] if evaluated else None),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_records": len(prepared.train.rows),
        "eval_records": len(prepared.val.rows) if prepared.val else 0,
        "tokens": trainer.tokens_seen,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(trainer.tokens_seen / seconds, 1),
        "rows_cut": sum(part.cut for part in sets),
        "rows_left_out": sum(len(part.refused) for part in sets),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20,
    }


def _finish(
    config: FinetuneConfig, folder: Path, trainer: AnswerTrainer, prepared: Prepared, metrics: dict[str, Any]
) -> dict[str, Any]:
    """Write the run's files, read the adapter back, and only then let them appear."""
    template = prepared.encoding.template
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    with checkpoint.staged(folder) as scratch:
        checkpoint.save_adapter(model, scratch, template, config.save_format)
        probe = prepared.train.rows[0].input_ids[:64]
        metrics["reload_logit_difference"] = checkpoint.verify_adapter(model, scratch, probe)
        write_json(scratch / "metrics.json", metrics)
        write_json(scratch / "log.json", trainer.state.log_history)
        loss_curve(trainer.state.log_history, scratch / "loss.png")
        record = {
            "config": dataclasses.asdict(config),
            "prompt_template": template.name,
            "prompt_sha256": template.digest(),
            "data_sha256": checkpoint.file_digest(config.data_path),
            "generation": _GENERATION,
        }
        write_json(scratch / "xinglin.json", record)
    evaluated = f", eval_loss {metrics['eval_loss']:.4f}" if metrics["eval_loss"] is not None else ""
    log.info("train_loss %.4f%s", metrics["train_loss"], evaluated)
    log.info("adapter written to %s (read back: same logits)", folder)
    return metrics
