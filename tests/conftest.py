"""Fixtures: a tiny random LLaMA with a real byte-level tokenizer, made here in a second."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bases import make_base

ROOT = Path(__file__).parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"


def make_tiny_base(folder: Path) -> Path:
    return make_base(folder, "llama")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base):
    from xinglin.tokenizer import load_tokenizer

    return load_tokenizer(tiny_base)


RECORDS = [
    {
        "instruction": f"第{n}种病有哪些症状？",
        "input": "" if n % 2 else f"第{n}种病的症状：恶心、呕吐",
        "output": "恶心、呕吐。",
    }
    for n in range(20)
]


@pytest.fixture
def data_file(tmp_path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(RECORDS, ensure_ascii=False), "utf-8")
    return path


def run_script(name: str, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run finetune.py or infer.py as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=300,
    )
