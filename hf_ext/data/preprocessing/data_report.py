"""What preprocessing did, as JSON and as a page."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hf_ext.data.preprocessing.cleaning import OPERATIONS, clean_steps
from hf_ext.data.preprocessing.plan import Plan
from hf_ext.data.preprocessing.publishing import SPLITS
from hf_ext.data.preprocessing.selecting import CONFLICT, EXACT, KEPT, LEAK, NEAR, REASONS
from hf_ext.data.preprocessing.split_files import text_columns
from hf_ext.data.preprocessing.stages import Rows, batch_rows
from hf_ext.evaluation.figures import COLOURS, LINE_STYLES, draw_figure
from hf_ext.evaluation.pages import write_page
from hf_ext.problem_types import MULTI_LABEL, REGRESSION

TEMPLATE = Path(__file__).parent / "templates/data_report.html.j2"
EXAMPLES = 5
MAX_TEXT = 300
TITLES = {
    "empty_text": "without empty texts",
    "unlabelled": "without rows that have no label",
    "label_map": "without labels that the map takes away",
    "conflicting_labels": "without equal texts of different labels",
    "exact_duplicate": "without repeated texts",
    "near_duplicate": "without near duplicates",
    "in_a_later_split": "without rows whose text is also in a later split",
    "augmented_copy": "without augmented copies outside of train",
}


def build_data_report(plan: Plan, rows: Rows, fingerprint: str) -> dict[str, Any]:
    """
    The content of `data_report.json`, but for the facts of the files. No times and no absolute paths: equal runs have
    equal reports.

    Args:
        plan ([`Plan`]): What was asked for.
        rows ([`Rows`]): What became of it.
        fingerprint (`str`): Of input and settings.
    """
    words = _word_counts(rows)
    splits = {
        SPLITS[split]: {"rows": int((rows.splits == split).sum()), "words": _quantiles(words[rows.splits == split])}
        for split in np.unique(rows.splits[rows.splits >= 0]).tolist()
    }
    classes = _classes(rows)
    return {
        "fingerprint": fingerprint,
        "settings": plan.resolved(),
        "problem_type": rows.labels.problem_type,
        "notes": _notes(plan, rows, splits, classes),
        "stages": _stages(rows),
        "sources": [
            {
                "name": source.name, "kind": source.kind, "split": fact.split, "rows": fact.rows,
                "columns": {"text": fact.form.text, "text_pair": fact.form.text_pair, "label": fact.form.label},
                "kept": fact.form.kept, "dropped": fact.form.dropped,
            }
            for source, fact in zip(plan.sources, rows.facts, strict=True)
        ],
        "ignored": [{"name": name, "why": why} for name, why in plan.ignored],
        "splits": splits,
        "classes": classes,
        "lengths": _histogram(words, rows.splits),
        "cleaning": _cleaning(plan, rows),
        "duplicates": {REASONS[code]: _repeats(rows, code) for code in (EXACT, NEAR, LEAK)},
        "conflicts": _conflicts(rows),
    }  # fmt: skip


def write_data_report(path: Path, report: dict[str, Any]) -> None:
    """Write the page: one file that needs neither a network nor JavaScript; equal reports give equal bytes."""
    write_page(path, TEMPLATE, report=report, lengths=_draw_lengths(report["lengths"]))


# ---- Inside ----


def _stages(rows: Rows) -> list[dict[str, Any]]:
    removed = np.bincount(rows.reasons, minlength=len(REASONS))
    left = len(rows)
    stages = [{"stage": "read", "rows": left, "removed": 0}]
    for code in range(KEPT + 1, len(REASONS)):
        if removed[code]:
            left -= int(removed[code])
            stages.append({"stage": TITLES[REASONS[code]], "rows": left, "removed": int(removed[code])})
    return stages


def _word_counts(rows: Rows) -> np.ndarray:
    """Words of each row: white space was joined, so they are what blanks part."""
    counts = np.zeros(len(rows), dtype=np.int64)
    for name in text_columns(rows):
        column, step = rows.clean[name], batch_rows(rows.clean)
        for start in range(0, len(rows), step):
            part = column.slice(start, step)
            blanks = pc.count_substring(part, " ").to_numpy()
            counts[start : start + step] += blanks + pc.not_equal(part, "").to_numpy().astype(np.int64)
    return counts


def _quantiles(words: np.ndarray) -> dict[str, float]:
    middle, high = np.quantile(words, (0.5, 0.95), method="lower").tolist()
    return {"mean": round(float(words.mean()), 1), "median": middle, "p95": high, "longest": int(words.max())}


def _histogram(words: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Rows by number of words, in steps of half a power of two."""
    longest = int(words[splits >= 0].max())
    edges = np.unique(np.round(2.0 ** np.arange(0, np.log2(longest) + 0.5, 0.5))).astype(np.int64)
    edges = edges[edges <= longest]
    counts = {
        SPLITS[split]: np.histogram(words[splits == split], [*edges, longest + 1])[0].tolist()
        for split in np.unique(splits[splits >= 0]).tolist()
    }
    return {"from_words": edges.tolist(), "rows": counts}


def _classes(rows: Rows) -> list[dict[str, Any]]:
    """Rows of each class in each split, in the order of the class names."""
    if rows.labels.problem_type == REGRESSION:
        return []
    values, ids = rows.labels.values, rows.labels.ids
    counts: dict[Any, dict[str, int]] = {}
    for split in np.unique(rows.splits[rows.splits >= 0]).tolist():
        here = ids[(rows.splits == split) & (ids >= 0)]
        for position, count in enumerate(np.bincount(here, minlength=len(values)).tolist()):
            names = values[position] if rows.labels.problem_type == MULTI_LABEL else [values[position]]
            for name in names if count else []:
                of_class = counts.setdefault(name, {})
                of_class[SPLITS[split]] = of_class.get(SPLITS[split], 0) + count
    return [{"label": str(name), "rows": counts[name]} for name in sorted(counts)]


def _notes(plan: Plan, rows: Rows, splits: dict[str, Any], classes: list[dict[str, Any]]) -> list[str]:
    given = {fact.split for fact in rows.facts}
    taken = [name for name in splits if name not in given]
    notes = _split_notes(plan, rows, given, taken)
    surrogates = sum(fact.surrogates for fact in rows.facts)
    if surrogates:
        texts = "1 text" if surrogates == 1 else f"{surrogates:,} texts"
        notes.append(f"{texts} held half a character (a lone surrogate), which was removed.")
    stay = int((rows.conflicts & (rows.reasons == KEPT)).sum())
    if stay:
        notes.append(f"{'1 row' if stay == 1 else f'{stay:,} rows'} whose text other rows label differently stayed.")
    for fact in rows.facts:
        if fact.form.dropped:
            notes.append(f"Columns of {fact.name} that were not kept: {', '.join(fact.form.dropped)}.")
    if len(classes) == 1:
        notes.append(f"All rows have the label {classes[0]['label']!r}: a classifier needs at least two classes.")
    for name in splits:
        missing = [row["label"] for row in classes if not row["rows"].get(name)]
        labelled = any(row["rows"].get(name) for row in classes)
        if missing and labelled:
            shown = ", ".join(missing[:10]) + (f" ... {len(missing)} in all" if len(missing) > 10 else "")
            notes.append(f"No row of {name} has the label {shown}.")
    for name in ("validation", "test"):
        if name in taken or name in given or not getattr(plan.data_args, f"{name}_size"):
            continue
        notes.append(f"There are too few rows for a {name} split of {getattr(plan.data_args, f'{name}_size'):.0%}.")
    return notes


def _split_notes(plan: Plan, rows: Rows, given: set[str], taken: list[str]) -> list[str]:
    """Which splits the files gave, and which were taken from the training rows."""
    notes = []
    if given != {"train"}:
        official = [name for name in SPLITS if name in given and not (taken and name == "train")]
        these = f"splits {', '.join(official)} are those" if len(official) > 1 else f"split {official[0]} is that"
        notes.append(
            f"The official {these} of the files. What is in test was taken from validation and train, what is in "
            "validation from train; test rows all stayed, repeated ones too."
        )
    if taken:
        by = {REGRESSION: "tenth of the values", MULTI_LABEL: "set of labels"}.get(rows.labels.problem_type, "class")
        notes.append(
            f"{' and '.join(taken).capitalize()} {'were' if len(taken) > 1 else 'was'} taken from the training rows, "
            f"stratified by {by} (seed {plan.data_args.split_seed}); rows of one group are in one split."
        )
    return notes


def _cleaning(plan: Plan, rows: Rows) -> list[dict[str, Any]]:
    flags = rows.clean["changes"].to_numpy()
    settings, found = plan.settings, []
    for bit, name in enumerate(OPERATIONS):
        changed = np.flatnonzero(flags & (1 << bit))
        examples = []
        for index in changed[:EXAMPLES].tolist():
            for column in text_columns(rows):
                steps = clean_steps(
                    rows.raw[column][index].as_py(), settings.clean_html, settings.clean_urls, settings.fix_encoding
                )
                examples += [
                    {
                        "row": rows.name(index, full=False),
                        **dict(zip(("before", "after"), _around(old, new), strict=True)),
                    }
                    for step, old, new in steps
                    if step == name
                ]
        if len(changed):
            found.append({"operation": name, "rows": len(changed), "examples": examples[:EXAMPLES]})
    return found


def _around(before: str, after: str) -> tuple[str, str]:
    """Both texts, cut to where they begin to differ."""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = max(0, same - MAX_TEXT // 3) if max(len(before), len(after)) > MAX_TEXT else 0
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int = 0) -> str:
    end = start + MAX_TEXT
    return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")


def _repeats(rows: Rows, code: int) -> dict[str, Any]:
    removed = np.flatnonzero(rows.reasons == code)
    examples = [
        {"kept": _shown(rows, int(rows.partner[index])), "removed": _shown(rows, index)}
        for index in removed[:EXAMPLES].tolist()
    ]
    return {"rows": len(removed), "examples": examples}


def _conflicts(rows: Rows) -> dict[str, Any]:
    found = np.flatnonzero(rows.conflicts)
    return {
        "rows": len(found),
        "removed": int((rows.reasons == CONFLICT).sum()),
        "examples": [_shown(rows, index) for index in found[: 2 * EXAMPLES].tolist()],
    }


def _shown(rows: Rows, index: int) -> dict[str, Any]:
    position = int(rows.labels.ids[index])
    return {
        "row": rows.name(index, full=False),
        "text": [_cut(rows.clean[name][index].as_py()) for name in text_columns(rows)],
        "label": rows.labels.values[position] if position >= 0 else None,
    }


def _draw_lengths(lengths: dict[str, Any]) -> str:
    edges = lengths["from_words"]
    shares = {name: np.array(counts) / max(sum(counts), 1) for name, counts in lengths["rows"].items()}
    label = (
        f"Length of the texts: share of each split's rows by number of words, from {edges[0]} to {edges[-1]} or more."
    )
    return draw_figure(label, partial(_plot_lengths, edges=edges, shares=shares), (6.4, 3.1))


def _plot_lengths(figure: Any, edges: list[int], shares: dict[str, np.ndarray]) -> None:
    axes = figure.subplots()
    for (name, share), colour, style in zip(shares.items(), COLOURS, LINE_STYLES, strict=False):
        axes.stairs(share, [*edges, edges[-1] * np.sqrt(2)], color=colour, linestyle=style, linewidth=1.5, label=name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="words", ylabel="share of the split's rows")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=9)
