"""Load a tokenizer and learn the few facts about it that encoding needs; no model is loaded here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.errors import UserError, one_line


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the ids that matter made explicit.

    Attributes:
        inner: the transformers tokenizer.
        prefix_ids: ids that begin every sequence (BOS where the tokenizer adds one, else nothing).
        eos_id: the id that ends every answer.
        pad_id: fills up a batch; never looked at (attention mask) and never learned (labels).
    """

    inner: Any
    prefix_ids: tuple[int, ...]
    eos_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special tokens of the tokenizer's own."""
        return list(self.inner.encode(text, add_special_tokens=False))

    def decode(self, ids: Any) -> str:
        """Text of generated ids, special tokens left out."""
        return str(self.inner.decode(ids, skip_special_tokens=True))


def wrap(inner: Any, where: str = "the tokenizer") -> Tokenizer:
    """Read the special ids of a transformers tokenizer.

    Raises:
        UserError: it has no end-of-sequence token, so no answer could ever end.
    """
    if inner.eos_token_id is None:
        raise UserError(f"{where} has no eos_token; set it in tokenizer_config.json, else no answer can end")
    added = list(inner("").input_ids)
    prefix = (inner.bos_token_id,) if inner.bos_token_id is not None and added[:1] == [inner.bos_token_id] else ()
    pad = inner.pad_token_id if inner.pad_token_id is not None else inner.eos_token_id
    return Tokenizer(inner=inner, prefix_ids=prefix, eos_id=inner.eos_token_id, pad_id=pad)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load the tokenizer of a model folder.

    Raises:
        UserError: the folder holds no tokenizer that transformers can read.
    """
    from transformers import AutoTokenizer  # transformers takes a second to import

    try:
        inner = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # a broken file may raise nearly anything
        raise UserError(f"{folder}: no usable tokenizer ({one_line(error)})") from None
    return wrap(inner, str(folder))
