"""What an export leaves besides the models: the table, export.json and report.html."""

from pathlib import Path
from typing import Any

from hf_ext.evaluation.report import Supplements, Table, write_report
from hf_ext.evaluation.split_views import shown_answer, shown_text
from hf_ext.evaluation.tables import aligned, format_cost, format_number, p_value
from hf_ext.export.export_run import ExportResult
from hf_ext.export.parity import PYTORCH
from hf_ext.files import write_json
from hf_ext.results import print_notes
from hf_ext.run_record import RunRecord

MAX_SHOWN = 20
COLUMNS = (
    "format",
    "MB",
    "p50 ms",
    "p95 ms",
    "texts/s",
    "least",
    "most",
    "speed-up",
    "flips",
    "flips %",
    "max diff",
    "mean diff",
)


def export_table(result: ExportResult) -> list[list[str]]:
    """
    A header, and a row for the PyTorch model and each format.

    Args:
        result ([`ExportResult`]): From [`export_model`].

    Returns:
        `list[list[str]]`: With labels also the main metric and, beside that of PyTorch, the p value of its difference.
    """
    compared = result.comparison
    rows = [[*COLUMNS, *(() if compared is None else (compared.metric, "p"))]]
    tests = {} if compared is None else {pair.model: p_value(pair.p) for pair in compared.pairs}
    for name, costs in result.costs.items():
        speeds = [format_cost(key, costs[key]) for key in ("megabytes", "p50_ms", "p95_ms", "texts_per_second")]
        spread = [format_cost("texts_per_second", bound) for bound in costs["texts_per_second_range"]]
        parity, changes = result.parity.get(name), [""] * 4
        if parity is not None:
            share = f"{100 * parity.flip_share:.2f}"
            differences = [f"{value:.1e}" for value in (parity.max_difference, parity.mean_difference)]
            changes = [f"{len(parity.flips):,}", share, *differences]
        row = [name, *speeds, *spread, format_cost("speed_up", costs["speed_up"]), *changes]
        if compared is not None:
            row += [format_number(compared.models[name].metrics[compared.metric]), tests.get(name, "")]
        rows.append(row)
    return rows


def write_export(result: ExportResult, title: str, record: RunRecord, folder: Path) -> Path:
    """
    Write `export.json`, `report.html` and `run.json`, and print the table.

    Args:
        result ([`ExportResult`]): From [`export_model`].
        title (`str`): Of the report.
        record ([`RunRecord`]): The run's facts.
        folder (`Path`): Where to.

    Returns:
        `Path`: The report.
    """
    write_json(folder / "export.json", _plain(result))
    record.add(notes=result.notes, formats=result.formats)
    compared = {} if result.comparison is None else {"texts": result.comparison}
    report = write_report(
        folder / "report.html",
        title=title,
        splits={},
        metrics={},
        intervals={},
        history=[],
        run=record.as_dict(),
        notes=[*(f"{name}: {found.sentence}." for name, found in result.parity.items()), *result.notes],
        supplements=Supplements(comparisons=compared, tables=[_overview(result), *_flip_tables(result)]),
    )
    record.write(folder)
    print(f"\n{aligned(export_table(result))}\n")
    for sentence in [] if result.comparison is None else result.comparison.sentences:
        print(sentence)
    print_notes(result.notes)
    return report


# ---- Inside ----


def _plain(result: ExportResult) -> dict[str, Any]:
    return {
        "formats": result.formats,
        "parity": {name: found.as_dict() for name, found in result.parity.items()},
        "costs": result.costs,
        "comparison": None if result.comparison is None else result.comparison.as_dict(),
        "texts": result.texts,
        "notes": result.notes,
    }


def _overview(result: ExportResult) -> Table:
    heading, *rows = export_table(result)
    columns = [(name, "number" if place else "") for place, name in enumerate(heading)]
    setting = result.costs[PYTORCH]
    threads = f"{setting['threads']} {'thread' if setting['threads'] == 1 else 'threads'}"
    caption = (
        f"End to end on a CPU with {threads}: medians of {setting['rounds']} alternating rounds of "
        f"{setting['texts']:,} texts in batches of {setting['batch_size']}, and {setting['latency_texts']} texts "
        "alone. Differences are those of the logits, flips those of the answers"
    )
    return Table("Exports", caption, columns, rows)


def _flip_tables(result: ExportResult) -> list[Table]:
    tables = []
    for name, found in result.parity.items():
        if not found.flips:
            continue
        keys = [key for key in ("before", "after", "label") if key in found.flips[0]]
        titles = {"before": PYTORCH, "after": name, "label": "label"}
        rows = [
            [str(flip["row"]), " | ".join(shown_text(flip["text"])), *(shown_answer(flip[key]) for key in keys)]
            for flip in found.flips[:MAX_SHOWN]
        ]
        count = len(found.flips)
        shown = f"The first {MAX_SHOWN} of {count:,} answers" if count > MAX_SHOWN else "All answers"
        columns = [("row", "number"), ("text", ""), *((titles[key], "") for key in keys)]
        caption = f"{shown} of {name} that are others than {PYTORCH}'s"
        tables.append(Table(f"Answers that changed: {name}", caption, columns, rows))
    return tables
