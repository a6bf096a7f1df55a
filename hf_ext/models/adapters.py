"""Adapters (PEFT): a few new weights beside a model's own, which stay as they are; the head is trained with them."""

import copy
import re
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_ext.errors import ConfigurationError, first_few, nearest

# The layer that LoRA adapts in each attention by default, under the names that models have for query and value.
ATTENTION = (
    "query", "value", "q_proj", "v_proj", "query_proj", "value_proj", "q_lin", "v_lin", "q", "v", "Wqkv", "in_proj",
    "query_key_value", "qkv_proj", "c_attn",
)  # fmt: skip
ALL_LINEAR = "all-linear"
# Methods that need more than a training step and a batch of texts give them, and what that is.
UNSUPPORTED = {
    "ADALORA": "it moves its ranks by a call in each step, without which it is LoRA with all of them. Take LORA",
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task in each batch. Take PROMPT_TUNING",
    "POLY": "it needs the number of a task in each batch. Take LORA",
    "XLORA": "it mixes adapters that are trained already. Take LORA",
}
# Starts of LoRA that are worked out from data, or from quantised weights, beforehand.
UNSUPPORTED_STARTS = ("eva", "corda", "loftq", "lora_ga")
# What `merge_and_unload` says "not implemented" for, besides methods that learn a prompt.
UNMERGEABLE = ("LILY",)
SHOWN = 12


def require_peft() -> None:
    """
    See that PEFT is there.

    Raises:
        ConfigurationError: With the command that installs it.
    """
    if find_spec("peft") is None:
        raise ConfigurationError("Adapters need the package peft: pip install 'hf_ext[peft]'.")


def is_adapted(model: Any) -> bool:
    """Whether a model is wrapped by PEFT."""
    return isinstance(model, nn.Module) and hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def head_modules(model: PreTrainedModel, new_parameters: Iterable[str] = ()) -> list[str]:
    """
    The modules that have to be trained and saved whole, because no pretrained weights stand behind them.

    Args:
        model ([`~transformers.PreTrainedModel`]): A sequence classifier.
        new_parameters (`Iterable[str]`, *optional*): Names of parameters that the pretrained weights did not have, such
            as those of a pooler; the `missing_keys` of `from_pretrained(..., output_loading_info=True)`.

    Returns:
        `list[str]`: All that stands beside the base model (`"classifier"`; `"pre_classifier"`; `"score"`), and the
        modules inside of it that have new parameters (`"bert.pooler.dense"`).

    Raises:
        ConfigurationError: If the model has no base model that could be told from its head.
    """
    body = model.base_model_prefix
    if not body or not hasattr(model, body):
        raise ConfigurationError(
            f"An adapter: {type(model).__name__} has no base model that could be told from its head "
            f"(base_model_prefix is {body!r})."
        )
    heads = [name for name, child in model.named_children() if name != body and any(True for _ in child.parameters())]
    for name in sorted(new_parameters):
        owner = name.rpartition(".")[0]
        if owner and not _inside(owner, heads):
            heads.append(owner)
    return heads


def add_adapter(model: PreTrainedModel, config: Any, new_parameters: Iterable[str] = ()) -> Any:
    """
    Wrap a classifier for parameter-efficient training: its weights are frozen, those of the adapter and the whole head
    are trained, and saved by `save_pretrained`.

    PEFT by itself saves the modules that are called `classifier` or `score`. A pooler that DeBERTa-v2 has beside its
    classifier, or that the pretrained weights did not hold, would stay random, and be another one after loading; here
    it is trained and saved too ([`head_modules`]).

    Args:
        model ([`~transformers.PreTrainedModel`]): A sequence classifier. It is changed in place, also if this raises.
        config (`peft.PeftConfig`): Of any method. LoRA without `target_modules` adapts query and value of each
            attention.
        new_parameters (`Iterable[str]`, *optional*): As [`head_modules`].

    Returns:
        `peft.PeftModelForSequenceClassification`

    Raises:
        ConfigurationError: If a target or a module to save does not exist, with the names that do; if the method does
            not fit the model, or needs more than a batch of texts. Nothing is trained that does nothing.

    Example:

    ```python
    >>> from peft import LoraConfig
    >>> from hf_ext import add_adapter
    >>> model = add_adapter(model, LoraConfig(r=8, lora_alpha=16))
    ```
    """
    require_peft()
    from peft import get_peft_model

    method = check_method(config)
    if is_adapted(model):
        raise ConfigurationError(f"{method}: the model has an adapter already. Merge that first (merge_adapter).")
    if model.config.model_type == "textcnn":
        raise ConfigurationError(
            f"{method} on a TextCNN: it computes its convolutions from their weights, past anything that is put around "
            "them, so an adapter would do nothing. It is small enough to be trained whole: leave peft out."
        )
    config = copy.deepcopy(config)
    heads = head_modules(model, new_parameters)
    _check_modules_to_save(config, model)
    if method == "LORA" and config.target_modules is None:
        config.target_modules = default_targets(model, heads)
    check_targets(config, model, heads)
    config.modules_to_save = list(dict.fromkeys([*(config.modules_to_save or ()), *heads]))
    saved = list(config.modules_to_save)
    config.base_model_name_or_path = None
    try:
        adapted = get_peft_model(model, config)
        # PEFT adds its own names to the list.
        adapted.peft_config["default"].modules_to_save = saved
        adapted.peft_config["default"].base_model_name_or_path = _place(model.name_or_path)
        _try_out(adapted)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ConfigurationError(
            f"{method} does not fit {type(model).__name__}: {str(error).strip() or type(error).__name__}. "
            f"{_linear_modules(model, heads)}"
        ) from error
    return adapted


def check_method(config: Any) -> str:
    """
    See that a method trains classifiers, from the step and the texts that a Trainer gives it.

    Args:
        config (`peft.PeftConfig`): Its `task_type` is set to `"SEQ_CLS"` if it has none.

    Returns:
        `str`: The name of the method.

    Raises:
        ConfigurationError: With what it would need.
    """
    method = _method_of(config)
    if method in UNSUPPORTED:
        raise ConfigurationError(f"peft_type is {method}: {UNSUPPORTED[method]}.")
    task = getattr(config.task_type, "value", config.task_type)
    if task not in (None, "SEQ_CLS"):
        raise ConfigurationError(f"{method}: task_type is {task}; a classifier's is SEQ_CLS, or leave it out.")
    config.task_type = "SEQ_CLS"
    start = getattr(config, "init_lora_weights", None)
    if start in UNSUPPORTED_STARTS:
        raise ConfigurationError(
            f"{method}: init_lora_weights is {start!r}, which is worked out from data or quantised weights beforehand. "
            "Valid here: true, gaussian, orthogonal, pissa, olora."
        )
    if not hasattr(config, "modules_to_save"):
        raise ConfigurationError(f"{method} cannot save a head beside its own weights (modules_to_save).")
    return method


def check_targets(config: Any, model: PreTrainedModel, heads: Iterable[str]) -> None:
    """
    See that every name in `target_modules` means a module of the base model. PEFT only says if none of them does.

    Args:
        config (`peft.PeftConfig`): With or without `target_modules`.
        model ([`~transformers.PreTrainedModel`]): The classifier.
        heads (`Iterable[str]`): From [`head_modules`]; they are trained whole and take no adapter.

    Raises:
        ConfigurationError: With the names that mean nothing, and the linear modules that there are.
    """
    targets = getattr(config, "target_modules", None)
    if targets is None or targets == ALL_LINEAR:
        return
    heads = list(heads)
    body = [name for name, _ in model.named_modules() if name and not _inside(name, heads)]
    if isinstance(targets, str):
        try:
            lost = [] if any(re.fullmatch(targets, name) for name in body) else [targets]
        except re.error as error:
            raise ConfigurationError(f"target_modules is {targets!r}, no regular expression: {error}.") from None
    else:
        lost = sorted(target for target in targets if not any(_ends_with(name, target) for name in body))
    if lost or not targets:
        hint = nearest(lost[0], {name.rpartition(".")[2] for name in body}) if lost else ""
        raise ConfigurationError(
            f"target_modules: {', '.join(map(repr, lost)) or 'the empty list'} matches no module of the base model of "
            f"{type(model).__name__}.{hint} {_linear_modules(model, heads)}"
        )


def default_targets(model: PreTrainedModel, heads: Iterable[str]) -> list[str]:
    """
    What LoRA adapts where nothing is said: the linear layers of query and value (Hu et al. 2021, section 4.2).

    Raises:
        ConfigurationError: If the model has none by a known name.
    """
    heads = list(heads)
    found = {name for name in _linear_names(model, heads) if name in ATTENTION}
    if not found:
        raise ConfigurationError(
            f"LoRA: {type(model).__name__} has no layers of query and value by a known name; pass "
            f"--lora_target_modules. {_linear_modules(model, heads)}"
        )
    return sorted(found)


def is_mergeable(config: Any) -> bool:
    """Whether the adapter of a `peft.PeftConfig` can be worked into the weights of its model."""
    return not config.is_prompt_learning and _method_of(config) not in UNMERGEABLE


def check_mergeable(config: Any) -> None:
    """
    See that an adapter can be merged into the weights of its model.

    Raises:
        ConfigurationError: If it cannot.
    """
    if not is_mergeable(config):
        why = "what it learns stands in front of the text" if config.is_prompt_learning else "PEFT has no merge for it"
        raise ConfigurationError(
            f"{_method_of(config)} cannot be merged into the weights of its model: {why}. Keep the adapter "
            "(peft_merge=false), or take another method, such as LORA."
        )


def merge_adapter(adapted: Any) -> PreTrainedModel:
    """
    Work an adapter into the weights of its model.

    Args:
        adapted (`peft.PeftModel`): Is taken apart by this, and not to be used again.

    Returns:
        [`~transformers.PreTrainedModel`]: A plain model, whose answers differ by the rounding of its weights.

    Raises:
        ConfigurationError: If the method cannot be merged, or the merged weights would not be finite.
    """
    check_mergeable(adapted.active_peft_config)
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ConfigurationError(f"The adapter cannot be merged: {error}") from error
    return merged.requires_grad_(True)


# ---- Inside ----


def _method_of(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _inside(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _linear_names(model: nn.Module, heads: list[str]) -> Counter:
    return Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not _inside(name, heads) and "lora_" not in name
    )


def _linear_modules(model: nn.Module, heads: list[str]) -> str:
    names = _linear_names(model, heads)
    shown = first_few([f"{name} ({count})" for name, count in names.most_common()], SHOWN)
    return f"Its linear modules: {shown or 'none'}; or {ALL_LINEAR}."


def _check_modules_to_save(config: Any, model: nn.Module) -> None:
    names = [name for name, _ in model.named_modules() if name]
    for asked in config.modules_to_save or ():
        # PEFT's own rule, which forgives names that mean nothing.
        if not any(name.endswith(asked) for name in names):
            raise ConfigurationError(
                f"modules_to_save: {asked!r} matches no module of {type(model).__name__}."
                f"{nearest(asked, {name.rpartition('.')[2] for name in names})} Beside the base model it has "
                f"{', '.join(name for name, _ in model.named_children())}."
            )


def _place(name: str) -> str | None:
    """Where a base model is found again, from any folder."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name or None


@torch.no_grad()
def _try_out(adapted: Any) -> None:
    """Some methods only fail when they are used; that is not to happen after hours."""
    training = adapted.training
    pad, end = adapted.config.pad_token_id, adapted.config.eos_token_id
    word = next(number for number in range(3) if number not in (pad, end))
    # Some models read the last token, or the one that ends a text.
    text = [word, word, end if isinstance(end, int) else word]
    with torch.random.fork_rng(devices=[]):
        ids = torch.tensor([text], device=adapted.device)
        adapted.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    adapted.train(training)
