"""Bottleneck adapters as the `adapters` library computes them. From the root of the repository:

    python3.11 -m venv build/adapters
    build/adapters/bin/pip install torch==2.13.0
    build/adapters/bin/pip install adapters==1.3.0 transformers==4.57.6
    build/adapters/bin/python tests/reference/bottleneck.py

Writes a tiny random LLaMA in fp32 to `base/` (`old_peft.py` uses it too), and to `bottleneck.safetensors`:

    input_ids               [2, 8], no padding
    logits.base             [2, 8, 40], without adapters
    logits.{silu,relu,gelu} [2, 8, 40], with the adapters below and that activation
    adapter.NAME            the weights of the adapters; NAME is ours, and `silu` is our word for their "swish"
    gradient.{silu,...}.NAME    of the mean of the squared logits

The adapters are Houlsby's: h + up(act(down(h))) on what the attention and the feed-forward block put out, each before
its residual addition and without a norm of its own. `gelu` is the exact one (erf).
"""

import re
from pathlib import Path

import adapters
import torch
from adapters import DoubleSeqBnConfig
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
HIDDEN, BOTTLENECK, VOCABULARY = 16, 4, 40
BLOCKS = {"attention_adapters": "self_attn", "output_adapters": "mlp"}
THEIR_NAMES = re.compile(r"model\.layers\.(\d+)\.(\w+)\.adapters\.reference\.adapter_(down|up)(?:\.0)?\.(weight|bias)")


def our_name(theirs: str) -> str:
    layer, block, side, kind = THEIR_NAMES.fullmatch(theirs).groups()
    return f"base_model.model.model.layers.{layer}.{BLOCKS[block]}.bottleneck.{side}.{kind}"


def make_base() -> LlamaForCausalLM:
    """Weights well above the usual 0.02, and norms other than 1, so that no misplaced adapter goes unseen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model


def add_adapters(model: LlamaForCausalLM, activation: str) -> dict[str, torch.nn.Parameter]:
    """The adapters' parameters by our names, with the same random values at each call."""
    adapters.init(model)
    config = DoubleSeqBnConfig(reduction_factor=HIDDEN / BOTTLENECK, non_linearity=activation)
    model.add_adapter("reference", config=config)
    model.train_adapter("reference")
    model.eval()
    theirs = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    torch.manual_seed(1)
    for name in sorted(theirs):
        torch.nn.init.normal_(theirs[name], std=0.3)
    return {our_name(name): parameter for name, parameter in theirs.items()}


def main() -> None:
    base = make_base()
    base.save_pretrained(HERE / "base")
    ids = torch.randint(3, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(2))
    saved = {"input_ids": ids, "logits.base": base(ids).logits.detach()}
    for ours, theirs in {"silu": "swish", "relu": "relu", "gelu": "gelu"}.items():
        model = make_base()
        parameters = add_adapters(model, theirs)
        logits = model(ids).logits
        logits.square().mean().backward()
        saved[f"logits.{ours}"] = logits.detach()
        saved |= {f"adapter.{name}": parameter.detach() for name, parameter in parameters.items()}
        saved |= {f"gradient.{ours}.{name}": parameter.grad for name, parameter in parameters.items()}
        print(
            f"{ours}: differs from the base by up to {(saved['logits.base'] - saved[f'logits.{ours}']).abs().max():.2f}"
        )
    save_file(saved, HERE / "bottleneck.safetensors")


if __name__ == "__main__":
    main()
