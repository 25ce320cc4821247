"""What is wrong with a graph: every kind of dirt with its count, its meaning and examples.

137,048 facts  object within a sibling   肾炎 stands beside 肾盂肾炎 …   肝硬化 – 并发症 – 出血
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise

import numpy as np

from xinglin.knowledge.dirt import TEXT_RULES, TextRule
from xinglin.knowledge.graph import Graph
from xinglin.knowledge.policy import WRONG_FACTS
from xinglin.knowledge.terms import is_chinese, normalize

ALIASES = ("别称", "同义词", "又称")
DEPARTMENT = "就诊科室"

SAME_MEANING: tuple[tuple[str, ...], ...] = (
    ("常见病因", "病因", "主要病因"),
    ("成份", "组成"),
    ("适应症", "适应证"),
    ("常见发病部位", "发病部位"),
    ("常见症状", "临床症状及体征", "主要症状"),
    ("就诊科室", "所属科室"),
    ("多发群体", "发病人群"),
    ("禁忌", "禁忌证", "主要用药禁忌"),
    ("别称", "同义词", "又称", "其他名称"),
    ("英文名", "英文名称", "外文名"),
    ("英文别名", "英文别称"),
)
"""Predicates that mean the same."""


@dataclass(frozen=True)
class Finding:
    """One kind of dirt in a graph.

    Attributes:
        name: of the kind.
        meaning: why it is dirt, in one line.
        count: how often it occurs.
        unit: what is counted: facts, subjects, predicates or names.
        texts: in how many different objects it occurs; 0 where objects are not what is looked at.
    """

    name: str
    meaning: str
    count: int
    unit: str = "facts"
    texts: int = 0
    examples: tuple[str, ...] = ()


class _View:
    """A graph's columns as codes, which are counted in no time, and the texts behind them."""

    def __init__(self, graph: Graph) -> None:
        self.s, self.subjects = graph.column("subject")
        self.p, self.predicates = graph.column("predicate")
        self.o, self.objects = graph.column("object")
        self.source, self.sources = graph.column("source")
        self.types = dict(graph.subjects())

    def fact(self, row: int, note: str = "") -> str:
        """One fact in words."""
        return f"{self.subjects[self.s[row]]} – {self.predicates[self.p[row]]} – {self.objects[self.o[row]]}{note}"

    def rows(self, predicates: Iterable[str]) -> list[int]:
        """The facts of some predicates."""
        wanted = set(predicates)
        codes = [code for code, name in enumerate(self.predicates) if name in wanted]
        found: list[int] = np.flatnonzero(np.isin(self.p, codes)).tolist()
        return found

    def said(self, predicates: Iterable[str]) -> dict[str, set[str]]:
        """Subject → the objects of some predicates."""
        found: dict[str, set[str]] = defaultdict(set)
        for row in self.rows(predicates):
            found[self.subjects[self.s[row]]].add(self.objects[self.o[row]])
        return found

    def key(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """A number for every fact's subject and predicate."""
        key: np.ndarray[tuple[int], np.dtype[np.int64]] = self.s.astype(np.int64) * len(self.predicates) + self.p
        return key

    @cached_property
    def lists(self) -> list[list[int]]:
        """The facts of each subject and predicate."""
        order = np.argsort(self.key(), kind="stable")
        cuts = np.flatnonzero(np.diff(self.key()[order])) + 1
        return [rows.tolist() for rows in np.split(order, cuts)]


def check(graph: Graph, examples: int = 3) -> list[Finding]:
    """Look for every known kind of dirt.

    Args:
        examples: how many examples of each to give, the most frequent texts first.
    """
    view = _View(graph)
    return [_text_finding(view, rule, examples) for rule in TEXT_RULES] + [one(view, examples) for one in _CHECKS]


def _text_finding(view: _View, rule: TextRule, limit: int) -> Finding:
    fitting = [code for code, text in enumerate(view.objects) if rule.fits(text)]
    hit = np.isin(view.o, fitting)
    if rule.elsewhere:
        hit &= ~np.isin(view.p, [code for code, name in enumerate(view.predicates) if rule.elsewhere.search(name)])
    uses = Counter(view.o[hit].tolist())
    shown = tuple(f"{view.objects[code]} ×{times:,}" for code, times in uses.most_common(limit))
    return Finding(rule.name, rule.meaning, int(hit.sum()), texts=len(uses), examples=shown)


def _within_sibling(view: _View, limit: int) -> Finding:
    """One search a subject and predicate: an object is within a sibling when the joined list holds it twice."""
    found = []
    for rows in view.lists:
        if len(rows) > 1:
            by_text = {view.objects[view.o[row]]: row for row in rows}
            joined = "\n".join(by_text)
            found += [row for text, row in by_text.items() if len(text) > 1 and joined.count(text) > 1]
    meaning = "part of another object of the same list: 肾炎 beside 肾盂肾炎"
    texts = len({int(view.o[row]) for row in found})
    return Finding("object within a sibling", meaning, len(found), "facts", texts, tuple(map(view.fact, found[:limit])))


def _spellings(view: _View, limit: int) -> Finding:
    uses = np.bincount(view.o, minlength=len(view.objects)).tolist()
    spelt: dict[str, list[int]] = defaultdict(list)
    for code, text in enumerate(view.objects):
        if uses[code]:
            spelt[normalize(text)].append(code)
    variants = [sorted(codes, key=lambda code: -uses[code]) for codes in spelt.values() if len(codes) > 1]
    rarer = [code for codes in variants for code in codes[1:]]
    variants.sort(key=lambda codes: -uses[codes[1]])
    shown = tuple(" / ".join(f"{view.objects[code]!r} ×{uses[code]:,}" for code in codes) for codes in variants[:limit])
    meaning = "differs from a more frequent text only in width, dashes or spaces"
    return Finding("spelling variants", meaning, sum(uses[code] for code in rarer), "facts", len(rarer), shown)


def _cut_off(view: _View, limit: int) -> Finding:
    """Texts cut at a fixed length pile up there: far more than at any of the next three lengths."""
    chinese = [code for code, text in enumerate(view.objects) if len(text) >= 10 and is_chinese(text)]
    hit = view.o[np.isin(view.o, chinese)].tolist()
    lengths = Counter(len(view.objects[code]) for code in hit)
    length = max(lengths, key=lambda n: lengths[n] - 3 * max(lengths[n + 1], lengths[n + 2], lengths[n + 3]), default=0)
    uses = Counter(code for code in hit if len(view.objects[code]) == length)
    if not length or lengths[length] < 50 or lengths[length] < 3 * lengths[length + 1]:
        return Finding("cut off", "no length at which texts pile up", 0)
    shown = tuple(f"{view.objects[code]} ×{times:,}" for code, times in uses.most_common(limit))
    meaning = f"exactly {length} characters long, where texts pile up: many were cut there"
    return Finding(f"cut at {length} characters", meaning, lengths[length], "facts", len(uses), shown)


def _aliases(view: _View) -> list[tuple[str, str]]:
    """(subject, alias), each once."""
    rows = view.rows(ALIASES)
    return list(dict.fromkeys((view.subjects[view.s[row]], view.objects[view.o[row]]) for row in rows))


def _alias_is_subject(view: _View, limit: int) -> Finding:
    pairs = [(name, alias) for name, alias in _aliases(view) if alias != name and alias in view.types]
    meaning = "an alias that is a subject of its own: what is known is split"
    return Finding("alias that is a subject", meaning, len(pairs), "names", examples=_arrows(pairs, limit))


def _alias_departments(view: _View, limit: int) -> Finding:
    told = view.said([DEPARTMENT])
    pairs = [pair for pair in _aliases(view) if all(one in told for one in pair) and told[pair[0]] != told[pair[1]]]
    shown = tuple(f"{a} ({'、'.join(sorted(told[a]))}) → {b} ({'、'.join(sorted(told[b]))})" for a, b in pairs[:limit])
    return Finding("alias, other department", "one disease, two names, two departments", len(pairs), "names", 0, shown)


def _alias_circle(view: _View, limit: int) -> Finding:
    pairs = set(_aliases(view))
    circles = sorted((a, b) for a, b in pairs if a <= b and (b, a) in pairs)
    meaning = "a subject that is its own alias, or two that are each other's: nothing may follow aliases blindly"
    return Finding("alias in a circle", meaning, len(circles), "names", examples=_arrows(circles, limit))


def _alias_of_several(view: _View, limit: int) -> Finding:
    owners: dict[str, list[str]] = defaultdict(list)
    for name, alias in _aliases(view):
        owners[alias].append(name)
    shared = {alias: names for alias, names in owners.items() if len(names) > 1}
    shown = tuple(f"{alias} ← {'、'.join(names[:4])}" for alias, names in islice(shared.items(), limit))
    return Finding(
        "alias of several", "one alias, several subjects: it names none of them", len(shared), "names", 0, shown
    )


def _arrows(pairs: Iterable[tuple[str, str]], limit: int) -> tuple[str, ...]:
    return tuple(f"{a} → {b}" for a, b in islice(pairs, limit))


def _duplicates(view: _View, limit: int) -> Finding:
    whole = (view.key() * len(view.objects) + view.o) * len(view.sources) + view.source
    first = np.unique(whole, return_index=True)[1]
    again = np.setdiff1d(np.arange(len(whole)), first).tolist()
    return Finding(
        "duplicate",
        "the same fact again from the same source",
        len(again),
        "facts",
        0,
        tuple(map(view.fact, again[:limit])),
    )


def _own_object(view: _View, limit: int) -> Finding:
    code = {name: number for number, name in enumerate(view.subjects)}
    same = np.array([code.get(text, -1) for text in view.objects])
    rows = np.flatnonzero(same[view.o] == view.s).tolist()
    return Finding("object is its subject", "says nothing", len(rows), examples=tuple(map(view.fact, rows[:limit])))


def _wrong(view: _View, limit: int) -> Finding:
    rows = [
        row
        for row in view.rows(predicate for _, predicate, _ in WRONG_FACTS)
        if (view.subjects[view.s[row]], view.predicates[view.p[row]], view.objects[view.o[row]]) in WRONG_FACTS
    ]
    return Finding("known to be wrong", "read and found false", len(rows), examples=tuple(map(view.fact, rows[:limit])))


def _contradictions(view: _View, limit: int) -> Finding:
    treats, harms = view.said(["适应症", "适应证"]), view.said(["不良反应"])
    both = {name: sorted(treats[name] & harms[name]) for name in treats if treats[name] & harms.get(name, set())}
    shown = tuple(f"{name}: {'、'.join(texts[:3])}" for name, texts in islice(both.items(), limit))
    meaning = "a drug's indication that is also its adverse effect"
    return Finding("indication and adverse effect", meaning, len(both), "subjects", 0, shown)


def _code_order(view: _View, limit: int) -> Finding:
    lists = [rows for rows in view.lists if len(rows) >= 4]
    ordered = [
        rows for rows in lists if all(view.objects[view.o[a]] <= view.objects[view.o[b]] for a, b in pairwise(rows))
    ]
    return Finding(
        "code order",
        f"of {len(lists):,} lists of four and more: their order tells no importance",
        len(ordered),
        "lists",
        0,
        tuple(view.fact(rows[0], " …") for rows in ordered[:limit]),
    )


def _same_meaning(view: _View, limit: int) -> Finding:
    uses = Counter(
        dict(zip(view.predicates, np.bincount(view.p, minlength=len(view.predicates)).tolist(), strict=True))
    )
    groups = [[name for name in group if uses[name]] for group in SAME_MEANING]
    groups = sorted((group for group in groups if len(group) > 1), key=lambda group: -uses[group[1]])
    shown = tuple(" = ".join(f"{name} ×{uses[name]:,}" for name in group) for group in groups[:limit])
    return Finding(
        "synonymous predicates", "one meaning under several names", sum(map(len, groups)), "predicates", 0, shown
    )


def _rare_predicates(view: _View, limit: int) -> Finding:
    pairs = np.unique(view.key())
    subjects = np.bincount(pairs % len(view.predicates), minlength=len(view.predicates))
    rare = [view.predicates[code] for code in np.flatnonzero(subjects == 1).tolist()]
    return Finding(
        "predicate of one subject", "a column that only one page had", len(rare), "predicates", 0, tuple(rare[:limit])
    )


def _untyped(view: _View, limit: int) -> Finding:
    names = [name for name, kind in view.types.items() if kind == "other"]
    return Finding(
        "subject without a type",
        "what is said of it does not tell what it is",
        len(names),
        "subjects",
        0,
        tuple(names[:limit]),
    )


def _damaged_subjects(view: _View, limit: int) -> Finding:
    rules = [rule for rule in TEXT_RULES if rule.damage]
    why: Mapping[str, str] = {name: rule.name for name in view.types for rule in rules if rule.fits(name)}
    shown = tuple(f"{name} ({reason})" for name, reason in islice(why.items(), limit))
    return Finding("damaged subject name", "shows one of the damages above", len(why), "subjects", 0, shown)


_CHECKS: tuple[Callable[[_View, int], Finding], ...] = (
    _within_sibling,
    _spellings,
    _cut_off,
    _same_meaning,
    _rare_predicates,
    _alias_is_subject,
    _alias_departments,
    _alias_circle,
    _alias_of_several,
    _duplicates,
    _own_object,
    _wrong,
    _contradictions,
    _code_order,
    _untyped,
    _damaged_subjects,
)


def as_markdown(graph: Graph, findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines of a report."""
    yield f"# {graph.source}"
    yield ""
    yield f"{len(graph):,} subjects, {graph.triples:,} facts. Terms: {graph.licence}."
    yield ""
    yield "| kind | count | what it is | examples |"
    yield "|---|---:|---|---|"
    for one in findings:
        shown = "; ".join(one.examples).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
        yield f"| {one.name} | {one.count:,} {one.unit} | {one.meaning} | {shown} |"
