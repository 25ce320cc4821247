"""LoRA, QLoRA, Adapter and full tuning: what each trains, what it leaves alone, what it writes and reads."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bases import KINDS, make_base, make_old_llama
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from xinglin import backbone
from xinglin.backbone import Precision, choose_precision, keep_trainable, load_base
from xinglin.cli import main
from xinglin.errors import UserError
from xinglin.tuning import train
from xinglin.tuning.methods import attach, put_on, quantization, resolved, trainable_parameters
from xinglin.tuning.options import FinetuneConfig
from xinglin.tuning.train import finetune

METHODS = ("lora", "qlora", "adapter", "full")
REFERENCE = Path(__file__).parent / "reference"
FP32 = Precision(torch.float32, "test")
HIDDEN, INNER, KEY_VALUE, LAYERS = 32, 48, 16, 2


def config(base, data, out, **changes) -> FinetuneConfig:
    made = FinetuneConfig(
        base_model=str(base), data_path=str(data), output_dir=str(out), batch_size=8, micro_batch_size=4, num_epochs=2,
        val_set_size=4, learning_rate=1e-2, bottleneck_size=4, precision="fp32",
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {kind: make_base(folder / kind, kind) for kind in KINDS} | {"old": make_old_llama(folder / "llama-7b-hf")}


@pytest.fixture
def made(bases, data_file, tmp_path, capsys, caplog):
    return bases, data_file, tmp_path, capsys, caplog


def frozen_weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if not weight.requires_grad}


@pytest.fixture
def frozen(monkeypatch):
    """Runs check that frozen weights stay what they are, bit by bit; the fixture is how many there were."""
    counts = []
    real = train.AnswerTrainer.train

    def training(self, **options):
        before = frozen_weights(self.model)
        result = real(self, **options)
        after = frozen_weights(self.model)
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        assert all(w.dtype == torch.float32 for w in self.model.parameters() if w.requires_grad)
        counts.append(len(before))
        return result

    monkeypatch.setattr(train.AnswerTrainer, "train", training)
    return counts


@pytest.mark.parametrize("kind", [*KINDS, "old"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_tunes_every_base_and_infer_reads_it(made, kind, method, frozen):
    bases, data_file, tmp_path, capsys, caplog = made
    out = tmp_path / "out"
    metrics = finetune(config(bases[kind], data_file, out, method=method, precision="bf16"))
    assert bool(frozen[0]) is (method != "full")
    assert metrics["method"] == method
    assert metrics["reload_logit_difference"] <= 1e-3
    losses = [
        entry["eval_loss"]
        for entry in map(json.loads, (out / "log.jsonl").read_text().splitlines())
        if "eval_loss" in entry
    ]
    assert losses[-1] < losses[0]
    assert main(["infer", "--base_model", str(bases[kind]), "--lora_weights", str(out), "--max_new_tokens", "3"]) == 0
    assert capsys.readouterr().out.count("回答：") == 4
    if kind != "old":
        return
    bits = ["--load_4bit"] if method == "qlora" else []
    arguments = ["--base_model", str(out), *bits] if method == "full" else ["--base_model", str(bases[kind]), *bits]
    arguments += [] if method == "full" else ["--lora_weights", str(out)]
    assert main(["infer", *arguments, "--max_new_tokens", "3"]) == 0
    said = caplog.text
    assert "an old LLaMA tokenizer, repaired: bos_token <s>, eos_token </s>" in said
    assert "its config ends with id 1, its tokenizer with 2; taking 2" in said


def test_trainable_parameters_follow_their_formulas(bases):
    ins_and_outs = [(HIDDEN, HIDDEN)] * 2 + [(HIDDEN, KEY_VALUE)] * 2 + [(HIDDEN, INNER)] * 2 + [(INNER, HIDDEN)]
    rank, inside = 3, 5
    lora = LAYERS * rank * sum(i + o for i, o in ins_and_outs)
    adapter = LAYERS * 2 * (2 * HIDDEN * inside + HIDDEN + inside)
    for method, expected in (("lora", lora), ("qlora", lora), ("adapter", adapter)):
        settings = config("", "", "", method=method, lora_r=rank, bottleneck_size=inside)
        base = load_base(str(bases["llama"]), FP32, quantization=quantization(settings))
        assert trainable_parameters(attach(base, settings)) == expected
    settings = config("", "", "", lora_r=rank, lora_target_modules="[q_proj,v_proj]")
    of_two = LAYERS * rank * (HIDDEN + HIDDEN + HIDDEN + KEY_VALUE)
    assert trainable_parameters(attach(load_base(str(bases["llama"]), FP32), settings)) == of_two
    base = load_base(str(bases["llama"]), FP32)
    assert trainable_parameters(attach(base, config("", "", "", method="full"))) == base.num_parameters()


def test_the_defaults_of_each_method():
    for method, rate in (("lora", 3e-4), ("qlora", 3e-4), ("adapter", 3e-4), ("full", 2e-5)):
        assert resolved(config("", "", "", method=method, learning_rate=None)).learning_rate == rate
        assert resolved(config("", "", "", method=method, learning_rate=1e-3)).learning_rate == 1e-3
    assert [quantization(config("", "", "", method=method)) for method in METHODS] == ["", "4bit", "", ""]
    assert quantization(config("", "", "", method="lora", load_8bit=True)) == "8bit"
    for method in ("adapter", "full"):
        with pytest.raises(UserError, match="load_8bit goes with --method lora or qlora"):
            quantization(config("", "", "", method=method, load_8bit=True))


def test_paged_8_bit_optimizer_where_there_is_a_gpu(tmp_path, monkeypatch):
    from types import SimpleNamespace

    prepared = SimpleNamespace(val=[], steps=3)
    monkeypatch.setattr(train, "TrainingArguments", lambda **options: SimpleNamespace(n_gpu=0, **options))
    for gpu in (False, True):
        monkeypatch.setattr(train.torch.cuda, "is_available", lambda: gpu)  # noqa: B023
        chosen = [train._arguments(config("", "", "", method=m), tmp_path, prepared, FP32, []).optim for m in METHODS]
        assert chosen == ["adamw_torch", "paged_adamw_8bit" if gpu else "adamw_torch", "adamw_torch", "adamw_torch"]


def test_the_base_of_qlora_is_in_nf4_twice_quantised(bases):
    base = load_base(str(bases["llama"]), choose_precision("bf16"), quantization="4bit")
    layer = base.model.layers[0].self_attn.q_proj
    assert type(layer).__name__ == "Linear4bit"
    assert (layer.weight.quant_type, layer.weight.quant_state.nested, layer.compute_dtype) == (
        "nf4",
        True,
        torch.bfloat16,
    )
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16
    base = load_base(str(bases["llama"]), choose_precision("bf16"), quantization="8bit")
    assert type(base.model.layers[0].self_attn.q_proj).__name__ == "Linear8bitLt"


@pytest.fixture(scope="module")
def wide_base(bases, tmp_path_factory):
    """Wide enough for the kernel of repacked 4-bit layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "base"
    shutil.copytree(bases["llama"], folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=400, num_hidden_layers=2, **sizes)).save_pretrained(folder)
    return folder


def gradients(base, bits: str, *, evaluate: bool, keep=keep_trainable) -> dict[str, torch.Tensor]:
    """Gradients of one step, as training computes it, with or without an evaluation before."""
    ids = torch.arange(3, 43).reshape(2, 20)
    torch.manual_seed(0)
    model = attach(
        keep(load_base(str(base), choose_precision("bf16"), quantization=bits)), config("", "", "", method="qlora")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what reaches lora_A
            torch.nn.init.normal_(weight, std=0.1)
    if evaluate:
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_gradients_after_an_evaluation_equal_those_without_one(wide_base, bits):
    without, after = gradients(wide_base, bits, evaluate=False), gradients(wide_base, bits, evaluate=True)
    assert all(gradient.abs().sum() > 0 for gradient in without.values())
    assert all(torch.equal(after[name], gradient) for name, gradient in without.items())


@pytest.mark.filterwarnings("ignore:bitsandbytes")  # it says itself that its kernel has no gradient
@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="only such CPUs repack")
def test_without_our_care_an_evaluation_would_spoil_the_gradients(wide_base):
    without = gradients(wide_base, "4bit", evaluate=False)
    after = gradients(wide_base, "4bit", evaluate=True, keep=lambda base: base)
    name = next(name for name in without if "layers.0.self_attn.q_proj.lora_A" in name)
    assert not torch.allclose(after[name], without[name], rtol=0.5)


def test_8_bit_trains(bases, tmp_path, data_file):
    for method in ("lora", "qlora"):
        metrics = finetune(config(bases["llama"], data_file, tmp_path / method, method=method, load_8bit=True))
        assert metrics["eval_loss"] < 5.9


def test_adapters_of_peft_0_3_are_read(tmp_path):
    stored = json.loads((REFERENCE / "old_peft" / "logits.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(REFERENCE / "base", dtype=torch.float32).eval()
    ids = torch.tensor(stored["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(base(ids).logits, torch.tensor(stored["base"]), rtol=0, atol=1e-5)
        tuned = put_on(base, str(REFERENCE / "old_peft")).eval()
        torch.testing.assert_close(tuned(ids).logits, torch.tensor(stored["lora"]), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def adapters(bases, tmp_path_factory):
    """One adapter of each kind, for the tiny LLaMA."""
    folder = tmp_path_factory.mktemp("adapters")
    data = folder / "data.json"
    data.write_text(json.dumps([{"instruction": "问", "output": "答"}] * 16), "utf-8")
    for method in ("lora", "adapter"):
        finetune(config(bases["llama"], data, folder / method, method=method, lora_target_modules="q_proj,down_proj"))
    return folder


@pytest.mark.parametrize(("method", "first"), [("lora", "layers.0.mlp.down_proj A is (8, 48)"), ("adapter", "down is")])
def test_an_adapter_for_another_base_is_refused_by_its_first_wrong_shape(
    bases, adapters, tmp_path, method, first, capsys
):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    shutil.copytree(bases["llama"], other)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=400, num_hidden_layers=1, head_dim=8, **sizes)).save_pretrained(other)
    assert main(["infer", "--base_model", str(other), "--lora_weights", str(adapters / method)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"was made for {bases['llama']}, not for {other}" in said
    assert first in said
    assert "the base needs" in said
    # right widths, but fewer layers
    sizes |= {"hidden_size": HIDDEN, "intermediate_size": INNER}
    LlamaForCausalLM(LlamaConfig(vocab_size=400, num_hidden_layers=1, head_dim=8, **sizes)).save_pretrained(other)
    assert main(["infer", "--base_model", str(other), "--lora_weights", str(adapters / method)]) == 2
    assert "the base has no model.layers.1" in capsys.readouterr().err


def test_broken_adapter_folders_get_one_line(bases, adapters, tmp_path, capsys):
    for name, content, said in (
        ("adapter_config.json", "{", "adapter_config.json: not valid JSON"),
        ("adapter_config.json", "[]", "expected an object with peft_type"),
        ("adapter_model.safetensors", "", "cannot be read"),
    ):
        bad = tmp_path / "bad"
        shutil.copytree(adapters / "adapter", bad, dirs_exist_ok=True)
        (bad / name).write_text(content)
        assert main(["infer", "--base_model", str(bases["llama"]), "--lora_weights", str(bad)]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert said in error[-1], error
        assert len([line for line in error if line.startswith("error: ")]) == 1
    assert main(["infer", "--base_model", str(adapters / "lora")]) == 2
    assert main(["infer", "--base_model", str(adapters / "lora"), "--use_lora", "false"]) == 2
    assert "it holds an adapter: give its base here" in capsys.readouterr().err


def test_4_bit_without_bitsandbytes_gets_one_line(bases, tmp_path, data_file, capsys, monkeypatch):
    real = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(backbone.importlib.util, "find_spec", hidden)
    arguments = ["--base_model", bases["llama"], "--data_path", data_file, "--output_dir", tmp_path / "o"]
    assert main(["finetune", *map(str, arguments), "--method", "qlora"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: loading in 4bit needs bitsandbytes; pip install bitsandbytes")
    assert not (tmp_path / "o").exists()


def test_full_tuning_writes_a_model_that_anyone_reads(bases, tmp_path, data_file):
    from transformers import AutoTokenizer

    finetune(config(bases["llama"], data_file, tmp_path / "out", method="full", precision="bf16"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "问"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "问题：问\n回答："
    stored = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(bases["llama"] / "model.safetensors")
    assert any(not torch.equal(stored[key].float(), before[key].float()) for key in before)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(made, method, monkeypatch):
    from xinglin.tuning.callbacks import ProgressBar

    bases, data_file, tmp_path, *_ = made
    settings = config(bases["llama"], data_file, tmp_path / "whole", method=method, num_epochs=4)
    whole = finetune(settings)
    again = replace(settings, output_dir=str(tmp_path / "part"))

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 5:  # in the third epoch; the last checkpoint is that of step 4
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressBar, "on_step_end", stop)
        finetune(again)
    resumed = finetune(replace(again, resume_from_checkpoint=True))
    assert resumed["tokens"] == whole["tokens"] // 2
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    one, other = (load_file(tmp_path / folder / name) for folder in ("whole", "part"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_checkpoint_is_kept_not_the_last(made, method, monkeypatch):
    bases, data_file, tmp_path, *_ = made
    real, evaluated = train.AnswerTrainer.evaluate, []

    def worse(self, *args, **kwargs):
        evaluated.append([w.detach().clone() for w in self.model.parameters() if w.requires_grad])
        return real(self, *args, **kwargs) | {"eval_loss": float(len(evaluated))}  # worse every time

    monkeypatch.setattr(train.AnswerTrainer, "evaluate", worse)
    finetune(config(bases["llama"], data_file, tmp_path / "out", method=method, num_epochs=3))
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    stored = list(load_file(tmp_path / "out" / name).values())
    first, last = (
        sum(any(w.shape == s.shape and torch.equal(w, s) for s in stored) for w in evaluated[n]) for n in (0, -1)
    )
    assert first == len(evaluated[0]) > last


def test_resuming_from_another_kind_of_run_gets_one_line(bases, tmp_path, data_file):
    for method in METHODS:
        finetune(config(bases["llama"], data_file, tmp_path / method, method=method))
    for method in METHODS:
        for other in METHODS:
            if {method, other} <= {"lora", "qlora"} or method == other:
                continue
            settings = config(bases["llama"], data_file, tmp_path / "new", method=method)
            with pytest.raises(UserError, match=f"not a checkpoint of --method {method}"):
                finetune(replace(settings, resume_from_checkpoint=str(tmp_path / other / "checkpoint-4")))
    for method, change, said in (
        ("lora", {"lora_r": 4}, "has lora_r 8, asked for is 4"),
        ("adapter", {"bottleneck_size": 5}, "has bottleneck_size 4, asked for is 5"),
    ):
        settings = config(bases["llama"], data_file, tmp_path / method, method=method, **change)
        with pytest.raises(UserError, match=said):
            finetune(replace(settings, resume_from_checkpoint=True))


def test_resuming_beside_other_layers_gets_one_line(bases, tmp_path, data_file):
    settings = config(bases["llama"], data_file, tmp_path / "out", lora_target_modules="q_proj")
    finetune(settings)
    again = replace(settings, lora_target_modules="q_proj,v_proj", resume_from_checkpoint=True)
    with pytest.raises(UserError, match="has lora_target_modules q_proj, asked for is q_proj,v_proj"):
        finetune(again)
    for file in tmp_path.glob("out/checkpoint-*/settings.json"):
        file.unlink()  # as in a checkpoint of an older version
    with pytest.raises(UserError, match="tunes other layers; resume with the --lora_target_modules"):
        finetune(replace(again, num_epochs=9))


def test_nobodys_base_is_overwritten(bases, tmp_path, data_file):
    base = tmp_path / "base"
    shutil.copytree(bases["llama"], base)
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    for method, other in (("full", base), ("lora", base), ("full", bases["llama"])):
        settings = config(other, data_file, base, method=method, overwrite_output_dir=True)
        with pytest.raises(UserError, match="the base's own folder|no run of this program wrote"):
            finetune(settings)
    assert {file.name: file.read_bytes() for file in base.iterdir()} == before
    finetune(config(base, data_file, tmp_path / "tuned", method="full"))
    with pytest.raises(UserError, match="the base's own folder"):
        finetune(config(tmp_path / "tuned", data_file, tmp_path / "tuned", method="full", overwrite_output_dir=True))
    finetune(config(base, data_file, tmp_path / "tuned", method="lora", overwrite_output_dir=True))
    assert not (tmp_path / "tuned" / "model.safetensors").exists()


def test_a_tuned_model_is_a_base_that_brings_its_prompt(bases, tmp_path, data_file):
    finetune(config(bases["llama"], data_file, tmp_path / "first", method="full"))
    finetune(config(tmp_path / "first", data_file, tmp_path / "second", method="lora"))
    first, second = ((tmp_path / name / "prompt_template.json").read_text() for name in ("first", "second"))
    assert first == second


def test_options_of_another_method_are_named(bases, tmp_path, data_file, caplog):
    finetune(config(bases["llama"], data_file, tmp_path / "a", method="adapter", lora_r=64, bottleneck_size=3))
    assert "lora_r: of no use with --method adapter" in caplog.text
    caplog.clear()
    finetune(config(bases["llama"], data_file, tmp_path / "b", method="qlora", lora_r=4, bottleneck_size=64))
    assert "of no use" not in caplog.text


def test_an_unknown_activation_gets_the_list(bases, tmp_path, data_file):
    with pytest.raises(UserError, match="non_linearity 'gellu': have silu, relu, gelu.*did you mean 'gelu'"):
        finetune(config(bases["llama"], data_file, tmp_path / "out", method="adapter", non_linearity="gellu"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_name_is_told(bases, adapters, tmp_path, caplog):
    other = tmp_path / "other-llama"
    shutil.copytree(bases["llama"], other)
    put_on(load_base(str(other), FP32), str(adapters / "lora"), str(other))
    assert f"was tuned on {bases['llama']}; the base is {other}" in caplog.text


@pytest.mark.parametrize("kind", ["messages", "sharegpt"])
def test_conversations_train_and_answer_through_the_bases_own_template(bases, tmp_path, kind, capsys):
    from chat_shapes import make_chat_tokenizer
    from transformers import Qwen3Config, Qwen3ForCausalLM

    base = tmp_path / "qwen"
    tokenizer = make_chat_tokenizer("qwen3")
    tokenizer.save_pretrained(base)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=8, **sizes)).save_pretrained(
        base
    )
    said = [
        ("system", "你是医生。"),
        ("user", "头痛？"),
        ("assistant", "休息。"),
        ("user", "还痛？"),
        ("assistant", "看医生。"),
    ]
    records = []
    for end in (3, 5) * 10:
        if kind == "messages":
            records.append({"messages": [{"role": role, "content": text} for role, text in said[:end]]})
        else:
            names = {"user": "human", "assistant": "gpt"}
            turns = [{"from": names[role], "value": text} for role, text in said[1:end]]
            records.append({"system": said[0][1], "conversations": turns})
    data = tmp_path / "data.json"
    data.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    settings = config(base, data, tmp_path / "out", method="full", learning_rate=1e-2, num_epochs=12, val_set_size=2)
    metrics = finetune(settings)
    rows = metrics["train_records"] + metrics["eval_records"]
    assert rows == 30  # of 20 conversations 10 have two answers, each a row of its own
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([{"messages": [{"role": r, "content": t} for r, t in said[:n]]} for n in (2, 4)]))
    out = tmp_path / "answers.jsonl"
    arguments = ["--base_model", tmp_path / "out", "--instruct_dir", asked, "--output_path", out, "--precision", "fp32"]
    assert main(["infer", *map(str, arguments)]) == 0
    made = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [(row["answer"], row["finish_reason"]) for row in made] == [("休息。", "stop"), ("看医生。", "stop")]
    assert made[1]["prompt"].startswith(
        "<|im_start|>system\n你是医生。<|im_end|>\n<|im_start|>user\n头痛？<|im_end|>\n"
    )
    assert made[1]["prompt"].endswith("还痛？<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([("assistant", "好"), ("user", "问"), ("assistant", "答")], "turn 1 of the conversation is 'assistant'"),
        ([("user", "问"), ("assistant", " ")], "an empty assistant turn"),
        ([("user", ""), ("assistant", "答")], "an empty user turn"),
        ([("user", "问"), ("user", "问"), ("assistant", "答")], "turn 2 of the conversation is 'user'"),
    ],
)
def test_conversations_that_cannot_be_learned_get_one_line(bases, tmp_path, turns, said, capsys):
    data = tmp_path / "chat.jsonl"
    data.write_text(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}))
    arguments = ["--base_model", bases["llama"], "--data_path", data, "--output_dir", tmp_path / "out"]
    assert main(["finetune", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {data}:1: ")
    assert said in error
    assert not (tmp_path / "out").exists()
