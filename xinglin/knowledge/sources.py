"""Read knowledge graphs. The default is cMeKG: `{subject: {predicate: [objects]}}` in a pickle.

    {"偏头痛": {"就诊科室": ["神经内科"], "临床症状及体征": ["呕吐", "畏光", …]}, …}

A pickle can run code when it is read. This one needs no class at all, so the reader refuses every one.
"""

import pickle
from pathlib import Path
from typing import Any

from xinglin.errors import UserError

Triples = dict[str, dict[str, list[str]]]


class _PlainUnpickler(pickle.Unpickler):
    """Builds only what the format itself knows: dicts, lists, text and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_cmekg(path: str | Path) -> Triples:
    """Read the cMeKG pickle without running anything from it.

    Raises:
        UserError: the file is missing, asks for a class, or is not the graph's structure.
    """
    try:
        with open(path, "rb") as file:
            graph = _PlainUnpickler(file).load()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a broken pickle may raise nearly anything
        raise UserError(f"{path}: refused, not a plain cMeKG file ({error})") from None
    if not _is_graph(graph):
        raise UserError(f"{path}: not a graph of the form {{subject: {{predicate: [objects]}}}}")
    return graph  # type: ignore[no-any-return]


def _is_graph(graph: Any) -> bool:
    return (
        isinstance(graph, dict)
        and all(isinstance(name, str) and isinstance(facts, dict) for name, facts in graph.items())
        and all(isinstance(objects, list) for facts in graph.values() for objects in facts.values())
    )
