import pytest
import torch

import hf_ext.precision
from hf_ext.defaults import (
    complete_evaluation_values,
    complete_kfold_values,
    complete_search_values,
    complete_training_values,
)
from hf_ext.errors import ConfigurationError
from hf_ext.precision import cpu_has_bf16, resolve_mixed_precision


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.fixture(params=[True, False], ids=["bf16 in hardware", "no bf16"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(hf_ext.precision, "cpu_has_bf16", lambda: request.param)
    return request.param


def complete(**values):
    return complete_training_values({"use_cpu": True, **values})


def error_of(function, *args, **kwargs):
    with pytest.raises(ConfigurationError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# ---- Training ----


def test_given_values_are_left_alone():
    given = {
        "do_train": True,
        "eval_strategy": "no",
        "max_seq_length": 7,
        "output_dir": "here",
        "run_name": "run",
        "name": "model",
        "use_cpu": True,
        "mixed_precision": "no",
        "greater_is_better": False,
        "metric_for_best_model": "accuracy",
        "seed": 3,
    }
    before = dict(given)
    completed = complete_training_values(given)
    assert given == before
    assert {name: completed[name] for name in given} == given


def test_without_a_task_all_is_done():
    assert {name: complete()[name] for name in ("do_train", "do_eval", "do_predict")} == dict.fromkeys(
        ("do_train", "do_eval", "do_predict"), True
    )
    for only in ("do_train", "do_eval"):
        assert {"do_train", "do_eval", "do_predict"} & set(complete(**{only: True})) == {only}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "epoch"),
        ({"eval_steps": 10}, "steps"),
        ({"eval_strategy": "no"}, "no"),
        ({"eval_strategy": "epoch", "eval_steps": 10}, "epoch"),
        # As in the example script, training alone sets no rows aside.
        ({"do_train": True}, None),
        ({"do_train": True, "do_eval": True}, "epoch"),
        ({"do_train": True, "eval_steps": 10}, "steps"),
        ({"do_train": True, "do_eval": False}, None),
        ({"do_eval": True}, None),
    ],
)
def test_when_a_run_evaluates(values, expected):
    assert complete(**values).get("eval_strategy") == expected


def test_the_best_model_is_saved_when_it_is_evaluated():
    completed = complete(load_best_model_at_end=True)
    assert (completed["eval_strategy"], completed["save_strategy"]) == ("epoch", "epoch")
    completed = complete(load_best_model_at_end=True, eval_steps=20)
    assert (completed["eval_strategy"], completed["save_strategy"], completed["save_steps"]) == ("steps", "steps", 20)
    completed = complete(load_best_model_at_end=True, eval_steps=20, save_steps=40)
    assert completed["save_steps"] == 40
    completed = complete(eval_steps=20)
    assert "save_strategy" not in completed and "save_steps" not in completed
    assert "save_strategy" not in complete(load_best_model_at_end=True, eval_strategy="no")


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("accuracy", True),
        ("eval_accuracy", True),
        ("f1_macro", True),
        ("mcc", True),
        ("r2", True),
        ("loss", False),
        ("eval_loss", False),
        ("ece", False),
        ("eval_ece", False),
        ("mse", False),
        ("rmse", False),
        ("mae", False),
        ("hamming_loss", False),
    ],
)
def test_in_which_direction_a_metric_improves(metric, greater):
    assert complete(metric_for_best_model=metric)["greater_is_better"] is greater


def test_names():
    assert complete(name="mine")["run_name"] == "mine"
    assert "run_name" not in complete()
    folders = {
        "mine": {"name": "mine", "model_type": "textcnn"},
        "textcnn": {"model_type": "textcnn"},
        "bert-tiny": {"model_name_or_path": "models/bert-tiny/"},
        "model": {},
    }
    for folder, values in folders.items():
        assert complete(**values)["output_dir"].replace("\\", "/") == f"outputs/{folder}"


def test_nothing_to_train():
    message = error_of(complete, model_type="textcnn", do_train=False, do_eval=True)
    assert "model_type=textcnn" in message and "--model_name_or_path" in message


def test_predicting_needs_rows():
    message = error_of(complete, do_predict=True)
    assert "--test_file" in message and "--data_dir" in message
    for source in ({"test_file": "t.json"}, {"test_size": 0.1}, {"dataset_name": "d"}, {"data_dir": "d"}):
        assert complete(do_predict=True, **source)["do_predict"] is True


def test_settings_of_other_models():
    message = error_of(complete, model_type="textcnn", hidden_size=16, attn_implementation="sdpa")
    assert "hidden_size" in message and "attn_implementation" in message and "TextCNN" in message
    message = error_of(complete, model_name_or_path="bert", filter_sizes=[3], max_norm=3.0)
    assert "filter_sizes, max_norm would have no effect" in message
    assert complete(model_type="textcnn", filter_sizes=[3])["filter_sizes"] == [3]
    assert complete(model_name_or_path="bert", hidden_size=16)["hidden_size"] == 16


# ---- Evaluation ----


def test_evaluation_only_predicts():
    given = {"model_name_or_path": "m", "do_train": True, "do_eval": True, "do_predict": False, "use_cpu": True}
    completed = complete_evaluation_values(given)
    assert [completed[name] for name in ("do_train", "do_eval", "do_predict")] == [False, False, True]
    assert completed["output_dir"] == "evaluation_results"
    assert given["do_train"] is True
    assert "max_seq_length" not in completed
    assert complete_evaluation_values({**given, "output_dir": "here"})["output_dir"] == "here"
    assert "--model_path" in error_of(complete_evaluation_values, {"use_cpu": True})


# ---- Machine and precision ----


def test_the_cpu_is_used_where_there_is_nothing_else():
    assert complete_training_values({})["use_cpu"] is not torch.accelerator.is_available()
    assert complete_training_values({"use_cpu": True})["use_cpu"] is True


def test_precision_on_a_cpu(has_bf16):
    automatic = "bf16" if has_bf16 else "no"
    assert resolve_mixed_precision("auto", use_cpu=True) == automatic
    assert resolve_mixed_precision("fp16", use_cpu=True) == automatic
    assert resolve_mixed_precision("no", use_cpu=True) == "no"
    assert resolve_mixed_precision("bf16", use_cpu=True) == "bf16"


def test_precision_on_a_gpu(has_bf16):
    for format in ("no", "fp16", "bf16"):
        assert resolve_mixed_precision(format, use_cpu=False) == format
    automatic = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    assert resolve_mixed_precision("auto", use_cpu=False) == ("bf16" if automatic else "no")


def test_the_flags_follow_the_format(has_bf16):
    for values in ({}, {"mixed_precision": "auto"}, {"mixed_precision": "fp16"}, {"fp16": True}):
        completed = complete(**values)
        assert (completed["fp16"], completed["bf16"]) == (False, has_bf16)
    assert complete()["mixed_precision"] == "auto"
    assert complete(fp16=True)["mixed_precision"] == "fp16"
    completed = complete(mixed_precision="no")
    assert (completed["fp16"], completed["bf16"]) == (False, False)
    completed = complete(bf16=True)
    assert (completed["fp16"], completed["bf16"], completed["mixed_precision"]) == (False, True, "bf16")
    completed = complete_evaluation_values({"model_name_or_path": "m", "use_cpu": False, "fp16": True})
    assert (completed["fp16"], completed["bf16"]) == (True, False)


def test_precision_of_the_launcher(monkeypatch, has_bf16):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert complete()["mixed_precision"] == "bf16"
    assert complete(mixed_precision="no")["bf16"] is False
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert complete()["mixed_precision"] == "auto"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"fp16": True, "bf16": True}, ("fp16", "bf16")),
        ({"fp16": True, "mixed_precision": "bf16"}, ("fp16", "mixed_precision=bf16")),
        ({"bf16": True, "mixed_precision": "no"}, ("bf16", "mixed_precision=no")),
    ],
)
def test_precisions_that_contradict_each_other(values, named):
    message = error_of(complete, **values)
    assert all(setting in message for setting in ("precision", *named))


def test_the_processor_is_asked():
    capabilities = torch.cpu.get_capabilities()
    assert cpu_has_bf16() is any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


# ---- Sparse embeddings ----


def test_where_sparse_embeddings_can_be_asked_for(monkeypatch):
    for optimizer in ("adamw_torch", "adamw_torch_fused"):
        assert complete(sparse_embeddings="on", optim=optimizer)["sparse_embeddings"] == "on"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process (2 launched)" in error_of(complete, sparse_embeddings="on")
    assert complete(sparse_embeddings="auto")["sparse_embeddings"] == "auto"


@pytest.mark.parametrize("values", [{"optim": "sgd"}, {"use_cpu": False}, {"torch_compile": True}])
def test_where_sparse_embeddings_are_refused(values):
    message = error_of(complete, sparse_embeddings="on", **values)
    assert f"(it is {values.get('optim', 'adamw_torch_fused')})" in message and "Leave it at auto" in message


# ---- What trains more than once ----


@pytest.mark.parametrize("complete_values", [complete_kfold_values, complete_search_values])
def test_models_that_are_only_compared_are_not_calibrated(complete_values):
    message = error_of(complete_values, {"model_type": "textcnn", "calibrate": True})
    assert "calibrate=true" in message and "run_classification.py" in message
