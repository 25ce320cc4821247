"""What must not be trained on or shown as an answer, as data with reasons.

Only the disease layer's predicates named in `ANSWERABLE` are used at all; the drug layer is unsafe
(OTC status on injections, indications that are also adverse effects, doses without age or weight).
"""

import re
from dataclasses import dataclass

ANSWERABLE: dict[str, tuple[str, ...]] = {
    "symptoms": ("常见症状", "临床症状及体征"),
    "examinations": ("检查", "影像学检查", "实验室检查", "辅助检查"),
    "department": ("就诊科室",),
    "complications": ("并发症",),
    "causes": ("病因", "常见病因"),
}
"""Question topic → the predicates whose objects may answer it."""


@dataclass(frozen=True)
class Exclusion:
    """Text that keeps a fact out, and why."""

    pattern: re.Pattern[str]
    reason: str


EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(re.compile("自杀|自残|自伤|轻生"), "fragments about self-harm need a person's answer, not a list"),
    Exclusion(re.compile("马兜铃|关木通|广防己|青木香|细辛"), "aristolochic products damage kidneys"),
    Exclusion(re.compile("朱砂|雄黄|水银|轻粉|砒|红粉|砷剂|汞剂"), "mercury and arsenic compounds are toxic"),
    Exclusion(re.compile("犀角|虎骨|麝香|穿山甲|熊胆|羚羊角"), "protected animals"),
    Exclusion(re.compile("白人|黑人|白种|黑种|黄种|高加索|种族|非裔"), "statements by race are not ours to teach"),
    Exclusion(re.compile(r"\d\s*(mg|g|ml|μg|毫克|毫升|片|粒|次/日)|(剂量|用量|口服|静滴|肌注)"), "doses of any kind"),
    Exclusion(re.compile("偏方|秘方|祖传"), "folk prescriptions"),
)


WRONG_FACTS = frozenset(
    {
        ("农药中毒性肾病", "就诊科室", "眼科"),
        ("肿瘤溶解综合征", "相关疾病", "低钾血症"),
        ("肝硬化", "病因", "上消化道出血"),
    }
)
"""Triples of the graph that are known to be false."""

PROCEDURE = re.compile("(术|插管|复苏|减肥|引产|透析|绝经|体检)$")
"""Names among the graph's diseases that are no diseases."""

RED_FLAGS = frozenset(
    "胸痛 呼吸困难 意识障碍 意识丧失 昏迷 抽搐 惊厥 晕厥 休克 咯血 呕血 便血 偏瘫 失语 窒息 发绀 颈项强直".split()  # noqa: SIM905
)
"""Signs that a list never leaves behind more frequent, milder ones."""

EMERGENCY = re.compile(
    "心肌梗|心绞痛|休克|中毒|脑出血|脑梗|卒中|蛛网膜下腔|骤停|破裂|大出血|窒息|夹层|肺栓塞|持续状态|张力性气胸|昏迷|溺水|电击伤"
    "|中暑|喉梗阻|异位妊娠|子痫|狂犬|破伤风|绞窄|穿孔|脑疝|室颤|心室颤动|急性喉炎|会厌炎|颅脑损伤|烧伤|毒蛇"
)
"""Diseases that cannot wait: what is said of them ends with the emergency number."""


def excluded(text: str) -> str | None:
    """The reason why a subject or object must not be used, or None when it may."""
    return next((rule.reason for rule in EXCLUSIONS if rule.pattern.search(text)), None)
