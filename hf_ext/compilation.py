"""Whether torch.compile can work here, before a run begins."""

import torch
from transformers import TrainingArguments

from hf_ext.errors import ConfigurationError


def check_compilation(training_args: TrainingArguments) -> None:
    """
    See that `torch_compile` can be done on this machine.

    Args:
        training_args ([`~transformers.TrainingArguments`]): `torch_compile`, `torch_compile_backend`, `use_cpu`.

    Raises:
        ConfigurationError: If there is no such backend, or inductor (the default) is to make code for a CPU without a
            C++ compiler.
    """
    if not training_args.torch_compile:
        return
    backend, valid = training_args.torch_compile_backend, torch._dynamo.list_backends(())
    if backend not in valid:
        raise ConfigurationError(f"torch_compile_backend is {backend!r}; it must be one of {', '.join(valid)}.")
    if backend != "inductor" or not training_args.use_cpu:
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ConfigurationError(
            "torch_compile on a CPU needs a C++ compiler, and none was found. Install g++ (or name one by the "
            "environment variable CXX), or leave torch_compile out."
        ) from error
