"""Techniques as `TrainerCallback`s."""

from hf_ext.callbacks.base import ExtensionCallback

__all__ = ["ExtensionCallback"]
