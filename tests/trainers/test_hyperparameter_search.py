"""`Trainer.hyperparameter_search` on an ExtendedTrainer: each trial is a run of its own."""

import copy

import optuna
import pytest
import runs
import torch
from transformers import Trainer

from hf_ext import (
    CurriculumCallback,
    CurriculumScheduler,
    DiscriminativeLearningRateCallback,
    EarlyStoppingThresholdCallback,
    ExtendedTrainer,
    GradualUnfreezingCallback,
)

CASE = runs.Case("", model="textcnn", rows=32, epochs=3, batch_size=8, dropout=0.1, sampling="random")


def techniques():
    return [
        GradualUnfreezingCallback(unit="steps", interval=2),
        DiscriminativeLearningRateCallback(layerwise_lr_decay=2.0),
        CurriculumCallback("length", CurriculumScheduler(num_epochs=2)),
        EarlyStoppingThresholdCallback(metric="loss", patience=1, threshold=100.0),
    ]


def searching_trainer(tmp_path, callbacks=(), trainer_class=ExtendedTrainer, sparse=None, case=CASE, **arguments):
    case = case.but(output_dir=str(tmp_path), arguments={"eval_strategy": "epoch", **arguments})
    args = runs.make_trainer(case).args
    rows = runs.make_rows(case)
    return trainer_class(
        model_init=lambda: runs.make_model(case),
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=runs.collate,
        callbacks=list(callbacks),
        **({"sparse_embeddings": sparse} if trainer_class is ExtendedTrainer else {}),
    )


class Losses:
    """The loss of every step of every trial, and what each trial's optimizer was."""

    def __init__(self, trainer):
        self.trials, self.optimizers, self.args = [], [], []
        plain_train, plain_step = trainer.train, trainer.training_step

        def train(*args, **kwargs):
            self.trials.append([])
            try:
                return plain_train(*args, **kwargs)
            finally:
                self.optimizers.append(trainer.optimizer)
                self.args.append(copy.deepcopy(trainer.args))
                self.history = trainer.state.log_history

        def step(*args, **kwargs):
            loss = plain_step(*args, **kwargs)
            self.trials[-1].append(loss.item())
            return loss

        trainer.train, trainer.training_step = train, step


class InOrder(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.choices[trial.number]


def search(trainer, space, **kwargs):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ((name, values),) = space.items()
    seen = Losses(trainer)
    best = trainer.hyperparameter_search(
        lambda trial: {name: trial.suggest_categorical(name, values)},
        direction="minimize",
        backend="optuna",
        n_trials=len(values),
        sampler=InOrder(),
        **kwargs,
    )
    return best, seen


@pytest.mark.parametrize("callbacks", [list, techniques], ids=["plain", "techniques"])
def test_a_trial_is_what_a_trainer_of_its_own_would_do(tmp_path, callbacks):
    rates = [1e-3, 1e-2, 3e-2]
    trainer = searching_trainer(tmp_path, callbacks())
    best, seen = search(trainer, {"learning_rate": rates})
    assert len(seen.trials) == 3
    for losses, args in zip(seen.trials, seen.args, strict=True):
        alone = searching_trainer(tmp_path, callbacks(), learning_rate=args.learning_rate)
        apart = Losses(alone)
        # Early stopping looks at the start only where no search is under way; it changes no step.
        alone.train()
        assert losses == apart.trials[0]
    assert len({id(optimizer) for optimizer in seen.optimizers}) == 3
    assert best.hyperparameters["learning_rate"] in rates


def test_another_optimizer_in_the_next_trial(tmp_path):
    """The large embedding is updated sparsely by AdamW only; clipping has to know what each trial does."""
    trainer = searching_trainer(tmp_path)
    _, seen = search(trainer, {"optim": ["adamw_torch", "sgd"]})
    kinds = {
        args.optim.value: type(getattr(o, "optimizer", o)) for args, o in zip(seen.args, seen.optimizers, strict=True)
    }
    assert {name: kind.__name__ for name, kind in kinds.items()} == {"adamw_torch": "SparseAdamW", "sgd": "SGD"}
    for losses, args in zip(seen.trials, seen.args, strict=True):
        alone = searching_trainer(tmp_path, optim=args.optim.value)
        apart = Losses(alone)
        alone.train()
        assert losses == apart.trials[0]
        assert bool(alone._sparse_modules) == (args.optim.value == "adamw_torch")
    assert not trainer._sparse_modules


def test_a_pruned_trial_leaves_nothing_to_the_next(tmp_path):
    class First(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 0

    trainer = searching_trainer(tmp_path, techniques())
    _, seen = search(trainer, {"learning_rate": [1e-3, 1e-2]}, pruner=First())
    assert len(seen.trials[0]) == 4
    alone = searching_trainer(tmp_path, techniques(), learning_rate=seen.args[1].learning_rate)
    apart = Losses(alone)
    alone.train()
    assert seen.trials[1] == apart.trials[0]


def test_the_best_value_is_that_of_the_plain_trainer_where_no_technique_is_used(tmp_path):
    """Without accumulation both train on the same loss."""
    rates = {"learning_rate": [1e-3, 1e-2]}
    ours, _ = search(searching_trainer(tmp_path, sparse=False), rates)
    theirs, _ = search(searching_trainer(tmp_path, trainer_class=Trainer), rates)
    assert ours.hyperparameters == theirs.hyperparameters
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-5)


def test_ddp_still_expects_frozen_parameters_in_a_trial(tmp_path):
    """Every trial has an accelerator of its own, and activation checkpointing leaves it out by default."""
    case = CASE.but(model="bert", rows=8, epochs=1, batch_size=2)
    trainer = searching_trainer(
        tmp_path,
        [GradualUnfreezingCallback(unit="fraction", interval=0.25)],
        case=case,
        activation_checkpointing=True,
    )
    search(trainer, {"learning_rate": [1e-3]})
    assert trainer.accelerator.ddp_handler.find_unused_parameters


def test_batch_sizes_are_searched(tmp_path):
    _, seen = search(searching_trainer(tmp_path), {"per_device_train_batch_size": [4, 16]})
    assert [len(losses) for losses in seen.trials] == [24, 6]


def test_random_states_do_not_pass_from_trial_to_trial(tmp_path):
    trainer = searching_trainer(tmp_path)
    torch.manual_seed(123)
    _, seen = search(trainer, {"learning_rate": [1e-3, 1.0000001e-3]})
    assert seen.trials[0][0] == seen.trials[1][0]
