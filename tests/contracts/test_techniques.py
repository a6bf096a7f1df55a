"""Every technique through what the package promises: exact effect, resume, accumulation, processes, compilation."""

import inspect
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import Case, assert_same_weights, launch, left_by_a_kill, make_model, saved_before, train
from transformers import TrainerCallback

import hf_ext
from hf_ext import (
    CurriculumCallback,
    CurriculumScheduler,
    DiscriminativeLearningRateCallback,
    EarlyStoppingThresholdCallback,
    ExtensionCallback,
    GradientMonitorCallback,
    GradualUnfreezingCallback,
    TrainingHintsCallback,
    layer_groups,
)

STEPS = 12  # 64 rows in batches of 16, 3 epochs: epochs end at steps 4, 8 and 12.
EVALUATE = {"eval_strategy": "steps", "eval_steps": 2}
NEVER_ENOUGH = {"metric": "eval_loss", "patience": 3, "threshold": 100.0}


@dataclass(frozen=True)
class Technique:
    """How the contracts use a technique, and what it should do."""

    callbacks: tuple
    # Step -> layer groups that it trains (of BERT with two layers), from that step on.
    trained: dict[int, tuple[str, ...]]
    logged: tuple[str, ...]
    steps: int = STEPS
    plain: bool = False
    dropout: float = 0.0
    sampling: str = "sequential"
    arguments: dict = field(default_factory=dict)

    @property
    def boundaries(self) -> list[int]:
        return [step for step in self.trained if step]


ALL = ("embeddings", "layer.0", "layer.1", "head")
ONE_BY_ONE = {0: ALL[3:], 3: ALL[2:], 6: ALL[1:], 9: ALL}
UNFREEZING_LOGS = ("unfreezing/depth", "unfreezing/trainable_parameters")
RATE_LOGS = tuple(f"learning_rate/{group}" for group in ALL)
CURRICULUM_LOGS = ("curriculum/difficulty", "curriculum/rows")
STOPPING_LOGS = ("early_stopping/eval_loss/reference", "early_stopping/eval_loss/evaluations_without_gain")

MONITOR_LOGS = tuple(f"grad_norm/{group}" for group in ALL)

unfreeze = partial(GradualUnfreezingCallback, unit="steps", interval=3)
unfreeze_in_eval_mode = partial(GradualUnfreezingCallback, unit="fraction", interval=0.25, frozen_eval_mode=True)
discriminate = partial(DiscriminativeLearningRateCallback, layerwise_lr_decay=2.6, scales={"embeddings": 0})
# Epochs draw from 30 %, 65 % and all of the rows.
easy_first = partial(CurriculumCallback, scheduler=CurriculumScheduler(num_epochs=2))
rare_words_first = partial(CurriculumCallback, "rarity", CurriculumScheduler(0.2, 1.0, 2, "root"), mode="anti")
stop_early = partial(EarlyStoppingThresholdCallback, **NEVER_ENOUGH)
watch, give_hints = partial(GradientMonitorCallback), partial(TrainingHintsCallback)

TECHNIQUES = {
    "unfreezing": Technique((unfreeze,), ONE_BY_ONE, UNFREEZING_LOGS, plain=True),
    "unfreezing, frozen modules in eval mode": Technique(
        (unfreeze_in_eval_mode,), ONE_BY_ONE, UNFREEZING_LOGS, plain=True, dropout=0.1
    ),
    "discriminative learning rates": Technique((discriminate,), {0: ALL[1:]}, RATE_LOGS),
    "slanted triangular": Technique(
        (discriminate,), {0: ALL[1:]}, RATE_LOGS, arguments={"lr_scheduler_type": "slanted_triangular"}
    ),
    "cyclical triangular": Technique(
        (discriminate,), {0: ALL[1:]}, RATE_LOGS, arguments={"lr_scheduler_type": "cyclical_triangular"}
    ),
    # The first evaluation sets the reference, the next three gain nothing.
    "early stopping": Technique((stop_early,), {0: ALL}, STOPPING_LOGS, steps=8, plain=True, arguments=EVALUATE),
    "curriculum": Technique((easy_first,), {0: ALL}, CURRICULUM_LOGS),
    "curriculum with unfreezing and length grouping": Technique(
        (rare_words_first, unfreeze), ONE_BY_ONE, CURRICULUM_LOGS + UNFREEZING_LOGS, sampling="group_by_length"
    ),
    "monitors": Technique((watch, give_hints), {0: ALL}, MONITOR_LOGS, plain=True),
    "all together": Technique(
        (unfreeze, discriminate, stop_early, easy_first),
        {0: ALL[3:], 3: ALL[2:], 6: ALL[1:]},
        UNFREEZING_LOGS + RATE_LOGS + STOPPING_LOGS + CURRICULUM_LOGS,
        steps=8,
        dropout=0.1,
        arguments={**EVALUATE, "lr_scheduler_type": "slanted_triangular"},
    ),
}
# Tests of one technique share runs, so one worker makes them.
each_technique = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in TECHNIQUES]
)


def test_every_callback_is_covered():
    exported = {
        value
        for value in vars(hf_ext).values()
        if inspect.isclass(value) and issubclass(value, TrainerCallback) and value is not ExtensionCallback
    }
    # One begins a recipe's writing, the other ends a trial of a study: neither changes how a model is trained.
    exported -= {hf_ext.StartOfRun, hf_ext.PruningCallback}
    covered = {callback.func for technique in TECHNIQUES.values() for callback in technique.callbacks}
    assert covered == exported
    assert len(covered) == 6


def case_of(name: str, output_dir) -> Case:
    technique = TECHNIQUES[name]
    return Case(
        output_dir=str(output_dir),
        rows=64,
        epochs=3,
        sampling=technique.sampling,
        callbacks=technique.callbacks,
        dropout=technique.dropout,
        arguments=technique.arguments,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of one process that others are compared with, each made once."""
    reports = {}

    def report_of(name: str, **changes) -> dict:
        key = (name, *changes.items())
        if key not in reports:
            reports[key] = train(case_of(name, tmp_path_factory.mktemp("run")).but(**changes))
        return reports[key]

    return report_of


@pytest.mark.parametrize("trainer", ["extended", "plain"])
@each_technique
def test_expected_parameters_move_and_no_others(tmp_path, trained, name, trainer):
    technique = TECHNIQUES[name]
    if trainer == "plain" and not technique.plain:
        (report,) = launch(case_of(name, tmp_path).but(trainer="plain", arguments={}))
        assert "hf_ext.ExtendedTrainer" in report["error"]
        return
    case = case_of(name, tmp_path).but(trainer=trainer)
    report = trained(name) if trainer == "extended" else train(case)
    groups = layer_groups(make_model(case))
    assert report["steps"] == len(report["moved"]) == technique.steps
    for step, moved in enumerate(report["moved"]):
        trained = technique.trained[max(begin for begin in technique.trained if begin <= step)]
        assert set(moved) == {parameter for group in trained for parameter in groups[group]}, f"step {step}"


def rows_in_order(report: dict) -> list[int]:
    return [row for batch in report["batches"] for row in batch]


def kills(name: str) -> list[int]:
    """Just before and just after each stage begins, and inside an epoch."""
    technique = TECHNIQUES[name]
    around = [step for boundary in technique.boundaries for step in (boundary, boundary + 1)]
    return sorted({step for step in [*around, 6] if step < technique.steps})


@pytest.mark.parametrize("world_size", [1, 2])
@each_technique
def test_killed_and_resumed_is_uninterrupted(tmp_path, name, world_size):
    case = case_of(name, tmp_path / "whole").but(batch_size=16 // world_size, save_steps=1)
    if case.sampling == "sequential":
        case = case.but(sampling="random")
    whole = train(case, world_size)
    steps = kills(name) if world_size == 1 else kills(name)[::2]
    for step in steps:
        killed = case.but(output_dir=str(tmp_path / f"killed-{step}"))
        # The kill comes before the step's checkpoint is written.
        if step == steps[0]:
            resumed = train(left_by_a_kill(killed, case, step, world_size), world_size)
        else:
            resumed = train(saved_before(killed, case, step), world_size)
        assert resumed["digests"] == whole["digests"][step - 1 :], f"killed at step {step}"
        assert resumed["batches"] == whole["batches"][step - 1 :]
        assert resumed["steps"] == whole["steps"]
        assert_same_weights(whole, resumed)


@pytest.mark.parametrize("model", ["bert", "textcnn"])
@each_technique
def test_accumulation_changes_nothing(tmp_path, trained, name, model):
    # Dropout draws other numbers for other batches.
    changes = {"model": model, "dropout": 0.0, "sparse": False}
    whole = trained(name, **changes)
    parts = train(case_of(name, tmp_path).but(**changes, batch_size=4, accumulation=4))
    assert rows_in_order(whole) == rows_in_order(parts)
    assert whole["steps"] == parts["steps"]
    assert whole["moved"] == parts["moved"]
    assert_same_weights(whole, parts, rtol=1e-3, atol=1e-5)


@each_technique
def test_two_processes_are_one(tmp_path, trained, name):
    # Unfreezing on several processes updates embeddings densely.
    changes = {"model": "bert", "dropout": 0.0, "sparse": False}
    one, two = trained(name, **changes), train(case_of(name, tmp_path).but(**changes, batch_size=8), world_size=2)
    assert one["steps"] == two["steps"]
    assert one["moved"] == two["moved"]
    assert_same_weights(one, two, rtol=1e-3, atol=1e-5)


def score_by_process(rows) -> list[float]:
    return [float(row if os.environ["RANK"] == "0" else -row) for row in range(len(rows))]


def test_processes_that_score_rows_differently_are_refused(tmp_path):
    case = case_of("curriculum", tmp_path).but(callbacks=(partial(CurriculumCallback, score_by_process),))
    for report in launch(case, 2):
        assert "have different difficulties for the same rows" in report["error"]


@each_technique
def test_compiled_is_the_same(tmp_path, trained, name):
    # Tracing a BERT takes most of a minute at four stages: once is enough.
    changes = {"model": "bert" if name == "unfreezing" else "textcnn", "dropout": 0.0, "sparse": False}
    case = case_of(name, tmp_path).but(**changes)
    compiled = case.but(arguments={**case.arguments, "torch_compile": True, "torch_compile_backend": "aot_eager"})
    one, other = trained(name, **changes), train(compiled)
    assert one["steps"] == other["steps"]
    assert one["moved"] == other["moved"]
    assert_same_weights(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("world_size", [1, 2])
@each_technique
def test_activation_checkpointing_is_the_same(tmp_path, trained, name, world_size):
    case = case_of(name, tmp_path).but(batch_size=16 // world_size)
    checkpointed = case.but(arguments={**case.arguments, "activation_checkpointing": True})
    one, other = trained(name) if world_size == 1 else train(case, 2), train(checkpointed, world_size)
    assert one["moved"] == other["moved"]
    assert_same_weights(one, other, rtol=1e-3, atol=1e-5)


@each_technique
def test_metrics_reach_the_log_history_and_tensorboard(tmp_path, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    technique, case = TECHNIQUES[name], case_of(name, tmp_path)
    report = train(case.but(arguments={**case.arguments, "report_to": "tensorboard"}))
    last = report["logs"][-1]
    assert set(technique.logged) <= set(last)
    assert all(isinstance(last[key], (int, float)) for key in technique.logged)
    scalars = {}
    for folder in {path.parent for path in Path(case.output_dir).rglob("events.out.tfevents.*")}:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        scalars |= {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}
    for key in technique.logged:
        logged = [log[key] for log in report["logs"] if key in log]
        assert [event.value for event in scalars[f"train/{key}"]] == pytest.approx(logged)


def test_the_group_rates_keep_their_ratios_under_every_schedule(tmp_path):
    expected = [2.6**-2, 2.6**-1, 1.0]
    for schedule in ("linear", "cosine", "constant", "slanted_triangular", "cyclical_triangular"):
        case = case_of("discriminative learning rates", tmp_path / schedule)
        logs = train(case.but(arguments={"lr_scheduler_type": schedule}))["logs"]
        for log in logs:
            assert [log[key] / log["learning_rate"] for key in RATE_LOGS[1:]] == pytest.approx(expected)
            assert log["learning_rate/embeddings"] == 0


def test_what_leaves_the_optimizer_alone_stays_alone(tmp_path):
    """A frozen parameter has no optimizer state, so it does not even decay."""
    case = case_of("unfreezing", tmp_path).but(epochs=1, arguments={"weight_decay": 0.5})
    report = train(case.but(callbacks=(partial(GradualUnfreezingCallback, stages={0: ["head"]}),)))
    start = make_model(case).state_dict()
    groups = layer_groups(make_model(case))
    for group, names in groups.items():
        assert all(torch.equal(report["weights"][name], start[name]) == (group != "head") for name in names)
