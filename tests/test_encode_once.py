"""Large data are encoded in parallel and once; what decides the rows decides which stored ones are taken."""

import os
import signal
from dataclasses import replace

import pytest

from xinglin.dataset import encode_once as once
from xinglin.dataset.encode import Encoding, encode_all
from xinglin.errors import UserError
from xinglin.prompts import load_template
from xinglin.records import Example, Turn


@pytest.fixture
def examples():
    return [
        Example(
            str(n),
            (Turn("user", f"第{n}种病有哪些症状？" * (1 + n % 3 * 9)), Turn("assistant", "恶心。" * (n % 5 + 1))),
        )
        for n in range(60)
    ]


@pytest.fixture
def encoding(tiny_tokenizer):
    return Encoding(tiny_tokenizer, load_template("med_template"), cutoff_len=150)


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(once, "_WORTH_IT", 10)
    monkeypatch.setattr(once.os, "sched_getaffinity", lambda process: {0, 1})


@pytest.fixture
def encoded(monkeypatch):
    """How often everything was encoded."""
    calls = []
    real = once._in_parallel
    monkeypatch.setattr(once, "_in_parallel", lambda *given: calls.append(1) or real(*given))
    return calls


def stored(tmp_path):
    return sorted((tmp_path / "cache" / "encoded").iterdir())


def test_in_parallel_and_from_the_cache_the_rows_are_the_same(examples, encoding, encoded, tmp_path):
    expected = encode_all(examples, encoding)
    assert expected.cut and expected.refused  # both kinds are there
    assert [once.encode_once(examples, encoding) for _ in range(2)] == [expected, expected]
    assert len(encoded) == len(stored(tmp_path)) == 1


def test_whatever_decides_the_rows_is_encoded_anew(examples, encoding, encoded):
    once.encode_once(examples, encoding)
    others = [
        replace(encoding, cutoff_len=149),
        replace(encoding, train_on_inputs=True),
        replace(encoding, template=replace(encoding.template, prompt_no_input="Q: {instruction} A: ")),
        replace(encoding, tokenizer=replace(encoding.tokenizer, prefix_ids=(1,))),
    ]
    for other in others:
        assert once.encode_once(examples, other) == encode_all(examples, other)
    with_facts = [*examples[:-1], Example("59", (Turn("user", "问", "资料"), Turn("assistant", "答")))]
    assert once.encode_once(with_facts, encoding) == encode_all(with_facts, encoding)
    assert len(encoded) == len(others) + 2


def test_a_broken_file_is_written_anew(examples, encoding, encoded, tmp_path):
    expected = once.encode_once(examples, encoding)
    (file,) = stored(tmp_path)
    file.write_bytes(file.read_bytes()[:500])
    assert [once.encode_once(examples, encoding) for _ in range(2)] == [expected, expected]
    assert len(encoded) == 2


def test_a_cache_that_cannot_be_written_costs_no_run(examples, encoding, tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    assert once.encode_once(examples, encoding) == encode_all(examples, encoding)
    assert "not kept for the next run" in caplog.text


def test_a_worker_that_is_killed_costs_only_time(examples, encoding, monkeypatch):
    monkeypatch.setattr(once, "_encode_part", _end)
    assert once.encode_once(examples, encoding) == encode_all(examples, encoding)


def _end(part):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_tokenizer_without_a_backend_is_not_cached(examples, encoding, encoded):
    plain = Plain(encoding.tokenizer.inner)
    other = replace(encoding, tokenizer=replace(encoding.tokenizer, inner=plain))
    assert once.encode_once(examples, other) == encode_all(examples, other)
    assert not encoded


class Plain:
    def __init__(self, inner):
        self.encode = inner.encode


def test_only_some_files_are_kept(examples, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(once, "_FILES", 2)
    for cutoff in (140, 145, 150):
        once.encode_once(examples, replace(encoding, cutoff_len=cutoff))
    assert len(stored(tmp_path)) == 2


def test_nothing_to_learn_is_said_as_ever(examples, encoding):
    with pytest.raises(UserError, match="raise --cutoff_len"):
        once.encode_once(examples, replace(encoding, cutoff_len=9))
