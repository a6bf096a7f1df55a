"""Docstrings in Hugging Face's grammar -> Markdown, and which parameters they describe."""

import re
from collections.abc import Callable
from dataclasses import dataclass

HEADINGS = {
    "Args": "Parameters",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "Example": "Example",
}
LISTS = ("Args", "Attributes", "Raises")
HEADER = re.compile(rf"({'|'.join(HEADINGS)}):")
# Colons and brackets inside of code belong to it.
HEAD = re.compile(r"(?P<names>[\w*, ]+?)(?: \((?P<kind>(?:`[^`]*`|[^`:])*)\))?:(?: (?P<text>.*))?")
REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\]")
FENCED_SESSION = re.compile(r"^```python\n(?=>>> )", re.MULTILINE)


@dataclass(frozen=True)
class Item:
    """One entry of a list: its names, what stands in brackets behind them, and what is said of them."""

    names: tuple[str, ...]
    kind: str
    text: str


def sections(docstring: str) -> list[tuple[str, str]]:
    """
    Cut a docstring at its headers.

    Args:
        docstring (`str`): Without the indentation that all of its lines share.

    Returns:
        `list[tuple[str, str]]`: Header (`""` for plain text) and text without its indentation, in their order.
    """
    found, lines, title = [], [], ""
    for line in [*docstring.splitlines(), None]:
        header = HEADER.fullmatch(line or "")
        leaves = title and line and not line.startswith(" ")
        if line is None or header or leaves:
            if title or any(lines):
                found.append((title, "\n".join(lines).strip("\n")))
            lines, title = [], header.group(1) if header else ""
            if header:
                continue
        lines.append((line or "").removeprefix("    ") if title else line)
    return found


def items(text: str) -> list[Item]:
    """
    The entries of a list of parameters, attributes or errors.

    Args:
        text (`str`): A section without its indentation.

    Returns:
        `list[Item]`: In their order.

    Raises:
        ValueError: If a line is neither `names (kind): text` nor indented below such a line.
    """
    found: list[tuple[re.Match, list[str]]] = []
    for line in text.splitlines():
        if line.startswith(" ") or not line:
            if not found:
                raise ValueError(f"the list begins with an indented line: {line!r}")
            found[-1][1].append(line.removeprefix("    "))
            continue
        # A name may be given as code.
        head = HEAD.fullmatch(re.sub(r"^`(\w+)`:", r"\1:", line))
        if head is None:
            raise ValueError(f"this is not of the form `name (kind): text`: {line!r}")
        found.append((head, [head["text"] or ""]))
    return [
        Item(tuple(re.split(r", *", head["names"])), head["kind"] or "", "\n".join(lines).strip("\n"))
        for head, lines in found
    ]


def described(docstring: str) -> set[str]:
    """Names of the parameters that a docstring describes."""
    listed = (item for title, text in sections(docstring) if title == "Args" for item in items(text))
    return {name.lstrip("*") for item in listed for name in item.names}


def definitions(listed: list[Item], are_references: bool = False) -> str:
    """A list of entries as a definition list; names are code, and references where that is asked for."""
    shown = "[`{}`]" if are_references else "`{}`"
    entries = []
    for item in listed:
        names = ", ".join(shown.format(name) for name in item.names)
        text = item.text.replace("\n", "\n    ") or "&nbsp;"
        entries.append(f"{names}{f' ({item.kind})' if item.kind else ''}\n:   {text}")
    return "\n\n".join(entries)


def to_markdown(docstring: str, target: Callable[[str], str | None]) -> str:
    """
    A docstring as Markdown: lists as definition lists, sessions as code, references as links.

    Args:
        docstring (`str`): Without the indentation that all of its lines share.
        target (`Callable[[str], str | None]`):
            Name in a reference -> where it is described in full, or `None` where nothing here describes it.

    Returns:
        `str`: Markdown with references as mkdocs-autorefs takes them.
    """
    parts = []
    for title, text in sections(docstring):
        if title:
            parts.append(f"**{HEADINGS[title]}**")
        if title in LISTS:
            text = definitions(items(text), are_references=title == "Raises")
        elif title == "Example" and text.startswith(">>> "):
            text = f"```pycon\n{text}\n```"
        parts.append(text)
    written = FENCED_SESSION.sub("```pycon\n", "\n\n".join(part for part in parts if part))
    return REFERENCE.sub(lambda found: _link(found, target), written)


def _link(found: re.Match, target: Callable[[str], str | None]) -> str:
    is_short, name = found.groups()
    shown, place = (name.split(".")[-1] if is_short else name), target(name)
    return f"`{shown}`" if place is None else f"[`{shown}`][{place}]"
