import random

import numpy as np
import pytest
from scipy.stats import binomtest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_ext.data.preflight import preflight
from hf_ext.data.preflight import texts as preflight_texts
from hf_ext.data.preflight.tokens import wilson_lower

WORDS = [f"{a}{b}{c}" for a in ("ba", "ko", "ni", "sur") for b in ("la", "me", "ti") for c in ("", "do", "rin", "s")]


def sentences(count, words=8, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=words)) for _ in range(count)]


def check(name, texts, labels=None, **settings):
    labels = labels or [row % 2 for row in range(len(texts))]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    return preflight({"train": rows}, progress=False, **settings)[name]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=4)


def test_empty_texts_are_named():
    finding = check("empty_texts", ["a text", "", "\u3000\n\t ", None, "text"])
    assert (finding.verdict, finding.count) == ("warn", 3)
    assert [(example.row, example.note) for example in finding.examples] == [(2, ""), (3, ""), (4, "no text")]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("caf\u00c3\u00a9 with a view", "mojibake"),
        ("it\u00e2\u20ac\u2122s fine", "mojibake"),
        ("a question mark \ufffd in a diamond", "U+FFFD"),
        ("half \ud83d of it", "lone surrogate"),
        ("a bell \x07 rings", "control characters"),
        ("salt &amp; pepper", "HTML entities"),
        ("that&#8217;s it", "HTML entities"),
    ],
    ids=["latin", "quote", "replacement", "surrogate", "control", "entity", "number"],
)
def test_damaged_text_is_named(text, kind):
    finding = check("encoding", [*sentences(4), text])
    assert finding.count == 1
    assert finding.verdict == ("fail" if kind == "lone surrogate" else "warn")
    assert finding.examples[0].row == 5
    assert kind in finding.examples[0].note
    assert list(finding.numbers.values()) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "café, naïve, Straße, Åse",
        "\u201cquoted\u201d \u2013 it\u2019s \u2026 fine",
        "日本語のテキスト。",
        "Привет, мир!",
        "مرحبا بالعالم",
        "emoji 😀 👩‍👩‍👧 🇫🇷",
        "R&D; and AT&T; fish & chips; &notanentity;",
        "tab\there\nand a line\r\n",
    ],
    ids=["latin", "quotes", "japanese", "russian", "arabic", "emoji", "ampersand", "space"],
)
def test_sound_text_is_left_alone(text):
    finding = check("encoding", [text])
    assert (finding.verdict, finding.count) == ("ok", 0), finding.message


def test_damage_far_behind_is_shown():
    finding = check("encoding", ["word " * 100 + "caf\u00c3\u00a9 here"])
    assert "caf\u00c3\u00a9" in finding.examples[0].text


def test_truncation_counts_texts_and_tokens(tokenizer):
    # With two special tokens: 10 each, and two of 22.
    texts = sentences(48) + sentences(2, words=20)
    finding = check("truncation", texts, tokenizer=tokenizer, max_seq_length=10)
    assert (finding.verdict, finding.count) == ("warn", 2)
    assert finding.numbers["train, share of texts"] == 0.04
    assert finding.numbers["train, share of tokens"] == round(24 / (48 * 10 + 2 * 22), 6)
    assert [(example.row, example.note) for example in finding.examples] == [(49, "22 tokens"), (50, "22 tokens")]
    assert check("truncation", texts, tokenizer=tokenizer, max_seq_length=22).verdict == "ok"
    assert check("truncation", texts, tokenizer=tokenizer).message == "There is no max_seq_length."
    assert check("truncation", texts, max_seq_length=8).message == "There is no tokenizer."


def test_pairs_are_tokenised_together(tokenizer):
    rows = [
        {"text": one, "text_pair": other + " zebra"}
        for one, other in zip(sentences(9), sentences(9, 5, 1), strict=True)
    ]
    report = preflight({"train": rows}, tokenizer=tokenizer, max_seq_length=16, progress=False)
    # 8, 6 and three special ones.
    assert report["truncation"].numbers["train, longest"] == 17
    assert "'zebra' 9" in report["unknown_tokens"].message


def test_unknown_words_are_named(tokenizer):
    texts = sentences(90) + ["zebra " + text for text in sentences(8, seed=1)] + ["quagga zebra", "quagga"]
    finding = check("unknown_tokens", texts, tokenizer=tokenizer)
    tokens = 90 * 10 + 8 * 11 + 4 + 3
    assert finding.count == 11
    assert finding.numbers == {"train": round(11 / tokens, 6)}
    assert "'zebra' 9, 'quagga' 2" in finding.message
    assert finding.verdict == "ok"
    finding = check("unknown_tokens", texts[:20] + texts[-10:], tokenizer=tokenizer)
    assert finding.verdict == "warn"
    assert finding.examples[0].note == "unknown: 'zebra'"
    assert check("unknown_tokens", sentences(9), tokenizer=tokenizer).count == 0


def test_of_many_rows_an_evenly_spaced_sample_is_tokenised(tokenizer, monkeypatch):
    monkeypatch.setattr(preflight_texts, "SAMPLED_ROWS", 100)
    monkeypatch.setattr(preflight_texts, "TOKENIZED_AT_ONCE", 30)
    longer = np.random.default_rng(0).random(1000) < 1 / 3
    texts = [text + " koti" * 12 * bool(more) for text, more in zip(sentences(1000), longer, strict=True)]
    finding = check("truncation", texts, tokenizer=tokenizer, max_seq_length=10)
    places = [round(number * 999 / 99 - 0.5) for number in range(100)]
    assert finding.numbers["train, share of texts"] == pytest.approx(longer[places].mean(), abs=0.03)
    assert "100 evenly spaced rows" in finding.message


def test_the_wilson_interval_is_the_known_one():
    for hits, trials in [(0, 5), (19, 20), (582, 599), (100, 100)]:
        expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson").low
        assert wilson_lower(np.array(hits), np.array(trials)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("mark", "every", "token"),
    [("[spam] ", 2, "[spam]"), ("#sarcasm ", 2, "#sarcasm"), ("topic: ", 1, "topic:"), ("Regards, ", 1, "regards")],
    ids=["bracket", "hashtag", "colon", "word"],
)
def test_tokens_that_give_the_label_away_are_found(mark, every, token):
    labels = ["spam" if row % 4 == 0 else "ham" for row in range(800)]
    texts = [
        mark + text if label == "spam" and row // 4 % every == 0 else text
        for row, (text, label) in enumerate(zip(sentences(800), labels, strict=True))
    ]
    finding = check("revealing_tokens", texts, labels)
    assert finding.verdict == "warn"
    assert f"{token!r} in {'50' if every == 2 else '100'}.0 % of spam" in finding.message
    assert finding.examples[0].label == "spam"
    assert finding.examples[0].note.startswith("with ")


def test_ordinary_words_do_not_give_the_label_away():
    labels = ["spam" if row % 4 == 0 else "ham" for row in range(800)]
    texts = sentences(800)
    # A word of nine in ten spam rows, and of one in ten others.
    mixed = [f"win {text}" if (row % 10 == 0) != (row % 4 == 0) else text for row, text in enumerate(texts)]
    # A mark of few rows.
    rare = [f"[x] {text}" if row in range(0, 72, 4) else text for row, text in enumerate(texts)]
    for given in (texts, mixed, rare):
        assert check("revealing_tokens", given, labels).verdict == "ok"


def test_a_word_of_one_intent_among_many_is_natural():
    labels = [f"intent_{row % 60}" for row in range(6000)]
    texts = [f"routing {text}" if row % 60 == 0 else text for row, text in enumerate(sentences(6000))]
    assert check("revealing_tokens", texts, labels).verdict == "ok"
    texts = [text.replace("routing", "<routing>") for text in texts]
    assert check("revealing_tokens", texts, labels).verdict == "warn"
