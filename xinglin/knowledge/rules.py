"""Which objects of the graph may be said on a topic, by named rules. Cleaning drops by them; the linker finds by them.

symptoms · 恶心、呕吐 → punctuation     treatment · 青霉素 → treatment by drug     department · 门诊 → not a department
"""

import re
from collections.abc import Callable

from xinglin.knowledge.graph import Graph
from xinglin.knowledge.policy import DRUG_NAME, excluded
from xinglin.knowledge.terms import broken, is_chinese
from xinglin.knowledge.words import EVERYDAY, FORCED, GENERIC

SUPPORT = {"symptoms": 3, "department": 5, "causes": 2, "complications": 2, "effects": 2}
"""In how many subjects an object must stand: a fragment stands in one, a medical term in many. Topics that are not
named here have rules of shape that a fragment does not pass."""

_APPROACH = re.compile(
    "(治疗|疗法|手术|切除|术|引流|移植|支持|护理|康复|锻炼|运动|休息|氧疗|吸氧|供氧|通气|透析|固定|复位|牵引|按摩|理疗|针灸|隔离|戒烟|戒酒"
    "|置换|化疗|放疗|光疗|禁食|去除病因|控制感染|预防感染|抗感染|调整|饮食|控制|干预|训练|减压|输血|补液|清创|观察|体重|咨询|助听器|眼镜|体位|冷敷|热敷|湿敷)$"
)
_EXAMINATION = re.compile(
    "(检查|测定|试验|造影|镜|镜检|超声|B超|彩超|CT|MRI|X线|X线片|平片|胸片|图|培养|活检|涂片|检测|扫描|穿刺|摄片|摄影|常规|抗体|定量|定性|测量|筛查"
    "|计数|分析|显像|成像|监测|染色|化验|心电图|血沉|抗原|评估|评定|反应|蛋白|电泳|鉴定|血糖|尿糖|血脂|血钙|血气|三大常规|病理)$"
)
_ROUTE = re.compile(
    "传播|接触|呼吸道|消化道|血液|血制品|母婴|飞沫|空气|粪|经口|性交|蚊|蜱|虱|蚤|叮咬|输血|胎盘|唾液|水源|食物|疫水|注射"
)
_PEOPLE = re.compile(
    r"^(?=.*[儿人性者女男妇年童孩胎期民工员生])(\d+(-\d+)?岁(以上|以下|以内|左右)?的?|儿童|小儿|新生儿|婴幼儿|婴儿|幼儿|学龄前|学龄期?|青少年|少年|青壮年|壮年|中青年|青年|中老年"
    "|老年|中年|年轻|年长|成年|成人|低龄|女性|男性|妇女|男孩|女孩|孕妇|产妇|初产妇|经产妇|孕产妇|育龄期?|生育期|妊娠期|哺乳期?|绝经期|绝经后"
    "|早产儿|青春期|老人|人群|人|肥胖|吸烟|酗酒|农民|工人|矿工|运动员|学生|教师|者|的|和|及|或|与|以上|糖尿病患者|高血压患者)+$"
)
_BODY = re.compile(
    "[头颈项面脸眼耳鼻口唇舌齿咽喉胸背腰腹臀肢手足腿臂肩肘腕指趾膝踝髋骨脊椎肺心肝脾肾胃肠胆胰阴乳肛脑睑眶颌颊颞腋骶髓]|皮肤|关节|膀胱|尿道|尿管"
    "|子宫|卵巢|输卵管|黏膜|肌|神经|血管|动脉|静脉|淋巴|气管|支气管|食管|睾丸|前列腺|甲状腺|垂体|盆腔|躯干|角膜|视网膜|巩膜|鼓膜|腺|脑膜|腹膜"
)
_NO_SITE = re.compile("(炎|病|症|癌|瘤|出血|科|感染|者|损伤|骨折|综合征|痛|热)$")


_SHAPES: dict[str, tuple[tuple[str, Callable[[str], object]], ...]] = {
    "department": (("not a department", lambda text: not text.endswith("科")),),
    "examinations": (("not an examination", lambda text: not _EXAMINATION.search(text)),),
    "treatment": (
        ("treatment by drug", DRUG_NAME.search),
        ("generic word", lambda text: text.endswith("的治疗")),
        ("fragment", re.compile("^(首先|应|女性|男性)").search),
        ("not an approach", lambda text: not _APPROACH.search(text)),
    ),
    "causes": (("no cause", re.compile("(病因|原因)不|不甚?清|不详|性生活").search),),
    "route": (("not a route", lambda text: not _ROUTE.search(text)),),
    "population": (("not a group of people", lambda text: not _PEOPLE.match(text)),),
    "body_site": (("not a body site", lambda text: _NO_SITE.search(text) or not _BODY.search(text)),),
    "infectious": (("neither yes nor no", lambda text: text not in ("有", "无")),),
}
"""Topic → (name, what tells it) of the rules by which an object is not of the kind that the topic asks for."""


def _whole(topic: str, text: str) -> str | None:
    """As `broken`, but groups of people may end in 者, and yes and no are one character."""
    if topic == "infectious":
        return None
    return broken(re.sub("(患者|者)$", "人群", text)) if topic == "population" else broken(text)


def reject(topic: str, text: str, graph: Graph) -> str | None:
    """The name of the rule that drops a normalised object, or None when it is usable as it is."""
    if excluded(text):
        return "policy"
    if rule := _whole(topic, text):
        return rule
    if text in GENERIC[topic] or (topic in ("symptoms", "complications") and text in EVERYDAY):
        return "generic word"
    if text in FORCED:
        return "forced normalisation"
    if not is_chinese(text) and topic != "examinations":
        return "not Chinese"
    if topic == "diseases" and text not in graph:
        return "not a disease of the graph"
    return next((name for name, fits in _SHAPES.get(topic, ()) if fits(text)), None)
