"""Runs of two processes (gloo) against runs of one: DDP, FSDP2, uneven batches, errors, resuming."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import make_base
from conftest import run_script
from safetensors.torch import load_file
from two import in_two

from xinglin.errors import Stopped
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.train import finetune, ready

TOLERANCE = 1e-5  # of a loss and of a weight, in fp32; sums are taken in another order


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """19 records of very different lengths: with 4 held back and batches of 7, the last batch is a single record."""
    path = tmp_path_factory.mktemp("data") / "data.json"
    records = [
        {"instruction": f"第{n}种病有哪些症状？", "input": "", "output": "恶心、呕吐。" * (1 + n * n % 13)}
        for n in range(19)
    ]
    path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    return path


def make_config(base: Path, data: Path, out: Path, **changes: Any) -> FinetuneConfig:
    config = FinetuneConfig(
        base_model=str(base),
        data_path=str(data),
        output_dir=str(out),
        batch_size=7,
        micro_batch_size=1,
        num_epochs=2,
        val_set_size=4,
        learning_rate=1e-2,
        precision="fp32",
    )
    return replace(config, **changes)


def tuned(config: FinetuneConfig) -> dict[str, Any]:
    """A run's metrics and the losses of its steps."""
    metrics = finetune(config)
    lines = map(json.loads, (Path(config.output_dir) / "log.jsonl").read_text("utf-8").splitlines())
    return metrics | {"losses": [line["loss"] for line in lines if "loss" in line]}


def tuned_each(configs: list[FinetuneConfig]) -> list[dict[str, Any]]:
    return [tuned(config) for config in configs]


def difference(one: Path, other: Path) -> float:
    """The largest difference of a weight."""
    first, second = (load_file(next(folder.glob("*model.safetensors"))) for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


CASES = [
    *(("llama", {"method": method, "fsdp": fsdp}) for method in ("lora", "adapter") for fsdp in (False, True)),
    *(("gemma2", {"method": "lora", "fsdp": True}), ("qwen3", {"method": "adapter", "fsdp": True})),
    *(("llama", {"method": "qlora", "fsdp": fsdp}) for fsdp in (False, True)),
    *(("llama", {"method": "full", "learning_rate": 1e-3, "fsdp": fsdp}) for fsdp in (False, True)),
]


def test_two_processes_give_the_result_of_one(tmp_path, data):
    bases = {kind: make_base(tmp_path / kind, kind) for kind in {kind for kind, _ in CASES}}
    configs = [make_config(bases[kind], data, tmp_path / f"two-{n}", **more) for n, (kind, more) in enumerate(CASES)]
    together = in_two(tuned_each, configs)
    assert all(isinstance(one, list) for one in together), together
    for config, both in zip(configs, zip(*together, strict=True), strict=True):
        alone = replace(config, output_dir=config.output_dir.replace("two-", "one-"), fsdp=False)
        expected = tuned(alone)
        name = f"{config.base_model} {config.method} fsdp={config.fsdp}"
        for got in both:
            assert got["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE), name
            assert got["eval_loss"] == pytest.approx(expected["eval_loss"], rel=TOLERANCE), name
            assert (got["steps"], got["tokens"], got["processes"]) == (expected["steps"], expected["tokens"], 2), name
        assert difference(Path(alone.output_dir), Path(config.output_dir)) < TOLERANCE, name


def test_all_weights_sharded_are_read_back_in_half_precision(tmp_path, tiny_base, data):
    """They are fp32 masters; the run fails if what is saved is not what was trained."""
    config = make_config(tiny_base, data, tmp_path / "out", method="full", learning_rate=1e-3, fsdp=True)
    for got in in_two(tuned, replace(config, precision="bf16", num_epochs=1)):
        assert isinstance(got, dict), got
        assert got["losses"][-1] < got["losses"][0]
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}


def shards(config: FinetuneConfig) -> dict[str, Any]:
    """How the base's parameters lie in this process."""
    from torch.distributed.tensor import DTensor

    with ready(config) as run:
        frozen = [weight for weight in run.trainer.model.parameters() if not weight.requires_grad]
        trained = [weight for weight in run.trainer.model.parameters() if weight.requires_grad]
        return {
            "sharded": all(isinstance(weight, DTensor) for weight in frozen),
            "replicated": not any(isinstance(weight, DTensor) for weight in trained),
            "share": sum(one.to_local().numel() for one in frozen) / sum(one.numel() for one in frozen),
        }


@pytest.mark.parametrize("method", ["lora", "qlora", "adapter"])
def test_fsdp_shards_every_weight_of_the_base(tmp_path, tiny_base, data, method):
    for one in in_two(shards, make_config(tiny_base, data, tmp_path / "out", method=method, fsdp=True)):
        assert one["sharded"] and one["replicated"], one
        assert one["share"] == pytest.approx(0.5, abs=0.02)  # rows of an odd number do not divide by two


def stopped_and_resumed(config: FinetuneConfig, step: int) -> dict[str, Any]:
    """Stop as on SIGTERM, which comes to one process alone, and go on in the same two processes."""
    from xinglin.tuning import callbacks, processes

    real = callbacks.StopOnSignal.on_step_end

    def asked(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asked = state.global_step == step and processes.rank() == 1
        real(self, args, state, control, **kwargs)

    callbacks.StopOnSignal.on_step_end = asked
    try:
        finetune(config)
    except Stopped as stopped:
        assert f"step {step} of 6 is saved" in str(stopped)
    finally:
        callbacks.StopOnSignal.on_step_end = real
    assert not (Path(config.output_dir) / "metrics.json").exists()
    return tuned(replace(config, resume_from_checkpoint="True"))


@pytest.mark.parametrize(
    "more",
    [
        {"lora_dropout": 0.1},
        {"lora_dropout": 0.1, "fsdp": True},
        {"method": "full", "learning_rate": 1e-3, "fsdp": True},
    ],
)
def test_two_processes_resume_where_they_stopped(tmp_path, tiny_base, data, more):
    whole, part = (make_config(tiny_base, data, tmp_path / name, **more) for name in ("whole", "part"))
    expected = in_two(tuned, whole)
    got = in_two(stopped_and_resumed, part, 4)
    assert isinstance(expected[0], dict) and isinstance(got[0], dict), (expected, got)
    assert got[0]["losses"] == expected[0]["losses"]
    assert got[0]["eval_loss"] == expected[0]["eval_loss"]
    assert difference(tmp_path / "whole", tmp_path / "part") == 0


def test_a_broken_record_stops_all_processes_and_is_named(tmp_path, broken_base, data):
    base, character = broken_base
    records = json.loads(data.read_text("utf-8"))
    records[7]["instruction"] += character
    (tmp_path / "broken.json").write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    config = make_config(base, tmp_path / "broken.json", tmp_path / "out", val_set_size=0)
    for said in in_two(tuned, config):
        assert said.startswith("UserError: step 1: loss is not a finite number (rows: ")
        assert "broken.json, record 8); look at these records" in said


def test_torchrun_starts_the_reports_script_and_a_wrong_flag_is_said_once(tmp_path, tiny_base, data):
    from conftest import run_torchrun

    given = ("--base_model", tiny_base, "--data_path", data, "--val_set_size", 4, "--num_epochs", 1)
    done = run_torchrun(*given, "--batch_size", 6, "--micro_batch_size", 3, "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("device: 2 processes") == 1
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["processes"] == 2
    done = run_torchrun(*given, "--batch_size", 1, "--micro_batch_size", 1, "--output_dir", "no", cwd=tmp_path)
    assert done.stderr.count("error: batch_size 1 is less than the 2 processes") == 1
    assert not (tmp_path / "no").exists()


def test_a_plain_start_beside_several_gpus_says_how_to_use_them(monkeypatch, caplog):
    import sys

    from xinglin.tuning import train

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for argv, line in (
        (["finetune.py", "--seed", "3"], "torchrun --nproc_per_node 4 finetune.py --seed 3"),
        (["bin/xinglin", "finetune", "--seed", "3"], "torchrun --nproc_per_node 4 -m xinglin finetune --seed 3"),
    ):
        monkeypatch.setattr(sys, "argv", argv)
        with caplog.at_level("INFO"):
            train._tell_of_more_gpus()
        assert f"4 GPUs are here, one is used; for all: {line}" in caplog.text


def test_fsdp_without_torchrun_says_how(tmp_path, tiny_base, data):
    done = run_script(
        "finetune.py", "--base_model", tiny_base, "--data_path", data, "--output_dir", "out", "--fsdp", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "start them with torchrun --nproc_per_node N finetune.py" in done.stderr
