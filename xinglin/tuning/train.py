"""The only training entry.

xinglin finetune --base_model smollm2-135m --data_path data/llama_data.json --output_dir runs/first
torchrun --nproc_per_node 8 finetune.py --config configs/llama-7b-report.yaml
"""

import json
import logging
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from xinglin.backbone import (
    Precision,
    agree,
    choose_precision,
    find_base,
    keep_memory,
    keep_trainable,
    load_base,
)
from xinglin.errors import Stopped, UserError
from xinglin.prompts import RUN_FILE, check_name
from xinglin.records import write_json
from xinglin.tokenizer import Tokenizer, load_tokenizer
from xinglin.tuning import checkpoint, checks, methods, processes
from xinglin.tuning.callbacks import LogFile, ProgressBar, SaveEvery
from xinglin.tuning.compiling import compiled, compiles
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.plot import draw
from xinglin.tuning.preflight import Preflight, device_name, resident_peak
from xinglin.tuning.prepare import Prepared, data_paths, prepare
from xinglin.tuning.runlog import open_runs
from xinglin.tuning.trackers import choose_trackers, open_trackers
from xinglin.tuning.trainer import AnswerTrainer

log = logging.getLogger(__name__)

_SHORTEST_ROOM = 256
"""Tokens that an answer may take where none was learned that is longer."""


@dataclass(frozen=True)
class Run:
    """A run that is ready to start.

    Attributes:
        settings: what its checkpoints say of it.
        resume: the checkpoint it goes on from.
        finished: the same where it is the run's last one: at most what comes after training is missing.
    """

    config: FinetuneConfig
    folder: Path
    prepared: Prepared
    precision: Precision
    trainer: AnswerTrainer
    settings: dict[str, Any]
    resume: Path | None
    finished: Path | None


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Tune the base on the data and write the run's folder.

    Under torchrun all processes call this; the first one writes.

    Returns:
        The contents of `metrics.json`.

    Raises:
        UserError: anything about the settings, files or disk that the user can put right.
        Stopped: SIGTERM came; where the run stands is saved.
    """
    with ready(config) as run:
        if run.finished and run.finished.parent.samefile(run.folder) and (run.folder / RUN_FILE).is_file():
            log.info("%s: this run is through; more epochs would go on from it", run.folder)
            return dict(json.loads((run.folder / "metrics.json").read_text("utf-8")))
        return _train(run)


@contextmanager
def ready(config: FinetuneConfig) -> Iterator[Run]:
    """Check everything, read the data, load the base and put the method on it.

    Raises:
        UserError: as `finetune`.
    """
    config = methods.resolved(config)
    keep_memory()
    checks.check(config)
    trackers = choose_trackers(config)
    check_name(config.prompt_template_name)
    resume = checks.find_checkpoint(config)
    with processes.joined(), ExitStack() as stack:
        base = processes.on_first(lambda: find_base(config.base_model))
        if Path(config.output_dir).resolve() == Path(base).resolve():
            raise UserError(f"output_dir {config.output_dir!r} is the base's own folder; give another")
        log.info("device: %s", device_name())
        _tell_of_more_gpus()
        prepared = prepare(config, load_tokenizer(base), base)
        settings = checks.settings(config, [checkpoint.file_digest(path) for path in data_paths(config.data_path)])
        if resume:
            checks.require_same_way(settings, resume)
        output = checkpoint.output_folder(
            config.output_dir, overwrite=config.overwrite_output_dir, resume=bool(config.resume_from_checkpoint)
        )
        folder = processes.on_first(lambda: stack.enter_context(output))
        stack.enter_context(checkpoint.disk_errors(folder))
        precision = choose_precision(config.precision)
        fused = compiles(config, int(config.num_epochs * sum(len(row.input_ids) for row in prepared.rows)))
        arguments = _arguments(config, folder, prepared, precision, trackers)
        trainer = _trainer(config, prepared, precision, arguments, settings)
        if fused:
            stack.enter_context(compiled(trainer.model))
        finished = resume if resume and checks.finished(resume, config, prepared.steps) else None
        yield Run(config, folder, prepared, precision, trainer, settings, resume, finished)


def _tell_of_more_gpus() -> None:
    gpus = torch.cuda.device_count()
    if gpus > 1 and processes.count() == 1:
        as_script = sys.argv[0].endswith("finetune.py")
        again = shlex.join(sys.argv if as_script else ["-m", "xinglin", *sys.argv[1:]])
        log.info("%d GPUs are here, one is used; for all: torchrun --nproc_per_node %d %s", gpus, gpus, again)


def _trainer(
    config: FinetuneConfig, prepared: Prepared, precision: Precision, arguments: TrainingArguments, settings: Any
) -> AnswerTrainer:
    set_seed(config.seed)
    model = _tunable(config, precision, prepared.encoding.tokenizer)
    set_seed(config.seed + processes.rank())  # what starts out is equal, dropout is not
    trainable = methods.trainable_parameters(model)
    folder = Path(arguments.output_dir)
    kept = min(config.save_total_limit, prepared.steps) + 2  # the best one, and the one being written
    kept = max(1, kept - len(checkpoint.whole_checkpoints(folder)))
    processes.on_first(lambda: checkpoint.require_room(folder, 4 * trainable * (3 * kept + 1)))
    log.info("precision: %s (%s)", precision.name, precision.reason)
    log.info("method: %s; trainable: %s parameters", config.method, f"{trainable:,}")
    trainer = AnswerTrainer(
        config,
        precision,
        prepared,
        settings,
        model=model,
        args=arguments,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(
    config: FinetuneConfig, folder: Path, prepared: Prepared, precision: Precision, trackers: list[str]
) -> TrainingArguments:
    when = "steps" if config.eval_steps else "epoch"
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
        fp16=precision.name == "fp16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        eval_strategy=when if prepared.val else "no",
        save_strategy=when,
        eval_steps=config.eval_steps or None,
        save_steps=config.eval_steps or 500,
        ddp_find_unused_parameters=False,
        save_only_model=config.fsdp,  # else the Trainer refuses a sharded base; ours saves all of it
        load_best_model_at_end=bool(prepared.val),
        metric_for_best_model="eval_loss" if prepared.val else None,
        greater_is_better=False,
        remove_unused_columns=False,
        report_to=processes.on_first(lambda: open_trackers(config, trackers)),
        run_name=config.wandb_run_name or None,
        seed=config.seed,
        dataloader_pin_memory=False,
        disable_tqdm=True,  # our own bar
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are torchrun's work; DataParallel would split rows
    return arguments


def _tunable(config: FinetuneConfig, precision: Precision, tokenizer: Tokenizer) -> Any:
    """The base with what is to be trained; all of its weights are fp32 masters when all are trained."""
    held = Precision(torch.float32, "masters") if config.method == "full" else precision
    with processes.same_fate(collective=config.fsdp):
        base = load_base(
            config.base_model,
            held,
            quantization=methods.quantization(config),
            shards=processes.count() if config.fsdp else 1,
        )
    agree(base, tokenizer)
    return methods.attach(keep_trainable(base), config)


def _train(run: Run) -> dict[str, Any]:
    config, trainer = run.config, run.trainer
    progress, overwrite = ProgressBar(), config.overwrite_output_dir and not config.resume_from_checkpoint
    trainer.add_callback(Preflight(trainer, run.prepared))
    trainer.add_callback(progress)
    if config.save_steps:
        trainer.add_callback(SaveEvery(config.save_steps))
    if config.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(config.early_stopping_patience))
    log_file = LogFile(run.folder, overwrite)
    if processes.rank() == 0:
        trainer.add_callback(log_file)
    if run.finished:
        trainer.take_up(run.finished)
        processes.on_first(lambda: log_file.begin(trainer.state))
    else:
        with progress.bar, trainer.stop.listening():
            trainer.train(resume_from_checkpoint=run.resume and str(run.resume))
    if trainer.stop.stopped:
        done = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
        raise Stopped(f"{done} is saved in {run.folder}; go on with --resume_from_checkpoint True")
    metrics: dict[str, Any] = _finish(run, _metrics(run))
    return metrics


def _metrics(run: Run) -> dict[str, Any]:
    state, prepared = run.trainer.state, run.prepared
    seconds = run.trainer.seconds()
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]  # of the whole run, resumed or not
    evaluated = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    best = state.best_metric
    return {
        "method": run.config.method,
        "trainable_parameters": methods.trainable_parameters(run.trainer.model),
        "precision": run.precision.name,
        "processes": processes.count(),
        "train_loss": sum(losses) / len(losses),
        "eval_loss": best if best is not None else (evaluated[-1] if evaluated else None),
        "steps": state.global_step,
        "epochs": state.epoch,
        "train_records": sum(prepared.mixture.counts),
        "eval_records": len(prepared.val),
        "tokens": run.trainer.tokens_seen,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(run.trainer.tokens_seen / max(seconds, 1e-9), 1),
        "rows_cut": prepared.cut,
        "rows_left_out": len(prepared.refused),
        "gpu_memory_mb": torch.cuda.max_memory_allocated() >> 20 if torch.cuda.is_available() else 0,
        "peak_memory_mb": resident_peak() >> 20,
    }


def _room(prepared: Prepared) -> int:
    """Tokens of the longest answer, stored with the weights, so that everyone asks the model in the same way."""
    return max(_SHORTEST_ROOM, *(row.targets for row in prepared.rows))


@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
def _finish(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write the run's files, read the adapter back, and only then let them appear."""
    config, folder, trainer = run.config, run.folder, run.trainer
    template = run.prepared.encoding.template
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    with checkpoint.staged(folder) as scratch:
        with processes.same_fate(collective=config.fsdp and config.method == "full"):
            checkpoint.save_run(model, scratch, run.prepared.encoding, config.save_format, run.precision.dtype)
        metrics["reload_logit_difference"] = checkpoint.verify(model, scratch, run.prepared.rows[0].input_ids[:64])
        if processes.rank() == 0:
            write_json(scratch / "metrics.json", metrics)
            draw(open_runs([folder]), scratch / "curves.png")
            record = {
                **run.settings,
                "prompt_template": template.name,
                "prompt_sha256": template.digest(),
                "generation": {"max_new_tokens": _room(run.prepared), "do_sample": False},
            }
            write_json(scratch / RUN_FILE, record)
    evaluated = f", eval_loss {metrics['eval_loss']:.4f}" if metrics["eval_loss"] is not None else ""
    log.info("train_loss %.4f%s", metrics["train_loss"], evaluated)
    log.info("%s written to %s (read back: the same)", "model" if config.method == "full" else "adapter", folder)
    if config.method == "adapter":
        log.info("a bottleneck adapter is read by xinglin alone; it cannot be merged, made a GGUF or served by vLLM")
    return metrics
