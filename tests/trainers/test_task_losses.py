"""The weights of several tasks follow the losses of the epochs."""

import math

import pytest
import torch
from transformers import TrainerControl, TrainerState

from hf_ext.task_weighting import dynamic_weight_average
from hf_ext.trainers.task_losses import TaskLosses


def test_a_step_that_is_not_finite_spoils_no_weights():
    losses, state, control = TaskLosses({"a": 1.0, "b": 1.0}, "dwa", {}), TrainerState(epoch=0.0), TrainerControl()
    losses.asked = True
    losses.on_train_begin(None, state, control)
    for epoch, (first, second) in enumerate([(4.0, 2.0), (2.0, 2.0)]):
        for loss in (first, math.nan):
            losses.add(0, torch.tensor(loss), 3)
            losses.add(1, torch.tensor(second), 5)
            losses.settle(lambda sums: sums)
        state.epoch = epoch + 1.0
        losses.on_epoch_begin(None, state, control)
    assert losses.weights == pytest.approx(dynamic_weight_average([4.0, 2.0], [2.0, 2.0]))
    # It stays in the log.
    assert math.isnan(losses.metrics()["multitask/a_loss"])
