"""From the graph's raw objects to the few that an answer may list. Every rule is named and counted; nothing is lost.

常见症状: 恶心 · 恶心、呕吐 · 呕吐 · 严重者可… · 溃疡病   →   呕吐、恶心      and a ledger of (fact, rule)
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import lru_cache

from xinglin.knowledge.graph import Graph
from xinglin.knowledge.policy import (
    ALIASES,
    ANSWERABLE,
    INFECTION,
    NOT_INFECTIOUS,
    PROCEDURE,
    RED_FLAGS,
    SUBJECT_TYPE,
    TOXIC,
    excluded,
    why_not,
)
from xinglin.knowledge.rules import SUPPORT, reject
from xinglin.knowledge.terms import broken, is_chinese, normalize, split_names
from xinglin.records import Fact


@dataclass(frozen=True)
class Entry:
    """A subject with what may be said of it.

    Attributes:
        kind: its type in the graph.
        facts: topic → object → the fact that states it. Objects are normalised and ordered: red flags first, then by
            how many statements agree, then by support in the graph, then by name.
        aliases: other names, for telling relatives apart from others; those that may be said are a topic too.
        raw: symptoms and causes → everything that the graph lists, before any rule; what is not there is not told
            from what a rule dropped by the objects alone.
    """

    name: str
    kind: str
    facts: dict[str, dict[str, Fact]]
    aliases: tuple[str, ...] = ()
    raw: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def beside(self, other: "Entry", topic: str) -> list[str]:
        """What may be said of this subject and stands nowhere, not even inside a longer text, in the other's list."""
        others = "\n".join((*map(normalize, other.raw.get(topic, ())), *other.objects(topic), other.name))
        return [one for one in self.objects(topic) if one not in others]

    def objects(self, topic: str) -> tuple[str, ...]:
        """What may be said on a topic, the best first; empty where nothing may."""
        return tuple(self.facts.get(topic, ()))


@dataclass(frozen=True)
class Dropped:
    """One fact that is not used, and the rule that says so."""

    fact: Fact
    rule: str


@dataclass
class Cleaned:
    """The usable subjects and the ledger of what was dropped.

    Attributes:
        facts: how many facts were looked at.
        normalised: how many objects `normalize` changed (width, dashes, brackets, spaces).
        unused: predicate → number of its triples, for those that no question form uses.
    """

    entries: list[Entry]
    dropped: list[Dropped] = field(default_factory=list)
    facts: int = 0
    normalised: int = 0
    unused: dict[str, int] = field(default_factory=dict)

    @property
    def diseases(self) -> list[Entry]:
        """The usable diseases."""
        return [entry for entry in self.entries if entry.kind == "disease"]

    def rules(self) -> dict[str, int]:
        """Rule → number of facts that it dropped, the largest first."""
        return dict(Counter(one.rule for one in self.dropped).most_common())


_CODE = re.compile(r"[A-Z]\d\d(\.\d+)?")

_Statements = dict[str, list[Fact]]  # object → the facts that state it


def clean(graph: Graph) -> Cleaned:
    """Apply every rule to every fact that some question form could use.

    Args:
        graph: the support of an object is counted over all of it.
    """
    used = {predicate for said in ANSWERABLE.values() for predicate in said}
    result = Cleaned([], unused={name: triples for name, _, triples in graph.predicates() if name not in used})
    toxic = {fact.subject for fact in graph.select(("毒性",)) if TOXIC.search(fact.object)}
    found: dict[str, dict[str, _Statements]] = defaultdict(dict)
    for topic, predicates in ANSWERABLE.items():
        kind = SUBJECT_TYPE.get(topic, "disease")
        for fact in graph.select(predicates):
            if fact.subject_type != kind:
                result.dropped.append(Dropped(fact, "other type of subject"))
                result.facts += 1
            else:
                rule = "toxic herb" if kind == "herb" and fact.subject in toxic else _subject_rule(fact.subject)
                _sort_in(topic, fact, rule, graph, found, result)
    support = _support(found)
    names = _Names(graph)
    _without_causes(found, result)
    for subject in sorted(found):
        facts = {topic: _keep(topic, said, support[topic], result) for topic, said in found[subject].items()}
        if facts := {topic: kept for topic, kept in facts.items() if kept}:
            result.entries.append(names.entry(subject, facts))
    result.dropped += names.dropped
    return result


def _without_causes(found: dict[str, dict[str, _Statements]], result: Cleaned) -> None:
    """What the graph also gives as a cause of the disease is no sign of it (糖尿病 of 黄斑水肿)."""
    for said in found.values():
        for one in [one for one in said.get("symptoms", ()) if one in said.get("causes", ())]:
            result.dropped += [Dropped(fact, "a cause, not a sign") for fact in said["symptoms"].pop(one)]


def _support(found: dict[str, dict[str, _Statements]]) -> dict[str, Counter[str]]:
    """Topic → object → in how many subjects it stands; what harms, signs and follows is counted together."""
    support = {topic: Counter(one for said in found.values() for one in said.get(topic, ())) for topic in ANSWERABLE}
    both = support["causes"] + support["complications"] + support["symptoms"]
    return support | {"causes": both, "complications": both}


@lru_cache(1 << 16)
def _subject_rule(name: str) -> str | None:
    odd = not 2 <= len(name) <= 14 or broken(name) not in (None, "length", "fragment")
    return "subject name" if odd or excluded(name) or PROCEDURE.search(name) else None


def _sort_in(
    topic: str, fact: Fact, rule: str | None, graph: Graph, found: dict[str, dict[str, _Statements]], result: Cleaned
) -> None:
    """Put one fact among the usable statements, or into the ledger."""
    result.facts += 1
    parts = re.split("[;；、]", fact.object) if topic == "department" else [fact.object]
    for part in map(normalize, parts):
        result.normalised += part != fact.object and len(parts) == 1
        said = {"无传染性": "无"}.get(part, part) if topic == "infectious" else part
        why = rule or why_not(fact) or reject(topic, said, graph)
        if not why and said in fact.subject and topic not in ("body_site", "department"):
            why = "names the subject"
        if not why and topic == "infectious" and said == "无" and not _believable_no(fact.subject):
            why = "may be infectious after all"
        if why:
            result.dropped.append(Dropped(fact, why))
        else:
            found[fact.subject].setdefault(topic, {}).setdefault(said, []).append(fact)


def _believable_no(name: str) -> bool:
    return bool(NOT_INFECTIOUS.search(name)) and not INFECTION.search(name)


def _keep(topic: str, said: _Statements, support: Counter[str], result: Cleaned) -> dict[str, Fact]:
    """The objects of one subject and topic that are frequent enough and no part of another, the best first."""
    if topic == "infectious" and len(said) > 1:
        result.dropped += [Dropped(fact, "both yes and no") for facts in said.values() for fact in facts]
        return {}
    rare = [one for one in said if support[one] < SUPPORT.get(topic, 1)]
    rest = [one for one in said if one not in rare]
    inside = [one for one in rest if any(one != other and one in other for other in rest)]
    for rule, gone in (("rare", rare), ("substring of a sibling", inside)):
        result.dropped += [Dropped(fact, rule) for one in gone for fact in said[one]]

    def rank(one: str) -> tuple[bool, int, int, str]:
        return one not in RED_FLAGS, -len({(f.predicate, f.source) for f in said[one]}), -support[one], one

    return {
        one: replace(said[one][0], object=one) for one in sorted((one for one in rest if one not in inside), key=rank)
    }


class _Names:
    """What else the graph has on its subjects: other names, codes, unfiltered symptoms."""

    def __init__(self, graph: Graph) -> None:
        self.kind = dict(graph.subjects())
        self.dropped: list[Dropped] = []
        self.aliases = self._by_subject(graph, ALIASES)
        self.raw = {topic: self._by_subject(graph, ANSWERABLE[topic]) for topic in ("symptoms", "causes")}
        self.icd10 = self._by_subject(graph, ("ICD10",))
        self.owners = Counter(
            alias for said in self.aliases.values() for alias in {a for f in said for a in split_names(f.object)}
        )

    @staticmethod
    def _by_subject(graph: Graph, predicates: tuple[str, ...]) -> dict[str, list[Fact]]:
        said: dict[str, list[Fact]] = defaultdict(list)
        for fact in graph.select(predicates):
            said[fact.subject].append(fact)
        return said

    def entry(self, name: str, facts: dict[str, dict[str, Fact]]) -> Entry:
        aliases = {alias: fact for fact in self.aliases.get(name, []) for alias in split_names(fact.object)}
        aliases.pop(normalize(name), None)
        said = {alias: replace(fact, object=alias) for alias, fact in sorted(aliases.items()) if self._sayable(alias)}
        codes = {fact.object: fact for fact in self.icd10.get(name, []) if _CODE.fullmatch(fact.object)}
        more = {"aliases": said, "icd10": codes if len(codes) == 1 else {}}
        self.dropped += [Dropped(fact, "alias not to be said") for alias, fact in aliases.items() if alias not in said]
        if len(codes) > 1:
            self.dropped += [Dropped(fact, "several codes") for fact in codes.values()]
        return Entry(
            normalize(name),  # 格林—巴利 was 格林-巴利 before the graph's makers
            self.kind[name],
            facts | {topic: kept for topic, kept in more.items() if kept},
            aliases=tuple(sorted(aliases)),
            raw={topic: tuple(fact.object for fact in said.get(name, ())) for topic, said in self.raw.items()},
        )

    def _sayable(self, alias: str) -> bool:
        """Whether an alias is whole, Chinese, of one subject only and no subject itself."""
        alone = self.owners[alias] == 1 and alias not in self.kind
        return alone and not broken(alias) and is_chinese(alias) and not excluded(alias)
