"""Bases as users have them: old LLaMA folders, folders with parts missing, GGUF files, ModelScope names."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from bases import make_base, make_old_llama
from sentencepiece import SentencePieceProcessor

from xinglin import backbone
from xinglin.backbone import Precision, agree, find_base, load_base
from xinglin.dataset.encode import IGNORE, Encoding
from xinglin.errors import UserError
from xinglin.prompts import load_template
from xinglin.records import Example, Turn
from xinglin.tokenizer import load_tokenizer

FP32 = Precision(torch.float32, "test")
TEXTS = ["偏头痛有哪些症状？", "恶心、呕吐", "A cold, 3 days", "回答：头痛 and 恶心", "𠮷野家"]


@pytest.fixture(scope="module", params=[(0, 1, -1), (0, 0, 0)], ids=["0/1/-1", "0/0/0"])
def old(request, tmp_path_factory):
    return make_old_llama(tmp_path_factory.mktemp("old") / "llama-7b-hf", *request.param)


def test_an_old_llama_tokenizer_is_what_sentencepiece_says(old, caplog):
    tokenizer = load_tokenizer(old)
    pieces = SentencePieceProcessor(model_file=str(old / "tokenizer.model"))
    assert (tokenizer.prefix_ids, tokenizer.eos_id) == ((pieces.bos_id(),), pieces.eos_id()) == ((1,), 2)
    for text in TEXTS:
        assert tokenizer.encode(text) == pieces.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert "an old LLaMA tokenizer, repaired: bos_token <s>, eos_token </s>, unk_token <unk>" in caplog.text


def test_an_old_llamas_rows_begin_and_end_and_its_answers_join_their_prompt(old):
    tokenizer = load_tokenizer(old)
    encoding = Encoding(tokenizer, load_template("med_template"))
    (row,) = encoding.rows(Example("1", (Turn("user", "偏头痛有哪些症状？"), Turn("assistant", "恶心、呕吐"))))
    assert (row.input_ids[0], row.input_ids[-1], row.labels[0], row.labels[-1]) == (1, 2, IGNORE, 2)
    whole = tokenizer.encode("问题：偏头痛有哪些症状？\n回答：恶心、呕吐")
    assert row.input_ids == [1, *whole, 2]


def test_other_programs_ask_an_old_llama_in_the_same_ids(old, tmp_path):
    tokenizer = load_tokenizer(old)
    for name in ("med_template", "alpaca", "vicuna"):
        template = load_template(name)
        template.save(tmp_path, begins=tokenizer.begins)
        ids = tokenizer.inner.apply_chat_template(
            [{"role": "user", "content": "头痛？"}],
            chat_template=(tmp_path / "chat_template.jinja").read_text("utf-8"),
            add_generation_prompt=True,
            return_dict=False,
        )
        assert list(ids) == Encoding(tokenizer, template).prompt([Turn("user", "头痛？")])


def test_an_old_llamas_config_follows_its_tokenizer(old, caplog):
    model, tokenizer = load_base(str(old), FP32), load_tokenizer(old)
    agree(model, tokenizer)
    for part in (model.config, model.generation_config):
        assert (part.bos_token_id, part.eos_token_id) == (1, 2)
        assert 0 <= part.pad_token_id < model.config.vocab_size
    assert "its tokenizer with 2; taking 2" in caplog.text
    embeddings = model.get_input_embeddings()
    model(input_ids=torch.tensor([[5, embeddings.num_embeddings - 1, 0, 7]])).logits.sum().backward()
    assert embeddings.weight.grad[[0, embeddings.num_embeddings - 1]].abs().sum(1).gt(0).all()  # no row is padding


def test_tokenizers_of_other_models(tiny_base, tiny_tokenizer):
    from dataclasses import replace

    model = load_base(str(tiny_base), FP32)
    with pytest.raises(UserError, match=r"the tokenizer's end is id 32000, the base knows \d+ tokens"):
        agree(model, replace(tiny_tokenizer, eos_id=32000))


def test_padding_outside_the_embeddings_is_never_used(tiny_base, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    from transformers import AutoTokenizer

    inner = AutoTokenizer.from_pretrained(base)
    inner.add_special_tokens({"pad_token": "[PAD]"})
    inner.save_pretrained(base)
    tokenizer = load_tokenizer(base)
    assert tokenizer.inner.pad_token_id >= load_base(str(base), FP32).config.vocab_size
    assert tokenizer.pad_id == tokenizer.eos_id


def test_a_list_of_ends_that_names_the_tokenizers_is_left_alone(tiny_base, tiny_tokenizer, caplog):
    model = load_base(str(tiny_base), FP32)
    model.generation_config.eos_token_id = model.config.eos_token_id = [7, tiny_tokenizer.eos_id]
    agree(model, tiny_tokenizer)
    assert model.generation_config.eos_token_id == [7, tiny_tokenizer.eos_id]
    assert "taking" not in caplog.text


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_a_folder_without_tokenizer_gets_one_line(tmp_path, kind):
    base = make_base(tmp_path / "base", kind)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (base / name).unlink(missing_ok=True)
    with pytest.raises(
        UserError, match=r"base: no tokenizer; the folder has none of tokenizer\.json, tokenizer\.model"
    ):
        load_tokenizer(base)


def test_a_tokenizer_that_knows_nothing_is_refused(tmp_path):
    base = make_base(tmp_path / "base", "qwen2")
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text("{}")
    (base / "merges.txt").write_text("")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(base)


def test_a_gguf_file_becomes_a_folder_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "my-model.Q4.gguf"
    file.write_bytes(b"GGUF")
    made = []

    def convert(gguf, folder):
        made.append(gguf)
        make_base(folder, "llama")

    monkeypatch.setattr(backbone, "_convert_gguf", convert)
    first = find_base(str(file))
    assert find_base(str(file)) == first
    assert made == [file.resolve()]
    assert load_base(first, FP32).config.model_type == "llama"
    file.write_bytes(b"GGUF changed")
    assert find_base(str(file)) != first
    monkeypatch.undo()


def test_a_broken_gguf_file_gets_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XINGLIN_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"no such thing" * 9)
    with pytest.raises(UserError, match=r"broken\.gguf': not a GGUF file to read"):
        find_base(str(file))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.move(file, folder / "x.gguf")
    with pytest.raises(UserError, match=r"give the file, .*x\.gguf"):
        find_base(str(folder))


def test_modelscope_names(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(UserError, match="modelscope:Qwen/Qwen3-8B: needs modelscope; pip install modelscope"):
        find_base("modelscope:Qwen/Qwen3-8B")
    asked = []
    fake = SimpleNamespace(snapshot_download=lambda name: asked.append(name) or str(tmp_path))
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    assert find_base("modelscope:Qwen/Qwen3-8B") == str(tmp_path)
    assert asked == ["Qwen/Qwen3-8B"]

    def unreachable(name):
        raise ConnectionError("no route\nto host")

    fake.snapshot_download = unreachable
    with pytest.raises(UserError, match="modelscope:a/b cannot be had: no route to host"):
        find_base("modelscope:a/b")
