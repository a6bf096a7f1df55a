"""The API reference names every public object once, and reads docstrings as they are written here."""

import ast
import importlib.util
import re
import sys

import pytest
import yaml

import hf_ext

from .conftest import DOCS, ROOT

DIRECTIVE = re.compile(r"^::: (\S+)\n((?: {4}.*\n)+)", re.MULTILINE)


def load_grammar():
    spec = importlib.util.spec_from_file_location("grammar", DOCS / "building" / "grammar.py")
    # Dataclasses look their module up there.
    module = sys.modules["grammar"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grammar = load_grammar()


def named():
    """(module, name) of every object that a page of the reference names."""
    for page in sorted((DOCS / "api").glob("*.md")):
        for module, options in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            for name in yaml.safe_load(options)["options"]["members"]:
                yield module, name


def defined(module: str) -> set[str]:
    """What a module defines, without what it imports."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_every_public_name_is_there_once():
    names = [name for _, name in named()]
    assert sorted(names) == sorted(hf_ext.__all__)
    assert len(names) == len(set(names)) >= 303


def test_each_is_shown_where_it_is_defined():
    for module, name in named():
        assert name in defined(module), f"{module}.{name}"
        assert getattr(sys.modules[module], name) is getattr(hf_ext, name)


# ---- Docstrings ----

DOCSTRING = """
What it does, given [`Trainer`] and [`~transformers.Trainer`].

Args:
    probabilities (`np.ndarray` of shape `(rows, classes)`): Of each class.
    low, high (`float`, *optional*, defaults to `{"a": 1}`):
        Two of a kind:

        - one;
    kwargs: As [`decide`].

A sentence between.

Returns:
    `int`: One or
    more.

Raises:
    ValueError, DataError: If it fails.

Example:

```python
>>> 1 + 1
2
```
""".strip()
MARKDOWN = """
What it does, given `Trainer` and `Trainer`.

**Parameters**

`probabilities` (`np.ndarray` of shape `(rows, classes)`)
:   Of each class.

`low`, `high` (`float`, *optional*, defaults to `{"a": 1}`)
:   Two of a kind:

    - one;

`kwargs`
:   As [`decide`][hf_ext.somewhere.decide].

A sentence between.

**Returns**

`int`: One or
more.

**Raises**

`ValueError`, [`DataError`][hf_ext.somewhere.DataError]
:   If it fails.

**Example**

```pycon
>>> 1 + 1
2
```
""".strip()


def test_a_docstring_becomes_markdown():
    public = {name: f"hf_ext.somewhere.{name}" for name in ("decide", "DataError")}
    written = grammar.to_markdown(DOCSTRING, public.get)
    assert [line.rstrip() for line in written.splitlines()] == [line.rstrip() for line in MARKDOWN.splitlines()]
    assert grammar.described(DOCSTRING) == {"probabilities", "low", "high", "kwargs"}


def test_a_session_without_a_fence_becomes_code():
    assert grammar.to_markdown("A.\n\nExample:\n\n    >>> f()\n    1", {}.get).endswith("```pycon\n>>> f()\n1\n```")


def test_a_line_that_is_no_entry_is_named():
    with pytest.raises(ValueError, match="As another function"):
        grammar.to_markdown("A.\n\nArgs:\n    As another function.", {}.get)
