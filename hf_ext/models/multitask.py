"""Several sequence classifiers as one model: one encoder, a head for each task."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from hf_ext.errors import ConfigurationError
from hf_ext.models.sharing import check_classifiers, encoder_of
from hf_ext.problem_types import REGRESSION
from hf_ext.task_weighting import uncertainty_weighted

# What the Trainer compares with the tokenizer.
SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


class MultiTaskConfig(PretrainedConfig):
    """
    Configuration of a [`MultiTaskModel`]: the configurations of its tasks' models.

    Args:
        task_names (`list[str]`, *optional*):
            The tasks in the order of their ids.
        task_configs (`dict[str, dict]`, *optional*):
            Of each task, its model's configuration as `to_dict()` gives it.
        share_encoder (`bool`, *optional*, defaults to `True`):
            Whether the tasks have one encoder.
        learn_weights (`bool`, *optional*, defaults to `False`):
            Whether the model holds a log variance of each task (see [`uncertainty_weighted`]).
    """

    model_type = "multitask"

    task_names: list[str] | tuple[str, ...] = ()
    task_configs: dict | None = None
    share_encoder: bool = True
    learn_weights: bool = False


@dataclass
class MultiTaskOutput(ModelOutput):
    """
    What a [`MultiTaskModel`] says about a batch of one task.

    Args:
        loss (`torch.FloatTensor`, *optional*):
            The task's mean loss; in training with learned weights, as it is weighed.
        logits (`torch.FloatTensor` of shape `(rows, num_labels)`):
            The task's logits.
        task_loss (`torch.FloatTensor`, *optional*):
            In training, the task's mean loss as it is, without a gradient.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    task_loss: torch.FloatTensor | None = None


class MultiTaskModel(PreTrainedModel):
    """
    Several sequence classifiers as one model.

    A shared encoder is registered once as `shared_encoder`, what else a task's model has as `heads.<task>`; encoders
    that are not shared are `encoders.<task>`. The tasks' models stay whole (see [`~MultiTaskModel.task_model`]) but
    consist of these parts, so they are trained with it, and nothing is saved twice.

    Args:
        config ([`MultiTaskConfig`]):
            The tasks. Without `models`, they are made from it with random weights.
        models (`Mapping[str, PreTrainedModel]`, *optional*):
            Task -> sequence classifier. The first task's encoder takes the place of the others' where it is shared.
    """

    config_class = MultiTaskConfig
    base_model_prefix = "shared_encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: MultiTaskConfig, models: Mapping[str, PreTrainedModel] | None = None):
        super().__init__(config)
        made = models is None
        models = {task: _from_config(config.task_configs[task]) for task in config.task_names} if made else models
        encoders = {task: encoder_of(model) for task, model in models.items()}
        if config.share_encoder:
            self.shared_encoder = next(iter(encoders.values()))
            for model in models.values():
                setattr(model, model.base_model_prefix, self.shared_encoder)
        else:
            self.encoders = nn.ModuleDict(encoders)
        # Before the heads: what is registered last is a classifier.
        self.log_variances = None
        if config.learn_weights:
            self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(1)) for task in models})
        self.heads = nn.ModuleDict({task: _Head(model) for task, model in models.items()})
        # Not registered: their parts are. A plain dict, past nn.Module's bookkeeping.
        self.__dict__["_task_models"] = dict(models)
        if not made:
            for module in self.modules():
                module._is_hf_initialized = True
        self.post_init()

    @classmethod
    def from_models(
        cls, models: Mapping[str, PreTrainedModel], share_encoder: bool = True, learn_weights: bool = False
    ) -> "MultiTaskModel":
        """
        Join models, which become parts of the result.

        Args:
            models (`Mapping[str, PreTrainedModel]`): Task -> sequence classifier.
            share_encoder (`bool`, *optional*, defaults to `True`): Whether all get the first one's encoder; they have
                to be of one kind (see [`encoder_difference`]).
            learn_weights (`bool`, *optional*, defaults to `False`): Whether losses get learned weights.

        Raises:
            ConfigurationError: For names that cannot be those of tasks, models that are no sequence classifiers, or
                two tasks with one head.
        """
        check_task_names(models)
        check_classifiers(models)
        config = MultiTaskConfig(
            task_names=list(models),
            task_configs={task: model.config.to_dict() for task, model in models.items()},
            share_encoder=share_encoder,
            learn_weights=learn_weights,
            **{name: getattr(next(iter(models.values())).config, name, None) for name in SPECIAL_TOKENS},
        )
        return cls(config, models)

    @property
    def task_names(self) -> list[str]:
        """The tasks in the order of their ids."""
        return list(self._task_models)

    def task_model(self, task: str) -> PreTrainedModel:
        """
        The whole model of a task: a plain sequence classifier on the encoder and the head that are trained here.

        Args:
            task (`str`): Name of the task.
        """
        return self._task_models[task]

    def train(self, mode: bool = True):
        super().train(mode)
        for model in self._task_models.values():
            model.training = mode
        return self

    def save_pretrained(self, save_directory, **kwargs):
        """As [`~transformers.PreTrainedModel.save_pretrained`]: every weight once, all configurations in one file."""
        # They may have changed since: the Trainer aligns the padding's id with the tokenizer's.
        self.config.task_configs = {task: model.config.to_dict() for task, model in self._task_models.items()}
        super().save_pretrained(save_directory, **kwargs)

    def forward(
        self, task_id: torch.LongTensor, labels: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> MultiTaskOutput:
        """
        Args:
            task_id (`torch.LongTensor` of shape `(rows,)`):
                The number of the batch's task, the same in all rows.
            labels (`torch.Tensor`, *optional*):
                As the task's model takes them.
            inputs (`torch.Tensor`):
                Further inputs of the task's model.

        Returns:
            [`MultiTaskOutput`]
        """
        task = self.task_names[int(task_id[0])]
        model = self._task_models[task]
        outputs = model(labels=labels, **inputs)
        if labels is None or not self.training:
            return MultiTaskOutput(loss=outputs.loss, logits=outputs.logits)
        loss = outputs.loss
        if self.log_variances is not None:
            regression = model.config.problem_type == REGRESSION
            loss = uncertainty_weighted(loss, self.log_variances[task].squeeze(), regression)
        return MultiTaskOutput(loss=loss, logits=outputs.logits, task_loss=outputs.loss.detach())


class _Head(nn.Module):
    """What a classifier has besides its encoder. It shares the model's own dictionaries, so both always agree."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self._parameters, self._buffers = model._parameters, model._buffers
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self._modules.update({name: part for name, part in model._modules.items() if part is not encoder_of(model)})


def check_task_names(tasks: Mapping[str, object]) -> None:
    """
    See that names can be those of tasks: of metrics, parameters and directories.

    Raises:
        ConfigurationError: With the name.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise ConfigurationError(f"models is {tasks!r}; it must be a mapping of task names to models, at least one.")
    for task in tasks:
        if not isinstance(task, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", task):
            raise ConfigurationError(
                f"A task is named {task!r}; a name consists of letters, digits, _ and -, and begins with one of the "
                "first two: it stands in the names of metrics, parameters and directories."
            )
        if task == "avg" or hasattr(nn.ModuleDict, task) or hasattr(nn.ParameterDict, task):
            raise ConfigurationError(
                f"A task is named {task!r}, which already means something: eval_avg_* are the averages over the tasks, "
                "and PyTorch's modules have methods of other such names. Choose another, such as "
                f"{task + '_task'!r}."
            )


def _from_config(settings: Mapping[str, object]) -> PreTrainedModel:
    settings = dict(settings)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return AutoModelForSequenceClassification.from_config(config)
