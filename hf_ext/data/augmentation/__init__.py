"""Edited copies of training texts."""

from hf_ext.data.augmentation.augmenter import AugmentationArguments, DataAugmenter

__all__ = ["AugmentationArguments", "DataAugmenter"]
