"""Whether a text quotes rows of a data set."""

import bisect
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

# Shorter texts ("a good film") stand in any text by chance.
SHORTEST = 24
# Windows of this many characters are looked up before texts are compared.
WINDOW = 16
# Characters that most often hold the words of a window: the rest of a row is read only if that is quoted.
HEAD = 64
# Of how many quoted rows the place is told.
MAX_FOUND = 5


class QuotedRows:
    """
    Texts, prepared to be searched for rows of a data set.

    Words are compared, in lower case and without the signs between them: a card escapes some signs, and breaks lines.
    The time is proportional to the texts and to the rows, not to their product.

    Args:
        texts (`dict[str, list[tuple[int, str]]]`):
            Name -> parts of a text with the number of the line each is on. A row is looked for
            inside a run of parts that follow each other; an empty part ends the run.
    """

    def __init__(self, texts: dict[str, list[tuple[int, str]]]):
        self._texts = {name: _Folded(parts) for name, parts in texts.items()}
        self._windows = {window for text in self._texts.values() for window in text.windows()}

    def find(self, rows: Iterable[Any]) -> Iterator[tuple[str, int]]:
        """
        Where rows are quoted.

        Args:
            rows (`Iterable`): Strings, or tuples of them. Those with fewer than 24 letters, digits and spaces are left
                out: they may stand there by chance.

        Yields:
            `tuple[str, int]`: A name and a line, of at most 5 rows.
        """
        found = 0
        for row in rows:
            for text in (row,) if isinstance(row, str) else row:
                head = _fold(text[:HEAD])
                # Only the last word of the head may be cut in two.
                if len(head) > 2 * WINDOW and head[:WINDOW] not in self._windows:
                    continue
                folded = _fold(text)
                if len(folded) < SHORTEST or folded[:WINDOW] not in self._windows:
                    continue
                for name, quoting in self._texts.items():
                    line = quoting.line_of(folded)
                    if line is not None:
                        yield name, line
                        found += 1
                if found >= MAX_FOUND:
                    return


def lines_of(content: str) -> list[tuple[int, str]]:
    """The lines of a plain text, for [`QuotedRows`]."""
    return list(enumerate(content.splitlines(), 1))


def strings_of(content: str) -> list[tuple[int, str]]:
    """
    The strings of a JSON text, each on its own, for [`QuotedRows`]. Neighbours in a word list make no sentence.

    Raises:
        ValueError: If it is none.
    """
    parts, position = [], 0
    for text in _strings(json.loads(content)):
        if len(text) < SHORTEST:
            continue
        quoted = (content.find(json.dumps(text, ensure_ascii=ascii_only), position) for ascii_only in (False, True))
        # JSON has more ways to write a string than these two.
        place = max(quoted)
        position = max(position, place)
        parts += [(content.count("\n", 0, position) + 1, text), (0, "")]
    return parts


# ---- Inside ----


class _Folded:
    """The words of a text in one string, and the lines that they are on."""

    def __init__(self, parts: list[tuple[int, str]]):
        self.starts, self.lines, folded = [], [], []
        length = 0
        for line, part in parts:
            words = _fold(part) if part.strip() else "\n"
            if words:
                self.starts.append(length)
                self.lines.append(line)
                folded.append(words)
                length += len(words) + 1
        self.text = " ".join(folded)

    def windows(self) -> Iterator[str]:
        return (self.text[start : start + WINDOW] for start in range(len(self.text) - SHORTEST + 1))

    def line_of(self, folded: str) -> int | None:
        place = self.text.find(folded)
        return None if place < 0 else self.lines[bisect.bisect_right(self.starts, place) - 1]


def _fold(text: str) -> str:
    return " ".join(re.findall(r"\w+", html.unescape(text).lower()))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
