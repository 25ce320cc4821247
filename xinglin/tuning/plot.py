"""Loss curves of a run as a picture."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from xinglin.records import atomic_write

matplotlib.use("Agg")


def loss_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Draw training and evaluation loss over the steps as PNG.

    Args:
        history: the Trainer's log: entries with `step` and `loss` or `eval_loss`.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "train_loss", "-"), ("eval_loss", "eval_loss", "o--")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            steps, values = map(list, zip(*points, strict=True))
            shown = _smoothed(values)
            (line,) = axes.plot(steps, shown, style, label=label, markersize=5)
            if shown != values:
                axes.plot(steps, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
            axes.annotate(f"{shown[-1]:.3f}", (steps[-1], shown[-1]), textcoords="offset points", xytext=(4, 6))
    axes.set(xlabel="optimizer step", ylabel="loss (nats per target token)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)


def _smoothed(values: list[float]) -> list[float]:
    """A running mean over a tenth of a long curve, so that small batches do not hide its course; short ones as is."""
    window = len(values) // 10
    if window < 4:
        return values
    return [sum(values[max(0, n - window + 1) : n + 1]) / min(n + 1, window) for n in range(len(values))]
