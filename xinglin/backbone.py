"""The base model: find it, choose a precision that the machine has in hardware, load it.

xinglin assets path smollm2-135m        the default base as a ready-to-load folder
"""

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from xinglin import assets
from xinglin.errors import UserError, nearest, one_line

log = logging.getLogger(__name__)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

DEFAULT_BASE = "smollm2-135m"
_FOLDER = "model-1"  # inside the asset's cache folder; raise it when the preparation changes


def asset_path(name: str) -> Path:
    """Where an asset lies, ready to use: a model asset becomes a folder that `from_pretrained` loads.

    Raises:
        UserError: unknown name, or the asset cannot be fetched.
    """
    asset = assets.lookup(name)
    if not asset.member.endswith(".gguf"):
        return assets.fetch(name)
    folder = assets.cache_dir() / name / _FOLDER
    if not (folder / "config.json").is_file():
        _convert_gguf(assets.fetch(name), folder)
    return folder


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Unpack a GGUF file's weights to safetensors in bf16, into a folder that appears only when whole."""
    log.info("preparing %s (once)", gguf.name)
    scratch = Path(tempfile.mkdtemp(dir=gguf.parent, prefix=".model-"))
    try:
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.to(torch.bfloat16).save_pretrained(scratch)
        AutoTokenizer.from_pretrained(**where).save_pretrained(scratch)
        for file in scratch.iterdir():
            file.chmod(0o644)
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def find_base(name: str) -> str:
    """Resolve `--base_model`: a local model folder, the default base's name, or a hub id `org/name`.

    Raises:
        UserError: nothing of that name; the message says what was looked for.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"base_model {name!r}: the folder has no config.json, so it is no transformers model")
        return str(path)
    if name in assets.ASSETS:
        return str(asset_path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return name  # a hub id; from_pretrained says whether the hub has it
    beside = [file.parent.name for file in path.parent.glob("*/config.json")] if path.parent.is_dir() else []
    raise UserError(
        f"base_model {name!r}: no such folder (working folder {Path.cwd()}){nearest(path.name, beside)}; "
        f"give a model folder, or {DEFAULT_BASE} for the default base"
    )


@dataclass(frozen=True)
class Precision:
    """The number format the base runs in, and why."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """bf16, fp16 or fp32."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]


def choose_precision(asked: str = "auto") -> Precision:
    """Half precision where the hardware computes in it: bf16, else fp16 (GPU, with loss scaling), else fp32."""
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if asked in named:
        return Precision(named[asked], "asked for")
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "the GPU has bf16 in hardware")
        return Precision(torch.float16, "the GPU has no bf16; fp16 with loss scaling")
    # torch has no public question for this
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(torch.cpu, question, lambda: False)():
            return Precision(torch.bfloat16, "the CPU has bf16 in hardware")
    return Precision(torch.float32, "the CPU has no bf16 in hardware")


def training_attention(longest: int) -> str:
    """Attention implementation for rows of up to `longest` tokens.

    On CPUs, plain matmuls and a softmax beat SDPA's kernel for short rows (docs/decisions.md has the numbers),
    but they hold all T·T weights; on GPUs SDPA always wins.
    """
    return "eager" if not torch.cuda.is_available() and longest <= 1024 else "sdpa"


def load_base(name: str, precision: Precision, attention: str = "sdpa") -> Any:
    """Load a causal language model onto the GPU, if there is one, else the CPU.

    Raises:
        UserError: the folder or hub id cannot be loaded.
    """
    found = find_base(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(found, dtype=precision.dtype, attn_implementation=attention)
    except Exception as error:  # a broken file may raise nearly anything
        raise UserError(f"base_model {name!r} cannot be loaded: {one_line(error)}") from None
    model.config.use_cache = False
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def print_asset_path(config: assets.AssetsPath) -> None:
    """Print the path of `xinglin assets path`, alone on its line."""
    print(asset_path(config.name))
