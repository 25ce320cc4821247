"""Encode large data in parallel, and once: the rows are kept under a fingerprint of all that decides them.

$XINGLIN_CACHE/encoded/<sha256>.npz      rows one after the other, their lengths, which tokens are learned, names
"""

import hashlib
import json
import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np

from xinglin.assets import cache_dir
from xinglin.dataset.encode import IGNORE, Encoded, EncodedSet, Encoding, encode_all, encode_some, encoded_set
from xinglin.errors import one_line
from xinglin.records import Example

log = logging.getLogger(__name__)

_FORMAT = 1
"""Raise it when encoding or the file changes."""
_WORTH_IT = 2000
"""Fewer examples are encoded sooner than processes start or files are read."""
_FILES = 16
"""How many are kept."""


def encode_once(examples: Sequence[Example], encoding: Encoding) -> EncodedSet:
    """What `encode_all` gives, from the cache where it was encoded before.

    Raises:
        UserError: as `encode_all`.
    """
    if len(examples) < _WORTH_IT or not hasattr(encoding.tokenizer.inner, "backend_tokenizer"):
        return encode_all(examples, encoding)
    path = cache_dir() / "encoded" / f"{fingerprint(examples, encoding)}.npz"
    stored = _load(path)
    if stored is None:
        stored = encoded_set(*_in_parallel(examples, encoding), encoding.cutoff_len)
        _keep(path, stored)
    return stored


def fingerprint(examples: Sequence[Example], encoding: Encoding) -> str:
    """sha256 of the examples, the tokenizer, the prompt and the settings; and of how the first example is encoded."""
    inner = encoding.tokenizer.inner
    settings = [_FORMAT, inner.backend_tokenizer.to_str(), inner.special_tokens_map, encoding.tokenizer.prefix_ids]
    settings += [encoding.template.digest(), encoding.cutoff_len, encoding.train_on_inputs]
    digest = hashlib.sha256(json.dumps([*settings, repr(encoding.rows(examples[0]))], default=str).encode())
    for example in examples:
        digest.update(repr((example.id, example.turns)).encode())
    return digest.hexdigest()


def _in_parallel(examples: Sequence[Example], encoding: Encoding) -> tuple[list[Encoded], list[str]]:
    workers = min(len(os.sched_getaffinity(0)), 16) if sys.platform == "linux" else 1
    if workers == 1:
        return encode_some(examples, encoding)
    size = -(-len(examples) // (4 * workers))
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    global _encoding
    _encoding = encoding  # forked processes have it at once, and need not import anything
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            done = list(pool.map(_encode_part, parts))
    except BrokenProcessPool:  # one was killed, for want of memory perhaps
        return encode_some(examples, encoding)
    return [row for rows, _ in done for row in rows], [name for _, refused in done for name in refused]


_encoding: Encoding


def _encode_part(examples: Sequence[Example]) -> tuple[list[Encoded], list[str]]:
    return encode_some(examples, _encoding)


def _load(path: Path) -> EncodedSet | None:
    try:
        with np.load(path) as stored:
            ids, learned, ends, cut = (stored[key] for key in ("ids", "learned", "ends", "cut"))
            names, refused = (json.loads(str(stored[key])) for key in ("names", "refused"))
    except Exception:  # none yet, or a broken one, which may raise nearly anything
        return None
    with suppress(OSError):
        path.touch()
    labels = np.where(learned, ids, IGNORE)
    parts = zip(names, np.split(ids, ends[:-1]), np.split(labels, ends[:-1]), cut.tolist(), strict=True)
    rows = [Encoded(name, one.tolist(), label.tolist(), cut=was_cut) for name, one, label, was_cut in parts]
    return EncodedSet(rows, int(cut.sum()), refused)


def _keep(path: Path, made: EncodedSet) -> None:
    """Write the file, which appears whole or not at all, and take away the oldest."""
    ids = np.array([token for row in made.rows for token in row.input_ids], np.int32)
    labels = np.array([label for row in made.rows for label in row.labels], np.int32)
    assert np.array_equal(labels[labels != IGNORE], ids[labels != IGNORE])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch, "rows.npz")
            np.savez(
                whole,
                ids=ids,
                learned=labels != IGNORE,
                ends=np.cumsum([len(row.input_ids) for row in made.rows]),
                cut=np.array([row.cut for row in made.rows]),
                names=json.dumps([row.id for row in made.rows]),
                refused=json.dumps(made.refused),
            )
            os.replace(whole, path)
    except OSError as error:
        log.warning("encoded rows are not kept for the next run: %s", one_line(error))
    with suppress(OSError):  # another run may be at it
        for old in sorted(path.parent.glob("*.npz"), key=lambda one: -one.stat().st_mtime)[_FILES:]:
            old.unlink(missing_ok=True)
