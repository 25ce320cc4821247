"""Question forms: how a disease's facts become a question, the knowledge beside it, and an answer.

    symptoms · 偏头痛有哪些症状？
    资料     · 偏头痛的症状：畏光、恶心        ← facts, in any order, among others
    answer   · 偏头痛的症状有畏光、恶心，请及时就医。

Each form keeps some phrasings for evaluation: training never sees them.
"""

import random
from dataclasses import dataclass

from xinglin.dataset.clean import Disease
from xinglin.knowledge.policy import EMERGENCY

MAX_OBJECTS = 5
SHARED, OWN = 3, 2
"""Objects of a comparison: shared, and of each side alone."""
TOPIC_WORDS = {"symptoms": "症状", "examinations": "检查", "department": "就诊科室", "complications": "并发症"}

Triple = tuple[str, str, str]


@dataclass(frozen=True)
class Form:
    """A one-disease question form.

    Attributes:
        minimum: how many objects a disease must have for this question to be worth asking.
        train, evaluation: phrasings with `{d}` for the disease; the two never overlap.
        answers: with `{d}`, `{w}` (the topic's word, as the line has it) and `{o}` (the objects). An answer
            begins as the line it stands on begins, which a small model learns to copy soonest.
    """

    topic: str
    minimum: int
    train: tuple[str, ...]
    evaluation: tuple[str, ...]
    answers: tuple[str, ...]


FORMS: dict[str, Form] = {
    "symptoms": Form(
        "symptoms",
        3,
        (
            "{d}有哪些症状？",
            "{d}的常见症状是什么？",
            "得了{d}会有什么表现？",
            "请问{d}一般有什么症状？",
            "{d}患者通常有哪些表现？",
            "怎么看出来是{d}，有什么症状？",
            "{d}发病时会出现哪些不舒服？",
            "请列出{d}的临床表现。",
            "医生您好，我爸得了{d}，会有什么感觉？",
            "最近听说{d}，这个病发作起来是什么样子？",
            "我怀疑自己是{d}，一般哪里会难受？",
            "{d}早期身体有什么异常？",
            "邻居被诊断为{d}，他会有哪些难受的地方？",
            "帮我看看{d}都有啥症状。",
        ),
        ("{d}发作起来身体有哪些反应？", "{d}的病人多半有什么样的不适？", "一般来说，{d}会让人出现什么症状？"),
        (
            "{d}的{w}有{o}，请及时就医。",
            "{d}的{w}包括{o}，请尽早就医。",
        ),
    ),
    "examinations": Form(
        "examinations",
        2,
        (
            "{d}需要做哪些检查？",
            "怀疑{d}要查什么？",
            "诊断{d}要做什么检查？",
            "得了{d}去医院一般检查什么？",
            "{d}的检查项目有哪些？",
            "请列出{d}常做的检查。",
            "确诊{d}通常靠哪些检查？",
            "想知道是不是{d}，该做哪些检查？",
            "医生怀疑我有{d}，接下来要查哪些项目？",
            "我妈可能得了{d}，去医院要做什么检查才能确定？",
            "{d}要拍片子还是抽血，具体查什么？",
            "门诊遇到疑似{d}的病人，通常安排什么检查？",
            "听说{d}要查不少东西，都有什么？",
            "帮我看看{d}该查啥。",
        ),
        ("要弄清是不是{d}，医院会安排哪些检查？", "{d}在门诊多半要做什么检查？", "查{d}一般用哪些检查手段？"),
        ("{d}的{w}有{o}，请听医生安排。", "{d}的{w}包括{o}，请听医生安排。"),
    ),
    "department": Form(
        "department",
        1,
        (
            "{d}应该挂哪个科？",
            "{d}看什么科？",
            "得了{d}要去哪个科室就诊？",
            "请问{d}挂什么号？",
            "{d}属于哪个科室？",
            "{d}去医院看哪个科？",
            "患{d}应到什么科室就医？",
            "怀疑{d}该挂什么科？",
            "我妈查出{d}，带她去医院挂哪个科好？",
            "朋友得了{d}，该去找哪科医生？",
            "医生您好，{d}应该看哪一科？",
            "想给孩子看{d}，挂号选哪个科室？",
            "去大医院看{d}，导诊台会让我去哪个科？",
            "{d}这种病由哪个科室负责？",
        ),
        ("家里有人得了{d}，到医院该找哪个科？", "{d}归医院哪个科管？", "第一次看{d}，号要挂在哪个科？"),
        ("{d}的{w}是{o}。", "{d}的{w}为{o}。"),
    ),
    "complications": Form(
        "complications",
        2,
        (
            "{d}有哪些并发症？",
            "{d}会引起什么并发症？",
            "{d}拖下去会有什么后果？",
            "{d}可能并发哪些疾病？",
            "得了{d}要当心哪些并发症？",
            "{d}常见的并发症是什么？",
            "请列出{d}的并发症。",
            "{d}容易合并什么病？",
            "我爸有{d}，一直没治，会发展成什么病？",
            "{d}控制不好会带来哪些别的问题？",
            "医生，{d}后期可能出现哪些情况要留意？",
            "得了{d}，还可能连累身体哪些地方？",
            "听说{d}会引出别的病，都有什么？",
            "帮我看看{d}有啥并发症。",
        ),
        ("{d}要是不管它，会出现什么并发症？", "{d}的病人要提防哪些并发症？", "{d}会不会连带引起别的病，是哪些？"),
        ("{d}的{w}有{o}，请尽早就医。", "{d}的{w}包括{o}，请及时就医。"),
    ),
}

COMPARISON_TRAIN = (
    "{a}和{b}的症状有什么异同？",
    "{a}与{b}的症状有哪些相同和不同？",
    "怎么区分{a}和{b}的症状？",
    "比较一下{a}和{b}的症状。",
    "{a}跟{b}症状上有什么区别？",
    "{a}和{b}有哪些共同的症状？各自还有什么？",
    "请对比{a}与{b}的常见症状。",
    "{a}、{b}的表现一样吗？",
    "医生，我到底是{a}还是{b}，两个病的症状差别在哪里？",
    "我妈可能是{a}，也可能是{b}，这两种病的感觉有什么相同和不同？",
    "听说{a}和{b}很像，症状上哪些重合？",
    "帮我比较{a}和{b}，都有啥症状。",
)
COMPARISON_EVALUATION = (
    "{a}和{b}放在一起看，症状哪些一样、哪些不一样？",
    "我分不清{a}和{b}，两种病的症状差在哪？",
    "{a}与{b}的症状有哪些重合，哪些各有？",
)
LEADS = (
    "医生您好，",
    "你好，想问一下，",
    "请教一下：",
    "想咨询一下，",
    "在网上没查到，",
    "麻烦问一句，",
    "刚看到一个病名，",
    "有件事想弄明白：",
)
LEAD_SHARE = 0.35
TRAIN_PHRASINGS = frozenset(COMPARISON_TRAIN).union(*(form.train for form in FORMS.values()))
COMPARISON_ANSWER = "两者的共同症状有{shared}；{a}的其他症状有{only_a}；{b}的其他症状有{only_b}。请就医鉴别。"
BOTH = "两者"
URGENT = "急症请立即拨打120。"
ABSTAIN = "{d}的{topic}资料中没有提到，不能据此回答，请咨询医生。"


@dataclass(frozen=True)
class Line:
    """One line of knowledge, in the order it is shown.

    Attributes:
        about: a disease, or `BOTH` of a comparison.
        word: what is said of it: the topic, or what a comparison worked out.
        more: the list was cut.
        triples: the graph's facts that the line stands on.
    """

    about: str
    word: str
    objects: tuple[str, ...]
    more: bool
    triples: tuple[Triple, ...]

    @property
    def listed(self) -> str:
        """`甲、乙、丙`, with 等 when the list was cut."""
        return "、".join(self.objects) + ("等" if self.more else "")

    @property
    def text(self) -> str:
        """As it stands in `input`."""
        return f"{self.about}的{self.word}：{self.listed}"


def choose(disease: Disease, topic: str, rng: random.Random, limit: int = MAX_OBJECTS) -> Line:
    """A topic's best `limit` objects in any order, as one line; predicates that mean the same are one to a reader."""
    objects = list(disease.objects[topic][:limit])
    rng.shuffle(objects)
    triples = tuple((disease.name, disease.predicate[topic, one], one) for one in objects)
    more = len(disease.objects[topic]) > limit
    return Line(disease.name, TOPIC_WORDS[topic], tuple(objects), more, triples)


def urgent(name: str) -> str:
    """What ends an answer about a disease that cannot wait, empty for the others."""
    return URGENT if EMERGENCY.search(name) else ""


def _ask(rng: random.Random, phrasings: tuple[str, ...], **names: str) -> str:
    """One phrasing, sometimes with a few words before it, as people write."""
    lead = rng.choice(LEADS) if rng.random() < LEAD_SHARE and phrasings[0] in TRAIN_PHRASINGS else ""
    return lead + rng.choice(phrasings).format(**names)


def single(form: Form, disease: Disease, rng: random.Random, phrasings: tuple[str, ...]) -> tuple[str, str, list[Line]]:
    """(question, answer, lines the answer stands on) of a one-disease form."""
    line = choose(disease, form.topic, rng)
    question = _ask(rng, phrasings, d=disease.name)
    answer = rng.choice(form.answers).format(d=disease.name, w=line.word, o=line.listed)
    return question, answer + urgent(disease.name), [line]


def comparable(one: Disease, other: Disease) -> bool:
    """Whether two diseases share enough symptoms, and keep enough of their own, to be compared."""
    left, right = set(one.objects["symptoms"]), set(other.objects["symptoms"])
    return len(left & right) >= 3 and len(left - right) >= 2 and len(right - left) >= 2


def compared(
    one: Disease, other: Disease, rng: random.Random, phrasings: tuple[str, ...]
) -> tuple[str, str, list[Line]]:
    """(question, answer, lines) of a comparison: what is shared first.

    What is shared is worked out here, not left to the model: a set is a program's business, wording is the model's.
    """
    first, second = one.objects["symptoms"], other.objects["symptoms"]
    sides = (
        (BOTH, "共同症状", [x for x in first if x in second][:SHARED], (one, other)),
        (one.name, "其他症状", [x for x in first if x not in second][:OWN], (one,)),
        (other.name, "其他症状", [x for x in second if x not in first][:OWN], (other,)),
    )
    lines = []
    for about, word, objects, diseases in sides:
        rng.shuffle(objects)
        triples = tuple((d.name, d.predicate["symptoms", x], x) for d in diseases for x in objects)
        lines.append(Line(about, word, tuple(objects), False, triples))
    shared, only_a, only_b = (line.listed for line in lines)
    answer = COMPARISON_ANSWER.format(a=one.name, b=other.name, shared=shared, only_a=only_a, only_b=only_b)
    return _ask(rng, phrasings, a=one.name, b=other.name), answer + urgent(one.name + other.name), lines
