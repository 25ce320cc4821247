"""Split a global batch into micro-batches that fit, and compute its loss on answer tokens only.

Shape suffixes: B rows, T positions, N target tokens of a micro-batch, V vocabulary.

The loss is per target token of the whole global batch, so how the batch is split changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from xinglin.dataset.encode import IGNORE, Encoded


def micro_batches(rows: Sequence[Encoded], micro_batch_size: int, max_tokens: int) -> list[list[Encoded]]:
    """Group rows of similar length, at most `micro_batch_size` rows and `max_tokens` padded tokens each.

    A row longer than `max_tokens` goes alone. The longest come first, so that memory peaks at once.
    """
    groups: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: -len(row.input_ids)):
        group = groups[-1] if groups else None
        if group and len(group) < micro_batch_size and (len(group) + 1) * len(group[0].input_ids) <= max_tokens:
            group.append(row)
        else:
            groups.append([row])
    return groups


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
class MicroBatch:
    """Right-padded rows.

    In a causal model nothing attends to what comes after it, so padding on the right needs no mask.
    """

    ids_BT: torch.Tensor
    labels_BT: torch.Tensor


def collate(rows: Sequence[Encoded], pad_id: int, device: Any) -> MicroBatch:
    """Pad rows on the right to the longest of them."""
    longest = max(len(row.input_ids) for row in rows)
    ids = [row.input_ids + [pad_id] * (longest - len(row.input_ids)) for row in rows]
    labels = [row.labels + [IGNORE] * (longest - len(row.labels)) for row in rows]
    return MicroBatch(torch.tensor(ids, device=device), torch.tensor(labels, device=device))


@contextmanager
def _only_at(model: Any, mask_BT: torch.Tensor) -> Iterator[None]:
    """Let the output layer see only the masked positions, as one row of N.

    Logits of all positions would take B·T·V numbers; a hook leaves every model's own code as it is.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    hook = inner.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: (args[0][mask_BT].unsqueeze(0), *args[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def token_losses(model: Any, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of every target token.

    Returns:
        (losses_N in fp32, in nats; row_N, the row each target token belongs to).
    """
    targets_BT = batch.labels_BT[:, 1:]
    mask_BT = targets_BT != IGNORE
    full_BT = F.pad(mask_BT, (0, 1))  # the last position predicts nothing
    with _only_at(model, full_BT):
        logits_NV = model(input_ids=batch.ids_BT, use_cache=False).logits[0]
    losses_N = F.cross_entropy(logits_NV.float(), targets_BT[mask_BT], reduction="none")
    return losses_N, mask_BT.nonzero()[:, 0]
