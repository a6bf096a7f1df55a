"""The own schedules as schedulers of any loop, and as `lr_scheduler_type` of a run."""

import copy
import json
import math
import pickle
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import HfArgumentParser, SchedulerType, Trainer, TrainingArguments, get_scheduler

from hf_ext import (
    ConfigurationError,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    RecipeTrainingArguments,
    get_cyclical_triangular_schedule,
    get_slanted_triangular_schedule,
)
from hf_ext.lr_schedules import OWN_SCHEDULES, ExtendedSchedulerType
from hf_ext.schedules import cyclical_triangular, slanted_triangular

OWN = ["slanted_triangular", "cyclical_triangular"]
LIBRARY = [member.value for member in SchedulerType]
# What a schedule of the library cannot do without.
NEEDED = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
}
# Their rates depend on the loss, so only the run itself knows them.
ADAPTIVE = ["reduce_lr_on_plateau", "greedy"]
EVALUATED = {name: {"eval_strategy": "steps", "eval_steps": 2} for name in ADAPTIVE}
STEPS = 8


def two_groups():
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    return torch.optim.SGD([{"params": [first], "lr": 0.5}, {"params": [second], "lr": 0.02}], lr=1.0)


def rates_of(optimizer, scheduler, steps):
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


MAKERS = {
    "slanted": (get_slanted_triangular_schedule, slanted_triangular, {}),
    "slanted, set": (get_slanted_triangular_schedule, slanted_triangular, {"cut_frac": 0.3, "ratio": 8}),
    "cyclical": (get_cyclical_triangular_schedule, cyclical_triangular, {}),
    "cyclical, set": (
        get_cyclical_triangular_schedule,
        cyclical_triangular,
        {"num_cycles": 2, "min_ratio": 0.1, "decay": 0.5},
    ),
}
makers = pytest.mark.parametrize(("make", "factor", "settings"), MAKERS.values(), ids=MAKERS)

# ---- In any loop ----


@makers
def test_every_group_follows_the_factor(make, factor, settings):
    optimizer = two_groups()
    rates = rates_of(optimizer, make(optimizer, 24, **settings), 24)
    factors = [factor(step, 24, **settings) for step in range(24)]
    assert len(set(factors)) > 4
    for row, expected in zip(rates, factors, strict=True):
        assert row == pytest.approx([0.5 * expected, 0.02 * expected])


@makers
def test_groups_keep_their_ratio(make, factor, settings):
    optimizer = two_groups()
    assert all(
        one / other == pytest.approx(25) for one, other in rates_of(optimizer, make(optimizer, 24, **settings), 30)
    )


@makers
@pytest.mark.parametrize("stop", [1, 7, 23])
def test_a_restored_state_goes_on_the_same(tmp_path, make, factor, settings, stop):
    optimizer = two_groups()
    whole = rates_of(optimizer, make(optimizer, 24, **settings), 24)
    optimizer = two_groups()
    scheduler = make(optimizer, 24, **settings)
    rates_of(optimizer, scheduler, stop)
    # As the Trainer keeps them.
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    optimizer = two_groups()
    scheduler = make(optimizer, 24, **settings)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    assert rates_of(optimizer, scheduler, 24 - stop) == whole[stop:]


@pytest.mark.parametrize(
    ("make", "settings", "named"),
    [
        (get_slanted_triangular_schedule, {"cut_frac": 0.0}, "cut_frac is 0.0"),
        (get_slanted_triangular_schedule, {"cut_frac": 1.0}, "cut_frac is 1.0"),
        (get_slanted_triangular_schedule, {"cut_frac": -0.1}, "cut_frac is -0.1"),
        (get_slanted_triangular_schedule, {"cut_frac": 10}, "cut_frac is 10"),
        (get_slanted_triangular_schedule, {"cut_frac": math.nan}, "cut_frac is nan"),
        (get_slanted_triangular_schedule, {"ratio": 0.5}, "ratio is 0.5"),
        (get_slanted_triangular_schedule, {"ratio": 0}, "ratio is 0"),
        (get_slanted_triangular_schedule, {"ratio": math.nan}, "ratio is nan"),
        # The lowest rate is the highest over the ratio: this would make every rate no number.
        (get_slanted_triangular_schedule, {"ratio": math.inf}, "ratio is inf"),
        (get_cyclical_triangular_schedule, {"num_cycles": 0}, "num_cycles is 0"),
        (get_cyclical_triangular_schedule, {"num_cycles": -1}, "num_cycles is -1"),
        (get_cyclical_triangular_schedule, {"num_cycles": 2.5}, "num_cycles is 2.5"),
        (get_cyclical_triangular_schedule, {"num_cycles": math.nan}, "num_cycles is nan"),
        (get_cyclical_triangular_schedule, {"num_cycles": math.inf}, "num_cycles is inf"),
        (get_cyclical_triangular_schedule, {"min_ratio": -0.1}, "min_ratio is -0.1"),
        (get_cyclical_triangular_schedule, {"min_ratio": 1.1}, "min_ratio is 1.1"),
        (get_cyclical_triangular_schedule, {"decay": 2}, "decay is 2"),
        (get_cyclical_triangular_schedule, {"decay": math.nan}, "decay is nan"),
    ],
)
def test_values_out_of_range_are_named(make, settings, named):
    with pytest.raises(ValueError, match=rf"{re.escape(named)}; it must be "):
        make(two_groups(), 10, **settings)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (get_slanted_triangular_schedule, {"cut_frac": 0.999, "ratio": 1}),
        (get_cyclical_triangular_schedule, {"num_cycles": 2.0, "min_ratio": 0, "decay": 0}),
        (get_cyclical_triangular_schedule, {"num_cycles": 1, "min_ratio": 1, "decay": 1}),
    ],
)
def test_values_at_the_ends_of_the_range_are_taken(make, settings):
    optimizer = two_groups()
    assert all(0 <= one <= 0.5 for one, _ in rates_of(optimizer, make(optimizer, 10, **settings), 12))


# ---- The enumeration ----


def test_the_schedules_are_the_librarys_and_two():
    assert [member.value for member in ExtendedSchedulerType] == LIBRARY + OWN
    assert list(OWN_SCHEDULES) == OWN
    assert not set(OWN) & set(LIBRARY)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_library_schedule_is_equal_to_the_librarys_own_name_for_it(name):
    member = ExtendedSchedulerType(name)
    assert member == SchedulerType(name) == name
    assert SchedulerType(member) is SchedulerType(name)
    assert ExtendedSchedulerType(SchedulerType(name)) is member


@pytest.mark.parametrize("name", OWN)
def test_a_member_survives_pickle_and_copy(name):
    member = ExtendedSchedulerType(name)
    assert pickle.loads(pickle.dumps(member)) is copy.deepcopy(member) is member


# ---- As arguments ----


def arguments(folder, schedule, cls=ExtendedTrainingArguments, **settings):
    values = {"lr_scheduler_kwargs": NEEDED.get(schedule), **EVALUATED.get(schedule, {}), **settings}
    return cls(
        output_dir=str(folder),
        lr_scheduler_type=schedule,
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        logging_steps=1,
        save_strategy=values.pop("save_strategy", "no"),
        use_cpu=True,
        disable_tqdm=True,
        **values,
    )


@pytest.mark.parametrize("cls", [ExtendedTrainingArguments, RecipeTrainingArguments])
@pytest.mark.parametrize("name", LIBRARY + OWN)
def test_every_schedule_is_accepted_by_name_and_as_a_member(tmp_path, cls, name):
    for value in (name, ExtendedSchedulerType(name), *([SchedulerType(name)] if name in LIBRARY else [])):
        args = arguments(tmp_path, value, cls)
        assert args.lr_scheduler_type == args.lr_scheduler_type.value == ExtendedSchedulerType(name) == name


def test_the_default_is_the_librarys(tmp_path):
    ours, theirs = ExtendedTrainingArguments(str(tmp_path)), TrainingArguments(str(tmp_path))
    assert ours.lr_scheduler_type == theirs.lr_scheduler_type
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize("name", ["slanted", "SLANTED_TRIANGULAR", "linaer", "", "one_cycle", None, 3])
def test_an_unknown_schedule_is_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(ValueError, match="is not a valid") as caught:
        arguments(tmp_path, name)
    message = str(caught.value)
    assert str(name) in message
    assert all(known in message for known in LIBRARY + OWN)


@pytest.mark.parametrize("warmup", [1, 10, 0.1])
@pytest.mark.parametrize("name", OWN)
def test_an_own_schedule_takes_no_warmup(tmp_path, name, warmup):
    with pytest.raises(ConfigurationError, match=rf"warmup_steps is {warmup}.*{name}.*leave warmup_steps out"):
        arguments(tmp_path, name, warmup_steps=warmup)


@pytest.mark.parametrize("warmup", [0, 0.0])
def test_no_warmup_is_none(tmp_path, warmup):
    assert arguments(tmp_path, "slanted_triangular", warmup_steps=warmup).lr_scheduler_type == "slanted_triangular"


def test_a_library_schedule_takes_its_warmup(tmp_path):
    assert arguments(tmp_path, "cosine", warmup_steps=3).get_warmup_steps(10) == 3


@pytest.mark.parametrize(
    ("name", "kwargs"), [("slanted_triangular", {"ratio": 8}), ("cosine_with_min_lr", {"min_lr": 0.01})]
)
def test_the_schedules_settings_may_be_a_json_string(tmp_path, name, kwargs):
    assert arguments(tmp_path, name, lr_scheduler_kwargs=json.dumps(kwargs)).lr_scheduler_kwargs == kwargs


@pytest.mark.parametrize("name", LIBRARY + OWN)
def test_the_command_line_takes_every_schedule(tmp_path, name):
    words = ["--output_dir", str(tmp_path), "--use_cpu", "--lr_scheduler_type", name]
    kwargs = NEEDED.get(name, {"cut_frac": 0.2} if name == "slanted_triangular" else None)
    words += ["--eval_strategy", "steps"] if name in EVALUATED else []
    words += ["--lr_scheduler_kwargs", json.dumps(kwargs)] if kwargs else []
    (args,) = HfArgumentParser(ExtendedTrainingArguments).parse_args_into_dataclasses(words)
    assert args.lr_scheduler_type.value == name
    assert (args.lr_scheduler_kwargs or None) == kwargs


def test_the_command_line_refuses_an_unknown_schedule(tmp_path, capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(ExtendedTrainingArguments).parse_args_into_dataclasses(
            ["--output_dir", str(tmp_path), "--lr_scheduler_type", "slanted"]
        )
    assert "slanted_triangular" in capsys.readouterr().err


@pytest.mark.parametrize("cls", [ExtendedTrainingArguments, RecipeTrainingArguments])
@pytest.mark.parametrize("name", ["cosine", *OWN])
def test_arguments_come_back_from_json_and_pickle(tmp_path, cls, name):
    args = arguments(tmp_path, name, cls, lr_scheduler_kwargs=None)
    values = json.loads(args.to_json_string())
    assert values["lr_scheduler_type"] == args.to_dict()["lr_scheduler_type"] == name
    again = cls(**values)
    assert again.lr_scheduler_type is args.lr_scheduler_type
    # The folder of a run's logs holds the time.
    assert {**again.to_dict(), "logging_dir": None} == {**args.to_dict(), "logging_dir": None}
    torch.save(args, tmp_path / "training_args.bin")
    loaded = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert type(loaded) is cls
    assert loaded.lr_scheduler_type is args.lr_scheduler_type
    assert loaded.to_dict() == args.to_dict()
    assert replace(args, learning_rate=0.5).lr_scheduler_type is args.lr_scheduler_type


# ---- In a run ----


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x, labels=None):
        logits = self.linear(x).squeeze(-1)
        return {"loss": ((logits - labels) ** 2).mean(), "logits": logits}


ROWS = [{"x": [float(index % 3), 1.0], "labels": float(index % 2)} for index in range(32)]


class RatesOfSteps:
    """The optimizer's rate in every step, as the step itself uses it."""

    def __init__(self, trainer):
        self.rates = []
        create = trainer.create_optimizer

        def create_and_watch(*args, **kwargs):
            known = trainer.optimizer is not None
            optimizer = create(*args, **kwargs)
            if not known:
                optimizer.register_step_pre_hook(lambda *_: self.rates.append(optimizer.param_groups[0]["lr"]))
            return optimizer

        trainer.create_optimizer = create_and_watch


def trainer_of(cls, args):
    trainer = cls(model=Line(), args=args, train_dataset=ROWS, eval_dataset=ROWS[:4])
    return trainer, RatesOfSteps(trainer)


def librarys_rates(name, args):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    scheduler = get_scheduler(
        name, optimizer, args.get_warmup_steps(STEPS), STEPS, scheduler_specific_kwargs=args.lr_scheduler_kwargs
    )
    return [rate for (rate,) in rates_of(optimizer, scheduler, STEPS)]


@pytest.mark.parametrize("cls", [Trainer, ExtendedTrainer])
@pytest.mark.parametrize("name", LIBRARY)
def test_a_library_schedule_runs_as_it_does_without_the_package(tmp_path, cls, name):
    warmup = {} if name in ADAPTIVE else {"warmup_steps": 2}
    args = arguments(tmp_path, name, **warmup)
    trainer, watched = trainer_of(cls, args)
    trainer.train()
    if name in ADAPTIVE:
        theirs = arguments(tmp_path, name, TrainingArguments)
        plain, other = trainer_of(Trainer, theirs)
        plain.train()
        assert watched.rates == other.rates
    else:
        assert watched.rates == pytest.approx(librarys_rates(name, args))
    assert len(watched.rates) == STEPS


OWN_RUNS = {
    "slanted_triangular": (slanted_triangular, {"cut_frac": 0.25, "ratio": 4}),
    "cyclical_triangular": (cyclical_triangular, {"num_cycles": 2, "min_ratio": 0.5, "decay": 0.5}),
}


@pytest.mark.parametrize("given", ["defaults", "a dict", "a JSON string"])
@pytest.mark.parametrize("name", OWN)
def test_an_own_schedule_runs_on_the_extended_trainer(tmp_path, name, given):
    factor, settings = OWN_RUNS[name]
    settings = {} if given == "defaults" else settings
    kwargs = {"defaults": None, "a dict": settings, "a JSON string": json.dumps(settings)}[given]
    trainer, watched = trainer_of(ExtendedTrainer, arguments(tmp_path, name, lr_scheduler_kwargs=kwargs))
    trainer.train()
    expected = [0.1 * factor(step, STEPS, **settings) for step in range(STEPS)]
    assert watched.rates == pytest.approx(expected)
    logged = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert logged == pytest.approx(expected)


@pytest.mark.parametrize("name", OWN)
def test_an_own_schedule_on_the_plain_trainer_raises_instead_of_training_with_another(tmp_path, name):
    trainer, watched = trainer_of(Trainer, arguments(tmp_path, name))
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(ValueError, match=f"(?i){name}"):
        trainer.train()
    assert watched.rates == []
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())


def test_the_plain_trainers_refusal_says_which_trainer_to_use(tmp_path):
    trainer, _ = trainer_of(Trainer, arguments(tmp_path, "slanted_triangular"))
    with pytest.raises(ValueError, match="ExtendedTrainer"):
        trainer.train()


@pytest.mark.parametrize("name", OWN)
def test_what_the_schedule_does_not_take_is_refused_before_the_first_step(tmp_path, name):
    trainer, watched = trainer_of(ExtendedTrainer, arguments(tmp_path, name, lr_scheduler_kwargs={"cutfrac": 0.2}))
    with pytest.raises(TypeError, match="cutfrac"):
        trainer.train()
    trainer, watched = trainer_of(
        ExtendedTrainer, arguments(tmp_path, "slanted_triangular", lr_scheduler_kwargs={"cut_frac": 2})
    )
    with pytest.raises(ValueError, match="cut_frac is 2; it must be between 0 and 1"):
        trainer.train()
    assert watched.rates == []


@pytest.mark.parametrize("name", OWN)
def test_a_resumed_run_goes_on_with_its_own_schedule(tmp_path, name):
    args = partial(arguments, tmp_path, name, save_strategy="steps", save_steps=3)
    whole, watched = trainer_of(ExtendedTrainer, args())
    whole.train()
    resumed, other = trainer_of(ExtendedTrainer, args())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert other.rates == watched.rates[3:]
    assert len(watched.rates) == STEPS
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)


def test_what_a_trainer_saves_with_a_model_can_be_read_again(tmp_path):
    trainer, _ = trainer_of(ExtendedTrainer, arguments(tmp_path, "slanted_triangular"))
    trainer.save_model(str(tmp_path / "model"))
    loaded = torch.load(tmp_path / "model" / "training_args.bin", weights_only=False)
    assert loaded.lr_scheduler_type is ExtendedSchedulerType("slanted_triangular")


def test_a_scheduler_of_the_users_own_wins(tmp_path):
    trainer, watched = trainer_of(ExtendedTrainer, arguments(tmp_path, "slanted_triangular"))
    optimizer = trainer.create_optimizer()
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    trainer.train()
    assert isinstance(trainer.lr_scheduler, LRScheduler)
    assert watched.rates == pytest.approx([0.05] * STEPS)


def test_extended_trainer_takes_plain_arguments(tmp_path):
    trainer, watched = trainer_of(ExtendedTrainer, arguments(tmp_path, "linear", TrainingArguments))
    trainer.train()
    assert watched.rates == pytest.approx([0.1 * (1 - step / STEPS) for step in range(STEPS)])


@pytest.mark.parametrize("name", OWN)
def test_a_longer_training_spreads_the_schedule_over_all_of_it(tmp_path, name):
    trainer, watched = trainer_of(ExtendedTrainer, replace(arguments(tmp_path, name), max_steps=-1, num_train_epochs=3))
    trainer.train()
    factor, _ = OWN_RUNS[name]
    assert watched.rates == pytest.approx([0.1 * factor(step, 3 * STEPS) for step in range(3 * STEPS)])
