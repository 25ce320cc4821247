"""Conversations through the base's own chat template: the ids are the template's, the loss is on answers alone."""

import pytest
from chat_shapes import SHAPES, make_chat_tokenizer

from xinglin.dataset.encode import IGNORE, Encoding
from xinglin.errors import UserError
from xinglin.prompts import CHAT_FILE, ChatPrompt, choose_thinking, open_prompt, prompt_text
from xinglin.records import Example, Turn
from xinglin.tokenizer import wrap

ONE = (Turn("user", "偏头痛有哪些症状？"), Turn("assistant", "恶心、呕吐。"))
TWO = (*ONE, Turn("user", "挂哪个科？"), Turn("assistant", "神经内科。"))
SYSTEM = (Turn("system", "你是医生。"), *TWO)
ENDS = {"chatml": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>"}
ENDS |= {"gemma3": "<end_of_turn>", "llama2": "</s>", "mistral_bare": "</s>"}


def encoding(name: str, thinking: str = "auto", **options) -> Encoding:
    tokenizer = wrap(make_chat_tokenizer(name))
    return Encoding(tokenizer, choose_thinking(open_prompt("chat", tokenizer.inner), thinking), **options)


def template_ids(coder: Encoding, turns, **options) -> list[int]:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return list(coder.tokenizer.inner.apply_chat_template(messages, return_dict=False, **options))


def learned(coder: Encoding, row) -> list[str]:
    """The stretches that are learned, as text."""
    stretches: list[list[int]] = [[]]
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if label == IGNORE:
            stretches.append([])
        else:
            assert token == label
            stretches[-1].append(token)
    return [coder.tokenizer.inner.decode(ids) for ids in stretches if ids]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("turns", [ONE, TWO, SYSTEM], ids=["one", "two", "system"])
def test_ids_are_those_of_apply_chat_template(name, turns):
    coder = encoding(name)
    if turns is SYSTEM and name in ("gemma", "mistral_bare"):  # these refuse a system turn: it opens the first question
        turns = (Turn("user", f"你是医生。\n\n{ONE[0].content}"), *TWO[1:])
    rows = coder.rows(Example("1", turns))
    # Qwen3 shows an earlier answer otherwise than it asked for it, so each answer is a row of its own
    ends = [len(turns)] if name != "qwen3" or turns is ONE else [len(turns) - 2, len(turns)]
    assert [row.input_ids for row in rows] == [template_ids(coder, turns[:end]) for end in ends]
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    got = [text.removesuffix(ENDS[name]) for row in rows for text in learned(coder, row)]
    assert [text.strip() for text in got] == answers
    assert all(text.endswith(ENDS[name]) for row in rows for text in learned(coder, row))


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_asked_is_what_was_trained_and_what_the_template_asks(name):
    coder = encoding(name)
    asked = coder.prompt(TWO[:3])
    switch = {"enable_thinking": False} if name == "qwen3" else {}
    if name == "qwen3":
        coder = Encoding(coder.tokenizer, coder.template.thinks(False))
        asked = coder.prompt(TWO[:3])
    assert asked == template_ids(coder, TWO[:3], add_generation_prompt=True, **switch)
    (*_, row) = coder.rows(Example("1", TWO))
    assert row.input_ids[: len(asked)] == asked
    assert row.labels[len(asked) - 1] == IGNORE
    assert row.labels[len(asked)] != IGNORE


@pytest.mark.parametrize("name", ["gemma", "mistral_bare"])
def test_a_system_turn_is_never_lost(name):
    coder = encoding(name)
    assert "你是医生。\n\n偏头痛" in prompt_text(coder.template, SYSTEM[:2])
    (row,) = coder.rows(Example("1", SYSTEM))
    assert "你是医生" in coder.tokenizer.inner.decode(row.input_ids)


@pytest.mark.parametrize("thinking", ["auto", "true", "false"])
def test_an_empty_think_block_is_never_learned(thinking):
    coder = encoding("qwen3", thinking)
    for turns in (ONE, TWO, (ONE[0], Turn("assistant", "<think>\n\n</think>\n\n恶心、呕吐。"))):
        for row in coder.rows(Example("1", turns)):
            assert not any("think" in text for text in learned(coder, row))
            assert coder.tokenizer.inner.decode(row.input_ids).count("<think>") == 1


def test_reasoning_is_learned_and_decides_auto():
    reasoned = (ONE[0], Turn("assistant", "<think>\n想想\n</think>\n\n恶心。"))
    coder = encoding("qwen3", "false")
    (row,) = coder.rows(Example("1", reasoned))
    assert learned(coder, row) == ["恶心。<|im_end|>"]  # asked without reasoning, answered without it
    coder = encoding("qwen3")
    (row,) = coder.rows(Example("1", reasoned))
    assert learned(coder, row) == ["<think>\n想想\n</think>\n\n恶心。<|im_end|>"]
    (row,) = coder.rows(Example("2", ONE))
    assert learned(coder, row) == ["恶心、呕吐。<|im_end|>"]


def test_the_stored_template_asks_as_it_was_tuned(tmp_path):
    tokenizer = wrap(make_chat_tokenizer("qwen3"))
    (tmp_path / "adapter_config.json").write_text("{}")
    for thinks in (False, True):
        open_prompt("chat", tokenizer.inner).thinks(thinks).save(tmp_path)
        again = open_prompt("auto", tokenizer.inner, str(tmp_path))
        assert isinstance(again, ChatPrompt)
        assert prompt_text(again, ONE[:1]).endswith("</think>\n\n") is not thinks
        # any other program that takes the file asks the same
        messages = [{"role": "user", "content": ONE[0].content}]
        text = tokenizer.inner.apply_chat_template(
            messages, chat_template=(tmp_path / CHAT_FILE).read_text(), tokenize=False, add_generation_prompt=True
        )
        assert text == prompt_text(again, ONE[:1])
        switched = prompt_text(choose_thinking(again, "true"), ONE[:1])
        assert switched.endswith("assistant\n")


def test_a_cut_chat_row_still_ends_and_a_half_question_is_left_out():
    whole = encoding("chatml")
    (full,) = whole.rows(Example("1", TWO))
    end = whole.tokenizer.encode("<|im_end|>")
    first = full.labels.index(end[0]) + 1  # where the first answer ends
    for cutoff in range(first + 1, len(full.input_ids)):
        coder = encoding("chatml", cutoff_len=cutoff)
        (row,) = coder.rows(Example("1", TWO))
        assert row.cut
        assert row.labels[-1:] == row.input_ids[-1:] == end
        assert row.input_ids[-2:] != end * 2
        assert len(row.input_ids) <= cutoff
    short = encoding("chatml", cutoff_len=first + 3).rows(Example("1", TWO))[0]
    assert short.input_ids == full.input_ids[:first]  # no tokens of a question without its answer


def test_knowledge_stands_in_the_question():
    coder = encoding("llama3")
    text = prompt_text(coder.template, [Turn("user", "症状？", "偏头痛的症状：恶心")])
    assert "症状？\n资料：\n偏头痛的症状：恶心<|eot_id|>" in text


def test_an_answer_that_would_join_its_prompt_is_tokenized_apart():
    coder = encoding("chatml")
    (row,) = coder.rows(Example("1", (ONE[0], Turn("assistant", "\n恶心。"))))
    asked = coder.prompt(ONE[:1])
    assert row.input_ids[: len(asked)] == asked


def test_a_base_with_several_chat_templates_takes_its_default():
    tokenizer = make_chat_tokenizer("llama3")
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "x"}
    assert open_prompt("auto", tokenizer).source == SHAPES["llama3"]
    tokenizer.chat_template = {"tool_use": "x"}
    assert open_prompt("auto", tokenizer).name == "med_template"


def test_names_that_cannot_be_had(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="the base has no chat template; give med_template"):
        open_prompt("chat", tiny_tokenizer.inner)
    assert open_prompt("auto", tiny_tokenizer.inner).name == "med_template"
    assert open_prompt("auto", make_chat_tokenizer("gemma")).name == "chat"
    with pytest.raises(UserError, match="'med_template' has no thinking switch"):
        choose_thinking(open_prompt("auto", tiny_tokenizer.inner), "true")
    with pytest.raises(UserError, match="has no thinking switch"):
        encoding("gemma", "false")
    broken = tmp_path / "broken.jinja"
    broken.write_text("{{ messages[0]['content'")
    with pytest.raises(UserError, match="refuses a conversation"):
        open_prompt(str(broken), tiny_tokenizer.inner).texts(ONE)


def test_a_jinja_file_is_a_prompt_too(tiny_tokenizer, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    coder = Encoding(tiny_tokenizer, open_prompt(str(path), tiny_tokenizer.inner))
    (row,) = coder.rows(Example("1", TWO))
    assert learned(coder, row) == ["恶心、呕吐。</s>", "神经内科。</s>"]
