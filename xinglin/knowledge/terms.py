"""What makes a text of the graph a term that may be said, by named rules.

甚至昏迷 → fragment    恶心、呕吐 → punctuation    痛 → length    恶心 → usable
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―－", "-"))
_ODD = str.maketrans({"嚢": "囊", "〔": "[", "〕": "]", "［": "[", "］": "]"})
_CJK_SPACE = re.compile(r"(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])")
_HAN = re.compile("[\u4e00-\u9fff]")
_PRIVATE = re.compile("[\ue000-\uf8ff\ufffd]")
_HTML = re.compile(r"&[a-z]+;|</?[a-z]+|br/|&#\d+")
_PUNCTUATION = re.compile(r"[、,，;；。:：!?！？()（）\[\]【】<>《》/&=\"“”…~*#|]")
_FRAGMENT = re.compile(
    "^(本[病症]|下列|通过(?!障碍)|[多好]发(?=于|生|群体)|尤以|亦|甚至|也可|可|以|并(?!发|指|趾)|如|其|及|或|和(?!谐)|与|有时|严重|部分|少数|多数|常(?!染色体|温|春)|因(?!子)|由|但|而|伴|后期|早期|晚期|形成|极|易(?!激惹|受激惹|怒|疲|激动)"
    "|胃(?=化|止|消)|则|且|若|是|为|被|在|对(?!症|比|侧|光)|从|使|于|该|此|这|那|还|又|再|即|均|较|更|最|所|各|某|需|应|尤其|特别|例如|包括|引起|导致|出现|表现|随|当"
    "|一般|主要|大多|往往|偶|可能|继而|进而|同时|随后|随之|逐渐|之|者|的|了|个|些|等"
    "|多(?!汗|尿|饮|食|梦|形|发|囊|动|毛|指|趾|胎|器|普|巴|肽|糖|潘|西|烯|酚|奈|功|导|肌|灶|疑|泪|涎|语|维|项|脏|关节|卵|重|种|索|黏|粘|中心|源|系统|脉|学科))"
    "|(等|有关|相关|者|时|(?<!骨)后|的|为主|最为常见|所致|引起|症状|表现|患者|病人|之|及|和|与|或|而|但|并|以|其|可|在|(?<!行)为|于|是|(?<![异失无正])常|多见|少见|明显|不明显|为宜|史|为主要传播途径|群体|为甚)$|见于|本病|经常|常并发|病因未明"
)
_FRAGMENT_END_OK = re.compile("(既往史|产后|术后|餐后|饭后|不适症状)$")
_DAMAGED = re.compile(r"[0OIl]{2,}[A-Za-z]|^[-—~]|[-—~]$")


@lru_cache(1 << 18)  # the same objects stand in thousands of subjects
def normalize(text: str) -> str:
    """NFKC, one kind of dash, 嚢 as 囊, no spaces beside Chinese; the form in which all texts are compared."""
    return _CJK_SPACE.sub("", unicodedata.normalize("NFKC", text).translate(_DASHES).translate(_ODD).strip())


def split_names(text: str) -> list[str]:
    """The names in a field that may hold several (红眼病;流行性结膜炎), normalised."""
    return [name for part in re.split("[;；、]", text) if (name := normalize(part))]


def _unbalanced(text: str) -> bool:
    return any(text.count(left) != text.count(right) for left, right in ("()", "[]", "（）", "【】", "《》"))


TERM_RULES: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("private-use glyph", _PRIVATE.search),
    ("HTML remnant", _HTML.search),
    ("unbalanced brackets", _unbalanced),
    ("punctuation", _PUNCTUATION.search),
    ("length", lambda text: not 2 <= len(text) <= 12),
    ("damaged characters", _DAMAGED.search),
    ("fragment", lambda text: _FRAGMENT.search(text) and not _FRAGMENT_END_OK.search(text)),
    ("list inside", lambda text: re.search("[^高平中初同]等(?!张|位|渗|长|容)", text[:-1])),
    ("numeric", lambda text: not re.search(r"[^\d\s.%+\-×]", text)),
)
"""(name, what tells it) of each rule; the first that fits names why a normalised text is no term."""


@lru_cache(1 << 18)
def broken(text: str) -> str | None:
    """The name of the rule that a normalised text breaks, or None when it is whole."""
    return next((name for name, fits in TERM_RULES if fits(text)), None)


def is_chinese(text: str) -> bool:
    """Whether a text holds a Chinese character."""
    return bool(_HAN.search(text))
