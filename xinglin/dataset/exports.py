"""Write instruction data for other tools.

    xinglin data export --data_path data/llama_data.records.jsonl --output_path hub --format huggingface

The data is read once to check and count it, and once for every file that is written; never is it held whole.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from xinglin.dataset.card import Kind, data_card
from xinglin.dataset.formats import Format, detect, read
from xinglin.errors import UserError
from xinglin.prompts import KNOWLEDGE, with_knowledge
from xinglin.records import Example, atomic_write, to_alpaca, write_json, write_json_list, write_jsonl

_FOLDERS = ("huggingface", "llamafactory")
_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}
_ROW_GROUP = 1000
_PAIRS = {"formatting": "alpaca", "columns": {"prompt": "instruction", "query": "input", "response": "output"}}
_CHATS = {
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "system": "system"},
    "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
}


@dataclass(frozen=True)
class DataExport:
    """Write instruction data for other tools.

    Args:
        data_path: alpaca, sharegpt or chat records as JSON or JSON Lines, full records, or a CSV file.
        output_path: the file to write; a folder for huggingface and llamafactory.
        format: alpaca or sharegpt (a JSON list), openai (chat as JSON Lines), huggingface (Parquet and a data
            card), or llamafactory (its files and dataset_info.json).
        split: which split of full records goes into a file, or `all`; a folder holds every split.
        name: the data set's name in a folder.
        overwrite: replace what is at output_path.
    """

    data_path: str
    output_path: str
    format: Literal["alpaca", "sharegpt", "openai", "huggingface", "llamafactory"]
    split: str = "train"
    name: str = "xinglin"
    overwrite: bool = False


@dataclass(frozen=True)
class _Data:
    """The data of one export, to be read as often as needed."""

    path: Path
    format: Format

    def examples(self, split: str = "all") -> Iterator[Example]:
        for row in read(self.path, self.format):
            if row.example and split in (row.example.split, "all"):
                nameless = row.example.id == row.where  # a foreign record has its place for a name; keep the folder out
                place = row.where.removeprefix(f"{self.path.parent}/")
                yield replace(row.example, id=place) if nameless else row.example

    def survey(self, split: str) -> tuple[Counter[Kind], Example | None]:
        """Count all records; find the first of a split that is more than one question and one answer."""
        kinds: Counter[Kind] = Counter()
        long = None
        for one in self.examples():
            kinds[Kind(one.split, one.form, one.source, one.licence)] += 1
            if len(one.turns) != 2 and split in (one.split, "all"):
                long = long or one
        return kinds, long


def export_data(config: DataExport) -> None:
    """Write the data in another format; the file or folder appears whole or not at all.

    Raises:
        UserError: unreadable data, a conversation in a format without conversations, a split that is not there,
            or something at output_path already.
    """
    if config.format in _FOLDERS:
        _settle(Path(config.output_path))
    _check_target(config)
    data = _Data(Path(config.data_path), detect(config.data_path))
    asked = "all" if config.format in _FOLDERS else config.split
    kinds, long = data.survey(asked)
    splits = list(dict.fromkeys(kind.split for kind in kinds))
    if asked not in (*splits, "all"):
        raise UserError(f"{data.path}: no record of split {config.split!r}; has {', '.join(splits)} (or all)")
    if long and config.format in ("alpaca", "huggingface"):
        raise UserError(
            f"{data.path}: {long.id} is a conversation of {len(long.turns)} turns; {config.format} has one question "
            "and one answer, use --format openai or sharegpt"
        )
    output = Path(config.output_path)
    if config.format in _FOLDERS:
        if bad := next((split for split in splits if not re.fullmatch(r"\w+(\.\w+)*", split)), None):
            raise UserError(f"{data.path}: split {bad!r} cannot name a file; use letters, digits and _")
        with _new_folder(output) as folder:
            if config.format == "huggingface":
                _huggingface(folder, data, kinds, config.name)
            else:
                _llamafactory(folder, data, splits, config.name, chats=long is not None)
    elif config.format == "openai":
        write_jsonl(output, map(to_messages, data.examples(asked)))
    else:
        write_json_list(output, map(to_alpaca if config.format == "alpaca" else to_sharegpt, data.examples(asked)))
    total = sum(number for kind, number in kinds.items() if asked in (kind.split, "all"))
    print(f"{output}: {total:,} records as {config.format}")


def _check_target(config: DataExport) -> None:
    output, folder = Path(config.output_path), config.format in _FOLDERS
    if folder and config.split not in ("train", "all"):
        raise UserError(f"split {config.split!r}: --format {config.format} holds every split; leave --split out")
    if folder and not re.fullmatch(r"\w[\w.-]*", config.name):
        raise UserError(f"name {config.name!r}: use letters, digits, . _ and -")
    if output.resolve() in (Path(config.data_path).resolve(), *Path(config.data_path).resolve().parents):
        raise UserError(f"output_path {config.output_path!r} is or holds the data itself; give another place")
    if not output.exists() or (folder and output.is_dir() and not any(output.iterdir())):
        return
    if output.is_dir() != folder:
        is_now, writes = ("folder", "file") if output.is_dir() else ("file", "folder")
        raise UserError(f"output_path {config.output_path!r} is a {is_now}; --format {config.format} writes a {writes}")
    if not config.overwrite:
        raise UserError(f"output_path {config.output_path!r} exists; give another, or --overwrite")
    if folder and (entry := _foreign(output)):  # --overwrite must never cost more than an earlier export
        raise UserError(f"output_path {config.output_path!r} holds {entry}, which is no export; give another place")


def _foreign(folder: Path) -> str:
    """A file in a folder that no export has written, or an empty string."""
    ours = re.compile(r"README\.md|data/[\w.]+-00000-of-00001\.parquet|dataset_info\.json|[\w.-]+\.sft\.json")
    entries = (one for one in folder.rglob("*") if one.is_symlink() or not one.is_dir())
    names = (one.relative_to(folder).as_posix() for one in entries)
    return next((name for name in names if not ours.fullmatch(name)), "")


def _old(path: Path) -> Path:
    """Where a folder waits while another takes its place."""
    return path.parent / f".{path.name}.old"


def _settle(path: Path) -> None:
    """End an exchange of folders that was killed half-way: put the old one back, or away if the new one is there."""
    path = path.resolve()
    old = _old(path)
    if not old.is_dir():
        return
    if entry := _foreign(old):
        raise UserError(f"{old} holds {entry}, which is no export; move it away, its name is needed")
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes `path`'s place only when the block ends well."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{path.name}.new"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        if path.exists():
            old = path.rename(_old(path))
            work.rename(path)
            shutil.rmtree(old)
        else:
            work.rename(path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        _settle(path)
        raise


def to_messages(example: Example) -> dict[str, Any]:
    """The chat form of the OpenAI API."""
    return {"messages": [{"role": turn.role, "content": with_knowledge(turn)} for turn in example.turns]}


def to_sharegpt(example: Example) -> dict[str, Any]:
    """The ShareGPT form; `system` is always there, since readers want the same keys in every record."""
    system = example.turns[0].content if example.turns[0].role == "system" else ""
    turns = example.turns[1:] if system else example.turns
    said = [{"from": _SHAREGPT_ROLES[turn.role], "value": with_knowledge(turn)} for turn in turns]
    return {"conversations": said, "system": system}


def _huggingface(folder: Path, data: _Data, kinds: Counter[Kind], name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    triple = pa.struct([("subject", text), ("predicate", text), ("object", text)])
    columns = ("id", "instruction", "input", "output", "form", "facts", "source", "licence", "knowledge")
    schema = pa.schema([(column, pa.list_(triple) if column == "facts" else text) for column in columns])
    files = {kind.split: f"data/{kind.split}-00000-of-00001.parquet" for kind in kinds}
    (folder / "data").mkdir()
    for split, file in files.items():
        rows = map(_columns, data.examples(split))
        with pq.ParquetWriter(folder / file, schema, compression="zstd") as writer:
            while group := list(islice(rows, _ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))
    with atomic_write(folder / "README.md") as card:
        card.write(data_card(name, kinds, files))


def _columns(example: Example) -> dict[str, Any]:
    facts = [{"subject": s, "predicate": p, "object": o} for s, p, o in example.facts]
    kept = {name: getattr(example, name) for name in ("id", "form", "source", "licence")}
    knowledge = example.knowledge if example.form else ""  # nobody has said what a foreign `input` holds
    return {**to_alpaca(example), **kept, "facts": facts, "knowledge": knowledge}


def _llamafactory(folder: Path, data: _Data, splits: list[str], name: str, *, chats: bool) -> None:
    view = to_sharegpt if chats else _queried
    entries = {}
    for split in splits:
        file = f"{name}.{split}.sft.json"
        write_json_list(folder / file, map(view, data.examples(split)))
        entries[name if split == "train" else f"{name}_{split}"] = {"file_name": file, **(_CHATS if chats else _PAIRS)}
    write_json(folder / "dataset_info.json", entries)


def _queried(example: Example) -> dict[str, Any]:
    """LLaMA-Factory joins prompt and query with a line end; with these words its prompt is the one of a chat."""
    record = to_alpaca(example)
    return record | {"input": KNOWLEDGE + record["input"]} if record["input"] else record
