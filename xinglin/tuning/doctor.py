"""Everything that a run checks and measures before its first step, without the run.

xinglin doctor --config configs/llama-7b-qlora-24gb.yaml
"""

import dataclasses
import logging
import sys

from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.preflight import Preflight
from xinglin.tuning.trackers import choose_trackers
from xinglin.tuning.train import ready

log = logging.getLogger(__name__)

_SAMPLES = 8


class _Measured(Exception):
    """Nothing more is to be done."""


class _AndNoFurther(Preflight):
    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        super().on_train_begin(*args, **kwargs)
        raise _Measured


def doctor(config: FinetuneConfig) -> None:
    """Print the first lines of the run that this config describes: what it runs on, what is in the data, what it takes.

    Nothing is written; a folder that the run would make is taken away again.

    Raises:
        UserError: whatever would stop the run before its first step.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(sys.stdout)  # here the lines are the result
    choose_trackers(config)
    with ready(dataclasses.replace(config, report_to="none", wandb_run_name="")) as run:
        if run.finished:
            log.info("this run has done all its steps")
            return
        run.trainer.add_callback(_AndNoFurther(run.trainer, run.prepared, _SAMPLES))
        try:
            run.trainer.train(resume_from_checkpoint=run.resume and str(run.resume))
        except _Measured:
            log.info("all well: start it with finetune and the same options")
