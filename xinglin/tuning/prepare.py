"""From data files to rows ready for training: read, hold back some for evaluation, encode, mix."""

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from xinglin.config import listed
from xinglin.dataset import formats
from xinglin.dataset.encode import Encoded, EncodedSet, Encoding
from xinglin.dataset.encode_once import encode_once
from xinglin.errors import UserError
from xinglin.prompts import ChatPrompt, Prompt, choose_thinking, open_prompt, reasons
from xinglin.records import Example
from xinglin.tokenizer import Tokenizer
from xinglin.tuning import processes
from xinglin.tuning.mixing import Mixture, read_weights
from xinglin.tuning.options import FinetuneConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Everything known before the model is loaded.

    Attributes:
        rows: rows of all sources, one source after the other; `mixture` says which of them an epoch takes.
        val: rows to evaluate on.
        cut: rows that were cut at the cutoff.
        refused: ids of the rows that were left out, since the cutoff left them nothing to learn.
        tokens_a_character: of the texts alone, without the prompt.
    """

    encoding: Encoding
    rows: list[Encoded]
    mixture: Mixture
    val: list[Encoded]
    steps: int
    cut: int
    refused: list[str]
    tokens_a_character: float


def data_paths(given: str | list[str]) -> list[str]:
    """The data files; one whose own name has a comma stays one."""
    return [given] if isinstance(given, str) and Path(given).exists() else listed(given)


def prepare(config: FinetuneConfig, tokenizer: Tokenizer, base: str) -> Prepared:
    """Read, split, encode and mix the data, and say what came of it.

    Args:
        base: the base's folder or hub id; one that was tuned before brings its prompt along.

    Raises:
        UserError: as `formats.read`, `read_weights` and `encode_once`, or too few records to hold some back.
    """
    paths = data_paths(config.data_path)
    weights = read_weights(config.data_weights, len(paths))
    sources = [[row.example for row in formats.read(path) if row.example] for path in paths]
    held = _held_back(config.val_set_size, Mixture(tuple(map(len, sources)), weights))
    prompt = open_prompt(config.prompt_template_name, tokenizer.inner, base)
    prompt = _set_thinking(prompt, config.enable_thinking, sources)
    encoding = Encoding(tokenizer, prompt, config.cutoff_len, config.train_on_inputs)
    for source in sources:
        random.Random(config.seed).shuffle(source)
    train = [_encoded(source[count:], encoding) for source, count in zip(sources, held, strict=True)]
    kept = [example for source, count in zip(sources, held, strict=True) for example in source[:count]]
    val = [_encoded(kept, encoding)] if kept else []
    mixture = Mixture(tuple(len(part.rows) for part in train), weights, config.seed)
    steps = math.ceil(math.ceil(sum(mixture.counts) / config.batch_size) * config.num_epochs)
    prepared = Prepared(
        encoding,
        rows=[row for part in train for row in part.rows],
        mixture=mixture,
        val=[row for part in val for row in part.rows],
        steps=steps,
        cut=sum(part.cut for part in (*train, *val)),
        refused=[name for part in (*train, *val) for name in part.refused],
        tokens_a_character=_tokens_a_character(tokenizer, sources),
    )
    _tell(config, paths, prepared)
    return prepared


def _encoded(examples: Sequence[Example], encoding: Encoding) -> EncodedSet:
    return processes.on_first(lambda: encode_once(examples, encoding))


def _held_back(size: int | float, mixture: Mixture) -> list[int]:
    """How many records of each source `val_set_size` (a count, or a fraction below 1) holds back, by their shares.

    Raises:
        UserError: it leaves nothing to train on.
    """
    total = sum(mixture.counts)
    count = max(1, round(total * size)) if 0 < size < 1 else int(size)
    if size < 0 or count >= total:
        raise UserError(f"val_set_size {size} leaves nothing of {total} records to train on; give a smaller one")
    ends = [round(count * end / total) for end in accumulate(mixture.counts)]
    held = [end - start for start, end in zip((0, *ends), ends, strict=False)]  # in sum what was asked for
    short = next((there for n, there in zip(held, mixture.sizes, strict=True) if n >= there), None)
    if short is not None:
        raise UserError(f"val_set_size {size} would hold back a whole data file of {short} records; give a smaller one")
    return held


def _tokens_a_character(tokenizer: Tokenizer, sources: Sequence[Sequence[Example]]) -> float:
    """Counted on the first records of each source; above about 1.5 the tokenizer was not made for Chinese."""
    some = [turn.content for source in sources for example in source[:100] for turn in example.turns]
    return sum(len(tokenizer.encode(text)) for text in some) / max(1, sum(map(len, some)))


def _set_thinking(prompt: Prompt, asked: str, sources: Sequence[Sequence[Example]]) -> Prompt:
    """Set a prompt's thinking switch: as the data have it, unless told otherwise."""
    prompt = choose_thinking(prompt, asked)
    if not isinstance(prompt, ChatPrompt):
        return prompt
    answers = (turn for source in sources for one in source for turn in one.turns if turn.role == "assistant")
    default = any(reasons(turn.content) for turn in answers) if prompt.thinking is None else prompt.thinking
    return prompt.thinks(default)


def _tell(config: FinetuneConfig, paths: list[str], prepared: Prepared) -> None:
    mixture, epoch = prepared.mixture, sum(prepared.mixture.counts)
    for path, size, count in zip(paths, mixture.sizes, mixture.counts, strict=True):
        of = f" of {size:,}" if count != size else ""
        log.info("data: %s: %s%s records an epoch (%.1f %%)", path, f"{count:,}", of, 100 * count / epoch)
    log.info(
        "data: %s records to evaluate on; %d rows cut at %d tokens; prompt %s",
        *(f"{len(prepared.val):,}", prepared.cut, config.cutoff_len, prepared.encoding.template.name),
    )
    labels, tokens = sum(row.targets for row in prepared.rows), sum(len(row.input_ids) for row in prepared.rows)
    log.info(
        "data: %.2f tokens a character; %s of %s tokens are learned",
        *(prepared.tokens_a_character, f"{labels:,}", f"{tokens:,}"),
    )
    if prepared.refused:
        first, left_out = prepared.refused[0], len(prepared.refused)
        log.warning("%d rows left out: their prompt alone fills the cutoff (first: %s)", left_out, first)
    size = config.batch_size
    log.info("steps: %d (%g epochs of %s records, %d a step)", prepared.steps, config.num_epochs, f"{epoch:,}", size)
