"""Tiny random base models for the tests: one folder per family, and one laid out as LLaMA was in March 2023."""

import io
import json
from pathlib import Path
from typing import Any

SENTENCES = ["偏头痛有哪些症状？问题：资料：回答：恶心、呕吐、畏光"] * 3
KINDS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")


def byte_level_tokenizer() -> Any:
    """A byte-level BPE tokenizer: `<unk>`, `<s>`, `</s>` are 0, 1, 2, pads with `</s>`, adds no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def make_base(folder: Path, kind: str) -> Path:
    """Save a random model of a family (seed 0, two layers of width 32) and its tokenizer, in today's layout.

    Args:
        folder: where to save; made when missing.
        kind: one of `KINDS`. The Gemmas are text only, tie their embeddings, and attend in their first layer to no
            more than 16 tokens; the others are untied.
    """
    import torch
    import transformers as hf

    classes: dict[str, tuple[Any, Any]] = {
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM),
        "gemma2": (hf.Gemma2Config, hf.Gemma2ForCausalLM),
        "gemma3": (hf.Gemma3TextConfig, hf.Gemma3ForCausalLM),
    }
    config_class, model_class = classes[kind]
    local = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **(local if kind.startswith("gemma") else {}),
    )
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_old_llama(folder: Path, bos: int = 0, eos: int = 1, pad: int = -1) -> Path:
    """Save a tiny model laid out as `llama-7b-hf` of March 2023, written by transformers 4.27.0.dev0.

    Its faults are those of the original: class names since renamed, no special token in `tokenizer_config.json`,
    and ids in `config.json` and `generation_config.json` that are not those of `tokenizer.model` (unk 0, bos 1,
    eos 2, no pad).

    Args:
        folder: where to save; made when missing.
        bos: the wrong BOS id of both JSON files. Copies of the folder with 0 for all three ids went round as well.
        eos: the wrong EOS id.
        pad: the wrong padding id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = _write_sentencepiece(folder / "tokenizer.model")
    _write_json(folder / "tokenizer_config.json", _OLD_TOKENIZER)
    _write_json(folder / "special_tokens_map.json", {})
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "transformers_version": "4.27.0.dev0"}
    _write_json(folder / "config.json", _OLD_SHAPE | ids | {"vocab_size": pieces})
    _write_json(folder / "generation_config.json", {"_from_model_config": True} | ids)
    _write_shards(folder, pieces)
    return folder


_OLD_TOKENIZER = {
    "bos_token": "",
    "eos_token": "",
    "model_max_length": 1000000000000000019884624838656,
    "tokenizer_class": "LLaMATokenizer",
    "unk_token": "",
}
_OLD_SHAPE = {
    "architectures": ["LLaMAForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_sequence_length": 2048,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float16",
    "use_cache": True,
}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), "utf-8")


def _write_sentencepiece(path: Path) -> int:
    """Train a SentencePiece model with LLaMA's settings; returns the number of its pieces."""
    import sentencepiece

    written = io.BytesIO()
    english = ["Question: what are the symptoms of migraine? Answer: nausea, vomiting and photophobia."] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES + english),
        model_writer=written,
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    return int(sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).get_piece_size())


def _write_shards(folder: Path, pieces: int) -> None:
    """One file for each layer and one for the rest, in half precision, with the rotary frequencies of each layer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {name: _OLD_SHAPE[name] for name in ("hidden_size", "intermediate_size")}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=pieces, num_hidden_layers=2, num_attention_heads=4, **sizes))
    shards: list[dict[str, Any]] = [{}, {}, {}]
    for name, weight in model.half().state_dict().items():
        shards[int(name.split(".")[2]) if name.startswith("model.layers.") else 2][name] = weight
    for layer in (0, 1):
        frequencies = 1.0 / 10000 ** (torch.arange(0, 8, 2).float() / 8)
        shards[layer][f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"pytorch_model-{number:05}-of-00003.bin"
        torch.save(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    size = sum(weight.numel() * weight.element_size() for shard in shards for weight in shard.values())
    _write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})
