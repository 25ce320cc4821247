"""The options of `finetune`; no torch here, so that a mistyped flag is answered at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune a base model on instruction data or conversations.

    Args:
        base_model: a local model folder, a .gguf file, a hub id `org/name`, `modelscope:org/name`, or smollm2-135m for
            the default base.
        data_path: instruction data ({"instruction", "input", "output"}), ShareGPT or messages, told apart by content;
            several files are joined by commas.
        output_dir: where the adapter (or, with --method full, the model), its prompt, metrics and curves go.
        data_weights: share of each data file in an epoch, such as 0.8,0.2; an epoch is one pass over the first file.
            Without weights, every record of every file comes once an epoch.
        method: lora, qlora (the base in 4 bit), adapter (two bottleneck networks in every layer), or full.
        prompt_template_name: auto (the base's own chat template if it has one, else med_template), chat, a packaged
            template, or a file: .json as alpaca-lora's, or a .jinja chat template.
        enable_thinking: for chat templates with a thinking switch: auto thinks where the data do.
        batch_size: records per optimizer step, over all processes.
        micro_batch_size: at most so many records in one forward pass; must divide batch_size.
        max_tokens_per_micro_batch: at most so many tokens in one forward pass, a beginning that its records share
            counted once (changes memory, not the result); 0 takes 2048 on a CPU and 8192 on a GPU.
        num_epochs: passes over the data.
        learning_rate: peak of the linear schedule; 3e-4 unless given, 2e-5 for method full.
        warmup_ratio: share of the steps over which the learning rate rises to its peak.
        cutoff_len: longest record in tokens, the end token included.
        val_set_size: records held back for eval_loss: a count, or a fraction below 1; 0 for none.
        eval_steps: evaluate and save every so many steps; 0 does so once an epoch.
        save_steps: save a checkpoint every so many steps besides; 0 saves at evaluations, or once an epoch.
        save_total_limit: checkpoints to keep; the best one is kept besides.
        early_stopping_patience: stop when eval_loss was not the lowest so many times in a row; 0 never does.
        lora_r: rank of the update.
        lora_alpha: scale of the update; it is multiplied by lora_alpha / lora_r.
        lora_dropout: dropout on the adapter's input; the records of a micro-batch share the mask of their common
            beginning.
        lora_target_modules: names of linear layers, a list of them, or all-linear.
        load_8bit: load the base in 8 bit (LLM.int8) for lora, or in place of qlora's 4 bit.
        bottleneck_size: width of a bottleneck adapter's inner layer.
        non_linearity: activation inside a bottleneck adapter: silu, relu, gelu, tanh, …
        adapter_dropout: dropout on a bottleneck adapter's input.
        train_on_inputs: learn the prompt's tokens too.
        compile: fuse the work between the matmuls of every layer (torch.compile); costs up to a minute at the start and
            needs a C++ compiler; auto does so for long runs on a GPU.
        group_by_length: accepted; rows are packed without padding, so it has nothing to save.
        precision: number format of the base; auto takes what the machine has in hardware.
        fsdp: shard the base over the processes of torchrun (FSDP2), for one that does not fit a single GPU.
        save_format: adapter_model.safetensors or adapter_model.bin.
        seed: order of the data and start of the adapter.
        overwrite_output_dir: replace the run that output_dir holds.
        resume_from_checkpoint: a checkpoint-N folder of an interrupted run, or True for the last in output_dir (from
            the beginning where there is none yet).
        report_to: where to send curves: tensorboard, wandb, swanlab, or several joined by commas; none for nowhere.
        wandb_project: project of the run in W&B and in SwanLab.
        wandb_run_name: names the run in W&B and in SwanLab; without report_to it asks for wandb, where that is
            installed and logged in, or offline.
        wandb_watch: what W&B watches: gradients, parameters, all or false.
        wandb_log_model: whether W&B uploads checkpoints: checkpoint, end or false.
    """

    base_model: str
    data_path: str | list[str]
    output_dir: str
    data_weights: str | list[float] = ""
    method: Literal["lora", "qlora", "adapter", "full"] = "lora"
    prompt_template_name: str = "auto"
    enable_thinking: Literal["auto", "true", "false"] = "auto"
    batch_size: int = 128
    micro_batch_size: int = 4
    max_tokens_per_micro_batch: int = 0
    num_epochs: float = 10
    learning_rate: float | None = None
    warmup_ratio: float = 0.0
    cutoff_len: int = 512
    val_set_size: int | float = 0.05
    eval_steps: int = 0
    save_steps: int = 0
    save_total_limit: int = 1
    early_stopping_patience: int = 0
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: str | list[str] = "all-linear"
    load_8bit: bool = False
    bottleneck_size: int = 64
    non_linearity: str = "silu"
    adapter_dropout: float = 0.0
    train_on_inputs: bool = False
    compile: Literal["auto", "true", "false"] = "auto"
    group_by_length: bool = False
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    fsdp: bool = False
    save_format: Literal["safetensors", "bin"] = "safetensors"
    seed: int = 42
    overwrite_output_dir: bool = False
    resume_from_checkpoint: str | bool | None = None
    report_to: str | list[str] = "none"
    wandb_project: str = ""
    wandb_run_name: str = ""
    wandb_watch: str = ""
    wandb_log_model: str = ""


@dataclass(frozen=True)
class PlotConfig:
    """Draw the curves of one run, or of several over each other: `xinglin plot RUN [RUN…]`.

    Args:
        runs: the runs' folders, also while they train; up to 8, named before any flag.
        output_path: where the picture and the page go, a path without .png and .html, or a folder, where they are
            called `curves`; when empty, the folder of a single run, and the working folder for several.
    """

    runs: list[str]
    output_path: str = ""
