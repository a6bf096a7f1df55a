"""Train, evaluate and predict with a text classifier (or regressor), and report on it.

    accelerate launch recipes/run_classification.py configs/quickstart.json
    accelerate launch recipes/run_classification.py --model_type textcnn \\
        --train_file train.json --test_file test.json --output_dir outputs/cnn
    accelerate launch recipes/run_classification.py --model_name_or_path DIR_OR_HUB_NAME \\
        --train_file train.csv --validation_file dev.csv --num_train_epochs 3 --output_dir outputs/bert
    accelerate launch recipes/run_classification.py configs/model_config.yaml configs/training_config.yaml \\
        --train_file train.json

JSON and YAML files are merged from left to right; flags win. Without --do_train, --do_eval or --do_predict, all that
the data allows is done. output_dir then holds the model, predictions, results, report.html and run.json.
"""

import sys

from accelerate import PartialState
from transformers import DataCollatorWithPadding, set_seed

from hf_ext import (
    DataArguments,
    ExtendedTrainer,
    LaterArguments,
    ModelArguments,
    RecipeTrainingArguments,
    RunArguments,
    RunRecord,
    TextCNNArguments,
    build_compute_metrics,
    build_textcnn,
    check_metric_for_best_model,
    check_output_dir,
    check_same_run,
    check_training_arguments,
    clear_output_dir,
    complete_training_values,
    load_config,
    load_pretrained,
    load_text_data,
    parse_arguments,
    predict_splits,
    readable_errors,
    resume_point,
    show_dry_run,
    start_training_log,
    task_of_config,
    tokenize_dataset,
    write_results,
)

ARGUMENTS = (ModelArguments, TextCNNArguments, DataArguments, RecipeTrainingArguments, RunArguments, LaterArguments)


def main(argv: list[str]) -> None:
    model_args, cnn_args, data_args, training_args, run_args, later_args = parse_arguments(
        ARGUMENTS, argv, __doc__, complete=complete_training_values
    )
    sections = {"model": model_args, "textcnn": cnn_args, "data": data_args, "training": training_args, "run": run_args}
    record = RunRecord(argv, sections)
    check_training_arguments(training_args)
    checkpoint = resume_point(training_args)
    output_dir = check_output_dir(
        training_args.output_dir, run_args.overwrite, checkpoint, model_args.model_name_or_path
    )
    trained_task = None
    if model_args.model_name_or_path is not None:
        config = load_config(model_args)
        trained_task = None if training_args.do_train else task_of_config(config)

    wanted = [
        ("train", training_args.do_train),
        ("validation", training_args.do_eval),
        ("test", training_args.do_predict),
    ]
    data = load_text_data(data_args, model_args, tuple(name for name, use in wanted if use), trained_task)
    notes = data.notes + later_args.notes() + training_args.precision_notes(run_args.mixed_precision)
    compute_metrics = build_compute_metrics(data.task.problem_type, data_args.metric_name)
    check_metric_for_best_model(training_args, compute_metrics, data)
    record.add(data=data.fingerprint(), notes=notes)
    if training_args.do_train:
        check_same_run(checkpoint, record.facts["arguments"], record.facts["data"])
    if run_args.dry_run:
        show_dry_run(record, data, notes)
        return

    set_seed(training_args.seed)
    if model_args.model_type == "textcnn":
        model, tokenizer, built = build_textcnn(
            model_args, cnn_args, data.task, data.texts("train"), data_args.max_seq_length
        )
        notes += built
    else:
        model, tokenizer = load_pretrained(model_args, data.task, training_args.use_cpu)
    tokenizer.model_max_length = min(data_args.max_seq_length, tokenizer.model_max_length)
    with training_args.main_process_first(desc="tokenising"):
        encoded = {
            split: tokenize_dataset(
                dataset,
                tokenizer,
                tokenizer.model_max_length,
                pad_to_max_length=data_args.pad_to_max_length,
                num_proc=data_args.preprocessing_num_workers,
                load_from_cache_file=not data_args.overwrite_cache,
                description=f"Tokenising {split}",
            )
            for split, dataset in data.splits.items()
        }

    trainer = ExtendedTrainer(
        model=model,
        args=training_args,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if training_args.fp16 else None),
        compute_metrics=compute_metrics,
        sparse_embeddings={"auto": None, "on": True, "off": False}[run_args.sparse_embeddings],
    )

    # Nothing was written so far: all that can be wrong with the input has been found.
    PartialState().wait_for_everyone()
    if training_args.should_save:
        if run_args.overwrite and checkpoint is None:
            clear_output_dir(output_dir)
        start_training_log(output_dir)
        if training_args.do_train:
            record.write(output_dir)
        for note in notes:
            print(f"Note: {note}")

    if training_args.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.save_state()
        trainer.save_metrics("train", {**result.metrics, "train_samples": len(encoded["train"])})
    predictions, metrics = predict_splits(trainer, data, encoded)
    if trainer.is_world_process_zero():
        base, history = model_args.model_name_or_path, trainer.state.log_history
        title = model_args.name or base or "TextCNN"
        write_results(
            output_dir, title, predictions, metrics, history, record, notes, base, model_card=training_args.do_train
        )
    if training_args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    with readable_errors("run_classification.py"):
        main(sys.argv[1:])
