"""The learning-rate range test: what it suggests, and that it leaves everything as it was."""

import copy
import functools
import itertools
import json
import math
import os
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from accelerate.state import AcceleratorState, GradientState
from matplotlib.figure import Figure
from starting import exit_code_of, own_port, process_context
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from transformers import BatchEncoding, BertConfig, BertForSequenceClassification, HfArgumentParser, TrainerCallback

from hf_ext import ConfigurationError, ExtensionCallback, UsageError
from hf_ext.experiments.lr_finder import LRFinder, LRFinderArguments, NoUsableSlopeError
from hf_ext.experiments.lr_range import (
    METHODS,
    RangeCurve,
    find_valley,
    learning_rates,
    longest_decreasing,
    smooth,
    suggest,
)
from hf_ext.precision import cpu_has_bf16

RATES = np.array(learning_rates(1e-7, 1.0, 100))

# ---- The range ----


def test_learning_rates_have_equal_ratios_or_differences():
    exponential = learning_rates(1e-4, 1, 17)
    assert exponential[4] == pytest.approx(1e-3)
    assert np.ptp(np.diff(np.log(exponential))) < 1e-9
    assert learning_rates(0.1, 1, 10, "linear") == pytest.approx([i / 10 for i in range(1, 11)])
    # np.float64 would break the loading of a checkpoint with weights_only.
    assert {type(rate) for rate in exponential} == {float}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1e-7, 100), "reversed"),
        ((1e-3, 1e-3, 100), "end_lr is 0.001"),
        ((0.0, 1.0, 100), "start_lr is 0.0"),
        ((1e-7, math.inf, 100), "inf"),
        ((1e-7, 1.0, 9), "at least 10"),
        ((1e-7, 1.0, 100, "cosine"), "exponential, linear"),
    ],
)
def test_a_range_that_cannot_be_tested(arguments, message):
    with pytest.raises(ValueError, match=message):
        learning_rates(*arguments)


# ---- When to stop ----


def run_curve(losses, factor=4.0):
    curve = RangeCurve(learning_rates(1e-5, 1, len(losses)), factor)
    steps = next((i for i, loss in enumerate(losses) if curve.add(loss)), None)
    return curve, steps


def test_a_curve_that_never_diverges_is_finished():
    curve, steps = run_curve([2.0 - 0.01 * i for i in range(100)])
    assert (curve.reason, steps) == ("finished", 99)


@pytest.mark.parametrize("offset", [0.0, -1.0, -0.5, -10.0])
def test_divergence_is_found_also_below_zero(offset):
    losses = [1.0 - 0.02 * i + offset for i in range(45)] + [0.1 + offset + 0.5 * 2**i for i in range(20)]
    curve, steps = run_curve(losses)
    assert curve.reason.startswith("diverged at lr ")
    assert 45 < steps < 60


@pytest.mark.parametrize("offset", [0.0, -1.0, 0.05])
def test_noise_around_zero_is_no_divergence(offset):
    noise = np.random.default_rng(0).normal(scale=0.05, size=200)
    losses = np.linspace(1.0, 0.0, 200) ** 4 + noise + offset
    assert run_curve(losses)[0].reason == "finished"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_test_and_stays_out(bad):
    curve, steps = run_curve([1.0] * 5 + [bad] + [1.0] * 10)
    assert steps == 5
    assert curve.reason == f"loss not finite at lr {curve.rates[5]:.3g}"
    assert curve.losses == [1.0] * 5


# ---- Smoothing ----


def test_smoothing_has_no_lag():
    step = np.where(np.arange(101) < 50, 1.0, 0.0)
    step[50] = 0.5
    smoothed = smooth(step, 0.05)
    assert smoothed[50] == pytest.approx(0.5)
    assert smoothed == pytest.approx(1 - smoothed[::-1])
    assert smooth([3.0] * 20) == pytest.approx([3.0] * 20)
    assert smooth([1.0, 5.0, 2.0], 0) == pytest.approx([1.0, 5.0, 2.0])


def test_smoothing_is_a_weighted_mean():
    losses = np.random.default_rng(0).normal(size=200)
    position, width = 100, 0.03 * 200
    weights = np.exp(-((np.arange(200) - position) ** 2) / (2 * width**2))
    assert smooth(losses)[position] == pytest.approx(weights @ losses / weights.sum(), rel=1e-3)


# ---- Longest decreasing subsequence ----


@pytest.mark.parametrize("seed", range(20))
def test_longest_decreasing_against_every_subsequence(seed):
    values = np.random.default_rng(seed).integers(0, 6, size=9).tolist()
    longest = max(
        size
        for size in range(1, 10)
        for chosen in itertools.combinations(values, size)
        if all(a > b for a, b in itertools.pairwise(chosen))
    )
    found = longest_decreasing(values)
    assert len(found) == longest
    assert found == sorted(set(found))
    assert all(values[a] > values[b] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("seed", range(10))
def test_longest_decreasing_against_quadratic_time(seed):
    values = np.random.default_rng(seed).normal(size=150) - np.linspace(0, 3, 150)
    lengths = []
    for i, value in enumerate(values):
        lengths.append(1 + max((lengths[j] for j in range(i) if values[j] > value), default=0))
    found = longest_decreasing(values)
    assert len(found) == max(lengths)
    assert all(values[a] > values[b] for a, b in itertools.pairwise(found))


def test_longest_decreasing_of_nothing():
    assert longest_decreasing([]) == []
    assert longest_decreasing([1.0, 1.0, 1.0]) == [2]


# ---- Suggestions ----


def logistic(rates, centre=-4.0, fall=1.5, blow_up=-1.5):
    """Falls around 10**centre, where its slope on the log axis is steepest, and diverges around 10**blow_up."""
    exponent = np.log10(rates)
    return 2.0 - fall / (1 + np.exp(-3.0 * (exponent - centre))) + np.minimum(np.exp(6 * (exponent - blow_up)), 50)


def test_steepest_is_where_a_logistic_fall_is_steepest():
    for centre in (-5.0, -4.0, -3.3):
        found = suggest(RATES, logistic(RATES, centre), "steepest")
        assert math.log10(found) == pytest.approx(centre, abs=0.08)


def test_the_slope_is_taken_by_the_logarithm_of_the_rate():
    # By the rate itself this fall is steepest where it begins; on the log axis at 10**-3.
    rates = np.array(learning_rates(1e-4, 1e-2, 400, "linear"))
    losses = 2.0 - 1 / (1 + np.exp(-6 * (np.log10(rates) + 3)))
    assert math.log10(suggest(rates, losses, "steepest", smoothing=0.01)) == pytest.approx(-3, abs=0.1)


def test_valley_and_minimum_of_a_straight_fall():
    # Flat to 1e-6, straight down to 1e-2, up again: 5 % and 95 % of the fall are made at 10**-5.8 and 10**-2.2.
    exponent = np.log10(np.array(learning_rates(1e-8, 1.0, 800)))
    losses = np.interp(exponent, [-8, -6, -2, 0], [2.0, 2.0, 1.0, 4.0])
    assert math.log10(suggest(10**exponent, losses, "valley", 0.002)) == pytest.approx(-4, abs=0.1)
    assert math.log10(suggest(10**exponent, losses, "minimum/10", 0.002)) == pytest.approx(-3, abs=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_suggestions_do_not_depend_on_the_unit_of_the_loss(method):
    losses = logistic(RATES) + np.random.default_rng(0).normal(scale=0.05, size=100)
    assert suggest(RATES, 3 * losses - 20, method) == pytest.approx(suggest(RATES, losses, method))


def test_what_comes_after_divergence_is_no_valley():
    losses = logistic(RATES[:70])
    # It falls again from very high, even below the first bottom.
    afterwards = np.concatenate([losses, np.linspace(6, 6, 10), np.linspace(6, 0.1, 20)])
    assert find_valley(RATES, afterwards).lowest < 65
    assert suggest(RATES, afterwards, "steepest") == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_a_noisy_fall_is_found_where_the_clean_one_is(method):
    clean = math.log10(suggest(RATES, logistic(RATES), method))
    found = []
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(scale=0.1, size=100)
        found.append(math.log10(suggest(RATES, logistic(RATES) + noise, method)))
    assert np.mean(found) == pytest.approx(clean, abs=0.35)
    assert np.std(found) < 0.35


def noise_only(seed, points=100):
    generator = np.random.default_rng(seed)
    kind = ("normal", "uniform", "exponential")[seed % 3]
    return 2.0 + getattr(generator, kind)(size=points) * 10.0 ** (seed % 4 - 2)


@pytest.mark.parametrize("points", [50, 100, 300])
def test_flat_noise_has_no_usable_slope(points):
    for seed in range(300):
        with pytest.raises(NoUsableSlopeError, match="no usable slope"):
            suggest(learning_rates(1e-7, 1, points), noise_only(seed, points))


@pytest.mark.parametrize("points", [50, 100, 300])
def test_a_loss_that_only_rises_has_no_usable_slope(points):
    for seed in range(300):
        rise = np.linspace(0, 1, points) ** (1 + seed % 3) * (1 + seed % 5)
        noise = np.random.default_rng(seed).normal(scale=0.3, size=points)
        with pytest.raises(NoUsableSlopeError):
            suggest(learning_rates(1e-7, 1, points), 2.0 + rise + noise)


def test_too_few_points_and_constant_losses_have_no_usable_slope():
    with pytest.raises(NoUsableSlopeError, match="only 4 steps"):
        suggest(RATES[:4], [4.0, 3.0, 2.0, 1.0])
    with pytest.raises(NoUsableSlopeError, match=r"falls by 0 at most.*wider range.*num_iter.*larger batches"):
        suggest(RATES, [1.0] * 100)


def test_an_unknown_method():
    with pytest.raises(UsageError, match="valley, steepest, minimum/10"):
        suggest(RATES, logistic(RATES), "lowest")


# ---- Without a Trainer ----


class Net(nn.Module):
    """Dropout, batch norm, a buffer that is not saved, and one that is replaced by every forward pass."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, 3)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("last", torch.zeros(1))
        self.frozen.eval()

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().sum().reshape(1)
        return self.head(self.body(x))


def make_data(rows=96):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 6, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long())


def make_loader(rows=96, batch_size=8):
    return DataLoader(make_data(rows), batch_size, shuffle=True, generator=torch.Generator().manual_seed(3))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "adam_tensor_lr": lambda p: torch.optim.Adam(p, torch.tensor(0.01)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.001, centered=True),
}


class Loop:
    """A training loop in plain PyTorch."""

    def __init__(self, optimizer="adamw", dtype=None, scaler=False, schedule=True, **loader):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.model = Net()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = OPTIMIZERS[optimizer](trained)
        self.criterion = nn.CrossEntropyLoss()
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5) if schedule else None
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=5) if scaler else None
        self.dtype = dtype
        self.loader = make_loader(**loader)

    def train(self, steps):
        losses = []
        while len(losses) < steps:
            for inputs, targets in self.loader:
                self.model.train()
                noise = random.random() + np.random.rand()
                with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
                    loss = self.criterion(self.model(inputs + 0.01 * noise), targets)
                if self.scaler is None:
                    loss.backward()
                    self.optimizer.step()
                else:
                    self.scaler.scale(loss).backward()
                    self.scaler.step(self.optimizer)
                    self.scaler.update()
                self.optimizer.zero_grad()
                if self.scheduler:
                    self.scheduler.step()
                losses.append(loss.item())
                if len(losses) == steps:
                    break
        return losses

    def finder(self, **kwargs):
        return LRFinder(
            self.model, self.optimizer, self.criterion, autocast_dtype=self.dtype, scaler=self.scaler, **kwargs
        )

    def state(self):
        scaler = None if self.scaler is None else self.scaler.state_dict()
        parts = {
            "parameters": dict(self.model.named_parameters()),
            "buffers": dict(self.model.named_buffers()),
            "gradients": {name: p.grad for name, p in self.model.named_parameters()},
            "requires_grad": {name: p.requires_grad for name, p in self.model.named_parameters()},
            "training": {name: module.training for name, module in self.model.named_modules()},
            "optimizer": self.optimizer.state_dict(),
            "optimizer_attributes": sorted(vars(self.optimizer)),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "scaler": scaler,
            "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
            "order": self.loader.generator.get_state(),
        }
        return copy.deepcopy({key: _plain(value) for key, value in parts.items()})


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.detach() if isinstance(value, torch.Tensor) else value


def assert_identical(one, other, where=""):
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape, where
        # By their bits: -0.0 is not 0.0 here, and nan is nan.
        assert one.numpy().tobytes() == other.numpy().tobytes(), where
    elif isinstance(one, np.ndarray):
        assert one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_identical(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


SETTINGS = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    "bf16": {"dtype": torch.bfloat16},
    "scaler": {"optimizer": "sgd", "scaler": True},
    "no_schedule": {"schedule": False},
}


@pytest.mark.parametrize("before", [0, 7], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", SETTINGS)
def test_twenty_steps_after_the_test_are_those_without_it(name, before):
    reports = []
    for find in (False, True):
        loop = Loop(**SETTINGS[name])
        losses, start = loop.train(before), loop.state()
        if find:
            finder = loop.finder()
            finder.range_test(loop.loader, end_lr=10, num_iter=40)
            # It did train: a test that changes nothing is easily undone.
            assert np.ptp(finder.history["loss"]) > 0.1
            assert_identical(start, loop.state())
        reports.append((losses + loop.train(20), loop.state()))
    assert_identical(*reports)


def test_no_object_is_replaced():
    loop = Loop()
    loop.train(3)
    inputs, targets = next(iter(loop.loader))
    loop.criterion(loop.model(inputs), targets).backward()

    def objects():
        tensors = [*loop.model.parameters(), *loop.model.buffers()]
        state = loop.optimizer.state
        return [
            *tensors,
            *(p.grad for p in loop.model.parameters()),
            state,
            *itertools.chain.from_iterable([p, s, *s.values()] for p, s in state.items()),
            loop.optimizer.param_groups,
            *itertools.chain.from_iterable([g, *g.values()] for g in loop.optimizer.param_groups),
        ]

    before, values = objects(), loop.state()
    assert any(p.grad is not None for p in loop.model.parameters())
    assert loop.model.frozen.weight.grad is None
    loop.finder().range_test(loop.loader, num_iter=12)
    assert [id(value) for value in before] == [id(value) for value in objects()]
    assert_identical(values, loop.state())
    loop.optimizer.step()


class Wrapped(torch.optim.Optimizer):
    """An optimizer around another one, as accelerate's and Lookahead are."""

    def __init__(self, inner):
        self.inner, self.steps = inner, 0

    state = property(lambda self: self.inner.state)
    param_groups = property(lambda self: self.inner.param_groups)

    def step(self, closure=None):
        self.steps += 1
        self.inner.step(closure)


def test_an_optimizer_in_an_optimizer():
    loop = Loop(schedule=False)
    loop.train(5)
    before, wrapped = loop.state(), Wrapped(loop.optimizer)
    finder = LRFinder(loop.model, wrapped, loop.criterion)
    finder.range_test(loop.loader, num_iter=20)
    assert_identical(before, loop.state())
    assert wrapped.steps == 0 and wrapped.inner is loop.optimizer


def test_an_optimizer_without_state_is_without_state_again():
    loop = Loop()
    loop.finder().range_test(loop.loader, num_iter=12)
    assert len(loop.optimizer.state) == 0
    assert all(p.grad is None for p in loop.model.parameters())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_middle_restores_too(error):
    loop = Loop()
    loop.train(4)
    before = loop.state()
    calls = []

    def criterion(logits, targets):
        calls.append(1)
        if len(calls) == 9:
            raise error("in the middle")
        return nn.functional.cross_entropy(logits, targets)

    finder = LRFinder(loop.model, loop.optimizer, criterion)
    with pytest.raises(error, match="in the middle"):
        finder.range_test(loop.loader, num_iter=30)
    assert_identical(before, loop.state())
    assert finder.stopped == "interrupted after 8 of 30 steps"
    assert len(finder.history["loss"]) == 8


def test_a_loss_that_is_not_finite_is_seen_before_the_step():
    loop = Loop("sgd")
    steps = []
    loop.optimizer.register_step_pre_hook(lambda *_: steps.append(1))
    calls = []

    def criterion(logits, targets):
        calls.append(1)
        loss = nn.functional.cross_entropy(logits, targets)
        return loss * math.nan if len(calls) == 6 else loss

    finder = LRFinder(loop.model, loop.optimizer, criterion)
    finder.range_test(loop.loader, num_iter=20)
    assert len(steps) == 5
    assert finder.stopped.startswith("loss not finite at lr ")
    assert len(finder.history["lr"]) == len(finder.history["loss"]) == 5


def test_a_short_loader_starts_again_in_a_new_order():
    loop = Loop(rows=16)
    seen = []

    def criterion(logits, targets):
        seen.append(tuple(targets.tolist()))
        return nn.functional.cross_entropy(logits, targets)

    LRFinder(loop.model, loop.optimizer, criterion).range_test(loop.loader, end_lr=1e-3, num_iter=12)
    assert len(seen) == 12
    assert len(set(seen)) > 2
    loader = make_loader(16)
    assert seen == [tuple(targets.tolist()) for _ in range(6) for _, targets in loader]


class CountingSampler(RandomSampler):
    """An order that depends on how often it was asked for, and on a generator of NumPy's."""

    def __init__(self, rows):
        super().__init__(rows)
        self.epoch, self.numpy = 0, np.random.default_rng(5)

    def __iter__(self):
        self.epoch += 1
        order = self.numpy.permutation(len(self.data_source))
        return iter(np.roll(order, self.epoch).tolist())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_order_of_the_data_is_kept(workers):
    def make():
        torch.manual_seed(0)
        data = make_data(24)
        return DataLoader(
            data,
            batch_sampler=torch.utils.data.BatchSampler(CountingSampler(data), 8, True),
            num_workers=workers,
            persistent_workers=bool(workers),
            generator=torch.Generator().manual_seed(1),
        )

    def epochs(loader):
        return [targets.tolist() for _ in range(3) for _, targets in loader]

    plain, tested, loop = make(), make(), Loop()
    assert epochs(plain) == epochs(tested)
    # In the middle of an epoch.
    halves = [iter(plain), iter(tested)]
    assert torch.equal(next(halves[0])[1], next(halves[1])[1])
    loop.finder().range_test(tested, num_iter=10)
    rests = [[targets.tolist() for _, targets in half] for half in halves]
    assert rests[0] == rests[1]
    assert epochs(plain) == epochs(tested)


def test_groups_keep_their_ratios():
    model = Net()
    groups = [
        {"params": list(model.body.parameters()), "lr": 0.02},
        {"params": list(model.head.parameters()), "lr": 0.1},
        {"params": list(model.frozen.parameters()), "lr": 0.0},
    ]
    optimizer = torch.optim.SGD(groups)
    # A warm-up has set the rates to 0 for the first step.
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    seen = []
    optimizer.register_step_pre_hook(lambda opt, *_: seen.append([g["lr"] for g in opt.param_groups]))
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss())
    finder.range_test(make_loader(), start_lr=1e-4, end_lr=1e-2, num_iter=10)
    seen = np.array(seen)
    assert seen[:, 1] == pytest.approx(finder.history["lr"][: len(seen)])
    assert seen[:, 0] == pytest.approx(seen[:, 1] * 0.2)
    assert (seen[:, 2] == 0).all()
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.02, 0.1, 0.0]


def test_groups_without_any_rate():
    model = Net()
    with pytest.raises(UsageError, match="all groups of the optimizer are 0"):
        LRFinder(model, torch.optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss()).range_test(make_loader())


def test_accumulation_is_one_large_batch():
    def curve(batch_size, steps):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        loader = DataLoader(make_data(), batch_size)
        finder = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
        finder.range_test(loader, start_lr=1e-3, num_iter=20, accumulation_steps=steps)
        return finder.history["loss"]

    assert curve(4, 4) == pytest.approx(curve(16, 1), rel=1e-5)


def test_losses_are_those_of_a_loop_of_ten_lines():
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    other, losses = copy.deepcopy(model), []
    optimizer = torch.optim.SGD(other.parameters(), 1.0, momentum=0.9)
    for rate, (inputs, targets) in zip(learning_rates(1e-3, 1, 12), make_loader(), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        loss = nn.functional.cross_entropy(other(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), 1.0, momentum=0.9), nn.CrossEntropyLoss())
    finder.range_test(make_loader(), start_lr=1e-3, num_iter=12)
    assert finder.history["loss"] == losses


# ---- Batches ----


def tiny_bert(dropout=0.1):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
            hidden_dropout_prob=dropout,
        )
    )


def token_batches(kind=dict, label="labels", batches=4):
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(batches):
        ids = torch.randint(1, 40, (8, 5), generator=generator)
        made.append(kind({"input_ids": ids, "attention_mask": torch.ones_like(ids), label: ids[:, 0] % 3}))
    return made


@pytest.mark.parametrize("kind", [dict, BatchEncoding])
@pytest.mark.parametrize("label", ["labels", "label"])
def test_dict_batches_with_a_criterion(kind, label):
    model = tiny_bert()
    finder = LRFinder(model, torch.optim.AdamW(model.parameters(), 1e-3), nn.CrossEntropyLoss())
    batches = token_batches(kind, label)
    finder.range_test(batches, start_lr=1e-5, num_iter=30)
    assert finder.history["loss"][0] == pytest.approx(math.log(3), abs=0.2)
    assert label in batches[0]


def test_a_model_that_returns_its_loss_needs_no_criterion():
    def curve(criterion, **settings):
        model = tiny_bert(dropout=0.0)
        for name, value in settings.items():
            setattr(model.config, name, value)
        finder = LRFinder(model, torch.optim.AdamW(model.parameters(), 1e-3), criterion)
        finder.range_test(token_batches(), start_lr=1e-5, num_iter=12)
        return finder.history["loss"]

    with_criterion = curve(nn.CrossEntropyLoss())
    assert curve(None) == with_criterion
    assert curve(None, return_dict=False) == with_criterion
    assert curve(nn.CrossEntropyLoss(), return_dict=False)[:3] == with_criterion[:3]


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x, shift):
        return self.layer(x + shift)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_inputs_may_be_a_dict_or_a_tuple(kind):
    model = Two()
    inputs = {"x": torch.randn(8, 6), "shift": torch.zeros(8, 6)}
    batch = (inputs if kind is dict else tuple(inputs.values()), torch.zeros(8, dtype=torch.long))
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
    finder.range_test([batch], num_iter=10)
    assert finder.stopped == "finished"


@pytest.mark.parametrize(
    ("batches", "criterion", "message"),
    [
        ([torch.zeros(8, 6)], nn.CrossEntropyLoss(), r"a Tensor; it must be a tuple or list \(inputs, targets\)"),
        ([(torch.zeros(8, 6),) * 3], nn.CrossEntropyLoss(), "tuple of 3"),
        ([(torch.zeros(8, 6), torch.zeros(8))], None, "need a criterion"),
        ([{"x": torch.zeros(8, 6)}], nn.CrossEntropyLoss(), "A batch has x; the criterion needs labels"),
        ([{"x": torch.zeros(8, 6)}], None, "returns no loss for a batch with x"),
        ([(torch.zeros(8, 6), torch.zeros(8).long())], nn.CrossEntropyLoss(reduction="none"), "not a single number"),
        ([], nn.CrossEntropyLoss(), "has no batches"),
        (iter([(torch.zeros(8, 6), torch.zeros(8).long())]), nn.CrossEntropyLoss(), "read only once"),
        (None, nn.CrossEntropyLoss(), "needs a train_dataloader"),
    ],
)
def test_batches_that_cannot_be_used(batches, criterion, message):
    model = Net()
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), criterion)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        finder.range_test(batches)
    assert_identical(before, model.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_lr": 1.0, "end_lr": 1e-3}, "reversed"),
        ({"num_iter": 5}, "at least 10"),
        ({"accumulation_steps": 0}, "accumulation_steps is 0"),
        ({"smoothing": -1}, "smoothing is -1"),
        ({"divergence_factor": 1.0}, "divergence_factor is 1.0"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    loop = Loop()
    with pytest.raises(UsageError, match=message):
        loop.finder().range_test(loop.loader, **arguments)


# ---- Results ----


def test_the_call_of_the_guide(tmp_path):
    loop = Loop(rows=960, batch_size=48)
    model, optimizer, criterion, train_dataloader = loop.model, loop.optimizer, loop.criterion, loop.loader
    lr_finder = LRFinder(model, optimizer, criterion)
    lr_finder.range_test(train_dataloader, end_lr=1, num_iter=100)
    figure = lr_finder.plot()
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    suggestion = lr_finder.suggestion()
    assert 1e-4 < suggestion < 0.3
    assert any(f"valley: {suggestion:.2g}" in text.get_text() for text in axes.get_legend().get_texts())
    # What a notebook asks for.
    assert figure._repr_png_().startswith(b"\x89PNG")

    lr_finder.plot(tmp_path / "curve.png", method="steepest")
    lr_finder.plot(str(tmp_path / "curve.svg"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "curve.svg").read_text()
    assert "<svg" in svg and "valley" in svg
    with pytest.raises(UsageError, match="png"):
        lr_finder.plot(tmp_path / "curve.txt")

    result = lr_finder.as_dict()
    assert json.loads(json.dumps(result)) == result
    assert result["suggestions"]["valley"] == suggestion
    assert result["settings"]["num_iter"] == 100
    assert result["stopped"] == lr_finder.stopped
    assert {len(values) for values in result["history"].values()} == {len(result["history"]["lr"])}


def test_no_usable_slope_is_said(tmp_path):
    loop = Loop()
    finder = loop.finder()
    finder.range_test(loop.loader, start_lr=1e-9, end_lr=1e-7, num_iter=40)
    with pytest.raises(NoUsableSlopeError, match="no usable slope"):
        finder.suggestion()
    assert finder.suggestions() == dict.fromkeys(METHODS)
    assert json.dumps(finder.as_dict())
    assert "no usable slope" in finder.plot(tmp_path / "curve.svg").axes[0].get_title()


def test_results_before_the_test():
    finder = Loop().finder()
    for ask in (finder.suggestion, finder.suggestions, finder.plot, finder.as_dict):
        with pytest.raises(UsageError, match=r"call range_test\(\) first"):
            ask()


# ---- With a Trainer ----


class OwnSampler(torch.utils.data.Sampler):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __iter__(self):
        return iter(range(self.rows - 1, -1, -1))


class Shaping(ExtensionCallback):
    """Sets learning rates and the order of the rows."""

    def learning_rate_scales(self, groups, args):
        return {group: 1.0 if group == "head" else 0.1 for group in groups}

    def train_sampler(self, dataset, args):
        return OwnSampler(len(dataset))


class Telltale(TrainerCallback):
    """Counts what it sees."""

    def __init__(self):
        self.events = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.events += 1


BASE = runs.Case(
    output_dir="",
    rows=60,
    batch_size=4,
    dropout=0.1,
    sampling="random",
    arguments={"max_steps": 20, "weight_decay": 0.1},
)
CASES = {
    "plain": {"trainer": "plain"},
    "extended": {},
    "accumulation": {"accumulation": 2},
    "plain_accumulation": {"trainer": "plain", "accumulation": 2},
    "sparse": {"model": "textcnn"},
    "group_by_length": {"sampling": "group_by_length"},
    "shaping": {"callbacks": (Shaping, Telltale)},
    "bf16": {"arguments": {**BASE.arguments, "bf16": True}},
    "warm_up": {"arguments": {**BASE.arguments, "warmup_steps": 5, "lr_scheduler_type": "cosine"}},
    "drop_last": {"arguments": {**BASE.arguments, "dataloader_drop_last": True, "data_seed": 3}},
}


def make_case(name, tmp_path):
    if name == "bf16" and not cpu_has_bf16():
        pytest.skip("this CPU has no bf16")
    return BASE.but(output_dir=str(tmp_path), **CASES[name])


class ScaledAdamW(torch.optim.AdamW):
    """Has an attribute beside its state and groups, which PyTorch's copy of an optimizer leaves out."""

    def __init__(self, params):
        super().__init__(params)
        self.scale = 0.5

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad *= self.scale
        return super().step(closure)


def give_optimizer(trainer):
    """As a user hands over an optimizer and a schedule."""
    trainer.optimizer = ScaledAdamW(
        [
            {"params": [p for n, p in trainer.model.named_parameters() if "classifier" in n], "lr": 1e-3},
            {"params": [p for n, p in trainer.model.named_parameters() if "classifier" not in n], "lr": 2e-4},
        ]
    )
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: min(1, step / 4))


def trainer_state(trainer):
    optimizer = trainer.optimizer
    accelerator = trainer.accelerator
    return copy.deepcopy(
        {
            "model": _plain(dict(trainer.model.state_dict())),
            "gradients": {n: p.grad for n, p in trainer.model.named_parameters()},
            "training": {n: m.training for n, m in trainer.model.named_modules()},
            "sparse": [m.sparse for m in trainer.model.modules() if isinstance(m, nn.Embedding)],
            "attributes": sorted(vars(trainer.model)),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "accelerator": [len(accelerator._models), len(accelerator._optimizers), len(accelerator._dataloaders)],
            "args": trainer.args.to_dict(),
            "state": vars(trainer.state).copy(),
            "gradient_state": [GradientState().sync_gradients, str(GradientState().plugin_kwargs)],
            "dataloaders": len(GradientState().dataloader_references),
            "accelerator_state": [AcceleratorState().mixed_precision, AcceleratorState().dynamo_plugin.to_dict()],
            "events": [cb.events for cb in trainer.callback_handler.callbacks if isinstance(cb, Telltale)],
            "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
            "files": sorted(str(path) for path in Path(trainer.args.output_dir).rglob("*")),
        }
    )


def objects_of(trainer):
    return {name: id(value) for name, value in vars(trainer).items()}


def train_and_report(trainer, steps=20):
    losses = []
    trainer.add_callback(LossRecorder(losses))
    trainer.args.max_steps = steps
    trainer.train()
    return losses, _plain(dict(trainer.model.state_dict())), trainer.optimizer.state_dict()


class LossRecorder(TrainerCallback):
    def __init__(self, losses):
        self.losses = losses

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.losses.append([logs.get("loss"), logs.get("grad_norm"), logs.get("learning_rate")])


@pytest.mark.parametrize("name", CASES)
def test_training_after_the_finder_is_training_without_it(name, tmp_path):
    case = make_case(name, tmp_path)
    plain = train_and_report(runs.make_trainer(case))

    trainer = runs.make_trainer(case)
    before, objects = trainer_state(trainer), objects_of(trainer)
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-6, end_lr=10, num_iter=40)
    assert finder.history["lr"][0] == 1e-6
    assert len(finder.history["loss"]) > 25
    assert np.ptp(finder.history["loss"]) > 0.05
    assert_identical(before, trainer_state(trainer))
    assert objects == objects_of(trainer)
    assert_identical(plain, train_and_report(trainer))


@pytest.mark.parametrize("name", ["plain", "extended", "sparse", "bf16", "shaping"])
def test_between_two_trainings(name, tmp_path):
    case = make_case(name, tmp_path)
    reports = []
    for find in (False, True):
        trainer = runs.make_trainer(case)
        train_and_report(trainer, 8)
        if find:
            before, objects = trainer_state(trainer), objects_of(trainer)
            # After a linear decay to 0: the ratios are those of the rates before it.
            LRFinder.from_trainer(trainer).range_test(num_iter=20)
            assert_identical(before, trainer_state(trainer))
            assert objects == objects_of(trainer)
        reports.append(train_and_report(trainer, 12))
    assert_identical(*reports)


def test_a_model_whose_forward_is_a_partial(tmp_path):
    # As accelerate's hooks leave it (`device_map`); mixed precision then wraps it in a closure over the model.
    trainer = runs.make_trainer(make_case("bf16", tmp_path))
    trainer.model.forward = functools.partial(type(trainer.model).forward, trainer.model)
    train_and_report(trainer, 4)
    before = trainer_state(trainer)
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-4, end_lr=10, num_iter=20)
    assert_identical(before, trainer_state(trainer))
    assert np.ptp(finder.history["loss"]) > 0.5


@pytest.mark.parametrize("kind", ["plain", "extended"])
def test_an_optimizer_and_a_schedule_of_the_user(kind, tmp_path):
    reports = []
    for find in (False, True):
        trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path), trainer=kind))
        give_optimizer(trainer)
        if find:
            before, objects = trainer_state(trainer), objects_of(trainer)
            schedule = copy.deepcopy(trainer.lr_scheduler.state_dict())
            LRFinder.from_trainer(trainer).range_test(num_iter=20)
            assert_identical(before, trainer_state(trainer))
            assert objects == objects_of(trainer)
            assert_identical(schedule, trainer.lr_scheduler.state_dict())
            assert not trainer.optimizer.state
        reports.append(train_and_report(trainer))
    assert_identical(*reports)


class RateRecorder(ExtensionCallback):
    """Answers a question, so it takes part; what it sees goes to its class, since it is copied."""

    seen = []
    batches = []

    def learning_rate_scales(self, groups, args):
        return {group: 1.0 if group == "head" else 0.25 for group in groups}

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.seen.append({group["layer_group"]: group["lr"] for group in optimizer.param_groups})


def test_the_groups_of_a_trainer_keep_their_ratios(tmp_path):
    RateRecorder.seen.clear()
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path), callbacks=(RateRecorder,)))
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-5, end_lr=0.01, num_iter=15)
    assert len(RateRecorder.seen) == 15
    for rate, groups in zip(finder.history["lr"], RateRecorder.seen, strict=True):
        assert groups.pop("head") == pytest.approx(rate)
        assert list(groups.values()) == pytest.approx([rate / 4] * len(groups))


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 2}, {"model": "textcnn"}, {"sampling": "group_by_length", "rows": 22}],
    ids=["random", "accumulation", "sparse", "three_epochs"],
)
def test_the_curve_is_that_of_a_real_training_with_those_rates(changes, tmp_path):
    case = BASE.but(output_dir=str(tmp_path), **changes)
    finder = LRFinder.from_trainer(runs.make_trainer(case))
    finder.range_test(start_lr=1e-4, end_lr=0.01, num_iter=16)

    rates = learning_rates(1e-4, 0.01, 16)
    trainer = runs.make_trainer(case.but(arguments={**case.arguments, "max_steps": 16}))
    trainer.create_scheduler = lambda num_training_steps, optimizer=None: setattr(
        trainer,
        "lr_scheduler",
        torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: rates[min(step, 15)] / 1e-3),
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert finder.history["loss"] == pytest.approx(losses, rel=1e-6)
    if changes.get("accumulation"):
        assert finder.settings["accumulation_steps"] == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_a_trainer_restores_too(error, tmp_path):
    case = BASE.but(output_dir=str(tmp_path))
    plain = train_and_report(runs.make_trainer(case))
    trainer = runs.make_trainer(case)
    collate, calls = trainer.data_collator, []

    def failing(rows):
        calls.append(1)
        if len(calls) == 7:
            raise error("in the middle")
        return collate(rows)

    trainer.data_collator = failing
    before, objects = trainer_state(trainer), objects_of(trainer)
    finder = LRFinder.from_trainer(trainer)
    with pytest.raises(error, match="in the middle"):
        finder.range_test()
    assert_identical(before, trainer_state(trainer))
    assert objects == objects_of(trainer)
    assert finder.stopped.startswith("interrupted after ")
    assert_identical(plain, train_and_report(trainer))


class NotingTrainer(runs.ExtendedTrainer):
    """Keeps notes, a random source, a module and a loader of its own, as techniques do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes = {"loss": []}
        self.noise = np.random.default_rng(0)
        self.scale = nn.Parameter(torch.ones(()))
        self.teacher = nn.BatchNorm1d(3)
        self.first_layer = [self.model.bert.encoder.layer[0]]
        self.loader = None

    def batch_loss(self, model, inputs):
        loss, outputs = super().batch_loss(model, inputs)
        assert any(layer is self.first_layer[0] for layer in self.model.modules())
        self.teacher(outputs.logits.detach().float())
        self.notes["loss"].append(loss.item())
        return loss * (self.scale + 0.1 * float(self.noise.random())), outputs

    def get_train_dataloader(self):
        if self.loader is None:
            self.loader = DataLoader(
                self.train_dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(2), collate_fn=runs.collate
            )
        return self.loader


def test_what_a_subclass_keeps_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ExtendedTrainer", NotingTrainer)
    reports = []
    for find in (False, True):
        trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path)))
        trainer.get_train_dataloader()
        if find:
            LRFinder.from_trainer(trainer).range_test(num_iter=20)
            assert trainer.notes == {"loss": []}
            assert trainer.scale.grad is None
        reports.append((*train_and_report(trainer), trainer.notes, _plain(dict(trainer.teacher.state_dict()))))
    assert_identical(*reports)


def test_a_loss_that_is_not_finite_in_a_trainer(tmp_path, monkeypatch):
    class Exploding(runs.ExtendedTrainer):
        def batch_loss(self, model, inputs):
            loss, outputs = super().batch_loss(model, inputs)
            return loss * (math.nan if self.state.global_step == 12 else 1.0), outputs

    monkeypatch.setattr(runs, "ExtendedTrainer", Exploding)
    finder = LRFinder.from_trainer(runs.make_trainer(BASE.but(output_dir=str(tmp_path))))
    finder.range_test()
    assert finder.stopped == f"loss not finite at lr {learning_rates(1e-7, 1, 100)[12]:.3g}"
    assert len(finder.history["loss"]) == 12


def test_a_trainer_that_would_evaluate_save_and_report(tmp_path):
    arguments = {
        "max_steps": 20,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "report_to": "tensorboard",
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path), accumulation=2, arguments=arguments, save_steps=2))
    before = trainer_state(trainer)
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(num_iter=12)
    assert len(finder.history["loss"]) == 12
    assert_identical(before, trainer_state(trainer))
    assert before["files"] == []


def test_nothing_is_compiled_for_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    arguments = {"max_steps": 20, "torch_compile": True, "torch_compile_backend": "eager"}
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path), arguments=arguments))
    before = trainer_state(trainer)
    LRFinder.from_trainer(trainer).range_test(num_iter=10)
    assert_identical(before, trainer_state(trainer))
    assert AcceleratorState().dynamo_plugin.backend.value == "EAGER"


def test_a_model_init_is_called_by_the_training_only(tmp_path):
    case = BASE.but(output_dir=str(tmp_path))
    reports, calls = [], []

    def model_init():
        calls.append(1)
        return runs.make_model(case)

    for find in (False, True):
        made = runs.make_trainer(case)
        calls.clear()
        trainer = runs.ExtendedTrainer(
            model_init=model_init,
            args=made.args,
            train_dataset=made.train_dataset,
            data_collator=made.data_collator,
        )
        if find:
            LRFinder.from_trainer(trainer).range_test(num_iter=10)
            assert len(calls) == 1
        reports.append(train_and_report(trainer))
    assert_identical(*reports)


def test_what_a_trainer_brings_is_not_given_twice(tmp_path):
    finder = LRFinder.from_trainer(runs.make_trainer(BASE.but(output_dir=str(tmp_path))))
    with pytest.raises(UsageError, match="brings its own data"):
        finder.range_test(make_loader())
    with pytest.raises(UsageError, match="brings its own data"):
        finder.range_test(accumulation_steps=2)


@pytest.mark.parametrize("attribute", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_sharded_models_are_refused(attribute, tmp_path):
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path)))
    setattr(trainer, attribute, True)
    with pytest.raises(UsageError, match="does not allow"):
        LRFinder.from_trainer(trainer).range_test()


def test_layer_wise_optimizers_are_refused(tmp_path):
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path)))
    trainer.args.optim = "galore_adamw_layerwise"
    with pytest.raises(UsageError, match=r"optim=galore_adamw\.$"):
        LRFinder.from_trainer(trainer).range_test()


def test_a_suggestion_from_a_trainer(tmp_path):
    trainer = runs.make_trainer(BASE.but(output_dir=str(tmp_path), rows=240, batch_size=16, dropout=0.0))
    # Learnable: the label is in the text.
    for row in trainer.train_dataset:
        row["input_ids"] = [1 + row["labels"]] * len(row["input_ids"])
    finder = LRFinder.from_trainer(trainer)
    finder.range_test()
    assert 1e-4 < finder.suggestion() < 1e-1
    assert finder.plot().axes[0].get_legend() is not None


# ---- Two processes ----


def _in_process(rank, world_size, port, output_dir):
    os.environ.update(
        WORLD_SIZE=str(world_size),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    case = BASE.but(output_dir=output_dir, batch_size=4, accumulation=2, dropout=0.0, sampling="sequential")
    trainer = runs.make_trainer(case)
    before = trainer_state(trainer)
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-5, end_lr=10)
    assert_identical(before, trainer_state(trainer))
    _, weights, _ = train_and_report(trainer, 5)

    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(6, 3))
    rows = list(DataLoader(make_data(), 8))[rank::world_size]
    bare = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
    start = copy.deepcopy(model.state_dict())
    bare.range_test(rows, start_lr=1e-3, end_lr=1e4, num_iter=30)
    assert_identical(start, model.state_dict())
    report = {
        "trainer": finder.as_dict(),
        "weights": weights,
        "loop": bare.as_dict(),
        "wrapper": type(trainer.model_wrapped).__name__,
    }
    torch.save(report, Path(output_dir, f"{rank}.pt"))


def test_two_processes_agree(tmp_path):
    context = process_context("runs")
    with own_port() as port:
        processes = [
            context.Process(
                target=runpy.run_path,
                args=(__file__, {"PROCESS": (rank, 2, port, str(tmp_path))}, "process"),
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        assert [exit_code_of(process) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert_identical(one, other)
    assert one["wrapper"] == "DistributedDataParallel"
    # One process with batches twice as large sees the same rows.
    case = BASE.but(output_dir=str(tmp_path), batch_size=8, accumulation=2, dropout=0.0, sampling="sequential")
    finder = LRFinder.from_trainer(runs.make_trainer(case))
    finder.range_test(start_lr=1e-5, end_lr=10)
    assert finder.history["loss"][:30] == pytest.approx(one["trainer"]["history"]["loss"][:30], rel=1e-3)
    assert finder.stopped.split(" at ")[0] == one["trainer"]["stopped"].split(" at ")[0]
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    bare = LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
    bare.range_test(DataLoader(make_data(), 16), start_lr=1e-3, end_lr=1e4, num_iter=30)
    assert bare.history["loss"][:15] == pytest.approx(one["loop"]["history"]["loss"][:15], rel=1e-3)


# ---- The command line ----


def test_arguments_of_the_command_line():
    parser = HfArgumentParser(LRFinderArguments)
    (default,) = parser.parse_args_into_dataclasses([])
    assert default == LRFinderArguments()
    assert not default.find_learning_rate
    (given,) = parser.parse_args_into_dataclasses(
        ["--find_learning_rate", "--lr_finder_end", "0.1", "--lr_finder_method", "minimum/10"]
    )
    assert given.find_learning_rate and given.lr_finder_end == 0.1 and given.lr_finder_method == "minimum/10"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_finder_start": 1.0, "lr_finder_end": 0.1}, "reversed"),
        ({"lr_finder_start": 0.0}, "lr_finder_start is 0.0"),
        ({"lr_finder_num_iter": 3}, "at least 10"),
        ({"lr_finder_mode": "cosine"}, "exponential, linear"),
        ({"lr_finder_method": "best"}, "valley, steepest, minimum/10"),
    ],
)
def test_arguments_of_the_command_line_that_cannot_be_used(values, message):
    with pytest.raises(ConfigurationError, match=message):
        LRFinderArguments(**values)


if __name__ == "process":
    _in_process(*PROCESS)  # noqa: F821 (handed over by `runpy`)
