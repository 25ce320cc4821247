"""Attention over packed rows by plain matmuls, rows of like length side by side.

Queries are taken block after block, of all rows that reach so far at once, and keys after a block are left out, so that
little is computed that a mask would hide. What belongs to a block is gathered so that it lies together: one matmul then
does for all rows and heads.

Shape suffixes: H heads, G key and value heads, R = H / G, T packed tokens, D width of a head; of a block, B = rows · G,
X = R · queries, K its keys, W the most keys of its rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from typing import Any

import torch

_BLOCK = 128
"""Queries of a row taken at once."""
_EVEN = 32
"""Keys come in multiples of this: a CPU's softmax takes a third longer over odd widths."""
_KEEP = 1024
"""The weights of a block with more keys are computed again on the way back, instead of kept."""


@dataclass(frozen=True)
class Rule:
    """How scores come from queries and keys, and what a query sees.

    Attributes:
        window: how many positions, its own included; 0 for all before it.
        softcap: bound of the scores, as Gemma 2 has it; 0 for none.
    """

    scaling: float
    window: int = 0
    softcap: float = 0.0


@dataclass(frozen=True)
class _Block:
    """Some queries of rows of like length, and the keys up to the last of them.

    Attributes:
        chosen: where its queries lie among those that were gathered.
        keyed: where the keys of its rows lie among those that were gathered.
        batch: B.
        width: W.
        seen: K.
        hidden: gives [X, K], to be added to scores: -inf where a query does not see a key (made anew if keys are many).
    """

    chosen: slice
    keyed: slice
    batch: int
    width: int
    seen: int
    hidden: Callable[[], torch.Tensor]

    def queries(self, gathered: torch.Tensor) -> torch.Tensor:
        """[B, X, D], a view."""
        return gathered[self.chosen].view(self.batch, -1, gathered.shape[-1])

    def keys(self, gathered: torch.Tensor) -> torch.Tensor:
        """[B, K, D], a view; values too."""
        return gathered[self.keyed].view(self.batch, self.width, gathered.shape[-1])[:, : self.seen]

    def weights(self, queries_BXD: torch.Tensor, keys_BKD: torch.Tensor, softcap: float) -> torch.Tensor:
        """[B, X, K]: softmax over what each query sees."""
        if not softcap:
            return torch.softmax(torch.baddbmm(self.hidden(), queries_BXD, keys_BKD.transpose(1, 2)), -1)
        scores_BXK = torch.bmm(queries_BXD, keys_BKD.transpose(1, 2)).div_(softcap).tanh_().mul_(softcap)
        return torch.softmax(scores_BXK.add_(self.hidden()), -1)


@dataclass(frozen=True)
class _Layout:
    """Where everything lies.

    Attributes:
        queries: for each gathered query, where it comes from among T·H.
        results: for each of T·H, where it was gathered to.
        filling: which gathered queries only fill up a row.
        keys: for each gathered key, where it comes from among T·G.
    """

    blocks: tuple[_Block, ...]
    queries: torch.Tensor
    results: torch.Tensor
    filling: torch.Tensor
    keys: torch.Tensor


def _alike(lengths: tuple[int, ...]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Groups of rows, each (start, length), the longest first and at most twice the shortest.

    Before each group, the length of the beginning that its rows share.
    """
    shared, *rests = zip(accumulate(lengths, initial=0), lengths, strict=False)
    if shared[1]:
        yield 0, [shared]
    group: list[tuple[int, int]] = []
    for row in sorted(rests, key=lambda row: -row[1]):
        if group and 2 * row[1] < group[0][1]:
            yield shared[1], group
            group = []
        group.append(row)
    yield shared[1], group


@lru_cache(maxsize=4)  # layers of one model may differ in their window
def _layout(
    lengths: tuple[int, ...], groups: int, repeats: int, window: int, dtype: torch.dtype, device: torch.device
) -> _Layout:
    """Of a pack with rows of these lengths, the shared beginning first."""
    heads = groups * repeats
    queries, filling, keys, blocks = [], [], [], []
    chosen = keyed = 0
    for shared, rows in _alike(lengths):
        starts, ends = torch.tensor([(start, start + length) for start, length in rows]).unbind(1)
        longest = rows[0][1]
        places = torch.minimum(starts[:, None] + torch.arange(longest), ends[:, None] - 1)  # a row's end fills it up
        width = _even(shared + longest)
        tokens = torch.cat([torch.arange(shared).expand(len(rows), shared), places], 1)
        tokens = tokens[:, torch.arange(width).clamp(max=shared + longest - 1)]
        keys.append((tokens[:, None] * groups + torch.arange(groups)[:, None]).flatten())
        for first, last in pairwise([0, *range(_BLOCK - shared % _EVEN, longest, _BLOCK), longest]):
            count = int((ends - starts > first).sum())
            block = places[:count, None, first:last] * heads + torch.arange(heads)[:, None]
            beyond = (starts[:count, None] + torch.arange(first, last) >= ends[:count, None])[:, None]
            queries.append(block.flatten())
            filling.append(beyond.expand(block.shape).flatten())
            seen = _even(shared + last)
            positions = range(shared + first, shared + last)
            hide = partial(_hidden, positions, seen, window, repeats, dtype, device)
            blocks.append(
                _Block(
                    slice(chosen, chosen + block.numel()),
                    slice(keyed, keyed + count * groups * width),
                    count * groups,
                    width,
                    seen,
                    hide if seen > _KEEP else partial(_itself, hide()),
                )
            )
            chosen += block.numel()
        keyed += len(rows) * groups * width
    sources, fills = torch.cat(queries), torch.cat(filling)
    results = torch.empty(sum(lengths) * heads, dtype=torch.long)
    results[sources[~fills]] = (~fills).nonzero()[:, 0]
    parts = (sources, results, fills.nonzero()[:, 0], torch.cat(keys))
    return _Layout(tuple(blocks), *(part.to(device) for part in parts))


def _hidden(
    positions: range, seen: int, window: int, repeats: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    at = torch.tensor(positions, device=device)[:, None]
    key_at = torch.arange(seen, device=device)
    unseen_QK = (key_at > at) | (window > 0) & (key_at <= at - window)
    hidden_QK = torch.zeros(unseen_QK.shape, dtype=dtype, device=device).masked_fill_(unseen_QK, -torch.inf)
    return hidden_QK.repeat(repeats, 1)


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _even(keys: int) -> int:
    return keys + -keys % _EVEN


class Blockwise(torch.autograd.Function):
    """Two matmuls and a softmax a block. Gradients of keys and values are summed in fp32."""

    @staticmethod
    def forward(
        ctx: Any,
        query_HTD: torch.Tensor,
        key_GTD: torch.Tensor,
        value_GTD: torch.Tensor,
        lengths: tuple[int, ...],
        rule: Rule,
    ) -> torch.Tensor:
        """[T, H, D]."""
        heads, tokens, width = query_HTD.shape
        groups = key_GTD.shape[0]
        layout = _layout(lengths, groups, heads // groups, rule.window, query_HTD.dtype, query_HTD.device)
        queries = _by_token(query_HTD).index_select(0, layout.queries).mul_(rule.scaling)  # fp16 holds them so
        keys, values = (_by_token(part).index_select(0, layout.keys) for part in (key_GTD, value_GTD))
        results = torch.empty_like(queries)
        kept: list[torch.Tensor | None] = []
        for block in layout.blocks:
            weights_BXK = block.weights(block.queries(queries), block.keys(keys), rule.softcap)
            torch.bmm(weights_BXK, block.keys(values), out=block.queries(results))
            kept.append(None if rule.softcap or block.seen > _KEEP else weights_BXK)
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.layout, ctx.rule = layout, rule
        ctx.shapes = query_HTD.shape, key_GTD.shape
        return results.index_select(0, layout.results).view(tokens, heads, width)

    @staticmethod
    def backward(ctx: Any, grad_THD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the three, in their shapes."""
        queries, keys, values, *kept = ctx.saved_tensors
        layout, softcap = ctx.layout, ctx.rule.softcap
        (heads, tokens, width), (groups, *_) = ctx.shapes
        result_grads = grad_THD.reshape(-1, width).index_select(0, layout.queries)
        result_grads.index_fill_(0, layout.filling, 0)
        query_grads = torch.empty_like(queries)
        key_grads, value_grads = (torch.zeros_like(keys, dtype=torch.float32) for _ in range(2))
        for block, weights_BXK in zip(layout.blocks, kept, strict=True):
            queries_BXD, keys_BKD, grads_BXD = block.queries(queries), block.keys(keys), block.queries(result_grads)
            if weights_BXK is None:
                weights_BXK = block.weights(queries_BXD, keys_BKD, softcap)
            weight_grads_BXK = torch.bmm(grads_BXD, block.keys(values).transpose(1, 2))
            score_grads_BXK = torch.ops.aten._softmax_backward_data(weight_grads_BXK, weights_BXK, -1, keys.dtype)
            if softcap:
                capped_BXK = torch.bmm(queries_BXD, keys_BKD.transpose(1, 2)).div_(softcap).tanh_()
                score_grads_BXK.mul_(1 - capped_BXK.square_())
            torch.bmm(score_grads_BXK, keys_BKD, out=block.queries(query_grads))
            block.keys(key_grads).add_(torch.bmm(score_grads_BXK.transpose(1, 2), queries_BXD))
            block.keys(value_grads).add_(torch.bmm(weights_BXK.transpose(1, 2), grads_BXD))
        query_grad = query_grads.index_select(0, layout.results).mul_(ctx.rule.scaling)
        sums = (
            torch.zeros(tokens * groups, width, device=part.device).index_add_(0, layout.keys, part)
            for part in (key_grads, value_grads)
        )
        others = (part.to(keys.dtype).view(tokens, groups, width).transpose(0, 1) for part in sums)
        return query_grad.view(tokens, heads, width).transpose(0, 1), *others, None, None


def _by_token(all_HTD: torch.Tensor) -> torch.Tensor:
    """[T·H, D]."""
    return all_HTD.transpose(0, 1).reshape(-1, all_HTD.shape[-1])
