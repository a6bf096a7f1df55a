"""The TextCNN on the benchmarks of Kim (2014), table 2: test accuracy, mean and standard deviation over seeds.

    python benchmarks/kim2014.py --data_dir DIR [--sets trec6 sst2] [--seeds 5]

DIR holds one folder a benchmark: trec6/{train,test}.json, sst2/{train_phrases,validation,test}.json, as JSON arrays of
{"text": ..., "label": ...}. Each (set, seed) is appended to benchmarks/runs/kim2014.jsonl when it is done; a second
call goes on where the first stopped. Two CPU cores: TREC-6 about 1 minute a seed, SST-2 about 3.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from transformers import DataCollatorWithPadding, set_seed

from hf_ext import (
    DataArguments,
    ExtendedTrainer,
    ModelArguments,
    RecipeTrainingArguments,
    TextCNNArguments,
    build_compute_metrics,
    build_textcnn,
    complete_training_values,
    load_text_data,
    tokenize_dataset,
)

RUNS = Path(__file__).parent / "runs" / "kim2014.jsonl"
KIM = {"trec6": 91.2, "sst2": 82.7}
FILES = {
    "trec6": {"train_file": "train.json", "test_file": "test.json"},
    "sst2": {"train_file": "train_phrases.json", "validation_file": "validation.json", "test_file": "test.json"},
}
TRAINING = {
    "trec6": {"num_train_epochs": 8, "eval_strategy": "epoch"},
    # A pass over the phrases sees each training sentence several times, so the model is chosen within epochs too.
    "sst2": {"num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 385},
}


def run(name: str, seed: int, data_dir: Path) -> dict:
    model_args = ModelArguments(model_type="textcnn")
    files = {field: str(data_dir / name / file) for field, file in FILES[name].items()}
    splits = ("train", "validation", "test")
    data = load_text_data(DataArguments(**files, split_seed=seed), model_args, splits)
    set_seed(seed)
    model, tokenizer, _ = build_textcnn(model_args, TextCNNArguments(max_norm=3.0), data.task, data.texts("train"), 128)
    encoded = {split: tokenize_dataset(dataset, tokenizer, 128) for split, dataset in data.splits.items()}
    with tempfile.TemporaryDirectory() as output_dir:
        values = {
            "output_dir": output_dir,
            "seed": seed,
            "per_device_train_batch_size": 50,
            "per_device_eval_batch_size": 256,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
            "save_total_limit": 1,
            "save_only_model": True,
            "do_train": True,
            "disable_tqdm": True,
            **TRAINING[name],
        }
        values = complete_training_values(values)
        fields = RecipeTrainingArguments.__dataclass_fields__
        trainer = ExtendedTrainer(
            model=model,
            args=RecipeTrainingArguments(**{field: value for field, value in values.items() if field in fields}),
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=build_compute_metrics(data.task.problem_type),
        )
        started = time.time()
        trainer.train()
        seconds = time.time() - started
        accuracy = 100 * trainer.predict(encoded["test"]).metrics["test_accuracy"]
    return {
        "set": name,
        "seed": seed,
        "accuracy": round(accuracy, 2),
        "validation": round(100 * trainer.state.best_metric, 2),
        "best_step": trainer.state.best_global_step,
        "seconds": round(seconds),
        "precision": values["mixed_precision"]
        if values["mixed_precision"] != "auto"
        else ("bf16" if values["bf16"] else "fp32"),
    }


def table(results: list[dict]) -> str:
    lines = ["| set | Kim (2014) CNN-rand | here, mean | sd | seeds | seconds a seed |", "|---|---|---|---|---|---|"]
    for name in FILES:
        rows = [row for row in results if row["set"] == name]
        if rows:
            scores = [row["accuracy"] for row in rows]
            sd = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
            seconds = statistics.median(row["seconds"] for row in rows)
            lines.append(
                f"| {name} | {KIM[name]} | {statistics.mean(scores):.2f} | {sd} | {len(rows)} | {seconds:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    RUNS.parent.mkdir(exist_ok=True)
    results = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    for name in args.sets:
        for seed in range(args.seeds):
            if any(row["set"] == name and row["seed"] == seed for row in results):
                continue
            results.append(run(name, seed, args.data_dir))
            print(json.dumps(results[-1]), flush=True)
            with RUNS.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
