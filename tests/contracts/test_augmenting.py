"""Fresh copies in every epoch through what the package promises: resume, processes, workers, evaluation untouched."""

import pytest
from runs import Case, assert_same_weights, left_by_a_kill, saved_before, train
from transformers import DataCollatorWithPadding

from hf_ext import AugmentingCollator, DataAugmenter, build_word_tokenizer

WORDS = [
    "the",
    "slow",
    "film",
    "and",
    "its",
    "quick",
    "plot",
    "please",
    "a",
    "happy",
    "young",
    "crowd",
    "with",
    "bright",
    "music",
    "while",
    "critics",
    "complain",
]
TECHNIQUES = ("synonym_replacement", "random_swap")


def make_texts(case: Case) -> list[str]:
    return [" ".join(WORDS[(index * 5 + place * 3) % len(WORDS)] for place in range(8)) for index in range(case.rows)]


def make_text_rows(case: Case, tokenizer) -> list[dict]:
    texts = make_texts(case)
    encoded = tokenizer(texts)
    return [
        {
            **{name: encoded[name][i] for name in ("input_ids", "attention_mask")},
            "labels": i % 3,
            "text": text,
            "row": i,
        }
        for i, text in enumerate(texts)
    ]


def on_the_fly(case: Case) -> dict:
    tokenizer = build_word_tokenizer([*make_texts(case), "movie picture fast rapid glad vivid"], model_max_length=16)
    rows = make_text_rows(case, tokenizer)
    collator = AugmentingCollator(tokenizer, DataAugmenter(0.3, TECHNIQUES), DataCollatorWithPadding(tokenizer))
    # As a data set that is tokenised for evaluation has them.
    plain = [{name: value for name, value in row.items() if name not in ("text", "row")} for row in rows]
    return {"data_collator": collator, "train_dataset": rows, "eval_dataset": plain}


def as_they_are(case: Case) -> dict:
    settings = on_the_fly(case)
    return {**settings, "data_collator": settings["data_collator"].collator, "train_dataset": settings["eval_dataset"]}


def case_of(output_dir, **changes) -> Case:
    settings = {"rows": 32, "batch_size": 8, "epochs": 3, "sampling": "random", "settings": on_the_fly}
    return Case(output_dir=str(output_dir), **{**settings, **changes})


def test_every_epoch_has_other_texts_of_the_same_rows(tmp_path):
    report = train(case_of(tmp_path).but(sampling="sequential"))
    epochs = [report["batches"][start : start + 4] for start in (0, 4, 8)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_and_resumed_sees_the_same_texts(tmp_path, world_size):
    case = case_of(tmp_path / "whole", save_steps=1).but(batch_size=8 // world_size)
    whole = train(case, world_size)
    # Killed before it was saved: at the end of the first epoch, and inside the second.
    at_the_end = saved_before(case.but(output_dir=str(tmp_path / "first")), case, 5)
    inside = left_by_a_kill(case.but(output_dir=str(tmp_path / "second")), case, 7, world_size)
    for step, killed in ((5, at_the_end), (7, inside)):
        resumed = train(killed, world_size)
        assert resumed["batches"] == whole["batches"][step - 1 :]
        assert_same_weights(resumed, whole)


def test_two_processes_see_what_one_sees(tmp_path):
    one = train(case_of(tmp_path / "one", sparse=False))
    two = train(case_of(tmp_path / "two").but(batch_size=4), 2)
    # Rank 0 of two has the first half of each step's rows.
    assert [sum(batch) for batch in two["batches"]] == [sum(batch[:4]) for batch in one["batches"]]
    assert_same_weights(one, two, rtol=1e-3, atol=1e-5)


def test_accumulated_micro_batches_hold_the_same_texts(tmp_path):
    whole = train(case_of(tmp_path / "whole"))
    parts = train(case_of(tmp_path / "parts", batch_size=4, accumulation=2))
    halves = iter(parts["batches"])
    # Sums of token ids: padding is 0, so narrower micro-batches change none.
    assert [one + other for one, other in zip(halves, halves, strict=True)] == whole["batches"]
    assert_same_weights(parts, whole, rtol=1e-3, atol=1e-5)


def test_workers_that_live_on_learn_of_the_epoch(tmp_path):
    alone = train(case_of(tmp_path / "alone"))
    arguments = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    assert train(case_of(tmp_path / "workers", arguments=arguments))["batches"] == alone["batches"]


def test_evaluation_is_not_augmented(tmp_path):
    still = {"learning_rate": 1e-12}
    augmented = train(case_of(tmp_path / "augmented", arguments=still))
    plain = train(case_of(tmp_path / "plain", arguments=still, settings=as_they_are))
    assert augmented["loss"] != plain["loss"]
    assert augmented["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-6)
