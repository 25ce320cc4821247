"""A patient with four signs that only one disease shows, and what to make of it: possibilities, never a verdict.

一名34岁女性，最近出现畏光、恶心、头痛、眼花，可能是什么病？
根据畏光、…，可能是偏头痛，也要排除青光眼。偏头痛的就诊科室是神经内科，…。具体是什么病要由医生检查后判断。
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from xinglin.dataset.clean import Entry
from xinglin.dataset.pool import Pool
from xinglin.dataset.wording import DOCTOR, Line, Made, Writer
from xinglin.knowledge.policy import EMERGENCY, RED_FLAGS, SOON

SIGNS = 4
_TOP = 10  # of a disease's signs, those that most of the graph agrees on
_EACH = 3  # vignettes of one disease, at most
_TRIES = 30
FLAGGED = "有{flags}，属于急症信号，请立即就医或拨打120。"
FLAGGED_SOON = "有{flags}，请尽快就医。"
_MORE = 2  # further signs that a line shows: what was asked must be picked out of it

_FEMALE = re.compile(
    "卵巢|子宫|宫颈|宫腔|阴道|外阴|妊娠|孕|产后|产褥|产科|难产|分娩|流产|乳腺|乳房|月经|痛经|闭经|输卵管|盆腔炎|女|妇|白带|绝经|胎|前庭大腺|经期|绒毛|羊水|崩漏"
)
_MALE = re.compile("前列腺|睾丸|阴茎|附睾|精囊|精索|精子|阳痿|男|包皮|龟头|遗精|早泄|隐睾|阴囊|射精|勃起")
_UNSAID = re.compile("昏迷|休克|意识|谵妄|痴呆|妄想|失语|晕厥|淡漠|猝死|萎靡|反应迟钝")
_CLINICAL = re.compile(
    "反射|积液|升高|降低|症$|炎$|病$|心动过速|心律|酸中毒|共济|发绀|紫癜|蛋白尿|糖尿|脓尿|综合征|不全|衰竭|紊乱|硬化|增高|震颤|眼球|瞳孔|脾|肝|淋巴|栓塞"
    "|压痛|叩|杂音|丘疹|结节|斑|萎缩|水肿|贫血|黄疸|腹水|畸形|瘫|低血压|高血压|包块|肿块|浸润|坏死|渗出|癌|瘤"
)


@dataclass(frozen=True)
class Person:
    """Who may have a disease.

    Attributes:
        low, high: age in the unit.
        unit: 天 (newborns), 个月 (infants) or 岁.
        sexes: 男, 女 or both.
    """

    low: int
    high: int
    unit: str = "岁"
    sexes: str = "男女"


_AGES: tuple[tuple[str, re.Pattern[str], tuple[int, int, str]], ...] = (
    ("newborn", re.compile("新生儿|早产儿"), (2, 28, "天")),
    ("infant", re.compile("婴儿|婴幼儿|婴"), (3, 11, "个月")),
    ("child", re.compile("小儿|儿童|幼儿|儿科|先天性|幼年|学龄"), (2, 12, "岁")),
    ("old", re.compile("老年|阿尔茨海默|帕金森|老视|前列腺增生|前列腺癌"), (62, 82, "岁")),
    ("menopause", re.compile("绝经|更年期"), (48, 58, "岁")),
    ("youth", re.compile("青少年|青春|性早熟|发育延迟"), (13, 17, "岁")),
    ("pregnant", re.compile("妊娠|孕|产后|产褥|(?<!妇)产科|难产|分娩|流产|胎|羊水|月经|痛经|育龄"), (22, 40, "岁")),
    ("middle", re.compile("中年|中老年|癌|动脉硬化|冠心病|心肌梗|脑梗|脑出血|痛风"), (45, 68, "岁")),
    ("young", re.compile("青壮年|青年"), (19, 38, "岁")),
)


def person(entry: Entry) -> Person | None:
    """Who a vignette of this disease may be about; None where its words contradict each other."""
    text = "、".join(
        (entry.name, *entry.objects("department"), *entry.objects("population"), *entry.objects("symptoms"))
    )
    female, male = bool(_FEMALE.search(text)), bool(_MALE.search(text))
    if female and male:
        return None
    narrow = "、".join((entry.name, *entry.objects("department"), *entry.objects("population")[:1]))
    group, low, high, unit = next(
        ((group, *age) for group, pattern, age in _AGES if pattern.search(narrow)), ("adult", 24, 65, "岁")
    )
    if group in ("adult", "middle") and re.search("月经|白带|停经|痛经|经期", text):
        low, high = 18, 45
    if unit != "岁" and female and re.search("妊娠|产|月经|绝经", text):
        return None
    return Person(low, high, unit, "女" if female else "男" if male else "男女")


def describe(who: Person, *, patient: bool, rng: random.Random) -> str:
    """A few words on a person, in the patient's or the family's voice or in a doctor's."""
    age, sex = rng.randint(who.low, who.high), rng.choice(who.sexes)
    if who.unit != "岁":
        said = (f"宝宝{age}{who.unit}大，{sex}孩", f"我家孩子才{age}{who.unit}，{sex}宝宝")
        return rng.choice(said if patient else (f"{sex}婴，{age}{who.unit}", f"患儿{sex}，{age}{who.unit}"))
    if age < 18:
        said = (f"孩子{age}岁，{sex}孩", f"我家{age}岁的{sex}孩")
        return rng.choice(said if patient else (f"患儿，{sex}，{age}岁", f"一名{age}岁{sex}孩"))
    if not patient:
        person_ = "女士" if sex == "女" else "男士"
        return rng.choice(
            (f"一名{age}岁{sex}性", f"患者{sex}，{age}岁", f"{age}岁{sex}性患者", f"一位{age}岁的{person_}")
        )
    voices = [f"我今年{age}岁，{sex}", f"本人{sex}，{age}岁", f"朋友{age}岁，{sex}"]
    if age >= 45:
        voices.append(f"我{'妈妈' if sex == '女' else '爸爸'}{age}岁")
    return rng.choice(voices)


def kin(entry: Entry, rng: random.Random) -> str:
    """Someone of the family whom a disease may befall."""
    who = person(entry) if entry.kind == "disease" else None
    if who is None:
        return "家里人"
    if who.unit != "岁" or who.high < 18:
        return rng.choice(("孩子", "我家孩子"))
    women = ("我姐姐", "我爱人") if who.high <= 45 else ("我妈", "我姐姐")
    return rng.choice(
        {"女": women, "男": ("我爸", "我哥哥")}.get(who.sexes, ("我爸", "我妈", "我爱人", "朋友", "邻居"))
    )


def vignette(asked: str) -> Callable[[Pool, Writer], Iterator[Made]]:
    """The maker of vignettes that ask for the likely `disease`, or its department, examinations or treatment."""

    def make(pool: Pool, writer: Writer) -> Iterator[Made]:
        able = [one for one in pool.having("symptoms") if len(one.objects("symptoms")) >= SIGNS]
        wanted = ("department", "examinations") if asked == "disease" else (asked,)
        able = [one for one in able if any(one.objects(topic) for topic in wanted)]
        told: set[tuple[str, ...]] = set()
        for _ in range(_EACH):
            for entry in writer.shuffled(able):
                signs, who = _signs(entry, pool, writer.rng), person(entry)
                if signs and who and (entry.name, *sorted(signs)) not in told:
                    told.add((entry.name, *sorted(signs)))
                    yield _made(entry, signs, who, asked, pool, writer)

    return make


def _signs(entry: Entry, pool: Pool, rng: random.Random) -> list[str] | None:
    """Four signs that no other disease shows together, red flags first."""
    top = [one for one in entry.objects("symptoms")[:_TOP] if one not in pool.by_name or one in RED_FLAGS]
    for _ in range(_TRIES if len(top) >= SIGNS else 0):
        chosen = rng.sample(top, SIGNS)
        if not _repeat(chosen) and set.intersection(*(pool.showing[one] for one in chosen)) == {entry.name}:
            return sorted(chosen, key=lambda one: one not in RED_FLAGS)
    return None


_ALIKE = (
    re.compile("抽搐|惊厥|痉挛|癫痫发作"),
    re.compile("乏力|无力|疲劳|疲乏|疲倦|倦怠|虚弱"),
    re.compile("厌食|食欲|纳差|拒食"),
)


def _repeat(signs: list[str]) -> bool:
    """Whether two signs say nearly the same (发热、高热), or would exclude each other (高热、低热)."""
    letters = [set(one) for one in signs]
    shared = any(one & other for place, one in enumerate(letters) for other in letters[:place])
    return shared or any(sum(bool(pattern.search(one)) for one in signs) > 1 for pattern in _ALIKE)


def _others(entry: Entry, signs: list[str], pool: Pool, rng: random.Random) -> list[tuple[Entry, list[str]]]:
    """One more disease that shows most of the signs, to be ruled out; with the signs that it shows."""
    near: dict[str, list[str]] = {}
    for sign in signs:
        for name in pool.showing[sign]:
            near.setdefault(name, []).append(sign)
    near.pop(entry.name)
    own = set(entry.objects("department"))
    fitting = [
        (other, shown)
        for name, shown in sorted(near.items())
        if len(shown) >= SIGNS - 1
        and (other := pool.by_name.get(name))
        and own & set(other.objects("department"))
        and set(shown) <= set(other.objects("symptoms"))
        and person(other) == person(entry)
    ]
    return [rng.choice(fitting)] if fitting else []


def _made(entry: Entry, signs: list[str], who: Person, asked: str, pool: Pool, writer: Writer) -> Made:
    others = _others(entry, signs, pool, writer.rng) if asked == "disease" else []
    lines = [_among_others(entry, signs, writer), *(_among_others(other, shown, writer) for other, shown in others)]
    listed = "、".join(signs)
    names = {"d": entry.name, "s": listed}
    if asked == "disease":
        more = [writer.line(entry, topic, 3) for topic in ("department", "examinations") if entry.objects(topic)]
        names["others"] = "".join(f"，也要排除{other.name}" for other, _ in others) or "，还需排除其他疾病"
        names["advice"] = f"{'，'.join(_spoken(line) for line in more)}。"
    else:
        more = [writer.line(entry, asked)]
        names["o"] = more[0].listed
    phrasing = writer.rng.choice(writer.phrasings)
    plain = not any(_UNSAID.search(one) or _CLINICAL.search(one) for one in signs)
    patient = plain and not DOCTOR.search(phrasing) and writer.rng.random() < 0.8
    question = writer.ask(phrasing, who=describe(who, patient=patient, rng=writer.rng), s=listed)
    warning = _warning(entry, signs)
    answer = warning + writer.say(writer.form.answers, (), **names)
    about = (entry, *(other for other, _ in others))
    return Made(question, answer, (*lines, *more), about, "signs", key=listed, warning=warning)


def _among_others(entry: Entry, signs: list[str], writer: Writer) -> Line:
    """The signs as a line that shows some of the disease's other signs too; only the signs asked about are cited."""
    rest = [one for one in entry.objects("symptoms") if one not in signs]
    shown = [*signs, *writer.rng.sample(rest[:_TOP], min(len(rest[:_TOP]), writer.rng.randint(0, _MORE)))]
    writer.rng.shuffle(shown)
    cited = writer.line_of(entry, "symptoms", signs, more=len(rest) > len(shown) - len(signs))
    return replace(cited, objects=tuple(shown))


def _spoken(line: Line) -> str:
    verb = "是" if line.word.endswith("科室") else "有"
    return f"{line.about}的{line.word}{verb}{line.listed}"


def _warning(entry: Entry, signs: list[str]) -> str:
    """Red flags first: what an answer to a vignette begins with when its signs, or its disease, cannot wait."""
    flags = [one for one in signs if any(flag in one for flag in RED_FLAGS)]
    if any(not any(one == soon for soon in SOON) for one in flags):
        return FLAGGED.format(flags="、".join(flags))
    if EMERGENCY.search(entry.name):
        return "可能是急症，请立即就医或拨打120。"
    return FLAGGED_SOON.format(flags="、".join(flags)) if flags else ""
