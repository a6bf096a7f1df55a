"""Which checkpoints are whole, and what is removed."""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from hf_ext import newest_whole_checkpoint, what_is_missing
from hf_ext.checkpoints import (
    PARTIAL,
    check_resumable,
    clear_partial,
    put_in_place,
    remove_checkpoint,
    rotate_checkpoints,
    storage_errors,
)
from hf_ext.errors import StorageError


def make_checkpoint(folder, step, processes=1):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.arange(50.0)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.save({"state": torch.arange(30.0)}, path / name)
    for rank in range(processes):
        torch.save({"cpu": torch.zeros(9)}, path / (f"rng_state_{rank}.pth" if processes > 1 else "rng_state.pth"))
    (path / "config.json").write_text("{}")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": [{"loss": 1.0}] * 5}))
    return path


NEEDED = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("left", [None, 0.0, 0.3, 0.99])
def test_a_checkpoint_without_a_part_is_not_whole(tmp_path, name, left):
    make_checkpoint(tmp_path, 5)
    path = make_checkpoint(tmp_path, 10) / name
    assert what_is_missing(path.parent) is None
    content = path.read_bytes()
    if left is None:
        path.unlink()
    else:
        path.write_bytes(content[: int(len(content) * left)])
    assert what_is_missing(path.parent) is not None
    found, left_out = newest_whole_checkpoint(tmp_path)
    assert found.name == "checkpoint-5"
    assert [other.name for other in left_out] == ["checkpoint-10"]
    with pytest.raises(ValueError, match=r"cannot go on from .*checkpoint-10: .* Whole ones: .*checkpoint-5\."):
        check_resumable(path.parent, 1)


def test_sharded_weights_are_all_needed(tmp_path):
    path = make_checkpoint(tmp_path, 5)
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert what_is_missing(path) == "model-00002-of-00002.safetensors is missing"
    shutil.copy(path / shards["a"], path / shards["b"])
    assert what_is_missing(path) is None


def test_there_may_be_none(tmp_path):
    assert newest_whole_checkpoint(tmp_path / "nowhere") == (None, {})
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_whole_checkpoint(tmp_path) == (None, {})
    make_checkpoint(tmp_path, 5)
    assert newest_whole_checkpoint(tmp_path, before=5) == (None, {})


def test_random_states_of_every_process(tmp_path):
    path = make_checkpoint(tmp_path, 5, processes=3)
    check_resumable(path, 3)
    with pytest.raises(ValueError, match=r"was saved by 3 processes, but this run has 2 processes.* Launch 3 "):
        check_resumable(path, 2)
    (path / "rng_state_1.pth").unlink()
    assert what_is_missing(path) == "the random states of 1 of 3 processes are missing"


def test_the_oldest_go_and_what_must_stay_stays(tmp_path):
    # In the order in which they were written.
    for age, step in enumerate((5, 15, 10)):
        os.utime(make_checkpoint(tmp_path, step), (1000 + age, 1000 + age))
    rotate_checkpoints(tmp_path, None, set())
    assert len(list(tmp_path.iterdir())) == 3
    rotate_checkpoints(tmp_path, 1, {tmp_path / "checkpoint-5", tmp_path / "checkpoint-10"})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5", "checkpoint-10"}
    rotate_checkpoints(tmp_path, 1, {tmp_path / "checkpoint-10"})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10"}


def test_a_checkpoint_takes_the_place_of_one_of_its_name(tmp_path):
    make_checkpoint(tmp_path, 5)
    staged = make_checkpoint(tmp_path / PARTIAL, 5)
    (staged / "new").write_text("")
    put_in_place(staged, tmp_path / "checkpoint-5")
    assert (tmp_path / "checkpoint-5" / "new").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5"}


def test_leftovers_are_removed(tmp_path):
    make_checkpoint(tmp_path / PARTIAL, 5)
    assert clear_partial(tmp_path) == ["checkpoint-5"]
    assert clear_partial(tmp_path) == []
    make_checkpoint(tmp_path, 10)
    remove_checkpoint(tmp_path / "checkpoint-10")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_from_other_errors(tmp_path):
    make_checkpoint(tmp_path, 5)
    said = r"checkpoint-10 could not be written: No space left on device\..*checkpoint-5 stays"
    with pytest.raises(StorageError, match=said), storage_errors(tmp_path / "checkpoint-10"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path / "checkpoint-10"):
        (tmp_path / "nowhere").read_text()
    with pytest.raises(RuntimeError, match="shapes"), storage_errors(tmp_path / "checkpoint-10"):
        raise RuntimeError("shapes differ")
