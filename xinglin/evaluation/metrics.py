"""What an answer is worth against the facts it was to state, and how surprised a model is by a reference answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from xinglin.dataset.encode import Encoding
from xinglin.knowledge.link import Linker, normalize
from xinglin.records import Example
from xinglin.tuning.packing import collate, micro_batches, token_losses


@dataclass(frozen=True)
class FactCheck:
    """An answer against an example's facts.

    Attributes:
        stated: expected objects that the answer mentions.
        missed: expected objects that it does not.
        other: known terms that it mentions and that were not expected (not therefore false).
    """

    stated: tuple[str, ...]
    missed: tuple[str, ...]
    other: tuple[str, ...]

    @property
    def recall(self) -> float:
        """Share of the expected objects that the answer mentions; 1 when the question named them all."""
        expected = len(self.stated) + len(self.missed)
        return len(self.stated) / expected if expected else 1.0

    @property
    def precision(self) -> float:
        """Share of the mentioned terms that were expected; 0 when nothing is mentioned."""
        said = len(self.stated) + len(self.other)
        return len(self.stated) / said if said else 0.0


def check_facts(answer: str, example: Example, linker: Linker) -> FactCheck:
    """Find the expected objects, and others, in an answer; what the question itself names does not count."""
    given = set(linker.mentions(example.question.content)) | {normalize(subject) for subject, _, _ in example.facts}
    named = (normalize(object_) for _, _, object_ in example.facts)
    expected = [one for one in dict.fromkeys(named) if one not in given]
    found = [term for term in linker.mentions(answer) if term not in given]
    return FactCheck(
        stated=tuple(one for one in expected if one in found),
        missed=tuple(one for one in expected if one not in found),
        other=tuple(term for term in found if term not in expected),
    )


@torch.no_grad()
def answer_nats(model: Any, examples: Sequence[Example], encoding: Encoding, *, max_tokens: int = 2048) -> list[float]:
    """Negative log-likelihood of each reference answer (its end token included), in nats.

    Divide by the answer's characters for NLL per character, which tokenizers can be compared by.
    """
    whole = replace(encoding, cutoff_len=1 << 20)  # a cut answer would look less surprising than it is
    rows = [whole.row(example) for example in examples]
    total = dict.fromkeys((row.id for row in rows), 0.0)
    for group in micro_batches(rows, 16, max_tokens):
        losses_N, row_N = token_losses(model, collate(group, encoding.tokenizer.pad_id, model.device))
        sums = torch.zeros(len(group), dtype=losses_N.dtype, device=losses_N.device).index_add_(0, row_N, losses_N)
        for row, nats in zip(group, sums.tolist(), strict=True):
            total[row.id] = nats
    return [total[row.id] for row in rows]
