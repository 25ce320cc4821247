"""What a run says and measures before its first step."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from killing import make_config, outcome

from xinglin.cli import main
from xinglin.errors import UserError
from xinglin.tuning import preflight
from xinglin.tuning.train import finetune


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("runs"))


def arguments(config) -> list[str]:
    return [
        *("--base_model", config.base_model, "--data_path", config.data_path, "--batch_size", "8"),
        *("--val_set_size", "4", "--num_epochs", "6", "--cutoff_len", "30", "--precision", "fp32"),
    ]


def test_doctor_prints_what_the_run_says_first_and_leaves_nothing(config, tmp_path, capsys, caplog):
    out = tmp_path / "new" / "out"
    with caplog.at_level("INFO"):
        assert main(["doctor", *arguments(config), "--output_dir", str(out)]) == 0
    said = list(caplog.messages)
    assert not out.parent.exists()
    for expected in (
        "device: CPU, .* threads, .* GB",
        "data: .*data.json: 40 records an epoch",
        "data: 4 records to evaluate on; [1-9]\\d* rows cut at 30 tokens; prompt med_template",
        "data: 1.\\d\\d tokens a character; [\\d,]+ of [\\d,]+ tokens are learned",
        "steps: 30 ",
        "precision: fp32 \\(asked for\\)",
        "method: lora; trainable: 7,424 parameters",
        "estimate: \\d+ s for 30 steps, peak memory \\d.\\d GB of .* GB; .* GB of disk free",
    ):
        assert any(re.match(expected, line) for line in said), (expected, said)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert main(["finetune", *arguments(config), "--output_dir", str(out)]) == 0
    first = caplog.messages[: len(said) - 1]
    assert first[:-1] == said[:-2]
    assert first[-1].startswith("estimate: ")


def test_measuring_changes_nothing_of_the_run(config, tmp_path, monkeypatch):
    finetune(replace(config, output_dir=str(tmp_path / "measured")))
    monkeypatch.setattr(preflight.Preflight, "on_train_begin", lambda *args, **kwargs: None)
    finetune(replace(config, output_dir=str(tmp_path / "not")))
    assert outcome(tmp_path / "measured") == outcome(tmp_path / "not")


def test_the_time_is_that_of_all_tokens_of_the_run(config, tmp_path, monkeypatch, caplog):
    """A machine that needs a millisecond for each padded token."""
    taken = []

    def step(self, group):
        taken.append(len(group) * max(len(row.input_ids) for row in group))
        return taken[-1] / 1000

    monkeypatch.setattr(preflight.Preflight, "_step", step)
    monkeypatch.setattr(preflight.Preflight, "_evaluations", lambda self, steps: 7.0)
    measured = []
    real = preflight.Preflight._measure
    monkeypatch.setattr(
        preflight.Preflight, "_measure", lambda self, steps: measured.append(real(self, steps)) or measured[0]
    )
    finetune(replace(config, output_dir=str(tmp_path / "out"), micro_batch_size=1))
    tokens = json.loads((tmp_path / "out" / "metrics.json").read_text())["tokens"]  # nothing is padded one by one
    assert measured[0].seconds == pytest.approx(tokens / 1000 + 7)
    assert taken[0] == max(taken)  # the heaviest comes first


def test_memory_that_does_not_suffice_is_said_before_the_first_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_free_memory", lambda: 1000)
    with pytest.raises(UserError, match="memory: .* left, the optimizer will need"):
        finetune(replace(config, output_dir=str(tmp_path / "out")))
    assert not list(tmp_path.rglob("adapter*"))


def test_doctor_refuses_what_the_run_would_refuse(config, tmp_path, capsys):
    assert main(["doctor", *arguments(config), "--output_dir", str(tmp_path), "--batch_size", "6"]) == 2
    assert "not divisible by micro_batch_size" in capsys.readouterr().err
    Path(tmp_path, "adapter_config.json").write_text("{}")
    assert main(["doctor", *arguments(config), "--output_dir", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (700, "11 min 40 s"), (11100, "3 h 05 min")])
def test_durations_are_easy_to_read(seconds, text):
    assert preflight.duration(seconds) == text
