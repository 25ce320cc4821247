"""Rows that are answered together: those that are done leave, others take their place, and what was computed stays.

Every row ends at the right edge; before it, and between a beginning that rows share and the rest, a mask hides what is
nobody's. Keys know their positions already, so columns may be added and taken away on the left.

Shape suffixes: B rows, T columns, G key and value heads, D width of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from xinglin.inference.generation import Generation, generator
from xinglin.records import Example

WORTH_SHARING = 64
"""Tokens that a common beginning must have for being computed once; a template's preface is not worth a pass."""


class Row:
    """A question on its way to an answer.

    Attributes:
        ids: of the prompt and of what is made so far.
        made: how many of them are the answer's.
        reason: why it ended; empty while it goes on.
    """

    def __init__(self, example: Example, prompt: list[int]) -> None:
        self.example, self.prompt, self.ids = example, prompt, list(prompt)
        self.reason, self.seconds = "", 0.0
        self._draw: torch.Generator | None = None

    @property
    def made(self) -> int:
        """How many tokens of the answer are there."""
        return len(self.ids) - len(self.prompt)

    def draw(self, generation: Generation) -> torch.Generator:
        """What its tokens are drawn with, from the first to the last."""
        if self._draw is None:
            self._draw = generator(generation.seed, self.prompt)
        return self._draw


class Batch:
    """Rows with their keys and values, which cover each row but for its last token.

    Attributes:
        mask_BT: 1 where a column is the row's own; one column more than the keys have, for the last token.
    """

    def __init__(self, model: Any, pad: int) -> None:
        self._model, self._pad = model, pad
        self.rows: list[Row] = []
        self.cache = DynamicCache()
        self.mask_BT = torch.ones(0, 1, dtype=torch.long, device=model.device)

    @property
    def columns(self) -> int:
        """How long the longest row is."""
        return self.mask_BT.shape[1]

    def ids_BT(self) -> torch.Tensor:
        """Token ids at the right edge; what stands before a row's own is not looked at."""
        ids = torch.full_like(self.mask_BT, self._pad)
        for ids_T, row in zip(ids, self.rows, strict=True):
            own = torch.tensor(row.ids[-self.columns :])
            ids_T[-len(own) :] = own
        return ids

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> None:
        """Take in rows of which nothing is computed yet."""
        texts = [row.ids[:-1] for row in rows]
        shared = common_prefix(texts) if len(rows) > 1 else 0
        shared = shared if shared >= WORTH_SHARING else 0
        longest, device = max(map(len, texts)), self._model.device
        cache = self._prefix(texts[0][:shared], len(rows))
        rest = [[self._pad] * (longest - len(text)) + text[shared:] for text in texts]
        mask = [[1] * shared + [0] * (longest - len(text)) + [1] * (len(text) - shared) for text in texts]
        mask_BT = torch.tensor(mask, device=device)
        if longest > shared:
            positions_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)
            self._model(
                input_ids=torch.tensor(rest, device=device),
                attention_mask=mask_BT,
                position_ids=positions_BT[:, shared:],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        mask_BT = F.pad(mask_BT, (0, 1), value=1)
        if self.rows:
            cache = _joined(self.cache, cache)
            width = max(self.columns, mask_BT.shape[1])
            mask_BT = torch.cat([F.pad(one, (width - one.shape[1], 0)) for one in (self.mask_BT, mask_BT)])
        self.rows, self.cache, self.mask_BT = [*self.rows, *rows], cache, mask_BT

    def grown(self, steps: int) -> None:
        """Note that all rows got so many columns."""
        self.mask_BT = F.pad(self.mask_BT, (0, steps), value=1)

    def leave(self, done: Callable[[Row], bool]) -> list[Row]:
        """Let rows go, and the columns that nobody needs any more."""
        gone = [row for row in self.rows if done(row)]
        if not gone:
            return []
        stay = [place for place, row in enumerate(self.rows) if not done(row)]
        self.rows = [self.rows[place] for place in stay]
        kept = torch.tensor(stay, dtype=torch.long, device=self.mask_BT.device)
        self.mask_BT = self.mask_BT[kept]
        if stay:
            first = int(self.mask_BT.any(0).int().argmax())
            self.mask_BT = self.mask_BT[:, first:]
            self.cache = _each(self.cache, lambda part: part[kept, :, first:])
        else:
            self.cache, self.mask_BT = DynamicCache(), self.mask_BT[:, :1]
        return gone

    def _prefix(self, prefix: list[int], copies: int) -> DynamicCache:
        """Keys and values of a shared beginning, computed once and repeated for each row."""
        cache = DynamicCache()
        if prefix:
            ids = torch.tensor([prefix], device=self._model.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(copies)
        return cache


def common_prefix(texts: Sequence[list[int]]) -> int:
    """How many first ids all texts share; each keeps at least one of its own."""
    first, last = min(texts), max(texts)
    limit = min(map(len, texts)) - 1
    return next((n for n in range(limit) if first[n] != last[n]), max(limit, 0))


def _each(cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]) -> DynamicCache:
    """A cache with every tensor of keys or values changed."""
    made = DynamicCache()
    for place, layer in enumerate(cache.layers):
        made.update(change(layer.keys), change(layer.values), place)
    return made


def _joined(one: DynamicCache, other: DynamicCache) -> DynamicCache:
    """Both caches' rows, the shorter ones with columns before them."""
    width = max(one.get_seq_length(), other.get_seq_length())

    def both(first_BGTD: torch.Tensor, second_BGTD: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.pad(part, (0, 0, width - part.shape[2], 0)) for part in (first_BGTD, second_BGTD)])

    made = DynamicCache()
    for place, (first, second) in enumerate(zip(one.layers, other.layers, strict=True)):
        made.update(both(first.keys, second.keys), both(first.values, second.values), place)
    return made
