"""Trainers."""

from hf_ext.trainers.base import ExtendedTrainer
from hf_ext.trainers.distillation import DistillationTrainer
from hf_ext.trainers.multitask import MultiTaskTrainer

__all__ = ["DistillationTrainer", "ExtendedTrainer", "MultiTaskTrainer"]
