"""The whole way on a tiny model: every stage in its own process, and a report at the end."""

import json
import os
import subprocess
import sys

from conftest import ROOT


def run_demo(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "xinglin", "demo", "--output_dir", str(tmp_path / "runs"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=400,
    )


def test_the_demo_ends_by_naming_its_report(tmp_path, tiny_base):
    done = run_demo(tmp_path, "--base_model", tiny_base, "--num_records", 40, "--num_questions", 5)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "runs" / "report.html") in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stderr
    report = json.loads((tmp_path / "runs" / "report.json").read_text("utf-8"))
    first, second, *unseen = report["rows"]
    assert "小张" in first["question"]
    assert second["question"] == "麻风病和儿童哮喘的病因是否一致？"
    assert len(unseen) == report["questions_on_unseen_diseases"] == 5
    metrics = {(score["metric"], score["slice"]) for score in report["scores"]}
    systems = ("base", "tuned", "tuned_facts", "lookup", "base_facts_3")
    assert {("fact_recall", system) for system in systems} <= metrics
    assert {("nll_per_character", one) for one in ("base", "tuned", "base_facts", "tuned_facts")} <= metrics
    assert all(score["low"] <= score["value"] <= score["high"] for score in report["scores"])
    page = (tmp_path / "runs" / "report.html").read_text("utf-8")
    assert "data:image/png;base64" in page
    predictions = (tmp_path / "runs" / "predictions.jsonl").read_text("utf-8").splitlines()
    assert len(predictions) == len(systems) * 7


def test_a_missing_base_is_one_line_from_another_process(tmp_path):
    done = run_demo(tmp_path, "--base_model", "nowhere")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: base_model 'nowhere': no such folder")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
