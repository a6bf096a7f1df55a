"""Speed of what makes results trustworthy.

    python benchmarks/results.py bootstrap [--rows 10000] [--resamples 10000] [--rounds 5]

`bootstrap`: intervals over the rows for all metrics of one model, the paired bootstrap of two (as many resamples), and
the paired permutation test (as many exchanges), for two classes, 77, 150, 28 classes of several labels, a regression.
Set OMP_NUM_THREADS=1 for one core; CPU and wall seconds are shown, median and range of the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from hf_ext import Predictions, metric_intervals, paired_bootstrap, paired_permutation

# Name -> kind of task, classes, strength of the signal.
TASKS = {
    "2 classes": ("single_label_classification", 2, 2.0),
    "77 classes": ("single_label_classification", 77, 4.0),
    "150 classes": ("single_label_classification", 150, 4.0),
    "28 classes, several labels": ("multi_label_classification", 28, 3.0),
    "regression": ("regression", 1, 1.0),
}


def make_predictions(kind: str, classes: int, strength: float, rows: int, model: int) -> Predictions:
    """Noise around the truth, the same truth for every model."""
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
    logits = signal + noise.normal(size=signal.shape)
    return Predictions.from_logits(logits, labels, ["text"] * rows, problem_type=kind, label_names=names)


def seconds(work: Callable[[], object], rounds: int) -> str:
    cpu, wall = [], []
    for _ in range(rounds):
        started = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    shown = (f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in (cpu, wall))
    return " | ".join(shown)


def bootstrap(args: argparse.Namespace) -> None:
    print(f"{args.rows:,} rows, {args.resamples:,} resamples, {args.rounds} rounds")
    print("| task | metrics | what | CPU s | wall s |")
    print("|---|---|---|---|---|")
    for title, task in TASKS.items():
        a, b = (make_predictions(*task, args.rows, model) for model in range(2))
        count = len(metric_intervals(a, num_resamples=10))
        for what, work in {
            "intervals": lambda a=a: metric_intervals(a, num_resamples=args.resamples),
            "paired bootstrap": lambda a=a, b=b: paired_bootstrap(a, b, num_resamples=args.resamples),
            "permutation": lambda a=a, b=b: paired_permutation(a, b, num_permutations=args.resamples),
        }.items():
            print(f"| {title} | {count} | {what} | {seconds(work, args.rounds)} |", flush=True)


PARTS = {part.__name__: part for part in (bootstrap,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
