"""Class weights, focal loss and label smoothing, each beside the plain loss: a TextCNN on sets of skewed classes.

    python benchmarks/class_losses.py run --data_dir DIR [--sets sms_spam trec50 r8] [--losses plain focal] \\
        [--seeds 5] [--shard 0/2]
    python benchmarks/class_losses.py tables

--data_dir holds sms_spam/all.json, whose first 30 % train (Almeida 2011), trec50/{train,test}.json and
r8/{train,test}.json. Every run is a call of recipes/run_classification.py; a tenth of the training rows, others by each
seed but the same for all losses, chooses the epoch by macro-F1. What else is given to `run` is for the recipe. Each run
is a line of <--work_dir>/results.jsonl; what stands there is not run again, so a stopped benchmark continues.
"""

import argparse
import json
import os
import shutil
import statistics
from itertools import product
from pathlib import Path

from recipe_runs import run_recipe
from scipy import stats

LOSSES = {
    "plain": {},
    "class weights": {"class_weights": "balanced"},
    "focal": {"focal_gamma": 2.0},
    "smoothing": {"label_smoothing_factor": 0.1},
}
SETS = {
    "sms_spam": {"num_train_epochs": 10, "max_seq_length": 128},
    "trec50": {"num_train_epochs": 15, "max_seq_length": 64},
    "r8": {"num_train_epochs": 8, "max_seq_length": 256},
}
TRAINING = {
    "model_type": "textcnn",
    "filter_sizes": [1, 2, 3],
    "validation_size": 0.1,
    "per_device_train_batch_size": 50,
    "per_device_eval_batch_size": 256,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.0,
    "mixed_precision": "no",
    "load_best_model_at_end": True,
    "metric_for_best_model": "f1_macro",
    "save_total_limit": 1,
    "preflight": "off",
    "report_to": "none",
    "disable_tqdm": True,
}
MEASURES = ("f1_macro", "accuracy", "mcc", "ece", "loss")


def files_of(args: argparse.Namespace, name: str) -> dict[str, str]:
    """Training and test rows."""
    if name != "sms_spam":
        return {f"{split}_file": str(args.data_dir / name / f"{split}.json") for split in ("train", "test")}
    rows = json.loads((args.data_dir / name / "all.json").read_text(encoding="utf-8"))
    parts = {"train": rows[: len(rows) * 3 // 10], "test": rows[len(rows) * 3 // 10 :]}
    for split, part in parts.items():
        path = args.work_dir / f"{name}_{split}.json"
        if not path.exists():
            path.write_text(json.dumps(part), encoding="utf-8")
    return {f"{split}_file": str(args.work_dir / f"{name}_{split}.json") for split in parts}


def run(args: argparse.Namespace) -> None:
    """Every loss of every seed of every set."""
    args.work_dir.mkdir(parents=True, exist_ok=True)
    number, count = map(int, args.shard.split("/"))
    for seed, name, loss in [*product(range(args.seeds), args.sets, args.losses)][number::count]:
        key = {"set": name, "arm": loss, "seed": seed, "more": " ".join(args.more)}
        if any(key.items() <= row.items() for row in results(args.work_dir)):
            continue
        folder = args.work_dir / f"{name}_{loss.replace(' ', '_')}_{seed}"
        seeds = {"seed": seed, "split_seed": seed, "output_dir": str(folder)}
        settings = {**TRAINING, **SETS[name], **LOSSES[loss], **files_of(args, name), **seeds, "overwrite": True}
        run_recipe(
            "run_classification.py", settings, folder.with_suffix(".json"), folder.with_suffix(".log"), args.more
        )
        found = json.loads((folder / "test_results.json").read_text())
        shutil.rmtree(folder)
        row = {**key, **{measure: found[f"test_{measure}"] for measure in MEASURES}}
        print(json.dumps(row), flush=True)
        with (args.work_dir / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def results(work_dir: Path) -> list[dict]:
    path = work_dir / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables(args: argparse.Namespace) -> None:
    """Means over the seeds, and macro-F1 beside the plain loss of the same seeds."""
    found = {(row["set"], row["arm"], row["seed"]): row for row in results(args.work_dir)}
    print("| set | loss | seeds | macro-F1 | beside plain (95 % CI) | p | accuracy | MCC | ECE | test loss |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, loss in product(SETS, LOSSES):
        seeds = [seed for seed in range(100) if {(name, loss, seed), (name, "plain", seed)} <= found.keys()]
        if not seeds:
            continue
        own, plain = ([found[name, each, seed] for seed in seeds] for each in (loss, "plain"))
        mean = {measure: statistics.mean(row[measure] for row in own) for measure in MEASURES}
        beside = "| | "
        if loss != "plain" and len(seeds) > 1:
            changes = [100 * (row["f1_macro"] - other["f1_macro"]) for row, other in zip(own, plain, strict=True)]
            test = stats.ttest_1samp(changes, 0.0)
            low, high = test.confidence_interval()
            beside = f"| {statistics.mean(changes):+.2f} ({low:+.2f} to {high:+.2f}) | {test.pvalue:.3f} "
        print(
            f"| {name} | {loss} | {len(seeds)} | {100 * mean['f1_macro']:.2f} {beside}| {100 * mean['accuracy']:.2f} "
            f"| {100 * mean['mcc']:.2f} | {100 * mean['ece']:.2f} | {mean['loss']:.3f} |"
        )


PARTS = {part.__name__: part for part in (run, tables)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data_dir", type=lambda path: Path(path).absolute())
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shard", default="0/1", help="which part of the runs this process makes, as 0/2")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/class_losses"))
    args, args.more = parser.parse_known_args()
    args.work_dir = args.work_dir.absolute()
    if args.more and args.part != "run":
        parser.error(f"unknown: {' '.join(args.more)}")
    if args.data_dir is None and args.part == "run":
        parser.error("--data_dir is missing")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
