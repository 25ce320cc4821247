"""Kinds of dirt that a text shows by itself, as a table of rules.

甚至昏迷 → clause start    呕吐等 → clause end    溃疡病 → forced name    血胶嚢 → 嚢    9～l5g → misread 0/O, 1/l
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from xinglin.knowledge.words import FORCED

_FOREIGN_NAMES = re.compile("英文|外文|拉丁|拼音|学名|二名法|ICD|ATC")  # predicates whose objects are not Chinese

_PLAIN = str.maketrans(
    "癎癒髙惓髄尅淸毎廯徳歯穂査莵靑専増廸亊毐祼栆脣蔵掻喎佂搧禇瑯蔴蔲栢鰊莬毬妬煆珮",
    "痫愈高倦髓克清每癣德齿穗查菟青专增迪事毒裸枣唇藏搔㖞怔扇褚琅麻蔻柏鲱菟球妒煅佩",
)
_PAIRS = ("()", "（）", "[]", "［］", "【】", "《》", "〔〕", "﹙﹚")
_CLAUSE_START = re.compile(
    "甚至|也|可(?!乐|卡|溶|待|逆|卧|立|拉)|以及|以(?!色列|太)|并(?!发|指|趾|殖|月)|如|其(?![它他])|及|或|和(?!谐|胃|营|中|血|解)|与"
    "|有时|严重|部分|少数|多数|常(?!染色体|温|春|山|规|见|年|用|压|量|备)|因(?!子)|由|但|而|伴|则|且|若|是|为|被(?!子|膜|毛)|在|从|使|于"
    "|该|此|这|那|还(?!原|少)|又|再(?!生|林|障|灌|植|狭)|即|均|较|更(?!年|昔)|最|各(?!类血)|某|需|尤其|特别|例如|包括|引起|导致|出现|表现|随(?!机)|当(?!归|药)"
    "|一般|主要(?!抑|兴|不)|大多|往往|偶(?!蹄|氮)|继而|进而|同时|之|者|个别|有些|等"
)
_MISREAD = re.compile(
    r"[A-Za-z]{2}[01][a-z]|(?<![A-Za-z0-9])l[0-9O]+\s*(?:%|mg|g|ml|毫|克|片|粒|分|AA)|\dl\d|[a-z]I(?!n)[a-z](?![A-Z])"
    r"|\d[OI](?=[%m毫])|\dm1\b|\dO+(?=mg|g|ml|毫|片|粒)|[A-Za-z]_"
)
_NOTE = re.compile(r"[［\[]")
_INVISIBLE = re.compile("[\0-\x1f\x7f\xa0\xad\u200b-\u200f\u2028\u2029\ufeff]")
_LABEL = re.compile(r"^[^：:，]{0,4}名称?[：:]|引用日期|用药参考|\[药典\]|\[注\d")
_SEVERAL = re.compile("[^、；;，,。]{1,12}(?:[、；;][^、；;，,。]{1,12})+")
_LATIN = re.compile(r"(?=.*[A-Za-z])[\x00-\x7f]+", re.DOTALL)
_NUMBER = re.compile(r"(?=.*\d)[\d\s.,，、%~～\-—+/:<>＜＞≥≤×]+")
_ANSWERS_NO = re.compile("传染性")
_NO_ANSWER = frozenset("无 不详 不明 不明确 未知 暂无 未明确 尚不明确 无特殊".split())  # noqa: SIM905


@dataclass(frozen=True)
class TextRule:
    """A kind of dirt that one text shows by itself.

    Attributes:
        damage: no one can have meant it, so that it also tells a subject's name as damaged.
        elsewhere: predicates in which it is no dirt.
    """

    name: str
    meaning: str
    fits: Callable[[str], object]
    damage: bool = False
    elsewhere: re.Pattern[str] | None = None


def _unbalanced(text: str) -> bool:
    return text.count('"') % 2 == 1 or any(text.count(pair[0]) != text.count(pair[1]) for pair in _PAIRS)


TEXT_RULES: tuple[TextRule, ...] = (
    TextRule("empty", "nothing but spaces", lambda text: not text.strip()),
    TextRule("clause start", "begins with a connective: cut out of a sentence", _CLAUSE_START.match),
    TextRule("clause end", "ends in 等: the rest of a list", lambda text: text.endswith("等")),
    TextRule(
        "forced name", "a disease put where a plain symptom stood (溃疡)", lambda text: _NOTE.split(text)[0] in FORCED
    ),
    TextRule("brackets", "has a second name or a note in brackets", re.compile(r"[\[\]［］〔〕【】]").search),
    TextRule(
        "look-alikes", "traditional, Japanese or misread characters", lambda text: text.translate(_PLAIN) != text, True
    ),
    TextRule("嚢", "the Japanese form of 囊", lambda text: "嚢" in text, True),
    TextRule("private glyphs", "characters that only one font knew", re.compile("[\ue000-\uf8ff\ufffd]").search, True),
    TextRule("unbalanced", "cut inside brackets or quotes", _unbalanced, True),
    TextRule("HTML", "remnants of a web page", re.compile(r"</?[a-zA-Z]+[^>]*>|&[a-z]+;|&#\d+;").search, True),
    TextRule("misread 0/O, 1/l", "a digit in a word or a letter in a number", _MISREAD.search, True),
    TextRule("invisible", "no-break spaces and control characters", _INVISIBLE.search, True),
    TextRule("em dash", "— where - stood", lambda text: "—" in text),
    TextRule("label or citation", "名称： and [引用日期…] belong to the page", _LABEL.search),
    TextRule("said twice", "the whole text stands twice", re.compile(r"(.{2,}?)(?:/?\1)+").fullmatch),
    TextRule("several in one", "a list that was not split", _SEVERAL.fullmatch),
    TextRule("no answer", "says only that nothing is known", lambda text: text in _NO_ANSWER, elsewhere=_ANSWERS_NO),
    TextRule("not Chinese", "Latin letters only, where Chinese belongs", _LATIN.fullmatch, elsewhere=_FOREIGN_NAMES),
    TextRule("one character", "too short to mean something", lambda text: len(text) == 1),
    TextRule("numeric", "a number without what it counts", _NUMBER.fullmatch),
)
"""The rules; `xinglin kg check` counts each over all objects."""
