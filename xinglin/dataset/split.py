"""Split diseases so that no held-out disease has a close relative in training.

Diseases that share an alias, a stripped name (小儿肺炎 / 肺炎) or most of their symptoms
(Jaccard ≥ 0.6) form a group; a group's name is hashed, and a tenth of the groups is held out.
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from xinglin.dataset.clean import Entry

_MODIFIERS = re.compile(
    "^(小儿|儿童|新生儿|婴儿|婴幼儿|老年人?|妊娠期?|妊娠合并|急性|慢性|亚急性|原发性|继发性|先天性|获得性|特发性|家族性"
    "|遗传性|复发性|外伤性|良性|恶性|重症|轻度|重度|早期|晚期|单纯性)+"
)
_JACCARD = 0.6


def stripped(name: str) -> str:
    """A disease's name without 小儿, 慢性 and the like before it; the name where nothing much would be left."""
    rest = _MODIFIERS.sub("", name)
    return rest if len(rest) > 1 else name


class _Union:
    """Disjoint sets of names; the root of a set is its smallest name, so that the order of joining is nothing."""

    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self.parent[high] = low


def groups(entries: list[Entry]) -> dict[str, str]:
    """Map each subject's name to the name of its group."""
    union = _Union(entry.name for entry in entries)
    keys: dict[str, str] = {}
    for entry in entries:
        for key in (entry.name, *entry.aliases, stripped(entry.name)):
            union.join(entry.name, keys.setdefault(key, entry.name))
    for one, other in similar_pairs({entry.name: entry.raw.get("symptoms", ()) for entry in entries}):
        union.join(one, other)
    return {entry.name: union.root(entry.name) for entry in entries}


def similar_pairs(sets: dict[str, tuple[str, ...]], threshold: float = _JACCARD) -> list[tuple[str, str]]:
    """Pairs of names whose sets have a Jaccard index of at least `threshold`.

    Exact, by prefix filtering: two such sets share one of their rarest few elements.
    Source: Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins", ICDE 2006.
    """
    members = {name: frozenset(items) for name, items in sets.items()}
    count = Counter(item for items in members.values() for item in items)
    index: dict[str, list[str]] = defaultdict(list)
    pairs = []
    for name, items in members.items():
        ordered = sorted(items, key=lambda item: (count[item], item))
        prefix = ordered[: len(ordered) - math.ceil(threshold * len(ordered)) + 1]
        for other in sorted({candidate for item in prefix for candidate in index[item]}):
            shared = len(members[name] & members[other])
            if shared >= threshold * (len(members[name]) + len(members[other]) - shared):
                pairs.append((name, other))
        for item in prefix:
            index[item].append(name)
    return pairs


def held_out(entries: list[Entry], share: float = 0.1) -> set[str]:
    """Names of the subjects that training must never see; the same for every seed and machine."""

    def bucket(group: str) -> float:
        return int.from_bytes(hashlib.sha256(group.encode()).digest()[:4]) / 2**32

    return {name for name, group in groups(entries).items() if bucket(group) < share}
