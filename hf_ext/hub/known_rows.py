"""The rows that a finished model's folder knows of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_ext.data.reading import read_table

DATA_FILES = ("train_file", "validation_file", "test_file")
PREDICTIONS = "predictions_*.jsonl"


def known_rows(folder: Path, data_files: list[str] | None = None) -> tuple[Iterator[str], list[str]]:
    """
    The texts that a model was trained and judged on, as far as they can be found.

    Args:
        folder (`Path`): The model's; `predictions_*.jsonl` and the data files that `run.json` names are read.
        data_files (`list[str]`, *optional*): Data files to read in place of those that `run.json` names.

    Returns:
        `tuple[Iterator[str], list[str]]`: All strings of the rows; and sentences that say which rows are not known.

    Raises:
        DataError: If a file of `data_files` cannot be read.
    """
    notes = []
    if data_files is None:
        named = _named_files(folder)
        data_files = [name for name in named if Path(name).exists()]
        missing = [name for name in named if name not in data_files]
        if missing:
            notes.append(
                f"{', '.join(missing)}: not there, so their texts were not looked for (--data_files names others)."
            )
        elif not named:
            notes.append(
                "The training rows are not known, so their texts were not looked for (--data_files names them)."
            )
    tables = [read_table(path) for path in (*data_files, *sorted(folder.glob(PREDICTIONS)))]
    return (value for table in tables for row in table.rows for value in _strings(row)), notes


# ---- Inside ----


def _named_files(folder: Path) -> list[str]:
    record = folder / "run.json"
    data = json.loads(record.read_text(encoding="utf-8"))["arguments"].get("data", {}) if record.is_file() else {}
    return [data[name] for name in DATA_FILES if data.get(name)]


def _strings(row: dict[str, Any]) -> Iterator[str]:
    for value in row.values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))
