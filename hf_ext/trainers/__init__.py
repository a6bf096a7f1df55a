"""Trainers."""

from hf_ext.trainers.base import ExtendedTrainer

__all__ = ["ExtendedTrainer"]
