"""Tracking: a run name never stops a run, an explicit wish is taken at its word."""

import importlib.util

import pytest

from xinglin.errors import UserError
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.trackers import choose_tracker


def config(**options) -> FinetuneConfig:
    return FinetuneConfig("b", "d", "o", **options)


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """A machine with W&B installed and nobody logged in."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "wandb" else real(name))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_WATCH", "WANDB_LOG_MODEL"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_tracked_unless_asked(wandb, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert choose_tracker(config()) == "none"


def test_a_run_name_alone_tracks_only_where_it_can(wandb, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert choose_tracker(config(wandb_run_name="e1")) == "none"
    assert "not tracking run 'e1' (not logged in" in caplog.text
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_tracker(config(wandb_run_name="e1")) == "wandb"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_tracker(config(wandb_run_name="e1")) == "none"


def test_every_way_of_being_ready_counts(wandb, monkeypatch):
    (wandb / "netrc").write_text("machine api.wandb.example login user password x\n")
    assert choose_tracker(config(wandb_run_name="e1")) == "wandb"
    (wandb / "netrc").unlink()
    (wandb / "wandb").mkdir()
    (wandb / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert choose_tracker(config(wandb_run_name="e1")) == "wandb"


def test_project_watch_and_log_model_reach_wandb(wandb, monkeypatch):
    import os

    monkeypatch.setenv("WANDB_MODE", "offline")
    choose_tracker(config(wandb_run_name="e1", wandb_project="p", wandb_watch="all", wandb_log_model="end"))
    assert [os.environ[f"WANDB_{name}"] for name in ("PROJECT", "WATCH", "LOG_MODEL")] == ["p", "all", "end"]


def test_an_explicit_wish_that_cannot_be_met_is_an_error(wandb):
    with pytest.raises(UserError, match="report_to wandb: not logged in"):
        choose_tracker(config(report_to="wandb"))
    assert choose_tracker(config(report_to="tensorboard")) == "tensorboard"
