import json

import pytest

from hf_ext import UsageError

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]


@pytest.fixture
def trained(run_classification, write_data, tmp_path):
    flags = write_data()
    run_classification(
        [*CNN, "--num_train_epochs", "2", "--disable_tqdm", "true", *flags, "--output_dir", str(tmp_path / "model")]
    )
    return tmp_path / "model"


def test_gives_the_training_run_s_test_results(run_evaluation, trained, tmp_path):
    (tmp_path / "data.yaml").write_text(
        f"data:\n  test_file: {tmp_path / 'test.json'}\n  augmentation:\n    enabled: true\n"
    )
    out = tmp_path / "evaluation_results"
    run_evaluation(
        ["--model_path", str(trained), "--data_config", str(tmp_path / "data.yaml"), "--output_dir", str(out)]
    )
    assert (out / "report.html").exists()
    assert (out / "predictions_test.jsonl").read_bytes() == (trained / "predictions_test.jsonl").read_bytes()
    ours, theirs = (json.loads((folder / "test_results.json").read_text()) for folder in (out, trained))
    for name in ("test_accuracy", "test_f1_macro", "test_loss", "test_ece"):
        assert ours[name] == pytest.approx(theirs[name])


def test_a_single_file_of_weights_is_refused(run_evaluation, tmp_path):
    with pytest.raises(UsageError, match=r"best_model.pth is a single file of weights.* Pass the directory"):
        run_evaluation(["--model_path", "checkpoints/best_model.pth", "--test_file", "test.json"])


def test_labels_that_the_model_does_not_know(run_evaluation, trained, tmp_path):
    (tmp_path / "other.json").write_text('[{"text": "a", "label": "neutral"}]')
    with pytest.raises(UsageError, match=r"other.json, row 1: the label 'neutral' is none of .*negative, positive"):
        run_evaluation(["--model_path", str(trained), "--test_file", str(tmp_path / "other.json")])
    assert not (tmp_path / "evaluation_results").exists()


def test_no_test_rows(run_evaluation, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Pass --test_file"):
        run_evaluation(["--model_path", str(trained)])
