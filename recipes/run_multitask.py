"""Train one encoder on several tasks, each with a head of its own, and say what they gained from each other.

    accelerate launch recipes/run_multitask.py configs/multitask/mrpc_sst2_trec6.json --single_task_baselines
    accelerate launch recipes/run_multitask.py --model_name_or_path DIR_OR_HUB_NAME --output_dir outputs/two \\
        --tasks '{"mood": {"train_file": "mood.json"}, "topic": {"train_file": "topic.csv", "weight": 0.5}}'

A task takes the settings of the section `data`, and a weight; what is given outside holds for all tasks. A task without
validation rows gets a part of its training rows. output_dir holds the multi-task model, tasks/<task> each task's plain
model with its predictions, and report.html all results. --single_task_baselines trains each task alone as well
(baselines/<task>), for exactly as many steps as it was given, and tests the difference. --resume_from_checkpoint true
continues an interrupted run at whichever of its parts it was in.
"""

import sys

from hf_ext import (
    MULTITASK_SETTINGS,
    RunRecord,
    build_multitask_trainer,
    build_task_models,
    check_same_data,
    check_same_run,
    check_shared,
    check_task_folders,
    check_tasks,
    check_training_arguments,
    check_watched_tasks,
    complete_multitask_values,
    export_tasks,
    load_tasks,
    open_output_dir,
    own_folders,
    parse_settings,
    print_notes,
    readable_errors,
    rehearse_tasks,
    repeat_notes,
    resume_point,
    save_task_metrics,
    show_dry_run,
    tasks_fingerprint,
    train_baselines,
    train_tasks,
    wait_for_everyone,
    weights_digest,
    write_multitask,
    write_preflight,
)


@own_folders()
def main(argv: list[str]) -> None:
    settings = parse_settings(MULTITASK_SETTINGS, argv, __doc__, complete_multitask_values)
    training_args, run_args = settings["training"], settings["run"]
    record = RunRecord(argv, settings)
    tracking = settings["tracking"].set_up(training_args)
    check_training_arguments(training_args)
    resume, checkpoint = resume_point(training_args)
    held = (checkpoint or training_args.output_dir) if resume else None
    output_dir = check_task_folders(settings, held)

    tasks, notes = load_tasks(settings)
    notes += check_watched_tasks(settings, tasks) + tracking
    notes += training_args.precision_notes(run_args.mixed_precision)
    record.add(data=tasks_fingerprint(tasks), notes=notes)
    check_same_data(record.facts["data"])
    if resume:
        begun = checkpoint or str(output_dir / "run")
        check_same_run(begun, record.facts["arguments"], record.facts["data"], run_args.allow_changed_unfreezing)
    models, built = build_task_models(settings, tasks)
    record.add(initial_weights={name: weights_digest(model) for name, model in models.items()})
    notes += repeat_notes(argv, record, output_dir)
    findings = check_tasks(settings, tasks)
    notes += built + rehearse_tasks(settings, models, tasks)
    if run_args.dry_run:
        show_dry_run(record, {name: task.data for name, task in tasks.items()}, notes, findings)
    if settings["preflight"].preflight == "error":
        findings.raise_if_failed()
    if run_args.dry_run:
        return

    # Nothing was written so far.
    wait_for_everyone()
    if training_args.should_save:
        open_output_dir(output_dir, run_args.overwrite, resume)
        record.write(output_dir)
        write_preflight(output_dir, findings)
        print_notes(notes)
    if resume or settings["multitask"].single_task_baselines:
        # They are read back.
        check_shared(output_dir)
    trainer = build_multitask_trainer(settings, models, tasks)
    train_tasks(trainer, output_dir, checkpoint, resume)
    together = export_tasks(settings, tasks, trainer, output_dir)
    save_task_metrics(trainer, together)
    alone = {}
    if settings["multitask"].single_task_baselines:
        alone = train_baselines(settings, tasks, trainer, output_dir, resume)
    if trainer.is_world_process_zero():
        write_multitask(output_dir, settings, tasks, trainer, together, alone, record, notes, findings)


if __name__ == "__main__":
    with readable_errors("run_multitask.py"):
        main(sys.argv[1:])
