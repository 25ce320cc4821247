"""Confidence intervals. Bootstrap percentiles (Efron 1979); the unit resampled is the question."""

from collections.abc import Sequence

import numpy as np

from xinglin.records import Score

_RESAMPLES = 2000


def ratio_score(
    metric: str, parts: Sequence[float], wholes: Sequence[float], *, label: str = "", seed: int = 0
) -> Score:
    """sum(parts) / sum(wholes) with its 95 % interval, e.g. nats over characters.

    Args:
        parts, wholes: one number a question.
    """
    assert len(parts) == len(wholes) > 0
    part, whole = np.asarray(parts, float), np.asarray(wholes, float)
    drawn = np.random.default_rng(seed).integers(len(part), size=(_RESAMPLES, len(part)))
    ratios = part[drawn].sum(1) / np.maximum(whole[drawn].sum(1), 1e-12)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Score(metric, float(part.sum() / whole.sum()), len(part), float(low), float(high), label)


def mean_score(metric: str, values: Sequence[float], *, label: str = "", seed: int = 0) -> Score:
    """The mean over questions with its 95 % interval.

    Where all values are equal the bootstrap has no width; the rule of three then bounds a share.
    """
    score = ratio_score(metric, values, [1.0] * len(values), label=label, seed=seed)
    reach = min(1.0, 3 / len(values))
    if score.low == score.high == 1.0:
        return Score(metric, 1.0, score.n, 1 - reach, 1.0, label)
    if score.low == score.high == 0.0:
        return Score(metric, 0.0, score.n, 0.0, reach, label)
    return score


def paired_difference(
    metric: str, ours: Sequence[float], theirs: Sequence[float], wholes: Sequence[float], *, label: str = ""
) -> Score:
    """(sum(ours) − sum(theirs)) / sum(wholes) on the same questions, with its 95 % interval."""
    return ratio_score(metric, [a - b for a, b in zip(ours, theirs, strict=True)], wholes, label=label)
