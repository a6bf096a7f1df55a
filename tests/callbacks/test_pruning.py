import math

import optuna
import pytest
import runs
from transformers import Trainer, TrainerCallback

from hf_ext import ExtendedTrainer, GradualUnfreezingCallback, PruningCallback, UsageError

CASE = runs.Case("", model="textcnn", rows=24, epochs=3, batch_size=8, arguments={"eval_strategy": "epoch"})


class After(optuna.pruners.BasePruner):
    """Prunes at a given evaluation."""

    def __init__(self, evaluation):
        self.evaluation = evaluation

    def prune(self, study, trial):
        return trial.last_step == self.evaluation


class Ends(TrainerCallback):
    """Notes how a training goes."""

    def __init__(self):
        self.losses, self.ended = [], 0

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.losses.append(metrics["eval_loss"])

    def on_train_end(self, args, state, control, **kwargs):
        self.ended += 1


def make(tmp_path, trial, callbacks=(), trainer="extended", **arguments):
    case = CASE.but(output_dir=str(tmp_path), trainer=trainer, arguments={**CASE.arguments, **arguments})
    made = runs.make_trainer(case)
    for callback in (*callbacks, PruningCallback(trial)):
        made.add_callback(callback)
    return made


def new_trial(direction="minimize", pruner=None):
    return optuna.create_study(direction=direction, pruner=pruner or optuna.pruners.NopPruner()).ask()


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
@pytest.mark.parametrize("trainer", ["extended", "plain"])
def test_the_pruner_sees_the_loss_of_each_evaluation(tmp_path, direction, sign, trainer):
    trial, ends = new_trial(direction), Ends()
    made = make(tmp_path, trial, [ends], trainer, eval_on_start=True)
    assert type(made) is {"extended": ExtendedTrainer, "plain": Trainer}[trainer]
    made.train()
    made.evaluate()
    # Neither the one before the first step nor the one afterwards.
    reported = trial.study.trials[0].intermediate_values
    assert reported == {count: pytest.approx(sign * ends.losses[count]) for count in (1, 2, 3)}
    assert len(ends.losses) == 5


def test_a_pruned_training_ends_as_every_training_does(tmp_path):
    trial, ends = new_trial(pruner=After(2)), Ends()
    made = make(tmp_path, trial, [GradualUnfreezingCallback(unit="fraction", interval=0.4), ends])
    with pytest.raises(optuna.TrialPruned, match=r"eval_loss was .* at evaluation 2"):
        made.train()
    assert made.state.global_step == 6
    assert ends.ended == 1
    assert all(parameter.requires_grad for parameter in made.model.parameters())
    assert not any(getattr(module, "sparse", False) for module in made.model.modules())
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_is_no_pruning(tmp_path):
    trial = new_trial()
    callback = PruningCallback(trial)
    made = make(tmp_path, trial)
    callback.on_train_begin(made.args, made.state, made.control)
    made.state.global_step = 3
    callback.on_evaluate(made.args, made.state, made.control, {"eval_loss": math.nan})
    assert made.control.should_training_stop
    with pytest.raises(UsageError, match="eval_loss is nan at step 3: training has diverged"):
        callback.on_train_end(made.args, made.state, made.control)
    assert trial.study.trials[0].intermediate_values == {}


def test_without_evaluations_there_is_nothing_to_compare(tmp_path):
    with pytest.raises(UsageError, match="eval_strategy is 'no'"):
        make(tmp_path, new_trial(), eval_strategy="no").train()
