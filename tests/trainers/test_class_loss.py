"""What a trainer refuses to weigh. That the losses are right is in `tests/contracts/test_class_loss.py`."""

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, TrainingArguments

from hf_ext import ConfigurationError, ExtendedTrainer, LossArguments

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
LABELS = {SINGLE: [0, 1, 2, 0], MULTI: [[1.0, 0.0, 0.0]] * 4, REGRESSION: [0.1, 0.2, 0.3, 0.4], None: [0, 1, 2, 0]}


@pytest.fixture
def make_trainer(tmp_path):
    def make(
        problem_type=SINGLE, trainer=ExtendedTrainer, model_class=BertForSequenceClassification, rows=None, **more
    ):
        config = BertConfig(
            vocab_size=10,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            num_labels=1 if problem_type == REGRESSION else 3,
            problem_type=problem_type,
        )
        if rows is None:
            rows = Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6], [7, 8]], "labels": LABELS[problem_type]})
        smoothing = more.pop("label_smoothing_factor", 0.0)
        args = TrainingArguments(
            str(tmp_path), use_cpu=True, label_smoothing_factor=smoothing, max_steps=1, disable_tqdm=True
        )
        return trainer(model=model_class(config), args=args, train_dataset=rows, **more)

    return make


class OwnLoss(ExtendedTrainer):
    def batch_loss(self, model, inputs):
        outputs = model(**inputs)
        return outputs.loss, outputs


def stream():
    yield {"input_ids": [1, 2], "labels": 0}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"class_weights": {"LABEL_3": 2.0}}, "names LABEL_3; the classes are LABEL_0, LABEL_1, LABEL_2"),
        ({"class_weights": "balanced", "problem_type": REGRESSION}, "class_weights is balanced, but .*regression"),
        ({"focal_gamma": 2.0, "problem_type": REGRESSION}, "focal_gamma is 2.0, but .*regression"),
        (
            {"label_smoothing_factor": 0.1, "problem_type": REGRESSION},
            "label_smoothing_factor is 0.1, but .*regression",
        ),
        ({"focal_gamma": -1.0}, "focal_gamma is -1.0; it must be a number of at least 0"),
        ({"focal_gamma": float("inf")}, "focal_gamma is inf"),
        ({"focal_gamma": 2.0, "trainer": OwnLoss}, "focal_gamma is 2.0, but the loss is that of OwnLoss.batch_loss"),
        ({"class_weights": [1, 2, 3], "trainer": OwnLoss}, "but the loss is that of OwnLoss.batch_loss"),
        ({"focal_gamma": 2.0, "compute_loss_func": len}, "the loss is that of compute_loss_func"),
        (
            {"focal_gamma": 2.0, "model_class": BertForTokenClassification, "problem_type": None},
            "BertForTokenClassification is no sequence classifier",
        ),
        ({"class_weights": "balanced", "rows": IterableDataset.from_generator(stream)}, "rows of a stream cannot be"),
        (
            {"class_weights": "balanced", "rows": Dataset.from_dict({"input_ids": [[1]]})},
            "no column 'labels'.*input_ids",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(make_trainer, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        make_trainer(**settings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, None])
def test_a_stream_can_be_focussed_and_smoothed(make_trainer, problem_type):
    rows = None if problem_type is None else IterableDataset.from_generator(stream)
    trainer = make_trainer(problem_type, rows=rows, focal_gamma=2.0, label_smoothing_factor=0.1)
    assert trainer.label_smoother is None
    assert (trainer.class_loss.problem_type, trainer.class_loss.label_smoothing) == (problem_type or SINGLE, 0.1)


def test_without_training_rows_an_evaluation_is_not_smoothed_either(make_trainer, tmp_path):
    trainer = make_trainer(label_smoothing_factor=0.5)
    rows = trainer.train_dataset
    args = TrainingArguments(str(tmp_path / "other"), use_cpu=True, label_smoothing_factor=0.5, disable_tqdm=True)
    losses = [
        ExtendedTrainer(trainer.model, args, train_dataset=given, eval_dataset=rows).evaluate()["eval_loss"]
        for given in (rows, None)
    ]
    assert losses[0] == pytest.approx(losses[1])


def test_nothing_asked_is_the_models_own_loss(make_trainer):
    assert make_trainer().class_loss is None
    assert make_trainer().loss_notes() == []


def test_the_notes_name_the_weights(make_trainer):
    (note,) = make_trainer(class_weights={"LABEL_1": 5.0}, focal_gamma=2.0).loss_notes()
    assert "LABEL_0 0.5, LABEL_1 2.5, LABEL_2 0.5" in note
    assert "focal loss with gamma 2" in note
    assert "eval_loss and test_loss are the plain loss" in note
    (note,) = make_trainer(MULTI, class_weights=[3.0, 1.0, 1.0]).loss_notes()
    assert note.startswith("Trained with class weights where the class is present")


@pytest.mark.parametrize("form", ["list of rows", "torch format", "label"])
def test_labels_are_found_in_every_form(make_trainer, form):
    rows = Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6], [7, 8]], "labels": LABELS[SINGLE]})
    rows = {"list of rows": list(rows), "torch format": rows.with_format("torch")}.get(
        form, rows.rename_column("labels", "label")
    )
    weights = make_trainer(class_weights="balanced", rows=rows).class_loss.weights
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 4 / 3, 4 / 3]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("balanced", "balanced"), ('{"a": 2}', {"a": 2}), ("[1, 2.5]", [1, 2.5]), ({"a": 2}, {"a": 2}), (None, None)],
)
def test_weights_from_a_command_line(given, expected):
    assert LossArguments(class_weights=given).trainer_settings() == {"class_weights": expected, "focal_gamma": 0.0}


def test_arguments_that_do_not_fit():
    with pytest.raises(ConfigurationError, match="class_weights is 'blanced'; it must be balanced, an object"):
        LossArguments(class_weights="blanced")
    with pytest.raises(ConfigurationError, match="focal_gamma is -2"):
        LossArguments(focal_gamma=-2)
    with pytest.raises(ConfigurationError, match="names c; the classes are a, b"):
        LossArguments(class_weights={"c": 1.0}).check(SINGLE, ["a", "b"])
    for arguments, smoothing in ((LossArguments(class_weights="balanced"), 0), (LossArguments(), 0.1)):
        with pytest.raises(ConfigurationError, match="what is predicted is a number"):
            arguments.check(REGRESSION, ["value"], smoothing)
