"""The pages of docs/ that a newcomer follows run as they stand: Python whole, commands with tiny models."""

import json

import pytest

from .conftest import DOCS, blocks, call, commands

TINY_CNN = ("--embed_size", "8", "--num_filters", "4", "--preflight", "off")


def run_python(page, namespace, expected):
    found = blocks(DOCS / page, "python")
    assert len(found) == expected
    for block in found:
        exec(compile(block, page, "exec"), namespace)


def test_subclassing(folder, capsys):
    run_python("subclassing.md", {}, 3)
    rates = json.loads(capsys.readouterr().out.strip().splitlines()[-2].replace("'", '"'))
    assert rates["learning_rate/embeddings"] == 0.1 * rates["learning_rate/head"] > 0


def test_training_guide(folder, capsys):
    run_python("training_guide.md", {}, 9)
    assert (folder / "lr_finder.png").is_file()
    assert "classifier.weight" in capsys.readouterr().out


def test_the_commands_of_the_training_guide(folder):
    raw = folder / "dataset" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.json").write_bytes((folder / "train.json").read_bytes())
    prepare, train, search, folds, evaluate, compare = (
        words for block in blocks(DOCS / "training_guide.md", "bash") for words in commands(block)
    )
    call(prepare)
    assert {path.name for path in (folder / "dataset" / "processed").glob("t*.json")} == {"train.json", "test.json"}
    call(train, *TINY_CNN, "--num_train_epochs", "1", "--augmentation_enabled", "false")
    with pytest.raises(SystemExit) as best:
        call(search, *TINY_CNN, "--num_train_epochs", "1", "--max_steps", "1", "--num_trials", "2")
    assert best.value.code == 0
    assert (folder / "outputs" / "search" / "best_config.json").is_file()
    call(folds, *TINY_CNN, "--num_train_epochs", "1")
    call(evaluate)
    call(compare)
    assert (folder / "outputs" / "comparison" / "report.html").is_file()


def test_tutorial(folder, tiny_bert, capsys):
    write, load = blocks(DOCS / "tutorial.md", "python")
    prepare, first, distil, compare = (
        words for block in blocks(DOCS / "tutorial.md", "bash")[1:] for words in commands(block)
    )
    exec(compile(write, "tutorial.md", "exec"), {})
    call(prepare)
    lines = (folder / "dataset" / "raw" / "films.csv").read_text(encoding="utf-8").splitlines()
    (folder / "dataset" / "raw" / "films.csv").write_text("\n".join(lines[:200]), encoding="utf-8")
    call(prepare, "--overwrite")
    call(first, *TINY_CNN)
    teacher = ("--teacher_name_or_path", tiny_bert, "--teacher_max_seq_length", "32", "--teacher_cache_dir", "cache")
    call(distil, *TINY_CNN, *teacher, "--num_train_epochs", "1")
    call(compare)
    capsys.readouterr()
    exec(compile(load, "tutorial.md", "exec"), {})
    assert "score" in capsys.readouterr().out
