"""Talk in the terminal: grounded in the graph, red flags first.

    xinglin chat --base_model smollm2-135m --lora_weights runs/demo/adapter

/help lists the commands. Arrow keys bring earlier questions back.
"""

import contextlib
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from xinglin.backbone import choose_precision
from xinglin.errors import UserError
from xinglin.inference.engine import Engine, Generation, load_engine
from xinglin.inference.grounding import Grounding
from xinglin.inference.infer import DISCLAIMER, show_grounded
from xinglin.inference.options import ChatConfig
from xinglin.inference.triage import triage
from xinglin.knowledge.graph import open_graph
from xinglin.records import Example, Turn, write_jsonl

with contextlib.suppress(ImportError):  # not on Windows
    import readline  # noqa: F401 - gives `input` its history

HELP = """/clear        从头开始
/ground on    用图谱的资料回答（默认）    /ground off   让模型自己回答，没有依据
/base on      问没有微调的基座            /base off     问微调后的模型
/save 文件    保存这次对话（JSON Lines，可以再作训练数据）
/quit         结束"""
UNGROUNDED = "〔没有资料的回答没有依据，不可采信〕"
_REMEMBERED = 8  # turns that the model sees again


@dataclass
class Chat:
    """One conversation.

    Attributes:
        turns: everything said so far; with the facts that a question was asked with in its `input`.
        subjects: what the last question was about.
    """

    config: ChatConfig
    tuned: Engine
    ground: bool
    turns: list[Turn] = field(default_factory=list)
    subjects: tuple[str, ...] = ()
    plain: bool = False
    _grounding: Grounding | None = None
    _base: Engine | None = None

    def ask(self, question: str) -> None:
        """Answer one question, to the terminal."""
        example = Example(id=uuid.uuid4().hex, turns=(Turn("user", question),))
        if self.ground:
            prepared = self.grounding.prepare(example, self.subjects)
            answer = show_grounded(self.engine, self._generation(), self.grounding, prepared)
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
        elif name in ("ground", "base") and rest in ("on", "off"):
            setattr(self, {"ground": "ground", "base": "plain"}[name], rest == "on")
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
            self._grounding = Grounding(open_graph(self.config.graph))
        return self._grounding

    @property
    def engine(self) -> Engine:
        """The tuned model, or the base, which is loaded when it is first needed."""
        if not self.plain:
            return self.tuned
        if self._base is None:
            self._base = _load(replace(self.config, lora_weights=""))
        return self._base

    def _alone(self, example: Example) -> str:
        """The model's own answer, the last turns before it."""
        whole = replace(example, turns=(*self.turns[-_REMEMBERED:], *example.turns))
        print("回答：", end="", flush=True)
        pieces = []
        for piece in self.engine.stream(whole, self._generation()):
            print(piece, end="", flush=True)
            pieces.append(piece)
        print(UNGROUNDED)
        return "".join(pieces)

    def _generation(self) -> Generation:
        return Generation(self.config.max_new_tokens)


def chat(config: ChatConfig) -> None:
    """Talk until /quit or the end of input.

    Raises:
        UserError: base, adapter or graph missing or not fitting.
    """
    if config.max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {config.max_new_tokens}")
    talk = Chat(config, _load(config), config.ground)
    if config.ground:
        talk.grounding  # noqa: B018 - read now, not after the first question
    console = Console()
    console.print(f"[bold]杏林[/bold]  {DISCLAIMER}\n/help 看命令，/quit 结束")
    while True:
        try:
            line = console.input("\n[bold green]您：[/bold green]").strip()
        except EOFError:
            return
        try:
            if line.startswith("/"):
                if not talk.command(line):
                    return
            elif line:
                talk.ask(line)
        except (UserError, OSError) as error:
            console.print(f"error: {error}", style="red", markup=False)


def _load(config: ChatConfig) -> Engine:
    return load_engine(
        config.base_model,
        config.lora_weights,
        config.prompt_template,
        choose_precision(config.precision),
        thinking=config.enable_thinking,
    )
