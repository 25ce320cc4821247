"""What no tuning is needed for: the honest controls that a tuned model is shown beside.

`lookup` copies the right line out of the knowledge by rule, without any model;
`worked_examples` shows the base three solved records before the question.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from xinglin.errors import UserError
from xinglin.records import Example, Turn

_TOPIC_CUES = (
    ("别名", ("同一种病", "一个病", "叫法")),
    ("ICD-10编码", ("同一种病", "一个病", "叫法")),
    ("传播途径", ("路子", "感染上", "传播", "怎么传")),
    ("传染性", ("传染", "传上")),
    ("就诊科室", ("科", "号", "就诊")),
    ("并发症", ("并发", "后果", "牵连", "连带", "接下来", "合并")),
    ("病因", ("原因", "病因", "根源", "引发", "造成")),
    ("治疗方法", ("治", "处理", "手段")),
    ("发病部位", ("部位", "哪一块", "什么地方", "哪里得病")),
    ("多发人群", ("哪些人", "什么样的人", "哪类人", "什么人")),
    ("功效", ("功效", "起什么作用")),
    ("检查", ("检查", "查", "检验", "确诊", "诊断")),
)


def lookup(example: Example) -> str:
    """Answer from `input` by rule: the lines about a subject that the question names, on the topic it hints at."""
    question = example.question
    lines = [line.partition("：") for line in question.input.splitlines()]
    worked_out = [line for line in lines if line[0].startswith("两者的共同")]
    if worked_out:  # a comparison: its three lines are there already
        own = [line for line in lines if "的其他" in line[0]]
        return _fixed([(head, objects) for head, _, objects in worked_out + own])
    about = [(head, objects) for head, _, objects in lines if head.rpartition("的")[0] in question.content]
    if not about:  # a patient: the disease that shows most of what is told
        told: Counter[str] = Counter()
        for head, _, objects in lines:
            told[head.rpartition("的")[0]] += sum(
                one in question.content for one in objects.removesuffix("等").split("、")
            )
        fits = max(told, key=lambda name: told[name], default="")
        return _fixed(
            [(head, objects) for head, _, objects in lines if told.get(fits) and head.startswith(f"{fits}的")]
        )
    rest = question.content
    for head, _ in about:
        rest = rest.replace(head.rpartition("的")[0], "")
    words = {head.rpartition("的")[2] for head, _ in about}
    hinted = [word for word, cues in _TOPIC_CUES if any(cue in rest for cue in cues)]
    fitting = [one for word in hinted or ("症状", "相关疾病") for one in words if word in one]
    return _fixed([line for line in about if fitting and line[0].rpartition("的")[2] == fitting[0]])


def _fixed(lines: list[tuple[str, str]]) -> str:
    if not lines:
        return "资料中没有相关记载，请咨询医生。"
    return f"{'；'.join(f'{head}：{objects}' for head, objects in lines)}。以上为资料所载，请咨询医生。"


def worked_examples(records: Sequence[Example], seed: int) -> tuple[Turn, ...]:
    """Three solved training records with facts, one each of three forms, as turns to put before a question.

    Drawn from the shorter quarter: every answer has to read them again.
    """
    rng = random.Random(seed)
    turns: tuple[Turn, ...] = ()
    for form in ("symptoms", "department", "comparison"):
        solved = [one for one in records if one.form == form and one.knowledge == "facts"]
        if not solved:
            raise UserError(f"the records hold no training record of form {form} with facts to show as an example")
        solved.sort(key=lambda one: (len(one.question.input) + len(one.answer), one.id))
        turns += rng.choice(solved[: len(solved) // 4 + 1]).turns
    return turns


def with_turns_before(example: Example, turns: tuple[Turn, ...]) -> Example:
    """The example with earlier turns put before its own."""
    return replace(example, turns=turns + example.turns)
