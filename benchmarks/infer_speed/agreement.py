"""Does an answer depend on its batch? In fp32 no; in bf16 the last digits of logits do, and now and then a word.

    python benchmarks/infer_speed/agreement.py --lora_weights runs/demo/adapter --records_path PATH

The same questions one at a time and in batches of 32: share of equal answers, and how far the logits of the first
token lie apart, beside how far the likeliest token leads. Writes agreement.json.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from run import by_engine, chosen

from xinglin import console
from xinglin.backbone import choose_precision
from xinglin.inference.engine import Engine, load_engine
from xinglin.records import Example, write_json

HERE = Path(__file__).parent


def first_logits(engine: Engine, questions: list[Example], size: int) -> torch.Tensor:
    """Logits of every answer's first token, (questions, V), asked in batches padded on the left."""
    prompts, pad, found = [engine.prompt(one) for one in questions], engine.encoding.tokenizer.pad_id, []
    for start in range(0, len(prompts), size):
        group = prompts[start : start + size]
        longest = max(map(len, group))
        ids = torch.tensor([[pad] * (longest - len(one)) + one for one in group])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in group])
        with torch.inference_mode():
            places = (mask.cumsum(1) - 1).clamp_min(0)
            made = engine.model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=1)
        found.append(made.logits[:, -1].float())
    return torch.cat(found)


def compared(engine: Engine, questions: list[Example], new: int) -> dict[str, Any]:
    """Answers and first logits, alone and in batches."""
    alone, together = by_engine(engine, questions, new, 1), by_engine(engine, questions, new, 32)
    one, many = first_logits(engine, questions, 1), first_logits(engine, questions, 32)
    leads = one.topk(2).values
    return {
        "same_answer": round(sum(map(str.__eq__, alone, together)) / len(questions), 3),
        "same_first_token": round(float((one.argmax(1) == many.argmax(1)).float().mean()), 3),
        "largest_logit_gap": round(float((one - many).abs().max()), 6),
        "median_logit_gap": round(float((one - many).abs().median()), 6),
        "median_lead_of_the_likeliest": round(statistics.median((leads[:, 0] - leads[:, 1]).tolist()), 3),
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="smollm2-135m")
    parser.add_argument("--lora_weights", required=True)
    parser.add_argument("--records_path", required=True)
    parser.add_argument("--questions", type=int, default=64)
    asked = parser.parse_args()
    console.set_up_logging()
    questions = chosen(asked.records_path, asked.questions)
    results = {"questions": len(questions)} | {
        name: compared(load_engine(asked.base_model, asked.lora_weights, "auto", choose_precision(name)), questions, 64)
        for name in ("fp32", "bf16")
    }
    print(json.dumps(results, indent=1))
    write_json(HERE / "agreement.json", results)


if __name__ == "__main__":
    main()
