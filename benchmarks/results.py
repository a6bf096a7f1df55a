"""What results that one can trust cost, and whether one can trust an interval.

    python benchmarks/results.py bootstrap [--rows 10000] [--resamples 10000] [--rounds 5]
    python benchmarks/results.py coverage --resamples 500 [--draws 400]
    python benchmarks/results.py report [--rows 100000] [--rounds 3]
    python benchmarks/results.py kfold_overhead --data_dir DIR [--folds 10]
    python benchmarks/results.py kfold_workers --data_dir DIR [--folds 4] [--rounds 3]

`bootstrap`: intervals over the rows for all metrics of one model, the paired bootstrap of two (as many resamples), and
the paired permutation test (as many exchanges), for two classes, 77, 150, 28 classes of several labels, a regression.
Set OMP_NUM_THREADS=1 for one core; CPU and wall seconds are shown, median and range of the rounds.

`coverage`: how often the interval of the expected calibration error holds the error of the model on endless rows, which
is known because the rows are made up, and the plain percentiles do; how often two models of equal error are told apart.

`report` writes the report of one split of made-up predictions of the same kinds, and prints seconds and megabytes. The
predictions are in memory already: reading a model's answers and the bootstrap intervals are not part of it.

--data_dir holds mr/all.json; the parts of k-fold call recipes/run_kfold.py with configs/kfold/mr_cnn_rand.json and one
seed. `kfold_overhead`: the share of the recipe's time that is not training. Training is Trainer.train(), with its
evaluations and checkpoints; all else counts as overhead: starting Python, imports, reading, preflight, dealing, and for
each fold the word list, the model, tokenising, predicting and writing, then the report.
`kfold_workers`: the same folds by one worker with all threads, by one with a single thread, and by two workers, which
take turns in each round; the times are those of whole calls.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np

from hf_ext import (
    Predictions,
    bootstrap_intervals,
    metric_intervals,
    paired_bootstrap,
    paired_permutation,
    write_report,
)
from hf_ext.evaluation.comparison import all_metrics

ROOT = Path(__file__).parent.parent
LIMIT_SECONDS, LIMIT_MEGABYTES = 20, 5
# Name -> kind of task, classes, strength of the signal.
TASKS = {
    "2 classes": ("single_label_classification", 2, 2.0),
    "77 classes": ("single_label_classification", 77, 4.0),
    "150 classes": ("single_label_classification", 150, 4.0),
    "28 classes, several labels": ("multi_label_classification", 28, 3.0),
    "regression": ("regression", 1, 1.0),
}


# From where to where the confidences of made-up answers are spread.
EVEN = "0.55 to 0.95"
CONFIDENCES = {EVEN: (0.55, 0.95), "all 0.97": (0.97, 0.97)}


def make_predictions(kind: str, classes: int, strength: float, rows: int, model: int) -> Predictions:
    """Noise around the truth, the same truth for every model, on texts of 20 words."""
    truth, noise = np.random.default_rng(0), np.random.default_rng([1, model])
    if kind == "single_label_classification":
        labels = truth.integers(0, classes, rows)
        signal = strength * np.eye(classes)[labels]
    elif kind == "multi_label_classification":
        labels = (truth.random((rows, classes)) < 1.2 / classes).astype(int)
        signal = strength * (2.0 * labels - 1)
    else:
        labels = truth.normal(size=rows)
        signal = strength * labels[:, None]
    names = ["value"] if kind == "regression" else [f"class {number}" for number in range(classes)]
    texts = [f"text {row} " + "word " * 18 for row in range(rows)]
    logits = signal + noise.normal(size=signal.shape)
    return Predictions.from_logits(logits, labels, texts, problem_type=kind, label_names=names)


# ---- Intervals ----


def cpu_and_wall(work: Callable[[], object], rounds: int) -> str:
    cpu, wall = [], []
    for _ in range(rounds):
        started = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    shown = (f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in (cpu, wall))
    return " | ".join(shown)


def bootstrap(args: argparse.Namespace) -> None:
    (rows,) = args.rows or (10_000,)
    print(f"{rows:,} rows, {args.resamples:,} resamples, {args.rounds} rounds")
    print("| task | metrics | what | CPU s | wall s |")
    print("|---|---|---|---|---|")
    for title, task in TASKS.items():
        a, b = (make_predictions(*task, rows, model) for model in range(2))
        count = len(metric_intervals(a, num_resamples=10))
        for what, work in {
            "intervals": lambda a=a: metric_intervals(a, num_resamples=args.resamples),
            "paired bootstrap": lambda a=a, b=b: paired_bootstrap(a, b, num_resamples=args.resamples),
            "permutation": lambda a=a, b=b: paired_permutation(a, b, num_permutations=args.resamples),
        }.items():
            print(f"| {title} | {count} | {what} | {cpu_and_wall(work, args.rounds)} |", flush=True)


def too_sure(generator: np.random.Generator, labels: np.ndarray, error: float, ends: tuple) -> Predictions:
    """Answers to questions of two classes that are right less often, by `error`, than they are sure."""
    sure = generator.uniform(*ends, len(labels))
    answers = np.where(generator.random(len(labels)) < sure - error, labels, 1 - labels)
    logits = np.where(answers == 1, 1, -1)[:, None] * np.log(sure / (1 - sure))[:, None] * np.array([[-0.5, 0.5]])
    task = {"problem_type": "single_label_classification", "label_names": ["a", "b"]}
    return Predictions.from_logits(logits, labels, ["text"] * len(labels), **task)


def percentiles(data: Predictions, resamples: int, bins: int = 15) -> tuple[float, float]:
    """The interval of the calibration error that the percentiles of the resamples are."""
    confidence = data.probabilities.max(axis=1)
    surer = confidence - (data.predictions == data.labels)
    in_its_bin = np.eye(bins)[np.ceil(confidence * bins).astype(int) - 1] * surer[:, None]

    def ece(sums):
        return {"ece": np.abs(sums).sum(axis=1) / len(surer)}

    return bootstrap_intervals(in_its_bin, np.ones(len(surer), dtype=int), ece, num_resamples=resamples)["ece"]


def coverage(args: argparse.Namespace) -> None:
    generator = np.random.default_rng(0)
    print(f"{args.draws} sets of rows, {args.resamples:,} resamples: how often 95 % intervals hold the true error\n")
    print("| rows | confidences | true ECE | mean ECE of the rows | interval | percentiles |")
    print("|---|---|---|---|---|---|")
    for rows, (name, ends), error in product(args.rows or (300, 1000), CONFIDENCES.items(), (0.0, 0.01, 0.05, 0.1)):
        held, values = [], []
        for _ in range(args.draws):
            data = too_sure(generator, generator.integers(0, 2, rows), error, ends)
            intervals = (metric_intervals(data, args.resamples)["ece"], percentiles(data, args.resamples))
            held.append([low <= error <= high for low, high in intervals])
            values.append(all_metrics(data)["ece"])
        shares = " | ".join(f"{share:.1%}" for share in np.mean(held, axis=0))
        print(f"| {rows:,} | {name} | {error:.2f} | {np.mean(values):.4f} | {shares} |", flush=True)
    print("\nModels of equal error: how often p of the difference is under 0.05\n")
    print("| rows | confidences | true ECE | p < 0.05 |\n|---|---|---|---|")
    for rows, other, error in product(args.rows or (300, 1000), CONFIDENCES, (0.02, 0.05)):
        found = 0
        for _ in range(args.draws):
            labels = generator.integers(0, 2, rows)
            a, b = (too_sure(generator, labels, error, CONFIDENCES[name]) for name in (EVEN, other))
            found += paired_bootstrap(a, b, args.resamples)["ece"].p < 0.05
        print(f"| {rows:,} | {EVEN}; {other} | {error:.2f} | {found / args.draws:.1%} |", flush=True)


# ---- Report ----


def report(args: argparse.Namespace) -> None:
    (rows,) = args.rows or (100_000,)
    print(f"{rows:,} predictions, {args.rounds} rounds: median (range)\n")
    print(f"| kind | seconds (at most {LIMIT_SECONDS}) | MB (at most {LIMIT_MEGABYTES}) |\n|---|---:|---:|")
    for kind, task in TASKS.items():
        data = make_predictions(*task, rows, 0)
        metrics, seconds = {"test": all_metrics(data)}, []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(args.rounds):
                path = Path(folder) / "report.html"
                started = time.perf_counter()
                write_report(
                    path, title=kind, splits={"test": data}, metrics=metrics, intervals={}, history=[], run={}, notes=[]
                )
                seconds.append(time.perf_counter() - started)
            megabytes = path.stat().st_size / 1e6
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
        print(f"| {kind} | {spread} | {megabytes:.2f} |", flush=True)


# ---- Cross-validation ----


def run_kfold(args, output_dir: str, *more: str, **environment: str) -> tuple[float, list[dict]]:
    """Seconds of a call, and what it says of its folds."""
    command = [sys.executable, str(ROOT / "recipes" / "run_kfold.py"), str(ROOT / "configs" / "kfold" / args.config)]
    command += ["--train_file", str(args.data_dir / "mr" / "all.json"), "--num_folds", str(args.folds)]
    command += ["--fold_seeds", "0", "--output_dir", output_dir, "--disable_tqdm", "true", *args.more, *more]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return seconds, json.loads((Path(output_dir) / "kfold_results.json").read_text())["folds"]


def kfold_overhead(args) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds, folds = run_kfold(args, folder)
    training = sum(fold["train_seconds"] for fold in folds)
    within = sum(fold["seconds"] for fold in folds) - training
    print(f"{args.folds} folds, {seconds:.1f} s: training {training:.1f} s, overhead {1 - training / seconds:.2%}")
    print(f"of the overhead, {within:.1f} s within the folds, {seconds - training - within:.1f} s before and after")


def products(seconds: float) -> int:
    """How many products of matrices one thread makes in that time."""
    import torch

    torch.set_num_threads(1)
    left, right, count, end = torch.rand(1000, 300), torch.rand(300, 1200), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(left, right)
        count += 1
    return count


def gain_of_two(rounds: int, seconds: float) -> list[float]:
    """What two processes of plain arithmetic do over what one does, which two workers cannot surpass."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(products, [0.1, 0.1], 1)
        ones = [pool.apply(products, (seconds,)) for _ in range(rounds)]
        twos = [sum(pool.map(products, [seconds] * 2, 1)) for _ in range(rounds)]
    return [two / one for one, two in zip(ones, twos, strict=True)]


# In what environment.
ONE_WORKER = {"one worker": {}, "one worker, one thread": {"OMP_NUM_THREADS": "1"}}


def kfold_workers(args) -> None:
    ways = [*args.against, "two workers"]
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(args.rounds):
        for way in ways[:: 1 if number % 2 == 0 else -1]:
            more = ("--num_workers", "2") if way == "two workers" else ()
            environment = ONE_WORKER.get(way, {})
            with tempfile.TemporaryDirectory() as folder:
                times[way].append(run_kfold(args, folder, *more, **environment)[0])
            print(f"round {number}: {way}: {times[way][-1]:.1f} s", flush=True)
    for way in args.against:
        ratios = [one / two for one, two in zip(times[way], times["two workers"], strict=True)]
        print(f"two workers against {way}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")
    gains = gain_of_two(args.rounds, args.seconds)
    print(f"two processes of matrix products: {statistics.median(gains):.2f}x ({min(gains):.2f} to {max(gains):.2f})")


PARTS = {part.__name__: part for part in (bootstrap, coverage, report, kfold_overhead, kfold_workers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "--rows", type=int, nargs="+", help="10,000 of bootstrap, 100,000 of report, 300 and 1,000 of coverage"
    )
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=400, help="sets of rows of coverage")
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--config", default="mr_cnn_rand.json", help="of configs/kfold")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of arithmetic, beside kfold_workers")
    parser.add_argument("--against", nargs="+", choices=ONE_WORKER, default=[*ONE_WORKER], help="beside kfold_workers")
    # What else is given is for the recipe.
    args, args.more = parser.parse_known_args()
    if args.part != "coverage" and len(args.rows or ()) > 1:
        parser.error("--rows takes one number but for coverage")
    if args.more and not args.part.startswith("kfold"):
        parser.error(f"unknown: {' '.join(args.more)}")
    if args.data_dir is None and args.part.startswith("kfold"):
        parser.error("--data_dir is missing")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
