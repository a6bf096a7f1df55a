import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from html.parser import HTMLParser

import pyarrow
import pyarrow.parquet
import pytest
from starting import exit_code_of, process_context

from hf_ext.arguments import DataArguments, ModelArguments
from hf_ext.data.loading import load_text_data
from hf_ext.data.preprocessing import (
    PreprocessingArguments,
    PreprocessingRunArguments,
    complete_preprocessing_values,
    make_plan,
    preprocess,
)
from hf_ext.data.reading import read_table
from hf_ext.errors import ConfigurationError, DataError

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("ra", "lo", "mi", "ten", "sul")]


def make_rows(count, seed=0, labels=("neg", "pos")):
    generator = random.Random(seed)
    return [{"text": " ".join(generator.choices(WORDS, k=12)), "label": labels[i % len(labels)]} for i in range(count)]


def write(folder, **files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def run(folder, out, shares=(0.1, 0.1), workers=None, overwrite=False, data=None, **settings):
    data_args = DataArguments(
        validation_size=shares[0], test_size=shares[1], preprocessing_num_workers=workers, **(data or {})
    )
    return preprocess(folder, out, PreprocessingArguments(**settings), data_args, overwrite, progress=False)


def read(out):
    return {path.stem: read_table(path).rows for path in sorted(out.glob("t*.*")) + sorted(out.glob("v*.*"))}


def files_of(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def removed(report):
    return {stage["stage"]: stage["removed"] for stage in report["stages"][1:]}


# ---- What comes out ----


def test_the_guide_s_splits(tmp_path):
    rows = make_rows(400)
    report, was_there = run(write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out")
    out = read(tmp_path / "out")
    assert not was_there
    assert {name: len(part) for name, part in out.items()} == {"train": 320, "validation": 40, "test": 40}
    for part in out.values():
        assert set(Counter(row["label"] for row in part).values()) == {len(part) // 2}
        # In the order of the files, and each row in one split.
        assert part == [row for row in rows if row in part]
    together = [row["text"] for part in out.values() for row in part]
    assert sorted(together) == sorted(row["text"] for row in rows)
    text = (tmp_path / "out/train.json").read_text()
    assert text.startswith('[\n{"text": "') and text.endswith('"}\n]\n') and text.count("\n") == 322
    assert [stage["rows"] for stage in report["stages"]] == [400]
    # What training reads is what was written.
    data = load_text_data(
        DataArguments(data_dir=str(tmp_path / "out")),
        ModelArguments(model_type="textcnn"),
        ("train", "validation", "test"),
    )
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 320, "validation": 40, "test": 40}


def test_files_of_every_kind_together(tmp_path):
    folder, parts = tmp_path / "raw", [make_rows(20, seed) for seed in range(6)]
    write(folder, **{"a.json": parts[0], "sub/b.jsonl": "\n".join(map(json.dumps, parts[1]))})
    write(folder, **{"c.csv": "sentence,label,id\n" + "".join(f"{row['text']},{row['label']},7\n" for row in parts[2])})
    write(folder, **{"d.tsv": "label\ttext\n" + "".join(f"{row['label']}\t{row['text']}\n" for row in parts[3])})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(parts[4]), folder / "e.parquet")
    write(folder, **{f"texts/{row['label']}/{i:02}.txt": row["text"] + "\n" for i, row in enumerate(parts[5])})
    write(folder, **{"notes.md": "x", ".hidden": "x"})
    report, _ = run(folder, tmp_path / "out", shares=(0, 0))
    (rows,) = read(tmp_path / "out").values()
    written = {(row["text"], row["label"]) for row in rows}
    assert len(rows) == 120 and written == {(row["text"], row["label"]) for part in parts for row in part}
    assert {source["name"]: source["rows"] for source in report["sources"]} == dict.fromkeys(
        ["a.json", "c.csv", "d.tsv", "e.parquet", "sub/b.jsonl", "texts"], 20
    )
    assert [item["name"] for item in report["ignored"]] == [".hidden", "notes.md"]
    assert "Columns of c.csv that were not kept: id." in report["notes"]


def test_pairs_and_several_columns(tmp_path):
    rows = [{"premise": f"a {i} {i}", "hypothesis": f"b{i}", "label": i % 2} for i in range(20)]
    folder = write(tmp_path / "raw", **{"a.json": rows, "b.json": [{"text_a": " x ", "text_b": "y", "label": 0}]})
    run(folder, tmp_path / "out", shares=(0, 0), deduplicate="exact")
    (out,) = read(tmp_path / "out").values()
    assert out[0] == {"text": "a 0 0", "text_pair": "b0", "label": 0}
    assert out[-1] == {"text": "x", "text_pair": "y", "label": 0}
    rows = [{"title": f"T{i}", "body": "b", "stars": 1.5 * i} for i in range(20)]
    data = {"text_column_names": "title,body", "label_column_name": "stars", "text_column_delimiter": ": "}
    folder = write(tmp_path / "raw2", **{"a.json": rows})
    report, _ = run(folder, tmp_path / "out2", data=data, output_format="parquet", deduplicate="exact")
    out = read(tmp_path / "out2")
    assert sorted(map(len, out.values())) == [2, 2, 16] and out["train"][0]["text"][:4] in ("T0: ", "T1: ", "T2: ")
    assert report["problem_type"] == "regression" and type(out["train"][0]["label"]) is float


@pytest.mark.parametrize("output_format", ["json", "parquet"])
def test_several_labels_and_kept_columns(tmp_path, output_format):
    rows = [
        {
            "text": row["text"],
            "label": [["b", "a"], ["a"], []][i % 3],
            "user": i // 4,
            "w": 0.5,
            "tags": {"x": i},
            "n": None,
        }
        for i, row in enumerate(make_rows(60))
    ]
    folder = write(tmp_path / "raw", **{"a.json": rows})
    keep = ["w", "tags", "n"]
    run(folder, tmp_path / "out", group_column="user", keep_columns=keep, output_format=output_format)
    out = read(tmp_path / "out")
    users = [{row["user"] for row in part} for part in out.values()]
    assert sum(map(len, users)) == len(set().union(*users)) == 15
    by_text = {row["text"]: row for part in out.values() for row in part}
    for row in rows:
        found = by_text[row["text"]]
        tags = json.dumps(row["tags"]) if output_format == "parquet" else row["tags"]
        nothing = "null" if output_format == "parquet" else None
        assert found == {**row, "label": sorted(row["label"]), "tags": tags, "n": nothing}


def test_cleaning_is_counted_and_shown(tmp_path):
    rows = make_rows(30)
    rows[3]["text"] = "<p>caf\u0065\u0301\u200b  at www.x.org</p> <script>"
    rows[4]["text"] = "\ud800half"
    rows += [{"text": "  ", "label": "pos"}, {"text": None, "label": "neg"}]
    folder = write(tmp_path / "raw", **{"a.json": rows})
    report, _ = run(folder, tmp_path / "out", (0, 0), clean_html=True, clean_urls="replace")
    (out,) = read(tmp_path / "out").values()
    assert out[3]["text"] == "café at [URL]" and out[4]["text"] == "half" and len(out) == 30
    assert removed(report) == {"without empty texts": 2}
    shown = {step["operation"]: step for step in report["cleaning"]}
    assert {name: step["rows"] for name, step in shown.items()} == {
        "html": 1, "control_characters": 1, "unicode_nfc": 1, "urls": 1, "white_space": 2,
    }  # fmt: skip
    assert shown["urls"]["examples"] == [
        {"row": "a.json, row 4", "before": "café  at www.x.org  ", "after": "café  at [URL]  "}
    ]
    assert any("half a character" in note for note in report["notes"])


def test_duplicates_and_conflicts(tmp_path):
    sentence = "the quick brown fox jumps over the lazy dog and runs away"
    rows = [
        {"text": sentence, "label": "a"},
        {"text": sentence.upper() + " ", "label": "a"},
        {"text": sentence + "s", "label": "a"},
        {"text": sentence + "!", "label": "b"},
        {"text": "same", "label": "a"},
        {"text": "same", "label": "b"},
        {"text": "other", "label": "b"},
    ]
    folder = write(tmp_path / "raw", **{"a.json": rows})
    results = {
        "near": ({}, [0, 3, 6]),
        "exact": ({"deduplicate": "exact"}, [0, 2, 3, 6]),
        "off": ({"deduplicate": "off"}, [0, 1, 2, 3, 4, 5, 6]),
        "first": ({"conflicting_labels": "keep_first"}, [0, 3, 4, 6]),
        "strict": ({"near_duplicate_threshold": 1.0}, [0, 2, 3, 6]),
    }
    for name, (settings, kept) in results.items():
        report, _ = run(folder, tmp_path / name, (0, 0), **settings)
        texts = [(" ".join(rows[i]["text"].split()), rows[i]["label"]) for i in kept]
        assert [(row["text"], row["label"]) for row in read(tmp_path / name)["train"]] == texts, name
        assert report["conflicts"]["rows"] == 2
    near = json.loads((tmp_path / "near/data_report.json").read_text())["duplicates"]["near_duplicate"]
    assert near["rows"] == 1 and near["examples"][0]["kept"]["row"] == "a.json, row 1"
    with pytest.raises(
        DataError, match=r"a.json, row 5 and .*a.json, row 6 hold the same text with the labels 'a' and 'b'"
    ):
        run(folder, tmp_path / "error", conflicting_labels="error")
    assert not (tmp_path / "error").exists()


def test_official_splits_stay_and_nothing_leaks_into_train(tmp_path):
    train, validation, test = make_rows(60, 0), make_rows(20, 1), make_rows(20, 2)
    other = {"neg": "pos", "pos": "neg"}
    test += [test[0]]
    planted = [test[1], validation[2], {"text": test[3]["text"] + " x", "label": other[test[3]["label"]]}]
    folder = write(
        tmp_path / "raw", **{"train.json": train + planted, "dev.json": [*validation, test[4]], "test/a.json": test}
    )
    report, _ = run(folder, tmp_path / "out")
    out = read(tmp_path / "out")
    assert out == {"train": train, "validation": validation, "test": test}
    assert removed(report) == {"without rows whose text is also in a later split": 4}
    assert "official splits train, validation, test" in report["notes"][0]


def test_a_missing_split_is_taken_from_train(tmp_path):
    train, test = make_rows(100, 0), make_rows(20, 2)
    folder = write(tmp_path / "raw", **{"more.json": train, "test.json": [{**row, "label": -1} for row in test]})
    run(folder, tmp_path / "out", label_map={"neg": 0, "pos": 1})
    out = read(tmp_path / "out")
    assert {name: len(part) for name, part in out.items()} == {"train": 90, "validation": 10, "test": 20}
    # No label of test was there: those rows are to be predicted.
    assert out["test"] == [{"text": row["text"]} for row in test]
    assert {row["label"] for row in out["train"]} == {0, 1}


def test_copies_of_a_row_stay_together_and_only_in_train(tmp_path):
    rows = []
    for index, row in enumerate(make_rows(200)):
        rows.append({**row, "source_idx": index, "is_augmented": False})
        rows.append({**row, "text": row["text"] + " again", "source_idx": index, "is_augmented": True})
    report, _ = run(write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out")
    out = read(tmp_path / "out")
    sources = [{row["source_idx"] for row in part} for part in out.values()]
    assert sum(map(len, sources)) == 200
    assert [sum(row["is_augmented"] for row in out[name]) for name in ("train", "validation", "test")] == [160, 0, 0]
    assert removed(report) == {"without augmented copies outside of train": 40}


def test_labels_are_mapped(tmp_path):
    rows = [{"text": row["text"], "label": i % 4} for i, row in enumerate(make_rows(40))]
    folder = write(tmp_path / "raw", **{"a.json": rows})
    report, _ = run(folder, tmp_path / "out", (0, 0), label_map={"0": "bad", "1": "bad", 2: "good", "3": None})
    assert report["classes"] == [{"label": "bad", "rows": {"train": 20}}, {"label": "good", "rows": {"train": 10}}]
    assert removed(report) == {"without labels that the map takes away": 10}
    with pytest.raises(ConfigurationError, match="label_map names the label 'god', which no row has"):
        run(folder, tmp_path / "out2", label_map={"god": "x"})


def test_labels_of_csv_files_are_numbers_unless_others_are_strings(tmp_path):
    table = "text,label\n" + "".join(f"{row['text']},{i % 2}\n" for i, row in enumerate(make_rows(20)))
    run(write(tmp_path / "one", **{"a.csv": table}), tmp_path / "out1", (0, 0))
    assert {row["label"] for row in read(tmp_path / "out1")["train"]} == {0, 1}
    strings = [{"text": row["text"], "label": str(i % 2)} for i, row in enumerate(make_rows(20, 1))]
    run(write(tmp_path / "two", **{"a.csv": table, "b.json": strings}), tmp_path / "out2", (0, 0))
    assert {row["label"] for row in read(tmp_path / "out2")["train"]} == {"0", "1"}


# ---- The same bytes again ----


def test_equal_runs_write_equal_bytes(tmp_path):
    rows = make_rows(300) + make_rows(100)
    results = []
    for number, workers in enumerate((None, 2, 3)):
        folder = write(tmp_path / str(number) / "raw", **{"a.json": rows[:150], "b.json": rows[150:]})
        run(folder, tmp_path / str(number) / "out", workers=workers)
        results.append(files_of(tmp_path / str(number) / "out"))
    assert results[0] == results[1] == results[2]
    assert set(results[0]) == {
        "data_report.html", "data_report.json", "test.json", "train.json", "validation.json"
    }  # fmt: skip
    assert str(tmp_path) not in results[0]["data_report.json"].decode() + results[0]["data_report.html"].decode()
    other = tmp_path / "other"
    run(tmp_path / "0/raw", other, data={"split_seed": 1})
    assert read(other)["test"] != read(tmp_path / "0/out")["test"]


def test_a_second_run_does_nothing(tmp_path):
    folder = write(tmp_path / "raw", **{"a.json": make_rows(50)})
    report, _ = run(folder, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run(folder, tmp_path / "out") == (report, True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times


def test_other_splits_are_replaced_only_when_asked(tmp_path):
    folder, out = write(tmp_path / "raw", **{"a.json": make_rows(50)}), tmp_path / "out"
    run(folder, out)
    before = files_of(out)
    with pytest.raises(ConfigurationError, match=r"holds train\.json, validation\.json, test\.json of another run"):
        run(folder, out, shares=(0.2, 0))
    assert files_of(out) == before
    run(folder, out, shares=(0.2, 0), overwrite=True, output_format="parquet")
    assert sorted(files_of(out)) == ["data_report.html", "data_report.json", "train.parquet", "validation.parquet"]
    # A split that was changed by hand is not lost either.
    (out / "train.parquet").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="changed since"):
        run(folder, out, shares=(0.2, 0), output_format="parquet")
    write(out, **{"test.csv": "text,label\n"})
    with pytest.raises(ConfigurationError, match=r"holds test\.csv, which this recipe does not write"):
        run(folder, out, overwrite=True)


def begin(target, *args, **kwargs):
    # Forked from this process it would share the lock of its progress bars, and keep it if it is killed right then.
    process = process_context("runs").Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def in_a_child(target, *args, **kwargs):
    """The exit code, which tells whether it was killed."""
    return exit_code_of(begin(target, *args, **kwargs))


def killed_at_rename(number, after, *args, **kwargs):
    """Run, and die right before or after the file system is told of the n-th finished file or stage."""
    replace, count = os.replace, 0

    def dying(*paths):
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying
    run(*args, **kwargs)


def check_whole(out, old, new):
    """Every split is the old one or the new one; a report stands beside all of its splits only."""
    present = {name: content for name, content in files_of(out).items() if not name.startswith(".preprocessing")}
    for name, content in present.items():
        assert content in (old.get(name), new.get(name)), name
    if "data_report.json" in present:
        assert present in (old, new)


@pytest.fixture
def killed_and_not(tmp_path):
    """Raw data, and the bytes of an old and of a new result."""
    rows = make_rows(120) + make_rows(30)
    folder = write(tmp_path / "raw", **{"a.json": rows})
    expected = {}
    for name, settings in {"old": {"shares": (0.3, 0)}, "new": {"clean_html": True}}.items():
        assert in_a_child(run, folder, tmp_path / name, **settings) == 0
        expected[name] = files_of(tmp_path / name)
    return folder, expected["old"], expected["new"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_rename(tmp_path, killed_and_not, after):
    folder, old, new = killed_and_not
    for number in range(1, 20):
        out = tmp_path / f"out{number}"
        out.mkdir()
        for name, content in old.items():
            (out / name).write_bytes(content)
        ended = in_a_child(killed_at_rename, number, after, folder, out, overwrite=True, clean_html=True)
        check_whole(out, old, new)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        # --overwrite is asked for again only where nothing of the old result is gone.
        overwrite = (out / "data_report.json").exists()
        assert in_a_child(run, folder, out, overwrite=overwrite, clean_html=True) == 0
        assert files_of(out) == new
    # Four stages, the page while it is written, what is ready, and five files in their place.
    assert number > 10


def test_killed_at_random_moments(tmp_path, killed_and_not):
    folder, _, new = killed_and_not
    started = time.perf_counter()
    assert in_a_child(run, folder, tmp_path / "timed", clean_html=True) == 0
    longest = time.perf_counter() - started
    generator, out, kills = random.Random(0), tmp_path / "out", 0
    while kills < 8:
        child = begin(run, folder, out, clean_html=True)
        time.sleep(generator.uniform(0, longest))
        child.kill()
        ended = exit_code_of(child)
        check_whole(out, {}, new)
        if ended == -signal.SIGKILL:
            kills += 1
        else:
            # It came to its end, and has no more to do: from the beginning, and killed sooner.
            assert ended == 0 and files_of(out) == new
            shutil.rmtree(out)
            longest *= 0.8
    assert in_a_child(run, folder, out, clean_html=True) == 0
    assert files_of(out) == new


def test_finished_stages_are_taken_over(tmp_path, killed_and_not):
    folder, _, new = killed_and_not
    out = tmp_path / "out"
    # The third rename ends the stage of exact duplicates.
    assert in_a_child(killed_at_rename, 3, True, folder, out, clean_html=True) == -signal.SIGKILL
    (work,) = (path for path in (out / ".preprocessing").iterdir() if path.is_dir())
    assert sorted(path.name for path in work.iterdir()) == ["clean", "exact", "read"]
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*.arrow")}
    assert in_a_child(killed_at_rename, 4, True, folder, out, clean_html=True) == -signal.SIGKILL
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.arrow")} == times
    assert in_a_child(run, folder, out, clean_html=True) == 0
    assert files_of(out) == new


# ---- Bad and odd input ----


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        ({"a.json": [{"text": "a", "score": 1}]}, {}, r"a\.json has no column of labels.* --label_column_name"),
        ({"a.json": [{"txt": "a", "label": 1}]}, {}, r"no column of texts .* --text_column_names"),
        (
            {"a.json": [{"text": "a", "label": 1}], "b.csv": "review,score\nx,1\n"},
            {},
            r"different columns: .*a\.json has text, label; .*b\.csv has review, score.* --text_column_names",
        ),
        (
            {"a.json": [{"text": "a", "label": 1}], "b.json": [{"text_a": "x", "text_b": "y", "label": 1}]},
            {},
            "one has single texts, the other pairs",
        ),
        (
            {"a.json": [{"sentence": "a", "label": 1}], "b.json": [{"text": "x", "sentence": "y", "label": 1}]},
            {},
            "more than one column could be the text",
        ),
        ({"a.json": [{"text": "a", "label": 1}, {"text": "b"}]}, {}, r"a\.json, row 2 has no 'label'; it has text"),
        ({"a.json": [{"text": "a", "label": 1}, {"text": 7, "label": 0}]}, {}, r"row 2: 'text' is 7; it must be a str"),
        ({"a.json": [{"text": "a", "label": 1}, {"text": "b", "label": None}]}, {}, r"row 2 has no label \(it is None"),
        ({"a.json": [{"text": "a", "label": 1}, {"text": "b", "label": -1}]}, {}, r"row 2 has no label .*-1"),
        ({"a.csv": "text,label\na,1\nb,\n"}, {}, r"a\.csv, row 2 has no label .*--drop_unlabelled true"),
        (
            {"a.json": [{"text": "a", "label": 1}], "b.json": [{"text": "b", "label": "x"}]},
            {},
            r"different types: .*a\.json, row 1 has 1 .*b\.json, row 1 has 'x'",
        ),
        ({"a.json": [{"text": "a", "label": {"x": 1}}]}, {}, "it must be a number, a string or a list"),
        ({"a.json": [{"text": "a", "label": [1, 0, 1]}]}, {}, r"a\.json, row 1: .*names a class twice"),
        ({"a.json": [{"text": "a", "label": "\ud800"}]}, {}, r"a\.json, row 1: 'label' holds half a character"),
        ({"a.json": make_rows(4)}, {"keep_columns": ["id"]}, r"a\.json has no column 'id'.*--keep_columns"),
        ({"a.json": [{"text": " ", "label": 1}] * 3}, {}, "left to train on. Of 3 rows went: 3 empty_text"),
        ({"a.json": [{"text": "a", "label": i % 2} for i in range(4)]}, {}, "went: 4 conflicting_labels"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)  # fmt: skip
def test_input_that_cannot_be_used(tmp_path, files, settings, expected):
    folder = write(tmp_path / "raw", **files)
    with pytest.raises(DataError, match=expected):
        run(folder, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_unlabelled_rows_are_dropped_when_asked(tmp_path):
    rows = make_rows(20) + [{"text": "x", "label": label} for label in (None, "", -1, float("nan"))]
    report, _ = run(write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out", drop_unlabelled=True)
    assert removed(report) == {"without rows that have no label": 4}


def test_all_texts_equal(tmp_path):
    folder = write(tmp_path / "raw", **{"a.json": [{"text": "same", "label": "a"}] * 500})
    report, _ = run(folder, tmp_path / "out")
    assert read(tmp_path / "out") == {"train": [{"text": "same", "label": "a"}]}
    assert any("All rows have the label 'a'" in note for note in report["notes"])
    assert any("too few rows for a test split of 10%" in note for note in report["notes"])


def test_a_class_with_one_row_is_for_training(tmp_path):
    rows = [*make_rows(100), {"text": "unique words only here", "label": "rare"}]
    report, _ = run(write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out")
    assert report["classes"][-1] == {"label": "rare", "rows": {"train": 1}}
    assert "No row of test has the label rare." in report["notes"]


def test_more_workers_than_rows(tmp_path):
    run(write(tmp_path / "raw", **{"a.json": make_rows(3)}), tmp_path / "out", (0, 0), workers=8)
    assert len(read(tmp_path / "out")["train"]) == 3


def test_a_text_of_a_million_words(tmp_path):
    rows = [*make_rows(20), {"text": "word " * 1_000_000, "label": "pos"}]
    report, _ = run(write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out", (0, 0))
    assert report["splits"]["train"]["words"]["longest"] == 1_000_000


def test_arguments_that_do_not_fit(tmp_path):
    folder = write(tmp_path / "raw", **{"a.json": make_rows(4)})
    with pytest.raises(ConfigurationError, match=r"Pass --input_dir FOLDER and --output_dir FOLDER\."):
        PreprocessingRunArguments()
    with pytest.raises(ConfigurationError, match="lies in input_dir"):
        run(folder, folder / "out")
    with pytest.raises(ConfigurationError, match="their sum must be below 1"):
        run(folder, tmp_path / "out", shares=(0.5, 0.5))
    with pytest.raises(ConfigurationError, match=r"near_duplicate_threshold is 0\.0"):
        PreprocessingArguments(near_duplicate_threshold=0.0)
    with pytest.raises(ConfigurationError, match="out is a file"):
        run(folder, write(tmp_path, out="x") / "out")
    assert complete_preprocessing_values({}) == {"test_size": 0.1}
    assert complete_preprocessing_values({"test_size": 0.0}) == {"test_size": 0.0}


def test_the_page_is_whole_and_quotes_what_it_shows(tmp_path):
    rows = make_rows(30) + [{"text": "<script>alert(1)</script>  x", "label": "<b>"}] * 2
    run(write(tmp_path / "raw", **{"a<b>.json": rows}), tmp_path / "out")
    page = (tmp_path / "out/data_report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
    void, stack = {"meta", "link", "hr", "input"}, []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in void:
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Checker().feed(page)
    assert stack == []


def test_when_no_row_is_left_the_message_says_what_to_do(tmp_path):
    rows = [{"text": "the same", "label": i % 2} for i in range(10)]
    folder, out = write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out"
    with pytest.raises(DataError, match=r"went: 10 conflicting_labels.*--conflicting_labels keep_first"):
        run(folder, out)
    assert not out.exists()
    run(folder, out, conflicting_labels="keep_first")
    assert read(out) == {"train": [{"text": "the same", "label": 0}]}
    with pytest.raises(DataError, match=r"went: 1 empty_text\. Mend these rows\.$"):
        run(write(tmp_path / "empty", **{"a.json": [{"text": " ", "label": 0}]}), tmp_path / "none")


def test_a_full_disk_is_told_and_the_next_run_goes_on(tmp_path):
    rows = [{"text": f"number {i} " * 100, "label": i % 2} for i in range(300)]
    folder, out = write(tmp_path / "raw", **{"a.json": rows}), tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal, so that writing more fails like on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match=r"out cannot be written: .*File too large.*run the same again"):
            run(folder, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in out.iterdir()] == [".preprocessing"]
    run(folder, out)
    run(folder, tmp_path / "other")
    assert (out / "train.json").read_bytes() == (tmp_path / "other" / "train.json").read_bytes()


def test_a_missing_package_is_named_before_anything_is_read(tmp_path, monkeypatch):
    folder = write(tmp_path / "raw", **{"a.json": make_rows(4)})
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    with pytest.raises(ConfigurationError, match=r"clean_html needs selectolax.*pip install 'hf_ext\[html\]'"):
        make_plan(folder, PreprocessingArguments(clean_html=True), DataArguments())
