"""Errors that a user can mend, and how a recipe shows them."""

import difflib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hf_ext.lost_process import LostProcessError, is_lost_process, lost_process

PATIENCE_S = 2.0


class UsageError(ValueError):
    """What was given cannot be used; the message says where it is and what to do."""


class ConfigurationError(UsageError):
    """A file or the command line asks for something that does not exist or does not fit together."""


class DataError(UsageError):
    """The data cannot be trained or evaluated on as it is."""


class PushError(UsageError):
    """The Hub did not take a model, which is whole on disk."""


class StorageError(UsageError):
    """A file could not be written, because the disk is full or for another reason that lies outside of the program."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C has ended a training after a step; the message says which checkpoint was saved and how to go on."""

    status = 128 + signal.SIGINT


class TrainingTerminated(SystemExit):
    """As [`TrainingInterrupted`], after SIGTERM."""

    status = 128 + signal.SIGTERM

    def __init__(self, message: str):
        super().__init__(message)
        # What a program ends with that does not catch this.
        self.code = self.status


def nearest(name: Any, valid: Iterable[Any]) -> str:
    """`" Did you mean ...?"` with the closest of the valid names, or nothing."""
    matches = difflib.get_close_matches(str(name), [str(other) for other in valid], n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def first_few(names: Sequence[str], most: int) -> str:
    """`"a, b and 3 more"`: so many of the names, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


@contextmanager
def readable_errors(program: str, again: str = "") -> Iterator[None]:
    """
    Print a [`UsageError`] as one message without a traceback and leave with status 2; after Ctrl-C with status 130, and
    after a SIGTERM that ended a training with 143. Where another process of the run is gone, say so and leave with
    status 1.

    Args:
        program (`str`): What the message begins with.
        again (`str`, *optional*, defaults to `""`): How to go on after a Ctrl-C, where no checkpoint says it.
    """
    try:
        yield
    except UsageError as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0":
            # Most likely the first process says the same, and its launcher then ends this one.
            time.sleep(PATIENCE_S)
            program = f"{program} (process {rank})"
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        said = error if isinstance(error, LostProcessError) else lost_process(error)
        print(f"{program}: error: {said}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except (TrainingInterrupted, TrainingTerminated) as error:
        # The trainer has said how to go on.
        raise SystemExit(error.status) from None
    except KeyboardInterrupt:
        print(f"{program}: interrupted{f'; {again}' if again else ''}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
