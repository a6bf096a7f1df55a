"""From a saved model and real texts to a folder of exports that were compared: what run_export.py does."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.arguments import ModelArguments
from hf_ext.data.labels import Task
from hf_ext.data.loading import TextData
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import Calibration
from hf_ext.evaluation.comparison import Comparison
from hf_ext.evaluation.speed import compare_speed, model_cost
from hf_ext.export.arguments import (
    ONNX,
    ONNX_INT8,
    PACKAGES,
    TORCH_EXPORT,
    ExportArguments,
    require_packages,
)
from hf_ext.export.exported_model import ExportedModel
from hf_ext.export.graphs import export_onnx, export_torch
from hf_ext.export.parity import PYTORCH, Parity, check_flips, check_shapes, compare_exports
from hf_ext.export.quantization import quantize_onnx
from hf_ext.models.adapters import is_adapted, merge_adapter
from hf_ext.models.building import load_pretrained
from hf_ext.output_dir import check_output_dir, clear_output_dir


@dataclass(frozen=True)
class ExportResult:
    """
    Exports that passed their comparison.

    Args:
        formats (`dict[str, dict]`): Format -> its folder and what is in it.
        parity (`dict[str, Parity]`): Format -> how its answers compare.
        costs (`dict[str, dict]`): `"pytorch"` and each format -> size and speed, as [`compare_speed`].
        comparison ([`Comparison`], *optional*): If the texts have labels.
        texts (`dict`): Where the texts are from, and how many there are.
        notes (`list[str]`): What a reader has to know.
    """

    formats: dict[str, dict[str, Any]]
    parity: dict[str, Parity]
    costs: dict[str, dict[str, Any]]
    comparison: Comparison | None
    texts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Texts:
    """Those that are compared on, their labels if there are any, and their numbers in the file, from 1."""

    texts: list
    labels: np.ndarray | None
    rows: list[int]
    source: str
    given: int


@contextmanager
def published_folder(output_dir: Path, overwrite: bool) -> Iterator[Path]:
    """
    A folder to write into, whose contents move to `output_dir` when the block ends without an error; after one
    `output_dir` is as it was.

    Args:
        output_dir (`Path`): From [`check_output_dir`].
        overwrite (`bool`): Whether the run that it holds is replaced, at the end.
    """
    existing = next(parent for parent in (output_dir, *output_dir.absolute().parents) if parent.is_dir())
    work = Path(tempfile.mkdtemp(prefix=".export.", dir=existing))
    try:
        yield work
        # Another run may have come first.
        check_output_dir(str(output_dir), overwrite, can_resume=False)
        if overwrite:
            clear_output_dir(output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        for item in sorted(work.iterdir()):
            os.replace(item, output_dir / item.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load_to_export(
    model_args: ModelArguments, task: Task
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """
    The model that is exported. An adapter is merged into its base model: exports know of no adapters.

    Args:
        model_args ([`ModelArguments`]): Name the model.
        task ([`Task`]): Its own.

    Returns:
        `tuple`: The model, its tokenizer, and sentences for the reader of the results.

    Raises:
        ConfigurationError: If it is an adapter that cannot be merged.
    """
    model, tokenizer = load_pretrained(model_args, task, use_cpu=True)
    if not is_adapted(model):
        return model, tokenizer, []
    try:
        merged = merge_adapter(model)
    except ConfigurationError as error:
        raise ConfigurationError(f"{model_args.model_name_or_path} cannot be exported: {error}") from error
    said = f"{model_args.model_name_or_path} is an adapter: what is exported is its base model with it merged in."
    return merged, tokenizer, [said]


def export_model(
    args: ExportArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TextData,
    work: Path,
    calibration: Calibration | None = None,
) -> ExportResult:
    """
    Export a model to all formats that were asked for, compare each with it, and measure them.

    Args:
        args ([`ExportArguments`]): What to export, and what may change.
        model ([`~transformers.PreTrainedModel`]): On the CPU.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): `model_max_length` cuts the texts.
        data ([`TextData`]): The split `test`.
        work (`Path`): A folder; each format gets one in it.
        calibration ([`Calibration`], *optional*): Of the model.

    Returns:
        [`ExportResult`]

    Raises:
        ConfigurationError: If an export is not to be had, or too many answers are others.
    """
    for name in args.formats:
        require_packages(name)
    formats = _write_formats(args, model, tokenizer, work, calibration)
    # As many threads as the model has beside which they are measured.
    exported = {name: ExportedModel.load(work / name, torch.get_num_threads()) for name in args.formats}
    reference = ExportedModel.of_pytorch(model, tokenizer, calibration)
    for name, loaded in exported.items():
        check_shapes(name, reference, loaded, exact=name != ONNX_INT8)
    chosen = _choose_texts(data, args.max_texts)
    parity, comparison = compare_exports(reference, exported, chosen.texts, chosen.labels, chosen.rows)
    for name, found in parity.items():
        print(f"{name}: {found.sentence}.", flush=True)
    for name, found in parity.items():
        check_flips(name, found, args.allowed_flips(name), chosen.source)
    costs = _costs(model, tokenizer, exported, formats, chosen.texts)
    if comparison is not None:
        models = {name: replace(result, costs=costs[name]) for name, result in comparison.models.items()}
        comparison = replace(comparison, models=models)
    facts = {"source": chosen.source, "given": chosen.given, "compared": len(chosen.texts)}
    return ExportResult(formats, parity, costs, comparison, facts, _notes(chosen, formats))


# ---- Inside ----


def _write_formats(args, model, tokenizer, work: Path, calibration) -> dict[str, dict[str, Any]]:
    written: dict[str, dict[str, Any]] = {}
    source = work / ONNX
    if {ONNX, ONNX_INT8} & set(args.formats):
        print("Exporting to onnx ...", flush=True)
        export_onnx(model, tokenizer, source, calibration, args.opset)
    for name in args.formats:
        facts: dict[str, Any] = {}
        if name == ONNX_INT8:
            print("Quantising to onnx_int8 ...", flush=True)
            found = quantize_onnx(source, work / name, args.int8_ops)
            facts = {"int8": found.int8, "float32": found.float32, "sentence": found.sentence}
        elif name == TORCH_EXPORT:
            print("Exporting to torch_export ...", flush=True)
            export_torch(model, tokenizer, work / name, calibration)
        written[name] = {**_file_facts(work / name), **facts, "versions": _versions(name)}
    if source.is_dir() and ONNX not in args.formats:
        shutil.rmtree(source)
    return written


def _file_facts(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("model.*"))
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"megabytes": sum(path.stat().st_size for path in files) / 1e6, "sha256": digests}


def _versions(name: str) -> dict[str, str]:
    return {package: metadata.version(package) for package in ("torch", *PACKAGES[name])}


def _choose_texts(data: TextData, limit: int) -> _Texts:
    split, texts = data.splits["test"], data.texts("test")
    places = np.unique(np.linspace(0, len(texts) - 1, min(limit, len(texts))).round().astype(int))
    labels = np.array(split["label"][:])[places] if "label" in split.column_names else None
    rows = [data.file_rows["test"][place] for place in places]
    return _Texts([texts[place] for place in places], labels, rows, Path(data.files["test"]).name, len(texts))


def _costs(model, tokenizer, exported, formats, texts: list) -> dict[str, dict[str, Any]]:
    print("Measuring ...", flush=True)
    speeds = compare_speed({PYTORCH: (model, tokenizer), **exported}, texts, max_length=tokenizer.model_max_length)
    sizes = {PYTORCH: model_cost(model), **{name: {"megabytes": formats[name]["megabytes"]} for name in formats}}
    return {name: {**sizes[name], **speeds[name]} for name in speeds}


def _notes(chosen: _Texts, formats: dict[str, dict[str, Any]]) -> list[str]:
    notes = []
    if len(chosen.texts) < chosen.given:
        notes.append(f"Compared on {len(chosen.texts):,} of the {chosen.given:,} texts, evenly spread (max_texts).")
    if ONNX_INT8 in formats:
        notes.append(f"{ONNX_INT8}: {formats[ONNX_INT8]['sentence']}.")
        notes.append(
            f"{ONNX_INT8} takes one scale of the activations for each batch: its logits depend a little on the texts "
            "that stand beside a text, and were compared in batches of 32 in the order of the file."
        )
    return notes
