"""Processes that the tests start, forked from one that has imported everything already."""

import multiprocessing
import runpy
from multiprocessing.context import BaseContext
from pathlib import Path

import torch

TIMEOUT_S = 120


def process_context(*modules: str) -> BaseContext:
    """Where processes come from: a server that has imported `forked` and these modules."""
    # On a GPU machine it would hold the GPU, which cannot be forked.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    context.set_forkserver_preload(["forked", *modules])
    return context


def begin_script(path: Path, **given) -> multiprocessing.Process:
    """A script with some globals, in a process that has begun."""
    process = process_context().Process(target=runpy.run_path, args=(str(path), given, "interrupted"))
    process.start()
    return process


def exit_code_of(process: multiprocessing.Process) -> int:
    """How a process ended, which has to be soon."""
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"{process.name} did not end within {TIMEOUT_S} s")
    return process.exitcode
