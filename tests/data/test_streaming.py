import csv
import gzip
import io
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from hf_ext.data import streaming
from hf_ext.data.preprocessing.sources import find_sources, sha256_of
from hf_ext.data.reading import read_table
from hf_ext.data.streaming import iter_batches
from hf_ext.errors import DataError

ROWS = [
    {"text": "Good, all in all", "label": 1},
    {"text": 'He said "no"\nand left', "label": 0},
    {"text": "déjà vu \u2028 \u3042 👧", "label": 1},
    {"text": "", "label": -2.5, "more": [1, {"a": None}]},
]


def as_csv(rows, delimiter=",", line_end="\n"):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["text", "label"], delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    writer.writerows({name: row[name] for name in ("text", "label")} for row in rows)
    return text.getvalue()


FORMS = {
    "compact.json": json.dumps(ROWS, separators=(",", ":")),
    "pretty.json": "\n " + json.dumps(ROWS, ensure_ascii=False, indent=2) + "\n\n",
    "guide.json": "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n]\n",
    "lines.json": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "lines.jsonl": "\n".join(" " + json.dumps(row) + " \n" for row in ROWS),
    "table.csv": as_csv(ROWS),
    "windows.csv": as_csv(ROWS, line_end="\r\n"),
    "mac.csv": as_csv(ROWS, line_end="\r"),
    "table.tsv": as_csv(ROWS, "\t"),
}


def write(folder, **files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder):
    (source,), _ = find_sources(folder)
    return [row for rows, _ in iter_batches(source) for row in rows]


def error_of(folder):
    with pytest.raises(DataError) as caught:
        read(folder)
    return str(caught.value)


# ---- What can be read ----


@pytest.mark.parametrize("wrap", ["plain", "gzip", "BOM"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("name", FORMS)
def test_rows_are_those_of_the_reader_in_memory(tmp_path, monkeypatch, name, chunk, wrap):
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    content = FORMS[name].encode()
    content = b"\xef\xbb\xbf" + content if wrap == "BOM" else content
    if wrap == "gzip":
        name, content = name + ".gz", gzip.compress(content)
    write(tmp_path, **{name: content})
    assert read(tmp_path) == read_table(tmp_path / name).rows


def test_parquet_in_small_batches(tmp_path):
    rows = [{"text": "x" * index, "label": index, "tags": ["a"] * (index % 3)} for index in range(5000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=700)
    (source,), _ = find_sources(tmp_path)
    assert [row for batch, _ in iter_batches(source) for row in batch] == rows


def test_long_rows_make_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BATCH_CHARACTERS", 1000)
    rows = [{"text": "x" * 300, "label": 0}] * 100
    write(tmp_path, **{"a.json": json.dumps(rows), "b.jsonl": "\n".join(map(json.dumps, rows))})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet", use_dictionary=False)
    monkeypatch.setattr(streaming, "CHUNK", 100)
    sources, _ = find_sources(tmp_path)
    for source in sources:
        sizes = [len(batch) for batch, _ in iter_batches(source)]
        assert sum(sizes) == 100 and max(sizes) <= 6, source.name


def test_memory_does_not_grow_with_the_file(tmp_path):
    row = json.dumps({"text": "word " * 200, "label": 1})
    peaks = []
    for count in (2_000, 20_000):
        folder = write(tmp_path / str(count), **{"a.json": "[" + ",\n".join([row] * count) + "]"})
        (source,), _ = find_sources(folder)
        tracemalloc.start()
        total = 0
        for batch, _ in iter_batches(source):
            total += len(batch)
            del batch
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == count
    # 2 MB of rows, then 20 MB: the batch of 10,000 rows is the most that is held.
    assert peaks[1] < 30 << 20


def test_progress_reaches_the_size_of_the_file(tmp_path):
    write(tmp_path, **{"a.json.gz": gzip.compress(json.dumps(ROWS * 10).encode())})
    (source,), _ = find_sources(tmp_path)
    assert list(iter_batches(source))[-1][1] == (tmp_path / "a.json.gz").stat().st_size


# ---- What cannot ----


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.jsonl", b"\xef\xbb\xbf", "is empty"),
        ("a.json", "[]", "holds no rows"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.json", '[{"text": "a"},\n {"text" "b"}]', "line 2, column 10: Expecting ':' delimiter"),
        ("a.json", '[{"text": "a"},\n {"text": "b"}', "line 2, column 15: Expecting ',' delimiter"),
        ("a.json", '[{"text": "a"},\n {"text": "b', "line 2, column 11: Unterminated string"),
        ("a.json", '[{"text": "a"},]', "line 1, column 16: Expecting value"),
        ("a.json", '[{"text": "a"}] []', "line 1, column 17: Extra data"),
        ("a.json", '[{"text": "a"} {"text": "b"}]', "line 1, column 16: Expecting ',' delimiter"),
        ("a.json", '{"text": "a"}\n\n{"text": }\n', "line 3, column 10: Expecting value"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2, column"),
        ("a.jsonl", '{"text": "a"} {"text": "b"}\n', "line 1, column 15: Extra data"),
        ("a.json", "text,label\na,1\n", "is not JSON: line 1, column 1"),
        ("a.json", '{\n  "data": [{"text": "a"}]\n}', "it must hold an array of rows, or one row a line"),
        ("a.json", '{"data": [{"text": "a"}]}', "holds a JSON object"),
        ("a.jsonl", '[\n{"text": "a"}\n]', "it must hold an array of rows (name it .json), or one row a line"),
        ("a.json", '[{"text": "a"}, ["b", 1]]', 'row 2 is ["b", 1]; a row must be an object'),
        ("a.json", '[{"text": "a"}, null]', "row 2 is null"),
        ("a.jsonl", '{"text": "a"}\n"b"\n', 'row 2 is "b"'),
        ("a.json", "[" * 100_000, "is nested too deeply"),
        ("a.csv", "text,label\na,1\nb, or c,1\n", "row 2 (line 3) has 3 fields, the header has 2"),
        ("a.csv", "text,text\na,1\n", "two columns of one name: text, text"),
        ("a.csv", 'text,label\n"a,1\n', "line 2: unexpected end of data"),
        ("a.parquet", "text,label\n", "is not a Parquet file"),
        ("a.json.gz", "[]", "cannot be read: Not a gzipped file"),
        ("a.json.gz", gzip.compress(b"[]" * 100, mtime=0)[:-12], "cannot be read"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_bad_files_say_where(tmp_path, monkeypatch, name, content, expected, chunk):
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    message = error_of(write(tmp_path, **{name: content}))
    assert str(tmp_path / name) in message and expected in message


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_broken_utf_8_says_which_byte(tmp_path, monkeypatch, chunk, ending):
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    content = "text,label\nfine あ,1\ncafé,0\n".encode() + "café,0\n".encode("cp1252")
    position = content.index(b"caf\xe9") + 3
    write(tmp_path, **{f"a.{ending}": gzip.compress(content) if ending.endswith("gz") else content})
    message = error_of(tmp_path)
    assert f"is not UTF-8: byte {position} (line 4) is 0xe9" in message and "iconv" in message


def test_a_character_cut_at_the_end_of_the_file(tmp_path):
    message = error_of(write(tmp_path, **{"a.jsonl": '{"text": "あ'.encode()[:-1]}))
    assert "is not UTF-8: byte 10 (line 1) is 0xe3" in message


@pytest.mark.parametrize(
    ("name", "begin", "line"),
    [
        ("a.json", '[{"text": "fine", "label": 1},\n{"text": "', 2),
        ("a.jsonl", '{"text": "fine", "label": 1}\n{"text": "', 2),
        ("a.csv", "text,label\nfine,1\n", 3),
    ],
)
def test_a_row_without_end_is_not_read_whole(tmp_path, name, begin, line):
    with (tmp_path / name).open("w") as file:
        file.write(begin)
        for _ in range(300):
            file.write("word " * (1 << 18))
    tracemalloc.start()
    message = error_of(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    start = begin.rindex("\n") + 1
    assert f"the row that begins at byte {start} (line {line}) is longer than 64 MiB" in message
    assert peak < 600 << 20


def test_a_quote_that_is_never_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "MAX_RECORD", 10_000)
    write(tmp_path, **{"a.csv": 'text,label\nfine,1\n"oops,1\n' + "and so on,0\n" * 2000})
    message = error_of(tmp_path)
    csv.field_size_limit(2**31 - 1)
    assert "line 3: field larger than field limit" in message and "a quote is probably never closed" in message


# ---- What a folder holds ----


def test_sources_of_a_folder(tmp_path):
    write(
        tmp_path,
        **{
            "b/train-0.json": "[]",
            "b/testing.csv": "",
            "a.PARQUET": "",
            "a.json.GZ": "",
            "dev/x.tsv": "",
            "testimonials.jsonl": "",
            "imdb/train/pos/1.txt": "x",
            "imdb/train/neg/1.txt": "y",
            "imdb/train/urls.txt": "z",
            "imdb/test/pos/1.txt": "w",
            "README.txt": "",
            "b/README.txt": "",
            ".hidden.json": "",
            ".git/x.json": "",
            "notes.md": "",
            "t.parquet.gz": "",
            "Makefile": "",
        },
    )
    sources, ignored = find_sources(tmp_path)
    assert [(source.name, source.kind, source.split) for source in sources] == [
        ("a.PARQUET", ".parquet", "train"),
        ("a.json.GZ", ".json", "train"),
        ("b/testing.csv", ".csv", "test"),
        ("b/train-0.json", ".json", "train"),
        ("dev/x.tsv", ".tsv", "validation"),
        ("imdb/test", "texts", "test"),
        ("imdb/train", "texts", "train"),
        ("testimonials.jsonl", ".jsonl", "train"),
    ]
    reasons = dict(ignored)
    assert set(reasons) == {
        "README.txt", "b/README.txt", "imdb/train/urls.txt", ".hidden.json", ".git/x.json", "notes.md", "t.parquet.gz",
        "Makefile",
    }  # fmt: skip
    assert reasons[".git/x.json"] == "hidden" and "folder of nothing else" in reasons["b/README.txt"]
    texts = sources[6]
    assert [(row["text"], row["label"]) for batch, _ in iter_batches(texts) for row in batch] == [
        ("y", "neg"),
        ("x", "pos"),
    ]


def test_links_to_folders_are_not_followed_and_not_forgotten(tmp_path):
    write(tmp_path, **{"raw/a.json": "[]", "elsewhere/b.json": "[]"})
    (tmp_path / "raw" / "upwards").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "raw" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "raw" / "c.json").symlink_to(tmp_path / "elsewhere" / "b.json")
    sources, ignored = find_sources(tmp_path / "raw")
    assert [source.name for source in sources] == ["a.json", "c.json"]
    assert [(name, "a link to a folder" in why) for name, why in ignored] == [("more", True), ("upwards", True)]


def test_the_hash_of_texts_knows_their_names(tmp_path):
    digests = set()
    for name in ("pos/a.txt", "neg/a.txt", "pos/b.txt"):
        folder = tmp_path / str(len(digests))
        (source,), _ = find_sources(write(folder, **{name: "x"}))
        digests.add(sha256_of(source))
    assert len(digests) == 3


def test_folders_without_data(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no data. What is read: \.json, .*It is empty"):
        find_sources(tmp_path)
    write(tmp_path, **{"a.md": "", "b.txt": ""})
    with pytest.raises(DataError, match=r"It holds a\.md, b\.txt, which are not"):
        find_sources(tmp_path)
    write(tmp_path, **{"test.json": "[]"})
    with pytest.raises(DataError, match="none is left to train on"):
        find_sources(tmp_path)
