"""Easy Data Augmentation measured: the TextCNN on parts of four data sets, with and without edited copies.

    python benchmarks/augmentation.py run    --data_dir DIR --wordnet_dir DIR [--seeds 5] [--shard 0/2]
    python benchmarks/augmentation.py tables

The table of Wei & Zou (2019): 500, 2,000, 5,000 and all training rows, with the share of edited words and the number of
copies that they recommend for each. Arms: no copies, the native engine's, and nlpaug's with the three of the four
techniques that it has. In each (set, size, seed) all arms see the same originals and take the same number of optimizer
steps (two passes over the augmented rows); of ten evaluations on the validation rows the best one's weights are tested.

--data_dir holds sst2/{train,validation,test}.json, trec6/{train,test}.json, mr/all.json and subj/all.json; what a set
lacks is split off at random with the seed. --wordnet_dir is as for benchmarks/data.py, and nlpaug is what
pip install 'hf_ext[nlpaug]' brings. Every run is a line of --results (outputs/augmentation.jsonl): a stopped benchmark
goes on where it was, and processes share one list with --shard 0/2 and --shard 1/2 (set OMP_NUM_THREADS=1 then).
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
from data import prepare_nlpaug
from datasets import Dataset, disable_progress_bars
from scipy import stats
from sklearn.model_selection import train_test_split
from transformers import DataCollatorWithPadding, PrinterCallback, TrainerCallback, set_seed

from hf_ext import (
    DataArguments,
    DataAugmenter,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    ModelArguments,
    TextCNNArguments,
    build_compute_metrics,
    build_textcnn,
    load_text_data,
    tokenize_dataset,
)

FILES = {
    "sst2": {"train_file": "train.json", "validation_file": "validation.json", "test_file": "test.json"},
    "trec6": {"train_file": "train.json", "test_file": "test.json"},
    "mr": {"train_file": "all.json", "test_size": 0.1},
    "subj": {"train_file": "all.json", "test_size": 0.1},
}
# Rows -> (share of the words, copies): table 3 of the paper.
SIZES = {500: (0.05, 16), 2000: (0.05, 8), 5000: (0.1, 4), None: (0.1, 4)}
# Accuracy of their CNN without and with copies, mean of five sets: table 2.
PAPER = {500: (78.6, 80.7), 2000: (85.6, 86.4), 5000: (87.7, 88.3), None: (88.3, 88.8)}
ARMS = ("none", "native", "nlpaug")
PASSES, EVALUATIONS, BATCH = 2, 10, 50


class BestWeights(TrainerCallback):
    """Keeps the weights of the best evaluation in memory."""

    def __init__(self):
        self.accuracy, self.weights = -1.0, {}

    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        if metrics["eval_accuracy"] > self.accuracy:
            self.accuracy = metrics["eval_accuracy"]
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}


def originals(data_dir: Path, name: str, size: int | None, seed: int):
    """The splits of a set, with `size` of the training rows, stratified."""
    files = {
        field: str(data_dir / name / value) if field.endswith("_file") else value
        for field, value in FILES[name].items()
    }
    data_args = DataArguments(**files, split_seed=seed)
    data = load_text_data(data_args, ModelArguments(model_type="textcnn"), ("train", "validation", "test"))
    train = data.splits["train"]
    if size is not None and size < len(train):
        rows, _ = train_test_split(range(len(train)), train_size=size, random_state=seed, stratify=train["label"])
        train = train.select(sorted(rows))
    return data, train


def with_copies(train: Dataset, arm: str, share: float, copies: int, seed: int, wordnet: Path) -> Dataset:
    rows = train.to_list()
    if arm == "native":
        augmented = DataAugmenter(share, seed=seed).augment_dataset(rows, augmentation_factor=copies)
    else:
        with tempfile.TemporaryDirectory() as folder:
            peers = list(prepare_nlpaug(wordnet, Path(folder)).values())
            augmented = list(rows)
            for number, peer in enumerate(peers):
                peer.aug_p = share
                augmenter = DataAugmenter(seed=seed + number, backend="nlpaug", augmenter=peer)
                # 16 copies are 6, 5 and 5.
                part = copies // len(peers) + (number < copies % len(peers))
                made = augmenter.augment_dataset(rows, augmentation_factor=part) if part else []
                augmented += [row for row in made if row["is_augmented"]]
    return Dataset.from_list([{name: row[name] for name in train.column_names} for row in augmented])


def run(args: argparse.Namespace, name: str, size: int | None, arm: str, seed: int) -> dict:
    data, train = originals(args.data_dir, name, size, seed)
    share, copies = SIZES[size]
    steps = PASSES * (1 + copies) * len(train) // BATCH
    started = time.perf_counter()
    rows = train if arm == "none" else with_copies(train, arm, share, copies, seed, args.wordnet_dir)
    augmenting = time.perf_counter() - started
    set_seed(seed)
    model, tokenizer, _ = build_textcnn(
        ModelArguments(model_type="textcnn"), TextCNNArguments(embed_size=args.width), data.task, rows["text"], 128
    )
    splits = {"train": rows, "validation": data.splits["validation"], "test": data.splits["test"]}
    encoded = {split: tokenize_dataset(dataset, tokenizer, 128) for split, dataset in splits.items()}
    best = BestWeights()
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = ExtendedTrainer(
            model=model,
            args=ExtendedTrainingArguments(
                output_dir,
                seed=seed,
                max_steps=steps,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=256,
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                train_sampling_strategy="group_by_length",
                eval_strategy="steps",
                eval_steps=max(1, steps // EVALUATIONS),
                save_strategy="no",
                logging_steps=1000,
                bf16=True,
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=build_compute_metrics(data.task.problem_type),
            callbacks=[best],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.model.load_state_dict(best.weights)
        accuracy = 100 * trainer.predict(encoded["test"]).metrics["test_accuracy"]
    return {
        "rows": len(train),
        "augmented_rows": len(rows),
        "steps": steps,
        "augmenting_seconds": round(augmenting, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "accuracy": round(accuracy, 2),
    }


def jobs(args: argparse.Namespace) -> list[dict]:
    """Seed by seed, so that a list that is not finished is a table of fewer seeds."""
    keys = ("seed", "size", "set", "arm")
    return [dict(zip(keys, job, strict=True)) for job in product(range(args.seeds), args.sizes, args.sets, ARMS)]


def run_all(args: argparse.Namespace) -> None:
    disable_progress_bars()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    shard, shards = map(int, args.shard.split("/"))
    for number, job in enumerate(jobs(args)):
        # The arms of one comparison are made by one process.
        if number // len(ARMS) % shards != shard or any(job.items() <= done.items() for done in read(args.results)):
            continue
        result = {**job, **run(args, job["set"], job["size"], job["arm"], job["seed"])}
        print(json.dumps(result), flush=True)
        with args.results.open("a") as file:
            file.write(json.dumps(result) + "\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accuracies(results: list[dict], size: int | None, name: str) -> dict[str, dict[int, float]]:
    """Arm -> seed -> accuracy, of the seeds that all arms have."""
    found = {arm: {} for arm in ARMS}
    for row in results:
        if row["size"] == size and row["set"] == name:
            found[row["arm"]][row["seed"]] = row["accuracy"]
    common = set.intersection(*(set(seeds) for seeds in found.values()))
    return {arm: {seed: seeds[seed] for seed in sorted(common)} for arm, seeds in found.items()}


def tables(args: argparse.Namespace) -> None:
    results = read(args.results)
    print("| rows | set | seeds | none, mean (sd) | native - none | nlpaug - none | native - nlpaug |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        means = {arm: [] for arm in ARMS}
        for name in FILES:
            arms = accuracies(results, size, name)
            seeds = len(arms["none"])
            if seeds < 2:
                continue
            values = {arm: np.array(list(by_seed.values())) for arm, by_seed in arms.items()}
            for arm in ARMS:
                means[arm].append(values[arm])
            gains = [difference(values[a], values[b]) for a, b in (ARMS[1::-1], ARMS[2::-2], ARMS[1:3])]
            none = f"{values['none'].mean():.1f} ({values['none'].std(ddof=1):.1f})"
            print(f"| {size or 'all'} | {name} | {seeds} | {none} | {' | '.join(gains)} |")
        seeds = min((len(values) for values in means["none"]), default=0)
        if len(means["none"]) == len(FILES) and seeds > 1:
            # The mean over sets, seed by seed.
            over = {arm: np.mean([values[:seeds] for values in means[arm]], axis=0) for arm in ARMS}
            gains = [difference(over[a], over[b]) for a, b in (ARMS[1::-1], ARMS[2::-2], ARMS[1:3])]
            before, after = PAPER[size]
            print(
                f"| {size or 'all'} | **mean** | {seeds} | {over['none'].mean():.1f} (paper {before}) | {gains[0]} "
                f"(paper +{after - before:.1f}) | {gains[1]} | {gains[2]} |"
            )


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """Mean of the paired differences, with its 95 % interval (t over seeds)."""
    gains = one - other
    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    return f"{gains.mean():+.2f} ± {half:.2f}"


def rows_of(size: str) -> int | None:
    return None if size == "all" else int(size)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="PART")
    part = parts.add_parser("run", help="train and test what is not in --results yet")
    part.add_argument("--data_dir", type=Path, required=True)
    part.add_argument("--wordnet_dir", type=Path, required=True)
    part.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    part.add_argument("--sizes", nargs="+", type=rows_of, choices=SIZES, default=list(SIZES), help="rows, or all")
    part.add_argument("--seeds", type=int, default=5)
    part.add_argument("--width", type=int, default=100, help="of a word's vector")
    part.add_argument("--shard", default="0/1")
    part.set_defaults(run=run_all)
    tabled = parts.add_parser("tables", help="print what is in --results")
    tabled.set_defaults(run=tables)
    for each in (part, tabled):
        each.add_argument("--results", type=Path, default=Path("outputs/augmentation.jsonl"))
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main(sys.argv[1:])
