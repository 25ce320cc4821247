"""A question → the graph's facts that answer it, as the lines that a tuned model knows from its `input`.

偏头痛挂什么科？                                偏头痛的就诊科室：神经内科
我32岁，女，最近畏光、恶心、眼花，可能是什么病？   偏头痛的症状：畏光、恶心、眼花等 · 偏头痛的就诊科室：神经内科

Only what the policy lets through is ever found; a subject or a topic that the graph has not gives nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import islice

from xinglin.dataset.clean import Entry, clean
from xinglin.dataset.forms import OWN, SHARED
from xinglin.dataset.pool import Pool
from xinglin.dataset.split import stripped
from xinglin.dataset.vignettes import person
from xinglin.dataset.wording import MAX_OBJECTS, Line, compared, load_wording, topic_line
from xinglin.inference.namer import CLAUSE, Words
from xinglin.inference.question import UNANSWERABLE, Asked, Patient, askings, patient, understand
from xinglin.inference.recognize import Likely, Recognizer, any_meant, other_name
from xinglin.inference.triage import messages
from xinglin.knowledge.graph import Graph
from xinglin.knowledge.link import Linker, Mention, negations
from xinglin.knowledge.policy import ANSWERABLE, SUBJECT_TYPE
from xinglin.knowledge.terms import normalize
from xinglin.knowledge.vocabulary import read_lay_terms

MIN_SIGNS = 2
"""Signs that a person must tell for a disease to be looked for."""
_MOST = 2  # diseases named as possible
_TELLING = 3  # signs from which diseases are named; fewer say nothing
_ADVICE = ("department", "examinations")
_ADVICE_OBJECTS = 3
_CUT = re.compile("综合征|综合症|[症病炎癌瘤热疹疮痛]|性")  # right after a name: it is the beginning of another one
_TYPES = re.compile("(急|慢|恶|良|阳|阴|女|男|先天|原发|继发)性$")
_COMMON = 20  # diseases that show a sign, for it to be one although the graph also lists it as a disease
_ILLNESS = re.compile(
    "(病|炎|癌|瘤|症|感染|征|毒|骨折|硬化|衰竭|结石|梗死|结核|癣|疮|哮喘|高血压|低血压|气胸|不孕|流产|早产|绞痛|斜视|梗阻)$"
)
_ASKED = 0.2  # probability from which a topic may be what is asked for at all
_HARDLY = 2  # characters
_MEANT = 0.25  # chance from which an illness is taken to be meant
_MEANT_BY_SIGNS = 0.6  # the same where complaints are told, which many illnesses share
_MEANT_ANEW = 0.6  # and where the turn before was about one
_SURE, _NEARLY = 0.5, 0.8  # chance, or share of the best one, from which another may be meant as well
_PLAINLY, _BY_THE_WAY = 0.5, 0.25  # and from which others are meant than the one named; below which that is not
_KIN = 0.04  # and from which one of the same kind may stand in, where the graph has nothing of the likeliest one
_ALSO = 0.02  # and from which one that stands behind it may be
_CLAUSE_LENGTH = 16  # characters of a clause that names are learned among
_CHILD_SAID = "孩|娃|宝|儿子|女儿|闺女|小子|丫头|幼儿园|小学|侄|外甥|孙|满月|[个一二三四五六七八九十两\\d]岁|早产|出生"
_SAID = {
    "妊娠|产后|产褥": "怀|孕|产|胎|月子|肚子?里的",
    "小儿|儿童|新生儿|婴": _CHILD_SAID,
    "胎儿": "胎|怀|孕",
    "老年": "老|爷|奶|姥|外公|外婆|爸|妈|[五六七八九]十|[5-9]\\d",
    "术后": "术|刀|切",
    "转移": "转移|扩散|跑到|长到",
}
"""What makes an illness a special one → how people say that it is theirs."""
_KIND = re.compile("[\u4e00-\u9fff]{1,2}性(?=(.{2,}))")
_USUAL = "急性 慢性 流行性 单纯性 原发性 特发性 传染性 复发性 良性"
"""Kinds of an illness that people leave out of their own words for it."""
_PLAIN = "流行性 单纯性 原发性 特发性 传染性"
"""Those that make no other illness of it."""
_ALIKE = 0.55  # share of their characters that names of nearly the same illness have in common
_STEEP = 2  # how much more the more likely diseases count for a department
_GENERIC = re.compile("综合征|综合症|[病症]$|性")  # says nothing of which illness it is
_ASKING = re.compile("症状|原因|病因|并发症|检查|治疗|表现|科室|传染性?吗|怎么回事|怎么办|引起的?|医院")
_JOINED = re.compile("[、,，和及与 ]?")
_TOO_GENERAL = frozenset({"感染", "传染", "疾病", "不适", "早期妊娠", "妊娠"})
_TOPICS = (*ANSWERABLE, "aliases")
_TOPICS_OF_DISEASES = ("disease", *(one for one in _TOPICS if SUBJECT_TYPE.get(one, "disease") == "disease"))
_OF_SIGNS = ("disease", "department", "examinations", "treatment")  # what may be asked of signs
_KINDS = ("disease", *SUBJECT_TYPE.values())


@dataclass(frozen=True)
class Found:
    """What was found for a question.

    Attributes:
        lines: for `input`; empty where nothing answers.
        subjects: what the question is about, by the graph's names.
        topics: what was looked up.
        signs: what a person complains of, where a disease had to be looked for.
        named: the question's own words for what it is about.
        departments: where people with such complaints are seen, where no disease is told from them.
        guessed: the subject is the likeliest one for a person's own words.
    """

    lines: tuple[Line, ...]
    subjects: tuple[str, ...]
    topics: tuple[str, ...]
    signs: tuple[str, ...]
    named: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    guessed: bool = False

    @property
    def text(self) -> str:
        """The lines as they stand in `input`."""
        return "\n".join(line.text for line in self.lines)

    @property
    def facts(self) -> tuple[tuple[str, str, str], ...]:
        """(subject, predicate, object) of everything the lines stand on, each once."""
        every = (fact for line in self.lines for fact in line.facts)
        return tuple(dict.fromkeys((fact.subject, fact.predicate, fact.object) for fact in every))


class Retriever:
    """Looks facts up.

    Args:
        graph: where from; cleaned here, by the rules that training data are cleaned by (seconds for cMeKG).
    """

    def __init__(self, graph: Graph, linker: Linker) -> None:
        self._pool = Pool(clean(graph).entries)
        lay = _lay_names()
        names = {name: meant[0] for name, meant in lay.items()}
        self.linker = linker.with_names(names, {entry.name: entry.kind for entry in self._pool.entries})
        # a question is ranked for what is meant, for what is alike and for departments: once is enough
        self._rank = lru_cache(8)(Recognizer(self._pool.entries, lay, _tellings(), _words()).rank)
        self._near = _near(self._pool.entries)
        self._called = {entry.name: {entry.name, *map(normalize, entry.aliases)} for entry in self._pool.entries}
        self._words = load_wording().words
        unknown = [name for name in self._pool.by_name if normalize(name) not in linker.terms]
        self._long = sorted(unknown, key=len, reverse=True)

    @property
    def diseases(self) -> list[str]:
        """Names of those that something may be said of."""
        return [entry.name for entry in self._pool.entries if entry.kind == "disease"]

    def find(self, question: str, before: Sequence[str] = ()) -> Found:
        """What answers a question.

        Args:
            before: subjects of the turn before, for a question that names none.
        """
        text = normalize(question)
        asked, told = understand(text, self._mentions(text)), self.told(text)
        listed = {one.entity for run in _runs(text, told) if self._of_signs(run) for one in run}
        signs = list(dict.fromkeys(one.entity for one in told if one.entity in listed or self._is_sign(one.entity)))
        last_first = dict.fromkeys(one.entity for one in reversed(told) if self._is_subject(one.entity))
        subjects = [*last_first][::-1]
        named = [name for name in subjects if name not in signs] or (subjects if len(signs) < MIN_SIGNS else [])
        own = tuple(dict.fromkeys(one.text for one in told if one.entity in named))
        # a new illness in a person's own words is no question that follows
        follows = bool(before) and not named and len(signs) < MIN_SIGNS and not self._meant(text, told, _MEANT_ANEW)
        named = list(before) if follows else named
        if asked.unanswerable:
            return Found((), tuple(named), (UNANSWERABLE,), tuple(signs), own)
        if not follows and (not self._says_what(told, named, asked) or self._by_the_way(text, told, named)):
            return self._in_lay_words(text, named, signs, told, asked)
        found = replace(self._about(named, told, asked), named=own)
        if found.lines or follows or any(one.text in found.subjects for one in told):
            return found
        # another name of a disease that the graph has nothing on may be that of one that it has (老鼠疮)
        other = self._in_lay_words(text, named, signs, told, asked)
        another = {one.entity for one in told if one.text == one.entity} & set(other.subjects)
        return other if other.lines and not another else found

    def _says_what(self, told: Sequence[Mention], named: Sequence[str], asked: Asked) -> bool:
        """Whether a question names what it is about as the graph does: a disease, or what its topic belongs to."""
        kinds = {self._pool.by_name[one.entity].kind for one in told if one.entity in named and self._by_its_name(one)}
        other_topic = asked.best(_TOPICS) not in _TOPICS_OF_DISEASES
        return "disease" in kinds or (bool(kinds) and other_topic)

    def _by_the_way(self, text: str, told: Sequence[Mention], named: Sequence[str]) -> bool:
        """Whether what is named is but told in the story of another illness (我妈有糖尿病，最近…), a plainer one."""
        candidates = self.candidates(text, told)
        own = max((one.chance for one in candidates if one.name in named), default=0.0)
        return sum(one.chance for one in candidates if one.name not in named) >= _PLAINLY and own < _BY_THE_WAY

    def _by_its_name(self, one: Mention) -> bool:
        """Whether a person names a subject as the graph does."""
        return one.text == one.entity or one.text in map(normalize, self._pool.by_name[one.entity].aliases)

    def _in_lay_words(
        self, text: str, named: Sequence[str], signs: Sequence[str], told: Sequence[Mention], asked: Asked
    ) -> Found:
        """What answers a question that has no name as the graph has it."""
        if not named and len(signs) >= MIN_SIGNS:
            found = self._complaints(signs, patient(text), asked)
            if found.lines:
                return found
        meant = self._meant(text, told, _MEANT if len(signs) < MIN_SIGNS else _MEANT_BY_SIGNS)
        topic = asked.best(_TOPICS_OF_DISEASES)
        if topic == "disease" or (not meant and not named and len(signs) >= MIN_SIGNS and topic in _OF_SIGNS):
            seen_at = self._departments(self.likely(text), patient(text)) if signs else ()
            return Found((), (), (topic,), tuple(signs), departments=seen_at)
        if asked.topics[topic] < _ASKED:
            return Found((), tuple(named), (), ())
        if not meant and any(self._by_its_name(one) for one in told if one.entity in named):
            return replace(self._about(named, told, asked), named=tuple(one.text for one in told))
        names = [one.name for one in meant] or [*named][-1:]
        sign_of_many = bool(names) and self._is_sign(names[0]) and not self._pool.by_name[names[0]].objects(topic)
        if topic == "department" and sign_of_many:
            seen_at = self._departments(self.likely(text), patient(text))
            return Found((), (), (topic,), (names[0],), departments=seen_at)
        if not names:
            return Found((), (), (), tuple(signs))
        first = self._pool.by_name[names[0]]
        also = (
            self._pool.by_name[one.name] for one in meant[1:] if one.chance >= min(_SURE, _NEARLY * meant[0].chance)
        )
        # 红眼病 may be an 急性结膜炎 as well as a 流行性出血性结膜炎
        likely = (one.name for one in meant[1:] if one.chance >= _KIN)
        kin = (self._pool.by_name[name] for name in likely if name.endswith(first.name[-_HARDLY:]))
        near = (first, *also, *self._same(first, text), *kin)
        having = (entry for entry in near if entry.objects(topic) and not opposed(entry.name, first.name))
        entry = next(having, first)
        return Found(self._answering([entry], topic, told), (entry.name,), (topic,), (), guessed=True)

    def likely(self, text: str) -> list[Likely]:
        """The diseases that a question is most like, but for the words that it asks with (症状 is no 症状性癫痫)."""
        return self._rank(_ASKING.sub(" ", text))

    def candidates(self, text: str, told: Sequence[Mention]) -> list[Likely]:
        """The illnesses that a person's own words may mean, the likeliest first.

        Args:
            told: what the text names of the graph.
        """
        named, rest = {one.entity for one in told}, _ASKING.sub(" ", text)
        ranked = (
            replace(
                one,
                said=max((len(m.text) for m in told if m.entity in self._called[one.name]), default=0) / len(text),
                shown=self._is_sign(one.name),
                narrower=one.name not in named and narrower(text, one.name),
            )
            for one in self.likely(text)
            if not other_name(rest, one.name)
        )
        return sorted(ranked, key=lambda one: -one.chance)

    def _meant(self, text: str, told: Sequence[Mention], least: float = _MEANT) -> list[Likely]:
        """The candidates that are likely enough; none where it is not that any is meant."""
        candidates = self.candidates(text, told)
        if not candidates or any_meant(candidates[0], text) < least:
            return []
        return [one for one in candidates if one.chance >= _ALSO or one is candidates[0]]

    def _departments(self, likely: Sequence[Likely], who: Patient) -> tuple[str, ...]:
        """Where people with such complaints are seen: the departments of the likeliest diseases, by their weight."""
        weights: Counter[str] = Counter()
        for one in likely:
            entry = self._pool.by_name[one.name]
            seen = entry.objects("department") if _may_have(entry, who) else []
            for name in seen:
                weights[name] += one.likeness**_STEEP / len(seen)  # type: ignore[assignment]
        fitting = (name for name, _ in weights.most_common() if not (who.sex == "男" and "妇" in name))
        return tuple(islice(fitting, _MOST))

    def _about(self, named: Sequence[str], told: Sequence[Mention], asked: Asked) -> Found:
        """What the graph says of the subjects that a question names."""
        if not named:
            return Found((), (), (), ())
        entries = [self._pool.by_name[name] for name in named]
        kinds = {entry.kind for entry in entries}
        topic = asked.best([one for one in _TOPICS if SUBJECT_TYPE.get(one, "disease") in kinds])
        if asked.topics[topic] < _ASKED:
            return Found((), tuple(named), (), ())
        # what is asked about stands nearest to the question
        entries = entries[:2] if len(entries) > 1 and asked.comparison else entries[-1:]
        names = tuple(entry.name for entry in entries)
        return Found(self._answering(entries, topic, told), names, (topic,), ())

    def _same(self, entry: Entry, text: str) -> list[Entry]:
        """Entries of the same disease, or nearly so."""
        ranked = [(one.name, _likeness(one.name, entry.name)) for one in self.likely(text)]
        alike = [name for name, likeness in sorted(ranked, key=lambda one: -one[1]) if likeness >= _ALIKE]
        names = dict.fromkeys((*self._near[entry.name], *self._longer(entry.name), *alike))
        return [self._pool.by_name[name] for name in names if not narrower(text + entry.name, name, _PLAIN)]

    def _longer(self, name: str) -> list[str]:
        """Names that hold a name and are hardly longer (椎间盘突出症, 腰椎间盘突出症)."""
        close = (other for other in self._pool.by_name if len(name) < len(other) <= len(name) + _HARDLY)
        return sorted((other for other in close if other.endswith(name)), key=lambda other: (len(other), other))

    def told(self, text: str) -> list[Mention]:
        """What a text names of the graph, but for what it says is not so, and for pieces of longer names."""
        mentions = self._mentions(text)
        denied = negations(text, mentions)
        return [one for one, no in zip(mentions, denied, strict=True) if not no and _whole(text, one)]

    def _mentions(self, text: str) -> list[Mention]:
        """The linker's mentions, with the subjects whose names are too long to be terms, and without mere 感染."""
        found = [one for one in self.linker.find(text) if one.entity not in _TOO_GENERAL]
        for name in self._long:
            start = text.find(name)
            end = start + len(name)
            if start >= 0 and not any(one.start <= start and end <= one.end for one in found):
                found = [one for one in found if one.end <= start or one.start >= end]
                found.append(Mention(start, end, name, name, self._pool.by_name[name].kind))
        return sorted(found)

    def entry(self, subject: str) -> Entry:
        """What may be said of a subject.

        Raises:
            KeyError: nothing may.
        """
        return self._pool.by_name[normalize(subject)]

    def department(self, subject: str) -> Line | None:
        """Where a subject is seen, whatever was asked."""
        entry = self._pool.by_name.get(subject)
        return self._line(entry, "department") if entry and entry.objects("department") else None

    def _is_subject(self, name: str) -> bool:
        entry = self._pool.by_name.get(name)
        return entry is not None and entry.kind in _KINDS

    def _is_sign(self, name: str) -> bool:
        """Whether a name is what people feel or see, even where the graph has it among its diseases too (便秘)."""
        shown = len(self._pool.showing.get(name, ()))
        if not self._is_subject(name):
            return shown > 0
        return shown >= _COMMON and not _ILLNESS.search(name)

    def _of_signs(self, run: Sequence[Mention]) -> bool:
        """Whether names in a row are signs told together (水肿、疼痛、心力衰竭), illnesses among them or not."""
        shown = all(one.entity in self._pool.showing for one in run)
        return shown and len(run) > MIN_SIGNS and any(self._is_sign(one.entity) for one in run)

    def _line(self, entry: Entry, topic: str, limit: int = MAX_OBJECTS) -> Line:
        objects = entry.objects(topic)
        return topic_line(self._words, entry, topic, objects[:limit], more=len(objects) > limit)

    def _answering(self, entries: Sequence[Entry], topic: str, told: Sequence[Mention]) -> tuple[Line, ...]:
        if topic == "aliases":
            return self._aliases(entries, told)
        having = [entry for entry in entries if entry.objects(topic)]
        if len(entries) > 1:
            return self._compared(having[0], having[1], topic) if len(having) == len(entries) else ()
        lines = [self._line(entry, topic) for entry in having]
        if topic == "infectious" and having and having[0].objects("route"):
            lines.append(self._line(having[0], "route"))
        return tuple(lines)

    def _compared(self, one: Entry, other: Entry, topic: str) -> tuple[Line, ...]:
        """What two diseases share and what not; side by side where that is no matter of lists."""
        if topic in ("symptoms", "causes"):
            lines = compared(self._words, (one, other), topic, (SHARED, OWN))
            if lines[0].objects:
                return tuple(line for line in lines if line.objects)
        return self._line(one, topic, SHARED), self._line(other, topic, SHARED)

    def _aliases(self, entries: Sequence[Entry], told: Sequence[Mention]) -> tuple[Line, ...]:
        """Two names of one disease, or the codes of two."""
        first = entries[0]
        said = [one.text for one in told if one.entity == first.name and one.text in first.objects("aliases")]
        if said:
            return (topic_line(self._words, first, "aliases", said[:1]),)
        coded = [entry for entry in entries if entry.objects("icd10")]
        return tuple(self._line(entry, "icd10") for entry in coded[:2]) if len(coded) > 1 else ()

    def _complaints(self, signs: Sequence[str], who: Patient, asked: Asked) -> Found:
        """What may lie behind complaints: the one or two diseases that show all of them."""
        fitting = self._fitting(signs, who)
        topic = asked.best(_OF_SIGNS)
        topic = "" if topic == "disease" else topic
        lines: list[Line] = []
        for number, (entry, shown) in enumerate(fitting):
            lines.append(topic_line(self._words, entry, "symptoms", shown, more=True))
            wanted = [topic] if topic else [] if number else list(_ADVICE)
            lines += [
                self._line(entry, one, MAX_OBJECTS if topic else _ADVICE_OBJECTS)
                for one in wanted
                if entry.objects(one)
            ]
        return Found(tuple(lines), tuple(entry.name for entry, _ in fitting), (topic or "disease",), tuple(signs))

    def _fitting(self, signs: Sequence[str], who: Patient) -> list[tuple[Entry, list[str]]]:
        """The diseases that show every sign, with the signs; none where signs are few or many diseases show them."""
        names = set.intersection(*(self._pool.showing[sign] for sign in signs))
        known = ((entry, self._shown(entry, signs)) for name in names if (entry := self._pool.by_name.get(name)))
        able = [(entry, shown) for entry, shown in known if len(shown) == len(signs) and _may_have(entry, who)]
        best = sorted(able, key=lambda one: (len(one[0].raw.get("symptoms", ())), one[0].name))
        return best if len(signs) >= _TELLING and len(best) <= _MOST else []

    def _shown(self, entry: Entry, signs: Iterable[str]) -> list[str]:
        return [one for one in signs if one in entry.objects("symptoms")]


def _runs(text: str, told: Sequence[Mention]) -> list[list[Mention]]:
    """Mentions in a row, with nothing but a comma or 和 between them."""
    runs: list[list[Mention]] = []
    for one in told:
        if runs and _JOINED.fullmatch(text, runs[-1][-1].end, one.start):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _lay_names() -> dict[str, list[str]]:
    """What people call diseases and signs → the graph's names; for questions alone, never for checking answers."""
    with resources.as_file(resources.files("xinglin.inference").joinpath("lay_names.tsv")) as path:
        return {name: entities.split("|") for name, (entities, _) in read_lay_terms(path).items()}


def _tellings() -> dict[str, list[str]]:
    """The graph's names → how people tell of having such an illness (unreviewed, like the lay names)."""
    lines = resources.files("xinglin.inference").joinpath("tellings.tsv").read_text("utf-8").splitlines()
    return {name: told.split("|") for name, told in (line.split("\t") for line in lines if not line.startswith("#"))}


def _words() -> Words:
    """What people say around an illness: clauses of the labelled messages, and examples of how topics are asked for."""
    clauses = (clause for message in messages() for clause in CLAUSE.split(normalize(message["text"])))
    around = tuple(clause for clause in clauses if _HARDLY < len(clause) <= _CLAUSE_LENGTH)
    return Words(around, tuple(normalize(one) for one in askings()))


def _near(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Name → names of the same disease: by an alias that they share, or but for 小儿, 慢性 and the like."""
    groups: dict[str, list[str]] = {}
    keys: dict[str, set[str]] = {}
    for entry in entries:
        keys[entry.name] = {entry.name, *map(normalize, entry.aliases), stripped(entry.name)}
        for key in keys[entry.name]:
            groups.setdefault(key, []).append(entry.name)
    return {
        name: [other for key in sorted(own) for other in sorted(groups[key], key=len) if other != name]
        for name, own in keys.items()
    }


def narrower(text: str, name: str, but: str = _USUAL) -> bool:
    """Whether a name says more than a person did: 妊娠期急性脂肪肝 is another illness than 脂肪肝."""
    special = any(re.search(words, name) and not re.search(f"{words}|{said}", text) for words, said in _SAID.items())
    kinds = ((found[0], found[1]) for found in _KIND.finditer(name))
    return special or any(kind not in but and not set(kind) <= set(text) and rest in text for kind, rest in kinds)


def _likeness(one: str, other: str) -> float:
    """How far two names say the same (雷诺病, 雷诺综合征), 0 where one has a character that the other has not."""
    first, second = (set(_GENERIC.sub("", name)) or set(name) for name in (one, other))
    return len(first & second) / len(first | second) if first <= second or second <= first else 0.0


def opposed(one: str, other: str) -> bool:
    """Whether a name is another one with 不, 非, 亚 or 无 before it (不稳定型心绞痛), and so another illness."""
    short, long = sorted((one, other), key=len)
    return any(f"{no}{short}" in long for no in "不非亚无")


def _whole(text: str, one: Mention) -> bool:
    """Whether a mention is a name by itself, not a piece of a longer one that the graph has not."""
    before = text[: one.start]
    return not _CUT.match(text, one.end) and not (before.endswith("性") and not _TYPES.search(before))


def _may_have(entry: Entry, who: Patient) -> bool:
    """Whether a disease may befall this person, by age and sex."""
    bearer = person(entry)
    if bearer is None:
        return True
    child = bearer.unit != "岁" or bearer.high < 18
    grown = bearer.low >= 18 and (bearer.low, bearer.high) != (24, 65)
    wrong_age = (child and not who.child) or (grown and who.child)
    return not wrong_age and not (who.sex and who.sex not in bearer.sexes)
