"""What a run logs while it trains: `log.jsonl` in its folder, a line for each logged step and for each evaluation.

    {"step": 10, "epoch": 0.5, "loss": 2.1034, "learning_rate": 0.0003, "grad_norm": 0.81, "seconds": 34.2}
    {"step": 20, "epoch": 1.0, "eval_loss": 1.9021, "seconds": 80.0}

A figure may be missing, NaN or Infinity (which Python's json writes as such).
"""

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xinglin.errors import UserError

log = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """What one run has logged so far.

    Attributes:
        figures: name → the steps at which it was logged, and its values, NaN where that was no finite number.
    """

    name: str
    last_step: int
    figures: dict[str, tuple[Floats, Floats]]

    def series(self, key: str) -> tuple[Floats, Floats]:
        """The steps and values of a figure, empty if it was never logged."""
        return self.figures.get(key, (np.array([]), np.array([])))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a `log.jsonl`, which may be growing; no file is an empty log.

    A last line that a kill has cut in half is left out. Where the steps go back, the run was resumed: what it had
    logged beyond that step is dropped.
    """
    if not path.is_file():
        return []
    lines: list[dict[str, Any]] = []
    texts = path.read_text("utf-8", errors="replace").strip().split("\n")
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            if number < len(texts):
                log.warning("%s:%d: not a line of a training log, left out", path, number)
            continue
        if lines and line["step"] < lines[-1]["step"]:
            while lines and lines[-1]["step"] >= line["step"]:
                lines.pop()
        lines.append(line)
    return lines


def open_runs(folders: Sequence[str | Path]) -> list[RunLog]:
    """Read the logs of runs; a folder given twice is one run.

    Args:
        folders: the runs' folders, `output_dir` of their `finetune`.

    Raises:
        UserError: no such folder, no log in it, or nothing logged yet.
    """
    logs = {Path(os.path.abspath(folder)): _need_log(Path(folder)) for folder in folders}
    named = zip(_names(list(logs)), logs.values(), strict=True)
    return [RunLog(name, lines[-1]["step"], _figures(lines)) for name, lines in named]


def _need_log(folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        problem = "not a folder; give the run's folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {problem} (the output_dir of xinglin finetune)")
    if not (folder / LOG_FILE).is_file():
        raise UserError(f"{folder}: holds no {LOG_FILE}, which xinglin finetune writes while it trains")
    if not (lines := read_log(folder / LOG_FILE)):
        raise UserError(f"{folder / LOG_FILE}: nothing is logged yet; wait for the run's first steps")
    return lines


def _figures(lines: list[dict[str, Any]]) -> dict[str, tuple[Floats, Floats]]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        for key, value in line.items():
            steps, values = found.setdefault(key, ([], []))
            steps.append(line["step"])
            values.append(value if isinstance(value, int | float) and math.isfinite(value) else math.nan)
    return {key: (np.array(steps, np.float64), np.array(values, np.float64)) for key, (steps, values) in found.items()}


def _names(folders: list[Path]) -> list[str]:
    """Each folder's name, with as many of the folders above it as tell it from the others."""

    def tail(folder: Path, depth: int) -> str:
        return str(Path(*folder.parts[-depth:]))

    names = []
    for folder in folders:
        depths = range(1, len(folder.parts) + 1)
        alone = (depth for depth in depths if [tail(one, depth) for one in folders].count(tail(folder, depth)) == 1)
        names.append(tail(folder, next(alone, len(folder.parts))))
    return names
