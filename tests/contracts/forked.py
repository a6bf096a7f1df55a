"""What a fork server of the tests imports and works out once, for all the processes that are forked from it."""

import gc

# Whatever a recipe imports on its way, and what transformers builds when a first model is saved.
import evaluate  # noqa: F401
import jinja2  # noqa: F401
import matplotlib.figure  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.metrics
import sklearn.model_selection  # noqa: F401
import torch._inductor.compile_fx
import torch.utils.tensorboard
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import hf_ext  # noqa: F401

get_checkpoint_conversion_mapping("bert")
# Imports those of `torch.compile`, which takes as long as to compile a small model.
torch._dynamo.list_backends()
# The Trainer collects garbage when it begins: not through all of this.
gc.collect()
gc.freeze()
