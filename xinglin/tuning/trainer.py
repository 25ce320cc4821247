"""transformers' Trainer with our step, our order of the data and our files."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_callback import TrainerControl

from xinglin.dataset.encode import Encoded, Encoding
from xinglin.errors import UserError
from xinglin.tuning.methods import load_weights, save_weights
from xinglin.tuning.mixing import Mixture
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import collate, micro_batches, token_losses


class _EpochSampler(Sampler[int]):
    """The order of a mixture's epochs; the Trainer says which epoch it is."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.epoch = mixture, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self.mixture.epoch(self.epoch))

    def __len__(self) -> int:
        return sum(self.mixture.counts)


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """A global batch is one item of the loader, split by a token budget inside the step.

    Loss, in training and evaluation, is the mean over target tokens of the whole batch or set.
    """

    def __init__(self, config: FinetuneConfig, mixture: Mixture, encoding: Encoding, **kwargs: Any) -> None:
        super().__init__(**kwargs, data_collator=lambda rows: {"rows": rows})
        budget = config.max_tokens_per_micro_batch or (8192 if torch.cuda.is_available() else 1024)
        self.limits = (config.micro_batch_size, budget)
        self.mixture, self.encoding, self.pad_id = mixture, encoding, encoding.tokenizer.pad_id
        self.save_format = config.save_format
        self.tokens_seen = 0  # in this session; a resumed run does not count what it did not do

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _EpochSampler(self.mixture)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over a global batch; the gradient is that of the mean over its target tokens."""
        model.train()
        rows: list[Encoded] = inputs["rows"]
        targets = sum(row.targets for row in rows)
        self.tokens_seen += sum(len(row.input_ids) for row in rows)
        total = torch.zeros((), device=self.args.device)
        for group in micro_batches(rows, *self.limits):
            losses_N, _ = token_losses(model, collate(group, self.pad_id, self.args.device))
            loss = losses_N.sum() / targets
            if not torch.isfinite(loss):
                where = ", ".join(row.id for row in group[:3])
                raise UserError(f"loss is {loss.item()} at step {self.state.global_step + 1} (rows: {where})")
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per target token over the whole evaluation set."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        started, total, count = time.perf_counter(), 0.0, 0
        for group in micro_batches(rows, *self.limits):
            losses_N, _ = token_losses(self.model, collate(group, self.pad_id, self.args.device))
            total, count = total + float(losses_N.sum()), count + losses_N.numel()
        metrics = {
            f"{metric_key_prefix}_loss": total / count,
            f"{metric_key_prefix}_runtime": time.perf_counter() - started,
        }
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.accelerator.unwrap_model(self.model), folder, self.save_format)
        self.encoding.template.save(folder, self.encoding.tokenizer.begins)  # so it can be asked

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_weights(self.model, Path(self.state.best_model_checkpoint))
