"""The loss of packed rows, on target tokens only.

Shape suffixes: M distinct target tokens, N all of them, V vocabulary (`packing.py` has the others).
"""

import logging
from typing import Any

import torch

from xinglin.dataset.encode import Encoded
from xinglin.errors import one_line
from xinglin.tuning.attention import packing
from xinglin.tuning.packing import Pack, pack

log = logging.getLogger(__name__)

_ROWS = 32
"""Rows of logits taken at once: their fp32 copy fits a CPU's cache, and none is made of the whole."""


def token_losses(model: Any, packed: Pack, *, alone: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of every target token.

    Args:
        model: a causal language model.
        alone: the pack is of one row, which goes through the model's own attention.

    Returns:
        (losses_N in fp32, in nats; rows_N, the row each target token belongs to).
    """
    options: dict[str, Any] = {"input_ids": packed.ids_1T, "use_cache": False, "logits_to_keep": packed.sources_M}
    if alone:
        assert len(packed.lengths) == 2
        logits_MV = model(**options).logits[0]
    else:
        with packing(model):
            logits_MV = model(**options, position_ids=packed.positions_1T, pack=packed).logits[0]
    losses_M: torch.Tensor = _CrossEntropy.apply(logits_MV, packed.targets_M)  # type: ignore[no-untyped-call]
    return losses_M[packed.distinct_N], packed.rows_N


@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
@torch.no_grad()
def isolates(model: Any, *, half: bool = False) -> bool:
    """Whether rows packed for this model keep to themselves, and see what they share: tried on two of them.

    A base may attend in a way of its own, drop attention weights, or mix tokens outside attention (state-space and some
    expert layers).

    Args:
        half: it computes in half precision though its weights are fp32.
    """

    def losses(*ids: list[int], alone: bool = False) -> torch.Tensor:
        packed = pack([Encoded("", one, one, cut=False) for one in ids], model.device)
        losses_N, rows_N = token_losses(model, packed, alone=alone)
        return losses_N[rows_N == len(ids) - 1]

    last, training = [3, 4, 15, 16, 17, 18], model.training
    try:
        model.train()
        with torch.random.fork_rng():
            losses(last, last)  # what attention is asked for then
        model.eval()
        expected = losses(last, alone=True)
        beside, beside_other = losses([*range(3, 10)], last), losses([3, 4, *range(10, 15)], last)
    except Exception as error:  # a base of its own kind may raise nearly anything
        log.debug("packed rows: %s", one_line(error))
        return False
    finally:
        model.train(training)
    rounding = 0.05 if half or model.dtype != torch.float32 else 1e-3
    return torch.allclose(beside, beside_other, 0, 1e-4) and torch.allclose(beside, expected, rounding, rounding)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy some rows at a time; the logits' own memory takes their gradient."""

    @staticmethod
    def forward(ctx: Any, logits_MV: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
        """Losses [M], fp32."""
        losses_M = logits_MV.new_empty(len(targets_M), dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        for rows in _slices(len(targets_M)):
            scores, targets = logits_MV[rows].float(), targets_M[rows, None]
            totals = scores.logsumexp(-1, keepdim=True)
            losses_M[rows] = (totals - scores.gather(1, targets))[:, 0]
            if wanted:
                slopes = scores.sub_(totals).exp_()
                slopes.scatter_add_(1, targets, slopes.new_full(targets.shape, -1.0))
                logits_MV[rows] = slopes
        ctx.slopes_MV = logits_MV
        return losses_M

    @staticmethod
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """The logits' gradient."""
        slopes_MV, ctx.slopes_MV = ctx.slopes_MV, None  # else they would live as long as the loss does
        return slopes_MV.mul_(grad_M[:, None].to(slopes_MV.dtype)), None


def _slices(rows: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, rows, _ROWS)]
