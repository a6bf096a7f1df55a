"""Several tasks by the recipe: what a run leaves, what the tasks gained from each other, what it refuses."""

import json
import math
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_launched, run_program
from safetensors.torch import load_file
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import accuracy_score, f1_score
from starting import begin_script, exit_code_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_ext import MULTITASK_SETTINGS, MultiTaskModel, TaskBatchSampler, UsageError, parse_arguments
from hf_ext.defaults import complete_multitask_values
from hf_ext.experiments.single_task_baselines import steps_by_task

from .conftest import load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "run_multitask.py"
INTERRUPTED = Path(__file__).with_name("interrupted_multitask.py")
WORDS = ["good", "great", "fine", "lovely", "superb", "bad", "awful", "poor", "dull", "weak"]
WORDS += ["the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]
ROWS = {"mood": 60, "pairs": 50, "tags": 40, "score": 30}
KINDS = {
    "mood": "single_label_classification",
    "pairs": "single_label_classification",
    "tags": "multi_label_classification",
    "score": "regression",
}
COMMON = ["--num_train_epochs", "2", "--learning_rate", "1e-2", "--per_device_train_batch_size", "8"]
COMMON += ["--disable_tqdm", "true", "--use_cpu", "true", "--mixed_precision", "no", "--logging_steps", "1"]
COMMON += ["--report_to", "none"]


def make_rows(task, count, seed):
    generator = random.Random(f"{task}{seed}")
    rows = []
    for index in range(count):
        first, second = (" ".join(generator.choices(WORDS, k=generator.randint(3, 8))) for _ in range(2))
        positive = any(word in first for word in WORDS[:5])
        rows.append(
            {
                "mood": {"text": first, "label": "positive" if positive else "negative"},
                "pairs": {"premise": first, "hypothesis": second, "label": index % 3},
                "tags": {"text": first, "label": ["good"] * positive + ["long"] * (len(first.split()) > 5)},
                "score": {"text": first, "label": len(first) / 10 + 0.01},
            }[task]
        )
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for task, count in ROWS.items():
        for seed, (split, rows) in enumerate((("train", count), ("test", 24))):
            (folder / f"{task}_{split}.json").write_text(json.dumps(make_rows(task, rows, seed)))
    return folder


def tasks_of(data, *names, **own):
    files = {name: {split: str(data / f"{name}_{split.split('_')[0]}.json") for split in FILES} for name in names}
    return {name: {**found, **own.get(name, {})} for name, found in files.items()}


FILES = ("train_file", "test_file")


@pytest.fixture(scope="module")
def main():
    return load_recipe("run_multitask").main


@pytest.fixture
def run(main, data, tiny_bert, tmp_path):
    """Run on some tasks with some flags; returns the folder."""

    def call(tasks, *more, model=("--model_name_or_path", tiny_bert)):
        output_dir = tmp_path / "out"
        tasks = tasks if isinstance(tasks, dict) else tasks_of(data, *tasks)
        main(
            [
                *model,
                *COMMON,
                "--tasks",
                json.dumps(tasks),
                "--output_dir",
                str(output_dir),
                *(str(flag) for flag in more),
            ]
        )
        return output_dir

    return call


@pytest.fixture(scope="module")
def whole(main, data, tiny_bert, tmp_path_factory):
    """The folder of a run on four kinds of tasks with their baselines."""
    folder = tmp_path_factory.mktemp("whole")
    tasks = tasks_of(data, *ROWS, score={"weight": 0.5}, pairs={"max_seq_length": 24})
    (folder / "tasks.json").write_text(json.dumps({"multitask": {"tasks": tasks, "single_task_baselines": True}}))
    main(
        [
            *(str(folder / "tasks.json"), "--model_name_or_path", tiny_bert, *COMMON, "--max_seq_length", "16"),
            *("--output_dir", str(folder / "out")),
        ]
    )
    return folder / "out"


def read(path):
    return json.loads(path.read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_of(folder):
    return read(folder / "trainer_state.json")["global_step"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(first, second):
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def files_in(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".log"}


# ---- What a run leaves ----


def test_the_encoder_is_saved_once_and_each_task_is_a_plain_model(whole):
    names = list(weights(whole))
    encoder = [name for name in names if name.startswith("shared_encoder.")]
    assert encoder and {name.split(".")[1] for name in names if name not in encoder} == set(ROWS)
    for task, kind in KINDS.items():
        model = AutoModelForSequenceClassification.from_pretrained(whole / "tasks" / task)
        assert type(model).__name__ == "BertForSequenceClassification" and model.config.problem_type == kind
    own = AutoModelForSequenceClassification.from_pretrained(whole / "tasks" / "mood").config
    assert own.id2label == {0: "negative", 1: "positive"}


def test_a_task_loads_in_another_process_with_equal_logits(whole, tmp_path):
    # Loaded weights lie in the mapped file, at an offset that the last bit of a product can depend on.
    aligned = "for parameter in model.parameters():\n    parameter.data = parameter.data.clone()\n"
    code = (
        "import json, sys, torch; torch.set_num_threads(int(sys.argv[3]))\n"
        "torch.set_grad_enabled(False)\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "texts = json.loads(sys.argv[2])\n"
        "found = {}\n"
        f"for task in {list(ROWS)}:\n"
        "    folder = f'{sys.argv[1]}/tasks/{task}'\n"
        "    model = AutoModelForSequenceClassification.from_pretrained(folder)\n"
        f"    exec({aligned!r})\n"
        "    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors='pt')\n"
        "    found[task] = model(**batch).logits\n"
        "assert not any(name.startswith('hf_ext') for name in sys.modules)\n"
        f"torch.save(found, {str(tmp_path / 'logits.pt')!r})\n"
    )
    texts = [" ".join(WORDS[:7]), "a dull plot", "lovely"]
    words = [sys.executable, "-c", code, str(whole), json.dumps(texts), str(torch.get_num_threads())]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "logits.pt")
    joined = MultiTaskModel.from_pretrained(whole).eval()
    exec(aligned, {"model": joined})
    for number, task in enumerate(ROWS):
        batch = AutoTokenizer.from_pretrained(whole / "tasks" / task)(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = joined(**batch, task_id=torch.full((3,), number)).logits
        assert torch.equal(found[task], expected), task


def test_predictions_are_those_of_the_exported_models(whole):
    for task in ("mood", "score", "pairs"):
        folder = whole / "tasks" / task
        rows = lines(folder / "predictions_test.jsonl")
        assert len(rows) == 24 and len(lines(folder / "predictions_validation.jsonl")) == round(0.1 * ROWS[task])
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), None
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.model_max_length == (24 if task == "pairs" else 16)
        for row in rows:
            texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
            with torch.no_grad():
                logits = model(**tokenizer(*texts, truncation=True, return_tensors="pt")).logits[0]
            if task == "score":
                assert row["prediction"] == pytest.approx(logits.item(), abs=1e-4)
            else:
                found = list(row["probabilities"].values())
                assert found == pytest.approx(logits.softmax(0).tolist(), abs=1e-4)


def test_results_are_by_task_and_on_average(whole):
    results = read(whole / "all_results.json")
    assert results["train_samples"] == sum(count - round(0.1 * count) for count in ROWS.values())
    main_scores = []
    for split, prefix in (("validation", "eval"), ("test", "test")):
        scores = []
        for task in ROWS:
            rows = lines(whole / "tasks" / task / f"predictions_{split}.jsonl")
            truth, answer = [row["label"] for row in rows], [row["prediction"] for row in rows]
            if task == "tags":
                flags = [[[name in row for name in ("good", "long")] for row in rows] for rows in (truth, answer)]
                score, name = f1_score(*flags, average="micro", zero_division=0), "f1_micro"
            elif task == "score":
                score, name = pearsonr(truth, answer)[0], "pearson"
            else:
                score, name = accuracy_score(truth, answer), "accuracy"
            assert results[f"{prefix}_{task}_{name}"] == pytest.approx(score, abs=1e-5)
            assert results[f"{prefix}_{task}_samples"] == len(rows)
            assert read(whole / "tasks" / task / f"{prefix}_results.json")[f"{prefix}_{name}"] == pytest.approx(score)
            scores.append(results[f"{prefix}_{task}_spearman"] if task == "score" else score)
        main_scores.append(np.mean(scores))
        losses = [results[f"{prefix}_{task}_loss"] for task in ROWS]
        assert results[f"{prefix}_avg_loss"] == pytest.approx(np.mean(losses))
        assert results[f"{prefix}_avg_score"] == pytest.approx(main_scores[-1], abs=1e-5)
    assert "test_avg_accuracy" not in results
    # What the trainer's last evaluation said of the same rows.
    last = [log for log in read(whole / "trainer_state.json")["log_history"] if "eval_avg_score" in log][-1]
    assert last["eval_avg_score"] == pytest.approx(main_scores[0], abs=1e-5)


def test_one_report_with_all_tasks(whole):
    report = (whole / "report.html").read_text()
    for task in ROWS:
        assert f"Split: {task} test" in report and f"Split: {task} validation" in report
        assert f"{task}: transfer" in report
    assert "Models compared" in report and "single-task" in report
    card = (whole / "README.md").read_text()
    assert "tasks/mood" in card and "mood test" in card and "train_file" not in card
    # The name in the card's header is broken over lines.
    own = " ".join((whole / "tasks" / "pairs" / "README.md").read_text().split())
    assert "pairs_train.json" in own and "mood" not in own.replace("on mood, pairs, tags, score", "")
    record = read(whole / "run.json")
    assert record["arguments"]["multitask"]["tasks"]["pairs"]["max_seq_length"] == 24
    assert set(record["data"]["train"]) == set(ROWS) and record["data"]["tasks"][3] == ["score", 0.5, 16, False]
    assert (whole / "training.log").is_file() and (whole / "preflight.json").is_file()
    checks = [finding["check"] for finding in read(whole / "preflight.json")["findings"]]
    assert {check.split(":")[0] for check in checks} == set(ROWS)


# ---- Baselines ----


def test_a_baseline_makes_the_steps_that_its_task_was_given(whole):
    logs = [log for log in read(whole / "trainer_state.json")["log_history"] if "multitask/mood_share" in log]
    # The last one is the end of the training, in which nothing happens.
    counted = {task: sum(log[f"multitask/{task}_share"] for log in logs) for task in ROWS}
    facts = read(whole / "multitask.json")
    for task in ROWS:
        assert steps_of(whole / "baselines" / task) == facts["tasks"][task]["steps"] == round(counted[task])
    assert sum(round(count) for count in counted.values()) == facts["steps"] == steps_of(whole)


def test_a_baseline_is_a_plain_run(whole, run_classification, data, tiny_bert, tmp_path):
    files = ["--train_file", str(data / "mood_train.json"), "--test_file", str(data / "mood_test.json")]
    steps = str(steps_of(whole / "baselines" / "mood"))
    run_classification(
        [
            *("--model_name_or_path", tiny_bert, *COMMON, *files, "--max_steps", steps, "--max_seq_length", "16"),
            *("--output_dir", str(tmp_path / "plain")),
        ]
    )
    assert_same_weights(tmp_path / "plain", whole / "baselines" / "mood")
    predicted = "predictions_test.jsonl"
    assert lines(tmp_path / "plain" / predicted) == lines(whole / "baselines" / "mood" / predicted)


def test_the_transfer_is_the_difference_of_the_two(whole):
    facts = read(whole / "multitask.json")["tasks"]
    for task in ("mood", "pairs"):
        rows = [lines(whole / part / task / "predictions_test.jsonl") for part in ("tasks", "baselines")]
        right = [np.array([row["label"] == row["prediction"] for row in found]) for found in rows]
        transfer = facts[task]["transfer"]
        assert transfer["value"] == pytest.approx(right[0].mean() - right[1].mean())
        gained, lost = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert transfer["p"] == pytest.approx(expected)
        amount = round(100 * transfer["value"], 1) + 0.0
        assert re.match(rf"{task}: transfer {re.escape(f'{amount:+.1f}')} points \(.* to .*\), p", transfer["sentence"])
        assert transfer["low"] <= transfer["value"] <= transfer["high"]
    assert facts["score"]["transfer"]["metric"] == "pearson"
    assert facts["tags"]["transfer"]["metric"] == "subset_accuracy"


@pytest.mark.parametrize("sampling", ["proportional", "uniform", "annealed"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_steps_by_task_are_those_of_the_sampler(sampling, accumulation):
    sizes, batch_size, starts = [37, 11, 64], 8, [0, 37, 48]
    sampler = TaskBatchSampler(sizes, batch_size, 5, sampling, num_epochs=4)
    for steps in (1, 4, 9, 13):
        batches, done, epoch = [0, 0, 0], 0, 0
        while done < steps:
            sampler.set_epoch(epoch)
            order = list(sampler)[::batch_size]
            for first in range(0, len(order), accumulation):
                if done == steps:
                    break
                for row in order[first : first + accumulation]:
                    batches[sum(row >= start for start in starts) - 1] += 1
                done += 1
            epoch += 1
        assert steps_by_task(sampler, steps, accumulation) == [math.ceil(count / accumulation) for count in batches]


def test_schedules_of_a_baseline_are_its_share(run):
    more = ("--warmup_steps", 4, "--eval_steps", 4, "--save_strategy", "steps", "--save_steps", 4)
    best = ("--load_best_model_at_end", "true", "--save_total_limit", 1)
    output_dir = run(["mood", "score"], *more, *best, "--single_task_baselines")
    assert steps_of(output_dir) == 22
    for task, steps in (("mood", 14), ("score", 8)):
        state = read(output_dir / "baselines" / task / "trainer_state.json")
        assert (state["global_step"], state["max_steps"]) == (steps, steps)
        rates = [log["learning_rate"] for log in state["log_history"] if "loss" in log]
        # 4 steps of 22.
        share = round(4 * steps / 22)
        assert rates.index(max(rates)) == share
        evaluated = {log["step"] for log in state["log_history"] if "eval_loss" in log}
        assert evaluated == {*range(share, steps, share), steps}
        assert state["best_model_checkpoint"] is not None
    assert read(output_dir / "trainer_state.json")["best_metric"] is not None


def test_a_run_without_baselines_gets_them_later(run, whole):
    output_dir = run(["mood", "score"])
    assert not (output_dir / "baselines").exists()
    assert "transfer" not in read(output_dir / "multitask.json")["tasks"]["mood"]
    before = (output_dir / "model.safetensors").read_bytes(), read(output_dir / "all_results.json")
    run(["mood", "score"], "--single_task_baselines", "--resume_from_checkpoint", "true")
    assert "transfer" in read(output_dir / "multitask.json")["tasks"]["mood"]
    assert ((output_dir / "model.safetensors").read_bytes(), read(output_dir / "all_results.json")) == before


# ---- Settings ----


def test_settings_given_once_hold_for_all_tasks(data):
    tasks = {"one": {"train_file": "a.json"}, "two": {"max_seq_length": 7, "validation_size": 0.3, "weight": "2"}}
    argv = ["--model_type", "textcnn", "--train_file", "b.json", "--validation_size", "0.2"]
    parsed = parse_arguments(
        MULTITASK_SETTINGS.values(),
        [*argv, "--tasks", json.dumps(tasks)],
        "",
        complete=complete_multitask_values,
    )
    found = dict(zip(MULTITASK_SETTINGS, parsed, strict=True))["multitask"].tasks
    shown = ("train_file", "max_seq_length", "validation_size", "weight")
    assert [getattr(found["one"], name) for name in shown] == ["a.json", 128, 0.2, 1.0]
    assert [getattr(found["two"], name) for name in shown] == ["b.json", 7, 0.3, 2.0]


def test_what_is_watched(data):
    def completed(**values):
        return complete_multitask_values({"model_type": "textcnn", "tasks": {"one": {}, "two": {}}, **values})

    assert completed(load_best_model_at_end=True)["metric_for_best_model"] == "avg_score"
    assert completed(early_stopping_patience=2)["early_stopping_metric"] == "avg_score"
    assert completed(early_stopping_patience=2, metric_for_best_model="two_mcc").get("early_stopping_metric") is None
    for metric, greater in (("avg_score", True), ("one_ece", False), ("eval_two_loss", False), ("loss", False)):
        assert completed(metric_for_best_model=metric)["greater_is_better"] is greater


def test_the_configuration_of_the_house_is_valid():
    path = ROOT / "configs" / "multitask" / "mrpc_sst2_trec6.json"
    parsed = parse_arguments(MULTITASK_SETTINGS.values(), [str(path)], "", complete=complete_multitask_values)
    settings = dict(zip(MULTITASK_SETTINGS, parsed, strict=True))
    assert list(settings["multitask"].tasks) == ["mrpc", "sst2", "trec6"]
    assert settings["multitask"].tasks["sst2"].max_seq_length == 64


def test_word_models_share_one_word_list(run, data):
    model = ("--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4")
    more = ("--augmentation_enabled", "true", "--task_sampling", "sqrt", "--task_weighting", "uncertainty")
    output_dir = run(tasks_of(data, "mood", "tags", "score"), *more, "--single_task_baselines", model=model)
    facts = read(output_dir / "multitask.json")
    assert facts["share_encoder"] is True and "encoders" not in " ".join(weights(output_dir))
    assert facts["tasks"]["mood"]["training_rows"] > 54
    sizes = {
        weights(output_dir / "tasks" / task)["encoder.embeddings.word_embeddings.weight"].shape
        for task in ("mood", "score")
    }
    assert len(sizes) == 1
    model = AutoModelForSequenceClassification.from_pretrained(output_dir / "tasks" / "mood", trust_remote_code=True)
    assert model.config.model_type == "textcnn"


def test_techniques_and_the_best_average(run):
    unfreezing = ("--unfreezing", "fraction", "--unfreezing_interval", "0.1", "--layerwise_lr_decay", "1.5")
    best = ("--load_best_model_at_end", "true", "--save_strategy", "epoch", "--early_stopping_patience", 1)
    output_dir = run(["mood", "pairs"], *unfreezing, *best, "--num_train_epochs", 3, "--single_task_baselines")
    state = read(output_dir / "trainer_state.json")
    # Early stopping looks once before the first step, at a model that is not to be chosen.
    scores = [log["eval_avg_score"] for log in state["log_history"] if "eval_avg_score" in log and log["step"]]
    assert state["best_metric"] == max(scores)
    assert read(output_dir / "all_results.json")["eval_avg_score"] == pytest.approx(max(scores), abs=1e-6)
    given = read(output_dir / "multitask.json")["tasks"]
    # What was ended early is compared with as many steps, of the same schedule.
    for task in ("mood", "pairs"):
        assert steps_of(output_dir / "baselines" / task) == given[task]["steps"]
    assert sum(own["steps"] for own in given.values()) == state["global_step"]


def test_encoders_apart(run):
    output_dir = run(["mood", "score"], "--share_encoder", "false")
    assert not any(name.startswith("shared_encoder") for name in weights(output_dir))
    assert any("do not share an encoder" in note for note in read(output_dir / "run.json")["notes"])


def test_rows_without_labels_or_validation(run, data, tmp_path):
    unlabelled = tmp_path / "unlabelled.json"
    unlabelled.write_text(json.dumps([{"text": row["text"]} for row in read(data / "mood_test.json")]))
    tasks = tasks_of(data, "mood", "score", mood={"test_file": str(unlabelled)}, score={"validation_size": 0})
    output_dir = run(tasks, "--single_task_baselines")
    facts, results = read(output_dir / "multitask.json")["tasks"], read(output_dir / "all_results.json")
    assert facts["mood"]["transfer"]["split"] == "validation" and facts["score"]["transfer"]["split"] == "test"
    assert results["test_mood_samples"] == 24 and "test_mood_accuracy" not in results
    assert "eval_score_mse" not in results and "eval_mood_accuracy" in results
    assert any("averages over the tasks are without score" in note for note in read(output_dir / "run.json")["notes"])
    assert len(lines(output_dir / "tasks" / "mood" / "predictions_test.jsonl")) == 24


def test_nothing_held_out(run, data):
    tasks = {name: {"train_file": own["train_file"]} for name, own in tasks_of(data, "mood", "score").items()}
    output_dir = run(tasks, "--validation_size", 0, "--single_task_baselines")
    assert (output_dir / "report.html").is_file() and (output_dir / "baselines" / "mood" / "config.json").is_file()
    assert "transfer" not in read(output_dir / "multitask.json")["tasks"]["mood"]


def test_held_out_texts_that_another_task_trains_on_are_said(run, data):
    train, test = (str(data / f"mood_{split}.json") for split in ("train", "test"))
    tasks = {
        "one": {"train_file": test, "validation_file": train},
        "two": {"train_file": train, "validation_size": 0},
    }
    notes = read(run(tasks) / "run.json")["notes"]
    assert any("60 of the 60 validation texts of one are training texts of two" in note for note in notes)


def test_a_dry_run_writes_nothing(run, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    run(list(ROWS), "--dry_run")
    shown = capsys.readouterr().out
    assert "Dry run: nothing was trained or written" in shown and "tags: multi_label_classification" in shown
    assert sorted(tmp_path.rglob("*")) == before


# ---- Several processes, and ends before the end ----


def test_two_processes_make_what_one_makes(data, tiny_bert, tmp_path):
    tasks = json.dumps(tasks_of(data, "mood", "pairs"))
    settings = ["--model_name_or_path", tiny_bert, *COMMON, "--tasks", tasks, "--single_task_baselines"]
    settings += ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0", "--learning_rate", "1e-3"]
    # Whole batches of both tasks: the last one of a plain run is filled up on several processes.
    settings += ["--validation_size", "0.2"]
    shown = {}
    for name, size in (("two", "4"), ("one", "8")):
        own = ["--per_device_train_batch_size", size, "--output_dir", str(tmp_path / name)]
        if name == "two":
            processes = run_launched(RECIPE, [*settings, *own])
        else:
            processes = [run_program(RECIPE, [*settings, *own])]
        for done in processes:
            assert done.returncode == 0, done.stderr[-2000:]
        shown[name] = "".join(done.stdout for done in processes)
    for part in (".", "tasks/mood", "baselines/mood", "baselines/pairs"):
        one, two = (weights(tmp_path / name / part) for name in ("one", "two"))
        assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one), part
    for sentence in ("Baseline 1 of 2: mood alone", "mood: transfer", "Report: "):
        assert [shown[name].count(sentence) for name in ("one", "two")] == [1, 1]


def in_a_process(argv, part=None, moment=0):
    """The exit code of a run, negative for a signal."""
    process = begin_script(INTERRUPTED, ARGV=[str(flag) for flag in argv], PART=part, MOMENT=moment)
    return exit_code_of(process)


@pytest.fixture(scope="module")
def uninterrupted(data, tiny_bert, tmp_path_factory):
    """The flags of a run, and the folder in which it came to its end."""
    settings = ["--model_name_or_path", tiny_bert, *COMMON, "--tasks", json.dumps(tasks_of(data, "mood", "tags"))]
    settings += ["--single_task_baselines", "--save_strategy", "steps", "--save_steps", "5", "--eval_steps", "5"]
    settings += ["--load_best_model_at_end", "true", "--task_weighting", "dwa"]
    folder = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert in_a_process([*settings, "--output_dir", folder]) == 0
    return settings, folder


@pytest.mark.parametrize(
    "part, moment", [("out", 0), ("out", 12), ("mood", 7), ("tags", 2)], ids=["begun", "joint", "first", "second"]
)
def test_a_run_that_was_killed_goes_on(main, uninterrupted, tmp_path, part, moment):
    settings, folder = uninterrupted
    settings = [*settings, "--output_dir", str(tmp_path / "out")]
    assert in_a_process(settings, part, moment) == -signal.SIGKILL
    with pytest.raises(UsageError, match=r"holds another run .*--resume_from_checkpoint true"):
        main(settings)
    assert in_a_process([*settings, "--resume_from_checkpoint", "true"]) == 0
    for inside in (".", "tasks/mood", "tasks/tags", "baselines/mood", "baselines/tags"):
        assert_same_weights(tmp_path / "out" / inside, folder / inside)
    assert read(tmp_path / "out" / "multitask.json") == read(folder / "multitask.json")
    assert (tmp_path / "out" / "report.html").is_file()


def test_going_on_with_something_else_is_refused(run, data, tmp_path):
    tasks = tasks_of(data, "mood", "score")
    output_dir = run(tasks)
    before = files_in(output_dir)
    go_on = ("--resume_from_checkpoint", "true")
    copy = tmp_path / "moved.json"
    copy.write_text((data / "mood_train.json").read_text())
    shorter = tmp_path / "shorter.json"
    shorter.write_text(json.dumps(read(data / "mood_train.json")[:-1]))
    for changed, more, message in (
        (tasks_of(data, "score", "mood"), (), "tasks \\(or their order"),
        (tasks_of(data, "mood", "score", mood={"weight": 3}), (), "tasks \\(or their order, weights"),
        (tasks_of(data, "mood", "score", mood={"train_file": str(shorter)}), (), "trained on other rows"),
        (tasks, ("--task_sampling", "uniform"), r"task_sampling \(proportional then, uniform now\)"),
    ):
        with pytest.raises(UsageError, match=message):
            run(changed, *more, *go_on)
        assert files_in(output_dir) == before
    # Where the rows are is another matter.
    run(tasks_of(data, "mood", "score", mood={"train_file": str(copy)}), *go_on)


def test_another_run_is_replaced_as_a_whole(run, tmp_path):
    output_dir = run(["mood", "score"], "--single_task_baselines")
    (output_dir / "tasks" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds another run"):
        run(["mood", "tags"])
    run(["mood", "tags"], "--overwrite")
    assert (output_dir / "tasks" / "notes.txt").is_file()
    assert not (output_dir / "tasks" / "score" / "model.safetensors").exists()
    assert not (output_dir / "baselines" / "mood" / "model.safetensors").exists()
    assert (output_dir / "tasks" / "tags" / "model.safetensors").is_file()


# ---- Bad input ----


REFUSED = {
    "no_tasks": ({}, (), "There are no tasks"),
    "one_task": ({"mood": {}}, (), "tasks names 'mood' only: .*run_classification.py"),
    "unknown_key": ({"mood": {"train_fil": "x"}, "score": {}}, (), r"tasks.mood has the key 'train_fil'.*'train_file'"),
    "wrong_type": ({"mood": {"max_seq_length": "x"}, "score": {}}, (), "tasks.mood: max_seq_length is 'x'.*whole"),
    "no_object": ({"mood": "mood.json", "score": {}}, (), "tasks.mood is 'mood.json'; it must be an object"),
    "out_of_range": ({"mood": {"validation_size": 2}, "score": {}}, (), "tasks.mood: validation_size is 2"),
    "negative": ({"mood": {"weight": -1}, "score": {}}, (), "tasks.mood: weight is -1.0; it must be at least 0"),
    "all_zero": ({"mood": {"weight": 0}, "score": {"weight": 0}}, (), "weights of all tasks are 0"),
    "separator": ({"mood/one": {}, "score": {}}, (), "A task is named 'mood/one'"),
    "dots": ({"..": {}, "score": {}}, (), r"A task is named '\.\.'"),
    "average": ({"avg": {}, "score": {}}, (), "A task is named 'avg'"),
    "missing_file": ({"mood": {"train_file": "nowhere.json"}, "score": {}}, (), "The task 'mood': .*nowhere.json"),
    "no_rows": ({"mood": {}, "score": {}}, (), "The task 'mood': There are no training rows"),
    "empty": ({"mood": {"train_file": "EMPTY"}, "score": {}}, (), "The task 'mood': .*EMPTY"),
    "learning_rate": (None, ("--learning_rate", "auto"), "learning_rate=auto"),
    "curriculum": (None, ("--curriculum", "length"), "curriculum=length: batches of several tasks"),
    "augmentation": (
        None,
        ("--augmentation_enabled", "true", "--augmentation_on_the_fly", "true"),
        "augmentation_on_the_fly is not done with several tasks",
    ),
    "smoothing": (None, ("--label_smoothing_factor", "0.1"), "label_smoothing_factor=0.1"),
    "weights": (None, ("--class_weights", "balanced"), "class_weights=balanced: it is not done"),
    "focus": (None, ("--focal_gamma", "2"), "focal_gamma=2.0: it is not done"),
    "calibration": (None, ("--calibrate", "true"), "calibrate=True: it is not done"),
    "num_labels": (None, ("--num_labels", "2"), "num_labels=2: each task has its own"),
    "sampling": (None, ("--task_sampling", "squareroot"), "task_sampling is 'squareroot'; it must be one of"),
    "temperature": (None, ("--task_sampling", "temperature"), "needs a sampling_temperature"),
    "weighting": (None, ("--task_weighting", "gradnorm"), "task_weighting is 'gradnorm'"),
    "sharing": (None, ("--share_encoder", "maybe"), "share_encoder is 'maybe'; it must be one of auto, true, false"),
    "metric": (
        None,
        ("--load_best_model_at_end", "true", "--metric_for_best_model", "mod_accuracy"),
        "'mod_accuracy'.*Did you mean 'mood_accuracy'",
    ),
    "stopping": (
        None,
        ("--early_stopping_patience", "1", "--early_stopping_metric", "avg_accuracy"),
        "early_stopping_metric is 'avg_accuracy', which no evaluation",
    ),
    "not_all": (None, ("--do_predict", "false"), "do_predict=false"),
    "too_slow": (
        None,
        ("--unfreezing", "steps", "--unfreezing_interval", "5", "--single_task_baselines"),
        "training ends after 14 steps",
    ),
    "nothing_to_resume": (None, ("--resume_from_checkpoint", "true"), "holds no run"),
    "apart": (
        None,
        ("--share_encoder", "false", "--layerwise_lr_decay", "2"),
        "DiscriminativeLearningRateCallback goes by the layers of one encoder",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(run, data, tmp_path, name):
    tasks, more, message = REFUSED[name]
    (tmp_path / "EMPTY.json").write_text("[]")
    text = json.dumps(tasks_of(data, "mood", "score") if tasks is None else tasks)
    with pytest.raises(UsageError) as caught:
        run(json.loads(text.replace('"EMPTY"', json.dumps(str(tmp_path / "EMPTY.json")))), *more)
    assert re.search(message, str(caught.value), re.DOTALL), caught.value
    assert not (tmp_path / "out").exists()


def test_the_file_is_named(main, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps({"tasks": {"mood": {"label_colum_name": "x"}}}))
    with pytest.raises(UsageError, match=r"tasks.json: tasks.mood has the key .* Did you mean 'label_column_name'"):
        main([str(path), "--model_type", "textcnn"])
    path.write_text('{"tasks": {"mood": {}, "mood": {}}}')
    with pytest.raises(UsageError, match="names the key 'mood' twice"):
        main([str(path), "--model_type", "textcnn"])
    with pytest.raises(UsageError, match="names 'mood' once"):
        main(["--model_type", "textcnn", "--tasks", '{"mood": {}, "mood": {}}'])


def test_an_earlier_run_survives_a_refused_one(run):
    output_dir = run(["mood", "score"])
    before = files_in(output_dir)
    with pytest.raises(UsageError):
        run(["mood", "score"], "--overwrite", "--share_encoder", "false", "--layerwise_lr_decay", "2")
    assert files_in(output_dir) == before


def test_a_model_of_the_users_is_left_alone(run, tiny_bert, tmp_path):
    folder = tmp_path / "out" / "tasks" / "mood"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="mood holds another run"):
        run(["mood", "score"])


def test_an_error_is_one_message(tmp_path):
    done = run_program(RECIPE, ["--model_type", "textcnn", "--tasks", '{"mood": {}}'], tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("run_multitask.py: error: tasks names 'mood' only")
    assert not list(tmp_path.iterdir())
