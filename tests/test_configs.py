"""Every configuration file of the project is understood by its recipe."""

from pathlib import Path

import pytest

from hf_ext import (
    ALL_SETTINGS,
    DISTILLATION_SETTINGS,
    KFOLD_SETTINGS,
    MULTITASK_SETTINGS,
    SEARCH_SETTINGS,
    TRAINING_SETTINGS,
    complete_distillation_values,
    complete_kfold_values,
    complete_multitask_values,
    complete_search_values,
    complete_training_values,
    parse_arguments,
)

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = {
    "classification": (TRAINING_SETTINGS, complete_training_values),
    "distillation": (DISTILLATION_SETTINGS, complete_distillation_values),
    "kfold": (KFOLD_SETTINGS, complete_kfold_values),
    "multitask": (MULTITASK_SETTINGS, complete_multitask_values),
    "search": (SEARCH_SETTINGS, complete_search_values),
}
FILES = sorted(str(path.relative_to(CONFIGS)) for name in RECIPES for path in CONFIGS.glob(f"{name}/*"))


def test_all_folders_are_known():
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {*RECIPES, "accelerate"}
    assert len(FILES) == 20


@pytest.mark.parametrize("file", FILES)
def test_it_is_understood(file):
    settings, complete = RECIPES[file.split("/")[0]]
    parsed = parse_arguments(
        settings.values(), [str(CONFIGS / file)], "A test.", complete=complete, others=ALL_SETTINGS.values()
    )
    assert dict(zip(settings, parsed, strict=True))["training"].output_dir.startswith("outputs/")
