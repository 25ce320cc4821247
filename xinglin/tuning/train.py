"""The only training entry.

xinglin finetune --base_model smollm2-135m --data_path data/llama_data.json --output_dir runs/first
"""

import dataclasses
import logging
import math
import os
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from xinglin.backbone import (
    PRECISIONS,
    Precision,
    agree,
    choose_precision,
    find_base,
    keep_trainable,
    load_base,
    training_attention,
)
from xinglin.errors import UserError
from xinglin.prompts import RUN_FILE, check_name
from xinglin.records import write_json
from xinglin.tokenizer import Tokenizer, load_tokenizer
from xinglin.tuning import checkpoint, methods
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.plot import loss_curve
from xinglin.tuning.prepare import Prepared, data_paths, prepare
from xinglin.tuning.progress import ProgressBar
from xinglin.tuning.trackers import choose_tracker
from xinglin.tuning.trainer import AnswerTrainer

log = logging.getLogger(__name__)

_GENERATION = {"max_new_tokens": 256, "do_sample": False}
"""Stored with the adapter, so that everyone asks the model in the same way."""


def _check(config: FinetuneConfig) -> None:
    """Refuse settings that cannot work, naming values that can."""
    _check_numbers(config)
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; on a CPU take bf16, fp32 or auto")
    if config.method == "full" and config.save_format == "bin":
        raise UserError("save_format bin is for adapters; --method full writes model.safetensors")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("this version trains in one process; start it without torchrun")
    methods.quantization(config)
    if others := methods.options_of_others(config):
        log.warning("%s: of no use with --method %s", ", ".join(others), config.method)


def _check_numbers(config: FinetuneConfig) -> None:
    positive = ("batch_size", "micro_batch_size", "num_epochs", "lora_r", "lora_alpha", "bottleneck_size")
    for name in (*positive, "learning_rate"):
        if not 0 < getattr(config, name) < math.inf:
            raise UserError(f"{name} must be above 0, got {getattr(config, name)}")
    for name in ("lora_dropout", "adapter_dropout", "warmup_ratio"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}")
    if config.batch_size % config.micro_batch_size:
        works = [n for n in range(1, config.batch_size + 1) if config.batch_size % n == 0]
        raise UserError(
            f"batch_size {config.batch_size} is not divisible by micro_batch_size {config.micro_batch_size}; "
            f"micro_batch_size may be {', '.join(map(str, works))}"
        )
    for name, least in {"cutoff_len": 8, "max_tokens_per_micro_batch": 0, "eval_steps": 0}.items():
        if getattr(config, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(config, name)}")


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
        optim="paged_adamw_8bit" if config.method == "qlora" and torch.cuda.is_available() else "adamw_torch",
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
        resume = str(whole[-1])
    if resume:
        methods.require_same(config, Path(resume))
    return resume or None


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Tune the base on the data and write the run's folder.

    Returns:
        The contents of `metrics.json`.

    Raises:
        UserError: anything about the settings, files or disk that the user can put right.
    """
    config = methods.resolved(config)
    _check(config)
    resume = _resume(config)
    check_name(config.prompt_template_name)
    base = find_base(config.base_model)
    if Path(config.output_dir).resolve() == Path(base).resolve():
        raise UserError(f"output_dir {config.output_dir!r} is the base's own folder; give another")
    prepared = prepare(config, load_tokenizer(base), base)
    with checkpoint.output_folder(
        config.output_dir, overwrite=config.overwrite_output_dir, resume=resume is not None
    ) as folder:
        return _train(config, folder, prepared, resume)


def _tunable(config: FinetuneConfig, precision: Precision, tokenizer: Tokenizer) -> Any:
    """The base with what is to be trained; all of its weights are fp32 masters when all are trained."""
    held = Precision(torch.float32, "masters") if config.method == "full" else precision
    base = load_base(
        config.base_model, held, training_attention(config.cutoff_len), quantization=methods.quantization(config)
    )
    agree(base, tokenizer)
    return methods.attach(keep_trainable(base), config)


def _train(config: FinetuneConfig, folder: Path, prepared: Prepared, resume: str | None) -> dict[str, Any]:
    set_seed(config.seed)
    precision = choose_precision(config.precision)
    arguments = _arguments(config, folder, prepared, precision)
    model = _tunable(config, precision, prepared.encoding.tokenizer)
    trainable = methods.trainable_parameters(model)
    checkpoint.require_room(folder, 4 * trainable * 7)  # two checkpoints with Adam's two moments, and the result
    if config.overwrite_output_dir and resume is None:
        checkpoint.clear_run(folder)
    log.info("precision: %s (%s)", precision.name, precision.reason)
    log.info("method: %s; trainable: %s parameters", config.method, f"{trainable:,}")
    progress = ProgressBar()
    trainer = AnswerTrainer(
        config,
        prepared.mixture,
        prepared.encoding,
        model=model,
        args=arguments,
        train_dataset=prepared.rows,
        eval_dataset=prepared.val or None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress)
    started = time.perf_counter()
    lora = isinstance(model, PeftModel)
    # under autocast PEFT's own cast would only make fp32 copies of every input
    half = disable_input_dtype_casting(model, active=precision.name != "fp32") if lora else nullcontext()
    with checkpoint.disk_errors(folder):
        with progress.bar, half:
            trainer.train(resume_from_checkpoint=resume)
        seconds = time.perf_counter() - started
        metrics = _metrics(trainer, prepared, seconds)
        metrics |= {"method": config.method, "trainable_parameters": trainable, "precision": precision.name}
        return _finish(config, folder, trainer, prepared, metrics)


def _metrics(trainer: AnswerTrainer, prepared: Prepared, seconds: float) -> dict[str, Any]:
    losses = [
        entry["loss"] for entry in trainer.state.log_history if "loss" in entry
    ]  # of the whole run, resumed or not
    best = trainer.state.best_metric
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        "train_loss": sum(losses) / len(losses),
        "eval_loss": best if best is not None else (evaluated[-1] if evaluated else None),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_records": sum(prepared.mixture.counts),
        "eval_records": len(prepared.val),
        "tokens": trainer.tokens_seen,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(trainer.tokens_seen / seconds, 1),
        "rows_cut": prepared.cut,
        "rows_left_out": len(prepared.refused),
        "gpu_memory_mb": torch.cuda.max_memory_allocated() >> 20 if torch.cuda.is_available() else 0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20,
    }


def _finish(
    config: FinetuneConfig, folder: Path, trainer: AnswerTrainer, prepared: Prepared, metrics: dict[str, Any]
) -> dict[str, Any]:
    """Write the run's files, read the adapter back, and only then let them appear."""
    template = prepared.encoding.template
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    with checkpoint.staged(folder) as scratch:
        checkpoint.save_run(model, scratch, prepared.encoding, config.save_format, PRECISIONS[metrics["precision"]])
        metrics["reload_logit_difference"] = checkpoint.verify(model, scratch, prepared.rows[0].input_ids[:64])
        write_json(scratch / "metrics.json", metrics)
        write_json(scratch / "log.json", trainer.state.log_history)
        loss_curve(trainer.state.log_history, scratch / "loss.png")
        record = {
            "config": dataclasses.asdict(config),
            "prompt_template": template.name,
            "prompt_sha256": template.digest(),
            "data_sha256": [checkpoint.file_digest(path) for path in data_paths(config.data_path)],
            "generation": _GENERATION,
        }
        write_json(scratch / RUN_FILE, record)
    evaluated = f", eval_loss {metrics['eval_loss']:.4f}" if metrics["eval_loss"] is not None else ""
    log.info("train_loss %.4f%s", metrics["train_loss"], evaluated)
    log.info("%s written to %s (read back: the same)", "model" if config.method == "full" else "adapter", folder)
    if config.method == "adapter":
        log.info("a bottleneck adapter is read by xinglin alone; it cannot be merged, made a GGUF or served by vLLM")
    return metrics
