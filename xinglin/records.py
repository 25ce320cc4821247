"""The plain records that stages hand each other as files, and how they are read and written.

An instruction file is a JSON list, or JSON Lines, of the field's three keys:

    {"instruction": "偏头痛挂哪个科？", "input": "", "output": "偏头痛建议到神经内科就诊。"}

The two are told apart by content, never by the file's name (a well-known `llama_data.json` is JSON Lines).
"""

import codecs
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from xinglin.errors import UserError

CHUNK = 1 << 20  # bytes that are read at a time
MAX_RECORD = 64 * CHUNK
"""The longest line or list element, in bytes; more is told from data before memory runs out."""

_LIMIT = f"{MAX_RECORD >> 20} MB"
_TOO_MUCH = "nested too deeply, or a number too long"
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""A lone surrogate: JSON's `\\ud83d` can spell it, UTF-8 cannot hold it."""


@dataclass(frozen=True)
class Fact:
    """One triple of a knowledge graph and where it comes from."""

    subject: str
    subject_type: str
    predicate: str
    object: str
    source: str


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; `input` is the knowledge that a user turn brings along."""

    role: str
    content: str
    input: str = ""


@dataclass(frozen=True)
class Example:
    """A conversation to learn from or to be asked, with what it stands on.

    Attributes:
        turns: system, user and assistant turns in order.
        form: the question form (`symptoms`, `department`, …), or empty for foreign data.
        facts: the triples that the answer cites, as (subject, predicate, object).
        split: `train`, `unseen_disease` or `seen_fact`.
        knowledge: what `input` holds: `facts`, `other_facts` (that do not answer) or `none`.
    """

    id: str
    turns: tuple[Turn, ...]
    form: str = ""
    facts: tuple[tuple[str, str, str], ...] = ()
    source: str = ""
    licence: str = ""
    split: str = "train"
    review: str = ""
    knowledge: str = "none"

    @property
    def question(self) -> Turn:
        """The last user turn."""
        return next(turn for turn in reversed(self.turns) if turn.role == "user")

    @property
    def answer(self) -> str:
        """The last assistant turn's text, or an empty string when there is none."""
        return self.turns[-1].content if self.turns and self.turns[-1].role == "assistant" else ""


@dataclass(frozen=True)
class Prediction:
    """One answer, with everything needed to ask for it again.

    Attributes:
        prompt: what the model was given; empty where none was asked.
        finish_reason: `stop`, `length` (cut at max_new_tokens) or `repetition` (cut, since it went round in circles).
        question: what was asked, with the knowledge that came along.
        kind: of a grounded answer: answered, referred, abstained or escalated; of the last three no model was asked.
        unsupported: what a grounded answer names beyond its facts.
    """

    id: str
    prompt: str
    answer: str
    model: str
    adapter: str
    generation: dict[str, Any]
    facts: tuple[tuple[str, str, str], ...] = ()
    finish_reason: str = ""
    seconds: float = 0.0
    kind: str = ""
    unsupported: tuple[str, ...] = ()
    question: str = ""


@dataclass(frozen=True)
class Score:
    """One figure of an evaluation: mean `value` over `n` items with its 95 % confidence interval."""

    metric: str
    value: float
    n: int
    low: float
    high: float
    slice: str = ""


def to_alpaca(example: Example) -> dict[str, str]:
    """The one-turn view of an example: exactly the keys instruction, input, output."""
    question = example.question
    return {"instruction": question.content, "input": question.input, "output": example.answer}


def from_alpaca(record: dict[str, Any], where: str, *, need_output: bool = True) -> Example:
    """Read one Alpaca record.

    Args:
        where: `file:line` or `file, record N`, for the error and as the example's id.
        need_output: an answer must be there (training); a bare question will do for inference.

    Raises:
        UserError: a key is missing, empty where it must not be, or not a text.
    """
    texts = {}
    for key in ("instruction", "input", "output"):
        value = record.get(key)
        if value is None and key == "output" and need_output and key not in record:
            raise UserError(f"{where}: record without 'output'; every training record needs instruction and output")
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {key!r} must be text, got {type(value).__name__}")
        texts[key] = value or ""
    if not texts["instruction"].strip():
        raise UserError(f"{where}: record without 'instruction'; its keys are {sorted(record)}")
    if need_output and not texts["output"].strip():
        raise UserError(f"{where}: 'output' is empty; nothing to learn from this record")
    turns: tuple[Turn, ...] = (Turn("user", texts["instruction"], texts["input"]),)
    if texts["output"]:
        turns += (Turn("assistant", texts["output"]),)
    return Example(id=where, turns=turns)


def read_json_records(
    path: str | Path, broken: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line` or `file, record N`, record) from a JSON list or JSON Lines file, holding one at a time.

    Args:
        broken: is told (where, why) of each line of JSON Lines that is no object, in place of an error.

    Raises:
        UserError: no such file, not UTF-8, broken or cut-off JSON (with its line), a line or element over
            `MAX_RECORD`, or a record that is no object.
    """
    path = Path(path)
    with open_data(path) as file:
        if file.peek().lstrip()[:1] == b"[":
            yield from _ListText(file, path).records()
            return
        for number, line in read_lines(file, path):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    record = _line_object(line, where)
                except UserError as error:
                    if broken is None:
                        raise
                    broken(where, str(error).removeprefix(f"{where}: "))
                    continue
                yield where, record


def _line_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not valid JSON ({_TOO_MUCH})") from None
    return _object(value, where)


def open_data(path: Path) -> BufferedReader:
    """Open a file of records to read, past its byte-order mark.

    Raises:
        UserError: no such file, a folder, or not readable.
    """
    try:
        file: BufferedReader = BufferedReader(path.open("rb", buffering=0), CHUNK)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (working folder {Path.cwd()})") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a file (JSON, JSON Lines or CSV)") from None
    except PermissionError:
        raise UserError(f"{path}: not readable by this user") from None
    if file.peek(3).startswith(codecs.BOM_UTF8):
        file.read(3)
    return file


def read_lines(file: BufferedReader, path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number, line with its end), strictly decoded.

    Only a line feed ends a line: a raw U+2028 inside a string is legal JSON. Cutting the bytes there is safe in
    UTF-8 and in GB18030, where no longer character contains that byte.

    Raises:
        UserError: a line over `MAX_RECORD`, wrongly encoded, or with NUL bytes.
    """
    number, line, decoder = 1, bytearray(), codecs.getincrementaldecoder(encoding)()
    while part := file.readline(CHUNK):
        line += part
        if len(line) > MAX_RECORD:
            raise UserError(f"{path}: line {number} is longer than {_LIMIT}; is it JSON Lines?")
        if part.endswith(b"\n") or not file.peek(1):
            yield number, _decoded(decoder, bytes(line), path, number)
            number += 1
            line.clear()


def _decoded(decoder: codecs.IncrementalDecoder, data: bytes, path: Path, line: int, *, final: bool = True) -> str:
    """The text of some bytes, which begin on `line`."""
    try:
        text = decoder.decode(data, final)
    except UnicodeDecodeError as error:
        where = f"{path}:{line + error.object.count(10, 0, error.start)}: "
        byte = f"byte 0x{error.object[error.start]:02x}"
        if error.encoding == "gb18030":
            raise UserError(f"{where}neither UTF-8 nor GB18030 ({byte}); convert it to UTF-8") from None
        raise UserError(f"{where}not UTF-8 ({byte}); convert it, e.g. iconv -f gb18030 -t utf-8") from None
    if "\0" in text:
        line += text.count("\n", 0, text.index("\0"))
        raise UserError(f"{path}:{line}: holds NUL bytes; damaged, or no text file (save a spreadsheet as CSV)")
    return text


class _ListText:
    """A JSON list read element by element: the file's text from `at` on, growing as it is needed."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.file, self.path, self.ended = file, path, False
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at = "", 0
        self.line, self.column = 1, 0  # where `text` begins in the file

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (`file, record N`, record)."""
        self.take()
        number, separator = 0, self.take() if self.look() == "]" else ","
        while separator == ",":
            number += 1
            where = f"{self.path}, record {number}"
            yield where, _object(self.value(number), where)
            separator = self.take()
        if separator != "]":
            raise self.error("Expecting ',' delimiter", self.at - len(separator))
        if self.look():
            raise self.error("Extra data", self.at)

    def look(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\n\r":
                self.at += 1
            if self.at < len(self.text) or not self.grow():
                return self.text[self.at : self.at + 1]

    def take(self) -> str:
        """`look`, and go past it."""
        character = self.look()
        self.at += len(character)
        return character

    def value(self, number: int) -> Any:
        """Take the next value, reading on as long as it may only be cut off."""
        self.look()
        seen, size = ("", 0), 0
        while True:
            try:
                value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:
                # what more text does not move is broken; only a string's start stays while its end is on the way
                problem = (error.msg, error.pos - self.at)
                stuck = problem == seen and not error.msg.startswith("Unterminated string")
                if not stuck and size >= MAX_RECORD:  # the record begins where `text` does
                    raise UserError(f"{self.path}:{self.line}: record {number} is longer than {_LIMIT}") from None
                if stuck or not (more := self.grow()):
                    raise self.error(error.msg, self.at + problem[1]) from None
                seen, size = problem, size + more
            except (ValueError, RecursionError):
                raise self.error(_TOO_MUCH, self.at) from None

    def grow(self) -> int:
        """Drop what was taken and read on, doubling the rest; the number of bytes read, 0 at the end."""
        taken = self.text[: self.at]
        self.line += taken.count("\n")
        self.column = len(taken) - taken.rindex("\n") - 1 if "\n" in taken else self.column + len(taken)
        self.text, self.at = self.text[self.at :], 0
        data = self.file.read(max(CHUNK, min(len(self.text), MAX_RECORD // 4)))
        line = self.line + self.text.count("\n")
        self.text += _decoded(self.decoder, data, self.path, line, final=not data)
        self.ended = not data
        return len(data)

    def error(self, message: str, place: int) -> UserError:
        """The error for a place in `text`."""
        lines = self.text[:place].split("\n")
        column = len(lines[-1]) + 1 + (self.column if len(lines) == 1 else 0)
        if self.ended and not self.text[place:].strip():
            message = "the file ends inside the list"
        return UserError(f"{self.path}:{self.line + len(lines) - 1}: not valid JSON ({message} at column {column})")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with instruction/input/output, got {type(value).__name__}")
    return value


def example_from_dict(record: dict[str, Any]) -> Example:
    """Rebuild an Example from its JSON form."""
    turns = tuple(Turn(**turn) for turn in record["turns"])
    facts = tuple((s, p, o) for s, p, o in record["facts"])
    return Example(**{**record, "turns": turns, "facts": facts})


def read_examples(path: str | Path) -> list[Example]:
    """Read full Example records (JSON Lines, as `data build` writes them).

    Raises:
        UserError: as `read_json_records`, or a record that is no Example.
    """
    examples = []
    for where, record in read_json_records(path):
        try:
            examples.append(example_from_dict(record))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not an example record of `xinglin data build` ({error})") from None
    return examples


def to_json(record: Any) -> dict[str, Any]:
    """The JSON form of a record dataclass."""
    return asdict(record)


def json_line(record: dict[str, Any]) -> str:
    """A record as one line of JSON that every encoding can hold."""
    line = json.dumps(record, ensure_ascii=False)
    return json.dumps(record) if HALF_CHARACTER.search(line) else line


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a new file that takes `path`'s place only when the block ends well; else nothing is left behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_jsonl(path: str | Path, records: Iterable[Any]) -> None:
    """Write record dataclasses (or dicts) as JSON Lines, atomically."""
    with atomic_write(path) as file:
        for record in records:
            row = record if isinstance(record, dict) else to_json(record)
            file.write(json_line(row) + "\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value, indented and readable, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def write_json_list(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Write dicts as a JSON list, a line each, atomically."""
    with atomic_write(path) as file:
        separator = "[\n"
        for record in records:
            file.write(separator + json_line(record))
            separator = ",\n"
        file.write("\n]\n" if separator[0] == "," else "[]\n")
