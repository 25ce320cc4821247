"""The encoder and the only loss mask, token by token."""

import pytest

from xinglin.dataset.encode import IGNORE, Encoding, encode_all
from xinglin.errors import UserError
from xinglin.prompts import load_template, prompt_text
from xinglin.records import Example, Turn

ONE = Example("1", (Turn("user", "偏头痛有哪些症状？", "偏头痛的症状：恶心"), Turn("assistant", "恶心、呕吐。")))


def one_row(encoding, example):
    (row,) = encoding.rows(example)
    return row


@pytest.fixture
def encoding(tiny_tokenizer):
    return Encoding(tiny_tokenizer, load_template("med_template"), cutoff_len=512)


def test_labels_token_by_token(encoding, tiny_tokenizer):
    row = one_row(encoding, ONE)
    prompt = tiny_tokenizer.encode(prompt_text(encoding.template, ONE.turns[:1]))
    answer = [*tiny_tokenizer.encode("恶心、呕吐。"), tiny_tokenizer.eos_id]
    assert row.input_ids == prompt + answer
    assert row.labels == [IGNORE] * len(prompt) + answer
    assert encoding.prompt(ONE.turns[:1]) == prompt  # what inference asks is what training saw
    assert row.targets == len(answer)
    assert not row.cut


def test_every_assistant_turn_is_learned_and_ends(encoding, tiny_tokenizer):
    example = Example("2", (*ONE.turns, Turn("user", "还有呢？"), Turn("assistant", "畏光。")))
    row = one_row(encoding, example)
    learned = [label for label in row.labels if label != IGNORE]
    expected = []
    for text in ("恶心、呕吐。", "畏光。"):
        expected += [*tiny_tokenizer.encode(text), tiny_tokenizer.eos_id]
    assert learned == expected
    kept = [pair for pair in zip(row.input_ids, row.labels, strict=True) if pair[1] != IGNORE]
    assert all(token == label for token, label in kept)


def test_a_cut_row_still_ends_and_is_counted(encoding, tiny_tokenizer):
    full = one_row(encoding, ONE)
    for cutoff in range(len(full.input_ids) - 3, len(full.input_ids)):
        short = one_row(Encoding(tiny_tokenizer, encoding.template, cutoff), ONE)
        assert short.cut
        assert len(short.input_ids) == cutoff
        assert short.input_ids[-1] == short.labels[-1] == tiny_tokenizer.eos_id
        assert short.input_ids[:-1] == full.input_ids[: cutoff - 1]


def test_every_row_of_a_file_ends(encoding, tiny_tokenizer):
    examples = [Example(str(n), (Turn("user", "问" * n), Turn("assistant", "答" * 3 * n))) for n in range(1, 60)]
    rows = encode_all(examples, Encoding(tiny_tokenizer, encoding.template, 90)).rows
    assert all(row.input_ids[-1] == row.labels[-1] == tiny_tokenizer.eos_id for row in rows)
    assert any(row.cut for row in rows)
    assert any(not row.cut for row in rows)


def test_a_row_without_anything_to_learn_is_left_out_and_named(encoding, tiny_tokenizer):
    long = Example("long", (Turn("user", "问" * 300), Turn("assistant", "答")))
    small = Encoding(tiny_tokenizer, encoding.template, 200)
    made = encode_all([ONE, long], small)
    assert (made.refused, len(made.rows)) == (["long"], 1)
    with pytest.raises(UserError, match="leaves no row with anything to learn"):
        encode_all([long], small)


def test_train_on_inputs_learns_everything(encoding, tiny_tokenizer):
    row = one_row(Encoding(tiny_tokenizer, encoding.template, 512, train_on_inputs=True), ONE)
    assert row.labels == row.input_ids


def test_bos_is_put_first_where_the_tokenizer_adds_one(encoding, tiny_tokenizer):
    from dataclasses import replace

    row = one_row(Encoding(replace(tiny_tokenizer, prefix_ids=(1,)), encoding.template), ONE)
    assert (row.input_ids[0], row.labels[0]) == (1, IGNORE)
    assert row.input_ids[1:] == one_row(encoding, ONE).input_ids
