"""What a recipe asks for that does all parts of a run: several trainings, each with its evaluation."""

from typing import Any

from hf_ext.defaults.streaming import refuse_streaming
from hf_ext.errors import ConfigurationError


def all_of_the_run(values: dict[str, Any], why: str) -> dict[str, Any]:
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


def refuse_roll_back_without_checkpoints(values: dict[str, Any]) -> None:
    """For recipes whose trainings save checkpoints only where they are needed to go back to the best one."""
    if values.get("nonfinite") == "roll_back" and not values.get("load_best_model_at_end"):
        raise ConfigurationError(
            "nonfinite=roll_back goes back to a checkpoint, and the trainings of this recipe save none without "
            "load_best_model_at_end. Set that, or nonfinite=skip."
        )
