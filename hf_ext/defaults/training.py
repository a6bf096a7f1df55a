"""What follows from the settings of a training."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from hf_ext.data.difficulty import TRAINED_SCORERS
from hf_ext.defaults.machine import set_machine
from hf_ext.defaults.streaming import complete_streaming_values
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.metrics import LESS_IS_BETTER
from hf_ext.models.building import TextCNNArguments
from hf_ext.tracking import with_wandb

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
    _refuse_contradictions(values)
    if not {"do_train", "do_eval", "do_predict"} & set(values):
        values.update(do_train=True, do_eval=True, do_predict=True)
    _set_evaluations(values)
    values.setdefault("max_seq_length", 128)
    set_machine(values)
    _refuse_sparse_embeddings(values)
    name = values.get("name")
    if name is not None:
        values.setdefault("run_name", name)
    model = name or values.get("model_type") or Path(values.get("model_name_or_path", "model")).resolve().name
    values.setdefault("output_dir", os.path.join("outputs", folder_name(model)))
    return values


def folder_name(name: str) -> str:
    """A name without what would lead to another folder."""
    return re.sub(r"[^\w .+-]", "_", name).strip(". ") or "model"


# ---- Inside ----


def _refuse_contradictions(values: dict[str, Any]) -> None:
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


def _set_evaluations(values: dict[str, Any]) -> None:
    """When a run evaluates and saves, and which of two values of a metric is the better one."""
    if values.get("do_train") and values.get("do_eval", "eval_steps" in values):
        values.setdefault("eval_strategy", "steps" if "eval_steps" in values else "epoch")
    if values.get("load_best_model_at_end") and values.get("eval_strategy", "no") != "no":
        values.setdefault("save_strategy", values["eval_strategy"])
        if values["eval_strategy"] == "steps" and "eval_steps" in values:
            values.setdefault("save_steps", values["eval_steps"])
    metric = values.get("metric_for_best_model")
    if metric is not None:
        values.setdefault("greater_is_better", metric.removeprefix("eval_") not in LESS_IS_BETTER)


def _refuse_sparse_embeddings(values: dict[str, Any]) -> None:
    """Where they were asked for, and the optimizer or the machine, which are known by now, cannot do them."""
    optimizer, launched = values.get("optim", "adamw_torch_fused"), int(os.environ.get("WORLD_SIZE", "1"))
    if values.get("sparse_embeddings") == "on" and not (
        values["use_cpu"]
        and optimizer in ("adamw_torch", "adamw_torch_fused")
        and not values.get("torch_compile")
        and launched == 1
    ):
        raise ConfigurationError(
            f"sparse_embeddings=on needs optim=adamw_torch or adamw_torch_fused (it is {optimizer}) and one process "
            f"({launched} launched) on a CPU, without torch_compile. Leave it at auto."
        )


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
