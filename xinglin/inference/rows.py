"""Rows that are answered together: those that are done leave, others take their place, and what was computed stays.

Every row ends at the right edge; before it, and between a beginning that rows share and the rest, a mask hides what is
nobody's. Keys know their positions already, so columns may be added and taken away on the left.

Shape suffixes: B rows, T columns, G key and value heads, D width of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer

from xinglin.inference.generation import Generation, generator
from xinglin.records import Example

WORTH_SHARING = 64
"""Tokens that a common beginning must have for being computed once; a template's preface is not worth a pass."""


_LAST = torch.tensor([-1])
"""For `logits_to_keep`: after a slice PyTorch copies the output layer for each row; after an index not."""
_AHEAD = 32
"""Columns for which room is made at a time."""


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

    @property
    def answer(self) -> list[int]:
        """Ids of the answer, its end token included."""
        return self.ids[len(self.prompt) :]

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
        self.cache = _cache()
        self.mask_BT = torch.ones(0, 1, dtype=torch.long, device=model.device)

    @property
    def columns(self) -> int:
        """How long the longest row is."""
        return self.mask_BT.shape[1]

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
                logits_to_keep=_LAST,
            )
        mask_BT = F.pad(mask_BT, (0, 1), value=1)
        if self.rows:
            cache = _joined(self.cache, cache)
            width = max(self.columns, mask_BT.shape[1])
            mask_BT = torch.cat([F.pad(one, (width - one.shape[1], 0)) for one in (self.mask_BT, mask_BT)])
        self.rows, self.cache, self.mask_BT = [*self.rows, *rows], cache, mask_BT

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """Scores of each row's next token, (B, V) in fp32; `append` it before the next step."""
        device = self._model.device
        empty = self.cache.get_mask_sizes(1, 0)[0] - self.columns
        output = self._model(
            input_ids=torch.tensor([[row.ids[-1]] for row in self.rows], device=device),
            attention_mask=F.pad(self.mask_BT, (0, empty)),
            position_ids=torch.tensor([[len(row.ids) - 1] for row in self.rows], device=device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=_LAST,
        )
        return output.logits[:, -1].float()  # type: ignore[no-any-return]

    def append(self, tokens: Sequence[int]) -> None:
        """Give each row that goes on its next token; the others keep theirs until they leave."""
        for row, token in zip(self.rows, tokens, strict=True):
            if not row.reason:
                row.ids.append(token)
        self.mask_BT = F.pad(self.mask_BT, (0, 1), value=1)

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
            self.cache, self.mask_BT = _cache(), self.mask_BT[:, :1]
        return gone

    def _prefix(self, prefix: list[int], copies: int) -> Cache:
        """Keys and values of a shared beginning, computed once and repeated for each row."""
        cache = _cache()
        if prefix:
            ids = torch.tensor([prefix], device=self._model.device)
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=_LAST)
            cache.batch_repeat_interleave(copies)
        return cache


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer in a room with place for those that come: a token more moves nothing that is there.

    Attention gets the whole room, since matmuls want it in one piece; the mask hides what is empty.
    """

    _rooms: tuple[torch.Tensor, torch.Tensor] | None = None
    _seen: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in more columns; all that there are, and the empty ones after them."""
        if self.keys is None:  # type: ignore[has-type]
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        have, length = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._rooms is None or length > self._room:
            self._rooms = _with_room(self.keys, length), _with_room(self.values, length)
        for room_BGTD, new_BGTD in zip(self._rooms, (key_states, value_states), strict=True):
            room_BGTD[:, :, have:length] = new_BGTD
        self.keys, self.values = (room_BGTD[:, :, :length] for room_BGTD in self._rooms)
        self._seen = self.keys
        return self._rooms

    @property
    def _room(self) -> int:
        """Columns that there is place for; none where others have changed the keys."""
        return self._rooms[0].shape[-2] if self._rooms is not None and self._seen is self.keys else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the next `update` returns, and how many are missing before them."""
        length = self.get_seq_length() + query_length
        if length == query_length:
            return length, 0
        return (self._room if length <= self._room else length + _AHEAD), 0


def _with_room(part_BGTD: torch.Tensor, length: int) -> torch.Tensor:
    rows, groups, columns, width = part_BGTD.shape
    room_BGTD = part_BGTD.new_zeros(rows, groups, length + _AHEAD, width)
    room_BGTD[:, :, :columns] = part_BGTD
    return room_BGTD


def _cache() -> Cache:
    return Cache(layer_class_to_replicate=_Roomy)


def common_prefix(texts: Sequence[list[int]]) -> int:
    """How many first ids all texts share; each keeps at least one of its own."""
    first, last = min(texts), max(texts)
    limit = min(map(len, texts)) - 1
    return next((n for n in range(limit) if first[n] != last[n]), max(limit, 0))


def _each(cache: Cache, change: Callable[[torch.Tensor], torch.Tensor]) -> Cache:
    """A cache with every tensor of keys or values changed."""
    made = _cache()
    for place, layer in enumerate(cache.layers):
        made.update(change(layer.keys), change(layer.values), place)
    return made


def _joined(one: Cache, other: Cache) -> Cache:
    """Both caches' rows, the shorter ones with columns before them."""
    width = max(one.get_seq_length(), other.get_seq_length())

    def both(first_BGTD: torch.Tensor, second_BGTD: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.pad(part, (0, 0, width - part.shape[2], 0)) for part in (first_BGTD, second_BGTD)])

    made = _cache()
    for place, (first, second) in enumerate(zip(one.layers, other.layers, strict=True)):
        made.update(both(first.keys, second.keys), both(first.values, second.values), place)
    return made
