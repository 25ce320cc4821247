"""Split a global batch into micro-batches that fit, and pack the rows of each into one.

    [beginning that all rows share][rest of row 0][rest of row 1] …

In a causal model the hidden states of a shared beginning are the same in every row, so it is computed once: the rests
attend to it and to themselves (`attention.py`), and their positions go on after it. Nothing is padded.

Shape suffixes: T packed tokens, N target tokens of a micro-batch, M distinct ones (a target in the shared beginning
is one computation, but counts for every row).

The loss is per target token of the whole global batch, so how the batch is split changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xinglin.dataset.encode import IGNORE, Encoded


def shared_beginning(rows: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with; every row keeps at least one of its own."""
    if len(rows) < 2:
        return 0
    first, last = (pick(row.input_ids for row in rows) for pick in (min, max))  # in order, all others lie between
    common = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(common, *(len(row.input_ids) - 1 for row in rows))


def packed_tokens(rows: Sequence[Encoded]) -> int:
    """How many tokens the rows have when packed."""
    return sum(len(row.input_ids) for row in rows) - (len(rows) - 1) * shared_beginning(rows)


def micro_batches(rows: Sequence[Encoded], micro_batch_size: int, max_tokens: int) -> list[list[Encoded]]:
    """Group rows that begin alike, at most `micro_batch_size` rows and `max_tokens` packed tokens each.

    A row longer than `max_tokens` goes alone. The largest groups come first, so that memory peaks at once.
    """
    groups: list[list[Encoded]] = []
    tokens = 0  # of the last group, not packed
    for row in sorted(rows, key=lambda row: row.input_ids):
        group, tokens = groups[-1] if groups else [], tokens + len(row.input_ids)
        shared = shared_beginning([*group[:1], row])  # by order, what the first and the last share, all do
        if 0 < len(group) < micro_batch_size and tokens - len(group) * shared <= max_tokens:
            group.append(row)
        else:
            groups.append([row])
            tokens = len(row.input_ids)
    return sorted(groups, key=packed_tokens, reverse=True)


def share(
    rows: Sequence[Encoded], micro_batch_size: int, max_tokens: int, processes: int = 1, rank: int = 0
) -> list[list[Encoded]]:
    """One process's micro-batches of a global batch; every process gets equally many, or some would wait for ever.

    Rows are dealt out by length. Where there are too few, a row with nothing to learn fills the gap.
    """
    dealt = sorted(rows, key=lambda row: -len(row.input_ids))
    plans = [micro_batches(dealt[first::processes], micro_batch_size, max_tokens) for first in range(processes)]
    missing = max(map(len, plans)) - len(plans[rank])
    shortest = dealt[-1].input_ids
    return plans[rank] + [[Encoded("", shortest, [IGNORE] * len(shortest), cut=False)]] * missing


@dataclass(frozen=True)
class Pack:
    """The rows of a micro-batch in one row.

    Attributes:
        lengths: of the shared beginning (may be 0), then of each row's rest; in sum T.
        sources_M: where the token before a target token stands.
        targets_M: the target tokens.
        distinct_N: which of the M each target token is.
        rows_N: the row that each target token belongs to.
    """

    ids_1T: torch.Tensor
    positions_1T: torch.Tensor
    lengths: tuple[int, ...]
    sources_M: torch.Tensor
    targets_M: torch.Tensor
    distinct_N: torch.Tensor
    rows_N: torch.Tensor


def pack(rows: Sequence[Encoded], device: Any) -> Pack:
    """Pack rows into one."""
    prefix = shared_beginning(rows)
    ids, positions, lengths = list(rows[0].input_ids[:prefix]), list(range(prefix)), [prefix]
    distinct: dict[tuple[int, int], int] = {}
    places, owners = [], []
    for number, row in enumerate(rows):
        shift = len(ids) - prefix
        ids += row.input_ids[prefix:]
        positions += range(prefix, len(row.input_ids))
        lengths.append(len(row.input_ids) - prefix)
        for place, label in enumerate(row.labels[1:]):
            if label != IGNORE:
                source = place if place < prefix else place + shift
                places.append(distinct.setdefault((source, label), len(distinct)))
                owners.append(number)
    pairs = torch.tensor(list(distinct), dtype=torch.long, device=device).view(-1, 2)

    def tensor(numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    return Pack(
        tensor(ids)[None],
        tensor(positions)[None],
        tuple(lengths),
        sources_M=pairs[:, 0],
        targets_M=pairs[:, 1],
        distinct_N=tensor(places),
        rows_N=tensor(owners),
    )
