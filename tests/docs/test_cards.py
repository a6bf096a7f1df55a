"""The Python of each card in docs/methods/ runs as it stands, on what the card says it is given."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification

from hf_ext import (
    ExtendedTrainer,
    ExtendedTrainingArguments,
    Predictions,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_word_tokenizer,
    tokenize_dataset,
)

from .conftest import DOCS, blocks, call

CARDS = sorted((DOCS / "methods").glob("*.md"))


class World:
    """What the cards take for granted: rows, models and Trainers, small ones."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = Dataset.from_list(json.loads((folder / "train.json").read_text()))
        self.tokenizer = build_word_tokenizer(self.rows["text"], model_max_length=32)
        self.args = ExtendedTrainingArguments(
            str(folder / "out"), num_train_epochs=8, logging_steps=4, use_cpu=True, learning_rate=1e-2
        )

    def model(self, size=8):
        torch.manual_seed(0)
        config = TextCNNConfig(vocab_size=len(self.tokenizer), embed_size=size, num_filters=4, num_labels=2)
        return TextCNNForSequenceClassification(config)

    def deep_model(self):
        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=8,
            num_hidden_layers=12,
            num_attention_heads=2,
            intermediate_size=8,
        )
        return BertForSequenceClassification(config)

    def tokenized(self, rows=None):
        return tokenize_dataset(self.rows if rows is None else rows, self.tokenizer, 32, keep_columns=("text",))

    def trainer(self, train=None, output_dir=None, save_strategy="no"):
        args = ExtendedTrainingArguments(
            str(output_dir or self.folder / "out"), num_train_epochs=1, use_cpu=True, save_strategy=save_strategy
        )
        train = self.tokenized() if train is None else train
        return ExtendedTrainer(
            model=self.model(), args=args, train_dataset=train, eval_dataset=train, processing_class=self.tokenizer
        )

    def names(self):
        trained = self.trainer()
        trained.train()
        model = self.model()
        return {
            "args": self.args,
            "labels": np.array(self.rows["label"]),
            "logits": trained.predict(trained.train_dataset).predictions,
            "make_trainer": self.trainer,
            "model": model,
            "optimizer": torch.optim.AdamW(model.parameters()),
            "texts": self.rows["text"],
            "tokenizer": self.tokenizer,
            "train": self.tokenized(),
            "trainer": trained,
        }


@pytest.fixture
def world(folder):
    return World(folder)


@pytest.fixture
def names(world):
    return world.names()


# Card -> what shows in a Trainer that its technique is there.
TRAINERS = {
    "class_weights": lambda trainer: trainer.class_loss is not None,
    "curriculum": lambda trainer: "curriculum/difficulty" in trainer.state.log_history[0],
    "discriminative_learning_rates": lambda trainer: "learning_rate/embeddings" in trainer.state.log_history[0],
    "gradual_unfreezing": lambda trainer: "unfreezing/depth" in trainer.state.log_history[0],
    "health": lambda trainer: "grad_norm/head" in trainer.state.log_history[0],
    "peft": lambda trainer: any("lora_A" in name for name, _ in trainer.model.named_parameters()),
}


def run(card, names):
    for block in blocks(DOCS / "methods" / f"{card}.md", "python"):
        exec(compile(block, f"{card}.md", "exec"), names)
    return names


def test_all_cards_with_python_are_run_here():
    assert len(CARDS) == 28
    with_python = {card.stem for card in CARDS if blocks(card, "python")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert with_python == (tested & with_python) | set(TRAINERS)
    assert len(with_python) == 24


@pytest.mark.parametrize("card", TRAINERS)
def test_a_trainer_with_the_technique(card, world, names):
    names["model"] = world.deep_model()
    trainer = run(card, names)["trainer"]
    trainer.train()
    assert TRAINERS[card](trainer)


def test_augmentation(names):
    names["train"] = names["train"].select_columns(["text"])
    assert len(run("augmentation", names)["train"]) > 4 * len(names["labels"])


def test_calibration(folder):
    training = "recipes/run_classification.py --model_type textcnn --embed_size 8 --num_filters 4 --preflight off"
    calibration = "--calibrate true --threshold_objective f1 --train_file train.json --validation_size 0.4"
    call(f"{training} {calibration} --num_train_epochs 1 --output_dir outputs/cnn".split())
    classifier = run("calibration", {})["classifier"]
    answers = classifier("A film to remember.", top_k=None)
    assert len(answers) == 2 and sum(answer["predicted"] for answer in answers) == 1


def test_distillation(world, names):
    names |= {"small_model": names["model"], "large_model": world.model(16), "teacher_tokenizer": world.tokenizer}
    names["args"].num_train_epochs = 1
    trainer = run("distillation", names)["trainer"]
    trainer.train()
    assert "distillation/soft_loss" in trainer.state.log_history[0]


def test_early_stopping():
    assert run("early_stopping", {})["callback"].patience == 3


def test_export(names):
    pytest.importorskip("onnxruntime")
    assert run("export", names)["classifier"](["A film to remember."]).shape == (1, 2)


def test_hub(hub, world):
    trainer = world.trainer(output_dir="outputs/quickstart")
    trainer.save_model()
    run("hub", {})
    assert "me/films" in hub.repositories


def test_learning_rate_finder(world, names):
    names["trainer"] = world.trainer()
    finder = run("learning_rate_finder", names)["finder"]
    assert names["trainer"].args.learning_rate == finder.suggestion()


def test_learning_rate_schedules(names):
    names["optimizer"].step()
    scheduler = run("learning_rate_schedules", names)["scheduler"]
    assert names["args"].lr_scheduler_type == "slanted_triangular"
    assert scheduler.get_last_lr()[0] < 1e-3


def test_multitask(world, names):
    names["args"].num_train_epochs = 1
    splits = {"train": names["train"], "validation": names["train"]}
    for task in ("sst2", "mrpc"):
        names |= {f"{task}_model": world.model(), f"{task}_splits": splits}
    run("multitask", names)
    assert TextCNNForSequenceClassification.from_pretrained("mrpc_model").num_labels == 2


def test_precision(world, names):
    names["model"] = world.deep_model()
    trainer = run("precision", names)["trainer"]
    trainer.args.max_steps = 1
    trainer.train()
    assert trainer.model.is_gradient_checkpointing and trainer.accelerator.mixed_precision == "bf16"


def test_preflight(world, capsys):
    rows = world.rows
    unlike = Dataset.from_dict({"text": ["Nothing of this kind was said.", "Nor was that."], "label": [0, 1]})
    report = run("preflight", {"train": rows, "test": unlike, "tokenizer": world.tokenizer})["report"]
    assert report.table() in capsys.readouterr().out


def test_preprocessing(folder):
    raw = folder / "dataset" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.json").write_bytes((folder / "train.json").read_bytes())
    run("preprocessing", {})
    assert (folder / "dataset" / "processed" / "train.json").is_file()


def test_reproducibility(world):
    trainer = world.trainer(save_strategy="epoch")
    trainer.train()
    weights = trainer.model.state_dict()
    again = run("reproducibility", {"trainer": world.trainer(save_strategy="epoch")})["trainer"]
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())


def test_report(names):
    names["labels"] = np.array(names["labels"])
    run("report", names)
    assert "<title>" in Path("report.html").read_text(encoding="utf-8")


def test_sparse_embeddings():
    torch.manual_seed(0)
    names = run("sparse_embeddings", {"ids": torch.tensor([[3, 5, 3], [7, 9, 7]]), "labels": torch.tensor([0, 1])})
    torch.manual_seed(0)
    moved = (names["words"].weight != torch.nn.Embedding(30_522, 300).weight).any(1)
    assert moved.nonzero().flatten().tolist() == [3, 5, 7, 9]


def test_streaming(world, names):
    world.rows.to_json("rows.jsonl")
    trainer = run("streaming", names)["trainer"]
    trainer.args.max_steps = 2
    trainer.train()
    assert trainer.state.global_step == 2


def test_significance(folder, capsys):
    texts = [f"text {index}" for index in range(60)]
    for seed, name in enumerate(("bert", "cnn")):
        logits, labels = np.random.default_rng(seed).normal(size=(60, 2)), np.arange(60) % 2
        data = Predictions.from_logits(
            logits, labels, texts, problem_type="single_label_classification", label_names=["no", "yes"]
        )
        (folder / "outputs" / name).mkdir(parents=True)
        data.to_jsonl(folder / "outputs" / name / "predictions_test.jsonl")
    run("significance", {})
    assert "df=4" in capsys.readouterr().out


def test_textcnn():
    names = run("textcnn", {})
    texts = names["data"].texts("validation")[:8]
    encoded = names["tokenizer"](list(texts), padding=True, return_tensors="pt")
    logits = names["model"](input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    assert logits.shape == (8, 2) and logits.isfinite().all()
