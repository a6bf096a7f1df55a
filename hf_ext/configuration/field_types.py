"""The types of dataclass fields, and values from files and the command line as these types."""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal

from hf_ext.configuration.files import RepeatedKeyError, without_repeats


def typed_fields(dataclass_types: Iterable[type]) -> dict[str, Any]:
    """The fields that dataclasses are made of -> their annotations."""
    return {
        name: hint
        for dataclass_type in dataclass_types
        for name, hint in typing.get_type_hints(dataclass_type).items()
        if name in dataclass_type.__dataclass_fields__ and dataclass_type.__dataclass_fields__[name].init
    }


def item_dataclass(hint: Any) -> type | None:
    """The dataclass of an annotation `dict[str, <dataclass>]`, or `None`."""
    options = typing.get_args(hint)
    return options[-1] if typing.get_origin(hint) is dict and dataclasses.is_dataclass(options[-1]) else None


def convert(value: Any, hint: Any) -> Any:
    """
    A value as the type that a field is annotated with.

    Args:
        value (`Any`): From a file, or a string from the command line.
        hint (`Any`): The annotation. The items of a dictionary stay as they are.

    Returns:
        `Any`: The value, converted where nothing is lost.

    Raises:
        ValueError: With what was expected.
    """
    options = [option for option in typing.get_args(hint) if option is not types.NoneType]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # An enum says what is valid; the `str` beside it only spares the caller the import.
        enums = [option for option in options if isinstance(option, type) and issubclass(option, Enum)]
        return _first_fitting(value, enums or sorted(options, key=lambda option: option is str))
    if typing.get_origin(hint) is Literal:
        return _choice(value, options)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(value, [member.value for member in hint])
    if typing.get_origin(hint) is list or hint is list:
        return [convert(item, options[0] if options else str) for item in _items(value, options)]
    if typing.get_origin(hint) is dict or hint is dict:
        if isinstance(value, str):
            try:
                value = json.loads(value, object_pairs_hook=without_repeats)
            except json.JSONDecodeError as error:
                raise ValueError(f"a JSON object ({error})") from None
            except RepeatedKeyError as error:
                raise ValueError(f"an object that names {error.args[0]!r} once") from None
        return _expect(value, dict, "an object")
    return _SCALARS[hint](value) if hint in _SCALARS else value


# ---- Inside ----


def _first_fitting(value: Any, options: list) -> Any:
    messages = []
    for option in options:
        try:
            return convert(value, option)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(messages)))


def _items(value: Any, options: list) -> list:
    items = _expect(value, list, "a list")
    if options[:1] not in ([int], [float]):
        return items
    # `--filter_sizes 1,2`: no number holds a comma, while names and paths may.
    return [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]


def _choice(value: Any, choices: list) -> Any:
    if isinstance(value, bool):
        # What YAML makes of an unquoted on, off, yes or no.
        words = ("on", "yes", "true") if value else ("off", "no", "false")
        value = next((word for word in words if word in choices), value)
    for choice in choices:
        if value == choice or str(value) == str(choice):
            return choice
    raise ValueError(f"one of {', '.join(map(str, choices))}")


def _expect(value: Any, kind: type, words: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(words)
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "1", "0"):
        return value.lower() in ("true", "yes", "1")
    return _expect(value, bool, "true or false")


def _integer(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = float(value) if re.search(r"[.eE]", value) else int(value)
        except ValueError:
            value = None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError("a number")
        return float(value)
    except OverflowError:
        raise ValueError("a number of ordinary size") from None


_SCALARS = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: lambda value: _expect(value, str, "a string (put it in quotes)"),
}
