"""Templates: found from anywhere, rendered exactly, exported as a chat template that renders the same."""

import json
import os
import subprocess
import sys

import pytest

from xinglin.errors import UserError
from xinglin.prompts import TEMPLATE_FILE, load_template, prompt_text, template_names
from xinglin.records import Turn

TURNS = (Turn("user", "问一"), Turn("assistant", "答一"), Turn("user", "问二", "资料二"))


def test_med_template_with_and_without_input():
    template = load_template("med_template")
    assert prompt_text(template, [Turn("user", "问")]) == "问题：问\n回答："
    assert prompt_text(template, [Turn("user", "问", "甲\n乙")]) == "问题：问\n资料：\n甲\n乙\n回答："


def test_packaged_templates_are_found_from_another_folder(tmp_path):
    code = "from xinglin.prompts import load_template; print(load_template('med_template').name)"
    where = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": where},
    )
    assert done.stdout.strip() == "med_template", done.stderr


def test_unknown_template_names_the_nearest():
    with pytest.raises(UserError, match="unknown prompt template 'med_templat'.*did you mean 'med_template'"):
        load_template("med_templat")


def test_a_template_file_of_the_usual_form(tmp_path):
    path = tmp_path / "alpaca.json"
    fields = {
        "description": "d",
        "prompt_input": "I:{instruction}\nC:{input}\nR:",
        "prompt_no_input": "I:{instruction}\nR:",
        "response_split": "R:",
    }
    path.write_text(json.dumps(fields))
    template = load_template(str(path))
    assert prompt_text(template, [Turn("user", "{input} {x}", "{instruction}")]) == "I:{input} {x}\nC:{instruction}\nR:"
    template.save(tmp_path)
    assert load_template(str(tmp_path / TEMPLATE_FILE)).digest() == template.digest()


@pytest.mark.parametrize(
    "fields", [{"prompt_no_input": "{instruction}"}, {"prompt_input": "x", "prompt_no_input": "y"}, []]
)
def test_a_broken_template_is_refused(tmp_path, fields):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="prompt_input"):
        load_template(str(path))


def test_a_space_before_the_answer_is_the_answers():
    template = load_template("vicuna")
    assert prompt_text(template, TURNS[:1]).endswith("USER: 问一 ASSISTANT:")
    (pieces,) = template.texts(TURNS)
    assert [piece.text for piece in pieces][1:] == [" 答一", "USER: 问二\n资料二 ASSISTANT:"]


def test_turns_out_of_order_are_refused():
    with pytest.raises(UserError, match="turn 1 .* is 'assistant', expected 'user'"):
        load_template("med_template").texts([Turn("assistant", "答")])


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("first", [(), (Turn("system", "你是助手"),)])
def test_chat_template_renders_the_same_ids(tiny_tokenizer, name, first):
    from xinglin.dataset.encode import Encoding

    template = load_template(name)
    turns = (*first, *TURNS)
    messages = [{"role": turn.role, "content": turn.content, "input": turn.input} for turn in turns]
    ids = tiny_tokenizer.inner.apply_chat_template(messages, chat_template=template.chat_template(), return_dict=False)
    assert tiny_tokenizer.inner.decode(ids) == tiny_tokenizer.inner.decode(
        Encoding(tiny_tokenizer, template).prompt(turns)
    )
