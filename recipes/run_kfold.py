"""Cross-validate a text classifier (or regressor): train it on all folds but one, test it on that, for every fold.

    accelerate launch recipes/run_kfold.py configs/kfold/demo.json
    accelerate launch recipes/run_kfold.py --model_type textcnn --train_file train.json --num_folds 10 \\
        --fold_seeds 1 2 3 --learning_rate 1e-3 --output_dir outputs/cnn_kfold
    accelerate launch recipes/run_kfold.py configs/kfold/demo.json --num_workers 2
    accelerate launch recipes/run_kfold.py configs/kfold/demo.json --output_dir /shared/demo \\
        --storage /shared/folds.log    # the same on each machine

It takes all settings of run_classification.py but test rows and validation files: each model validates on a part of the
rows outside of its fold. output_dir then holds kfold_results.json, predictions of every row by a model that did not see
it (predictions_out_of_fold.jsonl), report.html, run.json, and fold_runs with a folder for each fold.
--resume_from_checkpoint true goes on with a run that was stopped, at the fold that it was in.
"""

import sys

from accelerate.utils import broadcast_object_list

from hf_ext import (
    KFOLD_SETTINGS,
    OwnFolds,
    RunRecord,
    SharedFolds,
    begin_plan,
    check_data,
    check_kfold_dir,
    check_same_data,
    check_same_plan,
    check_training_arguments,
    complete_kfold_values,
    describe_folds,
    load_text_data,
    make_fold_plan,
    open_output_dir,
    open_storage,
    own_folders,
    parse_settings,
    plan_folds,
    print_notes,
    readable_errors,
    rehearse_fold,
    remove_unfinished,
    repeat_notes,
    show_dry_run,
    start_training_log,
    train_here,
    train_in_workers,
    wait_for_everyone,
    write_kfold,
    write_preflight,
)


@own_folders()
def main(argv: list[str]) -> None:
    settings = parse_settings(KFOLD_SETTINGS, argv, __doc__, complete_kfold_values)
    model_args, training_args, run_args = settings["model"], settings["training"], settings["run"]
    kfold = settings["kfold"]
    record = RunRecord(argv, settings)
    tracking = settings["tracking"].set_up(training_args)
    check_training_arguments(training_args)
    output_dir, resume = check_kfold_dir(settings)

    numbers = settings["curriculum"].number_columns()
    given = load_text_data(settings["data"], model_args, ("train",), None, numbers, kfold.group_column)
    settings["loss"].check(given.task.problem_type, given.task.label_names, training_args.label_smoothing_factor)
    run = plan_folds(settings, given, record.facts["arguments"])
    notes = given.notes + describe_folds(run) + tracking
    notes += training_args.precision_notes(run_args.mixed_precision)
    record.add(data=given.fingerprint(), notes=notes)
    check_same_data(record.facts["data"])
    notes += repeat_notes(argv, record, output_dir)
    plan = make_fold_plan(run, record.facts["data"]["train"])
    if resume:
        check_same_plan(output_dir, plan)
    tokenizer = rehearse_fold(run)
    findings = check_data(settings["preflight"], given, tokenizer)
    if run_args.dry_run:
        show_dry_run(record, given, notes, findings)
    if settings["preflight"].preflight == "error":
        findings.raise_if_failed()
    if run_args.dry_run:
        return

    storage = open_storage(kfold.storage) if kfold.storage is not None else None
    # Nothing was written so far.
    wait_for_everyone()
    identity = None
    if training_args.should_save:
        if storage is None:
            open_output_dir(output_dir, run_args.overwrite, resume)
        else:
            # Several machines write there.
            start_training_log(output_dir)
        identity = begin_plan(output_dir, plan)
        record.write(output_dir)
        write_preflight(output_dir, findings)
        print_notes(notes)
    if storage is not None:
        folds = SharedFolds(storage, f"folds {identity}", range(len(run.folds)), kfold.worker_timeout)
    else:
        if training_args.should_save:
            remove_unfinished(run)
        left = [number for number in range(len(run.folds)) if not run.is_finished(number)]
        folds = OwnFolds(broadcast_object_list([left])[0])
    if kfold.num_workers == 1 and storage is None:
        train_here(run, folds)
    else:
        train_in_workers(run, folds, kfold.num_workers)
    if training_args.should_save and folds.take_results():
        title = f"{model_args.name or model_args.model_name_or_path or 'TextCNN'}, {kfold.num_folds}-fold"
        remove_unfinished(run)
        write_kfold(run, title, record, notes, findings)
        folds.finish_results()


if __name__ == "__main__":
    with readable_errors("run_kfold.py", "go on with the same command and --resume_from_checkpoint true"):
        main(sys.argv[1:])
