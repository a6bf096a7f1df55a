"""Ways in which a run once lost or falsified something."""

import json

import pytest

from hf_ext import UsageError

CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--disable_tqdm", "true"]
SHORT = ["--num_train_epochs", "1"]


@pytest.fixture
def finished(run_classification, write_data, tmp_path):
    """A finished run; the flags that made it, and its folder."""
    flags = [*CNN, *write_data(), "--output_dir", str(tmp_path / "out"), "--save_steps", "10"]
    run_classification([*flags, *SHORT])
    return flags, tmp_path / "out"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_evaluation_does_not_replace_its_model(run_evaluation, run_classification, finished, tmp_path):
    _, out = finished
    before = content(out)
    test = ["--test_file", str(tmp_path / "test.json"), "--overwrite"]
    with pytest.raises(UsageError, match="holds the model"):
        run_evaluation(["--model_path", str(out), *test, "--output_dir", str(out)])
    with pytest.raises(UsageError, match="holds the model"):
        run_classification(["--model_name_or_path", str(out), "--do_predict", *test, "--output_dir", str(out)])
    assert content(out) == before


@pytest.mark.parametrize(
    "bad",
    [
        ["--report_to", "nonsense"],
        ["--adam_beta1", "2"],
        ["--dataloader_num_workers", "-1"],
        ["--gradient_checkpointing", "true"],
        ["--lr_scheduler_type", "cosine_with_min_lr"],
        ["--remove_unused_columns", "false"],
        ["--seed", "-1"],
        ["--weight_decay", "-1"],
    ],
)
def test_overwrite_keeps_the_old_run_until_the_new_one_can_start(run_classification, finished, bad):
    flags, out = finished
    before = content(out)
    with pytest.raises(UsageError):
        run_classification([*flags, *SHORT, "--overwrite", *bad])
    assert content(out) == before


def test_overwrite_leaves_other_folders(run_classification, finished):
    flags, out = finished
    (out / "checkpoint-notes").mkdir()
    (out / "checkpoint-notes" / "a.txt").write_text("mine")
    run_classification([*flags, *SHORT, "--overwrite"])
    assert (out / "checkpoint-notes" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("resume", ["false", "elsewhere"])
def test_only_its_own_checkpoint_continues_a_run(run_classification, finished, tmp_path, resume):
    flags, out = finished
    value = "false"
    if resume == "elsewhere":
        other = [*flags[: flags.index("--output_dir")], "--output_dir", str(tmp_path / "other"), "--save_steps", "10"]
        run_classification([*other, *SHORT])
        value = str(tmp_path / "other" / "checkpoint-10")
    before = content(out)
    with pytest.raises(UsageError, match="holds another run"):
        run_classification([*flags, *SHORT, "--resume_from_checkpoint", value])
    assert content(out) == before


def test_resuming_on_other_rows_or_another_network_is_refused(run_classification, finished, tmp_path):
    flags, _ = finished
    more = ["--num_train_epochs", "2", "--resume_from_checkpoint", "true"]
    with pytest.raises(UsageError, match=r"another model: num_filters \(4 then, 5 now\)"):
        run_classification([*flags, *more, "--num_filters", "5"])
    rows = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps([{**row, "text": row["text"] + " indeed"} for row in rows]))
    with pytest.raises(UsageError, match="was trained on other rows"):
        run_classification([*flags, *more])


def test_dropping_the_last_batch_drops_no_prediction(run_classification, write_data, tmp_path):
    out = tmp_path / "out"
    flags = ["--dataloader_drop_last", "true", "--per_device_eval_batch_size", "7", "--output_dir", str(out)]
    run_classification([*CNN, *SHORT, *write_data(), *flags])
    assert len((out / "predictions_test.jsonl").read_text().strip().split("\n")) == 40


def test_a_test_share_is_held_out_even_when_it_is_not_used(run_classification, write_data, tmp_path):
    train = write_data()[:2]
    flags = ["--test_size", "0.25", "--do_train", "--output_dir", str(tmp_path / "out")]
    run_classification([*CNN, *SHORT, *train, *flags])
    assert json.loads((tmp_path / "out" / "train_results.json").read_text())["train_samples"] == 120


def test_divergence_is_said(run_classification, write_data, tmp_path):
    flags = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UsageError, match=r"not finite.* training has diverged"):
        run_classification([*CNN, *SHORT, *write_data(), *flags])


def test_generic_class_names_are_known_by_their_ids(run_evaluation, tmp_path, tiny_bert):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    model.save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "test.json").write_text('[{"text": "a good film", "label": 0}, {"text": "bad", "label": 1}]')
    files = ["--model_path", str(tmp_path / "model"), "--test_file", str(tmp_path / "test.json")]
    run_evaluation([*files, "--output_dir", str(tmp_path / "out")])
    assert "test_accuracy" in json.loads((tmp_path / "out" / "test_results.json").read_text())


def test_a_directory_without_a_tokenizer_is_refused(run_classification, write_data, tmp_path, tiny_bert):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(tiny_bert).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="tokenizer"):
        run_classification(["--model_name_or_path", str(tmp_path / "model"), *write_data()])
