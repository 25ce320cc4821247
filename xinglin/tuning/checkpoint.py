"""The folder of a run: checked before work starts, written whole, and read back before it counts.

adapter_config.json  adapter_model.safetensors   the weights (PEFT's format)
prompt_template.json  chat_template.jinja        the prompt they were tuned with
xinglin.json                                     resolved config, base, data fingerprint, generation settings
metrics.json  log.json  loss.png                 what happened
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel

from xinglin.errors import UserError
from xinglin.prompts import PromptTemplate
from xinglin.records import atomic_write

_RUN_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "prompt_template.json",
    "chat_template.jinja",
    "xinglin.json",
    "metrics.json",
    "log.json",
    "loss.png",
)
_RESERVE = 64 << 20
"""Bytes that must be free beyond what the run is known to write."""


@contextmanager
def output_folder(path: str, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Make the run's folder, and take it away again if the run fails before it holds anything.

    Raises:
        UserError: it holds a run already, is a file, or cannot be written to; the disk is full.
    """
    folder = Path(path)
    existed = folder.exists()
    if _holds_run(folder) and not (overwrite or resume):
        raise UserError(
            f"output_dir {path!r} already holds a run; give another, or --overwrite_output_dir, "
            "or --resume_from_checkpoint"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"output_dir {path!r}: cannot be written ({error.strerror}); give a writable folder") from None
    try:
        yield folder
    except BaseException:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _holds_run(folder: Path) -> bool:
    return folder.is_dir() and (
        any((folder / name).exists() for name in _RUN_FILES) or any(folder.glob("checkpoint-*"))
    )


def clear_run(folder: Path) -> None:
    """Take away an earlier run's files, and nothing else."""
    for name in _RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def require_room(folder: Path, need: int) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        need: bytes that the run will write.

    Raises:
        UserError: less than that, and a reserve, is free.
    """
    free = shutil.disk_usage(folder).free
    if free < need + _RESERVE:
        raise UserError(
            f"{folder}: {free >> 20} MiB free, the run needs about {(need + _RESERVE) >> 20} MiB; "
            "free some space or give another --output_dir"
        )


def whole_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to the end (the trainer's state is written last), the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the many ways in which libraries report a full disk into one clear line."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error) or shutil.disk_usage(folder).free < 1 << 20:
            for broken in set(folder.glob("checkpoint-*")) - set(whole_checkpoints(folder)):
                shutil.rmtree(broken, ignore_errors=True)
            raise UserError(f"{folder}: the disk is full; checkpoints already written are intact") from error
        raise


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into `folder` only when the block ends well."""
    scratch = folder / ".staging"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
        for file in scratch.iterdir():
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def save_adapter(model: PeftModel, folder: Path, template: PromptTemplate, save_format: str) -> None:
    """Write the adapter and the prompt that goes with it."""
    model.save_pretrained(str(folder), safe_serialization=save_format == "safetensors")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    template.save(folder / "prompt_template.json")
    with atomic_write(folder / "chat_template.jinja") as file:
        file.write(template.chat_template())


@torch.no_grad()
def verify_adapter(model: PeftModel, folder: Path, probe_T: list[int], tolerance: float = 1e-3) -> float:
    """Load the saved files into the base again and compare logits; a dead adapter never passes.

    Args:
        model: the trained model; its own adapter is taken out of the base by this.
        probe_T: token ids to compare on.
        tolerance: largest allowed difference of a logit; the same numbers are computed twice, so it is
            there for bases whose kernels are not deterministic.

    Returns:
        The largest difference found.

    Raises:
        RuntimeError: the saved adapter is not the trained one. The run must not count.
    """
    model.eval()
    ids_BT = torch.tensor([probe_T], device=model.device)
    expected = model(input_ids=ids_BT, use_cache=False).logits.float()
    keys = sum(1 for name, _ in model.named_parameters() if ".lora_" in name)
    base = model.unload()
    again = PeftModel.from_pretrained(base, str(folder)).eval()
    loaded = [(name, weight) for name, weight in again.named_parameters() if ".lora_" in name]
    # lora_A starts out random, so only lora_B tells whether anything was learned
    alive = any(weight.any() for name, weight in loaded if ".lora_B." in name)
    if len(loaded) != keys or not alive:
        raise RuntimeError(
            f"saved adapter has {len(loaded)} tensors of {keys}{'' if alive else ', and changes nothing'}"
        )
    got = again(input_ids=ids_BT, use_cache=False).logits.float()
    difference = float((got - expected).abs().max())
    if difference > tolerance:
        raise RuntimeError(f"saved adapter gives other logits than the trained one (difference {difference:.2g})")
    return difference


def file_digest(path: str | Path) -> str:
    """sha256 of a file: the data's fingerprint."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
