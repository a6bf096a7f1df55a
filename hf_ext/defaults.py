"""What follows from the settings that a user gave."""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hf_ext.arguments import DataArguments
from hf_ext.data.difficulty import TRAINED_SCORERS
from hf_ext.errors import ConfigurationError
from hf_ext.models.building import TextCNNArguments
from hf_ext.precision import resolve_mixed_precision
from hf_ext.secret_patterns import without_password
from hf_ext.stream_checks import complete_streaming_values, refuse_streaming
from hf_ext.tracking import with_wandb

# Metrics of which less is better; the Trainer knows only those that end in "loss".
LESS_IS_BETTER = {"loss", "ece", "mse", "rmse", "mae", "hamming_loss"}
TRANSFORMER_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "attn_implementation", "gradient_checkpointing", "activation_checkpointing",
)  # fmt: skip


def complete_training_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a training run's settings imply.

    - Without `do_train`, `do_eval` and `do_predict`, all that the data allows is done.
    - `eval_steps` means `eval_strategy=steps`; otherwise a run evaluates each epoch.
    - `load_best_model_at_end` saves when it evaluates, and knows in which direction the metric improves.
    - On a machine without an accelerator the run is on the CPU, so that several processes find each other.
    - `mixed_precision` (or `fp16`, `bf16`) becomes what the machine can do.
    - Settings of Weights & Biases are enough to track the run by it.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = complete_streaming_values(with_wandb(dict(values)))
    _refuse_settings_of_other_models(values)
    _refuse_lost_predictions(values)
    if values.get("find_learning_rate") and values.get("head_learning_rate") is not None:
        raise ConfigurationError(
            "learning_rate=auto with head_learning_rate: the range test keeps the ratio of the two, which is not known "
            "then. Give the head a multiple: --learning_rate_scales '{\"head\": 10}'."
        )
    if values.get("find_learning_rate") and values.get("curriculum") in TRAINED_SCORERS:
        raise ConfigurationError(
            f"learning_rate=auto with curriculum={values['curriculum']}: its scores take training runs before the rate "
            "is known. Find the rate with run_lr_finder.py first, and pass it as a number."
        )
    if values.get("model_type") and values.get("do_train") is False:
        raise ConfigurationError(
            f"model_type={values['model_type']} with do_train=false: nothing is trained yet. Pass --model_name_or_path."
        )
    if values.get("peft_merge") and values.get("do_train") is False:
        raise ConfigurationError(
            "peft_merge=true with do_train=false: nothing is trained whose adapter could be merged. A saved adapter is "
            "merged by hf_ext.load_classifier, and by run_export.py. Leave it out."
        )
    if values.get("nonfinite") == "roll_back" and values.get("save_strategy") == "no":
        raise ConfigurationError(
            "nonfinite=roll_back goes back to a checkpoint, and save_strategy is no: set it to steps (--save_steps)."
        )
    if values.get("do_predict") and not {"test_file", "test_size", "dataset_name", "data_dir"} & set(values):
        raise ConfigurationError(
            "do_predict needs test rows: pass --test_file, --test_size, --dataset_name or --data_dir."
        )
    if not {"do_train", "do_eval", "do_predict"} & set(values):
        values.update(do_train=True, do_eval=True, do_predict=True)
    if values.get("do_train") and values.get("do_eval", "eval_steps" in values):
        values.setdefault("eval_strategy", "steps" if "eval_steps" in values else "epoch")
    if values.get("load_best_model_at_end") and values.get("eval_strategy", "no") != "no":
        values.setdefault("save_strategy", values["eval_strategy"])
        if values["eval_strategy"] == "steps" and "eval_steps" in values:
            values.setdefault("save_steps", values["eval_steps"])
    metric = values.get("metric_for_best_model")
    if metric is not None:
        values.setdefault("greater_is_better", metric.removeprefix("eval_") not in LESS_IS_BETTER)
    values.setdefault("max_seq_length", 128)
    _set_machine(values)
    optimizer = values.get("optim", "adamw_torch_fused")
    if values.get("sparse_embeddings") == "on" and not (
        values["use_cpu"] and optimizer in ("adamw_torch", "adamw_torch_fused") and not values.get("torch_compile")
    ):
        raise ConfigurationError(
            f"sparse_embeddings=on needs optim=adamw_torch or adamw_torch_fused (it is {optimizer}) on a CPU without "
            "torch_compile. Leave it at auto."
        )
    name = values.get("name")
    if name is not None:
        values.setdefault("run_name", name)
    model = name or values.get("model_type") or Path(values.get("model_name_or_path", "model")).resolve().name
    values.setdefault("output_dir", os.path.join("outputs", _folder_name(model)))
    return values


def complete_distillation_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a distillation's settings imply: those of a training run that does all that the data allows.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = _all_of_the_run(values, "A distillation trains, and compares teacher, student and control")
    if values.get("calibrate"):
        raise ConfigurationError(
            "calibrate=true: teacher, student and control are compared as they are. Calibrate the student afterwards: "
            "run_classification.py --model_name_or_path <output_dir> --validation_file ... --test_file ... --do_eval "
            "--do_predict --calibrate true."
        )
    if values.get("curriculum") not in (None, "length", "rarity"):
        raise ConfigurationError(
            f"curriculum={values['curriculum']}: not all rows of a transfer set have a label and the columns of the "
            "training file. Valid here: length, rarity."
        )
    if values.get("augmentation_on_the_fly") and values.get("teacher_logits") != "online":
        raise ConfigurationError(
            "augmentation_on_the_fly makes new texts in every epoch, which the teacher has not answered: pass "
            "--teacher_logits online, or store copies with --augmentation_factor."
        )
    if (values.get("hidden_states_weight") or 0) > 0:
        if values.get("model_type"):
            raise ConfigurationError(
                f"hidden_states_weight={values['hidden_states_weight']}: a {values['model_type']} has no transformer "
                "layers to match with the teacher's. Leave it out."
            )
        if values.get("teacher_logits") != "online":
            raise ConfigurationError(
                f"hidden_states_weight={values['hidden_states_weight']}: hidden states are not kept on disk. Pass "
                "--teacher_logits online."
            )
    if values.get("student_embeddings") == "teacher":
        if values.get("model_type") != "textcnn":
            raise ConfigurationError(
                "student_embeddings=teacher starts the word vectors of a TextCNN; a pretrained student has its own. "
                "Pass --model_type textcnn, or leave it out."
            )
        if values.get("word_vectors"):
            raise ConfigurationError(
                f"student_embeddings=teacher and word_vectors={values['word_vectors']} are two starts of the same "
                "vectors; leave one out."
            )
    return complete_training_values(values)


def complete_multitask_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what the settings of a run on several tasks imply: those of a training run that does all that the data allows.

    - Settings of the data that are given once are those of each task that does not have its own.
    - The best model and an early end are chosen by `avg_score`, the mean of the tasks' main metrics.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = _all_of_the_run(values, "A run on several tasks trains and evaluates all of them")
    _refuse_techniques_of_one_task(values)
    for own in values.get("tasks", {}).values():
        refuse_streaming(own)
    metric = values.get("metric_for_best_model")
    if values.get("load_best_model_at_end") and metric is None:
        metric = values["metric_for_best_model"] = "avg_score"
    if metric is not None:
        values.setdefault("greater_is_better", not _is_less_better(metric, values.get("tasks", {})))
    limits = ("patience", "threshold", "target", "divergence_threshold")
    if metric is None and any(values.get(f"early_stopping_{name}") is not None for name in limits):
        values.setdefault("early_stopping_metric", "avg_score")
    values = complete_training_values(values)
    of_all = {field.name: values[field.name] for field in dataclasses.fields(DataArguments) if field.name in values}
    values["tasks"] = {name: {**of_all, **own} for name, own in values.get("tasks", {}).items()}
    return values


def complete_kfold_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a cross-validation's settings imply: those of training runs that do all that the data allows. Each is
    tested on its fold, and validates on a part of the other rows.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = _all_of_the_run(values, "A cross-validation trains on all folds but one and tests on that")
    for name in ("validation_file", "test_file", "test_size"):
        if values.get(name):
            raise ConfigurationError(
                f"{name}={values[name]}: in a cross-validation each model is tested on its fold, and validates on a "
                "part of the other rows (validation_size). Leave it out; run_classification.py tests on other rows."
            )
    if values.get("push_to_hub"):
        raise ConfigurationError("push_to_hub: a cross-validation is no model; leave it out.")
    if values.get("calibrate"):
        raise ConfigurationError(
            "calibrate=true: the folds are compared as their models answer. Leave it out, and calibrate the model that "
            "is trained on all rows (run_classification.py)."
        )
    if values.get("storage") is not None and values.get("overwrite"):
        raise ConfigurationError(
            f"overwrite with storage={without_password(values['storage'])}: each machine that joins would remove what "
            "the others did. "
            "Name another output_dir, or remove the old one by hand."
        )
    if values.get("storage") is None and values.get("worker_timeout") is not None:
        raise ConfigurationError(
            f"worker_timeout={values['worker_timeout']:g} has an effect only with --storage; leave it out."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and (values.get("num_workers", 1) > 1 or values.get("storage") is not None):
        storage = without_password(str(values.get("storage")))
        raise ConfigurationError(
            f"num_workers={values.get('num_workers', 1)}, storage={storage}: {launched} processes were "
            "launched to train each fold together. Either launch one process and let it start workers, or leave "
            "num_workers and storage out."
        )
    _refuse_roll_back_without_checkpoints(values)
    name = values.get("name") or values.get("model_type") or values.get("model_name_or_path")
    if name is not None:
        values.setdefault("output_dir", os.path.join("outputs", f"{_folder_name(Path(name).name)}_kfold"))
    return complete_training_values(values)


def complete_range_test_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a range test's settings imply: those of the training, which evaluates, saves and reports nothing.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    if values.get("resume_from_checkpoint"):
        raise ConfigurationError("resume_from_checkpoint: a range test begins with a fresh model; leave it out.")
    refuse_streaming(values)
    values = {
        **values,
        "do_train": True,
        "do_eval": False,
        "do_predict": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
    }
    values.setdefault("output_dir", os.path.join("outputs", "lr_finder"))
    return complete_training_values(values)


def complete_search_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a search's settings imply: those of training runs that are validated, and never tested.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = _all_of_the_run(values, "A search trains and validates, and leaves the test to evaluate_best")
    if values.get("resume_from_checkpoint"):
        raise ConfigurationError(
            "resume_from_checkpoint: a search goes on by itself when the same command is given again; leave it out."
        )
    if values.get("push_to_hub"):
        raise ConfigurationError("push_to_hub: a search keeps no model. Push the one that best_config.json trains.")
    if values.get("calibrate"):
        raise ConfigurationError(
            "calibrate=true: a search compares models before they are calibrated. Leave it out, and pass it to "
            "run_classification.py with best_config.json."
        )
    if values.get("peft_merge"):
        raise ConfigurationError(
            "peft_merge=true: a search keeps no model. Leave it out, and pass it to run_classification.py with "
            "best_config.json."
        )
    if values.get("pruner", "none") != "none" and values.get("eval_strategy") == "no":
        raise ConfigurationError(
            f"pruner={values['pruner']} compares evaluations during training, but eval_strategy is no; set it to epoch "
            "or steps."
        )
    if values.get("search_folds") and values.get("validation_file"):
        raise ConfigurationError(
            f"search_folds={values['search_folds']} and validation_file={values['validation_file']} are two ways to "
            "validate; leave one out."
        )
    _refuse_roll_back_without_checkpoints(values)
    values.setdefault("output_dir", os.path.join("outputs", "search"))
    return complete_training_values({**values, "do_train": True, "do_eval": True, "do_predict": False})


def complete_evaluation_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what an evaluation's settings imply: only the test rows are used, on what the machine has.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If no model is named.
    """
    if "model_name_or_path" not in values:
        raise ConfigurationError("No model is named. Pass --model_path with the directory of a saved model.")
    refuse_streaming(values)
    values = {**values, "do_train": False, "do_eval": False, "do_predict": True}
    values.setdefault("output_dir", "evaluation_results")
    _set_machine(values)
    return values


def _refuse_roll_back_without_checkpoints(values: dict[str, Any]) -> None:
    if values.get("nonfinite") == "roll_back" and not values.get("load_best_model_at_end"):
        raise ConfigurationError(
            "nonfinite=roll_back goes back to a checkpoint, and the trainings of this recipe save none without "
            "load_best_model_at_end. Set that, or nonfinite=skip."
        )


def _all_of_the_run(values: dict[str, Any], why: str) -> dict[str, Any]:
    """Without the flags that choose parts of a run, none of which can be left out."""
    refuse_streaming(values)
    parts = ("do_train", "do_eval", "do_predict")
    left_out = [name for name in parts if values.get(name) is False]
    if left_out:
        raise ConfigurationError(f"{why}; {', '.join(left_out)}=false would leave a part out. Leave the flag out.")
    if values.get("out_of_scope_test_files"):
        raise ConfigurationError(
            "out_of_scope_test_files: which texts a model turns away is told by run_classification.py and "
            "run_evaluation.py. Leave it out."
        )
    return {name: value for name, value in values.items() if name not in parts}


def _is_less_better(metric: str, tasks: Iterable[str]) -> bool:
    name = metric.removeprefix("eval_")
    own = next((name.removeprefix(f"{task}_") for task in ("avg", *tasks) if name.startswith(f"{task}_")), name)
    return own in LESS_IS_BETTER


def _refuse_techniques_of_one_task(values: dict[str, Any]) -> None:
    if values.get("find_learning_rate"):
        raise ConfigurationError(
            "learning_rate=auto: the recipe finds no rate for several tasks. Find one on each task with "
            "run_lr_finder.py, and pass a number."
        )
    if values.get("curriculum") is not None:
        raise ConfigurationError(
            f"curriculum={values['curriculum']}: batches of several tasks have their own order (task_sampling). Leave "
            "it out."
        )
    if values.get("augmentation_on_the_fly"):
        raise ConfigurationError(
            "augmentation_on_the_fly is not done with several tasks; leave it out, which stores the copies "
            "(augmentation_factor)."
        )
    if values.get("push_to_hub"):
        raise ConfigurationError(
            "push_to_hub: several tasks are several models. Leave it out, and push each of them when they are trained: "
            "recipes/push_to_hub.py --model_dir <output_dir>/tasks/<task>."
        )
    if values.get("num_labels") is not None:
        raise ConfigurationError(
            f"num_labels={values['num_labels']}: each task has its own number of classes, from its rows. Leave it out."
        )
    for name in ("peft", "peft_config"):
        if values.get(name):
            raise ConfigurationError(
                f"{name}={values[name]}: the tasks share an encoder whose weights are trained and saved whole; an "
                "adapter is not done with several tasks. Leave it out, or train each task with run_classification.py."
            )
    for name in ("label_smoothing_factor", "class_weights", "focal_gamma", "calibrate"):
        if values.get(name):
            raise ConfigurationError(f"{name}={values[name]}: it is not done with several tasks. Leave it out.")


def _refuse_settings_of_other_models(values: dict[str, Any]) -> None:
    own = {field.name for field in dataclasses.fields(TextCNNArguments)}
    if values.get("model_type") == "textcnn":
        adapter = next((name for name in ("peft", "peft_config") if values.get(name)), None)
        if adapter is not None:
            raise ConfigurationError(
                f"{adapter} with model_type=textcnn: an adapter is trained beside pretrained weights, and the TextCNN "
                "has none: all but its head would stay random. Leave it out."
            )
        useless, kind = [name for name in TRANSFORMER_FIELDS if values.get(name)], "the TextCNN"
    else:
        useless, kind = [name for name in values if name in own], "a pretrained model (model_type is not textcnn)"
    if useless and (values.get("model_type") or values.get("model_name_or_path")):
        raise ConfigurationError(f"{', '.join(useless)} would have no effect on {kind}: leave out what does not apply.")


def _refuse_lost_predictions(values: dict[str, Any]) -> None:
    """A run reports every row's prediction; these settings of the Trainer take them away."""
    lost = {
        "prediction_loss_only": True,
        "batch_eval_metrics": True,
        "eval_do_concat_batches": False,
        "remove_unused_columns": False,
    }
    asked = [f"{name}={values[name]}" for name, value in lost.items() if values.get(name) is value]
    if values.get("label_names"):
        asked.append(f"label_names={values['label_names']}")
    if asked:
        raise ConfigurationError(f"{', '.join(asked)}: the recipes need every row's prediction; leave it out.")


def _folder_name(name: str) -> str:
    """A name without what would lead to another folder."""
    return re.sub(r"[^\w .+-]", "_", name).strip(". ") or "model"


def _set_machine(values: dict[str, Any]) -> None:
    values.setdefault("use_cpu", not torch.accelerator.is_available())
    flags = [name for name in ("fp16", "bf16") if values.get(name)]
    requested = values.get("mixed_precision", flags[0] if flags else None)
    if len(flags) > 1 or (flags and requested != flags[0]):
        raise ConfigurationError(
            f"The precision is given twice: {', '.join(flags)}, mixed_precision={values.get('mixed_precision')}."
        )
    if requested is None:
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        requested = launcher if launcher in ("fp16", "bf16") else "auto"
    values["mixed_precision"] = requested
    used = resolve_mixed_precision(requested, values["use_cpu"])
    if values.get(used) is False and requested == "auto":
        used = "no"
    values.update(fp16=used == "fp16", bf16=used == "bf16")
