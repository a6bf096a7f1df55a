"""Errors that a user can mend, and how a recipe shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """What was given cannot be used; the message says where it is and what to do."""


class ConfigurationError(UsageError):
    """A file or the command line asks for something that does not exist or does not fit together."""


class DataError(UsageError):
    """The data cannot be trained or evaluated on as it is."""


class PushError(UsageError):
    """The Hub did not take a model, which is whole on disk."""


@contextmanager
def readable_errors(program: str) -> Iterator[None]:
    """Print a [`UsageError`] as one message without a traceback and leave with status 2; Ctrl-C with status 130."""
    try:
        yield
    except UsageError as error:
        print(f"{program}: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
