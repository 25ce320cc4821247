"""From a disease's raw objects to the few that an answer may list. Every filter is named and counted.

常见症状: 恶心 · 恶心、呕吐 · 呕吐 · 严重者可… · 溃疡病   →   呕吐、恶心
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from xinglin.knowledge.graph import Subject
from xinglin.knowledge.link import normalize
from xinglin.knowledge.policy import ANSWERABLE, PROCEDURE, RED_FLAGS, WRONG_FACTS, excluded

_FRAGMENT = re.compile(
    "^(甚至|也可|可|以|并|如|其|及|或|和|与|有时|严重|部分|少数|多数|多|常|因|由|但|而|伴|后期|早期|晚期|形成|极|易)"
    "|(等|者|时|后|的|为主|最为常见|所致|引起|症状|表现|患者|病人)$"
)
_PUNCTUATION = re.compile(r"[、,，;；。:：!?！？()（）\[\]［］【】<>《》/&=\"“”…~]")
_TOPIC_GENERIC: dict[str, frozenset[str]] = {
    topic: frozenset(words.split())
    for topic, words in {
        "symptoms": """
            感染 肿瘤 外伤 紧张 不适 粗糙 烦躁 兴奋 充血 渗出 坏死 溃疡病 瘙痒症 癫痫病 脑膜炎症 抑郁症 焦虑症 灼热 淡漠
            病史 视力 记忆 饮酒 吸烟 口腔黏膜 无症状 下降 缓慢 疾病 炎症 损伤 畸形 增生 肥胖症 糖尿 肿大 增厚 脱落 手术
            药物 遗传 死亡 粘连 呼吸""",
        "examinations": """
            实验室检查 影像学检查 辅助检查 体格检查 体检 查体 检查 常规检查 特殊检查 化验检查 其他检查 病史 诊断 视诊
            触诊 听诊 叩诊 血 尿 粪便 其他 实验室诊断 临床表现 体征 X线表现 鉴别诊断 电生理 一般检查 放射学检查
            培养 专科检查""",
        "complications": """
            脑膜炎症 癫痫病 可并发 感染 性病 肿胀 疼痛 溃疡病 结石病 肿瘤 死亡 畸形 并发症""",
        "department": "",
    }.items()
}
"""Words too general to answer with, and forced normalisations (溃疡→溃疡病) that read wrongly as a symptom."""
_SUPPORT = {"symptoms": 3, "examinations": 2, "complications": 2, "department": 5}
"""In how many diseases an object must stand: a text fragment stands in one, a medical term in many."""


@dataclass(frozen=True)
class Disease:
    """A disease with what may be said of it.

    Attributes:
        objects: topic → objects: red flags first, then by support in the whole graph, then by name.
        predicate: (topic, object) → the graph's predicate that states it.
        raw_symptoms: everything the graph lists, before any filter; tells close relatives apart from others.
    """

    name: str
    objects: dict[str, tuple[str, ...]]
    predicate: dict[tuple[str, str], str]
    aliases: tuple[str, ...] = ()
    raw_symptoms: tuple[str, ...] = ()


@dataclass
class Cleaned:
    """The usable diseases and what was dropped, by rule."""

    diseases: list[Disease]
    dropped: Counter[str] = field(default_factory=Counter)


def _split(topic: str, text: str) -> list[str]:
    return re.split("[;；、]", text) if topic == "department" else [text]


def reject(topic: str, text: str) -> str | None:
    """The name of the rule that drops an object, or None when it is usable as it is."""
    if excluded(text):
        return "policy"
    if text in _TOPIC_GENERIC[topic]:
        return "generic word"
    if not 2 <= len(text) <= 12:
        return "length"
    if _PUNCTUATION.search(text):
        return "punctuation"
    if _FRAGMENT.search(text):
        return "fragment"
    if not re.search("[\u4e00-\u9fff]", text) and topic != "examinations":
        return "not Chinese"
    if topic == "department" and not text.endswith("科"):
        return "not a department"
    return None


def _without_substrings(objects: Iterable[str]) -> list[str]:
    kept = list(objects)
    return [one for one in kept if not any(one != other and one in other for other in kept)]


def clean(subjects: list[Subject]) -> Cleaned:
    """Clean all diseases' objects for the topics of `ANSWERABLE` that examples are built from.

    Args:
        subjects: the graph's diseases; the support of an object is counted over them.
    """
    result = Cleaned([])
    support: dict[str, Counter[str]] = {topic: Counter() for topic in _SUPPORT}
    raw: list[tuple[Subject, dict[str, dict[str, str]]]] = []
    for subject in subjects:
        found = {topic: _usable(subject, topic, result.dropped) for topic in _SUPPORT}
        for topic, objects in found.items():
            support[topic].update(objects.keys())
        raw.append((subject, found))
    for subject, found in raw:
        odd = not 2 <= len(subject.name) <= 14 or _PUNCTUATION.search(subject.name)
        if odd or excluded(subject.name) or PROCEDURE.search(subject.name):
            result.dropped["subject name"] += 1
            continue
        disease = _disease(subject, found, support, result.dropped)
        if disease.objects:
            result.diseases.append(disease)
    return result


def _usable(subject: Subject, topic: str, dropped: Counter[str]) -> dict[str, str]:
    """Object → predicate, for the objects that no rule drops."""
    found: dict[str, str] = {}
    for predicate in ANSWERABLE[topic]:
        for text in subject.facts.get(predicate, ()):
            for part in map(normalize, _split(topic, text)):
                rule = reject(topic, part) or ("names the disease" if part in subject.name else None)
                if (subject.name, predicate, part) in WRONG_FACTS:
                    rule = "known to be wrong"
                if rule:
                    dropped[rule] += 1
                else:
                    found.setdefault(part, predicate)
    return found


def _disease(
    subject: Subject, found: dict[str, dict[str, str]], support: dict[str, Counter[str]], dropped: Counter[str]
) -> Disease:
    objects: dict[str, tuple[str, ...]] = {}
    predicate: dict[tuple[str, str], str] = {}
    for topic, candidates in found.items():
        known = [one for one in candidates if support[topic][one] >= _SUPPORT[topic]]
        kept = sorted(_without_substrings(known), key=lambda one: (one not in RED_FLAGS, -support[topic][one], one))
        dropped["rare"] += len(candidates) - len(known)
        dropped["substring of a sibling"] += len(known) - len(kept)
        if kept:
            objects[topic] = tuple(kept)
            predicate |= {(topic, one): candidates[one] for one in kept}
    names = [alias for key in ("别称", "同义词", "又称") for alias in subject.facts.get(key, ())]
    aliases = tuple(sorted(set(map(normalize, names)) - {subject.name}))
    raw = tuple(text for key in ANSWERABLE["symptoms"] for text in subject.facts.get(key, ()))
    return Disease(subject.name, objects, predicate, aliases, raw)
