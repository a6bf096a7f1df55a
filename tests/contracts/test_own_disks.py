"""Machines that share no disk: what only the first one has, and what all of them must have."""

import hashlib
import json
from pathlib import Path

import pytest
from runs import Case, assert_same_weights, collate, launch, make_model, make_rows, make_trainer

from hf_ext import ExtendedTrainer, LRFinderArguments, check_same_data, check_shared, find_learning_rate
from hf_ext.experiments.trained_parts import FINISHED, is_finished
from hf_ext.launching import check_same_checkpoint


class SaidError(Exception):
    """Hands to the test what a process found."""


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path), epochs=3)


def own_folder(case, arguments):
    folder = Path(case.output_dir) / f"machine_{arguments.process_index}"
    folder.mkdir()
    return folder


def make_trainer_of_a_machine(case, arguments, callbacks):
    arguments.output_dir = f"{case.output_dir}/machine_{arguments.process_index}"
    rows = make_rows(case)
    return ExtendedTrainer(
        model=make_model(case), args=arguments, train_dataset=rows, eval_dataset=rows[:7], data_collator=collate
    )


def test_the_best_model_is_that_of_all(case):
    # By the largest loss: with this rate that is not the last one.
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.5}
    best |= {"metric_for_best_model": "loss", "greater_is_better": True}
    reports = launch(
        case.but(trainer=make_trainer_of_a_machine, batch_size=8, save_steps=2, arguments=best), world_size=2
    )
    assert_same_weights(*reports)
    # Otherwise the best was the last, and the test has shown nothing.
    digests = [report["digests"][-1] for report in reports]
    assert digests[0] == digests[1] != weights_digest(reports[0])


@pytest.mark.parametrize("steps", [2, 6])
def test_the_best_model_of_a_single_checkpoint_too(case, steps):
    # On the second machine there is nothing of it when the Trainer looks for its weights.
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": steps, "max_steps": steps}
    machines = case.but(trainer=make_trainer_of_a_machine, batch_size=8, save_steps=steps, arguments=best)
    assert_same_weights(*launch(machines, world_size=2))


def go_on_from_different(case, arguments, callbacks):
    check_same_checkpoint(f"{case.output_dir}/checkpoint-{2 * arguments.process_index}")


def test_checkpoints_that_differ_are_refused_by_all(case):
    for report in launch(case.but(trainer=go_on_from_different), world_size=2):
        assert report["error"].startswith("ConfigurationError: The processes would go on from different checkpoints: ")
        assert "process 0 checkpoint-0, process 1 checkpoint-2. Each machine needs all files of one" in report["error"]


def read_other_rows(case, arguments, callbacks):
    check_same_data({"train": "same", "test": f"of {arguments.process_index}"})


def test_rows_that_differ_are_refused_by_all(case):
    for report in launch(case.but(trainer=read_other_rows), world_size=2):
        assert report["error"].startswith("DataError: Process 1 has read other rows than process 0: test. All machines")


def read_back(case, arguments, callbacks):
    folder = own_folder(case, arguments)
    if arguments.process_index == 0:
        (folder / "run.json").write_text("{}")
    check_shared(folder)


def test_a_folder_that_is_not_shared_is_refused_by_all(case):
    for report in launch(case.but(trainer=read_back), world_size=2):
        assert "process 1 does not find there what process 0 writes" in report["error"]
        assert report["error"].startswith("ConfigurationError: output_dir ")


def look_for_the_end(case, arguments, callbacks):
    folder = own_folder(case, arguments)
    if arguments.process_index == 0:
        (folder / FINISHED).write_text("{}")
    raise SaidError(is_finished(folder))


def test_a_part_is_finished_where_the_first_process_finds_it(case):
    reports = launch(case.but(trainer=look_for_the_end), world_size=2)
    assert [report["error"] for report in reports] == ["SaidError: True"] * 2


def go_on_with_a_found_rate(case, arguments, callbacks):
    folder = own_folder(case, arguments)
    if arguments.process_index == 0:
        (folder / "run.json").write_text(json.dumps({"arguments": {"training": {"learning_rate": 0.25}}}))
    trainer = make_trainer(case.but(trainer="extended", output_dir=str(folder)))
    find_learning_rate(trainer, LRFinderArguments(), str(folder / "checkpoint-2"))
    raise SaidError(trainer.args.learning_rate)


def test_the_rate_that_was_found_is_that_of_the_first_process(case):
    reports = launch(case.but(trainer=go_on_with_a_found_rate), world_size=2)
    assert [report["error"] for report in reports] == ["SaidError: 0.25"] * 2


def weights_digest(report):
    digest = hashlib.sha256()
    for value in report["weights"].values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
