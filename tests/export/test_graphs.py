import json
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.onnx._internal.exporter import _onnx_program
from transformers import BertTokenizer

from hf_ext import (
    ConfigurationError,
    ExportedModel,
    TextCNNForSequenceClassification,
    export_onnx,
    export_torch,
    quantize_onnx,
)

# The traced graph saw two rows of nine tokens. A TextCNN's widest filter has five.
SHAPES = [(1, 1), (1, 9), (2, 2), (3, 4), (7, 20), (2, 9)]


def random_inputs(model, rows, length):
    generator = torch.Generator().manual_seed(rows * 100 + length)
    ids = torch.randint(1, model.config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, max(1, length - row) :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_onnx_gives_the_model_s_logits_at_any_shape(exported, kind):
    model, folder = exported[kind]
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    for rows, length in SHAPES:
        inputs = random_inputs(model, rows, length)
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        (logits,) = session.run(None, {name: ids.numpy() for name, ids in inputs.items()})
        assert logits.shape == (rows, 3)
        np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_torch_export_gives_the_model_s_logits_at_any_shape(exported, kind):
    model, folder = exported[kind]
    graph = torch.export.load(folder / "torch_export" / "model.pt2").module()
    for rows, length in SHAPES:
        inputs = random_inputs(model, rows, length)
        with torch.no_grad():
            torch.testing.assert_close(graph(**inputs), model(**inputs).logits)


@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_files_name_their_axes_and_no_paths(exported, kind):
    _, folder = exported[kind]
    graph = onnx.load(folder / "onnx" / "model.onnx").graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "length"],
        "logits": ["batch", 3],
    }
    contents = [(folder / "onnx" / "model.onnx").read_bytes()]
    with zipfile.ZipFile(folder / "torch_export" / "model.pt2") as archive:
        contents += [archive.read(name) for name in archive.namelist()]
    assert not any(b".py" in content or b"site-packages" in content for content in contents)
    for name in ("onnx", "torch_export"):
        config = json.loads((folder / name / "config.json").read_text())
        assert (config["id2label"], config["problem_type"]) == (
            {"0": "no", "1": "yes", "2": "maybe"},
            "single_label_classification",
        )
        assert "_name_or_path" not in config
        assert (folder / name / "tokenizer.json").is_file()


def test_a_model_in_training_mode_is_exported_without_dropout_and_stays_as_it_is(words, tmp_path, make_cnn):
    model = make_cnn(words, dropout_prob=0.9)
    model.train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    export_torch(model, words, tmp_path / "out")
    assert [module.training for module in model.modules()] == modes
    inputs = random_inputs(model, 3, 6)
    graph = torch.export.load(tmp_path / "out" / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(graph(**inputs), model.eval()(**inputs).logits)


def test_a_tokenizer_that_says_more_than_the_model_takes(tmp_path, make_cnn):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good"]))
    tokenizer = BertTokenizer.from_pretrained(tmp_path, model_max_length=16)
    assert "token_type_ids" in tokenizer("film")
    model = make_cnn(tokenizer, variant="multichannel", max_norm=0.5)
    export_torch(model, tokenizer, tmp_path / "cnn")
    loaded = ExportedModel.load(tmp_path / "cnn")
    assert sorted(loaded.inputs) == ["attention_mask", "input_ids"]
    with torch.no_grad():
        expected = model(**{name: torch.tensor(tokenizer(["good film"])[name]) for name in loaded.inputs}).logits
    np.testing.assert_allclose(loaded(["good film"]), expected.numpy(), atol=1e-6)


def test_weights_beyond_what_one_file_holds_are_beside_it(words, tmp_path, monkeypatch, make_cnn):
    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 100)
    model = make_cnn(words)
    export_onnx(model, words, tmp_path / "onnx", opset=18)
    assert onnx.load(tmp_path / "onnx" / "model.onnx").opset_import[0].version == 18
    assert (tmp_path / "onnx" / "model.onnx.data").stat().st_size > (
        tmp_path / "onnx" / "model.onnx"
    ).stat().st_size / 9
    quantize_onnx(tmp_path / "onnx", tmp_path / "int8")
    before = ExportedModel.of_pytorch(model, words)(["a good film", "bad"])
    np.testing.assert_allclose(ExportedModel.load(tmp_path / "onnx")(["a good film", "bad"]), before, atol=1e-5)
    np.testing.assert_allclose(ExportedModel.load(tmp_path / "int8")(["a good film", "bad"]), before, atol=0.2)


# ---- Bad input ----


class Bessel(TextCNNForSequenceClassification):
    def forward(self, input_ids, attention_mask=None):
        output = super().forward(input_ids, attention_mask)
        output.logits = torch.special.bessel_j0(output.logits)
        return output


class Branching(TextCNNForSequenceClassification):
    def forward(self, input_ids, attention_mask=None):
        output = super().forward(input_ids, attention_mask)
        if output.logits.sum() > 0:
            output.logits = -output.logits
        return output


class NineTokens(TextCNNForSequenceClassification):
    def forward(self, input_ids, attention_mask=None):
        return super().forward(input_ids * torch.arange(9), attention_mask)


@pytest.mark.parametrize(
    ("export", "kind", "message"),
    [
        (export_onnx, Bessel, r"operator prims.bessel_j0 \(node bessel_j0\) has no ONNX form. Export to torch_export"),
        (export_torch, Branching, r"Branching cannot be traced .* at test_graphs.py, line \d+ \(`if output.logits.sum"),
        (export_torch, NineTokens, "NineTokens cannot be traced .*: its code takes a length of 9 only"),
    ],
)
def test_what_cannot_be_exported_is_named_and_leaves_nothing(export, kind, message, words, tmp_path, make_cnn):
    model = kind(make_cnn(words).config)
    with pytest.raises(ConfigurationError, match=message):
        export(model, words, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_an_onnx_form_is_one_of_torch_export(words, tmp_path, make_cnn):
    model = Bessel(make_cnn(words).config).eval()
    export_torch(model, words, tmp_path / "out")
    inputs = random_inputs(model, 4, 3)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(torch.export.load(tmp_path / "out" / "model.pt2").module()(**inputs), expected)


def test_a_folder_that_holds_something_an_old_opset_and_another_device(words, tmp_path, make_cnn):
    model = make_cnn(words)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already and not empty"):
        export_torch(model, words, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigurationError, match="opset is 17; the exporter has operators from 18 on"):
        export_onnx(model, words, tmp_path / "out", opset=17)
    with pytest.raises(ConfigurationError, match=r"model is on meta; move it to the CPU: model.to\('cpu'\)"):
        export_torch(model.to("meta"), words, tmp_path / "out")


def test_missing_packages_are_named(words, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"onnx, onnxscript, onnxruntime.*pip install 'hf_ext\[export\]'"):
        export_onnx(None, words, tmp_path / "out")
