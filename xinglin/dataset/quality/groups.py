"""What only shows when records are held against each other: copies, repeated answers, answers that disagree.

    肺炎会传染吗？  →  会传染。
    肺炎会传染吗？  →  不会传染。      contradictory: yes and no

Of every record only some 50 bytes are kept: hashes of its normal forms and the few marks that answers disagree by.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xinglin.dataset.quality.detect import Texts
from xinglin.dataset.quality.duplicates import U64, hash64, normal

Numbers = NDArray[np.int64]

_YES_NO = re.compile("吗|是否|是不是|会不会|能不能|可不可以|有没有|要不要|可否|能否")
_NO = re.compile(
    "(?!不一定|无需担心|不清楚|不好说)(?:不是|不会|不能|不可|不需|不必|不用|不宜|不建议|并不|没有|无|否|不)"
)
_YES = re.compile("(?:是|会|能|可以|有|需要|应该|对)")
_DEPARTMENTS = (  # noqa: SIM905
    "神经内 神经外 心血管 心外 呼吸 消化 内分泌 肾 血液 风湿 感染 普外 骨 泌尿 胸外 烧伤 整形 妇 儿 眼 "
    "耳鼻喉 口腔 皮肤 精神 肿瘤 康复 疼痛 急诊 中医 肝胆 肛肠 乳腺 甲状腺 血管外 营养 生殖 男 老年 放射 介入"
).split()
_ALIASES = {"产": "妇", "心内": "心血管", "传染": "感染", "性病": "皮肤", "心理": "精神"}
_NAMED = "|".join(sorted([*_DEPARTMENTS, *_ALIASES], key=len, reverse=True))
_DEPARTMENT = re.compile(f"({_NAMED})(?:免疫|内|外|病)?(?=科)")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_LONG_ANSWER = 6  # characters; shorter answers (是的) may well repeat


def polarity(question: str, answer: str) -> int:
    """1 or -1 when a yes-no question's answer begins with yes or no, else 0."""
    if not _YES_NO.search(question):
        return 0
    return -1 if _NO.match(answer) else 1 if _YES.match(answer) else 0


def departments(question: str, answer: str) -> int:
    """The departments that an answer names to a question about departments, a bit each."""
    if "科" not in question:
        return 0
    named = {_ALIASES.get(name, name) for name in _DEPARTMENT.findall(answer)}
    return sum(1 << _DEPARTMENTS.index(name) for name in named)


def identity(texts: Texts) -> tuple[str, str, str]:
    """What two records must share to be copies of each other: normal forms of context, question and answer."""
    return normal(texts.context), normal(texts.asked), normal(texts.answer)


@dataclass
class Columns:
    """What is kept of every record, by number.

    Attributes:
        whole: hash of all its texts.
        question: hash of what is asked, with what stands beside it.
        answer: hash of the answer; `bare` of the answer without its numbers.
        short: the answer is too short to count as repeated.
    """

    whole: "array[int]" = field(default_factory=lambda: array("Q"))
    question: "array[int]" = field(default_factory=lambda: array("Q"))
    answer: "array[int]" = field(default_factory=lambda: array("Q"))
    bare: "array[int]" = field(default_factory=lambda: array("Q"))
    departments: "array[int]" = field(default_factory=lambda: array("Q"))
    polarity: "array[int]" = field(default_factory=lambda: array("b"))
    short: "array[int]" = field(default_factory=lambda: array("b"))

    def add(self, texts: Texts) -> tuple[str, int]:
        """Take a record.

        Returns:
            Its normal form and the hash of its question's.
        """
        beside, asked, answer = parts = identity(texts)
        alone = hash64(asked)
        question = hash64(f"{beside}\n{asked}") if beside else alone
        self.whole.append(hash64("\n".join(parts)))
        self.question.append(question)
        self.answer.append(hash64(answer))
        self.bare.append(hash64(_DIGITS.sub("", answer)))
        self.departments.append(departments(asked, answer))
        self.polarity.append(polarity(asked, answer))
        self.short.append(len(answer) < _LONG_ANSWER)
        return beside + asked + answer, alone


def clusters(labels: Numbers) -> tuple[int, list[list[int]]]:
    """Read groups off labels (the number of each record's first companion).

    Returns:
        How many records are not the first of their group, and the five largest groups, each with up to three records.
    """
    later = np.flatnonzero(labels != np.arange(len(labels)))
    sizes = Counter(labels[later].tolist())
    largest = sorted(sizes, key=lambda first: (-sizes[first], first))[:5]
    return len(later), [[first, *later[labels[later] == first][:2].tolist()] for first in largest]


def repeated_answers(columns: Columns) -> tuple[int, list[list[int]]]:
    """Answers given to several questions: how many records give an answer that an earlier, different question got."""
    answer, question = _as_array(columns.answer), _as_array(columns.question)
    pairs = np.stack([answer, question], axis=1)
    first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])  # one record for every question of an answer
    first = first[np.asarray(columns.short)[first] == 0]
    _, place, inverse = np.unique(answer[first], return_index=True, return_inverse=True)
    labels = np.arange(len(answer), dtype=np.int64)
    labels[first] = first[place[inverse]]
    return clusters(labels)


@dataclass(frozen=True)
class Disagreement:
    """Questions answered in different ways, and those among them whose answers contradict each other.

    Attributes:
        different: records with an answer unlike the first one to their question; `contradictory` likewise.
        shown: up to five groups of records of each.
    """

    different: int
    contradictory: int
    shown: dict[str, list[list[int]]]


def disagreement(columns: Columns) -> Disagreement:
    """Compare the answers to each question that occurs more than once."""
    counts = {"different_answers": 0, "contradictory": 0}
    shown: dict[str, list[list[int]]] = {"different_answers": [], "contradictory": []}
    for group in _same(_as_array(columns.question)):
        answers = {columns.answer[one]: one for one in reversed(group)}  # the first record of every answer
        if len(answers) < 2:
            continue
        records = sorted(answers.values())
        names = ["different_answers", "contradictory"] if _contradict(columns, records) else ["different_answers"]
        for name in names:
            counts[name] += len(records) - 1
            if len(shown[name]) < 5:
                shown[name].append(records[:3])
    return Disagreement(counts["different_answers"], counts["contradictory"], shown)


def _contradict(columns: Columns, records: list[int]) -> bool:
    """Yes and no; departments without one in common; the same words with other numbers."""
    if {1, -1} <= {columns.polarity[one] for one in records}:
        return True
    named = {columns.departments[one] for one in records} - {0}
    if any(not one & other for one, other in combinations(named, 2)):
        return True
    return len({columns.bare[one] for one in records}) < len(records)


def _same(hashes: U64) -> Iterator[list[int]]:
    """Records with equal hashes, where there is more than one, in order of the first."""
    order = np.argsort(hashes, kind="stable")
    edges = np.flatnonzero(np.diff(hashes[order])) + 1
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [len(hashes)]))
    several = np.flatnonzero(ends - starts > 1)
    for place in several[np.argsort(order[starts[several]])].tolist():
        yield order[starts[place] : ends[place]].tolist()


def _as_array(column: "array[int]") -> U64:
    return np.asarray(column, np.uint64)


def whole_hashes(columns: Columns) -> U64:
    """The hashes by which records are exact copies."""
    return _as_array(columns.whole)
