"""The illness that a person's words are most like, as it is learned."""

import numpy as np
import pytest

from xinglin.inference import namer as learning
from xinglin.inference.namer import Namer, Words, learn_names, namer

NAMES = ("脊柱侧凸", "胆囊结石", "痛风", "带状疱疹")
CALLED = {
    "脊柱侧凸": ["脊柱侧凸", "脊柱侧弯", "脊梁骨是歪的", "一边肩膀高一边肩膀低", "背上的骨头弯成S形"],
    "胆囊结石": ["胆囊结石", "胆里头有石头", "右边肋骨下面疼查出有石头", "胆囊里长沙子", "吃油腻的胆那里疼"],
    "痛风": ["痛风", "大脚趾又红又肿", "尿酸高脚趾头疼", "喝啤酒吃海鲜脚就疼", "脚拇指关节半夜疼醒"],
    "带状疱疹": ["带状疱疹", "蛇盘疮", "腰上一圈水泡火烧一样疼", "缠腰龙", "身上一边长一串水泡"],
}
EXAMPLES = [(words, number) for number, name in enumerate(NAMES) for words in CALLED[name]] * 20
WORDS = Words(("我妈今年六十了", "吃了药也不管用", "家里人都很着急", "上个月去过医院"), ("要挂什么科", "会传染吗"))


@pytest.fixture(scope="module")
def taught() -> Namer:
    return learn_names(EXAMPLES, WORDS)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("脊梁骨歪了一边肩膀高，要挂什么科", "脊柱侧凸"),
        ("我妈今年六十了，胆里头长了块石头，吃了药也不管用，会传染吗", "胆囊结石"),
        ("上个月去过医院，半夜脚趾头疼醒，又红又肿", "痛风"),
        ("家里人都很着急，腰上长了一圈水泡", "带状疱疹"),
    ],
)
def test_words_that_were_never_told_so_are_understood(taught, said, meant):
    chances = taught.chances(said)
    assert NAMES[int(chances.argmax())] == meant
    assert chances.sum() == pytest.approx(1, abs=1e-4)


def test_what_was_never_seen_says_nothing(taught):
    assert taught.chances("zzzz") == pytest.approx(taught.chances("qqqq"), abs=1e-6)
    assert np.isfinite(taught.chances("")).all()


def test_the_same_examples_teach_the_same(taught):
    again = learn_names(EXAMPLES, WORDS)
    assert again.chances("脚趾头疼") == pytest.approx(taught.chances("脚趾头疼"), abs=1e-6)


def test_a_kept_namer_answers_the_same_and_is_not_learned_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path))
    first = namer(EXAMPLES, WORDS).chances("缠腰的水泡")
    (kept,) = (tmp_path / "names").iterdir()
    monkeypatch.setattr(learning, "learn_names", lambda *given: pytest.fail("learned again"))
    assert (namer(EXAMPLES, WORDS).chances("缠腰的水泡") == first).all()
    kept.write_bytes(b"broken")
    monkeypatch.undo()
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path))
    assert namer(EXAMPLES, WORDS).chances("缠腰的水泡") == pytest.approx(first, abs=1e-6)


def test_other_examples_are_learned_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path))
    namer(EXAMPLES, WORDS)
    namer(EXAMPLES, Words())
    assert len(list((tmp_path / "names").iterdir())) == 2
