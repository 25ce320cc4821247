"""What a person sees on stderr: our own log lines and progress bars; stdout is for results."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)
_TELL_EVERY = 60.0  # seconds
T = TypeVar("T")


def stderr() -> Console:
    """A console for progress bars."""
    return Console(stderr=True)


def set_up_logging() -> None:
    """Let our own lines through, and of libraries only errors."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    logging.getLogger("xinglin").setLevel(logging.INFO if first else logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels at every start
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for category in (FutureWarning, UserWarning):  # of libraries among themselves; ours are log lines and errors
        warnings.filterwarnings("ignore", category=category)


def progress(items: Iterable[T], label: str, total: int, done: int = 0) -> Iterator[T]:
    """Hand items on and show how far it is and how long it takes: a bar on a terminal, else a line a minute.

    Args:
        done: how many of `total` were there before.
    """
    if sys.stderr.isatty():
        bar = Progress(
            TextColumn("{task.description}"),
            *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn()),
            console=stderr(),
        )
        with bar:
            task = bar.add_task(label, total=total, completed=done)
            for item in items:
                bar.advance(task)
                yield item
        return
    began = told = time.monotonic()
    for number, item in enumerate(items, 1):
        now = time.monotonic()
        if now - told >= _TELL_EVERY:
            told, speed = now, number / (now - began)
            left = timedelta(seconds=round((total - done - number) / speed))
            log.info("%s: %d of %d, %.1f a second, %s to go", label, done + number, total, speed, left)
        yield item
