"""What a reader can copy into a shell: commands of code blocks and of the text of a page."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
SCRIPT = re.compile(r"(recipes|benchmarks)/\w+\.py")
# What a whole command in a sentence looks like; `run_kfold.py --num_workers 2`, or a recipe without arguments, is none.
WHOLE = re.compile(
    r"([A-Z_]+=\S+ )*"
    r"(accelerate launch .*recipes/\S+ .+|python (recipes/\S+ .+|benchmarks/.+|-.+)|(pytest|make|pip|uv) .+)"
)


@dataclass(frozen=True)
class Command:
    """A command on a page, without variables of the environment before it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def script(self) -> str:
        """The recipe or benchmark that it starts, `""` if none."""
        return next((word for word in self.words if SCRIPT.fullmatch(word)), "")

    @property
    def launcher(self) -> list[str]:
        """What `accelerate launch` is given for itself."""
        return list(self.words[2 : self.words.index(self.script)])

    @property
    def arguments(self) -> list[str]:
        """What the script is given."""
        return list(self.words[self.words.index(self.script) + 1 :])


def shell_commands(page: Path, root: Path) -> list[Command]:
    """
    The commands of a page in their order, those of its sentences after those of its blocks.

    Args:
        page (`Path`): A Markdown file.
        root (`Path`): Of the repository.
    """
    text = page.read_text(encoding="utf-8")
    scripts = [block for language, block in FENCE.findall(text) if language == "bash"]
    lines = "".join(scripts).replace("\\\n", " ").splitlines()
    spans = (" ".join(span.split()) for span in INLINE.findall(FENCE.sub("", text)))
    lines += [span for span in spans if WHOLE.fullmatch(span)]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while re.match(r"[A-Z_]+=", command[0]):
                command = command[1:]
            found.append(Command(str(page.relative_to(root)), tuple(command)))
    return found
