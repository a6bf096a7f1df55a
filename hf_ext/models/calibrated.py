"""A saved model together with the calibration beside it."""

from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from hf_ext.arguments import ModelArguments
from hf_ext.data.labels import Task
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import CALIBRATION_FILE, Calibration
from hf_ext.models.adapter_files import find_adapter
from hf_ext.models.building import load_classifier

HUB_KWARGS = ("revision", "token", "cache_dir")


def find_calibration(model_args: ModelArguments, task: Task) -> Calibration | None:
    """
    The calibration beside a saved model, if there is one.

    Args:
        model_args ([`ModelArguments`]): Names the model, a folder or one on the Hub.
        task ([`Task`]): The model's.

    Raises:
        ConfigurationError: If it is that of another model.
        DataError: If it is damaged.
    """
    hub = {"revision": model_args.model_revision, "token": model_args.token, "cache_dir": model_args.cache_dir}
    path = _find(model_args.model_name_or_path, **hub)
    return None if path is None else Calibration.load(path, task.label_names, task.problem_type)


def load_pipeline(model: str | Path, **kwargs: Any):
    """
    A `transformers` pipeline of a saved model that gives calibrated probabilities and the decisions that were tuned.

    Called with a text, it answers as `pipeline("text-classification")` does: with `label` and `score` of what it
    decides; of several labels with all that it decides for, which may be none; of a text that the calibration turns
    away with the label `out_of_scope` and the largest probability of a class. With `top_k` (`None` for all) it lists
    classes by their probability, and says which are `predicted`. Texts are cut to the length of training.

    Args:
        model (`str` or `Path`): A folder, or a model on the Hub, with `calibration.json`.
        kwargs: As `transformers.pipeline`: `device`, `revision`, `token`, `batch_size`, `top_k` ...

    Returns:
        `CalibratedTextClassificationPipeline`

    Raises:
        ConfigurationError: If there is no calibration, or it is that of another model.
        DataError: If it is damaged.

    Example:

        >>> classifier = load_pipeline("outputs/cnn")
        >>> classifier("A film to remember.")
    """
    from transformers import pipeline

    from hf_ext.models.calibrated_pipeline import CalibratedTextClassificationPipeline

    hub, whole = {name: kwargs[name] for name in HUB_KWARGS if name in kwargs}, None
    path = _find(str(model), **hub)
    if path is None:
        raise ConfigurationError(
            f"{model} has no {CALIBRATION_FILE}: it was not calibrated (run_classification.py --calibrate true). "
            'transformers.pipeline("text-classification", model=...) loads it as it is.'
        )
    if find_adapter(str(model), **hub) is not None:
        # The library knows an adapter's classes by number only.
        named = {{"revision": "model_revision"}.get(name, name): value for name, value in hub.items()}
        whole, tokenizer = load_classifier(ModelArguments(model_name_or_path=str(model), **named))
        kwargs = {"tokenizer": tokenizer, **kwargs}
    return pipeline(
        "text-classification",
        model=str(model) if whole is None else whole,
        pipeline_class=CalibratedTextClassificationPipeline,
        calibration=path,
        **{"truncation": True, **kwargs},
    )


# ---- Inside ----


def _find(model: str, **hub: Any) -> str | None:
    return cached_file(
        model,
        CALIBRATION_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
