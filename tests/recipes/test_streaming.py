"""`--streaming true`: a run on a file that need not fit into memory."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_ext import ConfigurationError

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--disable_tqdm", "true"]


@pytest.fixture
def files(write_data, tmp_path):
    """Training rows as lines, and others to validate and test on."""
    write_data(train=100)
    rows = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shutil.copy(tmp_path / "test.json", tmp_path / "dev.json")
    return ["--train_file", str(tmp_path / "train.jsonl"), "--validation_file", str(tmp_path / "dev.json")]


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_stream_in_the_file_s_order_trains_what_the_rows_in_memory_do(run_classification, files, tmp_path, capsys):
    flags = [*CNN, *FAST, *files, "--train_sampling_strategy", "sequential", "--preflight", "off"]
    run_classification([*flags, "--output_dir", str(tmp_path / "memory")])
    capsys.readouterr()
    run_classification([*flags, "--streaming", "true", "--output_dir", str(tmp_path / "stream")])
    assert "Note: The 100 training rows are streamed from " in capsys.readouterr().out
    assert_equal(weights(tmp_path / "memory"), weights(tmp_path / "stream"))
    for name in ("predictions_validation.jsonl", "tokenizer.json"):
        assert (tmp_path / "memory" / name).read_text() == (tmp_path / "stream" / name).read_text()
    record = json.loads((tmp_path / "stream" / "run.json").read_text())
    assert set(record["data"]) == {"train", "validation"}
    assert record["arguments"]["data"]["streaming"] is True
    assert json.loads((tmp_path / "stream" / "train_results.json").read_text())["train_samples"] == 100


def test_a_run_resumes_in_the_middle_of_the_stream(run_classification, files, tmp_path):
    # 13 steps an epoch: the checkpoint of step 18 is in the second.
    flags = [*CNN, *FAST, *files, "--streaming", "true", "--shuffle_buffer", "30", "--max_steps", "22"]
    flags += ["--save_strategy", "steps", "--save_steps", "18"]
    run_classification([*flags, "--output_dir", str(tmp_path / "whole")])
    part = tmp_path / "part"
    part.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-18", part / "checkpoint-18")
    shutil.copy(tmp_path / "whole" / "run.json", part)
    run_classification([*flags, "--output_dir", str(part), "--resume_from_checkpoint", "true"])
    assert_equal(weights(tmp_path / "whole"), weights(part))
    # Other rows are not gone on with.
    (tmp_path / "train.jsonl").write_text((tmp_path / "train.jsonl").read_text().replace("film", "movie"))
    with pytest.raises(ConfigurationError, match="was trained on other rows"):
        run_classification([*flags, "--output_dir", str(part), "--resume_from_checkpoint", "true"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--curriculum", "length"], "curriculum=length with streaming=true: it draws the rows in an order of its own"),
        (["--augmentation_enabled", "true"], "augmentation_enabled=True with streaming=true: copies are made of all"),
        (["--class_weights", "balanced"], "class_weights=balanced with streaming=true: weights are scaled"),
        (["--learning_rate", "auto"], "find_learning_rate=True with streaming=true: find it on a part of the rows"),
        (["--train_sampling_strategy", "group_by_length"], "it takes the lengths of all rows. Valid: random, seq"),
        (["--preflight", "warn"], "preflight=warn with streaming=true: repeats and leaks are looked for in memory"),
        (["--dataloader_num_workers", "2"], "dataloader_num_workers=2 with streaming=true: each worker would read"),
        (["--test_size", "0.1"], "test_size=0.1 with streaming=true: no rows are held out of a stream"),
        (["--data_dir", "data"], "streaming=true reads --train_file, and data_dir=data is given"),
        (["--do_eval", "--do_train", "false"], "streaming=true streams training rows, and do_train is false"),
        (["--push_to_hub", "true"], "push_to_hub=True with streaming=true: what is published is compared"),
        (
            ["--train_sampling_strategy", "sequential", "--shuffle_buffer", "5"],
            "train_sampling_strategy=sequential and shuffle_buffer=5 contradict",
        ),
    ],
)
def test_what_needs_all_rows_is_refused(run_classification, files, tmp_path, flags, message):
    with pytest.raises(ConfigurationError, match=message):
        run_classification([*CNN[:-2], *files, "--streaming", "true", "--output_dir", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


def test_no_rows_are_held_out(run_classification, files, tmp_path):
    flags = [*CNN, *files[:2], "--streaming", "true", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ConfigurationError, match=r"without --validation_file.*--validation_size 0"):
        run_classification(flags)
    with pytest.raises(ConfigurationError, match="shuffle_buffer=5 has an effect only with --streaming true"):
        run_classification([*CNN, *files, "--shuffle_buffer", "5"])


def test_other_recipes_refuse_it(run_lr_finder, run_evaluation, run_export, files, tmp_path):
    test = ["--model_path", str(tmp_path), "--test_file", str(tmp_path / "test.json")]
    for recipe, flags in ((run_lr_finder, [*CNN, *files]), (run_evaluation, test), (run_export, test)):
        with pytest.raises(ConfigurationError, match="this recipe needs all rows at hand"):
            recipe([*flags, "--streaming", "true"])
