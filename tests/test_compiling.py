"""Compiled layers compute the same, once compiled for all layers, and where nothing can be compiled one is told."""

import copy
import logging

import pytest
import torch
from bases import make_base
from test_engine_exact import assert_the_same, gradients, packed, rows, tuned

from xinglin.errors import UserError
from xinglin.tuning import compiling
from xinglin.tuning.checks import check
from xinglin.tuning.compiling import compiled, compiles
from xinglin.tuning.losses import token_losses
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import pack


def asked(**options):
    return FinetuneConfig("base", "data", "out", **options)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kind, method", [("llama", "lora"), ("gemma2", "adapter"), ("qwen3", "qlora")])
def test_compiled_layers_give_the_same(tmp_path, kind, method):
    model, made = tuned(make_base(tmp_path, kind), method), rows([60, 90, 31], shared=30)
    plain, wanted = packed(model, made)
    with compiled(model):
        losses, _ = token_losses(model, pack(made, "cpu"))
        losses.mean().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(losses.detach(), plain, rtol=1e-5, atol=1e-5)
    for name, grad in gradients(model).items():
        assert (grad - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


def test_layers_share_what_is_compiled_and_lengths_do_not_matter(tmp_path):
    model = tuned(make_base(tmp_path, "llama"), "lora")
    with compiled(model):
        graphs = []
        for lengths in ([60, 90, 31], [20, 25], [200, 110, 45, 60], [77]):
            losses, _ = token_losses(model, pack(rows(lengths, shared=10), "cpu"))
            losses.mean().backward()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1] > 0


def test_afterwards_nothing_is_compiled(tmp_path):
    model = tuned(make_base(tmp_path, "llama"), "lora")
    with compiled(copy.copy(model)):
        pass
    assert_the_same(model, rows([20, 30], shared=5))
    assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_without_being_asked_only_long_runs_on_a_gpu_are_compiled(monkeypatch):
    assert not compiles(asked(), 10**9)
    assert not compiles(asked(compile="false"), 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not compiles(asked(), 10**6)
    assert not compiles(asked(fsdp=True), 10**9)
    tried = []
    monkeypatch.setattr(torch, "compile", lambda function: tried.append(function) or (lambda x: x))
    monkeypatch.setattr(compiling.torch, "ones", lambda *args, **kwargs: None)
    assert compiles(asked(), 10**9)
    assert tried


def test_sharded_layers_are_not_compiled(monkeypatch):
    monkeypatch.setattr("xinglin.tuning.processes.count", lambda: 2)
    with pytest.raises(UserError, match="compile does not go with fsdp"):
        check(asked(fsdp=True, compile="true", learning_rate=1e-3))


def test_what_cannot_compile_is_told(monkeypatch, caplog):
    def broken(function):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match="compile: torch.compile does not work here.*no compiler"):
        compiles(asked(compile="true"), 0)
    monkeypatch.setattr(compiling, "_pays", lambda tokens: True)
    with caplog.at_level(logging.WARNING):
        assert not compiles(asked(), 0)
    assert "not compiled" in caplog.text
