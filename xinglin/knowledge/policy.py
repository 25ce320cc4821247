"""What may be answered, what must not be trained on or shown, and why: all of it data.

Only predicates of `ANSWERABLE` are used at all; `why_not` judges a single fact.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from xinglin.records import Fact

ANSWERABLE: dict[str, tuple[str, ...]] = {
    "symptoms": ("常见症状", "临床症状及体征"),
    "causes": ("病因", "常见病因"),
    "examinations": ("检查", "影像学检查", "实验室检查", "辅助检查"),
    "complications": ("并发症",),
    "treatment": ("治疗", "手术治疗", "辅助治疗", "放射治疗"),
    "department": ("就诊科室",),
    "body_site": ("常见发病部位", "发病部位"),
    "population": ("多发群体",),
    "infectious": ("传染性",),
    "route": ("传播途径",),
    "diseases": ("相关疾病",),
    "effects": ("功效",),
}
"""Question topic → the predicates whose objects may answer it."""

ALIASES = ("别称", "同义词", "又称")
"""Predicates whose objects are other names of the subject."""

SUBJECT_TYPE = {"diseases": "examination", "effects": "herb"}
"""Topics that are asked of something other than a disease."""


UNUSED: dict[str, str] = {
    "OTC类型": "set on 1,385 of 1,770 injections: not to be trusted",
    "药品监管分级": "calls an antibiotic an anaesthetic: not to be trusted",
    "适应症": "for 2,863 of 11,261 drugs an indication is also listed as an adverse effect",
    "适应证": "as 适应症",
    "主治": "as 适应症: it would name a drug as the treatment of a disease",
    "功能主治": "as 适应症: it would name a drug as the treatment of a disease",
    "相关药物": "the inverse of 适应症",
    "药物治疗": "treatment by drug name is a prescription",
    "治疗方案": "holds drug names and doses",
    "用法用量": "doses without age, weight or limits",
    "用量": "doses without age, weight or limits",
    "规格": "doses without age, weight or limits",
    "不良反应": "part of the drug layer, whose indications and adverse effects are mixed up",
    "禁忌": "incomplete: a contraindication that is not listed would read as permission",
    "药物相互作用": "incomplete: an interaction that is not listed would read as safety",
    "手术_术中用药": "drugs by name",
    "特殊药品": "drugs by name",
}
"""Predicates that are never used, and why; those in neither table have no question form."""


@dataclass(frozen=True)
class Exclusion:
    """Text that keeps a fact out, and why."""

    name: str
    pattern: re.Pattern[str]
    reason: str


EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(
        "self-harm", re.compile("自杀|自残|自伤|轻生"), "fragments about self-harm need a person's answer, not a list"
    ),
    Exclusion(
        "aristolochic",
        re.compile("马兜铃|关木通|广防己|青木香|细辛|天仙藤|寻骨风"),
        "aristolochic products damage kidneys",
    ),
    Exclusion(
        "mercury and arsenic",
        re.compile("朱砂|雄黄|雌黄|水银|轻粉|砒|红粉|砷剂|汞剂|铅丹|密陀僧"),
        "mercury, arsenic and lead compounds are toxic",
    ),
    Exclusion(
        "protected animals",
        re.compile("犀角|虎骨|麝香|穿山甲|熊胆|羚羊角|豹骨|象牙|玳瑁|海龙|海马$"),
        "protected animals",
    ),
    Exclusion(
        "race",
        re.compile("白人|黑人|白种|黑种|黄种|高加索|种族|非裔|犹太|东方人|亚洲人|欧洲|美洲|非洲"),
        "statements by race or origin are not ours to teach",
    ),
    Exclusion(
        "dose",
        re.compile(r"\d\s*(mg|g|ml|c?Gy|μg|毫克|毫升|片|粒|次/日)|(剂量|用量|口服|静滴|肌注|冲击疗法)"),
        "doses of any kind",
    ),
    Exclusion(
        "toxic plant",
        re.compile(
            "罂粟|菊三七|土三七|千里光|雷公藤|昆明山海棠|乌头|川乌|草乌|附子|马钱子|巴豆|斑蝥|蟾酥|曼陀罗|洋金花|天仙子|钩吻|断肠草|狼毒|黄药子"
        ),
        "narcotic, or poisonous to heart, nerves or liver",
    ),
    Exclusion("folk prescription", re.compile("偏方|秘方|祖传"), "folk prescriptions"),
)

WRONG_FACTS = frozenset(
    {
        ("农药中毒性肾病", "就诊科室", "眼科"),
        ("肿瘤溶解综合征", "相关疾病", "低钾血症"),
        ("肝硬化", "病因", "上消化道出血"),
    }
)
"""Triples of the graph that are known to be false."""

DRUG_NAME = re.compile(
    "药|霉素|激素|沙星|西林|头孢|胰岛素|皮质醇|地平|洛尔|普利|沙坦|他汀|拉唑|康唑|唑类|铂|紫杉|单抗|类固醇|阿司匹林|干扰素|球蛋白|维生素|烟酰?胺"
    "|碘|醇|环素|钙剂|补钾|铁剂|停止|(片|胶囊|颗粒|注射液|丸|散|汤|膏|酊|抑制剂|利尿剂|拮抗剂|调节剂|疫苗|抗生素|BEP)$|^BEP"
)
"""Treatments that are a drug or a class of drugs, or that stop one."""

PROCEDURE = re.compile("(术|插管|复苏|减肥|引产|透析|绝经|体检|康复|推拿|按摩|针灸|疗法|猝死)$")
"""Names among the graph's diseases that are no diseases."""

NOT_INFECTIOUS = re.compile(
    "骨折|瘤|癌|畸形|中毒|遗传|先天|损伤|创伤|挫伤|扭伤|脱位|结石|硬化|梗死|栓塞|心脏|心律|心肌病|心力|传导阻滞|高血压|低血压|贫血|糖尿|甲状腺|肥大|增生|疝|囊肿"
    "|瘫|癫痫|精神|抑郁|恐惧|焦虑|障碍|依赖|骨质|退行|脱垂|不孕|不育|近视|远视|散光|白内障|青光眼|斜视|弱视|耳鸣|聋|哮喘|过敏|荨麻疹|红斑狼疮|硬皮病"
    "|肾病|肾衰|瓣膜|狭窄|扭转|梗阻|坏死|萎缩|痴呆|帕金森|偏头痛|烧伤|烫伤|异物|妊娠|流产|痔|肌无力|代谢|缺乏|营养不良|酸中毒|血症|冠心病|瘘|憩室|息肉"
    "|突出|强直|多汗|脱发|白癜风|早搏|心动过速|白血病|紫癜|肥胖|便秘"
)
"""Names that tell a disease nobody can pass on: only for them is a 传染性 of 无 believed."""

INFECTION = re.compile(
    "病毒|菌|结核|肝炎|感染|疟|虫|梅毒|淋病|癣|流感|感冒|肺炎|伤寒|痢疾|霍乱|脑膜炎|麻风|狂犬|疥|疱疹|水痘|麻疹|风疹|衣原体|支原体|螺旋体|艾滋|阿米巴|疣|脓"
)
"""Names that tell an infection, whatever else they tell."""

TOXIC = re.compile("(?<!无)毒")
"""A herb's 毒性 that says more than 无毒: nothing is said of its effects."""

RED_FLAGS = frozenset(
    "胸痛 呼吸困难 意识障碍 意识丧失 意识模糊 昏迷 抽搐 惊厥 晕厥 休克 咯血 呕血 便血 偏瘫 瘫痪 失语 言语不清 剧烈头痛 "  # noqa: SIM905
    "窒息 发绀 颈项强直 大出血".split()
)
"""Signs that a list never leaves behind more frequent, milder ones."""

SOON = frozenset({"便血", "发绀"})
"""Red flags that are often local or slow: a doctor soon, not an ambulance."""

EMERGENCY = re.compile(
    "急性.*心肌梗|(?<!陈旧性)(?<!无痛性)心肌梗|(?<!慢性)(?<!老年人)(?<!稳定型)心绞痛|休克|(?<![酸碱水])中毒(?!性)|脑出血(?!后)|急性.*脑梗|脑卒中|脑血管意外|蛛网膜下腔出血"
    "|骤停|破裂|大出血|消化道出血|窒息|夹层|肺栓塞|羊水栓塞|持续状态|张力性气胸|昏迷|溺|淹溺|电击|触电|中暑|喉梗阻|异位妊娠|输卵管妊娠|子痫|胎盘早剥|脐带脱垂"
    "|狂犬|破伤风|绞窄|(胃|肠|溃疡|胆囊|阑尾|食管|子宫)穿孔|脑疝|室颤|心室颤动|急性喉炎|会厌炎|颅脑损伤|(?<!后)烧伤(?!后)|毒蛇|急性心力衰竭|急性左心衰|呼吸衰竭"
    "|心脏压塞|支气管异物|气管异物|睾丸扭转|急性闭角型青光眼|中央动脉阻塞|肾上腺危象|甲状腺危象|急性肠梗阻|过敏性休克|急性会厌|意识障碍|意识丧失|晕厥|呕血|咯血|热性惊厥|急性偏瘫|鼠疫|弥散性血管内凝血"
)
"""Diseases that cannot wait: what is said of them ends with the emergency number."""


@lru_cache(1 << 18)  # the same texts stand in thousands of facts
def _exclusion(text: str) -> Exclusion | None:
    return next((rule for rule in EXCLUSIONS if rule.pattern.search(text)), None)


def excluded(text: str) -> str | None:
    """The reason why a text must not be used, or None when it may."""
    rule = _exclusion(text)
    return rule.reason if rule else None


def why_not(fact: Fact) -> str | None:
    """The name of the policy that keeps a fact out, or None when it may be used."""
    if fact.predicate in UNUSED:
        return "unsafe predicate"
    if (fact.subject, fact.predicate, fact.object) in WRONG_FACTS:
        return "known to be wrong"
    rule = _exclusion(fact.subject) or _exclusion(fact.object)
    return rule.name if rule else None
