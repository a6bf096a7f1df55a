"""What a run really computes, in its logs. Apart from the tests, so that the processes of a run can import it."""

import torch
from torch import nn

from hf_ext import ExtensionCallback


class SeeForward(ExtensionCallback):
    """How often the first linear layer ran in training so far, and how often it gave half precision."""

    def __init__(self):
        self.calls = self.bf16 = self.fp16 = 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
        layer.register_forward_hook(self._count)

    def _count(self, module, inputs, output):
        self.calls += module.training
        self.bf16 += module.training and output.dtype == torch.bfloat16
        self.fp16 += module.training and output.dtype == torch.float16

    def metrics(self):
        return {"seen/calls": self.calls, "seen/bf16": self.bf16, "seen/fp16": self.fp16}


class SeeGraphs(ExtensionCallback):
    """How many graphs were compiled so far."""

    def metrics(self):
        return {"seen/graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"]}
