"""Hooks of mkdocs: pages that lie outside of docs/, links that hold in the repository and on the site, formulas."""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

# In the repository -> on the site.
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()([\w./-]+)(?=[)#])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    root = Path(config.config_file_path).parent
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown, page, **kwargs):
    return LINK.sub(lambda link: site_link(page.file.src_uri, link.group()), markdown)


def on_page_content(html, **kwargs):
    return FORMULA.sub(lambda found: mathml(found.group(2)), html)


def site_link(page: str, link: str) -> str:
    """
    A link between files of the repository, as it has to be on the site.

    Args:
        page (`str`): The page that it is on, as the site names it.
        link (`str`): Relative to the file that the page is made from.

    Returns:
        `str`: Relative to the page; as it was if it leads to nothing that the site has.
    """
    source = {uri: name for name, uri in ROOT_PAGES.items()}.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if target not in ROOT_PAGES and not target.startswith("docs/"):
        return link
    return posixpath.relpath(ROOT_PAGES.get(target, target.removeprefix("docs/")), posixpath.dirname(page) or ".")


def mathml(formula: str) -> str:
    """A formula as browsers show it without a script; it is LaTeX, with what HTML needs escaped."""
    return convert(html.unescape(formula))
