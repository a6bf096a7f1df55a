"""Configuration files and the command line -> dataclasses."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hf_ext.configuration.command_line import FlagParser, unknown_name
from hf_ext.configuration.field_types import convert, item_dataclass, typed_fields
from hf_ext.configuration.files import read_configuration, split_files
from hf_ext.configuration.names import ALIASES, SECTIONS, SWITCHES, VALUE_ALIASES
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.repeated_run import PRECISION, is_run_record, repeated_settings


def parse_arguments(
    dataclass_types: Iterable[type],
    argv: list[str],
    description: str,
    file_flags: tuple[str, ...] = ("--args",),
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    others: Iterable[type] = (),
) -> tuple:
    """
    Merge configuration files and the command line into dataclasses.

    Files are named before the first flag, as `--NAME.json` (or `.yaml`, `.yml`) anywhere, or after one of
    `file_flags`; they are merged from left to right, then the command line wins. A file holds fields, flat or in
    sections (`model`, `training`, `data`, `augmentation` inside `data`, `wandb` ...); a section only groups. A null
    leaves the field to its default. Numbers in strings are converted as on the command line. The `run.json` that a
    training left is a file too, whose settings repeat it ([`repeated_settings`]).

    Args:
        dataclass_types (`Iterable[type]`): Dataclasses, whose field names are all different.
        argv (`list[str]`): The arguments without the program's name.
        description (`str`): What `--help` opens with.
        file_flags (`tuple[str, ...]`, *optional*, defaults to `("--args",)`): Flags that name a configuration file.
        complete (`Callable`, *optional*): From the values that were given to all that follow from them.
        others (`Iterable[type]`, *optional*): Dataclasses of other recipes. Files may hold their fields too, so that
            one file serves several recipes; they are checked like the rest, and left to those recipes.

    Returns:
        `tuple`: An instance of each dataclass.

    Raises:
        ConfigurationError: Unknown key or flag (with the nearest valid name), wrong type or choice (with file, key,
            value and what is valid), unreadable file.
    """
    values = given_values(dataclass_types, argv, description, file_flags, others)
    return build_arguments(dataclass_types, values, complete)


def given_values(
    dataclass_types: Iterable[type],
    argv: list[str],
    description: str,
    file_flags: tuple[str, ...] = ("--args",),
    others: Iterable[type] = (),
) -> dict[str, Any]:
    """
    What files and the command line say, checked and converted: the first half of [`parse_arguments`].

    Args:
        dataclass_types, argv, description, file_flags, others:
            As [`parse_arguments`].

    Returns:
        `dict[str, Any]`: Field names -> values, of those that were given.

    Raises:
        ConfigurationError: As [`parse_arguments`].
    """
    fields = typed_fields(dataclass_types)
    in_files = {**typed_fields(others), **fields}
    gathering = {kind._argument_group_name: kind for kind in (*others, *dataclass_types) if hasattr(kind, "_gathers")}
    parser = FlagParser(dataclass_types, description=description, allow_abbrev=False)
    files, rest = split_files(argv, file_flags)
    values: dict[str, Any] = {}
    flags = _resolve(parser.given(rest), fields, "the command line")
    for path in files:
        content = read_configuration(path)
        repeats = is_run_record(content)
        content = _gather(repeated_settings(content, path) if repeats else content, gathering, path)
        found = _resolve(_flatten(content, in_files, path), in_files, str(path))
        _refuse_lost_switches(found, fields, path)
        values.update({name: value for name, value in found.items() if name in fields})
        if repeats and set(PRECISION) & set(flags):
            # They would be given twice.
            values = {name: value for name, value in values.items() if name not in PRECISION}
    return {**values, **flags}


def build_arguments(
    dataclass_types: Iterable[type],
    values: dict[str, Any],
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> tuple:
    """
    Dataclasses of values: the second half of [`parse_arguments`].

    Args:
        dataclass_types (`Iterable[type]`): Dataclasses, whose field names are all different.
        values (`dict[str, Any]`): From [`given_values`].
        complete (`Callable`, *optional*): From the values that were given to all that follow from them.

    Returns:
        `tuple`: An instance of each dataclass.

    Raises:
        ConfigurationError: If a dataclass refuses its values.
    """
    if complete is not None:
        values = complete(values)
    return tuple(_instantiate(dataclass_type, values) for dataclass_type in dataclass_types)


def resolve_setting(name: str, value: Any, dataclass_types: Iterable[type], source: str) -> dict[str, Any]:
    """
    What a setting in a file means: the fields that it sets, and the values that they get.

    Args:
        name (`str`): Of a field, or another name for one or several.
        value (`Any`): As in a file; `None` leaves the fields to their defaults.
        dataclass_types (`Iterable[type]`): Dataclasses that the field may belong to.
        source (`str`): What messages begin with.

    Returns:
        `dict[str, Any]`: Field names -> converted values; `None` for a value of `None`.

    Raises:
        ConfigurationError: Unknown name (with the nearest valid one), wrong type or choice.
    """
    fields = typed_fields(dataclass_types)
    resolved = _resolve({name: value}, fields, source)
    return resolved or dict.fromkeys(_targets(name, fields))


# ---- Inside ----


def _flatten(content: dict, fields: dict[str, Any], path: Path, section: str = "") -> dict[str, Any]:
    """Keys of a file without their sections; names that mean something else in a section keep its name in front."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        qualified = f"{section}.{key}"
        # `unfreezing` is a section and a field of it.
        if isinstance(value, dict) and (key in SECTIONS or key not in fields):
            if key not in SECTIONS:
                raise ConfigurationError(
                    f"{path} has the section {key!r}, which does not exist.{nearest(key, SECTIONS)}"
                )
            inner = _flatten(value, fields, path, key)
        elif key in SECTIONS and key not in fields and value is None:
            inner = {}
        else:
            inner = {qualified if qualified in ALIASES else str(key): value}
        for name, item in inner.items():
            if name in flat and flat[name] != item:
                raise ConfigurationError(f"{path} gives {name} twice: {flat[name]!r} and {item!r}.")
            flat[name] = item
    return flat


def _gather(content: dict, gathering: dict[str, type], path: Path) -> dict:
    """In the section of a dataclass that gathers, what is none of its fields goes into the one that gathers."""
    for section, kind in gathering.items():
        given = content.get(section)
        if not isinstance(given, dict):
            continue
        own = {name: value for name, value in given.items() if name in kind.__dataclass_fields__}
        gathered = {name: value for name, value in given.items() if name not in own}
        if gathered and own.get(kind._gathers) is not None:
            raise ConfigurationError(
                f"{path}: the section {section!r} has {kind._gathers} and, beside it, {', '.join(map(str, gathered))}: "
                f"write all of it in {kind._gathers}."
            )
        content = {**content, section: {**own, kind._gathers: gathered} if gathered else own}
    return content


def _targets(name: str, fields: dict[str, Any]) -> list[str]:
    return [name] if name in fields else [target for target in ALIASES.get(name, ()) if target in fields]


def _resolve(flat: dict[str, Any], fields: dict[str, Any], source: str) -> dict[str, Any]:
    """Translate aliases, then check and convert every value."""
    targets: dict[str, list[str]] = {}
    for key in flat:
        targets[key] = _targets(key, fields)
        if not targets[key]:
            valid = [*fields, *(alias for alias in ALIASES if "." not in alias)]
            raise ConfigurationError(unknown_name(key, valid, f"{source} has the key {key!r}"))
    resolved: dict[str, Any] = {}
    named: dict[str, str] = {}
    # An alias of several fields comes first: a field's own name is more exact and wins.
    for key in sorted(flat, key=lambda key: -len(targets[key])):
        for target in targets[key]:
            value = flat[key]
            if value is None:
                continue
            if isinstance(value, str):
                value = VALUE_ALIASES.get(target, {}).get(value, value)
            switch = SWITCHES.get((target, value)) if isinstance(value, str) else None
            if switch in fields:
                resolved[switch] = True
                continue
            resolved |= {other: False for (name, _), other in SWITCHES.items() if name == target and other in fields}
            value = None if value is None else _as_field(value, fields[target], f"{source}: {key}")
            if target in named and resolved[target] != value:
                raise ConfigurationError(
                    f"{source} sets {target} twice, to different values: as {named[target]!r} and as {key!r}."
                )
            resolved[target] = value
            if len(targets[key]) == 1:
                named[target] = key
    return resolved


def _as_field(value: Any, hint: Any, where: str) -> Any:
    """A value as its field's type; of a dictionary of dataclasses, each item as the fields that it gives."""
    try:
        converted = convert(value, hint)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where} is {value!r}; it must be {error}.") from None
    kind = item_dataclass(hint)
    if kind is None:
        return converted
    return {name: _given_fields(item, kind, f"{where}.{name}") for name, item in converted.items()}


def _given_fields(content: Any, dataclass_type: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} is {content!r}; it must be an object of settings.")
    return _resolve({str(key): value for key, value in content.items()}, typed_fields([dataclass_type]), where)


def _refuse_lost_switches(found: dict[str, Any], fields: dict[str, Any], path: Path) -> None:
    """A value that only another recipe understands would leave this one's field to its default."""
    for (name, value), switch in SWITCHES.items():
        if found.get(switch) and name in fields and switch not in fields:
            raise ConfigurationError(
                f"{path}: {name} is {value!r}; this recipe takes a number only, which run_lr_finder.py can find."
            )


def _instantiate(dataclass_type: type, values: dict[str, Any]):
    names = [field.name for field in dataclasses.fields(dataclass_type) if field.init]
    try:
        return dataclass_type(**{name: values[name] for name in names if name in values})
    except ConfigurationError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, RuntimeError) as error:
        raise ConfigurationError(str(error)) from error
