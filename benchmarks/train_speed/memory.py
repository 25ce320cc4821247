"""How much GPU memory tuning needs in LLaMA's shapes: computed, not measured on a GPU.

    .venv/bin/python benchmarks/train_speed/memory.py

What autograd keeps for the way back is counted on a CPU, on one and on two layers of the real width, with attention
that keeps what the GPU's keeps (its inputs and its result). The rest is arithmetic, see `gigabytes`. Prints a table.
"""

from typing import Any

import torch
from shapes import SHAPES
from transformers import LlamaConfig, LlamaForCausalLM

from xinglin import console
from xinglin.dataset.encode import Encoded
from xinglin.tuning import attention
from xinglin.tuning.losses import token_losses
from xinglin.tuning.methods import attach, trainable_parameters
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import pack

CARDS = (24, 48, 80)
CUTOFFS = (512, 1024, 2048)
VOCABULARY = {"llama-7b": 32000, "llama-3-8b": 128256}
NF4 = 0.516
"""Bytes a weight takes in 4 bit, with its doubly quantised scales."""
CONTEXT = 1.0
"""GB of CUDA's context, kernels and the allocator's gaps."""


class _KeepsLikeTheGPU(torch.autograd.Function):
    """Attention that computes nothing, but keeps its inputs and its result."""

    @staticmethod
    def forward(ctx: Any, query_HTD: Any, key_GTD: Any, value_GTD: Any, *_: Any) -> torch.Tensor:
        output_THD = query_HTD.transpose(0, 1).contiguous()
        ctx.save_for_backward(query_HTD, key_GTD.clone(), value_GTD.clone(), output_THD)
        return output_THD


def model(shape: str, method: str, layers: int) -> Any:
    """A random base of some layers and a small vocabulary, with a method on it."""
    config = LlamaConfig(**(SHAPES[shape] | {"num_hidden_layers": layers}), vocab_size=64)
    base = LlamaForCausalLM(config).to(torch.bfloat16)
    kind: Any = "lora" if method == "qlora" else method
    return attach(base, FinetuneConfig("", "", "", method=kind)).train()


def kept(shape: str, method: str, layers: int, tokens: int = 64) -> tuple[float, int]:
    """(bytes a token that autograd keeps, trainable parameters)."""
    tuned = model(shape, method, layers)
    weights = {weight.untyped_storage().data_ptr() for weight in tuned.parameters()}
    storages: dict[int, int] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = Encoded("", [3] * tokens, [3] * tokens, cut=False)
    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        losses, _ = token_losses(tuned, pack([row], "cpu"))
    assert losses.requires_grad
    return sum(storages.values()) / tokens, trainable_parameters(tuned)


def gigabytes(shape: str, method: str, tokens: int, a_layer: tuple[float, int]) -> float:
    """Memory at its peak, with a micro-batch of `tokens`, half of them answers.

    Weights in bf16 (layers in 4 bit for QLoRA); fp32 masters, gradients and Adam's moments of what is trained (8-bit
    moments for QLoRA); what autograd keeps of every layer; a layer's own gradients on the way back; logits of 1,024
    targets and, of 256, their fp32 scores and softmax.
    """
    sizes, vocabulary = SHAPES[shape], VOCABULARY[shape]
    hidden, inner, layers = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_hidden_layers"]
    groups = sizes.get("num_key_value_heads", sizes["num_attention_heads"]) / sizes["num_attention_heads"]
    linear = layers * hidden * (2 * hidden * (1 + groups) + 3 * inner)
    weights = linear * (NF4 if method == "qlora" else 2) + 2 * vocabulary * hidden * 2
    if method == "qlora":
        weights += 2 * hidden * inner  # the one layer that is unpacked
    kept_bytes, trained = a_layer
    states = layers * trained * (10 if method == "qlora" else 16)
    activations = tokens * (layers * kept_bytes + 2 * (4 * inner + 4 * hidden))
    logits = vocabulary * (min(tokens / 2, 1024) * 2 + 256 * 8)
    return (weights + states + activations + logits) / 1e9 + CONTEXT


def main() -> None:
    """Print the table."""
    console.set_up_logging()
    attention.Blockwise = _KeepsLikeTheGPU  # type: ignore[misc, assignment]
    head = " | ".join(f"{cutoff} tokens" for cutoff in CUTOFFS)
    cards = " | ".join(f"tokens in {card} GB" for card in CARDS)
    print(f"| shape | method | each token | {head} | {cards} |\n|{'---|' * (3 + len(CUTOFFS) + len(CARDS))}")
    for shape in VOCABULARY:
        for method in ("lora", "qlora", "adapter"):
            (one, trained_one), (two, trained_two) = (kept(shape, method, layers) for layers in (1, 2))
            layer = (two - one, trained_two - trained_one)
            needs = [gigabytes(shape, method, cutoff, layer) for cutoff in CUTOFFS]
            a_token = (needs[-1] - needs[0]) / (CUTOFFS[-1] - CUTOFFS[0])
            fit = [int((card - needs[0]) / a_token + CUTOFFS[0]) // 256 * 256 for card in CARDS]
            sizes = " | ".join(f"{need:.1f} GB" for need in needs)
            most = " | ".join(str(tokens) if tokens > 0 else "no" for tokens in fit)
            print(f"| {shape} | {method} | {a_token * 1000:.1f} MB | {sizes} | {most} |", flush=True)


if __name__ == "__main__":
    main()
