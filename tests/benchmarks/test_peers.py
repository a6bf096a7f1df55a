"""Peers: what is drawn, measured and refused, and the environments; the peers themselves are not needed."""

import json
import random
import re
import runpy
from collections import Counter

import numpy as np
import peers
import pytest
from peer_parts.environments import ARMS, NotInstalledError, environment, note_missing, print_missing, reason
from peer_parts.fasttext_speed import with_validation
from peer_parts.few_shot import cells, difference
from peer_parts.floor import read_floors, under_floor
from peer_parts.lr_finders import SETTINGS, numbered
from peer_parts.protocols import PROTOCOLS, few_shot, read_splits, score
from peer_parts.runs import predicted_labels
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from hf_ext import DataError

CLASSES = ("ABBR", "LOC", "NUM")


def make_rows(number, classes=CLASSES, seed=0):
    """Texts that tell their class most of the time."""
    draw, rows = random.Random(seed), []
    for index in range(number):
        label = classes[index * len(classes) // number]
        hint = label if draw.random() < 0.7 else draw.choice(classes)
        rows.append({"text": f"about {hint} {draw.choice('xyz')}{index % 7} words", "label": label})
    return rows


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, rows in files.items():
        folder.joinpath(f"{name}.json").write_text(json.dumps(rows))


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    write(folder / "trec6", train=make_rows(90), test=make_rows(45, seed=1))
    write(folder / "mr", all=make_rows(60, (0, 1)))
    rows = make_rows(90)
    several = [{"text": row["text"], "label": [row["label"], *(["even"] * (i % 2))]} for i, row in enumerate(rows)]
    write(folder / "goemotions", train=several, validation=several[::2], test=several[::3])
    pairs = [{"text_a": "one", "text_b": row["text"], "label": row["label"]} for row in make_rows(30, (0, 1))]
    write(folder / "mrpc", train=pairs, validation=pairs[:10], test=pairs[10:])
    return folder


# ---- Draws ----


def test_a_draw_has_as_many_rows_of_each_class():
    rows = make_rows(60)
    drawn = few_shot(rows, 8, seed=0)
    assert Counter(row["label"] for row in drawn) == dict.fromkeys(CLASSES, 8)
    assert all(any(row is given for given in rows) for row in drawn)
    assert len({id(row) for row in drawn}) == 24
    assert few_shot(rows, 8, seed=0) == drawn
    assert few_shot(rows, 8, seed=1) != drawn
    # Which rows are drawn of one class does not depend on the others.
    alone = few_shot([row for row in rows if row["label"] == "LOC"], 8, seed=0)
    assert alone == [row for row in drawn if row["label"] == "LOC"]
    assert all(row in few_shot(rows, 12, seed=0) for row in drawn)


def test_a_class_with_too_few_rows_is_named():
    with pytest.raises(DataError, match=r"class ABBR has 1 rows; 2 a class cannot be drawn.*--examples"):
        few_shot([{"text": "a", "label": "ABBR"}, *make_rows(9, ("LOC",))], 2, seed=0)


# ---- Metrics ----


def test_metrics_are_those_of_the_protocols():
    draw = np.random.default_rng(0)
    labels, found = (draw.choice(["irony", "non_irony"], 50, p=p) for p in ((0.3, 0.7), (0.6, 0.4)))
    irony = 100 * f1_score(labels, found, pos_label="irony")
    assert score("tweeteval_irony", labels.tolist(), found.tolist())["value"] == pytest.approx(irony)
    macro = 100 * f1_score(labels, found, average="macro")
    assert score("tweeteval_offensive", labels.tolist(), found.tolist())["value"] == pytest.approx(macro)
    accuracy = 100 * np.mean(labels == found)
    assert score("trec6", labels.tolist(), found.tolist())["value"] == pytest.approx(accuracy)
    truth, several = draw.integers(0, 2, (40, 5)), draw.integers(0, 2, (40, 5))
    macro = 100 * np.mean([f1_score(truth[:, column], several[:, column]) for column in range(5)])
    assert score("goemotions", truth, several)["value"] == pytest.approx(macro)


def test_splits_are_those_of_the_protocols(data_dir):
    assert {split: len(rows) for split, rows in read_splits(data_dir, "mrpc").items()} == {"train": 30, "test": 10}
    splits = read_splits(data_dir, "mrpc_test")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 40, "test": 20}
    assert splits["test"][0]["text"].startswith("one about ")
    write(data_dir / "sms_spam", all=make_rows(100, ("ham", "spam")))
    splits = read_splits(data_dir, "sms_spam")
    assert splits["train"] + splits["test"] == make_rows(100, ("ham", "spam"))
    assert len(splits["train"]) == 30
    # Evenly spread, as files may be sorted by class.
    few = read_splits(data_dir, "trec6", max_rows=9)["train"]
    assert Counter(row["label"] for row in few) == dict.fromkeys(CLASSES, 3)


def test_a_tenth_validates_where_no_file_does():
    splits = with_validation({"train": make_rows(90), "test": make_rows(9)}, seed=3)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 81, "validation": 9, "test": 9}
    assert Counter(row["label"] for row in splits["validation"]) == {0: 3, 1: 3, 2: 3}
    assert [row["label"] for row in splits["test"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {row["text"] for part in ("train", "validation") for row in splits[part]} == {
        row["text"] for row in make_rows(90)
    }


# ---- The floor ----


def test_the_floor_of_some_sets(data_dir, tmp_path, capsys):
    call = ["floor", "--data_dir", str(data_dir), "--work_dir", str(tmp_path / "work"), "--seeds", "2"]
    peers.main([*call, "--sets", "trec6", "mr", "goemotions", "mrpc"])
    floors = read_floors(tmp_path / "work" / "floor.json")
    machine = make_pipeline(
        TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2)), LinearSVC(random_state=0)
    )
    (texts, labels), (test, truth) = (
        ([row["text"] for row in rows], [row["label"] for row in rows])
        for rows in (make_rows(90), make_rows(45, seed=1))
    )
    assert floors["trec6"] == round(100 * machine.fit(texts, labels).score(test, truth), 2)
    texts, labels = zip(*((row["text"], row["label"]) for row in make_rows(60, (0, 1))), strict=True)
    folds = [StratifiedKFold(10, shuffle=True, random_state=seed) for seed in range(2)]
    scores = np.mean([cross_val_score(machine, texts, labels, cv=dealt).mean() for dealt in folds])
    assert floors["mr"] == round(100 * scores, 2)
    assert list(floors) == ["mr", "trec6", "goemotions", "mrpc"]

    result = tmp_path / "work" / "floor" / "trec6.json"
    made = result.stat().st_mtime_ns
    peers.main([*call, "--sets", "trec6"])
    assert result.stat().st_mtime_ns == made
    # A toy is no floor.
    peers.main([*call, "--sets", "trec6", "--max_rows", "30"])
    assert "trec6" not in read_floors(tmp_path / "work" / "floor.json")
    capsys.readouterr()
    peers.main(["tables", "--work_dir", str(tmp_path / "work")])
    table = capsys.readouterr().out
    assert f"| mr | 60 rows, 10 folds x 2 | accuracy | {floors['mr']:.2f} |" in table
    assert "| trec6 (toy: at most 30 rows of each file) | 30 rows |" in table


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["trec6", "r8"], r"The set r8 needs .*train\.json, which does not exist; .* holds no \.json file"),
        (["subj"], r"The set subj needs .*all\.json"),
        (["sst5"], r"--sets sst5: this part has no such set; it has mr, subj, sst1"),
    ],
)
def test_a_folder_without_a_set_is_refused_before_anything_runs(data_dir, tmp_path, capsys, sets, message):
    call = ["floor", "--data_dir", str(data_dir), "--work_dir", str(tmp_path / "work"), "--sets", *sets]
    with pytest.raises(SystemExit, match="2"):
        peers.main(call)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "work").exists()


def test_predictions_of_numbered_classes_are_names_too(tmp_path):
    """A recipe writes the class "3" as the number that it was in the user's file."""
    (tmp_path / "predictions_test.jsonl").write_text('{"prediction": 3}\n{"prediction": "LOC"}\n')
    assert predicted_labels(tmp_path) == ["3", "LOC"]


def test_what_is_under_the_floor_is_marked():
    assert under_floor("76.10 (0.20)", 76.1, 77.5) == "76.10 (0.20) (under the floor, 77.50)"
    assert under_floor("77.50", 77.5, 77.5) == "77.50"
    assert under_floor("12.00", 12.0, None) == "12.00"


def test_the_floors_of_the_repository_are_those_of_known_sets():
    floors = read_floors()
    assert set(floors) == set(PROTOCOLS)
    assert all(30 < value < 100 for value in floors.values())


# ---- Few rows a class ----


def test_a_row_of_the_few_shot_table_compares_the_draws_that_all_have():
    values = {"svm": [50, 60, 70], "setfit": [40, 55, 61], "hf_ext": [45, 56, 65, 99]}
    rows = [
        {"settings": {"set": "trec6", "examples": 8, "seed": seed, "arm": arm}, "value": value, "seconds": 10 * value}
        for arm, found in values.items()
        for seed, value in enumerate(found)
    ]
    draws, svm, setfit, _, ours, gain, _, seconds = cells(rows, "trec6", 8)
    assert (draws, svm, setfit) == ("3", "60.00 (10.00)", "52.00 (10.82)")
    assert ours == "55.33 (10.02) (under the floor, 60.00)"
    interval = stats.ttest_rel([45, 56, 65], [40, 55, 61]).confidence_interval(0.95)
    assert gain == f"+3.33 ± {(interval.high - interval.low) / 2:.2f}"
    assert seconds == "560"
    assert difference([2.0]) == "+2.00"
    without = cells([row for row in rows if row["settings"]["arm"] != "setfit"], "trec6", 8)
    assert without[2] == "not installed"
    assert without[5] == ""


# ---- Finders ----


def test_the_finder_leaves_everything_as_it_was(tmp_path):
    data = numbered([{"text": f"{row['text']} ?", "label": row["label"]} for row in make_rows(120)])
    assert {len(row) for row in data["ids"]} == {SETTINGS["length"]}
    assert data["words"] == 1 + len({number for row in data["ids"] for number in row if number})
    assert data["labels"] == [0] * 40 + [1] * 40 + [2] * 40
    settings = {**SETTINGS, **data, "tool": "hf_ext", "seed": 0, "batch": 20, "steps": 20}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    arm = runpy.run_path(str(ARMS / "finder_arm.py"))
    arm["main"](str(tmp_path / "settings.json"), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["restored"] == {"model": True, "optimizer": True, "random": True}
    assert found["seconds"] > 0
    # A change would be seen.
    setup = arm["Setup"](settings)
    states = [setup.states()]
    setup.train(setup.optimizer)
    states.append(setup.states())
    setup.model.norm.running_mean[0] += 1e-6
    states.append(setup.states())
    before, trained, touched = states
    assert all(before[part] != trained[part] for part in before)
    assert [part for part in trained if trained[part] != touched[part]] == ["model"]


# ---- Environments ----


def test_an_environment_of_the_same_requirements_is_kept(tmp_path):
    folder = tmp_path / "environments" / "peer"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("peer==1.0\n")
    assert environment(folder, "peer==1.0\n") == folder / "bin" / "python"
    assert [path.name for path in folder.iterdir()] == ["requirements.txt"]


def test_nothing_is_left_of_an_environment_that_cannot_be_made(tmp_path):
    folder = tmp_path / "environments" / "peer"
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("peer==0.9\n")
    with pytest.raises(NotInstalledError, match=r"no_peer-1\.0-py3"):
        environment(folder, f"{tmp_path}/no_peer-1.0-py3-none-any.whl\n")
    assert [path.name for path in folder.parent.iterdir()] == ["peer.log"]


def test_what_is_not_installed_is_said_in_the_table(tmp_path, capsys):
    with note_missing(tmp_path, "peer"):
        raise NotInstalledError("No matching distribution found for peer==1.0")
    capsys.readouterr()
    print_missing(tmp_path)
    assert capsys.readouterr().out == "Not installed: peer: No matching distribution found for peer==1.0\n\n"
    with note_missing(tmp_path, "peer"):
        pass
    print_missing(tmp_path)
    assert capsys.readouterr().out == ""


def test_the_reason_is_the_first_error_of_pip():
    said = "Collecting peer\nERROR: Cannot install peer because of conflicts.\nhelp: see\nERROR: ResolutionImpossible\n"
    assert reason(said) == "Cannot install peer because of conflicts."
    assert reason("killed\n") == "killed"


@pytest.mark.parametrize("name", ["setfit", "fasttext", "torch-lr-finder", "fastai"])
def test_requirements_are_pinned(name):
    lines = (ARMS / f"{name}.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert all("==" in line for line in packages)
