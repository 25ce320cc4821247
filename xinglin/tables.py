"""Text whose encoding nobody states, and tables in it: UTF-8, GB18030 (GBK is part of it), or UTF-16 with its mark."""

import codecs
import csv
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from xinglin.errors import UserError
from xinglin.records import CHUNK, open_data, read_lines

MAX_FIELD = 4 << 20
"""The longest field of a table in characters; a quote left open is found after so many."""

_SURE = 8  # so many characters beyond ASCII that decode as UTF-8 are no accident
_CSV_ERRORS = {
    "field limit": "a quote that opens in this row is not closed",
    "unexpected end": "a quote that opens in this row is never closed",
    "expected after": "text after a closing quote; a quote inside a field is written twice",
    "new-line": "a bare carriage return; lines must end with LF or CRLF",
}


def open_text(path: Path) -> BufferedReader:
    """Open a text file as UTF-8 past its byte-order mark; any other encoding goes through a temporary file.

    Raises:
        UserError: not readable, or in none of the encodings (with the line).
    """
    file = open_data(path)
    encoding = encoding_of(path)
    if encoding.startswith("utf-8"):
        return file
    file.close()
    return _as_utf8(path, encoding)


def encoding_of(path: Path) -> str:
    """`utf-8`, `utf-8-sig`, `utf-16` or `gb18030`.

    UTF-8 unless that fails before it can be sure; what is wrong further on is told with its line.
    """
    with path.open("rb") as file:
        start = file.read(3)
        if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        if start == codecs.BOM_UTF8:
            return "utf-8-sig"
        file.seek(0)
        decoder, beyond = codecs.getincrementaldecoder("utf-8")(), 0
        while beyond < _SURE and (data := file.read(CHUNK)):
            try:
                beyond += _beyond_ascii(decoder.decode(data))
            except UnicodeDecodeError as error:
                beyond += _beyond_ascii(error.object[: error.start].decode())
                return "utf-8" if beyond >= _SURE else "gb18030"
    return "utf-8"


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def _as_utf8(path: Path, encoding: str) -> BufferedReader:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - handed on to the caller
    decoder, line, data = codecs.getincrementaldecoder(encoding)(), 1, b"\0"
    with path.open("rb") as file:
        while data:
            data = file.read(CHUNK)
            try:
                text = decoder.decode(data, not data)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(error.encoding).count("\n")
                kind = "damaged UTF-16" if encoding == "utf-16" else "neither UTF-8 nor GB18030"
                raise UserError(f"{path}:{line}: {kind} ({error.reason}); convert it to UTF-8") from None
            line += text.count("\n")
            copy.write(text.encode())
    copy.seek(0)
    return BufferedReader(copy.detach(), CHUNK)


def read_table(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, fields) of every row that is not empty, the header among them.

    Raises:
        UserError: a quote left open, NUL bytes, a wrong encoding or a line over 64 MB, each with its line.
    """
    csv.field_size_limit(MAX_FIELD)
    line = 1
    with open_text(path) as file:
        reader = csv.reader((text for _, text in read_lines(file, path)), delimiter=delimiter, strict=True)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                known = (reason for said, reason in _CSV_ERRORS.items() if said in str(error))
                raise UserError(f"{path}:{line}: not a valid table ({next(known, error)})") from None
            if cells is None:
                return
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
