import sqlite3
import sys

import pytest

from hf_ext import ConfigurationError, open_study, require_optuna, without_password
from hf_ext.experiments import shared_storage
from hf_ext.experiments.shared_storage import claim_lock, readable_storage


def opened(storage, name="study"):
    return open_study(str(storage), name, True, None)


def error_of(storage):
    with pytest.raises(ConfigurationError) as caught:
        opened(storage)
    return str(caught.value)


@pytest.mark.parametrize("file", ["study.db", "study.log", "folder/study.journal"])
def test_a_study_outlives_its_process(tmp_path, file):
    study = opened(tmp_path / file)
    study.enqueue_trial({"x": 1.0})
    study.tell(study.ask(), 3.0)
    again = opened(tmp_path / file)
    assert [trial.value for trial in again.trials] == [3.0]
    assert again.direction.name == "MAXIMIZE"
    assert opened(tmp_path / file, "other").trials == []
    content = (tmp_path / file).read_bytes()
    assert content.startswith(b"SQLite" if file.endswith("db") else b"{")


def test_a_locked_file(tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    opened(path)
    monkeypatch.setattr(shared_storage, "LOCK_TIMEOUT_S", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        message = error_of(path)
    finally:
        other.close()
    assert "study.db is locked" in message and "another process" in message and "journal" in message
    assert opened(path).trials == []


def test_a_process_that_takes_for_ever_to_take_a_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_storage, "LOCK_TIMEOUT_S", 0.1)
    path = str(tmp_path / "study.db")
    with (
        claim_lock(path),
        pytest.raises(ConfigurationError, match="is locked: another process"),
        readable_storage(path),
        claim_lock(path),
    ):
        pass


def test_a_file_that_is_read_only(tmp_path):
    path = tmp_path / "study.db"
    opened(path)
    message = error_of(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert "it is read-only" in message and "permissions" in message


def test_a_folder_that_is_not_one(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in error_of(tmp_path / "file" / "study.db")
    assert "is a directory" in error_of(tmp_path)


@pytest.mark.parametrize("file", ["study.db", "study.log"])
def test_something_else_than_a_study(tmp_path, file):
    (tmp_path / file).write_text("learning_rate: 3\n" * 100)
    message = error_of(tmp_path / file)
    assert file in message and "no storage of Optuna" in message


def test_a_database_without_its_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    message = error_of("postgresql://me:secret@host/studies")
    assert "pip install psycopg2-binary" in message and "secret" not in message


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:se:cret@host/db") == "postgresql://me:***@host/db"
    assert without_password("postgresql://me@host/db") == "postgresql://me@host/db"
    assert without_password("out/study.db") == "out/study.db"


def test_without_optuna(monkeypatch):
    monkeypatch.setattr(shared_storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'hf_ext\[experiments\]'"):
        require_optuna()
