"""Example → token ids and labels: the only encoder and the only loss mask.

    prompt ids · answer ids · EOS          (repeated for every exchange of a conversation)
    -100  -100 · answer ids · EOS          labels: assistant turns only

Prompt and answer are tokenized apart, so that the prompt's ids are always a prefix of the whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xinglin.errors import UserError
from xinglin.prompts import PromptTemplate
from xinglin.records import Example, Turn
from xinglin.tokenizer import Tokenizer

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """One row for training.

    Attributes:
        input_ids: T token ids.
        labels: T ids; `IGNORE` where nothing is learned. Position t is predicted from positions before t.
        cut: the row was longer than the cutoff.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    cut: bool

    @property
    def targets(self) -> int:
        """How many tokens are learned (the first position has nothing before it to be predicted from)."""
        return sum(label != IGNORE for label in self.labels[1:])


@dataclass(frozen=True)
class Encoding:
    """How text becomes rows.

    Attributes:
        cutoff_len: longest row in tokens, the EOS slot included.
        train_on_inputs: learn the prompt's tokens too.
    """

    tokenizer: Tokenizer
    template: PromptTemplate
    cutoff_len: int = 512
    train_on_inputs: bool = False

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Ids up to where the next answer begins; the same ids that training saw."""
        return self._ids_and_labels(turns)[0]

    def row(self, example: Example) -> Encoded:
        """Encode one example; a row over the cutoff is cut and still ends with EOS."""
        ids, labels = self._ids_and_labels(example.turns)
        cut = len(ids) > self.cutoff_len
        if cut:
            end = self.cutoff_len - 1
            in_answer = labels[end - 1] != IGNORE  # a cut inside a prompt leaves no answer to end
            ids = [*ids[:end], self.tokenizer.eos_id]
            labels = [*labels[:end], self.tokenizer.eos_id if in_answer else IGNORE]
        return Encoded(example.id, ids, labels, cut)

    def _ids_and_labels(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        ids = list(self.tokenizer.prefix_ids)
        labels = [IGNORE] * len(ids)
        for role, text in self.template.segments(turns):
            piece = self.tokenizer.encode(text)
            if role == "assistant":
                piece.append(self.tokenizer.eos_id)
            ids += piece
            labels += piece if role == "assistant" or self.train_on_inputs else [IGNORE] * len(piece)
        return ids, labels


@dataclass(frozen=True)
class EncodedSet:
    """Rows ready for training, and what became of the others.

    Attributes:
        cut: how many kept rows were cut at the cutoff.
        refused: ids of the rows that were left out, since the cutoff left them nothing to learn.
    """

    rows: list[Encoded]
    cut: int
    refused: list[str]


def encode_all(examples: Iterable[Example], encoding: Encoding) -> EncodedSet:
    """Encode examples, leaving out (and naming) those whose prompt alone fills the cutoff.

    Raises:
        UserError: nothing is left.
    """
    rows, refused = [], []
    for example in examples:
        row = encoding.row(example)
        if row.targets:
            rows.append(row)
        else:
            refused.append(row.id)
    if not rows:
        raise UserError(
            f"cutoff_len {encoding.cutoff_len} leaves no row with anything to learn "
            f"(first: {refused[0] if refused else 'no records'}); raise --cutoff_len"
        )
    return EncodedSet(rows, sum(row.cut for row in rows), refused)
