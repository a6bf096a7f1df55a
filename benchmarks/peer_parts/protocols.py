"""The sets of the data folder: which files train and test, what is measured, and few rows a class."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.evaluation.metrics import multi_label_metrics, single_label_metrics


@dataclass(frozen=True)
class Protocol:
    """
    How the literature measures a set.

    Args:
        metric (`str`, *optional*, defaults to `"accuracy"`): The one number; `"f1"` is that of the class `positive`.
        folder (`str`, *optional*): Where its files are, if not in a folder of its name.
        train (`tuple[str, ...]`, *optional*, defaults to `("train",)`): Files that are trained on.
        validation (`str`, *optional*): File that is chosen on; by default nothing is chosen.
        test (`str`, *optional*, defaults to `"test"`): File that is measured on.
        positive (`str` or `int`, *optional*): The class whose F1 is measured.
        folds (`int`, *optional*, defaults to 0): Instead of a test file, the `train` files are cross-validated.
        first (`float`, *optional*, defaults to 0.0): Instead of a test file, this first share of the rows trains.
    """

    metric: str = "accuracy"
    folder: str | None = None
    train: tuple[str, ...] = ("train",)
    validation: str | None = None
    test: str = "test"
    positive: str | int | None = None
    folds: int = 0
    first: float = 0.0

    @property
    def files(self) -> tuple[str, ...]:
        names = [*self.train, self.validation, None if self.folds or self.first else self.test]
        return tuple(dict.fromkeys(name for name in names if name is not None))


PROTOCOLS = {
    "mr": Protocol(train=("all",), folds=10),
    "subj": Protocol(train=("all",), folds=10),
    "sst1": Protocol(),
    "sst2": Protocol(),
    "sst2_phrases": Protocol(folder="sst2", train=("train_phrases",), validation="validation"),
    # Its test rows have no public labels.
    "sst2_glue": Protocol(test="validation"),
    "trec6": Protocol(),
    "trec50": Protocol(),
    "banking77": Protocol(),
    "clinc150": Protocol(),
    "r8": Protocol(),
    "sms_spam": Protocol(train=("all",), first=0.3, positive="spam"),
    "tweeteval_irony": Protocol("f1", positive="irony"),
    "tweeteval_offensive": Protocol("f1_macro"),
    "goemotions": Protocol("f1_macro", validation="validation"),
    # GLUE's 408, and the 1,725 of the older papers, which train on all that is left.
    "mrpc": Protocol(test="validation", positive=1),
    "mrpc_test": Protocol(folder="mrpc", train=("train", "validation"), positive=1),
}


def check_sets(data_dir: Path, names: Sequence[str], valid: Sequence[str]) -> None:
    """
    Before anything is run.

    Raises:
        ConfigurationError: If a name is none of `valid`.
        DataError: If the folder lacks a file of one of the sets.
    """
    for name in names:
        if name not in valid:
            raise ConfigurationError(f"--sets {name}: this part has no such set; it has {', '.join(valid)}.")
        for file in PROTOCOLS[name].files:
            find_file(data_dir, name, file)


def find_file(data_dir: Path, name: str, file: str) -> Path:
    """
    A file of a set.

    Raises:
        DataError: If it isn't there.
    """
    folder = data_dir / (PROTOCOLS[name].folder or name)
    path = folder / f"{file}.json"
    if not path.is_file():
        there = ", ".join(sorted(item.name for item in folder.glob("*.json"))) or "no .json file"
        raise DataError(
            f"The set {name} needs {path}, which does not exist; {folder} holds {there}. Put the file there, or leave "
            "the set out with --sets."
        )
    return path


def read_rows(data_dir: Path, name: str, file: str, max_rows: int | None = None) -> list[dict]:
    """
    The rows of a file, a pair of texts joined to one text.

    Args:
        data_dir (`Path`): The data folder.
        name (`str`): The set.
        file (`str`): Its file, without the ending.
        max_rows (`int`, *optional*): At most so many, evenly spread over the file.

    Returns:
        `list[dict]`: With `text` and `label`.
    """
    rows = json.loads(find_file(data_dir, name, file).read_text(encoding="utf-8"))
    if max_rows is not None and len(rows) > max_rows:
        rows = [rows[i * len(rows) // max_rows] for i in range(max_rows)]
    return [
        {"text": row["text"] if "text" in row else f"{row['text_a']} {row['text_b']}", "label": row["label"]}
        for row in rows
    ]


def read_splits(data_dir: Path, name: str, max_rows: int | None = None) -> dict[str, list[dict]]:
    """`train`, and `validation` and `test` where the set's protocol has them."""
    protocol = PROTOCOLS[name]
    splits = {"train": [row for file in protocol.train for row in read_rows(data_dir, name, file, max_rows)]}
    if protocol.first:
        cut = round(protocol.first * len(splits["train"]))
        splits["train"], splits["test"] = splits["train"][:cut], splits["train"][cut:]
    for split in ("validation", "test"):
        file = getattr(protocol, split)
        if file in protocol.files:
            splits[split] = read_rows(data_dir, name, file, max_rows)
    return splits


def few_shot(rows: list[dict], per_class: int, seed: int) -> list[dict]:
    """
    Draw the same number of rows of each class.

    Args:
        rows (`list[dict]`): With a `label` each.
        per_class (`int`): Rows of each class.
        seed (`int`): Of the draw. The smaller draw of a seed is a part of its larger one.

    Returns:
        `list[dict]`: Class by class, in the order of the labels.

    Raises:
        DataError: If a class has too few rows.
    """
    by_class = defaultdict(list)
    for row in rows:
        by_class[row["label"]].append(row)
    drawn = []
    for label in sorted(by_class):
        if len(by_class[label]) < per_class:
            raise DataError(
                f"The class {label} has {len(by_class[label])} rows; {per_class} a class cannot be drawn. Ask for "
                "fewer with --examples."
            )
        random.Random(f"{seed} {label}").shuffle(by_class[label])
        drawn += by_class[label][:per_class]
    return drawn


def score(name: str, labels: Sequence, predictions: Sequence) -> dict[str, float]:
    """
    Everything that is measured on a set.

    Args:
        name (`str`): The set.
        labels (`Sequence`): True labels: names or numbers, or 0/1 rows of a set with several labels.
        predictions (`Sequence`): Predicted ones, in the same form.

    Returns:
        `dict[str, float]`: In %. `value` is the one number of the set's protocol.
    """
    protocol = PROTOCOLS[name]
    if np.ndim(labels) == 2:
        scores = multi_label_metrics(np.asarray(labels), np.asarray(predictions))
    else:
        names = sorted({*labels, *predictions})
        ids = {label: number for number, label in enumerate(names)}
        truth, found = (np.array([ids[label] for label in values]) for values in (labels, predictions))
        scores = single_label_metrics(truth, found)
        if protocol.positive is not None:
            scores["f1"] = f1_of(protocol.positive, labels, predictions)
    scores = {metric: 100 * value for metric, value in scores.items()}
    return {"value": scores[protocol.metric], **scores}


def f1_of(positive: str | int, labels: Sequence, predictions: Sequence) -> float:
    """F1 of one class; 0 where it is neither there nor predicted."""
    right = sum(label == positive == found for label, found in zip(labels, predictions, strict=True))
    all_of_it = sum(label == positive for label in labels) + sum(found == positive for found in predictions)
    return 2 * right / all_of_it if all_of_it else 0.0
