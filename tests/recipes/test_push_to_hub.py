"""Runs that push, runs that are pushed later, and that no secret of a run is ever written."""

import json
import re
import zipfile

import pytest
from huggingface_hub import constants
from transformers import AutoModelForSequenceClassification

from hf_ext import (
    ConfigurationError,
    KFoldArguments,
    PushError,
    RunRecord,
    complete_kfold_values,
    complete_multitask_values,
)

from ..hub_fixtures import hub, on_hub
from ..hub_server import TOKEN
from .conftest import RECIPES, load_recipe

__all__ = ["hub"]

CNN = ["--model_type", "textcnn", "--embed_size", "16", "--num_filters", "8", "--learning_rate", "1e-2"]
FAST = ["--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--disable_tqdm", "true"]
MODEL = {
    *("README.md", "calibration.json", "config.json", "configuration_textcnn.py", "freezing.py", "model.safetensors"),
    *("modeling_textcnn.py", "sentence_convolution.py", "tokenizer.json", "tokenizer_config.json"),
}
LOAD = """
import json, sys
sys.modules["hf_ext"] = None
from transformers import pipeline
classify = pipeline("text-classification", model="me/cnn", trust_remote_code=True)
rows = [json.loads(line) for line in open(sys.argv[1])]
print("\\n", json.dumps([{item["label"]: item["score"] for item in classify(row["text"], top_k=None)} for row in rows]))
"""
CALIBRATED = """
import json, sys
from hf_ext import load_pipeline
classify = load_pipeline("me/cnn", trust_remote_code=True)
rows = [json.loads(line) for line in open(sys.argv[1])]
print("\\n", json.dumps([{item["label"]: item["score"] for item in classify(row["text"], top_k=None)} for row in rows]))
"""


@pytest.fixture
def push_to_hub():
    return load_recipe("push_to_hub").main


@pytest.fixture
def trained(run_classification, write_data, tmp_path):
    """The folder of a run that was not pushed."""
    run_classification([*CNN, *FAST, *write_data(), "--output_dir", str(tmp_path / "out")])
    return tmp_path / "out"


def files_and_members(folder):
    for path in (path for path in folder.rglob("*") if path.is_file()):
        yield path, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path}: {name}", archive.read(name)) for name in archive.namelist())


def test_a_run_with_secrets_all_around_pushes_and_writes_none(hub, write_data, tmp_path):
    secrets = {
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
        "HF_TOKEN": "hf_" + "OfTheEnvironment" * 2 + "77",
        "MY_PASSWORD": "correct-horse-battery",
    }
    password = "s3cretOfTheStorage"
    settings = {
        "search": {"storage": f"postgresql://me:{password}@db.example.org/studies"},
        "wandb": {"mode": "offline", "notes": "no secret"},
        "training": {"report_to": ["wandb", "tensorboard"]},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    result = on_hub(
        *(hub, tmp_path, RECIPES / "run_classification.py", tmp_path / "settings.json", *CNN, *FAST, *write_data()),
        *("--output_dir", tmp_path / "out", "--push_to_hub", "true", "--hub_model_id", "me/cnn", "--hub_token", TOKEN),
        *("--token", TOKEN, "--calibrate", "true", "--validation_size", "0.3", "--hub_private_repo", "true"),
        *("--save_strategy", "epoch", "--use_cpu", "true"),
        **secrets,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    planted = [*secrets.values(), TOKEN, password]
    written = {**dict(files_and_members(tmp_path / "out")), "stdout": result.stdout.encode()}
    for tracked in ("wandb/offline-run-*/run-*.wandb", "runs/*/events.*"):
        assert len(list((tmp_path / "out").glob(tracked))) == 1
    written["stderr"] = result.stderr.encode()
    repository = hub.repositories["me/cnn"]
    written |= {f"on the Hub: {name}": content for name, content in repository.head[1].items()}
    assert len(written) > 30
    found = [(name, secret) for name, content in written.items() for secret in planted if secret.encode() in content]
    assert found == []
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "<hidden>" in record["command"] and record["arguments"]["training"]["push_to_hub"] is True

    assert repository.private
    assert repository.messages == ["initial commit", "Push a model"]
    assert set(repository.head[1]) == MODEL | {".gitattributes"}
    assert re.search(r"^predictions_test.jsonl +holds texts of the data$", result.stdout, re.MULTILINE)
    assert f"Pushed: {hub.url}/me/cnn/commit/{repository.head[0]}" in result.stdout

    # Elsewhere the model says what it said here; with hf_ext, as calibrated.
    predictions = tmp_path / "out" / "predictions_test.jsonl"
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    temperature = json.loads((tmp_path / "out" / "calibration.json").read_text())["temperature"]
    for script in (LOAD, CALIBRATED):
        loaded = on_hub(hub, tmp_path, "-c", script, predictions, HF_TOKEN=TOKEN)
        assert loaded.returncode == 0, loaded.stderr[-2000:]
        answers = json.loads(loaded.stdout.splitlines()[-1])
        assert len(answers) == len(rows) == 40
        for answer, row in zip(answers, rows, strict=True):
            shown = row["probabilities"]
            if script == LOAD:
                # (p / (1 - p)) to the power of the temperature undoes it.
                raised = {name: value**temperature for name, value in shown.items()}
                shown = {name: value / sum(raised.values()) for name, value in raised.items()}
            assert answer == pytest.approx(shown, abs=2e-5)


def test_what_is_wrong_is_said_before_anything_is_trained(run_classification, hub, write_data, tmp_path, monkeypatch):
    flags = [*CNN, *FAST, *write_data(), "--output_dir", str(tmp_path / "out"), "--push_to_hub", "true"]
    attempts = {
        "may write to me, team only": ["--hub_model_id", "other/cnn"],
        "hub_strategy is checkpoint": ["--hub_strategy", "checkpoint"],
    }
    for message, more in attempts.items():
        with pytest.raises(ConfigurationError, match=message):
            run_classification([*flags, *more])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match="push_to_hub in offline mode"):
        run_classification(flags)
    assert not (tmp_path / "out").exists()
    assert hub.repositories == {}


def test_a_hub_that_fails_at_the_end_costs_nothing(run_classification, push_to_hub, hub, write_data, tmp_path):
    hub.failures["cnn"] = ("/commit/", 500)
    flags = ["--output_dir", str(tmp_path / "out"), "--push_to_hub", "true", "--hub_model_id", "cnn"]
    with pytest.raises(PushError, match=r"Push it later: python recipes/push_to_hub.py") as error:
        run_classification([*CNN, *FAST, *write_data(), *flags])
    assert (tmp_path / "out" / "report.html").is_file()
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.id2label[1] == "positive"
    hub.failures.clear()
    push_to_hub(str(error.value).partition("push_to_hub.py ")[2].split())
    assert set(hub.repositories["me/cnn"].head[1]) == MODEL - {"calibration.json"} | {".gitattributes"}


def test_a_dry_run_shows_and_sends_nothing(push_to_hub, hub, trained, capsys):
    flags = ["--model_dir", str(trained), "--hub_model_id", "me/cnn"]
    capsys.readouterr()
    push_to_hub([*flags, "--dry_run"])
    shown = capsys.readouterr().out
    assert hub.requests == []
    assert "Dry run: nothing was sent to me/cnn." in shown
    for name in MODEL - {"calibration.json"}:
        assert re.search(rf"^{name} +{(trained / name).stat().st_size:,}$", shown, re.MULTILINE)
    push_to_hub([*flags, "--commit_message", "The first"])
    assert hub.repositories["me/cnn"].messages[-1] == "The first"


@pytest.mark.parametrize("source", ["run.json", "predictions", "data_files"])
def test_rows_that_the_folder_knows_are_refused(push_to_hub, hub, trained, tmp_path, capsys, source):
    train = tmp_path / "train.json"
    texts = [
        row["text"] for row in json.loads((tmp_path / ("test.json" if source == "predictions" else train)).read_text())
    ]
    text = max(texts, key=len)
    (trained / "README.md").write_text((trained / "README.md").read_text() + f"\nSuch as: {text}.\n")
    line = len((trained / "README.md").read_text().splitlines())
    more = []
    if source == "predictions":
        train.unlink()
        (tmp_path / "test.json").unlink()
    if source == "data_files":
        train.rename(tmp_path / "elsewhere.json")
        (trained / "run.json").unlink()
        more = ["--data_files", str(tmp_path / "elsewhere.json")]
    with pytest.raises(ConfigurationError, match=f"README.md, line {line}: it quotes a row of the data"):
        push_to_hub(["--model_dir", str(trained), "--hub_model_id", "me/cnn", *more])
    assert hub.repositories == {}
    if source == "predictions":
        assert f"Note: {train}, {tmp_path / 'test.json'}: not there, so their texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Pass --model_dir FOLDER"),
        (["--model_dir", "x"], "Pass --hub_model_id NAMESPACE/NAME"),
        (["--model_dir", "nowhere", "--hub_model_id", "me/x", "--dry_run"], "There is no folder nowhere"),
        (
            ["--model_dir", "x", "--hub_model_id", "me/x", "--max_gigabytes", "0"],
            "max_gigabytes is 0; it must be above 0",
        ),
    ],
)
def test_bad_input(push_to_hub, flags, message):
    with pytest.raises(ConfigurationError, match=message):
        push_to_hub(flags)


def test_a_distilled_model_is_pushed_without_teacher_and_control(hub, trained, tmp_path):
    files = ["--train_file", str(tmp_path / "train.json"), "--test_file", str(tmp_path / "test.json")]
    load_recipe("run_distillation").main(
        [
            *(*CNN, *FAST, *files, "--teacher_name_or_path", str(trained), "--output_dir", str(tmp_path / "student")),
            *("--push_to_hub", "true", "--hub_model_id", "me/student", "--teacher_cache_dir", str(tmp_path / "kept")),
        ]
    )
    repository = hub.repositories["me/student"]
    assert repository.messages == ["initial commit", "Push a model"]
    assert set(repository.head[1]) == MODEL - {"calibration.json"} | {".gitattributes"}
    assert repository.head[1]["model.safetensors"] == (tmp_path / "student" / "model.safetensors").read_bytes()


def test_several_tasks_are_several_models():
    values = {"model_type": "textcnn", "tasks": {"one": {}, "two": {}}, "push_to_hub": True}
    with pytest.raises(ConfigurationError, match=r"several tasks are several models.*--model_dir <output_dir>/tasks"):
        complete_multitask_values(values)


def test_passwords_of_storages_are_not_recorded():
    storage = "postgresql://me:s3cret@db/folds"
    with pytest.raises(ConfigurationError) as error:
        complete_kfold_values({"model_type": "textcnn", "storage": storage, "overwrite": True})
    assert "storage=postgresql://me:***@db/folds" in str(error.value)
    record = RunRecord(["--storage", storage, f"--hub_token={TOKEN}"], {"kfold": KFoldArguments(storage=storage)})
    assert record.facts["arguments"]["kfold"]["storage"] == "postgresql://me:***@db/folds"
    assert record.facts["command"][1:] == ["--storage", "postgresql://me:***@db/folds", "--hub_token=<hidden>"]
