"""Red flags and requests for drugs, found before any model is asked: by rules, and by likeness to labelled messages.

我爸突然嘴歪了，右手拿不住筷子     →   emergency · 中风征象
我没有胸痛，三年前有过            →   nothing
布洛芬一次吃几片                 →   medication · 剂量

Rules (`triage.yaml`) say what they found and why; labelled messages (`triage.jsonl`) reach further, since people find
more ways of saying a thing than any list holds. A rule counts unless the messages make it unlikely; likeness alone must
be plain. **Clinicians must review both before any use with patients.** What is not found is not thereby harmless.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

from xinglin.inference.classify import Classifier, learned
from xinglin.knowledge.link import Mention, negations
from xinglin.knowledge.terms import normalize

EMERGENCY_TEXT = (
    "您说的情况（{name}）可能是急症，请立即拨打120，或马上去最近的医院急诊科，不要等待，也不要自己开车。"
    "等待时请让病人休息、身边不要离人；神志不清的让其侧卧，不要喂水喂药。"
)
POISON_TEXT = (
    "您说的情况（{name}）可能是急症，请立即拨打120或马上去急诊，即使现在没有感觉。"
    "不要催吐，不要等症状出现；带上包装或剩余物。接触到皮肤或眼睛的用清水持续冲洗；吸入气体的先离开现场到通风处。"
)
CRISIS_TEXT = (
    "听到您这样说，我很担心。您不必一个人扛着：请现在就拨打心理援助热线12356；"
    "如果已经受伤、吃了药，或觉得马上会出事，请立即拨打120或110，并让一个信得过的人陪在身边，把药物、刀具等收远。"
    "如果说的是身边的人，请陪着对方，不要让其独处。"
)
MEDICATION_TEXT = (
    "涉及用药（{name}）的问题，这里不能给剂量，也不能替您决定用药、停药或换药：{reason}。"
    "请把正在吃的药、过敏史、年龄和基础病告诉医生或药师；用药后不舒服请及时就医，急症拨打120。"
)
ALIKE = "与急症的描述相近"
"""Name of what no rule found, but likeness to labelled messages."""
_PLAIN, _CRISIS, _CRISIS_SHARE = 0.6, 0.2, 0.6
"""From which probability on likeness alone counts: of any emergency, and of a crisis of the mind, where that has such a
share of the probability of no danger."""
_DOUBTED, _DOUBTED_LETHAL = 0.4, 0.25
"""Below which probability of an emergency a rule does not count; lower where silence would cost most (suicide, poison).
These five were chosen on the packaged messages, each set of them judged by what was learned from the others."""
_PLAIN_REQUEST, _DOUBTED_REQUEST = 0.4, 0.1
"""The same two for questions about drugs."""
_EXAGGERATED = re.compile("(?<=[累困饿热冷笑气烦忙吵丑贵馋渴臭疼痛痒吓急闷难羞尬美香酸])死(?=了|我|人|你|个)")
"""累死了 speaks of no death."""
_SENTENCE = re.compile(r"[。！？!?\n；;]")
_CLAUSE = re.compile(r"[。！？!?\n；;，, ]")


@dataclass(frozen=True)
class Flag:
    """One rule.

    Attributes:
        group: its class: cardiac, stroke, …
        every: each of these must be found, not denied and not long past.
        unless: tells a harmless case; None where there is none.
        crisis: answered with the crisis line.
    """

    name: str
    group: str
    every: tuple[re.Pattern[str], ...]
    unless: re.Pattern[str] | None
    crisis: bool
    reason: str
    source: str

    @property
    def doubted(self) -> float:
        """Below which probability of an emergency it does not count."""
        return _DOUBTED_LETHAL if self.crisis or self.group == "poisoning" else _DOUBTED


@dataclass(frozen=True)
class Request:
    """A kind of question about drugs that only a doctor or pharmacist may answer."""

    name: str
    pattern: re.Pattern[str]
    reason: str


_OTHER_REQUEST = Request("用药", re.compile(""), "用什么药、怎么用，要由看过病人的医生决定")


@dataclass(frozen=True)
class Alert:
    """What was found, and what to say of it first.

    Attributes:
        kind: `emergency`, `crisis` (an emergency of the mind) or `medication`.
        name: of the rule.
        group: its class.
        text: what to tell the person, before and whatever a model says.
    """

    kind: Literal["emergency", "crisis", "medication"]
    name: str
    group: str
    text: str

    @property
    def urgent(self) -> bool:
        """Whether nothing else must be answered."""
        return self.kind != "medication"


@dataclass(frozen=True)
class _Rules:
    flags: tuple[Flag, ...]
    requests: tuple[Request, ...]
    past: re.Pattern[str]
    harmless: re.Pattern[str]
    now: re.Pattern[str]


@lru_cache(1)
def _rules() -> _Rules:
    said = yaml.safe_load(resources.files("xinglin.inference").joinpath("triage.yaml").read_text("utf-8"))
    words: dict[str, str] = {}
    for name, pattern in said["words"].items():
        words[name] = _filled(pattern, words)
    flags = tuple(_flag(one, words) for one in said["flags"])
    requests = tuple(Request(one["name"], re.compile(one["pattern"]), one["reason"]) for one in said["medication"])
    past, harmless, now = (re.compile(words[name]) for name in ("long_ago", "benign_context", "acute_now"))
    return _Rules(flags, requests, past, harmless, now)


def _filled(pattern: str, words: dict[str, str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda found: f"(?:{words[found[1]]})", pattern)


def _flag(said: dict[str, Any], words: dict[str, str]) -> Flag:
    every = tuple(re.compile(_filled(pattern, words)) for pattern in said["all"])
    unless = re.compile(said["unless"]) if "unless" in said else None
    return Flag(said["name"], said["class"], every, unless, said.get("crisis", False), said["reason"], said["source"])


@lru_cache(1)
def messages() -> list[dict[str, str]]:
    """The labelled messages."""
    lines = resources.files("xinglin.inference").joinpath("triage.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@lru_cache(1)
def _classifier() -> Classifier:
    said = messages()
    return learned([plain(one["text"]) for one in said], [label(one) for one in said])


def plain(text: str) -> str:
    """A message as its likeness is judged: normalised, without figures of speech that name death."""
    return _EXAGGERATED.sub("极", normalize(text))


def label(said: dict[str, str]) -> str:
    """What a labelled message teaches: `emergency`, `crisis`, `benign` or `medication`."""
    return "crisis" if said["label"] == "emergency" and said["class"] == "suicide" else said["label"]


def triage(text: str, classifier: Classifier | None = None) -> Alert | None:
    """The most urgent thing that a message calls for before it is answered, or None.

    Args:
        classifier: another one than that of the packaged messages.
    """
    text = normalize(text)
    likely = (classifier or _classifier()).probabilities(plain(text))
    danger = likely["emergency"] + likely["crisis"]
    flag = next((one for one in _flags(text) if danger >= one.doubted), None)
    if flag or danger >= _PLAIN or likely["crisis"] >= max(_CRISIS, _CRISIS_SHARE * likely["benign"]):
        crisis = likely["crisis"] > likely["emergency"] if flag is None else flag.crisis
        name, group = (flag.name, flag.group) if flag else (ALIKE, "suicide" if crisis else "other")
        words = CRISIS_TEXT if crisis else POISON_TEXT if group == "poisoning" else EMERGENCY_TEXT
        return Alert("crisis" if crisis else "emergency", name, group, words.format(name=name))
    request = next((one for one in _rules().requests if one.pattern.search(text)), None)
    if likely["medication"] >= (_DOUBTED_REQUEST if request else _PLAIN_REQUEST):
        chosen = request or _OTHER_REQUEST
        words = MEDICATION_TEXT.format(name=chosen.name, reason=chosen.reason)
        return Alert("medication", chosen.name, "medication", words)
    return None


def _flags(text: str) -> Iterator[Flag]:
    """The rules that a normalised text fits, those of the mind first."""
    rules = _rules()
    asks_to_know = rules.harmless.search(text) and not rules.now.search(text)
    if asks_to_know:
        return
    for flag in sorted(rules.flags, key=lambda one: not one.crisis):
        if flag.unless and flag.unless.search(text):
            continue
        if all(any(_counts(text, found) for found in pattern.finditer(text)) for pattern in flag.every):
            yield flag


def _counts(text: str, found: re.Match[str]) -> bool:
    """Whether an expression is meant as it stands: neither denied nor long past."""
    place = Mention(found.start(), found.end(), found[0], found[0], "symptom")
    if found.start() < found.end() and negations(text, [place])[0]:
        return False
    start = max((cut.end() for cut in _SENTENCE.finditer(text, 0, found.start())), default=0)
    clause_end = _CLAUSE.search(text, found.end())
    before = text[start : clause_end.start() if clause_end else len(text)]
    past = max((one.end() for one in _rules().past.finditer(before)), default=-1)
    return past < 0 or bool(_rules().now.search(before, past))
