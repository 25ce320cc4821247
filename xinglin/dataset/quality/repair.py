"""Put right in a text what can be put right without knowing what it means.

<p>血压&lt;１４０</p>  →  血压<140
ç³–å°¿ç—…           →  糖尿病
"""

import html
import re

from xinglin.dataset.quality.detect import DAMAGE, HTML
from xinglin.dataset.quality.personal import mask

_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr|h[1-6])>", re.IGNORECASE)
_POWER = re.compile(r"<sup(?:\s[^<>]*)?>([^<>]{1,6})</sup>", re.IGNORECASE)
_FULL = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_UNSEEN = re.compile("[\u200b-\u200d\u2060\ufeff\u00ad]")
_SPACE = re.compile("[\u00a0\u3000]")
# what UTF-8 or GBK bytes become when they are read as Latin-1 or Windows-1252
_MISREAD = re.compile("(?=[^\x00-\x7f]*[\x80-\xff])[\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{3,}")
_CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef\u2010-\u203b]+")


def repaired(text: str) -> str:
    """The text without web markup, full-width letters and digits, invisible characters and misread encodings."""
    if DAMAGE.search(text):
        text = _decoded(text)
    if HTML.search(text):
        text = _BREAK.sub("\n", _POWER.sub(r"^\1", text))
        text = HTML.sub(lambda found: "" if found[0][0] == "<" else html.unescape(found[0]), text).strip()
    text = _FULL.sub(lambda found: chr(ord(found[0]) - 0xFEE0), text)
    return _SPACE.sub(" ", _UNSEEN.sub("", text))


def cleaned(text: str) -> str:
    """The text repaired, with personal data masked; doing it again changes nothing."""
    while (better := mask(repaired(text))) != text:
        text = better
    return text


def _decoded(text: str) -> str:
    text = _MISREAD.sub(_reread, text)
    if DAMAGE.search(text):  # UTF-8 read as GBK, as a whole
        try:
            again = text.encode("gb18030").decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            return text
        return text if DAMAGE.search(again) else again
    return text


def _reread(found: re.Match[str]) -> str:
    """Decode what was read wrongly; only a reading that is Chinese throughout is believed."""
    raw = b"".join(_byte(character) for character in found[0])
    for encoding in ("utf-8", "gb18030"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _CHINESE.fullmatch(text):
            return text
    return found[0]


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")
