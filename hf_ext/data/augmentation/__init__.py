"""Edited copies of training texts."""

from hf_ext.data.augmentation.arguments import AugmentationArguments
from hf_ext.data.augmentation.augmenter import DataAugmenter

__all__ = ["AugmentationArguments", "DataAugmenter"]
