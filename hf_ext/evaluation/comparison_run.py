"""From files of predictions and scores to a comparison that can be read: what run_comparison.py does."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.comparison import Comparison, compare_models, right_rows
from hf_ext.evaluation.comparison_arguments import ComparisonArguments, model_names
from hf_ext.evaluation.comparison_figures import draw_differences
from hf_ext.evaluation.groups import compare_groups, group_rows, group_table
from hf_ext.evaluation.prediction_files import PredictionFile, read_prediction_file
from hf_ext.evaluation.predictions import Predictions, class_notes
from hf_ext.evaluation.report import Supplements, Table, write_report
from hf_ext.evaluation.same_rows import align_rows
from hf_ext.evaluation.score_files import (
    FOLDS,
    ScorePair,
    Scores,
    compare_scores,
    read_scores,
    score_rows,
    score_table,
)
from hf_ext.files import write_json
from hf_ext.output_dir import check_output_dir, clear_output_dir
from hf_ext.problem_types import REGRESSION
from hf_ext.run_record import RunRecord


@dataclass(frozen=True)
class ComparisonResult:
    """
    What was found.

    Args:
        names (`list[str]`): Of the models.
        comparison ([`Comparison`], *optional*): On the same rows, with its groups.
        score_pairs (`list[ScorePair]`): Over folds or seeds.
        files (`dict[str, dict]`): Model -> the files that it was read from, with their SHA-256.
        margin (`float`): Of equivalence, as a share.
        notes (`list[str]`): What a reader has to know.
    """

    names: list[str]
    comparison: Comparison | None
    score_pairs: list[ScorePair]
    files: dict[str, dict[str, Any]]
    margin: float
    notes: list[str]

    @property
    def sentences(self) -> list[str]:
        """The verdicts."""
        on_rows = [] if self.comparison is None else self.comparison.sentences
        return on_rows + [pair.sentence for pair in self.score_pairs]

    def table(self) -> str:
        """For the console."""
        tables = []
        if self.comparison is not None:
            tables += [self.comparison.table(), self.comparison.pair_table()]
            tables += [group_table(self.comparison)] if self.comparison.groups else []
        tables += [score_table(self.score_pairs)] if self.score_pairs else []
        return "\n\n".join(tables)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        on_rows = {} if self.comparison is None else self.comparison.as_dict()
        scores = {"scores": [pair.as_dict() for pair in self.score_pairs]} if self.score_pairs else {}
        return {**on_rows, **scores, "margin": self.margin, "files": self.files, "notes": self.notes}


def compare_files(args: ComparisonArguments) -> ComparisonResult:
    """
    Read and compare; nothing is written.

    Args:
        args ([`ComparisonArguments`]): What to compare.

    Returns:
        [`ComparisonResult`]

    Raises:
        ConfigurationError: If names, baseline or output_dir do not fit.
        DataError: If a file is broken, or the models were not asked the same.
    """
    names = model_names(args)
    _check_place(Path(args.output_dir), [*(args.predictions or []), *(args.scores or [])])
    check_output_dir(args.output_dir, args.overwrite, can_resume=False)
    baseline = names[0] if args.baseline is None else args.baseline
    if baseline not in names:
        raise ConfigurationError(f"baseline is {baseline!r}; the models are {', '.join(names)}.")
    pairs = [(name, baseline) for name in names if name != baseline]
    read = {name: read_prediction_file(path) for name, path in zip(names, args.predictions or [], strict=False)}
    scores = {name: read_scores(path) for name, path in zip(names, args.scores or [], strict=False)}
    comparison, notes = None, []
    score_pairs = compare_scores(scores, pairs) if scores else []
    if read:
        files, notes = align_rows(read)
        grouped = None if args.groups is None else group_rows(files, args.groups, args.groups_file)
        predictions = {name: file.predictions for name, file in files.items()}
        comparison = compare_models(predictions, pairs, margin=args.margin / 100)
        if grouped is not None:
            found = compare_groups(predictions, grouped, pairs, args.margin / 100)
            comparison = replace(comparison, group_column=args.groups, groups=found)
            if len(found) > 1:
                notes.append(f"The p values by {args.groups} are not corrected for the number of groups.")
        notes += [*unvaried_notes(predictions), *class_notes(predictions)]
    return ComparisonResult(names, comparison, score_pairs, _files(read, scores), args.margin / 100, notes)


def unvaried_notes(predictions: dict[str, Predictions]) -> list[str]:
    """Says what an interval without width hides: of a model that has all rows right, or none."""
    notes = []
    for name, given in predictions.items():
        if given.problem_type == REGRESSION:
            continue
        right, rows = int(right_rows(given).sum()), len(given.texts)
        if right in (0, rows):
            bound = 100 * 0.05 ** (1 / rows)
            other = f"at least {bound:.1f}" if right else f"at most {100 - bound:.1f}"
            notes.append(
                f"{name} has {'all' if right else 'none'} of {rows:,} {'row' if rows == 1 else 'rows'} right: all "
                f"resamples are alike, and its interval has no width. Its true accuracy is {other} % (exact, 95 %, "
                "one-sided)."
            )
    return notes


def write_comparison(result: ComparisonResult, args: ComparisonArguments, record: RunRecord) -> Path:
    """
    Write `comparison.json`, `comparison.png` (the differences), `report.html` and `run.json`.

    Args:
        result ([`ComparisonResult`]): From [`compare_files`].
        args ([`ComparisonArguments`]): Where to.
        record ([`RunRecord`]): The run's facts.

    Returns:
        `Path`: The report.
    """
    folder = Path(args.output_dir)
    if args.overwrite:
        clear_output_dir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", result.as_dict())
    comparisons = {}
    if result.comparison is not None:
        comparisons = {"test rows": result.comparison}
        draw_differences(folder / "comparison.png", result.comparison)
    record.add(files=result.files, notes=result.notes)
    report = write_report(
        folder / "report.html",
        title=f"Comparison of {', '.join(result.names)}",
        splits={},
        metrics={},
        intervals={},
        history=[],
        run=record.as_dict(),
        notes=[pair.sentence for pair in result.score_pairs] + result.notes,
        supplements=Supplements(comparisons=comparisons, tables=_report_tables(result.score_pairs)),
    )
    record.write(folder)
    return report


# ---- Inside ----


def _check_place(output_dir: Path, inputs: list[str]) -> None:
    """What is read would be cleared away with an earlier run."""
    for path in inputs:
        if Path(path).resolve().is_relative_to(output_dir.resolve()):
            raise ConfigurationError(
                f"output_dir {output_dir} holds {path}, which is to be read; name another directory."
            )


def _report_tables(pairs: list[ScorePair]) -> list[Table]:
    if not pairs:
        return []
    over, (heading, *rows) = pairs[0].over, score_rows(pairs)
    columns = [(name, "" if place < 3 else "number") for place, name in enumerate(heading)]
    corrected = ", corrected for the training rows that folds share" if over == FOLDS else ""
    return [Table(f"Over {over}", f"Model minus baseline by a paired t test{corrected}", columns, rows)]


def _files(read: dict[str, PredictionFile], scores: dict[str, Scores]) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    for kind, held in (("predictions", read), ("scores", scores)):
        for name, file in held.items():
            digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
            facts.setdefault(name, {})[kind] = {"path": str(file.path), "sha256": digest}
    return facts
