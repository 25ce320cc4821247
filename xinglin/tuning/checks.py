"""What is refused before any work begins: settings that cannot work, checkpoints that cannot be gone on from."""

import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import Any

import torch

from xinglin.config import listed
from xinglin.errors import UserError
from xinglin.tuning import checkpoint, methods, processes
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)

_AT_LEAST = {
    "cutoff_len": 8,
    "max_tokens_per_micro_batch": 0,
    "eval_steps": 0,
    "save_steps": 0,
    "save_total_limit": 1,
    "early_stopping_patience": 0,
}
_MAY_CHANGE = {
    *("data_path", "output_dir", "resume_from_checkpoint", "overwrite_output_dir", "report_to", "save_format"),
    *("wandb_project", "wandb_run_name", "wandb_watch", "wandb_log_model"),
    *("micro_batch_size", "max_tokens_per_micro_batch", "group_by_length", "fsdp", "compile"),
    *("save_steps", "save_total_limit", "early_stopping_patience"),
}
"""Options that change nothing of what a run learns."""
_FIXED = {
    *("data_weights", "val_set_size", "batch_size", "seed"),
    *("prompt_template_name", "enable_thinking", "cutoff_len", "train_on_inputs", "lora_target_modules"),
}
"""Options that say which rows come when, and what they are: with others, a place in the data means nothing."""


def check(config: FinetuneConfig) -> None:
    """Refuse settings that cannot work, naming values that can.

    Raises:
        UserError: the first of them.
    """
    _check_numbers(config)
    _check_processes(config)
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; on a CPU take bf16, fp32 or auto")
    if config.fsdp and config.compile == "true":
        raise UserError("compile does not go with fsdp; leave one of them out")
    if config.method == "full" and config.save_format == "bin":
        raise UserError("save_format bin is for adapters; --method full writes model.safetensors")
    if config.early_stopping_patience and not config.val_set_size:
        raise UserError("early_stopping_patience needs records to evaluate on; give a --val_set_size above 0")
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
    for name, least in _AT_LEAST.items():
        if getattr(config, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(config, name)}")


def _check_processes(config: FinetuneConfig) -> None:
    count = processes.count()
    if config.fsdp and count == 1:
        raise UserError(
            "fsdp shards the base over several processes; start them with torchrun --nproc_per_node N finetune.py …"
        )
    if config.fsdp and config.load_8bit:
        raise UserError("fsdp cannot shard a base in 8 bit; take --method qlora (4 bit), or leave out --load_8bit")
    if config.fsdp and config.method == "full" and config.precision == "fp16":
        raise UserError("fsdp with --method full needs bf16 or fp32; fp16's loss scaling does not go with it")
    if config.batch_size < count:
        raise UserError(
            f"batch_size {config.batch_size} is less than the {count} processes; give at least {count}, or fewer "
            "processes"
        )


def find_checkpoint(config: FinetuneConfig) -> Path | None:
    """The checkpoint to go on from; with `True`, none where a run was stopped before its first.

    Raises:
        UserError: no checkpoint, or one of another run.
    """
    asked = config.resume_from_checkpoint
    if not asked:
        return None
    if asked is True:
        whole = checkpoint.whole_checkpoints(Path(config.output_dir))
        if not whole:
            log.warning("resume_from_checkpoint: %s holds no checkpoint yet; from the beginning", config.output_dir)
            return None
        found = whole[-1]
    else:
        found = Path(str(asked))
        if not (found / "trainer_state.json").is_file():
            raise UserError(
                f"resume_from_checkpoint {str(asked)!r}: not a checkpoint folder (it has no trainer_state.json)"
            )
    methods.require_same(config, found)
    return found


def settings(config: FinetuneConfig, data: list[str]) -> dict[str, Any]:
    """What a checkpoint says of the run it is of.

    Args:
        data: sha256 of each data file.
    """
    return {"config": dataclasses.asdict(config), "data_sha256": data, "processes": processes.count()}


def require_same_way(now: dict[str, Any], found: Path) -> None:
    """Compare the settings of a checkpoint's run with this one's; those that only change the schedule are said.

    Raises:
        UserError: other data, or another order of them.
    """
    path = found / checkpoint.SETTINGS
    if not path.is_file():
        return  # of an older version
    then = json.loads(path.read_text("utf-8"))
    if then["data_sha256"] != now["data_sha256"]:
        raise UserError(f"resume_from_checkpoint {str(found)!r}: the data have changed since; start a new run")
    full = now["config"]["method"] == "full"  # whose optimizer is stored otherwise when it is sharded
    fixed, may_change = (_FIXED | {"fsdp"}, _MAY_CHANGE - {"fsdp"}) if full else (_FIXED, _MAY_CHANGE)
    changed = {
        name: (value, now["config"][name])
        for name, value in then["config"].items()
        if name in now["config"] and name not in may_change and not _same(value, now["config"][name])
    }
    for name in fixed & changed.keys():
        raise UserError(
            f"resume_from_checkpoint {str(found)!r} has {name} {changed[name][0]}, asked for is {changed[name][1]}; "
            "resume with what it began with"
        )
    if then["processes"] != now["processes"]:
        log.warning("resuming in %d processes, it began in %d: dropout differs", now["processes"], then["processes"])
    for name, (value, asked) in changed.items():
        log.warning("resuming with another %s: %s, it began with %s", name, asked, value)


def _same(value: Any, other: Any) -> bool:
    """Lists may be spelled in two ways."""
    return value == other or (isinstance(value, str | list) and listed(value) == listed(other))


def finished(found: Path, config: FinetuneConfig, steps: int) -> bool:
    """Whether a checkpoint is its run's last: only what comes after training is missing."""
    state = json.loads((found / "trainer_state.json").read_text("utf-8"))
    stopping = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return bool(state["global_step"] >= steps or 0 < config.early_stopping_patience <= waited)
