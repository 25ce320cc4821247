"""How facts become questions with answers: one maker a form. Vignettes are in vignettes.py, the words in forms.yaml.

    symptoms · 偏头痛有哪些症状？
    资料     · 偏头痛的症状：畏光、恶心        ← the line that answers, among others, in any order
    answer   · 偏头痛的症状有畏光、恶心，请及时就医。

A maker yields questions until its split gives no more; no two of them are the same.
"""

import re
from collections.abc import Callable, Iterator

from xinglin.dataset.clean import Entry
from xinglin.dataset.pool import Pool
from xinglin.dataset.vignettes import kin, vignette
from xinglin.dataset.wording import URGENT, Line, Made, Writer
from xinglin.knowledge.policy import RED_FLAGS, SOON

SHARED, OWN = 3, 2
"""Objects of a comparison: shared, and of each side alone."""
_PARTNERS = 3
"""In how many comparisons a disease comes first, at most."""

_ORGANS = {
    "眼": ("眼科", "眼|视|角膜|结膜|瞳"),
    "口腔": ("口腔科 口腔颌面外科 口腔修复科", "口|牙|齿|舌|颌|唇|涎|龈|腭"),
    "皮肤": ("皮肤科", "皮|疹|痒|癣|斑|疮|水疱|毛|痣|疣"),
    "骨": ("骨科", "骨|关节|椎|肌|腰|颈|肢|活动受限|腱"),
    "女性": ("妇科 产科 妇产科", "妇|阴道|子宫|卵巢|月经|妊娠|孕|乳|外阴|盆腔|产"),
    "泌尿": ("泌尿外科 肾内科 男科", "尿|肾|膀胱|前列腺|阴茎|睾|阴囊"),
    "耳鼻喉": ("耳鼻喉科 耳鼻咽喉科", "耳|鼻|咽|喉|眩晕|听|扁桃|前庭"),
    "神经精神": (
        "神经内科 神经外科 神经科 精神科 精神心理科",
        "神经|脑|头|瘫|抽搐|昏迷|意识|精神|癫痫|麻木|幻觉|睡|无力|晕|惊厥|震颤|痴呆|颅|脊髓",
    ),
    "心": ("心内科 心血管内科 心外科 心血管科", "心|胸|血压|休克|晕|水肿|发绀|动脉"),
    "呼吸": ("呼吸内科 呼吸科 胸外科", "肺|咳|呼吸|胸|气|痰|结核"),
    "消化": ("消化内科 消化科 肛肠科", "胃|肠|肝|胆|胰|腹|吐|恶心|便|食|黄疸|脾"),
    "内分泌": ("内分泌科", "糖|甲状腺|内分泌|肥胖|多尿|消瘦|垂体|肾上腺|代谢|激素|发育|酸中毒"),
    "血液": ("血液科 血液内科", "血|紫癜|淋巴|骨髓"),
}
"""Organ → its departments, and what in a disease's name or facts speaks of it."""
_ORGAN = {name: organ for organ, (names, _) in _ORGANS.items() for name in names.split()}
"""Department of one organ → the organ. Two of different organs are two departments whatever a hospital calls them;
general ones (内科, 外科, 儿科, 肿瘤科, 急诊科 …) overlap with all and prove nothing."""

_CAUSE_KINDS = {
    "infection": re.compile("病毒|菌|感染|寄生虫|螺旋体|原虫|衣原体|支原体|传染|败血|心内膜炎|肺炎|结核|虫"),
    "heredity": re.compile("遗传|染色体|基因|先天"),
    "injury": re.compile("外伤|暴力|创伤|骨折|撞|跌|扭伤|挤压"),
    "poison": re.compile("中毒|毒物|农药"),
}


def single(topic: str) -> Callable[[Pool, Writer], Iterator[Made]]:
    """The maker of a form that asks one subject for one topic."""

    def make(pool: Pool, writer: Writer) -> Iterator[Made]:
        able = [one for one in pool.having(topic) if len(one.objects(topic)) >= writer.form.minimum]
        for entry in writer.shuffled(able):
            line = writer.line(entry, topic)
            answer = writer.say(writer.form.answers, [entry], d=entry.name, w=line.word, o=line.listed)
            if topic in ("symptoms", "complications") and not answer.endswith(URGENT):
                answer += _when_it_comes(line)
            yield Made(writer.ask(d=entry.name, kin=kin(entry, writer.rng)), answer, (line,), (entry,), topic)

    return make


def _when_it_comes(line: Line) -> str:
    """What to do when a listed red flag shows."""
    flag = next((one for one in line.objects if one in RED_FLAGS - SOON), "")
    return f"出现{flag}请立即拨打120。" if flag else ""


def infectious(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Whether a disease is passed on, and by which route where the graph says it."""
    for entry in writer.shuffled(pool.having("infectious")):
        lines = [writer.line(entry, "infectious")]
        yes = entry.objects("infectious") == ("有",)
        answers = writer.form.answers if yes else writer.form.answers_no
        if yes and entry.objects("route"):
            lines.append(writer.line(entry, "route"))
            answers = writer.form.answers_route
        answer = writer.say(answers, [entry], d=entry.name, r=lines[-1].listed)
        yield Made(writer.ask(d=entry.name), answer, tuple(lines), (entry,), "infectious")


def comparison(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Symptoms of two diseases of one department: at least three shared, at least two of each one's own."""
    seen: set[frozenset[str]] = set()
    for _ in range(_PARTNERS):
        for one in writer.shuffled(pool.having("symptoms")):
            near = [other for name in one.objects("department") for other in pool.department[name]]
            tries = writer.rng.sample(near, min(30, len(near)))
            other = next((x for x in tries if frozenset((one.name, x.name)) not in seen and _comparable(one, x)), None)
            if other:
                seen.add(frozenset((one.name, other.name)))
                lines = writer.compared(one, other, "symptoms", SHARED, OWN)
                shared, only_a, only_b = (line.listed for line in lines)
                names = {"a": one.name, "b": other.name}
                answer = writer.say(
                    writer.form.answers, [one, other], shared=shared, only_a=only_a, only_b=only_b, **names
                )
                yield Made(writer.ask(**names), answer, lines, (one, other), "symptoms")


def _comparable(one: Entry, other: Entry) -> bool:
    shared = set(one.objects("symptoms")) & set(other.objects("symptoms"))
    return len(shared) >= 3 and min(len(one.beside(other, "symptoms")), len(other.beside(one, "symptoms"))) >= 2


def same_cause(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Whether two diseases have the same causes.

    Never an unqualified yes, since a graph does not list all causes; a no only for causes of different kinds
    (an infection here, heredity there), never for causes that are merely not listed.
    """
    able = [one for one in pool.having("causes") if len(one.objects("causes")) >= 2]
    for turn, one in enumerate(writer.shuffled(able)):
        tries = writer.rng.sample(able, min(200, len(able)))
        fits = _share_causes if turn % 2 else _other_kind_of_cause
        other = next((x for x in tries if x is not one and fits(one, x)), None)
        if other is None:
            continue
        names = {"a": one.name, "b": other.name}
        if turn % 2:
            lines: tuple[Line, ...] = writer.compared(one, other, "causes", SHARED, OWN)
            answers = writer.form.answers
        else:
            lines = (writer.line(one, "causes", SHARED), writer.line(other, "causes", SHARED))
            answers = writer.form.answers_no
        parts = dict(zip(("only_b", "only_a", "shared"), (line.listed for line in reversed(lines)), strict=False))
        answer = writer.say(answers, [one, other], **names, **parts)
        yield Made(writer.ask(**names), answer, tuple(lines), (one, other), "causes")


def _share_causes(one: Entry, other: Entry) -> bool:
    shared = set(one.objects("causes")) & set(other.objects("causes"))
    return bool(shared and one.beside(other, "causes") and other.beside(one, "causes"))


def _kinds(entry: Entry) -> set[str]:
    """The kinds of all causes that the graph lists, before any rule; and of what the name says."""
    text = "、".join((*entry.raw.get("causes", ()), *entry.objects("causes"), entry.name))
    return {kind for kind, pattern in _CAUSE_KINDS.items() if pattern.search(text)}


def _all_of_a_kind(entry: Entry) -> bool:
    """Whether no cause is of a kind that we cannot tell."""
    return all(any(pattern.search(one) for pattern in _CAUSE_KINDS.values()) for one in entry.objects("causes"))


def _other_kind_of_cause(one: Entry, other: Entry) -> bool:
    left, right = _kinds(one), _kinds(other)
    if not (_all_of_a_kind(one) and _all_of_a_kind(other)):
        return False
    return (
        len(left) == len(right) == 1 and left != right and not set(one.objects("causes")) & set(other.objects("causes"))
    )


def _organs(entry: Entry) -> set[str] | None:
    """The organs of a disease's departments; None when one of them is a general department."""
    found = {_ORGAN.get(name) for name in entry.objects("department")}
    return None if not found or None in found else {one for one in found if one}


def _elsewhere(entry: Entry) -> set[str]:
    """Organs that nothing said of a disease speaks of: their departments are not where it is seen."""
    own = _organs(entry)
    if not own or re.search("妊娠|合并|伴|综合征|全身|系统性|多发", entry.name):
        return set()
    told = (entry.objects(topic) for topic in ("symptoms", "body_site", "complications", "examinations"))
    text = "、".join(
        (entry.name, *entry.aliases, *entry.raw.get("symptoms", ()), *(one for said in told for one in said))
    )
    return {organ for organ, (_, words) in _ORGANS.items() if organ not in own and not re.search(words, text)}


def same_department(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Whether two diseases are seen in one department; a no only for departments of different organs."""
    able = [one for one in pool.having("department") if len(one.objects("department")) == 1]
    for turn, one in enumerate(writer.shuffled(able)):
        tries = writer.rng.sample(able, min(100, len(able)))
        fits = _same_department if turn % 2 else _other_organ
        other = next((x for x in tries if x is not one and fits(one, x)), None)
        if other is None:
            continue
        lines = (writer.line(one, "department"), writer.line(other, "department"))
        names = {"a": one.name, "b": other.name}
        answers = writer.form.answers if turn % 2 else writer.form.answers_no
        answer = writer.say(answers, [one, other], only_a=lines[0].listed, only_b=lines[1].listed, **names)
        yield Made(writer.ask(**names), answer, lines, (one, other), "department")


def _same_department(one: Entry, other: Entry) -> bool:
    return one.objects("department") == other.objects("department")


def _other_organ(one: Entry, other: Entry) -> bool:
    left, right = _organs(one), _organs(other)
    return bool(left and right and left <= _elsewhere(other) and right <= _elsewhere(one))


def verify_department(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Whether a disease is seen in a named department; a no only for a department of another organ."""
    for turn, entry in enumerate(writer.shuffled(pool.having("department"))):
        line = writer.line(entry, "department")
        elsewhere = _elsewhere(entry)
        others = sorted(name for name, organ in _ORGAN.items() if organ in elsewhere and name in pool.department)
        if turn % 2:
            asked, answers = writer.rng.choice(line.objects), writer.form.answers
        elif others:
            asked, answers = writer.rng.choice(others), writer.form.answers_no
        else:
            continue
        answer = writer.say(answers, [entry], d=entry.name, o=line.listed, x=asked)
        yield Made(writer.ask(d=entry.name, x=asked), answer, (line,), (entry,), "department")


def verify_alias(pool: Pool, writer: Writer) -> Iterator[Made]:
    """Whether two names are one disease; a no only where both have a code and the codes' categories differ."""
    coded = pool.having("icd10")
    for turn, entry in enumerate(
        writer.shuffled([one for one in pool.diseases if one.facts.keys() & {"aliases", "icd10"}])
    ):
        if turn % 2 and entry.objects("aliases"):
            line = writer.line(entry, "aliases", 3)
            asked = writer.rng.choice(line.objects)
            answer = writer.say(writer.form.answers, d=entry.name, x=asked)
            line = writer.line_of(entry, "aliases", (asked,), more=len(entry.objects("aliases")) > 1)
            yield Made(writer.ask(d=entry.name, x=asked), answer, (line,), (entry,), "aliases")
        elif entry.objects("icd10"):
            other = writer.rng.choice([one for one in coded if _same_department(one, entry)] or coded)
            code, others = entry.objects("icd10")[0], other.objects("icd10")[0]
            related = code[:3] == others[:3] or _related(entry, other)
            if not related:
                lines = (writer.line(entry, "icd10"), writer.line(other, "icd10"))
                answer = writer.say(writer.form.answers_no, d=entry.name, x=other.name, o=code, r=others)
                yield Made(writer.ask(d=entry.name, x=other.name), answer, lines, (entry, other), "icd10")


def _related(one: Entry, other: Entry) -> bool:
    """Whether a name or an alias of one stands in the other's: a kind and its sub-kind are not two diseases."""
    left, right = {one.name, *one.aliases}, {other.name, *other.aliases}
    return any(a in b or b in a for a in left for b in right)


MAKERS: dict[str, Callable[[Pool, Writer], Iterator[Made]]] = {
    **{
        topic: single(topic)
        for topic in (
            "symptoms",
            "department",
            "examinations",
            "complications",
            "causes",
            "treatment",
            "body_site",
            "population",
            "route",
        )
    },
    "exam_diseases": single("diseases"),
    "herb_effects": single("effects"),
    "infectious": infectious,
    "comparison": comparison,
    "same_cause": same_cause,
    "same_department": same_department,
    "verify_department": verify_department,
    "verify_alias": verify_alias,
    **{f"vignette_{asked}": vignette(asked) for asked in ("disease", "department", "examinations", "treatment")},
}
"""Form → its maker."""
