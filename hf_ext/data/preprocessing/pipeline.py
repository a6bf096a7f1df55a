"""A folder of raw files -> clean `train`, `validation` and `test` files and a report on what was done."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ext.arguments import RawDataArguments
from hf_ext.data.preprocessing.data_report import build_data_report, write_data_report
from hf_ext.data.preprocessing.plan import Plan, PreprocessingArguments, make_plan
from hf_ext.data.preprocessing.publishing import (
    PAGE,
    READY,
    REPORT,
    Workspace,
    check_output,
    facts_of,
    is_ready,
    publish,
    read_report,
)
from hf_ext.data.preprocessing.split_files import write_splits
from hf_ext.data.preprocessing.stages import preprocess_rows
from hf_ext.errors import ConfigurationError, UsageError
from hf_ext.files import write_json

# The share that is tested on when no file is named test; training itself takes none.
TEST_SIZE = 0.1


@dataclass
class PreprocessingRunArguments:
    """Where preprocessing reads and writes."""

    _argument_group_name = "run"

    input_dir: str | None = field(default=None, metadata={"help": "Folder with the raw files, at any depth."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder for the splits and the report."})
    overwrite: bool = field(default=False, metadata={"help": "Replace the splits that output_dir holds."})
    dry_run: bool = field(default=False, metadata={"help": "Print what would be read and done; write nothing."})

    def __post_init__(self):
        missing = [name for name in ("input_dir", "output_dir") if getattr(self, name) is None]
        if missing:
            raise ConfigurationError(f"Pass {' and '.join(f'--{name} FOLDER' for name in missing)}.")
        source, target = Path(self.input_dir).resolve(), Path(self.output_dir).resolve()
        if target == source or target.is_relative_to(source):
            raise ConfigurationError(
                f"output_dir {self.output_dir} lies in input_dir {self.input_dir}: the next run would read it. Choose "
                "a folder beside it."
            )


def complete_preprocessing_values(values: dict[str, Any]) -> dict[str, Any]:
    """Holds out a tenth to test on unless `test_size` is given."""
    return {"test_size": TEST_SIZE, **values}


def preprocess(
    input_dir: str | Path,
    output_dir: str | Path,
    settings: PreprocessingArguments | None = None,
    data_args: RawDataArguments | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any], bool]:
    """
    Clean, deduplicate and split raw files.

    Reads every supported file below `input_dir`; writes `train`, `validation` and `test` files (those with rows),
    `data_report.json` and `data_report.html`. Equal input, settings and seed give equal bytes. A run that is killed
    leaves no half-written file, and the next one with the same settings continues with the stages that were finished.
    The work in progress lies in `output_dir/.preprocessing`, as large as the data two times.

    Args:
        input_dir (`str` or `Path`): Folder with the raw files.
        output_dir (`str` or `Path`): Folder for the result, outside of `input_dir`.
        settings ([`PreprocessingArguments`], *optional*): How to clean and select.
        data_args ([`RawDataArguments`], *optional*):
            Column names, `validation_size`, `test_size` (0.1 by default, here), `split_seed`, and
            `preprocessing_num_workers` (processes that clean; the result does not depend on it).
        overwrite (`bool`, *optional*, defaults to `False`): Replace other splits in `output_dir`.
        progress (`bool`, *optional*, defaults to `True`): Show progress bars.

    Returns:
        `tuple[dict, bool]`: The content of `data_report.json`, and whether it was there already, so that nothing was
        done.

    Raises:
        DataError: With the file and the row or byte. Nothing is published then.
        ConfigurationError: If `output_dir` holds other splits, another run writes to it, or its disk is full.
    """
    PreprocessingRunArguments(str(input_dir), str(output_dir))
    settings = settings or PreprocessingArguments()
    plan = make_plan(Path(input_dir), settings, data_args or RawDataArguments(test_size=TEST_SIZE))
    fingerprint = plan.fingerprint(progress)
    workspace = Workspace(Path(output_dir), fingerprint)
    # Once before anything is made in output_dir, and once when no other run can change it.
    check_output(workspace, fingerprint, overwrite)
    with workspace.locked(), _writing_to(output_dir):
        report = check_output(workspace, fingerprint, overwrite)
        if report is not None:
            workspace.remove()
            return report, True
        if not is_ready(workspace):
            try:
                _make(plan, workspace, fingerprint, progress)
            except UsageError:
                workspace.discard()
                raise
        publish(workspace)
        workspace.remove()
    return read_report(Path(output_dir)), False


def describe_plan(plan: Plan) -> str:
    """What a run would do, in lines for the console."""
    lines = [f"{len(plan.sources)} files to read:"]
    for source in plan.sources:
        form = plan.forms[source]
        parts = {
            "text": form.text,
            "text_pair": [form.text_pair] if form.text_pair else [],
            "label": [form.label] if form.label else [],
            "kept": form.kept,
            "dropped": form.dropped,
        }
        used = "; ".join(f"{target}: {', '.join(names)}" for target, names in parts.items() if names)
        lines.append(f"  {source.name} ({len(source.files)} {source.kind}, for {source.split}): {used}")
    lines += [f"  ignored: {name} ({why})" for name, why in plan.ignored]
    lines += ["Settings:", *(f"  {name}: {json.dumps(value)}" for name, value in plan.resolved().items())]
    return "\n".join(lines)


def report_table(report: dict[str, Any]) -> str:
    """The rows after each stage, and the rows of each split by class, for the console."""
    lines = [f"{stage['rows']:>12,}  {stage['stage']}" for stage in report["stages"]]
    splits, classes = report["splits"], report["classes"]
    width = max([5, *(len(row["label"]) for row in classes[:20])])
    lines += ["", f"{'':{width}}" + "".join(f"{name:>12}" for name in splits)]
    lines += [f"{'rows':{width}}" + "".join(f"{split['rows']:>12,}" for split in splits.values())]
    for row in classes[:20]:
        lines.append(f"{row['label']:{width}}" + "".join(f"{row['rows'].get(name, 0):>12,}" for name in splits))
    if len(classes) > 20:
        lines.append(f"... {len(classes)} classes in all")
    return "\n".join(lines)


# ---- Inside ----


@contextmanager
def _writing_to(output_dir: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What cannot be read has been told as a DataError: this is a full disk, or one that failed.
        raise ConfigurationError(
            f"output_dir {output_dir} cannot be written: {error.strerror or error}. The work takes about twice the "
            "input there. Make room and run the same again: it goes on after the last finished stage."
        ) from error


def _make(plan: Plan, workspace: Workspace, fingerprint: str, progress: bool) -> None:
    rows = preprocess_rows(plan, workspace, plan.data_args.preprocessing_num_workers, progress)
    if (unfinished := workspace.finished(READY)) is not None:
        # Parts of it were published and then changed by somebody.
        shutil.rmtree(unfinished)
    with workspace.stage(READY) as folder:
        names = write_splits(plan, rows, folder, progress)
        report = build_data_report(plan, rows, fingerprint)
        write_data_report(folder / PAGE, report)
        report["files"] = {name: facts_of(folder / name) for name in [*names, PAGE]}
        write_json(folder / REPORT, report)
