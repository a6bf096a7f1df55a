"""The flags of a recipe: its `--help`, and which of them were given."""

import re
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Iterable
from typing import Any

from transformers import HfArgumentParser

from hf_ext.configuration.names import ALIASES, REPLACED
from hf_ext.errors import ConfigurationError, nearest


class _HelpFormatter(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """Keeps the lines of a recipe's docstring, whose commands are there to be copied."""


class FlagParser(HfArgumentParser):
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
        """The flags of a command line -> their values, as strings."""
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
            raise ConfigurationError(unknown_name(name, valid, f"The command line has the flag {flag}"))
        return vars(namespace)

    def error(self, message):
        raise ConfigurationError(f"The command line: {message}.")


def unknown_name(name: str, valid: Iterable[str], where: str) -> str:
    """What to say of a name that no field has; `where` is what the message begins with."""
    if name in REPLACED:
        return f"{where}, which does not exist here: use {REPLACED[name]}."
    return f"{where}, which does not exist.{nearest(name, valid)} (--help lists all.)"
