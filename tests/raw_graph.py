"""The raw graph and the default build, for tests that judge answers without the linker's help.

The judging side compares texts as they stand, after a normalisation of its own; of `xinglin` it uses only the reader
of the graph's file.
"""

import re
import unicodedata
from collections import defaultdict
from functools import cache, lru_cache

from xinglin import assets
from xinglin.dataset.build import DataBuild, build_examples
from xinglin.dataset.clean import clean
from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.link import Linker
from xinglin.knowledge.sources import read_cmekg
from xinglin.records import Example

PREDICATES = {
    "症状": ("常见症状", "临床症状及体征"),
    "病因": ("病因", "常见病因"),
    "检查": ("检查", "影像学检查", "实验室检查", "辅助检查"),
    "并发症": ("并发症",),
    "治疗方法": ("治疗", "手术治疗", "辅助治疗", "放射治疗"),
    "就诊科室": ("就诊科室",),
    "发病部位": ("常见发病部位", "发病部位"),
    "多发人群": ("多发群体",),
    "传染性": ("传染性",),
    "传播途径": ("传播途径",),
    "相关疾病": ("相关疾病",),
    "功效": ("功效",),
    "别名": ("别称", "同义词", "又称"),
    "ICD-10编码": ("ICD10",),
}
"""A word of lines and answers → the raw predicates that it may stand for."""


@lru_cache(1 << 18)
def plain(text: str) -> str:
    """NFKC, without spaces, every dash as `-`, 嚢 as 囊."""
    text = "".join(unicodedata.normalize("NFKC", text).replace("嚢", "囊").split())
    return "".join("-" if unicodedata.category(one) == "Pd" else one for one in text)


@cache
def raw_graph() -> dict[str, dict[str, set[str]]]:
    """Subject → predicate → objects, all plain; one text may hold several departments or other names."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for fact in read_cmekg(assets.fetch("cmekg"), "raw"):
        several = fact.predicate in ("就诊科室", *PREDICATES["别名"])
        objects = re.split("[;；、]", fact.object) if several else [fact.object]
        found[plain(fact.subject)][fact.predicate].update(map(plain, objects))
    for said in found.values():
        if "无传染性" in said.get("传染性", ()):
            said["传染性"].add("无")  # the two spellings of one answer
    return {name: dict(said) for name, said in found.items()}


def raw_objects(subject: str, word: str) -> set[str]:
    """Everything that the raw graph says of a subject under the predicates of a word."""
    said = raw_graph().get(subject, {})
    return {one for predicate in PREDICATES[word] for one in said.get(predicate, ())}


def cited(example: Example) -> set[tuple[str, str, str]]:
    """The triples that a record cites, plain."""
    return {(plain(subject), predicate, plain(object_)) for subject, predicate, object_ in example.facts}


@cache
def real_linker() -> Linker:
    return Linker.from_graph(load_cmekg())


@cache
def real_examples() -> tuple[Example, ...]:
    """All records of the default build; made once for all test files."""
    graph = load_cmekg()
    return tuple(build_examples(clean(graph), graph, DataBuild(), real_linker()).examples)
