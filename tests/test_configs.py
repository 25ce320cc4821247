"""Every shipped YAML is what its header says: one command, which is parsed here with the file."""

import dataclasses
import shlex

import pytest
import yaml
from conftest import ROOT

from xinglin.config import parse
from xinglin.tuning.methods import resolved
from xinglin.tuning.options import FinetuneConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def command(path) -> list[str]:
    """The words of the command in the header."""
    header = [line[2:] for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
    [line] = [line for line in header if line.startswith(("python ", "torchrun "))]
    return shlex.split(line)


def parsed(words: list[str]) -> FinetuneConfig:
    return parse(FinetuneConfig, words[words.index("finetune.py") + 1 :], "finetune.py")


def test_there_are_some():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_headers_command_runs_the_file(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = command(path)
    assert words[-2:] == ["--config", f"configs/{path.name}"]
    config = parsed(words)
    for key, value in yaml.safe_load(path.read_text("utf-8")).items():
        assert getattr(config, key) == value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_batch_divides(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = command(path)
    processes = int(words[words.index("--nproc_per_node") + 1]) if words[0] == "torchrun" else 1
    config = parsed(words)
    assert config.batch_size % config.micro_batch_size == 0
    assert config.batch_size % processes == 0
    assert processes > 1 or not config.fsdp
    assert config.max_tokens_per_micro_batch == 0 or config.max_tokens_per_micro_batch >= config.cutoff_len


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_file_says_only_what_differs(path):
    defaults = {field.name: field.default for field in dataclasses.fields(FinetuneConfig)}
    stated = yaml.safe_load(path.read_text("utf-8"))
    assert [key for key, value in stated.items() if value == defaults[key]] == []


def test_the_reports_recipe(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = resolved(parsed(command(ROOT / "configs" / "llama-7b-report.yaml")))
    assert (config.base_model, config.data_path) == ("llama-7b-hf", "./data/llama_data.json")
    assert (config.method, config.prompt_template_name) == ("lora", "med_template")
    assert (config.batch_size, config.num_epochs, config.learning_rate) == (128, 10, 3e-4)
