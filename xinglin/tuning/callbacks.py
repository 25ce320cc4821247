"""What goes on beside a training run: the bar, the log file, extra checkpoints, and a clean end on SIGTERM."""

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl
from transformers.trainer_utils import SaveStrategy

from xinglin.console import stderr
from xinglin.records import atomic_write
from xinglin.tuning import checkpoint, processes
from xinglin.tuning.runlog import LOG_FILE

log = logging.getLogger(__name__)


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows step, loss, elapsed and remaining time. Enter `bar` around the training.

    Where stderr is no terminal (a log file), a line every tenth of the way stands in for the bar.
    """

    def __init__(self) -> None:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        console = stderr()
        self.bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=processes.rank() > 0 or not console.is_terminal,
        )
        self.task = self.bar.add_task("")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start at the step a resumed run starts from."""
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on by one optimizer step."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the latest losses."""
        shown = " ".join(f"{name} {logs[name]:.4f}" for name in ("loss", "eval_loss") if logs and name in logs)
        if not shown:
            return
        self.bar.update(self.task, description=shown)
        tenth = max(1, state.max_steps // 10)
        if self.bar.disable and (state.global_step % tenth == 0 or "eval" in shown):
            log.info("step %d/%d: %s", state.global_step, state.max_steps, shown)


class LogFile(TrainerCallback):  # type: ignore[misc]
    """Writes every figure to `log.jsonl` as it comes; a resumed run's file begins with what its checkpoint knows.

    An earlier run that is to be overwritten is taken away here, when nothing can refuse this one any more.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder, self.overwrite = folder, overwrite
        self.path = folder / LOG_FILE

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the file."""
        if self.overwrite:
            checkpoint.clear_run(self.folder)
        self.begin(state)

    def begin(self, state: Any) -> None:
        """Write what the run's state knows."""
        with atomic_write(self.path) as file:
            file.writelines(map(_line, filter(_figures, state.log_history)))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Add one line."""
        if _figures(state.log_history[-1]):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


def _figures(entry: dict[str, float]) -> bool:
    return "loss" in entry or "eval_loss" in entry


def _line(entry: dict[str, float]) -> str:
    first = {"step": entry["step"]}  # where a reader looks for it
    return json.dumps(first | entry) + "\n"


class SaveEvery(TrainerCallback):  # type: ignore[misc]
    """A checkpoint every so many steps, beside those at evaluations."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for one where its time has come."""
        if state.global_step % self.steps == 0 and not _saves_soon(args, state):
            control.should_save = True


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM, finish the step, save, and stop: in all processes at the same step. Enter `listening` around it."""

    def __init__(self) -> None:
        self.asked = self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM for a request, as long as the block lasts."""
        if threading.current_thread() is not threading.main_thread():  # where no signal can be taken
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        log.info("SIGTERM: saving after this step")

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Stop if any process was asked to, unless this was the last step anyway."""
        self.stopped = processes.summed(self.asked)[0] > 0 and state.global_step < state.max_steps
        if self.stopped:
            control.should_training_stop = True
            control.should_save = control.should_save or not _saves_soon(args, state)

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """In the middle of an epoch, leave out what belongs to its end."""
        if self.stopped and not _saves_soon(args, state):
            control.should_evaluate = control.should_save = False


def _saves_soon(args: Any, state: Any) -> bool:
    """Whether the epoch ends here, with an evaluation, and a checkpoint that knows of it."""
    ends = float(state.epoch).is_integer() or state.global_step >= state.max_steps
    return args.save_strategy == SaveStrategy.EPOCH and ends
