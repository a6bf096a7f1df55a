import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from hf_ext import Calibration, ConfigurationError, DataError, ExportedModel, export_torch

LONG = "a very good film " * 20


def by_hand(model, tokenizer, texts):
    """Logits text by text, without padding."""
    rows = []
    for text in texts:
        columns = text if isinstance(text, tuple) else (text,)
        encoded = tokenizer(*columns, truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            rows.append(model.eval()(**encoded).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_texts_are_tokenised_and_cut_as_in_training(exported, kind, format, words, make_texts):
    model, folder = exported[kind]
    texts = [*make_texts(40), LONG]
    loaded = ExportedModel.load(folder / format)
    assert loaded.tokenizer.model_max_length == 20
    expected = by_hand(model, words, texts)
    np.testing.assert_allclose(loaded(texts), expected, atol=2e-5)
    np.testing.assert_allclose(loaded(texts, batch_size=7), expected, atol=2e-5)
    predictions = loaded.predict(texts).predictions
    assert [loaded.task.label_names[i] for i in predictions] == [("no", "yes", "maybe")[i] for i in expected.argmax(1)]


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_texts_without_a_word(exported, format):
    model, folder = exported["cnn"]
    with torch.no_grad():
        # No token at all, which a graph does not take.
        expected = model(torch.zeros((1, 0), dtype=torch.long)).logits.numpy()
    loaded = ExportedModel.load(folder / format)
    np.testing.assert_allclose(loaded([""]), expected, atol=1e-6)
    np.testing.assert_allclose(loaded(["", "", "good"])[:2], expected.repeat(2, 0), atol=1e-6)


def test_pairs_of_texts(tmp_path, make_bert):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good", "bad", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    tokenizer = BertTokenizer.from_pretrained(tmp_path, model_max_length=20)
    model = make_bert(tokenizer)
    export_torch(model, tokenizer, tmp_path / "out")
    pairs = [("good film", "the bad film"), ("film", "good"), ("bad " * 30, "the good film")]
    loaded = ExportedModel.load(tmp_path / "out")
    assert "token_type_ids" in loaded.inputs
    expected = by_hand(model, tokenizer, pairs)
    np.testing.assert_allclose(loaded(pairs), expected, atol=2e-5)
    assert np.abs(loaded([a for a, _ in pairs]) - expected).max() > 1e-3


def test_a_calibration_is_applied(words, tmp_path, make_cnn, make_texts):
    model = make_cnn(words)
    names = ["no", "yes", "maybe"]
    calibration = Calibration("single_label_classification", names, 2.5, thresholds=np.array([0.9, 0.05, 0.4]))
    export_torch(model, words, tmp_path / "out", calibration)
    texts = make_texts(50)
    found = ExportedModel.load(tmp_path / "out").predict(texts, np.zeros(50, dtype=int))
    logits = by_hand(model, words, texts).astype(np.float64) / 2.5
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    decisions = (expected / [0.9, 0.05, 0.4]).argmax(1)
    np.testing.assert_array_equal(found.predictions, decisions)
    assert (decisions != expected.argmax(1)).any()


def test_a_regression_and_several_labels(words, tmp_path, make_cnn, make_texts):
    texts = make_texts(30)
    number = make_cnn(words, problem_type="regression", id2label={0: "value"})
    export_torch(number, words, tmp_path / "number")
    found = ExportedModel.load(tmp_path / "number").predict(texts)
    np.testing.assert_allclose(found.predictions, by_hand(number, words, texts)[:, 0], atol=1e-5)
    several = make_cnn(words, problem_type="multi_label_classification")
    export_torch(several, words, tmp_path / "several")
    found = ExportedModel.load(tmp_path / "several").predict(texts)
    np.testing.assert_array_equal(found.predictions, by_hand(several, words, texts) >= 0)


ALONE = """
import json, sys
import numpy, onnxruntime, tokenizers
folder = sys.argv[1]
tokenizer = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
ids = numpy.array([tokenizer.encode("a very good film").ids])
logits = session.run(["logits"], {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})[0]
assert not {"torch", "transformers", "hf_ext"} & set(sys.modules)
print(json.dumps([logits.tolist(), json.load(open(folder + "/config.json"))["id2label"]["2"]]))
"""


def test_a_folder_is_usable_alone(exported, words):
    model, folder = exported["cnn"]
    command = [sys.executable, "-c", ALONE, str(folder / "onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    logits, third = json.loads(done.stdout)
    np.testing.assert_allclose(logits, by_hand(model, words, ["a very good film"]), atol=1e-5)
    assert third == "maybe"


# ---- Bad input ----


def test_texts_that_are_no_list(exported):
    loaded = ExportedModel.load(exported["cnn"][1] / "torch_export")
    for texts in ("a film", []):
        with pytest.raises(DataError, match="it must be a list of at least one text"):
            loaded(texts)


def test_folders_that_are_none_of_an_exported_model(exported, tmp_path):
    _, folder = exported["cnn"]
    with pytest.raises(ConfigurationError, match=r"it must hold either model.onnx or model.pt2"):
        ExportedModel.load(tmp_path)
    shutil.copytree(folder / "onnx", tmp_path / "both")
    shutil.copy2(folder / "torch_export" / "model.pt2", tmp_path / "both")
    with pytest.raises(ConfigurationError, match=r"it must hold either model.onnx or model.pt2"):
        ExportedModel.load(tmp_path / "both")


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_damaged_files(exported, tmp_path, format):
    shutil.copytree(exported["cnn"][1] / format, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("model.*")
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=rf"{path.name} is no whole .*Export it anew"):
        ExportedModel.load(tmp_path / "out")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("place", ["data/sample_inputs/model.pt", "data/weights/model_weights_config.json"])
def test_pickled_objects_are_refused_and_not_run(exported, words, tmp_path, place):
    shutil.copytree(exported["cnn"][1] / "torch_export", tmp_path / "out")
    path, mark = tmp_path / "out" / "model.pt2", tmp_path / "ran"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in contents if name.endswith(place)]
    payload = pickle.dumps(Payload(mark))
    if name.endswith(".pt"):
        contents[name] = payload
    else:
        contents[name] = contents[name].replace(b'"use_pickle": false', b'"use_pickle": true')
        (weight,) = [item for item in contents if item.endswith("weights/weight_0")]
        contents[weight] = payload
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for item, content in contents.items():
            archive.writestr(item, content)
    with pytest.raises(DataError, match=r"holds code or pickled objects .*do not trust it"):
        ExportedModel.load(tmp_path / "out")
    assert not mark.exists()


def test_a_calibration_of_another_model(words, tmp_path, make_cnn):
    export_torch(make_cnn(words), words, tmp_path / "out")
    Calibration("single_label_classification", ["a", "b"]).save(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="It belongs to another model"):
        ExportedModel.load(tmp_path / "out")
