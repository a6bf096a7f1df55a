"""What training rows that are streamed do to the other settings of a run."""

from typing import Any

from hf_ext.arguments import DataArguments
from hf_ext.errors import ConfigurationError

# Techniques that look at all training rows before, or out of their order -> why not.
NEED_ALL_ROWS = {
    "curriculum": "it draws the rows in an order of its own. Leave it out.",
    "augmentation_enabled": "copies are made of all rows, and stored. Augment the file before.",
    "class_weights": "weights are scaled by the labels of all rows. Leave it out.",
    "find_learning_rate": "find it on a part of the rows (run_lr_finder.py --max_train_samples), and pass a number.",
    "shuffle_train_dataset": "all rows would have to be at hand. Rows are shuffled --shuffle_buffer at a time.",
    "push_to_hub": "what is published is compared with all training rows. Push afterwards (recipes/push_to_hub.py).",
    "dataloader_persistent_workers": "a worker that stays does not hear of a new epoch. Leave it out.",
}
ORDERS = ("random", "sequential")


def complete_streaming_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what streamed training rows imply: no preflight, and a random order by a buffer (in the file's with
    `train_sampling_strategy=sequential`).

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: With the setting that needs more than a stream.
    """
    if not values.get("streaming"):
        if values.get("shuffle_buffer", DataArguments.shuffle_buffer) != DataArguments.shuffle_buffer:
            raise ConfigurationError(
                f"shuffle_buffer={values['shuffle_buffer']} has an effect only with --streaming true; leave it out."
            )
        return values
    values = dict(values)
    if values.get("do_train") is False:
        raise ConfigurationError("streaming=true streams training rows, and do_train is false. Leave it out.")
    elsewhere = next((name for name in ("dataset_name", "data_dir") if values.get(name)), None)
    if elsewhere is not None or not values.get("train_file"):
        given = f"{elsewhere}={values[elsewhere]} is given" if elsewhere else "there is none"
        raise ConfigurationError(f"streaming=true reads --train_file, and {given}. Name a file (or a folder of texts).")
    for name, why in NEED_ALL_ROWS.items():
        if values.get(name):
            raise ConfigurationError(f"{name}={values[name]} with streaming=true: {why}")
    _check_splits(values)
    order = values.setdefault("train_sampling_strategy", "random")
    if order not in ORDERS:
        raise ConfigurationError(
            f"train_sampling_strategy={order} with streaming=true: it takes the lengths of all rows. "
            f"Valid: {', '.join(ORDERS)}."
        )
    if order == "sequential" and values.setdefault("shuffle_buffer", 1) != 1:
        raise ConfigurationError(
            f"train_sampling_strategy=sequential and shuffle_buffer={values['shuffle_buffer']} contradict each other; "
            "leave one out."
        )
    if values.get("dataloader_num_workers", 0) > 1:
        raise ConfigurationError(
            f"dataloader_num_workers={values['dataloader_num_workers']} with streaming=true: each worker would read "
            "all rows. Valid: 0 and 1 (rows are read ahead)."
        )
    if values.setdefault("preflight", "off") != "off":
        raise ConfigurationError(
            f"preflight={values['preflight']} with streaming=true: repeats and leaks are looked for in memory. Check a "
            "part of the rows (--max_train_samples 100000 --dry_run without streaming), and leave it out."
        )
    return values


def refuse_streaming(values: dict[str, Any]) -> None:
    """
    For recipes that need all rows.

    Raises:
        ConfigurationError: If rows are to be streamed.
    """
    if values.get("streaming"):
        raise ConfigurationError(
            "streaming=true: this recipe needs all rows at hand; run_classification.py trains on a stream. Leave it "
            "out."
        )


def _check_splits(values: dict[str, Any]) -> None:
    if values.get("test_size"):
        raise ConfigurationError(
            f"test_size={values['test_size']} with streaming=true: no rows are held out of a stream. Pass --test_file."
        )
    if values.get("validation_file"):
        return
    if values.get("validation_size", 0.1) > 0:
        raise ConfigurationError(
            "streaming=true without --validation_file: no rows are held out of a stream. Name a file, or pass "
            "--validation_size 0 to train without validation."
        )
