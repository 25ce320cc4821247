"""Tracking: a run name never stops a run, an explicit wish is taken at its word."""

import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest
from conftest import run_script

from xinglin.config import parse
from xinglin.errors import UserError
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.trackers import choose_trackers, open_trackers

NEEDED = ["--base_model", "b", "--data_path", "d", "--output_dir", "o"]


def config(**options) -> FinetuneConfig:
    return FinetuneConfig("b", "d", "o", **options)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with W&B and SwanLab installed and nobody logged in; what they are asked to begin is in `begun`."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "SWANLAB_"))] + ["RANK"]:
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_PROJECT", "WANDB_WATCH", "WANDB_LOG_MODEL"):  # which a run sets
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    begun = []

    def settings(**options):
        mode = os.environ.get("SWANLAB_MODE", "online")
        return SimpleNamespace(mode=mode, api_key=os.environ.get("SWANLAB_API_KEY"), **options)

    def begin(tracker, run):
        def init(**options):
            begun.append((tracker, options))
            if "UNREACHABLE" in os.environ:
                raise OSError("no route\nto host.")
            return run

        return init

    def set_up():
        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        return SimpleNamespace(settings=SimpleNamespace(mode=os.environ.get("WANDB_MODE", "online"), base_url=host))

    run = SimpleNamespace(id="1", name="n", settings=SimpleNamespace(mode="offline"))
    wandb = SimpleNamespace(setup=set_up, Settings=SimpleNamespace, init=begin("wandb", run))
    swanlab = SimpleNamespace(has_run=bool, Settings=settings, init=begin("swanlab", run))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "swanlab", swanlab)
    real = importlib.util.find_spec
    here = ("wandb", "swanlab")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name in here else real(name))
    return SimpleNamespace(begun=begun, netrc=tmp_path / "netrc", swanlab=swanlab)


def test_nothing_is_tracked_unless_asked(machine, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("SWANLAB_API_KEY", "x")
    assert choose_trackers(config()) == []
    assert open_trackers(config(), []) == []
    assert machine.begun == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("none", []),
        ("tensorboard", ["tensorboard"]),
        ("tensorboard,swanlab", ["tensorboard", "swanlab"]),
        ("[tensorboard, swanlab, tensorboard]", ["tensorboard", "swanlab"]),
    ],
)
def test_one_tracker_or_several(machine, monkeypatch, given, names):
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    assert choose_trackers(parse(FinetuneConfig, [*NEEDED, "--report_to", given], "xinglin finetune")) == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tensorbord", "report_to 'tensorbord': not one of .*; did you mean 'tensorboard'?"),
        (["wandb", "swan_lab"], "report_to 'swan_lab': .*; did you mean 'swanlab'?"),
        ("none,wandb", "report_to none,wandb: none goes alone"),
        ("all", "report_to 'all': not one of tensorboard, wandb, swanlab, none"),
    ],
)
def test_a_name_that_is_none_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        choose_trackers(config(report_to=given))


def test_a_run_name_alone_tracks_only_where_it_can(machine, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert choose_trackers(config(wandb_run_name="e1")) == []
    assert "not tracking run 'e1' (not logged in" in caplog.text
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_trackers(config(wandb_run_name="e1")) == ["wandb"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_trackers(config(wandb_run_name="e1")) == []
    assert machine.begun == []


def test_a_run_name_alone_names_a_run_elsewhere(machine, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_trackers(config(report_to="tensorboard", wandb_run_name="e1")) == ["tensorboard"]


def test_a_key_counts_where_it_is_for_the_server(machine, monkeypatch):
    machine.netrc.write_text("machine api.wandb.ai login user password x\n")
    assert choose_trackers(config(wandb_run_name="e1")) == ["wandb"]
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.forge.coreweave.com")
    assert choose_trackers(config(wandb_run_name="e1")) == ["wandb"]
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # would ask for a key
    assert choose_trackers(config(wandb_run_name="e1")) == []
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert choose_trackers(config(wandb_run_name="e1")) == ["wandb"]


def test_a_run_name_alone_does_not_wait_for_a_server_that_is_away(machine, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("UNREACHABLE", "")
    named = config(wandb_run_name="e1")
    assert open_trackers(named, choose_trackers(named)) == []
    assert "W&B: no route to host; WANDB_MODE=offline does without the network; going on without" in caplog.text
    [(_, options)] = machine.begun
    assert options["settings"].init_timeout <= 5
    with pytest.raises(UserError, match="W&B: no route to host; WANDB_MODE=offline"):
        open_trackers(config(report_to="wandb"), ["wandb"])


def test_one_project_and_name_for_every_tracker(machine, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SWANLAB_MODE", "local")
    options = {"wandb_run_name": "e1", "wandb_project": "p", "wandb_watch": "all", "wandb_log_model": "end"}
    asked = config(report_to="wandb,swanlab", **options)
    assert open_trackers(asked, choose_trackers(asked)) == ["wandb", "swanlab"]
    assert [os.environ[f"WANDB_{name}"] for name in ("PROJECT", "WATCH", "LOG_MODEL")] == ["p", "all", "end"]
    assert {name for name, _ in machine.begun} == {"wandb", "swanlab"}
    assert all((options["project"], options["name"]) == ("p", "e1") for _, options in machine.begun)


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("wandb", {}, "not logged in; run `wandb login`, or set WANDB_MODE=offline"),
        ("wandb", {"WANDB_MODE": "disabled"}, "WANDB_MODE=disabled"),
        ("swanlab", {}, "not logged in; run `swanlab login`, or set SWANLAB_MODE=offline"),
        ("swanlab", {"SWANLAB_MODE": "disabled"}, "switched off"),
    ],
)
def test_an_explicit_wish_that_cannot_be_met_is_an_error(machine, monkeypatch, name, setting, said):
    for key, value in setting.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match=f"report_to {name}: {said}"):
        choose_trackers(config(report_to=["tensorboard", name]))


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "swanlab"])
def test_a_tracker_that_is_not_installed_is_an_error(monkeypatch, name):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"report_to {name}: not installed; pip install '?{name}"):
        choose_trackers(config(report_to=name))
    assert choose_trackers(config(wandb_run_name="e1")) == []


def test_a_swanlab_of_other_settings_is_an_error(machine):
    del machine.swanlab.has_run
    with pytest.raises(UserError, match="too old; pip install 'swanlab>=0.8'"):
        choose_trackers(config(report_to="swanlab"))


def test_swanlab_never_asks_and_says_what_it_refuses(machine, monkeypatch):
    monkeypatch.setenv("SWANLAB_API_KEY", "x")
    monkeypatch.setenv("UNREACHABLE", "")
    asked = config(report_to="swanlab")
    with pytest.raises(UserError, match="SwanLab: no route to host; SWANLAB_MODE=offline"):
        open_trackers(asked, choose_trackers(asked))
    [(_, options)] = machine.begun
    assert options["settings"].interactive is False
    assert (options["project"], options["name"]) == (None, None)


def test_only_the_first_process_reports(machine, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    asked = config(report_to="tensorboard,wandb", wandb_run_name="e1")
    monkeypatch.setenv("RANK", "0")
    assert choose_trackers(asked) == ["tensorboard", "wandb"]
    monkeypatch.setenv("RANK", "1")
    assert choose_trackers(asked) == []


@pytest.mark.parametrize(
    ("trackers", "written"),
    [
        ("tensorboard", ["out/runs/*/events.out.tfevents.*"]),
        ("swanlab,tensorboard", ["swanlog/run-*/run-*.swanlab", "out/runs/*/events.out.tfevents.*"]),
        ("wandb", ["wandb/offline-run-*/run-*.wandb"]),
    ],
)
def test_curves_lie_where_they_are_looked_for(tiny_base, data_file, tmp_path, trackers, written):
    for name in trackers.split(","):
        pytest.importorskip(name)
    options = {"base_model": tiny_base, "data_path": data_file, "output_dir": "out", "report_to": trackers}
    options |= {"batch_size": 8, "num_epochs": 1, "val_set_size": 4, "wandb_run_name": "e1", "wandb_watch": "gradients"}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    offline = {"WANDB_MODE": "offline", "SWANLAB_MODE": "offline", "HOME": str(tmp_path)}
    done = run_script("finetune.py", *flags, cwd=tmp_path, **offline)
    assert done.returncode == 0, done.stderr
    for pattern in written:
        [file] = tmp_path.glob(pattern)
        assert b"loss" in file.read_bytes()
