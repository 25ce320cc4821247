"""What the linker looks for: the graph's subjects, their other names, what is said of them, and everyday expressions.

阿托伐他汀钙片 (subject), 阿托伐他汀 (its base name) · 血糖检查, 血糖 · 腹泻 (object), 拉肚子 (everyday)
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from xinglin.errors import UserError
from xinglin.knowledge.graph import Graph
from xinglin.knowledge.policy import ALIASES, ANSWERABLE
from xinglin.knowledge.rules import SUPPORT, reject
from xinglin.knowledge.terms import broken, is_chinese, normalize, split_names
from xinglin.knowledge.words import BLOCKERS, EVERYDAY, GENERIC

KINDS = ("disease", "symptom", "examination", "department", "drug", "herb", "other")
"""Kinds of entities. `other`: causes, places in the body, treatments, effects."""

_TOPIC_KIND = {
    "department": "department",
    "examinations": "examination",
    "symptoms": "symptom",
    "diseases": "disease",
    "complications": "disease",
}
"""Topics whose objects are of a kind; the first decides for a term of several topics. The others' are `other`."""
_DISEASE = re.compile("(病|炎|癌|瘤|症|毒|感染|综合征|溃疡|骨折|结核|中毒|硬化|贫血|出血)$")
_MATERIAL = 20  # formulas that name a drug of two characters; rarer ones are everyday words (一生, 平坦)
_SALTS = (
    "盐酸|硫酸|苯磺酸|甲磺酸|甲苯磺酸|富马酸|马来酸|酒石酸|枸橼酸|磷酸|醋酸|乙酸|琥珀酸|氢溴酸|重酒石酸|乳酸|草酸|硝酸|苯甲酸|门冬氨酸|精氨酸"
    "|葡萄糖酸|丙酸|棕榈酸|糠酸|丁酸|戊酸"
)
_FORMS = (
    "片|胶囊|软胶囊|颗粒|注射液|口服液|口服溶液|软膏|乳膏|眼膏|滴眼液|滴鼻液|滴耳液|滴剂|混悬液|干混悬剂|缓释片|控释片|分散片|肠溶片|咀嚼片|泡腾片|缓释胶囊"
    "|肠溶胶囊|糖浆|散|栓|凝胶|喷雾剂|鼻喷雾剂|气雾剂|粉雾剂|吸入剂|吸入粉雾剂|粉吸入剂|溶液|洗液|搽剂|注射剂|贴剂|贴片|滴丸|酊|丸|阴道片|含片|氯化钠注射液"
    "|葡萄糖注射液"
)
_DRUG = re.compile(f"(?:注射用|外用|口服|复方)?(?:{_SALTS})?(?P<base>.{{2,}}?)(?:钠|钾|钙|镁)?(?:{_FORMS})?$")
_EXAMINED = re.compile("(?P<base>.{2,}?)(?:的)?(检查|测定|检测|试验|检验|定量|定性|分析)$")


@dataclass(frozen=True)
class Term:
    """What a term stands for: the graph's own name, and its kind."""

    entity: str
    kind: str


def vocabulary(graph: Graph, lay_terms: str | Path = "") -> dict[str, Term]:
    """Term → what it stands for; earlier sources win over later ones. A `*` in a term stands for a few characters.

    Args:
        lay_terms: another table of everyday expressions than the packaged one.

    Raises:
        UserError: as `read_lay_terms`, or a table of one's own that names something the graph has not.
    """
    objects = _objects(graph)
    terms: dict[str, Term] = {}
    subjects = {normalize(name) for name in graph.names}
    said, other = _said(objects, graph, kinds=True), _said(objects, graph, kinds=False)
    for source in (_subjects(graph), said, _aliases(graph), _shorter(graph, objects), other):
        for text, term in source:
            terms.setdefault(text, term)
    for text, (target, where) in read_lay_terms(lay_terms).items():
        topic = next((topic for topic, said in objects.items() if target in said), None)
        if target not in terms and topic:
            terms[target] = Term(target, _TOPIC_KIND.get(topic, "other"))
        if target in terms and text not in subjects:
            terms[text] = terms[target]  # written by hand, so it wins over all but the graph's own subjects
        elif target in terms:
            continue
        elif lay_terms:
            raise UserError(f"{where}: {target!r} is not in the graph; give the graph's own name for {text!r}")
    return terms


def _objects(graph: Graph) -> dict[str, Counter[str]]:
    """Topic → object → how many facts state it; the topics that decide a kind first."""
    order = [*_TOPIC_KIND, *(topic for topic in ANSWERABLE if topic not in _TOPIC_KIND)]
    return {topic: Counter(normalize(fact.object) for fact in graph.select(ANSWERABLE[topic])) for topic in order}


def _usable(text: str, kind: str) -> bool:
    if text in BLOCKERS or text in EVERYDAY or broken(text) or (kind == "drug" and len(text) < 3):
        return False
    return is_chinese(text) or kind in ("examination", "drug")


def _subjects(graph: Graph) -> Iterator[tuple[str, Term]]:
    for name, kind in graph.subjects():
        text = normalize(name)
        if _usable(text, kind):
            yield text, Term(text, {"formula": "herb"}.get(kind, kind if kind in KINDS else "other"))


def _aliases(graph: Graph) -> Iterator[tuple[str, Term]]:
    """Other names that only one subject claims."""
    kinds = {normalize(name): kind for name, kind in graph.subjects()}
    claims: dict[str, set[str]] = {}
    for fact in graph.select(ALIASES):
        for alias in split_names(fact.object):
            claims.setdefault(alias, set()).add(normalize(fact.subject))
    for alias, owners in sorted(claims.items()):
        owner = min(owners)
        if len(owners) == 1 and _usable(alias, ""):
            yield alias, Term(owner, {"formula": "herb"}.get(kinds[owner], kinds[owner]))


def _said(objects: dict[str, Counter[str]], graph: Graph, *, kinds: bool) -> Iterator[tuple[str, Term]]:
    """What is said of subjects, where more than one fact says it or its form shows that it is whole.

    Args:
        kinds: the topics whose objects are of a kind, or the others.
    """
    total = sum(objects.values(), Counter[str]())
    for topic, said in objects.items():
        if (topic in _TOPIC_KIND) is not kinds:
            continue
        kind = _TOPIC_KIND.get(topic, "other")
        for text, times in sorted(said.items()):
            if topic != "infectious" and _usable(text, kind) and text not in GENERIC[topic]:
                shaped = times >= SUPPORT.get(topic, 1) and not reject(topic, text, graph)
                if shaped or (total[text] > 1 and kind not in ("symptom", "other")):
                    yield text, Term(text, "disease" if kind == "other" and _DISEASE.search(text) else kind)


def _shorter(graph: Graph, objects: dict[str, Counter[str]]) -> Iterator[tuple[str, Term]]:
    """Shorter names: examinations without 检查, drugs without salt and form, materials that many formulas hold."""
    names = Counter(normalize(fact.object) for fact in graph.select(("通用名", "成份")))
    names.update(normalize(name) for name, kind in graph.subjects() if kind == "drug")
    for text, times in sorted(names.items()):
        found = _DRUG.match(text)
        for base in (text, found["base"] if found else text):
            if _usable(base, "drug"):
                yield base, Term(base, "drug")
        if len(text) == 2 and times >= _MATERIAL and _usable(text, "herb"):
            yield text, Term(text, "herb")
    examinations = [normalize(name) for name, kind in graph.subjects() if kind == "examination"]
    for text in sorted({*examinations, *objects["examinations"]}):
        base = found["base"] if (found := _EXAMINED.match(text)) else ""
        named = len(base) > 2 or re.search("[血尿便肝肾肺脂糖酶氨酮钾钠钙铁镁]", base)
        if named and _usable(text, "examination") and _usable(base, "examination"):
            yield base, Term(text, "examination")


def topic_words(graph: Graph) -> dict[str, list[str]]:
    """Topic → what may be said on it, everyday words too; for the topics whose objects are of no kind."""
    return {
        topic: sorted(text for text in said if topic != "infectious" and not reject(topic, text, graph))
        for topic, said in _objects(graph).items()
        if topic not in _TOPIC_KIND
    }


def read_lay_terms(path: str | Path = "") -> dict[str, tuple[str, str]]:
    """Everyday expression → (medical name, where it stands); the packaged table unless a path is given.

    Raises:
        UserError: no such file, a line that is not two columns, or an expression that leads back to itself.
    """
    name = str(path) or "lay_terms.tsv"
    try:
        source = Path(path) if path else resources.files("xinglin.knowledge").joinpath("lay_terms.tsv")
        lines = source.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 (byte {error.start})") from None
    table: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [normalize(cell) for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise UserError(f"{name}:{number}: expected two columns with a tab between, got {line[:60]!r}")
        if cells[0] in table and table[cells[0]][0] != cells[1]:
            raise UserError(
                f"{name}:{number}: {cells[0]!r} was {table[cells[0]][0]!r} in {table[cells[0]][1]}; keep one"
            )
        table[cells[0]] = (cells[1], f"{name}:{number}")
    for text, (target, where) in table.items():
        if target in table:
            raise UserError(f"{where}: {text} → {target} → {table[target][0]}; name the medical term at once")
    return table
