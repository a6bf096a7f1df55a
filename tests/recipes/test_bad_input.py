"""Bad input ends with a message that says where and what to do, and leaves the disk as it was."""

import json

import pytest

from hf_ext import UsageError

ROW = {"text": "a good film", "label": "positive"}
OTHER = {"text": "a bad film", "label": "negative"}
CNN = ["--model_type", "textcnn", "--disable_tqdm", "true", "--num_train_epochs", "1"]


@pytest.fixture
def attempt(run_classification, tmp_path):
    """Run with a training file of the given content; returns the message, after seeing that nothing was written."""
    train = tmp_path / "train.json"

    def attempt(content, *flags, train_file=train):
        train.write_text(content if isinstance(content, str) else json.dumps(content))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError) as error:
            run_classification([*CNN, "--train_file", str(train_file), "--output_dir", str(tmp_path / "out"), *flags])
        assert sorted(tmp_path.rglob("*")) == before
        return str(error.value)

    return attempt


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.json is empty"),
        ("{not json", "is not JSON: line 1, column 2"),
        (json.dumps({"rows": [ROW]}), "holds a JSON object; it must hold an array of rows"),
        ([ROW, {"label": "negative"}], "row 2 has no 'text'; it has label"),
        ([ROW, {"text": "a"}], "row 2 has no 'label'; it has text"),
        ([ROW, {"text": None, "label": "negative"}], "row 2: 'text' is None; it must be a string"),
        ([ROW, {"text": "a", "label": None}], "row 2 has no label (it is None)"),
        ([ROW, {"text": "a", "label": 1}], "mixes types of labels: 'positive' in row 1 (string), 1 in row 2"),
        ([ROW] * 4, "has the single class 'positive'"),
        ('[{"text": "a", "label": 0.5}, {"text": "b", "label": NaN}]', "row 2: the label is nan"),
    ],
)
def test_training_rows(attempt, content, message):
    assert message in attempt(content)


def test_missing_file(attempt, tmp_path):
    message = attempt([ROW], train_file=tmp_path / "trian.json")
    assert "There is no file" in message
    assert "Did you mean 'train.json'?" in message


def test_label_outside_the_given_classes(attempt):
    rows = [{"text": "a", "label": label} for label in (0, 1, 0, 1, 2, 2)]
    message = attempt(rows, "--num_labels", "2")
    assert "num_labels is 2, but there are 3 classes" in message
    assert "rows 5, 6" in message


def test_test_label_never_seen_in_training(attempt, tmp_path):
    (tmp_path / "test.json").write_text(json.dumps([ROW, {"text": "a", "label": "neutral"}]))
    message = attempt([ROW, OTHER] * 10, "--test_file", str(tmp_path / "test.json"))
    assert "test.json, row 2: the label 'neutral'" in message


def test_column_that_is_not_there(attempt):
    assert "Did you mean 'label'?" in attempt([ROW, OTHER], "--label_column_name", "lable")


def test_the_same_rows_to_train_and_test(attempt, tmp_path):
    message = attempt([ROW, OTHER] * 10, "--test_file", str(tmp_path / "train.json"))
    assert "are the same rows" in message


def test_output_dir_that_cannot_be_written(attempt, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in attempt([ROW, OTHER], "--output_dir", str(tmp_path / "file"))
    assert "cannot be written" in attempt([ROW, OTHER], "--output_dir", str(tmp_path / "file" / "below"))


def test_metric_that_no_evaluation_yields(attempt):
    flags = ["--load_best_model_at_end", "true", "--metric_for_best_model", "accurracy"]
    rows = [{**row, "text": f"{row['text']} {number}"} for number in range(10) for row in (ROW, OTHER)]
    message = attempt(rows, *flags)
    assert "Did you mean 'accuracy'?" in message
    assert "f1_macro" in message


@pytest.mark.parametrize(("flag", "valid"), [("--optim", "adamw_torch_fused"), ("--lr_scheduler_type", "cosine")])
def test_unknown_optimizer_or_scheduler(attempt, flag, valid):
    message = attempt([ROW, OTHER], flag, "magic")
    assert "'magic'" in message
    assert valid in message


def test_model_directory_without_weights(run_classification, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="has no weights"):
        run_classification(["--model_name_or_path", str(tmp_path / "model"), "--train_file", "x.json"])


def test_configuration_fails_before_the_data_is_read(attempt):
    # The data is broken as well, but is never looked at.
    assert "learning_rate is 'fast'" in attempt("{", "--learning_rate", "fast")


def test_settings_without_effect_are_refused(attempt, tiny_bert, run_classification):
    assert "hidden_size would have no effect on the TextCNN" in attempt([ROW, OTHER], "--hidden_size", "16")
    with pytest.raises(UsageError, match="num_filters would have no effect on a pretrained model"):
        run_classification(["--model_name_or_path", tiny_bert, "--num_filters", "3", "--train_file", "x.json"])


def test_two_rows_are_too_few_to_validate_on(attempt):
    assert "too few to hold out" in attempt([ROW, OTHER])
