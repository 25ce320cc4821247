"""Words of the graph that are no answers: too general, forced into another meaning, or everyday words (words.yaml)."""

from importlib import resources

import yaml

_WORDS = yaml.safe_load(resources.files("xinglin.knowledge").joinpath("words.yaml").read_text("utf-8"))

GENERIC: dict[str, frozenset[str]] = {topic: frozenset(words.split()) for topic, words in _WORDS["generic"].items()}
"""Topic → words too general to answer with."""

FORCED: frozenset[str] = frozenset(_WORDS["forced"].split())
"""Disease names that the graph's makers put where a plain symptom stood (溃疡 became 溃疡病)."""

BLOCKERS: frozenset[str] = frozenset(_WORDS["blockers"].split())
"""Everyday and composite words that hold a term without meaning it; matched and passed over."""

EVERYDAY: frozenset[str] = frozenset(_WORDS["everyday"].split())
"""Objects of the graph that name no sign, disease, place in the body or effect by themselves; never terms."""
