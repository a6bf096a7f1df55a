"""Processes that the tests start, forked from one that has imported everything already."""

import multiprocessing
import runpy
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path

import torch

TIMEOUT_S = 600


def process_context(*modules: str) -> BaseContext:
    """Where processes come from: a server that has imported `forked` and these modules."""
    # On a GPU machine it would hold the GPU, which cannot be forked.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    context.set_forkserver_preload(["forked", *modules])
    return context


@contextmanager
def own_port() -> Iterator[int]:
    """A port that nobody else is given: it is held, but open to what sets SO_REUSEADDR, as torch's store does."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def begin_script(path: Path, **given) -> multiprocessing.Process:
    """A script with some globals, in a process that has begun."""
    process = process_context().Process(target=_run, args=(str(path), given))
    process.start()
    return process


def _run(path: str, given: dict) -> None:
    as_in_a_program()
    runpy.run_path(path, given, "interrupted")


def as_in_a_program() -> None:
    """Processes that this one starts are forked from it, as from one that no server has made."""
    multiprocessing.set_start_method("fork", force=True)


def exit_code_of(process: multiprocessing.Process) -> int:
    """How a process ended, which has to be soon."""
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"{process.name} did not end within {TIMEOUT_S} s")
    return process.exitcode
