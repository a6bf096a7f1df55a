"""An ONNX graph -> the same with int8 weights, by ONNX Runtime's dynamic quantisation."""

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_ext.errors import ConfigurationError
from hf_ext.export.arguments import DEFAULT_INT8_OPS, ONNX_INT8, check_int8_ops, require_packages
from hf_ext.export.exported_model import open_session
from hf_ext.export.graphs import ONNX_FILE, whole_folder

# ONNX operator -> what a node of it becomes. An embedding stays a Gather, of integers.
INTEGER_FORMS = {"MatMul": "MatMulInteger", "Conv": "ConvInteger"}


@dataclass(frozen=True)
class Quantization:
    """
    What a quantisation did.

    Args:
        file (`Path`): The int8 model.
        int8 (`dict[str, int]`): Operator -> how many of its nodes have int8 weights now. Gemm counts as MatMul.
        float32 (`dict[str, int]`): Operator -> how many nodes stay in float32 that multiply matrices or read a weight
            matrix. A MatMul among them multiplies two computed matrices, as attention does.
    """

    file: Path
    int8: dict[str, int]
    float32: dict[str, int]

    @property
    def sentence(self) -> str:
        """Both in words."""
        alone = f"; left in float32: {_counted(self.float32)}" if self.float32 else ""
        return f"{_counted(self.int8)} in int8{alone}"


def quantize_onnx(
    source: str | os.PathLike, folder: str | os.PathLike, op_types: Sequence[str] = DEFAULT_INT8_OPS
) -> Quantization:
    """
    Write an exported ONNX model with int8 weights, into a folder that is used as the other.

    Weights become unsigned 8-bit numbers, those of matrix products with one scale a column and those of embeddings with
    one scale; activations are quantised while the model runs, with one scale a batch, so that no texts are needed for
    it. Signed weights would be a little faster on processors with VNNI, but on x86 processors without it their products
    overflow 16 bits (saturate), and the model would answer otherwise than where it was compared.

    Args:
        source (`str` or `os.PathLike`): A folder of [`export_onnx`].
        folder (`str` or `os.PathLike`): A new or empty folder, which appears once everything is in it.
        op_types (`Sequence[str]`, *optional*, defaults to `("MatMul", "Gather")`):
            Operators to quantise, of `MatMul`, `Gather` (embeddings) and `Conv`. Integer convolutions of ONNX Runtime
            are slower than those in float32.

    Returns:
        [`Quantization`]

    Raises:
        ConfigurationError: If an operator has no int8 form, does not occur with weights, or the runtime cannot run its
            int8 form (with its name and node); if `source` holds no ONNX model, or a package is missing.
    """
    require_packages(ONNX_INT8)
    check_int8_ops(op_types)
    source = Path(source)
    if not (source / ONNX_FILE).is_file():
        raise ConfigurationError(f"{source} holds no {ONNX_FILE}; export the model to onnx first.")
    with whole_folder(folder) as unfinished:
        file = unfinished / ONNX_FILE
        _quantize(source / ONNX_FILE, file, op_types)
        done = _counts(file)
        for name in op_types:
            if name not in done[0]:
                raise ConfigurationError(
                    f"int8_ops names {name}, but no {name} of {source / ONNX_FILE} has weights that could become int8. "
                    f"Leave it out; int8 would be {_counted(done[0]) or 'nothing'}."
                )
        open_session(file)
        for path in source.iterdir():
            if not path.name.startswith(ONNX_FILE):
                shutil.copy2(path, unfinished / path.name)
    return Quantization(Path(folder) / ONNX_FILE, *done)


# ---- Inside ----


def _quantize(source: Path, target: Path, op_types: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    large = source.with_name(f"{source.name}.data").is_file()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, _quiet():
        prepared = Path(folder) / ONNX_FILE
        # Symbolic shape inference, which the runtime recommends, breaks off at the exporter's graphs.
        quant_pre_process(source, prepared, skip_symbolic_shape=True, save_as_external_data=large)
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=list(op_types),
            per_channel=True,
            weight_type=QuantType.QUInt8,
            use_external_data_format=large,
        )


def _counts(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """How many nodes of each operator are int8 now, and how many that could matter are not."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    floats = {
        name
        for name, tensor in weights.items()
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(size > 1 for size in tensor.dims) > 1
    }
    integers = {name for name, tensor in weights.items() if tensor.data_type == onnx.TensorProto.UINT8}
    named, done, alone = {form: name for name, form in INTEGER_FORMS.items()}, Counter(), Counter()
    for node in graph.node:
        if node.op_type in named:
            done[named[node.op_type]] += 1
        elif node.op_type == "Gather" and node.input[0] in integers:
            done["Gather"] += 1
        elif node.op_type in INTEGER_FORMS or floats & set(node.input):
            alone[node.op_type] += 1
    return dict(done), dict(alone)


def _counted(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the runtime's advice to do what has just been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
