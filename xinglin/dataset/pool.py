"""The subjects of one split, with the indexes that question forms look things up in."""

from collections import defaultdict
from functools import cached_property

from xinglin.dataset.clean import Entry
from xinglin.knowledge.terms import normalize


class Pool:
    """One split's subjects; distractors, pairs and negatives come from it, so that no split sees another.

    Args:
        everyone: the subjects of all splits, only to tell which signs are one disease's alone.
    """

    def __init__(self, entries: list[Entry], everyone: list[Entry] | None = None) -> None:
        self.entries = entries
        self._everyone = entries if everyone is None else everyone
        self._by_topic: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            for topic in entry.facts:
                self._by_topic[topic].append(entry)

    def having(self, topic: str) -> list[Entry]:
        """The subjects of which something may be said on a topic."""
        return self._by_topic.get(topic, [])

    @cached_property
    def diseases(self) -> list[Entry]:
        """The diseases."""
        return [entry for entry in self.entries if entry.kind == "disease"]

    @cached_property
    def department(self) -> dict[str, list[Entry]]:
        """Department → diseases with symptoms that are seen there."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.having("symptoms"):
            for name in entry.objects("department"):
                found[name].append(entry)
        return found

    @cached_property
    def showing(self) -> dict[str, set[str]]:
        """Symptom → names of all the graph's diseases that show it, unfiltered ones and other splits' included."""
        found: dict[str, set[str]] = defaultdict(set)
        for entry in (one for one in self._everyone if one.kind == "disease"):
            for sign in {*map(normalize, entry.raw.get("symptoms", ())), *entry.objects("symptoms")}:
                found[sign].add(entry.name)
        return found

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Name → subject."""
        return {entry.name: entry for entry in self.entries}
