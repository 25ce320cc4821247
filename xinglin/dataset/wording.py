"""Words around facts: the question forms of `forms.yaml`, and facts as lines of knowledge.

偏头痛的症状：畏光、恶心        one line: a subject, a topic, its objects
"""

import random
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from xinglin.dataset.clean import Entry
from xinglin.errors import UserError, nearest, one_line
from xinglin.knowledge.policy import EMERGENCY
from xinglin.records import Fact

MAX_OBJECTS = 5
"""How many objects an answer lists."""
LEAD_SHARE = 0.35
"""How often a question begins with one of the leads."""
URGENT = "急症请立即拨打120。"
BOTH = "两者"
_GREETS = re.compile("医生|请|你好|听|想|麻烦|最近听说|门诊|查体|社区医院|问诊|流行病学|.*患者收治|怀疑|刚确诊|担心|防")
DOCTOR = re.compile("主诉|表现为|考虑|分诊|安排|因.*就诊|因.*前来|治疗上")
"""Vignettes that a doctor would word so."""


@dataclass(frozen=True)
class Form:
    """One question form.

    Attributes:
        weight: its share of a build, against the other forms' weights.
        minimum: how many objects a subject must have for the question to be worth asking.
        train, evaluation: phrasings; the two never overlap.
        answers: of the usual case; `answers_no` where the facts say no, `answers_route` where they say how.
    """

    name: str
    weight: float
    train: tuple[str, ...]
    evaluation: tuple[str, ...]
    answers: tuple[str, ...]
    answers_no: tuple[str, ...] = ()
    answers_route: tuple[str, ...] = ()
    minimum: int = 1


@dataclass(frozen=True)
class Wording:
    """The contents of `forms.yaml`."""

    words: dict[str, str]
    leads: tuple[str, ...]
    abstain: tuple[str, ...]
    abstain_vignette: tuple[str, ...]
    abstain_alias: tuple[str, ...]
    forms: dict[str, Form]


def load_wording(path: str | Path = "") -> Wording:
    """Read question forms; the packaged ones unless a path is given. A file of one's own may name fewer forms.

    Raises:
        UserError: no such file, no YAML, or a form, key or placeholder that means nothing.
    """
    packaged = resources.files("xinglin.dataset").joinpath("forms.yaml")
    known = yaml.safe_load(packaged.read_text("utf-8"))
    given = known
    if path:
        try:
            given = yaml.safe_load(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"forms_path {path}: cannot be read ({one_line(error)})") from None
        if not isinstance(given, dict) or not isinstance(given.get("forms"), dict):
            raise UserError(f"forms_path {path}: needs a mapping 'forms'; see xinglin/dataset/forms.yaml")
    forms = {name: _form(name, said, known, path or "forms.yaml") for name, said in given["forms"].items()}
    words = {**known["words"], **_mapping(given.get("words", {}), path, "words")}
    lists = {
        key: _texts(given.get(key, known[key]), f"forms_path {path}: {key}")
        for key in ("leads", "abstain", "abstain_vignette", "abstain_alias")
    }
    return Wording(words=words, forms=forms, **lists)


def _mapping(value: Any, path: str | Path, key: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UserError(f"forms_path {path}: {key} must map names to texts")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text.strip() for text in value):
        raise UserError(f"{where} must be a list of texts, with at least one")
    return tuple(value)


def _form(name: str, own: Any, known: dict[str, Any], path: str | Path) -> Form:
    where = f"forms_path {path}: form {name!r}"
    if name not in known["forms"]:
        raise UserError(f"{where} is unknown{nearest(name, known['forms'])}")
    packaged = known["forms"][name]
    if not isinstance(own, dict | None) or (strange := (own or {}).keys() - Form.__dataclass_fields__.keys()):
        said = min(strange) if isinstance(own, dict) else own
        raise UserError(
            f"{where}: {said!r} means nothing here; it may have weight, minimum, train, evaluation, answers"
        )
    said = {**packaged, **(own or {})}
    lists = {key: _texts(value, f"{where}: {key}") for key, value in said.items() if key not in ("weight", "minimum")}
    numbers = [said["weight"], said.get("minimum", 1)]
    if not all(isinstance(one, int | float) and 0 <= one < float("inf") for one in numbers):
        raise UserError(f"{where}: weight and minimum must be numbers that are not negative")
    form = Form(name, **{**said, **lists})
    if twice := set(form.train) & set(form.evaluation):
        raise UserError(f"{where}: {min(twice)!r} is a training and an evaluation phrasing")
    for key, texts in lists.items():
        usable = _names("".join(packaged[key]))
        for text in texts:
            named = _names(text, where)
            needed = (
                usable - {"kin"} if key in ("train", "evaluation") else usable & {"o", "shared", "only_a", "only_b"}
            )
            if missing := needed - named:
                raise UserError(f"{where}: {text!r} lacks {{{min(missing)}}}; without it nothing is asked or answered")
            if strange := named - usable:
                raise UserError(
                    f"{where}: unknown placeholder {{{min(strange)}}} in {text!r}; {key} may have {sorted(usable)}"
                )
    return form


def _names(text: str, where: str = "") -> set[str]:
    """The placeholders of a text."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{where}: {text!r}: {error}") from None


@dataclass(frozen=True)
class Line:
    """One line of knowledge, in the order it is shown.

    Attributes:
        about: a subject, or `BOTH` of a comparison.
        word: what is said of it: the topic's word, or what a comparison worked out.
        more: the list was cut.
        facts: the graph's facts that the line stands on.
    """

    about: str
    word: str
    objects: tuple[str, ...]
    more: bool
    facts: tuple[Fact, ...]

    @property
    def listed(self) -> str:
        """`甲、乙、丙`, with 等 when the list was cut."""
        return "、".join(self.objects) + ("等" if self.more else "")

    @property
    def text(self) -> str:
        """As it stands in `input`."""
        return f"{self.about}的{self.word}：{self.listed}"


def topic_line(words: dict[str, str], entry: Entry, topic: str, objects: Sequence[str], *, more: bool = False) -> Line:
    """A line of some of a topic's objects.

    Args:
        words: topic → its word, of a `Wording`.
        more: there are others.
    """
    facts = tuple(entry.facts[topic][one] for one in objects)
    return Line(entry.name, words[topic], tuple(objects), more, facts)


def compared(
    words: dict[str, str],
    pair: tuple[Entry, Entry],
    topic: str,
    limits: tuple[int, int],
    order: Callable[[list[str]], None] = lambda objects: None,
) -> tuple[Line, Line, Line]:
    """What two subjects have in common, and what each has beside it.

    A set is a program's business, wording is the model's: so it is worked out here, not left to the model.

    Args:
        limits: how many objects to list that both have, and of each one's own.
        order: puts a line's objects into another order, in place.
    """
    (one, other), (shared, own) = pair, limits
    first, second = one.objects(topic), other.objects(topic)
    sides = (
        (BOTH, f"共同{words[topic]}", [x for x in first if x in second][:shared], (one, other)),
        (one.name, f"其他{words[topic]}", one.beside(other, topic)[:own], (one,)),
        (other.name, f"其他{words[topic]}", other.beside(one, topic)[:own], (other,)),
    )
    lines = []
    for about, head, objects, entries in sides:
        order(objects)
        facts = tuple(entry.facts[topic][x] for entry in entries for x in objects)
        lines.append(Line(about, head, tuple(objects), False, facts))
    return lines[0], lines[1], lines[2]


@dataclass(frozen=True)
class Made:
    """A question with its answer.

    Attributes:
        lines: what the answer stands on.
        about: the subjects asked about.
        topic: what is asked; lines of other subjects on the same topic are the ones to be told apart.
        key: tells it apart from every other question of its form.
        warning: what comes first whatever the answer is: red flags.
    """

    question: str
    answer: str
    lines: tuple[Line, ...]
    about: tuple[Entry, ...]
    topic: str
    key: str = ""
    warning: str = ""


@dataclass
class Writer:
    """Chooses words for one split of one form.

    Attributes:
        phrasings: of the form, for this split.
        leading: whether questions may begin with a lead.
    """

    wording: Wording
    form: Form
    phrasings: tuple[str, ...]
    leading: bool
    rng: random.Random = field(default_factory=random.Random)

    def ask(self, phrasing: str = "", **names: str) -> str:
        """One phrasing (any, unless it is given), sometimes with a few words before it, as people write."""
        question = (phrasing or self.rng.choice(self.phrasings)).format(**names)
        lead = self.rng.choice(self.wording.leads) if self.leading and self.rng.random() < LEAD_SHARE else ""
        return question if _GREETS.match(question) or DOCTOR.search(question) else lead + question

    def say(self, answers: Sequence[str], urgent: Sequence[Entry] = (), **names: str) -> str:
        """One answer, with the emergency number where a disease cannot wait."""
        end = URGENT if any(one.kind == "disease" and EMERGENCY.search(one.name) for one in urgent) else ""
        return self.rng.choice(answers).format(**names) + end

    def line(self, entry: Entry, topic: str, limit: int = MAX_OBJECTS) -> Line:
        """A topic's best `limit` objects in any order; predicates that mean the same are one line to a reader."""
        chosen = list(entry.objects(topic)[:limit])
        self.rng.shuffle(chosen)
        return self.line_of(entry, topic, chosen, more=len(entry.objects(topic)) > limit)

    def line_of(self, entry: Entry, topic: str, objects: Sequence[str], *, more: bool = False) -> Line:
        """A line of some objects."""
        return topic_line(self.wording.words, entry, topic, objects, more=more)

    def compared(self, one: Entry, other: Entry, topic: str, shared: int, own: int) -> tuple[Line, Line, Line]:
        """`compared`, each line's objects in any order."""
        return compared(self.wording.words, (one, other), topic, (shared, own), self.rng.shuffle)

    def shuffled(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """The entries in random order."""
        return iter(self.rng.sample(entries, len(entries)))
