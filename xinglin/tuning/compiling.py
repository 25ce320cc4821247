"""Compile a base's layers for training: what stands between the matmuls (norms, rotary positions, gates) is fused."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from xinglin.errors import UserError, one_line
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)

_LONG = 5_000_000
"""Tokens of a run from which on a GPU's compiling, about a minute, is expected to pay."""


def compiles(config: FinetuneConfig, tokens: int) -> bool:
    """Whether a run's layers are to be compiled.

    Args:
        tokens: how many the run will see.

    Raises:
        UserError: asked for, but torch.compile does not work on this machine.
    """
    if config.compile == "false" or (config.compile == "auto" and (config.fsdp or not _pays(tokens))):
        return False
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.compile(lambda x: x.cos() + 1)(torch.ones(8, device=device))
    except Exception as error:  # a missing compiler, or a broken one, may raise nearly anything
        advice = "" if shutil.which("g++") else "; it needs a C++ compiler (g++)"
        if config.compile == "true":
            raise UserError(f"compile: torch.compile does not work here{advice}: {one_line(error)}") from None
        log.warning("layers are not compiled%s: %s", advice, one_line(error))
        return False
    return True


def _pays(tokens: int) -> bool:
    return torch.cuda.is_available() and tokens >= _LONG


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Compile every decoder layer at its first use, all by the same code, for as long as the block lasts."""
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
