"""SetFit on a few rows: settings.json -> found.json. Runs in SetFit's own environment."""

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

TAKEN = ("num_iterations", "num_epochs", "batch_size", "body_learning_rate", "max_length", "seed")


def main(given: str, found: str) -> None:
    settings = json.loads(Path(given).read_text())
    model = SetFitModel.from_pretrained(settings["encoder"])
    rows = Dataset.from_list([{"text": text, "label": label} for text, label in settings["train"]])
    with tempfile.TemporaryDirectory() as output_dir:
        taken = {name: settings[name] for name in TAKEN}
        arguments = TrainingArguments(output_dir=output_dir, report_to="none", save_strategy="no", **taken)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        started = time.perf_counter()
        trainer.train()
        train_seconds = time.perf_counter() - started
    predictions = [int(label) for label in model.predict(settings["test"], show_progress_bar=False)]
    result = {
        "predictions": predictions,
        "train_seconds": train_seconds,
        "versions": {name: version(name) for name in ("setfit", "sentence-transformers", "transformers", "torch")},
    }
    Path(found).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
