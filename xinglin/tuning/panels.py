"""What a figure of training curves is made of: panels, each with one figure of the log over the optimizer steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.lib.stride_tricks import sliding_window_view

from xinglin.tuning.runlog import Floats, RunLog

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#882255")
"""A run's colour by its place, told apart with any colour vision and on white: Okabe and Ito's
(jfly.uni-koeln.de/color), with a wine red of Paul Tol's in place of their yellow."""

_POINTS = 400
"""Places along a curve at most: what a panel has pixels for, and what keeps the page small."""

_EVALUATED: dict[str, Any] = {"linestyle": "--", "linewidth": 1.2, "marker": "o", "markersize": 4.5}
_GREY = "#555555"


@dataclass(frozen=True)
class Panel:
    """One of the pictures; what is shown to readers is Chinese, then English.

    Attributes:
        key: the figure in the log.
        average: what smooths it: the mean for loss, as eval_loss is one; a spike of the others would move their mean.
        plain: what the legend calls a line that is not smoothed; empty where the title says it all.
        smoothed: what it calls one that is.
        legend: the corner that is likely to be free.
    """

    key: str
    title: tuple[str, str]
    average: Callable[..., Floats] | None = None
    plain: tuple[str, str] = ("", "")
    smoothed: tuple[str, str] = ("滑动中位数", "running median")
    from_zero: bool = True
    legend: str = "upper right"


PANELS = (
    Panel(
        "loss",
        ("损失", "loss (nats per target token)"),
        np.nanmean,
        plain=("训练", "train_loss"),
        smoothed=("训练，滑动平均", "train_loss, running mean"),
        from_zero=False,
    ),
    Panel("learning_rate", ("学习率", "learning rate")),
    Panel("grad_norm", ("梯度范数", "gradient norm"), np.nanmedian),
    Panel("tokens_per_second", ("速度", "tokens/s"), np.nanmedian, legend="lower right"),
)


@dataclass(frozen=True)
class _Curve:
    """A series in at most `_POINTS` places.

    Attributes:
        middle: the average around each place; NaN where nothing finite was logged.
        low, high: between them lie 90 % of the values around each place.
        thinned: a place stands for several values.
    """

    steps: Floats
    middle: Floats
    low: Floats
    high: Floats
    thinned: bool


def _curve(steps: Floats, values: Floats, average: Callable[..., Floats] | None = None) -> _Curve:
    """Put neighbours together, so that a long run is drawn fast and takes little room."""
    size = math.ceil(len(values) / _POINTS)
    steps, values = (
        np.pad(one, (0, -len(one) % size), constant_values=np.nan).reshape(-1, size) for one in (steps, values)
    )
    counts = np.isfinite(values).sum(axis=1, keepdims=True)
    ranked, last = np.sort(values, axis=1), np.maximum(counts - 1, 0)  # NaN is sorted behind all numbers
    ranks = np.concatenate([np.floor(0.05 * last), np.ceil(0.95 * last)], axis=1).astype(int)
    low, high = np.take_along_axis(ranked, ranks, axis=1).T
    some, middle = counts[:, 0] > 0, np.full(len(values), np.nan)
    middle[some] = (average or np.nanmean)(values[some], axis=1)
    return _Curve(np.nanmean(steps, axis=1), middle, low, high, size > 1)


def _smoothed(values: Floats, average: Callable[..., Floats] | None) -> Floats:
    """The average over a tenth of a long curve around each place, so that small batches do not hide its course.

    A short curve stays as it is, and so does a gap (NaN). An average of only the values before would lag behind, and
    show a falling train_loss above the eval_loss of the same step.
    """
    half = len(values) // 20
    if average is None or half < 2:
        return values
    windows = sliding_window_view(np.pad(values, half, constant_values=np.nan), 2 * half + 1)
    finite, smoothed = np.isfinite(values), values.copy()
    smoothed[finite] = average(windows[finite], axis=1)
    return smoothed


def _limits(drawn: Sequence[Floats], from_zero: bool) -> tuple[float, float]:
    """The range of an axis that shows the course of every curve.

    It begins at 0 where that costs at most a third of the height, and a spike far above the middle 80 % of its curve
    is cut off rather than let it flatten everything else.
    """
    finite = [values[np.isfinite(values)] for values in drawn]
    if not finite:
        return 0.0, 1.0
    tops = []
    for values in finite:
        tenth, ninetieth = np.quantile(values, (0.1, 0.9))
        tops.append(min(values.max(), ninetieth + 3 * (ninetieth - tenth)))
    low, high = float(min(values.min() for values in finite)), float(max(tops))
    span = high - low
    if from_zero or span <= 0 or low < span / 2:
        return min(0.0, low), high * 1.05 or 1.0
    return low - 0.05 * span, high + 0.05 * span


class _Drawing:
    """A panel while it is drawn.

    Attributes:
        drawn: what the axis must show.
        kinds: label → a line like it, for the legend.
        peak: the highest value logged, and its step.
    """

    def __init__(self, axes: Any, panel: Panel, *, runs: int, bilingual: bool) -> None:
        self.axes, self.panel, self.bilingual = axes, panel, bilingual
        self.faint = min(1.0, 3 / runs)  # what lies behind the lines of many runs must not add up to grey
        self.drawn: list[Floats] = []
        self.kinds: dict[str, Any] = {}
        self.peak = (-math.inf, 0.0)

    def label(self, chinese: str, english: str) -> str:
        """A label in both languages, or in English where there are no Chinese characters to draw with."""
        return f"{chinese} {english}" if self.bilingual else english

    def curve(self, steps: Floats, values: Floats, colour: str) -> None:
        """Draw a run's line, and faintly behind it, if it is smoothed, what was logged."""
        curve = _curve(steps, values, self.panel.average)
        shown = _smoothed(curve.middle, self.panel.average)
        self.peak = max(self.peak, (np.nanmax(values), steps[np.nanargmax(values)]))
        self.drawn.append(shown)
        self.axes.plot(curve.steps, shown, color=colour, linewidth=1.7, marker="." if len(shown) < 30 else "")
        smoothed = shown is not curve.middle
        name = self.panel.smoothed if smoothed else self.panel.plain
        if any(name):
            self.kinds[self.label(*name)] = Line2D([], [], color=_GREY)
        if smoothed and curve.thinned:
            style = {"color": colour, "alpha": 0.15 * self.faint, "linewidth": 0}
            self.axes.fill_between(curve.steps, curve.low, curve.high, **style)
            self.kinds[self.label("原始值，中间 90 %", "as logged, middle 90 %")] = Patch(color=_GREY, alpha=0.2)
        elif smoothed:
            style = {"color": colour, "alpha": 0.25 * self.faint, "linewidth": 0.7}
            self.axes.plot(curve.steps, curve.middle, zorder=1, **style)
            self.kinds[self.label("原始值", "as logged")] = Line2D([], [], color=_GREY, alpha=0.35, linewidth=0.7)
        if smoothed:
            self.drawn.append(np.nanquantile(values, (0.05, 0.95)))

    def evaluations(self, steps: Floats, values: Floats, colour: str) -> None:
        """Draw a run's eval_loss."""
        curve = _curve(steps, values)
        style = _EVALUATED | {"markevery": math.ceil(len(curve.steps) / 25), "markeredgecolor": "white"}
        self.axes.plot(curve.steps, curve.middle, color=colour, **style)
        self.drawn.append(curve.middle)
        self.kinds[self.label("验证", "eval_loss")] = Line2D([], [], color=_GREY, **_EVALUATED)

    def finish(self) -> None:
        """Set the axes, and say what kinds of lines there are and what is not shown."""
        axes = self.axes
        bottom, top = _limits(self.drawn, self.panel.from_zero)
        axes.set_ylim(bottom, top)
        axes.set_title(self.label(*self.panel.title), loc="left", fontsize="medium")
        axes.set_xlabel(self.label("步", "optimizer step"))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if top < 0.01:
            axes.yaxis.set_major_formatter(_scientific)
        elif top >= 1000:
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        highest, step = self.peak
        if highest > top + (top - bottom) / 2:  # a spike, not noise
            nothing = Line2D([], [], linestyle="")
            self.kinds[self.label("↑ 最高", f"max {highest:.4g} (step {step:,.0f})")] = nothing
        if self.kinds:
            handles, corner = list(self.kinds.values()), self.panel.legend
            axes.legend(handles, list(self.kinds), loc=corner, fontsize="small", framealpha=0.7, edgecolor="none")
        if not self.drawn:
            axes.text(0.5, 0.5, self.label("没有记录", "not logged"), ha="center", transform=axes.transAxes)


def _scientific(value: float, _: int) -> str:
    """A learning rate as people write it: 3e-4."""
    return np.format_float_scientific(value, precision=3, trim="-", exp_digits=1).replace(".e", "e") if value else "0"


def draw_panel(axes: Any, panel: Panel, runs: Sequence[RunLog], *, bilingual: bool) -> None:
    """Draw one figure of every run, a colour each."""
    drawing = _Drawing(axes, panel, runs=len(runs), bilingual=bilingual)
    for run, colour in zip(runs, COLOURS, strict=False):
        steps, values = run.series(panel.key)
        if np.isfinite(values).any():
            drawing.curve(steps, values, colour)
    for run, colour in zip(runs, COLOURS, strict=False):
        steps, values = run.series("eval_loss")
        if panel.key == "loss" and np.isfinite(values).any():
            drawing.evaluations(steps, values, colour)
    drawing.finish()
