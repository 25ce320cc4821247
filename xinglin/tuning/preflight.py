"""What a run will take, measured on a few of its own micro-batches before it starts.

estimate: 11 min 40 s for 63 steps, peak memory 6.4 GB of 25.3 GB; 40.2 GB of disk free
"""

import logging
import math
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from xinglin.dataset.encode import Encoded
from xinglin.errors import UserError
from xinglin.tuning import processes
from xinglin.tuning.packing import packed_tokens
from xinglin.tuning.prepare import Prepared

log = logging.getLogger(__name__)

_SAMPLES = 3
_HEAP = 1.3
"""With rows of every length glibc keeps about a third more than is in use (seen in benchmarks/doctor)."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's limit, which the machine's own numbers do not show


@dataclass(frozen=True)
class Estimate:
    """What a run will take: seconds, and bytes of memory (the GPU's, where there is one)."""

    seconds: float
    peak_bytes: int


def device_name() -> str:
    """What this process computes on, and how much memory that has."""
    together = f"{processes.count()} processes, each on one " if processes.count() > 1 else ""
    size = f"{memory_size() / 1e9:.1f} GB"
    if torch.cuda.is_available():
        return f"{together}{torch.cuda.get_device_name()}, {size}"
    return f"{together}CPU, {torch.get_num_threads()} threads, {size}"


def memory_size() -> int:
    """Bytes of memory that the device has: the GPU's, or what the machine or its container gives."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    try:
        limit = int(_CGROUP.read_text())
    except (OSError, ValueError):  # `max` stands for none
        limit = sys.maxsize
    return min(limit, int(psutil.virtual_memory().total))


def peak_memory() -> int:
    """The most bytes that this process has held so far, of the GPU's memory or the machine's."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resident_peak()


def resident_peak() -> int:
    """The most bytes of the machine's memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _held() -> int:
    """Bytes that this process holds now: the base, and what it needs besides."""
    return int(torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss)


def _free_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    in_container = memory_size() - _held()
    return int(min(in_container, psutil.virtual_memory().available))


class Preflight(TrainerCallback):  # type: ignore[misc]
    """Measures before the first step; the state of the run, its random numbers too, is left as it was."""

    def __init__(self, trainer: Any, prepared: Prepared, samples: int = _SAMPLES) -> None:
        self.trainer, self.prepared, self.samples = trainer, prepared, samples
        self.estimate: Estimate | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, say what came of it, and stop what cannot go well.

        Raises:
            UserError: the memory does not suffice.
        """
        steps = state.max_steps - state.global_step
        with torch.random.fork_rng():
            self.estimate = self._measure(steps)
        free = shutil.disk_usage(self.trainer.folder).free
        log.info(
            "estimate: %s for %d steps, peak memory %.1f GB of %.1f GB; %.1f GB of disk free",
            *(duration(self.estimate.seconds), steps),
            *(self.estimate.peak_bytes / 1e9, memory_size() / 1e9, free / 1e9),
        )

    def _measure(self, steps: int) -> Estimate:
        model = self.trainer.model
        groups = self._epoch()
        by_size = sorted(groups, key=packed_tokens)
        before = _held()
        picked = [by_size[int((n + 0.5) * len(by_size) / self.samples)] for n in range(self.samples)]
        model.train()
        self._step(by_size[-1])  # the heaviest of all: memory peaks here, or it never does
        seconds = [self._step(group) for group in picked]
        model.zero_grad()
        a_token = sum(seconds) / sum(map(packed_tokens, picked))
        whole = a_token * sum(map(packed_tokens, groups)) * steps / self._steps_an_epoch()
        moments = self._moments()
        with processes.same_fate():
            free = _free_memory()
            if moments > free:
                raise UserError(
                    f"memory: {free / 1e9:.1f} GB are left, the optimizer will need {moments / 1e9:.1f} GB; "
                    "tune fewer weights (--lora_r, --method), or take more processes with --fsdp"
                )
        heap = 1.0 if torch.cuda.is_available() else _HEAP
        return Estimate(whole + self._evaluations(steps), int(before + heap * (peak_memory() - before)) + moments)

    def _moments(self) -> int:
        """Bytes that Adam will add with the first step."""
        if self.trainer.optimizer.state:  # of a resumed run: they are here
            return 0
        trained = [weight for weight in self.trainer.model.parameters() if weight.requires_grad]
        local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in trained]
        return (2 if "8bit" in self.trainer.args.optim else 8) * sum(weight.numel() for weight in local)

    def _epoch(self) -> list[list[Encoded]]:
        """All micro-batches of this process in the first epoch."""
        rows, size = self.prepared.rows, self.trainer.config.batch_size
        order = self.prepared.mixture.epoch(0)
        batches = [[rows[place] for place in order[start : start + size]] for start in range(0, len(order), size)]
        return [group for batch in batches for group in self.trainer.micro_batches(batch)]

    def _steps_an_epoch(self) -> int:
        records: int = sum(self.prepared.mixture.counts)
        return -(-records // int(self.trainer.config.batch_size))

    def _step(self, group: Sequence[Encoded]) -> float:
        """Seconds of one micro-batch, forward and backward."""
        started = time.perf_counter()
        with self.trainer.fitting(group):
            losses_N, _ = self.trainer.forward(self.trainer.model, group)
            self.trainer.accelerator.backward(losses_N.sum() * 0)
        self._wait()
        return time.perf_counter() - started

    @torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _evaluations(self, steps: int) -> float:
        """Seconds of all evaluations."""
        if not self.prepared.val:
            return 0.0
        groups = self.trainer.micro_batches(self.prepared.val)
        group = sorted(groups, key=packed_tokens)[len(groups) // 2]
        self.trainer.model.eval()
        started = time.perf_counter()
        self.trainer.forward(self.trainer.model, group)
        self._wait()
        one = (time.perf_counter() - started) / packed_tokens(group) * sum(map(packed_tokens, groups))
        every = self.trainer.config.eval_steps or self._steps_an_epoch()
        return one * math.ceil(steps / every)

    def _wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def duration(seconds: float) -> str:
    """`11 min 40 s`, `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
