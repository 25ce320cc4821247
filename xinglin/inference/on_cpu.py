"""What makes answering on a CPU quicker, and changes but rounding: weights laid out once, matmuls for attention.

Shape suffixes: B rows, H heads, G key and value heads, Q tokens that ask, T columns, D width of a head.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from xinglin.tuning.bottleneck import Bottleneck

NAME = "by_matmul"
_MOST = 1 << 26
"""Scores at a time, 256 MB: PyTorch's own attention holds fewer, and takes twice as long."""


class LaidOut(nn.Module):
    """A linear layer whose weight is kept as oneDNN wants it, which saves laying it out at every token.

    Args:
        linear: in bf16, on a CPU.
        rows: tokens at a time that the layout is chosen for.
    """

    def __init__(self, linear: nn.Linear, rows: int = 32) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the linear layer gives, (…, out_features)."""
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self.bias, "none", [], "")
        return made


def lay_out(model: nn.Module) -> None:
    """Lay out every linear layer of a model that this can be done for; the model can't be trained or saved after it.

    Bottleneck adapters, which are small, stay as they are.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and _fits(child) and not isinstance(parent, Bottleneck):
                setattr(parent, name, LaidOut(child))


def _fits(linear: nn.Linear) -> bool:
    weight = linear.weight
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or linear._forward_hooks:
        return False
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def attend_by_matmul(model: Any) -> None:
    """Let a model on a CPU attend by plain matmuls."""
    config = model.config.get_text_config()
    if model.device.type == "cpu" and config._attn_implementation == "sdpa":
        config._attn_implementation = NAME


def attention_by_matmul(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it; of very long texts, or with parts unknown here, PyTorch's own.

    Args:
        query: [B, H, Q, D].
        key: [B, G, T, D], and so is value.
        attention_mask: [B, 1, Q, T], True where a column is seen; only one token may go without.

    Returns:
        ([B, Q, H, D], None).
    """
    rows, heads, tokens, width = query.shape
    plain = tokens == 1 if attention_mask is None else attention_mask.dtype == torch.bool
    extra = any(torch.is_tensor(option) for name, option in options.items() if name != "position_ids")
    large = rows * heads * tokens * key.shape[2] > _MOST
    if large or not plain or extra or options.get("softcap") or options.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    query_BGQD = query.reshape(rows, key.shape[1], -1, width)
    scores_BGQT = query_BGQD @ key.transpose(2, 3) * (options.get("scaling") or width**-0.5)
    scores_BHQT = scores_BGQT.float().view(rows, heads, tokens, -1)
    if attention_mask is not None:
        # a finite number: what is nobody's sees no column, and must not become NaN
        scores_BHQT.masked_fill_(~attention_mask, torch.finfo(torch.float32).min)
    shares_BGQT = scores_BHQT.softmax(-1).to(value.dtype).view(rows, key.shape[1], -1, key.shape[2])
    return (shares_BGQT @ value).view(rows, heads, tokens, -1).transpose(1, 2), None


AttentionInterface.register(NAME, attention_by_matmul)
AttentionMaskInterface.register(NAME, sdpa_mask)
