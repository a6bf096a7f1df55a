"""How a run augments its training texts."""

from dataclasses import dataclass, field

from hf_ext.data.augmentation.augmenter import DataAugmenter
from hf_ext.data.augmentation.checks import check_count, check_share, check_techniques
from hf_ext.data.augmentation.text_edits import TECHNIQUES
from hf_ext.errors import ConfigurationError


@dataclass
class AugmentationArguments:
    """
    Edited copies of the training texts.

    Raises:
        ConfigurationError: If a value is out of range or unknown.
    """

    _argument_group_name = "augmentation"

    augmentation_enabled: bool = field(default=False, metadata={"help": "Train on edited copies of the texts as well."})
    augmentation_techniques: list[str] | None = field(
        default=None, metadata={"help": f"Any of {', '.join(TECHNIQUES)}; by default all four."}
    )
    augmentation_prob: float = field(default=0.1, metadata={"help": "Share of a text's words to edit."})
    augmentation_factor: int = field(default=1, metadata={"help": "Copies of each text."})
    augmentation_on_the_fly: bool = field(
        default=False, metadata={"help": "Edit the texts anew in every epoch in place of storing copies."}
    )

    def __post_init__(self):
        check_share("augmentation_prob", self.augmentation_prob)
        check_count("augmentation_factor", self.augmentation_factor)
        if self.augmentation_techniques is not None:
            check_techniques("augmentation_techniques", self.augmentation_techniques)
        if not self.augmentation_enabled and (self.augmentation_on_the_fly or self.augmentation_factor != 1):
            given = "augmentation_on_the_fly" if self.augmentation_on_the_fly else "augmentation_factor"
            raise ConfigurationError(f"{given} has no effect without --augmentation_enabled true.")
        if self.augmentation_on_the_fly and self.augmentation_factor != 1:
            raise ConfigurationError(
                f"augmentation_factor is {self.augmentation_factor}, but with augmentation_on_the_fly no copies are "
                "stored: every epoch has as many rows as the data. Leave one out."
            )

    def augmenter(self, seed: int) -> DataAugmenter | None:
        """The [`DataAugmenter`] that was asked for, or `None`."""
        if not self.augmentation_enabled:
            return None
        return DataAugmenter(self.augmentation_prob, self.augmentation_techniques or TECHNIQUES, seed)

    def augmenter_on_the_fly(self, seed: int) -> DataAugmenter | None:
        """The [`DataAugmenter`] that edits the texts anew in every epoch, or `None`."""
        return self.augmenter(seed) if self.augmentation_on_the_fly else None
