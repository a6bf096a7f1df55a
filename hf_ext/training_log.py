"""`training.log`: what the loggers say, beside what a run leaves."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOGGERS = ("hf_ext", "transformers")
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


def start_training_log(path: Path) -> logging.Handler:
    """Write what the loggers say to `path/training.log` too, and warnings to the screen; the handler of the file."""
    path.mkdir(parents=True, exist_ok=True)
    handler = _add_log(path / "training.log")
    # With the file's, the logger has a handler, and Python shows no warnings by itself any more.
    own = logging.getLogger("hf_ext")
    if not any(isinstance(handler, _Screen) for handler in own.handlers):
        own.addHandler(_Screen())
    return handler


@contextmanager
def training_log(path: Path, wanted: bool = True) -> Iterator[None]:
    """
    Write what the loggers say inside a `with` block to `path/training.log` too.

    Args:
        path (`Path`): A folder that is there.
        wanted (`bool`, *optional*, defaults to `True`): Whether this process is the one to write.
    """
    if not wanted:
        yield
        return
    handler = _add_log(path / "training.log")
    try:
        yield
    finally:
        end_training_log(handler)


def end_training_log(handler: logging.Handler) -> None:
    """Write no more to the file of [`start_training_log`], and close it."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


# ---- Inside ----


class _Screen(logging.StreamHandler):
    """Warnings, wherever the standard error stream leads at the time."""

    def __init__(self):
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def emit(self, record):
        self.stream = sys.stderr
        super().emit(record)


def _add_log(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("hf_ext").setLevel(logging.INFO)
    return handler
