"""The stages of preprocessing: read, clean, find duplicates, select, split."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm.auto import tqdm

from hf_ext.data.duplicates import exact_duplicates, near_duplicates
from hf_ext.data.preprocessing.cleaning import clean_texts
from hf_ext.data.preprocessing.plan import Plan
from hf_ext.data.preprocessing.publishing import SPLITS, Workspace
from hf_ext.data.preprocessing.selecting import (
    AUGMENTED,
    CONFLICT,
    EMPTY,
    KEPT,
    REASONS,
    Labels,
    distinct_strings,
    find_conflicts,
    read_labels,
    select_rows,
)
from hf_ext.data.preprocessing.unifying import SourceFacts, row_name, unified_batches
from hf_ext.data.splitting import merge_groups, strata_of, stratified_group_split
from hf_ext.data.streaming import Source
from hf_ext.data.text_columns import PAIR_SEPARATOR
from hf_ext.errors import DataError

BATCH_ROWS = 10_000
BATCH_BYTES = 1 << 25


@dataclass
class Rows:
    """All rows on disk, and what was decided on each."""

    raw: pa.Table
    facts: list[SourceFacts]
    starts: np.ndarray
    sources: list[Source]
    clean: pa.Table | None = None
    reasons: np.ndarray | None = None
    partner: np.ndarray | None = None
    conflicts: np.ndarray | None = None
    labels: Labels | None = None
    splits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.raw)

    def name(self, index: int, full: bool = True) -> str:
        """File and row; without `full` the path is relative to the folder of raw data."""
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        source = self.sources[place]
        return row_name(source, index - int(self.starts[place]), source.path if full else source.name)


def preprocess_rows(plan: Plan, workspace: Workspace, workers: int | None, progress: bool) -> Rows:
    """
    Read, clean, select and split; what an earlier run finished is taken over.

    Args:
        plan ([`Plan`]): From [`make_plan`].
        workspace ([`Workspace`]): Holds the stages.
        workers (`int`, *optional*): Processes that clean; the result does not depend on it.
        progress (`bool`): Show progress bars.

    Returns:
        [`Rows`]

    Raises:
        DataError: With the file and the row; also if no row is left.
    """
    raw, facts = _read(plan, workspace, progress)
    starts = np.cumsum([0] + [fact.rows for fact in facts[:-1]])
    rows = Rows(raw.data.table, facts, starts, plan.sources)
    # Before the stages that take long: a label that cannot be used ends the run.
    _label(plan, rows)
    rows.clean = _clean(plan, workspace, raw, workers, progress).data.table
    exact, near = _clusters(plan, workspace, rows, progress)
    _select(plan, rows, exact, near)
    _split(plan, rows, exact if near is None else near)
    return rows


# ---- Inside ----


def _read(plan: Plan, workspace: Workspace, progress: bool) -> tuple[Dataset, list[SourceFacts]]:
    if workspace.finished("read") is None:
        facts = [SourceFacts(source.name, source.split, plan.forms[source]) for source in plan.sources]
        total = sum(path.stat().st_size for source in plan.sources for path in source.files)
        columns = ["text", *(["text_pair"] if plan.pair else []), "label", *plan.kept]
        schema = pa.schema([(name, pa.string()) for name in columns])
        with (
            workspace.stage("read") as folder,
            pa.OSFile(str(folder / "rows.arrow"), "wb") as file,
            pa.ipc.new_stream(file, schema) as writer,
            tqdm(total=total, desc="Reading", unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            done = 0
            for source, fact in zip(plan.sources, facts, strict=True):
                advance = _advancer(bar, done)
                batches = unified_batches(source, fact.form, fact, plan.data_args.text_column_delimiter, advance)
                for batch in batches:
                    writer.write_batch(batch)
                done += sum(path.stat().st_size for path in source.files)
            content = [{"rows": f.rows, "surrogates": f.surrogates, "kinds": f.kinds} for f in facts]
            (folder / "facts.json").write_text(json.dumps(content, default=sorted))
    folder = workspace.finished("read")
    facts = [
        SourceFacts(
            source.name, source.split, plan.forms[source], fact["rows"], fact["surrogates"],
            {name: set(kinds) for name, kinds in fact["kinds"].items()},
        )
        for source, fact in zip(plan.sources, json.loads((folder / "facts.json").read_text()), strict=True)
    ]  # fmt: skip
    return Dataset.from_file(str(folder / "rows.arrow")), facts


def _advancer(bar: tqdm, done: int) -> Callable[[int], None]:
    return lambda position: bar.update(done + position - bar.n)


def _clean(plan: Plan, workspace: Workspace, raw: Dataset, workers: int | None, progress: bool) -> Dataset:
    settings = plan.settings
    columns = ["text", "text_pair"] if plan.pair else ["text"]

    def clean(table: pa.Table) -> pa.Table:
        cleaned, flags = {}, np.zeros(len(table), dtype=np.uint8)
        for name in columns:
            texts = table[name].combine_chunks()
            cleaned[name], changed = clean_texts(texts, settings.clean_html, settings.clean_urls, settings.fix_encoding)
            flags |= changed
        return pa.table({**cleaned, "changes": flags})

    if workspace.finished("clean") is None:
        # A missing package is told before the work begins, not by a process among many.
        clean(raw.with_format("arrow")[:1])
        with workspace.stage("clean") as folder, _bars(progress):
            raw.select_columns(columns).with_format("arrow").map(
                clean,
                batched=True,
                batch_size=batch_rows(raw.data.table),
                num_proc=min(workers, len(raw)) if workers and workers > 1 else None,
                cache_file_name=str(folder / "clean.arrow"),
                load_from_cache_file=False,
                # Ours says what this is; the library's would be made by pickling the function.
                new_fingerprint=workspace.folder.name,
                desc="Cleaning",
            )
    # One file a process, in the order of the rows.
    parts = sorted(workspace.finished("clean").glob("*.arrow"))
    return concatenate_datasets([Dataset.from_file(str(part)) for part in parts])


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """`map` has no argument for it."""
    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def batch_rows(table: pa.Table) -> int:
    """Rows of a batch that is 10,000 rows, or about 32 MiB when texts are long."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * len(table) // max(table.nbytes, 1)))


def _clusters(plan: Plan, workspace: Workspace, rows: Rows, progress: bool) -> tuple[np.ndarray, np.ndarray | None]:
    wanted = ["exact", "near"] if plan.settings.deduplicate == "near" else ["exact"]
    for name in wanted:
        if workspace.finished(name) is None:
            with workspace.stage(name) as folder:
                texts = _compared_texts(rows.clean)
                if name == "exact":
                    clusters = exact_duplicates(texts)
                else:
                    clusters = near_duplicates(texts, plan.settings.near_duplicate_threshold, 0, progress)
                np.save(folder / "clusters.npy", clusters)
    found = [np.load(workspace.finished(name) / "clusters.npy") for name in wanted]
    return found[0], found[1] if len(found) > 1 else None


def _compared_texts(table: pa.Table) -> pa.ChunkedArray:
    if "text_pair" not in table.column_names:
        return table["text"]
    return pc.binary_join_element_wise(table["text"], table["text_pair"], PAIR_SEPARATOR)


def _label(plan: Plan, rows: Rows) -> None:
    settings, sizes = plan.settings, [fact.rows for fact in rows.facts]
    official = np.repeat([SPLITS.index(fact.split) for fact in rows.facts], sizes).astype(np.int8)
    from_csv = np.repeat([source.kind in (".csv", ".tsv") for source in plan.sources], sizes)
    may_lack = _unlabelled_test(rows, official)
    rows.labels = read_labels(
        rows.raw["label"], from_csv, may_lack, rows.name, settings.label_map, settings.drop_unlabelled,
        plan.data_args.do_regression,
    )  # fmt: skip
    rows.splits = official


def _select(plan: Plan, rows: Rows, exact: np.ndarray, near: np.ndarray | None) -> None:
    settings, labels, official = plan.settings, rows.labels, rows.splits
    reasons = labels.reasons
    reasons[_empty(rows.clean) & (reasons == KEPT)] = EMPTY
    rows.conflicts = find_conflicts(reasons, labels.ids, exact)
    if settings.conflicting_labels == "error" and rows.conflicts.any():
        first = int(np.argmax(rows.conflicts))
        other = int(np.argmax((exact == exact[first]) & rows.conflicts & (labels.ids != labels.ids[first])))
        raise DataError(
            f"{rows.name(first)} and {rows.name(other)} hold the same text with the labels "
            f"{labels.values[labels.ids[first]]!r} and {labels.values[labels.ids[other]]!r}. "
            f"{int(rows.conflicts.sum()):,} rows have such a text. Mend them, or pass --conflicting_labels drop or "
            "keep_first."
        )
    partner = np.full(len(rows), -1, dtype=np.int64)
    if settings.deduplicate != "off":
        origins = group_codes(rows.raw["source_idx"]) if "source_idx" in plan.kept else None
        reasons, partner = select_rows(reasons, labels.ids, official, exact, near, origins, settings.conflicting_labels)
    rows.reasons, rows.partner = reasons, partner


def _unlabelled_test(rows: Rows, official: np.ndarray) -> np.ndarray:
    """Test rows, if not one of them has a label: they are to be predicted, not scored."""
    test = official == SPLITS.index("test")
    nothing = pc.is_in(rows.raw["label"], pa.array(["null", "-1", '"-1"', '""'])).to_numpy(zero_copy_only=False)
    return test if nothing[test].all() else np.zeros(len(rows), dtype=bool)


def _empty(table: pa.Table) -> np.ndarray:
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    masks = [pc.equal(table[name], "").to_numpy(zero_copy_only=False) for name in columns]
    return np.logical_or.reduce(masks)


def group_codes(column: pa.ChunkedArray) -> np.ndarray:
    """Equal values -> equal integers; null -> -1."""
    codes, values = distinct_strings(column)
    null = pc.index(values, "null").as_py()
    return np.where(codes == null, -1, codes)


def _split(plan: Plan, rows: Rows, clusters: np.ndarray) -> None:
    """Take the splits that no file gives out of the training rows."""
    settings, given = plan.settings, {fact.split for fact in rows.facts}
    sizes = {"validation": plan.data_args.validation_size, "test": plan.data_args.test_size}
    taken = [name for name, size in sizes.items() if name not in given and size > 0]
    pool = np.flatnonzero((rows.reasons == KEPT) & (rows.splits == 0))
    if not len(pool):
        counts = np.bincount(rows.reasons, minlength=len(REASONS))
        why = ", ".join(f"{count:,} {REASONS[code]}" for code, count in enumerate(counts) if count and code != KEPT)
        advice = ", or pass --conflicting_labels keep_first" if (rows.reasons == CONFLICT).any() else ""
        raise DataError(f"No row is left to train on. Of {len(rows):,} rows went: {why}. Mend these rows{advice}.")
    if taken:
        groupings = [clusters[pool]]
        names = [name for name in (settings.group_column, "source_idx") if name in plan.kept]
        groupings += [group_codes(rows.raw[name])[pool] for name in dict.fromkeys(names)]
        groups = merge_groups(*groupings) if len(groupings) > 1 else groupings[0]
        ids = rows.labels.ids[pool]
        values = ids if rows.labels.problem_type == "single_label_classification" else _values(rows.labels, ids)
        shares = [1 - sum(sizes[name] for name in taken), *(sizes[name] for name in taken)]
        assigned = stratified_group_split(
            strata_of(values, rows.labels.problem_type), groups, shares, plan.data_args.split_seed
        )
        rows.splits[pool] = np.array([0, *map(SPLITS.index, taken)], dtype=np.int8)[assigned]
        if "is_augmented" in plan.kept:
            copies = pc.is_in(rows.raw["is_augmented"], pa.array(["true", "1", '"true"', '"True"', '"1"']))
            held = copies.to_numpy(zero_copy_only=False)[pool] & (assigned > 0)
            rows.reasons[pool[held]] = AUGMENTED
    rows.splits[rows.reasons != KEPT] = -1


def _values(labels: Labels, ids: np.ndarray) -> list | np.ndarray:
    if labels.problem_type == "regression":
        return np.array(labels.values, dtype=np.float64)[ids]
    return [labels.values[position] for position in ids.tolist()]
