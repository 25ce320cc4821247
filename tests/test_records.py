"""Instruction files: told apart by content, errors with file and line, writing all or nothing."""

import json

import pytest

from xinglin.dataset.formats import read
from xinglin.errors import UserError
from xinglin.records import (
    Example,
    Turn,
    atomic_write,
    read_examples,
    to_alpaca,
    write_jsonl,
)


def read_instructions(path, **options):
    return [row.example for row in read(path, **options)]


ROW = {"instruction": "问", "input": "", "output": "答"}


def test_json_lines_under_a_json_name(tmp_path):
    path = tmp_path / "llama_data.json"
    path.write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW, ensure_ascii=False)}\n", "utf-8")
    assert [to_alpaca(one) for one in read_instructions(path)] == [ROW, ROW]


def test_json_list_with_byte_order_mark_and_other_keys(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\ufeff" + json.dumps([{**ROW, "id": 7}]), "utf-8")
    assert [to_alpaca(one) for one in read_instructions(path)] == [ROW]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({**ROW, "output": "一\u2028二"}, ensure_ascii=False), "utf-8")
    assert read_instructions(path)[0].answer == "一\u2028二"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": ', ":2: not valid JSON"),
        ('[\n{"instruction": "a", "output": "b"},\n{"instruction": }]', ":3: not valid JSON"),
        ('[{"instruction": "a", "output": "b"}, {"instruction": "c"}]', "record 2: record without 'output'"),
        ('[{"instruction": "a", "output": ""}]', "'output' is empty"),
        ('[{"input": "a", "output": "b"}]', "without 'instruction'"),
        ('[{"instruction": 3, "output": "b"}]', "must be text, got int"),
        ("[3]", "expected an object"),
        ("[]", "holds no records"),
        ("", "holds no records"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, text, said):
    path = tmp_path / "bad.json"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as error:
        read_instructions(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_wrong_encoding_missing_file_and_folder(tmp_path):
    path = tmp_path / "gb.json"
    path.write_bytes('[{"instruction": "问题"}]'.encode("gb18030"))
    for bad, said in ((path, "not UTF-8"), (tmp_path / "no.json", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=said):
            read_instructions(bad)


def test_questions_need_no_output(tmp_path):
    path = tmp_path / "q.json"
    path.write_text('[{"instruction": "问"}]', "utf-8")
    assert read_instructions(path, need_output=False)[0].turns == (Turn("user", "问"),)


def test_examples_survive_a_file(tmp_path):
    example = Example("1", (Turn("user", "问", "资料"), Turn("assistant", "答")), "symptoms", (("a", "b", "c"),))
    write_jsonl(tmp_path / "e.jsonl", [example])
    assert read_examples(tmp_path / "e.jsonl") == [example]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
