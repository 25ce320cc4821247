"""The folder of a run: checked before work starts, written whole, and read back before it counts.

adapter_config.json  adapter_model.safetensors   the weights (PEFT's format), or a whole model's folder
prompt_template.json  chat_template.jinja        the prompt they were tuned with
xinglin.json                                     resolved config, base, data fingerprint, generation settings
metrics.json  log.jsonl  curves.png              what happened
checkpoint-120                                   what a run goes on from: weights, optimizer, schedule, random state
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor

from xinglin.dataset.encode import Encoding
from xinglin.errors import UserError
from xinglin.prompts import RUN_FILE
from xinglin.tuning import processes
from xinglin.tuning.bottleneck import BottleneckModel
from xinglin.tuning.methods import put_on, save_weights, write_model
from xinglin.tuning.runlog import LOG_FILE

SETTINGS = "settings.json"
"""In a checkpoint: the config and the data of its run."""
_RUN_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "prompt_template.json",
    "chat_template.jinja",
    RUN_FILE,
    "metrics.json",
    LOG_FILE,
    "curves.png",
)
_MODEL_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
)
"""A run's too, where `RUN_FILE` lies beside them; else they are somebody's base."""
_RESERVE = 64 << 20
"""Bytes that must be free beyond what the run is known to write."""


@contextmanager
def output_folder(path: str, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Make the run's folder, and take it away again if the run fails before it holds anything.

    Raises:
        UserError: it holds a run already, is a file, or cannot be written to; the disk is full.
    """
    folder = Path(path)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    if _holds_run(folder) and not (overwrite or resume):
        raise UserError(
            f"output_dir {path!r} already holds a run; give another, or --overwrite_output_dir, "
            "or --resume_from_checkpoint"
        )
    if (folder / "config.json").is_file() and not (folder / RUN_FILE).is_file():
        raise UserError(f"output_dir {path!r} holds a model that no run of this program wrote; give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            (folder / ".writable").unlink()
        _remove_empty(made)
        raise UserError(f"output_dir {path!r}: cannot be written ({error.strerror}); give a writable folder") from None
    try:
        yield folder
    finally:
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Take away those that hold nothing; each may hold the one before it."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _holds_run(folder: Path) -> bool:
    # a log alone is what a run has left that failed before its first checkpoint
    return folder.is_dir() and (
        any((folder / name).exists() for name in _RUN_FILES if name != LOG_FILE) or bool(_checkpoints(folder))
    )


def clear_run(folder: Path) -> None:
    """Take away an earlier run's files, and nothing else."""
    whole = (folder / RUN_FILE).is_file()
    for name in (*_RUN_FILES, *(_MODEL_FILES if whole else ())):
        for file in folder.glob(name):
            file.unlink()
    discard(*_checkpoints(folder), *folder.glob(".scratch-*"))


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
    return [path for path in _checkpoints(folder) if (path / "trainer_state.json").is_file()]


def _checkpoints(folder: Path) -> list[Path]:
    """By step; a `checkpoint-best` is somebody's copy."""
    return sorted((path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def written_whole(final: Path, collective: bool = False) -> Iterator[Path]:
    """A scratch folder that takes the name `final` when all processes have written to it and it is on the disk.

    What is killed on the way leaves `final` as it was, and a `.scratch-*` folder that the next one takes away.
    """
    scratch = final.with_name(f".scratch-{final.name}")
    with processes.same_fate():
        if processes.rank() == 0:
            discard(*final.parent.glob(".scratch-*"))
            scratch.mkdir()
    with _scratch_errors(scratch):
        with processes.same_fate(collective):
            yield scratch
        with processes.same_fate():
            if processes.rank() == 0:
                _flush(scratch)
                if final.exists():  # of a way that was left for an earlier checkpoint, which is still there
                    discard(final)
                os.replace(scratch, final)
                _sync(final.parent)


@contextmanager
def _scratch_errors(scratch: Path) -> Iterator[None]:
    """Take the scratch folder away in the end; a full disk is said to be one while it still is."""
    try:
        yield
    except Exception as error:
        if shutil.disk_usage(scratch.parent).free < 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
        raise
    finally:
        if processes.rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Wait until files have reached the disk: a name must not get there before what it names."""
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(*folders: Path) -> None:
    """Take folders away; what is killed on the way leaves no half one under its name."""
    for folder in folders:
        doomed = folder if folder.name.startswith(".") else folder.with_name(f".scratch-old-{folder.name}")
        if doomed != folder:
            shutil.rmtree(doomed, ignore_errors=True)
            os.replace(folder, doomed)
        shutil.rmtree(doomed)


def rotate(folder: Path, limit: int, keep: set[Path | None]) -> None:
    """Take away the oldest checkpoints over the limit, but never those to keep (the newest, and the best)."""
    newest = max(_step(path) for path in keep if path)
    # those of a later step are of a way that was left for an earlier checkpoint
    found = sorted(whole_checkpoints(folder), key=lambda path: (_step(path) <= newest, _step(path)))
    discard(*(path for path in found[:-limit] if path not in keep))


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the many ways in which libraries report a full disk into one clear line."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error):
            raise UserError(f"{folder}: the disk is full; {_intact(folder)}") from error
        raise


def _intact(folder: Path) -> str:
    whole = whole_checkpoints(folder)
    if not whole:
        return "no checkpoint was written yet"
    return f"{whole[-1].name} is intact; free some space and go on with --resume_from_checkpoint True"


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into `folder` only when the block ends well, `RUN_FILE` as the last."""
    scratch = folder / ".scratch-run"
    with processes.same_fate():
        if processes.rank() == 0:
            discard(*folder.glob(".scratch-*"))
            scratch.mkdir()
    with _scratch_errors(scratch):
        yield scratch
        with processes.same_fate():
            if processes.rank() == 0:
                _flush(scratch)
                for file in sorted(scratch.iterdir(), key=lambda file: file.name == RUN_FILE):
                    os.replace(file, folder / file.name)
                _sync(folder)


def save_run(model: Any, folder: Path, encoding: Encoding, save_format: str, dtype: torch.dtype) -> None:
    """Write what was trained, and the prompt that goes with it.

    A whole model is written in the number format it was computed in, with its tokenizer: a base like any other.
    """
    if isinstance(model, PeftModel | BottleneckModel):
        save_weights(model, folder, save_format)
    else:
        if any(isinstance(weight, DTensor) for weight in model.parameters()):
            model.to(dtype)  # FSDP2 keeps hold of its weights, and does it itself
        else:
            for weight in model.parameters():
                weight.data = weight.data.to(dtype)
        model.config.use_cache = True  # off in training only
        write_model(model, folder)
    if processes.rank() == 0:
        if not isinstance(model, PeftModel | BottleneckModel):
            encoding.tokenizer.inner.save_pretrained(folder)
        encoding.template.save(folder, encoding.tokenizer.begins)


@torch.no_grad()
def verify(model: Any, folder: Path, probe_T: list[int], tolerance: float = 1e-3) -> float:
    """Load the saved files again and compare; a dead adapter never passes.

    Args:
        model: the trained model; its own adapter is taken out of the base by this.
        probe_T: token ids to compare logits on.
        tolerance: largest allowed difference of a logit; the same numbers are computed twice, so it is
            there for bases whose kernels are not deterministic.

    Returns:
        The largest difference of logits found; 0 where all weights were trained, which must be equal.

    Raises:
        RuntimeError: what was saved is not what was trained. The run must not count.
    """
    if not isinstance(model, PeftModel | BottleneckModel):
        own = {key: _whole(weight) for key, weight in model.state_dict().items()}
        if processes.rank() > 0:
            return 0.0
        again = type(model).from_pretrained(folder, dtype=model.dtype).state_dict()
        wrong = [key for key in own if key not in again or not torch.equal(own[key], again[key])]
        if wrong:
            raise RuntimeError(f"saved model is not the trained one ({len(wrong)} tensors, first {wrong[0]})")
        return 0.0
    difference = _reload(model, folder, torch.tensor([probe_T], device=model.device))
    if not difference <= tolerance:
        raise RuntimeError(f"saved adapter gives other logits than the trained one (difference {difference:.2g})")
    return difference


def _whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight on the CPU, gathered if it is sharded."""
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).cpu()


def _reload(model: Any, folder: Path, ids_BT: torch.Tensor) -> float:
    """Put the saved adapter on in place of the trained one; the largest difference between their logits."""
    expected = model.eval()(input_ids=ids_BT, use_cache=False).logits.float()
    base = model.unload()
    try:
        again = put_on(base, str(folder))
    except UserError as error:
        raise RuntimeError(f"saved adapter: {error}") from None
    got = again.eval()(input_ids=ids_BT, use_cache=False).logits.float()
    return float((got - expected).abs().max())


def file_digest(path: str | Path) -> str:
    """sha256 of a file: the data's fingerprint."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
