"""Export a saved model, and see on real texts that it still answers the same.

    python recipes/run_export.py --model_name_or_path outputs/cnn --formats onnx onnx_int8 torch_export \\
        --texts_file test.json --output_dir outputs/cnn_export
    python recipes/run_export.py --model_name_or_path outputs/cnn --formats onnx_int8 --int8_ops MatMul \\
        --texts_file test.json --max_flips 0.01 --output_dir outputs/cnn_int8

Needs pip install 'hf_ext[export]' for onnx and onnx_int8. output_dir then holds a folder for each format (the model
beside its tokenizer, config.json and calibration), export.json, report.html and run.json. An adapter is merged into its
base model first. An export that answers more
texts otherwise than max_flips allows ends the run, and nothing is left of it. hf_ext.ExportedModel runs such a folder.
"""

import sys

from hf_ext import (
    DataArguments,
    ExportArguments,
    ModelArguments,
    RunRecord,
    SavedCalibrationArguments,
    calibration_notes,
    check_output_dir,
    complete_export_values,
    export_model,
    find_calibration,
    load_config,
    load_text_data,
    load_to_export,
    parse_settings,
    print_notes,
    published_folder,
    readable_errors,
    task_of_config,
    write_export,
)

SETTINGS = {
    "model": ModelArguments,
    "data": DataArguments,
    "calibration": SavedCalibrationArguments,
    "export": ExportArguments,
}


def main(argv: list[str]) -> None:
    settings = parse_settings(SETTINGS, argv, __doc__, complete_export_values)
    model_args, data_args, export_args = settings["model"], settings["data"], settings["export"]
    record = RunRecord(argv, settings)
    source = model_args.model_name_or_path
    output_dir = check_output_dir(export_args.output_dir, export_args.overwrite, model=source, can_resume=False)
    task = task_of_config(load_config(model_args))
    given = load_text_data(data_args, model_args, ("test",), task)
    calibration = find_calibration(model_args, task) if settings["calibration"].calibration == "auto" else None
    print_notes(given.notes + calibration_notes(calibration, source))
    model, tokenizer, said = load_to_export(model_args, task)
    print_notes(said)
    tokenizer.model_max_length = min(data_args.max_seq_length or tokenizer.model_max_length, tokenizer.model_max_length)
    record.add(data=given.fingerprint())
    with published_folder(output_dir, export_args.overwrite) as folder:
        result = export_model(export_args, model, tokenizer, given, folder, calibration)
        report = write_export(result, f"Exports of {source}", record, folder)
    print(f"\nReport: {output_dir / report.name}")


if __name__ == "__main__":
    with readable_errors("run_export.py"):
        main(sys.argv[1:])
