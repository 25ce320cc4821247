"""Several files of data as one epoch: shares, order, and what cannot work."""

import json

import pytest

from xinglin.errors import UserError
from xinglin.tuning.mixing import Mixture, read_weights
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.prepare import data_paths, prepare


def test_an_epoch_is_one_pass_over_the_first_file_and_shares_of_the_others():
    mixture = Mixture((80, 1000, 7), (0.8, 0.1, 0.1))
    assert mixture.counts == (80, 10, 10)
    seen = set()
    for number in range(30):
        epoch = mixture.epoch(number)
        assert len(epoch) == 100
        assert sorted(place for place in epoch if place < 80) == list(range(80))
        general = [place for place in epoch if 80 <= place < 1080]
        assert len(set(general)) == 10
        assert not seen & set(general)  # others every time, until all were seen
        seen |= set(general)
        small = [place for place in epoch if place >= 1080]
        assert len(small) == 10
        assert max(map(small.count, small)) <= 3  # ten of seven: a whole pass, and parts of those around it
        assert len(set(small)) >= 5
    assert len(seen) == 300


def test_the_order_is_a_function_of_seed_and_epoch():
    assert Mixture((50,), seed=1).epoch(3) == Mixture((50,), seed=1).epoch(3)
    assert Mixture((50,), seed=1).epoch(3) != Mixture((50,), seed=1).epoch(4)
    assert Mixture((50,), seed=1).epoch(3) != Mixture((50,), seed=2).epoch(3)
    assert sorted(Mixture((50, 20)).epoch(0)) == list(range(70))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0.8,0.3", "sum to 1.1, not 1; in the same proportions: 0.727,0.273"),
        ("0.5", "has 1 numbers, data_path 2 files"),
        ("0.5,0.3,0.2", "has 3 numbers, data_path 2 files"),
        ("a,b", "give numbers joined by commas"),
        ("1,0", "must be above 0"),
        ("1.5,-0.5", "must be above 0"),
        ([0.5, 0.6], "sum to 1.1"),
    ],
)
def test_weights_that_cannot_be(given, said):
    with pytest.raises(UserError) as error:
        read_weights(given, 2)
    assert said in str(error.value)


def test_weights_as_users_write_them():
    assert read_weights("0.8,0.2", 2) == read_weights("[0.8, 0.2]", 2) == read_weights([0.8, 0.2], 2) == (0.8, 0.2)
    assert read_weights("", 2) == ()
    assert sum(read_weights("0.333,0.333,0.333", 3)) == pytest.approx(0.999)


def test_paths_as_users_write_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.json").write_text("[]")
    assert data_paths("a,b.json") == ["a,b.json"]
    assert data_paths("a.json, c.json") == data_paths("[a.json,'c.json']") == ["a.json", "c.json"]
    assert data_paths(["a.json"]) == ["a.json"]


def file_of(path, count, mark):
    path.write_text(json.dumps([{"instruction": f"{mark}{n}", "output": "好"} for n in range(count)]), "utf-8")
    return str(path)


def test_files_of_several_formats_are_mixed_and_counted(tmp_path, tiny_tokenizer, caplog):
    caplog.set_level("INFO", "xinglin")
    chat = {"messages": [{"role": "system", "content": "简短"}, {"role": "user", "content": "甲"}]}
    chat["messages"].append({"role": "assistant", "content": "乙"})
    share = {"conversations": [{"from": "human", "value": "甲"}, {"from": "gpt", "value": "乙"}] * 2}
    (tmp_path / "m.jsonl").write_text("\n".join([json.dumps(chat)] * 30))
    (tmp_path / "s.json").write_text(json.dumps([share] * 40))
    paths = f"{file_of(tmp_path / 'a.json', 50, '问')},{tmp_path / 'm.jsonl'},{tmp_path / 's.json'}"
    config = FinetuneConfig(
        "", paths, "", data_weights="0.5,0.3,0.2", batch_size=8, num_epochs=2, val_set_size=10, micro_batch_size=8
    )
    made = prepare(config, tiny_tokenizer, "")
    assert made.mixture.sizes == (45, 27, 38)  # 10 held back by the shares: 5, 3, 2
    assert made.mixture.counts == (45, 27, 18)
    assert len(made.val) == 10
    assert made.steps == 24  # 90 records in batches of 8, twice
    assert "s.json: 18 of 38 records an epoch (20.0 %)" in caplog.text
    assert "steps: 24 (2 epochs of 90 records, 8 a step)" in caplog.text


def test_as_many_are_held_back_as_were_asked_for(tmp_path, tiny_tokenizer):
    paths = ",".join(file_of(tmp_path / f"{name}.json", 9, "问") for name in "abc")
    for count in range(1, 20):
        config = FinetuneConfig("", paths, "", val_set_size=count)
        assert len(prepare(config, tiny_tokenizer, "").val) == count


def test_holding_back_a_whole_file_is_refused(tmp_path, tiny_tokenizer):
    paths = f"{file_of(tmp_path / 'a.json', 90, '问')},{file_of(tmp_path / 'b.json', 2, '问')}"
    config = FinetuneConfig("", paths, "", data_weights="0.5,0.5", val_set_size=20)
    with pytest.raises(UserError, match="would hold back a whole data file"):
        prepare(config, tiny_tokenizer, "")
