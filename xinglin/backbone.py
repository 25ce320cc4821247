"""The base model: find it, choose a precision that the machine has in hardware, load it.

xinglin assets path smollm2-135m        the default base as a ready-to-load folder
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig
from transformers.distributed import DistributedConfig
from transformers.utils import logging as transformers_logging

from xinglin import assets
from xinglin.errors import UserError, nearest, one_line
from xinglin.tokenizer import Tokenizer

log = logging.getLogger(__name__)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

DEFAULT_BASE = "smollm2-135m"
_MODELSCOPE = "modelscope:"
_FOLDER = "model-1"  # inside the asset's cache folder; raise it when the preparation changes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


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
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".model-"))
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


def _gguf_folder(file: Path) -> Path:
    """A user's GGUF file as a model folder in the cache, made anew when the file changes.

    Raises:
        UserError: transformers cannot read it.
    """
    state = file.stat()
    mark = hashlib.sha256(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = assets.cache_dir() / "gguf" / f"{file.stem}-{mark}"
    if not (folder / "config.json").is_file():
        try:
            _convert_gguf(file.resolve(), folder)
        except Exception as error:  # a broken file may raise nearly anything
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the file's
            raise UserError(f"base_model {str(file)!r}: not a GGUF file to read ({one_line(error)})") from None
    return folder


@cache  # a run asks for tokenizer and model apart
def _from_modelscope(name: str) -> str:
    """Download a model of ModelScope, or find it in its cache.

    Raises:
        UserError: its library is missing, or the model cannot be had.
    """
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise UserError(f"base_model {_MODELSCOPE}{name}: needs modelscope; pip install modelscope") from None
    try:
        return str(snapshot_download(name))
    except Exception as error:  # a network may raise nearly anything
        raise UserError(f"base_model {_MODELSCOPE}{name} cannot be had: {one_line(error)}") from None


def find_base(name: str) -> str:
    """Resolve `--base_model` to a model folder or a hub id.

    Args:
        name: a model folder, a .gguf file, the default base's name, a hub id `org/name`, or `modelscope:org/name`.

    Raises:
        UserError: nothing of that name; the message says what was looked for.
    """
    if name.startswith(_MODELSCOPE):
        return _from_modelscope(name.removeprefix(_MODELSCOPE))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"base_model {name!r}: the folder has no config.json{_found_in(path)}")
        return str(path)
    if path.suffix == ".gguf" and path.is_file():
        return str(_gguf_folder(path))
    if name in assets.ASSETS:
        return str(asset_path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return name  # a hub id; from_pretrained says whether the hub has it
    beside = [file.parent.name for file in path.parent.glob("*/config.json")] if path.parent.is_dir() else []
    raise UserError(
        f"base_model {name!r}: no such folder (working folder {Path.cwd()}){nearest(path.name, beside)}; "
        f"give a model folder, or {DEFAULT_BASE} for the default base"
    )


def _found_in(folder: Path) -> str:
    """What else a folder holds, for one that is no model's."""
    if (folder / "adapter_config.json").is_file():
        return "; it holds an adapter: give its base here, and the adapter as --lora_weights"
    files = sorted(file.name for file in folder.glob("*.gguf"))
    return f"; give the file, {folder / files[0]}" if files else ", so it is no transformers model"


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Precision:
    """The number format the base runs in, and why."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """bf16, fp16 or fp32."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)

    @property
    def half(self) -> bool:
        """Whether it is one of 16 bits."""
        return self.dtype != torch.float32


def choose_precision(asked: str = "auto") -> Precision:
    """Half precision where the hardware computes in it: bf16, else fp16 (GPU, with loss scaling), else fp32."""
    if asked in PRECISIONS:
        return Precision(PRECISIONS[asked], "asked for")
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "the GPU has bf16 in hardware")
        return Precision(torch.float16, "the GPU has no bf16; fp16 with loss scaling")
    # torch has no public question for this
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if getattr(torch.cpu, question, lambda: False)():
            return Precision(torch.bfloat16, "the CPU has bf16 in hardware")
    return Precision(torch.float32, "the CPU has no bf16 in hardware")


def keep_memory() -> None:
    """Let glibc keep what is freed: large tensors come and go, and taking their memory anew costs a tenth of the time.

    oneDNN, too, would keep 1,024 compiled matmuls with their buffers.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    libc = ctypes.CDLL(None)
    if not torch.cuda.is_available() and hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def load_base(name: str, precision: Precision, quantization: str = "", shards: int = 1) -> Any:
    """Load a causal language model onto the GPU, if there is one, else the CPU.

    Args:
        quantization: `4bit` (NF4, double quantisation), `8bit` (LLM.int8), or an empty string for none. Matmuls and
            what is not quantised (embeddings, norms, output layer) are in `precision`.
        shards: over how many processes (all that there are) to shard it with FSDP2. Each reads its part alone; of a
            base in 4 bit, each reads all of it into the machine's memory first.

    Raises:
        UserError: the folder or hub id cannot be loaded, or bitsandbytes is missing.
    """
    found = find_base(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": precision.dtype}
    if quantization:
        options["quantization_config"] = _quantization(quantization, precision, shards > 1)
    if quantization and shards > 1:
        options["device_map"] = "cpu"  # a GPU may not hold it whole
    elif shards > 1:
        options["distributed_config"] = DistributedConfig(fsdp_size=shards)
    try:
        model = AutoModelForCausalLM.from_pretrained(found, **options)
    except Exception as error:  # a broken file may raise nearly anything
        raise UserError(f"base_model {name!r} cannot be loaded: {one_line(error)}") from None
    model.config.use_cache = False
    if not quantization:
        return model if shards > 1 else model.to(device)
    for module in _repacking(model):
        if module.out_features % 32 or module.in_features % 64:  # the kernel for repacked layers would fail
            module.support_avx512bf16_for_cpu = False
    return _shard_4bit(model, device, shards) if shards > 1 else model  # loaded where it stays


def _shard_4bit(model: Any, device: str, shards: int) -> Any:
    """Shard a base in 4 bit with FSDP2, which transformers does not do; what trains is put on it afterwards."""
    keep_trainable(model)  # repacked weights could not be gathered
    quantised = [module for module in model.modules() if hasattr(module, "quant_state")]
    for module in quantised:
        module.quant_state = module.weight.quant_state  # the sharded weight has none; forward looks here too
    mesh = init_device_mesh(device, (shards,))
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in quantised:  # what PEFT reads from a weight
        module.weight.compress_statistics = module.quant_state.nested
        module.weight.quant_type = module.quant_state.quant_type
    model._is_distributed_loading_by_transformers = True  # so that the Trainer treats it as those that are
    return model


def _quantization(bits: str, precision: Precision, sharded: bool) -> BitsAndBytesConfig:
    if not importlib.util.find_spec("bitsandbytes"):
        raise UserError(
            f"loading in {bits} needs bitsandbytes; pip install bitsandbytes (or pip install 'xinglin[qlora]')"
        )
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.dtype,
        bnb_4bit_quant_storage=precision.dtype if sharded else torch.uint8,  # FSDP's groups are of one dtype
    )


def agree(model: Any, tokenizer: Tokenizer) -> None:
    """Make a base say the same special ids as its tokenizer, and say so where it did not.

    Old LLaMA checkpoints name <unk> or BOS as the end, and -1 as padding. A config that lists several ends keeps them.

    Raises:
        UserError: the base has no embedding for the tokenizer's end.
    """
    config, end = model.config.get_text_config(), tokenizer.eos_id
    embeddings = model.get_input_embeddings()
    if end >= embeddings.num_embeddings:
        raise UserError(
            f"the tokenizer's end is id {end}, the base knows {embeddings.num_embeddings} tokens: they are not of one "
            "model; take the base's own tokenizer files"
        )
    stated = getattr(config, "eos_token_id", None)
    if stated is not None and end not in (stated if isinstance(stated, list) else [stated]):
        log.warning("base: its config ends with id %s, its tokenizer with %d; taking %d", stated, end, end)
    for part in (config, model.generation_config):
        stated = getattr(part, "eos_token_id", None)
        if end not in (stated if isinstance(stated, list) else [stated]):
            part.eos_token_id, part.bos_token_id = end, tokenizer.inner.bos_token_id
        pad = getattr(part, "pad_token_id", None)
        if pad is None or not 0 <= pad < embeddings.num_embeddings:
            part.pad_token_id = tokenizer.pad_id
    embeddings.padding_idx = None  # else that row would never learn


def keep_trainable(model: Any) -> Any:
    """Stop bitsandbytes from repacking 4-bit layers for inference.

    On CPUs with AVX512-BF16 an evaluation would repack them for good. A repacked layer is twice as fast, but hands back
    no gradient, and is changed a little by every saving.
    """
    for module in _repacking(model):
        module.support_avx512bf16_for_cpu = False
    return model


def _repacking(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if getattr(module, "support_avx512bf16_for_cpu", False))


def print_asset_path(config: assets.AssetsPath) -> None:
    """Print the path of `xinglin assets path`, alone on its line."""
    print(asset_path(config.name))
