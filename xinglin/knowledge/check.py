"""An answer against the facts it was given: what it states, misses, adds and denies.

    facts     偏头痛的症状：畏光、恶心            就诊科室：神经内科
    answer    偏头痛可有畏光、发热，没有恶心，建议看骨科。
    →         supported 畏光 · unsupported 发热 · contradicted 恶心, 骨科 · recall 1/3

Unsupported is not false: the graph is incomplete. Contradicted is: the facts say otherwise.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from xinglin.knowledge.graph import Graph
from xinglin.knowledge.link import Linker, Mention, negations
from xinglin.knowledge.policy import ANSWERABLE
from xinglin.knowledge.terms import normalize

Triple = tuple[str, str, str]

_EXCLUSIVE = {"department": ANSWERABLE["department"]}
"""Kind of mention → predicates: once the facts name one, another in the answer says otherwise."""


_INFECTIOUS = "传染性"
_CODE = re.compile(r"(?<![A-Za-z0-9])[A-Z]\d\d(?:\.\d+)?(?![A-Za-z0-9])")
_POLARITY = {
    "有传染性": re.compile("(?<![没无])有传染性|(?<!不)会传染|(?<!不)是传染病|传染性[:为是]有"),
    "无传染性": re.compile("(无|没有|不具有)传染性|不会?传染|不是传染病|传染性[:为是]无"),
}
"""A predicate of yes and no, and how an answer says them."""


_VERDICTS = (
    (
        "就诊科室",
        None,
        re.compile("(?<!不是)(?<!不在)同一个?科|可以挂同一"),
        re.compile("不是同一个?科|分别挂号|不同的科"),
    ),
    ("ICD10", 3, re.compile("(?<!不是)同一种病|一回事"), re.compile("不是同一种病|不同的病")),
)
"""(predicate, characters of its objects that count, how an answer says that two subjects agree, that they do not)."""


@dataclass(frozen=True)
class AnswerCheck:
    """What an answer says of the facts; entities, each once, in order.

    Attributes:
        supported: objects of the facts that the answer states.
        missed: objects of the facts that it does not state; those that it denies are among them.
        unsupported: entities that it states or denies and that neither facts nor question name.
        contradicted: objects of the facts that it denies, and what it states where the facts name another.
    """

    supported: tuple[str, ...]
    missed: tuple[str, ...]
    unsupported: tuple[str, ...]
    contradicted: tuple[str, ...]

    @property
    def recall(self) -> float:
        """Share of the facts' objects that the answer states; 1 when the question named them all."""
        expected = len(self.supported) + len(self.missed)
        return len(self.supported) / expected if expected else 1.0

    @property
    def precision(self) -> float:
        """Share of what the answer says that the facts support; 0 when it says nothing."""
        wrong = len(set(self.unsupported) | set(self.contradicted))
        said = len(self.supported) + wrong
        return len(self.supported) / said if said else 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing is said beyond the facts, and nothing against them."""
        return not self.unsupported and not self.contradicted


def check_answer(answer: str, facts: Iterable[Triple], linker: Linker, question: str = "") -> AnswerCheck:
    """Check an answer.

    Args:
        facts: (subject, predicate, object) that the answer may stand on.
        question: what it names is given, and counts neither for nor against the answer.
    """
    facts = tuple(facts)
    text = normalize(answer)
    polar = {object_ + predicate for _, predicate, object_ in facts if predicate == _INFECTIOUS}
    listed = tuple(fact for fact in facts if fact[1] != _INFECTIOUS)
    subjects = {linker.entity(subject) for subject, _, _ in facts}
    given = {one.entity for one in linker.find(question)} | subjects
    objects = {linker.entity(object_): object_ for _, _, object_ in listed}
    expected = [*sorted(polar), *(entity for entity in objects if entity not in given)]
    own = {normalize(subject) for subject, _, _ in facts} | {normalize(object_) for _, _, object_ in listed}
    exclusive = {kind for kind, said in _EXCLUSIVE.items() if any(predicate in said for _, predicate, _ in facts)}
    said = {value for value, pattern in _POLARITY.items() if polar and pattern.search(text)}
    stated = dict.fromkeys(sorted(polar & said))
    against = dict.fromkeys(sorted(polar) if said - polar else ())
    beyond: dict[str, None] = {}
    whose = _whose(listed, linker)
    last = ""  # the subject named last, whose objects these must be
    mentions = _mentions(text, own, linker, _topics(facts))
    for one, denied in zip(mentions, negations(text, mentions), strict=True):
        if one.entity in subjects:
            last = one.entity
        elif one.entity in objects:
            wrong = denied or (last and last not in whose[one.entity])
            (against if wrong else stated)[one.entity] = None
        elif one.kind in exclusive and not denied:
            against[one.entity] = None
        elif one.entity not in given and one.text not in own:
            beyond[one.entity] = None
    if codes := {object_ for _, predicate, object_ in facts if predicate == "ICD10"}:
        against |= dict.fromkeys(code for code in _CODE.findall(text) if code not in codes)
    against |= dict.fromkeys(_wrong_verdicts(text, facts))
    return AnswerCheck(
        supported=tuple(entity for entity in expected if entity in stated),
        missed=tuple(entity for entity in expected if entity not in stated),
        unsupported=tuple(beyond),
        contradicted=tuple(against),
    )


def _whose(facts: Iterable[Triple], linker: Linker) -> dict[str, set[str]]:
    """Object → the subjects of which the facts state it."""
    found: dict[str, set[str]] = {}
    for subject, _, object_ in facts:
        found.setdefault(linker.entity(object_), set()).add(linker.entity(subject))
    return found


def _wrong_verdicts(text: str, facts: Iterable[Triple]) -> list[str]:
    """What an answer concludes about two subjects, where the facts say otherwise."""
    wrong = []
    for predicate, width, same, different in _VERDICTS:
        said: dict[str, set[str]] = {}
        for subject, one, object_ in facts:
            if one == predicate:
                said.setdefault(subject, set()).add(object_[:width])
        if len(said) == 2:
            left, right = said.values()
            found = (different if left & right else same).search(text)
            wrong += [found[0]] if found else []
    return wrong


def _topics(facts: Iterable[Triple]) -> list[str]:
    predicates = {predicate for _, predicate, _ in facts}
    return [topic for topic, said in ANSWERABLE.items() if predicates.intersection(said)]


def _mentions(text: str, own: set[str], linker: Linker, topics: Iterable[str]) -> list[Mention]:
    """The linker's mentions, with the facts' own words found whole even where the linker does not know them."""
    found = linker.find(text, topics)
    for word in sorted(own, key=lambda one: (-len(one), one)):
        start = text.find(word) if word else -1
        while start >= 0:
            end = start + len(word)
            around = [one for one in found if one.start < end and one.end > start]
            if not any(one.start <= start and end <= one.end for one in around):
                found = [one for one in found if one not in around]
                found.append(Mention(start, end, word, linker.entity(word), "other"))
            start = text.find(word, end)
    return sorted(found)


class GraphSupport:
    """How much of foreign answers a graph supports. What it has not is unsupported, not false."""

    def __init__(self, graph: Graph, linker: Linker) -> None:
        self._graph = graph
        self._linker = linker
        self._said: dict[str, frozenset[str]] = {}

    def __call__(self, question: str, answer: str) -> tuple[int, int]:
        """Look an answer's statements up.

        Returns:
            How many entities the answer names beside the diseases asked about (0 where no disease of the graph is
            named), and how many of them some triple joins to one of the diseases, under any predicate.
        """
        asked, told = self._linker.find(question), self._linker.find(answer)
        given = {one.entity for one in asked}
        about = {one.entity for one in (*asked, *told) if one.kind == "disease" and one.entity in self._graph}
        stated = {one.entity for one in told} - given
        if not about or not stated:
            return 0, 0
        return len(stated), sum(any(one in self._known(name) for name in about - {one}) for one in stated)

    def _known(self, name: str) -> frozenset[str]:
        if name not in self._said:
            objects = (one for said in self._graph.get(name).facts.values() for one in said)
            self._said[name] = frozenset(map(self._linker.entity, objects))
        return self._said[name]
