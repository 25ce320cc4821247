"""What is in a file of instruction data, and what is wrong with it.

    xinglin data check data.jsonl
    xinglin data check data.csv --base_model smollm2-135m --eval_paths test.jsonl --graph cmekg --fix

The file is read once for everything that a record shows by itself, and once more for the examples of what only shows
between records; at no time is it held whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xinglin import assets
from xinglin.config import listed
from xinglin.dataset import formats
from xinglin.dataset.encode import Encoding
from xinglin.dataset.formats import Format, Row
from xinglin.dataset.quality import page
from xinglin.dataset.quality.detect import RULES, Texts, advice, defects, language, texts_of
from xinglin.dataset.quality.duplicates import (
    Evaluation,
    Index,
    first_copies,
    signatures,
)
from xinglin.dataset.quality.fix import clean_copy, find_beside, mask_beside, need_place, places
from xinglin.dataset.quality.groups import Columns, clusters, disagreement, repeated_answers, whole_hashes
from xinglin.dataset.quality.lengths import Lengths, TokenLengths
from xinglin.dataset.quality.personal import LABELS, find, mask
from xinglin.errors import UserError, nearest
from xinglin.knowledge.check import GraphSupport
from xinglin.knowledge.graph import open_graph
from xinglin.knowledge.link import Linker
from xinglin.prompts import open_prompt
from xinglin.records import open_data, read_json_records, write_json
from xinglin.tokenizer import load_tokenizer

EXAMPLES = 5
"""How many examples of a finding the report shows."""
_URGENCY = ("mask", "drop", "repair", "")  # what --fix does about a finding, the gravest first
_OVERLAPS = 20  # how many training records that overlap with an evaluation file are named
_BATCH = 1000  # records whose signatures are computed at a time
_SHOWN = 80  # characters of a text in the report


@dataclass(frozen=True)
class DataCheck:
    """Check instruction data of any format and report what is wrong with it.

    Args:
        data_path: alpaca, ShareGPT, messages or full records as JSON or JSON Lines, or a table as CSV
            (UTF-8 or GB18030).
        output_dir: where report.md, report.html and report.json go; `<name>.check` beside the data when empty.
        base_model: count tokens with the tokenizer of this model folder or asset; characters only when empty.
        cutoff_len: the longest record in tokens that training would take, the end token included.
        prompt_template_name: the prompt that training would put around a record, as in `finetune`.
        eval_paths: evaluation files that the data must not contain, a list or joined by commas.
        graph: look up which of the answers' statements a graph has: `cmekg` or a file of `xinglin kg import`.
        fix: write a cleaned copy and a ledger of its changes.
        fix_path: where the copy goes; `<name>.clean` with the same ending beside the data when empty.
    """

    data_path: str
    output_dir: str = ""
    base_model: str = ""
    cutoff_len: int = 512
    prompt_template_name: str = "auto"
    eval_paths: str | list[str] = ""
    graph: str = ""
    fix: bool = False
    fix_path: str = ""


@dataclass
class Finding:
    """Something that was found: `records` of them, and a few shown as (where, text)."""

    name: str
    label: str
    fix: str = ""
    records: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, where: str, text: str) -> None:
        """Count one, and keep it if there are few so far."""
        self.records += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append({"where": where, "text": text})


def check_data(config: DataCheck) -> None:
    """Check the file, write the reports (and the cleaned copy), print a summary.

    Raises:
        UserError: as `check`, or a place that cannot be written to; that is told before the file is read.
    """
    source = Path(config.data_path)
    folder = Path(config.output_dir) if config.output_dir else source.parent / f"{source.stem}.check"
    need_place("output_dir", folder)
    to_fix = places(source, config.fix_path) if config.fix else None
    contents = check(config)
    if to_fix:
        contents["fix"] = _fix(source, *to_fix)
    write_json(folder / "report.json", contents)
    page.write(contents, folder)
    print("\n".join(page.summary(contents)))
    print(f"\n报告：{folder / 'report.html'}")


def check(config: DataCheck) -> dict[str, Any]:
    """Check the file.

    Returns:
        The contents of report.json; the same file gives the same.

    Raises:
        UserError: an unreadable file (data, evaluation, graph or tokenizer), or no record that can be used.
    """
    if config.cutoff_len < 1:
        raise UserError(f"cutoff_len must be at least 1, got {config.cutoff_len}")
    fmt = formats.detect(config.data_path)
    scan = Scan(config)
    with Index() as index:
        for rows in _batches(formats.read(config.data_path, fmt, strict=False)):
            scan.add(rows, index)
        if not scan.usable:
            raise UserError(f"{config.data_path}: none of its {scan.records} records can be used; {scan.first_problem}")
        groups = _groups(scan, index)
    shown = _shown_records(config.data_path, fmt, groups)
    return _contents(config, fmt, scan, [*_between(groups, shown), *scan.findings.values()])


class Scan:
    """The first reading: every record by itself, and what is kept to compare them."""

    def __init__(self, config: DataCheck) -> None:
        self.records = self.usable = self.advised = 0
        self.first_problem = ""
        self.findings = {"unusable": Finding("unusable", "记录不能用（缺回答、角色顺序不对等）", "drop")}
        self.findings |= {name: Finding(name, rule.label, rule.fix) for name, rule in RULES.items()}
        self.findings |= {
            f"personal_{kind}": Finding(f"personal_{kind}", f"个人信息：{label}", "mask")
            for kind, label in LABELS.items()
        }
        self.columns = Columns()
        self.languages: Counter[str] = Counter()
        self.lengths = Lengths()
        self.tokens = TokenLengths(_encoding(config)) if config.base_model else None
        self.support = _supporter(config.graph)
        self.pairs = self.supported = 0
        self.evaluation = _evaluation(listed(config.eval_paths))
        self.overlaps = Finding("contamination", "与评测题重叠")
        self.overlapping: list[str] = []

    def add(self, rows: list[Row], index: Index) -> None:
        """Take a batch of records in."""
        used, wholes, asked = [], [], []
        for row in rows:
            self.records += 1
            if row.example is None:
                self.first_problem = self.first_problem or f"{row.where}: {row.problem}"
                self.findings["unusable"].add(row.where, row.problem)
                continue
            texts = texts_of(row.example)
            whole, question = self.columns.add(texts)
            self._one(row, texts)
            self._personal(row, texts)
            if self.tokens:
                self.tokens.add(row.example)
            used.append((row.where, texts))
            wholes.append(whole)
            asked.append(question)
        if not used:
            return
        self.usable += len(used)
        signed = signatures(wholes)
        index.add(signed)
        if self.evaluation:
            hit = self.evaluation.compare(wholes, np.array(asked, np.uint64), signed)
            for number in np.flatnonzero(hit).tolist():
                where, texts = used[number]
                self.overlaps.add(where, _short(texts))
                self.overlapping += [where] if len(self.overlapping) < _OVERLAPS else []

    def _one(self, row: Row, texts: Texts) -> None:
        for name, piece in defects(texts).items():
            self.findings[name].add(row.where, f"〔{mask(piece)}〕 {_short(texts)}")
        self.advised += bool(advice(texts))
        self.languages[language(texts.answer)] += 1
        self.lengths.add(texts)
        if self.support:
            pairs, supported = self.support(texts.asked, texts.answer)
            self.pairs += pairs
            self.supported += supported

    def _personal(self, row: Row, texts: Texts) -> None:
        """Personal data in the texts, and beside them under any other key, which is then shown."""
        found = {hit.kind: _short(texts) for hit in find(texts.whole)}
        for keys, text in formats.beside(row):
            for hit in find_beside(keys, text):
                found.setdefault(hit.kind, f"{mask(keys)}：{mask_beside(keys, text)[:_SHOWN]}")
        for kind, shown in found.items():
            self.findings[f"personal_{kind}"].add(row.where, shown)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _short(texts: Texts) -> str:
    """A record in one line of the report, personal data masked."""
    question, answer = mask(texts.asked), mask(texts.answer)
    return " ".join(f"问：{question[:_SHOWN]}　答：{answer[:_SHOWN]}".split())


def _encoding(config: DataCheck) -> Encoding:
    folder = Path(config.base_model).expanduser()
    if config.base_model in assets.ASSETS and not folder.is_dir():
        prepared = sorted((assets.cache_dir() / config.base_model).glob("model-*/tokenizer_config.json"))
        if not prepared:
            raise UserError(
                f"base_model {config.base_model!r} is not there yet; run `xinglin assets path {config.base_model}` once"
            )
        folder = prepared[-1].parent
    elif not folder.is_dir() and "/" not in config.base_model:
        raise UserError(
            f"base_model {config.base_model!r}: no such folder{nearest(config.base_model, assets.ASSETS)}; "
            "give a model folder, an asset or a hub's ORG/NAME"
        )
    tokenizer = load_tokenizer(folder)
    return Encoding(
        tokenizer, open_prompt(config.prompt_template_name, tokenizer.inner, str(folder)), config.cutoff_len
    )


def _supporter(graph_name: str) -> Callable[[str, str], tuple[int, int]] | None:
    """How many statements an answer makes about the diseases it names, and how many of them the graph has."""
    if not graph_name:
        return None
    graph = open_graph(graph_name)
    return GraphSupport(graph, Linker.from_graph(graph))


def _evaluation(paths: Iterable[str]) -> Evaluation | None:
    items: list[tuple[str, str]] = []
    for path in paths:
        before = len(items)
        items += _evaluation_items(path)
        if len(items) == before:
            raise UserError(f"{path}: holds no evaluation records")
    return Evaluation([question for question, _ in items], [answer for _, answer in items]) if items else None


def _evaluation_items(path: str) -> Iterator[tuple[str, str]]:
    """(question, answer) of an evaluation file: instruction data, or JSON objects with a question and anything else."""
    try:
        fmt = formats.detect(path)
    except UserError:
        if not _is_json(path):
            raise
        for where, record in read_json_records(path):
            question = record.get("question")
            if not isinstance(question, str):
                raise UserError(f"{where}: an evaluation record needs instruction or question") from None
            yield question, "\n".join(_strings([value for key, value in record.items() if key != "question"]))
        return
    for row in formats.read(path, fmt, strict=False):
        if row.example and fmt.name == "records" and row.example.split == "train":
            continue  # our own file of all splits: only those to evaluate on
        if row.example:
            texts = texts_of(row.example)
            yield texts.asked, texts.answer
        elif texts_left := list(_strings(row.raw)):
            yield texts_left[0], "\n".join(texts_left[1:])


def _is_json(path: str) -> bool:
    if not Path(path).is_file():
        return False
    with open_data(Path(path)) as file:
        return file.peek().lstrip()[:1] in (b"[", b"{")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


@dataclass(frozen=True)
class _Group:
    """A finding between records: how many it concerns, and groups of record numbers to show."""

    name: str
    label: str
    fix: str
    records: int
    shown: list[list[int]]


def _groups(scan: Scan, index: Index) -> list[_Group]:
    first, labels = first_copies(whole_hashes(scan.columns))
    exact, exact_shown = clusters(labels)
    near, near_shown = clusters(index.clusters(first))
    repeated, repeated_shown = repeated_answers(scan.columns)
    answers = disagreement(scan.columns)
    return [
        _Group("exact_duplicates", "完全重复（不计首条）", "drop", exact, exact_shown),
        _Group("near_duplicates", "近似重复（不计首条与完全重复）", "", near, near_shown),
        _Group("contradictory", "同一问题，回答相互矛盾", "", answers.contradictory, answers.shown["contradictory"]),
        _Group("different_answers", "同一问题，回答不同", "", answers.different, answers.shown["different_answers"]),
        _Group("repeated_answers", "不同问题，同一回答（不计首条）", "", repeated, repeated_shown),
    ]


def _shown_records(path: str, fmt: Format, groups: list[_Group]) -> dict[int, tuple[str, str]]:
    """Read the file again for the records that the report shows: number → (where, text)."""
    wanted = {number for group in groups for shown in group.shown for number in shown}
    if not wanted:
        return {}
    usable = (row for row in formats.read(path, fmt, strict=False) if row.example)
    found = {}
    for number, row in enumerate(islice(usable, max(wanted) + 1)):
        if number in wanted and row.example:
            found[number] = (row.where, _short(texts_of(row.example)))
    return found


def _between(groups: list[_Group], shown: dict[int, tuple[str, str]]) -> Iterator[Finding]:
    for group in groups:
        finding = Finding(group.name, group.label, group.fix, group.records)
        for numbers in group.shown:
            where = "；".join(shown[number][0] for number in numbers)
            finding.examples.append({"where": where, "text": "\n".join(shown[number][1] for number in numbers)})
        yield finding


def _contents(config: DataCheck, fmt: Format, scan: Scan, findings: list[Finding]) -> dict[str, Any]:
    contents: dict[str, Any] = {
        "file": config.data_path,
        "format": f"{fmt.name}, {fmt.encoding}, {fmt.container}",
        "records": scan.records,
        "usable": scan.usable,
        "lengths": scan.lengths.figures(),
        "advice": scan.advised,
        "languages": dict(sorted(scan.languages.items())),
        "findings": [
            vars(finding) | {"share": finding.records / scan.records}
            for finding in sorted(findings, key=lambda one: _URGENCY.index(one.fix))
        ],
    }
    if scan.tokens:
        contents["tokens"] = {"base_model": config.base_model, "cutoff_len": config.cutoff_len, **scan.tokens.figures()}
    if scan.evaluation:
        covered = scan.evaluation.covered()
        contents["contamination"] = {
            "files": listed(config.eval_paths),
            "items": scan.evaluation.items,
            "items_sharing_15_characters": int((covered > 0).sum()),
            "items_half_covered": int((covered >= 0.5).sum()),
            "items_asked_again": len(scan.evaluation.asked_again),
            "items_nearly_whole": len(scan.evaluation.nearly),
            "records": scan.overlaps.records,
            "where": scan.overlapping,
            "examples": scan.overlaps.examples,
        }
    if scan.support:
        contents["graph"] = {"graph": config.graph, "statements": scan.pairs, "supported": scan.supported}
    return contents


def _fix(source: Path, target: Path, ledger: Path) -> dict[str, Any]:
    fixed = clean_copy(source, formats.detect(source), target, ledger)
    counts = {"kept": fixed.kept, "edited": fixed.edited, "dropped": fixed.dropped}
    return {"path": str(target), "ledger": str(ledger), **counts, "changes": dict(sorted(fixed.changes.items()))}
