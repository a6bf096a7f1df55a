"""A PyTorch classifier -> a graph in a file: torch.export, and ONNX from it."""

import inspect
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import Calibration
from hf_ext.evaluation.speed import evaluating
from hf_ext.export.arguments import ONNX, check_opset, require_packages
from hf_ext.files import write_json
from hf_ext.models.building import longest_input

ONNX_FILE, TORCH_FILE = "model.onnx", "model.pt2"
# Two rows of different lengths: a graph of one row, or of rows without padding, could be of such rows only.
EXAMPLES = ["the quick brown fox jumps over the lazy dog", "hello"]
AXES = ("batch", "length")


def export_torch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    calibration: Calibration | None = None,
) -> Path:
    """
    Write a classifier as a `torch.export` program: `model.pt2`, beside what it takes to use it.

    The program takes the tokenizer's outputs by name, of any number of rows and of any length that the model takes, and
    gives the logits. It runs without the model's code, also in C++.

    Args:
        model ([`~transformers.PreTrainedModel`]): A sequence classifier on the CPU. It stays as it is.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its own; `model_max_length` cuts the texts.
        folder (`str` or `os.PathLike`): A new or empty folder, which appears once everything is in it: `model.pt2`, the
            tokenizer's files, `config.json` and, with a calibration, `calibration.json`.
        calibration ([`Calibration`], *optional*): Of the model.

    Returns:
        `Path`: The file.

    Raises:
        ConfigurationError: If the model cannot be traced (with the place in its code), or the folder holds something.
    """
    program = trace(model, tokenizer)
    for node in program.graph.nodes:
        # It names the files of this machine.
        node.meta.pop("stack_trace", None)
    with whole_folder(folder) as unfinished:
        torch.export.save(program, unfinished / TORCH_FILE)
        _save_beside(model, tokenizer, unfinished, calibration)
    return Path(folder) / TORCH_FILE


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike,
    calibration: Calibration | None = None,
    opset: int | None = None,
) -> Path:
    """
    Write a classifier as an ONNX graph: `model.onnx`, beside what it takes to use it.

    Inputs are the tokenizer's outputs, int64 of shape `(batch, length)`, both of any size that the model takes; the
    output is `logits`, of shape `(batch, classes)`. Weights of more than 1.5 GiB are beside it, in `model.onnx.data`.

    Args:
        model, tokenizer, folder, calibration:
            As [`export_torch`].
        opset (`int`, *optional*): Version of the ONNX operators, from 18 on; by default the exporter's own.

    Returns:
        `Path`: The file.

    Raises:
        ConfigurationError: As [`export_torch`]; if an operator has no ONNX form (with its name and node), the opset is
            not to be had, or a package is missing.
    """
    require_packages(ONNX)
    check_opset(opset)
    program = trace(model, tokenizer)
    with _quiet():
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(program.graph_signature.user_inputs),
                output_names=["logits"],
                opset_version=opset,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigurationError(_conversion_message(error)) from error
    made = converted.model.opset_imports[""]
    if opset not in (None, made):
        raise ConfigurationError(
            f"opset is {opset}, but the graph could only be made for {made}. Pass --opset {made}, or leave it out."
        )
    with whole_folder(folder) as unfinished:
        converted.save(unfinished / ONNX_FILE)
        _tidy(unfinished / ONNX_FILE)
        _save_beside(model, tokenizer, unfinished, calibration)
    return Path(folder) / ONNX_FILE


def trace(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "torch.export.ExportedProgram":
    """
    The graph of a classifier in evaluation mode, from the tokenizer's outputs to the logits.

    Args:
        model, tokenizer: As [`export_torch`].

    Returns:
        [`~torch.export.ExportedProgram`]: With dynamic numbers of rows and tokens.

    Raises:
        ConfigurationError: If the model is not on the CPU, or its code depends on the values or the shape of what it is
            given.
    """
    devices = {str(parameter.device) for parameter in model.parameters()} - {"cpu"}
    if devices:
        raise ConfigurationError(f"The model is on {', '.join(sorted(devices))}; move it to the CPU: model.to('cpu').")
    encoded = tokenizer(EXAMPLES, truncation=True, padding=True, return_tensors="pt")
    accepted = inspect.signature(model.forward).parameters
    inputs = {name: ids for name, ids in encoded.items() if name in accepted}
    axes = (torch.export.Dim(AXES[0], min=1), torch.export.Dim(AXES[1], min=1, max=longest_input(model.config)))
    with evaluating([model]), _quiet():
        try:
            return torch.export.export(
                _logits_of(model, list(inputs)),
                (),
                inputs,
                dynamic_shapes={name: dict(enumerate(axes)) for name in inputs},
            )
        # Whatever the model's own code raises when it is given symbols for numbers.
        except Exception as error:
            raise ConfigurationError(_trace_message(model, error)) from error


@contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """
    A folder to write into, which gets its name when the block ends without an error; after one nothing is left.

    Args:
        folder (`str` or `os.PathLike`): The name; new, or of an empty folder.

    Raises:
        ConfigurationError: If it holds something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already and not empty; name a new folder.")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


# ---- Inside ----


def _logits_of(model: PreTrainedModel, names: list[str]) -> nn.Module:
    """A module that takes inputs of these names, which torch.export reads from its signature, and gives the logits."""

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, **inputs):
            return self.model(**inputs).logits

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    Logits.forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])
    return Logits().train(model.training)


def _save_beside(model, tokenizer, folder: Path, calibration: Calibration | None) -> None:
    tokenizer.save_pretrained(folder)
    # Whole: what is left to the library's defaults cannot be read without the library.
    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
    if calibration is not None:
        calibration.save(folder)


def _tidy(path: Path) -> None:
    """Name the axes, and leave out the exporter's notes: they hold paths of this machine and stale shapes."""
    import onnx

    graph = (content := onnx.load(path, load_external_data=False)).graph
    names = {
        axis.dim_param: name
        for value in graph.input
        for axis, name in zip(value.type.tensor_type.shape.dim, AXES, strict=True)
    }
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    del graph.value_info[:]
    del graph.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(content, path)
    onnx.checker.check_model(path)


def _trace_message(model: PreTrainedModel, error: Exception) -> str:
    text = str(error)
    place = re.search(r'raised this error:\s*File "[^"]*?([^"/]+)", line (\d+), in (\w+)\n\s*(.+)', text)
    where = f" at {place[1]}, line {place[2]} (`{place[4].strip()}`)" if place else ""
    fixed = re.search(r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)", text)
    if fixed:
        why = f"its code takes a {fixed[1]} of {fixed[2]} only"
    else:
        why = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__).rstrip(".")
    return (
        f"{type(model).__name__} cannot be traced by torch.export{where}: {why}. Exported graphs have no branches on "
        "values and no fixed shapes: replace that place in the model's code, or use the model as it is."
    )


def _conversion_message(error: Exception) -> str:
    texts, cause = [str(error)], error.__cause__
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(texts)
    operator = re.search(r"op='([\w.:]+)'", text)
    node = re.search(r"translating node %(\w+)", text)
    if operator and node:
        return (
            f"onnx: the operator {operator[1]} (node {node[1]}) has no ONNX form. Export to torch_export, which takes "
            "every operator, or replace it in the model's code."
        )
    return f"onnx: the graph could not be converted: {texts[-1].splitlines()[0]} Export to torch_export instead."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that no text classifier needs, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
