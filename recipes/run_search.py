"""Search for the settings that do best on validation: a grid, random ones, or Optuna's TPE.

    accelerate launch recipes/run_search.py configs/search/textcnn_grid.json
    accelerate launch recipes/run_search.py args.json --search_space space.json --search_method tpe --num_trials 30 \\
        --pruner median --output_dir outputs/search
    accelerate launch recipes/run_search.py args.json --search_space '{"learning_rate": [1e-4, 1e-3]}' \\
        --search_seeds 1 2 3 --evaluate_best true
    accelerate launch recipes/run_search.py args.json --search_space space.yaml --search_method tpe \\
        --storage postgresql://user@host/studies --study_name bert

Takes the files and flags of run_classification.py; space.json is such as
{"learning_rates": [1e-5, 3e-5], "batch_sizes": [16, 32], "weight_decay": {"low": 1e-4, "high": 0.1, "log": true}}.
The same command, given again, goes on where it was killed; given several times at once (on several machines: with one
--storage), each takes other trials. output_dir then holds search_results.json, best_config.json (for
run_classification.py), the study, pictures, report.html and run.json. Test rows are used by --evaluate_best alone.
"""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from hf_ext import (
    ALL_SETTINGS,
    SEARCH_SETTINGS,
    RunRecord,
    Search,
    build_arguments,
    build_compute_metrics,
    check_data,
    check_launch,
    check_output_dir,
    check_training_arguments,
    check_watched_metrics,
    clear_output_dir,
    complete_search_values,
    given_values,
    held_search,
    load_config,
    load_text_data,
    print_notes,
    read_search_space,
    readable_errors,
    repeat_notes,
    require_optuna,
    searched_columns,
    searched_metric,
    show_dry_run,
    start_training_log,
    train_classifier,
    training_parts,
    without_password,
    write_preflight,
    write_search,
)


def main(argv: list[str]) -> None:
    values = given_values(SEARCH_SETTINGS.values(), argv, __doc__, others=ALL_SETTINGS.values())
    require_optuna()
    check_launch()
    parsed = build_arguments(SEARCH_SETTINGS.values(), values, complete_search_values)
    settings = dict(zip(SEARCH_SETTINGS, parsed, strict=True))
    model_args, data_args, training_args, run_args = (settings[name] for name in ("model", "data", "training", "run"))
    search_args = settings["search"]
    space = read_search_space(search_args.search_space, model_args.model_type != "textcnn")
    shown = replace(search_args, storage=search_args.storage and without_password(search_args.storage))
    record = RunRecord([without_password(word) for word in argv], {**settings, "search": shown})
    tracking = settings["tracking"].set_up(training_args)
    check_training_arguments(training_args)
    output_dir = Path(training_args.output_dir)
    continued = None if run_args.overwrite else held_search(output_dir, search_args)
    check_output_dir(
        training_args.output_dir, run_args.overwrite, continued, model_args.model_name_or_path, can_resume=False
    )
    if model_args.model_name_or_path is not None:
        load_config(model_args)

    needed = ("train",) if search_args.search_folds else ("train", "validation")
    given = load_text_data(data_args, model_args, needed, None, searched_columns(space, values))
    compute_metrics = build_compute_metrics(given.task.problem_type, data_args.metric_name)
    settings["loss"].check(given.task.problem_type, given.task.label_names, training_args.label_smoothing_factor)
    seeds = search_args.search_seeds or [training_args.seed]
    search = Search(
        search_args,
        space,
        values,
        output_dir,
        searched_metric(search_args.search_metric, compute_metrics, given),
        training_parts(given, seeds, search_args.search_folds, data_args.split_seed),
        partial(train_classifier, compute_metrics=compute_metrics),
    )
    check_watched_metrics(
        training_args, compute_metrics, search.parts[0].data, settings["early_stopping"].early_stopping_metric
    )
    search.check_values()
    built = search.rehearse()
    notes = given.notes + tracking + training_args.precision_notes(run_args.mixed_precision)
    record.add(data=given.fingerprint(), notes=notes)
    notes += repeat_notes(argv, record, output_dir)
    findings = check_data(settings["preflight"], given, built.tokenizer)
    if run_args.dry_run:
        trials = f"{search.size} trials ({search_args.search_method}), trainings each: {len(search.parts)}"
        print(f"{trials}, compared by {search.metric} on validation\n{space.as_dict()}")
        show_dry_run(record, given, notes, findings)
    if settings["preflight"].preflight == "error":
        findings.raise_if_failed()
    if run_args.dry_run:
        return

    if run_args.overwrite:
        clear_output_dir(output_dir)
    queue = search.open()
    start_training_log(output_dir)
    record.write(output_dir)
    write_preflight(output_dir, findings)
    print_notes(notes)
    search.run(queue, show_progress=not training_args.disable_tqdm)
    results = write_search(search, queue, record, notes)
    if search_args.evaluate_best and results["finished"]:
        # The test rows are looked at once, by the run that anyone can repeat.
        recipe = Path(__file__).with_name("run_classification.py")
        command = [sys.executable, str(recipe), str(output_dir / "best_config.json"), "--overwrite"]
        raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    with readable_errors("run_search.py", "the same command goes on"):
        main(sys.argv[1:])
