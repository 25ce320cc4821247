"""Text → the medical entities it names: Aho–Corasick, leftmost-longest, with lay wording and negation.

没有发烧，就是拉肚子   →   发热 (negated), 腹泻
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick, MatchKind

from xinglin.knowledge.graph import Graph
from xinglin.knowledge.terms import normalize
from xinglin.knowledge.vocabulary import Term, topic_words, vocabulary
from xinglin.knowledge.words import BLOCKERS, GENERIC

_CLAUSE = re.compile(r"[。！？!?；;，,\n：:]|但是?|不过|而是|只是|只有|却|就是|可是|然而|反而|仅")
_NO_DENIAL = re.compile(
    "有没有|[分搞弄说看辨]不(清楚?|明白)|是不是|会不会|能不能|要不要|用不用|该不该|可不可以|好不好|算不算|属不属于|是否|有无|能否|没完没了|未必"
    "|不(但|如|仅|光|只|止|单|停|断|时|同|明|知|管|论|良|慎|小心|得不|好|一定|排除|能排除|除外|久|过|可|能|敢|想|愿|住|了|着|清|足|全|退|舒服|适|治|放心|怎么|太|见)"
    "|没(多久|注意|在意|想到|治|好|有好|提到|有提到|有记载|几天|办法|见好|人|事|准)|无(论|法|力|意|故|端|明显诱因)|未(治|愈|及时)|见好|差不多|莫不是|非(常|但|典|淋|霍)"
)
_DENIAL = re.compile(
    "没有|没得|没啥|没出现|没见|没查出|没发现|否认|排除|未见|未闻|未触及|未及|未诉|未发现|未出现|并非|不是|不支持|不考虑|未再|未再出现|不伴|不属于|不算|不像|无任何|没|未|不|无|非"
)
_DENIED_AFTER = re.compile(
    "(已|可|基本|可以|完全)?(排除|除外)|[(（]?-[)）]|阴性|没有(?![^，。]{0,3}(用|好|吗|呢))|(都|也|均|一概)(没|不|无|否认)|消失|不存在"
)
_PAUSE = re.compile(r"[。！？!?；;，,、\n：:]")
_GAP = 6  # characters that may stand between the two halves of an expression
_LIST = re.compile("[、和及与或]|以及|还有")
_FILLING = re.compile(
    "^(会|应该?|需要?|用|必|该|再)?(伴?有|出现|包括|包含|做|看|建议挂?|挂|查|见|伴|患|得)?|[■的]|任何|明显"
)  # what may stand between a denial and what it denies, at any length


class Mention(NamedTuple):
    """A term in a normalised text.

    Attributes:
        start, end: its place in `normalize(text)`, in characters.
        text: as it stands there.
        entity: the graph's own name of what is meant.
        kind: one of `KINDS`.
    """

    start: int
    end: int
    text: str
    entity: str
    kind: str


class Linker:
    """Finds entities in text.

    Args:
        terms: term → what it stands for.
        blockers: words that may contain a term without meaning it; they are matched and passed over.
        by_topic: topic → everyday words (男性, 皮肤, 吸烟) that name something only where that topic is spoken of.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        blockers: Iterable[str] = (),
        by_topic: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._given = terms, tuple(blockers), by_topic
        self.terms = {normalize(text): term for text, term in terms.items() if normalize(text)}
        self._gaps = _Gaps({text: self.terms.pop(text) for text in list(self.terms) if "*" in text})
        passed = {normalize(word) for word in self._given[1]} - self.terms.keys() - {""}
        self._words = [*self.terms, *sorted(passed)]
        # not pyahocorasick: its iter_long drops matches (a test compares with a plain search)
        self._automaton = AhoCorasick(self._words, matchkind=MatchKind.LeftmostLongest)
        self._by_topic = {
            topic: Linker({word: Term(word, "other") for word in words}) for topic, words in (by_topic or {}).items()
        }

    @classmethod
    def from_graph(cls, graph: Graph, lay_terms: str | Path = "") -> "Linker":
        """All usable terms of a graph, their aliases and the everyday expressions for them.

        Args:
            lay_terms: another table of everyday expressions than the packaged one (two columns, tab between).

        Raises:
            UserError: as `read_lay_terms`.
        """
        return cls(vocabulary(graph, lay_terms), BLOCKERS.union(*GENERIC.values()), topic_words(graph))

    def with_names(self, names: Mapping[str, str], kinds: Mapping[str, str]) -> "Linker":
        """Another linker that also knows these names; those that are known already keep their meaning.

        Args:
            names: a name → the entity it stands for. A `*` stands for a few characters.
            kinds: kind of the entities that are no terms themselves; names of others are left out.
        """
        terms, blockers, by_topic = self._given
        more: dict[str, Term] = {}
        for name, entity in names.items():
            if term := self.terms.get(entity):
                more[name] = term
            elif entity in kinds:
                more[name] = Term(entity, kinds[entity])
        return Linker({**more, **terms}, blockers, by_topic)

    def find(self, text: str, topics: Iterable[str] = ()) -> list[Mention]:
        """The mentions in a text, in order; places are those of `normalize(text)`.

        Args:
            topics: what the text speaks of, where that is known; their everyday words are found too.
        """
        text = normalize(text)
        found = list(self._found(text))
        extra = [
            self._gaps.find(text),
            *(self._by_topic[topic].find(text) for topic in topics if topic in self._by_topic),
        ]
        for more in filter(None, extra):
            free = [new for new in more if not any(one.start < new.end and new.start < one.end for one in found)]
            found = sorted([*found, *free])
        return found

    def _found(self, text: str) -> Iterator[Mention]:
        for index, start, end in self._automaton.find_matches_as_indexes(text):
            word = self._words[index]
            term = self.terms.get(word)
            if term is not None and not _inside_latin(text, start, end):
                yield Mention(start, end, word, term.entity, term.kind)

    def mentions(self, text: str) -> list[str]:
        """The entities in a text, in order, each once."""
        return list(dict.fromkeys(one.entity for one in self.find(text)))

    def entity(self, text: str) -> str:
        """What a whole text stands for: the entity of the term that it is, else the normalised text itself."""
        text = normalize(text)
        term = self.terms.get(text)
        return term.entity if term else text


class _Gaps:
    """Everyday expressions with something between (肚子*疼: 肚子一阵一阵地疼), within a clause."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        self._tails: dict[str, dict[str, Term]] = {}
        for text, term in terms.items():
            head, _, tail = text.partition("*")
            self._tails.setdefault(head, {})[tail] = term
        self._heads = list(self._tails)
        self._automaton = AhoCorasick(self._heads, matchkind=MatchKind.LeftmostLongest)

    def find(self, text: str) -> list[Mention]:
        """The expressions in a normalised text; of two that overlap, the first."""
        found: list[Mention] = []
        for index, start, end in self._automaton.find_matches_as_indexes(text) if self._heads else ():
            after = _PAUSE.split(text[end : end + _GAP + 6], maxsplit=1)[0]
            tails = self._tails[self._heads[index]]
            place, tail = min(((after.find(tail), tail) for tail in tails if tail in after), default=(_GAP + 1, ""))
            stop = end + place + len(tail)
            denied = re.search("[不没无未]", after[:place])
            if place <= _GAP and not denied and not (found and start < found[-1].end):
                found.append(Mention(start, stop, text[start:stop], tails[tail].entity, tails[tail].kind))
        return found


def _inside_latin(text: str, start: int, end: int) -> bool:
    """Whether a match cuts through a Latin word or a number (CT inside ECT)."""
    before = start > 0 and text[start].isascii() and text[start].isalnum() and text[start - 1].isascii()
    after = end < len(text) and text[end - 1].isascii() and text[end - 1].isalnum() and text[end].isascii()
    return (before and text[start - 1].isalnum()) or (after and text[end].isalnum())


def negations(text: str, mentions: Sequence[Mention]) -> list[bool]:
    """Whether the clause of each mention denies it (没有发烧、咳嗽; 肝炎已排除).

    Neither a question (有没有), nor words that merely begin like a denial (不停, 没多久), nor a denial inside another
    mention (肺不张) denies anything.

    Args:
        text: normalised.
        mentions: all of the text's mentions, in order.
    """
    masked = list(text)
    for one in mentions:
        masked[one.start : one.end] = "■" * (one.end - one.start)
    plain = _NO_DENIAL.sub(lambda found: "□" * len(found[0]), "".join(masked))
    return [_denied(plain, one.start, one.end, tested=one.kind == "examination") for one in mentions]


def _denied(plain: str, start: int, end: int, *, tested: bool) -> bool:
    begin = max(start - 40, 0)
    begin = max((cut.end() for cut in _CLAUSE.finditer(plain, begin, start)), default=begin)
    cue = None
    for cue in _DENIAL.finditer(plain, begin, start):  # noqa: B007 - the last one counts
        pass
    if cue:
        between = [_FILLING.sub("", item) for item in _LIST.split(plain[cue.end() : start])]
        near = len(between[-1]) <= (1 if len(cue[0]) == 1 and len(between) == 1 else 4)
        if near and all(len(item) <= 5 and "□" not in item for item in between):
            return True
    stop = _CLAUSE.search(plain, end)
    after = plain[end : stop.start() if stop else len(plain)].lstrip("的了是等、")
    found = _DENIED_AFTER.match(after[:8])
    return bool(found) and not (tested and found and found[0] == "阴性")  # a negative test was done all the same
