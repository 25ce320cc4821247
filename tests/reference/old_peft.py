"""A LoRA adapter as peft 0.3.0 wrote it in 2023. From the root of the repository, after `bottleneck.py`:

    python3.11 -m venv build/old-peft
    build/old-peft/bin/pip install torch==2.13.0
    build/old-peft/bin/pip install peft==0.3.0 transformers==4.31.0 accelerate==0.21.0
    build/old-peft/bin/python tests/reference/old_peft.py

Writes `old_peft/adapter_config.json` and `old_peft/adapter_model.bin` through that library, and to
`old_peft/logits.json` its fp32 logits, to six decimals: {"input_ids": [2, 8], "base": [2, 8, 40], "lora": [2, 8, 40]}.
transformers 4.31 is the first that knows grouped key and value heads, which `base/` has.
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

HERE = Path("tests/reference")  # relative: peft writes the base's path into the adapter's config


def rounded(logits: torch.Tensor) -> list:
    return logits.double().round(decimals=6).tolist()


def main() -> None:
    base = LlamaForCausalLM.from_pretrained(HERE / "base").eval()
    ids = torch.randint(3, base.config.vocab_size, (2, 8), generator=torch.Generator().manual_seed(3))
    config = LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    with torch.no_grad():
        saved = {"input_ids": ids.tolist(), "base": rounded(base(ids).logits)}
        model = get_peft_model(base, config).eval()
        torch.manual_seed(4)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
        saved["lora"] = rounded(model(ids).logits)
    model.save_pretrained(HERE / "old_peft")
    (HERE / "old_peft" / "logits.json").write_text(json.dumps(saved) + "\n", "utf-8")


if __name__ == "__main__":
    main()
