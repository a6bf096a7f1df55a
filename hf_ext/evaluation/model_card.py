"""The `README.md` of a trained model."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_ext.evaluation.calibration import expected_calibration_error
from hf_ext.evaluation.class_scores import class_scores
from hf_ext.evaluation.comparison import probability_scores
from hf_ext.evaluation.curves import accuracy_by_coverage
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.tables import METRIC_TITLES, Intervals, Metrics, format_interval, format_number, main_metrics
from hf_ext.files import open_atomically
from hf_ext.models.adapter_files import ADAPTER_CONFIG, adapter_usage
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_ext.run_record import flatten

# What the Hub calls the metrics that it knows under another name.
HUB_METRICS = {
    "f1_macro": "f1",
    "f1_micro": "f1",
    "f1_weighted": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
# Facts about data and training that a model card repeats when the run has them, under any parent key.
CARD_FACTS = (
    *("dataset_name", "dataset_config_name", "train_file", "validation_file", "test_file"),
    *("text_column", "label_column", "max_length", "seed", "num_train_epochs", "learning_rate"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "train_runtime", "parameters"),
)
LICENCE = (
    "None is stated. Before you publish the model, add `license:` to the metadata at the top of this file; the terms "
    "of the base model and of the training data bind you."
)
# What the card calls the place it lies at, until it is pushed.
FOLDER = "path/to/this/folder"
SHA256 = re.compile("[0-9a-f]{64}")
MAX_CLASSES = 30
MAX_WEAK_CLASSES = 5
# Shares of the rows to answer, and the F1 below which a class is named as weak.
SHARES = (1.0, 0.9, 0.8, 0.5)
WEAK_F1 = 0.7


def write_model_card(
    path: str | os.PathLike,
    *,
    title: str,
    base_model: str | None,
    metrics: Metrics,
    intervals: Intervals,
    run: dict,
    notes: list[str],
    usage: Sequence[str] | None = None,
    splits: dict[str, Predictions] | None = None,
    preflight: dict[str, Any] | None = None,
) -> Path:
    """
    Writes the `README.md` of a model folder: Hub metadata, results, what they hide, how to load it, how it was trained.

    No licence is named: that is the user's to choose, and the card says so.

    Args:
        path (`str` or `os.PathLike`): The file to write. If the `config.json` beside it names code of the folder's
            own, the card says that loading needs `trust_remote_code`.
        title (`str`): Name of the model.
        base_model (`str`, *optional*): Hub id, or folder, of the model that training started from.
        metrics, intervals, run, notes: As for [`write_report`].
        usage (`Sequence[str]`, *optional*): Lines that say how to; by default by `pipeline`.
        splits (`dict[str, Predictions]`, *optional*): Predictions by split. Of `"test"`, or else the last labelled
            one, the card shows calibration and weak classes.
        preflight (`dict`, *optional*): [`PreflightReport.as_dict`]: what it found is among the limitations.

    Returns:
        `Path`: The file.
    """
    if title.startswith(("/", ".", "~")):
        # Where the base model lies says nothing to a reader elsewhere.
        title = Path(title).name
    facts, judged = _card_facts(run), _judged(splits or {})
    library_name = "peft" if (Path(path).parent / ADAPTER_CONFIG).is_file() else "transformers"
    lines = ["---", _card_metadata(title, base_model, metrics.get("test", {}), facts, library_name), "---", ""]
    lines += [f"# {_markdown(title)}", ""]
    if base_model:
        lines += [f"Fine-tuned from `{base_model if _is_hub_id(base_model) else Path(base_model).name}`.", ""]
    if judged:
        lines += _section("", [_task(judged[1])])
    lines += _section("Results", _card_results(metrics, intervals) if metrics else [])
    lines += _section("Calibration", _calibration(*judged) if judged else [])
    lines += _section("Limitations", [*(_weaknesses(*judged) if judged else []), *_findings(preflight)])
    lines += _section("How to use", usage or _usage(Path(path).parent))
    lines += _section("Training", [*(f"- {name}: `{value}`" for name, value in facts.items()), *_fingerprints(run)])
    lines += _section("Notes", [f"- {_markdown(note)}" for note in notes])
    lines += _section("Licence", [LICENCE])
    with open_atomically(path) as file:
        file.write("\n".join(lines))
    return Path(path)


# ---- Inside ----


def _section(heading: str, lines: Sequence[str]) -> list[str]:
    return [*([f"## {heading}", ""] if heading else []), *lines, ""] if lines else []


def _judged(splits: dict[str, Predictions]) -> tuple[str, Predictions] | None:
    """The split that the card speaks of, with its name."""
    labelled = {name: data for name, data in splits.items() if data.labels is not None and len(data.texts)}
    name = "test" if "test" in labelled else next(reversed(labelled), None)
    return None if name is None else (name, labelled[name])


def _task(data: Predictions) -> str:
    if data.problem_type == REGRESSION:
        return "Gives a text a number."
    count, names = len(data.label_names), ", ".join(f"`{_code(name)}`" for name in data.label_names[:MAX_CLASSES])
    more = f" and {count - MAX_CLASSES} more" if count > MAX_CLASSES else ""
    into = "any number of" if data.problem_type == MULTI_LABEL else "one of"
    return f"Puts a text into {into} {count} classes: {names}{more}."


def _calibration(name: str, data: Predictions) -> list[str]:
    """How far the probabilities can be believed."""
    if data.problem_type == REGRESSION:
        return []
    scores = probability_scores(data)
    if data.problem_type == SINGLE_LABEL:
        scores["ece"] = expected_calibration_error(data.probabilities, data.labels)
    told = "; ".join(f"{METRIC_TITLES[key]} {format_number(value)}" for key, value in scores.items())
    lines = [f"{told}: of {_rows(data)} of {_markdown(name)}; lower is better."]
    if data.problem_type != SINGLE_LABEL:
        return lines
    coverage = accuracy_by_coverage(data)
    found = dict.fromkeys(coverage.at(share) for share in SHARES)
    lines += ["", "What answers are worth if only the surest rows are answered:", ""]
    lines += ["| Confidence at least | Rows answered | Accuracy |", "|---:|---:|---:|"]
    lines += [f"| {confidence:.3f} | {100 * share:.1f} % | {accuracy:.4f} |" for confidence, share, accuracy in found]
    return lines


def _weaknesses(name: str, data: Predictions) -> list[str]:
    lines = [f"- The results are of {_rows(data)} of {_markdown(name)}; they say nothing of texts of another kind."]
    if data.problem_type == REGRESSION:
        return lines
    scores = class_scores(data)
    weak = sorted((score for score in scores if score.support and score.f1 < WEAK_F1), key=lambda score: score.f1)
    for score in weak[:MAX_WEAK_CLASSES]:
        never = ", never predicted" if not score.predicted else ""
        rows = "1 row" if score.support == 1 else f"{score.support:,} rows"
        lines.append(f"- Weak on `{_code(score.name)}`: F1 {format_number(score.f1)} on {rows}{never}.")
    if len(weak) > MAX_WEAK_CLASSES:
        lines.append(f"- F1 is below {WEAK_F1} for {len(weak) - MAX_WEAK_CLASSES} more classes.")
    absent = sum(not score.support for score in scores)
    if absent:
        lines.append(f"- {absent} of {len(scores)} classes have no row in {_markdown(name)}: nothing is known of them.")
    return lines


def _findings(preflight: dict[str, Any] | None) -> list[str]:
    found = [] if preflight is None else [item for item in preflight["findings"] if item["verdict"] in ("warn", "fail")]
    return [f"- The data, {item['check']} ({item['verdict']}): {_markdown(item['message'])}" for item in found]


def _usage(folder: Path) -> list[str]:
    if (folder / ADAPTER_CONFIG).is_file():
        return adapter_usage(folder, FOLDER)
    config = folder / "config.json"
    own_code = config.is_file() and "auto_map" in json.loads(config.read_text(encoding="utf-8"))
    trust = ", trust_remote_code=True" if own_code else ""
    lines = ["```python", "from transformers import pipeline", ""]
    if own_code:
        lines.append("# trust_remote_code runs the Python files of this folder: read them first.")
    lines.append(f'classifier = pipeline("text-classification", model="{FOLDER}"{trust})')
    return [*lines, 'print(classifier("A text to classify.", top_k=None))', "```"]


def _fingerprints(run: dict) -> list[str]:
    """What the model was trained and judged on, so that others can tell whether they have the same rows."""
    data = run.get("data")
    digests = flatten(data) if isinstance(data, dict) else {}
    return [f"- SHA-256 of the rows, {name}: `{text}`" for name, text in digests.items() if SHA256.fullmatch(text)]


def _rows(data: Predictions) -> str:
    return "1 row" if len(data.texts) == 1 else f"{len(data.texts):,} rows"


def _code(name: str) -> str:
    """A name inside backquotes, where no escape is read."""
    return " ".join(name.replace("`", "'").split())


def _card_results(metrics: Metrics, intervals: Intervals) -> list[str]:
    lines = ["| Split | Metric | Value | 95 % interval |", "|---|---|---:|---:|"]
    for split, values in metrics.items():
        for name in main_metrics(values):
            cells = (
                split,
                METRIC_TITLES.get(name, name),
                format_number(values[name]),
                format_interval(intervals, split, name),
            )
            lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    if intervals:
        lines += ["", "The intervals are bootstrap intervals over the rows of the split."]
    return lines


def _card_metadata(title: str, base_model: str | None, values: dict, facts: dict, library_name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    dataset = str(facts.get("dataset_name", "local data"))
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=dataset if _is_hub_id(dataset) else "custom",
            dataset_name=dataset,
            dataset_split="test",
            metric_type=HUB_METRICS.get(name, name),
            metric_name=METRIC_TITLES.get(name, name),
            metric_value=round(float(values[name]), 6),
        )
        for name in main_metrics(values)
        # The Hub rejects NaN.
        if math.isfinite(values[name])
    ]
    return ModelCardData(
        base_model=base_model if base_model and _is_hub_id(base_model) else None,
        library_name=library_name,
        pipeline_tag="text-classification",
        datasets=[dataset] if _is_hub_id(dataset) else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=title,
        eval_results=results or None,
    ).to_yaml()


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None and not Path(name).exists()


def _card_facts(run: dict) -> dict[str, str]:
    facts = {}
    for key, value in flatten(run).items():
        name = key.rpartition(".")[2]
        if name in CARD_FACTS and value != "null":
            # The folders of the machine that trained it say nothing to a reader elsewhere.
            local = name.endswith("_file") or value.startswith(("/", ".", "~"))
            facts.setdefault(name, re.sub(r'[^"]*/', "", value) if local else value)
    return {name: facts[name] for name in CARD_FACTS if name in facts}


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
