import json
import random

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from hf_ext import ExportedModel, TextCNNForSequenceClassification, UsageError
from hf_ext.evaluation import speed

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]


@pytest.fixture
def export(run_export, monkeypatch):
    monkeypatch.setattr(speed, "MIN_ROUND_SECONDS", 0.01)
    return run_export


@pytest.fixture
def trained(run_classification, write_data, tmp_path):
    def train(kind="string", *flags):
        command = [*CNN, "--num_train_epochs", "1", "--disable_tqdm", "true", "--preflight", "off", *write_data(kind)]
        run_classification([*command, "--output_dir", str(tmp_path / "model"), *flags])
        return tmp_path / "model"

    return train


@pytest.fixture
def untrained(tiny_bert, tmp_path):
    """A BERT with large random weights, whose answers int8 weights change, and texts for it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    config = BertConfig.from_pretrained(
        tiny_bert, id2label={0: "negative", 1: "positive"}, initializer_range=1.0, problem_type=None
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    generator, words = random.Random(0), [word for word in tokenizer.get_vocab() if word.isalpha()]
    rows = [{"text": " ".join(generator.choices(words, k=generator.randint(1, 12)))} for _ in range(300)]
    (tmp_path / "texts.json").write_text(json.dumps(rows))
    return tmp_path / "model"


def test_a_calibrated_model_in_all_formats(export, trained, tmp_path, capsys):
    model = trained("string", "--calibrate", "true", "--validation_size", "0.3")
    (tmp_path / "args.json").write_text(
        json.dumps({"model_name_or_path": str(model), "export": {"formats": ["onnx", "onnx_int8", "torch_export"]}})
    )
    capsys.readouterr()
    out = tmp_path / "out"
    flags = ["--texts_file", str(tmp_path / "test.json"), "--max_texts", "30"]
    export([str(tmp_path / "args.json"), *flags, "--output_dir", str(out)])
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["onnx", "onnx_int8", "torch_export", "export.json", "report.html", "run.json"]
    )
    result = json.loads((out / "export.json").read_text())
    rows = json.loads((tmp_path / "test.json").read_text())
    chosen = [rows[round(39 * place / 29)] for place in range(30)]
    assert result["texts"] == {"source": "test.json", "given": 40, "compared": 30}
    calibration = json.loads((model / "calibration.json").read_text())
    for name, facts in result["formats"].items():
        loaded = ExportedModel.load(out / name)
        assert loaded.calibration.temperature == calibration["temperature"]
        answers = loaded.predict([row["text"] for row in chosen])
        named = [answers.label_names[answer] for answer in answers.predictions]
        right = np.mean([name == row["label"] for name, row in zip(named, chosen, strict=True)])
        assert result["comparison"]["models"][name]["metrics"]["accuracy"] == pytest.approx(right)
        costs = result["costs"][name]
        size = sum(path.stat().st_size for path in (out / name).glob("model.*"))
        assert facts["megabytes"] == costs["megabytes"] == size / 1e6
        assert costs["texts_per_second_range"][0] <= costs["texts_per_second"] <= costs["texts_per_second_range"][1]
        assert 0 < costs["p50_ms"] <= costs["p95_ms"]
    assert [pair["test"] for pair in result["comparison"]["pairs"]] == ["the exact McNemar test"] * 3
    assert result["parity"]["onnx"]["flip_count"] == 0
    page, printed = (out / "report.html").read_text(), capsys.readouterr().out
    assert "Compared on 30 of the 40 texts, evenly spread" in page
    assert "left in float32: Conv (3)" in page
    for title in ("texts/s", "p95 ms", "flips %"):
        assert title in page and title in printed
    assert str(tmp_path) not in (out / "onnx" / "config.json").read_text()
    with pytest.raises(UsageError, match=r"holds another run .*--overwrite"):
        export(["--model_name_or_path", str(model), "--texts_file", "x.json", "--output_dir", str(out)])


def test_more_flips_than_allowed_leave_nothing(export, untrained, tmp_path):
    flags = ["--model_name_or_path", str(untrained), "--texts_file", str(tmp_path / "texts.json")]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as error:
        export([*flags, "--formats", "onnx_int8", "--max_flips", "0", "--output_dir", str(tmp_path / "out")])
    assert sorted(tmp_path.rglob("*")) == before
    message = str(error.value)
    assert "onnx_int8 is refused: " in message and "max_flips is 0. texts.json, rows " in message
    # The same export is kept where that many flips are allowed, and its file is what flips.
    export([*flags, "--formats", "onnx_int8", "--max_flips", "1", "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "onnx").exists()
    model = BertForSequenceClassification.from_pretrained(untrained, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "onnx_int8" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    texts = [row["text"] for row in json.loads((tmp_path / "texts.json").read_text())]
    flipped = []
    for start in range(0, 300, 32):
        encoded = tokenizer(texts[start : start + 32], padding=True, return_tensors="np")
        inputs = {value.name: encoded[value.name] for value in session.get_inputs()}
        after = session.run(None, inputs)[0].argmax(1)
        with torch.no_grad():
            given = model(**{name: torch.from_numpy(ids) for name, ids in inputs.items()}).logits.argmax(1).numpy()
        flipped += [start + place + 1 for place in np.flatnonzero(given != after)]
    assert flipped
    found = json.loads((tmp_path / "out" / "export.json").read_text())["parity"]["onnx_int8"]["flips"]
    assert [flip["row"] for flip in found] == flipped
    assert message.count("->") == min(len(flipped), 20) and f"rows {flipped[0]} (" in message


@pytest.mark.parametrize("kind", ["multi", "number"])
def test_several_labels_and_numbers(export, trained, tmp_path, kind):
    model = trained(kind)
    flags = ["--model_name_or_path", str(model), "--texts_file", str(tmp_path / "test.json")]
    export([*flags, "--formats", "torch_export", "--output_dir", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "export.json").read_text())
    assert result["parity"]["torch_export"]["flips"] == []
    assert result["comparison"]["metric"] == {"multi": "subset_accuracy", "number": "pearson"}[kind]


def test_pairs_that_are_cut_shorter_than_in_training(export, trained, tmp_path):
    rows = [
        {"text_a": f"a {word} film", "text_b": f"the plot was very {word} and of a scene", "label": label}
        for word, label in (("good", "yes"), ("bad", "no"))
        for _ in range(30)
    ]
    (tmp_path / "pairs.json").write_text(
        json.dumps([{**row, "text_a": f"{n} {row['text_a']}"} for n, row in enumerate(rows)])
    )
    model = trained(
        "string", "--train_file", str(tmp_path / "pairs.json"), "--do_predict", "false", "--do_train", "true"
    )
    flags = ["--model_name_or_path", str(model), "--texts_file", str(tmp_path / "pairs.json"), "--max_seq_length", "6"]
    export([*flags, "--formats", "torch_export", "--output_dir", str(tmp_path / "out")])
    loaded = ExportedModel.load(tmp_path / "out" / "torch_export")
    pair = ("0 a good film", "the plot was very good and of a scene")
    ids = AutoTokenizer.from_pretrained(model)(*pair, truncation=True, max_length=6, return_tensors="pt")
    with torch.no_grad():
        expected = TextCNNForSequenceClassification.from_pretrained(model).eval()(**ids).logits.numpy()
    np.testing.assert_allclose(loaded([pair]), expected, atol=1e-6)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--formats", "onx"], "formats names 'onx', which does not exist. Did you mean 'onnx'?"),
        (["--formats", "onnx", "onnx"], "formats names 'onnx' twice"),
        (["--max_flips", "1.5"], "max_flips is 1.5; it must be a share between 0 and 1"),
        (["--max_flips", "-0.1"], "max_flips is -0.1; it must be a share between 0 and 1"),
        (["--max_texts", "0"], "max_texts is 0; it must be at least 1"),
        (["--opset", "9"], "opset is 9; the exporter has operators from 18 on"),
        (["--formats", "torch_export", "--opset", "20"], "opset=20 has an effect only on onnx and onnx_int8"),
        (["--int8_ops", "Softmax"], "int8_ops names Softmax, of which ONNX Runtime has no dynamic int8 form"),
        (["--max_flip", "0.1"], "Did you mean 'max_flips'?"),
        (["--texts_file", "missing.json"], "There is no file missing.json"),
        (["--texts_file", "{folder}/other.json"], "other.json has no column 'text'. Did you mean 'test'?"),
        (["--texts_file", "{folder}/empty.json"], "empty.json holds no rows"),
        (["--model_name_or_path", "{folder}/weightless"], "weightless has no weights"),
        (["--model_name_or_path", "{folder}/nowhere"], "there is no directory"),
        (["--output_dir", "{folder}"], "holds the model"),
    ],
)
def test_bad_input_is_named_and_writes_nothing(export, untrained, tmp_path, flags, message):
    (tmp_path / "other.json").write_text('[{"test": "a film"}]')
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text('{"model_type": "bert"}')
    before = sorted(tmp_path.rglob("*"))
    given = ["--model_name_or_path", str(untrained), "--texts_file", str(tmp_path / "texts.json")]
    given += ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(UsageError) as error:
        export([*given, *(flag.format(folder=tmp_path) for flag in flags)])
    assert message in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_named(export, untrained, monkeypatch):
    with pytest.raises(UsageError, match=r"No model is named\. Pass --model_name_or_path"):
        export(["--texts_file", "texts.json"])
    with pytest.raises(UsageError, match=r"No texts are named: .*--texts_file FILE"):
        export(["--model_name_or_path", str(untrained)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="An export is work for one process, and 2 were launched"):
        export(["--model_name_or_path", str(untrained), "--texts_file", "texts.json"])
