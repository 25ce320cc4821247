"""Many questions to a file, such that a stop costs nothing: a kill, a full disk, a reboot.

    answers.jsonl.part       while it runs: what it is made with, then one answer a line, in the order they finish
    answers.jsonl            when all are there: in the order asked
    answers.jsonl.rejected   questions that cannot be asked, each with where it stands and why

A rerun of the same command goes on from the part file.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xinglin.console import progress
from xinglin.dataset import formats
from xinglin.errors import UserError
from xinglin.prompts import with_knowledge
from xinglin.records import Example, Prediction, atomic_write, json_line, to_json, write_jsonl

log = logging.getLogger(__name__)

_WINDOW = 1024
"""Questions that are prepared, sorted by length and asked together."""
Ask = Callable[[Sequence[Example]], Iterator[Prediction]]
Key = tuple[str, str]


def read_questions(path: str, check: Callable[[Example], object]) -> tuple[list[Example], list[dict[str, str]]]:
    """The questions of a file of any format, and of those that cannot be asked where they stand and why.

    Args:
        check: raises UserError for a question that the model cannot be asked.

    Raises:
        UserError: the file cannot be read, or holds no question that can be asked.
    """
    rejected: list[dict[str, str]] = []

    def reject(where: str, why: str) -> None:
        rejected.append({"where": where, "reason": why})

    examples = []
    for row in formats.read(path, strict=False, need_output=False, broken=reject):
        if row.example is None:
            reject(row.where, row.problem)
            continue
        try:
            check(row.example)
        except UserError as error:
            reject(row.where, str(error).removeprefix(f"{row.where}: "))
            continue
        examples.append(row.example)
    if not examples:
        raise UserError(f"{path}: holds no question that can be asked; {rejected[0]['where']}: {rejected[0]['reason']}")
    return examples, rejected


def answer_file(
    ask: Ask, examples: Sequence[Example], rejected: Sequence[dict[str, str]], output: Path, settings: dict[str, Any]
) -> int:
    """Answer what is not answered yet, and put the whole in order.

    Args:
        ask: answers some questions, each once, in any order.
        output: where the answers go.
        settings: what decides the answers; a part file that was made with others is not gone on with.

    Returns:
        How many answers `output` holds.

    Raises:
        UserError: a part file of other settings.
    """
    part = output.with_name(output.name + ".part")
    wanted = Counter(map(_key, examples))
    done = _open_part(part, settings, wanted)
    if done.total():
        log.info("%s: %d of %d questions are answered already; going on", part, done.total(), len(examples))
    with part.open("a", encoding="utf-8") as file:
        for prediction in progress(_asked(ask, _left(examples, done)), "answers", len(examples), done.total()):
            file.write(json_line(to_json(prediction)) + "\n")
            file.flush()
    if rejected:
        write_jsonl(output.with_name(output.name + ".rejected"), rejected)
    _in_order(part, output, examples)
    part.unlink()
    return len(examples)


def _asked(ask: Ask, left: Sequence[Example]) -> Iterator[Prediction]:
    for start in range(0, len(left), _WINDOW):
        yield from ask(left[start : start + _WINDOW])


def _key(example: Example) -> Key:
    return example.id, with_knowledge(example.question)


def _left(examples: Iterable[Example], done: Counter[Key]) -> list[Example]:
    """The questions without an answer; of two that are the same, each gets its own."""
    answered, left = Counter(done), []
    for example in examples:
        if answered[_key(example)]:
            answered[_key(example)] -= 1
        else:
            left.append(example)
    return left


def _open_part(part: Path, settings: dict[str, Any], wanted: Counter[Key]) -> Counter[Key]:
    """The keys that a part file has answers to; a half-written last line is cut off, a new file begun."""
    if not part.exists():
        part.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(part) as file:
            file.write(json_line({"settings": settings}) + "\n")
        return Counter()
    done: Counter[Key] = Counter()
    whole = 0
    with part.open("rb") as lines:
        for number, line in enumerate(lines):
            with suppress(ValueError, KeyError, TypeError):  # a line that the stop cut in two
                said = json.loads(line)
                if number == 0 and said["settings"] != json.loads(json.dumps(settings)):
                    break
                if number:
                    done[said["id"], said["question"]] += 1
                if line.endswith(b"\n"):
                    whole += len(line)
                    continue
            break
    if not whole or done - wanted:
        why = "answers to other questions" if whole else "answers made with other settings"
        raise UserError(f"{part}: holds {why}; give it another name to keep it, or delete it to begin anew")
    os.truncate(part, whole)
    return done


def _in_order(part: Path, output: Path, examples: Iterable[Example]) -> None:
    """Write the answers in the order asked; one is held in memory at a time."""
    places: dict[Key, list[int]] = {}
    with part.open("rb") as file:
        start = len(file.readline())
        for line in file:
            said = json.loads(line)
            places.setdefault((said["id"], said["question"]), []).append(start)
            start += len(line)
        with atomic_write(output, "wb") as ordered:
            for example in examples:
                file.seek(places[_key(example)].pop(0))
                ordered.write(file.readline())


def fingerprint(folder: str) -> str:
    """What tells weights from those that another run puts in their place: names, sizes and times of the files."""
    if not folder or not Path(folder).is_dir():
        return folder
    files = sorted(file for file in Path(folder).iterdir() if re.search(r"\.(safetensors|bin|gguf)$", file.name))
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
