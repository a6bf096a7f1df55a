"""What a distillation is compared with: the teacher, fine-tuned if it has to be, and the student without a teacher."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_ext.arguments import ModelArguments, RecipeTrainingArguments
from hf_ext.errors import ConfigurationError
from hf_ext.models.building import load_config


@dataclass
class TeacherArguments:
    """The teacher of a distillation, and how it is fine-tuned if it is not a classifier yet."""

    _argument_group_name = "teacher"

    teacher_name_or_path: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Directory or Hub name: a classifier of the same classes (several, separated by commas, are "
            "averaged), or an encoder, which is fine-tuned first."
        },
    )
    teacher_max_seq_length: int = field(
        default=128, metadata={"help": "The teacher reads this many tokens of a text, in its own tokens."}
    )
    teacher_num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training rows."})
    teacher_learning_rate: float = field(default=5e-5, metadata={"help": "Its highest learning rate."})
    teacher_batch_size: int = field(default=32, metadata={"help": "Rows per device in its fine-tuning."})
    teacher_logits: Literal["cached", "online"] = field(
        default="cached",
        metadata={
            "help": "cached: it answers each text once, before the student trains, and the answers are kept for every "
            "later run; online: it answers in every step, for texts that are made anew in every epoch."
        },
    )
    teacher_cache_dir: str | None = field(
        default=None, metadata={"help": "Where its answers are kept; by default in the cache folder of Hugging Face."}
    )

    def __post_init__(self):
        if isinstance(self.teacher_name_or_path, str):
            self.teacher_name_or_path = [name.strip() for name in self.teacher_name_or_path.split(",")]
        if not self.teacher_name_or_path:
            raise ConfigurationError(
                "There is no teacher. Pass --teacher_name_or_path with a fine-tuned classifier, or with an encoder to "
                "be fine-tuned."
            )
        if self.teacher_num_train_epochs <= 0 or self.teacher_learning_rate <= 0:
            raise ConfigurationError(
                f"teacher_num_train_epochs is {self.teacher_num_train_epochs} and teacher_learning_rate "
                f"{self.teacher_learning_rate}; both must be above 0."
            )
        for name in ("teacher_batch_size", "teacher_max_seq_length"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1.")


def teacher_model_arguments(name: str, model_args: ModelArguments) -> ModelArguments:
    """
    How a teacher is loaded: nothing of the student's shape is asked of it.

    Args:
        name (`str`): The teacher.
        model_args ([`ModelArguments`]): The student's: `cache_dir`, `token` and `trust_remote_code` are the teacher's
            too.
    """
    return ModelArguments(
        model_name_or_path=name,
        cache_dir=model_args.cache_dir,
        token=model_args.token,
        trust_remote_code=model_args.trust_remote_code,
    )


def is_classifier(name: str, model_args: ModelArguments) -> bool:
    """
    Whether a directory or a name on the Hub holds a sequence classifier rather than a bare encoder.

    Args:
        name (`str`): The model.
        model_args ([`ModelArguments`]): See [`teacher_model_arguments`].
    """
    config: PreTrainedConfig = load_config(teacher_model_arguments(name, model_args))
    return any("ForSequenceClassification" in architecture for architecture in config.architectures or ())


def teacher_training_arguments(
    training_args: RecipeTrainingArguments, teacher_args: TeacherArguments, output_dir: Path, evaluate: bool
) -> RecipeTrainingArguments:
    """
    How a teacher is fine-tuned: its own passes, rate and batches on the student's machine, best epoch by loss.

    Args:
        training_args ([`RecipeTrainingArguments`]): The student's.
        teacher_args ([`TeacherArguments`]): What was asked for.
        output_dir (`Path`): The teacher's folder.
        evaluate (`bool`): Whether there are validation rows.
    """
    own = copy.deepcopy(training_args)
    own.output_dir, own.report_to, own.push_to_hub, own.run_name = str(output_dir), [], False, None
    own.num_train_epochs, own.max_steps = teacher_args.teacher_num_train_epochs, -1
    own.learning_rate, own.lr_scheduler_type = teacher_args.teacher_learning_rate, type(own.lr_scheduler_type)("linear")
    own.lr_scheduler_kwargs, own.warmup_steps, own.weight_decay, own.max_grad_norm = None, 0.06, 0.01, 1.0
    own.per_device_train_batch_size, own.gradient_accumulation_steps = teacher_args.teacher_batch_size, 1
    own.label_smoothing_factor, own.optim, own.optim_args = 0.0, type(own.optim)("adamw_torch_fused"), None
    own.eval_delay = 0
    own.save_strategy, own.save_total_limit = SaveStrategy.EPOCH, 1
    own.eval_strategy = IntervalStrategy.EPOCH if evaluate else IntervalStrategy.NO
    own.load_best_model_at_end = evaluate
    own.metric_for_best_model, own.greater_is_better = "loss", False
    return own


def control_training_arguments(
    training_args: RecipeTrainingArguments, output_dir: Path, steps: int
) -> RecipeTrainingArguments:
    """
    How the control is trained: as the student, with the schedules of as many steps.

    Args:
        training_args ([`RecipeTrainingArguments`]): The student's.
        output_dir (`Path`): The control's folder.
        steps (`int`): Optimizer steps that were planned for the student.
    """
    own = copy.deepcopy(training_args)
    own.output_dir, own.report_to, own.push_to_hub, own.run_name = str(output_dir), [], False, None
    own.max_steps = steps
    return own
