"""Attention over packed rows, registered with transformers as `packed`; no model is edited.

Each row attends to the beginning that all rows of a pack share, and causally to itself.

Shape suffixes: H heads, G key and value heads, R = H / G, T packed tokens, Q queries of a block, K its keys, D width of
a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from torch.nn.parallel import DistributedDataParallel
from transformers import AttentionInterface

from xinglin.tuning.packing import Pack

NAME = "packed"
_BLOCK = 256
"""Queries taken at once; keys after them are left out, so that long rows need not compute what a mask would hide."""
_KEEP = 1024
"""The weights of a block with more keys are computed again on the way back, instead of kept."""


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Let a model attend by packs for as long as the block lasts; it is to be called with `pack`."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    config = inner.config.get_text_config()
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
    rule = _Rule(scaling, options.get("sliding_window") or 0, options.get("softcap") or 0.0)
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    parts = [part[0].to(dtype) for part in (query, key, value)]
    whole: Any = _varlen if rule.fits_varlen(parts[0]) else _Blocks.apply
    return whole(*parts, pack, rule)[None], None


AttentionInterface.register(NAME, packed_attention)


@dataclass(frozen=True)
class _Rule:
    """How scores come from queries and keys, and what a query sees.

    Attributes:
        window: how many positions, its own included; 0 for all before it.
        softcap: bound of the scores, as Gemma 2 has it; 0 for none.
    """

    scaling: float
    window: int = 0
    softcap: float = 0.0

    def fits_varlen(self, query_HTD: torch.Tensor) -> bool:
        """Whether PyTorch's attention over rows of various lengths can do it."""
        width, half = query_HTD.shape[-1], query_HTD.dtype in (torch.float16, torch.bfloat16)
        if not query_HTD.is_cuda or not half or self.softcap or width > 256 or width % 8:
            return False
        return torch.cuda.get_device_capability() >= (8, 0)

    def scores(self, queries_GXD: torch.Tensor, keys_GKD: torch.Tensor) -> torch.Tensor:
        """Before the mask; X = R·Q."""
        scores_GXK = torch.bmm(queries_GXD * self.scaling, keys_GKD.transpose(1, 2))  # fp16 may not hold them unscaled
        return scores_GXK.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else scores_GXK

    def slope(self, scores_GXK: torch.Tensor) -> torch.Tensor | None:
        """How much a capped score changes with the score itself; None without a bound."""
        return 1 - (scores_GXK / self.softcap).square_() if self.softcap else None

    def weights(self, scores_GXK: torch.Tensor, queries: int) -> torch.Tensor:
        """Softmax over what each query sees. The block's last query stands where its last key does."""
        keys = scores_GXK.shape[2]
        scores_GRQK = scores_GXK.view(scores_GXK.shape[0], -1, queries, keys)
        scores_GRQK[..., keys - queries :].masked_fill_(_later(scores_GXK.device)[:queries, :queries], -torch.inf)
        if 0 < self.window < keys:
            far_QK = torch.ones(queries, keys, dtype=torch.bool, device=scores_GXK.device)
            scores_GRQK.masked_fill_(far_QK.tril(keys - queries - self.window), -torch.inf)
        return torch.softmax(scores_GXK, -1)


def _varlen(
    query_HTD: torch.Tensor, key_GTD: torch.Tensor, value_GTD: torch.Tensor, pack: Pack, rule: _Rule
) -> torch.Tensor:
    """[T, H, D], by one kernel on a GPU; each span gets a copy of the keys and values that it sees."""
    spans = [length for length in pack.lengths if length]
    seen = [length + (pack.lengths[0] if number else 0) for number, length in enumerate(pack.lengths) if length]
    query_ends, key_ends = (
        F.pad(torch.tensor(part, device=query_HTD.device).cumsum(0), (1, 0)).int() for part in (spans, seen)
    )
    output_THD: Any = varlen_attn(
        query_HTD.transpose(0, 1),
        _seen_by_each(key_GTD.transpose(0, 1), pack),
        _seen_by_each(value_GTD.transpose(0, 1), pack),
        query_ends,
        key_ends,
        max(spans),
        max(seen),
        scale=rule.scaling,
        window_size=(rule.window - 1, 0),  # -1 sees all
        enable_gqa=True,
    )
    return output_THD  # type: ignore[no-any-return]


def _seen_by_each(all_TGD: torch.Tensor, pack: Pack) -> torch.Tensor:
    """Keys or values, the shared beginning once more before each rest; its gradients are summed in fp32."""
    beginning, *rests = torch.split(all_TGD, list(pack.lengths))
    exact = beginning.float()
    return torch.cat([beginning, *(part for rest in rests for part in (exact.to(all_TGD.dtype), rest))])


@cache
def _later(device: torch.device) -> torch.Tensor:
    """Which keys of a block's own part stand after a query."""
    return torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=device).triu(1)


@dataclass(frozen=True)
class _Block:
    """Some queries of one span and what they see.

    Attributes:
        start: where the span starts in the pack.
        first: place of the first query in the pack; `end` that after the last.
        shared: length of the beginning that is seen besides.
    """

    start: int
    first: int
    end: int
    shared: int

    def keys(self, all_GTD: torch.Tensor) -> torch.Tensor:
        """The keys (or values) that it sees, in the order of their positions: [G, K, D]."""
        own = all_GTD[:, self.start : self.end]
        return torch.cat([all_GTD[:, : self.shared], own], 1) if self.shared else own

    def queries(self, all_GRTD: torch.Tensor) -> torch.Tensor:
        """Its queries, those of the heads that have keys in common one after the other: [G, R·Q, D]."""
        return all_GRTD[:, :, self.first : self.end].flatten(1, 2)


def _blocks(pack: Pack) -> Iterator[_Block]:
    for number, (start, end) in enumerate(pack.spans):
        for first in range(start, end, _BLOCK):
            yield _Block(start, first, min(first + _BLOCK, end), pack.lengths[0] if number else 0)


class _Blocks(torch.autograd.Function):
    """Block after block: two matmuls and a softmax each. Gradients of keys and values are summed in fp32."""

    @staticmethod
    def forward(
        ctx: Any, query_HTD: torch.Tensor, key_GTD: torch.Tensor, value_GTD: torch.Tensor, pack: Pack, rule: _Rule
    ) -> torch.Tensor:
        """[T, H, D]."""
        heads, tokens, width = query_HTD.shape
        query_GRTD = query_HTD.view(key_GTD.shape[0], -1, tokens, width)
        output_THD = query_HTD.new_empty(tokens, heads, width)
        output_GRTD = _by_group(output_THD, key_GTD.shape[0])
        kept = []
        for block in _blocks(pack):
            scores_GXK = rule.scores(block.queries(query_GRTD), block.keys(key_GTD))
            weights_GXK = rule.weights(scores_GXK, block.end - block.first)
            result_GXD = torch.bmm(weights_GXK, block.keys(value_GTD))
            place = output_GRTD[:, :, block.first : block.end]
            place.copy_(result_GXD.view(place.shape))
            kept.append(None if rule.softcap or weights_GXK.shape[2] > _KEEP else weights_GXK)
        ctx.save_for_backward(query_HTD, key_GTD, value_GTD, *kept)
        ctx.pack, ctx.rule = pack, rule
        return output_THD

    @staticmethod
    def backward(ctx: Any, grad_THD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the three, in their shapes."""
        query_HTD, key_GTD, value_GTD, *kept = ctx.saved_tensors
        pack, rule, groups = ctx.pack, ctx.rule, key_GTD.shape[0]
        query_GRTD = query_HTD.view(groups, -1, *query_HTD.shape[1:])
        grad_GRTD = _by_group(grad_THD, groups)
        query_grad_THD = torch.empty_like(grad_THD)
        query_grad_GRTD = _by_group(query_grad_THD, groups)
        grads_GTD = [torch.zeros(part.shape, device=part.device) for part in (key_GTD, value_GTD)]
        for block, weights_GXK in zip(_blocks(pack), kept, strict=True):
            queries_GXD, keys_GKD, values_GKD = block.queries(query_GRTD), block.keys(key_GTD), block.keys(value_GTD)
            result_grad_GXD = block.queries(grad_GRTD)
            slope_GXK = None
            if weights_GXK is None:
                scores_GXK = rule.scores(queries_GXD, keys_GKD)
                slope_GXK = rule.slope(scores_GXK)
                weights_GXK = rule.weights(scores_GXK, block.end - block.first)
            weights_grad_GXK = torch.bmm(result_grad_GXD, values_GKD.transpose(1, 2))
            scores_grad_GXK = torch.ops.aten._softmax_backward_data(weights_grad_GXK, weights_GXK, -1, keys_GKD.dtype)
            scores_grad_GXK.mul_(rule.scaling if slope_GXK is None else slope_GXK.mul_(rule.scaling))
            place = query_grad_GRTD[:, :, block.first : block.end]
            place.copy_(torch.bmm(scores_grad_GXK, keys_GKD).view(place.shape))
            found = (
                torch.bmm(scores_grad_GXK.transpose(1, 2), queries_GXD),
                torch.bmm(weights_GXK.transpose(1, 2), result_grad_GXD),
            )
            for part_GKD, grad_GTD in zip(found, grads_GTD, strict=True):
                grad_GTD[:, : block.shared] += part_GKD[:, : block.shared]
                grad_GTD[:, block.start : block.end] += part_GKD[:, block.shared :]
        return query_grad_THD.transpose(0, 1), *(grad_GTD.to(key_GTD.dtype) for grad_GTD in grads_GTD), None, None


def _by_group(all_THD: torch.Tensor, groups: int) -> torch.Tensor:
    """[G, R, T, D], a view."""
    tokens, heads, width = all_THD.shape
    return all_THD.view(tokens, groups, heads // groups, width).permute(1, 2, 0, 3)
