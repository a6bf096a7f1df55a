"""Every recipe by one process, by two on one machine, and by two "machines": is the result the same?

    python benchmarks/processes.py                      # all recipes, a few minutes
    python benchmarks/processes.py --only run_kfold run_classification

Small models on the CPU, joined by gloo; machines are two launchers on 127.0.0.1 with machine ranks 0 and 1, whose
`output_dir` differ as if they had disks of their own. Torch's elastic agent starts the processes, as under
`accelerate launch`; they are forked from this one, which saves the imports. The effective batch is the same in all.
"""

import argparse
import json
import multiprocessing
import os
import random
import runpy
import socket
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODES = {"one": (1, 1), "two": (2, 1), "machines": (1, 2)}
WORDS = {"positive": ["good", "great", "fine"], "negative": ["bad", "awful", "dull"]}
FILLER = ["the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]
# What is about the machine or the time, not about the model.
MEASURED = ("runtime", "seconds", "per_second", "total_flos", "model_preparation_time", "costs", "latency", "memory")

CNN = "--model_type textcnn --embed_size 8 --num_filters 4 --dropout_prob 0 --learning_rate 1e-2"
BERT = "--model_name_or_path {data}/bert --learning_rate 1e-3 --hidden_dropout_prob 0 --attention_probs_dropout_prob 0"
FILES = "--train_file {data}/train.json --validation_file {data}/dev.json --test_file {data}/test.json"
TRAIN = "--per_device_train_batch_size {batch} --num_train_epochs 2 --preflight off --mixed_precision no"
OUT = "--disable_tqdm true --output_dir {out}"
TASKS = '{"mood": {"train_file": "DATA/train.json"}, "other": {"train_file": "DATA/dev.json"}}'
RECIPES = {
    "run_classification": f"{CNN} {FILES} {TRAIN} {OUT}",
    "run_classification, BERT": f"{BERT} {FILES} {TRAIN} {OUT} --gradient_accumulation_steps 2 "
    "--unfreezing fraction --unfreezing_interval 0.3",
    "run_classification, curriculum": f"{CNN} {FILES} {TRAIN} {OUT} --curriculum cross_review --calibrate true",
    "run_classification, streaming": f"{CNN} {FILES} {TRAIN} {OUT} --streaming true --shuffle_buffer 40",
    "run_classification, copies": f"{CNN} {FILES} {TRAIN} {OUT} --augmentation_enabled true --class_weights balanced",
    "run_distillation": f"--teacher_name_or_path {{data}}/trained {CNN} {FILES} {TRAIN} {OUT}",
    "run_multitask": f"{BERT} {TRAIN} {OUT} --tasks TASKS",
    "run_kfold": f"{CNN} --train_file {{data}}/train.json {TRAIN} {OUT} --num_folds 3",
    "run_lr_finder": f"{CNN} --train_file {{data}}/train.json --per_device_train_batch_size {{batch}} {OUT} "
    "--lr_finder_num_iter 20",
    "run_evaluation": "--model_path {data}/trained --test_file {data}/test.json --output_dir {out}",
    "run_search": f"{CNN.removesuffix(' --learning_rate 1e-2')} {FILES} {TRAIN} {OUT} --search_space "
    '{"learning_rates":[1e-3,1e-2]}',
    "run_export": "--model_path {data}/trained --texts_file {data}/test.json --output_dir {out}",
    "run_comparison": "--predictions {data}/predictions.jsonl {data}/predictions.jsonl --names a b --output_dir {out}",
    "run_preprocessing": "--input_dir {data}/raw --output_dir {out}",
    "push_to_hub": "--model_dir {data}/trained --hub_model_id me/model --dry_run",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*RECIPES], default=[*RECIPES], metavar="RECIPE")
    wanted = parser.parse_args().only
    os.environ.update(
        OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_PROGRESS_BARS="1"
    )
    sys.path.insert(0, str(ROOT))
    import hf_ext  # noqa: F401  for the processes that are forked from here

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data)
        print(f"{'recipe':<32} {'processes':<10} {'weights differ by':>18}  {'results':<8} {'seconds':>7}")
        for name in wanted:
            show(name, Path(folder) / name.replace(", ", "_"), data)


def show(name: str, folder: Path, data: Path) -> None:
    """Run a recipe in all modes, and print a line for each but the first."""
    left = {}
    for mode in MODES:
        started = time.perf_counter()
        statuses = run(name, mode, folder, data)
        left[mode] = (statuses, folder / mode)
        if mode == "one":
            if any(statuses):
                print(f"{name} fails by itself:\n{(folder / mode / 'said_0').read_text()[-1500:]}")
                return
            continue
        seconds = time.perf_counter() - started
        said = (folder / mode / "said_0").read_text()
        if any(statuses):
            refusal = next((line for line in said.splitlines() if ": error: " in line), None)
            print(f"{name:<32} {mode:<10} {refusal or said[-1500:]}", flush=True)
            continue
        one, other = left["one"][1] / "out", left[mode][1] / "out"
        difference, results = weight_difference(one, other), differences(one, other)
        if (folder / mode / "out_1").exists():
            # Beside the state of its own random numbers, which the library keeps where a process is.
            wrote = [path.name for path in (folder / mode / "out_1").rglob("*") if path.is_file()]
            results += [f"machine 1 wrote {name}" for name in wrote if name != "rng_state_1.pth"]
        shown = "-" if difference is None else f"{difference:.1e}"
        print(
            f"{name:<32} {mode:<10} {shown:>18}  {'equal' if not results else 'DIFFER':<8} {seconds:>7.1f}", flush=True
        )
        for line in results:
            print(f"    {line}")


# ---- Processes ----


def run(name: str, mode: str, folder: Path, data: Path) -> list[int]:
    """The exit status of each launcher."""
    processes, machines = MODES[mode]
    (folder / mode).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    launchers = []
    for machine in range(machines):
        # A machine has a disk of its own.
        out = folder / mode / ("out" if machine == 0 else f"out_{machine}")
        values = {"data": data, "out": out, "batch": 8 // (processes * machines)}
        words = [word if word.startswith('{"') else word.format(**values) for word in RECIPES[name].split(" ")]
        words = [TASKS.replace("DATA", str(data)) if word == "TASKS" else word for word in words]
        recipe = str(ROOT / "recipes" / f"{name.split(',')[0]}.py")
        said = folder / mode / f"said_{machine}"
        launchers.append(
            context.Process(target=launch, args=([recipe, *words], processes, machines, machine, port, said))
        )
    for launcher in launchers:
        launcher.start()
    for launcher in launchers:
        launcher.join(600)
        if launcher.is_alive():
            launcher.kill()
            launcher.join()
    return [launcher.exitcode for launcher in launchers]


def launch(words: list[str], processes: int, machines: int, machine: int, port: int, said: Path) -> None:
    """What `accelerate launch` does on a machine, with all that is said in a file."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    file = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if processes * machines == 1:
        work(words)
        return
    config = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=processes,
        run_id="none",
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs={"rank": machine, "timeout": 300},
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, work)(words)


def work(words: list[str]) -> None:
    """A process of a run."""
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


# ---- Data and results ----


def write_data(folder: Path) -> None:
    """Sentences, a small BERT, and a classifier of it."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel, set_seed

    from hf_ext import build_word_tokenizer

    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": 103, "dev": 37, "test": 41}.items()):
        generator = random.Random(seed)
        rows = []
        for index in range(count):
            label = [*WORDS][index % 2]
            words = generator.choices(FILLER, k=generator.randint(2, 8)) + generator.choices(WORDS[label], k=2)
            generator.shuffle(words)
            rows.append({"text": " ".join([*words, str(index)]), "label": label})
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "raw").mkdir()
    (folder / "raw" / "all.json").write_text((folder / "train.json").read_text())
    answers = [
        {
            "index": index,
            "label": row["label"],
            "prediction": row["label"],
            "probabilities": {"negative": 0.4, "positive": 0.6},
            "text": row["text"],
        }
        for index, row in enumerate(json.loads((folder / "test.json").read_text()))
    ]
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, answers)))
    set_seed(0)
    tokenizer = build_word_tokenizer([" ".join([*FILLER, *WORDS["positive"], *WORDS["negative"]])], model_max_length=32)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    labels = dict(enumerate(sorted(WORDS)))
    config = BertConfig(
        vocab_size=len(tokenizer), id2label=labels, label2id={name: index for index, name in labels.items()}, **sizes
    )
    BertForSequenceClassification(config).save_pretrained(folder / "trained")
    for name in ("bert", "trained"):
        tokenizer.save_pretrained(folder / name)


def weight_difference(one: Path, other: Path) -> float | None:
    """The largest difference between any two weights of the models in two folders; `None` if there are no models."""
    from safetensors.torch import load_file

    largest = None
    for path in sorted(one.rglob("model.safetensors")):
        if "checkpoint-" in str(path):
            continue
        theirs = load_file(other / path.relative_to(one))
        for name, value in load_file(path).items():
            largest = max(largest or 0.0, (value - theirs[name]).abs().max().item())
    return largest


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in the results and predictions of two runs, and files that only one of them left."""
    found = []
    for path in sorted(one.rglob("*.json*")):
        name = path.relative_to(one)
        is_result = path.name.endswith(
            ("_results.json", "lr_finder.json", "calibration.json", "distillation.json", "multitask.json")
        )
        if "checkpoint-" in str(name) or not (is_result or path.name.startswith("predictions")):
            continue
        if not (other / name).exists():
            found.append(f"{name} is missing")
            continue
        values, theirs = (
            [json.loads(line) for line in file.read_text().splitlines()]
            if path.suffix == ".jsonl"
            else json.loads(file.read_text())
            for file in (path, other / name)
        )
        found += [f"{name}: {line}" for line in unequal(values, theirs)][:5]
    for folder, name in ((other, "training.log"), (other, "run.json")):
        if (one / name).exists() != (folder / name).exists():
            found.append(f"{name} is missing")
    return found


def unequal(value, other, where: str = "") -> list[str]:
    """Places in which two JSON values differ; numbers by more than a thousandth."""
    if isinstance(value, dict) and isinstance(other, dict):
        names = [name for name in {**value, **other} if not any(word in name for word in MEASURED)]
        return [line for name in names for line in unequal(value.get(name), other.get(name), f"{where}.{name}")]
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return [
            line
            for place, pair in enumerate(zip(value, other, strict=True))
            for line in unequal(*pair, f"{where}[{place}]")
        ]
    if isinstance(value, float) and isinstance(other, float):
        return [] if abs(value - other) <= 1e-3 * max(1.0, abs(value)) else [f"{where}: {value} and {other}"]
    return [] if value == other else [f"{where}: {str(value)[:60]} and {str(other)[:60]}"]


if __name__ == "__main__":
    main()
