"""Every usual format, told apart by content, streamed, and refused with file and line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from xinglin.dataset.formats import Format, beside, detect, edit, read, write
from xinglin.errors import UserError
from xinglin.records import CHUNK, Example, Turn, read_json_records, to_alpaca, to_json
from xinglin.tables import MAX_FIELD

ALPACA = {"instruction": "偏头痛挂哪个科？", "input": "资料", "output": "神经内科。", "id": 7}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "头疼"},
        {"from": "gpt", "value": "多久了？"},
        {"from": "human", "value": "三天"},
        {"from": "gpt", "value": "去神经内科。"},
    ],
    "system": "你是医生",
}
MESSAGES = {"messages": [{"role": "user", "content": "头疼"}, {"role": "assistant", "content": "去神经内科。"}]}
TURNS = (Turn("user", "问", "资料"), Turn("assistant", "答"))
RECORD = json.loads(json.dumps(to_json(Example("x-1", TURNS, "symptoms", (("a", "b", "c"),), split="seen_fact"))))
CSV = 'department,title,ask,answer\r\n内科,头疼,头疼三天,去看医生\r\n内科,咳嗽,咳嗽,"多喝水,\r\n休息"\r\n'


def lines(*records):
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()


def listed(*records):
    return ("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in records) + "\n]\n").encode()


@pytest.fixture
def made(tmp_path):
    def make(data: bytes | str) -> Path:
        path = tmp_path / "data.txt"  # the name tells nothing
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return make


@pytest.mark.parametrize("pack", [lines, listed])
@pytest.mark.parametrize(
    ("name", "record"), [("alpaca", ALPACA), ("sharegpt", SHAREGPT), ("messages", MESSAGES), ("records", RECORD)]
)
def test_json_formats_are_told_by_content_and_written_back_as_they_were(made, tmp_path, name, record, pack):
    path = made(pack(record, record))
    fmt = detect(path)
    assert fmt == Format(name, container="lines" if pack is lines else "list")
    rows = list(read(path))
    assert [row.raw for row in rows] == [record, record]
    assert not any(row.problem for row in rows)
    write(rows, tmp_path / "copy", fmt)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_conversations_keep_their_turns_and_records_their_fields(made):
    turns = next(read(made(lines(SHAREGPT)))).example.turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant"]
    assert (turns[0].content, turns[-1].content) == ("你是医生", "去神经内科。")
    example = next(read(made(lines(RECORD)))).example
    assert example == Example("x-1", TURNS, "symptoms", (("a", "b", "c"),), split="seen_fact")
    assert next(read(made(lines(ALPACA)))).where.endswith("data.txt:1")
    assert next(read(made(listed(ALPACA)))).where.endswith("data.txt, record 1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_tables_of_every_encoding_come_back_byte_for_byte(made, tmp_path, encoding):
    path = made(CSV.encode(encoding))
    fmt = detect(path)
    assert fmt == Format("csv", encoding, "csv", ("department", "title", "ask", "answer"), "\r\n")
    rows = list(read(path))
    assert [to_alpaca(row.example) for row in rows] == [
        {"instruction": "头疼\n头疼三天", "input": "", "output": "去看医生"},
        {"instruction": "咳嗽", "input": "", "output": "多喝水,\r\n休息"},
    ]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:3"]
    assert rows[0].raw["department"] == "内科"
    write(rows, tmp_path / "copy", fmt)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_tabs_and_other_column_names(made):
    path = made("\t问题\tContext\tResponse\n0\t问\t资料\t答\n\n1\t问,二\t\t答\n")
    assert detect(path).name == "tsv"
    rows = list(read(path))
    assert [to_alpaca(row.example) for row in rows] == [
        {"instruction": "问", "input": "资料", "output": "答"},
        {"instruction": "问,二", "input": "", "output": "答"},
    ]
    assert edit(rows[0], lambda text: f"<{text}>").raw == {
        "": "0",
        "问题": "<问>",
        "Context": "<资料>",
        "Response": "<答>",
    }


def test_an_index_column_without_a_name_is_no_knowledge(made):
    row = next(read(made(",question,answer\n5,问,答\n")))
    assert row.example.question.input == ""
    assert edit(row, str.upper).raw[""] == "5"


def test_the_sample_of_real_dialogues():
    path = Path(__file__).parents[2] / "shared" / "data" / "dialogue_300.gb18030.csv"
    if not path.exists():
        pytest.skip("the sample of real dialogues is not here")
    rows = list(read(path))
    assert len(rows) == 300
    assert detect(path).encoding == "gb18030"
    assert all("\n" in row.example.question.content or row.raw["title"] == row.raw["ask"] for row in rows[:5])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "data.txt: holds no records"),
        (" \n ", "begins with an empty line"),
        ("[]", "data.txt: holds no records"),
        ("question,answer\n", "data.txt: holds no records"),
        ('{"q": 1}\n', "records with the keys ['q']"),
        ("a,b\n1,2\n", "data.txt:1: no column for a question: has a, b;"),
        ("question,b\n1,2\n", "data.txt:1: no column for an answer: has question, b;"),
        ("question,answer,answer\n1,2,3\n", "two columns are called 'answer'"),
        ("question,answer\n一,二\n一,二,三\n", "data.txt:3: has 3 fields, the header 2"),
        ("question,answer\n一\n", "data.txt:2: has 1 fields, the header 2"),
        ('question,answer\n一,二\n一,"二\n一,二\n', "data.txt:3: not a valid table (a quote that opens in this row"),
        ('question,answer\n一,"二"三\n', "data.txt:2: not a valid table (text after a closing quote"),
        ("question,answer\n一,二\r一,二\n", "data.txt:2: not a valid table (a bare carriage return"),
        ("question,answer\n一,二\n一\0,二\n", "data.txt:3: holds NUL bytes"),
        ("question,answer\n问题,回答\n".encode("gb18030") + b"\xff,a\n", "data.txt:3: neither UTF-8 nor GB18030"),
        # not taken for GB18030, which would give mojibake: enough has been read as UTF-8
        ("question,answer\n一个问题,一个回答\n".encode() + b"\xd6\xd0,a\n", "data.txt:3: not UTF-8 (byte 0xd6)"),
        (lines(ALPACA, ALPACA) + "中".encode("gb18030"), "data.txt:3: not UTF-8 (byte 0xd6)"),
        (listed(ALPACA, ALPACA).replace("科".encode(), b"\xff", 3), "data.txt:2: not UTF-8 (byte 0xff)"),
        (b"[\n" + lines(ALPACA) + "中".encode()[:2], "data.txt:3: not UTF-8 (byte 0xe4)"),
        (lines(ALPACA) + b"\0\n", "data.txt:2: holds NUL bytes"),
        (b"[\n\n" + lines(ALPACA) + b"\0]", "data.txt:4: holds NUL bytes"),
        (listed(ALPACA, ALPACA)[:-3], "data.txt:3: not valid JSON (the file ends inside the list at column"),
        (b"[\n" + lines(ALPACA) + b",", "data.txt:3: not valid JSON (the file ends inside the list"),
        (listed(ALPACA)[:40], "data.txt:2: not valid JSON (Unterminated string"),
        (b"[", "data.txt:1: not valid JSON (the file ends inside the list at column 2)"),
        (listed(ALPACA) + b"[]", "data.txt:4: not valid JSON (Extra data at column 1)"),
        ('[{"instruction": "", "output": ""} {}]', "data.txt:1: not valid JSON (Expecting ',' delimiter at column 36)"),
        ('[{"instruction": "", "output": ""},]', "data.txt:1: not valid JSON (Expecting value at column 36)"),
        (b'{"output": ' + b"[" * 100_000 + b"\n", "data.txt:1: not valid JSON (nested too deeply"),
        (b'[{"output": ' + b"[" * 100_000 + b"\n", "data.txt:1: not valid JSON (nested too deeply"),
        (b'{"output": ' + b"1" * 5000 + b"}\n", "data.txt:1: not valid JSON (nested too deeply, or a number too long)"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_their_line(made, data, said):
    with pytest.raises(UserError) as error:
        list(read(made(data), strict=False))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_quote_left_open_is_found_before_the_end(made):
    with pytest.raises(UserError, match=":2: not a valid table .a quote that opens in this row is not closed"):
        list(read(made(f'question,answer\n一,"{"二" * MAX_FIELD}\n' * 2)))


@pytest.mark.parametrize("broken", [1, 200_000])
def test_a_broken_list_is_told_with_its_line_and_column_however_far_on(made, broken):
    text = "[\n" + '{"output": "一"},\n' * broken + '  {"output" "a"}, ' + "{}," * 2_000_000
    with pytest.raises(UserError) as error:
        list(read_json_records(made(text)))
    assert str(error.value).endswith(f"data.txt:{broken + 2}: not valid JSON (Expecting ':' delimiter at column 13)")


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_texts_longer_than_what_is_read_at_a_time(made, extra):
    long = {"instruction": "问", "output": "x" * (CHUNK - 34 + extra) + "\\" + "答" * 3 * CHUNK}
    for pack in (lines, listed):
        assert [record for _, record in read_json_records(made(pack(long, ALPACA)))] == [long, ALPACA]
    assert [record for _, record in read_json_records(made(lines(long).rstrip()))] == [long]


def test_folder_missing_file_and_pipe(tmp_path):
    for path, said in (
        (tmp_path, "is a folder, expected a file .*CSV"),
        (tmp_path / "no", "no such file"),
        (Path("/dev/null"), "is a pipe"),
    ):
        with pytest.raises(UserError, match=said):
            detect(path)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"instruction": "问", "output": ""}, "'output' is empty"),
        ({"instruction": "问", "output": ["答"]}, "'output' must be text, got list"),
        ({"output": "答"}, "record without 'instruction'"),
        ({"instruction": "问", "output": "\ud83d"}, "half a character"),
        ({"conversations": 3}, "'conversations' must be a list of turns, got int"),
        ({"conversations": []}, "the last turn is no answer"),
        ({"conversations": [{"from": "human"}]}, "turn 1 needs 'from' and 'value'"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "turn 1 has the role 'tool'; have human"),
        ({"conversations": SHAREGPT["conversations"][1:]}, "turn 1 of the conversation is 'assistant'"),
        ({"conversations": SHAREGPT["conversations"][:3]}, "the last turn is no answer"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}] * 2}, "turn 2 of the conversation"),
        ({"messages": [{"role": "user", "content": []}, MESSAGES["messages"][1]]}, "must be text, got list"),
        ({"messages": [{"role": "user", "content": " "}, MESSAGES["messages"][1]]}, "an empty user turn"),
        ({**RECORD, "more": 1}, "not an example record"),
        ({**RECORD, "licence": 1}, "not an example record"),
        ({**RECORD, "facts": [["a", "b"]]}, "not an example record"),
        ({"turns": []}, "not an example record"),
    ],
)
def test_unusable_records_are_told_or_raised(made, tmp_path, record, said):
    good = next(one for one in (RECORD, MESSAGES, SHAREGPT, ALPACA) if one.keys() & record.keys() - {"system"})
    path = made((json.dumps(good) + "\n" + json.dumps(record) + "\n" + json.dumps(good)).encode())
    rows = list(read(path, strict=False))
    assert [bool(row.problem) for row in rows] == [False, True, False]
    assert rows[1].example is None
    assert said in rows[1].problem
    assert str(path) not in rows[1].problem
    with pytest.raises(UserError) as error:
        list(read(path))
    assert str(error.value) == f"{path}:2: {rows[1].problem}"
    write(rows, tmp_path / "copy", detect(path))  # even half a character can be written
    assert [json.loads(line) for line in (tmp_path / "copy").open()] == [good, record, good]


def test_an_empty_answer_in_a_table_is_told(made):
    rows = list(read(made("question,answer\n问,\n,答\n问,答\n"), strict=False))
    assert [row.problem[:8] for row in rows] == ["an empty", "an empty", ""]


@pytest.mark.parametrize("record", [ALPACA, SHAREGPT, MESSAGES, RECORD])
def test_edit_keeps_raw_and_example_in_step(made, tmp_path, record):
    path = made(lines(record))
    row = edit(next(read(path)), lambda text: f"<{text}>")
    before = next(read(path)).example
    changed = [(turn.content, turn.input) for turn in row.example.turns]
    if record is RECORD:  # the other formats have no place for an empty input
        assert changed == [("<问>", "<资料>"), ("<答>", "<>")]
    else:
        assert [text for text, _ in changed] == [f"<{turn.content}>" for turn in before.turns]
    write([row], tmp_path / "copy", row.format)
    assert next(read(tmp_path / "copy")).example.turns == row.example.turns
    assert row.example.facts == before.facts
    assert edit(row, lambda text: "").problem


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (ALPACA, [("id", "7")]),
        (SHAREGPT, []),
        (MESSAGES | {"a": {"b": ["c", {"": 1.5}]}}, [("a_b", "c"), ("a_b_", "1.5")]),
        (
            {"messages": [{**MESSAGES["messages"][0], "name": "x"}, "odd"]},
            [("messages_name", "x"), ("messages", "odd")],
        ),
        (RECORD, [(key, RECORD[key]) for key in ("form", "source", "licence", "split", "review", "knowledge")]),
    ],
)
def test_what_stands_beside_the_texts_is_seen_and_edited(made, record, found):
    row = next(read(made(lines(record)), strict=False))
    assert beside(row) == found
    better = edit(row, str, lambda keys, text: f"{keys}={text}")
    assert [text for _, text in beside(better)] == [f"{keys}={text}" for keys, text in found]
    assert edit(row, str).raw == row.raw and list(better.raw) == list(row.raw)


def test_a_record_nested_beyond_measure_is_told(made):
    row = next(read(made('{"instruction": "问", "output": "答", "a": 1}\n')))
    for _ in range(2000):
        row.raw["a"] = [row.raw["a"]]
    with pytest.raises(UserError, match="data.txt:1: nested too deeply"):
        beside(row)


def test_a_file_can_be_rewritten_over_itself(made):
    path = made(listed(*[ALPACA] * 3))
    write((edit(row, str.upper) for row in read(path)), path, detect(path))
    assert len(list(read(path))) == 3


def peak_growth(code: str, path: Path) -> tuple[str, float]:
    """What a fresh process says, and by how many MB its memory grew while `code` ran."""
    script = (
        "import resource, sys\nfrom xinglin.dataset.formats import *\nfrom xinglin.errors import UserError\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        f"path, before = sys.argv[1], peak()\n{code}\nprint(peak() - before)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    said, _, grown = done.stdout.strip().rpartition("\n")
    return said, float(grown)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b'{"output": "a"}\n' * 2 + b'{"output": "', "line 3 is longer than 64 MB; is it JSON Lines?"),
        (b'[{"output": "a"},\n\n{"output": "', "data.txt:3: record 2 is longer than 64 MB"),
        (b'question,answer\na,b\nc,"', "line 3 is longer than 64 MB"),
    ],
)
def test_a_line_of_100_megabytes_is_refused_without_reading_it_all(made, start, said):
    path = made(start)
    with path.open("ab") as file:
        for _ in range(100):
            file.write(b"x" * 1_000_000)
    told, grown = peak_growth("try: list(read(path, strict=False))\nexcept UserError as error: print(error)", path)
    assert said in told
    assert grown < 200


@pytest.mark.parametrize("container", ["lines", "list", "csv"])
def test_200_000_records_stream_in_16_megabytes(tmp_path, container):
    path = tmp_path / "data.txt"
    with path.open("w", encoding="gb18030" if container == "csv" else "utf-8", newline="") as file:
        if container == "csv":
            csv.writer(file).writerows(
                [["question", "answer"], *[["偏头痛有哪些症状？", "恶心、呕吐。" * 8]] * 200_000]
            )
        else:
            record = json.dumps({"instruction": "偏头痛有哪些症状？", "output": "恶心、呕吐。" * 8}, ensure_ascii=False)
            file.write("[" if container == "list" else "")
            file.write(("," if container == "list" else "\n").join([record] * 200_000))
            file.write("]" if container == "list" else "")
    assert path.stat().st_size > 20_000_000
    said, grown = peak_growth("print(sum(1 for row in read(path)))", path)
    assert said == "200000"
    assert grown < 16


def test_utf16_tables_are_read(made):
    path = made("question,answer\n一个问题,一个回答\n".encode("utf-16"))
    assert detect(path).encoding == "utf-16"
    assert [(row.example.question.content, row.example.answer) for row in read(path)] == [("一个问题", "一个回答")]
