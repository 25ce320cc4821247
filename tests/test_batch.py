"""Many questions to a file: bad rows aside, in order, and going on after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xinglin.errors import UserError
from xinglin.inference.batch import answer_file, fingerprint, read_questions
from xinglin.records import Example, Prediction, Turn

ASKED = [Example(f"q{n % 5}", (Turn("user", f"问题{n % 6}"),)) for n in range(12)]
SETTINGS = {"model": "m"}


def answer(examples, stop_after=10**9, asked=None):
    for number, one in enumerate(reversed(examples)):
        if number == stop_after:
            raise KeyboardInterrupt
        if asked is not None:
            asked.append(one.id)
        yield Prediction(one.id, "", f"答{one.question.content}", "m", "", {}, question=one.question.content)


def rows(path: Path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_answers_stand_in_the_order_asked(tmp_path):
    out = tmp_path / "new" / "a.jsonl"
    assert answer_file(answer, ASKED, [], out, SETTINGS) == 12
    assert [row["answer"] for row in rows(out)] == [f"答{one.question.content}" for one in ASKED]
    assert os.listdir(out.parent) == ["a.jsonl"]


@pytest.mark.parametrize("torn", [False, True])
def test_a_rerun_goes_on_where_a_stop_left_it(tmp_path, torn):
    out, part = tmp_path / "a.jsonl", tmp_path / "a.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        answer_file(lambda some: answer(some, 7), ASKED, [], out, SETTINGS)
    assert not out.exists()
    assert len(rows(part)) == 8
    if torn:  # the stop came in the middle of a line
        part.write_bytes(part.read_bytes()[:-9])
    asked: list[str] = []
    answer_file(lambda some: answer(some, asked=asked), ASKED, [], out, SETTINGS)
    assert len(asked) == (6 if torn else 5)
    assert [row["answer"] for row in rows(out)] == [f"答{one.question.content}" for one in ASKED]


def test_a_part_file_of_something_else_is_not_touched(tmp_path):
    out, part = tmp_path / "a.jsonl", tmp_path / "a.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        answer_file(lambda some: answer(some, 3), ASKED, [], out, SETTINGS)
    before = part.read_bytes()
    with pytest.raises(UserError, match="other settings"):
        answer_file(answer, ASKED, [], out, {"model": "other"})
    with pytest.raises(UserError, match="other questions"):
        answer_file(answer, [Example("x", (Turn("user", "y"),))], [], out, SETTINGS)
    part.write_text("not ours\n")
    with pytest.raises(UserError, match="delete it to begin anew"):
        answer_file(answer, ASKED, [], out, SETTINGS)
    assert before != part.read_bytes() == b"not ours\n"


def too_long(example):
    if len(example.question.content) > 9:
        raise UserError(f"{example.id}: too long")


@pytest.mark.parametrize(
    ("text", "kept", "reasons"),
    [
        (
            '{"instruction": "一"}\nbroken\n{"instruction": ""}\n[1]\n{"instruction": 5}\n{"instruction": "二"}\n',
            ["一", "二"],
            ["not valid JSON", "without 'instruction'", "object", "must be text"],
        ),
        ("broken {\n{\n", [], []),
        ("question,answer\n一,\n二\n三,四\n,\n很长很长很长很长很长,\n", ["一", "三"], ["has 1 fields", "too long"]),
        ('[{"instruction": "一"}, {"instruction": "\\ud800"}]', ["一"], ["half a character"]),
    ],
)
def test_bad_rows_are_told_and_left_out(tmp_path, text, kept, reasons):
    path = tmp_path / "q"
    path.write_text(text, "utf-8")
    if not kept:
        with pytest.raises(UserError):
            read_questions(str(path), too_long)
        return
    examples, rejected = read_questions(str(path), too_long)
    assert [one.question.content for one in examples] == kept
    assert len(rejected) == len(reasons)
    assert all(reason in " ".join(one["reason"] for one in rejected) for reason in reasons)
    out = tmp_path / "a.jsonl"
    answer_file(answer, examples, rejected, out, SETTINGS)
    assert rows(tmp_path / "a.jsonl.rejected") == rejected


def test_weights_that_were_replaced_are_other_weights(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1")
    before = fingerprint(str(tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12")
    assert fingerprint(str(tmp_path)) != before
    assert fingerprint("org/name") == "org/name"


def test_killed_and_run_again(tmp_path, tiny_base):
    questions, out = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text("".join(json.dumps({"instruction": f"第{n}问" * (n % 9 + 1)}) + "\n" for n in range(120)))
    command = [sys.executable, "infer.py", "--base_model", str(tiny_base), "--use_lora", "False"]
    command += ["--instruct_dir", str(questions), "--output_path", str(out), "--batch_size", "2"]
    command += ["--max_new_tokens", "24", "--prompt_template", "med_template", "--precision", "fp32"]
    part = tmp_path / "a.jsonl.part"
    kills = 0
    for lines in (3, 40, 80):
        running = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL)
        while running.poll() is None:
            if part.exists() and part.read_bytes().count(b"\n") >= lines:
                running.send_signal(signal.SIGKILL)
                kills += running.wait() == -signal.SIGKILL
            time.sleep(0.01)
    assert kills == 3
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert "are answered already; going on" in done.stderr
    made = rows(out)
    assert [row["question"] for row in made] == [f"第{n}问" * (n % 9 + 1) for n in range(120)]
    assert not part.exists()
    whole = tmp_path / "b.jsonl"
    subprocess.run([*command, "--output_path", str(whole)], cwd=Path(__file__).parent.parent, check=True)
    assert [row["answer"] for row in rows(whole)] == [row["answer"] for row in made]
