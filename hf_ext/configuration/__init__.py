"""Configuration files and the command line -> dataclasses."""

from hf_ext.configuration.files import read_configuration, split_files
from hf_ext.configuration.merging import build_arguments, given_values, parse_arguments, resolve_setting

__all__ = [
    "build_arguments",
    "given_values",
    "parse_arguments",
    "read_configuration",
    "resolve_setting",
    "split_files",
]
