"""Files of any size -> batches of rows, with errors that name the file, the row and the byte."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hf_ext.errors import DataError

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
# The kind of a folder with a folder of texts for each class.
TEXTS = "texts"
Rows = list[dict[str, Any]]

BATCH_ROWS = 10_000
BATCH_CHARACTERS = 1 << 25
CHUNK = 1 << 20
# The longest row that is read. What is longer is a broken file (an unclosed quote, no line ends), not a text.
MAX_RECORD = 1 << 26
BLANKS = re.compile(r"[ \t\n\r]*")
_scan, _decode = json.JSONDecoder().scan_once, json.JSONDecoder().decode


@dataclass(frozen=True)
class Source:
    """
    Rows that were written together: one file, or the texts of one folder of classes.

    Args:
        path (`Path`): The file, or the folder that holds the class folders.
        name (`str`): The path below the folder of raw data, with forward slashes; `.` for that folder itself.
        kind (`str`): One of `FORMATS`, or `"texts"`.
        split (`str`): The split that the name tells; `"train"` when it tells none.
        texts (`tuple[Path, ...]`): The `.txt` files of a folder, in the order of the rows.
    """

    path: Path
    name: str
    kind: str
    split: str
    texts: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its rows stand in."""
        return self.texts or (self.path,)


def iter_batches(source: Source) -> Iterator[tuple[Rows, int]]:
    """
    Read a source piece by piece; memory does not depend on its size.

    Args:
        source ([`Source`]): What to read.

    Yields:
        `tuple[list[dict], int]`: Up to 10,000 rows (fewer when they are long), and the bytes on disk read so far.

    Raises:
        DataError: If it is empty, broken, of another form or not UTF-8, or a row is longer than 64 MiB.
    """
    read = 0
    for rows, position in _source_batches(source):
        for number, row in enumerate(rows, read + 1):
            for name, value in row.items():
                if type(value) is str and len(value) > MAX_RECORD:
                    raise DataError(
                        f"{source.path}, row {number}: {name!r} is longer than {MAX_RECORD >> 20} MiB. Look there for "
                        "a quote that is never closed, or line ends that are missing."
                    )
        read += len(rows)
        yield rows, position
    if not read:
        raise DataError(f"{source.path} holds no rows.")


# ---- Inside ----


def _source_batches(source: Source) -> Iterator[tuple[Rows, int]]:
    if source.kind == TEXTS:
        yield from _text_batches(source)
        return
    if source.kind == ".parquet":
        yield from _parquet_batches(source.path)
        return
    with _opened(source.path) as (file, raw):
        buffer = _Buffer(source.path, file)
        if not buffer.peek():
            raise DataError(f"{source.path} is empty; it must hold rows with a text and a label.")
        for rows in _batches(_rows(source, buffer), buffer):
            yield rows, raw.tell()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The bytes to read, and the file whose position tells how far they are."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    with raw:
        yield (gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw), raw


class _Buffer:
    """The part of a file's text that is being read; `position` is the next character of `text`."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.text, self.position, self.ended = path, "", 0, False
        # Of text[0], but for the column: of the first character after the last line break that is gone.
        self.characters_before = self.bytes_before = self.lines_before = self.columns_before = 0
        self._file, self._bytes_read, self._begun = file, 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def fill(self, size: int) -> bool:
        """Forget what is read and append what follows; `False` at the end of the file."""
        if self.ended:
            return False
        used = self.text[: self.position]
        lines = used.count("\n")
        self.columns_before = len(used) - used.rfind("\n") - 1 if lines else self.columns_before + len(used)
        self.lines_before += lines
        self.characters_before += len(used)
        self.bytes_before += len(used.encode())
        piece = self._decode(self._read(size))
        if not self._begun and piece.startswith("\ufeff"):
            piece, self.bytes_before = piece[1:], 3
        self._begun = self._begun or bool(piece) or self.bytes_before > 0
        self.text, self.position = self.text[self.position :] + piece, 0
        return not self.ended

    def fill_record(self) -> None:
        """Get more of a row that began and did not end; twice as much each time, so that all of it stays linear."""
        if len(self.text) - self.position > MAX_RECORD:
            self.raise_too_long()
        self.fill(max(CHUNK, len(self.text) - self.position))

    def raise_too_long(self):
        start = self.bytes_before + len(self.text[: self.position].encode())
        raise DataError(
            f"{self.path}: the row that begins at byte {start} (line {self.line(self.position)}) is longer than "
            f"{MAX_RECORD >> 20} MiB. Look there for a quote that is never closed, or line ends that are missing."
        )

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end of the file."""
        while True:
            self.position = BLANKS.match(self.text, self.position).end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.fill(CHUNK) and self.position >= len(self.text):
                return ""

    def value(self) -> Any:
        """The JSON value that begins here."""
        while True:
            try:
                value, self.position = _scan(self.text, self.position)
                return value
            except StopIteration as stop:
                error = json.JSONDecodeError("Expecting value", self.text, stop.value)
            except json.JSONDecodeError as caught:
                error = caught
            except RecursionError:
                raise DataError(f"{self.path} is nested too deeply at line {self.line(self.position)}.") from None
            # Only a string can be cut long before the end of the buffer.
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
            if self.ended or not cut:
                self.raise_syntax(error.msg, error.pos)
            self.fill_record()

    def lines(self) -> Iterator[str]:
        """The remaining lines with their ends; a lone `\\r` ends one too, as csv has it."""
        while True:
            end = self.text.rfind("\n") + 1 if not self.ended else len(self.text)
            if end > self.position:
                block = self.text[self.position : end]
                # Afterwards `consumed` counts the block: good enough to bound a batch.
                self.position = end
                yield from io.StringIO(block, newline="")
            if self.ended:
                return
            self.fill_record()

    @property
    def consumed(self) -> int:
        return self.characters_before + self.position

    def line(self, position: int) -> int:
        return self.lines_before + self.text.count("\n", 0, position) + 1

    def raise_syntax(self, message: str, position: int):
        column = position - self.text.rfind("\n", 0, position)
        if "\n" not in self.text[:position]:
            column += self.columns_before
        raise DataError(f"{self.path} is not JSON: line {self.line(position)}, column {column}: {message}.")

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.path} cannot be read: {error}.") from None
        self.ended = not data
        return data

    def _decode(self, data: bytes) -> str:
        try:
            piece = self._decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            held = len(error.object) - len(data)
            byte = self._bytes_read - held + error.start
            line = self.lines_before + self.text.count("\n", self.position) + error.object.count(b"\n", 0, error.start)
            raise DataError(
                f"{self.path} is not UTF-8: byte {byte} (line {line + 1}) is {error.object[error.start]:#04x}. Convert "
                "it, for example with iconv -f cp1252 -t utf-8."
            ) from None
        self._bytes_read += len(data)
        return piece


def _batches(rows: Iterator[dict[str, Any]], buffer: _Buffer) -> Iterator[Rows]:
    batch, start = [], buffer.consumed
    for row in rows:
        batch.append(row)
        if len(batch) >= BATCH_ROWS or buffer.consumed - start > BATCH_CHARACTERS:
            yield batch
            batch, start = [], buffer.consumed
    if batch:
        yield batch


def _rows(source: Source, buffer: _Buffer) -> Iterator[dict[str, Any]]:
    if source.kind in (".csv", ".tsv"):
        return _csv_rows(buffer, "\t" if source.kind == ".tsv" else ",")
    if source.kind == ".json" and buffer.peek() == "[":
        return _array_rows(buffer)
    return _line_rows(buffer, lines_only=source.kind == ".jsonl")


def _array_rows(buffer: _Buffer) -> Iterator[dict[str, Any]]:
    buffer.position += 1
    number, character = 0, buffer.peek()
    while character != "]" or number:
        number += 1
        row = buffer.value()
        if type(row) is not dict:
            raise DataError(_no_object(buffer.path, number, row))
        yield row
        character = buffer.peek()
        if character == "]":
            break
        if character != ",":
            buffer.raise_syntax("Expecting ',' delimiter", buffer.position)
        buffer.position += 1
        character = buffer.peek()
    buffer.position += 1
    if buffer.peek():
        buffer.raise_syntax("Extra data", buffer.position)


def _line_rows(buffer: _Buffer, lines_only: bool) -> Iterator[dict[str, Any]]:
    path, number, start = buffer.path, 0, buffer.line(buffer.position)
    for line_number, line in enumerate(buffer.lines(), start):
        stripped = line.strip(" \t\r\n")
        if not stripped:
            continue
        number += 1
        if number == 1 and stripped.startswith("["):
            raise DataError(
                f"{path} begins with '['; it must hold an array of rows (name it .json), or one row a line."
            )
        row = _line_value(path, stripped, line_number, may_be_cut=number == 1 and not lines_only)
        if type(row) is not dict:
            raise DataError(_no_object(path, number, row))
        yield row
    if number == 1 and not lines_only:
        raise DataError(f"{path} holds a JSON object; it must hold an array of rows (one row a line: name it .jsonl).")


def _line_value(path: Path, line: str, line_number: int, may_be_cut: bool) -> Any:
    try:
        value, end = _scan(line, 0)
        # `decode` says what is wrong with the rest.
        return value if end == len(line) else _decode(line)
    except StopIteration as stop:
        column = stop.value + 1
        raise DataError(f"{path} is not JSON: line {line_number}, column {column}: Expecting value.") from None
    except RecursionError:
        raise DataError(f"{path}, line {line_number} is nested too deeply to be a row.") from None
    except json.JSONDecodeError as error:
        if may_be_cut and line.startswith("{") and error.pos >= len(line):
            raise DataError(
                f"{path} holds a JSON object of several lines; it must hold an array of rows, or one row a line."
            ) from None
        raise DataError(f"{path} is not JSON: line {line_number}, column {error.pos + 1}: {error.msg}.") from None


def _no_object(path: Path, number: int, value: Any) -> str:
    return (
        f"{path}, row {number} is {json.dumps(value)[:80]}; a row must be an object such as "
        '{"text": "...", "label": 0}.'
    )


def _csv_rows(buffer: _Buffer, delimiter: str) -> Iterator[dict[str, str]]:
    path = buffer.path
    csv.field_size_limit(MAX_RECORD)
    reader = csv.reader(buffer.lines(), delimiter=delimiter, strict=True)
    begin, number = 1, 0
    try:
        header = next(reader)
        if len(set(header)) != len(header):
            raise DataError(f"{path} has two columns of one name: {', '.join(header)}.")
        begin = reader.line_num + 1
        for values in reader:
            if values:
                number += 1
                if len(values) != len(header):
                    raise DataError(
                        f"{path}, row {number} (line {reader.line_num}) has {len(values)} fields, the header has "
                        f"{len(header)}. A field that holds {delimiter!r} or a line break must be in double quotes."
                    )
                yield dict(zip(header, values, strict=True))
            begin = reader.line_num + 1
    except csv.Error as error:
        advice = ""
        if "field limit" in str(error):
            advice = f", which is {MAX_RECORD >> 20} MiB: a quote is probably never closed in the row that begins there"
        raise DataError(f"{path}, line {begin if advice else reader.line_num}: {error}{advice}.") from None


def _parquet_batches(path: Path) -> Iterator[tuple[Rows, int]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            total, done = file.metadata.num_rows, 0
            if not total:
                raise DataError(f"{path} holds no rows.")
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            batch_rows = max(1, min(BATCH_ROWS, BATCH_CHARACTERS * total // max(size, 1)))
            for batch in file.iter_batches(batch_rows):
                done += len(batch)
                yield batch.to_pylist(), path.stat().st_size * done // total
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from None


def _text_batches(source: Source) -> Iterator[tuple[Rows, int]]:
    batch, characters, size = [], 0, 0
    for path in source.texts:
        size += path.stat().st_size
        if path.stat().st_size > MAX_RECORD:
            raise DataError(f"{path} is longer than {MAX_RECORD >> 20} MiB; a file of a class folder is one text.")
        batch.append({"text": _read_text(path), "label": path.parent.name})
        characters += len(batch[-1]["text"])
        if len(batch) >= BATCH_ROWS or characters > BATCH_CHARACTERS:
            yield batch, size
            batch, characters = [], 0
    if batch:
        yield batch, size


def _read_text(path: Path) -> str:
    with _opened(path) as (file, _):
        buffer = _Buffer(path, file)
        while buffer.fill(CHUNK):
            pass
        return buffer.text
