"""fastText: trained on the best of a grid, then timed as often as it is asked to. Runs in its own environment.

    fasttext_arm.py SETTINGS.json

Prints a line of JSON with the predictions, then, for each line of standard input, which holds a number of passes over
the test texts, a line with the seconds that they took from raw text to class.
"""

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import fasttext

PREFIX = "__label__"


def lines_of(texts: list[str]) -> list[str]:
    """fastText takes words between blanks, one text a line."""
    return [" ".join(text.lower().split()) for text in texts]


def train(file: Path, parameters: dict, seed: int):
    return fasttext.train_supervised(str(file), **parameters, seed=seed, thread=1, verbose=0)


def classify(model, texts: list[str]) -> list[int]:
    return [int(labels[0].removeprefix(PREFIX)) for labels in model.predict(lines_of(texts))[0]]


def main(given: str) -> None:
    settings = json.loads(Path(given).read_text())
    # What the library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        rows = zip(settings["train"]["label"], lines_of(settings["train"]["text"]), strict=True)
        file.write_text("".join(f"{PREFIX}{label} {line}\n" for label, line in rows), encoding="utf-8")
        best, right = None, -1
        validation = settings["validation"]
        for parameters in settings["grid"]:
            model = train(file, parameters, settings["seed"])
            found = classify(model, validation["text"])
            hits = sum(a == b for a, b in zip(found, validation["label"], strict=True))
            if hits > right:
                best, right, chosen = model, hits, parameters
    seconds = time.perf_counter() - started
    predictions = classify(best, settings["test"])
    versions = {settings["package"]: version(settings["package"]), "numpy": version("numpy")}
    first = {"predictions": predictions, "chosen": chosen, "train_seconds": seconds, "versions": versions}
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            classify(best, settings["test"])
        print(time.perf_counter() - started, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
