"""Grounded answers: red flags first, then facts from the graph, then a model that words them, then a check.

question → triage → (nothing urgent) → retrieve → facts in `input` → model → answer, checked against the facts

Where the graph has nothing that answers, no model is asked: the program says so and refers. Where a model's answer
leaves out facts, or says what they do not support, the program words them itself.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from xinglin.dataset.vignettes import FLAGGED
from xinglin.dataset.wording import URGENT, Line
from xinglin.inference.documents import Documents, Passage
from xinglin.inference.engine import Engine
from xinglin.inference.generation import Generation
from xinglin.inference.retrieve import Found, Retriever
from xinglin.inference.triage import Alert, triage
from xinglin.knowledge.check import check_answer
from xinglin.knowledge.graph import Graph
from xinglin.knowledge.link import Linker
from xinglin.knowledge.policy import EMERGENCY, RED_FLAGS, SOON
from xinglin.knowledge.terms import normalize
from xinglin.prompts import disarmed
from xinglin.records import Example, Prediction, Turn

Kind = Literal["answered", "referred", "abstained", "escalated"]

NOTHING = (
    "图谱里没有找到能回答这个问题的内容，不能凭空回答。可以换个说法，写出疾病、检查的名称或具体的不适；"
    "身体不舒服请到医院，挂不准科可以先问导诊台或看全科门诊。"
)
_MISSING = "关于{subjects}，资料里没有能回答这个问题的内容，不能凭空回答。{department}就诊时可以问医生：{ask}"
_NO_DISEASE = (
    "您说的{signs}，图谱里没有找到足够相符的疾病，不能据此判断。"
    "请到医院就诊，由医生检查；加重或出现新的不适请尽快就医。"
)
_UNDERSTOOD = "您说的按“{name}”来查；如果不是，请换个说法。"
_SEEN_AT = (
    "从您说的情况看，是什么病不能只凭描述判断；有类似不适的人多在{where}就诊，可以先到那里，由医生检查后判断。"
    "加重或出现新的不适请尽快就医。"
)
_ENOUGH = 0.8  # of the facts that a model's answer must say
_STRAYED = 3  # pairs of characters that a model's answer may have from the question alone
_ODD = re.compile("不建议|[^\u0000-\u024f\u0370-\u03ff\u2000-\u22ff\u2460-\u24ff\u3000-\u9fff\uff00-\uffef]")
"""What no fact says, in a model's answer: advice against something, characters of other scripts or broken ones."""
_ASK = "目前到了哪一步、有哪些选择、各有什么好处和风险、平时要注意什么、多久复查一次。"


@dataclass(frozen=True)
class Prepared:
    """A question before any model is asked.

    Attributes:
        text: what to say where `example` is None, and what comes before a model's answer otherwise.
        example: the question with facts in `input`; None where no model is to be asked.
        passages: of the user's own documents, which take the place of facts.
    """

    kind: Kind
    text: str
    example: Example | None
    found: Found | None
    alert: Alert | None
    passages: tuple[Passage, ...] = ()

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(what stands in `input`, where it is from), line by line."""
        if self.passages:
            return [(one.text, one.cited) for one in self.passages]
        lines = self.found.lines if self.found else ()
        return [(line.text, "、".join(dict.fromkeys(fact.source for fact in line.facts))) for line in lines]


@dataclass(frozen=True)
class Answer:
    """What a person gets.

    Attributes:
        kind: answered from facts; referred to a doctor since the facts do not answer, or since it is about drugs;
            abstained, nothing being known; escalated to emergency care.
        text: the answer, without the disclaimer.
        facts: (subject, predicate, object) that it stands on.
        unsupported: what the model's answer named and the facts do not support.
        worded_by: `model`, or `program`: the model was not asked, or its answer did not hold.
        subjects: what it is about, for a question that follows.
        prediction: the model's own answer, where one was asked.
    """

    kind: Kind
    text: str
    facts: tuple[tuple[str, str, str], ...]
    unsupported: tuple[str, ...]
    subjects: tuple[str, ...]
    prediction: Prediction | None
    worded_by: Literal["model", "program"] = "program"


class Grounding:
    """Everything around a model that makes its answers stand on facts.

    Args:
        graph: where the facts come from.
        documents: own documents, which answer first.
    """

    def __init__(self, graph: Graph, documents: Documents | None = None) -> None:
        self.documents = documents
        self.linker = Linker.from_graph(graph)
        self.retriever = Retriever(graph, self.linker)

    def prepare(self, example: Example, before: Sequence[str] = ()) -> Prepared:
        """Triage a question and look up what answers it.

        Args:
            example: its last question is the one; what stands in its `input` is left where it is.
            before: subjects of the turn before.
        """
        question = disarmed(example.question, ()).content
        alert = triage(question)
        if alert and alert.urgent:
            return Prepared("escalated", alert.text, None, None, alert)
        found = self.retriever.find(question, before)
        if alert:
            return Prepared("referred", alert.text + self._where(found), None, found, alert)
        if self.documents and (passages := tuple(self.documents.find(question, found.named))):
            turn = replace(example.question, input="\n".join(one.text for one in passages))
            asked = replace(example, turns=(*_earlier(example), turn), facts=(), knowledge="facts")
            return Prepared("answered", "", asked, found, None, passages)
        if not found.lines:
            return Prepared(*self._without(found), None, found, None)
        turn = replace(example.question, input=found.text)
        asked = replace(example, turns=(*_earlier(example), turn), facts=found.facts, knowledge="facts")
        text = _flagged(found)
        if found.guessed:
            text += _UNDERSTOOD.format(name=found.subjects[0])
        return Prepared("answered", text, asked, found, None)

    def finish(self, prepared: Prepared, prediction: Prediction | None) -> Answer:
        """The answer: the model's own if it says the facts and nothing beside them, else the facts in plain words."""
        found = prepared.found
        subjects = found.subjects if found else ()
        if prediction is None or found is None:
            return Answer(prepared.kind, prepared.text, (), (), subjects, None)
        if prepared.passages:
            return self._quoted(prepared, prediction, subjects)
        question = prepared.example.question.content if prepared.example else ""
        check = check_answer(prediction.answer, found.facts, self.linker, question)
        unsupported = tuple(dict.fromkeys((*check.unsupported, *check.contradicted)))
        strayed = _strayed(prediction.answer, question, found.text) > _STRAYED or _ODD.search(prediction.answer)
        holds = not unsupported and not strayed and check.recall >= _ENOUGH and prediction.finish_reason == "stop"
        text = prediction.answer if holds else in_plain_words(found)
        text = text if text.startswith(prepared.text) else prepared.text + text
        return Answer(
            prepared.kind, text, found.facts, unsupported, subjects, prediction, "model" if holds else "program"
        )

    def _quoted(self, prepared: Prepared, prediction: Prediction, subjects: tuple[str, ...]) -> Answer:
        """The model's answer if it says what the passages say, else the passages themselves."""
        given = "\n".join((prepared.example.question.content if prepared.example else "", *_texts(prepared.passages)))
        known = {one.entity for one in self.linker.find(normalize(given))}
        beyond = (one.text for one in self.linker.find(normalize(prediction.answer)) if one.entity not in known)
        unsupported = tuple(dict.fromkeys(beyond))
        own = not unsupported and prediction.finish_reason == "stop" and _taken(prediction.answer, given) >= _ENOUGH
        text = prediction.answer if own else "".join(f"{one.text}〔{one.cited}〕" for one in prepared.passages)
        text = text if own else f"您提供的资料里写着：{text}以上为资料原文，请由医生判断。"
        by: Literal["model", "program"] = "model" if own else "program"
        return Answer(prepared.kind, text, (), unsupported, subjects, prediction, by)

    def _without(self, found: Found) -> tuple[Kind, str]:
        """What to say where no facts answer."""
        if found.subjects:
            names = "、".join(found.subjects[:2])
            return "referred", _MISSING.format(subjects=names, department=self._where(found), ask=_ASK)
        if found.departments:
            where = "或".join(found.departments)
            return "answered", _flagged(found) + _SEEN_AT.format(where=where)
        if len(found.signs) > 1:
            return "abstained", _NO_DISEASE.format(signs="、".join(found.signs))
        return "abstained", NOTHING

    def _where(self, found: Found) -> str:
        """Where the first subject is seen, as far as the graph knows."""
        line = next(filter(None, map(self.retriever.department, found.subjects)), None)
        return f"{line.about}的{line.word}是{line.listed}，可以到那里就诊。" if line else ""


def _flagged(found: Found) -> str:
    """What to say first where red flags are among the signs."""
    flags = [sign for sign in found.signs if sign in RED_FLAGS - SOON]
    return FLAGGED.format(flags="、".join(flags)) if flags else ""


def _strayed(answer: str, question: str, facts: str) -> int:
    """How many pairs of characters an answer has from the question's story alone (秋天的病发有癫痫病)."""
    plain, told, known = normalize(answer), normalize(question), normalize(facts)
    pairs = {plain[place : place + 2] for place in range(len(plain) - 1)}
    return sum(pair in told and pair not in known for pair in pairs)


def _texts(passages: Sequence[Passage]) -> list[str]:
    return [one.whole for one in passages]


def _taken(answer: str, given: str) -> float:
    """Share of an answer's pairs of characters that stand in what was given."""
    plain, known = normalize(answer), normalize(given)
    pairs = [plain[place : place + 2] for place in range(len(plain) - 1)]
    return sum(pair in known for pair in pairs) / len(pairs) if pairs else 0.0


def in_plain_words(found: Found) -> str:
    """The facts in a fixed sentence, without any model."""
    said = "；".join(f"{line.about}的{line.word}{_verb(line)}{line.listed}" for line in found.lines)
    may = f"根据{'、'.join(found.signs)}，可能是{'、'.join(found.subjects)}，也可能是别的病。" if found.signs else ""
    urgent = URGENT if any(map(EMERGENCY.search, found.subjects)) else ""
    return f"{may}{said}。以上为资料所载，不一定完整，请由医生判断。{urgent}"


def _verb(line: Line) -> str:
    if line.listed.startswith(("尚不", "不明", "未明", "不详")):  # 湿疹的病因尚不明确
        return ""
    one = ("就诊科室", "发病部位", "多发人群", "ICD-10编码")
    return "：" if line.word == "传染性" else "是" if line.word in one else "有"


def answer_grounded(
    engine: Engine,
    grounding: Grounding,
    examples: Sequence[Example],
    generation: Generation,
    answer: Callable[[Sequence[Example], Generation], Iterator[Prediction]] | None = None,
) -> Iterator[tuple[Example, Answer]]:
    """Answer many questions; those that no model is asked come first, the others as their batches finish.

    Args:
        answer: asks the engine in another way than `Engine.answer` by itself.
    """
    prepared = [(example, grounding.prepare(example)) for example in examples]
    for example, one in prepared:
        if one.example is None:
            yield example, grounding.finish(one, None)
    # by place, since two questions may bear one id
    asked = [replace(one.example, id=str(place)) for place, (_, one) in enumerate(prepared) if one.example]
    for prediction in (answer or engine.answer)(asked, generation):
        example, one = prepared[int(prediction.id)]
        yield example, grounding.finish(one, replace(prediction, id=example.id))


def _earlier(example: Example) -> tuple[Turn, ...]:
    """The turns before the last question."""
    turns = example.turns[:-1] if example.turns[-1].role == "assistant" else example.turns
    return turns[:-1]
