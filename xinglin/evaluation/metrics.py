"""How surprised a model is by a reference answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from xinglin.dataset.encode import Encoding
from xinglin.records import Example
from xinglin.tuning.losses import isolates, token_losses
from xinglin.tuning.packing import micro_batches, pack


@torch.no_grad()
def answer_nats(model: Any, examples: Sequence[Example], encoding: Encoding, *, max_tokens: int = 2048) -> list[float]:
    """Negative log-likelihood of each reference answer (its end token included), in nats.

    Divide by the answer's characters for NLL per character, which tokenizers can be compared by.
    """
    whole = replace(encoding, cutoff_len=1 << 20)  # a cut answer would look less surprising than it is
    rows = [whole.rows(example)[-1] for example in examples]
    total = dict.fromkeys((row.id for row in rows), 0.0)
    packs = isolates(model)
    for group in micro_batches(rows, 16 if packs else 1, max_tokens):
        losses_N, rows_N = token_losses(model, pack(group, model.device), alone=not packs)
        sums = torch.zeros(len(group), dtype=losses_N.dtype, device=losses_N.device).index_add_(0, rows_N, losses_N)
        for row, nats in zip(group, sums.tolist(), strict=True):
            total[row.id] = nats
    return [total[row.id] for row in rows]
