"""Files that are either whole or not there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def open_atomically(path: str | os.PathLike) -> Iterator[TextIO]:
    """
    Opens a UTF-8 text file for writing that appears under its name only once it is complete.

    Args:
        path (`str` or `os.PathLike`): The file to write; its folder is created when missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A text can hold half a surrogate pair, which UTF-8 cannot; `\udXXX` is also how JSON escapes it.
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, with [`open_atomically`]."""
    with open_atomically(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
