"""Evaluate a saved model: metrics, predictions and a report.

    python recipes/run_evaluation.py --model_path outputs/cnn --data_config configs/data_config.yaml \\
        --output_dir evaluation_results
    python recipes/run_evaluation.py --model_path outputs/cnn --test_file test.json --output_dir evaluation_results

The classes are the model's own; labels that it does not know are an error. Without labels the rows are predicted only.
A calibration.json beside the model is applied; --calibration off evaluates the model without it.
"""

import sys

from transformers import DataCollatorWithPadding

from hf_ext import (
    DataArguments,
    ExtendedTrainer,
    ModelArguments,
    RecipeTrainingArguments,
    RunArguments,
    RunRecord,
    SavedCalibrationArguments,
    Supplements,
    build_compute_metrics,
    calibration_notes,
    check_joined,
    check_output_dir,
    check_same_data,
    check_saved_threshold,
    clear_output_dir,
    complete_evaluation_values,
    find_calibration,
    load_config,
    load_out_of_scope,
    load_pretrained,
    load_text_data,
    model_cost,
    parse_settings,
    predict_splits,
    print_notes,
    readable_errors,
    show_dry_run,
    start_training_log,
    task_of_config,
    tokenize_dataset,
    wait_for_everyone,
    with_scores,
    write_results,
)

SETTINGS = {
    "model": ModelArguments,
    "data": DataArguments,
    "training": RecipeTrainingArguments,
    "calibration": SavedCalibrationArguments,
    "run": RunArguments,
}


def main(argv: list[str]) -> None:
    settings = parse_settings(SETTINGS, argv, __doc__, complete_evaluation_values, ("--args", "--data_config"))
    model_args, data_args, training_args, run_args = (settings[name] for name in ("model", "data", "training", "run"))
    record = RunRecord(argv, settings)
    check_joined()
    output_dir = check_output_dir(
        training_args.output_dir, run_args.overwrite, model=model_args.model_name_or_path, can_resume=False
    )
    task = task_of_config(load_config(model_args))
    saved_args = settings["calibration"]
    given = load_text_data(data_args, model_args, ("test",), task)
    calibration = find_calibration(model_args, task) if saved_args.calibration == "auto" else None
    check_saved_threshold(saved_args, calibration)
    outside = load_out_of_scope(saved_args, given, data_args)
    fingerprints = {f"out_of_scope_{split}": digest for split, digest in outside.fingerprint().items()}
    record.add(data=given.fingerprint() | fingerprints)
    check_same_data(record.facts["data"])
    compute_metrics = build_compute_metrics(task.problem_type, data_args.metric_name, calibration)
    notes = given.notes + outside.notes + training_args.precision_notes(run_args.mixed_precision)
    notes += calibration_notes(calibration, model_args.model_name_or_path)
    if run_args.dry_run:
        show_dry_run(record, given, notes)
        return

    model, tokenizer = load_pretrained(model_args, task, training_args.use_cpu)
    record.add(model=model_cost(model))
    max_length = min(data_args.max_seq_length or tokenizer.model_max_length, tokenizer.model_max_length)
    with training_args.main_process_first(desc="tokenising"):
        encoded, strangers = (
            {
                split: tokenize_dataset(rows, tokenizer, max_length, description=f"Tokenising {split}")
                for split, rows in splits.items()
            }
            for splits in (given.splits, outside.splits)
        )
    wait_for_everyone()
    if training_args.should_save:
        if run_args.overwrite:
            clear_output_dir(output_dir)
        start_training_log(output_dir)
        print_notes(notes)

    trainer = ExtendedTrainer(
        model=model,
        args=training_args,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
    )
    told_on = (outside.texts("test"), strangers["test"]) if strangers else None
    predictions, metrics = predict_splits(trainer, given, encoded, calibration, told_on)
    record.add(notes=notes)
    if trainer.is_world_process_zero():
        title = f"Evaluation of {model_args.name or model_args.model_name_or_path}"
        shown = Supplements(calibration=None if calibration is None else with_scores(calibration, metrics))
        write_results(output_dir, title, predictions, metrics, [], record, notes, model_card=False, supplements=shown)


if __name__ == "__main__":
    with readable_errors("run_evaluation.py"):
        main(sys.argv[1:])
