"""What is asked: questions about unseen diseases, and the two questions of the report this work continues."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from xinglin.errors import UserError
from xinglin.knowledge.graph import Graph
from xinglin.knowledge.policy import ANSWERABLE
from xinglin.knowledge.rules import reject
from xinglin.records import Example, Turn

_FIRST = "小张最近出现心悸、气促的症状，伴有心脏扩大的体征，可能是患了什么病？"
_SECOND = "麻风病和儿童哮喘的病因是否一致？"
_SECOND_SUBJECTS = ("麻风", "小儿支气管哮喘")  # the graph's names for the two
_NOT_HIM = re.compile("小儿|儿童|新生儿|婴|妊娠|产后")
_SIGNS = ("心悸", "气促", "心脏扩大")


def without_knowledge(example: Example) -> Example:
    """The same question, closed-book."""
    turns = tuple(replace(turn, input="") for turn in example.turns)
    return replace(example, turns=turns, knowledge="none")


def unseen_questions(records: Sequence[Example], number: int) -> list[Example]:
    """The first `number` held-out records (the build has shuffled them), each with facts and a distractor.

    Raises:
        UserError: there are fewer.
    """
    unseen = [record for record in records if record.split == "unseen_disease" and record.knowledge == "facts"]
    if len(unseen) < number:
        raise UserError(f"num_questions {number}: the records hold only {len(unseen)} questions on unseen diseases")
    return unseen[:number]


def report_questions(graph: Graph) -> list[Example]:
    """The report's own two questions, with what the graph has on them in `input`."""
    first = [f"{name}的症状：{'、'.join(signs)}" for name, signs in _fitting(graph, _SIGNS)]
    second = []
    for name in _SECOND_SUBJECTS:
        for predicate in ("病因", "常见病因"):
            objects = graph.get(name).facts.get(predicate, []) if name in graph else []
            kept = [one for one in objects if not reject("causes", one, graph)][:4]
            if kept:
                second.append(f"{name}的病因：{'、'.join(kept)}")
                break
    asked = ((_FIRST, first), (_SECOND, second))
    return [
        Example(id=f"report-{number}", turns=(Turn("user", text, "\n".join(lines)),), form="report")
        for number, (text, lines) in enumerate(asked, 1)
    ]


def _fitting(graph: Graph, signs: Sequence[str], number: int = 2) -> list[tuple[str, list[str]]]:
    """Adults' diseases that show at least two of some signs, the rarest signs first, and which signs they show."""
    shown: dict[str, list[str]] = {}
    for disease in graph.of_type("disease"):
        symptoms = {one for key in ANSWERABLE["symptoms"] for one in disease.facts.get(key, ())}
        shown[disease.name] = [sign for sign in signs if sign in symptoms]
    support = Counter(sign for found in shown.values() for sign in found)
    fitting = [name for name, found in shown.items() if len(found) >= 2 and not _NOT_HIM.search(name)]
    fitting.sort(key=lambda name: (-sum(1 / support[sign] for sign in shown[name]), name))
    return [(name, shown[name]) for name in fitting[:number]]
