"""The typed index over knowledge graphs: one table of facts, kept as Parquet so that a second start takes a moment."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xinglin import assets
from xinglin.errors import UserError, nearest, one_line
from xinglin.knowledge.sources import read_cmekg
from xinglin.records import Fact, atomic_write

CMEKG = "cMeKG (PyCMeKG 0.2.5)"
CMEKG_LICENCE = "upstream terms unclear, research use"
_LAYOUT = 2  # of the Parquet file; raise it when its columns or the typing rules change

_COLUMNS = ("subject", "type", "predicate", "object", "source")

# (type, predicates of which one is enough), in the order in which they are asked: drugs carry the
# disease-like predicates too (相关疾病), so the more telling signature comes first
_SIGNATURES: tuple[tuple[str, frozenset[str]], ...] = (
    ("herb", frozenset({"性味", "入药部位", "界门纲目科属种"})),
    ("formula", frozenset({"组成", "出处", "功用"})),
    ("drug", frozenset({"适应症", "适应证", "成份", "OTC类型", "规格", "用法用量", "药品监管分级", "剂型"})),
    ("disease", frozenset({"就诊科室", "常见症状", "临床症状及体征", "ICD10", "常见病因", "并发症", "治疗"})),
    ("examination", frozenset({"所属分类", "相关症状"})),
)


def subject_type(predicates: Iterable[str]) -> str:
    """Tell a subject's type (drug, disease, herb, examination, formula or other) by its predicates."""
    names = frozenset(predicates)
    for kind, signature in _SIGNATURES:
        if names & signature:
            return kind
    return "disease" if any(name.startswith("诊断依据_") for name in names) else "other"


@dataclass(frozen=True)
class Subject:
    """One subject of the graph with everything said of it: predicate → objects."""

    name: str
    type: str
    facts: dict[str, list[str]]


class Graph:
    """A table of facts, ordered by subject; they become Python objects only when asked for.

    Attributes:
        licences: the name of each source → the terms of its knowledge.
    """

    def __init__(self, table: pa.Table, licences: dict[str, str]) -> None:
        self._table = table
        self.licences = licences

    @classmethod
    def from_facts(cls, facts: Iterable[Fact], licences: dict[str, str]) -> "Graph":
        """Build the index; subjects without a type get theirs by what is said of them.

        Raises:
            UserError: there is no fact at all.
        """
        rows = [(one.subject, one.subject_type, one.predicate, one.object, one.source) for one in facts]
        if not rows:
            raise UserError("the graph holds no facts")
        predicates: dict[str, set[str]] = {}
        given: dict[str, str] = {}
        for subject, kind, predicate, _, _ in rows:
            predicates.setdefault(subject, set()).add(predicate)
            if kind and kind != "other":  # of two graphs, the one that knows it
                given.setdefault(subject, kind)
        types = {name: given.get(name) or subject_type(said) for name, said in predicates.items()}
        ordered = sorted(rows, key=lambda row: row[0])  # stable: a subject's facts stay as the source has them
        columns = zip(*((s, types[s], p, o, source) for s, _, p, o, source in ordered), strict=True)
        arrays = [pa.array(column, pa.string()).dictionary_encode() for column in columns]
        return cls(pa.table(arrays, names=list(_COLUMNS)), licences)

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Read an index that `save` wrote.

        Raises:
            UserError: not such a file, or a damaged one.
        """
        try:
            table = pq.read_table(path, read_dictionary=list(_COLUMNS)).unify_dictionaries().combine_chunks()
            licences = json.loads((table.schema.metadata or {})[b"licences"])
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise UserError(f"{path}: not a graph written by `xinglin kg import` ({one_line(error)})") from None
        if table.column_names != list(_COLUMNS):
            raise UserError(f"{path}: not a graph of this version; import its source again")
        return cls(table, licences)

    def save(self, path: Path) -> None:
        """Write the index as Parquet, atomically; sources and licences go along."""
        metadata = {b"licences": json.dumps(self.licences, ensure_ascii=False).encode()}
        with atomic_write(path, "wb") as file:
            pq.write_table(self._table.replace_schema_metadata(metadata), file, compression="zstd")

    @classmethod
    def merge(cls, graphs: Sequence["Graph"]) -> "Graph":
        """Several graphs as one; each fact keeps its source."""
        if len(graphs) == 1:
            return graphs[0]
        licences = {name: terms for graph in graphs for name, terms in graph.licences.items()}
        return cls.from_facts((fact for graph in graphs for fact in graph), licences)

    @property
    def source(self) -> str:
        """The names of the sources."""
        return "、".join(self.licences)

    @property
    def licence(self) -> str:
        """The terms of the sources, each once."""
        return "; ".join(dict.fromkeys(self.licences.values()))

    @property
    def triples(self) -> int:
        """Number of facts."""
        return len(self._table)

    @cached_property
    def _rows(self) -> dict[str, tuple[int, int]]:
        """Subject → its first row and the one after its last."""
        codes, names = self.column("subject")
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]).tolist()
        return {
            names[codes[start]]: (start, stop) for start, stop in zip(starts, [*starts[1:], len(codes)], strict=True)
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[Fact]:
        for batch in self._table.to_batches(max_chunksize=50_000):
            yield from map(Fact, *(column.dictionary_decode().to_pylist() for column in batch.columns))

    def column(self, name: str) -> tuple[Any, list[str]]:
        """A column as (array with a code for every fact, text of every code)."""
        column = self._table[name].combine_chunks()
        return column.indices.to_numpy(), column.dictionary.to_pylist()

    @property
    def names(self) -> Iterable[str]:
        """All subject names."""
        return self._rows.keys()

    def get(self, name: str) -> Subject:
        """One subject.

        Raises:
            UserError: the graph has no such subject (the nearest name is given).
        """
        if name not in self._rows:
            close = [known for known in self._rows if known in name or name in known][:200]
            raise UserError(f"the graph has no subject {name!r}{nearest(name, close or self._rows)}")
        start, stop = self._rows[name]
        return _subjects(self._table.slice(start, stop - start))[0]

    def of_type(self, kind: str) -> list[Subject]:
        """All subjects of one type, by name."""
        return _subjects(self._table.filter(pc.equal(self._table["type"], kind)))

    def select(self, predicates: Sequence[str]) -> Iterator[Fact]:
        """The facts of some predicates."""
        wanted = pc.is_in(self._table["predicate"], pa.array(predicates, pa.string()))
        return iter(Graph(self._table.filter(wanted), self.licences))

    def subjects(self) -> Iterator[tuple[str, str]]:
        """(name, type) of every subject."""
        starts = [start for start, _ in self._rows.values()]
        return zip(self._rows, self._table["type"].take(starts).to_pylist(), strict=True)

    def types(self) -> Counter[str]:
        """Number of subjects of each type."""
        return Counter(kind for _, kind in self.subjects())

    def predicates(self) -> list[tuple[str, int, int]]:
        """(predicate, number of subjects, number of triples), the largest first."""
        counted = self._table.group_by("predicate").aggregate([("subject", "count_distinct"), ("subject", "count")])
        names = ("predicate", "subject_count_distinct", "subject_count")
        rows = zip(*(counted[name].to_pylist() for name in names), strict=True)
        return sorted(rows, key=lambda row: (-row[2], row[0]))


def _subjects(table: pa.Table) -> list[Subject]:
    """Gather rows, which come ordered by subject, into subjects; a fact of two sources is one here."""
    found: dict[str, tuple[str, dict[str, dict[str, None]]]] = {}
    columns = (table[name].cast(pa.string()).to_pylist() for name in _COLUMNS[:4])  # ten times faster than without
    for name, kind, predicate, object_ in zip(*columns, strict=True):
        facts = found.setdefault(name, (kind, {}))[1]
        facts.setdefault(predicate, {})[object_] = None
    return [Subject(n, kind, {p: list(o) for p, o in facts.items()}) for n, (kind, facts) in found.items()]


def load_cmekg() -> Graph:
    """The default graph: from the Parquet cache, else from the asset (fetched if need be).

    Raises:
        UserError: the asset cannot be fetched or read.
    """
    cached = assets.cache_dir() / "cmekg" / f"graph-{_LAYOUT}.parquet"
    if cached.is_file():
        try:
            return Graph.load(cached)
        except UserError:
            cached.unlink()  # damaged: read the source again
    graph = Graph.from_facts(read_cmekg(assets.fetch("cmekg"), CMEKG), {CMEKG: CMEKG_LICENCE})
    graph.save(cached)
    return graph


def open_graph(names: str) -> Graph:
    """A graph by name: `cmekg`, a file that `xinglin kg import` wrote, or several joined by commas.

    Raises:
        UserError: a name that is none of these, or a file that cannot be read.
    """
    graphs = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name == "cmekg":
            graphs.append(load_cmekg())
        elif Path(name).is_file():
            graphs.append(Graph.load(Path(name)))
        else:
            raise UserError(f"graph {name!r}: no such file; give 'cmekg' or a file written by `xinglin kg import`")
    if not graphs:
        raise UserError("no graph named; give 'cmekg' or a file written by `xinglin kg import`")
    return Graph.merge(graphs)
