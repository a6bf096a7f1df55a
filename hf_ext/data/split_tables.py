"""Where the rows of each split come from: files, a folder of files, or the Hub."""

import os
from itertools import combinations
from pathlib import Path

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.columns import listed_names
from hf_ext.data.reading import Table, read_hub_dataset, read_table
from hf_ext.data.streaming import FORMATS
from hf_ext.errors import DataError, nearest

SPLITS = ("train", "validation", "test")


def read_splits(data_args: DataArguments, model_args: ModelArguments, needed: tuple[str, ...]) -> dict[str, Table]:
    """
    The tables that arguments name.

    Args:
        data_args ([`DataArguments`]): Files, a folder or a data set.
        model_args ([`ModelArguments`]): `cache_dir` and `token`.
        needed (`tuple[str, ...]`): Splits that are read, if there are any.

    Returns:
        `dict[str, Table]`: By split.

    Raises:
        DataError: If there is no such split, or two are the same rows.
    """
    files = {name: getattr(data_args, f"{name}_file") for name in SPLITS}
    if data_args.dataset_name is None and not any(files.values()) and data_args.data_dir is not None:
        files = _files_in(Path(data_args.data_dir))
    if data_args.dataset_name is not None:
        tables = read_hub_dataset(
            data_args.dataset_name, data_args.dataset_config_name, model_args.cache_dir, model_args.token
        )
        tables = _rename_splits(tables, data_args)
        return {name: tables[name] for name in needed if name in tables}
    _check_different(files)
    tables = {name: read_table(files[name]) for name in needed if files[name] is not None}
    for name, other in combinations(tables, 2):
        if tables[name].rows == tables[other].rows:
            _refuse_same(name, files[name], other, files[other])
    return tables


# ---- Inside ----


def _files_in(folder: Path) -> dict[str, str | None]:
    if not folder.is_dir():
        raise DataError(f"data_dir: there is no folder {folder}. Pass --train_file, or prepare the data first.")
    files: dict[str, str | None] = dict.fromkeys(SPLITS)
    for name in SPLITS:
        candidates = [folder / name] if (folder / name).is_dir() else []
        candidates += [folder / f"{name}{ending}{gz}" for ending in FORMATS for gz in ("", ".gz")]
        found = [path for path in candidates if path.exists()]
        if len(found) > 1:
            raise DataError(f"data_dir: {folder} holds {' and '.join(path.name for path in found)}; keep one of them.")
        files[name] = str(found[0]) if found else None
    if not any(files.values()):
        raise DataError(
            f"data_dir: {folder} holds none of train.json, validation.json, test.json (or .jsonl, .csv ...)."
        )
    return files


def _rename_splits(tables: dict[str, Table], data_args: DataArguments) -> dict[str, Table]:
    removed = listed_names(data_args.remove_splits)
    for name in SPLITS:
        given = getattr(data_args, f"{name}_split_name")
        if given is not None:
            tables = {**tables, name: _split_of(tables, given, f"{name}_split_name")}
    for name in removed:
        _split_of(tables, name, "remove_splits")
    return {name: table for name, table in tables.items() if name not in removed}


def _split_of(tables: dict[str, Table], name: str, flag: str) -> Table:
    if name not in tables:
        raise DataError(
            f"{flag}: the data set has no split {name!r}; it has {', '.join(tables)}.{nearest(name, tables)}"
        )
    return tables[name]


def _check_different(files: dict[str, str | None]) -> None:
    """Before anything is read, also for the splits that this run does not use."""
    named = [name for name, path in files.items() if path is not None and os.path.exists(path)]
    for name, other in combinations(named, 2):
        if os.path.samefile(files[name], files[other]):
            _refuse_same(name, files[name], other, files[other])


def _refuse_same(name: str, path: str, other: str, other_path: str):
    raise DataError(
        f"--{name}_file {path} and --{other}_file {other_path} are the same rows: results on them would be worthless. "
        "Name different files, or leave one out to have it split off."
    )
