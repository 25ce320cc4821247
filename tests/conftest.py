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


@pytest.fixture(scope="session")
def broken_base(tiny_base, tmp_path_factory):
    """The tiny base with one embedding that is not a number, and a character that none of the records has but it."""
    import shutil

    from safetensors.torch import load_file, save_file

    from xinglin.tokenizer import load_tokenizer

    folder = tmp_path_factory.mktemp("broken") / "base"
    shutil.copytree(tiny_base, folder)
    tokenizer, character = load_tokenizer(tiny_base), "Ω"
    known = {token for record in RECORDS for token in tokenizer.encode(json.dumps(record, ensure_ascii=False))}
    own = [token for token in tokenizer.encode(character) if token not in known]
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][own] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert own
    return folder, character


@pytest.fixture
def data_file(tmp_path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(RECORDS, ensure_ascii=False), "utf-8")
    return path


def run_torchrun(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run finetune.py in two processes as a user does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    return subprocess.run(
        [*torchrun, str(ROOT / "finetune.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


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
