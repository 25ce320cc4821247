"""A cleaned copy of a file, and a ledger of every change.

    {"where": "a.jsonl:3", "change": "drop", "rule": "prompt_leak", "before": "…", "after": ""}
    {"where": "a.jsonl:7", "change": "edit", "rule": "repair, phone", "before": "…", "after": "…"}

Dropped: records that cannot be used, and what no rule can repair: written-out empty values, leaked prompts, questions
without context, broken characters, loops, and copies of an earlier record. Edited: web markup, full-width letters and
digits, misread encodings; personal data is masked, under every key. Left as they are, since a person must judge them:
near duplicates, answers that disagree or repeat, doses, unpaired brackets and missing final marks. Cleaning a cleaned
file changes nothing.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from xinglin.dataset import formats
from xinglin.dataset.formats import Format, Row
from xinglin.dataset.quality.detect import RULES, texts_of
from xinglin.dataset.quality.duplicates import hash64
from xinglin.dataset.quality.groups import identity
from xinglin.dataset.quality.personal import LABELS, Hit, find, mask
from xinglin.dataset.quality.repair import cleaned, repaired
from xinglin.errors import UserError
from xinglin.records import Example, atomic_write, json_line

_DROPPED = [name for name, rule in RULES.items() if rule.fix == "drop"]


@dataclass
class Fixed:
    """What became of a file: `changes` counts (change, rule)."""

    kept: int = 0
    edited: int = 0
    dropped: int = 0
    changes: Counter[str] = field(default_factory=Counter)


def need_place(name: str, folder: Path) -> None:
    """Make sure, before any work, that files can be written in a folder, or where it will be.

    Args:
        name: the option that names the folder, for the error.

    Raises:
        UserError: they cannot.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f"{name} {folder}: cannot write in {there} ({error.strerror}); give another place") from None


def places(source: Path, fix_path: str) -> tuple[Path, Path]:
    """Where the cleaned copy and its ledger go: `<name>.clean` with the same ending beside the data by default.

    Raises:
        UserError: one of them is the data itself or a folder, or cannot be written.
    """
    target = Path(fix_path) if fix_path else source.parent / f"{source.stem}.clean{source.suffix}"
    ledger = target.with_name(f"{target.stem}.changes.jsonl")
    need_place("fix_path", target.parent)
    for path in (target, ledger):
        if path.resolve() == source.resolve():
            raise UserError(f"fix_path {target}: {path} is the data itself; give another name")
        if path.is_dir():
            raise UserError(f"fix_path {target}: {path} is a folder; give the name of a file")
    return target, ledger


def clean_copy(source: Path, fmt: Format, target: Path, ledger: Path) -> Fixed:
    """Write the cleaned copy and its ledger; both appear whole or not at all."""
    fixed = Fixed()
    with atomic_write(ledger) as file:
        formats.write(_kept(formats.read(source, fmt, strict=False), fixed, file), target, fmt)
    return fixed


def find_beside(keys: str, text: str) -> list[Hit]:
    """Personal data in a text that stands under a key, which may be what announces it: 姓名：王建国.

    Returns:
        Its places in `keys：text`.
    """
    return [hit for hit in find(f"{keys}：{text}") if hit.start > len(keys)]


def mask_beside(keys: str, text: str) -> str:
    """The text with personal data masked as far as its key tells it; the key is left alone."""
    while hits := find_beside(keys, text):
        for hit in reversed(hits):
            start, end = (place - len(keys) - 1 for place in (hit.start, hit.end))
            text = f"{text[:start]}〔{LABELS[hit.kind]}〕{text[end:]}"
    return text


def _kept(rows: Iterator[Row], fixed: Fixed, ledger: IO[Any]) -> Iterator[Row]:
    seen: set[int] = set()
    for row in rows:
        better = formats.edit(row, cleaned, mask_beside)
        rule = _drop(better.example, seen)
        change = "drop" if rule else "edit"
        if rule:
            fixed.dropped += 1
        else:
            fixed.kept += 1
            yield better
            if better.raw == row.raw:
                continue
            fixed.edited += 1
            rule = _edits(row)
        after = "" if change == "drop" else _shown(row, better.example)
        for name in rule.split(", "):
            fixed.changes[f"{change} {name}"] += 1
        entry = {"where": row.where, "change": change, "rule": rule, "before": _shown(row, row.example), "after": after}
        ledger.write(json_line(entry) + "\n")


def _drop(example: Example | None, seen: set[int]) -> str:
    """The rule by which a repaired record is left out, or an empty string."""
    if example is None:
        return "unusable"
    texts = texts_of(example)
    found = next((name for name in _DROPPED if RULES[name].test(texts)), "")
    if found:
        return found
    copy = hash64("\n".join(identity(texts)))
    if copy in seen:
        return "exact_duplicate"
    seen.add(copy)
    return ""


def _edits(row: Row) -> str:
    """What was put right: `repair` and the kinds of personal data that were masked."""
    whole = texts_of(row.example).whole if row.example else ""
    better = repaired(whole)
    elsewhere = (hit for keys, text in formats.beside(row) for hit in find_beside(keys, text))
    kinds = sorted({hit.kind for hit in (*find(better), *elsewhere)})
    return ", ".join(["repair", *kinds] if better != whole or not kinds else kinds)


def _shown(row: Row, example: Example | None) -> str:
    """A record in the ledger, with what is masked under its other keys: personal data is masked here too."""
    if example is None:
        return mask(json_line(formats.edit(row, mask, mask_beside).raw))
    others = ((keys, text, mask_beside(keys, text)) for keys, text in formats.beside(row))
    lines = [f"{mask(keys)}：{masked}" for keys, text, masked in others if masked != text]
    return "\n".join([mask(texts_of(example).whole), *lines])
