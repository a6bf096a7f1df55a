"""What follows from the settings of a search."""

import os
from typing import Any

from hf_ext.defaults.training import complete_training_values
from hf_ext.defaults.whole_run import all_of_the_run, refuse_roll_back_without_checkpoints
from hf_ext.errors import ConfigurationError


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
    values = all_of_the_run(values, "A search trains and validates, and leaves the test to evaluate_best")
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
    refuse_roll_back_without_checkpoints(values)
    values.setdefault("output_dir", os.path.join("outputs", "search"))
    return complete_training_values({**values, "do_train": True, "do_eval": True, "do_predict": False})
