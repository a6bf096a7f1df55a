"""All measurements at toy size, two at a time: whether each runs and leaves what it has to.

    make benchmarks-smoke
    python benchmarks/smoke.py [--only NAME ...]

What they read and the encoder are random toys (toy_inputs.py), so the numbers mean nothing. Everything is written to
outputs/benchmarks_smoke, which is emptied first. The commands are those of the full size with smaller numbers and fewer
cases; to save the imports, their processes, and those of most recipes, are forked from this one. Peers that are
installed beside the project are left out.
"""

import argparse
import multiprocessing
import os
import resource
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import recipe_runs
from measurement import Measurement
from needs import COMPILER, NEEDS, is_there
from plan import PLAN, chosen
from pretrained import GLOVE, MINILM
from running import Poll, Runner
from toy_inputs import places, write_inputs
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "outputs" / "benchmarks_smoke"
# The arguments for the toy size do without.
NOT_NEEDED = {MINILM, GLOVE, COMPILER}
JOBS = 2
SHOWN_LINES = 25
# A measurement on toys ends well before.
TIMEOUT_S = 900
FORK = multiprocessing.get_context("fork")


def in_a_fork(measurement: Measurement, words: list[str], printed: Path, log: Path) -> Poll:
    """Begin a measurement in a process that has everything imported."""
    process = FORK.Process(target=call, args=(ROOT / "benchmarks" / measurement.script, words, printed, log))
    process.start()
    end = time.monotonic() + TIMEOUT_S

    def poll() -> int | None:
        if process.exitcode is None and time.monotonic() > end:
            process.kill()
        return process.exitcode

    return poll


def call(script: Path, words: list[str], printed: Path, log: Path) -> None:
    """What the interpreter does with the command line of a measurement."""
    os.chdir(FOLDER)
    # Its thread may hold the lock of the bars while a recipe is forked.
    tqdm.monitor_interval = 0
    recipe_runs.carry_out = recipe_in_a_fork
    try:
        as_a_command(script, words, printed, log)
    finally:
        print(f"{cpu_seconds():.1f} CPU seconds", file=sys.stderr)


def recipe_in_a_fork(recipe: Path, words: Sequence[str], log: Path) -> int:
    process = FORK.Process(target=as_a_command, args=(recipe, words, log, log))
    process.start()
    process.join(TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        raise SystemExit(f"{recipe.name} did not end within {TIMEOUT_S} s; see {log}")
    return process.exitcode


def as_a_command(script: Path, words: Sequence[str], printed: Path, log: Path) -> None:
    for path in (printed, log):
        path.write_bytes(b"")
    for number, path in ((1, printed), (2, log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = [str(script), *words]
    runpy.run_path(str(script), run_name="__main__")


def cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def write_toys(folder: Path) -> None:
    """In a process of its own: torch has to be unused in the one that others are forked from."""
    process = FORK.Process(target=write_inputs, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("The toys could not be written.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of plan.py; what they build on comes along")
    plan, began = [each for each in chosen(parser.parse_args().only) if each.toy is not None], time.perf_counter()
    # First what others wait for, then the later sections, whose toys take longest: in the end no core is without work.
    awaited = {name for each in plan for name in each.after}
    section = {each.name: number for number, measurements in enumerate(PLAN.values()) for each in measurements}
    plan.sort(key=lambda each: (each.name not in awaited, -section[each.name]))
    needed = sorted({need for each in plan for need in each.needs} - NOT_NEEDED)
    if lacks := [f"{need}: {NEEDS[need]}" for need in needed if not is_there(need)]:
        raise SystemExit("\n  ".join(["Nothing was begun; missing:", *lacks]))
    # One core for each.
    os.environ.update(
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        HF_DATASETS_CACHE=str(FOLDER / "datasets"),
    )
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    import hf_ext  # noqa: F401  for the processes that are forked from here

    write_toys(FOLDER / "inputs")
    where = places(FOLDER / "inputs")
    runner = Runner(plan, FOLDER / "measurements", FOLDER, where, in_a_fork, is_toy=True, jobs=JOBS)
    failures = runner.run()
    print(f"{len(plan)} measurements, {time.perf_counter() - began:.0f} s, {cpu_seconds():.0f} s of CPU")
    for name in failures:
        log = FOLDER / "measurements" / f"{name}.log"
        said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        print("\n".join(["", f"{name}:", *said[-SHOWN_LINES:]]))
    if failures:
        raise SystemExit("\n".join(["Failed:", *(f"  {name}: {why}" for name, why in failures.items())]))


if __name__ == "__main__":
    main()
