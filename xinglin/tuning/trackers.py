"""Experiment tracking: never forced, never prompting, never in need of an account.

TensorBoard writes into the run's output_dir. W&B and SwanLab keep their files in ./wandb and ./swanlog, where their own
commands look for them; WANDB_DIR and SWANLAB_LOG_DIR put them elsewhere.
"""

import importlib.util
import logging
import netrc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from xinglin.config import listed
from xinglin.errors import UserError, nearest, one_line
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)

_PATIENCE = 5
"""Seconds that a run name alone gives W&B to answer; it takes about ten more to give up."""
_SWANLAB = "pip install 'swanlab>=0.8' 'sentencepiece<0.2.3'"
"""It wants protobuf below 7, with which sentencepiece 0.2.3 cannot read LLaMA's tokenizer.model."""


def choose_trackers(config: FinetuneConfig) -> list[str]:
    """What the run shall be reported to; nothing is begun yet.

    A run name alone (as in the report's command) must never stop a run: without an installed, logged-in or offline
    W&B the run goes on untracked. An explicit `--report_to` is taken at its word. Of several processes only the first
    reports.

    Raises:
        UserError: a tracker was asked for with `--report_to` that is unknown, not installed, or without a login.
    """
    names = _asked(config)
    if os.environ.get("RANK", "0") != "0":
        return []
    settings = {"PROJECT": config.wandb_project, "WATCH": config.wandb_watch, "LOG_MODEL": config.wandb_log_model}
    os.environ.update({f"WANDB_{key}": value for key, value in settings.items() if value})
    for name in names:
        if problem := _PROBLEMS[name]():
            raise UserError(f"report_to {name}: {problem}")
    if names or not config.wandb_run_name:
        return names
    if problem := _wandb_problem():
        log.info("W&B: not tracking run %r (%s)", config.wandb_run_name, problem)
        return []
    return ["wandb"]


def open_trackers(config: FinetuneConfig, names: Sequence[str]) -> list[str]:
    """Begin a run in W&B and SwanLab, so that what fails does so before training; transformers then uses these runs.

    Args:
        names: what `choose_trackers` chose.

    Returns:
        The names for the Trainer's `report_to`: all of them, but none where a run name alone asked for W&B and W&B
        gives no answer.

    Raises:
        UserError: a tracker asked for with `--report_to` refuses the key or the names, or cannot be reached.
    """
    if "swanlab" in names:
        _open_swanlab(config)
    if "wandb" not in names:
        return list(names)
    if _asked(config):
        _open_wandb(config)
        return list(names)
    try:
        _open_wandb(config, _PATIENCE)
    except UserError as error:
        log.warning("%s; going on without", error)
        return []
    return ["wandb"]


def _asked(config: FinetuneConfig) -> list[str]:
    """What `--report_to` names, each once; nothing for `none`."""
    known = [*_PROBLEMS, "none"]
    names = list(dict.fromkeys(listed(config.report_to)))
    for name in names:
        if name not in known:
            raise UserError(f"report_to {name!r}: not one of {', '.join(known)}{nearest(name, known)}")
    if "none" in names and len(names) > 1:
        raise UserError(f"report_to {','.join(names)}: none goes alone")
    return [name for name in names if name != "none"]


def _open_wandb(config: FinetuneConfig, timeout: float = 90) -> None:
    import wandb

    project = os.environ.get("WANDB_PROJECT") or "huggingface"  # as transformers calls it
    try:
        options = wandb.Settings(init_timeout=timeout)
        run = wandb.init(project=project, name=config.wandb_run_name or None, settings=options)
    except Exception as error:
        raise UserError(f"W&B: {one_line(error).rstrip('.')}; WANDB_MODE=offline does without the network") from None
    log.info("W&B: tracking run %r (%s)", config.wandb_run_name or run.name, run.settings.mode)


def _open_swanlab(config: FinetuneConfig) -> None:
    """The callback of transformers 5.23 cannot: before a run it expects None of `get_run()`, which raises since 0.8."""
    import swanlab

    names = {"project": config.wandb_project or None, "name": config.wandb_run_name or None}
    try:
        run = swanlab.init(**names, settings=swanlab.Settings(interactive=False), reinit=True)
    except ValueError as error:  # a name that it does not take
        raise UserError(f"SwanLab: {one_line(error)}") from None
    except Exception as error:
        raise UserError(
            f"SwanLab: {one_line(error).rstrip('.')}; SWANLAB_MODE=offline does without the network"
        ) from None
    log.info("SwanLab: tracking run %r", config.wandb_run_name or run.id)


def _tensorboard_problem() -> str | None:
    return None if importlib.util.find_spec("tensorboard") else "not installed; pip install tensorboard"


def _wandb_problem() -> str | None:
    """Why W&B cannot track without asking, or None when it can."""
    if os.environ.get("WANDB_MODE") == "disabled":
        return "WANDB_MODE=disabled"
    if not importlib.util.find_spec("wandb"):
        return "not installed; pip install wandb"
    try:
        import wandb

        settings = wandb.setup().settings  # with what its files say
    except Exception as error:  # a broken installation, a mode that it does not know
        return one_line(error)
    if settings.mode == "disabled":
        return "switched off; `wandb enabled` undoes it"
    if settings.mode in ("offline", "dryrun") or os.environ.get("WANDB_API_KEY") or _in_netrc(settings.base_url):
        return None
    return "not logged in; run `wandb login`, or set WANDB_MODE=offline"


def _in_netrc(server: str) -> bool:
    """Whether `wandb login` has left a key for a server."""
    host = urlsplit(server).netloc
    hosts = {host, "api.wandb.ai"} if host == "api.forge.coreweave.com" else {host}  # the cloud's new name and its old
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return not hosts.isdisjoint(netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _swanlab_problem() -> str | None:
    """Why SwanLab cannot track without asking, or None when it can."""
    if not importlib.util.find_spec("swanlab"):
        return f"not installed; {_SWANLAB}"
    try:
        import swanlab

        if not hasattr(swanlab, "has_run"):
            return f"this version is too old; {_SWANLAB}"
        settings = swanlab.Settings()  # with what its files say
    except Exception as error:  # a broken installation, a mode that it does not know
        return one_line(error)
    if settings.mode == "disabled":
        return "switched off (mode disabled)"
    if settings.mode == "online" and not settings.api_key:
        return "not logged in; run `swanlab login`, or set SWANLAB_MODE=offline"
    return None


_PROBLEMS: dict[str, Callable[[], str | None]] = {
    "tensorboard": _tensorboard_problem,
    "wandb": _wandb_problem,
    "swanlab": _swanlab_problem,
}
"""The trackers, and what says why one cannot be used."""
