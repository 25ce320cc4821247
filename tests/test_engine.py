"""The engine: answers do not depend on the batch they came in, nor on a shared prefix."""

import pytest
import torch

from xinglin.backbone import Precision
from xinglin.inference import engine as module
from xinglin.inference.engine import Generation, _common_prefix, load_engine
from xinglin.records import Example, Turn

FP32 = Precision(torch.float32, "test")


@pytest.fixture(scope="module")
def engine(tiny_base):
    return load_engine(str(tiny_base), "", "auto", FP32)


QUESTIONS = [Example(str(n), (Turn("user", "问" * (n + 1)),)) for n in range(7)]
SHOTS = (Turn("user", "偏头痛有哪些症状？" * 9), Turn("assistant", "恶心、呕吐。" * 9))


def answers(engine, questions, **options):
    made = {one.id: one for one in engine.answer(questions, Generation(12), **options)}
    return [(made[one.id].answer, made[one.id].finish_reason) for one in questions]


def test_batched_streamed_and_single_answers_agree(engine):
    single = answers(engine, QUESTIONS, batch_size=1)
    assert answers(engine, QUESTIONS, batch_size=7) == single
    assert ["".join(engine.stream(one, Generation(12))).strip() for one in QUESTIONS] == [text for text, _ in single]
    assert any(text for text, _ in single)


def test_a_shared_prefix_changes_no_answer(engine, monkeypatch):
    asked = [Example(one.id, SHOTS + one.turns) for one in QUESTIONS]
    runs = []
    real = module.Engine._prefix_cache
    monkeypatch.setattr(module.Engine, "_prefix_cache", lambda *a: runs.append(a) or real(*a))
    shared = answers(engine, asked, batch_size=7)
    assert len(runs) == 1
    monkeypatch.setattr(module, "_WORTH_SHARING", 10**6)
    assert answers(engine, asked, batch_size=7) == shared
    assert len(runs) == 1


def test_common_prefix():
    assert _common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert _common_prefix([[1, 2], [1, 2, 3]]) == 1  # each keeps one of its own
    assert _common_prefix([[1], [2]]) == 0


def test_only_new_tokens_are_decoded_and_the_end_is_seen(engine, monkeypatch):
    end = engine.encoding.tokenizer.eos_id
    text = engine.encoding.tokenizer.encode("恶心")
    assert engine._ended([*text, end, *text]) == ("恶心", "stop")
    assert engine._ended(text) == ("恶心", "length")
    made = next(engine.answer([QUESTIONS[0]], Generation(3)))
    assert "回答：" not in made.answer
    assert made.prompt.endswith("回答：")
