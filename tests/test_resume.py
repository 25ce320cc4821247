"""Stopped runs: killed, told to end, broken by a number that is none; and what they go on from."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from killing import VARIANTS, kill_and_resume, make_config, outcome, start, training_seconds

from xinglin.errors import Stopped, UserError
from xinglin.tuning import callbacks, checkpoint
from xinglin.tuning.train import finetune


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 30 steps with dropout that nobody stops, and its config."""
    config = make_config(tmp_path_factory.mktemp("runs"))
    finetune(config)
    return config


def another(whole, tmp_path, **changes):
    return replace(whole, output_dir=str(tmp_path / "out"), **changes)


def stop_at(step: int, monkeypatch) -> None:
    """Let SIGTERM come while a step is computed."""
    real = callbacks.StopOnSignal.on_step_end

    def asked(self, args, state, control, **kwargs):
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, args, state, control, **kwargs)

    monkeypatch.setattr(callbacks.StopOnSignal, "on_step_end", asked)


@pytest.mark.parametrize("steps", [(1, 2, 3, 4, 5), (6, 7, 9), (13, 24, 25, 26, 29)])
def test_a_run_stopped_at_any_step_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch, steps):
    config = another(whole, tmp_path, resume_from_checkpoint="True")
    for step in steps:
        with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"step {step} of 30 is saved in"):
            stop_at(step, patch)
            finetune(config)
        assert checkpoint.whole_checkpoints(Path(config.output_dir))[-1].name == f"checkpoint-{step}"
    finetune(config)
    assert outcome(Path(config.output_dir)) == outcome(Path(whole.output_dir))


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole, tmp_path):
    finetune(another(whole, tmp_path))
    assert outcome(tmp_path / "out") == outcome(Path(whole.output_dir))
    finetune(replace(another(whole, tmp_path, seed=7), output_dir=str(tmp_path / "other")))
    assert outcome(tmp_path / "other")["weights"] != outcome(Path(whole.output_dir))["weights"]


def test_killed_runs_end_as_if_they_had_not_been(whole, tmp_path):
    dice = random.Random(3)
    process = start(replace(whole, output_dir=str(tmp_path / "clean")))  # in a process as the others are
    process.join()
    config = another(whole, tmp_path, resume_from_checkpoint="True")
    for _ in range(2):
        assert kill_and_resume(config, training_seconds(tmp_path / "clean"), dice)
        assert outcome(tmp_path / "out") == outcome(tmp_path / "clean")


def test_sigterm_saves_and_says_how_to_go_on(whole, tmp_path):
    options = {"base_model": whole.base_model, "data_path": whole.data_path, "output_dir": "out", "precision": "fp32"}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetune.py"), *flags, "--batch_size", "4", "--num_epochs", "2000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not list(tmp_path.glob("out/checkpoint-*")):
        time.sleep(0.05)
        assert process.poll() is None
    process.terminate()
    _, said = process.communicate(timeout=60)
    last = checkpoint.whole_checkpoints(tmp_path / "out")[-1]
    assert process.returncode == 143
    steps = json.loads((last / "trainer_state.json").read_text())["max_steps"]
    step = last.name.removeprefix("checkpoint-")
    end = f"stopped: step {step} of {steps} is saved in out; go on with --resume_from_checkpoint True"
    assert said.splitlines()[-1] == end
    assert "SIGTERM: saving after this step" in said
    assert not list(tmp_path.glob("out/.scratch*"))


def test_a_number_that_is_none_stops_the_run_and_names_the_record(whole, tmp_path, broken_base):
    base, character = broken_base
    records = json.loads(Path(whole.data_path).read_text("utf-8"))
    records[17]["output"] += character
    data = tmp_path / "broken.json"
    data.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    config = another(whole, tmp_path, base_model=str(base), data_path=str(data), val_set_size=0, save_steps=1)
    with pytest.raises(UserError) as error:
        finetune(config)
    said = str(error.value)
    assert f"loss is not a finite number (rows: {data}, record 18); look at these records" in said
    last = checkpoint.whole_checkpoints(tmp_path / "out")
    step = int(said.split(":")[0].removeprefix("step "))
    if step > 1:
        assert last[-1].name == f"checkpoint-{step - 1}"
        assert f"{last[-1].name} is whole, go on from it with --resume_from_checkpoint True" in said
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_a_record_to_evaluate_on_that_is_broken_is_named_too(whole, tmp_path, broken_base):
    base, character = broken_base
    text = Path(whole.data_path).read_text("utf-8").replace("第0种病", f"第{character}种病")
    (tmp_path / "data.json").write_text(text, "utf-8")
    data = {"base_model": str(base), "data_path": str(tmp_path / "data.json"), "val_set_size": 40, "num_epochs": 1}
    with pytest.raises(
        UserError, match="step 1: eval_loss is not a finite number .*record 1\\); look at these records"
    ):
        finetune(another(whole, tmp_path, **data))


def test_a_learning_rate_that_breaks_the_weights_is_said_to(whole, tmp_path):
    with pytest.raises(UserError, match="is not a finite number .* and .* more\\); --learning_rate may be too high"):
        finetune(another(whole, tmp_path, learning_rate=1e30, num_epochs=3))


@pytest.mark.parametrize("variant", range(1, len(VARIANTS)))
def test_runs_of_other_rhythms_end_as_if_they_had_not_been_stopped(whole, tmp_path, monkeypatch, variant):
    config = replace(another(whole, tmp_path, **VARIANTS[variant]), output_dir=str(tmp_path / "whole"))
    steps = finetune(config)["steps"]
    part = another(config, tmp_path, resume_from_checkpoint="True")
    for step in (1, 4, 5, 9, steps - 1):  # ends of epochs, evaluations, and neither
        with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"step {step} of"):
            stop_at(step, patch)
            finetune(part)
        assert checkpoint.whole_checkpoints(tmp_path / "out")[-1].name == f"checkpoint-{step}"
    finetune(part)
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


def test_early_stopping_ends_the_run_with_its_best_weights(whole, tmp_path):
    config = another(whole, tmp_path, learning_rate=0.5, num_epochs=20, early_stopping_patience=1)
    metrics = finetune(config)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    evaluated = [line["eval_loss"] for line in lines if "eval_loss" in line]
    best = evaluated.index(min(evaluated))
    assert len(evaluated) == best + 2 < 20
    assert metrics["eval_loss"] == evaluated[best]
    kept = tmp_path / "out" / f"checkpoint-{5 * (best + 1)}" / "adapter_model.safetensors"
    assert kept.read_bytes() == (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    before = outcome(tmp_path / "out")
    (tmp_path / "out" / "xinglin.json").unlink()  # as if killed before its end
    finetune(replace(config, resume_from_checkpoint="True"))
    assert outcome(tmp_path / "out") == before


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_checkpoints_are_kept_than_asked_for_and_the_best(whole, tmp_path, limit):
    finetune(another(whole, tmp_path, save_steps=1, save_total_limit=limit, learning_rate=0.3))
    state = json.loads((tmp_path / "out" / "checkpoint-30" / "trainer_state.json").read_text())
    expected = {*range(31 - limit, 31), state["best_global_step"]}
    kept = {int(path.name.removeprefix("checkpoint-")) for path in (tmp_path / "out").glob("checkpoint-*")}
    assert kept == expected
    assert not list((tmp_path / "out").glob(".scratch*"))


def test_a_checkpoint_of_another_run_is_not_gone_on_from(whole, tmp_path, caplog):
    last = str(Path(whole.output_dir) / "checkpoint-30")
    data = tmp_path / "data.json"
    data.write_text(Path(whole.data_path).read_text("utf-8").replace("恶心", "头晕"), "utf-8")
    for changes, said in (
        ({"data_path": str(data)}, "the data have changed since"),
        ({"seed": 3}, "has seed 42, asked for is 3"),
        ({"batch_size": 4}, "has batch_size 8, asked for is 4"),
        ({"cutoff_len": 400}, "has cutoff_len 512, asked for is 400"),
    ):
        with pytest.raises(UserError, match=said):
            finetune(another(whole, tmp_path, resume_from_checkpoint=last, **changes))
    with caplog.at_level("WARNING"):
        finetune(another(whole, tmp_path, resume_from_checkpoint=last, learning_rate=0.02, num_epochs=7))
    assert "resuming with another learning_rate: 0.02, it began with 0.01" in caplog.text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["steps"] == 35


def test_to_resume_what_has_no_checkpoint_yet_is_to_begin(whole, tmp_path, caplog):
    finetune(another(whole, tmp_path, resume_from_checkpoint="True"))
    assert "holds no checkpoint yet; from the beginning" in caplog.text
    assert outcome(tmp_path / "out") == outcome(Path(whole.output_dir))


def test_a_run_that_is_through_is_left_alone(whole, tmp_path, caplog):
    before = {path.name: path.read_bytes() for path in Path(whole.output_dir).iterdir() if path.is_file()}
    with caplog.at_level("INFO"):
        metrics = finetune(replace(whole, resume_from_checkpoint="True"))
    assert "this run is through" in caplog.text
    assert metrics["steps"] == 30
    assert before == {path.name: path.read_bytes() for path in Path(whole.output_dir).iterdir() if path.is_file()}


@pytest.mark.parametrize("last", [20, 30])
def test_a_run_may_go_on_in_another_folder(whole, tmp_path, monkeypatch, last):
    """Its best checkpoint may lie where it was."""
    first = replace(whole, output_dir=str(tmp_path / "first"), learning_rate=0.5, save_total_limit=10)
    finetune(first)
    config = replace(
        first, output_dir=str(tmp_path / "out"), resume_from_checkpoint=f"{first.output_dir}/checkpoint-{last}"
    )
    finetune(config)
    expected, got = outcome(tmp_path / "first"), outcome(tmp_path / "out")
    assert got == expected


def test_resume_false_is_no_leave_to_overwrite(whole, tmp_path):
    with pytest.raises(UserError, match="already holds a run"):
        finetune(replace(whole, resume_from_checkpoint="False"))


def test_a_refused_run_does_not_cost_the_one_it_was_to_overwrite(whole, tmp_path, monkeypatch):
    from xinglin.tuning import preflight

    finetune(another(whole, tmp_path, num_epochs=1))
    before = outcome(tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="memory: "):
        patch.setattr(preflight, "_free_memory", lambda: 1)
        finetune(another(whole, tmp_path, num_epochs=1, overwrite_output_dir=True))
    assert outcome(tmp_path / "out") == before


@pytest.mark.parametrize("content", [None, b"broken"])
def test_a_checkpoint_without_its_optimizer_is_refused(whole, tmp_path, content):
    finetune(another(whole, tmp_path, num_epochs=1))
    file = tmp_path / "out" / "checkpoint-5" / "optimizer.pt"
    file.unlink()
    if content:
        file.write_bytes(content)
    with pytest.raises(UserError, match="checkpoint-5: optimizer or schedule cannot be read"):
        finetune(another(whole, tmp_path, resume_from_checkpoint="True"))


def test_a_copied_checkpoint_of_another_name_is_left_alone(whole, tmp_path):
    finetune(another(whole, tmp_path, num_epochs=1))
    (tmp_path / "out" / "checkpoint-5").rename(tmp_path / "out" / "checkpoint-best")
    finetune(another(whole, tmp_path, num_epochs=1, resume_from_checkpoint="True", overwrite_output_dir=True))
    assert (tmp_path / "out" / "checkpoint-best" / "trainer_state.json").is_file()
