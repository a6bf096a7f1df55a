"""The real client of huggingface_hub against a small Hub; what was pushed loads in a process without hf_ext."""

import json
import re

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from hf_ext import (
    ConfigurationError,
    HubTarget,
    PushError,
    TextCNNConfig,
    TextCNNForSequenceClassification,
    build_word_tokenizer,
    check_target,
    push_folder,
    take_target,
)

from ..hub_fixtures import on_hub
from ..hub_server import TOKEN

TEXT = "the film was a very good plot"
NAMES = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
# What another person does, who never heard of hf_ext.
LOAD = """
import json, sys
sys.modules["hf_ext"] = None
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
answers = {}
for name, trust in (("me/bert", False), ("me/cnn", True)):
    model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=trust).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust)
    with torch.no_grad():
        logits = model(**tokenizer(sys.argv[1], return_tensors="pt")).logits
    answers[name] = [value.hex() for value in logits[0].tolist()]
    answers[f"class of {name}"] = type(model).__module__
    # As the card says.
    classifier = pipeline("text-classification", model=name, trust_remote_code=trust)
    answers[f"scores of {name}"] = {item["label"]: item["score"] for item in classifier(sys.argv[1], top_k=None)}
try:
    AutoModelForSequenceClassification.from_pretrained("me/cnn", trust_remote_code=False)
except ValueError as error:
    answers["untrusted"] = str(error)
assert not any(name.startswith("hf_ext.") for name in sys.modules)
print(json.dumps(answers))
"""


def save(folder, kind):
    torch.manual_seed(7)
    tokenizer = build_word_tokenizer([TEXT])
    if kind == "cnn":
        config = TextCNNConfig(vocab_size=len(tokenizer), embed_size=8, num_filters=4, **NAMES)
        model = TextCNNForSequenceClassification(config)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **NAMES))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(
        '---\nlibrary_name: transformers\n---\n# It\n\npipeline(model="path/to/this/folder")\n'
    )
    # As it is on disk: weights that are read may lie otherwise in memory, which moves the last digit.
    model = type(model).from_pretrained(folder)
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXT, return_tensors="pt")).logits[0].tolist()


@pytest.fixture
def cnn(tmp_path):
    save(tmp_path / "cnn", "cnn")
    return tmp_path / "cnn"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_pushed_loads_elsewhere_bit_for_bit(hub, tmp_path, capsys):
    expected = {kind: save(tmp_path / kind, kind) for kind in ("bert", "cnn")}
    for kind in expected:
        url = push_folder(tmp_path / kind, HubTarget(f"me/{kind}"))
        digest, files = hub.repositories[f"me/{kind}"].head
        assert url == f"{hub.url}/me/{kind}/commit/{digest}"
        assert {**contents(tmp_path / kind), "README.md": files["README.md"]}.items() <= files.items()
        assert f'pipeline(model="me/{kind}")' in files["README.md"].decode()
    assert re.search(r"^modeling_textcnn.py +[\d,]+$", capsys.readouterr().out, re.MULTILINE)
    assert hub.repositories["me/cnn"].messages == ["initial commit", "Push a model"]

    loaded = on_hub(hub, tmp_path, "-c", LOAD, TEXT, PYTHONPATH="", HF_TOKEN="")
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    answers = json.loads(loaded.stdout.splitlines()[-1])
    for kind, logits in expected.items():
        assert answers[f"me/{kind}"] == [value.hex() for value in logits]
        scores = torch.tensor(logits).softmax(0)
        assert answers[f"scores of me/{kind}"] == pytest.approx({"bad": scores[0].item(), "good": scores[1].item()})
    assert answers["class of me/cnn"].startswith("transformers_modules.me.cnn.")
    assert answers["class of me/bert"] == "transformers.models.bert.modeling_bert"
    assert "trust_remote_code=True" in answers["untrusted"]


def test_a_new_model_replaces_all_of_the_old_one(hub, cnn):
    (cnn / "calibration.json").write_text("{}")
    push_folder(cnn, HubTarget("me/cnn"))
    repository = hub.repositories["me/cnn"]
    assert "calibration.json" in repository.head[1]
    repository.commit({**repository.head[1], "notes.txt": b"by hand", "model-00001-of-00002.safetensors": b""}, "more")
    (cnn / "calibration.json").unlink()
    (cnn / "README.md").write_text("---\nlibrary_name: transformers\n---\n# Another\n")
    push_folder(cnn, HubTarget("me/cnn"), commit_message="Without thresholds")
    assert set(repository.head[1]) == {*contents(cnn), ".gitattributes", "notes.txt"}
    assert repository.messages[-1] == "Without thresholds"


def test_a_refused_folder_reaches_the_hub_in_no_part(hub, cnn, capsys):
    (cnn / "README.md").write_text(f"logged in with {TOKEN}\n")
    with pytest.raises(ConfigurationError, match=r"README.md, line 1: it holds .*token") as error:
        push_folder(cnn, HubTarget("me/cnn", token=TOKEN))
    assert hub.requests == []
    assert TOKEN not in str(error.value) + capsys.readouterr().out


def test_private_is_private(hub, cnn):
    push_folder(cnn, HubTarget("me/hidden", private=True))
    assert hub.repositories["me/hidden"].private
    push_folder(cnn, HubTarget("me/open"))
    before = len(hub.repositories["me/open"].commits)
    with pytest.raises(ConfigurationError, match="me/open is there already and is public"):
        push_folder(cnn, HubTarget("me/open", private=True))
    assert len(hub.repositories["me/open"].commits) == before


FAILURES = {
    "create 401": (("repos/create", 401), r"401.* The token was not accepted. Log in with `hf auth login`"),
    "create 403": (("repos/create", 403), r"403.* The token may not write there"),
    "commit 403": (("/commit/", 403), r"403.* The token may not write there"),
    "commit 500": (("/commit/", 500), r"500"),
    "dies at the commit": (("/commit/", "drop"), r"disconnected"),
    "upload 403": (("objects/batch", 403), r"403"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_the_hub_does_the_model_stays(hub, cnn, failure, capsys):
    hub.failures["cnn"], message = FAILURES[failure]
    before = contents(cnn)
    with pytest.raises(PushError, match=rf"(?s)^me/cnn could not be pushed: .*{message}") as error:
        push_folder(cnn, HubTarget("me/cnn", private=True, token=TOKEN))
    later = f"python recipes/push_to_hub.py --model_dir {cnn} --hub_model_id me/cnn --hub_private_repo true"
    assert str(error.value).endswith(f"The model is whole in {cnn}. Push it later: {later}")
    assert TOKEN not in str(error.value) + capsys.readouterr().out
    assert contents(cnn) == before
    # And later it goes.
    hub.failures.clear()
    push_folder(cnn, HubTarget("me/cnn", private=True, token=TOKEN))
    assert "model.safetensors" in hub.repositories["me/cnn"].head[1]


def test_a_hub_that_is_not_there(hub, cnn, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match=r"me/cnn could not be pushed: .*refused"):
        push_folder(cnn, HubTarget("me/cnn"))
    with pytest.raises(ConfigurationError, match=r"the Hub did not tell who the token belongs to: .*refused"):
        check_target(HubTarget("me/cnn"))


def test_the_token_is_asked_who_it_is(hub):
    assert check_target(HubTarget("cnn")) == HubTarget("me/cnn")
    assert check_target(HubTarget("team/cnn", True, TOKEN, "dev")) == HubTarget("team/cnn", True, TOKEN, "dev")
    assert hub.repositories == {}
    assert TOKEN not in repr(HubTarget("me/cnn", token=TOKEN))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (HubTarget("me/a model"), "hub_model_id is 'me/a model': "),
        (HubTarget("a/b/c"), "hub_model_id is 'a/b/c': "),
        (HubTarget("other/cnn"), "hub_model_id is other/cnn, but the token of me may write to me, team only"),
        (HubTarget("me/cnn", token="hf_" + "x" * 34), r"who the token belongs to: .*hf auth login"),
    ],
)
def test_what_cannot_work_is_said_at_once(hub, target, message):
    with pytest.raises(ConfigurationError, match=message):
        check_target(target)


def test_a_token_that_may_only_read(hub):
    hub.role = "read"
    with pytest.raises(ConfigurationError, match=r"the token of me may only read.*needs the role `write`"):
        check_target(HubTarget("me/cnn"))


def test_no_token_and_no_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match=r"push_to_hub in offline mode \(HF_HUB_OFFLINE"):
        check_target(HubTarget("me/cnn"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigurationError, match=r"there is no token for the Hub\. Log in with `hf auth login`"):
        check_target(HubTarget("me/cnn"))
    assert hub.requests == []


def test_the_push_is_taken_out_of_the_trainers_hands(tmp_path):
    given = {
        "push_to_hub": True,
        "hub_model_id": "me/x",
        "hub_private_repo": True,
        "hub_token": TOKEN,
        "do_train": True,
    }
    args = TrainingArguments(str(tmp_path / "out"), use_cpu=True, **given)
    assert take_target(args) == HubTarget("me/x", True, TOKEN, None)
    assert (args.push_to_hub, args.hub_token) == (False, None)
    assert take_target(args) is None
    args = TrainingArguments(str(tmp_path / "out"), use_cpu=True, push_to_hub=True, do_train=True)
    assert take_target(args).repo_id == "out"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_train": True, "hub_strategy": "checkpoint"}, "hub_strategy is checkpoint, which publishes optimizer"),
        ({"do_train": True, "hub_strategy": "all_checkpoints"}, "hub_strategy is all_checkpoints"),
        ({"do_train": False}, r"this run trains no model \(do_train is false\).*recipes/push_to_hub.py"),
    ],
)
def test_checkpoints_and_nothing_are_not_pushed(tmp_path, settings, message):
    args = TrainingArguments(str(tmp_path), use_cpu=True, push_to_hub=True, **settings)
    with pytest.raises(ConfigurationError, match=message):
        take_target(args)
