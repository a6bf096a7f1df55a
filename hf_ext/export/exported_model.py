"""An exported folder as a function from texts to logits."""

import inspect
import io
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_ext.data.labels import Task, task_of_config
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.evaluation.calibration import CALIBRATION_FILE, Calibration
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.speed import evaluating
from hf_ext.export.arguments import ONNX, require_packages
from hf_ext.export.graphs import ONNX_FILE, TORCH_FILE

Texts = Sequence[str] | Sequence[tuple[str, str]]
Inputs = dict[str, np.ndarray]
BATCH = 32
# How ONNX Runtime speaks of an operator that it has no kernel for, does not know, or finds misused.
UNRUNNABLE = (
    r"implementation for (?P<operator>\w+)\(\d+\) node with name '(?P<node>[^']*)'",
    r'In Node, \("(?P<node>[^"]*)", (?P<operator>\w+),',
    r"operator \((?P<operator>\w+)\) in node \((?P<node>[^)]*)\)",
    r"error: (?P<operator>[\w:.]+)\(-?\d+\) is not a registered",
)


class ExportedModel:
    """
    A classifier that was exported, as a function from texts to logits; see [`ExportedModel.load`].

    Texts are tokenised and cut as in training, and go through in the order given, in batches that are padded to their
    longest text.

    Args:
        run (`Callable[[dict[str, np.ndarray]], np.ndarray]`): Token ids and masks of shape `(rows, length)` -> logits.
        inputs (`Sequence[str]`): What it takes, of the tokenizer's outputs.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): `model_max_length` cuts the texts.
        task ([`Task`]): Classes and kind of task.
        calibration ([`Calibration`], *optional*): Makes probabilities and decisions out of the logits.
    """

    def __init__(
        self,
        run: Callable[[Inputs], np.ndarray],
        inputs: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        calibration: Calibration | None = None,
    ):
        self.run, self.inputs, self.tokenizer = run, list(inputs), tokenizer
        self.task, self.calibration = task, calibration

    @classmethod
    def load(cls, folder: str | os.PathLike, threads: int | None = None) -> "ExportedModel":
        """
        Open what [`export_onnx`], [`quantize_onnx`] or [`export_torch`] wrote. No code of the model's is run, and
        nothing is unpickled.

        Args:
            folder (`str` or `os.PathLike`): With `model.onnx` or `model.pt2`, the tokenizer, `config.json`, and
                `calibration.json` if there is one.
            threads (`int`, *optional*): Of ONNX Runtime; by default one a core. A `model.pt2` runs on torch's.

        Returns:
            [`ExportedModel`]

        Raises:
            ConfigurationError: If the folder is none of an exported model, or the runtime cannot run it.
            DataError: If a file is damaged.
        """
        folder = Path(folder)
        files = [folder / name for name in (ONNX_FILE, TORCH_FILE) if (folder / name).is_file()]
        if len(files) != 1 or not (folder / "config.json").is_file():
            raise ConfigurationError(
                f"{folder} is not the folder of an exported model: it must hold either {ONNX_FILE} or {TORCH_FILE}, "
                "with config.json and the tokenizer beside it. recipes/run_export.py makes such folders."
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"The tokenizer in {folder} could not be loaded: {error}") from error
        task = task_of_config(PreTrainedConfig.from_json_file(folder / "config.json"))
        calibration = None
        if (folder / CALIBRATION_FILE).is_file():
            calibration = Calibration.load(folder, task.label_names, task.problem_type)
        run, inputs = _open_onnx(files[0], threads) if files[0].name == ONNX_FILE else _open_torch(files[0])
        return cls(run, inputs, tokenizer, task, calibration)

    @classmethod
    def of_pytorch(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, calibration: Calibration | None = None
    ) -> "ExportedModel":
        """
        The same of a PyTorch model, in evaluation mode: what exported models are compared with.

        Args:
            model ([`~transformers.PreTrainedModel`]): A sequence classifier.
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its own.
            calibration ([`Calibration`], *optional*): Of the model.

        Returns:
            [`ExportedModel`]
        """
        accepted = inspect.signature(model.forward).parameters

        def run(inputs: Inputs) -> np.ndarray:
            with evaluating([model]), torch.inference_mode():
                logits = model(**{name: torch.from_numpy(ids).to(model.device) for name, ids in inputs.items()}).logits
            return logits.float().cpu().numpy()

        names = [name for name in tokenizer("a") if name in accepted]
        return cls(run, names, tokenizer, task_of_config(model.config), calibration)

    def __call__(self, texts: Texts, batch_size: int = BATCH) -> np.ndarray:
        """
        Logits.

        Args:
            texts (`list[str]` or `list[tuple[str, str]]`): Texts, or pairs of texts.
            batch_size (`int`, *optional*, defaults to `32`): Texts at a time.

        Returns:
            `np.ndarray` of shape `(rows, classes)`, `float32`.

        Raises:
            DataError: If there are no texts, or there is one outside of a list.
        """
        if isinstance(texts, str) or not len(texts):
            raise DataError(f"texts is {texts!r}; it must be a list of at least one text, or of pairs of texts.")
        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        return np.concatenate([self.run(self._encode(batch)) for batch in batches])

    def predict(self, texts: Texts, labels: np.ndarray | None = None) -> Predictions:
        """
        Probabilities and decisions, calibrated if there is a calibration.

        Args:
            texts (`list[str]` or `list[tuple[str, str]]`): Texts, or pairs of texts.
            labels (`np.ndarray`, *optional*): As [`Predictions`].

        Returns:
            [`Predictions`]
        """
        return self.decided(self(texts), texts, labels)

    def decided(self, logits: np.ndarray, texts: Texts, labels: np.ndarray | None = None) -> Predictions:
        """[`ExportedModel.predict`], given the logits."""
        if self.calibration is not None:
            return self.calibration.predict(logits, labels, texts)
        task = self.task
        return Predictions.from_logits(
            logits, labels, texts, problem_type=task.problem_type, label_names=task.label_names
        )

    def _encode(self, texts: Texts) -> Inputs:
        columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
        encoded = self.tokenizer(*columns, truncation=True, padding=True, return_tensors="np")
        if not encoded["input_ids"].shape[1]:
            # No word in any text, and no tokens around them: graphs take at least one, which may be padding.
            encoded = self.tokenizer(*columns, padding="max_length", max_length=1, return_tensors="np")
        return {name: encoded[name].astype(np.int64) for name in self.inputs}


def open_session(path: Path, threads: int | None = None):
    """
    An ONNX Runtime session on the CPU.

    Args:
        path (`Path`): The model.
        threads (`int`, *optional*): By default one a core.

    Returns:
        `onnxruntime.InferenceSession`

    Raises:
        ConfigurationError: If the runtime has no kernel for an operator (with its name and node).
        DataError: If the file is damaged.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (states.NotImplemented, states.InvalidGraph, states.Fail) as error:
        raise ConfigurationError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {_operator(str(error))} of {path}: {error}. Leave it "
            "out of --int8_ops, choose another --opset, or a newer onnxruntime."
        ) from error
    except (states.InvalidProtobuf, states.NoSuchFile, states.RuntimeException) as error:
        raise DataError(f"{path} is no whole ONNX model: {error}. Export it anew.") from error


# ---- Inside ----


def _operator(message: str) -> str:
    """The operator and the node that the runtime complains of."""
    for pattern in UNRUNNABLE:
        found = re.search(pattern, message)
        if found:
            names = found.groupdict()
            return f"the operator {names['operator']}" + (f" (node {names['node']})" if names.get("node") else "")
    return "an operator"


def _open_onnx(path: Path, threads: int | None) -> tuple[Callable[[Inputs], np.ndarray], list[str]]:
    require_packages(ONNX)
    session = open_session(path, threads)
    return lambda inputs: session.run(["logits"], inputs)[0], [value.name for value in session.get_inputs()]


def _open_torch(path: Path) -> tuple[Callable[[Inputs], np.ndarray], list[str]]:
    _refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is no whole program of torch.export: {error}. Export it anew.") from error
    graph = program.module()

    def run(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return graph(**{name: torch.from_numpy(ids) for name, ids in inputs.items()}).numpy()

    return run, list(program.graph_signature.user_inputs)


def _refuse_pickles(path: Path) -> None:
    """`torch.export.load` unpickles what is not plain numbers, and could run what is compiled; exports have neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist() if "/data/weights/weight_" not in name}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no whole program of torch.export: {error}. Export it anew.") from None
    if not any(name.endswith("models/model.json") for name in contents):
        raise DataError(f"{path} is no whole program of torch.export: it has no models/model.json. Export it anew.")
    for name, content in contents.items():
        if "/aotinductor/" in name or (name.endswith("_config.json") and re.search(rb'"use_pickle":\s*true', content)):
            _refuse(path, name)
        if name.endswith((".pt", ".pkl")):
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception as error:
                _refuse(path, name, error)


def _refuse(path: Path, name: str, cause: Any = None) -> None:
    raise DataError(
        f"{path} holds code or pickled objects ({name}), which exports never do: do not trust it."
    ) from cause
