"""Our trainer, as `finetune` runs it, with one of its parts switched off if asked; the peers' options and output file.

python benchmarks/train_speed/ours.py --without packing --output OUT.json --base_model DIR …
"""

import argparse
import json
import tempfile
import time
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import TrainerCallback

from xinglin import __version__
from xinglin.console import set_up_logging
from xinglin.tuning import attention, lora, losses, packing, train, trainer
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.runlog import LOG_FILE, read_log

PATCHES: dict[str, Any] = {}
"""What takes each part away, by the part's name."""


def part(name: str) -> Any:
    """Enter a function among `PATCHES`."""
    return lambda function: PATCHES.setdefault(name, function)


@part("packing")
def _no_packing() -> None:
    """Rows go through the model one by one."""
    trainer.isolates = lambda *_, **__: False


@part("shared-beginning")
def _no_shared_beginning() -> None:
    """Every row computes its own beginning."""
    packing.shared_beginning = lambda rows: 0


@part("answer-logits")
def _no_answer_logits() -> None:
    """Logits of all tokens are computed, then those at targets are taken."""

    def token_losses(model: Any, packed: Any, *, alone: bool = False) -> Any:
        assert not alone
        with attention.packing(model):
            logits_1TV = model(packed.ids_1T, use_cache=False, position_ids=packed.positions_1T, pack=packed).logits
        losses_M = losses._CrossEntropy.apply(logits_1TV.flatten(0, 1)[packed.sources_M], packed.targets_M)
        return losses_M[packed.distinct_N], packed.rows_N

    trainer.token_losses = token_losses


@part("cross-entropy")
def _no_cross_entropy() -> None:
    """The answers' logits are made, and PyTorch's takes an fp32 copy of them."""

    class Whole:
        @staticmethod
        def apply(logits_MV: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(logits_MV.float(), targets_M, reduction="none")

    losses._CrossEntropy = Whole
    losses._without_logits = lambda *_: None


@part("attention")
def _no_attention() -> None:
    """PyTorch's scaled_dot_product_attention, row by row, with a mask where a beginning is shared."""

    class RowByRow:
        @staticmethod
        def apply(query_HTD: Any, key_GTD: Any, value_GTD: Any, lengths: Any, rule: Any) -> torch.Tensor:
            outputs = []
            for number, (start, end) in enumerate(pairwise(accumulate(lengths, initial=0))):
                shared = lengths[0] if number else 0
                keys, values = (torch.cat([x[:, :shared], x[:, start:end]], 1)[None] for x in (key_GTD, value_GTD))
                queries = query_HTD[None, :, start:end]
                mask = None
                if shared:
                    mask = torch.ones(end - start, shared + end - start, dtype=torch.bool).tril(shared)
                options = {"is_causal": mask is None, "scale": rule.scaling, "enable_gqa": True}
                outputs.append(F.scaled_dot_product_attention(queries, keys, values, mask, **options)[0])
            return torch.cat(outputs, 1).transpose(0, 1)

    attention.Blockwise = RowByRow


@part("lora")
def _no_lora() -> None:
    """PEFT's own LoRA layers."""
    lora.quicken = lambda model: None


@part("kept-memory")
def _no_kept_memory() -> None:
    """Glibc's and oneDNN's own habits."""
    train._keep_memory = lambda: None


class Meter(TrainerCallback):
    """Times the optimizer steps, and what comes before the first."""

    def __init__(self):
        self.began = 0.0
        self.marks: list[float] = []

    def on_train_begin(self, *_, **__) -> None:
        """Before the preflight."""
        self.began = time.perf_counter()

    def on_step_begin(self, *_, **__) -> None:
        """Where the first step begins: what is measured and compiled before it is not part of it."""
        self.marks = self.marks or [time.perf_counter()]

    def on_step_end(self, *_, **__) -> None:
        """Where a step ends and the next begins."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())


def metered(meter: Meter, tokens: list[int], start: str) -> type:
    """Our trainer, watched, from another start of the adapter."""

    class Metered(trainer.AnswerTrainer):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            self.add_callback(meter)
            if start:
                tensors = load_file(start)
                assert not set_peft_model_state_dict(self.model, tensors).unexpected_keys

        def training_step(self, model: Any, inputs: Any, *rest, **more) -> torch.Tensor:
            tokens.append(sum(len(row.input_ids) for row in inputs["rows"]))
            return super().training_step(model, inputs, *rest, **more)

    return Metered


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base_model", "data_path", "prompt_template", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("batch_size", "micro_batch_size", "cutoff_len", "lora_r", "lora_alpha", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--max_tokens_per_micro_batch", type=int, default=0)
    parser.add_argument("--num_epochs", type=float, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--lora_target_modules", required=True)
    parser.add_argument("--lora_init", default="")
    parser.add_argument("--base_dtype", choices=("bf16", "fp32"), required=True)
    parser.add_argument("--compile", choices=("true", "false"), default="false")
    parser.add_argument("--without", choices=PATCHES, help="the part to switch off")
    return parser.parse_args()


def main() -> None:
    """Train, and write what happened."""
    asked = parse()
    set_up_logging()
    if asked.without:
        PATCHES[asked.without]()
    meter, tokens = Meter(), []
    train.AnswerTrainer = metered(meter, tokens, asked.lora_init)
    same = ("base_model", "data_path", "batch_size", "micro_batch_size", "cutoff_len", "lora_r", "lora_alpha", "seed")
    same += ("num_epochs", "learning_rate", "lora_target_modules", "compile", "max_tokens_per_micro_batch")
    with tempfile.TemporaryDirectory() as name:
        config = FinetuneConfig(
            **{option: getattr(asked, option) for option in same},
            output_dir=str(Path(name) / "run"),
            prompt_template_name=asked.prompt_template,
            precision=asked.base_dtype,
            val_set_size=0,
        )
        metrics = train.finetune(config)
        history = read_log(Path(name) / "run" / LOG_FILE)
    result = {
        "versions": {"xinglin": __version__, "torch": torch.__version__},
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "step_seconds": [end - start for start, end in zip(meter.marks, meter.marks[1:], strict=False)],
        "step_tokens": tokens,
        "tokens": sum(tokens),
        "seconds": metrics["seconds"],
        "seconds_before_first_step": meter.marks[0] - meter.began,
        "peak_memory_mb": metrics["gpu_memory_mb"] or metrics["peak_memory_mb"],
    }
    Path(asked.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
