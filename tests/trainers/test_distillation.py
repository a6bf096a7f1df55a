"""A student's first step against a ten-line loop, what it evaluates, saves and logs, and what it refuses."""

import copy
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from sklearn.utils.class_weight import compute_sample_weight
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    TrainerCallback,
    set_seed,
)

from hf_ext import (
    AugmentingCollator,
    ConfigurationError,
    DataAugmenter,
    DataError,
    ExtendedTrainer,
    ExtendedTrainingArguments,
    LRFinder,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_word_tokenizer,
)
from hf_ext.data.distillation_collator import DistillationCollator
from hf_ext.data.tokenization import tokenize_dataset
from hf_ext.models.hidden_states import uniform_layers
from hf_ext.models.teacher import Teacher
from hf_ext.trainers.distillation import DistillationTrainer

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEMS = (SINGLE, MULTI, REGRESSION)
NAMES = ["good", "bad", "odd"]
SENTENCE = "the slow film and its quick plot please a happy young crowd with bright music while critics complain"
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[(5 * i + 3 * j) % len(WORDS)] for j in range(3 + i % 5)) for i in range(16)]
UNLABELLED = (3, 4, 5, 11)


def make_bert(tokenizer, names, problem_type=SINGLE, seed=0, layers=1, width=16, scale=1.0):
    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
        problem_type=problem_type,
        initializer_range=0.3,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(scale)
    return model


def make_cnn(tokenizer, names, problem_type=SINGLE):
    set_seed(1)
    settings = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = TextCNNConfig(vocab_size=len(tokenizer), embed_size=8, num_filters=4, dropout_prob=0.0, **settings)
    config.problem_type = problem_type
    return TextCNNForSequenceClassification(config)


def names_of(problem_type):
    return ["value"] if problem_type == REGRESSION else NAMES


@pytest.fixture(scope="module")
def student_tokenizer():
    return build_word_tokenizer(TEXTS, model_max_length=16)


@pytest.fixture(scope="module")
def teacher_tokenizer():
    # Other ids than the student's for every word, and words that the student does not know.
    return build_word_tokenizer([*sorted(WORDS, reverse=True), "zebra zebra zebra"], model_max_length=32)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, teacher_tokenizer):
    """A directory for each kind of problem; the classes stand in another order than the student's."""
    folders = {}
    for problem_type in PROBLEMS:
        folders[problem_type] = tmp_path_factory.mktemp(problem_type)
        names = names_of(problem_type)[::-1]
        make_bert(teacher_tokenizer, names, problem_type, scale=4.0).save_pretrained(folders[problem_type])
        teacher_tokenizer.save_pretrained(folders[problem_type])
    return folders


def labels_for(problem_type, unlabelled=UNLABELLED):
    labels = {
        SINGLE: [i % 3 for i in range(16)],
        MULTI: [[float(i % 2), float(i % 3 == 0), float(i % 5 == 0)] for i in range(16)],
        REGRESSION: [i / 16 for i in range(16)],
    }[problem_type]
    missing = {SINGLE: -100, MULTI: [math.nan] * 3, REGRESSION: math.nan}[problem_type]
    return [missing if i in unlabelled else label for i, label in enumerate(labels)]


def make_rows(tokenizer, problem_type=SINGLE, unlabelled=UNLABELLED, keep_columns=("text",)):
    rows = Dataset.from_dict({"text": TEXTS, "label": labels_for(problem_type, unlabelled)})
    return tokenize_dataset(rows, tokenizer, 16, keep_columns=keep_columns)


def make_args(folder, **arguments):
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 5,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return ExtendedTrainingArguments(**{**settings, **arguments})


@pytest.fixture
def make_trainer(tmp_path, student_tokenizer, teachers):
    def make(problem_type=SINGLE, arguments=None, **changes):
        settings = {
            "student_model": make_cnn(student_tokenizer, names_of(problem_type), problem_type),
            "teacher_model": teachers[problem_type],
            "args": make_args(tmp_path / "run", **(arguments or {})),
            "train_dataset": make_rows(student_tokenizer, problem_type),
            "eval_dataset": make_rows(student_tokenizer, problem_type, unlabelled=(), keep_columns=()),
            "processing_class": student_tokenizer,
            "cache_dir": tmp_path / "cache",
        }
        return DistillationTrainer(**{**settings, **changes})

    return make


def ask(folder, tokenizer, problem_type, texts=TEXTS):
    """The teacher's logits by the library alone, one text at a time, in the student's order of classes."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    return logits if problem_type == REGRESSION else logits.flip(1)


def loss_by_loop(student, tokenizer, problem_type, targets, temperature, alpha, kind, smoothing=0.0):
    """With torch's own losses, one row at a time."""
    losses = []
    for text, label, target in zip(TEXTS, labels_for(problem_type), targets, strict=True):
        logits = student(**tokenizer(text, return_tensors="pt")).logits[0]
        label = torch.tensor(label)
        if kind == "mse" or problem_type == REGRESSION:
            soft = F.mse_loss(logits, target)
        elif problem_type == SINGLE:
            p, log_q = (target / temperature).softmax(0), (logits / temperature).log_softmax(0)
            soft = temperature**2 * F.kl_div(log_q, p, reduction="sum")
        else:
            p = (target / temperature).sigmoid()
            entropy = F.binary_cross_entropy(p, p)
            soft = temperature**2 * (F.binary_cross_entropy_with_logits(logits / temperature, p) - entropy)
        if problem_type == SINGLE:
            hard = F.cross_entropy(logits, label, label_smoothing=smoothing)
        elif problem_type == MULTI:
            hard = F.binary_cross_entropy_with_logits(logits, label.nan_to_num())
        else:
            hard = F.mse_loss(logits[0], label)
        unlabelled = label == -100 if problem_type == SINGLE else label.isnan().any()
        losses.append(soft if unlabelled else alpha * soft + (1 - alpha) * hard)
    return torch.stack(losses).mean()


def with_column(rows, logits):
    return rows.add_column("teacher_logits", logits.tolist())


def logs_of(trainer):
    return [log for log in trainer.state.log_history if "loss" in log]


# ---- The loss ----


@pytest.mark.parametrize("source", ["column", "cached", "online"])
@pytest.mark.parametrize("kind", ["kl", "mse"])
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_the_first_step_is_that_of_a_loop(
    make_trainer, student_tokenizer, teacher_tokenizer, teachers, problem_type, kind, source
):
    targets = ask(teachers[problem_type], teacher_tokenizer, problem_type)
    student = make_cnn(student_tokenizer, names_of(problem_type), problem_type)
    expected = loss_by_loop(student, student_tokenizer, problem_type, targets, 3.0, 0.6, kind)
    expected.backward()
    norm = torch.stack([p.grad.norm() for p in student.parameters()]).norm()

    changes = {"teacher_logits": "online"} if source == "online" else {}
    if source == "column":
        rows = with_column(make_rows(student_tokenizer, problem_type, keep_columns=()), targets)
        changes = {"teacher_model": None, "train_dataset": rows}
    trainer = make_trainer(problem_type, temperature=3.0, alpha=0.6, distillation_loss=kind, **changes)
    trainer.train()
    (log,) = logs_of(trainer)
    # What is cached is kept in float16, computed in bfloat16 where the processor has it.
    tolerance = 3e-2 if source == "cached" else 1e-4
    assert log["loss"] == pytest.approx(expected.item(), rel=tolerance)
    assert log["grad_norm"] == pytest.approx(norm.item(), rel=tolerance)


def test_smoothing_acts_on_the_hard_term_once_and_on_no_evaluation(
    make_trainer, student_tokenizer, teacher_tokenizer, teachers
):
    targets = ask(teachers[SINGLE], teacher_tokenizer, SINGLE)
    student = make_cnn(student_tokenizer, NAMES)
    expected = loss_by_loop(student, student_tokenizer, SINGLE, targets, 4.0, 0.7, "kl", smoothing=0.2)
    smoothed = {"label_smoothing_factor": 0.2, "learning_rate": 1e-12}
    trainer = make_trainer(teacher_logits="online", arguments=smoothed)
    trainer.train()
    assert logs_of(trainer)[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)
    plain = make_trainer(teacher_logits="online", arguments={"learning_rate": 1e-12})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-6)


def test_class_weights_and_smoothing_of_several_labels_act_on_the_hard_term(make_trainer, student_tokenizer):
    weights = {SINGLE: {"bad": 4.0}, MULTI: "balanced"}
    for problem_type in (SINGLE, MULTI):
        arguments = {"label_smoothing_factor": 0.2, "learning_rate": 1e-12}
        settings = {"teacher_logits": "online", "class_weights": weights[problem_type]}
        trainer = make_trainer(problem_type, arguments, **settings)
        trainer.train()
        rows = [row for row in range(16) if row not in UNLABELLED]
        labels = torch.tensor([labels_for(problem_type)[row] for row in rows])
        student = make_cnn(student_tokenizer, NAMES, problem_type)
        logits = torch.cat([student(**student_tokenizer(TEXTS[row], return_tensors="pt")).logits for row in rows])
        if problem_type == SINGLE:
            given = torch.tensor([1.0, 4.0, 1.0])[labels]
            losses = F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
            expected = (losses * given / given.mean()).mean()
        else:
            given = torch.stack(
                [torch.from_numpy(compute_sample_weight("balanced", column.int().numpy())) for column in labels.T], 1
            )
            targets = labels * 0.8 + 0.1
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            expected = (losses * given).mean()
        assert logs_of(trainer)[0]["distillation/hard_loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_several_teachers_are_averaged_by_probability(
    make_trainer, student_tokenizer, teacher_tokenizer, teachers, tmp_path
):
    second = make_bert(teacher_tokenizer, ["odd", "good", "bad"], seed=5, scale=4.0)
    second.save_pretrained(tmp_path / "second")
    one = ask(teachers[SINGLE], teacher_tokenizer, SINGLE).softmax(1)
    other = ask(tmp_path / "second", teacher_tokenizer, REGRESSION).softmax(1)[:, [1, 2, 0]]
    student = make_cnn(student_tokenizer, NAMES)
    targets = ((one + other) / 2).log()
    expected = loss_by_loop(student, student_tokenizer, SINGLE, targets, 2.0, 0.5, "kl").item()
    models = {
        "teacher_model": [teachers[SINGLE], second],
        "teacher_tokenizer": [None, teacher_tokenizer],
    }
    for source, tolerance in {"online": 1e-4, "cached": 3e-2}.items():
        trainer = make_trainer(temperature=2.0, alpha=0.5, teacher_logits=source, **models)
        trainer.train()
        assert logs_of(trainer)[0]["loss"] == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("source", ["cached", "online"])
def test_mixed_precision_is_nearly_the_same(make_trainer, source):
    exact = make_trainer(teacher_logits=source)
    mixed = make_trainer(teacher_logits=source, arguments={"bf16": True})
    exact.train()
    mixed.train()
    for name in ("loss", "grad_norm", "distillation/soft_loss"):
        assert logs_of(mixed)[0][name] == pytest.approx(logs_of(exact)[0][name], rel=3e-2)


def test_rows_need_no_label_at_all(make_trainer, student_tokenizer):
    rows = make_rows(student_tokenizer).remove_columns("labels")
    trainer = make_trainer(train_dataset=rows, arguments={"max_steps": 3})
    trainer.train()
    for log in logs_of(trainer):
        assert log["loss"] == pytest.approx(log["distillation/soft_loss"], rel=1e-5)
        assert "distillation/hard_loss" not in log


def test_a_student_that_distils_comes_closer_to_its_teacher(make_trainer, teacher_tokenizer, teachers):
    targets = ask(teachers[SINGLE], teacher_tokenizer, SINGLE)
    trainer = make_trainer(alpha=1.0, arguments={"max_steps": 120, "learning_rate": 5e-2})
    trainer.train()
    logits = trainer.predict(trainer.train_dataset).predictions
    assert (logits.argmax(1) == targets.numpy().argmax(1)).all()
    logs = logs_of(trainer)
    assert logs[-1]["distillation/soft_loss"] < 0.05 * logs[0]["distillation/soft_loss"]


# ---- Where the logits come from ----


class Watch(TrainerCallback):
    def __init__(self, reference):
        self.reference, self.alive = reference, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.alive = self.reference() is not None


def test_the_teacher_leaves_the_memory_before_training(make_trainer):
    trainer = make_trainer()
    watch = Watch(weakref.ref(trainer.teacher.members[0].model))
    trainer.add_callback(watch)
    trainer.train()
    assert watch.alive is False
    assert trainer.teacher is None
    assert (trainer.labelling.labelled, trainer.labelling.cached) == (len(set(TEXTS)), 0)
    # It goes on with what it has.
    trainer.train()


def test_a_second_run_asks_nobody_and_is_the_same(make_trainer):
    first, second = make_trainer(), make_trainer()
    first.train()
    second.train()
    assert (second.labelling.labelled, second.labelling.cached) == (0, len(set(TEXTS)))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("source", ["cached", "online"])
@pytest.mark.parametrize("form", ["list of rows", "torch format"])
def test_other_forms_of_rows_train_the_same(make_trainer, student_tokenizer, form, source):
    rows = make_rows(student_tokenizer)
    rows = list(rows) if form == "list of rows" else rows.with_format("torch")
    one, other = make_trainer(teacher_logits=source), make_trainer(teacher_logits=source, train_dataset=rows)
    one.train()
    other.train()
    assert logs_of(other)[0]["loss"] == pytest.approx(logs_of(one)[0]["loss"], rel=1e-6)


def test_streams(make_trainer, student_tokenizer, teacher_tokenizer, teachers):
    rows = make_rows(student_tokenizer)
    expected = make_trainer(teacher_logits="online", arguments={"train_sampling_strategy": "sequential"})
    expected.train()
    expected = pytest.approx(logs_of(expected)[0]["loss"], rel=1e-5)
    labelled = with_column(rows, ask(teachers[SINGLE], teacher_tokenizer, SINGLE))
    for changes in (
        {"teacher_logits": "online", "train_dataset": rows.to_iterable_dataset()},
        {"teacher_model": None, "train_dataset": labelled.to_iterable_dataset()},
        {"teacher_model": None, "train_dataset": IterableDataset.from_generator(lambda: iter(list(labelled)))},
    ):
        trainer = make_trainer(**changes)
        trainer.train()
        assert logs_of(trainer)[0]["loss"] == expected
    with pytest.raises(ConfigurationError, match="a stream cannot be made before it is read"):
        make_trainer(train_dataset=rows.to_iterable_dataset())
    unlabelled = IterableDataset.from_generator(lambda: iter(list(rows)))
    with pytest.raises(DataError, match="no column 'teacher_logits'"):
        make_trainer(teacher_model=None, train_dataset=unlabelled).train()


def test_pairs(make_trainer, student_tokenizer, teacher_tokenizer, teachers):
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    columns = {"text": TEXTS, "text_pair": TEXTS[::-1], "label": labels_for(SINGLE)}
    rows = tokenize_dataset(Dataset.from_dict(columns), student_tokenizer, 16, keep_columns=("text", "text_pair"))
    model = AutoModelForSequenceClassification.from_pretrained(teachers[SINGLE]).eval()
    with torch.no_grad():
        encoded = [teacher_tokenizer(*pair, return_tensors="pt") for pair in pairs]
        targets = torch.cat([model(**{k: row[k] for k in ("input_ids", "attention_mask")}).logits for row in encoded])
    given = with_column(rows, targets.flip(1))
    expected = make_trainer(teacher_model=None, train_dataset=given)
    expected.train()
    for source, tolerance in {"online": 1e-4, "cached": 3e-2}.items():
        trainer = make_trainer(teacher_logits=source, train_dataset=rows)
        trainer.train()
        assert logs_of(trainer)[0]["loss"] == pytest.approx(logs_of(expected)[0]["loss"], rel=tolerance)


def test_online_the_teacher_reads_the_edited_text(make_trainer, student_tokenizer):
    rows = make_rows(student_tokenizer)
    rows = rows.add_column("row", range(len(rows)))
    augmenter = DataAugmenter(0.5, ("random_swap",))
    collator = AugmentingCollator(student_tokenizer, augmenter, DataCollatorWithPadding(student_tokenizer))
    arguments = {"max_steps": 3}
    trainer = make_trainer(train_dataset=rows, data_collator=collator, teacher_logits="online", arguments=arguments)
    asked, seen, collate, step = [], [], trainer.teacher.collate, trainer.training_step
    trainer.teacher.collate = lambda texts: asked.append(list(texts)) or collate(texts)

    def recording_step(model, inputs, *args):
        seen.append(student_tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True))
        return step(model, inputs, *args)

    trainer.training_step = recording_step
    trainer.train()
    assert asked == seen
    assert len({tuple(sorted(texts)) for texts in asked}) == 3, "every epoch has texts of its own"
    for cached in ({}, {"teacher_model": None, "train_dataset": with_column(rows, torch.zeros(16, 3))}):
        with pytest.raises(ConfigurationError, match="logits that were made before would be of other texts"):
            make_trainer(**{"train_dataset": rows, "data_collator": collator, **cached})


def test_worker_processes_get_no_model(make_trainer, student_tokenizer):
    trainer = make_trainer(teacher_logits="online")
    padding = DataCollatorWithPadding(student_tokenizer)
    collator, rows = DistillationCollator(padding, 3, trainer.teacher), list(trainer.train_dataset)
    sent = pickle.dumps(collator)
    assert len(sent) < 100_000
    own, theirs = collator(rows), pickle.loads(sent)(rows)
    for name, tensor in own["teacher_inputs"][0].items():
        assert torch.equal(tensor, theirs["teacher_inputs"][0][name])
    assert trainer.teacher.members[0].model is not None
    trainer.train()


def test_a_loaded_teacher_serves_many_students(make_trainer, student_tokenizer, teachers):
    student = make_cnn(student_tokenizer, NAMES)
    teacher = Teacher.load(teachers[SINGLE], student_config=student.config)
    losses = []
    for given in (teacher, teacher, teachers[SINGLE]):
        trainer = make_trainer(teacher_model=given, teacher_logits="online")
        trainer.train()
        losses.append(logs_of(trainer)[0]["loss"])
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(
        ConfigurationError, match=r"loaded for a student of .*good, bad, odd; this one .*bad, good, odd"
    ):
        make_trainer(teacher_model=teacher, student_model=make_cnn(student_tokenizer, ["bad", "good", "odd"]))
    with pytest.raises(ConfigurationError, match="leave out teacher_tokenizer"):
        make_trainer(teacher_model=teacher, teacher_max_length=8)


def test_the_learning_rate_finder_sees_the_distillation_loss(make_trainer):
    trainer = make_trainer(arguments={"max_steps": 20})
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-6, end_lr=1e-5, num_iter=10)
    trainer.train()
    assert finder.history["loss"][0] == pytest.approx(logs_of(trainer)[0]["loss"], rel=1e-3)


# ---- Evaluation ----


def test_an_evaluation_is_that_of_the_student_alone(make_trainer, student_tokenizer, tmp_path):
    metrics = {"compute_metrics": lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())}}
    trainer = make_trainer(**metrics, teacher_logits="online")
    trainer.train()
    plain = ExtendedTrainer(
        model=copy.deepcopy(trainer.model),
        args=make_args(tmp_path / "plain"),
        eval_dataset=trainer.eval_dataset,
        processing_class=student_tokenizer,
        **metrics,
    )
    one, other = trainer.evaluate(), plain.evaluate()
    assert (one["eval_loss"], one["eval_accuracy"]) == (other["eval_loss"], other["eval_accuracy"])
    # Rows with the teacher's columns, and without labels.
    for rows in (trainer.train_dataset, trainer.eval_dataset, trainer.eval_dataset.remove_columns("labels")):
        assert np.array_equal(
            trainer.predict(rows).predictions,
            plain.predict(rows.select_columns([name for name in rows.column_names if name != "text"])).predictions,
        )


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_the_loss_of_an_evaluation_is_that_of_the_labelled_rows(make_trainer, student_tokenizer, problem_type):
    # In batches of 5 the first has two rows with a label, the second four.
    trainer = make_trainer(problem_type)
    partly = make_rows(student_tokenizer, problem_type, keep_columns=())
    labelled = partly.select([i for i in range(16) if i not in UNLABELLED])
    expected = trainer.evaluate(labelled)["eval_loss"]
    assert trainer.evaluate(partly)["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(trainer.evaluate(partly.select(UNLABELLED))["eval_loss"])


def test_evaluations_on_the_way_change_nothing(make_trainer):
    on_the_way = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1}
    one, other = make_trainer(arguments={"max_steps": 4}), make_trainer(arguments=on_the_way)
    one.train()
    other.train()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert [log["loss"] for log in logs_of(one)] == [log["loss"] for log in logs_of(other)]


# ---- Logs and schedules ----


def test_the_parts_are_means_over_the_rows_since_the_last_log(make_trainer):
    still = {"learning_rate": 1e-12, "max_steps": 4, "logging_steps": 2}
    whole = make_trainer(arguments=still)
    whole.train()
    # Micro-batches of 5, 5, 5 and 1 rows.
    parts = make_trainer(arguments={**still, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 4})
    parts.train()
    for one, other in zip(logs_of(whole), logs_of(parts), strict=True):
        hard, soft = one["distillation/hard_loss"], one["distillation/soft_loss"]
        assert other["distillation/hard_loss"] == pytest.approx(hard, rel=1e-5)
        assert other["distillation/soft_loss"] == pytest.approx(soft, rel=1e-5)
        assert (one["distillation/temperature"], one["distillation/alpha"]) == (4.0, 0.7)
        assert (other["distillation/temperature"], other["distillation/alpha"]) == (4.0, 0.7)
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_what_came_before_a_training_is_not_in_its_logs(make_trainer):
    still = {"learning_rate": 1e-12, "max_steps": 4, "logging_steps": 2}
    alone, tested = make_trainer(arguments=still), make_trainer(arguments=still)
    alone.train()
    LRFinder.from_trainer(tested).range_test(start_lr=1e-3, end_lr=1e2, num_iter=12)
    tested.train()
    for one, other in zip(logs_of(alone), logs_of(tested), strict=True):
        assert other["distillation/soft_loss"] == pytest.approx(one["distillation/soft_loss"], rel=1e-5)


def test_temperature_and_alpha_go_their_way(make_trainer):
    way = {"final_temperature": 2.0, "alpha": 0.9, "final_alpha": 0.1, "distillation_schedule": "cosine"}
    trainer = make_trainer(arguments={"max_steps": 8}, **way)
    trainer.train()
    for step, log in enumerate(logs_of(trainer)):
        share = (1 - math.cos(math.pi * step / 8)) / 2
        assert log["distillation/temperature"] == pytest.approx(4 - 2 * share)
        assert log["distillation/alpha"] == pytest.approx(0.9 - 0.8 * share)


# ---- What is saved ----


@pytest.mark.parametrize("student", ["textcnn", "bert"])
@pytest.mark.parametrize("source", ["cached", "online"])
def test_the_student_is_saved_without_its_teacher(make_trainer, student_tokenizer, tmp_path, student, source):
    model = make_cnn(student_tokenizer, NAMES) if student == "textcnn" else make_bert(student_tokenizer, NAMES)
    arguments = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(student_model=model, teacher_logits=source, arguments=arguments)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    for folder in (tmp_path / "saved", tmp_path / "run" / "checkpoint-2"):
        loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        assert type(loaded).__name__ == type(model).__name__
        assert loaded.state_dict().keys() == model.state_dict().keys()
        encoded = student_tokenizer(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            assert torch.equal(loaded(**encoded).logits, model.eval()(**encoded).logits)
        assert (folder / "model.safetensors").stat().st_size < weights + 10_000
        assert not list(folder.rglob("*teacher*"))


def test_a_run_goes_on_with_the_settings_it_began_with(make_trainer, tmp_path):
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer(arguments=arguments).train()
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    with pytest.raises(ConfigurationError, match=r"then: temperature: 4.0.*\n.*now:  temperature: 2.0"):
        make_trainer(arguments=arguments, temperature=2.0).train(resume_from_checkpoint=checkpoint)
    make_trainer(arguments=arguments).train(resume_from_checkpoint=checkpoint)


# ---- Hidden states ----


@pytest.mark.parametrize(("kind", "width"), [("mse", 16), ("relations", 8)])
def test_hidden_states_add_a_third_term(make_trainer, student_tokenizer, tmp_path, kind, width):
    teacher = make_bert(student_tokenizer, NAMES, seed=3, layers=4).eval()
    student = make_bert(student_tokenizer, NAMES, layers=2, width=width)
    student.config.hidden_dropout_prob = 0.0
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    start = copy.deepcopy(student).eval()
    trainer = make_trainer(
        student_model=student,
        teacher_model=teacher,
        teacher_tokenizer=student_tokenizer,
        teacher_logits="online",
        hidden_states_weight=10.0,
        hidden_states_loss=kind,
    )
    trainer.train()
    total = 0.0
    for text in TEXTS:
        encoded = student_tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            own = start(**encoded, output_hidden_states=True).hidden_states
            other = teacher(**encoded, output_hidden_states=True).hidden_states
        for s, t in ((own[1][0], other[2][0]), (own[2][0], other[4][0])):
            if kind == "mse":
                total += F.mse_loss(F.layer_norm(s, s.shape[1:]), F.layer_norm(t, t.shape[1:])).item() / 2
            else:
                p, q = ((h @ h.T / h.shape[1] ** 0.5).log_softmax(1) for h in (t, s))
                total += F.kl_div(q, p, log_target=True, reduction="none").sum(1).mean().item() / 2
    (log,) = logs_of(trainer)
    assert log["distillation/hidden_states_loss"] == pytest.approx(total / 16, rel=1e-4)
    hard, soft = log["distillation/hard_loss"] * 12 / 16, log["distillation/soft_loss"]
    labelled_soft = (log["loss"] - 10 * total / 16 - 0.3 * hard) / soft
    assert 0.7 < labelled_soft < 1.0, "a quarter of the rows has the soft term in full"


def test_layers_are_spread_evenly():
    assert uniform_layers(2, 6) == {1: 3, 2: 6}
    assert uniform_layers(3, 12) == {1: 4, 2: 8, 3: 12}
    assert uniform_layers(4, 6) == {1: 2, 2: 3, 3: 5, 4: 6}
    assert uniform_layers(1, 6) == {1: 6}
    for own in range(1, 13):
        for other in range(1, 25):
            layers = list(uniform_layers(own, other).values())
            assert layers == sorted(layers)
            assert layers[-1] == other
            assert layers[0] >= 1


def test_hidden_states_that_cannot_be_matched(make_trainer, student_tokenizer, teacher_tokenizer, teachers):
    student, teacher = make_bert(student_tokenizer, NAMES), make_bert(student_tokenizer, NAMES, layers=2)
    fitting = {
        "student_model": student,
        "teacher_model": teacher,
        "teacher_tokenizer": student_tokenizer,
        "teacher_logits": "online",
        "hidden_states_weight": 1.0,
    }
    wide = make_bert(student_tokenizer, NAMES, width=32)
    for changes, message in [
        ({"teacher_logits": "cached"}, "hidden states are not kept on disk"),
        ({"student_model": make_cnn(student_tokenizer, NAMES)}, "student .textcnn. has no transformer layers"),
        ({"teacher_model": wide}, "16 wide, the teacher's 32.*Take 'relations'"),
        ({"teacher_model": [teacher, teacher], "teacher_tokenizer": [student_tokenizer] * 2}, "there are 2"),
        ({"teacher_model": teachers[SINGLE], "teacher_tokenizer": None}, "different vocabularies"),
        ({"processing_class": None, "data_collator": DataCollatorWithPadding(student_tokenizer)}, "processing_class"),
        ({"hidden_states_layers": {1: 3}}, r"hidden_states_layers is \{1: 3\}.*\(0 to 2\)"),
        ({"hidden_states_layers": {"1": 2}}, "it must be a dict from layers"),
        ({"hidden_states_layers": {}}, "it must be a dict from layers"),
        ({"hidden_states_loss": "cosine"}, "hidden_states_loss is 'cosine'; valid are mse, relations"),
        ({"hidden_states_weight": -1.0}, "hidden_states_weight is -1.0"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            make_trainer(**{**fitting, **changes})
    trainer = make_trainer(**fitting, teacher_max_length=4)
    with pytest.raises(DataError, match="tokens for the student and 4 for the teacher"):
        trainer.train()
    make_trainer(**fitting, hidden_states_layers={0: 0, 1: 2}).train()


# ---- What is refused, before anything is written ----


BAD = {
    "temperature of 0": ({"temperature": 0}, "temperature is 0; it must be a number above 0"),
    "temperature below 0": ({"temperature": -4.0}, "temperature is -4.0"),
    "temperature of no number": ({"temperature": "4"}, "temperature is '4'"),
    "infinite temperature": ({"temperature": math.inf}, "temperature is inf"),
    "final temperature": ({"final_temperature": 0.0}, "final_temperature is 0.0"),
    "alpha above 1": ({"alpha": 1.1}, r"alpha is 1.1; it must be a number from 0 \(labels alone\) to 1"),
    "alpha below 0": ({"alpha": -0.1}, "alpha is -0.1"),
    "alpha of no number": ({"alpha": True}, "alpha is True"),
    "final alpha": ({"final_alpha": math.nan}, "final_alpha is nan"),
    "loss": ({"distillation_loss": "klm"}, "distillation_loss is 'klm'; valid are kl, mse. Did you mean 'kl'?"),
    "schedule": ({"distillation_schedule": "cosin"}, "Did you mean 'cosine'?"),
    "source": ({"teacher_logits": "offline"}, "teacher_logits is 'offline'; valid are cached, online"),
    "no student": ({"student_model": None}, "student_model is missing"),
    "a name as student": ({"student_model": "bert"}, "student_model is a str"),
    "model": ({"model": torch.nn.Linear(1, 1)}, "takes no model: pass the model to train as student_model"),
    "model_init": ({"model_init": lambda: None}, "takes no model_init"),
    "compute_loss_func": ({"compute_loss_func": lambda *_: 0}, "takes no compute_loss_func"),
    "nothing to learn from": ({"teacher_model": None}, "pass teacher_model, or a train_dataset with the column"),
    "no rows": ({"train_dataset": []}, "train_dataset has no rows"),
    "no such teacher": ({"teacher_model": "no/such/teacher"}, "no/such/teacher"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(make_trainer, tmp_path, name):
    changes, message = BAD[name]
    with pytest.raises((ConfigurationError, DataError), match=message):
        make_trainer(**changes)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_bad_data(make_trainer, student_tokenizer, tmp_path, teachers, teacher_tokenizer):
    rows = make_rows(student_tokenizer)
    wrong = torch.zeros(16, 3)
    wrong[6, 1] = math.nan
    short = rows.add_column("teacher_logits", [[0.0, 1.0, 2.0]] * 9 + [[0.0, 1.0]] + [[0.0] * 3] * 6)
    empty = rows.add_column("teacher_logits", [[0.0, 1.0, 2.0]] * 2 + [None] + [[0.0] * 3] * 13)
    given = {"teacher_model": None}
    textless = {"train_dataset": make_rows(student_tokenizer, keep_columns=())}
    for changes, message in [
        (textless, r"no column 'text' for the teacher; it has .*keep_columns=\('text',\)"),
        ({**textless, "teacher_logits": "online"}, "no column 'text' for the teacher"),
        ({**given, "train_dataset": with_column(rows, wrong)}, "Row 7 of train_dataset: teacher_logits is .*nan"),
        ({**given, "train_dataset": list(with_column(rows, wrong))}, "Row 7 of train_dataset"),
        ({**given, "train_dataset": with_column(rows, torch.zeros(16, 2))}, "Row 1 .* it must be 3 finite numbers"),
        ({**given, "train_dataset": short}, "Row 10 of train_dataset"),
        ({**given, "train_dataset": empty}, "Row 3 of train_dataset"),
        ({"teacher_logits": "online", "train_dataset": with_column(rows, torch.zeros(16, 3))}, "Leave one of"),
        ({"student_model": make_cnn(student_tokenizer, ["good", "bad", "ugly"])}, "'odd'.*'ugly'"),
        ({"student_model": make_cnn(student_tokenizer, NAMES, MULTI)}, "multi_label_classification"),
    ]:
        with pytest.raises((ConfigurationError, DataError), match=message):
            make_trainer(**changes)
    with pytest.raises(ConfigurationError, match=r"label_smoothing_factor is 0\.1"):
        make_trainer(REGRESSION, arguments={"label_smoothing_factor": 0.1})
    student = make_bert(teacher_tokenizer, NAMES)
    with pytest.raises(ConfigurationError, match="are one object"):
        make_trainer(student_model=student, teacher_model=student, teacher_tokenizer=teacher_tokenizer)
    assert not (tmp_path / "run").exists()


def test_other_data_need_another_trainer(make_trainer, student_tokenizer):
    trainer = make_trainer()
    trainer.train()
    trainer.train_dataset = make_rows(student_tokenizer)
    with pytest.raises(ConfigurationError, match="Make a new DistillationTrainer"):
        trainer.train()


def test_the_guides_call(student_tokenizer, teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_model = make_cnn(student_tokenizer, NAMES)
    large_model = AutoModelForSequenceClassification.from_pretrained(teachers[SINGLE])
    trainer = DistillationTrainer(student_model=small_model, teacher_model=large_model, temperature=4.0, alpha=0.7)
    assert isinstance(trainer, ExtendedTrainer)
    assert trainer.model is small_model
    assert trainer.distillation["temperature"] == 4.0
    assert trainer.distillation["alpha"] == 0.7
