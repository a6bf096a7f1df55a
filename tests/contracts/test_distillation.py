"""A distilled student through what the package promises: resume, accumulation, processes, other techniques."""

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import Case, assert_same_weights, launch, left_by_a_kill, make_model, saved_before, train
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding, set_seed

from hf_ext import (
    AugmentingCollator,
    CurriculumCallback,
    CurriculumScheduler,
    DataAugmenter,
    GradualUnfreezingCallback,
    build_word_tokenizer,
    layer_groups,
)
from hf_ext.trainers.distillation import DistillationTrainer

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")
SOURCES = ("column", "cached", "online")
SENTENCE = "the slow film and its quick plot please a happy young crowd with bright music while critics complain"
WORDS = SENTENCE.split()


@dataclass(frozen=True)
class Distil:
    """The rows of a run and how its trainer is made."""

    source: str
    folder: str
    on_the_fly: bool = False
    teacher_seed: int = 1

    def __call__(self, case: Case) -> dict:
        tokenizer = build_word_tokenizer(texts_of(case), model_max_length=16)
        rows, collator = labelled_rows(case, tokenizer), DataCollatorWithPadding(tokenizer)
        plain = [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows]
        settings = {"teacher_model": f"{self.folder}/teacher", "cache_dir": f"{self.folder}/cache"}
        if self.source == "column":
            generator = torch.Generator().manual_seed(self.teacher_seed)
            logits = 3 * torch.randn(case.rows, make_model(case).config.num_labels, generator=generator)
            rows = [{**row, "teacher_logits": logits[i].tolist()} for i, row in enumerate(rows)]
            settings = {}
        elif self.source == "online":
            settings["teacher_logits"] = "online"
        if self.on_the_fly:
            collator = AugmentingCollator(tokenizer, DataAugmenter(0.5, ("random_swap",)), collator)
        return {
            "train_dataset": rows,
            "eval_dataset": plain,
            "data_collator": collator,
            "trainer_class": partial(distil, settings),
        }


def distil(settings: dict, model, **others) -> DistillationTrainer:
    return DistillationTrainer(
        student_model=model,
        temperature=5.0,
        final_temperature=1.0,
        alpha=0.9,
        final_alpha=0.2,
        distillation_schedule="cosine",
        **settings,
        **others,
    )


def texts_of(case: Case) -> list[str]:
    return [" ".join(WORDS[(5 * i + 3 * j) % len(WORDS)] for j in range(3 + i % 6)) for i in range(case.rows)]


def labelled_rows(case: Case, tokenizer) -> list[dict]:
    """Unlabelled are rows 4 to 7 (a micro-batch of 4 without any) and every seventh."""
    missing = {"single_label_classification": -100, "multi_label_classification": [math.nan] * 3}
    rows = []
    for i, text in enumerate(texts_of(case)):
        label = {
            "single_label_classification": i % 3,
            "multi_label_classification": [float(i % 2), float(i % 3 == 0), float(i % 5 == 0)],
            "regression": i / case.rows,
        }[case.problem_type]
        if i in range(4, 8) or i % 7 == 0:
            label = missing.get(case.problem_type, math.nan)
        encoded = {name: tokenizer(text)[name] for name in ("input_ids", "attention_mask")}
        rows.append({**encoded, "labels": label, "text": text, "row": i})
    return rows


@pytest.fixture
def make_case(tmp_path):
    def make(source="column", on_the_fly=False, **changes) -> Case:
        case = Case(output_dir=str(tmp_path / "run"), **{"rows": 32, "batch_size": 8, "epochs": 3, **changes})
        tokenizer = build_word_tokenizer([*sorted(WORDS, reverse=True), "zebra zebra"], model_max_length=32)
        set_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.5,
            pad_token_id=0,
            problem_type=case.problem_type,
            num_labels=1 if case.problem_type == "regression" else 3,
        )
        BertForSequenceClassification(config).save_pretrained(tmp_path / "teacher")
        tokenizer.save_pretrained(tmp_path / "teacher")
        return case.but(settings=Distil(source, str(tmp_path), on_the_fly))

    return make


def parts_of(report: dict) -> list[list[float]]:
    names = ("loss", "grad_norm", "distillation/soft_loss", "distillation/hard_loss")
    return [[log[name] for name in names] for log in report["logs"]]


def assert_equal_training(one: dict, other: dict) -> None:
    for these, those in zip(parts_of(one), parts_of(other), strict=True):
        assert these == pytest.approx(those, rel=1e-3)
    for name in ("temperature", "alpha"):
        of = [[log[f"distillation/{name}"] for log in report["logs"]] for report in (one, other)]
        assert of[0] == of[1]
    assert one["eval_loss"] == pytest.approx(other["eval_loss"], rel=1e-3)
    assert_same_weights(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("source", "on_the_fly"),
    [("column", False), ("cached", False), ("online", False), ("online", True)],
    ids=["column", "cached", "online", "online, texts made anew"],
)
def test_killed_and_resumed_is_uninterrupted(make_case, source, on_the_fly, world_size):
    case = make_case(source, on_the_fly, sampling="random", dropout=0.1, save_steps=1, batch_size=8 // world_size)
    whole = train(case, world_size)
    for step in (4, 6):
        killed = case.but(output_dir=f"{case.output_dir}-{step}")
        # The kill comes before the step's checkpoint is written.
        if step == 4:
            resumed = train(left_by_a_kill(killed, case, step, world_size), world_size)
        else:
            resumed = train(saved_before(killed, case, step), world_size)
        assert resumed["batches"] == whole["batches"][step - 1 :]
        assert resumed["digests"] == whole["digests"][step - 1 :]
        assert_same_weights(whole, resumed)


@pytest.mark.parametrize("model", ["bert", "textcnn"])
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_one_batch_equals_accumulation_equals_two_processes(make_case, problem_type, model):
    # 30 rows: the last step has micro-batches of 4, 4, 4 and 2 rows; of those of a step, 0 to 4 have a label.
    case = make_case(problem_type=problem_type, model=model, rows=30, batch_size=16, epochs=2, sparse=False)
    whole = train(case)
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=4)))
    case = case.but(rows=32)
    whole = train(case)
    assert_equal_training(whole, train(case.but(batch_size=8), world_size=2))
    assert_equal_training(whole, train(case.but(batch_size=4, accumulation=2), world_size=2))


@pytest.mark.parametrize(("batch_size", "accumulation", "world_size"), [(16, 1, 1), (4, 4, 1), (4, 2, 2)])
def test_another_teacher_makes_another_student(make_case, batch_size, accumulation, world_size):
    # The runs above equal each other; were the teacher not heard in any of them, they would too.
    case = make_case(batch_size=batch_size, accumulation=accumulation, sparse=False)
    other = case.but(settings=replace(case.settings, teacher_seed=2), output_dir=f"{case.output_dir}-other")
    one, two = train(case, world_size), train(other, world_size)
    for name in ("distillation/soft_loss", "grad_norm"):
        assert all(a[name] != pytest.approx(b[name], rel=1e-3) for a, b in zip(one["logs"], two["logs"], strict=True))
    with pytest.raises(AssertionError, match="not close"):
        assert_same_weights(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", ["cached", "online"])
def test_two_processes_ask_the_teacher_what_one_asks(make_case, source):
    case = make_case(source, sparse=False)
    two = train(case.but(batch_size=4), world_size=2)
    cache = Path(case.settings.folder) / "cache"
    assert cache.exists() == (source == "cached")
    # Labelled by two processes, read by one.
    assert_equal_training(train(case), two)


@pytest.mark.parametrize("source", SOURCES)
def test_with_unfreezing_and_a_curriculum(make_case, source):
    unfreeze = partial(GradualUnfreezingCallback, unit="steps", interval=3)
    easy_first = partial(CurriculumCallback, scheduler=CurriculumScheduler(num_epochs=2))
    case = make_case(source, callbacks=(unfreeze, easy_first), save_steps=1, sparse=False)
    whole = train(case)
    groups = layer_groups(make_model(case))
    depths = {0: ["head"], 3: ["layer.1", "head"], 6: ["layer.0", "layer.1", "head"], 9: list(groups)}
    for step, moved in enumerate(whole["moved"]):
        trained = depths[max(begin for begin in depths if begin <= step)]
        assert set(moved) == {name for group in trained for name in groups[group]}, f"step {step}"
    assert {"curriculum/rows", "unfreezing/depth", "distillation/alpha"} <= whole["logs"][-1].keys()
    killed = case.but(output_dir=f"{case.output_dir}-killed")
    assert launch(killed.but(kill_at_step=6)) == [None]
    resumed = train(killed.but(resume=True))
    assert resumed["digests"] == whole["digests"][5:]
    assert_equal_training(whole, train(case.but(batch_size=2, accumulation=4)))
    assert_equal_training(whole, train(case.but(batch_size=4), world_size=2))


@pytest.mark.parametrize("source", ["column", "online"])
def test_compiled_is_the_same(make_case, source):
    case = make_case(source, model="textcnn", sparse=False)
    compiled = case.but(arguments={"torch_compile": True, "torch_compile_backend": "aot_eager"})
    assert_equal_training(train(case), train(compiled))


def test_workers_make_the_same_batches(make_case):
    case = make_case("online", on_the_fly=True, sampling="random")
    arguments = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    one, other = train(case), train(case.but(arguments=arguments))
    assert one["batches"] == other["batches"]
    assert one["digests"] == other["digests"]
