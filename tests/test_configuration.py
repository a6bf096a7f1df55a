import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from hf_ext.arguments import DataArguments, ModelArguments, RecipeTrainingArguments, RunArguments
from hf_ext.configuration import parse_arguments, read_configuration, split_files
from hf_ext.configuration.field_types import convert
from hf_ext.data.augmentation import AugmentationArguments
from hf_ext.defaults import complete_training_values
from hf_ext.errors import ConfigurationError, nearest
from hf_ext.settings import ALL_SETTINGS, TRAINING_SETTINGS
from hf_ext.tracking import TrackingArguments

ALL = tuple(TRAINING_SETTINGS.values())


class Parsed:
    """The fields of all dataclasses together."""

    def __init__(self, instances):
        self.instances = {type(instance): instance for instance in instances}

    def __getattr__(self, name):
        owners = [instance for instance in self.instances.values() if name in instance.__dataclass_fields__]
        assert len(owners) == 1, name
        return getattr(owners[0], name)

    def __getitem__(self, dataclass_type):
        return self.instances[dataclass_type]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def parse(tmp_path):
    def parse(*argv, model=("--model_type", "textcnn"), **kwargs):
        argv = [*map(str, argv), *model, "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
        return Parsed(parse_arguments(ALL, argv, "A test.", **kwargs))

    return parse


def error_of(function, *args, **kwargs):
    with pytest.raises(ConfigurationError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# ---- Files and the command line ----


def test_files_merge_from_left_to_right_and_the_command_line_wins(parse, write):
    first = write("first.json", {"learning_rate": 1e-3, "seed": 1, "weight_decay": 0.5})
    second = write("second.yaml", "learning_rate: 2e-3\nseed: 2\n")
    parsed = parse(first, second, "--learning_rate", "3e-3")
    assert (parsed.learning_rate, parsed.seed, parsed.weight_decay) == (3e-3, 2, 0.5)
    parsed = parse(second, first)
    assert (parsed.learning_rate, parsed.seed) == (1e-3, 1)


def test_sections_only_group(parse, write):
    sections = write(
        "sections.yaml",
        "model:\n  num_labels: 3\ntraining:\n  learning_rate: 0.5\n  model:\n    name: deep\n"
        "data:\n  max_seq_length: 9\n  augmentation:\n    enabled: true\n    techniques: [random_swap]\n"
        "    probability: 0.25\nwandb:\nrun:\n  dry_run: true\n",
    )
    flat = write(
        "flat.json",
        {
            "num_labels": 3,
            "learning_rate": 0.5,
            "name": "deep",
            "max_seq_length": 9,
            "augmentation_enabled": True,
            "augmentation_techniques": ["random_swap"],
            "augmentation_prob": 0.25,
            "dry_run": True,
        },
    )
    for dataclass_type in (ModelArguments, DataArguments, AugmentationArguments, RunArguments, TrackingArguments):
        assert parse(sections)[dataclass_type] == parse(flat)[dataclass_type]
    parsed = parse(sections)
    assert (parsed.num_labels, parsed.learning_rate, parsed.name, parsed.max_seq_length) == (3, 0.5, "deep", 9)
    assert (parsed.augmentation_enabled, parsed.augmentation_techniques) == (True, ["random_swap"])
    assert (parsed.augmentation_prob, parsed.dry_run, parsed.wandb_project) == (0.25, True, None)


def test_files_are_named_in_three_ways(parse, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("args.json", {"seed": 11})
    write("more.yml", "data_seed: 12\n")
    assert parse("--args.json").seed == 11
    assert parse("args.json").seed == 11
    assert parse("--args", "args.json").seed == 11
    assert parse("--args=args.json").seed == 11
    both = parse("--args.json", "--learning_rate", "0.1", "--more.yml", "--args", "args.json")
    assert (both.seed, both.data_seed, both.learning_rate) == (11, 12, 0.1)


def test_values_of_flags_are_not_read_as_files():
    files, rest = split_files(
        ["a.json", "--b.yaml", "--train_file", "train.json", "--config", "c.yml", "--x=y.json"], ("--args", "--config")
    )
    assert [path.name for path in files] == ["a.json", "b.yaml", "c.yml"]
    assert rest == ["--train_file", "train.json", "--x=y.json"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["settings.toml"], "'settings.toml' is neither a flag nor a configuration file ending in .json, .yaml, .yml"),
        (["--args", "settings.toml"], "settings.toml is no configuration file"),
        (["--missing.json"], "There is no configuration file missing.json"),
        (["--seed", "1", "-x"], "stray '-x'"),
        (["--seed"], "expected one argument"),
    ],
)
def test_command_lines_that_cannot_be_read(parse, argv, message):
    assert message in error_of(parse, *argv)


# ---- Names ----


def test_batch_size_sets_both_and_a_fields_own_name_wins(parse, write):
    parsed = parse(write("a.json", {"batch_size": 4}))
    assert (parsed.per_device_train_batch_size, parsed.per_device_eval_batch_size) == (4, 4)
    for content in (
        {"batch_size": 4, "per_device_eval_batch_size": 64},
        {"per_device_eval_batch_size": 64, "batch_size": 4},
    ):
        parsed = parse(write("a.json", content))
        assert (parsed.per_device_train_batch_size, parsed.per_device_eval_batch_size) == (4, 64)
    parsed = parse("--per_device_eval_batch_size", "64", "--batch_size", "4")
    assert (parsed.per_device_train_batch_size, parsed.per_device_eval_batch_size) == (4, 64)
    # What is further right wins, whatever its name.
    parsed = parse(write("a.json", {"per_device_train_batch_size": 4}), "--batch_size", "8")
    assert (parsed.per_device_train_batch_size, parsed.per_device_eval_batch_size) == (8, 8)


def test_names_of_the_guide(parse, write):
    flags = ["--num_epochs", "7", "--optimizer", "adamw", "--scheduler_type", "cosine", "--architecture", "cnn"]
    content = {"num_epochs": 7, "optimizer": "adamw", "scheduler_type": "cosine", "architecture": "cnn"}
    for argv in (flags, [write("guide.json", content)]):
        parsed = parse(*argv, model=())
        assert parsed.num_train_epochs == 7
        assert parsed.optim == OptimizerNames.ADAMW_TORCH_FUSED
        assert parsed.lr_scheduler_type == SchedulerType.COSINE
        assert (parsed.model_type, parsed.model_name_or_path) == ("textcnn", None)
    content = {"architecture": "transformer", "pretrained_model": "bert-tiny", "num_layers": 2}
    parsed = parse(write("guide.json", content), model=())
    assert (parsed.model_type, parsed.model_name_or_path, parsed.num_hidden_layers) == (None, "bert-tiny", 2)
    assert parse("--optimizer", "sgd").optim == OptimizerNames.SGD
    assert parse("--overwrite_output_dir").overwrite is True
    assert parse("--model_path", "here", model=()).model_name_or_path == "here"


def test_a_name_means_what_its_section_says(parse, write):
    parsed = parse(write("a.yaml", "model:\n  name: my_model\nwandb:\n  name: my_run\n"))
    assert (parsed.name, parsed.run_name) == ("my_model", "my_run")
    # `project` is a field of the Trainer's arguments too, for another tracker.
    parsed = parse(write("a.yaml", "wandb:\n  project: p\n  entity: e\n  tags: [a, b]\n  notes: n\n"))
    assert (parsed.wandb_project, parsed.wandb_entity, parsed.wandb_tags) == ("p", "e", ["a", "b"])
    assert parsed.wandb_notes == "n"


def test_one_setting_given_twice(parse, write):
    path = write("a.json", {"num_epochs": 2, "num_train_epochs": 3})
    message = error_of(parse, path)
    assert path in message and "num_train_epochs twice" in message and "'num_epochs'" in message
    assert parse(write("a.json", {"num_epochs": 2, "num_train_epochs": 2})).num_train_epochs == 2
    message = error_of(parse, write("a.yaml", "seed: 1\ntraining:\n  seed: 2\n"))
    assert "gives seed twice: 1 and 2" in message


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("learning_rat", "'learning_rate'"),
        ("num_epoch", "'num_epochs'"),
        ("batchsize", "'batch_size'"),
        ("filter_size", "'filter_sizes'"),
        ("train_files", "'train_file'"),
    ],
)
def test_unknown_names_get_the_nearest(parse, write, name, suggestion):
    path = write("a.json", {"training": {name: 1}})
    message = error_of(parse, path)
    assert path in message and repr(name) in message and f"Did you mean {suggestion}?" in message
    message = error_of(parse, f"--{name}", "1")
    assert f"--{name}" in message and f"Did you mean {suggestion}?" in message
    assert f"Did you mean {suggestion}?" in error_of(parse, f"--{name}=1")


def test_unknown_names_that_are_near_to_nothing(parse):
    message = error_of(parse, "--zzzzqqqq", "1")
    assert "Did you mean" not in message and "--help lists all" in message
    assert nearest("zzzzqqqq", ["seed"]) == ""


def test_flags_are_not_abbreviated(parse):
    assert "--learning_r, which does not exist" in error_of(parse, "--learning_r", "1e-3")


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("evaluation_strategy", "eval_strategy"),
        ("warmup_ratio", "warmup_steps with a value below 1"),
        ("batch_sizes", 'search_space={"batch_sizes": [...]}, or the same under "search" (run_search.py)'),
        ("no_cuda", "use_cpu"),
        ("per_gpu_train_batch_size", "per_device_train_batch_size"),
        ("use_auth_token", "token"),
        ("half_precision_backend", "mixed_precision"),
        ("task_name", "dataset_name=glue with dataset_config_name=<task>"),
        ("loss_weights", "weight, beside each task's files in tasks (run_multitask.py)"),
    ],
)
def test_names_from_elsewhere_say_what_to_write(parse, write, name, replacement):
    for argv in ([write("a.json", {name: "x"})], [f"--{name}", "x"]):
        message = error_of(parse, *argv)
        assert name in message and f"does not exist here: use {replacement}." in message


def test_unknown_section(parse, write):
    path = write("a.yaml", "trainning:\n  seed: 1\n")
    message = error_of(parse, path)
    assert path in message and "'trainning'" in message and "Did you mean 'training'?" in message


# ---- Values ----


@dataclass
class Kinds:
    flag: bool = False
    on: bool = True
    whole: int = 5
    number: float = 0.5
    word: str = "w"
    maybe: int | None = 3
    widths: list[int] | None = None
    names: list[str] | str | None = None
    kind: Literal["a", "b"] = "a"
    options: dict | str | None = None
    strategy: IntervalStrategy | str = "no"


def kinds(*argv):
    return parse_arguments((Kinds,), [str(item) for item in argv], "A test.")[0]


def test_values_of_the_command_line_and_of_files_are_converted_alike(write):
    expected = Kinds(True, False, 1000, 3e-4, "7", 4, [1, 2], "a,b", "b", {"x": 1}, "steps")
    flags = [
        *("--flag", "--on", "no", "--whole", "1e3", "--number", "3e-4", "--word", "7", "--maybe", "4"),
        *("--widths", "1", "2", "--names", "a,b", "--kind", "b", "--options", '{"x": 1}', "--strategy", "steps"),
    ]
    strings = {
        **{"flag": "yes", "on": "False", "whole": "1000", "number": "3e-4", "word": "7", "maybe": "4"},
        **{"widths": ["1", "2"], "names": "a,b", "kind": "b", "options": '{"x": 1}', "strategy": "steps"},
    }
    typed = {
        **strings,
        **{"flag": True, "on": False, "whole": 1000.0, "number": 0.0003, "maybe": 4, "widths": [1, 2]},
        "options": {"x": 1},
    }
    for parsed in (kinds(*flags), kinds(write("s.json", strings)), kinds(write("t.json", typed))):
        assert parsed == expected
        assert type(parsed.whole) is int and type(parsed.number) is float
    assert kinds(write("n.json", {"names": ["a", "b"]})).names == ["a", "b"]
    assert type(kinds(write("n.json", {"number": 1})).number) is float


def test_negative_numbers_on_the_command_line():
    assert kinds("--whole", "-3", "--number", "-0.25") == Kinds(whole=-3, number=-0.25)


def test_numbers_of_yaml(write):
    text = "".join(f"- {number}\n" for number in ("3e-4", "2E5", "-1e-8", ".5e1", "1.e-2", "1.0", "7", "abc", "1e"))
    content = read_configuration(Path(write("a.yaml", f"numbers:\n{text}")))
    assert content["numbers"] == [3e-4, 2e5, -1e-8, 5.0, 1e-2, 1.0, 7, "abc", "1e"]
    assert [type(number) for number in content["numbers"][:7]] == [float] * 6 + [int]


def test_null_leaves_the_default(write):
    assert kinds(write("a.json", {"whole": None, "maybe": None, "word": None})) == Kinds()
    assert kinds(write("a.yaml", "whole:\nmaybe: null\nword: ~\n")) == Kinds()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("flag", 1, "true or false"),
        ("flag", "maybe", "true or false"),
        ("whole", 1.5, "a whole number"),
        ("whole", True, "a whole number"),
        ("whole", "many", "a whole number"),
        ("whole", [1], "a whole number"),
        ("maybe", "many", "a whole number"),
        ("number", "fast", "a number"),
        ("number", False, "a number"),
        ("number", float("nan"), "a number"),
        ("number", float("inf"), "a number"),
        ("word", 7, "a string (put it in quotes)"),
        ("word", ["a"], "a string (put it in quotes)"),
        ("widths", 3, "a list"),
        ("widths", "3", "a list"),
        ("widths", [1, "wide"], "a whole number"),
        ("names", 7, "a list or a string (put it in quotes)"),
        ("kind", "c", "one of a, b"),
        ("options", 7, "an object or a string (put it in quotes)"),
        ("strategy", "sometimes", "one of no, steps, epoch"),
    ],
)
def test_wrong_values_name_file_key_value_and_what_is_valid(write, key, value, expected):
    path = write("a.json", {key: value})
    assert error_of(kinds, path) == f"{path}: {key} is {value!r}; it must be {expected}."


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [("whole", "many", "a whole number"), ("kind", "c", "one of a, b"), ("widths", "x", "a whole number")],
)
def test_wrong_values_on_the_command_line(flag, value, expected):
    message = error_of(kinds, f"--{flag}", value)
    assert message.startswith(f"the command line: {flag} is ") and message.endswith(f"it must be {expected}.")


def test_enums_of_the_training_arguments(parse, write):
    content = {"lr_scheduler_type": "polynomial", "optim": "adafactor", "eval_strategy": "epoch", "save_strategy": "no"}
    parsed = parse(write("a.json", content))
    assert parsed.lr_scheduler_type is SchedulerType.POLYNOMIAL
    assert parsed.optim is OptimizerNames.ADAFACTOR
    assert parsed.eval_strategy is IntervalStrategy.EPOCH
    for key, some in (("lr_scheduler_type", "cosine"), ("optim", "adamw_torch"), ("eval_strategy", "steps")):
        path = write("a.json", {key: "nonsense"})
        message = error_of(parse, path)
        assert message.startswith(f"{path}: {key} is 'nonsense'; it must be one of ") and some in message
    assert "it must be one of random, sequential, group_by_length" in error_of(
        parse, "--train_sampling_strategy", "sorted"
    )


def test_dictionaries_and_lists_of_the_training_arguments(parse, write):
    nested = {"training": {"lr_scheduler_kwargs": {"num_cycles": 2}, "report_to": ["none"]}}
    assert parse(write("a.json", nested)).lr_scheduler_kwargs == {"num_cycles": 2}
    assert parse("--lr_scheduler_kwargs", '{"num_cycles": 2}').lr_scheduler_kwargs == {"num_cycles": 2}
    assert parse("--filter_sizes", "2", "3").filter_sizes == [2, 3]
    assert parse("--filter_sizes", "2,3", "4").filter_sizes == [2, 3, 4]
    assert "filter_sizes is ['2,,3']; it must be a whole number" in error_of(parse, "--filter_sizes", "2,,3")
    assert parse("--text_column_names", "a,b").text_column_names == "a,b"
    assert parse(write("a.json", {"text_column_names": ["a", "b"]})).text_column_names == ["a", "b"]


def test_a_flag_without_its_file():
    assert "--args needs the path" in error_of(split_files, ["--seed", "1", "--args"], ("--args",))


def test_unions_take_the_first_that_fits():
    assert convert("2", int | float) == 2 and isinstance(convert("2", int | float), int)
    assert convert("0.5", int | float) == 0.5
    assert convert("half", int | str) == "half"
    with pytest.raises(ValueError, match="a whole number or a number"):
        convert("half", int | float)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--validation_size", "1"], "validation_size is 1.0; it must be in [0, 1)"),
        (["--test_size=-0.1"], "test_size is -0.1"),
        (["--max_seq_length", "0"], "max_seq_length is 0; it must be at least 1"),
        (["--max_train_samples", "0"], "max_train_samples is 0"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size is 0; it must be at least 1"),
        (["--num_train_epochs", "0"], "num_train_epochs is 0.0; it must be above 0"),
        (["--learning_rate", "0"], "learning_rate is 0.0; it must be above 0"),
        (["--dataset_name", "a", "--train_file", "b.json"], "are both given; leave one out"),
        (["--model_name_or_path", "bert"], "are both given"),
        (["--use_fast_tokenizer", "false"], "fast tokenizers only"),
        (["--variant", "static"], "variant=static needs --word_vectors"),
        (["--word_vectors", "v.txt"], "no effect with variant=rand"),
        (["--load_best_model_at_end", "--eval_strategy", "no"], "load_best_model_at_end requires"),
    ],
)
def test_values_that_a_dataclass_refuses(parse, argv, message):
    assert message in error_of(parse, *argv)


def test_no_model(parse):
    assert "No model is named" in error_of(parse, model=())


# ---- Broken files ----


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"seed": 1, "seed": 2}', "names the key 'seed' twice"),
        ("a.json", '{"training": {"seed": 1, "seed": 1}}', "names the key 'seed' twice"),
        ("a.yaml", "seed: 1\nlr: 1\nseed: 2\n", "names the key 'seed' twice"),
        ("a.yaml", "training:\n  seed: 1\n  seed: 2\n", "names the key 'seed' twice"),
        ("a.json", '[{"seed": 1}]', "holds a list; it must hold an object of keys and values"),
        ("a.yaml", "- seed\n", "holds a list; it must hold an object of keys and values"),
        ("a.yaml", "seed\n", "holds a str"),
        ("a.json", "", "line 1, column 1: Expecting value"),
        ("a.json", "null", "holds nothing"),
        ("a.yaml", "", "holds nothing"),
        ("a.yml", "# only a comment\n", "holds nothing"),
        ("a.json", '{\n  "seed": 1,\n  "lr" 2\n}', "line 3, column 8: Expecting ':' delimiter"),
        ("a.json", '{"seed": 1,}', "line 1, column"),
        ("a.yaml", "seed: [1\nlr: 2\n", "line 2"),
        ("a.yaml", "seed: !!python/object:os.system x\n", "is not YAML"),
        ("a.json", b'{"name": "caf\xe9"}', "is not UTF-8: broken at byte 13"),
        ("a.yaml", b"name: caf\xe9\n", "is not UTF-8: broken at byte 9"),
    ],
)
def test_broken_files_name_the_place(write, name, content, message):
    path = write(name, content)
    told = error_of(read_configuration, Path(path))
    assert path in told and message in told


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.json").mkdir()
    assert "There is no configuration file" in error_of(read_configuration, tmp_path / "a.json")


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"seed": 5}'), ("a.yaml", "seed: 5\n")])
def test_byte_order_marks_and_windows_line_ends_are_read(write, name, text):
    content = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert read_configuration(Path(write(name, content))) == {"seed": 5}


# ---- The training guide's blocks ----

TRANSFORMER = """
model:
  name: "transformer_model"
  architecture: "transformer"
  pretrained_model: "bert-base-uncased"
  num_labels: 2
  hidden_size: 768
  num_layers: 12
  num_attention_heads: 12
  hidden_dropout_prob: 0.1
  attention_probs_dropout_prob: 0.1
"""
CNN = """
model:
  name: "cnn_model"
  architecture: "cnn"
  vocab_size: 30522
  embed_size: 128
  num_filters: 100
  filter_sizes: [3, 4, 5]
  num_labels: 2
  dropout_prob: 0.5
"""
BASIC = """
training:
  learning_rate: 2e-5
  batch_size: 16
  num_epochs: 10
  warmup_steps: 500
  weight_decay: 0.01

  # Gradient settings
  gradient_accumulation_steps: 1
  max_grad_norm: 1.0

  # Mixed precision
  fp16: true

  # Logging
  logging_steps: 100
  eval_steps: 500
"""
ADVANCED = """
training:
  # Optimizer
  optimizer: "adamw"
  adam_epsilon: 1e-8
  adam_beta1: 0.9
  adam_beta2: 0.999

  # Scheduler
  scheduler_type: "linear"

  # Early stopping
  early_stopping_patience: 3
  early_stopping_threshold: 0.01

  # Checkpointing
  save_steps: 1000
  save_total_limit: 3
"""
AUGMENTATION = """
data:
  augmentation:
    enabled: true
    techniques:
      - "synonym_replacement"
      - "random_insertion"
      - "random_swap"
      - "random_deletion"
    probability: 0.1
"""
WANDB = """
wandb:
  project: "your-project-name"
  entity: "your-wandb-entity"
  mode: offline
  name: null  # Auto-generated
  tags: ["experiment", "baseline"]
  notes: "Baseline model training"
"""


def assert_fields(parsed, **expected):
    assert {name: getattr(parsed, name) for name in expected} == expected


def test_guide_model_blocks(parse, write):
    parsed = parse(write("model_config.yaml", TRANSFORMER), model=(), complete=complete_training_values)
    assert_fields(
        parsed,
        name="transformer_model",
        model_type=None,
        model_name_or_path="bert-base-uncased",
        num_labels=2,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    parsed = parse(write("model_config.yaml", CNN), model=(), complete=complete_training_values)
    assert_fields(
        parsed,
        name="cnn_model",
        model_type="textcnn",
        model_name_or_path=None,
        vocab_size=30522,
        embed_size=128,
        num_filters=100,
        filter_sizes=[3, 4, 5],
        num_labels=2,
        dropout_prob=0.5,
    )


def test_guide_training_blocks(parse, write):
    basic, advanced = write("basic.yaml", BASIC), write("advanced.yaml", ADVANCED)
    parsed = parse(basic, advanced, complete=complete_training_values)
    assert_fields(
        parsed,
        learning_rate=2e-5,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        num_train_epochs=10,
        warmup_steps=500,
        weight_decay=0.01,
        gradient_accumulation_steps=1,
        max_grad_norm=1.0,
        mixed_precision="fp16",
        # fp16 needs a GPU; the run of this test is told to use the CPU.
        fp16=False,
        logging_steps=100,
        eval_steps=500,
        eval_strategy="steps",
        optim="adamw_torch_fused",
        adam_epsilon=1e-8,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_scheduler_type="linear",
        early_stopping_patience=3,
        early_stopping_threshold=0.01,
        save_steps=1000,
        save_total_limit=3,
    )


def test_guide_data_and_wandb_blocks(parse, write):
    parsed = parse(write("data.yaml", AUGMENTATION), write("wandb.yaml", WANDB))
    assert_fields(
        parsed,
        augmentation_enabled=True,
        augmentation_techniques=["synonym_replacement", "random_insertion", "random_swap", "random_deletion"],
        augmentation_prob=0.1,
        wandb_project="your-project-name",
        wandb_entity="your-wandb-entity",
        wandb_tags=["experiment", "baseline"],
        wandb_notes="Baseline model training",
        wandb_mode="offline",
    )


def test_a_rate_that_only_other_recipes_can_find_is_refused(write):
    file = write("a.json", {"learning_rate": "auto"})
    with pytest.raises(ConfigurationError, match=r"a.json: learning_rate is 'auto'; this recipe takes a number only"):
        parse_arguments((RecipeTrainingArguments,), [file], "A test.", others=ALL_SETTINGS.values())


def test_a_file_may_hold_settings_of_other_recipes(parse, write):
    shared = write("a.yaml", "data:\n  max_seq_length: 9\npreprocessing:\n  clean_html: true\n")
    assert parse(shared, others=ALL_SETTINGS.values()).max_seq_length == 9
    with pytest.raises(ConfigurationError, match="clean_html"):
        parse(shared)
    wrong = write("b.yaml", "preprocessing:\n  clean_html: maybe\n")
    with pytest.raises(ConfigurationError, match=r"b.yaml: clean_html is 'maybe'; it must be true or false"):
        parse(wrong, others=ALL_SETTINGS.values())
    # Flags are of the recipe that is called.
    with pytest.raises(ConfigurationError, match="--clean_html, which does not exist"):
        parse("--clean_html", "true", others=ALL_SETTINGS.values())


def test_a_section_may_have_the_name_of_one_of_its_fields(parse, write):
    unfreezing = {"unfreezing": "epochs", "unfreezing_interval": 2.0}
    nested = {"unfreezing": unfreezing, "curriculum": {"curriculum": "length"}}
    parsed = parse(write("a.json", nested))
    assert (parsed.unfreezing, parsed.unfreezing_interval, parsed.curriculum) == ("epochs", 2.0, "length")
    assert parse(write("b.json", {"curriculum": "rarity"})).curriculum == "rarity"


def test_help_lists_sections_and_other_names(parse, capsys):
    with pytest.raises(SystemExit) as left:
        parse("--help")
    shown = capsys.readouterr().out
    assert left.value.code == 0
    for words in ("A test.", "--train_file", "--per_device_train_batch_size", "--batch_size", "other names"):
        assert words in shown


def test_precision_notes(parse):
    args = parse("--bf16", "false")[RecipeTrainingArguments]
    assert args.precision_notes("auto") == []
    assert args.precision_notes("fp16") == ["fp16 needs a GPU; on this CPU the run is in float32."]
    args = parse("--bf16", "true")[RecipeTrainingArguments]
    assert args.precision_notes("auto") == ["The run is in bf16 mixed precision."]


def test_learning_rate_auto_switches_the_finder_on_and_a_number_off(parse, write):
    automatic = write("a.yaml", "training:\n  learning_rate: auto\n")
    assert parse(automatic).find_learning_rate is True
    assert parse("--learning_rate", "auto").find_learning_rate is True
    parsed = parse(automatic, "--learning_rate", "3e-4")
    assert (parsed.find_learning_rate, parsed.learning_rate) == (False, 3e-4)
    assert parse("--learning_rate", "3e-4").find_learning_rate is False
    with pytest.raises(ConfigurationError, match="learning_rate is 'automatic'; it must be a number"):
        parse("--learning_rate", "automatic")


def test_own_schedules_are_choices(parse):
    assert parse("--lr_scheduler_type", "slanted_triangular").lr_scheduler_type.value == "slanted_triangular"
    with pytest.raises(
        ConfigurationError, match=r"lr_scheduler_type is 'slanted'; it must be one of linear, .*cyclical"
    ):
        parse("--lr_scheduler_type", "slanted")


def test_objects_are_json_on_the_command_line(parse):
    parsed = parse("--unfreezing", "epochs", "--unfreezing_stages", '{"0": ["head"], "1": ["layer.0"]}')
    assert parsed.unfreezing_stages == {"0": ["head"], "1": ["layer.0"]}
    assert parse("--learning_rate_scales", '{"head": 10}').learning_rate_scales == {"head": 10}
    with pytest.raises(ConfigurationError, match=r"learning_rate_scales is .*; it must be a JSON object"):
        parse("--learning_rate_scales", "{head: 10}")
