import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hf_ext import ConfigurationError, DataError, ExportedModel, quantize_onnx
from hf_ext.export.exported_model import open_session


@pytest.fixture(scope="module")
def quantized(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    return {kind: quantize_onnx(exported[kind][1] / "onnx", folder / kind) for kind in ("bert", "cnn")}


def arrays(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def dequantized(path, name):
    """A weight from its integers, scale and zero point, by hand."""
    found = arrays(path)
    scale, zero = found[f"{name}_scale"], found[f"{name}_zero_point"]
    return (found[f"{name}_quantized"].astype(np.float64) - zero) * scale, scale


def test_what_became_int8_and_what_was_left_alone(quantized):
    # Four projections, two dense layers, pooler and classifier. Attention multiplies what it computed, twice.
    assert quantized["bert"].int8 == {"Gather": 3, "MatMul": 8}
    assert quantized["bert"].float32 == {"MatMul": 2}
    assert quantized["cnn"].int8 == {"Gather": 1, "MatMul": 1}
    assert quantized["cnn"].float32 == {"Conv": 3}
    assert quantized["cnn"].sentence == "Gather (1), MatMul (1) in int8; left in float32: Conv (3)"
    for found in quantized.values():
        kinds = [node.op_type for node in onnx.load(found.file).graph.node]
        assert kinds.count("MatMulInteger") == found.int8["MatMul"]
        assert kinds.count("MatMul") == found.float32.get("MatMul", 0)


def test_weights_are_within_half_a_step(quantized, exported):
    model, _ = exported["cnn"]
    named = [name.removesuffix("_quantized") for name in arrays(quantized["cnn"].file) if name.endswith("_quantized")]
    (embedding,) = [name for name in named if "embedding" in name]
    (classifier,) = [name for name in named if name != embedding]
    table, scale = dequantized(quantized["cnn"].file, embedding)
    assert scale.size == 1
    weights = model.encoder.embeddings.word_embeddings.weight.detach().numpy()
    assert np.abs(table - weights).max() <= scale / 2 * 1.001
    matrix, scales = dequantized(quantized["cnn"].file, classifier)
    assert scales.shape == (3,)
    assert (np.abs(matrix - model.classifier.weight.detach().numpy().T).max(axis=0) <= scales / 2 * 1.001).all()


@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_the_folder_runs_and_answers_nearly_the_same(quantized, exported, kind, words, make_texts):
    model, folder = exported[kind]
    texts = make_texts(60)
    loaded = ExportedModel.load(quantized[kind].file.parent)
    before = ExportedModel.of_pytorch(model, words)(texts)
    after = loaded(texts)
    difference = np.abs(after - before)
    assert 0 < difference.mean() < 0.1 * before.std()
    assert {path.name for path in quantized[kind].file.parent.iterdir()} == {
        path.name for path in (folder / "onnx").iterdir()
    }
    session = onnxruntime.InferenceSession(quantized[kind].file, providers=["CPUExecutionProvider"])
    encoded = words(texts[:32], padding=True, truncation=True, return_tensors="np")
    (by_hand,) = session.run(None, {name: encoded[name] for name in loaded.inputs})
    np.testing.assert_array_equal(after[:32], by_hand)


def test_convolutions_on_request(exported, tmp_path):
    found = quantize_onnx(exported["cnn"][1] / "onnx", tmp_path / "int8", ["MatMul", "Conv"])
    assert found.int8 == {"Conv": 3, "MatMul": 1}
    assert found.float32 == {"Gather": 1}


@pytest.mark.parametrize(
    ("kind", "op_types", "message"),
    [
        ("bert", ["LayerNormalization"], "int8_ops names LayerNormalization, of which .* no dynamic int8 form"),
        ("bert", ["Matmul"], "Did you mean 'MatMul'"),
        ("bert", [], "int8_ops is empty; name some of MatMul, Gather, Conv"),
        ("bert", ["Conv"], "no Conv of .*model.onnx has weights that could become int8. Leave it out"),
    ],
)
def test_operators_that_cannot_be_int8(exported, tmp_path, kind, op_types, message):
    with pytest.raises(ConfigurationError, match=message):
        quantize_onnx(exported[kind][1] / "onnx", tmp_path / "int8", op_types)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_an_onnx_model(exported, tmp_path):
    with pytest.raises(ConfigurationError, match=r"torch_export holds no model.onnx; export the model to onnx first"):
        quantize_onnx(exported["cnn"][1] / "torch_export", tmp_path / "int8")


@pytest.mark.parametrize(
    ("operator", "domain", "kind", "message"),
    [
        # ONNX knows it for double, the runtime has no kernel.
        ("Conv", "", TensorProto.DOUBLE, r"cannot run the operator Conv \(node first_quant\) of .*--int8_ops"),
        ("MatMulInt", "", TensorProto.FLOAT, r"cannot run the operator MatMulInt \(node first_quant\)"),
        ("Own", "my", TensorProto.FLOAT, r"cannot run the operator my:Own of"),
    ],
)
def test_an_operator_that_the_runtime_cannot_run(tmp_path, operator, domain, kind, message):
    values = [helper.make_tensor_value_info(name, kind, [1, 1, 4, 4]) for name in ("x", "w")]
    node = helper.make_node(operator, ["x", "w"], ["y"], name="first_quant", domain=domain)
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", kind, None)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match=message):
        open_session(tmp_path / "m.onnx")
    (tmp_path / "half.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:40])
    with pytest.raises(DataError, match=r"half.onnx is no whole ONNX model.*Export it anew"):
        open_session(tmp_path / "half.onnx")
