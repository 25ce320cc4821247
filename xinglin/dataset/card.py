"""The data card that goes with a data set: what is in it, where it is from, what is wrong with it."""

from collections import Counter
from dataclasses import dataclass

import yaml

_SPLITS = {
    "train": "to tune on",
    "unseen_disease": "subjects that no training record asks about, with the facts at hand",
    "seen_fact": "facts that training has seen, asked in other words and without `input`",
}

_BUILT = """## How it was split

Subjects that share an alias, a name (apart from words like 急性 or 小儿) or most of their symptoms form a group. About
a tenth of the groups, picked by a hash of the group's name, is held out: `unseen_disease` asks about those, and no
training record does. `seen_fact` asks about training's subjects in words that training does not use.

## Known defects

- The terms of cMeKG's knowledge are unclear: the package says MIT, nothing states the terms of the content, and traces
  of other publications suggest that parts were taken from elsewhere. Clear the rights before any use beyond research.
- Questions and answers are sentences built by a program from triples, not words of patients or of clinicians.
- No clinician has verified the facts. Rules removed what is plainly broken; wrong facts are left.
- The graph is incomplete: that a fact is missing does not mean "no", and a list of symptoms need not be whole.
- The order of symptoms, examinations or complications in an answer carries no importance.
"""

_FOREIGN = """## Known defects

- The records come from a file that `xinglin` did not build: nothing here vouches for what they say.
- Unless a source and a licence stand above, neither is known. Clear the rights before publishing.
- This export has not searched the texts for names, telephone numbers or other data of patients.
"""

_BODY = """# {name}

Questions and answers on medicine in Chinese, for tuning language models and for measuring them. {total:,} records.

**Not medical advice.** For research only: not for diagnosis, treatment or triage, and no replacement for a doctor.
本数据集仅供研究，不构成医疗建议，不能代替医生的诊断与治疗。

## Columns

| column | what |
|---|---|
| `id` | name of the record |
| `instruction` | the question |
| `input` | knowledge that comes with the question, or empty |
| `output` | the answer |
| `form` | form of the question, empty where it is not known |
| `facts` | triples that the answer cites: `subject`, `predicate`, `object` |
| `source`, `licence` | where the facts are from, and on which terms |
| `knowledge` | what `input` holds: `facts` that answer, `other_facts` that do not, `none`; empty where unknown |

## Sources and licences

{sources}

## Counts

{counts}

{notes}
## How to load

```python
from datasets import load_dataset

data = load_dataset("path/to/this/folder")
print(data["{split}"][0]["instruction"])
```
"""


@dataclass(frozen=True)
class Kind:
    """What records of a data set are counted by."""

    split: str
    form: str
    source: str
    licence: str


def size_category(number: int) -> str:
    """The Hub's word for a number of records, e.g. `1K<n<10K`."""
    steps = [(1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M")]
    below = "n<1K"
    for (size, word), (_, after) in zip(steps, [*steps[1:], (0, "100M")], strict=True):
        if number >= size:
            below = f"{word}<n<{after}"
    return below


def data_card(name: str, counts: Counter[Kind], files: dict[str, str]) -> str:
    """The text of README.md: a YAML header for the Hub, and the card.

    Args:
        files: each split's file within the folder.
    """
    total = counts.total()
    header = {
        "pretty_name": name,
        "license": "other",
        "license_name": "see-sources-and-licences",
        "language": ["zh"],
        "task_categories": ["question-answering"],
        "tags": ["medical", "instruction-tuning", "knowledge-graph"],
        "size_categories": [size_category(total)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": path} for split, path in files.items()],
            }
        ],
    }
    body = _BODY.format(
        name=name,
        total=total,
        sources=_sources(counts),
        counts=_table(counts, list(files)),
        notes=_BUILT if any(kind.form for kind in counts) else _FOREIGN,
        split=next(iter(files)),
    )
    return f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---\n\n{body}"


def _sources(counts: Counter[Kind]) -> str:
    table: Counter[tuple[str, str]] = Counter()
    for kind, number in counts.items():
        table[kind.source or "not recorded", kind.licence or "not recorded"] += number
    rows = [f"| {_cell(source)} | {_cell(terms)} | {number:,} |" for (source, terms), number in table.most_common()]
    return "\n".join(["| source | licence | records |", "|---|---|---|", *rows])


def _table(counts: Counter[Kind], splits: list[str]) -> str:
    cells: Counter[tuple[str, str]] = Counter()
    for kind, number in counts.items():
        cells[kind.form, kind.split] += number
        cells["all", kind.split] += number
    forms = [*sorted({kind.form for kind in counts if kind.form}), *([""] if any(not k.form for k in counts) else [])]
    rows = [
        f"| {_cell(form) or 'no form'} | " + " | ".join(f"{cells[form, split]:,}" for split in splits) + " |"
        for form in [*forms, "all"]
    ]
    head = ["| form | " + " | ".join(f"`{split}`" for split in splits) + " |", "|---" * (len(splits) + 1) + "|"]
    meant = [f"- `{split}`: {_SPLITS[split]}" for split in splits if split in _SPLITS]
    return "\n".join([*head, *rows, "", *meant])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
