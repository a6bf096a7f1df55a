"""Clean, deduplicate and split raw files into training data, with a report on what was done.

    python recipes/run_preprocessing.py --input_dir dataset/raw --output_dir dataset/processed \\
        --config configs/data_config.yaml
    python recipes/run_preprocessing.py --input_dir dataset/raw --output_dir dataset/processed \\
        --clean_html true --clean_urls replace --label_map '{"1": "bad", "2": "good", "3": null}'

Reads JSON, JSON lines, CSV, TSV (all also with .gz), Parquet and <class>/<name>.txt below input_dir. Files named
train, validation or test keep their split; other rows are split by test_size and validation_size. Settings stand in
the section `preprocessing` of the configuration file, which the training recipes share.
"""

import sys
from pathlib import Path

from hf_ext import (
    PreprocessingArguments,
    PreprocessingRunArguments,
    RawDataArguments,
    complete_preprocessing_values,
    describe_plan,
    make_plan,
    parse_settings,
    preprocess,
    print_notes,
    readable_errors,
    report_table,
    require_alone,
)

SETTINGS = {"run": PreprocessingRunArguments, "preprocessing": PreprocessingArguments, "data": RawDataArguments}
FILE_FLAGS = ("--args", "--config", "--data_config")


def main(argv: list[str]) -> None:
    settings = parse_settings(SETTINGS, argv, __doc__, complete_preprocessing_values, FILE_FLAGS)
    run_args, wanted, data_args = settings["run"], settings["preprocessing"], settings["data"]
    require_alone("Preprocessing")
    if run_args.dry_run:
        print(describe_plan(make_plan(Path(run_args.input_dir), wanted, data_args)))
        return

    report, was_there = preprocess(run_args.input_dir, run_args.output_dir, wanted, data_args, run_args.overwrite)
    print(report_table(report))
    print_notes(report["notes"])
    page = Path(run_args.output_dir) / "data_report.html"
    print(f"Up to date, nothing to do: {page}" if was_there else f"Report: {page}")


if __name__ == "__main__":
    with readable_errors("run_preprocessing.py"):
        main(sys.argv[1:])
