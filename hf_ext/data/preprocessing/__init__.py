"""From a folder of raw files to clean splits."""

from hf_ext.data.preprocessing.pipeline import (
    PreprocessingRunArguments,
    complete_preprocessing_values,
    describe_plan,
    preprocess,
    report_table,
)
from hf_ext.data.preprocessing.plan import PreprocessingArguments, make_plan

__all__ = [
    "PreprocessingArguments",
    "PreprocessingRunArguments",
    "complete_preprocessing_values",
    "describe_plan",
    "make_plan",
    "preprocess",
    "report_table",
]
