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


def excluded(text: str) -> str | None:
    """The reason why a subject or object must not be used, or None when it may."""
    return next((rule.reason for rule in EXCLUSIONS if rule.pattern.search(text)), None)
