"""The typed index over a knowledge graph, kept as Parquet so that a second start takes a moment.

xinglin kg stats
xinglin kg show 偏头痛
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xinglin import assets
from xinglin.errors import UserError, nearest
from xinglin.knowledge.sources import Triples, read_cmekg
from xinglin.records import Fact, atomic_write

CMEKG = "cMeKG (PyCMeKG 0.2.5)"
CMEKG_LICENCE = "upstream terms unclear, research use"
_LAYOUT = 1  # of the Parquet file; raise it when its columns or the typing rules change

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
    """One subject of the graph with everything said of it."""

    name: str
    type: str
    facts: dict[str, list[str]]


class Graph:
    """Subjects by name and by type; facts are taken out of the Arrow table only when asked for."""

    def __init__(self, table: pa.Table, source: str = CMEKG) -> None:
        self._table = table
        self.source = source

    @classmethod
    def from_triples(cls, triples: Triples, source: str = CMEKG) -> "Graph":
        """Build the index; rows are sorted by subject name so that the same graph gives the same file."""
        names = sorted(triples)
        columns = {
            "subject": pa.array(names, pa.string()),
            "type": pa.array([subject_type(triples[name]) for name in names], pa.string()),
            "predicates": pa.array([list(triples[name]) for name in names], pa.list_(pa.string())),
            "objects": pa.array([list(triples[name].values()) for name in names], pa.list_(pa.list_(pa.string()))),
        }
        return cls(pa.table(columns), source)

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self._table["subject"].to_pylist())}

    def __contains__(self, name: str) -> bool:
        return name in self._row

    @property
    def names(self) -> Iterable[str]:
        """All subject names."""
        return self._row.keys()

    def get(self, name: str) -> Subject:
        """One subject.

        Raises:
            UserError: the graph has no such subject (the nearest name is given).
        """
        if name not in self._row:
            close = [known for known in self._row if known in name or name in known][:200]
            raise UserError(f"the graph has no subject {name!r}{nearest(name, close or self._row)}")
        return self._subjects(self._table.slice(self._row[name], 1))[0]

    def of_type(self, kind: str) -> list[Subject]:
        """All subjects of one type, by name."""
        return self._subjects(self._table.filter(pc.equal(self._table["type"], kind)))

    def facts(self, name: str) -> list[Fact]:
        """All facts of one subject."""
        subject = self.get(name)
        return [
            Fact(name, subject.type, predicate, object_, self.source)
            for predicate, objects in subject.facts.items()
            for object_ in objects
        ]

    def types(self) -> Counter[str]:
        """Number of subjects of each type."""
        return Counter(self._table["type"].to_pylist())

    def predicates(self) -> list[tuple[str, int, int]]:
        """(predicate, number of subjects, number of triples), the largest first."""
        flat = pa.table(
            {
                "predicate": pc.list_flatten(self._table["predicates"]),
                "triples": pc.list_value_length(pc.list_flatten(self._table["objects"])),
            }
        )
        counted = flat.group_by("predicate").aggregate([("triples", "count"), ("triples", "sum")])
        rows = zip(*(counted[name].to_pylist() for name in ("predicate", "triples_count", "triples_sum")), strict=True)
        return sorted(rows, key=lambda row: (-row[2], row[0]))

    def save(self, path: Path) -> None:
        """Write the index as Parquet, atomically."""
        with atomic_write(path, "wb") as file:
            pq.write_table(self._table, file, compression="zstd")

    @staticmethod
    def _subjects(table: pa.Table) -> list[Subject]:
        columns = (table[name].to_pylist() for name in ("subject", "type", "predicates", "objects"))
        return [Subject(n, t, dict(zip(p, o, strict=True))) for n, t, p, o in zip(*columns, strict=True)]


def load_cmekg() -> Graph:
    """The default graph: from the Parquet cache, else from the asset (fetched if need be).

    Raises:
        UserError: the asset cannot be fetched or read.
    """
    cached = assets.cache_dir() / "cmekg" / f"graph-{_LAYOUT}.parquet"
    if cached.is_file():
        try:
            return Graph(pq.read_table(cached))
        except (pa.ArrowInvalid, OSError):
            cached.unlink()  # damaged: read the source again
    graph = Graph.from_triples(read_cmekg(assets.fetch("cmekg")))
    graph.save(cached)
    return graph


@dataclass(frozen=True)
class KgStats:
    """Count the subjects and triples of cMeKG.

    Args:
        top: how many predicates to list, the largest first.
    """

    top: int = 20


def print_stats(config: KgStats) -> None:
    """Print the counts of `xinglin kg stats`."""
    graph = load_cmekg()
    predicates = graph.predicates()
    triples = sum(row[2] for row in predicates)
    print(f"{graph.source}（{CMEKG_LICENCE}）")
    print(f"subjects {len(graph):,}   predicates {len(predicates):,}   triples {triples:,}\n")
    for kind, count in graph.types().most_common():
        print(f"{count:>9,}  {kind}")
    print(f"\n{'subjects':>9} {'triples':>9}  predicate")
    for name, subjects, count in predicates[: config.top]:
        print(f"{subjects:>9,} {count:>9,}  {name}")


@dataclass(frozen=True)
class KgShow:
    """Show what cMeKG says of one subject.

    Args:
        subject: its name, e.g. 偏头痛.
        limit: how many objects of a predicate to print; 0 prints all.
    """

    subject: str
    limit: int = 12


def print_subject(config: KgShow) -> None:
    """Print one subject's facts, predicate by predicate."""
    subject = load_cmekg().get(config.subject)
    print(f"{subject.name}  [{subject.type}]  {CMEKG}；未经核实，不作诊疗依据")
    for predicate, objects in subject.facts.items():
        shown = objects[: config.limit] if config.limit else objects
        rest = len(objects) - len(shown)
        print(f"  {predicate}：{'、'.join(shown)}{f' …（另 {rest} 项）' if rest else ''}")
