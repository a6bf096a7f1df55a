"""Which files of a folder belong to the model in it."""

import json
import re
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import CALIBRATION_FILE
from hf_ext.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD, CLASSIFIER_CONFIG

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
# What belongs to a model if it is there.
MODEL_FILES = (
    "config.json", "generation_config.json", WEIGHTS, WEIGHTS_INDEX, ADAPTER_WEIGHTS, ADAPTER_CONFIG,
    CLASSIFIER_CONFIG, CALIBRATION_FILE,
    *TOKENIZER_FILES, CARD, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE",
)  # fmt: skip
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# What another model may have left in a repository that this one is pushed to. Texts of people are not.
REPLACED = frozenset(MODEL_FILES) - {CARD, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE"}

# Why the rest is left out: pattern of the name -> reason, the first that fits.
REASONS = {
    r"checkpoint-\d+/": "a checkpoint: optimizer and random state",
    r"\..*": "hidden",
    r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib)": "pickle, which runs code when it is loaded",
    r"(predictions_.*|preflight\.json|report\.html)": "holds texts of the data",
    r".*\.(jsonl|csv|tsv|parquet|arrow|gz|zip|tar)": "may hold rows of the data",
    r"(run|trainer_state|.*_results|finished|begun|lr_finder|distillation)\.json|.*\.(log|png|db)|runs/|wandb/":
        "a record of the run",
    r".*/": "a folder; the files of a model lie side by side",
}  # fmt: skip


def model_files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """
    Split what a folder holds into what belongs to its model and what does not.

    To the model belong weights as safetensors (all parts that their index names), configuration, tokenizer, card,
    licence, `calibration.json`, an adapter's files, and the Python files that the configuration names (`auto_map`) with
    those that they import from beside them.

    Args:
        folder (`Path`): The folder.

    Returns:
        `tuple[list[str], dict[str, str]]`: Names of the files, sorted; and what is left out -> the reason.

    Raises:
        ConfigurationError: If something is missing without which the model would not load elsewhere.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}; name that of a saved model.")
    config = _json(folder, "config.json") or {}
    if not config and not (folder / ADAPTER_CONFIG).is_file():
        raise ConfigurationError(f"{folder} has no config.json: it is not the folder of a saved model.")
    names = {name for name in MODEL_FILES if (folder / name).is_file()}
    names |= set(_weights(folder)) | set(_code(folder, config))
    left_out = {}
    for item in sorted(folder.iterdir()):
        name = f"{item.name}/" if item.is_dir() else item.name
        if name not in names:
            left_out[name] = next(
                (why for pattern, why in REASONS.items() if re.fullmatch(pattern, name)), "no file of a model"
            )
    return sorted(names), left_out


def is_replaced(name: str) -> bool:
    """Whether a file in a repository is one of an earlier model's, which must not lie beside those of another."""
    return name in REPLACED or SHARD.fullmatch(name) is not None


# ---- Inside ----


def _json(folder: Path, name: str) -> Any:
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON: {error}.") from error


def _weights(folder: Path) -> list[str]:
    """The parts that an index names, or the one file of weights."""
    index = _json(folder, WEIGHTS_INDEX)
    if index is not None:
        shards = sorted(set(index.get("weight_map", {}).values()))
        for shard in shards:
            if not SHARD.fullmatch(shard):
                raise ConfigurationError(
                    f"{folder / WEIGHTS_INDEX} names {shard!r}; a part of the weights is a file beside it, such as "
                    "model-00001-of-00002.safetensors. Save the model again with save_pretrained."
                )
            if not (folder / shard).is_file():
                raise ConfigurationError(f"{folder} has no {shard}, which {WEIGHTS_INDEX} names: weights are missing.")
        return shards
    if not any((folder / name).is_file() for name in (WEIGHTS, ADAPTER_WEIGHTS)):
        raise ConfigurationError(
            f"{folder} has no {WEIGHTS} (nor {ADAPTER_WEIGHTS}). Weights in another form (pickle) are not pushed: load "
            "the model and save it again with save_pretrained."
        )
    return []


def _code(folder: Path, config: dict[str, Any]) -> list[str]:
    """The Python files without which the model does not load."""
    own = _named_classes(config.get("auto_map")) + _named_classes(
        (_json(folder, "tokenizer_config.json") or {}).get("auto_map")
    )
    kind = config.get("model_type")
    if config and "AutoConfig" not in config.get("auto_map", {}) and kind not in CONFIG_MAPPING_NAMES:
        raise ConfigurationError(
            f"{folder / 'config.json'} is of the model_type {kind!r}, which transformers does not know, and names no "
            "code (auto_map): it would not load elsewhere. Register the classes with register_for_auto_class; of a "
            "model of several tasks push the folder of each task."
        )
    needed, found = [name.split(".")[0] for name in own], []
    while needed:
        module = needed.pop()
        name = f"{module}.py"
        if name in found:
            continue
        if not module.isidentifier() or not (folder / name).is_file():
            raise ConfigurationError(
                f"{folder} has no {name}, which the model needs to load elsewhere (auto_map in its configuration). "
                "Save the model again with save_pretrained."
            )
        found.append(name)
        needed += re.findall(r"^\s*from\s+\.(\w+)\s+import", (folder / name).read_text(encoding="utf-8"), re.MULTILINE)
    return found


def _named_classes(auto_map: Any) -> list[str]:
    """The classes of the folder's own code; `repo--module.Class` is that of another repository."""
    named = [name for value in (auto_map or {}).values() for name in (value if isinstance(value, list) else [value])]
    return [name for name in named if name and "--" not in name]
