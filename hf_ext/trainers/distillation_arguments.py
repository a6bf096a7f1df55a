"""What a configuration says of a distillation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hf_ext.trainers.distillation_checks import check_settings


@dataclass
class DistillationArguments:
    """
    How a student learns from its teacher; see [`DistillationTrainer`].

    Raises:
        ConfigurationError: If a value is out of range.
    """

    _argument_group_name = "distillation"

    temperature: float = field(default=4.0, metadata={"help": "Divides the logits in the soft term (Hinton 2015)."})
    alpha: float = field(default=0.7, metadata={"help": "Weight of the soft term, 0 to 1; the labels have the rest."})
    distillation_loss: Literal["kl", "mse"] = field(
        default="kl", metadata={"help": "Soft term: KL divergence at the temperature, or squared error of the logits."}
    )
    final_temperature: float | None = field(default=None, metadata={"help": "Temperature at the end of training."})
    final_alpha: float | None = field(default=None, metadata={"help": "Weight of the soft term at the end."})
    distillation_schedule: Literal["linear", "cosine"] = field(default="linear", metadata={"help": "The way there."})
    hidden_states_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of matching the hidden states: a transformer with the teacher's words, online."},
    )
    hidden_states_loss: Literal["mse", "relations"] = field(
        default="mse", metadata={"help": "mse for equal widths, relations (MiniLMv2) for any."}
    )
    unlabelled_files: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "More texts for the teacher to label, in files separated by commas: any format of training "
            "files, or .txt, a text a line."
        },
    )
    student_embeddings: Literal["random", "teacher"] = field(
        default="random",
        metadata={
            "help": "Start of a TextCNN's word vectors; teacher: what the teacher's body makes of each word, by "
            "principal components."
        },
    )

    def __post_init__(self):
        if isinstance(self.unlabelled_files, str):
            self.unlabelled_files = [path.strip() for path in self.unlabelled_files.split(",")]
        finals = {
            name: getattr(self, name) if getattr(self, f"final_{name}") is None else getattr(self, f"final_{name}")
            for name in ("temperature", "alpha")
        }
        check_settings({**vars(self), **{f"final_{name}": value for name, value in finals.items()}}, "cached")

    def trainer_settings(self) -> dict[str, Any]:
        """The arguments of [`DistillationTrainer`] that stand here."""
        elsewhere = ("unlabelled_files", "student_embeddings")
        return {name: value for name, value in vars(self).items() if name not in elsewhere}
