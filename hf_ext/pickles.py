"""Files of tensors that could run code."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hf_ext.errors import ConfigurationError


@contextmanager
def refused_pickles(place: str) -> Iterator[None]:
    """
    Say plainly what `torch.load(weights_only=True)` refuses inside a `with` block: a pickle that is more than tensors
    and plain values. Nothing of it was run.

    Args:
        place (`str`): What is loaded, with its path.

    Raises:
        ConfigurationError: In place of `pickle.UnpicklingError`, whose text advises to run the code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" (it names {wanted[1]})" if wanted else ""
        raise ConfigurationError(
            f"{place} holds a pickle that is more than numbers{named}: it could run code, and is not loaded. Take the "
            "files from where they were made, as safetensors, or start anew."
        ) from error
