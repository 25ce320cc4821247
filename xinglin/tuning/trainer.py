"""transformers' Trainer with our step, our order of the data and our files."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Sampler
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState

from xinglin.backbone import Precision
from xinglin.dataset.encode import Encoded
from xinglin.errors import OneProcessError, UserError, one_line
from xinglin.records import write_json
from xinglin.tuning import checkpoint, processes
from xinglin.tuning.callbacks import StopOnSignal
from xinglin.tuning.losses import isolates, token_losses
from xinglin.tuning.methods import load_weights, save_weights
from xinglin.tuning.mixing import Mixture
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.packing import pack, packed_tokens, share
from xinglin.tuning.prepare import Prepared

log = logging.getLogger(__name__)

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)


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
    """A global batch is one item of every process's loader; inside the step each takes its share of it.

    Loss, in training and evaluation, is the mean over target tokens of the whole batch or set, whatever the
    micro-batches and processes. A base that is sharded (FSDP2) comes sharded; others are wrapped in DDP.
    """

    def __init__(
        self, config: FinetuneConfig, precision: Precision, prepared: Prepared, settings: dict[str, Any], **kwargs: Any
    ) -> None:
        rows, val = prepared.rows, prepared.val or None
        super().__init__(**kwargs, train_dataset=rows, eval_dataset=val, data_collator=lambda batch: {"rows": batch})
        self.budget = config.max_tokens_per_micro_batch or (8192 if torch.cuda.is_available() else 2048)
        self.config, self.precision, self.settings = config, precision, settings
        self.mixture, self.encoding = prepared.mixture, prepared.encoding
        self.folder = Path(self.args.output_dir)
        self.stop = StopOnSignal()
        self.add_callback(self.stop)
        self.tokens_seen = 0  # by all processes, in this session; a resumed run does not count what it did not do
        self.step_rows: list[Encoded] = []
        self._began, self._logged, self._told = 0.0, (0, 0.0), 0.0

    # ---- data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Every process reads every global batch."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_size=self.config.batch_size,
            sampler=_EpochSampler(self.mixture),
            collate_fn=self.data_collator,
        )
        prepared: DataLoader[Any] = prepare_data_loader(loader, num_processes=1, process_index=0)
        return prepared

    @cached_property
    def packs(self) -> bool:
        """Whether the base keeps packed rows apart; asked once the optimizer knows the weights, sharded as they are."""
        with self.half():
            found = isolates(self.model, half=self.precision.half)
        if not found:
            log.warning("this base does not keep packed rows apart: they go through it one by one")
        elif self.config.lora_dropout or self.config.adapter_dropout:
            log.info("dropout: the rows of a micro-batch share the mask of their common beginning")
        return bool(found)

    def micro_batches(self, rows: list[Encoded]) -> list[list[Encoded]]:
        """The part of a global batch that falls to this process."""
        most = self.config.micro_batch_size if self.packs else 1
        return share(rows, most, self.budget, processes.count(), processes.rank())

    # ---- the step

    def forward(self, model: Any, group: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses of a micro-batch's target tokens, and the row of each."""
        packs = self.packs
        with self.half():
            return token_losses(model, pack(group, self.args.device), alone=not packs)

    def half(self) -> AbstractContextManager[Any]:
        """Around a forward pass. accelerate's own way for bf16 would make an fp32 copy of all logits."""
        return torch.autocast(self.args.device.type, self.precision.dtype, enabled=self.precision.half)

    @contextmanager
    def fitting(self, group: list[Encoded]) -> Iterator[None]:
        """Around the work on a micro-batch.

        Raises:
            OneProcessError: it does not fit the GPU.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            tokens, longest = packed_tokens(group), max(len(row.input_ids) for row in group)
            raise OneProcessError(
                f"the GPU's memory does not hold {len(group)} rows of {tokens} tokens in sum; give a smaller "
                f"--max_tokens_per_micro_batch ({max(longest, tokens // 2)}), --method qlora, "
                "or several GPUs with --fsdp"
            ) from None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over a global batch; the gradient is that of the mean over its target tokens.

        Raises:
            UserError: a loss is not a number; names the rows, in all processes.
        """
        model.train()
        rows: list[Encoded] = inputs["rows"]
        self.step_rows = rows
        if not self.tokens_seen:
            self._began = self._told = time.perf_counter()
            self._logged = 0, self._began
        targets = sum(row.targets for row in rows)
        self.tokens_seen += sum(len(row.input_ids) for row in rows)
        total, seen = torch.zeros((), device=self.args.device), []
        groups = self.micro_batches(rows)
        for number, group in enumerate(groups, 1):
            last = number == len(groups)
            with self.fitting(group), nullcontext() if last else self.accelerator.no_sync(model):
                losses_N, row_N = self.forward(model, group)
                # averaging over processes, as DDP and FSDP do, must come out as a sum
                loss = losses_N.sum() / targets
                self.accelerator.backward(loss * processes.count())
            total += loss.detach()
            seen.append((group, losses_N.detach(), row_N))
        self._sum_replicated(model)
        mean, broken = processes.summed(float(total), float(not torch.isfinite(total)))
        if broken:
            self._stop_at("loss", seen)
        return torch.full((), mean, device=self.args.device)

    def _sum_replicated(self, model: Any) -> None:
        """Average the gradients of an adapter beside a sharded base: neither FSDP nor DDP looks after it."""
        if not self.is_distributed_loading_by_transformers:
            return
        weights = [one for one in model.parameters() if one.requires_grad and not isinstance(one, DTensor)]
        if not weights:
            return
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
        together = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(together)
        together /= processes.count()
        parts = torch.split(together, [grad.numel() for grad in grads])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)

    def _sync_replicated_trainable_parameters(self, model: Any) -> None:
        """Nothing: they start equal by the seed, and `_sum_replicated` averages once a step (gloo too)."""

    def _stop_at(self, what: str, seen: list[tuple[list[Encoded], torch.Tensor, torch.Tensor]]) -> None:
        bad = [
            group[row].id
            for group, losses_N, row_N in seen
            for row in sorted(set(row_N[~torch.isfinite(losses_N)].tolist()))
        ]
        count = sum(bool(row.id) for group, _, _ in seen for row in group)
        every, names = zip(*processes.gathered((len(bad) == count, bad)), strict=True)
        raise UserError(self._not_a_number(what, [name for part in names for name in part], all(every)))

    def _not_a_number(self, what: str, names: list[str], every: bool) -> str:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        advice = "--learning_rate may be too high, or the records are broken" if every else "look at these records"
        last = checkpoint.whole_checkpoints(self.folder)
        kept = f"; {last[-1].name} is whole, go on from it with --resume_from_checkpoint True" if last else ""
        step = self.state.global_step + (what != "eval_loss")
        return f"step {step}: {what} is not a finite number (rows: {listed}); {advice}{kept}"

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """As the Trainer; a gradient that is not a number stops the run (fp16's loss scaling skips such steps)."""
        norm = super()._clip_grad_norm(model)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not self.args.fp16 and not torch.isfinite(norm):
            raise UserError(self._not_a_number("gradient", [row.id for row in self.step_rows], every=True))
        return norm

    def seconds(self) -> float:
        """How long this session has trained, from its first step on."""
        return time.perf_counter() - self._began if self.tokens_seen else 0.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer, with the time that the run has taken, and the speed since the last line.

        `seconds` goes on over stops; `tokens_per_second` is of all processes, without evaluating and saving.
        """
        now = time.perf_counter()
        if "loss" in logs:
            tokens, since = self._logged
            logs["tokens_per_second"] = round((self.tokens_seen - tokens) / (now - since), 1)
            self._logged = self.tokens_seen, now
        before = next((entry["seconds"] for entry in reversed(self.state.log_history) if "seconds" in entry), 0.0)
        logs["seconds"] = round(before + now - self._told, 3)
        self._told = now
        super().log(logs, start_time)

    # compiled a second time, for work without gradients, layers would not pay
    @torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per target token over the whole evaluation set."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        started, total, count, seen = time.perf_counter(), 0.0, 0, []
        for group in self.micro_batches(rows):
            with self.fitting(group):
                losses_N, row_N = self.forward(self.model, group)
            total, count = total + float(losses_N.sum()), count + losses_N.numel()
            seen.append((group, losses_N, row_N))
        total, targets = processes.summed(total, count)
        if not math.isfinite(total):
            self._stop_at("eval_loss", seen)
        seconds = time.perf_counter() - started
        self._skip(seconds)
        metrics = {f"{metric_key_prefix}_loss": total / targets, f"{metric_key_prefix}_runtime": seconds}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _skip(self, seconds: float) -> None:
        self._logged = self._logged[0], self._logged[1] + seconds

    # ---- files

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Write a checkpoint that appears only when whole, then take away those over the limit."""
        started = time.perf_counter()
        best = self._best_folder()
        self.state.best_model_checkpoint = best and str(best)
        collective = self._sharded()
        final = self.folder / f"checkpoint-{self.state.global_step}"
        with checkpoint.written_whole(final, collective) as scratch:
            self._save(str(scratch))
            self._save_optimizer_and_scheduler(str(scratch))
            self._save_scaler(str(scratch))
            self._save_rng_state(str(scratch))
            if processes.rank() == 0:
                for one in (*self.callback_handler.callbacks, self.control):
                    if isinstance(one, ExportableState):
                        self.state.stateful_callbacks[type(one).__name__] = one.state()
                write_json(scratch / checkpoint.SETTINGS, self.settings)
                self.state.save_to_json(str(scratch / "trainer_state.json"))
        if processes.rank() == 0:
            checkpoint.rotate(self.folder, self.config.save_total_limit, {final, best})
        self._skip(time.perf_counter() - started)

    def _best_folder(self) -> Path | None:
        """Where the best checkpoint is, or is about to be; one from before a resume may be in another folder."""
        step = self.state.best_global_step
        if not step:
            return None
        own = self.folder / f"checkpoint-{step}"
        known = self.state.best_model_checkpoint
        return own if own.is_dir() or step == self.state.global_step or not known else Path(known)

    def _take_state(self, resumed: Path) -> None:
        """Put right what the Trainer makes of a stored state: where the best checkpoint is, and how long one waits."""
        state = self.state
        if state.best_global_step:
            names = [parent / f"checkpoint-{state.best_global_step}" for parent in (self.folder, resumed.parent)]
            best = next((str(name) for name in names if name.is_dir()), None)
            state.best_model_checkpoint = best
            if best is None:
                log.warning("%s, the best so far, is gone: the best from here on is kept", names[0].name)
                state.best_metric = state.best_global_step = None
        for one in self.callback_handler.callbacks:
            if isinstance(one, EarlyStoppingCallback):
                stored = state.stateful_callbacks.get(type(one).__name__, {}).get("attributes", {})
                one.early_stopping_patience_counter = stored.get("early_stopping_patience_counter", 0)

    def _init_training_state(
        self, max_steps: int, steps_an_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """As the Trainer, and what it leaves out of a stored state."""
        result: tuple[int, int] = super()._init_training_state(
            max_steps, steps_an_epoch, epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint:
            self.state.compute_steps(self.args, max_steps)  # else the stored eval_steps would stay
            self._take_state(Path(resume_from_checkpoint))
        return result

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        save_weights(self.accelerator.unwrap_model(self.model), folder, self.config.save_format)
        if processes.rank() == 0:
            self.encoding.template.save(folder, self.encoding.tokenizer.begins)  # so it can be asked

    def _sharded(self) -> bool:
        return any(isinstance(weight, DTensor) for weight in self.model.parameters() if weight.requires_grad)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._sharded():
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=_WHOLE)
        if processes.rank() == 0:
            torch.save(state, Path(output_dir, "optimizer.pt"))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, "scheduler.pt"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        try:
            if not self._sharded():
                if not (folder / "optimizer.pt").is_file():
                    raise FileNotFoundError("no optimizer.pt")
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            state = torch.load(folder / "optimizer.pt", weights_only=True) if processes.rank() == 0 else {}
            set_optimizer_state_dict(self.model, self.optimizer.optimizer, state, options=_WHOLE)
            self.lr_scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        except Exception as error:  # a broken file may raise nearly anything
            raise UserError(f"{checkpoint}: optimizer or schedule cannot be read ({one_line(error)})") from None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if not self.stop.stopped:  # else time is short
            load_weights(self.model, Path(self.state.best_model_checkpoint))

    def take_up(self, last: Path) -> None:
        """Take state and weights from a run's last checkpoint, where only what comes after training is missing."""
        self.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
        self._take_state(last)
        best = self.state.best_model_checkpoint  # in this folder or in that of `last`; _take_state found it
        load_weights(self.model, Path(best) if best and self.args.load_best_model_at_end else last)
