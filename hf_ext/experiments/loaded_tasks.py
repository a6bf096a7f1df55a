"""Several tasks before training: their rows, their models, and what is looked at."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.assembly import build_model, tokenize_splits
from hf_ext.checks import check_watched_names
from hf_ext.data.loading import TextData, load_text_data
from hf_ext.data.preflight import PreflightReport
from hf_ext.data.split_tables import SPLITS
from hf_ext.errors import UsageError
from hf_ext.evaluation.averages import MAIN_METRICS
from hf_ext.evaluation.compute_metrics import build_compute_metrics, possible_metric_names
from hf_ext.preparation import augment_training_rows, check_data
from hf_ext.results import PREFIXES
from hf_ext.trainers.multitask_arguments import TaskArguments


@dataclass
class LoadedTask:
    """
    One of several tasks, ready to be trained.

    Args:
        name (`str`): Its name.
        args ([`TaskArguments`]): What was asked for.
        given ([`TextData`]): Its rows.
        data ([`TextData`]): The same with the augmented copies that are trained on.
        words (`list`): The training texts of all tasks: what a word list is made of.
        compute_metrics (`Callable`): As the Trainer's.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*): Set by [`build_task_models`], as is
        encoded (`dict[str, Dataset]`): All splits as token ids.
    """

    name: str
    args: TaskArguments
    given: TextData
    data: TextData
    words: list
    compute_metrics: Any
    tokenizer: PreTrainedTokenizerBase | None = None
    encoded: dict[str, Dataset] = dataclasses.field(default_factory=dict)

    @property
    def problem_type(self) -> str:
        """As in a model's configuration."""
        return self.given.task.problem_type

    def metric_names(self) -> list[str]:
        """What an evaluation of it yields, without a prefix."""
        return possible_metric_names(self.compute_metrics, self.problem_type, len(self.given.task.label_names))


def load_tasks(settings: dict[str, Any]) -> tuple[dict[str, LoadedTask], list[str]]:
    """
    Read, check and split the rows of all tasks, and augment those to train on if asked.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.

    Returns:
        `tuple`: The tasks by name, and sentences that a reader of the results has to know.

    Raises:
        UsageError: With the task.
    """
    tasks, notes = {}, []
    for name, args in settings["multitask"].tasks.items():
        with naming_task(name):
            given = load_text_data(args, settings["model"], SPLITS)
            data, added, _ = augment_training_rows(
                settings["augmentation"], given, settings["training"].seed, args.preprocessing_num_workers
            )
            compute_metrics = build_compute_metrics(given.task.problem_type, args.metric_name)
        tasks[name] = LoadedTask(name, args, given, data, [], compute_metrics)
        notes += [f"{name}: {note}" for note in given.notes + added]
    words = [text for task in tasks.values() for text in task.data.texts("train")]
    for task in tasks.values():
        task.words = words
    return tasks, notes + _texts_of_other_tasks(tasks)


def tasks_fingerprint(tasks: dict[str, LoadedTask]) -> dict[str, Any]:
    """What a run is trained on, for `run.json`: of each split, each task's digest; and what else there is to a task."""
    digests = {name: task.given.fingerprint() for name, task in tasks.items()}
    facts = {
        split: {name: found[split] for name, found in digests.items() if split in found}
        for split in SPLITS
        if any(split in found for found in digests.values())
    }
    own = ("weight", "max_seq_length", "pad_to_max_length")
    return {**facts, "tasks": [[name, *(getattr(task.args, key) for key in own)] for name, task in tasks.items()]}


def check_watched_tasks(settings: dict[str, Any], tasks: dict[str, LoadedTask]) -> list[str]:
    """
    See that evaluations will yield what the best model and the end are chosen by.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): From [`load_tasks`].

    Returns:
        `list[str]`: What a reader of the results has to know.

    Raises:
        ConfigurationError: If no evaluation yields one of them, or there is nothing to evaluate on.
    """
    evaluated = {name: task.metric_names() for name, task in tasks.items() if "validation" in task.given.splits}
    names = ["loss", "avg_score", *(f"{task}_{name}" for task, found in evaluated.items() for name in found)]
    common = set.intersection(*map(set, evaluated.values())) if evaluated else set()
    names += [f"avg_{name}" for name in sorted(common)]
    check_watched_names(settings["training"], names, bool(evaluated), settings["early_stopping"].early_stopping_metric)
    missing = [name for name in tasks if name not in evaluated]
    if missing and evaluated:
        return [f"The averages over the tasks are without {', '.join(missing)}: there are no validation rows."]
    return []


def build_task_model(settings: dict[str, Any], task: LoadedTask) -> tuple[PreTrainedModel, Any, list[str]]:
    """
    A fresh model for a task; the same on every call.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        task ([`LoadedTask`]): The task.

    Returns:
        `tuple`: The model, its tokenizer, and sentences that a reader of the results has to know.
    """
    with naming_task(task.name):
        return build_model(
            settings["model"], settings["textcnn"], task.args, settings["training"], task.given.task, task.words
        )


def build_task_models(
    settings: dict[str, Any], tasks: dict[str, LoadedTask]
) -> tuple[dict[str, PreTrainedModel], list[str]]:
    """
    Each task's model before training; the tasks get their tokenizers and their rows as token ids.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): From [`load_tasks`].

    Returns:
        `tuple`: The models by task, and sentences that a reader of the results has to know.
    """
    models, notes, tokenizers = {}, [], {}
    for name, task in tasks.items():
        models[name], tokenizer, said = build_task_model(settings, task)
        # One for all tasks, unless their texts are cut at different lengths.
        task.tokenizer = tokenizers.setdefault(tokenizer.model_max_length, tokenizer)
        task.encoded = tokenize_splits(task.tokenizer, task.args, settings["training"], task.data.splits)
        notes += said
    return models, list(dict.fromkeys(notes))


def check_tasks(settings: dict[str, Any], tasks: dict[str, LoadedTask]) -> PreflightReport | None:
    """
    The preflight of all tasks as one; its checks carry the names of their tasks.

    Args:
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): With their tokenizers.

    Returns:
        [`PreflightReport`], or `None` with `preflight="off"`.
    """
    found = {name: check_data(settings["preflight"], task.given, task.tokenizer) for name, task in tasks.items()}
    if None in found.values():
        return None
    return PreflightReport(
        [
            dataclasses.replace(finding, check=f"{name}: {finding.check}")
            for name, report in found.items()
            for finding in report.findings
        ]
    )


def own_metric(watched: str, task: LoadedTask) -> str:
    """
    What a task alone is chosen by where all tasks are chosen by `watched`: the same metric, if it has that.

    Args:
        watched (`str`): Such as `eval_avg_score`, `avg_loss`, `mrpc_f1_macro`.
        task ([`LoadedTask`]): The task.
    """
    name = watched.removeprefix("eval_")
    for prefix in ("avg", task.name):
        name = name.removeprefix(f"{prefix}_")
    return name if name in task.metric_names() else MAIN_METRICS[task.problem_type]


@contextmanager
def naming_task(task: str) -> Iterator[None]:
    """Say which task an error is about."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f"The task {task!r}: {error}") from error


# ---- Inside ----


def _texts_of_other_tasks(tasks: dict[str, LoadedTask]) -> list[str]:
    """Held-out texts that the shared encoder sees in the training of another task."""
    notes = []
    training = {name: set(task.data.texts("train")) for name, task in tasks.items()}
    for name, task in tasks.items():
        for split in PREFIXES:
            for other in (other for other in tasks if other != name and split in task.given.splits):
                seen = sum(text in training[other] for text in task.given.texts(split))
                if seen:
                    notes.append(
                        f"{seen:,} of the {len(task.given.splits[split]):,} {split} texts of {name} are training texts "
                        f"of {other}: results on them may owe something to that."
                    )
    return notes
