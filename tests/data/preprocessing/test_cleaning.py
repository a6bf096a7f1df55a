import re
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from hf_ext.data.preprocessing.cleaning import OPERATIONS, clean_steps, clean_texts
from hf_ext.errors import ConfigurationError


def clean(text, **options):
    return clean_texts(pa.array([text]), **options)[0].to_pylist()[0]


def reference(text):
    """What cleaning without options is, by the standard library."""
    invisible = {"\u00ad", "\u200b", "\u2060", "\ufeff", "\ufffe", "\uffff"}
    text = "".join(c for c in text if c.isspace() or not (unicodedata.category(c) == "Cc" or c in invisible))
    return " ".join(unicodedata.normalize("NFC", text).split())


def test_every_character_like_the_standard_library():
    characters = [chr(code) for code in [*range(0xD800), *range(0xE000, 0x10000), *range(0x1F300, 0x1FAFF)]]
    # Python and Arrow may carry different versions of the Unicode tables.
    characters = [c for c in characters if unicodedata.category(c) != "Cn" or c in "\ufffe\uffff"]
    texts = [f" a{c}b\u0301{c}" for c in characters]
    cleaned, flags = clean_texts(pa.array(texts))
    wrong = [
        (c, ours)
        for c, text, ours in zip(characters, texts, cleaned.to_pylist(), strict=True)
        if ours != reference(text)
    ]
    assert wrong == []
    assert np.all(flags & (1 << OPERATIONS.index("white_space")))


@pytest.mark.parametrize("seed", range(3))
def test_random_texts_like_the_standard_library(seed):
    generator = np.random.default_rng(seed)
    alphabet = list("ab .\u00e9e\u0301\t\n\r\x00\x1f\x85\u00a0\u2003\u200b\u200d\ufeff\u00ad👩👧が\u1100\u1161")
    texts = ["".join(generator.choice(alphabet, length)) for length in generator.integers(0, 30, 2000)]
    cleaned = clean_texts(pa.array(texts))[0].to_pylist()
    assert cleaned == [reference(text) for text in texts]
    assert clean_texts(pa.array(cleaned))[1].any() == 0


def test_joiners_that_spell_something_stay():
    text = "👩\u200d👩\u200d👧 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Hi <b>th</b>ere<br>you &amp; me</p><p>x</p>", "Hi there you & me x"),
        ("a < b, b > c & <3", "a < b, b > c & <3"),
        ("5 &lt; 6 &#8217; &quot;q&quot;", '5 < 6 \u2019 "q"'),
        ("<script>alert(1)</script>ok<style>p{}</style>", "ok"),
        ("a<!-- secret -->b", "ab"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
        ("<html><head><title>t</title></head><body>body</body></html>", "body"),
        ("<p></p>", ""),
        ("<b>not closed", "not closed"),
        ("AT&T; R&D", "AT&T; R&D"),
    ],
)
def test_html(text, expected):
    assert clean(text, clean_html=True) == expected
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("see https://x.org/a?b=1&c=2#d.", "see [URL]."),
        ("(www.example.com/x), HTTP://A.DE!", "([URL]), [URL]!"),
        ("ftp://host/file.txt and mail me@x.org", "[URL] and mail me@x.org"),
        ("awww.cute and http:// alone", "awww.cute and http:// alone"),
        ('<a href="http://x.org/a">x</a>', '<a href="[URL]">x</a>'),
    ],
)
def test_urls(text, replaced):
    assert clean(text, clean_urls="replace") == replaced
    assert clean(text, clean_urls="remove") == " ".join(replaced.replace("[URL]", " ").split())
    assert clean(text, clean_urls="keep") == text


def test_encoding_is_mended_where_it_was_broken():
    text = "donâ€™t: café, “quotes” & ﬁne"
    assert clean(text, fix_encoding=True) == "don\u2019t: café, “quotes” & ﬁne"
    assert clean("plain ascii", fix_encoding=True) == "plain ascii"


def test_flags_name_the_operations():
    options = {"clean_html": True, "clean_urls": "remove", "fix_encoding": True}
    texts = ["donâ€™t", "<b>x</b>", "a\x00b", "e\u0301", "www.x.de y", "a  b", "fine"]
    _, flags = clean_texts(pa.array(texts), **options)
    named = [[name for bit, name in enumerate(OPERATIONS) if flag & (1 << bit)] for flag in flags.tolist()]
    assert named == [
        ["encoding"], ["html"], ["control_characters"], ["unicode_nfc"], ["urls", "white_space"], ["white_space"], [],
    ]  # fmt: skip
    for text, names in zip(texts, named, strict=True):
        steps = clean_steps(text, **options)
        assert [name for name, _, _ in steps] == names
        if steps:
            assert (steps[0][1], steps[-1][2]) == (text, clean(text, **options))


def test_a_text_s_result_does_not_depend_on_its_batch():
    texts = ["", " ", "a\u0301\x00", "<b>x</b> www.a.de", "plain", "donâ€™t"] * 20
    options = {"clean_html": True, "clean_urls": "replace", "fix_encoding": True}
    together, flags = clean_texts(pa.array(texts), **options)
    alone = [clean_texts(pa.array([text]), **options) for text in texts]
    assert together.to_pylist() == [one[0].as_py() for one, _ in alone]
    assert flags.tolist() == [int(flag[0]) for _, flag in alone]


def test_a_text_of_a_million_words():
    text = "word\t" * 1_000_000
    assert clean(text) == ("word " * 1_000_000)[:-1]


def test_no_texts():
    cleaned, flags = clean_texts(pa.array([], pa.string()))
    assert (len(cleaned), len(flags)) == (0, 0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'hf_ext[html]'")):
        clean("a", clean_html=True)
