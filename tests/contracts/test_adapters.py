"""Adapters (PEFT) through what the package promises: exact resume, accumulation, processes, composition."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from adapted import adapted_model, merged_model
from runs import Case, assert_same_weights, launch, train

from hf_ext import DiscriminativeLearningRateCallback, GradualUnfreezingCallback, layer_groups

unfreeze = partial(GradualUnfreezingCallback, unit="steps", interval=3)
discriminate = partial(DiscriminativeLearningRateCallback, layerwise_lr_decay=4.0)


def adapted(folder, **changes):
    return Case(output_dir=str(folder), settings=adapted_model, batch_size=8, rows=64, **changes)


@pytest.mark.parametrize("world_size, accumulation", [(1, 1), (1, 2), (2, 1)])
def test_killed_inside_an_epoch_and_resumed(tmp_path, world_size, accumulation):
    # 8 steps an epoch; the checkpoint of step 11 and the kill at step 13 lie inside the second.
    case = adapted(tmp_path / "whole", sampling="random", dropout=0.1, save_steps=11, accumulation=accumulation)
    case = case.but(batch_size=8 // world_size // accumulation, callbacks=(unfreeze, discriminate))
    whole = train(case, world_size)
    case = case.but(output_dir=str(tmp_path / "killed"))
    assert launch(case.but(kill_at_step=13), world_size) == [None] * world_size
    checkpoint = Path(case.output_dir) / "checkpoint-11"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "classifier_config.json"} <= names
    assert not {"model.safetensors", "config.json", "README.md"} & names
    resumed = train(case.but(resume=True), world_size)
    assert resumed["batches"] == whole["batches"][-len(resumed["batches"]) :]
    assert resumed["steps"] == whole["steps"] == 16
    assert_same_weights(whole, resumed)


def test_accumulation_and_processes_make_the_same_steps(tmp_path):
    whole = train(adapted(tmp_path / "1"))
    parts = train(adapted(tmp_path / "2").but(batch_size=4, accumulation=2))
    ranks = train(adapted(tmp_path / "3").but(batch_size=4), world_size=2)
    checkpointed = train(adapted(tmp_path / "4", arguments={"activation_checkpointing": True}))
    for other in (parts, ranks, checkpointed):
        assert other["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
        assert_same_weights(whole, other, rtol=1e-4, atol=1e-5)


def test_unfreezing_thaws_adapters_layer_by_layer_and_never_the_base(tmp_path):
    case = adapted(tmp_path, callbacks=(unfreeze,))
    report = train(case)
    model = adapted_model(case)["model"]
    start = model.state_dict()
    group_of = {name: group for group, names in layer_groups(model).items() for name in names}
    first = {}
    for step, moved in enumerate(report["moved"]):
        for name in moved:
            assert "lora_" in name or "modules_to_save" in name, f"{name} is the base model's and moved"
            first.setdefault(group_of[name], step)
    # The matrices A get a gradient only after the matrices B have moved.
    assert first == {"head": 0, "layer.1": 3, "layer.0": 6}
    for name, value in report["weights"].items():
        if "lora_" not in name and "modules_to_save" not in name:
            assert torch.equal(value, start[name]), name
    assert [log["unfreezing/depth"] for log in report["logs"]][:7] == [1, 1, 1, 2, 2, 2, 3]


def test_layer_wise_rates_scale_what_the_adapters_move(tmp_path):
    """With SGD a step is the rate times the gradient, so the first steps differ by the rates alone."""
    sgd = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "max_steps": 1, "learning_rate": 0.5}
    plain = train(adapted(tmp_path / "plain", arguments=sgd))
    scaled = train(adapted(tmp_path / "scaled", arguments=sgd, callbacks=(discriminate,)))
    case = adapted(tmp_path)
    model = adapted_model(case)["model"]
    start, checked = model.state_dict(), set()
    for group, divisor in {"head": 1, "layer.1": 4, "layer.0": 16}.items():
        for name in layer_groups(model)[group]:
            movement = plain["weights"][name] - start[name]
            if movement.abs().max() > 0:
                checked.add(group)
                own = scaled["weights"][name] - start[name]
                torch.testing.assert_close(own, movement / divisor, rtol=1e-3, atol=1e-8)
    assert checked == {"head", "layer.1", "layer.0"}
    assert {name for name in scaled["logs"][0] if name.startswith("learning_rate/")} == {
        *("learning_rate/head", "learning_rate/layer.0", "learning_rate/layer.1")
    }


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_best_adapter_is_loaded_at_the_end(tmp_path, world_size):
    """The largest loss is taken for the best, which the last one is not."""
    arguments = {
        **{"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "learning_rate": 0.3},
        **{"lr_scheduler_type": "constant", "metric_for_best_model": "eval_loss", "greater_is_better": True},
    }
    report = train(adapted(tmp_path, save_steps=2, arguments=arguments).but(batch_size=8 // world_size), world_size)
    evaluations = report["evaluations"]
    assert max(evaluations) > evaluations[-1]
    assert report["eval_loss"] == pytest.approx(max(evaluations), rel=1e-5)


def test_merged_at_the_end(tmp_path):
    """The plain model that is left has the adapter in its weights, and none of its names."""
    kept = train(adapted(tmp_path / "kept"))
    merged = train(replace(adapted(tmp_path / "merged"), settings=merged_model))
    assert not any("lora_" in name or "modules_to_save" in name for name in merged["weights"])
    assert merged["eval_loss"] == pytest.approx(kept["eval_loss"], rel=1e-5)
    name = "bert.encoder.layer.0.attention.self.query"
    a, b = (kept["weights"][f"base_model.model.{name}.lora_{part}.default.weight"] for part in "AB")
    base = kept["weights"][f"base_model.model.{name}.base_layer.weight"]
    # LoRA, equation 3 of Hu et al. 2021: alpha / r of PEFT's defaults (8 / 4).
    torch.testing.assert_close(merged["weights"][f"{name}.weight"], base + 2 * b @ a)
    assert not torch.equal(merged["weights"][f"{name}.weight"], base)
