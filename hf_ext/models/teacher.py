"""One classifier, or several that are averaged, whose answers another model learns."""

import hashlib
import math
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_ext.errors import ConfigurationError
from hf_ext.models.teacher_members import Encoded, Member, Texts, load_member
from hf_ext.precision import cpu_has_bf16
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Precision = Literal["auto", "float32", "bfloat16"]


class Teacher:
    """
    One sequence classifier, or several whose answers are averaged, with their tokenizers.

    It answers in the order of the student's classes, whose names decide, and never trains: its dropout is off and its
    parameters take no gradient. Several members are averaged by their probabilities (regression: by their values), and
    may have different tokenizers and orders of classes.

    Args:
        members (`list[Member]`): From [`Teacher.load`], which makes teachers.
        label_names (`list[str]`): The classes, in the student's order.
        problem_type (`str`): As in a model's configuration.

    Example:

        >>> teacher = Teacher.load("outputs/teacher", student_config=student.config)
        >>> logits = teacher.logits(teacher.collate(["a film", "another film"]))
    """

    def __init__(self, members: list[Member], label_names: list[str], problem_type: str):
        self.members, self.label_names, self.problem_type = members, label_names, problem_type

    @classmethod
    def load(
        cls,
        teacher: Any,
        tokenizer: Any = None,
        *,
        student_config: PreTrainedConfig,
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> "Teacher":
        """
        Load a teacher and see that it answers what the student is asked.

        Args:
            teacher ([`PreTrainedModel`], `str`, `Path`, or a list of those):
                A fine-tuned classifier: the model, its directory or its name on the Hub. A model is put into
                evaluation mode and frozen.
            tokenizer ([`PreTrainedTokenizerBase`], `str`, `Path`, or a list of those, *optional*):
                As many as there are teachers. By default the one in the directory, or at `model.name_or_path`.
            student_config ([`PreTrainedConfig`]): Its `id2label` and `problem_type` are what the teacher's must fit.
            max_length (`int`, *optional*): Longer texts are cut, in tokens. By default what the teacher can take.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the model.

        Returns:
            [`Teacher`]

        Raises:
            ConfigurationError:
                If a directory has no configuration or weights, a model has no trained head, other classes or another
                problem type than the student, or there is no tokenizer of its own.
        """
        models = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
        tokenizers = list(tokenizer) if isinstance(tokenizer, (list, tuple)) else [tokenizer]
        if not models:
            raise ConfigurationError("teacher_model is an empty list; it must hold at least one model.")
        if tokenizer is None:
            tokenizers = [None] * len(models)
        if len(tokenizers) != len(models):
            raise ConfigurationError(
                f"There are {len(models)} models in teacher_model but {len(tokenizers)} in teacher_tokenizer. Pass as "
                "many, or none to take each model's own."
            )
        names, problem_type = label_names_of(student_config, "student"), problem_type_of(student_config)
        members = []
        for model, given in zip(models, tokenizers, strict=True):
            member = load_member(model, given, max_length, trust_remote_code)
            kind = problem_type_of(member.model.config)
            if kind != problem_type:
                raise ConfigurationError(
                    f"The teacher {member.name} is a model of {kind}, the student of {problem_type}; both must be of "
                    "one kind (config.problem_type)."
                )
            if problem_type != REGRESSION:
                member.order = class_order(member.model.config, names, member.name)
            members.append(member)
        return cls(members, names, problem_type)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Teacher":
        """
        Move it, and choose the format it computes in.

        Args:
            device (`torch.device` or `str`): Where to compute.
            dtype (`torch.dtype`, *optional*):
                `torch.bfloat16` or `torch.float32`; by default the format of the weights. For another one than that a
                copy is made, so that nothing is lost by going back.

        Returns:
            [`Teacher`]: Itself.
        """
        for member in self.members:
            member.to(device, dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.members[0].running.device

    @property
    def dtype(self) -> torch.dtype:
        """The format that it computes in."""
        return self.members[0].running.dtype

    @property
    def tokenizers(self) -> list[PreTrainedTokenizerBase]:
        """One a member."""
        return [member.tokenizer for member in self.members]

    @cached_property
    def fingerprint(self) -> str:
        """
        SHA-256 of the weights, configuration, tokenizer and greatest length in tokens of every member.

        It is the same for a model in memory and for the directory that it was saved to, and does not depend on the
        format that it computes in.
        """
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(f"{member.fingerprint()} {member.order}".encode())
        return digest.hexdigest()

    def tokenize(self, texts: Texts) -> list[Encoded]:
        """What each member's model takes of each text, cut to the greatest length and not padded."""
        return [member.tokenize(texts) for member in self.members]

    def pad(self, encoded: list[Encoded]) -> list[dict[str, Tensor]]:
        """What [`Teacher.tokenize`] made of the texts of a batch, as tensors of shape (rows, tokens) on the CPU."""
        return [member.pad(rows) for member, rows in zip(self.members, encoded, strict=True)]

    def collate(self, texts: Texts) -> list[dict[str, Tensor]]:
        """
        A batch of texts as the teacher takes it, by its own tokenizers.

        Args:
            texts (`list[str]` or `list[tuple[str, str]]`): Texts, or pairs.

        Returns:
            `list[dict[str, Tensor]]`: A dict a member, with tensors of shape (rows, tokens) on the CPU.
        """
        return self.pad(self.tokenize(texts))

    def logits(self, inputs: list[dict[str, Tensor]], output_hidden_states: bool = False) -> Any:
        """
        Its answers.

        Args:
            inputs (`list[dict[str, Tensor]]`): From [`Teacher.collate`].
            output_hidden_states (`bool`, *optional*, defaults to `False`): For a teacher of one member.

        Returns:
            `Tensor` of shape (rows, classes), float32, with the classes in the student's order; see
            [`average_logits`] for several members. With `output_hidden_states` a tuple of it and of the hidden states,
            each of shape (rows, tokens, width).

        Raises:
            DataError: If an output is not a finite number, with the text.
            ConfigurationError: If the model gives probabilities instead of logits, or outputs of another shape.
        """
        if output_hidden_states and len(self.members) > 1:
            raise ConfigurationError("The hidden states of several teachers cannot be averaged; pass one teacher.")
        answers = []
        for member, batch in zip(self.members, inputs, strict=True):
            output = member.forward(batch, output_hidden_states)
            answers.append(member.checked(output, batch, self.problem_type))
        # Copied outside of inference mode: ordinary tensors, which a loss may keep for its backward pass.
        mean = average_logits(answers, self.problem_type).clone()
        if not output_hidden_states:
            return mean
        if getattr(output, "hidden_states", None) is None:
            raise ConfigurationError(f"The teacher {self.members[0].name} gives no hidden states.")
        return mean, tuple(state.clone() for state in output.hidden_states)


def average_logits(answers: list[Tensor], problem_type: str) -> Tensor:
    """
    Logits whose probabilities are the arithmetic mean of the members' (Hinton et al. 2015, section 1).

    Args:
        answers (`list[Tensor]`): Logits of shape (rows, classes), of each member.
        problem_type (`str`): As in a model's configuration.

    Returns:
        `Tensor` of shape (rows, classes): of one member its logits as they are; of several the logarithms of the mean
        of the softmaxes (single label), the logits of the mean of the sigmoids (multi-label), or the mean value
        (regression).
    """
    if len(answers) == 1:
        return answers[0]
    stacked = torch.stack(answers)
    if problem_type == REGRESSION:
        return stacked.mean(dim=0)
    if problem_type == MULTI_LABEL:
        return F.logsigmoid(stacked).logsumexp(dim=0) - F.logsigmoid(-stacked).logsumexp(dim=0)
    return stacked.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(answers))


def class_order(config: PreTrainedConfig, names: list[str], teacher: str) -> list[int] | None:
    """
    Which output of a teacher is each of the student's classes, by name.

    Args:
        config ([`PreTrainedConfig`]): The teacher's.
        names (`list[str]`): The student's classes, in their order.
        teacher (`str`): How messages call it.

    Returns:
        `list[int]`, or `None` if the classes are in that order already.

    Raises:
        ConfigurationError: If the names are not the same.
    """
    own = label_names_of(config, f"teacher {teacher}")
    if set(own) != set(names):
        raise ConfigurationError(
            f"The teacher {teacher} and the student have different classes. Only the teacher has "
            f"{_listed(set(own) - set(names))}; only the student has {_listed(set(names) - set(own))}. Give both the "
            "same names (config.id2label), or fine-tune the teacher on the student's classes."
        )
    order = [own.index(name) for name in names]
    return None if order == list(range(len(order))) else order


def label_names_of(config: PreTrainedConfig, owner: str) -> list[str]:
    """
    The names of a configuration's classes, in their order.

    Raises:
        ConfigurationError: If two classes have one name.
    """
    names = [str(config.id2label[index]) for index in sorted(config.id2label, key=int)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"Two classes of the {owner} are named {twice!r}; config.id2label must differ.")
    return names


def problem_type_of(config: PreTrainedConfig) -> str:
    """A configuration's `problem_type`; without one a single output is a regression, several are single-label."""
    return config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """
    The format for a teacher to compute in.

    Args:
        precision (`str`): `"float32"`, `"bfloat16"`, or `"auto"`: bfloat16 where the hardware multiplies it.
        device (`torch.device`): Where.

    Raises:
        ConfigurationError: If it is none of those.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ConfigurationError(f"precision is {precision!r}; valid are auto, {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cuda":
        short = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        short = device.type == "cpu" and cpu_has_bf16()
    return torch.bfloat16 if short else torch.float32


# ---- Inside ----


def _listed(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:20])
    return (shown or "none") + (f" ... {len(names)} in all" if len(names) > 20 else "")
