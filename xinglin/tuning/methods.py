"""Tuning methods. LoRA: a low-rank update beside frozen linear layers (Hu et al. 2021, arXiv:2106.09685)."""

from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from xinglin.errors import UserError, one_line
from xinglin.tuning.options import FinetuneConfig


def target_modules(asked: str | list[str]) -> str | list[str]:
    """`all-linear`, or a list from `q_proj,v_proj`, `[q_proj,v_proj]` or a real list."""
    if isinstance(asked, str):
        names = [name.strip(" '\"") for name in asked.strip("[]").split(",")]
        return names[0] if names == ["all-linear"] else names
    return list(asked)


def attach_lora(model: Any, config: FinetuneConfig) -> PeftModel:
    """Freeze the base and put a fresh LoRA beside its linear layers; the adapter's weights are fp32.

    Raises:
        UserError: a target module that the base does not have.
    """
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=target_modules(config.lora_target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if hasattr(m, "in_features")})
        raise UserError(f"lora_target_modules: {one_line(error)} The base has: {', '.join(linear)}") from None


def trainable_parameters(model: Any) -> int:
    """How many numbers training changes."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
