"""Exports: what other tools read back, all or nothing, never over what is not ours."""

import json
import re
import shutil

import pytest
import yaml

from xinglin.dataset.card import size_category
from xinglin.dataset.exports import DataExport, export_data
from xinglin.dataset.formats import detect, read
from xinglin.errors import UserError
from xinglin.prompts import KNOWLEDGE, load_template
from xinglin.records import Example, Turn, write_json_list, write_jsonl

FORMATS = ("alpaca", "sharegpt", "openai", "huggingface", "llamafactory")
TALK = {
    "conversations": [
        {"from": "human", "value": "头疼"},
        {"from": "gpt", "value": "多久了？"},
        {"from": "human", "value": "三天"},
        {"from": "gpt", "value": "去神经内科。"},
    ],
    "system": "你是医生",
}


def example(number, split):
    knowledge = "" if number % 2 else f"第{number}种病的症状：恶心"
    turns = (Turn("user", f"第{number}种病有哪些症状？", knowledge), Turn("assistant", "恶心。"))
    facts = ((f"第{number}种病", "常见症状", "恶心"),)
    kind = "none" if number % 2 else "facts"
    return Example(f"s-{number}", turns, "symptoms", facts, "cMeKG", "terms | unclear", split, knowledge=kind)


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "d.records.jsonl"
    splits = ["train"] * 2500 + ["unseen_disease"] * 3 + ["seen_fact"] * 2
    write_jsonl(path, (example(number, split) for number, split in enumerate(splits)))
    return path


def export(data, output, **options):
    export_data(DataExport(str(data), str(output), **options))
    return output


@pytest.mark.parametrize("form", ["alpaca", "sharegpt", "openai"])
def test_files_hold_the_asked_split(records, tmp_path, capsys, form):
    for split, number in (("train", 2500), ("seen_fact", 2), ("all", 2505)):
        path = export(records, tmp_path / f"{split}.json", format=form, split=split)
        assert len(list(read(path))) == number
        assert capsys.readouterr().out == f"{path}: {number:,} records as {form}\n"


def test_alpaca_is_what_finetune_reads(records, tmp_path):
    path = export(records, tmp_path / "a.json", format="alpaca")
    assert [row.example.turns for row in read(path)] == [row.example.turns for row in read(records)][:2500]
    assert detect(path).container == "list"


def test_chats_carry_knowledge_in_the_words_of_the_template(records, tmp_path):
    content = json.loads(export(records, tmp_path / "o.jsonl", format="openai").read_text("utf-8").split("\n")[0])
    assert content["messages"][0]["content"] == "第0种病有哪些症状？\n资料：\n第0种病的症状：恶心"
    assert f"{{instruction}}\n{KNOWLEDGE}{{input}}" in load_template("med_template").prompt_input
    shared = next(read(export(records, tmp_path / "s.json", format="sharegpt"))).raw
    assert shared["conversations"][0] == {"from": "human", "value": content["messages"][0]["content"]}


def test_conversations_survive_every_way(tmp_path):
    source = tmp_path / "talk.json"
    write_json_list(source, [TALK, TALK])
    turns = next(read(source)).example.turns
    chat = export(source, tmp_path / "chat.jsonl", format="openai")
    assert next(read(chat)).example.turns == turns
    assert next(read(export(chat, tmp_path / "back.json", format="sharegpt"))).raw == TALK
    for form in ("alpaca", "huggingface"):
        with pytest.raises(UserError, match=r"talk.json, record 1 is a conversation of 5 turns; .*openai or sharegpt"):
            export(source, tmp_path / "no", format=form)


def test_a_table_becomes_a_data_set(tmp_path):
    source = tmp_path / "d.csv"
    source.write_bytes("title,ask,answer\n头疼,头疼三天,去看医生\n".encode("gb18030"))
    path = export(source, tmp_path / "a.json", format="alpaca")
    assert json.loads(path.read_text("utf-8")) == [{"instruction": "头疼\n头疼三天", "input": "", "output": "去看医生"}]
    card = (export(source, tmp_path / "hub", format="huggingface") / "README.md").read_text("utf-8")
    assert "not recorded" in card
    assert "cMeKG" not in card


def test_the_hub_folder_loads_with_datasets(records, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    folder = export(records, tmp_path / "hub", format="huggingface", name="杏林")
    datasets.disable_progress_bars()
    data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2500, "unseen_disease": 3, "seen_fact": 2}
    columns = ["id", "instruction", "input", "output", "form", "facts", "source", "licence", "knowledge"]
    assert data["train"].column_names == columns
    assert data["seen_fact"][1] == {
        "id": "s-2504",
        "instruction": "第2504种病有哪些症状？",
        "input": "第2504种病的症状：恶心",
        "output": "恶心。",
        "form": "symptoms",
        "facts": [{"subject": "第2504种病", "predicate": "常见症状", "object": "恶心"}],
        "source": "cMeKG",
        "licence": "terms | unclear",
        "knowledge": "facts",
    }


def test_the_card_says_what_is_in_it_and_what_is_wrong_with_it(records, tmp_path):
    folder = export(records, tmp_path / "hub", format="huggingface", name="杏林")
    header, _, body = (folder / "README.md").read_text("utf-8").removeprefix("---\n").partition("---\n")
    told = yaml.safe_load(header)
    assert (told["license"], told["language"], told["size_categories"]) == ("other", ["zh"], ["1K<n<10K"])
    files = {entry["split"]: entry["path"] for entry in told["configs"][0]["data_files"]}
    assert list(files) == ["train", "unseen_disease", "seen_fact"]
    assert all((folder / path).is_file() for path in files.values())
    assert "# 杏林" in body
    assert "| cMeKG | terms \\| unclear | 2,505 |" in body
    assert "| symptoms | 2,500 | 3 | 2 |" in body
    for said in ("Not medical advice", "不构成医疗建议", "load_dataset", "clinician", "incomplete", "terms of cMeKG"):
        assert said in body


def test_a_foreign_record_is_named_without_its_folder(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_json_list(tmp_path / "a.json", [{"instruction": "问", "input": "资料", "output": "答"}])
    folder = export(tmp_path / "a.json", tmp_path / "hub", format="huggingface")
    row = parquet.read_table(folder / "data/train-00000-of-00001.parquet").to_pylist()[0]
    assert (row["id"], row["knowledge"], row["facts"]) == ("a.json, record 1", "", [])


def test_sizes_in_the_words_of_the_hub():
    sizes = [0, 999, 1_000, 99_999, 100_000, 10_000_000]
    assert [size_category(n) for n in sizes] == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "10M<n<100M"]


def test_llamafactory_finds_its_files_and_columns(records, tmp_path):
    folder = export(records, tmp_path / "lf", format="llamafactory", name="med")
    told = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    assert list(told) == ["med", "med_unseen_disease", "med_seen_fact"]
    assert told["med"]["formatting"] == "alpaca"
    assert told["med"]["columns"] == {"prompt": "instruction", "query": "input", "response": "output"}
    rows = json.loads((folder / told["med"]["file_name"]).read_text("utf-8"))
    assert len(rows) == 2500
    # it joins the two with a line end: the same prompt as in a chat
    assert "\n".join((rows[0]["instruction"], rows[0]["input"])) == "第0种病有哪些症状？\n资料：\n第0种病的症状：恶心"
    assert rows[1]["input"] == ""


def test_llamafactory_gets_conversations_as_such(tmp_path):
    write_json_list(tmp_path / "talk.json", [TALK, {**TALK, "system": ""}])
    folder = export(tmp_path / "talk.json", tmp_path / "lf", format="llamafactory")
    told = json.loads((folder / "dataset_info.json").read_text("utf-8"))["xinglin"]
    assert (told["formatting"], told["columns"]) == ("sharegpt", {"messages": "conversations", "system": "system"})
    rows = json.loads((folder / told["file_name"]).read_text("utf-8"))
    assert all({told["columns"]["messages"], told["columns"]["system"]} <= row.keys() for row in rows)
    tags = told["tags"]
    first = rows[0]["conversations"][0]
    assert (first[tags["role_tag"]], first[tags["content_tag"]]) == (tags["user_tag"], "头疼")
    assert rows[0]["conversations"][1][tags["role_tag"]] == tags["assistant_tag"]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_replaced_unless_asked_and_the_same_bytes_come_again(records, tmp_path, form):
    output = export(records, tmp_path / "out", format=form)

    def content():
        files = [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in files}

    before = content()
    with pytest.raises(UserError, match="exists; give another, or --overwrite"):
        export(records, output, format=form)
    export(records, output, format=form, overwrite=True)
    assert content() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.records.jsonl", "out"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_broken_file_leaves_nothing_behind(records, tmp_path, form):
    with records.open("a", encoding="utf-8") as file:
        file.write('{"id": ')
    with pytest.raises(UserError, match="d.records.jsonl:2506: not valid JSON"):
        export(records, tmp_path / "out", format=form)
    assert [path.name for path in tmp_path.iterdir()] == ["d.records.jsonl"]


def test_overwrite_costs_no_more_than_an_earlier_export(records, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    export(records, home, format="huggingface")  # an empty folder may be filled
    (home / "data" / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="holds data/thesis.docx, which is no export"):
        export(records, home, format="llamafactory", overwrite=True)
    for output in (tmp_path, records, tmp_path / "home" / ".."):
        with pytest.raises(UserError, match="is or holds the data itself"):
            export(records, output, format="huggingface", overwrite=True)
    for form, output, said in (("alpaca", home, "is a folder"), ("huggingface", tmp_path / "f", "is a file")):
        (tmp_path / "f").touch()
        with pytest.raises(UserError, match=said):
            export(records, output, format=form, overwrite=True)
    assert (home / "data" / "thesis.docx").read_text() == "years of work"


def test_an_exchange_that_was_killed_is_ended_by_the_next_export(records, tmp_path):
    output, old, new = tmp_path / "hub", tmp_path / ".hub.old", tmp_path / ".hub.new"
    export(records, output, format="huggingface")
    card = (output / "README.md").read_bytes()
    output.rename(old)  # killed between the two renames: the earlier export is back, and protected
    shutil.copytree(old, new)
    with pytest.raises(UserError, match="exists; give another, or --overwrite"):
        export(records, output, format="huggingface")
    assert (output / "README.md").read_bytes() == card and not old.exists()
    shutil.copytree(output, old)  # killed before the old one was removed
    export(records, output, format="huggingface", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.records.jsonl", "hub"]
    old.mkdir()
    (old / "thesis.docx").touch()
    with pytest.raises(UserError, match=r".hub.old holds thesis.docx, which is no export; move it away"):
        export(records, output, format="huggingface", overwrite=True)
    assert (old / "thesis.docx").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"format": "alpaca", "split": "test"},
            "no record of split 'test'; has train, unseen_disease, seen_fact (or all)",
        ),
        ({"format": "huggingface", "split": "seen_fact"}, "holds every split; leave --split out"),
        ({"format": "huggingface", "name": "../x"}, "name '../x': use letters"),
    ],
)
def test_what_makes_no_sense_is_refused(records, tmp_path, options, said):
    with pytest.raises(UserError, match=re.escape(said)):
        export(records, tmp_path / "out", **options)


def test_a_split_cannot_lead_out_of_the_folder(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [example(1, "../../x")])
    with pytest.raises(UserError, match=r"split '../../x' cannot name a file"):
        export(tmp_path / "r.jsonl", tmp_path / "out", format="huggingface")
