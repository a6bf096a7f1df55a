"""The end of a training with an adapter that is worked into the weights, and what that changed."""

import inspect
import itertools
from typing import Any

import torch
from transformers import Trainer

from hf_ext.errors import ConfigurationError
from hf_ext.models.adapters import check_mergeable, is_adapted, merge_adapter
from hf_ext.problem_types import MULTI_LABEL

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
    evaluated = trainer.eval_dataset
    named = next(iter(evaluated)) if isinstance(evaluated, dict) else None
    loader = trainer.get_train_dataloader() if evaluated is None else trainer.get_eval_dataloader(named)
    batches = [
        {name: value.to(device) for name, value in batch.items() if name in accepted}
        for batch in itertools.islice(loader, BATCHES)
    ]
    before = _logits(trainer.model, batches)
    merged = merge_adapter(trainer.model)
    after = _logits(merged, batches)
    trainer.model = trainer.model_wrapped = trainer.callback_handler.model = merged
    difference = (after - before).abs().max().item()
    flips = _flips(before, after, merged.config.problem_type)
    answers = "no answer changed" if not flips else f"{flips} answers changed"
    return (
        f"The adapter was merged into the weights: the largest difference of a logit on {len(before):,} rows is "
        f"{difference:.2g}, {answers}. The model is a plain one now."
    )


# ---- Inside ----


def _flips(before: torch.Tensor, after: torch.Tensor, problem_type: str | None) -> int:
    """Rows of which another decision is made; a number is none."""
    if before.shape[-1] == 1:
        return 0
    if problem_type == MULTI_LABEL:
        return int(((after > 0) != (before > 0)).any(-1).sum())
    return int((after.argmax(-1) != before.argmax(-1)).sum())


@torch.inference_mode()
def _logits(model: Any, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    model.eval()
    return torch.cat([model(**batch).logits.float() for batch in batches])
