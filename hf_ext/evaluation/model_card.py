"""The `README.md` of a trained model."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hf_ext.evaluation.predictions import open_atomically
from hf_ext.evaluation.tables import METRIC_TITLES, Intervals, Metrics, format_interval, format_number, main_metrics
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
    *("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "train_runtime"),
)
CARD_USAGE = (
    "```python",
    "from transformers import pipeline",
    "# trust_remote_code runs the Python files of this folder; models without any don't need it.",
    'classifier = pipeline("text-classification", model="path/to/this/folder", trust_remote_code=True)',
    'print(classifier("A text to classify.", top_k=None))',
    "```",
)


def write_model_card(
    path: str | os.PathLike,
    *,
    title: str,
    base_model: str | None,
    metrics: Metrics,
    intervals: Intervals,
    run: dict,
    notes: list[str],
    library_name: str = "transformers",
    usage: Sequence[str] = CARD_USAGE,
) -> Path:
    """
    Writes the `README.md` of a model folder: Hub metadata, results, how to load it, how it was trained.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        title (`str`): Name of the model.
        base_model (`str`, *optional*): Hub id, or folder, of the model that training started from.
        metrics, intervals, run, notes: As for [`write_report`].
        library_name (`str`, *optional*, defaults to `"transformers"`): Library that loads the model.
        usage (`Sequence[str]`, *optional*): Lines that say how to; by default by `pipeline`.
    """
    facts = _card_facts(run)
    lines = ["---", _card_metadata(title, base_model, metrics.get("test", {}), facts, library_name), "---", ""]
    lines += [f"# {_markdown(title)}", ""]
    if base_model:
        lines += [f"Fine-tuned from `{base_model if _is_hub_id(base_model) else Path(base_model).name}`.", ""]
    if metrics:
        lines += ["## Results", "", *_card_results(metrics, intervals), ""]
    lines += ["## How to use", "", *usage, ""]
    if facts:
        lines += ["## Training", "", *(f"- {name}: `{value}`" for name, value in facts.items()), ""]
    if notes:
        lines += ["## Notes", "", *(f"- {_markdown(note)}" for note in notes), ""]
    with open_atomically(path) as file:
        file.write("\n".join(lines))
    return Path(path)


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
