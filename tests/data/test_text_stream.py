import csv
import gzip
import json
import resource
from collections import Counter

import numpy as np
import pytest
from starting import exit_code_of, process_context
from transformers import DataCollatorWithPadding

from hf_ext import (
    DataArguments,
    DataError,
    ModelArguments,
    TextCollator,
    build_word_tokenizer,
    load_streamed_data,
    load_text_data,
    open_stream,
)
from hf_ext.data.text_stream import MOST_LABELS, shuffled

MODEL = ModelArguments(model_type="textcnn")


def write(path, rows):
    """Rows as a file of the form that its name says."""
    if ".csv" in path.name:
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))
    return DataArguments(train_file=str(path), streaming=True, shuffle_buffer=4)


ROWS = [{"text": f"text {number}", "label": ["no", "yes"][number % 2]} for number in range(23)]


# ---- Order ----


def test_a_buffer_shuffles_what_it_holds():
    order = list(shuffled(range(5000), 100, [0, 0]))
    assert sorted(order) == list(range(5000))
    places = np.argsort(order)
    # No row comes earlier than the buffer reaches. How long one is held is geometric, of mean 100: 200/e from there.
    assert min(places - np.arange(5000)) >= -100
    assert np.mean(np.abs(places - np.arange(5000))) == pytest.approx(200 / np.e, rel=0.05)
    assert order == list(shuffled(range(5000), 100, [0, 0]))
    assert order != list(shuffled(range(5000), 100, [0, 1])) != list(shuffled(range(5000), 100, [1, 0]))


@pytest.mark.parametrize("size", [1, 7, 8])
def test_small_buffers(size):
    assert sorted(shuffled(range(7), size, [0])) == list(range(7))
    assert list(shuffled(iter(range(7)), 1, [0])) == list(range(7))


def test_all_orders_are_as_likely():
    orders = Counter(tuple(shuffled(range(3), 3, [seed])) for seed in range(6000))
    assert len(orders) == 6
    assert min(orders.values()) > 900


# ---- Rows ----


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.csv.gz", "rows.parquet"])
@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [{"a": f"first {n}", "b": "second", "label": n % 3} for n in range(9)],
        [{"text": f"text {n}", "label": n / 4} for n in range(9)],
    ],
    ids=["classes", "pairs", "numbers"],
)
def test_it_yields_what_loading_yields(tmp_path, name, rows):
    arguments = write(tmp_path / name, rows)
    if "a" in rows[0]:
        arguments.text_column_names, arguments.text_pair_column_name = "a", "b"
    stream = open_stream(arguments, None, seed=0)
    arguments.validation_size = 0
    loaded = load_text_data(arguments, MODEL, ("train",))
    assert stream.task == loaded.task
    assert len(stream) == len(rows)
    assert list(stream.texts()) == loaded.texts("train")
    order = list(stream)
    assert sorted(order, key=str) == sorted(loaded.splits["train"], key=str)
    assert order != list(loaded.splits["train"])
    stream.set_epoch(1)
    assert order != list(stream)
    stream.set_epoch(0)
    assert order == list(stream)


def test_several_labels_a_row(tmp_path):
    rows = [{"text": "t", "label": label} for label in ([], ["a"], ["b", "a"], ["c"], [], ["c", "b"])]
    arguments = write(tmp_path / "rows.jsonl", rows)
    stream = open_stream(arguments, None, seed=0)
    assert stream.task.problem_type == "multi_label_classification"
    assert stream.task.label_names == ["a", "b", "c"]
    assert sorted(row["label"] for row in stream)[-1] == [1.0, 1.0, 0.0]


def test_the_first_rows_only(tmp_path):
    arguments = write(tmp_path / "rows.jsonl", ROWS)
    arguments.max_train_samples = 10
    stream = open_stream(arguments, None, seed=0)
    assert sorted(row["text"] for row in stream) == sorted(row["text"] for row in ROWS[:10])


def test_validation_rows_are_in_memory(tmp_path):
    arguments = write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "dev.json", ROWS[:4])
    arguments.validation_file = str(tmp_path / "dev.json")
    data = load_streamed_data(arguments, MODEL, ("train", "validation", "test"), seed=0)
    assert list(data.splits) == ["validation"]
    assert data.splits["validation"]["label"][:] == [0, 1, 0, 1]
    assert set(data.fingerprint()) == {"train", "validation"}
    assert f"The 23 training rows are streamed from {tmp_path / 'rows.jsonl'}, shuffled 4 at a time." in data.notes


def test_a_collator_tokenises_texts_and_leaves_the_rest():
    tokenizer = build_word_tokenizer(["a b c"], model_max_length=2)
    collate = TextCollator(tokenizer, DataCollatorWithPadding(tokenizer))
    batch = collate([{"text": "b", "label": 1}, {"text": "a b c", "label": 0}])
    assert batch["input_ids"].tolist() == [[4, 0], [3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    pairs = collate([{"text": "a", "text_pair": "b", "label": 1.5}])
    assert pairs["input_ids"].shape == (1, 2)
    assert collate([{"input_ids": [5], "attention_mask": [1], "labels": 2}])["input_ids"].tolist() == [[5]]


# ---- Bad rows ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"rows.jsonl, row 12345: 'text' is None; it must be a string"),
        ({"label": None}, r"rows.jsonl, row 12345 has no label"),
        ({"label": 3}, r"mixes types of labels: 'no' in row 1 \(string\), 3 in row 12345 \(whole number\)"),
        ({"label": float("nan")}, r"rows.jsonl, row 12345: the label is nan"),
    ],
)
def test_a_bad_row_far_down_is_named(tmp_path, change, message):
    rows = [{"text": "t", "label": ["no", "yes"][number % 2]} for number in range(12_400)]
    rows[12_344] |= change
    with pytest.raises(DataError, match=message):
        open_stream(write(tmp_path / "rows.jsonl", rows), None, seed=0)


def test_a_class_beyond_the_number_of_classes_is_named(tmp_path):
    rows = [{"text": "t", "label": number % 2} for number in range(12_000)] + [{"text": "t", "label": 7}]
    with pytest.raises(DataError, match=r"num_labels is 2, but there are 3 classes.*row 12001 \(1 in all\), label 7"):
        open_stream(write(tmp_path / "rows.jsonl", rows), 2, seed=0)


def test_sorted_rows_are_refused(tmp_path):
    rows = sorted(ROWS, key=lambda row: row["label"])
    with pytest.raises(DataError, match=r"the first 4 rows.*sorted by their class.*--shuffle_buffer"):
        open_stream(write(tmp_path / "rows.jsonl", rows), None, seed=0)


def test_a_column_of_texts_is_no_label(tmp_path):
    rows = [{"text": "t", "label": f"unique {number}"} for number in range(MOST_LABELS + 5)]
    with pytest.raises(DataError, match=rf"row {MOST_LABELS + 1}: there are more than 10,000 different labels"):
        open_stream(write(tmp_path / "rows.jsonl", rows), None, seed=0)
    numbers = [{"text": "t", "label": number + 0.5} for number in range(MOST_LABELS + 5)]
    assert open_stream(write(tmp_path / "rows.jsonl", numbers), None, seed=0).task.problem_type == "regression"


def test_a_file_that_changes_is_refused(tmp_path):
    arguments = write(tmp_path / "rows.jsonl", ROWS)
    stream = open_stream(arguments, None, seed=0)
    write(tmp_path / "rows.jsonl", ROWS[:-1])
    with pytest.raises(DataError, match="has 22 rows now, and had 23"):
        list(stream)


# ---- Memory ----


def peak_growth(small, large, report):
    """MiB that reading a large file takes more than reading a small one."""
    peaks = []
    for path in (small, large):
        stream = open_stream(DataArguments(train_file=path, streaming=True), None, seed=0)
        assert sum(1 for _ in stream) == len(stream)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    report.put(peaks[1] - peaks[0])


def test_memory_does_not_grow_with_the_file(tmp_path):
    # 200,000 rows, 100 MB of text; in memory they would take more than that.
    text = "word " * 100
    for name, count in (("small", 20_000), ("large", 200_000)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            file.writelines(f'{{"text": "{number} {text}", "label": {number % 2}}}\n' for number in range(count))
    assert (tmp_path / "large.jsonl").stat().st_size > 100e6
    # A process of its own, whose peak is that of the reading.
    context = process_context("runs")
    report = context.SimpleQueue()
    files = [str(tmp_path / f"{name}.jsonl") for name in ("small", "large")]
    process = context.Process(target=peak_growth, args=(*files, report))
    process.start()
    assert exit_code_of(process) == 0
    assert report.get() < 20
