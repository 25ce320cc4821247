"""The loss curve: a picture, whatever the log holds, and a mean that keeps short curves as they are."""

import pytest

from xinglin.tuning.plot import _smoothed, loss_curve


@pytest.mark.parametrize(
    "history", [[], [{"step": 1, "loss": 2.0}], [{"step": n, "loss": 1 / n} for n in range(1, 99)]]
)
def test_a_picture_is_written(tmp_path, history):
    loss_curve([*history, {"step": 99, "eval_loss": 0.5}], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_a_running_mean_of_long_curves_only():
    assert _smoothed([3.0, 1.0]) == [3.0, 1.0]
    assert _smoothed([float(n) for n in range(40)])[:5] == [0.0, 0.5, 1.0, 1.5, 2.5]
