"""The floor: TF-IDF of words and pairs of words, and a linear support vector machine."""

import json
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np

from peer_parts.protocols import PROTOCOLS, check_sets, read_splits, score
from peer_parts.runs import once, read_results, shown_set, write_json

SETS = tuple(PROTOCOLS)
# Words of one letter and signs count, as they do for the models that are to be above the floor.
TFIDF = {"ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"}
# The numbers of docs/results.md, for other tables.
FLOORS = Path(__file__).parent.parent / "floor.json"


def read_floors(path: Path = FLOORS) -> dict[str, float]:
    """The floor of each set, in % of its protocol's metric."""
    return json.loads(path.read_text())


def under_floor(shown: str, value: float, floor: float | None) -> str:
    """
    A number as a table shows it: marked, if it is under the floor.

    Args:
        shown (`str`): The number in the table's form.
        value (`float`): The number.
        floor (`float`, *optional*): Of the set, such as `read_floors().get(name)`; none marks nothing.

    Returns:
        `str`
    """
    return shown if floor is None or value >= floor else f"{shown} (under the floor, {floor:.2f})"


def run(args) -> None:
    """Measure every set once, and write `floor.json`."""
    names = args.sets or SETS
    check_sets(args.data_dir, names, SETS)
    for name in names:
        settings = {"set": name, "max_rows": args.max_rows, **TFIDF}
        if PROTOCOLS[name].folds:
            settings["seeds"] = args.seeds
        once(args.work_dir / "floor" / f"{name}.json", settings, partial(measure, args, name))
    whole = [found for found in read_results(args.work_dir / "floor") if found["settings"]["max_rows"] is None]
    floors = {found["settings"]["set"]: round(found["value"], 2) for found in whole}
    write_json(args.work_dir / "floor.json", {name: floors[name] for name in SETS if name in floors})


def measure(args, name: str) -> dict:
    started = time.perf_counter()
    splits = read_splits(args.data_dir, name, args.max_rows)
    if PROTOCOLS[name].folds:
        found = cross_validate(name, splits["train"], args.seeds)
    elif isinstance(splits["train"][0]["label"], list):
        found = several_labels(name, splits)
    else:
        predictions = classifier().fit(*columns(splits["train"])).predict(columns(splits["test"])[0])
        found = score(name, columns(splits["test"])[1], predictions.tolist())
    rows = {split: len(rows) for split, rows in splits.items()}
    seconds = time.perf_counter() - started
    return {"metric": PROTOCOLS[name].metric, **found, "rows": rows, "seconds": round(seconds, 1)}


def columns(rows: list[dict]) -> tuple[list[str], list]:
    return [row["text"] for row in rows], [row["label"] for row in rows]


def classifier():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    return make_pipeline(TfidfVectorizer(**TFIDF), LinearSVC(random_state=0))


def cross_validate(name: str, rows: list[dict], seeds: int) -> dict:
    """Means over the folds, and over several ways to deal them."""
    from sklearn.model_selection import StratifiedKFold

    texts, labels = (np.array(column) for column in columns(rows))
    scores = []
    for seed in range(seeds):
        dealt = StratifiedKFold(PROTOCOLS[name].folds, shuffle=True, random_state=seed).split(texts, labels)
        for train, test in dealt:
            predictions = classifier().fit(texts[train], labels[train]).predict(texts[test])
            scores.append(score(name, labels[test].tolist(), predictions.tolist()))
    return {metric: statistics.mean(each[metric] for each in scores) for metric in scores[0]}


def several_labels(name: str, splits: dict[str, list[dict]]) -> dict:
    """One machine for each label, and one threshold for all, which is chosen on the validation rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    names = sorted({label for rows in splits.values() for row in rows for label in row["label"]})
    binarizer = MultiLabelBinarizer(classes=names)
    texts = {split: columns(rows)[0] for split, rows in splits.items()}
    truth = {split: binarizer.fit_transform(columns(rows)[1]) for split, rows in splits.items()}
    machines = OneVsRestClassifier(LinearSVC(random_state=0))
    model = make_pipeline(TfidfVectorizer(**TFIDF), machines).fit(texts["train"], truth["train"])
    margins = {split: model.decision_function(texts[split]) for split in ("validation", "test")}
    threshold = best_threshold(margins["validation"], truth["validation"])
    found = score(name, truth["test"], (margins["test"] > threshold).astype(int))
    return {**found, "threshold": threshold}


def best_threshold(margins: np.ndarray, truth: np.ndarray) -> float:
    """Of those from -1 to 1 in steps of 0.05, the one with the highest macro-F1."""
    from sklearn.metrics import f1_score

    thresholds = [round(step / 20, 2) for step in range(-20, 21)]
    return max(thresholds, key=lambda limit: f1_score(truth, margins > limit, average="macro", zero_division=0))


def tables(args) -> None:
    results = {found["settings"]["set"]: found for found in read_results(args.work_dir / "floor")}
    if not results:
        return
    print("\nTF-IDF (1-2-grams) + linear SVM:\n")
    print("| set | measured on | metric | value, % | accuracy | macro-F1 | MCC | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (name for name in SETS if name in results):
        found, protocol = results[name], PROTOCOLS[name]
        rows = found["rows"]
        where = f"{rows.get('test', rows['train']):,} rows"
        if protocol.folds:
            where += f", {protocol.folds} folds x {found['settings']['seeds']}"
        metric = protocol.metric + (f" of {protocol.positive}" if protocol.metric == "f1" else "")
        cells = [shown_set(found["settings"]), where, metric, f"{found['value']:.2f}"]
        cells += [f"{found[each]:.2f}" if each in found else "" for each in ("accuracy", "f1_macro", "mcc")]
        print(f"| {' | '.join(cells)} | {found['seconds']:.1f} |")
