"""The whole of finetune.py and infer.py on a tiny model, in processes of their own, as a user runs them."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import RECORDS, run_script

from xinglin.errors import UserError
from xinglin.tuning.options import FinetuneConfig

SMALL = ("--batch_size", 8, "--micro_batch_size", 4, "--num_epochs", 2, "--val_set_size", 4, "--learning_rate", 1e-2)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_base):
    """The report's command, word for word, plus --num_epochs 1; the folder it was run in."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(tiny_base, folder / "llama-7b-hf")
    (folder / "data").mkdir()
    lines = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    (folder / "data" / "llama_data.json").write_text("\n".join(lines), "utf-8")
    done = run_script(
        "finetune.py",
        *("--base_model", "llama-7b-hf", "--data_path", "./data/llama_data.json"),
        *("--output_dir", "./lora-llama-med-e1", "--prompt_template_name", "med_template"),
        *("--micro_batch_size", "128", "--batch_size", "128", "--wandb_run_name", "e1"),
        *("--num_epochs", "1"),
        cwd=folder,
        WANDB_MODE="disabled",
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_reports_command_writes_a_whole_run(run):
    folder, done = run
    out = folder / "lora-llama-med-e1"
    for name in (
        *("adapter_config.json", "adapter_model.safetensors", "prompt_template.json", "chat_template.jinja"),
        *("xinglin.json", "metrics.json", "log.jsonl", "curves.png"),
    ):
        assert (out / name).stat().st_size > 100, name
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"train_loss", "eval_loss", "tokens", "seconds", "rows_cut"} <= set(metrics)
    assert (metrics["train_records"], metrics["eval_records"], metrics["steps"]) == (19, 1, 1)
    assert metrics["reload_logit_difference"] < 1e-3
    record = json.loads((out / "xinglin.json").read_text())
    assert record["config"]["learning_rate"] == 3e-4
    assert [len(digest) for digest in (*record["data_sha256"], record["prompt_sha256"])] == [64, 64]
    assert "precision:" in done.stderr
    assert "W&B: not tracking run 'e1' (WANDB_MODE=disabled)" in done.stderr
    assert "Traceback" not in done.stderr


def test_trainable_parameters_follow_the_formula(run):
    metrics = json.loads((run[0] / "lora-llama-med-e1" / "metrics.json").read_text())
    hidden, inner, key_value, layers, rank = 32, 48, 16, 2, 8
    ins_and_outs = [(hidden, hidden)] * 2 + [(hidden, key_value)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    assert metrics["trainable_parameters"] == layers * rank * sum(i + o for i, o in ins_and_outs)


def test_the_reports_infer_command_answers(run):
    folder, _ = run
    done = run_script(
        "infer.py",
        *("--base_model", "llama-7b-hf", "--use_lora", "True", "--lora_weights", "lora-llama-med-e1"),
        *("--prompt_template", "med_template", "--max_new_tokens", "5"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("回答：") == 4
    assert "AI 生成" in done.stdout


def test_infer_writes_predictions_in_the_order_asked(run):
    folder, _ = run
    questions = [{"instruction": "长" * (3 * n % 7 + 1), "input": ""} for n in range(7)]
    (folder / "q.txt").write_text("\n".join(json.dumps(one) for one in questions))
    for use_lora in ("True", "False"):
        done = run_script(
            "infer.py",
            *("--base_model", "llama-7b-hf", "--use_lora", use_lora, "--lora_weights", "lora-llama-med-e1"),
            *("--instruct_dir", "q.txt", "--output_path", "out.jsonl", "--max_new_tokens", "4", "--batch_size", "3"),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        made = [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()]
        assert [f"问题：{one['instruction']}\n" in row["prompt"] for one, row in zip(questions, made, strict=True)] == [
            True
        ] * 7
        assert all(row["finish_reason"] in ("stop", "length") for row in made)
        assert {row["adapter"] for row in made} == {"lora-llama-med-e1" if use_lora == "True" else ""}


def test_tuning_learns_and_a_bin_adapter_is_read_back(tmp_path, tiny_base, data_file):
    done = run_script(
        "finetune.py",
        *("--base-model", tiny_base, "--data-path", data_file, "--output-dir", tmp_path / "out", *SMALL),
        *(
            "--num_epochs",
            15,
            "--learning_rate",
            "0.1",
            "--save_format",
            "bin",
            "--lora_target_modules",
            "[q_proj,v_proj]",
            "--group_by_length",
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert (out / "adapter_model.bin").is_file()
    assert not (out / "adapter_model.safetensors").exists()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0] - 0.3
    best = min(entry["eval_loss"] for entry in log if "eval_loss" in entry)
    assert json.loads((out / "metrics.json").read_text())["eval_loss"] == best
    done = run_script("infer.py", "--base_model", tiny_base, "--lora_weights", out, "--max_new_tokens", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_bin_that_carries_code_is_refused_and_not_run(tmp_path, run, tiny_base):
    import pickle

    bad = tmp_path / "bad"
    shutil.copytree(run[0] / "lora-llama-med-e1", bad)
    (bad / "adapter_model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    (bad / "adapter_model.bin").write_bytes(pickle.dumps(Evil()))
    done = run_script("infer.py", "--base_model", tiny_base, "--lora_weights", bad, cwd=tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "pwned").exists()
    assert done.stderr.startswith("error: lora_weights")


def complaints(tmp_path, tiny_base, data_file):
    """(name, changed arguments, what the one line must say)."""
    good = {"--base_model": tiny_base, "--data_path": data_file, "--output_dir": tmp_path / "out"}
    broken = tmp_path / "broken.json"
    broken.write_text('{"instruction": "a", "output": "b"}\n{"instruction": \n')
    answerless = tmp_path / "answerless.json"
    answerless.write_text('[{"instruction": "a"}]')
    blocked = tmp_path / "file"
    blocked.write_text("")
    cases = [
        ({"--base_model": "llama-7b-hf"}, "base_model 'llama-7b-hf': no such folder"),
        ({"--base_model": tmp_path}, "no config.json"),
        ({"--data_path": tmp_path / "none.json"}, "none.json: no such file"),
        ({"--data_path": broken}, "broken.json:2: not valid JSON"),
        ({"--data_path": answerless}, "record 1: record without 'output'"),
        ({"--prompt_template_name": "med_templte"}, "did you mean 'med_template'"),
        ({"--micro_batch": "3"}, "unknown flag --micro_batch"),
        (
            {"--batch_size": "10", "--micro_batch_size": "4"},
            "not divisible by micro_batch_size 4; micro_batch_size may be 1, 2, 5",
        ),
        ({"--val_set_size": "20"}, "val_set_size 20 leaves nothing of 20 records"),
        ({"--cutoff_len": "8"}, "leaves no row with anything to learn"),
        ({"--output_dir": blocked / "out"}, "cannot be written"),
        ({"--lora_target_modules": "w_pack"}, "no linear layer 'w_pack'; it has: down_proj"),
        ({"--resume_from_checkpoint": "nowhere"}, "not a checkpoint folder"),
        ({"--report_to": "wandb", "--wandb_run_name": "x"}, "report_to wandb: "),
        ({"--learning_rate": "0"}, "learning_rate must be above 0"),
        ({"--batch_size": "0"}, "batch_size must be above 0"),
        ({"--num_epochs": "-1"}, "num_epochs must be above 0"),
        ({"--num_epochs": "inf"}, 'option "num_epochs"'),
        ({"--lora_dropout": "1.5"}, "lora_dropout must be at least 0 and below 1"),
    ]
    return [({**good, **change}, said) for change, said in cases]


def test_bad_input_gets_one_line_code_two_and_leaves_nothing(tmp_path, tiny_base, data_file, capsys, monkeypatch):
    from xinglin.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for arguments, said in complaints(tmp_path, tiny_base, data_file):
        code = main(["finetune", *(str(part) for pair in arguments.items() for part in pair)])
        error = capsys.readouterr().err.strip().splitlines()
        assert code == 2, (said, error)
        assert error[-1].startswith("error: ")
        assert said in error[-1]
        assert sum(line.startswith("error: ") for line in error) == 1
        assert not (tmp_path / "out").exists(), said


def config(tiny_base, data_file, out, **changes) -> FinetuneConfig:
    made = FinetuneConfig(
        base_model=str(tiny_base),
        data_path=str(data_file),
        output_dir=str(out),
        batch_size=8,
        micro_batch_size=4,
        num_epochs=1,
        val_set_size=4,
        precision="fp32",
    )
    return replace(made, **changes)


def test_tensorboard_gets_the_curves_when_asked(tmp_path, tiny_base, data_file):
    from xinglin.tuning.train import finetune

    finetune(config(tiny_base, data_file, tmp_path / "out", report_to="tensorboard"))
    assert list((tmp_path / "out").rglob("events.out.tfevents*"))


def test_a_second_run_needs_leave_to_overwrite(tmp_path, tiny_base, data_file):
    from xinglin.tuning.train import finetune

    out = tmp_path / "out"
    first = finetune(config(tiny_base, data_file, out))
    (out / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="already holds a run"):
        finetune(config(tiny_base, data_file, out))
    second = finetune(config(tiny_base, data_file, out, overwrite_output_dir=True))
    assert second["train_loss"] == first["train_loss"]
    assert (out / "mine.txt").read_text() == "kept"


def test_a_disk_without_room_is_refused_before_training(tmp_path, tiny_base, data_file, monkeypatch):
    from xinglin.tuning import checkpoint
    from xinglin.tuning.train import finetune

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(UserError, match="MiB free, the run needs about"):
        finetune(config(tiny_base, data_file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_while_saving_leaves_no_half_adapter(tmp_path, tiny_base, data_file, monkeypatch):
    from xinglin.tuning import train
    from xinglin.tuning.train import finetune

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "write_json", full)
    with pytest.raises(UserError, match="the disk is full"):
        finetune(config(tiny_base, data_file, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != "log.jsonl"] == ["checkpoint-2"]


def test_a_dead_adapter_fails_the_run(tmp_path, tiny_base, data_file, monkeypatch):
    from xinglin.tuning import checkpoint
    from xinglin.tuning.train import finetune

    real = checkpoint.save_run

    def dead(model, folder, *rest):
        import torch

        saved = {name: weight.clone() for name, weight in model.named_parameters() if "lora_B" in name}
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in saved:
                    weight.zero_()
            real(model, folder, *rest)
            for name, weight in model.named_parameters():
                if name in saved:
                    weight.copy_(saved[name])

    monkeypatch.setattr(checkpoint, "save_run", dead)
    with pytest.raises(RuntimeError, match="saved adapter"):
        finetune(config(tiny_base, data_file, tmp_path / "out", learning_rate=1e-2, num_epochs=3))
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_micro_batches_do_not_change_the_result(tmp_path, tiny_base, data_file):
    from xinglin.tuning.train import finetune

    losses = [
        finetune(config(tiny_base, data_file, tmp_path / str(n), num_epochs=3, **limits))["eval_loss"]
        for n, limits in enumerate(
            ({"micro_batch_size": 1}, {"micro_batch_size": 8, "max_tokens_per_micro_batch": 4096})
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_resume_goes_on_where_the_run_stopped(tmp_path, tiny_base, data_file, monkeypatch):
    from safetensors.torch import load_file

    from xinglin.tuning import callbacks
    from xinglin.tuning.train import finetune

    options = {"num_epochs": 4, "learning_rate": 1e-2}
    whole = finetune(config(tiny_base, data_file, tmp_path / "whole", **options))

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 5:  # in the third epoch; the last checkpoint is that of step 4
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.ProgressBar, "on_step_end", stop)
        finetune(config(tiny_base, data_file, tmp_path / "part", **options))
    assert not (tmp_path / "part" / "metrics.json").exists()
    resumed = finetune(config(tiny_base, data_file, tmp_path / "part", **options, resume_from_checkpoint="True"))
    assert (resumed["steps"], resumed["train_loss"]) == (whole["steps"], pytest.approx(whole["train_loss"], rel=1e-6))
    assert resumed["tokens"] == whole["tokens"] // 2
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_broken_base_gets_one_line(tmp_path, tiny_base, data_file, capsys):
    from xinglin.cli import main

    for name, content in (("model.safetensors", b"\x10"), ("tokenizer.json", b"{")):
        base = tmp_path / name.replace(".", "_")
        shutil.copytree(tiny_base, base)
        (base / name).write_bytes(content)
        arguments = ["--base_model", base, "--data_path", data_file, "--output_dir", tmp_path / "out"]
        assert main(["finetune", *map(str, arguments)]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("error: ")
        assert str(base) in error[-1]
        assert not (tmp_path / "out").exists()


def test_an_adapter_that_changes_nothing_is_refused(tmp_path, run, tiny_base, capsys):
    from safetensors.torch import load_file, save_file

    from xinglin.cli import main

    dead = tmp_path / "dead"
    shutil.copytree(run[0] / "lora-llama-med-e1", dead)
    weights = load_file(dead / "adapter_model.safetensors")
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)  # the one step did something
    prefixed = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    save_file(prefixed, dead / "adapter_model.safetensors")
    assert main(["infer", "--base_model", str(tiny_base), "--lora_weights", str(dead)]) == 2
    assert "no adapter tensors in it; its first tensor is _orig_mod." in capsys.readouterr().err
    zeroed = {name: weight * 0 if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(zeroed, dead / "adapter_model.safetensors")
    assert main(["infer", "--base_model", str(tiny_base), "--lora_weights", str(dead)]) == 2
    assert "changes nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_the_reports_command_on_the_default_base_fits_in_8_gb(tmp_path):
    """The report's command as written, the default model's folder under the name llama-7b-hf, 64 built records."""
    import subprocess
    import sys

    from conftest import ROOT

    from xinglin.backbone import asset_path

    (tmp_path / "llama-7b-hf").symlink_to(asset_path("smollm2-135m"))
    built = tmp_path / "all.json"
    subprocess.run([sys.executable, "-m", "xinglin", "data", "build", "--output_path", built], check=True, cwd=ROOT)
    (tmp_path / "data").mkdir()
    rows = json.loads(built.read_text("utf-8"))[:64]
    (tmp_path / "data" / "llama_data.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    done = run_script(
        "finetune.py",
        *("--base_model", "llama-7b-hf", "--data_path", "./data/llama_data.json"),
        *("--output_dir", "./lora-llama-med-e1", "--prompt_template_name", "med_template"),
        *("--micro_batch_size", "128", "--batch_size", "128", "--wandb_run_name", "e1", "--num_epochs", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "lora-llama-med-e1" / "metrics.json").read_text())
    assert metrics["peak_memory_mb"] < 8000
    assert metrics["trainable_parameters"] == 2_442_240
