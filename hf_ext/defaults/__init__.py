"""What follows from the settings that a user gave, by recipe; and which of them contradict each other."""

from hf_ext.defaults.distillation import complete_distillation_values
from hf_ext.defaults.evaluation import complete_evaluation_values
from hf_ext.defaults.kfold import complete_kfold_values
from hf_ext.defaults.multitask import complete_multitask_values
from hf_ext.defaults.range_test import complete_range_test_values
from hf_ext.defaults.search import complete_search_values
from hf_ext.defaults.training import complete_training_values

__all__ = [
    "complete_distillation_values",
    "complete_evaluation_values",
    "complete_kfold_values",
    "complete_multitask_values",
    "complete_range_test_values",
    "complete_search_values",
    "complete_training_values",
]
