"""fastText beside the TextCNN: accuracy, and texts a second on one thread, from raw text to class."""

import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

from hf_ext.errors import DataError
from peer_parts.environments import ARMS, arm_environment, note_missing, peer_python, print_missing
from peer_parts.floor import columns, read_floors, under_floor
from peer_parts.protocols import check_sets, read_splits, score
from peer_parts.runs import mean_and_sd, once, predicted_labels, read_results, run_recipe, shown_set, spread, write_json

PACKAGE = "fasttext"
SETS = ("sst2_phrases", "trec6", "r8")
# The rates of Joulin et al. (2016) and of the tutorial, pairs of words, few passes and many; the rest is the default.
GRID = [{"lr": lr, "epoch": epoch, "wordNgrams": 2} for lr, epoch in product((0.1, 0.25, 0.5, 1.0), (5, 25))]
TEXTCNN = {
    "model_type": "textcnn",
    "embed_size": 300,
    "num_filters": 100,
    "max_norm": 3.0,
    "per_device_train_batch_size": 50,
    "per_device_eval_batch_size": 256,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "save_total_limit": 1,
    "save_only_model": True,
    "preflight": "off",
    "report_to": "none",
    "overwrite": True,
}
OWN = {
    "sst2_phrases": {"num_train_epochs": 3, "max_seq_length": 64},
    "trec6": {"num_train_epochs": 8, "max_seq_length": 64},
    "r8": {"num_train_epochs": 8, "max_seq_length": 256},
}
BATCH, ROUND_SECONDS = 32, 1.0
STUDENT = "distilled TextCNN"


def run(args) -> None:
    """Accuracy of each seed, then the speeds, in turns in one run."""
    names = args.sets or SETS
    check_sets(args.data_dir, names, SETS)
    folder = args.work_dir / "fasttext"
    for name in names if args.student else ():
        student_of(args.student, name)
    python = None
    with note_missing(folder, PACKAGE):
        python = peer_python(args.work_dir, "fasttext")
    for name, seed in product(names, range(args.seeds)):
        key = {"set": name, "seed": seed, "max_rows": args.max_rows}
        splits = with_validation(read_splits(args.data_dir, name, args.max_rows), seed)
        if python is not None:
            settings = {**key, "model": "fastText", "grid": GRID}
            once(folder / f"{name}_{seed}_fasttext.json", settings, partial(with_fasttext, python, key, splits))
        settings = {**key, "model": "TextCNN", **TEXTCNN, **OWN[name]}
        once(folder / f"{name}_{seed}_textcnn.json", settings, partial(with_textcnn, folder, key, splits))
    for name in names if python is not None else ():
        student = str(args.student) if args.student else None
        key = {"set": name, "rounds": args.rounds, "max_rows": args.max_rows, "student": student}
        once(folder / f"{name}_speed.json", key, partial(speeds, args, python, name))


def with_validation(splits: dict[str, list[dict]], seed: int) -> dict[str, list[dict]]:
    """A tenth of the training rows validates where no file does; labels become numbers."""
    from sklearn.model_selection import train_test_split

    if "validation" not in splits:
        labels = columns(splits["train"])[1]
        train, validation = train_test_split(splits["train"], test_size=0.1, random_state=seed, stratify=labels)
        splits = {**splits, "train": train, "validation": validation}
    classes = sorted({row["label"] for row in splits["train"]})
    numbers = {label: number for number, label in enumerate(classes)}
    return {
        split: [{"text": row["text"], "label": numbers[row["label"]]} for row in rows] for split, rows in splits.items()
    }


# ---- fastText ----


@contextmanager
def fasttext_process(python: Path, splits: dict, seed: int, grid: list[dict]) -> Iterator[subprocess.Popen]:
    """`arms/fasttext_arm.py` at work."""
    settings = {
        split: dict(zip(("text", "label"), columns(splits[split]), strict=True)) for split in ("train", "validation")
    }
    settings |= {"test": columns(splits["test"])[0], "seed": seed, "grid": grid, "package": PACKAGE}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.json"
        write_json(file, settings)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(
            [python, ARMS / "fasttext_arm.py", file], text=True, env=arm_environment(), cwd=folder, **pipes
        ) as process:
            yield process
            process.stdin.close()


def answer(process: subprocess.Popen):
    line = process.stdout.readline()
    if not line:
        raise SystemExit("fastText failed: its message stands above.")
    return json.loads(line)


def with_fasttext(python: Path, key: dict, splits: dict) -> dict:
    with fasttext_process(python, splits, key["seed"], GRID) as process:
        found = answer(process)
    return {**score(key["set"], columns(splits["test"])[1], found.pop("predictions")), **found}


# ---- TextCNN ----


def with_textcnn(folder: Path, key: dict, splits: dict) -> dict:
    """Train it by the recipe. The first seed's model stays, to be timed."""
    title = f"{key['set']}_{key['seed']}"
    run_dir, log = folder / "runs" / title, folder / "logs" / f"{title}.log"
    for split, rows in splits.items():
        write_json(run_dir / f"{split}.json", rows)
    settings = {f"{split}_file": str(run_dir / f"{split}.json") for split in splits}
    settings |= {**TEXTCNN, **OWN[key["set"]], "seed": key["seed"], "output_dir": str(run_dir / "model")}
    started = time.perf_counter()
    run_recipe("run_classification.py", settings, run_dir / "settings.json", log)
    seconds = time.perf_counter() - started
    predictions = [int(label) for label in predicted_labels(run_dir / "model")]
    if key["seed"]:
        shutil.rmtree(run_dir)
    return {**score(key["set"], columns(splits["test"])[1], predictions), "train_seconds": seconds}


def student_of(students: Path, name: str) -> Path:
    """
    The folder of a distilled student, as `benchmarks/distillation.py students` leaves it for its first seed.

    Raises:
        DataError: If it isn't there.
    """
    folder = students / f"{name.removesuffix('_phrases')}_0"
    if not (folder / "config.json").is_file():
        raise DataError(
            f"--student {students}: there is no model in {folder}. Make it with benchmarks/distillation.py students, "
            "or leave the set out with --sets."
        )
    return folder


def textcnn_classifier(folder: Path, length: int) -> Callable[[list[str]], list[str]]:
    """From raw texts to names of classes, in batches as they come."""
    import torch

    from hf_ext import ModelArguments, load_classifier

    torch.set_num_threads(1)
    model, tokenizer = load_classifier(ModelArguments(model_name_or_path=str(folder)))
    model.eval()
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]

    def classify(texts: list[str]) -> list[str]:
        found = []
        with torch.inference_mode():
            for begin in range(0, len(texts), BATCH):
                batch = texts[begin : begin + BATCH]
                ids = tokenizer(batch, truncation=True, max_length=length, padding=True, return_tensors="pt")
                found += [names[number] for number in model(**ids).logits.argmax(-1).tolist()]
        return found

    return classify


# ---- Speed ----


def speeds(args, python: Path, name: str) -> dict:
    """Texts a second of each round; every other round runs backwards."""
    given = read_splits(args.data_dir, name, args.max_rows)
    texts, labels = columns(given["test"])
    folder, length, found = args.work_dir / "fasttext", OWN[name]["max_seq_length"], {"texts": len(texts)}
    models = {"TextCNN": textcnn_classifier(folder / "runs" / f"{name}_0" / "model", length)}
    if args.student:
        models[STUDENT] = textcnn_classifier(student_of(args.student, name), length)
        found[STUDENT] = score(name, [str(label) for label in labels], models[STUDENT](texts))
    timed = {model: partial(seconds_of, classify, texts) for model, classify in models.items()}
    chosen = json.loads((folder / f"{name}_0_fasttext.json").read_text())["chosen"]
    with fasttext_process(python, with_validation(given, 0), 0, [chosen]) as process:
        answer(process)
        timed["fastText"] = partial(seconds_of_process, process)
        passes = {model: passes_of(seconds) for model, seconds in timed.items()}
        rates: dict[str, list[float]] = {model: [] for model in timed}
        for number in range(args.rounds):
            for model in list(timed)[:: 1 - 2 * (number % 2)]:
                rates[model].append(passes[model] * len(texts) / timed[model](passes[model]))
    return {**found, "texts_per_second": rates}


def seconds_of(classify: Callable[[list[str]], list[str]], texts: list[str], passes: int) -> float:
    started = time.perf_counter()
    for _ in range(passes):
        classify(texts)
    return time.perf_counter() - started


def seconds_of_process(process: subprocess.Popen, passes: int) -> float:
    process.stdin.write(f"{passes}\n")
    process.stdin.flush()
    return answer(process)


def passes_of(seconds: Callable[[int], float]) -> int:
    """As many passes as take a second, after one that warms up."""
    seconds(1)
    return max(1, round(ROUND_SECONDS / seconds(1)))


# ---- Tables ----


def tables(args) -> None:
    folder = args.work_dir / "fasttext"
    results = read_results(folder)
    if not results:
        return
    print("\nfastText and the TextCNN: test accuracy in %, mean (sd); texts a second on one thread, median (range):\n")
    print_missing(folder)
    print("| set | model | accuracy | seeds | s to train | texts/s | times fastText |\n|---|---|---|---|---|---|---|")
    floors = read_floors()
    for name in SETS:
        runs = [found for found in results if found["settings"]["set"] == name]
        speed = next((found for found in runs if "texts_per_second" in found), {"texts_per_second": {}})
        by_model: dict[str, list[dict]] = {}
        for found in runs:
            if found is not speed:
                by_model.setdefault(found["settings"]["model"], []).append(found)
        if STUDENT in speed:
            by_model[STUDENT] = [speed[STUDENT]]
        for model, own in by_model.items():
            values = [found["value"] for found in own]
            floor = floors.get(name) if runs[0]["settings"]["max_rows"] is None else None
            shown = under_floor(mean_and_sd(values), statistics.mean(values), floor)
            seconds = [found["train_seconds"] for found in own if "train_seconds" in found]
            trained = spread(seconds, ".0f") if seconds else ""
            rates = speed_cells(speed["texts_per_second"], model)
            print(f"| {shown_set(runs[0]['settings'])} | {model} | {shown} | {len(own)} | {trained} | {rates} |")


def speed_cells(rates: dict[str, list[float]], model: str) -> str:
    if model not in rates:
        return " | "
    ratios = [own / other for own, other in zip(rates[model], rates["fastText"], strict=True)]
    return f"{spread(rates[model], ',.0f')} | {spread(ratios, '.2f')}"
