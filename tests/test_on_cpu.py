"""Quicker ways on a CPU give what the plain ones give."""

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xinglin.backbone import Precision
from xinglin.inference.engine import load_engine
from xinglin.inference.on_cpu import NAME, LaidOut, attention_by_matmul, lay_out

BF16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the CPU has no bf16")


@BF16
@pytest.mark.parametrize(("rows", "bias"), [(1, False), (7, True), (300, False)])
def test_a_laid_out_layer_gives_what_the_layer_gives(rows, bias):
    torch.manual_seed(0)
    plain = nn.Linear(96, 160, bias=bias).to(torch.bfloat16)
    inputs = torch.randn(2, rows, 96, dtype=torch.bfloat16)
    with torch.inference_mode():
        made, expected = LaidOut(plain)(inputs), plain(inputs)
    assert made.shape == expected.shape
    assert torch.allclose(made.float(), expected.float(), atol=0.02)


@BF16
def test_only_plain_bf16_layers_without_hooks_are_laid_out():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    model[0].to(torch.bfloat16)
    model[1].to(torch.bfloat16).register_forward_hook(lambda *_: None)
    lay_out(model)
    assert [type(one) for one in model] == [LaidOut, nn.Linear, nn.Linear]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("tokens", [1, 3])
def test_attention_by_matmul_is_attention(masked, tokens):
    torch.manual_seed(0)
    module = nn.Module()
    module.num_key_value_groups, module.is_causal, module.training = 3, False, False
    query, key, value = (torch.randn(2, heads, length, 16) for heads, length in ((6, tokens), (2, 9), (2, 9)))
    mask = torch.ones(2, 1, tokens, 9, dtype=torch.bool) if masked or tokens > 1 else None
    if masked:
        mask[0, :, :, :4] = False
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.2)
    made, _ = attention_by_matmul(module, query, key, value, mask, scaling=0.2)
    assert made.shape == expected.shape == (2, tokens, 6, 16)
    assert torch.allclose(made, expected, atol=1e-5)


def test_a_place_that_is_nobodys_makes_no_nan():
    query, key, value = (torch.randn(1, heads, 3, 16) for heads in (6, 2, 2))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    mask[:, :, :, 0] = False  # the first place sees nothing, as padding does
    made, _ = attention_by_matmul(nn.Module(), query, key, value, mask)
    assert made.isfinite().all()


def test_an_engine_uses_them(tiny_base):
    engine = load_engine(str(tiny_base), "", "auto", Precision(torch.float32, "test"))
    assert engine.model.config.get_text_config()._attn_implementation == NAME
