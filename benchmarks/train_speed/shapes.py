"""Bases with random weights in known shapes, for machines where no weights can be fetched."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from xinglin.backbone import find_base

TOKENIZER = "smollm2-135m"
"""Its vocabulary of 49,152 takes the place of the shape's own."""

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
    },
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    },
}


def make(name: str, folder: Path) -> Path:
    """Save a random bf16 base, and a tokenizer with it.

    Args:
        name: `random:` and one of `SHAPES`.

    Raises:
        SystemExit: an unknown shape.
    """
    shape = SHAPES.get(name.removeprefix("random:"))
    if shape is None:
        raise SystemExit(f"no shape {name!r}; there are {', '.join(f'random:{one}' for one in SHAPES)}")
    tokenizer = AutoTokenizer.from_pretrained(find_base(TOKENIZER))
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = LlamaConfig(**shape, vocab_size=len(tokenizer), max_position_embeddings=4096, **ends)
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
