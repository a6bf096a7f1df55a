"""What follows from the settings of a range test."""

import os
from typing import Any

from hf_ext.defaults.streaming import refuse_streaming
from hf_ext.defaults.training import complete_training_values
from hf_ext.errors import ConfigurationError


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
