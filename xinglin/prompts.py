"""Prompts: how a conversation becomes text, in pieces that say what is to be learned.

A plain base is asked through a template, a JSON file in the field's usual form (alpaca-lora's files work as they are):

    {"description": "…", "preface": "…", "prompt_input": "…{instruction}…{input}…", "prompt_no_input": "…"}

`preface` (optional) comes once, before the first turn, and gives way to a system turn;
the two prompts are repeated for every user turn, the answer and the end-of-sequence token follow.
Packaged templates are found from any working folder.

A base with a chat template of its own (Qwen, Llama 3, Gemma) is asked through that one.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from xinglin.errors import UserError, nearest, one_line
from xinglin.records import Turn, atomic_write

log = logging.getLogger(__name__)

SWITCH = "enable_thinking"
"""What chat templates with a thinking switch call it."""
KNOWLEDGE = "资料：\n"
"""What stands between a question and its knowledge in a chat: the words of the packaged prompt template."""
RUN_FILE = "xinglin.json"
"""Every folder that a run wrote has it."""
TEMPLATE_FILE, CHAT_FILE = "prompt_template.json", "chat_template.jinja"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
"""Control characters, and those that nobody sees or that turn the direction of writing."""
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation.

    Attributes:
        learned: the assistant's words, with the mark that ends them.
    """

    text: str
    learned: bool = False


@dataclass(frozen=True)
class PromptTemplate:
    """A template with slots for the question and its knowledge.

    Attributes:
        end: empty: the end-of-sequence token belongs after each answer.
        whole: false: the beginning-of-sequence token, where there is to be one, belongs before the text.
    """

    name: str
    preface: str
    prompt_input: str
    prompt_no_input: str
    description: str = ""
    end = ""
    whole = False

    @property
    def marks(self) -> tuple[str, ...]:
        """What begins a part of a turn: no answer goes on past it, and no question may bring it along."""
        heads = re.split(r"\{instruction\}|\{input\}", self.prompt_input)
        named = [line.strip() for head in heads for line in head.split("\n") if line.strip()]
        return tuple(("\n" if "\n" in self.prompt_no_input else " ") + name for name in dict.fromkeys(named))

    def user(self, turn: Turn) -> str:
        """The text of one user turn, up to where the answer begins."""
        if not turn.input:
            return self.prompt_no_input.rstrip(" ").replace("{instruction}", turn.content)
        # neither text is searched for the other's slot
        before, after = self.prompt_input.rstrip(" ").split("{input}")
        slots = (before.replace("{instruction}", turn.content), after.replace("{instruction}", turn.content))
        return slots[0] + turn.input + slots[1]

    def texts(self, turns: Sequence[Turn]) -> list[list[Piece]]:
        """Render a conversation; an end-of-sequence token belongs after each learned piece.

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
            if turn.role == "assistant":
                pieces.append(Piece(self._space + turn.content, learned=True))
            else:
                pieces.append(Piece(self.user(turn) if number else opening + self.user(turn)))
        return [pieces]

    @property
    def _space(self) -> str:
        """Spaces that the prompt ends with. Tokenizers join them to the word after them, so they are the answer's."""
        return self.prompt_no_input[len(self.prompt_no_input.rstrip(" ")) :]

    def chat_template(self, begins: str = "") -> str:
        """A Jinja chat template that renders the same text, after what every text `begins` with.

        A message may carry `input` beside `content`; servers that drop unknown keys see the plain form.
        """
        with_input, without = _jinja(self.prompt_input.rstrip(" ")), _jinja(self.prompt_no_input.rstrip(" "))
        return (
            f"{{{{ {_quote(begins)} }}}}"
            "{%- set skip = 1 if messages[0]['role'] == 'system' else 0 -%}"
            "{%- for message in messages -%}"
            "{%- if loop.first and skip -%}{{ message['content'] + '\\n\\n' }}"
            f"{{%- elif loop.first -%}}{{{{ {_quote(self.preface)} }}}}{{%- endif -%}}"
            "{%- if message['role'] == 'user' -%}"
            f"{{%- if message['input'] -%}}{{{{ {with_input} }}}}{{%- else -%}}{{{{ {without} }}}}{{%- endif -%}}"
            "{%- elif message['role'] == 'assistant' -%}"
            f"{{{{ {_quote(self._space)} + message['content'] + eos_token }}}}{{%- endif -%}}"
            "{%- endfor -%}"
        )

    def digest(self) -> str:
        """sha256 of what decides the rendering; stored with the weights."""
        parts = json.dumps([self.preface, self.prompt_input, self.prompt_no_input], ensure_ascii=False)
        return hashlib.sha256(parts.encode()).hexdigest()

    def save(self, folder: Path, begins: str = "") -> None:
        """Write the template as a file that `load_template` reads back, and as a chat template."""
        with atomic_write(folder / TEMPLATE_FILE) as file:
            json.dump(self.__dict__, file, ensure_ascii=False, indent=1)
        with atomic_write(folder / CHAT_FILE) as file:
            file.write(self.chat_template(begins))


@dataclass(frozen=True)
class ChatPrompt:
    """The base's own chat template. Its texts hold every special token, the one that begins the text included.

    Attributes:
        inner: a transformers tokenizer, which renders.
        source: the template, in Jinja.
        thinking: for templates with a switch: whether answers begin with reasoning. None leaves it to each answer
            that is known, and else to the template.
    """

    name: str
    inner: Any
    source: str
    thinking: bool | None = None
    whole = True
    marks = ()  # its turns are parted by special tokens

    def texts(self, turns: Sequence[Turn]) -> list[list[Piece]]:
        """Render a conversation.

        Some templates (Qwen3's) drop from earlier answers what they asked for them with. Then the conversation
        becomes several texts, one for each answer, so that training sees what inference asks.

        Raises:
            UserError: the template refuses the conversation.
        """
        texts: list[list[Piece]] = []
        done = rest = ""  # what the last text holds so far, and what the template puts after its last answer

        def close() -> None:
            if rest:
                texts[-1].append(Piece(rest))

        for place, turn in enumerate(turns):
            if turn.role == "assistant":
                asked, answer, after = self._answered(turns[: place + 1])
            elif place == len(turns) - 1:
                asked, answer, after = self._render(turns, ask=True, thinking=self.thinking), "", ""
            else:
                continue
            if texts and asked.startswith(done + rest):
                texts[-1].append(Piece(asked[len(done) :]))
            else:
                close()
                texts.append([Piece(asked)])
            if answer:
                texts[-1].append(Piece(answer, learned=True))
            done, rest = asked + answer, after
        close()
        return texts

    def _answered(self, turns: Sequence[Turn]) -> tuple[str, str, str]:
        """(what asks for the last turn, the answer with its end, what the template puts after that)."""
        thinking = reasons(turns[-1].content) if self.thinking is None else self.thinking
        if thinking is False:  # asked for without reasoning, so answered without it
            turns = [*turns[:-1], replace(turns[-1], content=_THOUGHT.sub("", turns[-1].content, count=1))]
        asked, whole = self._render(turns[:-1], ask=True, thinking=thinking), self._render(turns, thinking=thinking)
        tail = whole[len(asked) :]
        if not whole.startswith(asked) or self.end not in tail:  # it shows answers otherwise than it asks for them
            return asked, turns[-1].content + self.end, ""
        empty = _THOUGHT.match(tail)
        skipped = empty.end() if empty and not empty[1].strip() else 0
        cut = tail.rindex(self.end) + len(self.end) if self.end else len(tail)
        return asked + tail[:skipped], tail[skipped:cut], tail[cut:]

    @cached_property
    def end(self) -> str:
        """The text of the one token that ends an answer; empty when the template has none, and EOS is to be added."""
        after = self._render(_PROBE, thinking=None).rpartition(_PROBE[-1].content)[2].strip()
        return after if len(self.inner.encode(after, add_special_tokens=False)) == 1 else ""

    @cached_property
    def _knows_system(self) -> bool:
        """Whether the template has a place for a system turn (Gemma's refuses one)."""
        mark = _PROBE[0].content
        messages = {"role": "system", "content": mark}, {"role": "user", "content": _PROBE[1].content}
        try:
            return mark in self._apply(messages, True, None)
        except UserError:
            return False

    def _render(self, turns: Sequence[Turn], *, ask: bool = False, thinking: bool | None) -> str:
        messages = [{"role": turn.role, "content": with_knowledge(turn)} for turn in turns]
        if len(messages) > 1 and messages[0]["role"] == "system" and not self._knows_system:
            first = messages.pop(0)
            messages[0]["content"] = first["content"] + "\n\n" + messages[0]["content"]
        return self._apply(messages, ask, thinking)

    def _apply(self, messages: Sequence[dict[str, str]], ask: bool, thinking: bool | None) -> str:
        options = {} if thinking is None else {"enable_thinking": thinking}
        try:
            return str(
                self.inner.apply_chat_template(
                    list(messages), chat_template=self.source, tokenize=False, add_generation_prompt=ask, **options
                )
            )
        except Exception as error:  # a template may raise what it likes
            raise UserError(f"the chat template {self.name!r} refuses a conversation: {one_line(error)}") from None

    def thinks(self, default: bool) -> "ChatPrompt":
        """The same, rendering with (or without) reasoning where nobody says otherwise."""
        if SWITCH not in self.source:
            return self
        value = "true" if default else "false"
        return replace(self, source=f"{{%- set {SWITCH} = {SWITCH} | default({value}) -%}}{self.source}")

    def digest(self) -> str:
        """sha256 of what decides the rendering; stored with the weights."""
        return hashlib.sha256(f"{self.source}\0{self.thinking}".encode()).hexdigest()

    def save(self, folder: Path, begins: str = "") -> None:
        """Write the template, which `open_prompt` reads back; it begins as it does."""
        with atomic_write(folder / CHAT_FILE) as file:
            file.write(self.source)


Prompt = PromptTemplate | ChatPrompt
"""How conversations become text. `texts`, `end` and `whole` are all that encoding needs; `marks` tell turns apart."""

_PROBE = (Turn("user", "甲"), Turn("assistant", "乙"))


def prompt_text(prompt: Prompt, turns: Sequence[Turn]) -> str:
    """The text before the next answer, as shown to people."""
    return "".join(piece.text for piece in prompt.texts(turns)[-1])


def disarmed(turn: Turn, marks: Sequence[str]) -> Turn:
    """A user's turn that cannot end itself: marks in it are broken by a space, control characters are gone.

    Args:
        marks: of the prompt, and the texts of the base's special tokens.
    """
    if turn.role != "user":
        return turn

    def safe(text: str) -> str:
        text = "\n" + _CONTROL.sub("", text)
        for mark in marks:
            cut = len(mark) - len(mark.lstrip()) + 1
            text = text.replace(mark, f"{mark[:cut]} {mark[cut:]}")
        return text[1:]

    return replace(turn, content=safe(turn.content), input=safe(turn.input))


def with_knowledge(turn: Turn) -> str:
    """A turn's text with the knowledge it brings along, where there is no other place for it."""
    return f"{turn.content}\n{KNOWLEDGE}{turn.input}" if turn.input else turn.content


def reasons(answer: str) -> bool:
    """Whether an answer begins with reasoning of its own."""
    thought = _THOUGHT.match(answer)
    return thought is not None and bool(thought[1].strip())


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
    names = ["auto", "chat", *template_names()]
    raise UserError(f"unknown prompt template {name!r} (have {', '.join(names)}, or give a file){nearest(name, names)}")


def open_prompt(name: str, inner: Any, stored: str = "") -> Prompt:
    """The prompt for a base.

    Args:
        name: `auto`, `chat`, or as `load_template`; a file that ends in .jinja is a chat template. `auto` is the stored
            one, else the base's own chat template, else `med_template`.
        inner: the base's transformers tokenizer.
        stored: the folder of a base or adapter; what `finetune` left there counts.

    Raises:
        UserError: as `load_template`, or `chat` for a base without a chat template.
    """
    kept = stored_prompt(stored, inner) if name in ("auto", "chat") else None
    if kept and (name == "auto" or isinstance(kept, ChatPrompt)):
        return kept
    own = getattr(inner, "chat_template", None)
    own = own.get("default") if isinstance(own, dict) else own
    if name == "auto" and not own:
        return load_template("med_template")
    if name in ("auto", "chat"):
        if not own:
            raise UserError("prompt template 'chat': the base has no chat template; give med_template or a file")
        return ChatPrompt("chat", inner, own)
    if name.endswith(".jinja") and Path(name).is_file():
        return ChatPrompt(name, inner, Path(name).read_text("utf-8", errors="replace"))
    return load_template(name)


def choose_thinking(prompt: Prompt, asked: str) -> Prompt:
    """Set the thinking switch: `true`, `false`, or `auto` for as it is.

    Raises:
        UserError: the prompt has no such switch.
    """
    if asked == "auto":
        return prompt
    if not isinstance(prompt, ChatPrompt) or SWITCH not in prompt.source:
        raise UserError(f"enable_thinking {asked}: prompt {prompt.name!r} has no thinking switch; leave it at auto")
    return replace(prompt, thinking=asked == "true")


def stored_prompt(folder: str, inner: Any) -> Prompt | None:
    """The prompt that lies with tuned weights, if any; a base's own file is none."""
    if not folder or not any((Path(folder) / name).is_file() for name in (RUN_FILE, "adapter_config.json")):
        return None
    if (Path(folder) / TEMPLATE_FILE).is_file():
        return load_template(str(Path(folder) / TEMPLATE_FILE))
    chat = Path(folder) / CHAT_FILE
    return ChatPrompt("chat", inner, chat.read_text("utf-8")) if chat.is_file() else None


def check_name(name: str) -> None:
    """Refuse a prompt that cannot be opened whatever the base is, before the base is loaded.

    Raises:
        UserError: as `load_template`.
    """
    if name not in ("auto", "chat") and not (name.endswith(".jinja") and Path(name).is_file()):
        load_template(name)


def _parse(text: str, origin: str) -> PromptTemplate:
    try:
        fields: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}:{error.lineno}: template is not valid JSON ({error.msg})") from None
    if isinstance(fields, dict) and not isinstance(fields.get("preface", ""), str):
        raise UserError(f"{origin}: 'preface' must be text")
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
