"""The plain records that stages hand each other as files, and how they are read and written.

An instruction file is a JSON list, or JSON Lines, of the field's three keys:

    {"instruction": "偏头痛挂哪个科？", "input": "", "output": "偏头痛建议到神经内科就诊。"}

The two are told apart by content, never by the file's name (a well-known `llama_data.json` is JSON Lines).
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from xinglin.errors import UserError


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
    """One answer of one model, with everything needed to ask for it again."""

    id: str
    prompt: str
    answer: str
    model: str
    adapter: str
    generation: dict[str, Any]
    facts: tuple[tuple[str, str, str], ...] = ()
    finish_reason: str = ""
    seconds: float = 0.0


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


def read_json_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line` or `file, record N`, record) from a JSON list or JSON Lines file.

    Raises:
        UserError: no such file, not UTF-8, broken JSON (with its line), or a record that is no object.
    """
    path = Path(path)
    text = _read_text(path)
    if text.lstrip()[:1] == "[":
        yield from _read_list(path, text)
        return
    # not splitlines(): a raw U+2028 inside a string is legal JSON and no line end
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, _object(json.loads(line), where)
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None


def _read_list(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})"
        raise UserError(message) from None
    for number, record in enumerate(records, 1):
        where = f"{path}, record {number}"
        yield where, _object(record, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with instruction/input/output, got {type(value).__name__}")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (working folder {Path.cwd()})") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a JSON or JSON Lines file") from None
    except PermissionError:
        raise UserError(f"{path}: not readable by this user") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it, e.g. iconv -f gb18030 -t utf-8") from None


def read_instructions(path: str | Path, *, need_output: bool = True) -> list[Example]:
    """Read an instruction file (Alpaca JSON or JSON Lines).

    Raises:
        UserError: as `read_json_records` and `from_alpaca`; also when the file holds no record.
    """
    examples = [from_alpaca(record, where, need_output=need_output) for where, record in read_json_records(path)]
    if not examples:
        raise UserError(f"{path}: holds no records")
    return examples


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
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value, indented and readable, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")
