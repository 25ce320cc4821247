"""Tuning methods: what is put on the base, how it is saved, and how it is put on again.

    lora      a low-rank update beside linear layers (Hu et al. 2021, arXiv:2106.09685); base in half precision
    qlora     the same beside a base in 4 bit: NF4, double quantisation (Dettmers et al. 2023, arXiv:2305.14314)
    adapter   two bottleneck networks in every layer (`bottleneck.py`); base in half precision
    full      every weight; fp32 masters, computed in half precision

What training changes is fp32 in all of them.
"""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import safe_open
from torch.distributed.tensor import DTensor, distribute_tensor

from xinglin.config import listed
from xinglin.errors import UserError, nearest, one_line
from xinglin.tuning import lora, processes
from xinglin.tuning.bottleneck import PEFT_TYPE, BottleneckConfig, BottleneckModel
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)

LEARNING_RATES = {"lora": 3e-4, "qlora": 3e-4, "adapter": 3e-4, "full": 2e-5}
"""Where none is asked for: the report's, and for all weights the usual tenth or less of it."""
_OPTIONS = {
    "lora": ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
    "adapter": ("bottleneck_size", "non_linearity", "adapter_dropout"),
}
_KINDS: dict[str, tuple[str | None, dict[str, str]]] = {
    "lora": ("LORA", {"r": "lora_r", "lora_alpha": "lora_alpha"}),
    "qlora": ("LORA", {"r": "lora_r", "lora_alpha": "lora_alpha"}),
    "adapter": (PEFT_TYPE, {"bottleneck_size": "bottleneck_size", "non_linearity": "non_linearity"}),
    "full": (None, {}),
}
"""The peft_type that a method's folder states, and which of its settings are which options."""
_LORA = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<part>A|B)(?:\.\w+)?\.weight")
_BOTTLENECK = re.compile(r"base_model\.model\.(?P<path>.+)\.bottleneck\.(?P<part>down|up)\.weight")
_STARTS_AT_ZERO = re.compile(r"\.lora_B\.|\.bottleneck\..*\.up\.")


def quantization(config: FinetuneConfig) -> str:
    """How the base is to be loaded: `4bit`, `8bit`, or an empty string for whole numbers of its precision.

    Raises:
        UserError: 8 bit for a method that needs the base whole.
    """
    if config.load_8bit and config.method not in ("lora", "qlora"):
        raise UserError(f"load_8bit goes with --method lora or qlora, not {config.method}")
    return "8bit" if config.load_8bit else "4bit" if config.method == "qlora" else ""


def attach(model: Any, config: FinetuneConfig) -> Any:
    """Make a base trainable by the chosen method: a PeftModel, a BottleneckModel, or the base itself.

    Raises:
        UserError: a target module that the base does not have, an unknown activation, or layers of another build.
    """
    if getattr(model, "is_quantized", False) and config.method in ("adapter", "full"):
        raise UserError(f"method {config.method} needs a base of whole numbers, this one is quantised; take lora")
    if config.method == "full":
        return model.requires_grad_(True)
    if config.method == "adapter":
        settings = BottleneckConfig(
            config.bottleneck_size, config.non_linearity, config.adapter_dropout, config.base_model
        )
        return BottleneckModel(model, settings)
    return _attach_lora(model, config)


def target_modules(asked: str | list[str]) -> str | list[str]:
    """`all-linear`, or a list from `q_proj,v_proj`, `[q_proj,v_proj]` or a real list."""
    names = listed(asked)
    return names[0] if names == ["all-linear"] else names


def _attach_lora(model: Any, config: FinetuneConfig) -> PeftModel:
    targets = target_modules(config.lora_target_modules)
    modules = [f".{path}" for path, _ in model.named_modules()]
    linear = sorted({path.rsplit(".", 1)[-1] for path, m in model.named_modules() if hasattr(m, "in_features")})
    listed = targets if isinstance(targets, list) else []
    unknown = [name for name in listed if not any(path.endswith(f".{name}") for path in modules)]
    if unknown:
        raise UserError(
            f"lora_target_modules: the base has no linear layer {unknown[0]!r}{nearest(unknown[0], linear)}; "
            f"it has: {', '.join(linear)}"
        )
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        tuned = get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"lora_target_modules: {one_line(error)}; the base has: {', '.join(linear)}") from None
    tuned.peft_config["default"].base_model_name_or_path = config.base_model  # not where its files lie here
    lora.quicken(tuned)
    return tuned


def trainable_parameters(model: Any) -> int:
    """How many numbers training changes."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def save_weights(model: Any, folder: Path, save_format: str = "safetensors") -> None:
    """Write what training changed: an adapter's folder, or the whole model's.

    All processes call it, since a sharded model is gathered on the way; the first writes.
    """
    if isinstance(model, PeftModel | BottleneckModel):
        if processes.rank() == 0:
            options = {"state_dict": _trained(model)} if isinstance(model, PeftModel) else {}
            model.save_pretrained(str(folder), safe_serialization=save_format == "safetensors", **options)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    else:
        write_model(model, folder, save_original_format=False)  # names as the model has them, to load them by


def _trained(model: Any) -> dict[str, torch.Tensor]:
    """The weights that training changes. Asked for more, PEFT would gather the whole of a sharded base."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def write_model(model: Any, folder: Path, **options: Any) -> None:
    """`save_pretrained`, which refuses what some bases say of sampling though they do not sample."""
    generation = model.generation_config
    if not generation.do_sample:
        generation.temperature = generation.top_p = generation.top_k = None
    model.save_pretrained(folder, is_main_process=processes.rank() == 0, **options)


@torch.no_grad()
def load_weights(model: Any, folder: Path) -> None:
    """Put weights that `save_weights` wrote back into the model they are from.

    Raises:
        UserError: a LoRA beside other layers.
    """
    if isinstance(model, PeftModel):
        stored = load_peft_weights(str(folder), device="cpu")
        if stored.keys() != get_peft_model_state_dict(model, state_dict=_trained(model)).keys():
            raise UserError(f"{folder}: tunes other layers; resume with the --lora_target_modules it began with")
        set_peft_model_state_dict(model, stored)
    elif isinstance(model, BottleneckModel):
        model.load_weights(folder)
    else:
        own = model.state_dict()
        for file in sorted(folder.glob("model*.safetensors")):
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - no dictionary
                    stored_tensor, weight = tensors.get_tensor(key), own[key]
                    if isinstance(weight, DTensor):
                        whole = stored_tensor.to(weight.device)
                        stored_tensor = distribute_tensor(whole, weight.device_mesh, weight.placements)
                    weight.copy_(stored_tensor)


def put_on(base: Any, folder: str, base_name: str = "", name: str = "default", holder: Any = None) -> Any:
    """Load an adapter's folder, of PEFT's (old ones too) or ours, onto a base; a .bin that carries code is refused.

    Args:
        base_name: what the user calls the base, for the error.
        name: of the adapter, among others on the same base.
        holder: of adapters of the same kind that the base has already.

    Raises:
        UserError: no usable adapter, one for another base, or one that changes nothing.
    """
    settings = adapter_settings(folder)
    require_fit(base, folder, settings.get("base_model_name_or_path") or "", base_name)
    try:
        if holder is not None:
            holder.load_adapter(folder, name)
            tuned = holder
        elif is_bottleneck(folder):
            tuned = BottleneckModel.from_pretrained(base, folder, name)
        else:
            tuned = PeftModel.from_pretrained(base, folder, name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"lora_weights {folder!r} does not load onto this base: {one_line(error)}") from None
    wanted = str(settings.get("base_model_name_or_path") or "")
    if wanted and base_name and Path(wanted).name != Path(base_name).name:
        log.warning("%s was tuned on %s; the base is %s", folder, wanted, base_name)
    if not alive(tuned, name):
        raise UserError(f"lora_weights {folder!r}: every update is zero, so it changes nothing; was it ever trained?")
    return tuned


class Beside:
    """Several adapters on one base, of which one at most is active; LoRAs and bottleneck adapters alike.

    Args:
        base: a model as it comes; it is asked itself, whichever adapter is active.
        base_name: what the user calls it, for errors.
    """

    def __init__(self, base: Any, base_name: str) -> None:
        self._base, self._name = base, base_name
        self._loras: PeftModel | None = None
        self._bottlenecks: BottleneckModel | None = None
        self._names: dict[str, str] = {}

    def add(self, folder: str) -> None:
        """Put one more on. Each LoRA must come before any bottleneck adapter.

        Raises:
            UserError: as `put_on`.
        """
        if folder in self._names:
            return
        name = f"beside{len(self._names)}"
        if is_bottleneck(folder):
            self._bottlenecks = put_on(self._base, folder, self._name, name, self._bottlenecks)
        else:
            self._loras = put_on(self._base, folder, self._name, name, self._loras)
        self._names[folder] = name
        for key, weight in self._base.named_parameters():
            if f".{name}." in key:
                weight.data = weight.data.to(self._base.dtype)

    def activate(self, folder: str) -> None:
        """Make one adapter the active one; an empty string: none."""
        name = self._names[folder] if folder else ""
        if self._loras is not None:
            if name in self._loras.peft_config:
                self._loras.base_model.enable_adapter_layers()
                self._loras.set_adapter(name)
            else:
                self._loras.base_model.disable_adapter_layers()
        if self._bottlenecks is not None:
            self._bottlenecks.enabled = name in self._bottlenecks.peft_config
            if self._bottlenecks.enabled:
                self._bottlenecks.set_adapter(name)


def is_bottleneck(folder: str) -> bool:
    """Whether a folder holds an adapter of ours rather than one of PEFT's."""
    return bool(adapter_settings(folder).get("peft_type") == PEFT_TYPE)


def adapter_settings(folder: str) -> dict[str, Any]:
    """What a folder's `adapter_config.json` says.

    Raises:
        UserError: no such file, or it is broken.
    """
    path = Path(folder or ".") / "adapter_config.json"
    if not folder or not path.is_file():
        raise UserError(f"lora_weights {folder!r}: no adapter_config.json there; give the folder that finetune wrote")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected an object with peft_type, got {type(settings).__name__}")
    return settings


def require_fit(base: Any, folder: str, wanted: str, base_name: str) -> None:
    """Compare the shapes of an adapter's file with the base, before anything is put on it.

    Raises:
        UserError: nothing in the file that tunes a model, or it is for another base: names the first tensor that
            does not fit, and the base that the adapter asks for.
    """
    try:
        stored = load_peft_weights(folder, device="cpu")
    except Exception as error:  # a broken file may raise nearly anything
        raise UserError(f"lora_weights {folder!r} cannot be read: {one_line(error)}") from None
    found = [(key, match) for key in stored if (match := _LORA.fullmatch(key) or _BOTTLENECK.fullmatch(key))]
    if not found and not any(".lora_embedding_" in key for key in stored):
        named = f"; its first tensor is {next(iter(stored))}" if stored else " at all"
        raise UserError(f"lora_weights {folder!r}: no adapter tensors in it{named}; the run that wrote it lost them")
    for key, match in found:
        shape = tuple(stored[key].shape)
        fits = _fitting(base, match["path"], match["part"], shape)
        if fits != shape:
            needs = f"needs {fits}" if fits else f"has no {match['path']}"
            raise UserError(
                f"lora_weights {folder!r} was made for {wanted or 'another base'}, "
                f"not for {base_name or 'this base'}: {match['path']} {match['part']} is {shape}, the base {needs}"
            )


def _fitting(base: Any, path: str, part: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an adapter's tensor of this rank must have beside a module; empty if there is no such module."""
    try:
        module = base.get_submodule(path)
    except AttributeError:
        return ()
    width = base.config.get_text_config().hidden_size
    inside, outside = getattr(module, "in_features", width), getattr(module, "out_features", width)
    return (shape[0], inside) if part in ("A", "down") else (outside, shape[-1])


def alive(tuned: Any, name: str = "default") -> bool:
    """Whether an adapter changes anything: what starts out as zero no longer is."""
    own = (weight for key, weight in tuned.named_parameters() if _STARTS_AT_ZERO.search(key) and f".{name}." in key)
    last = list(own)
    return not last or any(bool(weight.any()) for weight in last)


def options_of_others(config: FinetuneConfig) -> list[str]:
    """Options that were given though they belong to another method."""
    own = {"lora": "lora", "qlora": "lora", "adapter": "adapter"}.get(config.method)
    fields = FinetuneConfig.__dataclass_fields__
    others = [name for method, names in _OPTIONS.items() if method != own for name in names]
    return [name for name in others if getattr(config, name) != fields[name].default]


def require_same(config: FinetuneConfig, folder: Path) -> None:
    """Compare a checkpoint with the run that is to go on from it.

    Raises:
        UserError: it is of another method, or of an adapter of another size.
    """
    stored = adapter_settings(str(folder)) if (folder / "adapter_config.json").is_file() else {}
    kind, sizes = _KINDS[config.method]
    if stored.get("peft_type") != kind:
        raise UserError(f"resume_from_checkpoint {str(folder)!r}: not a checkpoint of --method {config.method}")
    for key, option in sizes.items():
        if stored.get(key) != getattr(config, option):
            raise UserError(
                f"resume_from_checkpoint {str(folder)!r} has {option} {stored.get(key)}, asked for is "
                f"{getattr(config, option)}; resume with what it began with"
            )


def resolved(config: FinetuneConfig) -> FinetuneConfig:
    """The config with what its method decides filled in, and `True` and `False` read where a path may stand too."""
    named = {"true": True, "false": None, "none": None, "": None}
    resume = named.get(str(config.resume_from_checkpoint).lower(), config.resume_from_checkpoint)
    rate = LEARNING_RATES[config.method] if config.learning_rate is None else config.learning_rate
    return dataclasses.replace(config, learning_rate=rate, resume_from_checkpoint=resume)
