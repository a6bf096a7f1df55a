"""The end of a training with an adapter that is worked into the weights, and what that changed."""

import inspect
import itertools
from typing import Any

import torch
from transformers import Trainer

from hf_ext.errors import ConfigurationError
from hf_ext.models.adapters import check_mergeable, is_adapted, merge_adapter

# Whose answers are compared.
BATCHES = 4


def check_merging(model: Any) -> None:
    """
    See, before anything is trained, that there will be something to merge.

    Raises:
        ConfigurationError: If the model has no adapter, or one that cannot be merged.
    """
    if not is_adapted(model):
        raise ConfigurationError(
            f"merge_adapter=True, but the model is a {type(model).__name__} without an adapter. Wrap it with "
            "hf_ext.add_adapter, or leave merge_adapter out."
        )
    check_mergeable(model.active_peft_config)


def merge_trained(trainer: Trainer) -> str:
    """
    Work the adapter of a trainer's model into the weights; the trainer then holds the plain model.

    Args:
        trainer ([`~transformers.Trainer`]): After training.

    Returns:
        `str`: How far the logits of the two differ, on rows of the evaluation (or else the training) data.
    """
    device = trainer.model.device
    accepted = set(inspect.signature(trainer.model.get_base_model().forward).parameters) - {"labels"}
    loader = trainer.get_train_dataloader() if trainer.eval_dataset is None else trainer.get_eval_dataloader()
    batches = [
        {name: value.to(device) for name, value in batch.items() if name in accepted}
        for batch in itertools.islice(loader, BATCHES)
    ]
    before = _logits(trainer.model, batches)
    merged = merge_adapter(trainer.model)
    after = _logits(merged, batches)
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = merged
    difference, flips = (after - before).abs().max().item(), int((after.argmax(-1) != before.argmax(-1)).sum())
    answers = "no answer changed" if not flips else f"{flips} answers changed"
    return (
        f"The adapter was merged into the weights: the largest difference of a logit on {len(before):,} rows is "
        f"{difference:.2g}, {answers}. The model is a plain one now."
    )


# ---- Inside ----


@torch.inference_mode()
def _logits(model: Any, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    model.eval()
    return torch.cat([model(**batch).logits.float() for batch in batches])
