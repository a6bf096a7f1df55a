"""What the trackers hold after a run: real stores, read back with what their own packages write."""

import json
import os
import sqlite3
import struct

import pytest
from programs import run_launched, run_program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ..tracking_server import stalling_server
from .conftest import RECIPES, make_rows

GUIDE = """
wandb:
  project: "your-project-name"
  entity: "your-wandb-entity"
  name: null  # Auto-generated
  tags: ["experiment", "baseline"]
  notes: "Baseline model training"
"""
CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--use_cpu", "true", "--preflight", "off"]
FAST = ["--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--logging_steps", "2"]
FAST += ["--disable_tqdm", "true", "--mixed_precision", "no"]
# All that is tracked without asking.
TRAINING = {
    *("loss", "grad_norm", "grad_norm/embeddings", "grad_norm/layer.0", "grad_norm/head"),
    *("learning_rate", "learning_rate/embeddings", "learning_rate/layer.0", "learning_rate/head"),
    *("parameters", "trainable_parameters", "performance/examples_per_second", "performance/tokens_per_second"),
    *("performance/padding_share", "performance/data_loading_share", "performance/peak_cpu_memory_mib", "epoch"),
}
EVALUATION = {"loss", "accuracy", "f1_macro"}


def recipe(flags, folder, run=run_program, **environment):
    """What `run_classification.py` says, in a process that knows of no login."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_"))}
    clean |= {"NETRC": str(folder / "netrc"), "TRACKIO_DIR": str(folder / "trackio"), "PYTHONPATH": ""}
    flags = [*flags, "--output_dir", folder / "out"]
    return run(RECIPES / "run_classification.py", flags, folder, {**clean, **environment})


def write_data(folder):
    (folder / "train.json").write_text(json.dumps(make_rows(64, 0)))
    (folder / "test.json").write_text(json.dumps(make_rows(16, 1)))
    return ["--train_file", folder / "train.json", "--test_file", folder / "test.json"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The folder of one run that three trackers followed, and what it printed."""
    folder = tmp_path_factory.mktemp("tracked")
    trackers = ["wandb", "tensorboard", "trackio"]
    (folder / "wandb.yaml").write_text(f"{GUIDE}\ntraining:\n  report_to: {trackers}\n")
    flags = [folder / "wandb.yaml", *CNN, *FAST, *write_data(folder), "--head_learning_rate", "1e-2"]
    done = recipe(flags, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def logged(tracked):
    """Metric, as the trackers call it -> its values, from the Trainer's own history."""
    state = json.loads((tracked[0] / "out" / "trainer_state.json").read_text())
    values = {}
    for entry in state["log_history"]:
        for name, value in entry.items():
            if name.startswith("eval_"):
                values.setdefault(f"eval/{name.removeprefix('eval_')}", []).append(value)
            elif "loss" in entry and name != "step":
                values.setdefault(f"train/{name}", []).append(value)
    assert {name for name in values if name.startswith("train/")} == {f"train/{name}" for name in TRAINING}
    assert {f"eval/{name}" for name in EVALUATION} <= set(values)
    return values


def check(found, logged):
    """That each value of the history is there, in its order."""
    for name, values in logged.items():
        if name != "train/epoch":
            assert found[name][: len(values)] == pytest.approx(values, rel=1e-6), name


def wandb_records(path):
    """The records of a `.wandb` file: LevelDB's log format behind a header of 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        # 1: whole, 2: first part, 3: middle, 4: last.
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def test_weights_and_biases(tracked, logged):
    folder, said = tracked
    assert f"the run is kept offline in {folder / 'out'}/wandb. `wandb sync`" in said
    (path,) = (folder / "out" / "wandb").glob("offline-run-*/run-*.wandb")
    found, config, runs = {}, {}, []
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            runs.append(record.run)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if kind == "config":
            config |= {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.config.update
            }
        if kind == "history":
            for item in record.history.item:
                found.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    run = runs[0]
    assert (run.project, run.entity, run.notes) == ("your-project-name", "your-wandb-entity", "Baseline model training")
    assert list(run.tags) == ["experiment", "baseline"]
    assert config["per_device_train_batch_size"] == 8 and config["embed_size"] == 8
    assert config["model/num_parameters"] == logged["train/parameters"][0]
    check(found, logged)
    assert 0 <= found["test/accuracy"][-1] <= 1


def test_tensorboard(tracked, logged):
    (folder,) = (tracked[0] / "out" / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    check({name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}, logged)


def test_trackio(tracked, logged):
    (path,) = (tracked[0] / "trackio").rglob("your-project-name*.db")
    store = sqlite3.connect(path)
    rows = store.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    # What is reported after the training belongs to the same run.
    (name,) = {name for name, _ in rows}
    assert name.startswith("out-")
    found = {}
    for _, metrics in rows:
        for metric, value in json.loads(metrics).items():
            found.setdefault(metric, []).append(value)
    check(found, logged)
    assert 0 <= found["test/accuracy"][-1] <= 1
    configs = [json.loads(config) for (config,) in store.execute("SELECT config FROM configs")]
    assert configs[0]["per_device_train_batch_size"] == 8


def test_a_network_that_stalls_in_the_middle_of_a_run(tmp_path):
    with stalling_server() as address:
        done = recipe(
            [*CNN, *FAST, *write_data(tmp_path), "--report_to", "wandb", "--tracker_timeout", "3"],
            tmp_path,
            WANDB_API_KEY="0" * 40,
            WANDB_BASE_URL=address,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "training.log").read_text().count("The tracker Wandb is left out") == 1


def test_two_processes_are_one_run(tmp_path):
    flags = [*CNN, *FAST, *write_data(tmp_path), "--wandb_mode", "offline", "--report_to", "tensorboard"]
    for done in recipe(flags, tmp_path, run_launched):
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*"))) == 1
    assert len(list((tmp_path / "out" / "runs").rglob("events.*"))) == 1
