"""What follows from the settings of an evaluation."""

from typing import Any

from hf_ext.defaults.machine import set_machine
from hf_ext.defaults.streaming import refuse_streaming
from hf_ext.errors import ConfigurationError


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
    set_machine(values)
    return values
