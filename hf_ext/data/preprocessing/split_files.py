"""Selected rows -> `train`, `validation` and `test` files in JSON or Parquet."""

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_ext.data.preprocessing.plan import Plan
from hf_ext.data.preprocessing.publishing import SPLITS
from hf_ext.data.preprocessing.stages import Rows, batch_rows

_quoted = json.encoder.encode_basestring
# Python types of a kept column -> its type in Parquet; anything else is written as JSON text.
ARROW_TYPES = {
    ("int",): pa.int64(),
    ("float",): pa.float64(),
    ("float", "int"): pa.float64(),
    ("str",): pa.string(),
    ("bool",): pa.bool_(),
}


def write_splits(plan: Plan, rows: Rows, folder: Path, progress: bool) -> list[str]:
    """
    Write the kept rows of each split, in the order of the files that they are from.

    Args:
        plan ([`Plan`]): For the format and the columns.
        rows ([`Rows`]): After selection and split.
        folder (`Path`): Where to write; `text`, `text_pair` (pairs), `label` (if the split has labels), kept columns.
        progress (`bool`): Show a progress bar.

    Returns:
        `list[str]`: Names of the files. A split without rows has none.
    """
    form = _JsonFile if plan.settings.output_format == "json" else _ParquetFile
    labels, names, step = _Labels(rows), {}, batch_rows(rows.clean)
    with ExitStack() as stack, tqdm(total=len(rows), desc="Writing", unit="rows", disable=not progress) as bar:
        files = {}
        for split in np.unique(rows.splits[rows.splits >= 0]).tolist():
            names[split] = f"{SPLITS[split]}.{plan.settings.output_format}"
            labelled = bool((labels.ids[rows.splits == split] >= 0).all())
            files[split] = stack.enter_context(
                closing(form(folder / names[split], plan, rows, labels if labelled else None))
            )
        for start in range(0, len(rows), step):
            part = rows.splits[start : start + step]
            for split, file in files.items():
                here = np.flatnonzero(part == split)
                if len(here):
                    file.write(_taken(plan, rows, start, len(part), here), start + here)
            bar.update(len(part))
    return [names[split] for split in sorted(names)]


def text_columns(rows: Rows) -> list[str]:
    """`text`, and `text_pair` of pairs."""
    return [name for name in ("text", "text_pair") if name in rows.clean.column_names]


# ---- Inside ----


class _Labels:
    """The distinct labels in both forms; rows refer to them by their ids."""

    def __init__(self, rows: Rows):
        values = rows.labels.values
        self.ids = rows.labels.ids
        self.json = np.array([json.dumps(value, ensure_ascii=False) for value in values], dtype=object)
        self.arrow = pa.array(values)


def _taken(plan: Plan, rows: Rows, start: int, length: int, here: np.ndarray) -> dict[str, pa.ChunkedArray]:
    columns = {name: rows.clean[name].slice(start, length).take(here) for name in text_columns(rows)}
    return columns | {name: rows.raw[name].slice(start, length).take(here) for name in plan.kept}


class _JsonFile:
    """An array with one object a line."""

    def __init__(self, path: Path, plan: Plan, rows: Rows, labels: _Labels | None):
        self.texts, self.kept, self.labels = text_columns(rows), plan.kept, labels
        keys = [*self.texts, *(["label"] if labels else []), *self.kept]
        self.form = "{" + ", ".join(f"{_quoted(key)}: ".replace("%", "%%") + "%s" for key in keys) + "}"
        self.file, self.before = path.open("w", encoding="utf-8", newline="\n"), "[\n"

    def write(self, columns: dict[str, pa.ChunkedArray], index: np.ndarray) -> None:
        values = [map(_quoted, columns[name].to_pylist()) for name in self.texts]
        if self.labels is not None:
            values.append(self.labels.json[self.labels.ids[index]].tolist())
        values += [columns[name].to_pylist() for name in self.kept]
        self.file.write(self.before + ",\n".join([self.form % row for row in zip(*values, strict=True)]))
        self.before = ",\n"

    def close(self) -> None:
        self.file.write("\n]\n")
        self.file.close()


class _ParquetFile:
    def __init__(self, path: Path, plan: Plan, rows: Rows, labels: _Labels | None):
        self.texts, self.labels = text_columns(rows), labels
        kinds = {name: set().union(*(fact.kinds[name] for fact in rows.facts)) - {"NoneType"} for name in plan.kept}
        self.types = {name: ARROW_TYPES.get(tuple(sorted(kinds[name]))) for name in plan.kept}
        fields = [(name, pa.string()) for name in self.texts] + ([("label", labels.arrow.type)] if labels else [])
        fields += [(name, kind or pa.string()) for name, kind in self.types.items()]
        self.writer = pq.ParquetWriter(path, pa.schema(fields))

    def write(self, columns: dict[str, pa.ChunkedArray], index: np.ndarray) -> None:
        values: dict[str, Any] = {name: columns[name] for name in self.texts}
        if self.labels is not None:
            values["label"] = self.labels.arrow.take(pa.array(self.labels.ids[index]))
        for name, kind in self.types.items():
            kept = columns[name].to_pylist()
            values[name] = pa.array(list(map(json.loads, kept)), kind) if kind else columns[name]
        self.writer.write_table(pa.table(values, schema=self.writer.schema))

    def close(self) -> None:
        self.writer.close()
