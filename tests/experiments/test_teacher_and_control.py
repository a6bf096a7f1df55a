"""How teacher and control are trained, and that a part of a run is trained once."""

import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, TrainerCallback, set_seed

from hf_ext import ConfigurationError, ExtendedTrainer, ModelArguments, RecipeTrainingArguments, TeacherArguments
from hf_ext.experiments.teacher_and_control import (
    control_training_arguments,
    is_classifier,
    teacher_model_arguments,
    teacher_training_arguments,
)
from hf_ext.experiments.trained_parts import StopAt, train_once

TINY = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


def arguments(folder, **more):
    settings = {"max_steps": 8, "save_steps": 2, "save_strategy": "steps", "per_device_train_batch_size": 4, **more}
    return RecipeTrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, **settings)


def make_trainer(args, callbacks=()):
    set_seed(0)
    rows = [{"input_ids": [index % 30, 3, 5], "attention_mask": [1, 1, 1], "labels": index % 2} for index in range(16)]
    model = BertForSequenceClassification(BertConfig(**TINY))
    return ExtendedTrainer(model=model, args=args, train_dataset=rows, callbacks=list(callbacks))


@pytest.mark.parametrize("given, expected", [("a", ["a"]), ("a, b", ["a", "b"]), (["a", "b"], ["a", "b"])])
def test_teachers_are_a_list(given, expected):
    assert TeacherArguments(teacher_name_or_path=given).teacher_name_or_path == expected


@pytest.mark.parametrize(
    "given, message",
    [
        ({"teacher_name_or_path": None}, "There is no teacher"),
        ({"teacher_num_train_epochs": 0}, "teacher_num_train_epochs is 0"),
        ({"teacher_learning_rate": -1.0}, "teacher_learning_rate -1.0"),
        ({"teacher_batch_size": 0}, "teacher_batch_size is 0; it must be at least 1"),
        ({"teacher_max_seq_length": 0}, "teacher_max_seq_length is 0"),
    ],
)
def test_values_out_of_range(given, message):
    with pytest.raises(ConfigurationError, match=message):
        TeacherArguments(**{"teacher_name_or_path": "x", **given})


def test_nothing_of_the_students_shape_is_asked_of_a_teacher():
    student = ModelArguments(
        model_name_or_path="student", num_hidden_layers=1, hidden_size=8, model_revision="v2", trust_remote_code=True
    )
    own = teacher_model_arguments("teacher", student)
    assert own == ModelArguments(model_name_or_path="teacher", trust_remote_code=True)


def test_classifiers_are_told_from_encoders(tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path / "encoder")
    BertForSequenceClassification(BertConfig(**TINY)).save_pretrained(tmp_path / "classifier")
    model_args = ModelArguments(model_type="textcnn")
    assert not is_classifier(str(tmp_path / "encoder"), model_args)
    assert is_classifier(str(tmp_path / "classifier"), model_args)
    with pytest.raises(ConfigurationError, match=r"has no config\.json"):
        is_classifier(str(tmp_path), model_args)


def test_the_teacher_has_settings_of_its_own_and_the_student_keeps_its(tmp_path):
    student = arguments(
        tmp_path,
        label_smoothing_factor=0.2,
        optim="sgd",
        optim_args="momentum=0.5",
        eval_delay=5,
        gradient_accumulation_steps=4,
        lr_scheduler_type="slanted_triangular",
        seed=7,
    )
    before = student.to_dict()
    teacher_args = TeacherArguments(teacher_name_or_path="x", teacher_num_train_epochs=2, teacher_batch_size=16)
    own = teacher_training_arguments(student, teacher_args, tmp_path / "teacher", evaluate=True)
    assert student.to_dict() == before
    assert (own.num_train_epochs, own.max_steps, own.learning_rate) == (2, -1, 5e-5)
    assert (own.per_device_train_batch_size, own.gradient_accumulation_steps) == (16, 1)
    assert (own.label_smoothing_factor, own.optim.value, own.optim_args) == (0, "adamw_torch_fused", None)
    assert (own.lr_scheduler_type.value, own.seed, own.eval_delay) == ("linear", 7, 0)
    assert own.load_best_model_at_end and own.eval_strategy == own.save_strategy == "epoch"
    without = teacher_training_arguments(student, teacher_args, tmp_path / "teacher", evaluate=False)
    assert not without.load_best_model_at_end and without.eval_strategy == "no"


def test_a_control_that_stops_has_the_schedule_of_the_whole(tmp_path):
    whole, stopped = (
        make_trainer(control_training_arguments(arguments(tmp_path, logging_steps=1), tmp_path / name, 8), callbacks)
        for name, callbacks in (("whole", []), ("stopped", [StopAt(5)]))
    )
    whole.train(), stopped.train()
    rates = [
        [log["learning_rate"] for log in trainer.state.log_history if "loss" in log] for trainer in (whole, stopped)
    ]
    assert stopped.state.global_step == 5 and rates[1] == rates[0][:5]


def test_a_part_is_trained_once(tmp_path):
    folder, settings, made = tmp_path / "control", {"seed": 0, "steps": 8}, []

    def make(callbacks=()):
        made.append(make_trainer(arguments(folder), callbacks))
        return made[-1]

    assert train_once(folder, make, settings, resume=False)
    assert json.loads((folder / "finished.json").read_text()) == {"steps": 8}
    assert not train_once(folder, make, settings, resume=True) and len(made) == 1
    with pytest.raises(ConfigurationError, match="begun with other values of seed"):
        train_once(folder, make, {**settings, "seed": 1}, resume=True)
    # Without leave to go on it is trained anew.
    assert train_once(folder, make, settings, resume=False) and len(made) == 2


def test_an_interrupted_part_goes_on_at_its_last_checkpoint(tmp_path):
    class Steps(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    class PowerCut(Exception):
        pass

    class CutAt(StopAt):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == self.step:
                raise PowerCut

    seen, whole = [], tmp_path / "whole"
    train_once(whole, lambda: make_trainer(arguments(whole)), {}, resume=False)
    folder = tmp_path / "cut"
    with pytest.raises(PowerCut):
        train_once(folder, lambda: make_trainer(arguments(folder), [CutAt(5)]), {}, resume=False)
    assert not (folder / "finished.json").exists()

    assert train_once(folder, lambda: make_trainer(arguments(folder), [Steps()]), {}, resume=True)
    assert seen == [4, 5, 6, 7]
    one, other = (BertForSequenceClassification.from_pretrained(path).state_dict() for path in (whole, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stopped_part_ends_where_it_was_to_end(tmp_path):
    """Killed after the checkpoint of its last step, but before it was finished."""
    folder = tmp_path / "control"

    def make():
        return make_trainer(arguments(folder), [StopAt(4)])

    train_once(folder, make, {}, resume=False, last_step=4)
    before = BertForSequenceClassification.from_pretrained(folder).state_dict()
    assert (folder / "checkpoint-4").is_dir()
    (folder / "finished.json").unlink()
    assert train_once(folder, make, {}, resume=True, last_step=4)
    assert json.loads((folder / "finished.json").read_text()) == {"steps": 4}
    after = BertForSequenceClassification.from_pretrained(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
