"""SetFit beside fine-tuning the same encoder with hf_ext, on the same few rows a class."""

import shutil
import statistics
import time
from functools import partial
from itertools import product
from pathlib import Path

from pretrained import encoder_folder

from peer_parts.environments import note_missing, peer_python, print_missing, run_arm
from peer_parts.floor import classifier, columns, under_floor
from peer_parts.protocols import check_sets, few_shot, read_splits, score
from peer_parts.runs import mean_and_sd, once, predicted_labels, read_results, run_recipe, shown_set, write_json

SETS = ("sst1", "trec6")
# 20 pairs of each kind a row, one pass, batch 16, 2e-5: what SetFit's own table was made with.
SETFIT = {"num_iterations": 20, "num_epochs": 1, "batch_size": 16, "body_learning_rate": 2e-5, "max_length": 128}
# Fixed beforehand, as nothing is left to choose on; `epochs` belongs to it.
FINE_TUNING = {
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-4,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "max_seq_length": 128,
    "validation_size": 0.0,
    "do_train": True,
    "do_predict": True,
    "save_strategy": "no",
    # What SetFit computes in.
    "mixed_precision": "no",
    "preflight": "off",
    "report_to": "none",
    "overwrite": True,
}
# final_results of huggingface/setfit: mean and standard deviation of ten draws.
PUBLISHED = {("sst1", 8): "29.8 (1.7)"}
# What a result depends on beside its draw.
SETTINGS = {"svm": {}, "setfit": SETFIT, "hf_ext": FINE_TUNING}


def run(args) -> None:
    """Each draw of each set and size, by each arm that is installed."""
    names = args.sets or SETS
    check_sets(args.data_dir, names, SETS)
    folder = args.work_dir / "setfit"
    arms = {"svm": with_svm, "hf_ext": partial(with_hf_ext, folder=folder)}
    with note_missing(folder, "setfit"):
        arms["setfit"] = partial(with_setfit, python=peer_python(args.work_dir, "setfit"), folder=folder)
    splits = {name: read_splits(args.data_dir, name, args.max_rows) for name in names}
    for seed, name, size in product(range(args.seeds), names, args.examples):
        drawn = few_shot(splits[name]["train"], size, seed)
        draw = {"set": name, "examples": size, "seed": seed, "max_rows": args.max_rows}
        for arm, measure in arms.items():
            path = folder / f"{name}_{size}_{seed}_{arm}.json"
            once(path, {**draw, "arm": arm, **SETTINGS[arm]}, partial(measure, draw, drawn, splits[name]["test"]))


def with_svm(draw: dict, drawn: list[dict], test: list[dict]) -> dict:
    """The floor of these very rows."""
    started = time.perf_counter()
    texts, labels = columns(test)
    predictions = classifier().fit(*columns(drawn)).predict(texts).tolist()
    return {**score(draw["set"], labels, predictions), "seconds": time.perf_counter() - started}


def with_setfit(draw: dict, drawn: list[dict], test: list[dict], *, python: Path, folder: Path) -> dict:
    classes = sorted({row["label"] for row in drawn})
    settings = {
        "encoder": encoder_folder(None),
        "train": [[row["text"], classes.index(row["label"])] for row in drawn],
        "test": columns(test)[0],
        "seed": draw["seed"],
        **SETFIT,
    }
    started = time.perf_counter()
    found = run_arm(python, "setfit_arm", settings, folder / "logs" / f"{title(draw)}_setfit.log")
    seconds = time.perf_counter() - started
    predictions = [classes[number] for number in found.pop("predictions")]
    return {**score(draw["set"], columns(test)[1], predictions), **found, "seconds": seconds}


def with_hf_ext(draw: dict, drawn: list[dict], test: list[dict], *, folder: Path) -> dict:
    folder, log = folder / "runs" / title(draw), folder / "logs" / f"{title(draw)}_hf_ext.log"
    # Names: predictions are written by name.
    for split, rows in {"train": drawn, "test": test}.items():
        write_json(folder / f"{split}.json", [{"text": row["text"], "label": str(row["label"])} for row in rows])
    settings = {
        "model_name_or_path": encoder_folder(None),
        "train_file": str(folder / "train.json"),
        "test_file": str(folder / "test.json"),
        "num_train_epochs": epochs(draw["examples"]),
        **FINE_TUNING,
        "seed": draw["seed"],
        "output_dir": str(folder / "model"),
    }
    started = time.perf_counter()
    run_recipe("run_classification.py", settings, folder / "settings.json", log)
    seconds = time.perf_counter() - started
    predictions = predicted_labels(folder / "model")
    shutil.rmtree(folder)
    return {**score(draw["set"], [str(row["label"]) for row in test], predictions), "seconds": seconds}


def epochs(examples: int) -> int:
    """Some hundred steps at any size: 50 passes over 8 rows a class, 20 over 64."""
    return max(20, 400 // examples)


def title(draw: dict) -> str:
    return f"{draw['set']}_{draw['examples']}_{draw['seed']}"


# ---- Tables ----


def tables(args) -> None:
    folder = args.work_dir / "setfit"
    rows = read_results(folder)
    if not rows:
        return
    print("\nFew rows a class, all-MiniLM-L6-v2, test accuracy in %, mean (sd) over draws:\n")
    print_missing(folder)
    print("| set | a class | draws | SVM | SetFit | its own table | hf_ext | hf_ext - SetFit | s, SetFit | s, hf_ext |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in SETS:
        settings = {row["settings"]["examples"]: row["settings"] for row in rows if row["settings"]["set"] == name}
        for size in sorted(settings):
            print(f"| {shown_set(settings[size])} | {size} | {' | '.join(cells(rows, name, size))} |")


def cells(rows: list[dict], name: str, size: int) -> list[str]:
    """Of the draws that all arms have which have any."""
    by_arm = {arm: {} for arm in SETTINGS}
    for row in rows:
        if (row["settings"]["set"], row["settings"]["examples"]) == (name, size):
            by_arm[row["settings"]["arm"]][row["settings"]["seed"]] = row
    draws = sorted(set.intersection(*(set(found) for found in by_arm.values() if found)))
    found = {arm: [by_seed[seed] for seed in draws] for arm, by_seed in by_arm.items() if by_seed}
    values = {arm: [row["value"] for row in arm_rows] for arm, arm_rows in found.items()}
    shown = {arm: mean_and_sd(numbers) if numbers else "" for arm, numbers in values.items()}
    if draws and {"svm", "hf_ext"} <= set(values):
        floor = statistics.mean(values["svm"])
        shown["hf_ext"] = under_floor(shown["hf_ext"], statistics.mean(values["hf_ext"]), floor)
    gain = ""
    if {"setfit", "hf_ext"} <= set(values):
        gain = difference([a - b for a, b in zip(values["hf_ext"], values["setfit"], strict=True)])
    seconds = {arm: f"{statistics.median(row['seconds'] for row in found[arm]):.0f}" for arm in found if draws}
    return [
        str(len(draws)), shown.get("svm", ""), shown.get("setfit", "not installed"), PUBLISHED.get((name, size), ""),
        shown.get("hf_ext", ""), gain, seconds.get("setfit", ""), seconds.get("hf_ext", ""),
    ]  # fmt: skip


def difference(gains: list[float]) -> str:
    """Mean of paired differences, with its 95 % interval (t over draws) where there are several."""
    from scipy import stats

    if not gains:
        return ""
    mean = statistics.mean(gains)
    if len(gains) < 2:
        return f"{mean:+.2f}"
    half = stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    return f"{mean:+.2f} ± {half:.2f}"
