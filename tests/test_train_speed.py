"""The speed comparison runs from end to end on a tiny base, and what it counts is right."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "train_speed"
sys.path.insert(0, str(FOLDER))

from limit import needed  # noqa: E402
from report import table  # noqa: E402
from run import utilisation  # noqa: E402


def test_the_work_a_step_needs_is_counted_by_hand():
    config = SimpleNamespace(
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=10,
    )
    linear = 4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 8  # q, k and v, o, the gated MLP
    adapter = (4 + 4) + 2 * (4 + 2) + (4 + 4) + 3 * (4 + 8)
    tokens, targets, squares = 5 + 3, 2 + 1, 5 * 5 + 3 * 3
    expected = 3 * (4 * linear * tokens + 6 * 4 * squares + 6 * 2 * adapter * tokens) + 4 * 4 * 10 * targets
    assert needed(config, [(5, 2), (3, 1)], rank=2) == expected


def test_utilisation_is_the_share_of_what_the_maker_states():
    assert utilisation("NVIDIA A100-SXM4-80GB", 156e12) == {"model_flops_utilisation": 0.5}
    assert utilisation("AMD EPYC, 2 threads", 1e12) == {}


def test_recipe_and_ours_on_a_tiny_base(tmp_path):
    records = [{"instruction": f"问题{'长' * n}？", "input": "", "output": f"回答{'是' * n}。"} for n in range(1, 13)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), "utf-8")
    command = [sys.executable, FOLDER / "run.py", "--base", "random:tiny", "--systems", "recipe,ours,without-packing"]
    command += ["--data_path", data, "--steps", 3, "--rounds", 1, "--batch_size", 4, "--precision", "fp32"]
    command += ["--device", "cpu", "--output", tmp_path / "out"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    results = json.loads((tmp_path / "out" / "results-cpu.json").read_text("utf-8"))
    recipe, ours, alone = results["systems"]
    assert recipe["loss_by_step"] == pytest.approx(ours["loss_by_step"], rel=1e-5)
    assert alone["loss_by_step"] == pytest.approx(ours["loss_by_step"], rel=1e-5)
    assert recipe["tokens"] == ours["tokens"] == alone["tokens"] > 0
    assert recipe["ratio_to_alpaca_lora"] == 1
    assert (tmp_path / "out" / "speed-cpu.png").stat().st_size > 1000
    assert table(results).count("\n| ") == 4
