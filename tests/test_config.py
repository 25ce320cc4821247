"""Flags: what users paste is understood, what is wrong is refused before anything runs."""

import pytest

from xinglin.config import flags, parse
from xinglin.errors import UserError
from xinglin.inference.options import InferConfig
from xinglin.tuning.methods import resolved
from xinglin.tuning.options import FinetuneConfig

NEEDED = ["--base_model", "b", "--data_path", "d", "--output_dir", "o"]


def finetune(*arguments):
    return parse(FinetuneConfig, [*NEEDED, *arguments], "xinglin finetune")


def test_the_flags_of_finetune_and_infer():
    assert flags(FinetuneConfig) == [
        *("--base_model", "--data_path", "--output_dir", "--data_weights", "--method", "--prompt_template_name"),
        *("--enable_thinking", "--batch_size", "--micro_batch_size", "--max_tokens_per_micro_batch", "--num_epochs"),
        *("--learning_rate", "--warmup_ratio", "--cutoff_len", "--val_set_size", "--eval_steps"),
        *("--save_steps", "--save_total_limit", "--early_stopping_patience", "--lora_r"),
        *("--lora_alpha", "--lora_dropout", "--lora_target_modules", "--load_8bit", "--bottleneck_size"),
        *("--non_linearity", "--adapter_dropout", "--train_on_inputs", "--compile", "--group_by_length", "--precision"),
        *("--fsdp", "--save_format", "--seed", "--overwrite_output_dir", "--resume_from_checkpoint", "--report_to"),
        *("--wandb_project", "--wandb_run_name", "--wandb_watch", "--wandb_log_model"),
    ]
    assert flags(InferConfig) == [
        *("--base_model", "--use_lora", "--lora_weights", "--prompt_template", "--enable_thinking", "--instruct_dir"),
        *("--output_path", "--ground", "--graph", "--knowledge", "--max_new_tokens", "--temperature", "--top_p"),
        *("--repetition_penalty", "--seed", "--batch_size", "--batch_tokens", "--backend", "--precision"),
        *("--load_4bit", "--load_8bit"),
    ]


def test_the_reports_recipe_is_the_default():
    config = resolved(finetune())
    assert (config.batch_size, config.num_epochs, config.learning_rate) == (128, 10, 3e-4)
    assert (config.cutoff_len, config.lora_dropout) == (512, 0.0)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--group_by_length"], "group_by_length", True),
        (["--group_by_length", "False"], "group_by_length", False),
        (["--train_on_inputs=True"], "train_on_inputs", True),
        (["--micro-batch-size", "16"], "micro_batch_size", 16),
        (["--lora_target_modules", "[q_proj,v_proj]"], "lora_target_modules", ["q_proj", "v_proj"]),
        (["--lora_target_modules", "all-linear"], "lora_target_modules", "all-linear"),
        (["--val_set_size", "2000"], "val_set_size", 2000),
        (["--val_set_size", "0.1"], "val_set_size", 0.1),
        (["--data_path", "[a.json, b.json]"], "data_path", ["a.json", "b.json"]),
        (["--data_weights", "0.8,0.2"], "data_weights", "0.8,0.2"),
        (["--data_weights", "[0.8, 0.2]"], "data_weights", [0.8, 0.2]),
        (["--enable_thinking", "false"], "enable_thinking", "false"),
        (["--learning_rate", "3e-4"], "learning_rate", 3e-4),
        (["--wandb_run_name", "e1"], "wandb_run_name", "e1"),
        (["--resume_from_checkpoint", "True"], "resume_from_checkpoint", "True"),
        (["--resume_from_checkpoint", "runs/a/checkpoint-8"], "resume_from_checkpoint", "runs/a/checkpoint-8"),
    ],
)
def test_spellings(arguments, field, value):
    got = getattr(finetune(*arguments), field)
    assert got == value or (str(got) == value == "True")  # text or bool, as other libraries' types are known by then


def test_a_false_that_is_false():
    config = parse(InferConfig, ["--base_model", "b", "--use_lora", "False"], "xinglin infer")
    assert config.use_lora is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--micro_batch", "3"], "unknown flag --micro_batch; did you mean '--micro_batch_size'?"),
        (["--lora_rank", "3"], "unknown flag --lora_rank"),
        (["--num_epochs", "many"], "num_epochs"),
        (["--precision", "fp8"], "bf16"),
        (["stray"], "unrecognized arguments: stray"),
        (["--config", "missing.yaml"], "missing.yaml: No such file"),
    ],
)
def test_refused(arguments, said):
    with pytest.raises(UserError) as error:
        finetune(*arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_flag_is_named():
    with pytest.raises(UserError, match="data_path"):
        parse(FinetuneConfig, ["--base_model", "b", "--output_dir", "o"], "xinglin finetune")


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("num_epochs: 3\nlora_r: 4\n")
    config = finetune("--config", str(path), "--lora_r", "2")
    assert (config.num_epochs, config.lora_r) == (3, 2)
    path.write_text("no_such_option: 3\n")
    with pytest.raises(UserError, match="no_such_option"):
        finetune("--config", str(path))
