"""What a question is about: the topic it asks for, whether it compares, and whom it is about.

我妈60岁，得了偏头痛挂什么科   →   department · a grown woman

Topics are told from labelled examples: `intents.jsonl`, with 【病】 for what the question names, and the training
phrasings of the question forms.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from xinglin.dataset.wording import load_wording
from xinglin.inference.classify import Classifier, learned
from xinglin.knowledge.link import Mention
from xinglin.knowledge.terms import normalize

_OF_IT = "【病】"
"""In an example: what the question names."""
NAMED = "■"
"""Stands for what a question names."""
UNANSWERABLE = "unanswerable"
"""The class of questions that no list of the graph answers: cost, outlook, food, the best hospital, …"""

_TOPIC_OF_FORM = {
    "same_cause": "causes",
    "same_department": "department",
    "verify_department": "department",
    "verify_alias": "aliases",
    "comparison": "symptoms",
    "exam_diseases": "diseases",
    "herb_effects": "effects",
    "vignette_disease": "disease",
    "vignette_department": "department",
    "vignette_examinations": "examinations",
    "vignette_treatment": "treatment",
}
"""Form → the topic it asks for, where it does not bear the topic's name."""
_WORDS = {
    "causes": re.compile(
        "原因|病因|起因|诱因|引发|造成|怎么回事|咋回事|[咋怎][么样]?(来|得|弄|搞|长|惹|落|染)(出来|上|下)?[的上]|为[啥什]"
    ),
    "symptoms": re.compile("症状(?![怎该越也了])|临床表现"),
    "complications": re.compile(
        "并发|后果|后患|危害|害处|坏处|危险|后遗症|病根|(不管|不治|不理|拖着|硬撑|硬扛|放着|忍着).{0,6}(会|能|有)|闹出|惹出|引出|引起别的"
    ),
    "department": re.compile("科室|[哪那个什么啥]{1,2}科|挂.{0,6}[科号]|[看挂].{0,4}科还是"),
    "examinations": re.compile("(?<!医院)(?<!仔细)(?<!去)检查(?![了说出发过后完是结报,。 ])"),
    "treatment": re.compile("治疗|怎么治"),
    "infectious": re.compile("传染吗|传染性|会传染|传不传染|传染不|传给|传上|传人|染上不|过人|过给|招上"),
    "route": re.compile("传播|途径|感染上|[咋怎][么个样]*[^，,。]{0,4}传[的上给过]|[靠经通]过?[啥什]么?.{0,3}传"),
    "aliases": re.compile("一[个种]病|叫法|别名|也叫"),
    UNANSWERABLE: re.compile(
        "多少钱|费用|价格|贵吗|报销|医保|(吃什么|吃啥|喝什么)(?!药)|水果|早餐|忌口|饮食|食谱|哪家|哪个医院|什么医院|哪个医生|牌子|历史|哪一年"
        "|要孩子|备孕|同房|结婚|能活|寿命|会死|死亡率|全愈|断根|除根|去根|补钙|生存率|预后|多久能|几天能|多长时间|复发率|概率|几率|遗传(?!科)|注意|疫苗|运动|上班|开车|当兵"
        "|护理|医院(在|好|排)|怎[么样]*预防|预防.{0,6}(吗|呢|什么|哪些)|留意|常识|偏方|秘方|特效|[会能][^，。]{0,6}(转|变)[成变换为]|几个等级|分几"
        "|(能|可以|能够|会|可)(不能)?(够)?(进行)?(治愈|治好|治疗好|痊愈|根治|改善|缓解|减轻|救治|恢复|好转)[了的]?(吗|么|嘛|不|没)"
        "|解读|良性还是恶性|正常吗|说明什么|[什啥]么?意思|什么梗"
    ),
}
"""Plain words for a topic: they make it likelier."""
_CERTAIN = {UNANSWERABLE: 0.4, "aliases": 0.6}
_LIKELIER = 0.3  # how much, for the others
_AT_THE_END = 0.5  # and where they stand in the last clauses
_CLAUSE = re.compile("[。！？!?；;，,\n]")
_ENOUGH = 12  # characters that a question takes
_COMPARES = re.compile(
    "区别|不同|异同|相同|一样|一致|差别|差在|差异|比较|对比|[分辨]不[清出]|区分|鉴别|重合|共同|分别|同一|一个科|两个科|一回事|各有|一个病"
)
_LIKENESS = re.compile("[像跟和同如似][^，。,！？!?；;]{0,10}(一样|似的|一般|差不多)")
"""像鸡皮一样 compares nothing that is asked about."""
_AGE = re.compile(
    r"(?P<number>\d{1,3}|[一二两三四五六七八九十]{1,3})个?(?P<unit>周岁|岁|月|天|周)(?!前|后|以前|以来|了)"
)
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}
_CHILD = re.compile("宝宝|宝贝|孩子|小孩|娃|儿子|女儿|婴儿|小朋友|患儿|男婴|女婴|新生儿|孙子|孙女|外孙")
_FEMALE = re.compile("女|妈|母亲|奶奶|姥姥|外婆|婆婆|姐|妹|老婆|媳妇|妻子|阿姨|姑|婶|月经|怀孕|大姨妈|老太太|孕妇")
_MALE = re.compile("男|爸|父亲|爷爷|姥爷|外公|公公|哥|弟|老公|丈夫|叔|伯|舅|老头|儿子")
_GROWN = 18


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
        topics: names of `ANSWERABLE`, `aliases`, `disease` (which one may it be) or `UNANSWERABLE`, with their
            probabilities, the likeliest first.
        comparison: it asks what two things share, or what parts them.
    """

    topics: dict[str, float]
    comparison: bool

    def best(self, able: Sequence[str]) -> str:
        """The likeliest of some topics."""
        return next(topic for topic in self.topics if topic in able)

    @property
    def unanswerable(self) -> bool:
        """Whether it most likely asks for what no list answers."""
        return next(iter(self.topics)) == UNANSWERABLE


@lru_cache(1)
def _examples() -> list[dict[str, str]]:
    lines = resources.files("xinglin.inference").joinpath("intents.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def askings() -> list[str]:
    """How people ask, without what they ask about."""
    return [said["question"].replace(_OF_IT, "") for said in _examples() if _OF_IT in said["question"]]


@lru_cache(1)
def _classifier() -> Classifier:
    examples = [(said["question"].replace(_OF_IT, NAMED), said["topic"]) for said in _examples()]
    for name, form in load_wording().forms.items():
        for phrasing in form.train:
            text = re.sub(r"\{(d|a|b|s|x)\}", NAMED, phrasing).replace("{kin}", "家里人").replace("{who}", "我")
            examples.append((text, _TOPIC_OF_FORM.get(name, name)))
    return learned([_joined(normalize(text)) for text, _ in examples], [topic for _, topic in examples])


def _joined(text: str) -> str:
    """Several signs told in a row are one thing that is asked about."""
    return re.sub(f"{NAMED}([、，,]?{NAMED})+", NAMED, text)


def understand(text: str, mentions: Sequence[Mention]) -> Asked:
    """What a question asks for.

    Args:
        text: normalised.
        mentions: what the linker found in it; the rest of the text tells what is asked of them.
    """
    rest, last = [], 0
    for one in (one for one in mentions if one.kind != "department"):
        rest += [text[last : one.start], NAMED]
        last = one.end
    plain = _joined("".join([*rest, text[last:]]))
    whole, end = (_classifier().probabilities(one) for one in (plain, _end(plain)))
    likely = {topic: (share + 2 * end[topic]) / 3 for topic, share in whole.items()}
    asks = _end(plain)
    for topic, words in _WORDS.items():
        if words.search(plain):
            likely[topic] += _CERTAIN.get(topic, _LIKELIER) + (_AT_THE_END if words.search(asks) else 0)
    compared = _COMPARES.search(_LIKENESS.sub("", plain))
    return Asked(dict(sorted(likely.items(), key=lambda one: -one[1])), bool(compared))


def _end(text: str) -> str:
    """The last clauses: after a story comes the question."""
    clauses = [part for part in _CLAUSE.split(text) if part]
    kept = ""
    while clauses and len(kept) < _ENOUGH:
        kept = f"{clauses.pop()},{kept}" if kept else clauses.pop()
    return kept


def patient(text: str) -> Patient:
    """Whom a normalised question is about."""
    female, male = bool(_FEMALE.search(text)), bool(_MALE.search(text))
    sex = "" if female is male else "女" if female else "男"
    if found := _AGE.search(text):
        return Patient(found["unit"] not in ("岁", "周岁") or _number(found["number"]) < _GROWN, sex)
    return Patient(True if _CHILD.search(text) else None, sex)


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    tens, ten, ones = text.rpartition("十")
    return (_DIGITS.get(tens, 1) * 10 if ten else 0) + _DIGITS.get(ones, 0)
