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
        output_path: write the answers as Prediction records (JSON Lines) and generate in batches; the same command
            goes on where a stop left it.
        ground: answer from facts of the graph: red flags first, then facts into `input`, the answer checked against
            them; where the graph has nothing, say so and refer.
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        knowledge: a folder of your own documents (Markdown, text); passages that answer come before the graph's facts.
        max_new_tokens: longest answer in tokens; without it as stored with the weights, else 256.
        temperature: 0 always takes the likeliest token; above, tokens are drawn.
        top_p: drawn from the likeliest tokens that have this share of the probability together.
        repetition_penalty: above 1 makes tokens that stood before less likely, those of the facts too.
        seed: of what is drawn.
        batch_size: most answers generated at once when writing to output_path.
        batch_tokens: most tokens of a batch, the room for answers included.
        backend: what generates; vllm (if it is installed; a GPU) for many questions to output_path.
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
    knowledge: str = ""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    batch_size: int = 64
    batch_tokens: int = 16_384
    backend: Literal["transformers", "vllm"] = "transformers"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    load_4bit: bool = False
    load_8bit: bool = False


@dataclass(frozen=True)
class ChatConfig:
    """Talk with the model in the terminal, grounded in the graph unless told otherwise.

    Args:
        base_model: as in infer.
        lora_weights: the adapter's folder; several joined by commas stand beside one base, /adapter changes between
            them; empty for the plain base.
        prompt_template: as in infer.
        enable_thinking: as in infer.
        ground: answer from facts of the graph; without it the model answers by itself, which is not to be trusted.
        graph: as in infer.
        knowledge: as in infer.
        max_new_tokens: as in infer.
        temperature: as in infer.
        top_p: as in infer.
        repetition_penalty: as in infer.
        seed: as in infer.
        precision: number format of the base; auto takes what the machine has in hardware.
    """

    base_model: str
    lora_weights: str = ""
    prompt_template: str = "auto"
    enable_thinking: Literal["auto", "true", "false"] = "auto"
    ground: bool = True
    graph: str = "cmekg"
    knowledge: str = ""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
