"""Find a learning rate: the range test (Smith 2017) on the training that run_classification.py would do.

    accelerate launch recipes/run_lr_finder.py configs/quickstart.json --output_dir outputs/lr_finder
    accelerate launch recipes/run_lr_finder.py --model_name_or_path DIR_OR_HUB_NAME --train_file train.json \\
        --lr_finder_start 1e-6 --lr_finder_end 0.1 --output_dir outputs/lr_finder

Takes the files and flags of run_classification.py. output_dir then holds lr_finder.json (settings, curve,
suggestions) and lr_finder.png. No model is saved; `run_classification.py --learning_rate auto` does both at once.
"""

import sys

from accelerate import PartialState

from hf_ext import (
    TRAINING_SETTINGS,
    LRFinder,
    NoUsableSlopeError,
    augment_training_rows,
    build_model,
    build_trainer,
    check_output_dir,
    check_same_data,
    check_training_arguments,
    clear_output_dir,
    complete_range_test_values,
    load_config,
    load_text_data,
    parse_settings,
    readable_errors,
    tokenize_splits,
    trainer_settings,
    write_range_test,
)


def main(argv: list[str]) -> None:
    settings = parse_settings(TRAINING_SETTINGS, argv, __doc__, complete_range_test_values)
    model_args, data_args, training_args = settings["model"], settings["data"], settings["training"]
    run_args, finder_args, augmentation = settings["run"], settings["lr_finder"], settings["augmentation"]
    check_training_arguments(training_args)
    output_dir = check_output_dir(
        training_args.output_dir, run_args.overwrite, model=model_args.model_name_or_path, can_resume=False
    )
    if model_args.model_name_or_path is not None:
        load_config(model_args)
    given = load_text_data(data_args, model_args, ("train",))
    check_same_data(given.fingerprint())
    settings["loss"].check(given.task.problem_type, given.task.label_names, training_args.label_smoothing_factor)
    if run_args.dry_run and PartialState().is_main_process:
        print(f"{len(given.splits['train']):,} training rows, {finder_args}\nDry run: nothing was trained or written.")
    if run_args.dry_run:
        return
    data, _, _ = augment_training_rows(augmentation, given, training_args.seed, data_args.preprocessing_num_workers)
    model, tokenizer, _ = build_model(
        model_args, settings["textcnn"], data_args, training_args, data.task, data.texts("train"), settings["peft"]
    )
    encoded = tokenize_splits(tokenizer, data_args, training_args, data.splits)
    trainer = build_trainer(
        model,
        tokenizer,
        encoded,
        training_args,
        trainer_settings(settings),
        callbacks=settings["learning_rates"].callbacks(),
        augmenter=augmentation.augmenter_on_the_fly(training_args.seed),
    )
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(
        start_lr=finder_args.lr_finder_start,
        end_lr=finder_args.lr_finder_end,
        num_iter=finder_args.lr_finder_num_iter,
        mode=finder_args.lr_finder_mode,
    )
    if trainer.is_world_process_zero():
        if run_args.overwrite:
            clear_output_dir(output_dir)
        image = write_range_test(output_dir, finder, finder_args.lr_finder_method)
        for method, rate in finder.suggestions().items():
            print(f"{method:<12}{f'{rate:.3g}' if rate else 'no usable slope'}")
        print(f"The test {finder.stopped}. Curve: {image.path}")
        try:
            finder.suggestion(finder_args.lr_finder_method)
        except NoUsableSlopeError as reason:
            print(reason, "The flags are --lr_finder_start, --lr_finder_end and --lr_finder_num_iter.")


if __name__ == "__main__":
    with readable_errors("run_lr_finder.py"):
        main(sys.argv[1:])
