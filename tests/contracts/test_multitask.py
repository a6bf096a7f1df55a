"""Several tasks through what the package promises: exact losses, resume, accumulation, processes, compilation."""

import random
from functools import partial

import pytest
import torch
from runs import (
    Case,
    assert_same_weights,
    collate,
    launch,
    left_by_a_kill,
    make_model,
    make_trainer,
    saved_before,
    train,
)
from transformers import set_seed

from hf_ext import DiscriminativeLearningRateCallback, GradualUnfreezingCallback, layer_groups
from hf_ext.data.task_sampling import TaskBatchSampler
from hf_ext.trainers.multitask import MultiTaskTrainer

KINDS = {"topic": "single_label_classification", "tags": "multi_label_classification", "score": "regression"}
SIZES = {"topic": 40, "tags": 20, "score": 27}
WEIGHTS = {"topic": 0.5, "tags": 0.2, "score": 0.3}
STEPS_AN_EPOCH = 3 + 2 + 2  # In batches of 16.
EXACT = {"rtol": 1e-3, "atol": 1e-5}


def make_task_rows(task: str, rows: int, seed: int = 0) -> list[dict]:
    generator = random.Random(f"{task}{seed}")
    made = []
    for index in range(rows):
        label = {"topic": index % 3, "tags": [float(index % 2), float(index % 3 == 0), 0.0], "score": index / rows}
        ids = [generator.randrange(1, 3000) for _ in range(generator.randrange(3, 12))]
        made.append({"input_ids": ids, "labels": label[task]})
    return made


def make_models(case: Case) -> dict:
    models = {}
    for number, (task, kind) in enumerate(KINDS.items()):
        models[task] = make_model(case.but(problem_type=kind))
        # Alike but for the head.
        set_seed(number)
        torch.nn.init.normal_(models[task].classifier.weight, std=0.1)
    return models


def make_multitask(case: Case, arguments, callbacks, **settings) -> MultiTaskTrainer:
    splits = {
        task: {"train": make_task_rows(task, rows), "validation": make_task_rows(task, 10, seed=1)}
        for task, rows in SIZES.items()
    }
    settings = {"loss_weights": WEIGHTS, "data_collators": collate, **settings}
    return MultiTaskTrainer(
        make_models(case), splits, args=arguments, callbacks=callbacks, sparse_embeddings=case.sparse, **settings
    )


def case_of(output_dir, **settings) -> Case:
    trainer = partial(make_multitask, **settings)
    return Case(output_dir=str(output_dir), trainer=trainer, sampling="random", sparse=False)


WEIGHTINGS = ("fixed", "uncertainty", "dwa")


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_it_is_the_loop_that_one_would_write_by_hand(tmp_path, model, accumulation):
    """Separate models around one encoder, plain AdamW, the mean of the weighted losses of all rows of a step."""
    arguments = {"lr_scheduler_type": "constant", "weight_decay": 0.1, "max_grad_norm": 0.0}
    case = case_of(tmp_path).but(model=model, accumulation=accumulation, arguments=arguments)
    report = train(case)

    trainer, models = make_trainer(case), make_models(case)
    shared = models["topic"].base_model
    for other in models.values():
        setattr(other, other.base_model_prefix, shared)
    rows = [(task, row) for task, size in SIZES.items() for row in make_task_rows(task, size)]
    sampler = TaskBatchSampler(list(SIZES.values()), 16, seed=42)
    decayed = trainer.get_decay_parameter_names(trainer.model)
    parameters = {f"shared_encoder.{name}": value for name, value in shared.named_parameters()}
    for task, of_task in models.items():
        prefix = f"{of_task.base_model_prefix}."
        mine = {name: value for name, value in of_task.named_parameters() if not name.startswith(prefix)}
        parameters |= {f"heads.{task}.{name}": value for name, value in mine.items()}
    groups = [
        {"params": [value for name, value in parameters.items() if (name in decayed) is decay], "weight_decay": wd}
        for decay, wd in ((True, 0.1), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    normalised = {task: weight * 3 / sum(WEIGHTS.values()) for task, weight in WEIGHTS.items()}
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = list(sampler)
        batches = [[rows[index] for index in order[i : i + 16]] for i in range(0, len(order), 16)]
        for start in range(0, len(batches), accumulation):
            step = batches[start : start + accumulation]
            optimizer.zero_grad()
            loss = 0
            for batch in step:
                (task,) = {task for task, _ in batch}
                models[task].train()
                loss = loss + normalised[task] * models[task](**collate([row for _, row in batch])).loss
            (loss / len(step)).backward()
            optimizer.step()
    assert set(parameters) == set(dict(trainer.model.named_parameters()))
    for name, value in parameters.items():
        torch.testing.assert_close(report["weights"][name], value.detach(), msg=lambda m, n=name: f"{n}: {m}", **EXACT)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_killed_and_resumed_is_uninterrupted(tmp_path, weighting, world_size):
    case = case_of(tmp_path / "whole", weighting=weighting, sampling="annealed").but(
        batch_size=16 // world_size, save_steps=1, epochs=4, dropout=0.1, sparse=None
    )
    whole = train(case, world_size)
    assert whole["steps"] == 4 * STEPS_AN_EPOCH
    # Inside the epochs whose losses the next weights are of, and from the end of one.
    inside, at_the_end = [STEPS_AN_EPOCH + 3, 3 * STEPS_AN_EPOCH + 5], [2 * STEPS_AN_EPOCH + 1]
    for step in inside + at_the_end if world_size == 1 else inside[:1]:
        killed = case.but(output_dir=str(tmp_path / f"killed-{step}"))
        if step == inside[0]:
            resumed = train(left_by_a_kill(killed, case, step, world_size), world_size)
        else:
            resumed = train(saved_before(killed, case, step), world_size)
        assert resumed["digests"] == whole["digests"][step - 1 :], f"killed at step {step}"
        assert resumed["batches"] == whole["batches"][step - 1 :]
        assert_same_weights(whole, resumed)
        assert [without_time(log) for log in resumed["logs"][-3:]] == [without_time(log) for log in whole["logs"][-3:]]


def without_time(log: dict) -> dict:
    measured = ("runtime", "per_second", "performance/")
    return {name: value for name, value in log.items() if not any(word in name for word in measured)}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_two_processes_are_one(tmp_path, weighting, accumulation):
    case = case_of(tmp_path, weighting=weighting, sampling="sqrt").but(epochs=4, accumulation=accumulation)
    one, two = train(case), train(case.but(batch_size=8), world_size=2)
    assert one["steps"] == two["steps"]
    assert one["moved"] == two["moved"]
    assert one["eval_loss"] == pytest.approx(two["eval_loss"], rel=1e-3)
    assert_same_weights(one, two, **EXACT)
    for log, other in zip(one["logs"], two["logs"], strict=True):
        names = [name for name in log if name.startswith("multitask/")]
        assert [log[name] for name in names] == pytest.approx([other[name] for name in names], rel=1e-3)


@pytest.mark.parametrize("world_size", [1, 2])
def test_idle_heads_stay_as_they_are(tmp_path, world_size):
    case = case_of(tmp_path).but(batch_size=16 // world_size, epochs=1, arguments={"weight_decay": 0.5})
    report = train(case, world_size)
    for moved in report["moved"]:
        assert len({name.split(".")[1] for name in moved if name.startswith("heads.")}) == 1
    assert {name.split(".")[1] for moved in report["moved"] for name in moved if name.startswith("heads.")} == set(
        KINDS
    )


unfreeze = partial(GradualUnfreezingCallback, unit="steps", interval=4)
discriminate = partial(DiscriminativeLearningRateCallback, layerwise_lr_decay=2.6)


@pytest.mark.parametrize("world_size", [1, 2])
def test_unfreezing_and_rates_by_layer(tmp_path, world_size):
    case = case_of(tmp_path).but(batch_size=16 // world_size, epochs=3, callbacks=(unfreeze, discriminate))
    report = train(case, world_size)
    groups = layer_groups(make_trainer(case).model)
    assert list(groups) == ["embeddings", "layer.0", "layer.1", "head"]
    order = list(reversed(groups))
    for step, moved in enumerate(report["moved"]):
        trained = {name for group in order[: step // 4 + 1] for name in groups[group]}
        assert set(moved) <= trained, f"step {step}"
        assert {name for name in trained if not name.startswith("heads.")} <= set(moved), f"step {step}"
    last = report["logs"][-1]
    rates = [last[f"learning_rate/{group}"] / last["learning_rate"] for group in groups]
    assert rates == pytest.approx([2.6**-3, 2.6**-2, 2.6**-1, 1.0])


def test_it_is_resumed_with_the_same_settings_only(tmp_path):
    case = case_of(tmp_path).but(save_steps=1)
    assert launch(case.but(kill_at_step=4)) == [None]
    other = case_of(tmp_path, sampling="uniform").but(resume=True)
    (report,) = launch(other)
    assert "sampling: proportional" in report["error"] and "sampling: uniform" in report["error"]


def test_compiled_is_the_same(tmp_path):
    case = case_of(tmp_path).but(model="textcnn")
    compiled = case.but(arguments={"torch_compile": True, "torch_compile_backend": "aot_eager"})
    assert_same_weights(train(case), train(compiled), **EXACT)


@pytest.mark.parametrize("world_size", [1, 2])
def test_activation_checkpointing_is_the_same(tmp_path, world_size):
    case = case_of(tmp_path).but(batch_size=16 // world_size)
    checkpointed = case.but(arguments={"activation_checkpointing": True})
    assert_same_weights(train(case, world_size), train(checkpointed, world_size), **EXACT)
