import json
import math
import re

import numpy as np
import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

from hf_ext import Predictions, write_model_card

METRICS = {"validation": {"accuracy": 0.75, "loss": 0.5}, "test": {"loss": 0.6, "f1_macro": 0.7, "accuracy": 0.8}}
INTERVALS = {"test": {"accuracy": (0.71, 0.89)}}
RUN = {
    "seed": 42,
    "arguments": {"learning_rate": 1e-4, "train_file": "/home/someone/data/train.csv", "lora": {"rank": 8}},
    "data": {"train": "ab" * 32, "tasks": [["name", 1]]},
    "model": {"parameters": 4012345},
}
PREFLIGHT = {
    "findings": [
        {"check": "exact_leaks", "verdict": "fail", "message": "4 rows of <test> | are in train."},
        {"check": "encoding", "verdict": "ok", "message": "Nothing."},
    ]
}


def predictions(classes=3, labelled=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    labels[labels == classes - 1] = 0
    logits = rng.normal(size=(200, classes))
    logits[np.arange(200), labels] += 1
    logits[:, 1] -= 9
    return Predictions.from_logits(
        logits, labels if labelled else None, ["text"] * 200, problem_type="single_label_classification",
        label_names=["a `b`|<c>", *(f"class {i}" for i in range(1, classes))],
    )  # fmt: skip


def card(path, **kwargs):
    arguments = {"title": "A | title", "base_model": None, "metrics": METRICS, "intervals": INTERVALS, "run": RUN}
    return write_model_card(path, **{**arguments, "notes": ["10 % was held out."], **kwargs})


def test_model_card_metadata_round_trips(tmp_path):
    data = ModelCard.load(card(tmp_path / "README.md", base_model="org/tiny-bert")).data
    assert (data.base_model, data.pipeline_tag, data.library_name) == (
        "org/tiny-bert",
        "text-classification",
        "transformers",
    )
    results = [(result.metric_type, result.metric_value, result.dataset_split) for result in data.eval_results]
    assert results == [("accuracy", 0.8, "test"), ("f1", 0.7, "test")]


def test_model_card_text(tmp_path):
    content = card(tmp_path / "README.md", title="A <b>", base_model="/home/someone/checkpoint").read_text()
    assert "| test | Accuracy | 0.8000 | [0.7100, 0.8900] |" in content
    assert "# A &lt;b>" in content
    assert "- train_file: `train.csv`" in content and "- seed: `42`" in content
    assert "- 10 % was held out." in content
    assert "Fine-tuned from `checkpoint`." in content and "/home" not in content and "base_model" not in content


def test_model_card_without_results(tmp_path):
    path = card(tmp_path / "README.md", metrics={}, run={}, notes=[])
    assert ModelCard.load(path).data.eval_results is None
    assert re.findall("^## .*", path.read_text(), flags=re.MULTILINE) == ["## How to use", "## Licence"]
    undefined = card(tmp_path / "README.md", metrics={"test": {"mcc": math.nan}})
    assert "Matthews correlation | undefined" in undefined.read_text() and "nan" not in undefined.read_text().lower()


def test_metadata_is_what_the_hub_takes(tmp_path):
    run = {**RUN, "arguments": {"dataset_name": "org/reviews"}}
    path = card(tmp_path / "README.md", title='A: "title" #1', base_model="org/tiny-bert", run=run)
    found = metadata_load(path)
    assert set(found) == {
        "base_model", "datasets", "library_name", "metrics", "model-index", "pipeline_tag"
    }  # fmt: skip
    assert (found["datasets"], found["metrics"]) == (["org/reviews"], ["accuracy", "f1"])
    for name in (found["base_model"], *found["datasets"]):
        validate_repo_id(name)
    name, results = model_index_to_eval_results(found["model-index"])
    assert name == 'A: "title" #1'
    for result in results:
        assert (result.task_type, result.dataset_type, result.dataset_name) == (
            "text-classification", "org/reviews", "org/reviews"
        )  # fmt: skip
        assert isinstance(result.metric_value, float)


def test_no_licence_is_chosen(tmp_path):
    path = card(tmp_path / "README.md")
    assert "license" not in metadata_load(path) and "add `license:` to the metadata" in path.read_text()


def test_calibration_limits_and_fingerprint(tmp_path):
    data = predictions()
    path = card(tmp_path / "README.md", splits={"validation": predictions(4), "test": data}, preflight=PREFLIGHT)
    content = path.read_text()
    headings = ["Results", "Calibration", "Limitations", "How to use", "Training", "Notes", "Licence"]
    assert re.findall("^## (.*)", content, flags=re.MULTILINE) == headings
    assert "one of 3 classes: `a 'b'|<c>`, `class 1`, `class 2`." in content
    truth = np.eye(3)[data.labels]
    brier = ((data.probabilities - truth) ** 2).sum(axis=1).mean()
    nll = -np.log(data.probabilities[np.arange(200), data.labels]).mean()
    told = f"Negative log-likelihood {nll:.4f}; Brier score {brier:.4f}; Expected calibration error 0."
    assert told in content and "of 200 rows of test; lower is better." in content
    right = data.probabilities.argmax(axis=1) == data.labels
    assert f"| 100.0 % | {right.mean():.4f} |" in content
    surest = np.argsort(-data.probabilities.max(axis=1))[:160]
    assert f"| {data.probabilities.max(axis=1)[surest[-1]]:.3f} | 80.0 % | {right[surest].mean():.4f} |" in content
    missed = (data.labels == 1).sum()
    assert f"- Weak on `class 1`: F1 0.0000 on {missed} rows, never predicted." in content
    assert "- 1 of 3 classes have no row in test: nothing is known of them." in content
    assert (
        "- The data, exact_leaks (fail): 4 rows of &lt;test> \\| are in train." in content and "Nothing." not in content
    )
    assert f"- SHA-256 of the rows, train: `{'ab' * 32}`" in content and "- parameters: `4012345`" in content


@pytest.mark.parametrize("kind", ["multi-label", "regression", "unlabelled", "empty"])
def test_every_kind_of_split_has_a_card(kind, tmp_path):
    rng, texts = np.random.default_rng(0), ["text"] * 30
    given = {
        "multi-label": Predictions(
            "multi_label_classification", ["x", "y"], rng.random((30, 2)), rng.integers(0, 2, (30, 2)), texts
        ),
        "regression": Predictions("regression", ["value"], rng.random((30, 1)), rng.random(30), texts),
        "unlabelled": predictions(labelled=False),
        "empty": Predictions("regression", ["value"], np.zeros((0, 1)), np.zeros(0), []),
    }[kind]
    content = card(tmp_path / "README.md", splits={"test": given}).read_text()
    expected = {"multi-label": "any number of 2 classes: `x`, `y`", "regression": "Gives a text a number."}
    assert expected.get(kind, "# A") in content
    assert ("Limitations" in content) == (kind in expected) and ("Calibration" in content) == (kind == "multi-label")


def test_trust_is_asked_for_only_where_the_folder_has_code(tmp_path):
    assert "trust_remote_code" not in card(tmp_path / "README.md").read_text()
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "x.Y"}}))
    content = card(tmp_path / "README.md").read_text()
    assert "trust_remote_code=True" in content and "read them first" in content


def test_the_lines_that_load_the_model_load_it(tmp_path):
    from hf_ext import TextCNNConfig, TextCNNForSequenceClassification, build_word_tokenizer

    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=20, embed_size=4, num_filters=2))
    model.save_pretrained(tmp_path)
    build_word_tokenizer(["a text to classify"] * 3).save_pretrained(tmp_path)
    lines = re.search("```python\n(.*?)```", card(tmp_path / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(lines.replace("path/to/this/folder", str(tmp_path)).replace("print(", "answer = list("), names)
    assert len(names["answer"][0] if isinstance(names["answer"][0], list) else names["answer"]) == 2
