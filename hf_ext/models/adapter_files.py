"""An adapter in a folder or on the Hub: what is saved beside its weights, and how it is put on its base model again."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.files import write_json
from hf_ext.models.adapters import is_adapted, require_peft

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Not config.json: transformers would take the folder for that of a whole model.
CLASSIFIER_CONFIG = "classifier_config.json"
CARD = "README.md"
# What a classifier's configuration has that its base model's has not.
KEPT = ("architectures", "id2label", "label2id", "problem_type", "num_hidden_layers")


@dataclass(frozen=True)
class SavedAdapter:
    """
    Where an adapter lies, and what it belongs to.

    Args:
        name (`str`): Folder, or name on the Hub.
        base (`str`): Of its base model.
        base_revision (`str`, *optional*): The base model's branch, tag or commit.
        classifier (`dict[str, Any]`): Settings of the classifier that the base model does not have; empty if the
            adapter was not saved by this package.
        hub (`dict[str, Any]`): How the adapter is found on the Hub: `revision`, `token`, `cache_dir`.
    """

    name: str
    base: str
    base_revision: str | None
    classifier: dict[str, Any]
    hub: dict[str, Any]

    def complete(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The base model's configuration with the classifier's classes."""
        for name, value in self.classifier.items():
            setattr(config, name, {int(key): label for key, label in value.items()} if name == "id2label" else value)
        return config

    def put_on(self, model: PreTrainedModel, new_parameters: Iterable[str]) -> Any:
        """
        The adapter on its base model, ready to answer.

        Args:
            model ([`~transformers.PreTrainedModel`]): The base model as a classifier; changed in place.
            new_parameters (`Iterable[str]`): Those that the base model's weights did not have.

        Returns:
            `peft.PeftModelForSequenceClassification`

        Raises:
            ConfigurationError: If the two do not fit together, or some weights would be random.
        """
        require_peft()
        from peft import PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights

        kwargs = {name: value for name, value in self.hub.items() if value is not None}
        try:
            adapted = PeftModel.from_pretrained(model, self.name, **kwargs)
            saved = load_peft_weights(self.name, device="cpu", **kwargs)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
            raise ConfigurationError(
                f"The adapter {self.name} does not fit its base model {self.base}. {self._hint()} PEFT says: "
                f"{' '.join(str(error).split())}"
            ) from error
        lost = sorted(set(get_peft_model_state_dict(adapted)) - set(saved))
        random = [name for name in new_parameters if not any(_is_part(name, key) for key in saved)]
        if lost or random:
            raise DataError(
                f"Neither the adapter {self.name} nor its base model {self.base} has weights for "
                f"{', '.join((lost or random)[:4])}: they would be random. Save the adapter again with its head."
            )
        return adapted

    def _hint(self) -> str:
        if not self.classifier:
            return f"It has no {CLASSIFIER_CONFIG}, so its classes are not known: pass --num_labels."
        return "Was the base model replaced by another since, or a file damaged?"


def find_adapter(name: str, **hub: Any) -> SavedAdapter | None:
    """
    The adapter that lies in a folder or on the Hub under a name; `None` if a whole model does, or nothing.

    Args:
        name (`str`): Folder, or name on the Hub.
        hub: `revision`, `token` and `cache_dir`, of the Hub.

    Raises:
        ConfigurationError: If the folder does not say what the adapter's base model is, or that is a folder which is
            not there.
        DataError: If a file is damaged.
    """
    path = _find(name, ADAPTER_CONFIG, **hub)
    if path is None:
        return None
    settings = _read(path)
    base = settings.get("base_model_name_or_path")
    place = Path(name) / ADAPTER_CONFIG
    if not base:
        raise ConfigurationError(f"{place} does not name the base model of the adapter (base_model_name_or_path).")
    if base.startswith(("/", ".", "~")) and not Path(base).is_dir():
        raise ConfigurationError(
            f"{name} is an adapter of the model {base}, which is not there. Put that back, or write where it is now "
            f"(or its name on the Hub) as base_model_name_or_path into {place}."
        )
    classifier = _find(name, CLASSIFIER_CONFIG, **hub)
    return SavedAdapter(name, base, settings.get("revision"), _read(classifier) if classifier else {}, hub)


def is_local(base: str) -> bool:
    """Whether the name of a base model is a folder, which is not there on other machines."""
    return bool(base) and (base.startswith(("/", ".", "~")) or Path(base).is_dir())


def save_classifier_config(model: Any, folder: str | Path) -> None:
    """
    Write what an adapter's own files do not say: the classes, and what else differs from the base model.

    Args:
        model (`peft.PeftModel`): The adapted classifier.
        folder (`str` or `Path`): That of the adapter.
    """
    classifier = model.get_base_model()
    config = {**classifier.config.to_dict(), "architectures": [type(classifier).__name__]}
    kept = {name: config[name] for name in KEPT if config.get(name) is not None}
    write_json(Path(folder) / CLASSIFIER_CONFIG, kept)


@contextmanager
def adapter_saved(model: Any, folder: str | Path, wanted: bool) -> Iterator[None]:
    """
    Complete what PEFT saves inside a `with` block: the classes are written beside, and its card, an empty form that
    names folders of this machine, is not left.

    Args:
        model (`Any`): That is saved; nothing is done for one without an adapter.
        folder (`str` or `Path`): Where to.
        wanted (`bool`): Whether this process is the one to write.
    """
    card = Path(folder) / CARD
    before = card.read_bytes() if is_adapted(model) and card.is_file() else None
    yield
    if not wanted or not is_adapted(model):
        return
    save_classifier_config(model, folder)
    if before is not None:
        card.write_bytes(before)
    else:
        card.unlink(missing_ok=True)


def adapter_usage(folder: Path, place: str) -> list[str]:
    """
    How a saved adapter is loaded, for a model card.

    Args:
        folder (`Path`): That of the adapter.
        place (`str`): What the code calls it.

    Returns:
        `list[str]`: Lines of Markdown.
    """
    classes = len(_read(folder / CLASSIFIER_CONFIG)["id2label"])
    return [
        "```python",
        "from peft import AutoPeftModelForSequenceClassification",
        "from transformers import AutoTokenizer",
        "",
        f'model = AutoPeftModelForSequenceClassification.from_pretrained("{place}", num_labels={classes})',
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
        'print(model(**tokenizer("A text to classify.", return_tensors="pt")).logits)',
        "```",
        "",
        f"The adapter is loaded on top of its base model. The names of the classes are in `{CLASSIFIER_CONFIG}`.",
    ]


# ---- Inside ----


def _is_part(parameter: str, key: str) -> bool:
    """Whether a key of an adapter's file is a parameter of the classifier, in whose place it stands."""
    return key == parameter or key.endswith(f".{parameter}")


def _find(name: str, file: str, **hub: Any) -> str | None:
    if Path(name).is_dir():
        return str(Path(name) / file) if (Path(name) / file).is_file() else None
    if name.startswith(("/", ".", "~")):
        return None
    try:
        return cached_file(
            name,
            file,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **hub,
        )
    except (OSError, ValueError):
        # No such repository: whoever loads the model says so.
        return None


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}.") from error
