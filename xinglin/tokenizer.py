"""Load a tokenizer and learn the few facts about it that encoding needs; no model is loaded here."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.errors import UserError, one_line

log = logging.getLogger(__name__)

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_MISNAMED = ("LLaMATokenizer", "LLaMATokenizerFast")
_PROBE = "医生 doctor"


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer with the ids that matter made explicit.

    Attributes:
        inner: the transformers tokenizer.
        prefix_ids: ids that begin every sequence (BOS where the tokenizer adds one, else nothing).
        eos_id: the id that ends every answer.
        pad_id: fills up a batch; never looked at (attention mask) and never learned (labels), so it is EOS: the
            padding tokens of many checkpoints lie outside their embeddings.
    """

    inner: Any
    prefix_ids: tuple[int, ...]
    eos_id: int
    pad_id: int

    @property
    def begins(self) -> str:
        """The text that begins a sequence, for programs that tokenize a whole text: BOS, or BOS and a space.

        SentencePiece puts a space before the first word, but not after a BOS that is spelt out.
        """
        if not self.prefix_ids:
            return ""
        wanted = [*self.prefix_ids, *self.encode(_PROBE)]
        spelt = (f"{self.inner.bos_token}{space}" for space in ("", " "))
        return next((text for text in spelt if self.encode(text + _PROBE) == wanted), self.inner.bos_token)

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
    return Tokenizer(inner=inner, prefix_ids=prefix, eos_id=inner.eos_token_id, pad_id=inner.eos_token_id)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load the tokenizer of a model folder or hub id.

    Raises:
        UserError: there is no tokenizer that transformers can read, or it knows no characters.
    """
    from transformers import AutoTokenizer  # transformers takes a second to import

    path = Path(folder)
    if path.is_dir() and not any((path / name).is_file() for name in _FILES):  # some classes load empty without them
        raise UserError(f"{folder}: no tokenizer; the folder has none of {', '.join(_FILES)}: copy the base's there")
    try:
        inner = _old_llama(path) if _is_old_llama(path) else AutoTokenizer.from_pretrained(str(folder))
    except (Exception, RecursionError) as error:  # a broken file may raise nearly anything
        raise UserError(f"{folder}: no usable tokenizer ({one_line(error)})") from None
    if set(inner.encode(_PROBE, add_special_tokens=False)) <= {inner.unk_token_id}:
        raise UserError(f"{folder}: the tokenizer knows no characters; its files are incomplete")
    return wrap(inner, str(folder))


def _is_old_llama(folder: Path) -> bool:
    """Whether a folder is LLaMA's with nothing but SentencePiece's file, as its first checkpoints were laid out."""
    if not (folder / "tokenizer.model").is_file() or (folder / "tokenizer.json").is_file():
        return False
    return bool(_read(folder / "config.json").get("model_type") == "llama")


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _old_llama(folder: Path) -> Any:
    """Load such a tokenizer by what SentencePiece's file itself says.

    The first checkpoints name the class `LLaMATokenizer`, which no version of transformers has, and their special
    tokens are empty; transformers 5 then recurses without end, or forgets BOS and the space before the first word.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizer

    stated = _read(folder / "tokenizer_config.json")
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
    named = {role: _text(stated.get(role)) or pieces.id_to_piece(number) for role, number in ids.items()}
    if any(role in stated and not _text(stated[role]) for role in ids) or stated.get("tokenizer_class") in _MISNAMED:
        log.warning("%s: an old LLaMA tokenizer, repaired: %s", folder, ", ".join(f"{k} {v}" for k, v in named.items()))
    return LlamaTokenizer.from_pretrained(str(folder), add_bos_token=stated.get("add_bos_token", True), **named)


def _text(token: Any) -> str:
    """A token of tokenizer_config.json, which may be a text or an object with `content`."""
    return str(token.get("content") or "") if isinstance(token, dict) else token or ""
