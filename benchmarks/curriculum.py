"""Curriculum learning measured: the TextCNN with easy rows first, hard rows first, a random share, and all rows.

    python benchmarks/curriculum.py run --data_dir DIR [--seeds 8] [--shard 0/2]
    python benchmarks/curriculum.py tables

--data_dir holds mr/all.json (divided 80/10/10 here, stratified) and trec6/{train,test}.json (a tenth of train is
validated on). With noise, the labels of 30 % of the training and validation rows are replaced by another one, drawn
uniformly; the test labels stay as they are. All modes of a setting make the same number of steps, on the pacing that a
CurriculumCallback has by default (from 30 % of each label's rows to all of them in the first half of the training). The
difficulty is the out-of-fold loss (cross review, 5 folds, computed once for each set and noise and cached) or the
length. Every run is a line of --results (outputs/curriculum.jsonl); what stands there is not run again, so a stopped
benchmark continues, and several processes share one list with --shard 0/2 and --shard 1/2. `tables` prints what is
there: the test accuracy at the end, and at the epoch that was best on validation, each with the paired difference to
training on all rows.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import train_test_split
from transformers import DataCollatorWithPadding, set_seed

from hf_ext import (
    CurriculumCallback,
    CurriculumScheduler,
    DataArguments,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    ModelArguments,
    TextCNNArguments,
    build_compute_metrics,
    build_textcnn,
    cross_review_scores,
    load_text_data,
    tokenize_dataset,
)
from hf_ext.precision import cpu_has_bf16

SETS = ("mr", "trec6")
NOISES = (0.0, 0.3)
EPOCHS = (2, 8)
ARMS = (
    ("none", None),
    ("random", None),
    *((mode, scorer) for scorer in ("cross_review", "length") for mode in ("curriculum", "anti")),
)
# Of the models that score the rows: enough to learn, too few to learn wrong labels of their own folds by heart.
REVIEW_EPOCHS = 2
SPLIT_SEED = 0
# A stream of random numbers that nothing else draws from.
NOISE = 7


class Setup:
    """One data set with its noise, tokenised, and the difficulty of its training rows."""

    def __init__(self, args, name: str, noise: float):
        self.name, self.noise, self.cache_dir = name, noise, args.cache_dir
        self.model_args = ModelArguments(model_type="textcnn")
        folder = args.data_dir / name
        if name == "mr":
            files = {"train_file": str(folder / "all.json")}
        else:
            files = {"train_file": str(folder / "train.json"), "test_file": str(folder / "test.json")}
        sizes = {"validation_size": 0.0, "test_size": 0.0}
        self.data = load_text_data(DataArguments(**files, **sizes), self.model_args, ("train", "test"))
        self._divide()
        self._flip()
        self.tokenizer = self._build(0)[1]
        self.encoded = {split: tokenize_dataset(rows, self.tokenizer, 128) for split, rows in self.data.splits.items()}
        self.scores: np.ndarray | None = None

    def _divide(self) -> None:
        splits = self.data.splits
        for split, share in (("test", 0.1), ("validation", 1 / 9 if "test" not in splits else 0.1)):
            if split in splits:
                continue
            rows, labels = splits["train"], splits["train"]["label"][:]
            kept, held = train_test_split(
                np.arange(len(rows)), test_size=share, random_state=SPLIT_SEED, stratify=labels
            )
            splits[split], splits["train"] = rows.select(np.sort(held)), rows.select(np.sort(kept))

    def _flip(self) -> None:
        classes = len(self.data.task.label_names)
        for number, split in enumerate(("train", "validation")):
            generator = np.random.default_rng([SPLIT_SEED, number, NOISE])
            rows = self.data.splits[split]
            labels = np.array(rows["label"])
            wrong = generator.permutation(len(labels))[: round(self.noise * len(labels))]
            labels[wrong] = (labels[wrong] + generator.integers(1, classes, size=len(wrong))) % classes
            self.data.splits[split] = rows.remove_columns("label").add_column("label", labels.tolist())

    def _build(self, seed: int):
        set_seed(seed)
        return build_textcnn(
            self.model_args,
            TextCNNArguments(embed_size=100, max_norm=3.0),
            self.data.task,
            self.data.texts("train"),
            128,
        )

    def trainer(self, output_dir: str, train_dataset, epochs: int, seed: int, evaluate=None, callbacks=()):
        arguments = ExtendedTrainingArguments(
            output_dir,
            seed=seed,
            num_train_epochs=epochs,
            per_device_train_batch_size=50,
            per_device_eval_batch_size=256,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch" if evaluate else "no",
            save_strategy="no",
            logging_steps=1000,
            bf16=cpu_has_bf16(),
            use_cpu=True,
            disable_tqdm=True,
        )
        return ExtendedTrainer(
            model=self._build(seed)[0],
            args=arguments,
            train_dataset=train_dataset,
            eval_dataset=evaluate,
            processing_class=self.tokenizer,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=build_compute_metrics(self.data.task.problem_type),
            callbacks=list(callbacks),
        )

    def difficulty(self, scorer: str | None):
        """What a callback takes; out-of-fold losses are computed when they are first asked for."""
        if scorer != "cross_review":
            return scorer or "length"
        if self.scores is None:
            train = self.encoded["train"]
            with tempfile.TemporaryDirectory() as folder:
                self.scores = cross_review_scores(
                    lambda rows: self.trainer(folder, rows, REVIEW_EPOCHS, 42),
                    train,
                    train["labels"][:],
                    cache_dir=self.cache_dir,
                    fingerprint=f"textcnn 100 d, max_norm 3, batch 50, 1e-3 constant, {REVIEW_EPOCHS} epochs",
                )
        return self.scores

    def run(self, epochs: int, mode: str, scorer: str | None, seed: int, final_difficulty: float) -> dict:
        """Train once; accuracies on validation and test after each epoch."""
        scheduler = CurriculumScheduler(final_difficulty=final_difficulty, num_epochs=None)
        curriculum = CurriculumCallback(self.difficulty(scorer), scheduler, mode)
        evaluate = {split: self.encoded[split] for split in ("validation", "test")}
        with tempfile.TemporaryDirectory() as output_dir:
            trainer = self.trainer(output_dir, self.encoded["train"], epochs, seed, evaluate, [curriculum])
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
        curves = {
            split: [100 * log[key] for log in trainer.state.log_history if key in log]
            for split, key in ((split, f"eval_{split}_accuracy") for split in evaluate)
        }
        best = int(np.argmax(curves["validation"]))
        return {
            "last": curves["test"][-1],
            "best": curves["test"][best],
            "best_epoch": best + 1,
            **curves,
            "steps": trainer.state.global_step,
            "seconds": round(seconds, 1),
        }


class Results:
    """The runs done so far, a line each."""

    def __init__(self, path: Path, shard: tuple[int, int]):
        self.path, self.shard, self.asked = path, shard, 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def open_keys(self, keys: list[dict]) -> list[dict]:
        """Those of this shard that are still to be run."""
        done = self.read()
        mine = keys[self.shard[0] :: self.shard[1]]
        return [key for key in mine if not any(key.items() <= row.items() for row in done)]

    def add(self, key: dict, outcome: dict) -> None:
        row = {**key, **outcome}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print({name: value for name, value in row.items() if name not in ("validation", "test")}, file=sys.stderr)


def run(args, results: Results) -> None:
    keys = [
        {
            "set": name,
            "noise": noise,
            "epochs": epochs,
            "mode": mode,
            "scorer": scorer,
            "final_difficulty": args.final_difficulty if mode != "none" else 1.0,
            "seed": seed,
        }
        for seed in range(args.seeds)
        for name in args.sets
        for noise in args.noises
        for epochs in args.epochs
        for mode, scorer in ARMS
        if scorer in (None, *args.scorers)
    ]
    setups: dict[tuple, Setup] = {}
    for key in results.open_keys(keys):
        chosen = (key["set"], key["noise"])
        if chosen not in setups:
            setups[chosen] = Setup(args, *chosen)
        settings = {name: value for name, value in key.items() if name not in ("set", "noise")}
        results.add(key, setups[chosen].run(**settings))


def tables(results: Results) -> None:
    rows = results.read()
    for measure, title in (("last", "after the last epoch"), ("best", "at the epoch that was best on validation")):
        print(f"\nTest accuracy {title}:\n")
        print("| set | noise | epochs | mode | difficulty | mean | sd | seeds | minus all rows (95 % CI) | p |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for group in sorted({(row["set"], row["noise"], row["epochs"]) for row in rows}):
            mine = [row for row in rows if (row["set"], row["noise"], row["epochs"]) == group]
            base = {row["seed"]: row[measure] for row in mine if row["mode"] == "none"}
            arms = {(row["mode"], row["scorer"], row["final_difficulty"]): None for row in mine}
            for arm in arms:
                found = {
                    row["seed"]: row[measure]
                    for row in mine
                    if (row["mode"], row["scorer"], row["final_difficulty"]) == arm
                }
                print(_line(group, arm, found, base))


def _line(group: tuple, arm: tuple, found: dict[int, float], base: dict[int, float]) -> str:
    name, noise, epochs = group
    mode, scorer, final = arm
    values = list(found.values())
    sd = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
    gains = [found[seed] - base[seed] for seed in found if seed in base]
    gain, p = "", ""
    if mode != "none" and len(gains) > 1:
        test = stats.ttest_1samp(gains, 0.0)
        low, high = test.confidence_interval(0.95)
        gain = f"{statistics.mean(gains):+.2f} ({low:+.2f} to {high:+.2f})"
        p = "< 0.001" if test.pvalue < 0.001 else f"{test.pvalue:.3f}"
    difficulty = {None: "", "cross_review": "cross review"}.get(scorer, scorer)
    if final < 1:
        difficulty += f", up to {final:g}"
    return (
        f"| {name} | {100 * noise:.0f} % | {epochs} | {mode} | {difficulty} | {statistics.mean(values):.2f} | {sd} "
        f"| {len(values)} | {gain} | {p} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "tables"))
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--noises", nargs="+", type=float, default=list(NOISES))
    parser.add_argument("--epochs", nargs="+", type=int, default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--scorers", nargs="+", choices=("cross_review", "length"), default=["cross_review", "length"])
    parser.add_argument("--final_difficulty", type=float, default=1.0, help="below 1 the hardest rows are never used")
    parser.add_argument("--results", type=Path, default=Path("outputs/curriculum.jsonl"))
    parser.add_argument("--cache_dir", type=Path, default=Path("outputs/difficulty"))
    parser.add_argument("--shard", default="0/1", help="which part of the runs this process makes, as 0/2")
    args = parser.parse_args()
    number, count = map(int, args.shard.split("/"))
    results = Results(args.results, (number, count))
    if args.part == "tables":
        tables(results)
        return
    if args.data_dir is None:
        parser.error("--data_dir is missing")
    if count > 1:
        torch.set_num_threads(1)
    run(args, results)


if __name__ == "__main__":
    main()
