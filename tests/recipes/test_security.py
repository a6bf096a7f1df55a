"""Files that would run code, names that would lead out of a folder, secrets: through whole recipes."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from hf_ext import ConfigurationError
from hf_ext.defaults import complete_kfold_values, complete_training_values
from hf_ext.models.teacher_members import load_member

from .conftest import load_recipe, make_rows

CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--use_cpu", "true", "--preflight", "off"]
FAST = ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--disable_tqdm", "true"]
FAST += ["--mixed_precision", "no", "--report_to", "none"]
CHECKPOINTS = ["--save_strategy", "steps", "--save_steps", "4", "--save_total_limit", "1"]
REFUSED = "could run code, and is not loaded"


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The flags of a run and its folder, with a checkpoint in it."""
    folder = tmp_path_factory.mktemp("trained")
    flags = [*CNN, *FAST, *CHECKPOINTS]
    for seed, (name, count) in enumerate((("train", 64), ("test", 16))):
        (folder / f"{name}.json").write_text(json.dumps(make_rows(count, seed)))
        flags += [f"--{name}_file", str(folder / f"{name}.json")]
    load_recipe("run_classification").main([*flags, "--output_dir", str(folder / "out")])
    assert (folder / "out" / "checkpoint-8" / "optimizer.pt").is_file()
    return flags, folder / "out"


@pytest.fixture
def planted(tmp_path):
    """Puts a file in the place of another, and knows whether it was unpickled."""
    marker = tmp_path / "unpickled"
    # It works, where a file is read without care.
    torch.save(Planted(marker), tmp_path / "probe.pt")
    torch.load(tmp_path / "probe.pt", weights_only=False)
    assert marker.is_file()
    marker.unlink()
    yield lambda path: torch.save(Planted(marker), path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_would_run_code_is_not_resumed(run_classification, trained, planted, tmp_path, name):
    flags, folder = trained
    shutil.copytree(folder, tmp_path / "out")
    planted(tmp_path / "out" / "checkpoint-8" / name)
    more = ["--output_dir", str(tmp_path / "out"), "--num_train_epochs", "4", "--resume_from_checkpoint", "true"]
    with pytest.raises(ConfigurationError, match=rf"checkpoint-8 .*{REFUSED}"):
        run_classification([*flags, *more])


def test_training_args_are_never_loaded(run_classification, run_evaluation, trained, planted, tmp_path):
    flags, folder = trained
    shutil.copytree(folder, tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "checkpoint-8"):
        planted(path / "training_args.bin")
    more = ["--output_dir", str(tmp_path / "out"), "--num_train_epochs", "3", "--resume_from_checkpoint", "true"]
    run_classification([*flags, *more])
    planted(tmp_path / "out" / "training_args.bin")
    test = flags[flags.index("--test_file") + 1]
    run_evaluation(
        ["--model_path", str(tmp_path / "out"), "--test_file", test, "--output_dir", str(tmp_path / "evaluated")]
    )
    assert (tmp_path / "evaluated" / "test_results.json").is_file()


@pytest.mark.parametrize("recipe", ["run_evaluation", "run_export", "run_classification"])
def test_weights_that_would_run_code_are_not_loaded(trained, planted, tmp_path, recipe):
    flags, folder = trained
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors"))
    planted(tmp_path / "model" / "pytorch_model.bin")
    train, test = (flags[flags.index(f"--{name}_file") + 1] for name in ("train", "test"))
    own = ["--train_file", train, *FAST] if recipe == "run_classification" else []
    with pytest.raises(ConfigurationError, match=REFUSED):
        load_recipe(recipe).main(
            [
                *("--model_name_or_path", str(tmp_path / "model"), "--test_file", test, *own),
                *("--output_dir", str(tmp_path / "out")),
            ]
        )
    with pytest.raises(ConfigurationError, match=rf"The teacher .*{REFUSED}"):
        load_member(str(tmp_path / "model"), None, None, False)
    assert not list(tmp_path.glob("out/*"))


# ---- Names that are parts of paths ----


def test_tasks_cannot_lead_out_of_the_folder(write_data, tmp_path):
    train, test = (write_data()[place] for place in (1, 3))
    tasks = {name: {"train_file": train, "test_file": test} for name in ("../../x", "b")}
    flags = ["--tasks", json.dumps(tasks), *CNN, *FAST, "--output_dir", str(tmp_path / "a" / "b" / "out")]
    with pytest.raises(ConfigurationError, match=r"A task is named '\.\./\.\./x'"):
        load_recipe("run_multitask").main(flags)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "a/../../../x", "C:\\x"])
def test_the_name_of_a_model_is_no_path(name):
    folders = [
        Path(complete({"name": name, "model_type": "textcnn", "train_file": "x.json"})["output_dir"])
        for complete in (complete_training_values, complete_kfold_values)
    ]
    for folder in folders:
        assert folder.parts[0] == "outputs" and len(folder.parts) == 2 and ".." not in folder.parts, folder


def test_groups_are_no_part_of_paths(tmp_path):
    """The folds of a cross-validation are numbered, whatever the groups are called."""
    groups = ["../../x"] * 6 + [f"../../{number}" for number in range(18)]
    rows = [{"text": f"good film {row}", "label": row % 2, "who": group} for row, group in enumerate(groups)]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    flags = ["--train_file", str(tmp_path / "all.json"), "--group_column", "who", "--num_folds", "2", *CNN, *FAST]
    load_recipe("run_kfold").main([*flags, "--output_dir", str(tmp_path / "a" / "b" / "out")])
    assert (tmp_path / "a" / "b" / "out" / "kfold_results.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"out"}


# ---- Secrets ----


def test_a_search_keeps_no_secret(write_data, tmp_path, monkeypatch):
    secrets = {"HF_TOKEN": "hf_" + "OfTheEnvironment" * 2 + "78", "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234568"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    given = "hf_" + "GivenByHand" * 3 + "79"
    (tmp_path / "space.json").write_text(json.dumps({"search_space": {"learning_rate": [1e-3, 1e-2]}}))
    load_recipe("run_search").main(
        [
            *(str(tmp_path / "space.json"), *CNN, *FAST, *write_data(), "--num_train_epochs", "1", "--token", given),
            *("--hub_token", given, "--num_trials", "2", "--output_dir", str(tmp_path / "out")),
        ]
    )
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.name == "study.db" for path in files) and len(files) > 4
    planted = [*secrets.values(), given]
    assert [(path, secret) for path in files for secret in planted if secret.encode() in path.read_bytes()] == []
