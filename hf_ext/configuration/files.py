"""Configuration files: which ones a command line names, and what they hold."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from hf_ext.errors import ConfigurationError

SUFFIXES = (".json", ".yaml", ".yml")


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
            content = json.loads(text, object_pairs_hook=without_repeats)
        else:
            content = yaml.load(text, Loader=YamlLoader)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: broken at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deeply to be a configuration.") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    except RepeatedKeyError as error:
        raise ConfigurationError(f"{path} names the key {error.args[0]!r} twice.") from None
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} holds {'nothing' if content is None else f'a {type(content).__name__}'}; "
            "it must hold an object of keys and values."
        )
    return content


class RepeatedKeyError(ValueError):
    """An object names a key twice."""


def without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of pairs, for `json.loads(object_pairs_hook=...)`; raises [`RepeatedKeyError`]."""
    result = {}
    for key, value in pairs:
        if key in result:
            raise RepeatedKeyError(key)
        result[key] = value
    return result


class YamlLoader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-4` as a string and lets a later key hide an earlier one; this loader does neither."""

    yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def construct_mapping(self, node, deep=False):
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise RepeatedKeyError(key)
        return super().construct_mapping(node, deep=deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)
