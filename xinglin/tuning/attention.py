"""Attention over packed rows, registered with transformers as `packed`; no model is edited.

Each row attends to the beginning that all rows of a pack share, and causally to itself.

Shape suffixes: H heads, G key and value heads, T packed tokens, D width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from torch.nn.parallel import DistributedDataParallel
from transformers import AttentionInterface

from xinglin.tuning.blockwise import Blockwise, Rule
from xinglin.tuning.packing import Pack

NAME = "packed"


def unwrapped(model: Any) -> Any:
    """The model that DDP may stand around."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Let a model attend by packs for as long as the block lasts; it is to be called with `pack`."""
    config = unwrapped(model).config.get_text_config()
    before, config._attn_implementation = config._attn_implementation, NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@torch.compiler.disable  # type: ignore[untyped-decorator]
def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    pack: Pack,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it.

    Args:
        query: [1, H, T, D].
        key: [1, G, T, D], and so is value.
        attention_mask: not looked at; the pack says who sees whom.

    Returns:
        ([1, T, H, D], None).

    Raises:
        ValueError: dropout of attention weights, or a part of attention that is not known here.
    """
    unknown = [name for name, option in options.items() if torch.is_tensor(option) and name != "position_ids"]
    if unknown or options.get("dropout") or value.shape[-1] != query.shape[-1]:
        raise ValueError(f"packed attention knows no {', '.join(unknown) or 'dropout, or values of another width'}")
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    rule = Rule(scaling, options.get("sliding_window") or 0, options.get("softcap") or 0.0)
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    parts = [part[0].to(dtype) for part in (query, key, value)]
    whole: Any = _varlen if _fits_varlen(parts[0], rule) else Blockwise.apply
    return whole(*parts, pack.lengths, rule)[None], None


AttentionInterface.register(NAME, packed_attention)


def _fits_varlen(query_HTD: torch.Tensor, rule: Rule) -> bool:
    """Whether PyTorch's attention over rows of various lengths can do it."""
    width, half = query_HTD.shape[-1], query_HTD.dtype in (torch.float16, torch.bfloat16)
    if not query_HTD.is_cuda or not half or rule.softcap or width > 256 or width % 8:
        return False
    return torch.cuda.get_device_capability() >= (8, 0)


def _varlen(
    query_HTD: torch.Tensor, key_GTD: torch.Tensor, value_GTD: torch.Tensor, lengths: tuple[int, ...], rule: Rule
) -> torch.Tensor:
    """[T, H, D], by one kernel on a GPU; each span gets a copy of the keys and values that it sees."""
    spans = [length for length in lengths if length]
    seen = [length + (lengths[0] if number else 0) for number, length in enumerate(lengths) if length]
    query_ends, key_ends = (
        F.pad(torch.tensor(part, device=query_HTD.device).cumsum(0), (1, 0)).int() for part in (spans, seen)
    )
    output_THD: Any = varlen_attn(
        query_HTD.transpose(0, 1),
        _seen_by_each(key_GTD.transpose(0, 1), lengths),
        _seen_by_each(value_GTD.transpose(0, 1), lengths),
        query_ends,
        key_ends,
        max(spans),
        max(seen),
        scale=rule.scaling,
        window_size=(rule.window - 1, 0),  # -1 sees all
        enable_gqa=True,
    )
    return output_THD  # type: ignore[no-any-return]


def _seen_by_each(all_TGD: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Keys or values, the shared beginning once more before each rest; its gradients are summed in fp32."""
    beginning, *rests = torch.split(all_TGD, list(lengths))
    exact = beginning.float()
    return torch.cat([beginning, *(part for rest in rests for part in (exact.to(all_TGD.dtype), rest))])
