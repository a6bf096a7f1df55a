"""Preflight: empty and damaged texts, what a tokenizer loses."""

import html
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from tqdm.auto import tqdm

from hf_ext.data.preflight.report import FAIL, MOST_EXAMPLES, OK, SKIPPED, WARN, Finding, share
from hf_ext.data.preflight.rows import Rows
from hf_ext.data.text_columns import take_texts

# Rows a split that are tokenised, evenly spaced: enough for a share to within half a percent.
SAMPLED_ROWS = 20_000
TOKENIZED_AT_ONCE = 1_000
TRUNCATION_TOLERATED, UNKNOWN_TOLERATED = 0.01, 0.02
SURROGATES = "half a character (lone surrogate)"
MOJIBAKE = "text decoded wrongly (mojibake)"
DAMAGE = {
    "replacement characters (U+FFFD)": "\ufffd",
    "control characters": "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]",
    "HTML entities": r"&(?:[a-zA-Z]{2,8}[0-9]{0,2}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});",
}


@dataclass
class Tokenized:
    """
    Lengths of the tokenised rows of a split.

    Args:
        rows (`np.ndarray`): Which rows: all, or an evenly spaced sample.
        lengths (`np.ndarray`): Tokens of each, special ones among them.
        unknown (`np.ndarray`): Unknown tokens of each.
    """

    rows: np.ndarray
    lengths: np.ndarray
    unknown: np.ndarray


def tokenize_sample(rows: Rows, tokenizer, progress: bool) -> Tokenized:
    """Tokenise at most 20,000 rows of a split, uncut."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED_ROWS)).astype(np.int64))
    lengths, unknown = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    starts = range(0, len(places), TOKENIZED_AT_ONCE)
    for start in tqdm(starts, desc=f"Tokenising {rows.name}", unit="batch", disable=not progress, leave=False):
        taken = places[start : start + TOKENIZED_AT_ONCE]
        ids = tokenizer(*(take_texts(part, taken) for part in rows.parts), truncation=False, verbose=False)["input_ids"]
        for place, row in enumerate(ids, start=start):
            lengths[place] = len(row)
            unknown[place] = row.count(tokenizer.unk_token_id)
    return Tokenized(places, lengths, unknown)


def check_empty_texts(splits: list[Rows]) -> Finding:
    """Texts that are missing, empty or only white space."""
    numbers = {rows.name: int(rows.blank.sum()) for rows in splits}
    examples = []
    for rows in splits:
        missing = set(rows.absent[:MOST_EXAMPLES].tolist())
        for row in np.flatnonzero(rows.blank)[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(row, "no text" if int(row) in missing else ""))
    total = sum(numbers.values())
    return Finding(
        "empty_texts",
        WARN if total else OK,
        total,
        f"Texts that are missing, empty or only white space: {_counted(numbers)}."
        if total
        else "Every row has a text.",
        "Remove these rows: all they teach is the most frequent label of empty texts.",
        examples,
        numbers,
    )


def check_encoding(splits: list[Rows]) -> Finding:
    """Broken characters, control characters, HTML entities and text that was decoded with the wrong character set."""
    numbers: Counter[str] = Counter()
    examples = []
    for rows in splits:
        for kind, found in _damaged(rows).items():
            numbers[kind] += len(found)
            for row in found[: min(2, MOST_EXAMPLES - len(examples))]:
                examples.append(rows.example(row, kind, _place(kind, rows.texts[int(row)].as_py())))
    total = sum(numbers.values())
    return Finding(
        "encoding",
        FAIL if numbers[SURROGATES] else WARN if total else OK,
        total,
        f"Rows with damaged text: {_counted(numbers)}." if total else "No text is damaged.",
        "Read the source again with its right encoding; run_preprocessing.py mends wrongly decoded text, entities and "
        "control characters.",
        examples,
        {kind: count for kind, count in numbers.items() if count},
    )


def check_truncation(splits: list[Rows], tokenized: dict[str, Tokenized], max_seq_length: int | None) -> Finding:
    """Texts longer than the model sees, and how much of them is lost."""
    if not tokenized or max_seq_length is None:
        missing = "tokenizer" if not tokenized else "max_seq_length"
        return Finding("truncation", SKIPPED, 0, f"There is no {missing}.")
    numbers, parts, examples, sampled, total, worst = {}, [], [], False, 0, 0.0
    for rows in splits:
        lengths = tokenized[rows.name].lengths
        longer = np.flatnonzero(lengths > max_seq_length)
        lost = int((lengths[longer] - max_seq_length).sum())
        numbers[f"{rows.name}, share of texts"] = round(len(longer) / len(lengths), 6)
        numbers[f"{rows.name}, share of tokens"] = round(lost / max(1, int(lengths.sum())), 6)
        numbers[f"{rows.name}, longest"] = int(lengths.max())
        parts.append(
            f"{rows.name} {share(len(longer), len(lengths))} of the texts and {share(lost, int(lengths.sum()))} of the "
            f"tokens (longest {lengths.max():,})"
        )
        total, worst = total + len(longer), max(worst, len(longer) / len(lengths))
        sampled |= len(lengths) < len(rows)
        for place in longer[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(tokenized[rows.name].rows[place], f"{lengths[place]:,} tokens"))
    return Finding(
        "truncation",
        WARN if worst > TRUNCATION_TOLERATED else OK,
        total,
        f"Cut at max_seq_length {max_seq_length}: {'; '.join(parts)}.{_sampled(sampled)}",
        "Raise max_seq_length (cost grows with it) if the end of a text matters for its label, or shorten the texts.",
        examples if worst > TRUNCATION_TOLERATED else [],
        numbers,
    )


def check_unknown_tokens(splits: list[Rows], tokenized: dict[str, Tokenized], tokenizer) -> Finding:
    """Words that the tokenizer does not know."""
    if not tokenized:
        return Finding("unknown_tokens", SKIPPED, 0, "There is no tokenizer.")
    if tokenizer.unk_token_id is None:
        return Finding("unknown_tokens", SKIPPED, 0, "This tokenizer has no unknown token: it can spell every text.")
    numbers, parts, examples, words, sampled, total = {}, [], [], Counter(), False, 0
    for rows in splits:
        tokens = tokenized[rows.name]
        count = int(tokens.unknown.sum())
        numbers[rows.name] = round(count / max(1, int(tokens.lengths.sum())), 6)
        parts.append(f"{rows.name} {share(count, int(tokens.lengths.sum()))}")
        total += count
        sampled |= len(tokens.lengths) < len(rows)
        affected = np.flatnonzero(tokens.unknown)
        found = _unknown_words(rows, tokens.rows[affected[:TOKENIZED_AT_ONCE]], tokenizer)
        words.update(word for row in found for word in row)
        for place, row in list(zip(affected, found, strict=False))[: MOST_EXAMPLES - len(examples)]:
            examples.append(rows.example(tokens.rows[place], f"unknown: {', '.join(map(repr, row[:5]))}"))
    worst = max(numbers.values())
    most = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:10]
    listed = f" Most frequent: {', '.join(f'{word!r} {count:,}' for word, count in most)}." if most else ""
    return Finding(
        "unknown_tokens",
        WARN if worst > UNKNOWN_TOLERATED else OK,
        total,
        f"Tokens that the tokenizer does not know: {'; '.join(parts)}.{listed}{_sampled(sampled)}",
        "Use a model for this language or domain, or replace the characters. A TextCNN knows the words of its training "
        "texts only: give it more of them or word vectors, and raise vocab_size if its word list is full.",
        examples if worst > UNKNOWN_TOLERATED else [],
        numbers,
    )


# ---- Inside ----


def _damaged(rows: Rows) -> dict[str, np.ndarray]:
    """Rows of each kind of damage."""
    found = {SURROGATES: rows.broken}
    for kind, pattern in DAMAGE.items():
        found[kind] = np.flatnonzero(pc.match_substring_regex(rows.texts, pattern).to_numpy())
    # Half characters have been replaced by U+FFFD; and "&c;" looks like an entity without being one.
    replaced, entities = "replacement characters (U+FFFD)", "HTML entities"
    found[replaced] = np.setdiff1d(found[replaced], rows.broken)
    texts = take_texts(rows.texts, found[entities])
    is_entity = [any(html.unescape(match) != match for match in re.findall(DAMAGE[entities], text)) for text in texts]
    found[entities] = found[entities][np.asarray(is_entity, dtype=bool)]
    found[MOJIBAKE] = _mojibake(rows)
    return found


def _mojibake(rows: Rows) -> np.ndarray:
    from ftfy import TextFixerConfig, fix_encoding
    from ftfy.badness import is_bad

    # Only what can be undone: a text that merely looks odd is no evidence.
    config = TextFixerConfig(replace_lossy_sequences=False, decode_inconsistent_utf8=True)
    places = np.flatnonzero(~pc.string_is_ascii(rows.texts).to_numpy())
    found = []
    for start in range(0, len(places), TOKENIZED_AT_ONCE):
        taken = places[start : start + TOKENIZED_AT_ONCE]
        for place, text in zip(taken, take_texts(rows.texts, taken), strict=True):
            if is_bad(text) and fix_encoding(text, config) != text:
                found.append(place)
    return np.asarray(found, dtype=np.int64)


def _place(kind: str, text: str) -> int:
    """Where the damage is, in characters."""
    if kind == MOJIBAKE:
        from ftfy.badness import BADNESS_RE

        match = BADNESS_RE.search(text)
    else:
        match = re.search(DAMAGE.get(kind, "\ufffd"), text)
    return match.start() if match else 0


def _unknown_words(rows: Rows, places: np.ndarray, tokenizer) -> list[list[str]]:
    """What the unknown tokens of rows stand for; only fast tokenizers can tell."""
    if not len(places) or not tokenizer.is_fast:
        return [[] for _ in places]
    parts = [take_texts(part, places) for part in rows.parts]
    encoded = tokenizer(*parts, truncation=False, verbose=False)
    words = []
    for index, encoding in enumerate(encoded.encodings):
        spans = zip(encoding.ids, encoding.sequence_ids, encoding.offsets, strict=True)
        words.append(
            [
                parts[sequence][index][begin:end]
                for token, sequence, (begin, end) in spans
                if token == tokenizer.unk_token_id and sequence is not None
            ]
        )
    return words


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in numbers.items() if count)


def _sampled(sampled: bool) -> str:
    return f" Measured on {SAMPLED_ROWS:,} evenly spaced rows of each larger split." if sampled else ""
