"""What can be said of an adapter: LoRA by flags, any method of PEFT by its configuration."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_ext.configuration import read_configuration
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.models.adapter_files import is_local
from hf_ext.models.adapters import ALL_LINEAR, check_mergeable, check_method, require_peft

# What a saved adapter_config.json says of the model and the run that it is from.
OF_ANOTHER_RUN = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
LORA_FIELDS = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_dora", "use_rslora",
)  # fmt: skip
RANK = 8


@dataclass
class PeftArguments:
    """Parameter-efficient fine-tuning (PEFT): the pretrained weights stay, an adapter and the head are trained."""

    _argument_group_name = "peft"

    peft: Literal["lora"] | None = field(
        default=None, metadata={"help": "Train a LoRA adapter and the head in place of all weights."}
    )
    lora_r: int | None = field(default=None, metadata={"help": f"Rank of the adapter's matrices; {RANK} by default."})
    lora_alpha: int | None = field(
        default=None, metadata={"help": "What the adapter adds is multiplied by this / lora_r; 2 * lora_r by default."}
    )
    lora_dropout: float | None = field(
        default=None, metadata={"help": "Dropout in front of the adapter; 0 by default."}
    )
    lora_target_modules: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Names of the modules to adapt, separated by commas, a regular expression of whole names, or "
            f"{ALL_LINEAR}; by default query and value of each attention."
        },
    )
    lora_modules_to_save: list[str] | str | None = field(
        default=None, metadata={"help": "Modules to train and save whole, besides the head; separated by commas."}
    )
    use_dora: bool | None = field(
        default=None, metadata={"help": "DoRA (Liu et al. 2024): learn the length of each weight vector apart."}
    )
    use_rslora: bool | None = field(
        default=None, metadata={"help": "rsLoRA (Kalajdzievski 2023): divide by the root of lora_r."}
    )
    peft_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "In place of LoRA by flags: a configuration of any method of PEFT, as JSON or a file of it: "
            '{"peft_type": "IA3", "target_modules": ["value"], "feedforward_modules": []}.'
        },
    )
    peft_merge: bool = field(
        default=False,
        metadata={"help": "At the end work the adapter into the weights, and save a plain model."},
    )

    def __post_init__(self):
        for name in ("lora_target_modules", "lora_modules_to_save"):
            setattr(self, name, _names(getattr(self, name), name == "lora_target_modules"))
        given = [name for name in LORA_FIELDS if getattr(self, name) is not None]
        if self.peft is None and given:
            instead = "write it in peft_config" if self.peft_config is not None else "pass --peft lora as well"
            raise ConfigurationError(f"{', '.join(given)} would have no effect: {instead}.")
        if self.peft is not None and self.peft_config is not None:
            raise ConfigurationError(
                f"peft={self.peft} and peft_config are two adapters; leave one out. peft_config takes LORA as well."
            )
        if self.peft_merge and not self.wanted:
            raise ConfigurationError("peft_merge=true would have no effect: pass --peft lora or --peft_config as well.")
        if isinstance(self.peft_config, str):
            # In the record of the run stands what was in the file.
            self.peft_config = read_configuration(Path(self.peft_config))
        if self.wanted:
            config = self.config()
            if self.peft_merge:
                check_mergeable(config)

    @property
    def wanted(self) -> bool:
        """Whether an adapter is asked for."""
        return self.peft is not None or self.peft_config is not None

    def config(self) -> Any:
        """
        The configuration as PEFT has it.

        Returns:
            `peft.PeftConfig`

        Raises:
            ConfigurationError: If PEFT is not installed, or a value is none of its.
        """
        require_peft()
        if self.peft_config is not None:
            return config_of(self.peft_config)
        from peft import LoraConfig

        rank = RANK if self.lora_r is None else self.lora_r
        alpha = 2 * rank if self.lora_alpha is None else self.lora_alpha
        for name, value in {"lora_r": rank, "lora_alpha": alpha}.items():
            if value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be at least 1.")
        if not 0 <= (self.lora_dropout or 0) < 1:
            raise ConfigurationError(f"lora_dropout is {self.lora_dropout}; it must be in [0, 1).")
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=self.lora_dropout or 0.0,
            target_modules=self.lora_target_modules,
            modules_to_save=self.lora_modules_to_save,
            use_dora=bool(self.use_dora),
            use_rslora=bool(self.use_rslora),
        )
        check_method(config)
        return config

    def check_push(self, base: str | None) -> None:
        """
        See, before anything is trained, that an adapter which is to be pushed will load elsewhere.

        Args:
            base (`str`, *optional*): The base model.

        Raises:
            ConfigurationError: If that is a folder of this machine.
        """
        if self.wanted and not self.peft_merge and is_local(base or ""):
            raise ConfigurationError(
                f"push_to_hub of an adapter whose base model is the folder {base}: it would load nowhere else, and "
                "would publish where the folder lies. Name a base model on the Hub, or pass --peft_merge true, which "
                "pushes the whole model."
            )

    def title(self) -> str:
        """How notes call the method."""
        if self.peft_config is not None:
            return str(self.peft_config["peft_type"])
        return f"{'DoRA' if self.use_dora else 'LoRA'} of rank {RANK if self.lora_r is None else self.lora_r}"


def config_of(settings: dict[str, Any]) -> Any:
    """
    The configuration of any method of PEFT.

    Args:
        settings (`dict[str, Any]`): `peft_type`, and fields of that method's configuration, such as an
            `adapter_config.json` holds. What that says of its own base model and run is left out.

    Returns:
        `peft.PeftConfig`

    Raises:
        ConfigurationError: If the method or a field does not exist, with the nearest that does.
    """
    require_peft()
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(getattr(kind, "value", kind)): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    method = settings.get("peft_type")
    if method not in kinds:
        said = "has no peft_type" if method is None else f"has the peft_type {method!r}, which PEFT does not know"
        raise ConfigurationError(
            f"peft_config {said}.{nearest(str(method).upper(), kinds)} Valid: {', '.join(sorted(kinds))}."
        )
    given = {name: value for name, value in settings.items() if name not in (*OF_ANOTHER_RUN, "peft_type")}
    fields = [name for name, known in kinds[method].__dataclass_fields__.items() if known.init]
    for name in given:
        if name not in fields:
            hint = nearest(name, fields)
            raise ConfigurationError(f"peft_config has the key {name!r}, which {method} does not have.{hint}")
    try:
        config = kinds[method](**given)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"peft_config: {method} does not take these values: {error}") from error
    check_method(config)
    return config


# ---- Inside ----


def _names(value: list[str] | str | None, expressions: bool) -> list[str] | str | None:
    if not isinstance(value, str) or (expressions and (value == ALL_LINEAR or re.search(r"[\\^$|?*+()\[\]{}]", value))):
        return value
    return [name.strip() for name in value.split(",") if name.strip()]
