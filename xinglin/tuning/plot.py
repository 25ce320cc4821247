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
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, style, label=label, markersize=5)
            axes.annotate(f"{values[-1]:.3f}", (steps[-1], values[-1]), textcoords="offset points", xytext=(4, 6))
    axes.set(xlabel="optimizer step", ylabel="loss (nats per target token)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
