"""QASystemOnMedicalKG's `medical.json`: one disease a line, here as facts under the graph's own predicates.

    {"name": "百日咳", "symptom": ["低热", …], "cure_department": ["儿科", "小儿内科"], "get_way": "呼吸道传播", …}

Its symptoms hold doctors' names and its complications were cut by a dictionary: `xinglin kg check` after the import.
"""

from collections.abc import Iterator
from typing import Any

from xinglin.errors import UserError

PREDICATES = {
    "desc": "简介",
    "category": "分类",
    "symptom": "常见症状",
    "check": "检查",
    "acompany": "并发症",
    "cure_department": "就诊科室",
    "cure_way": "治疗",
    "cure_lasttime": "治疗周期",
    "cause": "病因",
    "prevent": "预防",
    "easy_get": "多发群体",
    "get_way": "传播途径",
    "common_drug": "药物治疗",
    "recommand_drug": "药物治疗",
    "do_eat": "宜食",
    "recommand_eat": "宜食",
    "not_eat": "忌食",
}
"""Key → the graph's predicate. `desc`, `cause` and `prevent` hold whole paragraphs."""

SKIPPED = {
    "_id": "a number of the database it came from",
    "name": "the subject",
    "get_prob": "a share of ill people without the population or the year",
    "cured_prob": "a cure rate without treatment, stage or source",
    "cost_money": "prices of one time and place",
    "yibao_status": "insurance rules that have changed since",
    "drug_detail": "brands and makers",
}
"""Keys that give no fact, and why."""

_ROOT = "疾病百科"  # the encyclopaedia itself heads every category
_NOT_INFECTIOUS = "无传染性"  # stands where a route of transmission should


def is_medical(record: dict[str, Any]) -> bool:
    """Whether a JSON record is one of this format."""
    return "name" in record and not PREDICATES.keys().isdisjoint(record)


def medical_facts(record: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield (predicate, object) of one disease, each once (a recommended drug is a common one too).

    Raises:
        UserError: a value that is neither text nor a list of texts.
    """
    found: dict[tuple[str, str], None] = {}
    for key, predicate in PREDICATES.items():
        objects = texts(record.get(key), f"{where}: {key!r}")
        if key == "cure_department":
            objects = objects[-1:]  # from the general to the special
        for text in objects:
            if text == _NOT_INFECTIOUS and key == "get_way":
                found["传染性", "无"] = None
            elif text != _ROOT:
                found[predicate, text] = None
    return iter(found)


def texts(value: Any, where: str) -> list[str]:
    """A JSON value as texts: one, several in lists, or none.

    Raises:
        UserError: it is an object or a truth value.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, list):
        return [text for one in value for text in texts(one, where)]
    kind = "true or false" if isinstance(value, bool) else "an object"
    raise UserError(f"{where} must be text or a list of texts, got {kind}")
