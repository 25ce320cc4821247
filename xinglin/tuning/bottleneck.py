"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): two small networks in every Transformer layer.

    h → h + up(activation(down(h)))      on the outputs of attention and of the feed-forward part, before they are added

The base stays frozen and unedited: a hook behind each `self_attn` and `mlp` changes what it hands on. `up` starts at
zero, so a fresh adapter changes nothing. The folder is PEFT's in form, and the verbs are PEFT's:

    adapter_config.json          {"peft_type": "BOTTLENECK", "bottleneck_size": 64, "non_linearity": "silu", …}
    adapter_model.safetensors    base_model.model.model.layers.0.self_attn.bottleneck.down.weight  [64, 576]
                                                                                     .down.bias    [64]
                                                                                     .up.weight    [576, 64]
                                                                                     .up.bias      [576]

Being non-linear it cannot be folded into the base, and only this program reads it.

Shape suffixes: B rows, T positions, D width of the base.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from torch import nn
from transformers.activations import ACT2FN

from xinglin.errors import UserError, nearest
from xinglin.records import write_json

PEFT_TYPE = "BOTTLENECK"
SITES = ("self_attn", "mlp")
"""What LLaMA, Qwen, Gemma and Mistral call the two halves of a layer."""
ACTIVATIONS = ("silu", "relu", "gelu", "gelu_new", "tanh", "sigmoid", "leaky_relu", "relu2", "quick_gelu", "swish")
"""Those of transformers that have no weights of their own."""
_PREFIX = "base_model.model."  # PEFT's, so that keys of both kinds name the base's modules alike


@dataclass(frozen=True)
class BottleneckConfig:
    """What `adapter_config.json` holds.

    Attributes:
        bottleneck_size: width of the adapter's inner layer.
        non_linearity: its activation, by transformers' name (`silu`, which others call swish, `relu`, `gelu`, …).
        dropout: on the adapter's input, in training.
    """

    bottleneck_size: int = 64
    non_linearity: str = "silu"
    dropout: float = 0.0
    base_model_name_or_path: str = ""
    task_type: str = "CAUSAL_LM"
    peft_type: str = field(default=PEFT_TYPE, init=False)

    @classmethod
    def load(cls, folder: str | Path) -> "BottleneckConfig":
        """Read it from an adapter's folder; keys that other versions add are left out.

        Raises:
            UserError: the folder holds another kind of adapter.
        """
        stored = json.loads((Path(folder) / "adapter_config.json").read_text("utf-8"))
        if stored.get("peft_type") != PEFT_TYPE:
            raise UserError(f"{folder}: its peft_type is {stored.get('peft_type')!r}, not a bottleneck adapter's")
        names = [name for name, one in cls.__dataclass_fields__.items() if one.init]
        return cls(**{name: stored[name] for name in names if name in stored})

    def __post_init__(self) -> None:
        if self.non_linearity not in ACTIVATIONS:
            near = nearest(self.non_linearity, ACTIVATIONS)
            raise UserError(f"non_linearity {self.non_linearity!r}: have {', '.join(ACTIVATIONS)}{near}")


class Bottleneck(nn.Module):
    """One adapter: down-projection, activation, up-projection, inner residual. Its weights are fp32."""

    def __init__(self, width: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.down = nn.Linear(width, config.bottleneck_size, dtype=torch.float32)
        self.activation = ACT2FN[config.non_linearity]
        self.up = nn.Linear(config.bottleneck_size, width, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Hidden states of the same shape and dtype."""
        inside = self.dropout(hidden_BTD).to(self.down.weight.dtype)  # under autocast the matmuls are half precision
        update_BTD: torch.Tensor = self.up(self.activation(self.down(inside)))
        return hidden_BTD + update_BTD.to(hidden_BTD.dtype)


class BottleneckModel(nn.Module):
    """A base with one or several bottleneck adapters, of which one is active; anything else is asked of the base."""

    def __init__(self, base: Any, config: BottleneckConfig, adapter_name: str = "default") -> None:
        super().__init__()
        base.requires_grad_(False)
        self.base_model = base
        self.peft_config: dict[str, BottleneckConfig] = {}
        self.active_adapter = adapter_name
        self.enabled = True
        self._sites = _sites(base)
        self._hooks = [site.register_forward_hook(self._adapt) for site in self._sites.values()]
        for site in self._sites.values():
            site.add_module("bottleneck", nn.ModuleDict())
        self.add_adapter(adapter_name, config)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":
                raise
            return getattr(self.base_model, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base's own forward."""
        return self.base_model(*args, **kwargs)

    def _adapt(self, site: Any, args: Any, output: Any) -> Any:
        """The hook behind a site; attention hands on a tuple whose first part is the hidden states."""
        if not self.enabled:
            return output
        adapter = site.bottleneck[self.active_adapter]
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    def add_adapter(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Put a fresh adapter on every site, beside those there are."""
        if adapter_name in self.peft_config:
            raise ValueError(f"there is an adapter {adapter_name!r} already")
        width = self.base_model.config.get_text_config().hidden_size
        for site in self._sites.values():
            site.bottleneck[adapter_name] = Bottleneck(width, config).to(self.base_model.device)
        self.peft_config[adapter_name] = config

    def load_adapter(self, folder: str | Path, adapter_name: str) -> None:
        """Load an adapter from its folder, beside those there are.

        Raises:
            UserError: another kind of adapter.
            RuntimeError: its tensors do not fit the base (`methods.require_fit` says so in a user's words).
        """
        self.add_adapter(adapter_name, BottleneckConfig.load(folder))
        try:
            self.load_weights(folder, adapter_name)
        except BaseException:
            self.delete_adapter(adapter_name)
            raise

    def set_adapter(self, adapter_name: str) -> None:
        """Make another adapter the active one."""
        if adapter_name not in self.peft_config:
            raise ValueError(f"no adapter {adapter_name!r}; there are {', '.join(self.peft_config)}")
        self.active_adapter = adapter_name

    def delete_adapter(self, adapter_name: str) -> None:
        """Take one adapter off."""
        if adapter_name == self.active_adapter:
            raise ValueError(f"adapter {adapter_name!r} is active; set another first")
        del self.peft_config[adapter_name]
        for site in self._sites.values():
            del site.bottleneck[adapter_name]

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The plain base, for as long as the block lasts."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    def adapters_to(self, dtype: torch.dtype) -> None:
        """Change the number format of the adapters alone, for answering; training needs fp32."""
        for site in self._sites.values():
            site.bottleneck.to(dtype)

    def unload(self) -> Any:
        """Take everything off and return the base as it was."""
        for hook in self._hooks:
            hook.remove()
        for site in self._sites.values():
            del site.bottleneck
        return self.base_model

    def adapter_state(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """An adapter's tensors under the names that its file has."""
        name = adapter_name or self.active_adapter
        return {
            f"{_PREFIX}{path}.bottleneck.{key}": tensor
            for path, site in self._sites.items()
            for key, tensor in site.bottleneck[name].state_dict().items()
        }

    def save_pretrained(self, folder: str, safe_serialization: bool = True) -> None:
        """Write the active adapter's folder."""
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in self.adapter_state().items()}
        Path(folder).mkdir(parents=True, exist_ok=True)
        if safe_serialization:
            save_file(tensors, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})
        else:
            torch.save(tensors, Path(folder) / "adapter_model.bin")
        write_json(Path(folder) / "adapter_config.json", asdict(self.peft_config[self.active_adapter]))

    @torch.no_grad()
    def load_weights(self, folder: str | Path, adapter_name: str | None = None) -> None:
        """Replace an adapter's weights by those of a folder; a .bin that carries code is refused.

        Raises:
            RuntimeError: tensors are missing, left over, or of another shape.
        """
        stored, own = load_peft_weights(str(folder), device="cpu"), self.adapter_state(adapter_name)
        wrong = sorted(key for key in {*stored, *own} if key not in stored or key not in own)
        wrong = wrong or [key for key in own if own[key].shape != stored[key].shape]
        if wrong:
            raise RuntimeError(f"{len(wrong)} tensors of {folder} do not fit the base (first: {wrong[0]})")
        for key, tensor in own.items():
            tensor.copy_(stored[key])

    @classmethod
    def from_pretrained(cls, base: Any, folder: str | Path, adapter_name: str = "default") -> "BottleneckModel":
        """Put a saved adapter on a base.

        Raises:
            UserError: another kind of adapter, or a base without the sites.
            RuntimeError: as `load_weights`.
        """
        model = cls(base, BottleneckConfig.load(folder), adapter_name)
        try:
            model.load_weights(folder)
        except BaseException:
            model.unload()
            raise
        return model


def _sites(base: Any) -> dict[str, Any]:
    """The attention and feed-forward part of every layer, by their paths.

    Raises:
        UserError: a base whose layers are built otherwise.
    """
    layers: Any = getattr(base.get_decoder(), "layers", ())
    missing = sorted({name for layer in layers for name in SITES if not hasattr(layer, name)})
    if not len(layers) or missing:
        has = ", ".join(name for name, _ in layers[0].named_children()) if len(layers) else "no list of layers"
        raise UserError(
            f"method adapter needs layers with {' and '.join(SITES)} (as LLaMA, Qwen, Gemma and Mistral have); "
            f"{type(base).__name__} has {has}; take --method lora"
        )
    wanted = {id(getattr(layer, name)) for layer in layers for name in SITES}
    return {path: module for path, module in base.named_modules() if id(module) in wanted}
