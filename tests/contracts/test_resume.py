"""A run that is killed and resumed ends with the weights of one that was not."""

import pytest
import torch
from runs import Case, assert_same_weights, launch, train
from transformers import TrainerCallback


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_killed_in_the_second_epoch_and_resumed(tmp_path, model, sampling, world_size):
    # 8 steps an epoch; the checkpoint of step 11 and the kill at step 13 lie inside the second.
    case = Case(
        output_dir=str(tmp_path / "whole"),
        model=model,
        sampling=sampling,
        dropout=0.1,
        batch_size=8 // world_size,
        rows=64,
        save_steps=11,
    )
    whole = train(case, world_size)
    case = case.but(output_dir=str(tmp_path / "killed"))
    assert launch(case.but(kill_at_step=13), world_size) == [None] * world_size
    resumed = train(case.but(resume=True), world_size)
    assert resumed["batches"] == whole["batches"][-len(resumed["batches"]) :]
    assert resumed["steps"] == whole["steps"]
    assert_same_weights(whole, resumed)


def test_epochs_have_different_orders(tmp_path):
    batches = train(Case(output_dir=str(tmp_path), sampling="group_by_length", batch_size=4, rows=64))["batches"]
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert first != second
    assert sorted(row for batch in first for row in batch) == sorted(row for batch in second for row in batch)


class OneGpu(TrainerCallback):
    """The machine has a GPU, as far as what waits for other processes can see."""

    def __init__(self):
        torch._C._get_accelerator = lambda: torch.device("cuda")


def test_cpu_processes_save_on_a_machine_with_one_gpu(tmp_path):
    case = Case(output_dir=str(tmp_path), batch_size=8, save_steps=2, epochs=1, callbacks=(OneGpu,), use_cpu=True)
    assert train(case, world_size=2)["steps"] == 2
    assert {path.name for path in (tmp_path / "checkpoint-2").glob("rng_state_*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
