"""Where what several processes share is kept: SQLite, a journal file, or a database that several machines reach."""

import importlib.util
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_ext.errors import ConfigurationError
from hf_ext.secret_patterns import without_password

JOURNALS = (".log", ".journal", ".jsonl")
# How long to wait for other processes that write to the same SQLite file.
LOCK_TIMEOUT_S = 60
# Two processes that begin at the same time may both make the tables.
OPENING_ATTEMPTS = 15


def require_optuna() -> None:
    """
    See that Optuna is there.

    Raises:
        ConfigurationError: With the command that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigurationError("This needs Optuna, which is not installed: pip install 'hf_ext[experiments]'.")


@contextmanager
def readable_storage(storage: str) -> Iterator[None]:
    """
    Says of a storage's file or database what is wrong with it.

    Args:
        storage (`str`): Path or URL.

    Raises:
        ConfigurationError: In place of what the database says.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, Timeout) as error:
        raise ConfigurationError(_explanation(storage, error)) from error


def claim_lock(storage: str) -> AbstractContextManager:
    """
    What a process holds while it takes a trial, so that no other takes the same.

    A database server sees to that itself, SQLite does not: it lets two processes read that a trial is waiting before
    either says that it has it.

    Args:
        storage (`str`): Path or URL.
    """
    path = storage.removeprefix("sqlite:///")
    if "://" in path or path.startswith("file:"):
        return nullcontext()
    return FileLock(f"{path}.claim", timeout=LOCK_TIMEOUT_S)


def open_storage(storage: str) -> Any:
    """
    A storage of Optuna.

    Args:
        storage (`str`): A URL, or the path of a file, which is made if there is none: a journal if it ends in `.log`,
            `.journal` or `.jsonl`, else SQLite.

    Returns:
        `optuna.storages.BaseStorage`

    Raises:
        ConfigurationError: If Optuna or a database's driver is missing, or the storage is locked, cannot be written or
            holds something else.
    """
    require_optuna()
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    # What becomes of each fold and trial is said by those who train it.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for attempt in range(OPENING_ATTEMPTS):
        try:
            return _opened(storage)
        except ImportError as error:
            raise ConfigurationError(
                f"storage={without_password(storage)}: the driver of this database is not installed ({error}); install "
                "it with pip (PostgreSQL: pip install psycopg2-binary)."
            ) from error
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
            made_twice = "already exists" in str(error) or "UNIQUE" in str(error)
            if attempt == OPENING_ATTEMPTS - 1 or not made_twice:
                raise ConfigurationError(_explanation(storage, error)) from error
            time.sleep(0.2 * (attempt + 1))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ConfigurationError(_explanation(storage, error)) from error


def open_study(storage: str, name: str, maximizes: bool, pruner: Any) -> Any:
    """
    A study of a storage, new or as it was left.

    Args:
        storage (`str`): See [`open_storage`].
        name (`str`): The study's; a storage may hold several.
        maximizes (`bool`): Whether more is better, for a new study.
        pruner (`optuna.pruners.BasePruner`): Decides which trials end early.

    Returns:
        `optuna.Study`

    Raises:
        ConfigurationError: See [`open_storage`].
    """
    opened = open_storage(storage)
    import optuna

    with readable_storage(storage):
        direction = "maximize" if maximizes else "minimize"
        return optuna.create_study(
            study_name=name, storage=opened, direction=direction, pruner=pruner, load_if_exists=True
        )


# ---- Inside ----


def _opened(storage: str) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in storage:
        return RDBStorage(storage, engine_kwargs={"pool_pre_ping": not storage.startswith("sqlite")})
    path = Path(storage)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in JOURNALS:
        return JournalStorage(JournalFileBackend(str(path)))
    return RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT_S}})


def _explanation(storage: str, error: Exception) -> str:
    causes, cause = [], error
    while cause is not None:
        # Some repeat the address that they could not use.
        causes.append(without_password(str(cause)))
        cause = cause.__cause__ or getattr(cause, "orig", None)
    text = " ".join(causes)
    shown = f"storage={without_password(storage)}"
    if "database is locked" in text or isinstance(error, Timeout):
        return (
            f"{shown} is locked: another process has been writing to it for {LOCK_TIMEOUT_S} s, or has died while it "
            "did. End that process; on a network drive take a journal file (--storage shared.log) instead of SQLite."
        )
    if "readonly" in text or "unable to open" in text or isinstance(error, OSError):
        reason = "it is read-only" if "readonly" in text else causes[-1].splitlines()[0]
        return f"{shown} cannot be written: {reason}. Check its permissions, or name another file with --storage."
    if "not a database" in text or isinstance(error, ValueError | KeyError | AttributeError):
        return (
            f"{shown} is no storage of Optuna ({causes[-1].splitlines()[0]}). Name another file with --storage: a "
            f"journal if it ends in {', '.join(JOURNALS)}, else SQLite."
        )
    return f"{shown} cannot be used: {causes[-1].splitlines()[0]}. Check --storage."
