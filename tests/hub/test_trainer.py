"""`push_to_hub` of an ExtendedTrainer: the finished model, once, and no token on disk."""

import zipfile
from concurrent.futures import Future

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    TrainingArguments,
)

from hf_ext import (
    ConfigurationError,
    ExtendedTrainer,
    PushError,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    add_adapter,
    build_word_tokenizer,
    tokenize_dataset,
)

from ..hub_server import TOKEN

ROW = "never has a film of this kind moved me so"
MODEL = {
    *(".gitattributes", "README.md", "config.json", "configuration_textcnn.py", "freezing.py", "model.safetensors"),
    *("modeling_textcnn.py", "sentence_convolution.py", "tokenizer.json", "tokenizer_config.json"),
}


@pytest.fixture
def make(hub, tmp_path):
    """A trainer of a small TextCNN that saves at every other of four steps."""

    def make(**settings):
        tokenizer = build_word_tokenizer([ROW])
        rows = Dataset.from_dict({"text": [ROW, "a film"] * 4, "label": [1, 0] * 4})
        config = TextCNNConfig(vocab_size=len(tokenizer), embed_size=8, num_filters=4, num_labels=2)
        given = {"push_to_hub": True, "hub_model_id": "me/cnn", "hub_token": TOKEN, **settings}
        args = TrainingArguments(
            *(str(tmp_path / "out"),), use_cpu=True, max_steps=4, save_steps=2, save_strategy="steps",
            per_device_train_batch_size=4, disable_tqdm=True, **given,
        )  # fmt: skip
        return ExtendedTrainer(
            model=TextCNNForSequenceClassification(config),
            args=args,
            train_dataset=tokenize_dataset(rows, tokenizer, 16, keep_columns=("text",)),
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )

    return make


def everything(folder):
    """The bytes of all files, those inside of archives too."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        found[str(path)] = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found.update({f"{path}: {name}": archive.read(name) for name in archive.namelist()})
    return found


def test_the_finished_model_is_pushed_once(hub, make, tmp_path):
    trainer = make(hub_private_repo=True)
    trainer.train()
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    repository = hub.repositories["me/cnn"]
    assert repository.private
    assert repository.messages == ["initial commit"]
    url = trainer.push_to_hub()
    assert repository.messages == ["initial commit", "End of training"]
    assert url.endswith(repository.head[0])
    assert set(repository.head[1]) == MODEL
    assert repository.head[1]["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert b"hyperparameters were used during training" in repository.head[1]["README.md"]


def test_the_token_is_in_no_file(make, tmp_path):
    trainer = make()
    trainer.train()
    trainer.push_to_hub()
    files = everything(tmp_path / "out")
    assert any(name.endswith("checkpoint-2/training_args.bin") for name in files)
    assert [name for name, content in files.items() if TOKEN.encode() in content] == []
    assert trainer.args.hub_token == TOKEN
    written = torch.load(tmp_path / "out" / "training_args.bin", weights_only=False)
    assert (written.hub_token, written.max_steps) == (None, 4)


def test_saving_by_hand_pushes_as_the_library_does(hub, make):
    make().save_model()
    assert hub.repositories["me/cnn"].messages == ["initial commit", "Model save"]
    assert set(hub.repositories["me/cnn"].head[1]) == MODEL


def test_without_waiting(hub, make):
    trainer = make()
    pushed = trainer.push_to_hub(blocking=False)
    assert isinstance(pushed, Future)
    assert pushed.result(timeout=60).endswith(hub.repositories["me/cnn"].head[0])


def test_a_card_of_ones_own_stays(hub, make, tmp_path):
    card = "---\nlicense: mit\n---\n# Mine\n"
    trainer = make()
    (tmp_path / "out" / "README.md").write_text(card)
    trainer.push_to_hub()
    assert hub.repositories["me/cnn"].head[1]["README.md"].decode() == card
    trainer.push_to_hub(tags="film")
    assert "- film" in hub.repositories["me/cnn"].head[1]["README.md"].decode()


def test_a_card_that_quotes_the_training_rows_is_refused(hub, make, tmp_path):
    trainer = make()
    (tmp_path / "out" / "README.md").write_text(f"# Mine\n\nIt was trained on:\n\n- {ROW}\n")
    with pytest.raises(ConfigurationError, match=r"README\.md, line 5: it quotes a row of the data"):
        trainer.push_to_hub()
    assert hub.repositories["me/cnn"].messages == ["initial commit"]


def test_a_hub_that_fails_later(hub, make, tmp_path):
    trainer = make()
    hub.failures["cnn"] = ("/commit/", 500)
    with pytest.raises(PushError, match=r"me/cnn could not be pushed: .*500.*--model_dir .*out --hub_model_id me/cnn"):
        trainer.push_to_hub()
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_checkpoints_are_not_published(hub, make, strategy):
    with pytest.raises(ConfigurationError, match=f"hub_strategy is {strategy}, which publishes optimizer"):
        make(hub_strategy=strategy)
    assert hub.requests == []


def test_the_card_of_an_adapter_names_its_library(hub, make, tmp_path):
    trainer = make()
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    model = BertForSequenceClassification(config)
    model.name_or_path = "me/tiny-bert"
    trainer = ExtendedTrainer(
        model=add_adapter(model, LoraConfig(r=2)),
        args=trainer.args,
        train_dataset=trainer.train_dataset,
        processing_class=trainer.processing_class,
        data_collator=trainer.data_collator,
    )
    trainer.train()
    trainer.push_to_hub()
    files = hub.repositories["me/cnn"].head[1]
    assert {"adapter_config.json", "adapter_model.safetensors", "classifier_config.json"} < set(files)
    assert "model.safetensors" not in files
    assert b"library_name: peft" in files["README.md"]
    assert str(tmp_path).encode() not in b"".join(files.values())
