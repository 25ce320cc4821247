"""Talk in the terminal: grounded in the graph, red flags first.

    xinglin chat --base_model smollm2-135m --lora_weights runs/demo/adapter

/help lists the commands. Arrow keys bring earlier questions back.
"""

import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from prompt_toolkit import HTML, PromptSession
from rich.console import Console

from xinglin.backbone import choose_precision
from xinglin.errors import UserError
from xinglin.inference.documents import Documents
from xinglin.inference.engine import Engine, load_engine, load_engines
from xinglin.inference.grounding import Grounding
from xinglin.inference.infer import DISCLAIMER, asked_generation, show_grounded
from xinglin.inference.options import ChatConfig
from xinglin.inference.triage import triage
from xinglin.knowledge.graph import open_graph
from xinglin.records import Example, Turn, write_jsonl

HELP = """/clear        从头开始
/ground on    用图谱的资料回答（默认）    /ground off   让模型自己回答，没有依据
/base on      问没有微调的基座            /base off     问微调后的模型
/adapter 名   换一个适配器（启动时用逗号给出几个）
/save 文件    保存这次对话（JSON Lines，可以再作训练数据）
/quit         结束"""
UNGROUNDED = "〔没有资料的回答没有依据，不可采信〕"
_REMEMBERED = 8  # turns that the model sees again


@dataclass
class Chat:
    """One conversation.

    Attributes:
        engines: by adapter; the plain base, where it is there already, by an empty string.
        active: whose turn it is.
        turns: everything said so far; with the facts that a question was asked with in its `input`.
        subjects: what the last question was about.
    """

    config: ChatConfig
    engines: dict[str, Engine]
    active: str
    ground: bool
    turns: list[Turn] = field(default_factory=list)
    subjects: tuple[str, ...] = ()
    _grounding: Grounding | None = None
    _plain: bool = False

    def ask(self, question: str) -> None:
        """Answer one question, to the terminal."""
        example = Example(id=uuid.uuid4().hex, turns=(Turn("user", question),))
        if self.ground:
            prepared = self.grounding.prepare(example, self.subjects)
            generation = asked_generation(self.config, self.engine.generation)
            answer = show_grounded(self.engine, generation, self.grounding, prepared)
            asked, text = (prepared.example or example).question, answer.text
            self.subjects = answer.subjects or self.subjects
        else:
            alert = triage(question)
            asked = example.question
            text = alert.text if alert else self._alone(example)
            if alert:
                print(f"回答：{text}")
        self.turns += [asked, Turn("assistant", text)]

    def command(self, line: str) -> bool:
        """Do what a line that begins with / says; False ends the conversation.

        Raises:
            UserError: no such command, or a file that cannot be written.
        """
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        if name in ("quit", "exit"):
            return False
        if name == "clear":
            self.turns, self.subjects = [], ()
        elif name == "ground" and rest in ("on", "off"):
            self.ground = rest == "on"
        elif name == "base" and rest in ("on", "off"):
            self._plain = rest == "on"
        elif name == "adapter":
            if rest not in self.engines or not rest:
                raise UserError(f"no adapter {rest!r}; there are {', '.join(filter(None, self.engines))}")
            self.active, self._plain = rest, False
        elif name == "save" and rest:
            conversation = Example(id=uuid.uuid4().hex, turns=tuple(self.turns), source="chat")
            write_jsonl(Path(rest), [conversation])
            print(f"{rest}: {len(self.turns)} turns")
        elif name == "help":
            print(HELP)
        else:
            raise UserError(f"{line!r} is no command; /help lists them")
        return True

    @property
    def grounding(self) -> Grounding:
        """Read when it is first needed."""
        if self._grounding is None:
            documents = Documents(self.config.knowledge) if self.config.knowledge else None
            self._grounding = Grounding(open_graph(self.config.graph), documents)
        return self._grounding

    @property
    def engine(self) -> Engine:
        """What is asked now; the base is loaded when it is first needed."""
        if not self._plain:
            return self.engines[self.active]
        if "" not in self.engines:
            self.engines[""] = _load(replace(self.config, lora_weights=""))[""]
        return self.engines[""]

    def _alone(self, example: Example) -> str:
        """The model's own answer, the last turns before it."""
        whole = replace(example, turns=(*self.turns[-_REMEMBERED:], *example.turns))
        print("回答：", end="", flush=True)
        pieces = []
        for piece in self.engine.stream(whole, asked_generation(self.config, self.engine.generation)):
            print(piece, end="", flush=True)
            pieces.append(piece)
        print(UNGROUNDED)
        return "".join(pieces)


def chat(config: ChatConfig) -> None:
    """Talk until /quit or the end of input.

    Raises:
        UserError: base, adapter or graph missing or not fitting.
    """
    engines = _load(config)
    talk = Chat(config, engines, next(iter(engines)), config.ground)
    if config.ground:
        talk.grounding  # noqa: B018 - read now, not after the first question
    console = Console()
    console.print(f"[bold]杏林[/bold]  {DISCLAIMER}\n/help 看命令，/quit 结束")
    read = _reader()
    while True:
        try:
            line = read().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        try:
            if line.startswith("/"):
                if not talk.command(line):
                    return
            elif line:
                talk.ask(line)
        except (UserError, OSError) as error:
            console.print(f"error: {error}", style="red", markup=False)
        except KeyboardInterrupt:
            console.print("〔停下了〕")


def _reader() -> Callable[[], str]:
    """What reads a line: with editing, wide characters and history on a terminal, plainly from a pipe."""
    if not sys.stdin.isatty():
        return lambda: input("\n您：")
    session: PromptSession[str] = PromptSession()
    return lambda: session.prompt(HTML("\n<ansigreen><b>您：</b></ansigreen>"))


def _load(config: ChatConfig) -> dict[str, Engine]:
    """The engines by adapter: one alone is folded into its base, several stand beside it."""
    adapters = [one.strip() for one in config.lora_weights.split(",")]
    options = config.prompt_template, choose_precision(config.precision), "", config.enable_thinking
    if len(adapters) == 1:
        return {adapters[0]: load_engine(config.base_model, adapters[0], *options)}
    return {one.adapter: one for one in load_engines(config.base_model, [*adapters, ""], *options)}
