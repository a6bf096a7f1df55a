"""What only a GPU has: fp16 and its scaler, memory that runs out, kernels that are compiled."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from ailing import Ailing
from runs import Case, assert_same_weights, launch, train
from seeing import SeeForward, SeeGraphs
from transformers import TrainerCallback

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
MODELS = ["bert", "textcnn"]
# float16 has 11 bits of precision.
FP16 = 0.02
EPSILON = 1e-5


@pytest.fixture
def case(tmp_path):
    return Case(str(tmp_path / "run"), batch_size=8, use_cpu=False)


@pytest.mark.parametrize("model", MODELS)
def test_the_gpu_computes_what_the_cpu_does(case, tmp_path, model):
    # A CPU would update rows of the embeddings alone; Adam makes whole steps of gradients that are rounding errors.
    case = case.but(model=model, sparse=False, arguments={"adam_epsilon": EPSILON})
    one, other = train(case), train(case.but(output_dir=str(tmp_path / "cpu"), use_cpu=True))
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert_same_weights(one, other, rtol=1e-3, atol=1e-4)
    assert one["logs"][-1]["performance/peak_gpu_memory_mib"] > 0


@pytest.mark.parametrize("model", MODELS)
def test_fp16_is_what_the_layers_compute_in(case, tmp_path, model):
    one = train(case.but(model=model, output_dir=str(tmp_path / "plain")))
    other = train(case.but(model=model, callbacks=(SeeForward,), arguments={"fp16": True}))
    assert other["logs"][-1]["seen/fp16"] == len(other["logs"])
    assert {value.dtype for value in other["weights"].values() if value.is_floating_point()} == {torch.float32}
    assert other["eval_loss"] == pytest.approx(one["eval_loss"], rel=FP16)


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_fp16_run_goes_on_bit_by_bit(case, tmp_path, model):
    case = case.but(model=model, dropout=0.1, save_steps=3, arguments={"fp16": True})
    whole = train(case)
    case = case.but(output_dir=str(tmp_path / "killed"))
    assert launch(case.but(kill_at_step=5)) == [None]
    assert_same_weights(whole, train(case.but(resume=True)))


@pytest.mark.parametrize("model", MODELS)
def test_accumulated_micro_batches_are_one_batch_in_fp16(case, tmp_path, model):
    case = case.but(model=model, arguments={"fp16": True})
    one, four = train(case), train(case.but(output_dir=str(tmp_path / "four"), batch_size=2, accumulation=4))
    assert four["loss"] == pytest.approx(one["loss"], rel=FP16)
    assert four["eval_loss"] == pytest.approx(one["eval_loss"], rel=FP16)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_loss_that_is_no_number_is_met_under_fp16(case, policy):
    """Only the gradient's overflow is the scaler's business."""
    report = launch(case.but(settings=Ailing(nonfinite=policy), arguments={"fp16": True}))[0]
    if policy == "raise":
        assert report["error"].startswith("NonFiniteError")
    else:
        assert report["logs"][-1]["nonfinite_steps"] > 0
        assert all(value.isfinite().all() for value in report["weights"].values())


@pytest.mark.parametrize("model", MODELS)
def test_compiled_kernels_compute_the_same(case, tmp_path, model):
    """By the library's default backend, which writes kernels for the GPU."""
    case = case.but(model=model, sparse=False, arguments={"adam_epsilon": EPSILON})
    one = train(case.but(output_dir=str(tmp_path / "eager")))
    other = train(case.but(callbacks=(SeeGraphs,), arguments={**case.arguments, "torch_compile": True}))
    assert other["logs"][-1]["seen/graphs"] > 0
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert_same_weights(one, other, rtol=1e-2, atol=1e-4)


# ---- Memory ----


@dataclass(frozen=True)
class Bounded(TrainerCallback):
    """So many bytes of the GPU, and no more."""

    limit: int

    def on_train_begin(self, args, state, control, **kwargs):
        total = torch.cuda.get_device_properties(args.device).total_memory
        torch.cuda.set_per_process_memory_fraction(self.limit / total, args.device)


def test_a_batch_that_does_not_fit_is_computed_in_parts(case, tmp_path):
    case = case.but(rows=16384, batch_size=16384, epochs=3)
    whole = train(case.but(output_dir=str(tmp_path / "whole")))
    peak = whole["logs"][-1]["performance/peak_gpu_memory_mib"]
    # cuBLAS takes 64 of them, whatever the batch.
    assert peak > 256
    cramped = train(case.but(callbacks=(partial(Bounded, peak * 2**19),)))
    assert cramped["logs"][-1]["batch_parts"] > 1
    assert cramped["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert_same_weights(cramped, whole, rtol=1e-3, atol=1e-4)
