"""What a question is about: the topics it asks for, whether it compares, and whom it is about. The words are data.

我妈60岁，得了偏头痛挂什么科   →   topics department · patient 60 岁, 女
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

from xinglin.knowledge.link import Mention

_WORDS = yaml.safe_load(resources.files("xinglin.inference").joinpath("question.yaml").read_text("utf-8"))
_TOPICS = {name: re.compile(pattern) for name, pattern in _WORDS["topics"].items()}
_UNANSWERABLE = {name: re.compile(pattern) for name, pattern in _WORDS["unanswerable"].items()}
_DISEASE, _COMPARISON, _FOLLOW_UP = (re.compile(_WORDS[name]) for name in ("disease", "comparison", "follow_up"))

_AGE = re.compile(r"(?P<number>\d{1,3}|[一二两三四五六七八九十]{1,3})个?(?P<unit>周岁|岁|月|天|周)(?!前|后|以前|以来|了)")
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}
_CHILD = re.compile("宝宝|宝贝|孩子|小孩|娃|儿子|女儿|婴儿|小朋友|患儿|男婴|女婴|新生儿|孙子|孙女|外孙")
_FEMALE = re.compile("女|妈|母亲|奶奶|姥姥|外婆|婆婆|姐|妹|老婆|媳妇|妻子|阿姨|姑|婶|月经|怀孕|大姨妈|老太太|孕妇")
_MALE = re.compile("男|爸|父亲|爷爷|姥爷|外公|公公|哥|弟|老公|丈夫|叔|伯|舅|老头|儿子")


@dataclass(frozen=True)
class Patient:
    """Whom a question is about, as far as it says so.

    Attributes:
        child: True for a child, False for an adult, None where nothing tells.
        sex: 男, 女, or an empty string.
    """

    child: bool | None = None
    sex: str = ""


@dataclass(frozen=True)
class Asked:
    """What a question asks for.

    Attributes:
        topics: names of `ANSWERABLE`, or `aliases`; the first is what is asked for most plainly.
        disease: it asks which disease it may be.
        comparison: it asks for what two things have in common, or what parts them.
        unanswerable: what it asks for that no graph holds (cost, outlook, …); empty where nothing is.
        follow_up: it speaks of something said before (它, 这个病).
    """

    topics: tuple[str, ...]
    disease: bool
    comparison: bool
    unanswerable: str
    follow_up: bool


def understand(text: str, mentions: Sequence[Mention]) -> Asked:
    """What a question asks for.

    Args:
        text: normalised.
        mentions: what the linker found in it; the rest of the text tells what is asked of them.
    """
    rest, last = [], 0
    for one in mentions:
        rest += [text[last : one.start], "■"]
        last = one.end
    plain = "".join([*rest, text[last:]])
    topics = [name for name, pattern in _TOPICS.items() if pattern.search(plain)]
    if not topics and any(one.kind == "department" for one in mentions):
        topics = ["department"]  # 看■去■合适吗
    if {"causes", "department"} & set(topics) and "aliases" in topics:
        topics.remove("aliases")  # 起病的原因是一回事吗
    return Asked(
        topics=tuple(topics),
        disease=bool(_DISEASE.search(plain)),
        comparison=bool(_COMPARISON.search(plain)),
        unanswerable=next((name for name, pattern in _UNANSWERABLE.items() if pattern.search(plain)), ""),
        follow_up=bool(_FOLLOW_UP.search(plain)),
    )


def patient(text: str) -> Patient:
    """Whom a normalised question is about."""
    female, male = bool(_FEMALE.search(text)), bool(_MALE.search(text))
    sex = "" if female is male else "女" if female else "男"
    if found := _AGE.search(text):
        return Patient(found["unit"] not in ("岁", "周岁") or _number(found["number"]) < 18, sex)  # noqa: PLR2004
    return Patient(True if _CHILD.search(text) else None, sex)


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    tens, ten, ones = text.rpartition("十")
    return (_DIGITS.get(tens, 1) * 10 if ten else 0) + _DIGITS.get(ones, 0)
