"""The options of `infer`; no torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InferConfig:
    """Ask the base model, or the base with an adapter.

    Args:
        base_model: a local model folder, a .gguf file, a hub id, `modelscope:org/name`, or smollm2-135m for the default
            base; also what `finetune --method full` wrote.
        use_lora: put the adapter on; False asks the plain base.
        lora_weights: the adapter's folder.
        prompt_template: as in finetune; auto takes the one stored with the adapter, else the base's own.
        enable_thinking: for chat templates with a thinking switch; auto is as tuned, else as the template has it.
        instruct_dir: questions, {"instruction", "input"} or conversations; without it, four of our own.
        output_path: write the answers as Prediction records (JSON Lines) and generate in batches.
        ground: answer from facts of the graph: red flags first, then facts into `input`, the answer checked against
            them; where the graph has nothing, say so and refer.
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        max_new_tokens: longest answer in tokens.
        batch_size: answers generated at once when writing to output_path.
        precision: number format of the base; auto takes what the machine has in hardware.
        load_4bit: load the base in 4 bit, as method qlora trains it; less memory, slower on a CPU.
        load_8bit: load the base in 8 bit.
    """

    base_model: str
    use_lora: bool = True
    lora_weights: str = ""
    prompt_template: str = "auto"
    enable_thinking: Literal["auto", "true", "false"] = "auto"
    instruct_dir: str = ""
    output_path: str = ""
    ground: bool = False
    graph: str = "cmekg"
    max_new_tokens: int = 256
    batch_size: int = 16
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    load_4bit: bool = False
    load_8bit: bool = False


@dataclass(frozen=True)
class ChatConfig:
    """Talk with the model in the terminal, grounded in the graph unless told otherwise.

    Args:
        base_model: as in infer.
        lora_weights: the adapter's folder; empty for the plain base.
        prompt_template: as in infer.
        enable_thinking: as in infer.
        ground: answer from facts of the graph; without it the model answers by itself, which is not to be trusted.
        graph: as in infer.
        max_new_tokens: longest answer in tokens.
        precision: number format of the base; auto takes what the machine has in hardware.
    """

    base_model: str
    lora_weights: str = ""
    prompt_template: str = "auto"
    enable_thinking: Literal["auto", "true", "false"] = "auto"
    ground: bool = True
    graph: str = "cmekg"
    max_new_tokens: int = 256
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
