"""The curriculum in a training: the rows of each epoch, the logs, what a resume and bad settings say."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from runs import Case, collate, make_rows, make_trainer, run
from transformers import HfArgumentParser

from hf_ext import ConfigurationError, CurriculumArguments, CurriculumCallback, CurriculumScheduler, DataError
from hf_ext.callbacks.curriculum import check_epochs
from hf_ext.experiments.lr_finder import LRFinder

ROWS, EPOCHS = 48, 3


@pytest.fixture
def case(tmp_path):
    return Case(output_dir=str(tmp_path), model="textcnn", rows=ROWS, epochs=EPOCHS, batch_size=8)


def with_curriculum(case, *args, **settings):
    return case.but(callbacks=(partial(CurriculumCallback, *args, **settings),))


def epochs_of(report):
    """The rows of each epoch, known by the sum of their ids."""
    sums = {sum(row["input_ids"]): number for number, row in enumerate(make_rows(Case("", rows=ROWS)))}
    assert len(sums) == ROWS
    seen = [sums[row] for batch in report["batches"] for row in batch]
    return [seen[start : start + ROWS] for start in range(0, len(seen), ROWS)]


def easiest(score, share, labels=None):
    """The easiest share of each label's rows, by a loop; the scores are all different."""
    rows = []
    for label in {None} if labels is None else set(labels):
        members = [row for row in range(ROWS) if labels is None or labels[row] == label]
        members.sort(key=score)
        rows += members[: math.ceil(round(share * len(members), 6))]
    return set(rows)


SCORES = np.random.default_rng(0).permutation(ROWS) / 7
LABELS = [index % 3 for index in range(ROWS)]


@pytest.mark.parametrize(("mode", "sign"), [("curriculum", 1), ("anti", -1)])
@pytest.mark.parametrize("within_label", [True, False])
def test_each_epoch_draws_from_its_share(case, mode, sign, within_label):
    # Three equal labels of 16 rows; without labels another share of each.
    scheduler = CurriculumScheduler(0.25, 1.0, num_epochs=2)
    report = run(with_curriculum(case, SCORES, scheduler, mode, within_label))
    labels = LABELS if within_label else None
    assert [set(rows) for rows in epochs_of(report)] == [
        easiest(lambda row: sign * SCORES[row], share, labels) for share in (0.25, 0.625, 1.0)
    ]
    assert all(len(rows) == ROWS for rows in epochs_of(report))


def test_the_share_and_the_rows_are_logged(case):
    logs = run(with_curriculum(case, SCORES, CurriculumScheduler(0.3, 1.0, 2)))["logs"]
    assert [log["curriculum/difficulty"] for log in logs] == pytest.approx([0.3] * 6 + [0.65] * 6 + [1.0] * 6)
    # Of 16 rows a label: 4.8 and 10.4, rounded up.
    assert [log["curriculum/rows"] for log in logs] == [15] * 6 + [33] * 6 + [48] * 6


def test_without_a_curriculum_all_rows_come(case):
    report = run(with_curriculum(case, SCORES, mode="none"))
    assert [sorted(rows) for rows in epochs_of(report)] == [list(range(ROWS))] * EPOCHS
    assert {log["curriculum/difficulty"] for log in report["logs"]} == {1.0}
    assert {log["curriculum/rows"] for log in report["logs"]} == {ROWS}


@pytest.mark.parametrize(
    ("epochs", "arguments", "expected"),
    [
        (4, {}, [0.3, 0.65, 1.0, 1.0]),
        (2, {}, [0.3, 1.0]),
        # 24 steps of 8 rows are four epochs of 48.
        (9, {"max_steps": 24}, [0.3, 0.65, 1.0, 1.0]),
        (1, {"max_steps": 12}, [0.3, 1.0]),
    ],
)
def test_all_rows_are_in_use_after_half_of_the_training(case, epochs, arguments, expected):
    report = run(with_curriculum(case).but(epochs=epochs, arguments=arguments))
    assert [log["curriculum/difficulty"] for log in report["logs"]][::6] == pytest.approx(expected)


def test_only_the_length_may_be_left_open(case):
    scheduler = CurriculumScheduler(0.5, 0.75, None, "step")
    report = run(with_curriculum(case, SCORES, scheduler).but(epochs=4))
    assert [log["curriculum/difficulty"] for log in report["logs"]][::6] == [0.5, 0.5, 0.75, 0.75]


def test_the_seed_of_the_data_decides(case):
    def batches(**arguments):
        return run(with_curriculum(case, SCORES).but(arguments=arguments))["batches"]

    one = batches(seed=1, data_seed=7)
    assert one == batches(seed=2, data_seed=7) == batches(seed=7)
    assert one != batches(seed=1)


def test_length_grouping_is_of_the_rows_of_a_step(case):
    grouped = with_curriculum(case, SCORES).but(sampling="group_by_length", batch_size=4, accumulation=2)
    order = epochs_of(run(grouped))
    assert order == epochs_of(run(grouped.but(batch_size=8, accumulation=1)))
    rows = make_rows(case)
    spread = [
        np.ptp([len(rows[row]["input_ids"]) for row in epoch[start : start + 8]])
        for epoch in order
        for start in range(0, ROWS, 8)
    ]
    assert np.mean(spread) < 3
    assert set(order[0]) == easiest(lambda row: SCORES[row], 0.3, LABELS)


def test_a_column_that_the_model_does_not_take(case):
    rows = [{**row, "hard": score} for row, score in zip(make_rows(case), SCORES.tolist(), strict=True)]
    trainer = make_trainer(with_curriculum(case, "hard", CurriculumScheduler(0.25, 1.0, 2)))
    trainer.train_dataset = Dataset.from_list(rows)
    trainer.data_collator = collate
    (callback,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, CurriculumCallback)]
    sampler = callback.train_sampler(trainer.train_dataset, trainer.args)
    assert set(sampler) == easiest(lambda row: SCORES[row], 0.25, LABELS)
    trainer.train()
    assert trainer.state.global_step == 18


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_kinds_of_labels(case, problem_type):
    report = run(with_curriculum(case, SCORES, CurriculumScheduler(0.25, 1.0, 2)).but(problem_type=problem_type))
    labels = None
    if problem_type == "multi_label_classification":
        labels = [str(row["labels"]) for row in make_rows(case.but(problem_type=problem_type))]
    assert set(epochs_of(report)[0]) == easiest(lambda row: SCORES[row], 0.25, labels)


def test_a_second_training_asks_again(case):
    trainer = make_trainer(with_curriculum(case, "length"))
    trainer.train()
    trainer.train_dataset = trainer.train_dataset[:16]
    trainer.train()
    assert trainer.state.log_history[-2]["curriculum/rows"] == 16


def test_the_learning_rate_finder_leaves_it_alone(case):
    trainer = make_trainer(with_curriculum(case, SCORES))
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(num_iter=10)
    assert len(finder.history["lr"]) >= 1
    trainer.train()
    assert [log["curriculum/rows"] for log in trainer.state.log_history if "loss" in log][-1] == ROWS


# ---- Resume ----


def test_a_run_resumed_inside_an_epoch_goes_on_with_its_share(case):
    case = with_curriculum(case, SCORES, CurriculumScheduler(0.3, 1.0, 2)).but(save_steps=8)
    whole = run(case)
    trainer = make_trainer(case)
    trainer.train(resume_from_checkpoint=f"{case.output_dir}/checkpoint-8")
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in logs] == list(range(1, 19))
    assert [log["curriculum/rows"] for log in logs] == [15] * 6 + [33] * 6 + [48] * 6
    assert [log["loss"] for log in logs] == whole["loss"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (((SCORES,), {"scheduler": CurriculumScheduler(0.3, 1.0, 2, "root")}), "pacing: linear.*pacing: root"),
        (((SCORES,), {"scheduler": CurriculumScheduler(0.4, 1.0, 2)}), "difficulty: 0.3.*difficulty: 0.4"),
        (((SCORES,), {"mode": "anti"}), "mode: curriculum.*mode: anti"),
        (((SCORES,), {"within_label": False}), "within_label: True.*within_label: False"),
        (((SCORES[::-1].copy(),), {}), "ranks: "),
        ((("length",), {}), "difficulty: own.*difficulty: length"),
    ],
    ids=["pacing", "initial", "mode", "within label", "scores", "difficulty"],
)
def test_a_run_cannot_go_on_with_another_curriculum(case, changed, message):
    settings = {"scheduler": CurriculumScheduler(0.3, 1.0, 2)}
    run(with_curriculum(case, SCORES, **settings).but(save_steps=7, arguments={"save_total_limit": 1}))
    args, changes = changed
    with pytest.raises(ConfigurationError, match=f"(?s)made with another curriculum.*{message}"):
        run(with_curriculum(case, *args, **{**settings, **changes}).but(resume=True))


def test_a_run_without_a_curriculum_cannot_go_on_with_one(case):
    run(case.but(save_steps=7))
    with pytest.raises(ConfigurationError, match=r"(?s)then: none\n +now: +difficulty: length, mode: curriculum"):
        run(with_curriculum(case).but(resume=True))


# ---- What is refused ----


def test_streamed_rows_are_refused(case):
    trainer = make_trainer(with_curriculum(case).but(arguments={"max_steps": 4}))
    trainer.train_dataset = IterableDataset.from_generator(lambda: iter(make_rows(case)))
    with pytest.raises(ConfigurationError, match=r"IterableDataset \(streaming\)"):
        trainer.train()


@pytest.mark.parametrize("epochs", [1, 0.5])
def test_one_epoch_is_refused(case, epochs):
    with pytest.raises(ConfigurationError, match=r"num_train_epochs is .* at least two epochs"):
        run(with_curriculum(case).but(epochs=epochs))
    assert run(with_curriculum(case, mode="none").but(epochs=epochs))["steps"] > 0


def test_a_difficulty_that_is_not_there_is_refused(case):
    with pytest.raises(DataError, match=r"no difficulty 'lenght'.*Did you mean 'length'"):
        run(with_curriculum(case, "lenght"))
    with pytest.raises(DataError, match=r"shape \(3,\); it must be one number a row, of shape \(48,\)"):
        run(with_curriculum(case, [1.0, 2.0, 3.0]))
    with pytest.raises(DataError, match="is nan in row 6"):
        run(with_curriculum(case, np.where(np.arange(ROWS) == 5, np.nan, SCORES)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "easy"}, "mode is 'easy'; it must be one of curriculum, anti, random, none"),
        ({"scheduler": "linear"}, "scheduler is 'linear'; it must be a CurriculumScheduler"),
        ({"scheduler": lambda epoch: 0.5}, "it must be a CurriculumScheduler"),
        ({"within_label": "yes"}, "within_label is 'yes'"),
    ],
    ids=["mode", "scheduler", "function", "within_label"],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        CurriculumCallback(**settings)


# ---- Arguments ----


def test_without_a_difficulty_there_is_no_callback():
    assert CurriculumArguments().callbacks() == []
    assert not CurriculumArguments().needs_scores


def test_flags_make_a_callback():
    flags = "--curriculum rarity --curriculum_mode anti --curriculum_pacing exp --curriculum_initial_difficulty 0.2"
    flags += " --curriculum_final_difficulty 0.8 --curriculum_epochs 3 --curriculum_within_label false"
    (arguments,) = HfArgumentParser(CurriculumArguments).parse_args_into_dataclasses(flags.split())
    (callback,) = arguments.callbacks()
    assert (callback.difficulty, callback.mode, callback.within_label) == ("rarity", "anti", False)
    assert vars(callback.scheduler) == vars(CurriculumScheduler(0.2, 0.8, 3.0, "exp"))


def test_by_default_the_length_is_left_to_the_training():
    (callback,) = CurriculumArguments(curriculum="length").callbacks()
    assert vars(callback.scheduler) == vars(CurriculumScheduler(num_epochs=None))
    assert callback.within_label is True


def test_a_column_has_to_be_read():
    names = (None, "length", "rarity", "cross_review", "cartography", "perplexity")
    columns = [CurriculumArguments(curriculum=name).number_columns() for name in names]
    assert columns == [(), (), (), (), (), ("perplexity",)]


@pytest.mark.parametrize("name", ["cross_review", "cartography"])
def test_trained_scores_are_passed(name):
    arguments = CurriculumArguments(curriculum=name)
    assert arguments.needs_scores
    (callback,) = arguments.callbacks(SCORES)
    assert callback.difficulty is SCORES
    with pytest.raises(ConfigurationError, match=f"curriculum={name} needs the scores"):
        arguments.callbacks()
    with pytest.raises(ConfigurationError, match="finds its scores itself"):
        CurriculumArguments(curriculum="length").callbacks(SCORES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curriculum_mode": "anti"}, "curriculum_mode: no effect without a difficulty; pass --curriculum"),
        ({"curriculum_epochs": 3, "curriculum_pacing": "exp"}, "curriculum_pacing, curriculum_epochs: no effect"),
        ({"curriculum": ""}, "curriculum is ''"),
        ({"curriculum": "length", "curriculum_mode": "hard"}, "curriculum_mode is 'hard'"),
        (
            {"curriculum": "length", "curriculum_pacing": "sqrt"},
            "curriculum_pacing is 'sqrt'; it must be one of linear",
        ),
        (
            {"curriculum": "length", "curriculum_initial_difficulty": 0},
            "curriculum_initial_difficulty is 0; it must be",
        ),
        ({"curriculum": "length", "curriculum_final_difficulty": 0.1}, "initial_difficulty=0.3 is above final"),
        ({"curriculum": "length", "curriculum_final_difficulty": math.nan}, "curriculum_final_difficulty is nan"),
        ({"curriculum": "length", "curriculum_epochs": 0.5}, "curriculum_epochs is 0.5; it must be at least 1"),
        ({"curriculum": "length", "curriculum_epochs": math.nan}, "curriculum_epochs is nan"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        CurriculumArguments(**settings)


def test_the_global_random_numbers_are_left_alone(case):
    """A model's dropout is the same as without the callback."""
    trainer = make_trainer(with_curriculum(case, SCORES))
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert len(list(trainer._get_train_sampler())) == ROWS
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpys


@pytest.mark.parametrize(("steps", "epochs"), [(3, "0.5"), (6, "1")])
def test_steps_that_end_within_the_first_epoch_are_refused(case, steps, epochs):
    args = make_trainer(case.but(arguments={"max_steps": steps})).args
    with pytest.raises(ConfigurationError, match=rf"max_steps is {steps}, which is {epochs} epochs.*at least two"):
        check_epochs(ROWS, args)
    check_epochs(ROWS, make_trainer(case.but(arguments={"max_steps": 7})).args)


def test_the_learning_rate_finder_may_end_within_the_first_epoch(case):
    finder = LRFinder.from_trainer(make_trainer(with_curriculum(case, SCORES).but(batch_size=4)))
    # Of 12 steps an epoch.
    finder.range_test(num_iter=10)
    assert len(finder.history["lr"]) >= 1
