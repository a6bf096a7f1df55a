"""MultiTaskTrainer: what it evaluates, predicts, exports and refuses."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    set_seed,
)

from hf_ext import (
    CurriculumCallback,
    CurriculumScheduler,
    EarlyStoppingThresholdCallback,
    ExtendedTrainingArguments,
    GradualUnfreezingCallback,
    LRFinder,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_word_tokenizer,
)
from hf_ext.data.tokenization import tokenize_dataset
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.models.multitask import MultiTaskModel
from hf_ext.trainers.multitask import MultiTaskTrainer

WORDS = ["a", "fine", "dull", "long", "short", "film", "plot", "with", "no", "some", "wit", "charm", "and", "much"]
TOKENIZER = build_word_tokenizer(WORDS, model_max_length=32)
OTHER_TOKENIZER = build_word_tokenizer([*WORDS, "more", "words"], model_max_length=32)
OUTPUTS = {"topic": 3, "tags": 2, "score": 1, "pairs": 2}


def make_splits(task, train=36, validation=20, tokenizer=TOKENIZER) -> DatasetDict:
    generator = np.random.default_rng(sum(map(ord, task)))
    splits = {}
    for split, rows in {"train": train, "validation": validation}.items():
        numbers = generator.integers(0, len(WORDS), (rows, 6))
        texts = [" ".join(WORDS[number] for number in row[: 2 + index % 5]) for index, row in enumerate(numbers)]
        labels = {
            "topic": [int(row[0]) % 3 for row in numbers],
            "tags": [[float(row[0] % 2), float(row[1] % 2)] for row in numbers],
            "score": [float(row[0]) / 10 for row in numbers],
            "pairs": [int(row[0] > row[1]) for row in numbers],
        }[task]
        columns = {"text": texts, "label": labels} | ({"text_pair": texts[::-1]} if task == "pairs" else {})
        splits[split] = tokenize_dataset(Dataset.from_dict(columns), tokenizer, 32, keep_columns=("text",))
    return DatasetDict(splits)


SPLITS = {task: make_splits(task) for task in OUTPUTS}


def make_model(task="topic", words=TOKENIZER, model="bert", **settings):
    set_seed(0)
    shared = {"vocab_size": len(words), "num_labels": OUTPUTS[task], "pad_token_id": words.pad_token_id}
    if task == "tags":
        shared["problem_type"] = "multi_label_classification"
    if model == "textcnn":
        return TextCNNForSequenceClassification(TextCNNConfig(embed_size=8, num_filters=4, **shared))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(**{**sizes, **shared, **settings}))


def make_trainer(output_dir, tasks=tuple(OUTPUTS), arguments=None, **settings) -> MultiTaskTrainer:
    arguments = {"learning_rate": 1e-3, "num_train_epochs": 2, "logging_steps": 4, **(arguments or {})}
    settings = {
        "models": {task: make_model(task) for task in tasks},
        "datasets": {task: SPLITS[task] for task in tasks},
        "processing_classes": TOKENIZER,
        **settings,
    }
    args = ExtendedTrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=8,
        per_device_eval_batch_size=6,
        use_cpu=True,
        disable_tqdm=True,
        **{"save_strategy": "no", **arguments},
    )
    return MultiTaskTrainer(args=args, **settings)


def batch_of(rows: Dataset) -> dict:
    names = ["input_ids", "attention_mask"]
    padded = TOKENIZER.pad({name: rows[name][:] for name in names}, return_tensors="pt")
    return {name: padded[name] for name in names}


def test_evaluation_is_that_of_each_task_and_their_mean(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    metrics = trainer.evaluate()
    losses, scores = [], []
    for task in OUTPUTS:
        rows = SPLITS[task]["validation"]
        model = trainer.model.task_model(task).eval()
        with torch.no_grad():
            logits = model(**batch_of(rows)).logits
        labels = torch.tensor(rows["labels"][:])
        loss, score, name = {
            "tags": lambda z, y: (
                torch.nn.functional.binary_cross_entropy_with_logits(z, y),
                f1_score(y, z > 0, average="micro"),
                "f1_micro",
            ),
            "score": lambda z, y: (((z[:, 0] - y) ** 2).mean(), spearmanr(z[:, 0], y)[0], "spearman"),
        }.get(
            task,
            lambda z, y: (torch.nn.functional.cross_entropy(z, y), accuracy_score(y, z.argmax(1)), "accuracy"),
        )(logits, labels)
        assert metrics[f"eval_{task}_{name}"] == pytest.approx(score, abs=1e-6)
        assert metrics[f"eval_{task}_loss"] == pytest.approx(float(loss), rel=1e-4)
        losses.append(float(loss))
        scores.append(score)
    assert metrics["eval_avg_score"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert metrics["eval_avg_loss"] == metrics["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    # Regression has no accuracy, so there is no mean of it.
    assert "eval_avg_accuracy" not in metrics
    both = trainer.evaluate({task: SPLITS[task]["validation"] for task in ("topic", "pairs")}, metric_key_prefix="two")
    accuracies = [both[f"two_{task}_accuracy"] for task in ("topic", "pairs")]
    assert both["two_avg_accuracy"] == both["two_avg_score"] == pytest.approx(np.mean(accuracies))
    assert "two_tags_loss" not in both


class Counter(TrainerCallback):
    def __init__(self):
        self.evaluations = []

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.evaluations.append(metrics)


def test_an_evaluation_is_one_event_and_one_log(tmp_path):
    counter = Counter()
    trainer = make_trainer(tmp_path, arguments={"eval_strategy": "epoch"}, callbacks=[counter])
    trainer.train()
    assert len(counter.evaluations) == 2
    logs = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert [log["eval_avg_score"] for log in logs] == [m["eval_avg_score"] for m in counter.evaluations]
    assert logs[0]["eval_runtime"] > 0 and logs[0]["eval_samples_per_second"] > 0


def test_the_best_model_on_the_average_is_kept(tmp_path):
    arguments = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_avg_score",
        "learning_rate": 1e-2,
        "num_train_epochs": 4,
    }
    trainer = make_trainer(tmp_path, arguments=arguments)
    trainer.train()
    scores = [log["eval_avg_score"] for log in trainer.state.log_history if "eval_avg_score" in log]
    assert len(scores) == 4 and trainer.args.greater_is_better is True
    assert trainer.state.best_metric == trainer.evaluate()["eval_avg_score"] == max(scores)


def test_early_stopping_watches_the_average(tmp_path):
    stopping = EarlyStoppingThresholdCallback("eval_avg_score", patience=1, threshold=10.0)
    trainer = make_trainer(tmp_path, arguments={"eval_strategy": "epoch", "num_train_epochs": 5}, callbacks=[stopping])
    trainer.train()
    assert trainer.state.epoch == 2 and "eval_avg_score" in stopping.stopped


def test_a_users_metrics_and_eval_rows(tmp_path):
    evaluated = {"topic": SPLITS["topic"]["train"].select(range(7))}
    trainer = make_trainer(
        tmp_path,
        ("topic", "score"),
        datasets={task: SPLITS[task]["train"] for task in ("topic", "score")},
        eval_datasets=evaluated,
        compute_metrics={"topic": lambda evaluation: {"rows": len(evaluation.label_ids), "accuracy": 0.25}},
    )
    metrics = trainer.evaluate()
    assert metrics["eval_topic_rows"] == 7
    assert metrics["eval_avg_score"] == 0.25
    assert "eval_score_loss" not in metrics


def test_predictions_are_those_of_one_task(tmp_path):
    trainer = make_trainer(tmp_path)
    rows = SPLITS["pairs"]["validation"]
    labelled, unlabelled = trainer.predict("pairs"), trainer.predict("pairs", rows.remove_columns("labels"))
    with torch.no_grad():
        expected = trainer.model.task_model("pairs").eval()(**batch_of(rows)).logits
    np.testing.assert_allclose(labelled.predictions, expected, atol=1e-6)
    np.testing.assert_array_equal(labelled.predictions, unlabelled.predictions)
    accuracy = accuracy_score(rows["labels"][:], expected.argmax(1))
    assert labelled.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert unlabelled.label_ids is None and "test_accuracy" not in unlabelled.metrics
    with pytest.raises(ConfigurationError, match=r"'pair', which is no task.*pairs"):
        trainer.predict("pair")


@pytest.mark.parametrize("model", ["bert", "textcnn"])
def test_every_task_is_exported_as_a_plain_model(tmp_path, model):
    trainer = make_trainer(tmp_path / "run", models={task: make_model(task, model=model) for task in OUTPUTS})
    trainer.train()
    trainer.save_model()
    whole = MultiTaskModel.from_pretrained(tmp_path / "run").eval()
    trainer.model.eval()
    for number, task in enumerate(OUTPUTS):
        trainer.export_task(task, tmp_path / task)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / task)
        batch = batch_of(SPLITS[task]["validation"])
        inputs = {**batch, "task_id": torch.full((20,), number)}
        with torch.no_grad():
            expected = trainer.model(**inputs).logits
            assert torch.equal(plain(**batch).logits, expected)
            assert torch.equal(whole(**inputs).logits, expected)
        assert plain.config.problem_type == trainer.problem_types[task]
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / task)
        assert tokenizer("a fine film")["input_ids"] == TOKENIZER("a fine film")["input_ids"]
        assert not list((tmp_path / task).glob("*.bin"))


def test_logs_hold_each_tasks_loss_weight_and_share(tmp_path):
    weights = {"topic": 0.1, "tags": 0.2, "score": 0.3, "pairs": 0.4}
    trainer = make_trainer(tmp_path, loss_weights=weights, arguments={"logging_steps": 20})
    trainer.train()
    (log, *_) = [log for log in trainer.state.log_history if "multitask/topic_loss" in log]
    assert sum(log[f"multitask/{task}_share"] for task in OUTPUTS) == pytest.approx(1)
    assert [log[f"multitask/{task}_weight"] for task in OUTPUTS] == pytest.approx([0.4, 0.8, 1.2, 1.6])
    mean = sum(
        log[f"multitask/{task}_share"] * log[f"multitask/{task}_weight"] * log[f"multitask/{task}_loss"]
        for task in OUTPUTS
    )
    assert log["loss"] == pytest.approx(mean, rel=1e-4)


def test_learned_weights_move_and_have_a_rate_of_their_own(tmp_path):
    trainer = make_trainer(tmp_path, weighting="uncertainty", arguments={"num_train_epochs": 8, "weight_decay": 0.1})
    trainer.train()
    variances = {task: value.item() for task, value in trainer.model.log_variances.items()}
    # The loss of "score" is far below the others': its weight grows.
    assert variances["score"] < -0.1 < variances["topic"]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert logs[0]["learning_rate"] == logs[0]["learning_rate/head"] < 1e-3
    assert logs[0]["learning_rate/head_x10"] == pytest.approx(10 * logs[0]["learning_rate"])
    assert logs[-1]["multitask/score_weight"] == pytest.approx(math.exp(-variances["score"]), rel=0.02)
    names = trainer.get_decay_parameter_names(trainer.model)
    assert names and not any(name.startswith("log_variances") for name in names)


def test_weights_follow_the_losses_from_the_third_epoch_on(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ("topic", "score"),
        weighting="dwa",
        arguments={"num_train_epochs": 4, "logging_strategy": "epoch", "learning_rate": 5e-3},
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    losses = np.array([[log[f"multitask/{task}_loss"] for task in ("topic", "score")] for log in logs])
    weights = np.array([[log[f"multitask/{task}_weight"] for task in ("topic", "score")] for log in logs])
    np.testing.assert_array_equal(weights[:2], 1.0)
    for epoch in (2, 3):
        powers = np.exp(losses[epoch - 1] / losses[epoch - 2] / 2)
        np.testing.assert_allclose(weights[epoch], 2 * powers / powers.sum(), rtol=1e-6)
    assert abs(weights[3] - 1).max() > 1e-3


@pytest.mark.parametrize("sampling", ["random", "group_by_length", "sequential"])
def test_all_orders_of_rows_and_further_columns(tmp_path, sampling):
    """Texts, lengths and what another task's model takes do not reach a model that does not."""
    models = {"topic": make_model("topic", model="textcnn"), "pairs": make_model("pairs")}
    trainer = make_trainer(tmp_path, ("topic", "pairs"), models=models, arguments={"train_sampling_strategy": sampling})
    assert "do not share an encoder" in trainer.notes[0]
    trainer.train()
    assert trainer.state.global_step == 2 * 2 * math.ceil(36 / 8)


def test_tokenizers_of_tasks_that_share_nothing_are_kept(tmp_path):
    tokenizers = {"topic": TOKENIZER, "score": OTHER_TOKENIZER}
    trainer = make_trainer(
        tmp_path,
        ("topic", "score"),
        models={task: make_model(task, words=tokenizers[task]) for task in tokenizers},
        datasets={task: make_splits(task, tokenizer=tokenizers[task]) for task in tokenizers},
        processing_classes=tokenizers,
    )
    trainer.train()
    trainer.save_model(tmp_path / "all")
    for task, tokenizer in tokenizers.items():
        for folder in (tmp_path / "all" / "processing_classes" / task, tmp_path / task):
            if folder == tmp_path / task:
                trainer.export_task(task, folder)
            assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()


def test_steps_and_cost_are_the_sum_of_the_tasks(tmp_path):
    trainer = make_trainer(tmp_path)
    steps = len(trainer.get_train_dataloader())
    assert steps == sum(math.ceil(len(SPLITS[task]["train"]) / 8) for task in OUTPUTS)
    trainer = make_trainer(tmp_path, arguments={"max_steps": 7}, sampling="annealed")
    trainer.train()
    assert trainer.state.global_step == 7


# ---- Bad input ----


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"datasets": {"topic": SPLITS["topic"]}}, ConfigurationError, "datasets has no entry for 'score'"),
        ({"datasets": [SPLITS["topic"]]}, ConfigurationError, "datasets must be a mapping"),
        ({"models": {"topic": 1}}, ConfigurationError, "'topic' is a int"),
        ({"models": {}}, ConfigurationError, "at least one"),
        ({"loss_weights": {"topic": 1.0}}, ConfigurationError, "loss_weights has no entry for 'score'"),
        (
            {"loss_weights": {"topic": 1.0, "scores": 1.0}},
            ConfigurationError,
            "an entry for 'scores', which is no task",
        ),
        ({"loss_weights": {"topic": -1.0, "score": 1.0}}, ConfigurationError, "'topic' -1.0"),
        ({"sampling": "squareroot"}, ConfigurationError, "'squareroot'; it must be one of proportional, sqrt"),
        ({"sampling": "temperature"}, ConfigurationError, "needs a sampling_temperature"),
        ({"weighting": "gradnorm"}, ConfigurationError, "'gradnorm'; it must be one of fixed, uncertainty, dwa"),
        ({"eval_datasets": {"scor": SPLITS["score"]["train"]}}, ConfigurationError, "'scor'.*score"),
        ({"compute_metrics": {"scor": len}}, ConfigurationError, "compute_metrics names 'scor'"),
        ({"compute_metrics": len}, ConfigurationError, "compute_metrics must be a mapping"),
        ({"processing_classes": None}, ConfigurationError, "'topic' have from .* a batch: pass processing_classes"),
        ({"processing_classes": {"topic": TOKENIZER}}, ConfigurationError, "processing_classes has no entry for"),
        ({"train_dataset": SPLITS["topic"]}, ConfigurationError, "takes no train_dataset: pass datasets"),
        ({"compute_loss_func": len}, ConfigurationError, "takes no compute_loss_func"),
        ({"class_weights": "balanced"}, ConfigurationError, "takes no class_weights"),
        ({"focal_gamma": 2.0}, ConfigurationError, "takes no focal_gamma"),
        ({"arguments": {"label_smoothing_factor": 0.1}}, ConfigurationError, "label_smoothing_factor=0.1"),
        ({"arguments": {"train_sampling_strategy": "batch_rebalance"}}, ConfigurationError, "batch_rebalance"),
    ],
    ids=range(21),
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, error, said):
    with pytest.raises(error, match=said):
        make_trainer(tmp_path / "run", ("topic", "score"), **settings)
    assert not (tmp_path / "run").exists()


def test_rows_that_do_not_fit_are_named(tmp_path):
    topic = SPLITS["topic"]
    make = partial(make_trainer, tmp_path, ("topic", "score"))
    empty = DatasetDict(train=topic["train"].select([]))
    with pytest.raises(DataError, match="'topic' has no training rows"):
        make(datasets={"topic": empty, "score": SPLITS["score"]})
    with pytest.raises(ConfigurationError, match="'topic' has the splits test, no 'train'"):
        make(datasets={"topic": DatasetDict(test=topic["train"]), "score": SPLITS["score"]})
    with pytest.raises(DataError, match=r"'topic', training row \d+: the label is 2, but .* 0 to 1"):
        make(models={"topic": make_model("pairs"), "score": make_model("score")})
    with pytest.raises(DataError, match=r"'topic', validation row 1: the label is \["):
        make(datasets={"topic": {**topic, "validation": SPLITS["tags"]["validation"]}, "score": SPLITS["score"]})


def test_callbacks_that_do_not_go_with_tasks_are_refused(tmp_path):
    curriculum = CurriculumCallback("length", CurriculumScheduler(num_epochs=2))
    with pytest.raises(ConfigurationError, match="CurriculumCallback orders the training rows"):
        make_trainer(tmp_path, callbacks=[curriculum]).train()
    apart = make_trainer(
        tmp_path, ("topic", "score"), share_encoder=False, callbacks=[GradualUnfreezingCallback("steps", 2)]
    )
    with pytest.raises(ConfigurationError, match="GradualUnfreezingCallback goes by the layers of one encoder"):
        apart.train()


def test_nothing_to_evaluate_on(tmp_path):
    trainer = make_trainer(tmp_path, ("topic",), datasets={"topic": SPLITS["topic"]["train"]})
    for act in (trainer.evaluate, partial(trainer.predict, "topic")):
        with pytest.raises(ConfigurationError, match="validation"):
            act()
    with pytest.raises(ConfigurationError, match="mapping of tasks"):
        trainer.evaluate(SPLITS["topic"]["validation"])


def test_one_task_alone_is_the_single_task_trainer(tmp_path):
    """The cost and the result of one task are those of a plain run on the same batches."""
    trainer = make_trainer(tmp_path, ("topic",), arguments={"train_sampling_strategy": "sequential"})
    rows = trainer.train_dataset
    order = list(trainer._get_train_sampler())
    trainer.train()
    alone = Trainer(
        model=make_model("topic"),
        args=trainer.args,
        train_dataset=[{k: v for k, v in rows[index].items() if k != "task_id"} for index in order],
        processing_class=TOKENIZER,
    )
    alone.train()
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(value, trainer.model.task_model("topic").state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_learning_rate_can_be_found(tmp_path):
    trainer = make_trainer(tmp_path, loss_weights={"topic": 4, "tags": 1, "score": 1, "pairs": 1})
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    finder = LRFinder.from_trainer(trainer)
    finder.range_test(start_lr=1e-5, end_lr=1e-1, num_iter=20)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    trainer.train()


def test_rows_to_predict_are_checked(tmp_path):
    trainer = make_trainer(tmp_path)
    with pytest.raises(DataError, match="'tags' has no evaluation rows"):
        trainer.predict("tags", SPLITS["tags"]["validation"].select([]))
    with pytest.raises(DataError, match=r"'pairs', evaluation row .* the label is 2"):
        trainer.evaluate({"pairs": SPLITS["topic"]["validation"]})


def test_a_run_goes_on_in_the_same_process(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 5}
    trainer = make_trainer(tmp_path, weighting="uncertainty", arguments=arguments)
    trainer.train()
    whole = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-35"))
    assert all(torch.equal(value, whole[name]) for name, value in trainer.model.state_dict().items())
