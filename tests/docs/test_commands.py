"""Every command that a page shows is carried out as far as it can be here; how far, stands beside each kind.

Recipes, on small rows and models in place of the reader's:
- with `--dry_run` where they have one: all fields are parsed, files read, models built, settings checked against each
  other and the data; nothing is trained. That they train is seen by the tests of `WHOLE`, one recipe each.
- `run_comparison.py` and `push_to_hub.py --dry_run`: whole.
- `run_export.py`: parsed by its own parser, the files it names have to be there; an export takes too long.
What `accelerate launch` is told is parsed by its own parser. Benchmarks are parsed by their own parsers, pytest and
make by pytest and make. What is not carried out is in `NOT_HERE`. The commands of the tutorial and of the training
guide are carried out by test_pages.py.
"""

import argparse
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from transformers import BertConfig, BertModel, HfArgumentParser

from hf_ext import ExtendedTrainingArguments, build_word_tokenizer

from ..hub_fixtures import hub
from ..recipes.conftest import BAD, FILLER, GOOD, load_recipe, make_rows
from .conftest import DOCS, ROOT, blocks, call, commands
from .shell import Command, shell_commands

__all__ = ["hub"]

# ---- What there is ----

FOLLOWED = ("docs/tutorial.md", "docs/training_guide.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS = list({command.words: command for page in PAGES for command in shell_commands(page, ROOT)}.values())
OF_FOLLOWED = [words for page in FOLLOWED for block in blocks(ROOT / page, "bash") for words in commands(block)]

# Recipe -> where it is run whole.
WHOLE = {
    "run_classification": "recipes/test_run_classification.py",
    "run_comparison": "recipes/test_run_comparison.py",
    "run_distillation": "recipes/test_distillation.py",
    "run_evaluation": "recipes/test_run_evaluation.py",
    "run_export": "recipes/test_run_export.py",
    "run_kfold": "recipes/test_kfold.py",
    "run_lr_finder": "recipes/test_transfer.py",
    "run_multitask": "recipes/test_multitask.py",
    "run_preprocessing": "recipes/test_run_preprocessing.py",
    "run_search": "recipes/test_run_search.py",
    "push_to_hub": "recipes/test_push_to_hub.py",
}
# Beginning of a command -> why it is not carried out.
NOT_HERE = {
    "git clone ": "the repository has no address yet",
    "cd hf_ext": "the clone's folder",
    "uv ": "uv need not be there, and installs from an index; `make` does the same with pip",
    "source .venv": "a shell's own command, for the environment that uv makes",
    "pip install ": "installs from an index",
    "accelerate launch recipes/run_kfold.py configs/kfold/demo.json --resume_from_checkpoint": "goes on with a "
    "cross-validation of some minutes; recipes/test_kfold.py goes on with a small one",
}


def kind(command: Command) -> str | None:
    """How a command is carried out."""
    # With `...` for what stands above it.
    if "..." in command.words or any(f"{command} ".startswith(beginning) for beginning in NOT_HERE):
        return "not here"
    if command.script:
        is_followed = [command.script, *command.arguments] in OF_FOLLOWED
        return "test_pages" if is_followed else command.script.split("/")[0]
    if command.words[:3] == ("python", "-m", "pytest"):
        return "pytest"
    return {"pytest": "pytest", "make": "make", "python": "python"}.get(command.words[0])


KINDS = {name: [command for command in COMMANDS if kind(command) == name] for name in map(kind, COMMANDS)}
RECIPES = [command for command in KINDS["recipes"] if "run_export" not in command.script]
EXPORTS = [command for command in KINDS["recipes"] if "run_export" in command.script]
LAUNCHERS = {tuple(command.launcher) for command in KINDS["recipes"] if command.words[0] == "accelerate"}


def test_every_command_is_carried_out_somehow():
    assert KINDS.get(None, []) == []
    for beginning in NOT_HERE:
        assert any(f"{command} ".startswith(beginning) for command in KINDS["not here"]), beginning
    least = {"recipes": 40, "benchmarks": 20, "pytest": 8, "make": 4, "python": 1, "test_pages": 10}
    assert {name for name in least if len(KINDS[name]) < least[name]} == set()


def test_every_recipe_is_run_whole_somewhere():
    assert set(WHOLE) == {path.stem for path in (ROOT / "recipes").glob("*.py")}
    for recipe, place in WHOLE.items():
        assert recipe in (ROOT / "tests" / place).read_text(encoding="utf-8")
    assert {Path(command.script).stem for command in COMMANDS if command.script.startswith("recipes/")} == set(WHOLE)


# ---- Recipes ----

# Word of a page -> what stands for it.
STAND_INS = {"DIR_OR_HUB_NAME": "encoder", "DIR": "encoder", "MINILM_SST2": "outputs/bert"}
ENCODER = ("--model_name_or_path", "encoder")
TINY_CNN = ("--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4")
QUICK = ("--num_train_epochs", "1", "--preflight", "off", "--disable_tqdm", "true")
FILES = ("--train_file", "train.json", "--test_file", "test.json")
TABLES = {
    **{"train.json": 60, "test.json": 24, "other.json": 24, "mood.json": 60, "sst2/test.json": 24},
    **{"train.csv": 60, "dev.csv": 24, "test.csv": 24, "topic.csv": 60, "sst2_texts.json": 24},
    **{"larger_than_memory.jsonl": 60, "dev.jsonl": 24, "dataset/raw/rows.json": 120, "data/mr/all.json": 120},
    **{f"data/{task}/{split}.json": 60 for task in ("mrpc", "sst2", "trec6") for split in ("train", "test")},
    **{f"data/{task}/validation.json": 24 for task in ("mrpc", "sst2")},
    **{"dev.json": 24, "more.json": 24},
}
# Sets that have to hold the same rows.
SEEDS = {"test.json": 1, "test.csv": 1}


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**row, "genre": ("drama", "comedy")[place % 2]} for place, row in enumerate(rows)]
    if path.suffix == ".csv":
        datasets.Dataset.from_list(rows).to_csv(path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))


def write_encoder(path: Path) -> None:
    tokenizer = build_word_tokenizer([" ".join(GOOD + BAD + FILLER)], model_max_length=512)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of somebody who has followed the pages so far: files, an encoder, and what runs on them left."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_CACHE_HOME", folder / "cache")
        patch.setattr(os, "environ", os.environ.copy())
        for place, (name, count) in enumerate(TABLES.items()):
            write_table(folder / name, make_rows(count, SEEDS.get(name, place + 2), "integer"))
        for name, seed in {"more.txt": 99, "strange.txt": 98}.items():
            Path(name).write_text("\n".join(row["text"] for row in make_rows(40, seed)))
        write_encoder(folder / "encoder")
        settings = {"training": {"output_dir": "outputs/args", "save_strategy": "epoch", "num_train_epochs": 1}}
        given = {"train_file": "train.json", "test_file": "test.json"}
        Path("args.json").write_text(
            json.dumps({"model": {"model_name_or_path": "encoder"}, "data": given, **settings})
        )
        classify = "recipes/run_classification.py"
        call([classify, *TINY_CNN, *FILES, *QUICK, "--output_dir", "outputs/cnn"])
        call([classify, *ENCODER, *FILES, *QUICK, "--output_dir", "outputs/bert"])
        call([classify, *ENCODER, *FILES, *QUICK, "--peft", "lora", "--output_dir", "outputs/lora"])
        call([classify, "args.json", *QUICK])
        prepared = ("--validation_size", "0.2", "--test_size", "0.2", "--deduplicate", "off")
        folders = ("--input_dir", "dataset/raw", "--output_dir", "dataset/processed")
        call(["recipes/run_preprocessing.py", *folders, *prepared])
        for name, rate in (("a", "1e-3"), ("b", "1e-2")):
            two = ("--num_folds", "2", "--learning_rate", rate, "--output_dir", f"outputs/kfold_{name}")
            call(["recipes/run_kfold.py", *TINY_CNN, *FILES[:2], *QUICK, *two])
        for copy, of in {"quickstart": "cnn", "small": "cnn"}.items():
            shutil.copytree(f"outputs/{of}", f"outputs/{copy}")
        for name, of in {"a": "bert", "b": "cnn", "c": "lora"}.items():
            shutil.copy(f"outputs/{of}/predictions_test.jsonl", f"{name}.jsonl")
        yield folder


@pytest.fixture
def in_world(world, monkeypatch, tmp_path):
    """In that folder, to which nothing is written."""
    monkeypatch.chdir(world)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return ("--output_dir", str(tmp_path / "out"))


class Parsed(Exception):
    """Ends a program where it has understood its command."""


def carry_out(command: Command, output_dir: tuple[str, ...]) -> None:
    """A recipe's command as far as it goes."""
    recipe, given = Path(command.script).stem, [STAND_INS.get(word, word) for word in command.arguments]
    if recipe == "push_to_hub":
        return call([command.script, *given])
    if recipe == "run_comparison":
        return call([command.script, *given, *output_dir])
    more = list(ENCODER) if any(word.startswith("configs/multitask/") for word in given) else []
    # Its first word vectors cannot be wider than the small encoder.
    more += ["--embed_size", "16"] if recipe == "run_distillation" else []
    goes_on = "--resume_from_checkpoint" in given or given == ["outputs/cnn/run.json"]
    return call([command.script, *given, *more, *(() if goes_on else output_dir), "--dry_run"])


@pytest.mark.xdist_group("commands")
@pytest.mark.parametrize("command", RECIPES, ids=str)
def test_a_recipe(command, in_world, capsys, request):
    if "--push_to_hub" in command.words:
        request.getfixturevalue("hub")
    carry_out(command, in_world)
    said = capsys.readouterr().out
    end = {
        "run_preprocessing": "files to read:",
        "run_comparison": "Report: ",
        "push_to_hub": "Dry run: nothing was sent",
    }
    assert end.get(Path(command.script).stem, "Dry run: nothing was trained or written.") in said


@pytest.mark.xdist_group("commands")
@pytest.mark.parametrize("command", EXPORTS, ids=str)
def test_an_export_is_parsed(command, in_world, monkeypatch):
    recipe = load_recipe("run_export")
    parse, parsed = recipe.parse_settings, {}

    def parse_only(*args, **kwargs):
        parsed.update(parse(*args, **kwargs))
        raise Parsed

    monkeypatch.setattr(recipe, "parse_settings", parse_only)
    with pytest.raises(Parsed):
        recipe.main([STAND_INS.get(word, word) for word in command.arguments])
    assert Path(parsed["model"].model_name_or_path, "config.json").is_file()
    assert Path(parsed["data"].test_file).is_file()


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS), ids=str)
def test_what_the_launcher_is_told(launcher):
    args = launch_command_parser().parse_args([*launcher, "recipes/run_classification.py"])
    assert args.training_script == "recipes/run_classification.py"
    assert args.config_file is None or (ROOT / args.config_file).is_file()


# ---- All else ----


@pytest.mark.parametrize("command", KINDS["benchmarks"], ids=str)
def test_a_benchmark_is_parsed(command, monkeypatch):
    path = ROOT / command.script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    benchmark = importlib.util.module_from_spec(spec)
    parse, parse_known = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args

    # Parts of a benchmark have parsers of their own, hence `plain`.
    def parse_only(*given, **more):
        with monkeypatch.context() as plain:
            plain.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
            parse(*given, **more)
        raise Parsed

    def parse_and_pass_on(*given, **more):
        with monkeypatch.context() as plain:
            plain.setattr(argparse.ArgumentParser, "parse_args", parse)
            plain.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
            _, for_the_recipe = parse_known(*given, **more)
            # Raises where the training has no such setting.
            HfArgumentParser(ExtendedTrainingArguments).parse_args_into_dataclasses(for_the_recipe)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_pass_on)
    monkeypatch.setattr(sys, "argv", [command.script, *command.arguments])
    monkeypatch.syspath_prepend(path.parent)
    # Dataclasses look their module up there.
    monkeypatch.setitem(sys.modules, path.stem, benchmark)
    spec.loader.exec_module(benchmark)
    with pytest.raises(Parsed):
        benchmark.main(*([command.arguments] if inspect.signature(benchmark.main).parameters else []))


@pytest.mark.parametrize("command", KINDS["pytest"], ids=str)
def test_tests_that_are_there(command):
    words = command.words[command.words.index("pytest") + 1 :]
    files = [path for word in words if word.startswith("tests/") for path in [ROOT / word]]
    assert files and all(path.exists() for path in files)
    if "-k" in words:
        names = [line for path in files for line in path.read_text().splitlines() if line.startswith("def test_")]
        assert any(words[words.index("-k") + 1] in name for name in names)


@pytest.mark.parametrize("command", KINDS["make"], ids=str)
def test_a_target_of_make(command):
    asked = subprocess.run([*command.words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0 and asked.stdout, asked.stderr


@pytest.mark.xdist_group("commands")
@pytest.mark.parametrize("command", KINDS["python"], ids=str)
def test_a_statement(command, in_world, capsys):
    exec(compile(command.words[2].replace("'DIR'", "'outputs/cnn'"), command.page, "exec"), {})
    assert capsys.readouterr().out
