"""The processes of one run, as torchrun starts them; in a run of one process all of this comes down to nothing.

Every process reads all data and does the same things in the same order; the first one (rank 0) alone writes files.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from xinglin.errors import UserError

T = TypeVar("T")


def count() -> int:
    """How many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined() -> Iterator[None]:
    """Let the processes find each other; each takes the GPU of its number on its machine, if there are any."""
    if count() == 1 or dist.is_initialized():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=timedelta(hours=2))
    yield
    # a wrapped model that is but garbage keeps the group's threads at work, and they abort when Python ends under them
    gc.collect()
    dist.destroy_process_group()  # not after an error: the others may no longer answer


def summed(*values: float) -> list[float]:
    """Each number, summed over all processes (in fp64)."""
    if count() == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(numbers)
    return [float(number) for number in numbers]


def gathered(value: T) -> list[T]:
    """What every process has to say, by rank."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def on_first(work: Callable[[], T]) -> T:
    """Do something in the first process; all get what came of it.

    Raises:
        UserError: that of the first process, in all.
    """
    if count() == 1:
        return work()
    outcome: list[Any] = [None]
    with same_fate():
        if rank() == 0:
            outcome = [work()]
    dist.broadcast_object_list(outcome, src=0)
    return outcome[0]  # type: ignore[no-any-return]


@contextmanager
def same_fate(collective: bool = False) -> Iterator[None]:
    """What fails in one process fails in all, so that none waits for another for ever.

    Args:
        collective: the processes work together inside, so that one that fails cannot tell the others: it ends alone,
            and torchrun ends the others.

    Raises:
        UserError: in the processes where it went well.
    """
    if collective:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    said = gathered("" if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    if any(said):
        raise UserError(next(line for line in said if line))
