"""What results cost: the report of many predictions.

    python benchmarks/results.py report [--rows 100000] [--rounds 3]

`report` writes the report of one split of made-up predictions, of six and of 150 exclusive classes and of 28 labels,
and prints seconds and megabytes. The predictions are in memory already: reading a model's answers and the bootstrap
intervals of the metrics are not part of it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from hf_ext import Predictions, write_report
from hf_ext.evaluation.comparison import all_metrics

LIMIT_SECONDS, LIMIT_MEGABYTES = 20, 5


def made_up(rows: int, classes: int, several: bool) -> Predictions:
    """Predictions that are right more often than not, on texts of 20 words."""
    generator = np.random.default_rng(0)
    if several:
        labels = (generator.random((rows, classes)) < 0.1).astype(int)
        logits = generator.normal(size=labels.shape) + 3 * labels - 2
    else:
        labels = generator.integers(0, classes, rows)
        logits = generator.normal(size=(rows, classes))
        logits[np.arange(rows), labels] += 3
    return Predictions.from_logits(
        logits,
        labels,
        [f"text {i} " + "word " * 18 for i in range(rows)],
        problem_type="multi_label_classification" if several else "single_label_classification",
        label_names=[f"class {i}" for i in range(classes)],
    )


def report(args: argparse.Namespace) -> None:
    print(f"{args.rows:,} predictions, {args.rounds} rounds: median (range)\n")
    print(f"| kind | seconds (at most {LIMIT_SECONDS}) | MB (at most {LIMIT_MEGABYTES}) |\n|---|---:|---:|")
    kinds = {"6 classes": (6, False), "150 classes": (150, False), "28 labels": (28, True)}
    for kind, (classes, several) in kinds.items():
        data = made_up(args.rows, classes, several)
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


PARTS = {part.__name__: part for part in (report,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
