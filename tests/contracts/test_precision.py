"""bf16, fp16, torch.compile and activation checkpointing: each does something, and changes nothing else."""

from types import SimpleNamespace

import pytest
import torch
from runs import Case, assert_same_weights, launch, train
from seeing import SeeForward, SeeGraphs

from hf_ext.trainers.nonfinite import NonFiniteGuard

STEPS = 8  # 32 rows in batches of 8, two epochs.
COMPILED = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
FLAGS = {
    "bf16": ("bert", {"bf16": True}),
    "bf16, sparse embeddings": ("textcnn", {"bf16": True}),
    "compiled": ("textcnn", COMPILED),
    "checkpointed": ("bert", {"activation_checkpointing": True}),
    "all": ("bert", {"bf16": True, "activation_checkpointing": True}),
}
# bfloat16 has 8 bits of precision; the rest computes the same in another order.
TOLERANCES = {"compiled": {"rtol": 1e-3, "atol": 1e-5}, "checkpointed": {"rtol": 1e-3, "atol": 1e-5}}
OF_BF16 = {"rtol": 0.02, "atol": 4e-3}


def case_of(name, tmp_path, folder="run"):
    model, arguments = FLAGS[name]
    # Sparse embeddings, another optimizer, cannot be compiled.
    sparse = {"compiled": False, "bf16, sparse embeddings": True}.get(name)
    return Case(str(tmp_path / folder), model=model, batch_size=8, dropout=0.1, sparse=sparse, arguments=arguments)


def test_bf16_is_what_the_layers_compute_in(tmp_path):
    seen = [
        train(Case(str(tmp_path / name), batch_size=8, callbacks=(SeeForward,), arguments={"bf16": name == "on"}))
        for name in ("off", "on")
    ]
    assert [log["seen/bf16"] for log in seen[0]["logs"]] == [0] * STEPS
    assert [log["seen/bf16"] for log in seen[1]["logs"]] == list(range(1, STEPS + 1))
    # What is trained, and kept, is float32.
    assert {value.dtype for value in seen[1]["weights"].values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("flag", ["activation_checkpointing", "gradient_checkpointing"])
def test_activation_checkpointing_computes_layers_again(tmp_path, flag):
    """Under the library's old name too."""
    seen = [
        train(Case(str(tmp_path / name), batch_size=8, callbacks=(SeeForward,), arguments={flag: name == "on"}))
        for name in ("off", "on")
    ]
    assert [report["logs"][-1]["seen/calls"] for report in seen] == [STEPS, 2 * STEPS]


def test_torch_compile_compiles(tmp_path):
    case = Case(str(tmp_path / "off"), model="textcnn", batch_size=8, sparse=False, callbacks=(SeeGraphs,))
    assert train(case)["logs"][-1]["seen/graphs"] == 0
    graphs = [
        log["seen/graphs"] for log in train(case.but(output_dir=str(tmp_path / "on"), arguments=COMPILED))["logs"]
    ]
    # Batches of other lengths are compiled once more, as one of any length.
    assert graphs[0] == 1 and graphs[-1] <= 3


@pytest.mark.parametrize("name", FLAGS)
def test_the_numbers_are_those_of_the_plain_run(tmp_path, name):
    case = case_of(name, tmp_path).but(dropout=0.0)
    one = train(case.but(output_dir=str(tmp_path / "plain"), arguments={}))
    other = train(case)
    tolerance = TOLERANCES.get(name, OF_BF16)
    assert other["loss"] == pytest.approx(one["loss"], rel=tolerance["rtol"])
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=5 * tolerance["rtol"])
    assert other["eval_loss"] == pytest.approx(one["eval_loss"], rel=tolerance["rtol"])
    assert_same_weights(one, other, **tolerance)
    if name == "bf16, sparse embeddings":
        assert one["optimizer"] == other["optimizer"] == "SparseAdamW"


@pytest.mark.parametrize("name", FLAGS)
def test_a_killed_run_goes_on_bit_by_bit(tmp_path, name):
    case = case_of(name, tmp_path, "whole").but(save_steps=3)
    whole = train(case)
    case = case.but(output_dir=str(tmp_path / "killed"))
    assert launch(case.but(kill_at_step=5)) == [None]
    assert_same_weights(whole, train(case.but(resume=True)))


@pytest.mark.parametrize("name", FLAGS)
def test_accumulated_micro_batches_are_one_batch(tmp_path, name):
    case = case_of(name, tmp_path, "one").but(dropout=0.0)
    one, four = train(case), train(case.but(output_dir=str(tmp_path / "four"), batch_size=2, accumulation=4))
    assert four["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.05 if "bf16" in FLAGS[name][1] else 1e-3)
    assert four["loss"] == pytest.approx(one["loss"], rel=0.02 if "bf16" in FLAGS[name][1] else 1e-3)


@pytest.mark.parametrize("name", ["bf16", "all"])
def test_two_processes_are_one(tmp_path, name):
    case = case_of(name, tmp_path, "one").but(dropout=0.0, sparse=False)
    one, two = train(case), train(case.but(output_dir=str(tmp_path / "two"), batch_size=4), 2)
    assert two["loss"] == pytest.approx(one["loss"], rel=0.02)


def test_fp16_on_a_cpu_is_refused(tmp_path):
    """The library would train in float32 and say nothing."""
    (report,) = launch(Case(str(tmp_path), arguments={"fp16": True}))
    assert report["error"].startswith("ConfigurationError: fp16=True needs a GPU")


def test_an_overflow_under_fp16_is_the_scalers_business():
    guard, infinite = NonFiniteGuard(), float("inf")
    with_scaler = SimpleNamespace(num_processes=1, scaler=torch.amp.GradScaler("cpu"))
    without = SimpleNamespace(num_processes=1, scaler=None)
    guard.losses = [torch.tensor(1.0)]
    assert not guard.is_met(infinite, with_scaler)
    assert guard.is_met(infinite, without)
    guard.losses = [torch.tensor(float("nan"))]
    assert guard.is_met(1.0, with_scaler)
