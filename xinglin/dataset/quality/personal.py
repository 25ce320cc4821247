"""Personal data in a text: found with its place, and masked.

    find("患者王建国，男，56岁，电话13800138000")
    → name 王建国 (2–5), phone 13800138000 (14–25)
    mask(…) → 患者〔姓名〕，男，56岁，电话〔电话〕

Rules only, made for Chinese case notes and online consultations: a digit pattern, or a word that announces the datum
(住院号, 家住, 患者…，男). A name without any such company (他和王建国去了) is not found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from xinglin.dataset.quality.names import names

LABELS = {
    "phone": "电话",
    "id_number": "证件号",
    "wechat": "微信/QQ",
    "email": "邮箱",
    "address": "住址",
    "name": "姓名",
    "record_number": "病历号",
}
"""Kind of personal data → what a mask and the report call it."""


@dataclass(frozen=True)
class Hit:
    """One piece of personal data: `text` is what stands at characters `start` to `end`."""

    kind: str
    start: int
    end: int
    text: str


_WIDTH = {0xFF01 + n: 0x21 + n for n in range(94)} | {0x3000: 0x20, 0xA0: 0x20}  # one character for one: places stay
_HAN = "[\u4e00-\u9fff]"
_NUMBER = "[0-9一二三四五六七八九十百]"
_SPELLED = "[零〇一幺二两三四五六七八九]"


def _rules(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


_EMAIL = _rules(r"[A-Za-z0-9][\w.+-]*\s?(?:@|#at#|\[at\]|\(at\))\s?(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
_PER = "(?:[A-Za-zμ]{0,8}/|拷贝|copies|×)"  # 13800000000 IU/L is a count
_PHONE = _rules(
    rf"(?<![\d.A-Za-z])(?:(?:\+|00)?86[- ]?)?1[- .]?[3-9](?:[- .]?\d){{9}}(?!\d|\s?{_PER})",
    r"(?<!\d)1[3-9]\d[。·*_]\d{4}[。·*_]\d{4}(?!\d)",
    r"(?<![\d.A-Za-z])\(?0(?:10|2\d|[3-9]\d\d)\)?[- ]?\d{3,4}-?\d{4}(?:[-转]\d{1,6})?(?![\d.])",
    r"(?<!\d)[48]00-\d{3,4}-?\d{3,4}(?!\d)",
    rf"[一幺][ -]?[三四五六七八九][ -]?(?:{_SPELLED}[ -]?){{8}}{_SPELLED}",
    r"(?:电话|手机|座机|固话|热线|致电|拨打|来电|联系方式|[Tt]el|TEL)[^0-9\n，。；]{0,8}"
    r"(?P<value>\d{3,4}-?\d{4}(?!\d)|\d{3,4}[- ]\d{3,4}(?:[- ]\d{3,4})?)",
)
_DATE = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_ID = _rules(
    rf"(?<!\d)[1-9]\d{{5}}[ -]?(?:18|19|20)\d\d{_DATE}[ -]?\d{{3}}[\dXx](?![0-9A-Za-z])",
    rf"(?<!\d)[1-9]\d{{7}}{_DATE}\d{{3}}(?!\d)",
    "(?:身份证|证件|护照|军官证|通行证|居住证|社保|社会保障)(?:号码?|卡|账号|编号|件|证)*[^0-9A-Za-z\\n，。；]{0,4}"
    r"(?P<value>[A-Za-z]{0,3}\d[\d -]{4,18}[\dXx])(?![0-9A-Za-z])",
)
_HEART = "[\\s❤♥💚💕\ufe0f]*"
_ALONE = "(?<![A-Za-z0-9])"
_ACCOUNT = r"(?P<value>[A-Za-z][-_A-Za-z0-9]{4,24}|\d[-_A-Za-z0-9]{5,24})"
_WECHAT = _rules(
    # 微 信 号：x, 徽信x, 微❤x, VX x, weixin: x — up to ten characters of talk between the word and the account
    rf"(?:[微薇徽]{_HEART}信|威信|[微薇徽]\s?[❤♥xX]|{_ALONE}(?:[Ww]e[Cc]hat|[WwVv][Xx]|[Ww]eixin|WEIXIN)(?![A-Za-z])"
    rf"|[Vv]\s?信|卫星号|卫星(?=\s?[:：])|[卫維维唯]信|[微薇徽威][芯心](?=\s?[:：号]))[^A-Za-z0-9。\n]{{0,10}}{_ACCOUNT}",
    rf"(?:加[我下个]?|[+➕主]){_HEART}[VvＶ薇微徽]{_HEART}[:：]?\s?{_ACCOUNT}",
    rf"{_ALONE}[VvＶ薇徽]{_HEART}[:：]\s?{_ACCOUNT}",
    r"wxid_[0-9a-z]{6,}",
    rf"(?:{_ALONE}[Qq]{{2}}(?![A-Za-z])|扣扣|抠抠|秋秋|球球|企鹅|[Qq]群|[加进入]群|群号|{_ALONE}[Qq](?=\s?[:：])"
    r"|加\s?[Qq](?=\s?\d)|我的?[Qq](?=\s?[是为\d]))"
    r"[^A-Za-z0-9。\n]{0,6}(?P<value>[1-9]\d{4,11})(?!\d)",
)
_RECORD = _rules(
    "(?:住院|门诊|病案|病历|病例|就诊|诊疗|登记|检查|影像|病理|标本|条码|放射|CT|MRI?|X光|X线|B超|超声|挂号|预约|健康|档案|急诊"
    "|患者|病人|医保卡?|体检|化验|检验|申请|报告|处方|床头|留观|就医|流水)(?:卡|证|单|档案)?\\s?"
    # 登记号码为 147… with the eleven digits of a mobile phone is one
    r"(?:号(?!码)|号码(?![^0-9A-Za-z\n]{0,10}1[3-9]\d{9}(?!\d))|编号|ID号?|序号|[Nn][Oo]\.?(?=[\s:]?\d))"
    r"[^0-9A-Za-z\n]{0,10}(?P<value>[A-Za-z]{0,6}[- ]?\d[-\dA-Za-z/]{3,})(?!年)",
    rf"{_ALONE}(?:MRN|PID|Patient ID|Case No\.?|No\.)\s?[:# ]\s?(?P<value>[A-Za-z]{{0,4}}-?\d{{4,}}[-\d]*)",
    rf"{_ALONE}ID(?:号|[:\s]|\([^)]*\)){{1,4}}(?P<value>[A-Za-z]{{0,3}}\d{{5,}}[-\d]*)",
)

_REGION = "(?:自治区|自治州|自治县|特别行政区|地区|新区|开发区|街道|社区|[省市州盟县区旗镇乡村])"
_STREET = (
    "(?:[东南西北中]?路|大?街|大?道|胡同|小区|花园|家园|公寓|新村|宿舍|大厦|广场|社区"
    "|[巷弄苑村屯庄湾城里府庭居园院塘桥])"
)
_HOUSE = "(?:号楼|号院|大院|支弄|单元|[号栋幢座弄组队社巷室#楼层户院门房期])"
_DOOR = rf"(?:[，, ]?第?(?:{_NUMBER}+|[A-Za-z甲乙丙丁东南西北]{{1,2}}\d*)[-#]?\d*\s?{_HOUSE}(?!科))"
_ADDRESS = _rules(
    "(?:住址|地址|[家现我]住|住[在于]|居住[在于地]|户籍地?|户口(?:所在地)?|籍贯|家在|寄[到往至给])"
    rf"\s?[:：]?\s?[为是在于]?\s?(?P<value>(?:{_HAN}|[-0-9A-Za-z#号（）()])*?{_HAN}{{2,}}"
    rf"(?:{_REGION}|{_STREET}|[组寨室号])(?:{_HAN}|[-0-9A-Za-z#])*)",
    rf"(?:{_HAN}{{2,9}}?{_REGION}){{0,5}}{_HAN}{{1,9}}?{_STREET}(?:[东西南北][段街])?\s?{_DOOR}+(?:[-－]?\d+)?",
    rf"(?:{_HAN}{{2,9}}?{_REGION}){{0,3}}{_HAN}{{2,7}}(?:镇|乡|街道|公社|苏木|农场){_HAN}{{1,6}}?"
    rf"(?:村|屯|庄|社区|寨|大队|居委会){_DOOR}*",
    rf"(?<!\d)\d+\s?(?:栋|幢|号楼)\s?(?:{_NUMBER}+\s?单元)?\s?\d{{1,4}}[室号户房]?(?![\d楼层])",
    rf"(?<!\d){_NUMBER}+单元\s?\d{{3,4}}[室号户]?",
)
_NO_ADDRESS = re.compile(
    "医院|诊所|病[区房院]|卫生[院室]|药店|门诊|保健院|监护|信号|什么|怎么|[尿通旁网电道]路|[肠阴尿气胆产]道|呼吸道|消化道|输卵"
    "|^(?:农村|乡下|[市郊山城疫牧老]区|县城|小区)里?$"
)
_PLACE = f"[路街道巷弄同区园寓村苑舍厦场屯庄湾城里府庭居院塘桥段](?:\\s?{_NUMBER}|[东西南北甲乙丙丁第A-Za-z])"
_FINDERS: tuple[tuple[str, str, tuple[re.Pattern[str], ...]], ...] = (
    # kind, what any of its rules needs (nearly all text is through after that one search), rules
    ("email", "@|at", _EMAIL),
    ("id_number", r"\d{5}", _ID),
    ("record_number", r"号.{0,10}\d|ID|MRN|[Nn][Oo]", _RECORD),
    ("phone", rf"\d{{3}}|1[ .-][3-9]|[一幺][ -]?[三四五六七八九][ -]?{_SPELLED}", _PHONE),
    ("wechat", r"[微薇徽威vVwWqQＶ扣抠鹅]|[卫维維唯][信星]|群.{0,7}\d|秋秋|球球", _WECHAT),
    (
        "address",
        rf"单元|[栋幢楼住]|地址|户籍|户口|籍贯|家在|寄[到往至给]|[镇乡道].{{1,8}}[村屯庄寨区]|{_PLACE}",
        _ADDRESS,
    ),
)
_COMPILED = tuple((kind, re.compile(hint), rules) for kind, hint, rules in _FINDERS)


def find(text: str) -> list[Hit]:
    """Personal data in a text, in order of place, none over another (who comes first in the table above keeps it)."""
    hits: list[Hit] = []
    for kind, start, end in _spans(text.translate(_WIDTH)):
        if all(end <= hit.start or start >= hit.end for hit in hits):
            hits.append(Hit(kind, start, end, text[start:end]))
    return sorted(hits, key=lambda hit: hit.start)


def mask(text: str) -> str:
    """The text with every piece of personal data replaced by its kind: 〔电话〕. Masking twice changes nothing."""
    while hits := find(text):
        for hit in reversed(hits):
            text = f"{text[: hit.start]}〔{LABELS[hit.kind]}〕{text[hit.end :]}"
    return text


def _spans(plain: str) -> Iterator[tuple[str, int, int]]:
    for kind, hint, rules in _COMPILED:
        if hint.search(plain):
            for rule in rules:
                group = "value" if "value" in rule.groupindex else 0
                for match in rule.finditer(plain):
                    if kind != "address" or not _NO_ADDRESS.search(match[group]):
                        yield kind, *match.span(group)
    for start, end in names(plain):
        yield "name", start, end
