"""Adapters by flags: what a run leaves, and everything that takes a saved model takes that."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_ext import ConfigurationError, complete_multitask_values, load_pipeline, plan_push
from hf_ext.evaluation import speed

from ..hub_fixtures import hub
from ..hub_server import TOKEN
from .conftest import load_recipe

__all__ = ["hub"]

FAST = ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--disable_tqdm", "true"]
FAST += ["--logging_steps", "1", "--learning_rate", "2e-2", "--use_cpu", "true", "--preflight", "off"]
LORA = ["--peft", "lora", "--lora_r", "4"]
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "classifier_config.json"}


@pytest.fixture
def flags(tiny_bert, write_data):
    return ["--model_name_or_path", tiny_bert, *FAST, *write_data()]


@pytest.fixture
def trained(run_classification, flags, tmp_path):
    """The folder of a run with LoRA."""

    def train(*more, name="out"):
        run_classification([*flags, *LORA, "--output_dir", str(tmp_path / name), *more])
        return tmp_path / name

    return train


def predictions(folder, split="test"):
    lines = (folder / f"predictions_{split}.jsonl").read_text().splitlines()
    return np.array([list(json.loads(line)["probabilities"].values()) for line in lines])


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_run_and_its_evaluation(trained, run_evaluation, flags, tmp_path, tiny_bert, capsys):
    folder = trained("--save_strategy", "epoch", "--monitor_gradients", "true", "--class_weights", "balanced")
    said = capsys.readouterr().out
    # Two matrices of 4 x 16 at query and value of two layers, and a classifier of two classes.
    assert re.search(rf"LoRA of rank 4: {2 * 2 * 2 * 64 + 2 * 16 + 2} of [\d,]+ parameters", said)
    assert names_in(folder) >= ADAPTER
    assert not {"model.safetensors", "config.json"} & names_in(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        assert names_in(checkpoint) >= ADAPTER
        assert not {"model.safetensors", "config.json", "README.md"} & names_in(checkpoint)
        assert (checkpoint / "adapter_model.safetensors").stat().st_size < 8_000
    assert not list(tmp_path.rglob("model.safetensors"))
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert tiny_bert not in card
    history = [log for log in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "loss" in log]
    assert {log["trainable_parameters"] for log in history} == {2 * 2 * 2 * 64 + 2 * 16 + 2}
    # Query and value of both layers, and the head, have a gradient; the embeddings are the base model's.
    assert {name for name in history[0] if name.startswith("grad_norm/")} == {
        *("grad_norm/layer.0", "grad_norm/layer.1", "grad_norm/head")
    }
    command = ["--model_path", str(folder), "--test_file", flags[-1], "--use_cpu", "true"]
    run_evaluation([*command, "--output_dir", str(tmp_path / "evaluated")])
    assert np.array_equal(predictions(tmp_path / "evaluated"), predictions(folder))


def test_the_snippet_of_the_card_runs(trained, capsys):
    folder = trained()
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    capsys.readouterr()
    exec(code.replace("path/to/this/folder", str(folder)), {})
    assert "tensor([[" in capsys.readouterr().out


def test_merged_by_the_run(trained, tmp_path, capsys):
    kept = trained()
    capsys.readouterr()
    folder = trained("--peft_merge", "true", name="merged")
    pattern = r"largest difference of a logit on (\d+) rows is ([\d.e-]+), no answer changed"
    said = re.search(pattern, capsys.readouterr().out)
    assert (int(said[1]), float(said[2]) < 1e-5) == (16, True)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names_in(folder)
    assert not ADAPTER & names_in(folder)
    assert "library_name: transformers" in (folder / "README.md").read_text()
    np.testing.assert_allclose(predictions(folder), predictions(kept), atol=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [json.loads(line)["text"] for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(logits.softmax(-1).numpy(), predictions(kept), atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        {"peft_type": "IA3", "target_modules": ["key", "value"], "feedforward_modules": []},
        {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3},
    ],
    ids=lambda method: method["peft_type"],
)
def test_any_method_by_a_file(run_classification, run_evaluation, flags, tmp_path, method):
    (tmp_path / "method.json").write_text(json.dumps(method))
    (tmp_path / "args.json").write_text(json.dumps({"peft": {"peft_config": str(tmp_path / "method.json")}}))
    folder = tmp_path / "out"
    best = ["--load_best_model_at_end", "true", "--unfreezing", "fraction", "--unfreezing_interval", "0.1"]
    run_classification([str(tmp_path / "args.json"), *flags, *best, "--output_dir", str(folder)])
    record = json.loads((folder / "run.json").read_text())["arguments"]["peft"]
    assert record["peft_config"] == method
    run_evaluation(["--model_path", str(folder), "--test_file", flags[-1], "--output_dir", str(tmp_path / "evaluated")])
    assert np.array_equal(predictions(tmp_path / "evaluated"), predictions(folder))


def test_calibrated(trained, tmp_path):
    folder = trained("--calibrate", "true", "--validation_size", "0.3")
    rows = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    answers = load_pipeline(folder)([row["text"] for row in rows], top_k=None)
    for row, answer in zip(rows, answers, strict=True):
        found = {item["label"]: item["score"] for item in answer}
        assert found == pytest.approx(row["probabilities"], abs=1e-5)


def test_exported(trained, run_export, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "MIN_ROUND_SECONDS", 0.01)
    folder = trained()
    command = ["--model_name_or_path", str(folder), "--formats", "torch_export", "--texts_file", flags[-1]]
    run_export([*command, "--output_dir", str(tmp_path / "export")])
    assert "is an adapter: what is exported is its base model with it merged in" in capsys.readouterr().out
    found = json.loads((tmp_path / "export" / "export.json").read_text())
    assert found["parity"]["torch_export"]["flip_count"] == 0


def test_learning_rate_curriculum_and_finder(run_classification, run_lr_finder, flags, tmp_path):
    together = ["--curriculum", "length", "--layerwise_lr_decay", "2", "--learning_rate", "auto"]
    finder = ["--lr_finder_num_iter", "20"]
    run_classification([*flags, *LORA, *together, *finder, "--output_dir", str(tmp_path / "out")])
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    run_lr_finder([*flags, *LORA, *finder, "--output_dir", str(tmp_path / "rate")])
    assert (tmp_path / "rate" / "lr_finder.json").is_file()


def test_folds(flags, tmp_path):
    command = flags[: flags.index("--test_file")]
    command += [*LORA, "--num_folds", "2", "--save_fold_models", "true", "--output_dir", str(tmp_path / "folds")]
    load_recipe("run_kfold").main(command)
    assert len(list((tmp_path / "folds").rglob("adapter_model.safetensors"))) == 2
    assert not list((tmp_path / "folds").rglob("model.safetensors"))


def test_searched(flags, tmp_path):
    space = {"lora_r": [1, 4], "lora_target_modules": ["query", "query,value"]}
    command = flags[: flags.index("--test_file")]
    command += ["--peft", "lora", "--search_space", json.dumps(space), "--search_method", "grid"]
    command += ["--num_train_epochs", "1", "--evaluate_best", "false", "--output_dir", str(tmp_path / "search")]
    load_recipe("run_search").main(command)
    results = json.loads((tmp_path / "search" / "search_results.json").read_text())
    assert len(results["trials"]) == 4
    best = json.loads((tmp_path / "search" / "best_config.json").read_text())
    assert "lora_r" in json.dumps(best)


def test_a_student_with_an_adapter_learns_from_a_teacher(trained, flags, tmp_path, monkeypatch):
    """The teacher is an adapter itself."""
    monkeypatch.setattr(speed, "MIN_ROUND_SECONDS", 0.01)
    teacher = trained(name="teacher")
    command = [*flags, *LORA, "--teacher_name_or_path", str(teacher), "--teacher_cache_dir", str(tmp_path / "kept")]
    load_recipe("run_distillation").main([*command, "--alpha", "1.0", "--output_dir", str(tmp_path / "out")])
    for folder in (tmp_path / "out", tmp_path / "out" / "control"):
        assert names_in(folder) >= ADAPTER
    weights = [load_file(tmp_path / part / "adapter_model.safetensors") for part in ("out", "out/control", "teacher")]
    for name, value in weights[0].items():
        if "lora_B" in name:
            assert value.abs().max() > 0
            # Other targets than the control's: the teacher was heard.
            assert not torch.equal(value, weights[1][name])


# ---- The Hub ----


def test_a_local_base_model_is_not_published(trained, run_classification, flags, hub, tmp_path, tiny_bert):
    push = ["--push_to_hub", "true", "--hub_model_id", "me/film", "--hub_token", TOKEN]
    with pytest.raises(ConfigurationError, match=f"(?s)base model is the folder {re.escape(tiny_bert)}.*--peft_merge"):
        run_classification([*flags, *LORA, *push, "--output_dir", str(tmp_path / "pushed")])
    assert not (tmp_path / "pushed").exists()
    folder = trained()
    plan = plan_push(folder)
    assert [found.kind for found in plan.findings] == ["base model"]
    with pytest.raises(ConfigurationError, match="base_model_name_or_path"):
        plan.raise_if_refused()
    assert not hub.repositories


def test_an_adapter_of_a_model_on_the_hub_is_pushed(trained, hub, tmp_path):
    folder = trained()
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "me/tiny-bert"}))
    load_recipe("push_to_hub").main(["--model_dir", str(folder), "--hub_model_id", "me/film", "--hub_token", TOKEN])
    files = hub.repositories["me/film"].head[1]
    assert set(files) - {".gitattributes"} == {*ADAPTER, "README.md", "tokenizer.json", "tokenizer_config.json"}
    assert b"library_name: peft" in files["README.md"]
    assert str(tmp_path).encode() not in b"".join(files.values())


# ---- Bad input ----


@pytest.mark.parametrize(
    "more, message",
    [
        (["--lora_target_modules", "q_proj"], r"'q_proj' matches no module.*query \(2\)"),
        (["--lora_target_modules", "query,valeu"], "'valeu' matches no module.*Did you mean 'value'"),
        (["--lora_modules_to_save", "poller"], "modules_to_save: 'poller'"),
        (["--lora_r", "0"], "lora_r is 0"),
        (["--peft_config", '{"peft_type": "IA3"}'], "two adapters"),
    ],
)
def test_refused_before_anything_is_written(run_classification, flags, tmp_path, more, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        run_classification([*flags, "--peft", "lora", *more, "--output_dir", str(tmp_path / "out")])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_textcnn_takes_no_adapter(run_classification, flags, tmp_path):
    with pytest.raises(ConfigurationError, match=r"peft with model_type=textcnn.*stay random"):
        run_classification(["--model_type", "textcnn", *flags[2:], *LORA, "--output_dir", str(tmp_path / "out")])


def test_several_tasks_take_no_adapter():
    with pytest.raises(ConfigurationError, match="peft=lora: the tasks share an encoder"):
        complete_multitask_values({"peft": "lora", "tasks": {}})


def test_an_adapter_is_not_trained_on(trained, run_classification, flags, tmp_path):
    folder = trained()
    command = ["--model_name_or_path", str(folder), *flags[2:], "--output_dir", str(tmp_path / "again")]
    with pytest.raises(ConfigurationError, match=r"is a trained adapter.*not trained on from here"):
        run_classification(command)


def test_another_adapter_does_not_go_on(trained, run_classification, flags):
    folder = trained("--save_strategy", "epoch")
    command = [*flags, "--peft", "lora", "--lora_r", "2", "--output_dir", str(folder)]
    with pytest.raises(ConfigurationError, match=r"another adapter: lora_r \(4 then, 2 now\)"):
        run_classification([*command, "--resume_from_checkpoint", "true"])


def test_a_prefix_cannot_be_exported(run_classification, run_export, flags, tmp_path):
    method = '{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}'
    run_classification([*flags, "--peft_config", method, "--output_dir", str(tmp_path / "out")])
    command = ["--model_name_or_path", str(tmp_path / "out"), "--formats", "torch_export", "--texts_file", flags[-1]]
    with pytest.raises(ConfigurationError, match="cannot be exported: PREFIX_TUNING cannot be merged"):
        run_export([*command, "--output_dir", str(tmp_path / "export")])
    assert not (tmp_path / "export").exists()


def test_overwriting_leaves_nothing_of_the_other_kind(trained, run_classification, flags):
    folder = trained()
    run_classification([*flags, "--output_dir", str(folder), "--overwrite"])
    assert not ADAPTER & names_in(folder)
