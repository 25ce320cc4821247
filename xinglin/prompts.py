"""Prompt templates: load by name or path, render a conversation, export as a chat template.

A template is a JSON file in the field's usual form (alpaca-lora's files work as they are):

    {"description": "…", "preface": "…", "prompt_input": "…{instruction}…{input}…", "prompt_no_input": "…"}

`preface` (optional) comes once, before the first turn, and gives way to a system turn;
the two prompts are repeated for every user turn, the answer and the end-of-sequence token follow.
Packaged templates are found from any working folder.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from xinglin.errors import UserError, nearest
from xinglin.records import Turn, atomic_write


@dataclass(frozen=True)
class PromptTemplate:
    """How a conversation becomes text."""

    name: str
    preface: str
    prompt_input: str
    prompt_no_input: str
    description: str = ""

    def user(self, turn: Turn) -> str:
        """The text of one user turn, up to where the answer begins."""
        if not turn.input:
            return self.prompt_no_input.replace("{instruction}", turn.content)
        before, after = self.prompt_input.split("{input}")  # neither text is searched for the other's slot
        slots = (before.replace("{instruction}", turn.content), after.replace("{instruction}", turn.content))
        return slots[0] + turn.input + slots[1]

    def segments(self, turns: Sequence[Turn]) -> list[tuple[str, str]]:
        """Render a conversation as (role, text) pieces; the caller ends each assistant piece with EOS.

        Raises:
            UserError: roles out of order, or an unknown role.
        """
        opening, rest = self.preface, list(turns)
        if rest and rest[0].role == "system":
            opening = rest.pop(0).content + "\n\n"
        pieces = []
        for number, turn in enumerate(rest):
            expected = "assistant" if number % 2 else "user"
            if turn.role != expected:
                raise UserError(f"turn {number + 1} of a conversation is {turn.role!r}, expected {expected!r}")
            text = self.user(turn) if turn.role == "user" else turn.content
            pieces.append((turn.role, opening + text if number == 0 else text))
        return pieces

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The first prompt of a conversation, as shown to people (end tokens not included)."""
        return "".join(text for _, text in self.segments(turns))

    def chat_template(self) -> str:
        """A Jinja chat template that renders the same text.

        A message may carry `input` beside `content`; servers that drop unknown keys see the plain form.
        """
        with_input = _jinja(self.prompt_input)
        without = _jinja(self.prompt_no_input)
        return (
            "{%- set skip = 1 if messages[0]['role'] == 'system' else 0 -%}"
            "{%- for message in messages -%}"
            "{%- if loop.first and skip -%}{{ message['content'] + '\\n\\n' }}"
            f"{{%- elif loop.first -%}}{{{{ {_quote(self.preface)} }}}}{{%- endif -%}}"
            "{%- if message['role'] == 'user' -%}"
            f"{{%- if message['input'] -%}}{{{{ {with_input} }}}}{{%- else -%}}{{{{ {without} }}}}{{%- endif -%}}"
            "{%- elif message['role'] == 'assistant' -%}{{ message['content'] + eos_token }}{%- endif -%}"
            "{%- endfor -%}"
        )

    def digest(self) -> str:
        """sha256 of what decides the rendering; stored with the weights."""
        parts = json.dumps([self.preface, self.prompt_input, self.prompt_no_input], ensure_ascii=False)
        return hashlib.sha256(parts.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the template as a JSON file that `load_template` reads back."""
        with atomic_write(path) as file:
            json.dump(self.__dict__, file, ensure_ascii=False, indent=1)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _jinja(prompt: str) -> str:
    """`a{instruction}b{input}` as a Jinja expression."""
    quoted = _quote(prompt)
    return quoted.replace("{instruction}", "\" + message['content'] + \"").replace(
        "{input}", "\" + message['input'] + \""
    )


def template_names() -> list[str]:
    """Names of the packaged templates."""
    folder = resources.files("xinglin") / "templates"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_template(name: str) -> PromptTemplate:
    """Load a packaged template by name, or any template file by path.

    Raises:
        UserError: no such template (with the names there are and the nearest one), or a broken file.
    """
    if name in template_names():
        text = (resources.files("xinglin") / "templates" / f"{name}.json").read_text("utf-8")
        return _parse(text, name)
    # the relatives of this program keep templates/NAME.json in the working folder
    for path in (Path(name), Path("templates") / f"{name}.json"):
        if path.is_file():
            return _parse(path.read_text("utf-8", errors="replace"), str(path))
    names = template_names()
    raise UserError(f"unknown prompt template {name!r} (have {', '.join(names)}, or give a file){nearest(name, names)}")


def _parse(text: str, origin: str) -> PromptTemplate:
    try:
        fields: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}:{error.lineno}: template is not valid JSON ({error.msg})") from None
    for key, slots in (("prompt_input", ("{instruction}", "{input}")), ("prompt_no_input", ("{instruction}",))):
        prompt = fields.get(key) if isinstance(fields, dict) else None
        if not isinstance(prompt, str) or any(prompt.count(slot) != 1 for slot in slots):
            raise UserError(f"{origin}: template needs {key!r} with {' and '.join(slots)} exactly once")
    return PromptTemplate(
        name=fields.get("name") or Path(origin).stem,
        preface=fields.get("preface", ""),
        prompt_input=fields["prompt_input"],
        prompt_no_input=fields["prompt_no_input"],
        description=fields.get("description", ""),
    )
