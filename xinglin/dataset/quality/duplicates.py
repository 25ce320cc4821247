"""Exact and near duplicates, and overlap with evaluation files, in memory that does not grow with the texts.

A text is compared in its normal form: 高血压，怎么办？ and 高血压 怎么办 are one. Near duplicates: MinHash of the
form's 5-character pieces, 120 permutations in 20 bands of 6; texts that agree in a band are candidates, and those
whose signatures agree to 80 % (the estimate of their Jaccard similarity, ± 0.04) are joined. Bands and signatures
lie in temporary files, 640 bytes a text.
"""

import hashlib
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

U64 = NDArray[np.uint64]

PIECE = 5
"""Characters in a piece that near duplicates are compared by."""
GRAM = 15
"""Characters in a piece whose presence shows an overlap with an evaluation file."""
THRESHOLD = 0.8
"""Estimated Jaccard similarity from which two texts are near duplicates."""
NEIGHBOURS = 32
"""In a bucket of a band, a text is compared with so many that follow it; only buckets larger than this lose pairs."""

_BANDS, _ROWS, _SEED = 20, 6, 20
_PERMUTATIONS = _BANDS * _ROWS
_DROP = dict.fromkeys(map(ord, " \t\r\n\v\f，。！？；：、,!?;:“”‘’\"'（）()【】[]《》<>「」『』…—~·`*#_"))
_BATCH = 200_000  # pairs compared at a time


def normal(text: str) -> str:
    """The form in which texts are compared: width and case folded, spaces and punctuation gone."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_DROP)


def hash64(text: str) -> int:
    """A 64-bit hash that is the same on every run."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def pieces(texts: Sequence[str], length: int) -> tuple[U64, U64]:
    """Hash every run of `length` characters.

    Returns:
        The hashes of all texts, one after another, and where each text's begin (one more than texts). A text shorter
        than `length` has one piece, itself.
    """
    padded = [text.ljust(length, "\0") for text in texts]
    sizes = np.fromiter(map(len, padded), np.int64, len(padded))
    points = np.frombuffer("".join(padded).encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    counts = sizes - (length - 1)
    hashes = np.zeros(max(len(points) - length + 1, 0), np.uint64)
    for offset in range(length):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += points[offset : len(points) - length + 1 + offset]
    inside = np.ones(len(hashes), bool)  # pieces that lie across two texts are none
    ends = np.cumsum(sizes)[:-1]
    for back in range(1, length):
        inside[ends - back] = False
    starts = np.concatenate(([0], np.cumsum(counts)))
    return _mixed(hashes[inside]), starts.astype(np.uint64)


def _mixed(hashes: U64) -> U64:
    """Spread the bits, so that any of them will do."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(hashes ^ (hashes >> np.uint64(31)), np.uint64)


def signatures(texts: Sequence[str]) -> NDArray[np.uint16]:
    """MinHash signatures of texts in normal form, the low 16 bits of each minimum: an array (texts, 120)."""
    hashes, starts = pieces(texts, PIECE)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, _PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), np.uint32).astype(np.uint16)


def bands(signed: NDArray[np.uint16]) -> U64:
    """The 20 band hashes of each signature: an array (texts, 20)."""
    rows = signed.reshape(len(signed), _BANDS, _ROWS).astype(np.uint64)
    hashes = np.zeros((len(signed), _BANDS), np.uint64)
    for place in range(_ROWS):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + rows[:, :, place] + np.uint64(1)
    return _mixed(hashes)


def similarity(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of two arrays of signatures, row by row."""
    return np.asarray((one == other).mean(axis=-1), np.float64)


class Index:
    """The near-duplicate index: signatures and bands in a temporary folder that goes when the block ends."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="xinglin-check-")
        self._files: list[IO[Any]] = [
            (Path(self._folder.name) / f"{number}").open("wb") for number in range(_BANDS + 1)
        ]
        self._size = 0
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def add(self, signed: NDArray[np.uint16]) -> None:
        """Append signatures, in the order of the records."""
        for number, column in enumerate(bands(signed).T):
            self._files[number].write(np.ascontiguousarray(column).tobytes())
        self._files[_BANDS].write(signed.tobytes())
        self._size += len(signed)

    def clusters(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Join near duplicates among the chosen records.

        Args:
            chosen: numbers of records, ascending; exact copies are left out by the caller.

        Returns:
            For every record of the index the number of its cluster's first record (its own when it is alone).
        """
        for file in self._files:
            file.flush()
        labels = np.arange(self._size, dtype=np.int64)
        if not len(chosen):
            return labels
        signed = np.memmap(self._files[_BANDS].name, np.uint16, "r", shape=(self._size, _PERMUTATIONS))
        for number in range(_BANDS):
            band = np.memmap(self._files[number].name, np.uint64, "r", shape=(self._size,))[chosen]
            for left, right in _candidates(band, chosen, labels):
                alike = similarity(signed[left], signed[right]) >= THRESHOLD
                _join(labels, left[alike], right[alike])
            labels = _roots(labels)
        return labels


def _candidates(
    band: U64, chosen: NDArray[np.int64], labels: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs that agree in a band and are not joined yet, in batches."""
    order = np.argsort(band, kind="stable")
    band, numbers = band[order], chosen[order]
    places = np.arange(len(band))
    for step in range(1, NEIGHBOURS + 1):
        places = places[places + step < len(band)]
        places = places[band[places] == band[places + step]]
        if not len(places):
            return
        for start in range(0, len(places), _BATCH):
            left = numbers[places[start : start + _BATCH]]
            right = numbers[places[start : start + _BATCH] + step]
            apart = labels[left] != labels[right]
            yield left[apart], right[apart]


def _join(labels: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Union by the smaller number; `labels` becomes a forest that `_roots` makes flat again."""
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        a, b = one, other
        while labels[a] != a:
            a = int(labels[a])
        while labels[b] != b:
            b = int(labels[b])
        labels[one] = labels[other] = labels[max(a, b)] = min(a, b)


def _roots(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    while not np.array_equal(shorter := labels[labels], labels):
        labels = shorter
    return labels


def first_copies(hashes: U64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Records by equal hash.

    Returns:
        The numbers of the records that repeat no earlier one, ascending, and for every record the number of the first
        with its hash.
    """
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return np.sort(first).astype(np.int64), first[inverse].astype(np.int64)


class Evaluation:
    """Evaluation questions, and how much of them stands in the training records.

    Attributes:
        items: how many questions (with their answers) there are.
    """

    def __init__(self, questions: Sequence[str], answers: Sequence[str]) -> None:
        wholes = [normal(question + answer) for question, answer in zip(questions, answers, strict=True)]
        asked = [normal(question) for question in questions]
        self.items = len(wholes)
        self._asked = np.array([hash64(text) for text in asked], np.uint64)
        grams, starts = pieces(wholes, GRAM)
        long = np.array([len(text) >= GRAM for text in wholes])
        self._owner = _owners(starts)
        self._known, self._place = np.unique(grams, return_inverse=True)
        self._countable = long[self._owner]
        self._seen = np.zeros(len(self._known), bool)
        self._signed = signatures(wholes)
        self._buckets: dict[int, list[int]] = {}
        for item, row in enumerate(_numbered(bands(self._signed)).tolist()):
            for key in row:
                self._buckets.setdefault(key, []).append(item)
        self._keys = np.array(sorted(self._buckets), np.uint64)
        self.asked_again: set[int] = set()
        self.nearly: set[int] = set()

    def compare(self, wholes: Sequence[str], asked: U64, signed: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Look for the questions in a batch of training records.

        Args:
            wholes: the records in normal form.
            asked: the hashes of their questions' normal forms.

        Returns:
            Which records share a 15-character piece, a question or nearly the whole with an evaluation item.
        """
        grams, starts = pieces(wholes, GRAM)
        place = np.minimum(np.searchsorted(self._known, grams), len(self._known) - 1)
        shared = self._known[place] == grams
        self._seen[place[shared]] = True
        hit = np.bincount(_owners(starts)[shared], minlength=len(wholes)) > 0
        same = np.isin(asked, self._asked)
        if same.any():
            self.asked_again.update(np.flatnonzero(np.isin(self._asked, asked[same])).tolist())
        return np.asarray(hit | same | self._near(signed))

    def _near(self, signed: NDArray[np.uint16]) -> NDArray[np.bool_]:
        keys = _numbered(bands(signed))
        rows, columns = np.nonzero(np.isin(keys, self._keys))
        found = np.zeros(len(signed), bool)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            items = self._buckets[int(keys[row, column])][:NEIGHBOURS]
            alike = [item for item in items if similarity(signed[row], self._signed[item]) >= THRESHOLD]
            found[row] |= bool(alike)
            self.nearly.update(alike)
        return found

    def covered(self) -> NDArray[np.float64]:
        """For every item the share of its 15-character pieces that some training record has (0 for shorter items)."""
        seen = (self._seen[self._place] & self._countable).astype(np.float64)
        total = np.bincount(self._owner, minlength=self.items)
        return np.asarray(np.bincount(self._owner, seen, self.items) / np.maximum(total, 1))


def _owners(starts: U64) -> NDArray[np.int64]:
    """The text that each piece belongs to."""
    counts: NDArray[np.int64] = starts[1:].astype(np.int64) - starts[:-1].astype(np.int64)
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _numbered(hashes: U64) -> U64:
    """Band hashes made different by the band they belong to."""
    places: U64 = np.arange(hashes.shape[1], dtype=np.uint64)
    return _mixed(np.add(hashes, places, dtype=np.uint64))
