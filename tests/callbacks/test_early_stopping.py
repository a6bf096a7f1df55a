"""A run stops where a plain loop over all its evaluations says, also when it is resumed."""

import json
import math
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import Case, launch
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_ext import ConfigurationError, ExtendedTrainer, ExtensionCallback, parse_arguments
from hf_ext.callbacks.early_stopping import (
    EarlyStoppingArguments,
    EarlyStoppingThresholdCallback,
    update_reference,
)

STEPS_PER_EPOCH = 2
EPOCHS = 6
ROWS = [{"x": [float(index % 3), 1.0], "labels": float(index % 2)} for index in range(8)]
KEY = "hf_ext.EarlyStoppingThresholdCallback/eval_score"
both_trainers = pytest.mark.parametrize("trainer_class", [Trainer, ExtendedTrainer])


class Line(torch.nn.Module):
    """Two parameters, and dropout, whose random numbers show in them."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -0.25]))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, labels=None):
        logits = self.dropout(x) @ self.weight
        return {"loss": ((logits - labels) ** 2).mean(), "logits": logits}


def make_trainer(folder, values, *callbacks, trainer_class=Trainer, eval_dataset=ROWS, metric="score", **arguments):
    """A Trainer whose evaluation after step n yields `values[n]`: a number or a `dict` of metrics."""
    settings = {
        "output_dir": str(folder),
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": 4,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "disable_tqdm": True,
        **arguments,
    }

    def compute_metrics(prediction):
        value = values[trainer.state.global_step]
        return dict(value) if isinstance(value, dict) else {metric: value}

    trainer = trainer_class(
        model=Line(),
        args=TrainingArguments(**settings),
        train_dataset=ROWS,
        eval_dataset=eval_dataset,
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )
    return trainer


def watch(metric="score", **settings):
    return EarlyStoppingThresholdCallback(metric, **settings)


def script(*values):
    """Metrics by step: at 0 one that must not count, then `values`, the last of them for ever."""
    longest = EPOCHS * STEPS_PER_EPOCH + 1
    return [1000.0, *values, *[values[-1]] * (longest - len(values))]


def weights(trainer):
    return trainer.model.weight.detach().clone()


# ---- Against a loop ----


def stop_by_loop(values, patience, threshold=0.0, mode="absolute", greater=True, target=None, divergence=None, free=1):
    """The first evaluation (from 1) after which to stop, or `None`; reads the whole history anew each time."""
    values = [value if greater else -value for value in values]
    for end in range(1, len(values) + 1):
        last, now = 0, values[end - 1]
        for index in range(1, end):
            margin = threshold * abs(values[last]) if mode == "relative" else threshold
            last = index if values[index] - values[last] > margin else last
        if not math.isfinite(now) or (divergence is not None and now < (divergence if greater else -divergence)):
            return end
        reached = target is not None and now >= (target if greater else -target)
        if end >= free and (reached or end - 1 - last >= patience):
            return end
    return None


@pytest.mark.parametrize("greater", [True, False])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_the_reference_moves_as_the_loop_says(mode, greater):
    draw = random.Random(0)
    stops = set()
    for _ in range(500):
        # Eighths are exact, so gains of exactly the threshold occur.
        values = [draw.randint(-8, 16) / 8 for _ in range(12)]
        patience, threshold = draw.randint(1, 4), draw.choice([0.125, 0.25, 0.5])
        reference, count, stop = None, 0, None
        for number, value in enumerate(values, start=1):
            reference, gained = update_reference(reference, value, threshold, mode, greater)
            count = 0 if gained else count + 1
            if count >= patience:
                stop = number
                break
        assert stop == stop_by_loop(values, patience, threshold, mode, greater)
        stops.add(stop)
    assert len(stops) > 8


@both_trainers
@pytest.mark.parametrize("seed", range(16))
def test_a_run_stops_where_the_loop_says(tmp_path, trainer_class, seed):
    draw = random.Random(seed)
    by_epoch = seed % 4 == 0
    evaluations = EPOCHS if by_epoch else EPOCHS * STEPS_PER_EPOCH
    values = [draw.randint(1, 8) / 8 for _ in range(evaluations)]
    if seed % 5 == 0:
        values[draw.randrange(evaluations)] = draw.choice([math.nan, math.inf])
    greater = draw.random() < 0.5
    mode = draw.choice(["absolute", "relative"])
    settings = {
        "patience": draw.randint(1, 5),
        "threshold": draw.choice([0.125, 0.25]),
        "target": draw.choice([None, 1.0 if greater else 0.125]),
        "divergence_threshold": draw.choice([None, 0.125 if greater else 0.875]),
        "min_epochs": draw.choice([0, 1.5, 2]),
    }
    callback = watch(threshold_mode=mode, greater_is_better=greater, **settings)
    steps_an_evaluation = STEPS_PER_EPOCH if by_epoch else 1
    trainer = make_trainer(
        tmp_path,
        [0.0, *[value for value in values for _ in range(steps_an_evaluation)]],
        callback,
        trainer_class=trainer_class,
        eval_strategy="epoch" if by_epoch else "steps",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    trainer.train()
    expected = stop_by_loop(
        values,
        settings["patience"],
        settings["threshold"],
        mode,
        greater,
        settings["target"],
        settings["divergence_threshold"],
        free=math.ceil(settings["min_epochs"] * STEPS_PER_EPOCH / steps_an_evaluation),
    )
    assert (callback.stopped is not None) == (expected is not None)
    assert trainer.state.global_step == (expected or evaluations) * steps_an_evaluation


def test_slow_gains_add_up(tmp_path):
    # 0.0625 a step is never more than the threshold of 0.125; two such steps are no more either, three are.
    values = script(*[index / 16 for index in range(12)])
    trainer = make_trainer(tmp_path / "3", values, callback := watch(patience=3, threshold=0.125))
    trainer.train()
    assert callback.stopped is None
    trainer = make_trainer(tmp_path / "2", values, callback := watch(patience=2, threshold=0.125))
    trainer.train()
    assert callback.stopped == "eval_score did not gain more than 0.125 over 0 in 2 evaluations (step 3)"


# ---- Reasons ----


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops(tmp_path, value):
    callback = watch(patience=None, min_epochs=5, target=9)
    trainer = make_trainer(tmp_path, script(1, 2, value, 3), callback, save_strategy="steps", save_steps=1)
    trainer.train()
    assert callback.stopped == "eval_score is not finite (step 3)"
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"][KEY] == {
        "reference": 2.0,
        "evaluations_without_gain": 0,
        "step": 3,
        "value": None,
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"patience": 2}, "eval_score did not gain more than 0 over 3 in 2 evaluations (step 5)"),
        ({"patience": 1}, "eval_score did not gain more than 0 over 3 in 1 evaluation (step 4)"),
        ({"patience": 1, "min_epochs": 3}, "eval_score did not gain more than 0 over 3 in 3 evaluations (step 6)"),
        (
            {"patience": 1, "threshold": 0.75, "threshold_mode": "relative"},
            "eval_score did not gain more than 0.75 (relative) over 2 in 1 evaluation (step 3)",
        ),
        ({"target": 3}, "eval_score is 3 and has reached the target of 3 (step 3)"),
        ({"target": 0, "min_epochs": 2}, "eval_score is 2.5 and has reached the target of 0 (step 4)"),
        (
            {"divergence_threshold": 2.25, "target": 9, "min_epochs": 9},
            "eval_score is 1, worse than the divergence_threshold of 2.25 (step 1)",
        ),
    ],
)
def test_the_reason_is_told(tmp_path, settings, reason):
    callback = watch(**settings)
    trainer = make_trainer(tmp_path, script(1, 2, 3, 2.5, 2.5, 2.5), callback)
    trainer.train()
    assert callback.stopped == reason
    assert reason.endswith(f"(step {trainer.state.global_step})")


def test_without_patience_only_target_and_divergence_stop(tmp_path):
    callback = watch(patience=None, target=2, divergence_threshold=-2)
    make_trainer(tmp_path, script(1), callback).train()
    assert callback.stopped is None


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("accuracy", True),
        ("loss_ratio", True),
        ("space", True),
        ("ece", False),
        ("eval_ece", False),
        ("test_rmse", False),
        ("mse", False),
        ("mae", False),
        ("hamming_loss", False),
        ("closs", False),
    ],
)
def test_the_direction_follows_from_the_name(tmp_path, metric, greater):
    name = metric.removeprefix("eval_")
    trainer = make_trainer(tmp_path, script(3, 2, 1), callback := watch(metric, patience=1), metric=name, max_steps=3)
    trainer.train()
    assert (callback.stopped is not None) == greater


def test_the_direction_and_the_metric_come_from_the_arguments(tmp_path):
    arguments = {"metric_for_best_model": "score", "greater_is_better": False, "max_steps": 3}
    for metric in (None, "score", "eval_score"):
        make_trainer(tmp_path, script(3, 2, 1), callback := watch(metric, patience=1), **arguments).train()
        assert callback.stopped is None
    make_trainer(tmp_path, script(3, 2, 1), callback := watch(patience=1, greater_is_better=True), **arguments).train()
    assert callback.stopped.endswith("(step 2)")


def test_an_odd_direction_holds_for_its_own_metric_only(tmp_path):
    values = [{"margin_loss": value, "score": value} for value in script(3, 2, 1)]
    arguments = {"metric_for_best_model": "margin_loss", "greater_is_better": True, "max_steps": 3}
    make_trainer(tmp_path, values, callback := watch("margin_loss", patience=1), **arguments).train()
    assert callback.stopped.endswith("(step 2)")
    arguments = {"metric_for_best_model": "margin_loss", "greater_is_better": False, "max_steps": 3}
    make_trainer(tmp_path, values, callback := watch("score", patience=1), **arguments).train()
    assert callback.stopped.endswith("(step 2)")


def test_by_default_the_loss_is_watched(tmp_path):
    callback = EarlyStoppingThresholdCallback(divergence_threshold=0.0)
    make_trainer(tmp_path, script(1), callback).train()
    assert "eval_loss is " in callback.stopped


# ---- What counts ----


class EvaluateAt(TrainerCallback):
    """Evaluates by hand in the middle of things."""

    def __init__(self):
        self.trainer = None

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.evaluate()

    on_pre_optimizer_step = on_epoch_begin = on_train_end = on_step_begin


@pytest.mark.parametrize("on_start", [False, True])
def test_evaluating_by_hand_does_not_count(tmp_path, on_start):
    by_hand = EvaluateAt()
    trainer = make_trainer(
        tmp_path, script(2), callback := watch(patience=4), by_hand, eval_steps=2, eval_on_start=on_start
    )
    by_hand.trainer = trainer
    trainer.evaluate()
    trainer.train()
    counted = dict(trainer.state.stateful_callbacks[KEY])
    for _ in range(5):
        trainer.evaluate()
    assert trainer.state.stateful_callbacks[KEY] == counted
    assert callback.stopped == "eval_score did not gain more than 0 over 2 in 4 evaluations (step 10)"
    assert trainer.args.eval_on_start is on_start


def test_evaluating_after_training_does_not_count(tmp_path):
    class EndAtThree(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    trainer = make_trainer(tmp_path, script(2), watch(), EndAtThree(), eval_steps=2)
    trainer.train()
    trainer.evaluate()
    assert trainer.state.global_step == 3
    assert trainer.state.stateful_callbacks[KEY]["step"] == 2


def test_evaluating_twice_after_a_step_counts_once(tmp_path):
    class Again(TrainerCallback):
        def on_log(self, args, state, control, logs, **kwargs):
            if "loss" in logs:
                trainer.evaluate()
                control.should_evaluate = True

    trainer = make_trainer(tmp_path, script(2), callback := watch(patience=4), Again())
    trainer.train()
    assert len([log for log in trainer.state.log_history if "eval_score" in log and log["step"] == 5]) == 2
    assert callback.stopped.endswith("in 4 evaluations (step 5)")


@both_trainers
def test_several_evaluation_sets(tmp_path, trainer_class):
    trainer = make_trainer(
        tmp_path,
        script(2, 1),
        callback := watch("eval_b_score", patience=3),
        trainer_class=trainer_class,
        eval_dataset={"a": ROWS, "b": ROWS[:3], "c": ROWS},
    )
    trainer.train()
    assert callback.stopped == "eval_b_score did not gain more than 0 over 2 in 3 evaluations (step 4)"


def test_an_evaluation_of_other_rows_does_not_disturb(tmp_path):
    class EvaluateTraining(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            planned = control.should_evaluate
            trainer.evaluate(ROWS, metric_key_prefix="train")
            control.should_evaluate = planned

    trainer = make_trainer(
        tmp_path, script(2, 1), callback := watch(patience=2), EvaluateTraining(), eval_strategy="epoch"
    )
    trainer.train()
    assert callback.stopped.endswith("in 2 evaluations (step 6)")


def test_two_callbacks_on_two_metrics(tmp_path):
    values = [{"score": 1.0, "ece": 1.0 - step / 100} for step in range(EPOCHS * STEPS_PER_EPOCH + 1)]
    values[4]["ece"] = values[5]["ece"] = 1.0
    score, ece = watch(patience=9), watch("ece", patience=2)
    trainer = make_trainer(tmp_path, values, score, ece, trainer_class=ExtendedTrainer)
    trainer.train()
    assert (score.stopped, trainer.state.global_step) == (None, 5)
    assert ece.stopped == "eval_ece did not gain more than 0 over 0.97 in 2 evaluations (step 5)"
    logs = [log for log in trainer.state.log_history if "loss" in log]
    # A step is logged before it is evaluated.
    assert [log["early_stopping/eval_score/evaluations_without_gain"] for log in logs] == [0, 0, 1, 2, 3]
    assert [log.get("early_stopping/eval_ece/reference") for log in logs] == [None, 0.99, 0.98, 0.97, 0.97]
    assert [log["early_stopping/eval_ece/evaluations_without_gain"] for log in logs] == [0, 0, 0, 0, 1]


def test_a_callback_starts_anew_with_every_training(tmp_path):
    callback = watch(patience=3)
    for run in ("first", "second"):
        trainer = make_trainer(tmp_path / run, script(2), callback)
        trainer.train()
        assert callback.stopped.endswith("in 3 evaluations (step 4)")
    trainer.train()
    assert trainer.state.global_step == 4


@both_trainers
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_not_stopped_is_the_run_without_the_callback(tmp_path, trainer_class, workers):
    ends = []
    for callbacks in ([], [watch(patience=99), watch("loss", patience=99)]):
        trainer = make_trainer(
            tmp_path, script(1), *callbacks, trainer_class=trainer_class, dataloader_num_workers=workers, max_steps=5
        )
        trainer.train()
        ends.append(weights(trainer))
    assert torch.equal(*ends)
    assert trainer.args.eval_on_start is False


# ---- Resume ----


@both_trainers
@pytest.mark.parametrize("restore", [False, True])
def test_resumed_from_any_checkpoint_it_stops_at_the_same_step(tmp_path, trainer_class, restore):
    values = script(1, 4, 1, 5, 1, 5, 1, 5, 1, 4.5)

    def make():
        # The patience ends at step 8, the epochs to wait for at step 9, the next evaluation is at step 10.
        callback = watch(patience=2, threshold=0.5, min_epochs=4.5)
        trainer = make_trainer(
            tmp_path,
            values,
            callback,
            trainer_class=trainer_class,
            eval_steps=2,
            save_strategy="steps",
            save_steps=1,
            restore_callback_states_from_checkpoint=restore,
        )
        return trainer, callback

    whole, callback = make()
    whole.train()
    reason = "eval_score did not gain more than 0.5 over 5 in 3 evaluations (step 10)"
    assert (whole.state.global_step, callback.stopped) == (10, reason)
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 10
    counts = [
        json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"][KEY][
            "evaluations_without_gain"
        ]
        for checkpoint in checkpoints
    ]
    assert counts == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]
    for checkpoint in checkpoints:
        trainer, callback = make()
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert callback.stopped == reason, checkpoint
        # After the stop, the plain Trainer makes one step before it looks whether to.
        one_more = trainer_class is Trainer and checkpoint.name == "checkpoint-10"
        assert trainer.state.global_step == (11 if one_more else 10)
        assert trainer.state.stateful_callbacks[KEY] == whole.state.stateful_callbacks[KEY]
        assert any(stored is callback for stored in trainer.callback_handler.callbacks)
        if checkpoint.name != "checkpoint-10":
            assert torch.equal(weights(trainer), weights(whole))


def test_a_stopped_run_goes_on_with_more_patience(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, script(1), watch(patience=2), **arguments).train()
    for patience, reason in ((2, "in 2 evaluations (step 3)"), (5, "in 5 evaluations (step 6)")):
        trainer = make_trainer(tmp_path, script(1), callback := watch(patience=patience), **arguments)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert callback.stopped.endswith(reason)


def test_a_divergence_is_remembered(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 1}
    for value in (math.nan, -1.0):
        folder = tmp_path / str(value)
        make_trainer(folder, script(1, value), watch(divergence_threshold=0), **arguments).train()
        trainer = make_trainer(folder, script(1, 2), callback := watch(divergence_threshold=0), **arguments)
        trainer.train(resume_from_checkpoint=True)
        assert callback.stopped.endswith("(step 2)")
        assert trainer.state.global_step == 3


@pytest.mark.parametrize("restore", [False, True])
def test_a_checkpoint_made_without_the_callback(tmp_path, restore):
    arguments = {
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 8,
        "restore_callback_states_from_checkpoint": restore,
    }
    make_trainer(tmp_path, script(1), **{**arguments, "max_steps": 3}).train()
    trainer = make_trainer(tmp_path, script(1), callback := watch(patience=2), **arguments)
    trainer.train(resume_from_checkpoint=True)
    assert callback.stopped.endswith("in 2 evaluations (step 6)")


@pytest.mark.parametrize("restore", [False, True])
def test_a_checkpoint_resumed_without_the_callback(tmp_path, restore):
    arguments = {"save_strategy": "steps", "save_steps": 1, "restore_callback_states_from_checkpoint": restore}
    make_trainer(tmp_path, script(1), watch(patience=2), **arguments).train()
    trainer = make_trainer(tmp_path, script(1), **arguments)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == EPOCHS * STEPS_PER_EPOCH


@both_trainers
def test_the_best_weights_come_back(tmp_path, trainer_class):
    trainer = make_trainer(
        tmp_path,
        script(1, 2, 4, 3, 2, 1),
        callback := EarlyStoppingThresholdCallback(patience=3),
        trainer_class=trainer_class,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    trainer.train()
    assert callback.stopped.endswith("in 3 evaluations (step 6)")
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-3"
    short = make_trainer(tmp_path / "short", script(1), trainer_class=trainer_class, max_steps=3)
    short.train()
    assert torch.equal(weights(trainer), weights(short))
    longer = make_trainer(tmp_path / "longer", script(1), trainer_class=trainer_class, max_steps=6)
    longer.train()
    assert not torch.equal(weights(trainer), weights(longer))


# ---- Mistakes ----


@both_trainers
@pytest.mark.parametrize(
    ("metric", "eval_dataset", "message"),
    [
        ("scroe", ROWS, r"'eval_scroe'.*Did you mean 'eval_score'\? Valid: eval_loss, .*eval_score, "),
        ("table", ROWS, r"'eval_table'.*Valid: eval_loss, .*eval_score, "),
        ("flag", ROWS, "'eval_flag'"),
        (None, {"a": ROWS, "b": ROWS}, r"'eval_loss'.*Did you mean 'eval_._loss'\? Valid: .*eval_b_loss, "),
    ],
)
def test_a_mistyped_metric_fails_before_training(tmp_path, trainer_class, metric, eval_dataset, message):
    values = [{"score": 1.0, "table": [1.0], "flag": True}]
    trainer = make_trainer(tmp_path, values, watch(metric), trainer_class=trainer_class, eval_dataset=eval_dataset)
    before = weights(trainer)
    with pytest.raises(ConfigurationError, match=message) as error:
        trainer.train()
    assert "eval_table," not in str(error.value) and "eval_flag," not in str(error.value)
    assert trainer.state.global_step == 0
    assert torch.equal(weights(trainer), before)
    assert not trainer.optimizer.state
    assert trainer.args.eval_on_start is False


def test_on_resume_a_mistyped_metric_fails_after_the_first_evaluation(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, script(1), max_steps=3, **arguments).train()
    trainer = make_trainer(tmp_path, script(1), watch("scroe"), eval_steps=2, **arguments)
    with pytest.raises(ConfigurationError, match="Did you mean 'eval_score'"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4


def test_a_hyperparameter_search_is_not_evaluated_before_training(tmp_path):
    class Search(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            state.is_hyper_param_search = True

    trainer = make_trainer(tmp_path, script(1), Search(), watch("scroe"))
    with pytest.raises(ConfigurationError, match="Did you mean 'eval_score'"):
        trainer.train()
    assert [log["step"] for log in trainer.state.log_history if "eval_loss" in log] == [1]


def test_a_run_that_does_not_evaluate_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, script(1), watch(), eval_strategy="no")
    with pytest.raises(ConfigurationError, match="eval_strategy is 'no'"):
        trainer.train()


@pytest.mark.parametrize("metrics", [("score", "eval_score"), (None, "loss")])
def test_two_callbacks_on_one_metric_are_refused(tmp_path, metrics):
    trainer = make_trainer(tmp_path, script(1), *map(watch, metrics))
    with pytest.raises(ConfigurationError, match="Two early stopping callbacks watch"):
        trainer.train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience is 0; it must be a whole number of at least 1"),
        ({"patience": 2.0}, "patience is 2.0"),
        ({"patience": True}, "patience is True"),
        ({"threshold": -0.1}, "threshold is -0.1; it must be a finite number of at least 0"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"threshold": "0.1"}, "threshold is '0.1'"),
        ({"threshold": None}, "threshold is None"),
        ({"min_epochs": -1}, "min_epochs is -1"),
        ({"min_epochs": math.inf}, "min_epochs is inf"),
        ({"target": math.inf}, "target is inf; it must be a finite number, or left out"),
        ({"divergence_threshold": math.nan}, "divergence_threshold is nan"),
        ({"threshold_mode": "percent"}, "threshold_mode is 'percent'; it must be one of absolute, relative"),
        ({"threshold_mode": "relative"}, "no effect with threshold=0"),
        ({"threshold": 0.1, "patience": None}, "threshold=0.1 has no effect with patience=None"),
        ({"min_epochs": 2, "patience": None}, "min_epochs=2 holds back patience and target only"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        watch(**settings)


@pytest.mark.parametrize(("greater", "target"), [(True, 1.0), (True, 0.5), (False, 3.0), (False, 1.0)])
def test_a_target_worse_than_the_divergence_threshold_is_refused(tmp_path, greater, target):
    callback = watch(target=target, divergence_threshold=1.0, greater_is_better=greater)
    with pytest.raises(ConfigurationError, match=f"target={target} must be better than divergence_threshold=1.0"):
        make_trainer(tmp_path, script(1), callback).train()


def test_a_direction_that_the_arguments_guessed_wrongly_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, script(1), watch(None), metric="ece", metric_for_best_model="ece")
    with pytest.raises(ConfigurationError, match="Pass greater_is_better=False to TrainingArguments"):
        trainer.train()
    make_trainer(
        tmp_path, script(1), watch(None), metric="ece", metric_for_best_model="ece", greater_is_better=False
    ).train()


# ---- Several processes ----


class OtherLossOnRankOne(TrainerCallback):
    """Makes the ranks disagree: rank 0 sees a loss that falls, rank 1 one that does not."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_loss"] = 1.0 if args.process_index else 1.0 / (1 + min(state.global_step, 2))


def test_all_processes_do_what_rank_zero_sees(tmp_path):
    case = Case(
        output_dir=str(tmp_path),
        batch_size=2,
        callbacks=(OtherLossOnRankOne, partial(EarlyStoppingThresholdCallback, patience=3)),
        arguments={"eval_strategy": "steps", "eval_steps": 1},
    )
    reports = launch(case, world_size=2)
    assert [report.get("error") for report in reports] == [None, None]
    assert [report["steps"] for report in reports] == [5, 5]
    for report in reports:
        assert report["logs"][-1]["early_stopping/eval_loss/reference"] == 1 / 3


def test_a_mistyped_metric_ends_all_processes(tmp_path):
    case = Case(
        output_dir=str(tmp_path),
        callbacks=(partial(EarlyStoppingThresholdCallback, "los"),),
        arguments={"eval_strategy": "epoch"},
    )
    for report in launch(case, world_size=2):
        assert "Did you mean 'eval_loss'?" in report["error"]


# ---- The command line ----


def test_nothing_is_stopped_unasked():
    assert EarlyStoppingArguments().callbacks() == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--early_stopping_patience 2", {"patience": 2, "threshold": 0.0}),
        ("--early_stopping_threshold 0.01", {"patience": 3, "threshold": 0.01}),
        ("--early_stopping_threshold 0", {"patience": 3, "threshold": 0.0}),
        ("--early_stopping_target 0.9", {"patience": None, "target": 0.9}),
        ("--early_stopping_divergence_threshold 9", {"patience": None, "divergence_threshold": 9.0}),
        ("--early_stopping_target 0.9 --early_stopping_patience 4", {"patience": 4, "target": 0.9}),
        (
            "--early_stopping_threshold 0.1 --early_stopping_threshold_mode relative --early_stopping_metric mcc "
            "--early_stopping_min_epochs 1.5",
            {"threshold_mode": "relative", "metric": "mcc", "min_epochs": 1.5},
        ),
    ],
)
def test_flags_become_a_callback(flags, expected):
    (arguments,) = parse_arguments([EarlyStoppingArguments], flags.split(), "")
    (callback,) = arguments.callbacks()
    assert isinstance(callback, ExtensionCallback)
    assert {name: getattr(callback, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--early_stopping_threshold_mode relative", "early_stopping_threshold_mode: no effect without"),
        ("--early_stopping_metric loss --early_stopping_min_epochs 2", "early_stopping_metric, early_stopping_min"),
        ("--early_stopping_threshold_mode relative --early_stopping_patience 2", "no effect with threshold=0"),
        ("--early_stopping_min_epochs 2 --early_stopping_divergence_threshold 2", "min_epochs=2.0 holds back"),
        ("--early_stopping_patience 0", "patience is 0"),
    ],
)
def test_flags_without_effect_are_refused(flags, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_arguments([EarlyStoppingArguments], flags.split(), "")
