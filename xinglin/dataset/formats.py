"""Instruction data in every usual format, told apart by content, read and written record by record.

    alpaca    {"instruction": "偏头痛挂哪个科？", "input": "", "output": "神经内科。"}
    sharegpt  {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…"}
    messages  {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    records   full records of `xinglin data build`
    csv, tsv  a header line naming a question and an answer column; UTF-8, GB18030 (GBK is part of it) or UTF-16

The first four come as JSON Lines or as a JSON list. Reading holds one record at a time, whatever the file's size.
"""

import codecs
import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from xinglin.errors import UserError
from xinglin.records import (
    HALF_CHARACTER,
    Example,
    Turn,
    atomic_write,
    example_from_dict,
    from_alpaca,
    json_line,
    open_data,
    read_json_records,
    read_lines,
    write_json_list,
)
from xinglin.tables import encoding_of, open_text, read_table

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_QUESTION = ("instruction", "question", "prompt", "query", "问题")
_KNOWLEDGE = ("input", "context", "资料")
_ANSWER = ("output", "answer", "response", "回答", "答案")


@dataclass(frozen=True)
class Format:
    """How a file holds its records.

    Attributes:
        name: `alpaca`, `sharegpt`, `messages`, `records`, `csv` or `tsv`.
        encoding: `utf-8`; for a table also `utf-8-sig` (with a byte-order mark), `gb18030` or `utf-16`.
        container: `list`, `lines` or `csv`.
        columns: a table's header.
        line_end: how a table ends its lines.
    """

    name: str
    encoding: str = "utf-8"
    container: str = "lines"
    columns: tuple[str, ...] = ()
    line_end: str = "\n"

    @property
    def delimiter(self) -> str:
        """What stands between a table's fields."""
        return "\t" if self.name == "tsv" else ","


@dataclass(frozen=True)
class Row:
    """One record of a file.

    Attributes:
        where: `file:line` or `file, record N`.
        raw: the record as it is in the file.
        example: what it means; None when it cannot be used.
        problem: why it cannot be used, in one line; else empty.
    """

    where: str
    raw: dict[str, Any]
    example: Example | None
    problem: str
    format: Format


@dataclass(frozen=True)
class _Texts:
    """Where a format keeps its texts: under `keys`, and under `inner` of each element of `turns`; not under `fixed`."""

    keys: tuple[str, ...] = ()
    turns: str = ""
    role: str = ""
    inner: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


_TEXTS = {
    "alpaca": _Texts(("instruction", "input", "output")),
    "sharegpt": _Texts(("system",), "conversations", "from", ("value",)),
    "messages": _Texts((), "messages", "role", ("content",)),
    "records": _Texts((), "turns", "role", ("content", "input"), ("id", "facts")),
}


def detect(path: str | Path, *, need_output: bool = True, broken: Callable[[str, str], None] | None = None) -> Format:
    """Find a file's format from its content, never from its name.

    Args:
        need_output: a table must have an answer column; an alpaca record its output.
        broken: given, a line that is no record at all is passed over.

    Raises:
        UserError: unreadable, empty, no known keys, or a table without a question or an answer column.
    """
    path = Path(path)
    with open_data(path) as file:
        if not path.is_file():
            raise UserError(f"{path}: is a pipe or device; data is read more than once, save it to a file first")
        start = file.peek().lstrip()[:1]
    if start not in (b"[", b"{"):
        return _detect_table(path, need_output)
    container = "list" if start == b"[" else "lines"
    keys: list[str] = []
    passed_over = broken and (lambda where, why: None)  # they are told of when they are read
    for _, record in islice(read_json_records(path, passed_over), 20):  # the first may be the one that is broken
        # a full record first: it may have any other key too
        for name, key in (("records", "turns"), ("sharegpt", "conversations"), ("messages", "messages")):
            if key in record:
                return Format(name, container=container)
        if {"instruction", "output"} & record.keys():
            return Format("alpaca", container=container)
        keys = keys or sorted(record)
    if not keys:
        raise UserError(f"{path}: holds no records")
    raise UserError(f"{path}: records with the keys {keys[:12]}; need instruction/output, conversations or messages")


def _detect_table(path: Path, need_output: bool) -> Format:
    encoding = encoding_of(path)
    with open_text(path) as file:
        header = next(read_lines(file, path), (1, ""))[1]
    if not header.strip():
        raise UserError(f"{path}: {'begins with an empty line; need a header' if header else 'holds no records'}")
    name, line_end = "tsv" if "\t" in header else "csv", "\r\n" if header.endswith("\r\n") else "\n"
    columns = tuple(cell.strip() for cell in next(read_table(path, Format(name).delimiter))[1])
    twice = next((one for one in columns if columns.count(one) > 1), None)
    if twice is not None:
        raise UserError(f"{path}:1: two columns are called {twice!r}; give each its own name")
    question, _, answer = _columns(columns)
    if not question or (need_output and not answer):
        missing = "an answer" if question else "a question"
        named = _ANSWER if question else (*_QUESTION, "title", "ask")
        shown = ", ".join(columns)[:200]
        raise UserError(f"{path}:1: no column for {missing}: has {shown}; name one of them {', '.join(named)}")
    return Format(name, encoding, "csv", columns, line_end)


@cache
def _columns(columns: tuple[str, ...]) -> tuple[tuple[str, ...], str, str]:
    """The columns of the question (one, or title and ask), of the knowledge and of the answer."""
    known = {name.lower(): name for name in columns}

    def first(names: Iterable[str]) -> str:
        return next((known[name] for name in names if name in known), "")

    question = first(_QUESTION)
    asked = (question,) if question else tuple(known[name] for name in ("title", "ask") if name in known)
    return asked, first(_KNOWLEDGE), first(_ANSWER)


def read(
    path: str | Path,
    fmt: Format | None = None,
    *,
    strict: bool = True,
    need_output: bool = True,
    broken: Callable[[str, str], None] | None = None,
) -> Iterator[Row]:
    """Read a file of any format, holding one record at a time.

    Args:
        fmt: the file's format where it is known already.
        strict: stop at a record that cannot be used; else it is yielded with `problem` and without `example`.
        need_output: an answer must be there (training); a bare question will do for inference.
        broken: is told (where, why) of each line that is no record at all (broken JSON, a table's row with too many
            fields), in place of an error.

    Raises:
        UserError: the file cannot be read as a whole (encoding, broken JSON or CSV, no records), or, when
            `strict`, a record cannot be used.
    """
    path = Path(path)
    fmt = fmt or detect(path, need_output=need_output, broken=broken)
    row = None
    for where, raw in _table(path, fmt, broken) if fmt.container == "csv" else read_json_records(path, broken):
        row = _row(where, raw, fmt, need_output)
        if strict and row.problem:
            raise UserError(f"{where}: {row.problem}")
        yield row
    if not row:
        raise UserError(f"{path}: holds no records")


def _row(where: str, raw: dict[str, Any], fmt: Format, need_output: bool = True) -> Row:
    try:
        example = _example(raw, where, fmt, need_output)
        return Row(where, raw, _usable(example, where, need_output), "", fmt)
    except UserError as error:
        return Row(where, raw, None, str(error).removeprefix(f"{where}: "), fmt)


def _example(raw: dict[str, Any], where: str, fmt: Format, need_output: bool) -> Example:
    if fmt.name == "records":
        try:
            example = example_from_dict(raw)
            if not all(isinstance(text, str) for text in (*_plain(example), *chain(*example.facts))):
                raise TypeError("a field that must be text is not")
            return example
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not an example record of `xinglin data build` ({error})") from None
    if fmt.name == "alpaca":
        return from_alpaca(raw, where, need_output=need_output)
    if fmt.container == "csv":
        question, knowledge, answer = _columns(fmt.columns)
        asked = "\n".join(dict.fromkeys(cell for name in question if (cell := raw[name].strip())))
        question_turn = Turn("user", asked, raw[knowledge] if knowledge else "")
        if not need_output and not (answer and raw[answer].strip()):
            return Example(where, (question_turn,))
        return Example(where, (question_turn, Turn("assistant", raw[answer])))
    return Example(where, _conversation(raw, where, _TEXTS[fmt.name]))


def _plain(example: Example) -> Iterator[Any]:
    return (getattr(example, field.name) for field in fields(Example) if field.type is str)


def _conversation(raw: dict[str, Any], where: str, texts: _Texts) -> tuple[Turn, ...]:
    turns = [Turn("system", raw["system"])] if "system" in texts.keys and raw.get("system") else []
    listed = raw.get(texts.turns)
    if not isinstance(listed, list):
        raise UserError(f"{where}: {texts.turns!r} must be a list of turns, got {type(listed).__name__}")
    for number, turn in enumerate(listed, 1):
        if not isinstance(turn, dict) or not {texts.role, texts.inner[0]} <= turn.keys():
            raise UserError(f"{where}: turn {number} needs {texts.role!r} and {texts.inner[0]!r}")
        role = _ROLES.get(str(turn[texts.role]))
        if role is None:
            raise UserError(f"{where}: turn {number} has the role {turn[texts.role]!r}; have {', '.join(_ROLES)}")
        turns.append(Turn(role, turn[texts.inner[0]]))
    return tuple(turns)


def _usable(example: Example, where: str, need_output: bool) -> Example:
    """Check what training needs: texts that are texts, turns that take turns, an answer at the end."""
    rest = example.turns[1:] if example.turns and example.turns[0].role == "system" else example.turns
    for number, turn in enumerate(rest, 1):
        expected = "user" if number % 2 else "assistant"
        if turn.role != expected:
            raise UserError(f"{where}: turn {number} of the conversation is {turn.role!r}, expected {expected!r}")
    if not rest or (need_output and len(rest) % 2):
        raise UserError(f"{where}: the last turn is no answer; nothing to learn from this record")
    for turn in example.turns:
        for text in (turn.content, turn.input):
            if not isinstance(text, str):
                raise UserError(f"{where}: the text of a turn must be text, got {type(text).__name__}")
            if HALF_CHARACTER.search(text):
                raise UserError(f"{where}: half a character (a lone surrogate) in {text[:20]!a}")
        if not turn.content.strip():
            raise UserError(f"{where}: an empty {turn.role} turn; nothing to learn from this record")
    return example


def _table(
    path: Path, fmt: Format, broken: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for line, cells in islice(read_table(path, fmt.delimiter), 1, None):
        if len(cells) != len(fmt.columns):
            why = f"has {len(cells)} fields, the header {len(fmt.columns)}"
            if broken is None:
                raise UserError(f"{path}:{line}: {why}")
            broken(f"{path}:{line}", why)
            continue
        yield f"{path}:{line}", dict(zip(fmt.columns, cells, strict=True))


def edit(row: Row, change: Callable[[str], str], change_beside: Callable[[str, str], str] | None = None) -> Row:
    """Apply a function to every text that a record's example is made of, in `raw` and `example` alike.

    Args:
        change_beside: what becomes of every other text, given its keys and itself as `beside` yields them.
    """
    return _row(row.where, _changed(row, change, change_beside or (lambda _, text: text)), row.format)


def beside(row: Row) -> list[tuple[str, str]]:
    """What a record holds beside the texts of its example: each text or number with its keys, outermost first.

    {"output": "…", "patient": {"name": "王建国"}} → [("patient_name", "王建国")]
    """
    found = []

    def note(keys: str, text: str) -> str:
        found.append((keys, text))
        return text

    _changed(row, str, note)
    return found


def _changed(row: Row, change: Callable[[str], str], change_beside: Callable[[str, str], str]) -> dict[str, Any]:
    """`raw` with its texts changed, but for roles and what is `fixed`."""
    texts = _texts(row.format)

    def one(key: str, value: Any, own: tuple[str, ...], fixed: tuple[str, ...], above: str = "") -> Any:
        if key in own and isinstance(value, str):
            return change(value)
        return value if key in fixed else _each(value, above + key, change_beside)

    def turn(value: Any) -> Any:
        if not isinstance(value, dict):
            return _each(value, texts.turns, change_beside)
        return {key: one(key, part, texts.inner, (texts.role,), f"{texts.turns}_") for key, part in value.items()}

    try:
        return {
            key: [turn(part) for part in value]
            if isinstance(value, list) and key == texts.turns
            else one(key, value, texts.keys, texts.fixed)
            for key, value in row.raw.items()
        }
    except RecursionError:
        raise UserError(f"{row.where}: nested too deeply") from None


def _texts(fmt: Format) -> _Texts:
    if fmt.container != "csv":
        return _TEXTS[fmt.name]
    question, knowledge, answer = _columns(fmt.columns)
    return _Texts((*question, *filter(None, (knowledge, answer))))


def _each(value: Any, keys: str, change: Callable[[str, str], str]) -> Any:
    """A value with every text and number in it changed."""
    if isinstance(value, dict):
        return {key: _each(part, f"{keys}_{key}", change) for key, part in value.items()}
    if isinstance(value, list):
        return [_each(part, keys, change) for part in value]
    text = str(value)
    changed = change(keys, text)
    return value if changed == text else changed


def write(rows: Iterable[Row], path: str | Path, fmt: Format) -> None:
    """Write rows in the format that they were read in, one at a time; the file appears whole or not at all."""
    if fmt.container == "list":
        write_json_list(path, (row.raw for row in rows))
        return
    with atomic_write(path, "wb") as file:
        text = codecs.getwriter(fmt.encoding)(file)
        if fmt.container == "lines":
            for row in rows:
                text.write(json_line(row.raw) + "\n")
            return
        table = csv.writer(text, delimiter=fmt.delimiter, lineterminator=fmt.line_end)
        table.writerow(fmt.columns)
        for row in rows:
            table.writerow([row.raw[name] for name in fmt.columns])
