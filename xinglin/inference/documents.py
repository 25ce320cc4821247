"""A user's own documents: passages that answer a question, found by BM25 over Chinese words.

指南/高血压.md, under the heading 随访   →   〔高血压.md › 随访〕 …

Markdown and text; a passage is what stands under one heading, cut at paragraphs where it is long.
"""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xinglin.dataset.quality.detect import DOSE
from xinglin.errors import UserError
from xinglin.knowledge.terms import normalize
from xinglin.records import read_lines
from xinglin.tables import open_text

SUFFIXES = (".md", ".markdown", ".txt")
_LONGEST = 300  # characters of a passage
_COVERED = 0.5  # share of what a question's words weigh that a passage must have
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_SENTENCE_END = re.compile(r"(?<=[。！？!?；;\n])")
_EMPTY_WORDS = (
    "的 了 吗 呢 啊 吧 呀 我 你 您 他 她 它 我们 是 有 在 要 会 能 和 与 或 及 这 那 这个 那个 什么 哪些 哪个"
    " 哪里 怎么 怎样 如何 为什么 多少 多久 几 请问 请 问 一下 可以 需要 应该 得 得了 患 患者 病人 做 去 看 咋"
    " 啥 咋办 怎么办 一个 一次 就 也 都 还 不 没 没有 被 把 给 让 对 上 下 中 医生 大夫 你好 您好 谢谢 时候 时"
    " 后 前 之后 以后 之前 平时 家里 家里人 我妈 我爸 注意 吃 喝 事项"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
"""Words that say nothing of what is asked."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        file: path within the folder.
        heading: headings above it, outermost first.
    """

    file: str
    heading: str
    text: str

    @property
    def cited(self) -> str:
        """Where it stands."""
        return f"{self.file} › {self.heading}" if self.heading else self.file

    @property
    def whole(self) -> str:
        """Heading and text, as they are searched."""
        return f"{self.heading}\n{self.text}"


class Documents:
    """Searches the documents of a folder.

    Args:
        folder: everything under it with a name that ends in one of `SUFFIXES` is read.

    Raises:
        UserError: no such folder, nothing to read in it, or a file that is no text.
    """

    def __init__(self, folder: str) -> None:
        import bm25s  # a second each, and only wanted here

        root = Path(folder)
        if not root.is_dir():
            raise UserError(f"knowledge {folder!r}: no such folder")
        files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        self.passages = [passage for file in files for passage in _passages(file, str(file.relative_to(root)))]
        if not self.passages:
            raise UserError(
                f"knowledge {folder!r}: no text in it; put Markdown or text files there ({', '.join(SUFFIXES)})"
            )
        words = [_words(one.whole) for one in self.passages]
        self._words = [frozenset(one) for one in words]
        self._index = bm25s.BM25()
        self._index.index(words, show_progress=False)
        count = len(words)
        self._weight = {word: _idf(sum(word in own for own in self._words), count) for own in words for word in own}
        self._unknown = _idf(0, count)
        log.info("knowledge: %d passages of %d files in %s", count, len(files), folder)

    def find(self, question: str, names: Sequence[str] = (), limit: int = 2) -> list[Passage]:
        """Passages that answer a question, the best first; none where none has most of what it asks.

        Args:
            names: what the question is about, in its own words; a passage that has none of them is no answer.
        """
        words = list(dict.fromkeys(_words(question)))
        known = [word for word in words if word in self._weight]
        if not known:
            return []
        limit = min(limit, len(self.passages))
        found, scores = self._index.retrieve([known], k=min(10, len(self.passages)), show_progress=False)
        total = sum(self._weight.get(word, self._unknown) for word in words)
        fitting = []
        for place, score in zip(found[0].tolist(), scores[0].tolist(), strict=True):
            passage = self.passages[place]
            covered = sum(self._weight[word] for word in known if word in self._words[place]) / total
            named = not names or any(normalize(name) in normalize(passage.whole) for name in names)
            if score > 0 and covered >= _COVERED and named:
                fitting.append(passage)
        return fitting[:limit]


def _idf(holding: int, count: int) -> float:
    """What a word weighs that so many of the passages have. Source: Robertson, Spärck Jones 1976, as BM25 has it."""
    return math.log(1 + (count - holding + 0.5) / (holding + 0.5))


def _words(text: str) -> list[str]:
    """Words of a text, those that say nothing left out."""
    import jieba

    jieba.setLogLevel(logging.ERROR)
    cut = (word.strip() for word in jieba.cut_for_search(normalize(text)))
    return [word for word in cut if word not in _EMPTY and re.search(r"\w", word)]


def _passages(file: Path, name: str) -> Iterator[Passage]:
    """A document in pieces."""
    with open_text(file) as opened:
        lines = [line.rstrip() for _, line in read_lines(opened, file)]
    headings: list[tuple[int, str]] = []
    kept: list[str] = []

    def made() -> Iterator[Passage]:
        above = " › ".join(title for _, title in headings)
        return (Passage(name, above, piece) for piece in _pieces("\n".join(kept)))

    for line in lines:
        if heading := _HEADING.match(line) if file.suffix.lower() != ".txt" else None:
            yield from made()
            level = len(heading[1])
            headings = [*(one for one in headings if one[0] < level), (level, heading[2])]
            kept = []
        else:
            kept.append(line.strip())
    yield from made()


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of whole sentences, without any dose."""
    piece = ""
    for sentence in _SENTENCE_END.split(text):
        if DOSE.search(sentence):
            sentence = "（剂量从略，请问医生或药师。）"
        if piece and len(piece) + len(sentence) > _LONGEST:
            yield piece.strip()
            piece = ""
        piece += sentence
    if piece.strip():
        yield piece.strip()
