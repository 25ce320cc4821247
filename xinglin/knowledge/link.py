"""Find known terms in text: Aho–Corasick, leftmost-longest, so that 肾炎 is not found inside 肾盂肾炎."""

import re
import unicodedata
from collections.abc import Iterable

import ahocorasick

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―－", "-"))
_CJK_SPACE = re.compile(r"(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])")


def normalize(text: str) -> str:
    """NFKC, one kind of dash, no spaces beside Chinese; the form in which all texts are compared."""
    return _CJK_SPACE.sub("", unicodedata.normalize("NFKC", text).translate(_DASHES).strip())


class Linker:
    """Finds terms in text.

    Args:
        terms: what to find.
        blockers: longer words that may contain a term without meaning it; they are matched and passed over.
    """

    def __init__(self, terms: Iterable[str], blockers: Iterable[str] = ()) -> None:
        self.terms = frozenset(map(normalize, terms)) - {""}
        self._automaton = ahocorasick.Automaton()
        for word in self.terms.union(map(normalize, blockers)) - {""}:
            self._automaton.add_word(word, word)
        self._automaton.make_automaton()

    def mentions(self, text: str) -> list[str]:
        """The terms in a text, in order, each once."""
        found = (word for _, word in self._automaton.iter_long(normalize(text)))
        return list(dict.fromkeys(word for word in found if word in self.terms))
