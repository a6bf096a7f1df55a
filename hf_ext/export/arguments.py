"""What an export can be told."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ext.defaults.streaming import refuse_streaming
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.launching import require_alone

ONNX, ONNX_INT8, TORCH_EXPORT = "onnx", "onnx_int8", "torch_export"
# Format -> the share of answers that may change by default. One text in a thousand leaves room for a tie.
FORMATS = {ONNX: 0.001, ONNX_INT8: 0.03, TORCH_EXPORT: 0.001}
PACKAGES = {ONNX: ("onnx", "onnxscript", "onnxruntime"), TORCH_EXPORT: ()}
PACKAGES[ONNX_INT8] = PACKAGES[ONNX]
# ONNX operators that ONNX Runtime has dynamic int8 forms of, and that classifiers have. Gemm becomes MatMul.
INT8_OPS = ("MatMul", "Gather", "Conv")
DEFAULT_INT8_OPS = ("MatMul", "Gather")
# The exporter knows no older one; it would keep this one instead, with a warning.
FIRST_OPSET = 18


@dataclass
class ExportArguments:
    """
    What a model is exported to, and what it may lose by it.

    Raises:
        ConfigurationError: If a format or operator is unknown, or a number is out of range.
    """

    _argument_group_name = "export"

    formats: list[str] = field(default_factory=lambda: [ONNX], metadata={"help": f"Some of {', '.join(FORMATS)}."})
    max_flips: float | None = field(
        default=None,
        metadata={
            "help": "Share of the texts whose answer may change before an export is refused; by default "
            + ", ".join(f"{share:g} for {name}" for name, share in FORMATS.items())
            + "."
        },
    )
    max_texts: int = field(
        default=1000, metadata={"help": "Compare on at most so many texts, evenly spread over the file."}
    )
    opset: int | None = field(
        default=None, metadata={"help": f"ONNX opset, from {FIRST_OPSET} on; by default the exporter's own."}
    )
    int8_ops: list[str] = field(
        default_factory=lambda: list(DEFAULT_INT8_OPS),
        metadata={"help": f"Operators that become int8, some of {', '.join(INT8_OPS)} (Gather: the embeddings)."},
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for one folder a format, export.json and report.html."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace the run that output_dir holds."})

    def __post_init__(self):
        _check_names("formats", self.formats, FORMATS)
        check_int8_ops(self.int8_ops)
        if self.max_flips is not None and not 0 <= self.max_flips <= 1:
            raise ConfigurationError(f"max_flips is {self.max_flips:g}; it must be a share between 0 and 1.")
        if self.max_texts < 1:
            raise ConfigurationError(f"max_texts is {self.max_texts}; it must be at least 1.")
        check_opset(self.opset)
        if self.opset is not None and not {ONNX, ONNX_INT8} & set(self.formats):
            raise ConfigurationError(f"opset={self.opset} has an effect only on {ONNX} and {ONNX_INT8}; leave it out.")

    def allowed_flips(self, name: str) -> float:
        """The share of answers that may change in a format."""
        return FORMATS[name] if self.max_flips is None else self.max_flips


def complete_export_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what an export's settings imply.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If no model or no texts are named, or several processes were launched.
    """
    name = values.get("model_name_or_path")
    if name is None:
        raise ConfigurationError("No model is named. Pass --model_name_or_path with the directory of a saved model.")
    if not {"test_file", "dataset_name", "data_dir"} & set(values):
        raise ConfigurationError(
            "No texts are named: what is exported is compared with the model on real texts. Pass --texts_file FILE "
            "(with labels, to see the accuracy too)."
        )
    refuse_streaming(values)
    require_alone("An export")
    return {"output_dir": os.path.join("outputs", f"{Path(name).resolve().name}_export"), **values}


def require_packages(name: str) -> None:
    """
    See that the packages are there that a format takes.

    Args:
        name (`str`): Of the format.

    Raises:
        ConfigurationError: With the command that installs them.
    """
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigurationError(
            f"{name} needs {', '.join(missing)}, not installed here: pip install 'hf_ext[export]'."
        )


def check_int8_ops(op_types: Sequence[str]) -> None:
    """
    See that operators have an int8 form.

    Raises:
        ConfigurationError: With the operator that has none.
    """
    if not op_types:
        raise ConfigurationError(f"int8_ops is empty; name some of {', '.join(INT8_OPS)}.")
    for name in op_types:
        if name not in INT8_OPS:
            raise ConfigurationError(
                f"int8_ops names {name}, of which ONNX Runtime has no dynamic int8 form that classifiers use."
                f"{nearest(name, INT8_OPS)} Valid: {', '.join(INT8_OPS)}; all other operators stay in float32."
            )


def check_opset(opset: int | None) -> None:
    """
    See that the exporter knows an opset.

    Raises:
        ConfigurationError: If it is too old.
    """
    if opset is not None and opset < FIRST_OPSET:
        raise ConfigurationError(f"opset is {opset}; the exporter has operators from {FIRST_OPSET} on. Leave it out.")


# ---- Inside ----


def _check_names(field_name: str, given: Sequence[str], valid: Sequence[str]) -> None:
    if not given:
        raise ConfigurationError(f"{field_name} is empty; name some of {', '.join(valid)}.")
    for place, name in enumerate(given):
        if name not in valid:
            raise ConfigurationError(
                f"{field_name} names {name!r}, which does not exist.{nearest(name, valid)} Valid: {', '.join(valid)}; "
                "on the command line with a space between them."
            )
        if name in given[:place]:
            raise ConfigurationError(f"{field_name} names {name!r} twice.")
