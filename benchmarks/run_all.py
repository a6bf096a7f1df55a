"""All measurements at full size, one after another, and their tables in one file.

    make benchmarks DATA_DIR=DIR WORDNET_DIR=DIR [ONLY="NAME ..."]
    python benchmarks/run_all.py --data_dir DIR --wordnet_dir DIR [--only NAME ...]

--data_dir holds the sets that needs.py lists, --wordnet_dir is as for benchmarks/data.py. All together take days on two
cores. What has been run with the same command is not run again, so a stopped call goes on; one that fails does not
stop the others. What is missing is said before anything begins; with --only, what these measurements lack. Each
leaves what it printed and its log in --output_dir (outputs/benchmarks); there results.md gets all tables, in the order
of docs/results.md, with commands, dates, versions and machine.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from measurement import Measurement
from needs import as_text, missing
from plan import PLAN, chosen
from running import Poll, Runner, read_printed, read_record

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hf_ext", "torch", "transformers", "datasets", "accelerate", "scikit-learn", "numpy")


def in_a_process(measurement: Measurement, words: list[str], printed: Path, log: Path) -> Poll:
    """Begin a measurement as a user does."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(measurement.threads)} if measurement.threads else None
    command = [sys.executable, ROOT / "benchmarks" / measurement.script, *words]
    with printed.open("w") as out, log.open("w") as err:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err).poll


def facts() -> str:
    """Versions, the commit and the machine, in one line."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if "model name" in line] if cpus.exists() else []
    cpu = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    code = f"commit {commit}{', changed' if changed else ''}" if commit else "no checkout"
    return f"{code}; Python {platform.python_version()}, {packages}; {cpu}, {os.cpu_count()} cores"


def tables(plan: Mapping[str, Sequence[Measurement]], folder: Path) -> str:
    """What all measurements that are done have printed, section by section."""
    records = {each.name: read_record(folder, each.name) for section in plan.values() for each in section}
    known = list(dict.fromkeys(record["facts"] for record in records.values() if record))
    lines = ["# Measurements", "", *(f"{number}. {line}" for number, line in enumerate(known, 1)), ""]
    for title, section in plan.items():
        done = [(each, records[each.name]) for each in section if records[each.name]]
        if not done:
            continue
        lines += [f"## {title}", ""]
        for measurement, record in done:
            place = f", on machine {known.index(record['facts']) + 1}" if len(known) > 1 else ""
            lines += [f"`{measurement.shown()}`", f"({record['finished'][:10]}, {record['seconds']:,.0f} s{place})", ""]
            lines += as_markdown(read_printed(folder, measurement.name))
    return "\n".join(lines)


def as_markdown(printed: str) -> list[str]:
    """Tables as they are, other lines in fences; without lines that are one object, which say how far it was."""
    lines = []
    shown = [line for line in printed.splitlines() if not (line.startswith("{") and line.endswith("}"))]
    for is_table, group in groupby(shown, lambda line: line.startswith("|")):
        block = "\n".join(group).strip("\n")
        if block:
            lines += [block, ""] if is_table else ["```text", block, "```", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--wordnet_dir", type=Path)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="of plan.py; those whose results they read come along"
    )
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "benchmarks")
    args = parser.parse_args()
    plan, folder = chosen(args.only), args.output_dir.absolute()
    if lacks := missing(plan, args.data_dir, args.wordnet_dir):
        hint = "Bring it, or name other measurements with --only."
        raise SystemExit(f"Nothing was begun; missing:\n{as_text(lacks)}\n{hint}")
    given = {"data_dir": args.data_dir, "wordnet_dir": args.wordnet_dir}
    places = {name: path.absolute() for name, path in given.items() if path is not None}
    failures = Runner(plan, folder, ROOT, places, in_a_process, facts=facts()).run()
    (folder / "results.md").write_text(tables(PLAN, folder), encoding="utf-8")
    print(f"Tables: {folder / 'results.md'}")
    if failures:
        raise SystemExit("\n".join(["Failed:", *(f"  {name}: {why}" for name, why in failures.items())]))


if __name__ == "__main__":
    main()
