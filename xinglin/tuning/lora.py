"""LoRA's update as PEFT defines it, with less work: computed in the base's dtype, added in place.

    y + dropout(x) Aᵀ (scaling · B)ᵀ        A and B stay fp32 masters

PEFT's own forward computes it in fp32, or under autocast makes a copy of every linear layer's output for the scaled
update and another for the sum, on the way there and back.

The narrow matmuls are written so that the rank comes first: oneDNN takes 84 us instead of 144 for A xᵀ where x Aᵀ has
the same result (1,650 rows, 576 wide), 111 instead of 191 for B's gradient.

Shape suffixes: T rows of the input, D its width, E the output's, R rank.
"""

from functools import cache
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F


def quicken(model: Any) -> None:
    """Let every plain LoRA layer of a model compute as above; other kinds of layer stay as they are."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and hasattr(layer.get_base_layer(), "in_features") and not layer.lora_variant:
            kind: Any = type(layer)
            layer.__class__ = _quick(kind)  # a forward of its own would be compiled again for every layer


@cache
def _quick(kind: Any) -> Any:
    return type(kind.__name__, (_Quick, kind), {})


class _Quick(torch.nn.Module):
    """Before a kind of PEFT's LoRA layers, takes what it can of its work."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[…, D] to […, E]."""
        layer: Any = self
        result: torch.Tensor
        names = [name for name in layer.active_adapters if name in layer.lora_A]
        if layer.disable_adapters or layer.merged or len(names) != 1 or args or kwargs or not torch.is_grad_enabled():
            result = super().forward(x, *args, **kwargs)
            return result
        name = names[0]
        base = layer.get_base_layer()
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        x = x.to(dtype)
        down, up = layer.lora_A[name].weight.to(dtype), (layer.lora_B[name].weight * layer.scaling[name]).to(dtype)
        inside = layer.lora_dropout[name](x)
        if (
            type(base) is torch.nn.Linear
            and inside is x
            and not base.weight.requires_grad
            and base.weight.dtype == dtype
        ):
            result = _Linear.apply(x, base.weight, base.bias, down, up)  # type: ignore[no-untyped-call]
        else:
            result = _Update.apply(base(x), inside, down, up)  # type: ignore[no-untyped-call]
        return result


class _Linear(torch.autograd.Function):
    """A frozen linear layer with its update: on the way back, too, both go into one tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        down_RD: torch.Tensor,
        up_ER: torch.Tensor,
    ) -> torch.Tensor:
        """Like x, E wide."""
        y = F.linear(x, weight_ED, bias_E)
        inside_RT = down_RD @ x.flatten(0, -2).t()
        y.flatten(0, -2).addmm_(inside_RT.t(), up_ER.t())
        ctx.save_for_backward(x, inside_RT, weight_ED, down_RD, up_ER)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, A and B."""
        x, inside_RT, weight_ED, down_RD, up_ER = ctx.saved_tensors
        grad_TE = grad.flatten(0, -2)
        outside_RT = up_ER.t() @ grad_TE.t()
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad_TE @ weight_ED).addmm_(outside_RT.t(), down_RD).view_as(x)
        return x_grad, None, None, outside_RT @ x.flatten(0, -2), (inside_RT @ grad_TE).t()


class _Update(torch.autograd.Function):
    """The update alone, added to what any layer gave (in 4 or 8 bit)."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, down_RD: torch.Tensor, up_ER: torch.Tensor) -> torch.Tensor:
        """Like y."""
        inside_RT = down_RD @ x.flatten(0, -2).t()
        sum_TE = torch.addmm(y.flatten(0, -2), inside_RT.t().to(y.dtype), up_ER.t().to(y.dtype))
        ctx.save_for_backward(x, inside_RT, down_RD, up_ER)
        return sum_TE.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Gradients of y, x, A and B."""
        x, inside_RT, down_RD, up_ER = ctx.saved_tensors
        grad_TE = grad.flatten(0, -2).to(x.dtype)
        outside_RT = up_ER.t() @ grad_TE.t()
        x_grad = (outside_RT.t() @ down_RD).view_as(x) if ctx.needs_input_grad[1] else None
        return grad, x_grad, outside_RT @ x.flatten(0, -2), (inside_RT @ grad_TE).t()
