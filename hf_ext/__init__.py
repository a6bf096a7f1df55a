"""hf_ext: the fine-tuning techniques that the Hugging Face Trainer lacks, as parts that compose."""

from hf_ext.version import __version__

__all__ = ["__version__"]
