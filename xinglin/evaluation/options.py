"""The options of `compare`; no torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CompareConfig:
    """Compare the base, the tuned model and the tuned model with facts, beside two controls.

    Args:
        base_model: a local model folder, a hub id, or smollm2-135m for the default base.
        lora_weights: the adapter's folder.
        records_path: full records of `data build`; the split unseen_disease is asked.
        output_dir: where report.md, report.html and report.json go.
        num_questions: how many questions about unseen diseases.
        max_new_tokens: longest answer in tokens.
        batch_size: answers generated at once.
        precision: number format of the base; auto takes what the machine has in hardware.
        seed: choice of questions and of the worked examples.
    """

    base_model: str
    lora_weights: str
    records_path: str
    output_dir: str = "runs/compare"
    num_questions: int = 60
    max_new_tokens: int = 128
    batch_size: int = 32
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    seed: int = 42
