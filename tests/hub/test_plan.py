import json
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from hf_ext import (
    ConfigurationError,
    MultiTaskConfig,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_word_tokenizer,
    plan_push,
)

CNN = {
    "README.md",
    "config.json",
    "configuration_textcnn.py",
    "freezing.py",
    "model.safetensors",
    "modeling_textcnn.py",
    "sentence_convolution.py",
}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ROW = "never has a film of this kind moved me so"
SECRET = "hf_" + "aB3" * 11


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=20, **sizes)).save_pretrained(folder)
    build_word_tokenizer(["a good film"]).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# A model\n")
    return folder


@pytest.fixture
def cnn(tmp_path):
    folder = tmp_path / "cnn"
    TextCNNForSequenceClassification(TextCNNConfig(vocab_size=20, embed_size=8, num_filters=4)).save_pretrained(folder)
    build_word_tokenizer(["a good film"]).save_pretrained(folder)
    (folder / "README.md").write_text("# A model\n")
    return folder


def refused(folder, **kwargs):
    plan = plan_push(folder, **kwargs)
    with pytest.raises(ConfigurationError) as error:
        plan.raise_if_refused()
    return str(error.value)


def test_exactly_what_belongs_to_the_model(cnn):
    left = {
        "checkpoint-20": "a checkpoint: optimizer and random state",
        "training_args.bin": "pickle, which runs code when it is loaded",
        "predictions_test.jsonl": "holds texts of the data",
        "train.csv": "may hold rows of the data",
        "run.json": "a record of the run",
        "training.log": "a record of the run",
        ".env": "hidden",
        "onnx": "a folder; the files of a model lie side by side",
        "notes.txt": "no file of a model",
        "evil.py": "no file of a model",
    }
    for name in left:
        (cnn / name).mkdir() if name in ("checkpoint-20", "onnx") else (cnn / name).write_text(SECRET)
    (cnn / "calibration.json").write_text("{}")
    plan = plan_push(cnn)
    plan.raise_if_refused()
    assert set(plan.files) == CNN | TOKENIZER | {"calibration.json"}
    assert plan.files == {name: (cnn / name).stat().st_size for name in plan.files}
    assert plan.left_out == {f"{name}/" if (cnn / name).is_dir() else name: why for name, why in left.items()}
    table = plan.table()
    assert re.search(rf"^model.safetensors +{plan.files['model.safetensors']:,}$", table, re.MULTILINE)
    assert re.search(rf"^9 files +{sum(plan.files.values()):,}$", table, re.MULTILINE)
    assert re.search(r"^\.env +hidden$", table, re.MULTILINE)


def test_a_model_of_the_library_needs_no_code(bert):
    (bert / "modeling_bert.py").write_text("")
    assert set(plan_push(bert).files) == {"README.md", "config.json", "model.safetensors"} | TOKENIZER


def test_weights_in_parts(bert):
    model = BertForSequenceClassification.from_pretrained(bert)
    (bert / "model.safetensors").unlink()
    model.save_pretrained(bert, max_shard_size="5KB")
    parts = {path.name for path in bert.glob("model-*.safetensors")}
    assert len(parts) > 1
    save_file({"a": torch.zeros(1)}, bert / "model-00009-of-00009.safetensors")
    assert {name for name in plan_push(bert).files if name.endswith(".safetensors")} == parts
    lost = sorted(parts)[0]
    (bert / lost).unlink()
    with pytest.raises(ConfigurationError, match=f"has no {lost}, which model.safetensors.index.json names"):
        plan_push(bert)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "model-1-of-1.safetensors/../../x", "a.bin"])
def test_an_index_names_nothing_elsewhere(bert, name):
    (bert.parent / "outside.safetensors").write_bytes(b"x")
    (bert / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(
        ConfigurationError, match=re.escape(f"names {name!r}; a part of the weights is a file beside it")
    ):
        plan_push(bert)


@pytest.mark.parametrize("module", ["missing", "../outside", "/etc/passwd"])
def test_code_is_beside_the_configuration(cnn, module):
    (cnn.parent / "outside.py").write_text("")
    config = json.loads((cnn / "config.json").read_text())
    config["auto_map"]["AutoModelForSequenceClassification"] = f"{module}.Model"
    (cnn / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="which the model needs to load elsewhere"):
        plan_push(cnn)


def test_code_that_imports_what_is_not_there(cnn):
    (cnn / "freezing.py").unlink()
    with pytest.raises(ConfigurationError, match=r"has no freezing.py, which the model needs to load elsewhere"):
        plan_push(cnn)


def test_a_model_that_only_this_package_knows(tmp_path):
    folder = tmp_path / "both"
    MultiTaskConfig().save_pretrained(folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(
        ConfigurationError, match=r"model_type 'multitask', which transformers does not know.*each task"
    ):
        plan_push(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json: it is not the folder of a saved model"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"has no model.safetensors .*Weights in another form \(pickle\) are not pushed",
        ),
    ],
)
def test_a_folder_without_a_model(bert, change, message):
    change(bert)
    with pytest.raises(ConfigurationError, match=message):
        plan_push(bert)


def test_no_folder(tmp_path):
    with pytest.raises(ConfigurationError, match=r"There is no folder .*nowhere"):
        plan_push(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "line"), [("README.md", 6), ("config.json", None), ("freezing.py", 3)])
def test_secrets_are_refused_with_their_place(cnn, name, line):
    path = cnn / name
    if name == "config.json":
        content = {**json.loads(path.read_text()), "note": f"made with {SECRET}"}
        path.write_text(json.dumps(content, indent=2))
        line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if SECRET in text)
    else:
        path.write_text(path.read_text() + "\n" * line)
        lines = path.read_text().splitlines()
        lines[line - 1] = f"# made with {SECRET}"
        path.write_text("\n".join(lines))
    message = refused(cnn)
    assert f"{name}, line {line}: it holds a Hugging Face token. Take it out of the file" in message
    assert SECRET not in message and SECRET[:8] not in message


def test_a_secret_of_the_environment_or_a_given_one(bert, monkeypatch):
    monkeypatch.setenv("STORAGE_PASSWORD", "correct horse")
    (bert / "README.md").write_text("It runs with correct horse.\nAnd with battery staple.\n")
    message = refused(bert, known_secrets={"the Hub token": "battery staple"})
    assert "README.md, line 1: it holds the value of the environment variable STORAGE_PASSWORD" in message
    assert "README.md, line 2: it holds the Hub token" in message
    assert "horse" not in message and "staple" not in message


def test_a_secret_among_the_words_of_the_training_texts(bert):
    """The word list of a tokenizer is made of the training texts, in lower case."""
    build_word_tokenizer([f"my key is {SECRET}"]).save_pretrained(bert)
    assert re.search(r"tokenizer.json, line \d+: it holds a Hugging Face token", refused(bert))


def test_a_secret_in_the_head_of_the_weights(bert):
    save_file({"a": torch.zeros(2)}, bert / "model.safetensors", metadata={"format": "pt", "made by": SECRET})
    assert "model.safetensors, line" in refused(bert)


def test_rows_of_the_data_are_refused(bert):
    (bert / "README.md").write_text(f"# A model\n\nSuch as:\n\n> {ROW.capitalize()}!\n")
    message = refused(bert, rows=["another one of the same length", ROW])
    assert "README.md, line 5: it quotes a row of the data. Take the text out of the file" in message
    assert ROW not in message.lower()
    plan_push(bert, rows=["another one of the same length"]).raise_if_refused()


@pytest.mark.parametrize("name", ["tokenizer.json", "README.md", "model.safetensors", "calibration.json"])
def test_a_pickle_by_another_name(bert, name):
    (bert / name).write_bytes(pickle.dumps({"a": 1}) + b"\xff")
    assert f"{name}: it is not what its name says" in refused(bert)


def test_links_do_not_lead_out_of_the_folder(bert):
    secret = bert.parent / "id_rsa"
    secret.write_text("private")
    (bert / "LICENSE").symlink_to(secret)
    assert "LICENSE: it is a link to a file outside of the folder" in refused(bert)


def test_links_inside_of_the_folder_are_followed(bert):
    (bert / "README.md").rename(bert / "card.md")
    (bert / "README.md").symlink_to("card.md")
    plan_push(bert).raise_if_refused()


def test_size(bert):
    size = plan_push(bert).size
    assert re.search(
        rf"bert: its 5 files have {size / 1e9:.2f} GB, more than .*larger --max_gigabytes",
        refused(bert, max_gigabytes=(size - 1) / 1e9),
    )
    plan_push(bert, max_gigabytes=size / 1e9).raise_if_refused()
