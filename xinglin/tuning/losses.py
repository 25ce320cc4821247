"""The loss of packed rows, on target tokens only.

Shape suffixes: M distinct target tokens, N all of them, V vocabulary (`packing.py` has the others).
"""

import logging
import math
from typing import Any
from weakref import WeakSet

import torch
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from xinglin.dataset.encode import Encoded
from xinglin.errors import one_line
from xinglin.tuning.attention import packing, unwrapped
from xinglin.tuning.packing import Pack, pack

log = logging.getLogger(__name__)

_SLAB = {True: 512, False: 1024}
"""Rows whose logits are there at once, at most, on a CPU and elsewhere."""
_ROWS = {True: 16, False: 256}
"""Rows of logits taken at once: on a CPU their fp32 copy fits its cache, and none is made of the whole."""

_REWORKED: WeakSet[torch.nn.Module] = WeakSet()
"""Output layers whose logits their model changes (caps, scales) before it gives them."""


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
        losses_M = _of_logits(model(**options).logits, packed)
    else:
        options |= {"position_ids": packed.positions_1T, "pack": packed}
        with packing(model):
            found_M = _without_logits(model, options, packed)
            losses_M = _of_logits(model(**options).logits, packed) if found_M is None else found_M
    return losses_M[packed.distinct_N], packed.rows_N


def _of_logits(logits_1MV: torch.Tensor, packed: Pack) -> torch.Tensor:
    losses_M: torch.Tensor = _CrossEntropy.apply(logits_1MV.flatten(0, 1), packed.targets_M)  # type: ignore[no-untyped-call]
    return losses_M


def _without_logits(model: Any, options: dict[str, Any], packed: Pack) -> torch.Tensor | None:
    """Losses from what enters a frozen output layer; None where that is not the model's last step, or not frozen."""
    head = unwrapped(model).get_output_embeddings()
    if type(head) is not torch.nn.Linear or head in _REWORKED:
        return None
    if isinstance(head.weight, DTensor) or head.weight.requires_grad:
        return None
    entered: list[tuple[Any, ...]] = []

    def pass_on(hidden: torch.Tensor) -> torch.Tensor:
        entered.append((hidden.data_ptr(), hidden.shape, hidden._version))
        return hidden

    head.forward = pass_on  # type: ignore[method-assign, assignment]
    try:
        given = model(**options).logits
    finally:
        del head.forward
    if entered != [(given.data_ptr(), given.shape, given._version)]:
        _REWORKED.add(head)
        return None
    losses_M: torch.Tensor = _Head.apply(given.flatten(0, 1), head.weight, head.bias, packed.targets_M)  # type: ignore[no-untyped-call]
    return losses_M


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


class _Head(torch.autograd.Function):
    """A frozen output layer and the cross-entropy, some rows at a time: the logits are never there as a whole.

    What leads back is computed on the way there; the gradient of a target's loss only scales it.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, targets_M: torch.Tensor
    ) -> torch.Tensor:
        """Losses [M], fp32."""
        device = hidden_MD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_MD.dtype
        weight_VD, bias_V = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        losses_M = hidden_MD.new_empty(len(targets_M), dtype=torch.float32)
        grad_MD = torch.empty_like(hidden_MD, dtype=dtype) if ctx.needs_input_grad[0] else None
        slabs = math.ceil(len(targets_M) / _SLAB[device == "cpu"])
        for rows in _slices(len(targets_M), math.ceil(len(targets_M) / slabs) if slabs else 1):  # alike in size
            logits = F.linear(hidden_MD[rows].to(dtype), weight_VD, bias_V)
            losses_M[rows] = _cross_entropy(logits, targets_M[rows])
            if grad_MD is not None:
                torch.mm(logits, weight_VD, out=grad_MD[rows])
        ctx.grad_MD, ctx.dtype = grad_MD, hidden_MD.dtype
        return losses_M

    @staticmethod
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """What entered's gradient."""
        grad_MD, ctx.grad_MD = ctx.grad_MD, None
        return grad_MD.mul_(grad_M[:, None].to(grad_MD.dtype)).to(ctx.dtype), None, None, None


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of logits, whose own memory takes their gradient."""

    @staticmethod
    def forward(ctx: Any, logits_MV: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
        """Losses [M], fp32."""
        ctx.slopes_MV = logits_MV
        return _cross_entropy(logits_MV, targets_M)

    @staticmethod
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """The logits' gradient."""
        slopes_MV, ctx.slopes_MV = ctx.slopes_MV, None  # else they would live as long as the loss does
        return slopes_MV.mul_(grad_M[:, None].to(slopes_MV.dtype)), None


def _cross_entropy(logits_MV: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
    """Losses [M], fp32; the logits become their gradients."""
    losses_M = logits_MV.new_empty(len(targets_M), dtype=torch.float32)
    for rows in _slices(len(targets_M), _ROWS[logits_MV.device.type == "cpu"]):
        scores, targets = logits_MV[rows].float(), targets_M[rows, None]
        shares = scores.softmax(-1)
        totals = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()  # log-sum-exp, without its exp
        losses_M[rows] = (totals - scores.gather(1, targets))[:, 0]
        logits_MV[rows] = shares.scatter_add_(1, targets, shares.new_full(targets.shape, -1.0))
    return losses_M


def _slices(rows: int, at_once: int) -> list[slice]:
    return [slice(start, start + at_once) for start in range(0, rows, at_once)]
