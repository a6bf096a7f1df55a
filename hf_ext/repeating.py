"""A run that repeats another: what differs is said before it begins."""

from pathlib import Path

from accelerate import PartialState

from hf_ext.configuration import read_configuration, split_files
from hf_ext.errors import ConfigurationError
from hf_ext.repeated_run import differences, is_run_record
from hf_ext.run_record import RunRecord

TITLES = {
    "data": "DATA (the results are not those of the same rows)",
    "model": "MODEL",
    "settings": "settings",
    "versions": "versions",
    "code": "code",
    "hardware": "hardware",
}


def repeat_notes(argv: list[str], record: RunRecord, output_dir: Path) -> list[str]:
    """
    Print how a run differs from the one whose `run.json` it is given, and note it in its own record.

    Args:
        argv (`list[str]`): The command line.
        record ([`RunRecord`]): The run's, with its data, and its model if that is recorded.
        output_dir (`Path`): Where it is written.

    Returns:
        `list[str]`: What a reader of the results has to know; nothing for a run that repeats none.

    Raises:
        ConfigurationError: If it is given more than one, or one of another recipe.
    """
    files, _ = split_files(argv, ("--args",))
    recorded = [(path, content) for path in files if is_run_record(content := read_configuration(path))]
    if not recorded:
        return []
    if len(recorded) > 1:
        names = ", ".join(str(path) for path, _ in recorded)
        raise ConfigurationError(f"{names}: a run can repeat one run only.")
    path, content = recorded[0]
    recipe, own = content["command"][0], record.facts["command"][0]
    if recipe != own:
        raise ConfigurationError(f"{path} records a run of {recipe}, which {own} cannot repeat. Give it to {recipe}.")
    found = differences(content, record.facts, path)
    record.add(repeats={"run": str(path), "differences": found})
    if PartialState().is_main_process:
        print(f"{difference_table(path, found)}\nIt is written to {output_dir}.\n", flush=True)
    summary = "nothing differs" if not found else f"there are differences of {', '.join(found)} (see run.json)"
    loud = [f"The data is not that of {path}: {'; '.join(found['data'])}."] if "data" in found else []
    return [f"This repeats {path}; {summary}.", *loud]


def difference_table(path: Path, found: dict[str, list[str]]) -> str:
    """
    What differs, in lines.

    Args:
        path (`Path`): The record of the run that is repeated.
        found (`dict[str, list[str]]`): From [`differences`].
    """
    if not found:
        return f"This repeats {path}. Data, model, settings, versions, code and hardware are the same."
    lines = [f"This repeats {path}, with these differences:"]
    for part, changes in found.items():
        lines += [f"  {TITLES[part]}", *(f"    {change}" for change in changes)]
    return "\n".join(lines)
