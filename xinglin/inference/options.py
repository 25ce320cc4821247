"""The options of `infer`; no torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InferConfig:
    """Ask the base model, or the base with an adapter.

    Args:
        base_model: a local model folder, a hub id, or smollm2-135m for the default base.
        use_lora: put the adapter on; False asks the plain base.
        lora_weights: the adapter's folder.
        prompt_template: a packaged template or a file; auto takes the one stored with the adapter.
        instruct_dir: questions, a JSON list or JSON Lines of {"instruction", "input"}; without it, four of our own.
        output_path: write the answers as Prediction records (JSON Lines) and generate in batches.
        max_new_tokens: longest answer in tokens.
        batch_size: answers generated at once when writing to output_path.
        precision: number format of the base; auto takes what the machine has in hardware.
        load_8bit: accepted; 8-bit loading comes with the QLoRA method.
    """

    base_model: str
    use_lora: bool = True
    lora_weights: str = ""
    prompt_template: str = "auto"
    instruct_dir: str = ""
    output_path: str = ""
    max_new_tokens: int = 256
    batch_size: int = 16
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    load_8bit: bool = False
