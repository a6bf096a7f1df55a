"""Recipes as programs, in processes that are forked from one that has imported everything already."""

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from starting import TIMEOUT_S, as_in_a_program, own_port, process_context


def run_program(path: Path, flags: Sequence, cwd: Path | None = None, environment: Mapping[str, str] | None = None):
    """What `python PATH FLAGS` says and ends with, as `subprocess.run` tells it."""
    (done,) = _run(path, flags, cwd, [os.environ if environment is None else environment])
    return done


def run_launched(path: Path, flags: Sequence, cwd: Path | None = None, environment: Mapping[str, str] | None = None):
    """The same of two processes that know of each other by what `accelerate launch` tells them."""
    launched = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1"}
    with own_port() as port:
        base = {**(os.environ if environment is None else environment), **launched, "MASTER_PORT": str(port)}
        return _run(path, flags, cwd, [{**base, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"])


def _run(path: Path, flags: Sequence, cwd: Path | None, environments: list[Mapping[str, str]]):
    context = process_context("runs")
    words = [str(word) for word in (path, *flags)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [[f"{folder}/{rank}.{name}" for name in ("stdout", "stderr")] for rank in range(len(environments))]
        processes = [
            context.Process(target=_main, args=(words, str(cwd or os.getcwd()), dict(environment), output))
            for environment, output in zip(environments, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(TIMEOUT_S)
            assert process.exitcode is not None, f"{words} did not end within {TIMEOUT_S} s"
        return [
            subprocess.CompletedProcess(words, process.exitcode, *(Path(name).read_text() for name in output))
            for process, output in zip(processes, outputs, strict=True)
        ]


def _main(words: list[str], cwd: str, environment: dict[str, str], output: list[str]) -> None:
    for number, name in enumerate(output, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    as_in_a_program()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    # The program's own, which a forked process leaves out; not those of the process that it was forked from.
    atexit._clear()
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
