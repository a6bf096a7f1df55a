"""Techniques as callbacks."""

from hf_ext.callbacks.base import ExtensionCallback
from hf_ext.callbacks.curriculum import CurriculumCallback
from hf_ext.callbacks.early_stopping import EarlyStoppingThresholdCallback
from hf_ext.callbacks.learning_rates import DiscriminativeLearningRateCallback
from hf_ext.callbacks.monitors import GradientMonitorCallback, TrainingHintsCallback
from hf_ext.callbacks.pruning import PruningCallback
from hf_ext.callbacks.unfreezing import GradualUnfreezingCallback

__all__ = [
    "CurriculumCallback",
    "DiscriminativeLearningRateCallback",
    "EarlyStoppingThresholdCallback",
    "ExtensionCallback",
    "GradientMonitorCallback",
    "GradualUnfreezingCallback",
    "PruningCallback",
    "TrainingHintsCallback",
]
