"""What the API reference shows of a docstring: a griffe extension. What is wrong with one is a warning, so an error."""

import dataclasses
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from grammar import HEADER, described, to_markdown

# Warnings below `mkdocs` end a strict build.
logger = logging.getLogger("mkdocs.hf_ext.reference")

STARRED = (griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword)


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites the package's docstrings as Markdown, after a look at the parameters that the public ones describe."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        public = {name: pkg.members[name].final_target for name in pkg.exports}
        for obj in public.values():
            add_fields(obj)
            for shown in (obj, *shown_members(obj)):
                for fault in faults(shown):
                    logger.warning("%s %s", shown.path, fault)
        for obj in own_objects(pkg):
            try:
                if obj.docstring is not None:
                    obj.docstring.value = to_markdown(obj.docstring.value, finder(public))
            except ValueError as error:
                logger.warning("The docstring of %s cannot be read: %s", obj.path, error)


def own_objects(obj: griffe.Object) -> Iterator[griffe.Object]:
    """All that is defined inside of an object."""
    for member in obj.members.values():
        if not member.is_alias:
            yield member
            yield from own_objects(member)


def shown_members(obj: griffe.Object) -> Iterator[griffe.Function]:
    """A class's documented public methods."""
    for member in obj.members.values() if obj.is_class else ():
        if not member.is_alias and member.is_function and member.docstring and not member.name.startswith("_"):
            yield member


def finder(public: dict[str, griffe.Object]) -> Callable[[str], str | None]:
    """Name in a reference -> path of the public object that it means, if the reference shows it."""

    def find(name: str) -> str | None:
        first, *rest = name.split(".")
        found = public.get(first)
        for part in rest:
            found = found and found.members.get(part)
        return found.path if found and (found.docstring or not rest) else None

    return find


# ---- Fields ----


def add_fields(obj: griffe.Object) -> None:
    """Describe the fields of a dataclass by the help that its command line shows, where the docstring does not."""
    if not (obj.is_class and "dataclass" in obj.labels) or obj.docstring is None or described(obj.docstring.value):
        return
    kinds = (obj, *obj.mro())
    annotations = {name: str(member.annotation) for kind in reversed(kinds) for name, member in fields(kind).items()}
    # Help and defaults may be made of constants.
    made = dataclasses.fields(getattr(importlib.import_module(obj.module.path), obj.name))
    lines = [
        f"    {field.name} (`{annotations[field.name]}`{default_of(field)}): {field.metadata['help']}"
        for field in made
        if field.name in annotations and "help" in field.metadata
    ]
    text = obj.docstring.value.splitlines()
    end = next((place for place, line in enumerate(text) if HEADER.fullmatch(line)), len(text))
    obj.docstring.value = "\n".join([*text[:end], "", "Args:", *lines, "", *text[end:]]).strip("\n")


def default_of(field: dataclasses.Field) -> str:
    """As Hugging Face's grammar has it."""
    has_factory = field.default_factory is not dataclasses.MISSING
    default = field.default_factory() if has_factory else field.default
    if default is dataclasses.MISSING:
        return ""
    shown = f'"{default}"' if isinstance(default, str) else repr(default)
    return ", *optional*" if default is None else f", *optional*, defaults to `{shown}`"


# ---- Faults ----


def faults(obj: griffe.Object) -> list[str]:
    """What is wrong with the description of a public object."""
    if obj.is_attribute:
        return []
    if obj.docstring is None:
        return ["has no docstring."]
    own, all_of_them = parameters(obj)
    try:
        named = described(obj.docstring.value)
    except ValueError:
        return []
    unknown, missing = sorted(named - all_of_them), sorted(own - named)
    said = [f"describes {', '.join(unknown)}, which it does not take."] if unknown else []
    # A function of one line, or of what its name says, may leave all of them out.
    return said + ([f"does not describe {', '.join(missing)}."] if named and missing else [])


def parameters(obj: griffe.Object) -> tuple[set[str], set[str]]:
    """Names of what an object itself asks for, and of all that it takes."""
    calls = [obj] if obj.is_function else [kind.members.get("__init__") for kind in (obj, *obj.mro())]
    taken = [list(call.parameters) for call in calls if call is not None and not call.is_alias]
    own = {parameter.name for parameter in taken[0] if parameter.kind not in STARRED} if taken else set()
    names = {parameter.name.lstrip("*") for call in taken for parameter in call}
    return own - {"self", "cls"}, names | (set(fields(obj)) if obj.is_class and not taken else set())


def fields(kind: griffe.Class) -> dict[str, griffe.Attribute]:
    """Attributes of a class by name: of dataclasses, and of configurations, what they are made with."""
    return {name: member for name, member in kind.members.items() if member.is_attribute}
