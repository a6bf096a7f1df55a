"""Preflight, augmentation and curriculum by flags: what they leave and what they refuse."""

import json

import pytest

from hf_ext import ConfigurationError, DataArguments, DataError, ModelArguments, load_text_data

CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--per_device_train_batch_size", "16"]
SHORT = ["--num_train_epochs", "2", "--logging_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true"]
GUIDE = """
data:
  augmentation:
    enabled: true
    techniques:
      - "synonym_replacement"
      - "random_insertion"
      - "random_swap"
      - "random_deletion"
    probability: 0.1
preprocessing:
  clean_html: true
"""


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def train(run_classification, write_data, output_dir):
    """Run the recipe on a tiny CNN: 144 training rows, 9 steps an epoch."""
    base = [*CNN, *write_data(), *SHORT, "--output_dir", str(output_dir)]

    def run(*flags):
        files = [str(flag) for flag in flags if str(flag).endswith(".yaml")]
        run_classification([*files, *base, *(str(flag) for flag in flags if str(flag) not in files)])
        return json.loads((output_dir / "run.json").read_text())

    return run


def change_rows(path, change):
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([change(index, row) for index, row in enumerate(rows)]))


def history(output_dir):
    return [log for log in json.loads((output_dir / "trainer_state.json").read_text())["log_history"] if "loss" in log]


# ---- Preflight ----


def test_preflight_is_kept_and_shown(train, output_dir, tmp_path, capsys):
    test_row = json.loads((tmp_path / "test.json").read_text())[3]
    change_rows(tmp_path / "train.json", lambda i, row: test_row if i == 5 else row)
    train()
    findings = {item["check"]: item for item in json.loads((output_dir / "preflight.json").read_text())["findings"]}
    assert findings["exact_leaks"]["verdict"] == "fail" and findings["exact_leaks"]["count"] == 1
    assert {item["verdict"] for item in findings.values()} <= {"ok", "warn", "fail", "skipped"}
    shown = capsys.readouterr().out
    assert "Preflight: fail\n  fail  exact_leaks: " in shown
    # The row of the file that was given, although a part of it was held out.
    leak = findings["exact_leaks"]["examples"][0]
    assert (leak["split"], leak["row"]) == ("test (test.json)", 4)
    assert "(train.json), row 6" in leak["note"]
    report = (output_dir / "report.html").read_text()
    assert 'href="#data"' in report and "exact_leaks: examples" in report


def test_preflight_error_stops_before_anything_is_written(train, output_dir, tmp_path):
    test_row = json.loads((tmp_path / "test.json").read_text())[3]
    change_rows(tmp_path / "train.json", lambda i, row: test_row if i == 5 else row)
    with pytest.raises(DataError, match=r"The preflight failed .*\n  exact_leaks: "):
        train("--preflight", "error")
    assert not output_dir.exists()


def test_preflight_off_does_not_look(train, output_dir):
    train("--preflight", "off")
    assert not (output_dir / "preflight.json").exists()
    assert 'href="#data"' not in (output_dir / "report.html").read_text()


def test_a_dry_run_shows_the_preflight_and_writes_nothing(run_classification, write_data, output_dir, capsys):
    run_classification([*CNN, *write_data(), "--dry_run", "--output_dir", str(output_dir)])
    shown = capsys.readouterr().out
    assert "Preflight: " in shown and "unknown_tokens" in shown and "Dry run: nothing was trained" in shown
    assert not output_dir.exists()


# ---- Augmentation ----


def test_the_guides_section_augments_the_training_rows(train, output_dir, tmp_path):
    path = tmp_path / "data_config.yaml"
    path.write_text(GUIDE)
    record = train(path)
    note = next(note for note in record["notes"] if "edited copies" in note)
    copies = int(note.split()[0])
    assert 100 < copies <= 144
    results = json.loads((output_dir / "train_results.json").read_text())
    assert results["train_samples"] == 144 + copies
    # Only the training rows.
    assert len((output_dir / "predictions_validation.jsonl").read_text().splitlines()) == 16
    assert "Some training texts and what augmentation made of them" in (output_dir / "report.html").read_text()


def test_on_the_fly_the_rows_stay_as_many(train, output_dir):
    record = train("--augmentation_enabled", "true", "--augmentation_on_the_fly", "true")
    assert json.loads((output_dir / "train_results.json").read_text())["train_samples"] == 144
    assert any("augmented anew in every epoch" in note for note in record["notes"])


def test_augmented_files_are_not_augmented_again_and_are_split_by_source(train, output_dir, tmp_path):
    change_rows(tmp_path / "train.json", lambda i, row: {**row, "source_idx": i // 4, "is_augmented": bool(i % 4)})
    with pytest.raises(DataError, match="'source_idx' and 'is_augmented' already"):
        train("--augmentation_enabled", "true")
    assert not output_dir.exists()
    files = DataArguments(train_file=str(tmp_path / "train.json"), validation_size=0.2)
    splits = load_text_data(files, ModelArguments(model_type="textcnn"), ("train", "validation")).splits
    assert not any(splits["validation"]["is_augmented"]) and 4 <= len(splits["validation"]) <= 12
    assert not set(splits["train"]["source_idx"]) & set(splits["validation"]["source_idx"])


def test_rows_without_a_source_are_their_own(tmp_path, write_data):
    write_data()
    sources = [None, "a", "a", 7]
    change_rows(tmp_path / "train.json", lambda i, row: {**row, "source_idx": sources[i % 4]})
    files = DataArguments(train_file=str(tmp_path / "train.json"), validation_size=0.2)
    splits = load_text_data(files, ModelArguments(model_type="textcnn"), ("train", "validation")).splits
    assert not set(splits["train"]["source_idx"]) & set(splits["validation"]["source_idx"])
    # 40 rows of their own, and two sources of 80 and 40 rows.
    assert len({*splits["train"]["source_idx"], *splits["validation"]["source_idx"]}) == 42


# ---- Curriculum ----


def test_a_column_of_the_data_is_a_difficulty(train, output_dir, tmp_path):
    change_rows(tmp_path / "train.json", lambda i, row: {**row, "hardness": float(i)})
    train("--curriculum", "hardness", "--curriculum_epochs", 2)
    shares = [log["curriculum/difficulty"] for log in history(output_dir)]
    assert shares == pytest.approx([0.3] * 9 + [0.65] * 9)
    assert "Curriculum: share of the training rows by step" in (output_dir / "report.html").read_text()


@pytest.mark.parametrize("hardness, message", [(None, "it must be a number"), ("nan", "finite number")])
def test_a_difficulty_that_is_none_stops_the_run(train, output_dir, tmp_path, hardness, message):
    change_rows(tmp_path / "train.json", lambda i, row: {**row, "hardness": hardness if i == 7 else 1.0})
    with pytest.raises(DataError, match=rf"train.json, row 8: 'hardness' is .*{message}"):
        train("--curriculum", "hardness")
    assert not output_dir.exists()


def test_a_missing_difficulty_column_stops_the_run(train, output_dir, tmp_path):
    change_rows(tmp_path / "train.json", lambda i, row: {**row, "hardness": 1.0})
    with pytest.raises(DataError, match=r"no column 'hardnes', .* Did you mean 'hardness'\?"):
        train("--curriculum", "hardnes")
    with pytest.raises(DataError, match=r"no column 'lenght', .* Did you mean 'length'\? .*cross_review"):
        train("--curriculum", "lenght")
    assert not output_dir.exists()


@pytest.mark.parametrize("scorer", ["cross_review", "cartography"])
def test_scores_from_training_runs(train, output_dir, scorer, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    train("--curriculum", scorer, "--augmentation_enabled", "true", "--curriculum_epochs", 2)
    shares = {log["curriculum/difficulty"] for log in history(output_dir)}
    assert sorted(shares) == pytest.approx([0.3, 0.65])
    assert (output_dir / "cartography.png").exists() == (scorer == "cartography")
    # A second run finds the scores, and is the same run.
    first = (output_dir / "model.safetensors").read_bytes()
    train("--curriculum", scorer, "--augmentation_enabled", "true", "--curriculum_epochs", 2, "--overwrite")
    assert (output_dir / "model.safetensors").read_bytes() == first


def test_resuming_with_other_techniques_is_refused(train, output_dir):
    train("--curriculum", "length", "--save_steps", 9, "--augmentation_enabled", "true")
    for flags, what in (
        (("--curriculum", "rarity", "--augmentation_enabled", "true"), "another curriculum: curriculum"),
        (("--curriculum", "length"), "another augmentation: augmentation_enabled"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            train(*flags, "--resume_from_checkpoint", output_dir / "checkpoint-9")


def test_too_few_epochs_are_refused_before_anything_is_scored(train, output_dir, capsys):
    with pytest.raises(ConfigurationError, match="at least two epochs"):
        train("--curriculum", "cross_review", "--num_train_epochs", 1)
    assert "cross review" not in capsys.readouterr().err
    assert not output_dir.exists()


def test_a_rate_that_is_not_known_yet_scores_nothing(train, output_dir):
    with pytest.raises(ConfigurationError, match="learning_rate=auto with curriculum=cross_review"):
        train("--curriculum", "cross_review", "--learning_rate", "auto")
    assert not output_dir.exists()
