"""One measurement: its command, what that needs, and what it has to leave."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# In place of a file's name: what the command prints.
PRINTED = "what it printed"


@dataclass(frozen=True)
class Measurement:
    """
    A command of one benchmark.

    Args:
        name (`str`): Its own; the name of its log.
        script (`str`): A file of this folder.
        arguments (`str`):
            What follows the script, the part first if it has parts. `{data_dir}` and `{wordnet_dir}` stand for folders
            of whoever runs it.
        toy (`str`, *optional*):
            Added for the toy size; of a flag that is given twice the last one counts. `{encoder}`, `{word_vectors}` and
            `{counts}` stand for what toy_inputs.py makes. `None`: has no toy size, because it sets up environments.
        leaves (`Mapping[str, str]`):
            What has to be there in the end: a file, from the working folder on, or [`PRINTED`] -> a regular expression
            that is found in it (`^` matches at each line).
        sets (`tuple[str, ...]`, *optional*): What it reads of `data_dir`, as needs.py lists it.
        needs (`tuple[str, ...]`, *optional*): Names in needs.py.
        after (`tuple[str, ...]`, *optional*): The measurements that leave what this one reads.
        threads (`int`, *optional*): For `OMP_NUM_THREADS`.
    """

    name: str
    script: str
    arguments: str
    toy: str | None
    leaves: Mapping[str, str]
    sets: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    threads: int | None = None

    @property
    def part(self) -> str | None:
        """The first argument, if it is the name of a part."""
        first = self.arguments.partition(" ")[0]
        return first if first and not first.startswith("-") else None

    def words(self, places: Mapping[str, object], is_toy: bool = False) -> list[str]:
        """The arguments, with a folder or file in each place that is held open."""
        line = f"{self.arguments} {self.toy}" if is_toy else self.arguments
        return [word.format_map(places) for word in shlex.split(line)]

    def shown(self) -> str:
        """The command as documents write it."""
        threads = f"OMP_NUM_THREADS={self.threads} " if self.threads else ""
        line = self.arguments.format(data_dir="DIR", wordnet_dir="DIR")
        return f"{threads}python benchmarks/{self.script} {line}".rstrip()

    def shortfall(self, printed: str, folder: Path) -> str | None:
        """What is not there that has to be; `None` if all is."""
        for place, pattern in self.leaves.items():
            if place != PRINTED and not (folder / place).is_file():
                return f"{place} was not written"
            text = printed if place == PRINTED else (folder / place).read_text(encoding="utf-8")
            if re.search(pattern, text, re.MULTILINE) is None:
                return f"{place} does not match {pattern!r}"
        return None
