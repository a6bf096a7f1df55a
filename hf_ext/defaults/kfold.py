"""What follows from the settings of a cross-validation."""

import os
from pathlib import Path
from typing import Any

from hf_ext.defaults.training import complete_training_values, folder_name
from hf_ext.defaults.whole_run import all_of_the_run, refuse_roll_back_without_checkpoints
from hf_ext.errors import ConfigurationError
from hf_ext.secret_patterns import without_password


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
    values = all_of_the_run(values, "A cross-validation trains on all folds but one and tests on that")
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
    refuse_roll_back_without_checkpoints(values)
    name = values.get("name") or values.get("model_type") or values.get("model_name_or_path")
    if name is not None:
        values.setdefault("output_dir", os.path.join("outputs", f"{folder_name(Path(name).name)}_kfold"))
    return complete_training_values(values)
