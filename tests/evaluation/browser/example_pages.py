"""Reports of every kind, on texts that are made up, for a browser to look at."""

import json
import random
from pathlib import Path

import numpy as np

from hf_ext import (
    DataArguments,
    Predictions,
    PreprocessingArguments,
    Supplements,
    compare_models,
    metric_intervals,
    preflight,
    preprocess,
    write_report,
)
from hf_ext.evaluation.comparison import all_metrics
from hf_ext.evaluation.figures import draw_schedule
from hf_ext.evaluation.report import Image

WORDS = (
    *("the", "plot", "of", "this", "film", "is", "slow", "but", "its", "music", "and", "light", "carry", "a", "tired"),
    *("story", "to", "an", "end", "that", "nobody", "expected"),
)
EMOTIONS = (
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire"),
    *("disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy"),
    *("love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
)
ODD_TEXTS = (
    "<script>alert('from the data')</script> & <b>bold</b>",
    "averylongwordwithoutanyblank" * 12,
    "مرحبا بالعالم، هذا نص من اليمين إلى اليسار",
    "中文文本没有空格但是仍然需要换行显示在手机上",
)


def some_text(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randrange(4, 40)))


def texts(rows: int) -> list[str]:
    generator = random.Random(rows)
    return [*ODD_TEXTS, *(some_text(generator) for _ in range(rows - len(ODD_TEXTS)))][:rows]


def exclusive(rows: int, names: list[str], signal: float = 2.0, seed: int = 0, labelled: bool = True) -> Predictions:
    labels = np.random.default_rng(1).integers(0, len(names), rows)
    logits = np.random.default_rng(seed).normal(size=(rows, len(names)))
    logits[np.arange(rows), labels] += signal
    return Predictions.from_logits(
        2 * logits,
        labels if labelled else None,
        texts(rows),
        problem_type="single_label_classification",
        label_names=names,
    )


def several(rows: int, names: list[str]) -> Predictions:
    generator = np.random.default_rng(0)
    labels = (generator.random((rows, len(names))) < np.linspace(0.02, 0.3, len(names))).astype(int)
    logits = generator.normal(size=labels.shape) + 3 * labels - 2.5
    return Predictions.from_logits(
        logits, labels, texts(rows), problem_type="multi_label_classification", label_names=names
    )


def values(rows: int) -> Predictions:
    true = np.random.default_rng(0).normal(size=rows)
    noise = np.random.default_rng(1).normal(size=rows)
    pairs = [(text, text[::-1]) for text in texts(rows)]
    return Predictions.from_logits(true + noise / 2, true, pairs, problem_type="regression", label_names=["value"])


def history(steps: int = 60) -> list[dict]:
    rates = [f"learning_rate/{name}" for name in ("embeddings", *(f"layer_{i}" for i in range(6)), "head")]
    entries = []
    for step in range(1, steps + 1):
        entry = {
            "step": 10 * step,
            "loss": 1 / step + 0.2,
            "grad_norm": 2 + step % 5,
            "curriculum/difficulty": step / 60,
        }
        entry["curriculum/difficulty"] = step / steps
        entries.append(entry | {name: 1e-4 * 0.7**i * (1 - step / 61) for i, name in enumerate(rates)})
        if step % 10 == 0:
            entries.append({"step": 10 * step, "eval_loss": 0.5 + 1 / step, "eval_accuracy": 1 - 1 / step})
    summary = {"train_runtime": 223.4, "train_samples_per_second": 812.3, "total_flos": 1e15}
    return [*entries, {"step": 10 * steps, **summary}]


RUN = {
    "command": ["run_classification.py", "--train_file", "a/long/path/" + "folder/" * 20 + "train.json"],
    "arguments": {"training": {"learning_rate": 1e-4, "bf16": True}, "data": {"train_file": "train.json"}},
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "code": {"git_commit": "0" * 40, "git_dirty": False},
    "hardware": {"cpu": "A processor", "cpu_cores": 2, "torch_threads": 2},
    "data": {"train": "f" * 64},
    "model": {"parameters": 22_713_216, "megabytes": 90.85},
    "times": {"started": "2026-11-25T20:00:00+00:00", "seconds": 301.2},
    "memory": {"peak_cpu_memory_mib": 1234},
}
NOTES = ["A tenth of the training rows was held out for validation.", "Texts are cut to 128 tokens: 12 of 9,000 were."]


def comparison(names: list[str]):
    models = {
        "teacher": exclusive(800, names, 2.2, 3),
        "student of a rather long name": exclusive(800, names, 1.9, 4),
        "control": exclusive(800, names, 1.5, 5),
    }
    costs = {
        name: {"parameters": size, "megabytes": size * 4 / 1e6, "texts_per_second": speed, "speed_up": speed / 131}
        for name, size, speed in zip(models, (22_713_216, 4_012_345, 4_012_345), (131.2, 6123.4, 6085.0), strict=True)
    }
    first, second, third = models
    return compare_models(models, [(second, first), (second, third)], costs)


def findings() -> dict:
    generator = random.Random(5)
    train = [{"text": some_text(generator), "label": ("no", "yes")[i % 9 == 0]} for i in range(300)]
    test = [*train[:4], *({"text": f"{some_text(generator)} naÃ¯ve &amp; <b>", "label": "yes"} for _ in range(30))]
    return preflight({"train": train, "test": test}, progress=False).as_dict()


def write_pages(folder: Path) -> list[Path]:
    """Write the reports and the page of preprocessing; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_schedule(folder / "unfreezing.png", {"head": 0, "layer 5": 100, "layer 4": 200, "embeddings": 300}, 600)
    questions = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
    full = Supplements(
        images=[Image("Gradual unfreezing", folder / "unfreezing.png", "What is trained from which step on.")],
        augmented=[("the film is slow", "the movie is slow"), (ODD_TEXTS[0], ODD_TEXTS[1])],
        preflight=findings(),
        comparisons={"test": comparison(["negative", "positive"])},
    )
    kinds = {
        "two_classes": {
            "validation": exclusive(400, ["negative", "positive"], 1.5),
            "test": exclusive(1200, ["negative", "positive"], 1.2, 1),
        },
        "six_classes": {"test": exclusive(1500, questions)},
        "twenty_classes": {"test": exclusive(4000, [f"{name} and more" for name in EMOTIONS[:20]])},
        "many_classes": {"test": exclusive(5000, [f"intent {i}: {EMOTIONS[i % 28]}" for i in range(150)], 3.0)},
        "several_labels": {"test": several(3000, list(EMOTIONS))},
        "values": {"test": values(600)},
        "unlabelled": {"predict": exclusive(50, questions, labelled=False)},
    }
    pages = []
    for kind, splits in kinds.items():
        labelled = {name: data for name, data in splits.items() if data.labels is not None}
        pages.append(
            write_report(
                folder / f"{kind}.html",
                title=f"Report with {kind.replace('_', ' ')}",
                splits=splits,
                metrics={name: {**all_metrics(data), "loss": 0.4321} for name, data in labelled.items()},
                intervals={name: metric_intervals(data) for name, data in labelled.items()},
                history=[] if kind == "unlabelled" else history(),
                run=RUN,
                notes=NOTES,
                supplements=full if kind == "two_classes" else Supplements(),
            )
        )
    return [*pages, data_page(folder)]


def data_page(folder: Path) -> Path:
    generator, raw = random.Random(3), folder / "raw"
    raw.mkdir(exist_ok=True)
    rows = [{"text": some_text(generator), "label": ("no", "yes")[i % 2]} for i in range(400)]
    rows += [
        {"text": text, "label": "yes"} for text in (*ODD_TEXTS, *ODD_TEXTS, "see http://example.org/ now   please")
    ]
    (raw / "train.json").write_text(json.dumps([*rows, {**rows[0], "label": "yes"}, {**rows[0], "label": "no"}]))
    preprocess(raw, folder / "clean", PreprocessingArguments(), DataArguments(test_size=0.1), True, progress=False)
    return folder / "clean" / "data_report.html"
