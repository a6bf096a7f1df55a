"""What results that one can trust cost.

    python benchmarks/results.py report [--rows 100000] [--rounds 3]
    python benchmarks/results.py kfold_overhead --data_dir DIR [--folds 10]
    python benchmarks/results.py kfold_workers --data_dir DIR [--folds 4] [--rounds 3]

`report` writes the report of one split of made-up predictions, of six and of 150 exclusive classes and of 28 labels,
and prints seconds and megabytes. The predictions are in memory already: reading a model's answers and the bootstrap
intervals of the metrics are not part of it.

--data_dir holds mr/all.json; the parts of k-fold call recipes/run_kfold.py with configs/kfold/mr_cnn_rand.json and one
seed. `kfold_overhead`: the share of the recipe's time that is not training. Training is Trainer.train(), with its
evaluations and checkpoints; all else counts as overhead: starting Python, imports, reading, preflight, dealing, and for
each fold the word list, the model, tokenising, predicting and writing, then the report.
`kfold_workers`: the same folds by one worker with all threads, by one with a single thread, and by two workers, which
take turns in each round; the times are those of whole calls.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hf_ext import Predictions, write_report
from hf_ext.evaluation.comparison import all_metrics

ROOT = Path(__file__).parent.parent
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


def kfold_workers(args) -> None:
    ways = {
        "one worker": ((), {}),
        "one worker, one thread": ((), {"OMP_NUM_THREADS": "1"}),
        "two workers": (("--num_workers", "2"), {}),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(args.rounds):
        for way in list(ways)[:: 1 if number % 2 == 0 else -1]:
            more, environment = ways[way]
            with tempfile.TemporaryDirectory() as folder:
                times[way].append(run_kfold(args, folder, *more, **environment)[0])
            print(f"round {number}: {way}: {times[way][-1]:.1f} s", flush=True)
    for way in list(ways)[:2]:
        ratios = [one / two for one, two in zip(times[way], times["two workers"], strict=True)]
        print(f"two workers against {way}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")


PARTS = {part.__name__: part for part in (report, kfold_overhead, kfold_workers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--config", default="mr_cnn_rand.json", help="of configs/kfold")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args, args.more = parser.parse_known_args()
    if args.data_dir is None and args.part.startswith("kfold"):
        parser.error("--data_dir is missing")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
