"""Pages that look alike: one HTML file each, that needs neither a network nor JavaScript."""

import functools
import json
import os
from pathlib import Path
from typing import Any

from hf_ext.evaluation.tables import format_number, format_p
from hf_ext.files import open_atomically

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: str | os.PathLike, template: Path, **content: Any) -> Path:
    """
    Fill in a template; equal content gives equal bytes.

    Args:
        path (`str` or `os.PathLike`): The file to write; it appears only once it is complete.
        template (`Path`): A Jinja file that extends `page.html.j2` of this package. Text is escaped unless it says
            `| safe`, as it does of figures.
        content (`Any`): What the template names.

    Returns:
        `Path`: The file.
    """
    page = _environment(template.parent).get_template(template.name).render(content)
    with open_atomically(path) as file:
        file.write(page)
    return Path(path)


# ---- Inside ----


@functools.cache
def _environment(folder: Path) -> Any:
    """Of the templates in a folder and of those here. Kept: to compile them takes longer than to fill them in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "p": format_p, "thousands": "{:,}".format, "label": _label}
    return environment


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
