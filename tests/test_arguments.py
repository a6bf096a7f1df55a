"""The flags of transformers' own run_classification.py carry over."""

import dataclasses

import pytest
from transformers import TrainingArguments

from hf_ext import (
    DataArguments,
    ModelArguments,
    RecipeTrainingArguments,
    RunArguments,
    TextCNNArguments,
    TrackingArguments,
)

ALL = (ModelArguments, TextCNNArguments, DataArguments, RecipeTrainingArguments, RunArguments, TrackingArguments)
# Its own two dataclasses (examples/pytorch/text-classification/run_classification.py).
EXAMPLE_FLAGS = [
    "dataset_name",
    "dataset_config_name",
    "do_regression",
    "text_column_names",
    "text_column_delimiter",
    "train_split_name",
    "validation_split_name",
    "test_split_name",
    "remove_splits",
    "remove_columns",
    "label_column_name",
    "max_seq_length",
    "preprocessing_num_workers",
    "overwrite_cache",
    "pad_to_max_length",
    "shuffle_train_dataset",
    "shuffle_seed",
    "max_train_samples",
    "max_eval_samples",
    "max_predict_samples",
    "metric_name",
    "train_file",
    "validation_file",
    "test_file",
    "model_name_or_path",
    "config_name",
    "tokenizer_name",
    "cache_dir",
    "use_fast_tokenizer",
    "model_revision",
    "token",
    "trust_remote_code",
    "ignore_mismatched_sizes",
]


def names(dataclass_type):
    return {field.name for field in dataclasses.fields(dataclass_type) if field.init}


def test_every_flag_of_the_example_is_known():
    assert len(EXAMPLE_FLAGS) == 33
    known = set().union(*map(names, ALL))
    assert set(EXAMPLE_FLAGS) <= known
    assert names(TrainingArguments) <= known


def test_no_two_sections_share_a_field():
    counted = [name for dataclass_type in ALL for name in names(dataclass_type)]
    assert len(counted) == len(set(counted))


def test_changed_defaults_are_the_ones_that_the_docstring_lists():
    ours, theirs = RecipeTrainingArguments.__dataclass_fields__, TrainingArguments.__dataclass_fields__
    changed = {name for name in names(TrainingArguments) if ours[name].default != theirs[name].default}
    assert changed == {"train_sampling_strategy", "logging_steps", "per_device_eval_batch_size"}
    assert all(name in RecipeTrainingArguments.__doc__ for name in changed)


def test_example_scripts_own_defaults_where_they_matter():
    arguments = DataArguments()
    assert arguments.text_column_delimiter == " "
    assert arguments.shuffle_seed == 42
    # Unlike the example, batches are padded to their own longest text.
    assert arguments.pad_to_max_length is False


@pytest.mark.parametrize("size", [-0.1, 1.0])
def test_shares_are_checked(size):
    with pytest.raises(ValueError, match=r"validation_size is .* must be in \[0, 1\)"):
        DataArguments(validation_size=size)
