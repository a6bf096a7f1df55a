"""Look at the built site: everything is there, nothing is left as it was written, no other host is asked.

    make docs

Reads every page under site/ and says what is wrong. Not a test of pytest's: the site has to be built first.
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[3]
# What a browser fetches by itself; `a` is followed by a reader.
FETCHING = {"src", "srcset", "poster", "data", "href"}
FOREIGN = re.compile(r"^(https?:)?//")
FOREIGN_IN_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")
# Of the docstrings' grammar and of Markdown; in text that is not code.
LEFT_OVER = re.compile(
    r"\*optional\*|\[`|^(Args|Returns|Raises|Attributes|Yields|Example):$|\\[(\[]|\$\S+\$|```|^ *- ", re.M
)


class Page(HTMLParser):
    """What a page fetches, the ids that it has, and its text without code."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched, self.ids, self.text, self._code = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._code += tag in ("code", "pre", "script", "style")
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag != "a":
            self.fetched += [value for name, value in attributes.items() if name in FETCHING and value]

    def handle_endtag(self, tag):
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data):
        if not self._code:
            self.text.append(data)


def faults(site: Path) -> list[str]:
    """What is wrong, a line each."""
    found, ids = [], []
    for path in sorted(site.rglob("*.html")):
        page = Page(path.read_text(encoding="utf-8"))
        found += [f"{path}: asks {url}" for url in page.fetched if FOREIGN.match(url)]
        found += [
            f"{path}: {left.group()!r} is left in {text.strip()[:60]!r}"
            for text in page.text
            for left in LEFT_OVER.finditer(text)
        ]
        ids += page.ids
    for path in sorted(site.rglob("*.css")):
        found += [f"{path}: asks another host" for _ in FOREIGN_IN_CSS.finditer(path.read_text(encoding="utf-8"))]
    objects = described()
    found += [f"{path} is on {ids.count(path)} places" for path in objects if ids.count(path) != 1]
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {document["location"].partition("#")[2] for document in index["docs"]}
    found += [f"{path} is not found by the search" for path in objects if path not in places]
    return found


def described() -> list[str]:
    """Paths of what the reference shows: its directives name a module and some of what that defines."""
    found, module = [], ""
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("::: "):
                module = line.removeprefix("::: ")
            elif line.startswith("        - "):
                found.append(f"{module}.{line.removeprefix('        - ')}")
    return found


if __name__ == "__main__":
    site = Path(sys.argv[1])
    said = faults(site)
    print("\n".join(said) or f"{site}: {len(described())} public names, nothing left over, no other host is asked")
    raise SystemExit(bool(said))
