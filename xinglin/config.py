"""Parsing only: a frozen dataclass, a YAML file (`--config`) and flags; flags win over the file.

Flags may be spelled with `_` or `-`; a boolean may stand alone (`--group_by_length`) or take a value
(`--use_lora True`). Anything unknown, abbreviated or mistyped is refused before the command's code is imported.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from xinglin.errors import UserError, nearest

T = TypeVar("T")


def make_parser(config_class: type[Any], prog: str) -> ArgumentParser:
    """The parser of one command: a flag for every field of its config class."""
    parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(config_class)
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True  # a bare --flag
    return parser


def flags(config_class: type[Any]) -> list[str]:
    """The long flags of a command, without --help and the parser's own."""
    own = {"--help", "--config", "--print_config"}
    names = [name for action in make_parser(config_class, "")._actions for name in action.option_strings]
    return [name for name in names if name.startswith("--") and name not in own and not name.endswith("+")]


def parse(config_class: type[T], arguments: Sequence[str], prog: str) -> T:
    """Parse a command's arguments into its config.

    Raises:
        UserError: an unknown or mistyped flag, a missing one, or an unreadable --config file.
    """
    parser = make_parser(config_class, prog)
    normal = [_underscores(argument) for argument in arguments]
    known = [*flags(config_class), "--config", "--help", "--print_config"]
    for argument in normal:
        name = argument.partition("=")[0]
        if re.match("--[A-Za-z]", argument) and name not in known:
            raise UserError(f"{prog}: unknown flag {name}{nearest(name, known)} (see {prog} --help)")
    _check_files(normal, prog)
    try:
        namespace = parser.parse_args(normal)
        return config_class(**{key: value for key, value in namespace.as_dict().items() if key != "config"})
    except ArgumentError as error:
        raise UserError(f"{prog}: {_one_line(str(error))}") from None


def listed(given: str | Sequence[Any]) -> list[str]:
    """The parts of a flag that takes several: `a,b`, `[a,'b']`, or a list from YAML."""
    parts = given.strip("[]").split(",") if isinstance(given, str) else map(str, given)
    return [part for part in (part.strip(" '\"") for part in parts) if part]


def _underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _check_files(arguments: list[str], prog: str) -> None:
    for place, argument in enumerate(arguments):
        if argument.partition("=")[0] == "--config":
            rest = arguments[place + 1] if place + 1 < len(arguments) else ""
            path = argument.partition("=")[2] or rest
            try:
                Path(path).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise UserError(f"{prog}: --config {path}: {reason}") from None


def _one_line(message: str) -> str:
    """Jsonargparse's messages come on several lines and speak of keys and Python types."""
    text = re.sub(r"\s*\n\s*", " ", message).replace("Parser key", "option").strip()
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    return re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", text)
