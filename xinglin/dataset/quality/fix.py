"""A cleaned copy of a file, and a ledger of every change.

    {"where": "a.jsonl:3", "change": "drop", "rule": "prompt_leak", "before": "…", "after": ""}
    {"where": "a.jsonl:7", "change": "edit", "rule": "repair, phone", "before": "…", "after": "…"}

Dropped: records that cannot be used, and what no rule can repair: written-out empty values, leaked prompts, questions
without context, broken characters, loops, and copies of an earlier record. Edited: web markup, full-width letters and
digits, misread encodings; personal data is masked. Left as they are, since a person must judge them: near duplicates,
answers that disagree or repeat, doses, unpaired brackets and missing final marks. Cleaning a cleaned file changes
nothing.
"""

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
from xinglin.dataset.quality.personal import find, mask
from xinglin.dataset.quality.repair import cleaned, repaired
from xinglin.records import Example, atomic_write, json_line

_DROPPED = [name for name, rule in RULES.items() if rule.fix == "drop"]


@dataclass
class Fixed:
    """What became of a file: `changes` counts (change, rule)."""

    kept: int = 0
    edited: int = 0
    dropped: int = 0
    changes: Counter[str] = field(default_factory=Counter)


def clean_copy(source: Path, fmt: Format, target: Path, ledger: Path) -> Fixed:
    """Write the cleaned copy and its ledger; both appear whole or not at all."""
    fixed = Fixed()
    with atomic_write(ledger) as file:
        formats.write(_kept(formats.read(source, fmt, strict=False), fixed, file), target, fmt)
    return fixed


def _kept(rows: Iterator[Row], fixed: Fixed, ledger: IO[Any]) -> Iterator[Row]:
    seen: set[int] = set()
    for row in rows:
        better = formats.edit(row, cleaned)
        rule = _drop(better.example, seen)
        after = "" if rule or better.example is None else _shown(better.example)
        if rule:
            fixed.dropped += 1
        else:
            fixed.kept += 1
            yield better
            if better.raw == row.raw:
                continue
            fixed.edited += 1
            rule = _edits(row.example)
        change = "edit" if after else "drop"
        for name in rule.split(", "):
            fixed.changes[f"{change} {name}"] += 1
        before = _shown(row.example) if row.example else mask(json_line(row.raw))
        entry = {"where": row.where, "change": change, "rule": rule, "before": before, "after": after}
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


def _edits(example: Example | None) -> str:
    """What was put right: `repair` and the kinds of personal data that were masked."""
    whole = texts_of(example).whole if example else ""
    better = repaired(whole)
    kinds = sorted({hit.kind for hit in find(better)})
    return ", ".join(["repair", *kinds] if better != whole or not kinds else kinds)


def _shown(example: Example) -> str:
    """A record in the ledger: personal data is masked here too."""
    return mask(texts_of(example).whole)
