"""Compare models on the same test rows: is one better, are they equally good, or can these rows not tell?

    python recipes/run_comparison.py --predictions outputs/bert outputs/cnn --output_dir outputs/comparison
    python recipes/run_comparison.py --predictions a.jsonl b.jsonl c.jsonl --names teacher student control \\
        --baseline teacher --margin 0.5 --groups genre --groups_file test.csv --output_dir outputs/comparison
    python recipes/run_comparison.py --scores outputs/kfold_a outputs/kfold_b --output_dir outputs/comparison

Takes what the other recipes leave: predictions_test.jsonl (or a folder that holds it; any file of that form by its
name) and kfold_results.json. Rows are matched by index and text; files of other test sets are refused. output_dir then
holds comparison.json, comparison.png, report.html and run.json.
"""

import sys

from hf_ext import (
    ComparisonArguments,
    RunRecord,
    compare_files,
    parse_arguments,
    print_notes,
    readable_errors,
    require_alone,
    write_comparison,
)


def main(argv: list[str]) -> None:
    (args,) = parse_arguments((ComparisonArguments,), argv, __doc__)
    require_alone("A comparison")
    record = RunRecord(argv, {"comparison": args})
    result = compare_files(args)
    report = write_comparison(result, args, record)
    print(result.table())
    print()
    for sentence in result.sentences:
        print(sentence)
    print_notes(result.notes)
    print(f"\nReport: {report}")


if __name__ == "__main__":
    with readable_errors("run_comparison.py"):
        main(sys.argv[1:])
