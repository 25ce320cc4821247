"""Example → token ids and labels: the only encoder and the only loss mask.

    prompt ids · answer ids · EOS          (repeated for every exchange of a conversation)
    -100  -100 · answer ids · EOS          labels: assistant turns only

The prompt's ids are always a prefix of the whole. An answer is tokenized as what follows its prompt, as the model will
see it; only where a tokenizer would join the two at the seam is it tokenized apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from xinglin.errors import UserError
from xinglin.prompts import Piece, Prompt
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
    template: Prompt
    cutoff_len: int = 512
    train_on_inputs: bool = False

    @cached_property
    def end_id(self) -> int:
        """The id that ends an answer."""
        return self.tokenizer.encode(self.template.end)[0] if self.template.end else self.tokenizer.eos_id

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Ids up to where the next answer begins; the same ids that training saw."""
        return self._ids_and_labels(self.template.texts(turns)[-1])[0]

    def rows(self, example: Example) -> list[Encoded]:
        """Encode one example: one row, or one an answer where the template shows earlier answers otherwise.

        A row over the cutoff is cut; what is learned of it still ends.

        Raises:
            UserError: the prompt cannot render the conversation; names the example.
        """
        try:
            texts = self.template.texts(example.turns)
        except UserError as error:
            raise UserError(f"{example.id}: {error}") from None
        return [self._row(example.id, pieces) for pieces in texts]

    def _row(self, name: str, pieces: Sequence[Piece]) -> Encoded:
        ids, labels = self._ids_and_labels(pieces)
        cut = len(ids) > self.cutoff_len
        if cut:
            ids, labels = ids[: self.cutoff_len - 1], labels[: self.cutoff_len - 1]
            if labels[-1] not in (IGNORE, self.end_id):
                ids, labels = [*ids, self.end_id], [*labels, self.end_id]
            kept = max((place for place, label in enumerate(labels, 1) if label != IGNORE), default=0)
            ids, labels = ids[:kept], labels[:kept]  # without a question whose answer no longer fits
        return Encoded(name, ids, list(ids) if self.train_on_inputs else labels, cut)

    def _ids_and_labels(self, pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
        ids = [] if self.template.whole else list(self.tokenizer.prefix_ids)
        labels = [IGNORE] * len(ids)
        context, known = "", list[int]()  # the text since the last EOS, and its ids
        for piece in pieces:
            joined = self.tokenizer.encode(context + piece.text)
            if joined[: len(known)] != known:
                context, known, joined = "", [], self.tokenizer.encode(piece.text)
            new = joined[len(known) :]
            context, known = context + piece.text, joined
            if piece.learned and not self.template.end:
                new = [*new, self.tokenizer.eos_id]
                context, known = "", []
            ids += new
            labels += new if piece.learned else [IGNORE] * len(new)
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


def encode_some(examples: Iterable[Example], encoding: Encoding) -> tuple[list[Encoded], list[str]]:
    """Rows of examples, and the ids of those with nothing to learn, since their prompt alone fills the cutoff."""
    rows, refused = [], []
    for example in examples:
        for row in encoding.rows(example):
            if row.targets:
                rows.append(row)
            else:
                refused.append(row.id)
    return rows, refused


def encode_all(examples: Iterable[Example], encoding: Encoding) -> EncodedSet:
    """Encode examples, leaving out (and naming) those whose prompt alone fills the cutoff.

    Raises:
        UserError: nothing is left.
    """
    return encoded_set(*encode_some(examples, encoding), encoding.cutoff_len)


def encoded_set(rows: list[Encoded], refused: list[str], cutoff_len: int) -> EncodedSet:
    """What `encode_some` gave, of all examples.

    Raises:
        UserError: nothing is left.
    """
    if not rows:
        raise UserError(
            f"cutoff_len {cutoff_len} leaves no row with anything to learn "
            f"(first: {refused[0] if refused else 'no records'}); raise --cutoff_len"
        )
    return EncodedSet(rows, sum(row.cut for row in rows), refused)
