"""Write a graph for other programs; `xinglin kg import` reads every one of these files again.

csv, tsv head,relation,tail,head_type,source
jsonl    {"head": "偏头痛", "relation": "就诊科室", "tail": "神经内科", "head_type": "disease", "source": "cMeKG"}
nested   {"偏头痛": {"就诊科室": ["神经内科"]}, …}, without types and sources
"""

import csv
import json
from itertools import groupby
from pathlib import Path
from typing import IO, Literal

from xinglin.knowledge.graph import Graph
from xinglin.records import atomic_write

ExportFormat = Literal["csv", "tsv", "jsonl", "nested"]

_COLUMNS = ("head", "relation", "tail", "head_type", "source")


def export(graph: Graph, path: str | Path, format: ExportFormat) -> None:
    """Write all facts, one after another; the file appears whole or not at all."""
    with atomic_write(path) as file:
        if format == "nested":
            _write_nested(graph, file)
            return
        rows = ((fact.subject, fact.predicate, fact.object, fact.subject_type, fact.source) for fact in graph)
        if format == "jsonl":
            for row in rows:
                file.write(json.dumps(dict(zip(_COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")
            return
        # CRLF is the format's own line end, and makes the writer quote a text with a bare carriage return
        table = csv.writer(file, delimiter="\t" if format == "tsv" else ",", lineterminator="\r\n")
        table.writerow(_COLUMNS)
        table.writerows(rows)


def _write_nested(graph: Graph, file: IO[str]) -> None:
    separator = "{\n"
    for subject, facts in groupby(graph, lambda fact: fact.subject):
        said: dict[str, list[str]] = {}
        for fact in facts:
            said.setdefault(fact.predicate, []).append(fact.object)
        file.write(f"{separator}{json.dumps(subject, ensure_ascii=False)}: {json.dumps(said, ensure_ascii=False)}")
        separator = ",\n"
    file.write("\n}\n")
