"""Configuration files and the command line -> dataclasses."""

import dataclasses
import json
import math
import re
import types
import typing
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser

from hf_ext.arguments import ALIASES, REPLACED, SECTIONS, SWITCHES, VALUE_ALIASES
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.recorded_run import PRECISION, is_run_record, repeated_settings

SUFFIXES = (".json", ".yaml", ".yml")
COMMAND_LINE = "the command line"


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
    fields = _typed_fields(dataclass_types)
    in_files = {**_typed_fields(others), **fields}
    gathering = {kind._argument_group_name: kind for kind in (*others, *dataclass_types) if hasattr(kind, "_gathers")}
    parser = _Parser(dataclass_types, description=description, allow_abbrev=False)
    files, rest = split_files(argv, file_flags)
    values: dict[str, Any] = {}
    flags = _resolve(parser.given(rest), fields, COMMAND_LINE)
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
    fields = _typed_fields(dataclass_types)
    resolved = _resolve({name: value}, fields, source)
    return resolved or dict.fromkeys(_targets(name, fields))


def split_files(argv: list[str], file_flags: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Separate the configuration files that `argv` names from its other arguments."""
    files, rest, arguments = [], [], iter(argv)
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag in file_flags:
            value = value or next(arguments, None)
            if value is None:
                raise ConfigurationError(f"{flag} needs the path of a JSON or YAML file after it.")
            files.append(Path(value))
        elif argument.startswith("--") and argument.endswith(SUFFIXES) and "=" not in argument:
            files.append(Path(argument.removeprefix("--")))
        elif not rest and not argument.startswith("-"):
            if not argument.endswith(SUFFIXES):
                raise ConfigurationError(
                    f"{argument!r} is neither a flag nor a configuration file ending in {', '.join(SUFFIXES)}."
                )
            files.append(Path(argument))
        else:
            rest.append(argument)
    return files, rest


def read_configuration(path: Path) -> dict[str, Any]:
    """
    Read a JSON or YAML file of settings; the file's ending decides.

    Raises:
        ConfigurationError: If it is missing, unreadable, not a mapping, or names a key twice.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{path} is no configuration file: its name must end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ConfigurationError(f"There is no configuration file {path}.")
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
        if path.suffix == ".json":
            content = json.loads(text, object_pairs_hook=_without_repeats)
        else:
            content = yaml.load(text, Loader=_YamlLoader)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: broken at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deeply to be a configuration.") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    except _RepeatedKey as error:
        raise ConfigurationError(f"{path} names the key {error.args[0]!r} twice.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} holds {'nothing' if content is None else f'a {type(content).__name__}'}; "
            "it must hold an object of keys and values."
        )
    return content


def convert(value: Any, hint: Any, where: str = "") -> Any:
    """
    A value as the type that a field is annotated with.

    Args:
        value (`Any`): From a file, or a string from the command line.
        hint (`Any`): The annotation. Of `dict[str, <dataclass>]`, each item becomes a dictionary of the dataclass's
            fields that were given.
        where (`str`, *optional*, defaults to `""`): What messages about such an item begin with.

    Returns:
        `Any`: The value, converted where nothing is lost.

    Raises:
        ValueError: With what was expected.
        ConfigurationError: For an item of such a dictionary, with what is wrong in it.
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
        return [convert(item, options[0] if options else str) for item in _expect(value, list, "a list")]
    if typing.get_origin(hint) is dict or hint is dict:
        if isinstance(value, str):
            try:
                value = json.loads(value, object_pairs_hook=_without_repeats)
            except json.JSONDecodeError as error:
                raise ValueError(f"a JSON object ({error})") from None
            except _RepeatedKey as error:
                raise ValueError(f"an object that names {error.args[0]!r} once") from None
        value = _expect(value, dict, "an object")
        if not options or not dataclasses.is_dataclass(options[-1]):
            return value
        return {name: _given_fields(item, options[-1], f"{where}.{name}") for name, item in value.items()}
    return _SCALARS[hint](value) if hint in _SCALARS else value


# ---- Inside ----


class _RepeatedKey(ValueError):
    pass


def _without_repeats(pairs):
    result = {}
    for key, value in pairs:
        if key in result:
            raise _RepeatedKey(key)
        result[key] = value
    return result


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-4` as a string and lets a later key hide an earlier one; this loader does neither."""

    yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def construct_mapping(self, node, deep=False):
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise _RepeatedKey(key)
        return super().construct_mapping(node, deep=deep)


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


class _HelpFormatter(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """Keeps the lines of a recipe's docstring, whose commands are there to be copied."""


class _Parser(HfArgumentParser):
    """`HfArgumentParser` that reports which flags were given, knows the aliases, and raises instead of exiting."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, formatter_class=_HelpFormatter, **kwargs)
        # Python 3.11 takes -1e-3 for a flag.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        known = {action.dest for action in self._actions}
        aliases = self.add_argument_group("other names")
        for alias, targets in ALIASES.items():
            if "." not in alias and known.issuperset(targets):
                aliases.add_argument(f"--{alias}", nargs="?", const=True, help=f"sets {' and '.join(targets)}")

    def given(self, argv: list[str]) -> dict[str, Any]:
        if not {"-h", "--help"} & set(argv):
            # What is left out stays out, and types are converted as in files, with the same messages.
            for action in self._actions:
                action.default, action.type, action.choices, action.required = SUPPRESS, None, None, False
        namespace, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            if not flag.startswith("--"):
                raise ConfigurationError(f"The command line has a stray {flag!r}: a value has to follow its flag.")
            name = flag.removeprefix("--").replace("-", "_")
            valid = [option.removeprefix("--") for action in self._actions for option in action.option_strings]
            raise ConfigurationError(_unknown(name, valid, f"The command line has the flag {flag}"))
        return vars(namespace)

    def error(self, message):
        raise ConfigurationError(f"The command line: {message}.")


def _typed_fields(dataclass_types: Iterable[type]) -> dict[str, Any]:
    return {
        name: hint
        for dataclass_type in dataclass_types
        for name, hint in typing.get_type_hints(dataclass_type).items()
        if name in dataclass_type.__dataclass_fields__ and dataclass_type.__dataclass_fields__[name].init
    }


def _unknown(name: str, valid: Iterable[str], where: str) -> str:
    if name in REPLACED:
        return f"{where}, which is gone: use {REPLACED[name]}."
    return f"{where}, which does not exist.{nearest(name, valid)} (--help lists all.)"


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
            raise ConfigurationError(_unknown(key, valid, f"{source} has the key {key!r}"))
    resolved: dict[str, Any] = {}
    named: dict[str, str] = {}
    # An alias of several fields comes first: a field's own name is more exact and wins.
    for key in sorted(flat, key=lambda key: -len(targets[key])):
        for target in targets[key]:
            value = flat[key]
            if isinstance(value, str):
                value = VALUE_ALIASES.get(target, {}).get(value, value)
            if flat[key] is None:
                continue
            switch = SWITCHES.get((target, value)) if isinstance(value, str) else None
            if switch in fields:
                resolved[switch] = True
                continue
            resolved |= {other: False for (name, _), other in SWITCHES.items() if name == target and other in fields}
            try:
                value = None if value is None else convert(value, fields[target], f"{source}: {key}")
            except ConfigurationError:
                raise
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{source}: {key} is {flat[key]!r}; it must be {error}.") from None
            if target in named and resolved[target] != value:
                raise ConfigurationError(
                    f"{source} sets {target} twice, to different values: as {named[target]!r} and as {key!r}."
                )
            resolved[target] = value
            if len(targets[key]) == 1:
                named[target] = key
    return resolved


def _given_fields(content: Any, dataclass_type: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where} is {content!r}; it must be an object of settings.")
    return _resolve({str(key): value for key, value in content.items()}, _typed_fields([dataclass_type]), where)


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


def _first_fitting(value: Any, options: list) -> Any:
    messages = []
    for option in options:
        try:
            return convert(value, option)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(messages)))


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
