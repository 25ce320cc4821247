"""One quiet progress bar for a training run, with the loss beside it."""

import logging
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from xinglin.console import stderr

log = logging.getLogger(__name__)


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows step, loss, elapsed and remaining time. Enter `bar` around the training.

    Where stderr is no terminal (a log file), a line every tenth of the way stands in for the bar.
    """

    def __init__(self) -> None:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        console = stderr()
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
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
