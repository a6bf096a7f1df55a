"""Train, evaluate and predict with a text classifier (or regressor), and report on it.

    accelerate launch recipes/run_classification.py configs/quickstart.json
    accelerate launch recipes/run_classification.py --model_type textcnn \\
        --train_file train.json --test_file test.json --output_dir outputs/cnn
    accelerate launch recipes/run_classification.py --model_name_or_path DIR_OR_HUB_NAME \\
        --train_file train.csv --validation_file dev.csv --num_train_epochs 3 --output_dir outputs/bert
    accelerate launch recipes/run_classification.py configs/model_config.yaml configs/training_config.yaml \\
        --train_file train.json

    accelerate launch recipes/run_classification.py configs/classification/ulmfit.json
    accelerate launch recipes/run_classification.py configs/quickstart.json --augmentation_enabled true \\
        --curriculum length --num_train_epochs 6 --output_dir outputs/techniques
    accelerate launch recipes/run_classification.py configs/quickstart.json --class_weights balanced \\
        --calibrate true --threshold_objective f1 --output_dir outputs/calibrated
    accelerate launch recipes/run_classification.py configs/classification/clinc150_minilm.json
    accelerate launch recipes/run_classification.py configs/quickstart.json --push_to_hub true --hub_model_id me/films
    accelerate launch recipes/run_classification.py --model_name_or_path DIR_OR_HUB_NAME --streaming true \\
        --train_file larger_than_memory.jsonl --validation_file dev.jsonl --max_steps 20000 --eval_steps 2000
    accelerate launch recipes/run_classification.py outputs/cnn/run.json    # once more, into outputs/cnn_repeat

JSON and YAML files are merged from left to right; flags win. Without --do_train, --do_eval or --do_predict, all that
the data allows is done. output_dir then holds the model, predictions, results, report.html and run.json.
"""

import sys

from accelerate import PartialState

from hf_ext import (
    TRAINING_SETTINGS,
    RunRecord,
    StartOfRun,
    Supplements,
    TextData,
    assemble_training,
    build_classifier,
    build_compute_metrics,
    calibrate_model,
    calibration_notes,
    check_calibration,
    check_data,
    check_output_dir,
    check_same_data,
    check_same_run,
    check_saved_threshold,
    check_target,
    check_training_arguments,
    check_watched_metrics,
    complete_training_values,
    find_calibration,
    load_config,
    load_out_of_scope,
    load_streamed_data,
    load_text_data,
    model_cost,
    open_output_dir,
    own_folders,
    parse_settings,
    predict_splits,
    print_notes,
    push_folder,
    readable_errors,
    repeat_notes,
    resume_point,
    show_dry_run,
    take_target,
    task_of_config,
    tokenize_splits,
    wait_for_everyone,
    weights_digest,
    with_scores,
    write_preflight,
    write_results,
)


def load_rows(settings: dict, trained_task) -> TextData:
    """The splits that the run uses, with the task of a model that is not trained."""
    model_args, data_args, training_args = settings["model"], settings["data"], settings["training"]
    wanted = [
        ("train", training_args.do_train),
        ("validation", training_args.do_eval),
        ("test", training_args.do_predict),
    ]
    needed = tuple(name for name, use in wanted if use)
    if data_args.streaming:
        return load_streamed_data(data_args, model_args, needed, training_args.seed)
    return load_text_data(data_args, model_args, needed, trained_task, settings["curriculum"].number_columns())


@own_folders()
def main(argv: list[str]) -> None:
    settings = parse_settings(TRAINING_SETTINGS, argv, __doc__, complete_training_values)
    model_args, data_args, training_args, run_args = (settings[name] for name in ("model", "data", "training", "run"))
    loss_args, calibration_args = settings["loss"], settings["calibration"]
    record = RunRecord(argv, settings)
    tracking = settings["tracking"].set_up(training_args)
    check_training_arguments(training_args)
    target = take_target(training_args)
    if target is not None:
        settings["peft"].check_push(model_args.model_name_or_path)
    resume, checkpoint = resume_point(training_args)
    held = (checkpoint or training_args.output_dir) if resume else None
    output_dir = check_output_dir(training_args.output_dir, run_args.overwrite, held, model_args.model_name_or_path)
    trained_task = None
    if model_args.model_name_or_path is not None:
        config = load_config(model_args)
        trained_task = None if training_args.do_train else task_of_config(config)

    given = load_rows(settings, trained_task)
    notes = given.notes + tracking + training_args.precision_notes(run_args.mixed_precision)
    compute_metrics = build_compute_metrics(given.task.problem_type, data_args.metric_name)
    check_watched_metrics(training_args, compute_metrics, given, settings["early_stopping"].early_stopping_metric)
    loss_args.check(given.task.problem_type, given.task.label_names, training_args.label_smoothing_factor)
    check_calibration(
        calibration_args, given.task.problem_type, given.task.label_names, len(given.splits.get("validation", ()))
    )
    saved = None
    if trained_task is not None and not calibration_args.calibrate and calibration_args.calibration == "auto":
        saved = find_calibration(model_args, given.task)
        notes += calibration_notes(saved, model_args.model_name_or_path)
    if not calibration_args.calibrate:
        check_saved_threshold(calibration_args, saved)
    outside = load_out_of_scope(calibration_args, given, data_args)
    notes += outside.notes
    fingerprints = {f"out_of_scope_{split}": digest for split, digest in outside.fingerprint().items()}
    record.add(data=given.fingerprint() | fingerprints, notes=notes)
    check_same_data(record.facts["data"])
    if training_args.do_train:
        begun = (checkpoint or str(output_dir / "run")) if resume else None
        check_same_run(begun, record.facts["arguments"], record.facts["data"], run_args.allow_changed_unfreezing)

    if target is not None and PartialState().is_main_process:
        target = check_target(target)
    built = build_classifier(settings, given)
    notes += built.notes
    record.add(model=model_cost(built.model), initial_weights=weights_digest(built.model))
    notes += repeat_notes(argv, record, output_dir)
    findings = check_data(settings["preflight"], given, built.tokenizer)
    if run_args.dry_run:
        show_dry_run(record, built.data, notes, findings)
    if settings["preflight"].preflight == "error":
        findings.raise_if_failed()
    if run_args.dry_run:
        return

    training = assemble_training(settings, built, compute_metrics, record.facts["arguments"], checkpoint)
    trainer, encoded = training.trainer, training.encoded
    notes += training.notes
    record.facts["arguments"]["training"]["learning_rate"] = training_args.learning_rate

    def begin() -> None:
        open_output_dir(output_dir, run_args.overwrite, resume)
        if training_args.do_train:
            record.write(output_dir)
        write_preflight(output_dir, findings)
        print_notes(notes)

    # Nothing was written so far, nor is it before the techniques have looked at their settings too.
    wait_for_everyone()
    if training_args.do_train:
        trainer.add_callback(StartOfRun(begin))
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.save_state()
        trainer.save_metrics("train", {**result.metrics, "train_samples": len(encoded["train"])})
    elif training_args.should_save:
        begin()
    strangers = tokenize_splits(built.tokenizer, data_args, training_args, outside.splits)
    fitted = calibrate_model(calibration_args, trainer, built.data, encoded, strangers.get("validation"))
    said = trainer.merge_notes() + calibration_notes(fitted)
    notes += said
    calibration = fitted or saved
    if calibration is not None:
        trainer.compute_metrics = build_compute_metrics(given.task.problem_type, data_args.metric_name, calibration)
    told_on = (outside.texts("test"), strangers["test"]) if "test" in strangers else None
    predictions, metrics = predict_splits(trainer, built.data, encoded, calibration, told_on)
    if trainer.is_world_process_zero():
        base, history = model_args.model_name_or_path, trainer.state.log_history
        title = model_args.name or base or "TextCNN"
        images = training.images(output_dir)
        if calibration is not None:
            calibration = with_scores(calibration, metrics)
        if fitted is not None:
            calibration.save(output_dir)
        print_notes(said)
        shown = Supplements(
            images=images,
            augmented=built.samples,
            preflight=findings.as_dict() if findings else None,
            calibration=calibration,
        )
        write_results(
            output_dir, title, predictions, metrics, history, record, notes, base, training_args.do_train, shown
        )
        if target is not None:
            rows = (text for split in built.data.splits for text in built.data.texts(split))
            push_folder(output_dir, target, rows)


if __name__ == "__main__":
    with readable_errors("run_classification.py"):
        main(sys.argv[1:])
