"""What a search varies: fields of the dataclasses, each with choices or a range."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hf_ext.configuration import read_configuration, resolve_setting
from hf_ext.configuration.names import ALIASES
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.settings import TRAINING_SETTINGS

# The guide's name that depends on the model.
DROPOUT_NAMES = ("dropout_rate", "dropout_rates")
RANGE_KEYS = ("low", "high", "step", "log")
# What decides which rows are compared on, where files go and what is done at all: the same for every trial.
SEARCHED_DATA = {"max_seq_length", "pad_to_max_length"}
SEARCHED_RUN = {"mixed_precision", "sparse_embeddings"}
FIXED_TRAINING = {
    "output_dir", "run_name", "do_train", "do_eval", "do_predict", "resume_from_checkpoint", "report_to", "use_cpu",
    "push_to_hub", "disable_tqdm",
}  # fmt: skip
MAX_GRID = 100_000


@dataclass(frozen=True)
class Choices:
    """
    A parameter that takes one of several values.

    Args:
        name (`str`): A field, or another name for one or several.
        settings (`dict`): What a study calls a choice -> the fields that it sets.
    """

    name: str
    settings: dict[Any, dict[str, Any]]

    def values(self) -> list:
        """All of them."""
        return list(self.settings)

    def ends(self) -> list:
        """Those that have to be possible."""
        return self.values()

    def applied(self, value: Any) -> dict[str, Any]:
        """Field names -> values; a field whose value is `None` is left to its default."""
        return self.settings[value]

    def draw(self, trial: Any) -> Any:
        """The value of an `optuna.Trial`."""
        return trial.suggest_categorical(self.name, self.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"choices": self.values()}


@dataclass(frozen=True)
class Range:
    """
    A parameter that takes a number from a range.

    Args:
        name (`str`): A field, or another name for one or several.
        low, high (`int` or `float`): Both included.
        step (`int` or `float`, *optional*): Only `low + k * step`.
        log (`bool`, *optional*, defaults to `False`): Even on a logarithmic scale.
    """

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    def values(self) -> list | None:
        """All of them, if they are finitely many."""
        if self.step is None:
            return None
        kind = type(self.low)
        low, high, step = (Decimal(str(value)) for value in (self.low, self.high, self.step))
        return [kind(low + number * step) for number in range(int((high - low) / step) + 1)]

    def ends(self) -> list:
        """Those that have to be possible."""
        return [self.low, self.high if self.step is None else self.values()[-1]]

    def applied(self, value: Any) -> dict[str, Any]:
        """Field names -> values. Of a range with a step, what was drawn is rid of the noise of its last digits."""
        values = self.values()
        if values is not None:
            value = min(values, key=lambda exact: abs(exact - value))
        return resolve_setting(self.name, value, TRAINING_SETTINGS.values(), "search_space")

    def draw(self, trial: Any) -> Any:
        """The value of an `optuna.Trial`."""
        low, high = self.ends()
        if isinstance(low, int):
            return trial.suggest_int(self.name, low, high, log=self.log, step=self.step or 1)
        return trial.suggest_float(self.name, low, high, log=self.log, step=self.step)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"low": self.low, "high": self.high, "step": self.step, "log": self.log}


@dataclass(frozen=True)
class SearchSpace:
    """All parameters, in the order of the file."""

    parameters: tuple[Choices | Range, ...]

    def settings(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters of a trial -> field names with values; `None` leaves a field to its default."""
        return {
            field: value
            for parameter in self.parameters
            for field, value in parameter.applied(parameters[parameter.name]).items()
        }

    def draw(self, trial: Any) -> dict[str, Any]:
        """The parameters of an `optuna.Trial`: those that were fixed for it, or what its study's sampler draws."""
        return {parameter.name: parameter.draw(trial) for parameter in self.parameters}

    def grid(self) -> list[dict[str, Any]]:
        """
        All combinations.

        Raises:
            ConfigurationError: If there are infinitely many, or more than a hundred thousand.
        """
        values = [parameter.values() for parameter in self.parameters]
        endless = [parameter.name for parameter, own in zip(self.parameters, values, strict=True) if own is None]
        if endless:
            raise ConfigurationError(
                f"search_method=grid: {', '.join(endless)} has a range without a step, so there is no end of values. "
                "Give it a step or choices, or search with --search_method tpe or random."
            )
        size = math.prod(map(len, values))
        if size > MAX_GRID:
            raise ConfigurationError(
                f"search_method=grid: there are {size:,} combinations; a grid may have {MAX_GRID:,}. Take fewer "
                "values, or search with --search_method tpe or random."
            )
        names = [parameter.name for parameter in self.parameters]
        return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]

    def combinations(self, name: str, value: Any, most: int) -> Iterator[dict[str, Any]]:
        """Some combinations with a given value of a parameter: of the others, all choices and the ends of ranges."""
        values = [[value] if own.name == name else own.ends() for own in self.parameters]
        for combination in itertools.islice(itertools.product(*values), most):
            yield {own.name: part for own, part in zip(self.parameters, combination, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {parameter.name: parameter.as_dict() for parameter in self.parameters}


def read_search_space(given: dict | str | None, transformer: bool) -> SearchSpace:
    """
    A search space from its file or section.

    Args:
        given (`dict` or `str`, *optional*): Field names -> a list of choices or a range; or the path of a file of it.
        transformer (`bool`): Whether the guide's `dropout_rates` are a transformer's or the TextCNN's.

    Returns:
        [`SearchSpace`]

    Raises:
        ConfigurationError: With the file, the field, its value and what is valid.
    """
    if given is None:
        raise ConfigurationError(
            "There is nothing to search: pass --search_space FILE, or write a section `search` into a file of "
            'settings, such as {"search": {"learning_rate": [1e-4, 3e-4, 1e-3]}}.'
        )
    where = "search_space"
    if isinstance(given, str):
        where, content = given, read_configuration(Path(given))
        # The file may be one of settings, of which the section is meant.
        given = content["search"] if isinstance(content.get("search"), dict) else content
        given = given["search_space"] if isinstance(given.get("search_space"), dict) else given
    if not given:
        raise ConfigurationError(f"{where} is empty: name at least one field with its choices or its range.")
    parameters, owners = [], {}
    for key, value in given.items():
        name = _singular(str(key), transformer)
        for target in resolve_setting(name, None, TRAINING_SETTINGS.values(), where):
            _refuse_fixed(target, str(key), where)
            if target in owners:
                raise ConfigurationError(f"{where}: {owners[target]} and {key} both set {target}; leave one out.")
            owners[target] = str(key)
        parameters.append(_parameter(name, value, f"{where}: {key}"))
    return SearchSpace(tuple(parameters))


# ---- Inside ----


def _singular(key: str, transformer: bool) -> str:
    if key in DROPOUT_NAMES:
        return "hidden_dropout_prob" if transformer else "dropout_prob"
    known = {name for kind in TRAINING_SETTINGS.values() for name in kind.__dataclass_fields__} | set(ALIASES)
    one = key.removesuffix("s")
    return one if key not in known and one in known else key


def _refuse_fixed(target: str, key: str, where: str) -> None:
    section = next(name for name, kind in TRAINING_SETTINGS.items() if target in kind.__dataclass_fields__)
    if target == "seed":
        raise ConfigurationError(
            f"{where}: {key}: the luckiest seed is no better than the others. Leave it out; --search_seeds 1 2 3 "
            "trains each trial with several, and takes the mean."
        )
    fixed = {
        "data": target not in SEARCHED_DATA,
        "run": target not in SEARCHED_RUN,
        "training": target in FIXED_TRAINING,
        "peft": target == "peft_merge",
    }
    if fixed.get(section, section in ("preflight", "monitors", "tracking")):
        raise ConfigurationError(
            f"{where}: {key} has to be the same for all trials, which could not be compared otherwise. Set it once, "
            "beside the search space."
        )


def _parameter(name: str, value: Any, where: str) -> Choices | Range:
    if isinstance(value, list):
        return _choices(name, value, where)
    if isinstance(value, dict):
        return _range(name, value, where)
    raise ConfigurationError(
        f"{where} is {value!r}; it must be a list of choices, such as [{json.dumps(value)}], or a range: "
        '{"low": 1e-5, "high": 1e-3, "log": true} or {"low": 0.1, "high": 0.5, "step": 0.1}.'
    )


def _choices(name: str, values: list, where: str) -> Choices:
    if not values:
        raise ConfigurationError(f"{where} is an empty list; give at least one choice.")
    settings = [resolve_setting(name, value, TRAINING_SETTINGS.values(), where) for value in values]
    shown = [_shown(name, value, fields) for value, fields in zip(values, settings, strict=True)]
    kinds = {type(value) for value in shown if value is not None}
    if not any(kinds <= plain for plain in ({int, float}, {str}, {bool})):
        # A study knows plain values only, and takes 1 and true for the same.
        shown = [value if isinstance(value, str) else json.dumps(value) for value in shown]
    for position, value in enumerate(shown):
        if value in shown[:position]:
            raise ConfigurationError(f"{where} gives the choice {values[position]!r} twice.")
    return Choices(name, dict(zip(shown, settings, strict=True)))


def _shown(name: str, value: Any, fields: dict[str, Any]) -> Any:
    """A choice as tables show it: converted, unless it is a word that sets another field."""
    own = [fields[target] for target in _fields_of(name) if target in fields]
    return own[0] if own else value


def _fields_of(name: str) -> list[str]:
    return list(resolve_setting(name, None, TRAINING_SETTINGS.values(), "search_space"))


def _range(name: str, given: dict, where: str) -> Range:
    unknown = [key for key in given if key not in RANGE_KEYS]
    if unknown:
        raise ConfigurationError(
            f"{where} has the key {unknown[0]!r}.{nearest(str(unknown[0]), RANGE_KEYS)} A range has low, high and "
            "either log: true or a step."
        )
    missing = [key for key in ("low", "high") if given.get(key) is None]
    if missing:
        raise ConfigurationError(f"{where} is a range without {' and '.join(missing)}.")
    low, high = (_number(name, given[key], f"{where}, {key}") for key in ("low", "high"))
    step, log = given.get("step"), given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigurationError(f"{where}: log is {log!r}; it must be true or false.")
    if low >= high:
        raise ConfigurationError(f"{where}: low is {low} and high is {high}; low must be below high.")
    if log and step is not None:
        raise ConfigurationError(f"{where} has both log and step, which exclude each other; leave one out.")
    if log and low <= 0:
        raise ConfigurationError(f"{where}: low is {low}; with log it must be above 0.")
    if step is not None:
        step = _number(name, step, f"{where}, step")
        if not 0 < step <= high - low:
            raise ConfigurationError(f"{where}: step is {step}; it must be above 0, and at most {high - low:g}.")
    elif isinstance(low, int) and not log:
        step = 1
    return Range(name, low, high, step, log)


def _number(name: str, value: Any, where: str) -> int | float:
    resolved = resolve_setting(name, value, TRAINING_SETTINGS.values(), where)
    number = next((resolved[field] for field in _fields_of(name) if field in resolved), None)
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise ConfigurationError(f"{where} is {value!r}, but {name} is not a number; give a list of choices.")
    return number
