"""Distil a classifier into a smaller one, and compare teacher, student and the student without a teacher.

    accelerate launch recipes/run_distillation.py configs/distillation/sst2_minilm_to_cnn.json
    accelerate launch recipes/run_distillation.py --teacher_name_or_path outputs/bert --model_type textcnn \\
        --train_file train.json --test_file test.json --unlabelled_files more.txt --output_dir outputs/distilled

A teacher that is no classifier yet is fine-tuned first (output_dir/teacher). It answers every text of the transfer set
(training rows, unlabelled files, augmented views) once; its answers are kept for later runs. The control
(output_dir/control) is the same student on the labelled rows of the same set, for as many steps. output_dir holds the
distilled student, its predictions, distillation.json and report.html. --resume_from_checkpoint true continues an
interrupted run at whichever of its parts it was in.
"""

import sys
from functools import partial

from accelerate import PartialState

from hf_ext import (
    DISTILLATION_SETTINGS,
    RunRecord,
    Supplements,
    build_compute_metrics,
    build_model,
    build_student_trainer,
    check_data,
    check_folders,
    check_same_data,
    check_same_run,
    check_shared,
    check_target,
    check_teacher,
    check_training_arguments,
    check_watched_metrics,
    compare_distillation,
    complete_distillation_values,
    fine_tune_teacher,
    label_transfer_set,
    load_teachers,
    load_text_data,
    make_transfer_set,
    open_output_dir,
    own_folders,
    parse_settings,
    predict_splits,
    predict_with,
    print_notes,
    push_folder,
    readable_errors,
    rehearse,
    repeat_notes,
    resume_point,
    show_dry_run,
    start_embeddings_from_teacher,
    take_target,
    teacher_is_ready,
    teacher_predictions,
    tokenize_splits,
    train_control,
    train_student,
    untrained_teacher,
    wait_for_everyone,
    weights_digest,
    with_rows,
    write_distillation,
    write_preflight,
    write_results,
)

SPLITS = ("train", "validation", "test")


def say(text: str) -> None:
    """Tell whoever waits, once for all processes."""
    if PartialState().is_main_process:
        print(text, flush=True)


@own_folders()
def main(argv: list[str]) -> None:
    settings = parse_settings(DISTILLATION_SETTINGS, argv, __doc__, complete_distillation_values)
    model_args, data_args, training_args, run_args = (settings[name] for name in ("model", "data", "training", "run"))
    record = RunRecord(argv, settings)
    tracking = settings["tracking"].set_up(training_args)
    check_training_arguments(training_args)
    target = take_target(training_args)
    if target is not None:
        settings["peft"].check_push(model_args.model_name_or_path)
    resume, checkpoint = resume_point(training_args)
    output_dir = check_folders(settings, (checkpoint or training_args.output_dir) if resume else None)
    ready = teacher_is_ready(settings)

    given = load_text_data(data_args, model_args, SPLITS, number_columns=settings["curriculum"].number_columns())
    compute_metrics = build_compute_metrics(given.task.problem_type, data_args.metric_name)
    check_watched_metrics(training_args, compute_metrics, given, settings["early_stopping"].early_stopping_metric)
    settings["loss"].check(given.task.problem_type, given.task.label_names, training_args.label_smoothing_factor)
    transfer = make_transfer_set(settings, given)
    data, texts = with_rows(given, transfer.dataset), transfer.texts()
    record.add(data={**given.fingerprint(), "transfer": data.fingerprint()["train"]})
    check_same_data(record.facts["data"])
    model, tokenizer, built = build_model(
        model_args, settings["textcnn"], data_args, training_args, given.task, texts, settings["peft"]
    )
    load_teacher = partial(
        load_teachers, settings, None if ready else output_dir / "teacher", student_config=model.config
    )
    teacher = load_teacher() if ready else untrained_teacher(settings, given, model.config)
    if ready:
        record.facts["data"]["teacher"] = teacher.fingerprint
    if resume:
        begun = checkpoint or str(output_dir / "teacher")
        check_same_run(begun, record.facts["arguments"], record.facts["data"], run_args.allow_changed_unfreezing)
    record.add(initial_weights=weights_digest(model))
    notes = repeat_notes(argv, record, output_dir) + given.notes + transfer.notes + built + tracking
    notes += training_args.precision_notes(run_args.mixed_precision)
    findings = check_data(settings["preflight"], given, tokenizer)

    if target is not None and PartialState().is_main_process:
        target = check_target(target)
    # Nothing was written so far, nor is it before teacher, trainer and techniques have looked at their settings.
    check_teacher(settings, teacher, ready, model, transfer)
    encoded = tokenize_splits(tokenizer, data_args, training_args, data.splits)
    rehearse(
        build_student_trainer, settings, model, tokenizer, encoded, teacher=teacher, compute_metrics=compute_metrics
    )
    if run_args.dry_run:
        show_dry_run(record, given, notes, findings)
    if settings["preflight"].preflight == "error":
        findings.raise_if_failed()
    if run_args.dry_run:
        return

    wait_for_everyone()
    if training_args.should_save:
        open_output_dir(output_dir, run_args.overwrite, resume)
        record.add(notes=notes)
        record.write(output_dir)
        write_preflight(output_dir, findings)
        print_notes(notes)
    check_shared(output_dir)
    if not ready:
        say("\nThe teacher is fine-tuned.")
        notes.append(fine_tune_teacher(settings, given, compute_metrics, output_dir, resume))
        teacher = load_teacher()
    say(f"\nThe teacher answers {len(texts):,} texts, and those of validation and test.")
    of_teacher, said = teacher_predictions(settings, teacher, given)
    encoded["train"], more = label_transfer_set(settings, transfer, encoded["train"], teacher)
    said += more
    for note in said:
        say(f"Note: {note}")
    notes += said
    say("\nThe student learns from the teacher.")
    if settings["distillation"].student_embeddings == "teacher" and checkpoint is None:
        start_embeddings_from_teacher(settings, model, tokenizer, teacher)
    trainer = build_student_trainer(settings, model, tokenizer, encoded, teacher, compute_metrics)
    notes += trainer.loss_notes()
    # Unless it answers online, nothing holds it any more while the student trains.
    teacher = None
    train_student(settings, trainer, output_dir, checkpoint, resume)
    for note in trainer.merge_notes():
        say(f"Note: {note}")
    notes += trainer.merge_notes()
    distilled, metrics = predict_splits(trainer, given, encoded)

    say(f"\nThe control, the student without a teacher, makes as many steps ({trainer.state.global_step:,}).")
    train_control(settings, given, transfer, trainer.state, compute_metrics, output_dir, resume)
    control = predict_with(output_dir / "control", settings, given, compute_metrics)
    answers = {"teacher": of_teacher, "distilled": distilled, "control": control}
    if trainer.is_world_process_zero():
        say("\nTeacher, student and control are compared.")
        members = [(member.model, member.tokenizer, member.max_length) for member in load_teacher().members]
        models = {"teacher": members, "distilled": [(trainer.model, tokenizer, tokenizer.model_max_length)]}
        comparisons = compare_distillation(answers, models, given)
        write_distillation(output_dir, answers, comparisons, transfer, trainer.state.global_step)
        base = model_args.model_name_or_path
        title = f"{model_args.name or base or 'TextCNN'}, distilled"
        shown = Supplements(preflight=findings.as_dict() if findings else None, comparisons=comparisons)
        history = trainer.state.log_history
        write_results(output_dir, title, answers["distilled"], metrics, history, record, notes, base, True, shown)
        if target is not None:
            push_folder(output_dir, target, [*texts, *(text for split in SPLITS[1:] for text in given.texts(split))])


if __name__ == "__main__":
    with readable_errors("run_distillation.py"):
        main(sys.argv[1:])
