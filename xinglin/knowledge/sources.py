"""Read knowledge graphs of any usual format as facts that name their source.

    cmekg    {"偏头痛": {"就诊科室": ["神经内科"], "临床症状及体征": ["呕吐", …]}, …} in a pickle (the default graph)
    nested   the same as JSON; a single object need not be in a list
    csv, tsv head,relation,tail[,head_type,tail_type], with or without such a header
    jsonl    {"head": "偏头痛", "relation": "就诊科室", "tail": "神经内科"} on every line
    medical  QASystemOnMedicalKG's medical.json

A pickle can run code when it is read. cMeKG's needs no class at all, so the reader refuses every one.
"""

import difflib
import json
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, cast

import yaml

from xinglin.errors import UserError, one_line
from xinglin.knowledge.medical import PREDICATES, SKIPPED, is_medical, medical_facts, texts
from xinglin.records import HALF_CHARACTER, Fact, open_data, read_lines
from xinglin.tables import open_text, read_table

Format = Literal["auto", "cmekg", "nested", "csv", "tsv", "jsonl", "medical"]

_log = logging.getLogger(__name__)

_NAMES: dict[str, tuple[str, ...]] = {
    "head": ("head", "subject", "h", "实体1", "头实体", "主体"),
    "relation": ("relation", "predicate", "r", "关系", "谓词"),
    "tail": ("tail", "object", "t", "实体2", "尾实体", "客体"),
    "type": ("head_type", "subject_type", "type", "头实体类型", "类型"),
    "source": ("source", "来源"),
}
_BARE = {3: ("head", "relation", "tail"), 5: ("head", "relation", "tail", "type", "")}  # tables without a header
_TYPES = {
    "疾病": "disease",
    "药品": "drug",
    "药物": "drug",
    "检查": "examination",
    "中药": "herb",
    "药材": "herb",
    "方剂": "formula",
}
_FOREIGN = {
    b"PAR1": "is Parquet: a graph written by `xinglin kg import` needs no import, name it as --graph",
    b"PK\x03\x04": "is a spreadsheet or an archive; save the table as CSV, or unpack it",
    b"\x1f\x8b": "is compressed; unpack it first",
}
_EDGES = " \t\r\n"  # dropped around a text; any other odd space is left for `xinglin kg check` to show


class _Row(NamedTuple):
    """A fact as a file has it, and its line there (the subject's number where a file has no lines)."""

    place: int
    subject: str
    type: str
    predicate: str
    object: str
    source: str = ""


def read_source(
    path: str | Path, format: Format = "auto", source: str = "", predicate_map: Mapping[str, str] | None = None
) -> Iterator[Fact]:
    """Read a file of facts. Tables and JSON Lines are read line by line; the other formats are held whole.

    Rows without a head, a relation or a tail are left out, with a warning that counts them. The type of a tail is
    accepted and dropped: types are kept of subjects.

    Args:
        format: what the file is; `auto` finds out from its content, then from its name.
        source: name of the source, for facts that name none themselves; the file's name by default.
        predicate_map: the file's name of a relation → ours.

    Raises:
        UserError: the file cannot be read, is broken (with its line) or holds no facts, or a relation to be mapped
            is not in it. All but the first may come while the facts are being read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a folder or a pipe; give a file")
    fmt = detect(path) if format == "auto" else format
    unit = ", subject " if fmt in ("cmekg", "nested") else ":"
    return _facts(_READERS[fmt](path), path, unit, source or path.name, predicate_map or {})


def _facts(
    rows: Iterable[_Row], path: Path, unit: str, source: str, predicate_map: Mapping[str, str]
) -> Iterator[Fact]:
    seen: set[str] = set()
    left_out, first = 0, 0
    for row in rows:
        subject, predicate, object_ = row.subject.strip(_EDGES), row.predicate.strip(_EDGES), row.object.strip(_EDGES)
        if not (subject and predicate and object_):
            left_out, first = left_out + 1, first or row.place
            continue
        if HALF_CHARACTER.search("".join((subject, predicate, object_, row.type, row.source))):
            raise UserError(f"{path}{unit}{row.place}: half a character (a lone surrogate) in {subject[:20]!a}")
        seen.add(predicate)
        kind = row.type.strip()
        name = predicate_map.get(predicate, predicate)
        yield Fact(subject, _TYPES.get(kind, kind.lower()), name, object_, row.source.strip() or source)
    if left_out:
        rest = f", with {left_out - 1:,} more" if left_out > 1 else ""
        _log.warning("%s%s%d: a row without head, relation or tail was left out%s", path, unit, first, rest)
    if not seen:
        raise UserError(f"{path}: the graph is empty (no facts)")
    for key in filter(lambda key: key not in seen, predicate_map):
        close = difflib.get_close_matches(key, seen, n=3, cutoff=0.3) or sorted(seen)[:3]
        raise UserError(f"{path}: no relation {key!r} to map in it; the nearest are {', '.join(close)}")


def detect(path: Path) -> Format:
    """Find a file's format from its content, and only where that says nothing from its name.

    Raises:
        UserError: not readable, empty, of a known foreign format, or of none that can be told.
    """
    with open_data(path) as file:
        start = file.peek()[:8]
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise UserError(f"{path}: {what}")
    if start.startswith((b"(dp", b"(d\n", b"\x80")):  # dicts, as protocol 0 and later ones begin them
        return "cmekg"
    with open_text(path) as file:
        line = next((text for _, text in read_lines(file, path) if text.strip()), "").lstrip()
    if not line:
        raise UserError(f"{path}: the graph is empty (no facts)")
    if line[0] == "[":
        raise UserError(f"{path}: is a JSON list; write JSON Lines, one record a line")
    if line[0] == "{":
        return _detect_json(path, line)
    for delimiter, name in (("\t", "tsv"), (",", "csv")):
        if delimiter in line or path.suffix.lower() == f".{name}":
            return cast(Format, name)
    raise UserError(f"{path}: neither a table nor JSON; name what it is with --format")


def _detect_json(path: Path, line: str) -> Format:
    """The first line of JSON Lines is a whole record; of nested JSON it is a part, or everything."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "jsonl" if path.suffix.lower() == ".jsonl" else "nested"
    if {"head", "relation", "tail"} <= _columns(tuple(record)).keys():
        return "jsonl"
    if is_medical(record):
        return "medical"
    wrong = [(subject, value) for subject, value in record.items() if not isinstance(value, dict)]
    if not wrong:
        return "nested"
    if len(wrong) < len(record):  # a graph, but for one value
        raise UserError(f"{path}: {_not_said(*wrong[0])}; a record would need head, relation and tail")
    raise UserError(f"{path}: records with the keys {sorted(record)[:12]}; need head, relation and tail")


@lru_cache  # nearly every record of a file has the same keys
def _columns(names: tuple[str, ...]) -> dict[str, int]:
    """Which column holds what: head, relation, tail, type, source → its place."""
    plain = [name.strip().lower() for name in names]
    return {
        role: plain.index(first)
        for role, known in _NAMES.items()
        if (first := next((one for one in known if one in plain), None))
    }


def _read_table(path: Path, delimiter: str) -> Iterator[_Row]:
    width, columns = 0, {}
    for line, cells in read_table(path, delimiter):
        if not width:
            width, columns = len(cells), _columns(tuple(cells))
            if columns:
                _need_all(columns, f"{path}:{line}", cells)
                continue
            if width not in _BARE:
                raise UserError(f"{path}:{line}: {width} columns and no header; name them head, relation, tail")
            columns = {role: place for place, role in enumerate(_BARE[width]) if role}
        if len(cells) != width:
            raise UserError(f"{path}:{line}: has {len(cells)} fields, the first row {width}")
        yield _row(line, {role: cells[place] for role, place in columns.items()})


def _row(place: int, found: Mapping[str, str]) -> _Row:
    kind, source = found.get("type", ""), found.get("source", "")
    return _Row(place, found["head"], kind, found["relation"], found["tail"], source)


def _need_all(columns: Mapping[str, int], where: str, names: Iterable[str]) -> None:
    for role in ("head", "relation", "tail"):
        if role not in columns:
            known, shown = ", ".join(_NAMES[role]), ", ".join(names)[:120]
            raise UserError(f"{where}: no {role} in {shown}; name it one of {known}")


def _read_jsonl(path: Path) -> Iterator[_Row]:
    for line, record in _json_lines(path):
        names, where = tuple(record), f"{path}:{line}"
        columns = _columns(names)
        _need_all(columns, where, names)
        found = {role: texts(record[names[place]], f"{where}: {names[place]!r}") for role, place in columns.items()}
        for role, values in found.items():
            if role != "tail" and len(values) > 1:
                raise UserError(f"{where}: {names[columns[role]]!r} must be one text, got {len(values)}")
        one = {role: "".join(values[:1]) for role, values in found.items()}
        yield from (_row(line, one | {"tail": tail}) for tail in found["tail"] or [""])


def _read_medical(path: Path) -> Iterator[_Row]:
    unknown: dict[str, int] = {}
    for line, record in _json_lines(path):
        name = record.get("name")
        subject = name if isinstance(name, str) else ""
        for key in record.keys() - PREDICATES.keys() - SKIPPED.keys():
            unknown.setdefault(key, line)
        for predicate, object_ in medical_facts(record, f"{path}:{line}"):
            yield _Row(line, subject, "disease", predicate, object_)
    for key, line in unknown.items():
        _log.warning("%s:%d: the key %r is not known and was left out", path, line, key)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for number, text in read_lines(file, path):
            if text.strip():
                record = _parse(text, path, number, dict)
                if not isinstance(record, dict):
                    raise UserError(f"{path}:{number}: expected a JSON object, got {text.strip()[:40]!r}")
                yield number, record


def _read_nested(path: Path) -> Iterator[_Row]:
    with open_text(path) as file:
        text = "".join(line for _, line in read_lines(file, path))
    graph = _parse(text, path, 1, tuple)  # pairs, not dicts: a subject that comes twice keeps all its facts
    if not isinstance(graph, tuple):
        raise UserError(f"{path}: not a graph of the form {{subject: {{predicate: [objects]}}}}")
    for number, (subject, said) in enumerate(graph, 1):
        if not isinstance(said, tuple):
            raise UserError(f"{path}: {_not_said(subject, said)}")
        for predicate, value in said:
            where = f"{path}: {subject!r}, {predicate!r}"
            if isinstance(value, tuple):
                raise UserError(f"{where} must be text or a list of texts, got an object")
            yield from (_Row(number, subject, "", predicate, object_) for object_ in texts(value, where))


def _not_said(subject: str, value: Any) -> str:
    return f"the subject {subject!r} needs {{predicate: [objects]}}, got {type(value).__name__}"


def _parse(text: str, path: Path, line: int, pairs: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise UserError(f"{where}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}:{line}: not valid JSON (nested too deeply, or a number too long)") from None


class _PlainUnpickler(pickle.Unpickler):
    """Builds only what the format itself knows: dicts, lists, text and numbers."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_cmekg(path: str | Path, source: str) -> Iterator[Fact]:
    """Read the cMeKG pickle without running anything from it.

    Raises:
        UserError: the file is missing, asks for a class, or is not the graph's structure.
    """
    return (Fact(row.subject, "", row.predicate, row.object, source) for row in _read_pickle(Path(path)))


def _read_pickle(path: Path) -> Iterator[_Row]:
    try:
        with path.open("rb") as file:
            graph = _PlainUnpickler(file).load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a broken pickle may raise nearly anything
        raise UserError(f"{path}: refused, not a plain cMeKG file ({one_line(error)})") from None
    if not _is_graph(graph):
        raise UserError(f"{path}: not a graph of the form {{subject: {{predicate: [objects]}}}}")
    return (
        _Row(number, subject, "", predicate, object_)
        for number, (subject, said) in enumerate(graph.items(), 1)
        for predicate, objects in said.items()
        for object_ in objects
    )


def _is_graph(graph: Any) -> bool:
    return (
        isinstance(graph, dict)
        and all(isinstance(name, str) and isinstance(facts, dict) for name, facts in graph.items())
        and all(isinstance(one, str) for facts in graph.values() for one in facts)
        and all(isinstance(objects, list) for facts in graph.values() for objects in facts.values())
        and all(isinstance(one, str) for facts in graph.values() for objects in facts.values() for one in objects)
    )


_READERS: dict[str, Callable[[Path], Iterator[_Row]]] = {
    "cmekg": _read_pickle,
    "nested": _read_nested,
    "csv": lambda path: _read_table(path, ","),
    "tsv": lambda path: _read_table(path, "\t"),
    "jsonl": _read_jsonl,
    "medical": _read_medical,
}


def read_predicate_map(path: str | Path) -> dict[str, str]:
    """Read a YAML file that renames relations, `症状: 常见症状` on every line.

    Raises:
        UserError: not readable, not a flat mapping of texts, or a name that is led on or in a circle.
    """
    try:
        mapping = yaml.safe_load(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({one_line(error)})") from None
    if not isinstance(mapping, dict) or not all(
        isinstance(one, str) and one.strip() for pair in mapping.items() for one in pair
    ):
        raise UserError(f"{path}: not a flat mapping of texts; write one `name in the file: our name` a line")
    for start in mapping:
        way = [start]
        while (following := mapping.get(way[-1])) and way.count(way[-1]) == 1:
            way.append(following)
        if way.count(way[-1]) > 1:
            circle = way[way.index(way[-1]) :]
            raise UserError(f"{path}: {' → '.join(circle)} leads in a circle")
        if len(way) > 2:
            raise UserError(f"{path}: {' → '.join(way)}; name the last one at once")
    return mapping
