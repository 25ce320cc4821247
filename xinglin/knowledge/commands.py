"""What `xinglin kg …` prints.

xinglin kg stats
xinglin kg show 偏头痛
xinglin kg import medical.json --output_path data/medical.parquet
xinglin kg export cmekg.csv
xinglin kg check
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from xinglin.errors import UserError
from xinglin.knowledge.export import ExportFormat, export
from xinglin.knowledge.graph import Graph, open_graph
from xinglin.knowledge.integrity import Finding, as_markdown, check
from xinglin.knowledge.sources import Format, read_predicate_map, read_source
from xinglin.records import Fact, atomic_write, write_json


@dataclass(frozen=True)
class KgStats:
    """Count the subjects and triples of a graph.

    Args:
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        top: how many predicates to list, the largest first.
    """

    graph: str = "cmekg"
    top: int = 20


def print_stats(config: KgStats) -> None:
    """Print the counts of `xinglin kg stats`."""
    graph = open_graph(config.graph)
    for source, licence in graph.licences.items():
        print(f"{source}（{licence}）")
    predicates = graph.predicates()
    print(f"subjects {len(graph):,}   predicates {len(predicates):,}   triples {graph.triples:,}\n")
    _print_types(graph)
    print(f"\n{'subjects':>9} {'triples':>9}  predicate")
    for name, subjects, count in predicates[: config.top]:
        print(f"{subjects:>9,} {count:>9,}  {name}")


@dataclass(frozen=True)
class KgShow:
    """Show what a graph says of one subject.

    Args:
        subject: its name, e.g. 偏头痛.
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        limit: how many objects of a predicate to print; 0 prints all.
    """

    subject: str
    graph: str = "cmekg"
    limit: int = 12


def print_subject(config: KgShow) -> None:
    """Print one subject's facts, predicate by predicate."""
    graph = open_graph(config.graph)
    subject = graph.get(config.subject)
    print(f"{subject.name}  [{subject.type}]  {graph.source}；未经核实，不作诊疗依据")
    for predicate, objects in subject.facts.items():
        shown = objects[: config.limit] if config.limit else objects
        rest = len(objects) - len(shown)
        print(f"  {predicate}：{'、'.join(shown)}{f' …（另 {rest} 项）' if rest else ''}")


@dataclass(frozen=True)
class KgImport:
    """Read a file of facts into a graph that every command takes by its path.

    Args:
        source_path: the file: CSV, TSV, JSON Lines, nested JSON, medical.json or the cMeKG pickle.
        output_path: where the graph goes.
        format: what the file is; auto finds out from its content, then from its name.
        predicate_map: YAML file that renames relations, `症状: 常见症状` on every line.
        source: name of the source, for facts that name none themselves; the file's name by default.
        licence: the terms of its knowledge, shown with every answer.
        overwrite: replace the graph at output_path.
    """

    source_path: str
    output_path: str = "data/graph.parquet"
    format: Format = "auto"
    predicate_map: str = ""
    source: str = ""
    licence: str = "unknown terms"
    overwrite: bool = False


def import_graph(config: KgImport) -> None:
    """Read a source, write it as a graph and print the counts by type."""
    output = _free(config.output_path, config.overwrite)
    renamed = read_predicate_map(config.predicate_map) if config.predicate_map else None
    licences: dict[str, str] = {}

    def facts() -> Iterator[Fact]:
        for fact in read_source(config.source_path, config.format, config.source, renamed):
            licences[fact.source] = config.licence
            yield fact

    graph = Graph.from_facts(facts(), licences)
    graph.save(output)
    print(f"{output}: {graph.source}（{graph.licence}）")
    print(f"subjects {len(graph):,}   predicates {len(graph.predicates()):,}   triples {graph.triples:,}\n")
    _print_types(graph)


def _print_types(graph: Graph) -> None:
    for kind, count in graph.types().most_common():
        print(f"{count:>9,}  {kind}")


def _free(path: str, overwrite: bool) -> Path:
    if Path(path).is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if Path(path).exists() and not overwrite:
        raise UserError(f"{path}: exists; name another --output_path or give --overwrite")
    return Path(path)


@dataclass(frozen=True)
class KgExport:
    """Write a graph as a file for other programs.

    Args:
        output_path: where it goes.
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        format: csv, tsv, jsonl (head, relation, tail, head_type, source) or nested (JSON without types and sources).
        overwrite: replace the file at output_path.
    """

    output_path: str
    graph: str = "cmekg"
    format: ExportFormat = "csv"
    overwrite: bool = False


def export_graph(config: KgExport) -> None:
    """Write the file and print how many facts it holds."""
    output = _free(config.output_path, config.overwrite)
    graph = open_graph(config.graph)
    export(graph, output, config.format)
    print(f"{output}: {graph.triples:,} facts of {len(graph):,} subjects, {graph.source}（{graph.licence}）")


@dataclass(frozen=True)
class KgCheck:
    """Count everything known to be wrong in a graph, with examples.

    Args:
        graph: `cmekg`, a file written by `xinglin kg import`, or several joined by commas.
        output_dir: folder that gets the report as integrity.json and integrity.md; empty: print it only.
        examples: how many examples of each kind.
    """

    graph: str = "cmekg"
    output_dir: str = ""
    examples: int = 3


def check_graph(config: KgCheck) -> None:
    """Print the report of `xinglin kg check`, and write it where asked."""
    if config.examples < 0:
        raise UserError(f"--examples {config.examples}: give 0 or more")
    graph = open_graph(config.graph)
    findings = check(graph, config.examples)
    print(f"{graph.source}: subjects {len(graph):,}   triples {graph.triples:,}\n")
    for one in findings:
        print(f"{one.count:>9,} {one.unit:<10} {one.name}: {one.meaning}")
        for example in one.examples:
            print(f"{'':20}   {_visible(example)}")
    if config.output_dir:
        _write_report(graph, findings, Path(config.output_dir))


def _visible(text: str) -> str:
    """A text on one line, its invisible characters spelt out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _write_report(graph: Graph, findings: Iterable[Finding], folder: Path) -> None:
    counts = {"subjects": len(graph), "triples": graph.triples, "sources": graph.licences}
    write_json(folder / "integrity.json", counts | {"findings": [asdict(one) for one in findings]})
    with atomic_write(folder / "integrity.md") as file:
        file.writelines(f"{line}\n" for line in as_markdown(graph, findings))
    print(f"\n{folder / 'integrity.md'}, {folder / 'integrity.json'}")
