"""What the hardware's matmuls would allow: their measured speed at a base's shapes, and the work that records need.

python benchmarks/train_speed/limit.py --base_model DIR --device cpu
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig

TOKENS = 2048
"""Rows of the measured matmuls: a micro-batch of ours."""


def linear_shapes(config: Any) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear layers in one decoder layer of a LLaMA-like base."""
    hidden, inner = config.hidden_size, config.intermediate_size
    width = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, key = config.num_attention_heads * width, config.num_key_value_heads * width
    return [(hidden, query), (hidden, key), (hidden, key), (query, hidden)] + [(hidden, inner)] * 2 + [(inner, hidden)]


def needed(config: Any, rows: Sequence[tuple[int, int]], rank: int) -> float:
    """Floating-point operations of a step with frozen weights over rows of (tokens, targets).

    Of each linear layer: the way there, and the gradient of its input (also where the first layer needs none); logits
    at target positions; causal attention (half of the square), its way back twice the way there; LoRA of `rank` on
    every linear layer, its way back twice the way there.
    """
    shapes = linear_shapes(config)
    layers, hidden = config.num_hidden_layers, config.hidden_size
    width = shapes[0][1]
    tokens = sum(length for length, _ in rows)
    linear = 4 * layers * sum(i * o for i, o in shapes) * tokens
    logits = 4 * hidden * config.vocab_size * sum(targets for _, targets in rows)
    attention = 6 * layers * width * sum(length * length for length, _ in rows)
    adapter = 6 * layers * rank * sum(i + o for i, o in shapes) * tokens
    return float(linear + logits + attention + adapter)


def speed(config: Any, dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the matmuls of a layer and of the logits, there and back, weighted as a step needs them."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    work, seconds = 0.0, 0.0
    shapes = [(shape, config.num_hidden_layers, TOKENS) for shape in linear_shapes(config)]
    shapes.append(((config.hidden_size, config.vocab_size), 1, TOKENS // 2))
    for (inputs, outputs), times, rows in shapes:
        x = torch.randn(rows, inputs, dtype=dtype, device=device)
        weight = torch.randn(outputs, inputs, dtype=dtype, device=device)
        grad = torch.randn(rows, outputs, dtype=dtype, device=device)
        for left, right in ((x, weight.t()), (grad, weight)):
            taken = []
            for _ in range(12):
                started = time.perf_counter()
                left @ right
                wait()
                taken.append(time.perf_counter() - started)
            seconds += times * statistics.median(taken[2:])
            work += times * 2 * rows * inputs * outputs
    return work / seconds


def main() -> None:
    """Print the speed as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    asked = parser.parse_args()
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[asked.dtype]
    found = speed(AutoConfig.from_pretrained(asked.base_model), dtype, asked.device)
    print(json.dumps({"flops_per_second": found}))


if __name__ == "__main__":
    main()
