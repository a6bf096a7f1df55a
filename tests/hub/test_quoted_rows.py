import json
import random
import re

import pytest

from hf_ext.hub.quoted_rows import MAX_FOUND, QuotedRows, lines_of, strings_of

TEXT = "# A model\n\nIt says of this one, which is new:\n> Never has a film of\n> this kind moved me so.\n\nThe end."


def found(texts, rows):
    return list(QuotedRows(texts).find(rows))


@pytest.mark.parametrize(
    "row",
    [
        "Never has a film of this kind moved me so.",
        "never has a film -- of this kind -- moved me",
        ("short", "a film of this kind moved me so"),
    ],
)
def test_a_row_is_found_where_it_is_quoted(row):
    ((name, line),) = found({"README.md": lines_of(TEXT), "other": lines_of("nothing here")}, [row])
    assert name == "README.md"
    assert line == 4


@pytest.mark.parametrize("row", ["a film of", "Never has a film of that kind moved me so.", "", ("", "The end.")])
def test_short_and_other_rows_are_not(row):
    assert found({"README.md": lines_of(TEXT)}, [row]) == []


def test_signs_that_a_card_escapes_make_no_difference():
    row = "Tom & Jerry | the <b>whole</b> story, again"
    card = "- Row 3: Tom &amp; Jerry \\| the &lt;b>whole&lt;/b> story, again"
    assert found({"README.md": lines_of(card)}, [row]) == [("README.md", 1)]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_of_json_each_string_is_looked_at_alone(ascii_only):
    words = ["the", "film", "was", "a", "very", "good", "plot"]
    content = {"model": {"vocab": {word: index for index, word in enumerate(words)}}}
    content["rows"] = ["Ein schöner Film über\nalte Leute und ihre Stadt"]
    text = json.dumps(content, indent=1, ensure_ascii=ascii_only)
    row = "ein schöner film über alte leute und ihre stadt"
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "Ein sch" in line)
    assert found({"tokenizer.json": strings_of(text)}, ["the film was a very good plot", row]) == [
        ("tokenizer.json", line)
    ]


def test_it_finds_what_a_search_for_each_row_finds():
    generator = random.Random(0)
    words = ["plain", "words", "of", "a", "small", "world", "where", "rows", "repeat"]
    rows = [" ".join(generator.choices(words, k=generator.randint(3, 7))) for _ in range(300)]
    text = " ".join(generator.choices(words, k=4000))
    plain = " ".join(re.findall(r"\w+", text))
    expected = [row for row in rows if len(row) >= 24 and row in plain]
    assert 0 < len(expected) < len(rows)
    for row in rows:
        assert len(found({"a": lines_of(text)}, [row])) == (row in expected)
    assert len(found({"a": lines_of(text)}, rows)) == min(MAX_FOUND, len(expected))
