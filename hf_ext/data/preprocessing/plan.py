"""What preprocessing is told, and what it finds before it begins."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from hf_ext.arguments import RawDataArguments
from hf_ext.data.duplicates import check_threshold
from hf_ext.data.preprocessing.cleaning import UrlPolicy, clean_steps
from hf_ext.data.preprocessing.selecting import ConflictPolicy
from hf_ext.data.preprocessing.sources import find_sources, sha256_of
from hf_ext.data.preprocessing.unifying import Form, find_forms
from hf_ext.data.streaming import Source
from hf_ext.errors import ConfigurationError
from hf_ext.version import __version__


@dataclass
class PreprocessingArguments:
    """How raw texts become training data."""

    _argument_group_name = "preprocessing"

    clean_html: bool = field(default=False, metadata={"help": "Remove tags and decode entities."})
    clean_urls: UrlPolicy = field(
        default="keep", metadata={"help": "keep addresses, replace them by [URL], or remove them."}
    )
    fix_encoding: bool = field(default=False, metadata={"help": "Mend text that was decoded wrongly (mojibake)."})
    label_map: dict | None = field(
        default=None,
        metadata={
            "help": 'Old to new labels, as JSON on the command line; null drops the row: {"1": "bad", "3": null}.'
        },
    )
    drop_unlabelled: bool = field(default=False, metadata={"help": "Drop rows without a label instead of failing."})
    deduplicate: Literal["near", "exact", "off"] = field(
        default="near",
        metadata={
            "help": "Remove repeated texts: also near duplicates, only those equal but for case and space, none."
        },
    )
    near_duplicate_threshold: float = field(
        default=0.8, metadata={"help": "Similarity from which texts are near duplicates (Jaccard, character 5-grams)."}
    )
    conflicting_labels: ConflictPolicy = field(
        default="drop",
        metadata={"help": "Equal texts with different labels: drop all, keep_first, or error; drop needs deduplicate."},
    )
    keep_columns: list[str] | None = field(
        default=None, metadata={"help": "Further columns to keep; source_idx and is_augmented are kept anyway."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Rows with the same value of this column stay in one split."}
    )
    output_format: Literal["json", "parquet"] = field(default="json", metadata={"help": "json (an array) or parquet."})

    def __post_init__(self):
        check_threshold(self.near_duplicate_threshold)
        if self.deduplicate == "off" and self.conflicting_labels == "keep_first":
            raise ConfigurationError(
                "conflicting_labels=keep_first with deduplicate=off: equal texts all stay then, so none is first. "
                "Take deduplicate=exact."
            )
        if self.label_map is not None:
            # YAML knows keys that are numbers, JSON doesn't.
            self.label_map = {
                old if isinstance(old, str) else json.dumps(old): new for old, new in self.label_map.items()
            }
        self.keep_columns = list(dict.fromkeys([*(self.keep_columns or []), *filter(None, [self.group_column])]))


@dataclass
class Plan:
    """What a run will do, known before any text is cleaned."""

    sources: list[Source]
    ignored: list[tuple[str, str]]
    forms: dict[Source, Form]
    settings: PreprocessingArguments
    data_args: RawDataArguments

    def fingerprint(self, progress: bool) -> str:
        """SHA-256 of all that decides on the result: every byte read, the settings, and the versions that matter."""
        total = sum(path.stat().st_size for source in self.sources for path in source.files)
        inputs = []
        with tqdm(total=total, desc="Hashing", unit="B", unit_scale=True, disable=not progress) as bar:
            for source in self.sources:
                digest, size = sha256_of(source)
                inputs.append((source.name, source.kind, digest))
                bar.update(size)
        packages = ["datasets", "pyarrow", "numpy"]
        packages += ["ftfy"] * self.settings.fix_encoding + ["selectolax"] * self.settings.clean_html
        packages += ["rensa"] * (self.settings.deduplicate == "near")
        content = {
            "hf_ext": __version__,
            "packages": {name: metadata.version(name) for name in packages},
            "inputs": inputs,
            "ignored": self.ignored,
            "settings": self.resolved(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def resolved(self) -> dict[str, Any]:
        """The settings that decide on the result."""
        names = (
            "text_column_names", "text_column_delimiter", "text_pair_column_name", "label_column_name",
            "remove_columns", "do_regression", "validation_size", "test_size", "split_seed",
        )  # fmt: skip
        return {**asdict(self.settings), **{name: getattr(self.data_args, name) for name in names}}

    @property
    def pair(self) -> bool:
        """Whether the rows are pairs of texts."""
        return self.forms[self.sources[0]].text_pair is not None

    @property
    def kept(self) -> tuple[str, ...]:
        """The further columns that stay."""
        return self.forms[self.sources[0]].kept


def make_plan(input_dir: Path, settings: PreprocessingArguments, data_args: RawDataArguments) -> Plan:
    """
    Find the files and their columns.

    Raises:
        DataError: Without data, or with files whose columns differ.
        ConfigurationError: If the shares leave nothing to train on, or a package is missing that cleaning needs.
    """
    # Before all bytes are read for the fingerprint, which asks for the package's version.
    clean_steps("", settings.clean_html, settings.clean_urls, settings.fix_encoding)
    sources, ignored = find_sources(input_dir)
    if data_args.validation_size + data_args.test_size >= 1:
        raise ConfigurationError(
            f"validation_size={data_args.validation_size} and test_size={data_args.test_size} leave nothing to train "
            "on; their sum must be below 1."
        )
    return Plan(sources, ignored, find_forms(sources, data_args, settings.keep_columns), settings, data_args)
