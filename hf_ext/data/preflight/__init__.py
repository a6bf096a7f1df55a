"""A look at the data before a model is trained on it."""

from hf_ext.data.preflight.inspection import PreflightArguments, preflight
from hf_ext.data.preflight.report import PreflightReport

__all__ = ["PreflightArguments", "PreflightReport", "preflight"]
