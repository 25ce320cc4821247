"""Experiment tracking: never forced, never prompting, never in need of an account."""

import importlib.util
import logging
import netrc
import os
from pathlib import Path

from xinglin.errors import UserError
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)


def choose_tracker(config: FinetuneConfig) -> str:
    """What the Trainer shall report to: `none`, `tensorboard` or `wandb`; says what it decided about W&B.

    A run name alone (as in the report's command) must never stop or delay a run: without an installed,
    logged-in or offline W&B the run goes on untracked. An explicit `--report_to` is taken at its word.

    Raises:
        UserError: a tracker was asked for with `--report_to` that is not installed, or W&B without a login.
    """
    if config.report_to == "tensorboard":
        if not importlib.util.find_spec("tensorboard"):
            raise UserError("report_to tensorboard: not installed; pip install tensorboard")
        return "tensorboard"
    if config.report_to == "none" and not config.wandb_run_name:
        return "none"
    missing = _wandb_missing()
    if missing and config.report_to == "wandb":
        raise UserError(f"report_to wandb: {missing}")
    if missing:
        log.info("W&B: not tracking run %r (%s)", config.wandb_run_name, missing)
        return "none"
    settings = {"PROJECT": config.wandb_project, "WATCH": config.wandb_watch, "LOG_MODEL": config.wandb_log_model}
    os.environ.update({f"WANDB_{key}": value for key, value in settings.items() if value})
    log.info("W&B: tracking run %r (%s)", config.wandb_run_name, os.environ.get("WANDB_MODE", "online"))
    return "wandb"


def _wandb_missing() -> str | None:
    """Why W&B cannot track without asking, or None when it can."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode == "disabled":
        return "WANDB_MODE=disabled"
    if not importlib.util.find_spec("wandb"):
        return "wandb is not installed; pip install wandb"
    if mode == "offline" or _set_offline() or os.environ.get("WANDB_API_KEY") or _in_netrc():
        return None
    return "not logged in; run `wandb login`, or set WANDB_MODE=offline"


def _set_offline() -> bool:
    """Whether `wandb offline` was said in this folder."""
    try:
        return "offline" in Path("wandb/settings").read_text("utf-8")
    except OSError:
        return False


def _in_netrc() -> bool:
    """Whether `wandb login` has left a key; any host that speaks of wandb counts."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return any("wandb" in host for host in netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def choose_trackers(config):
    one = choose_tracker(config)
    return [] if one == "none" else [one]
