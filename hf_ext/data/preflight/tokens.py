"""Preflight: tokens that give the label away."""

import re

import numpy as np

from hf_ext.data.preflight.report import MOST_EXAMPLES, OK, SKIPPED, WARN, Finding, share
from hf_ext.data.preflight.rows import Labels, Rows
from hf_ext.data.text_columns import PAIR_SEPARATOR, take_texts
from hf_ext.problem_types import REGRESSION

# Training rows that are read, evenly spaced, and the fewest that a token has to be in.
SAMPLED_ROWS, FEWEST = 50_000, 20
# What makes a token revealing: see check_revealing_tokens.
SURE, BLIND_ERROR = 0.95, 0.2
MARKER_SHARE, WORD_SHARE = 0.3, 0.5
GIVEN_AWAY = 0.05
MARKER = re.compile(r"[\[\]<>{}#_|=~^]|.:$")
# Standard deviations of a 95 % interval.
Z = 1.96
PUNCTUATION = ".,;:!?\"'()`*"


def wilson_lower(hits: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """
    Lower end of the 95 % confidence interval of a share (Wilson 1927, equation 4).

    Args:
        hits (`np.ndarray`): Successes.
        trials (`np.ndarray`): Trials, at least 1.

    Returns:
        `np.ndarray`: Between 0 and 1.
    """
    share = hits / trials
    middle = share + Z**2 / (2 * trials)
    spread = Z * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return (middle - spread) / (1 + Z**2 / trials)


def check_revealing_tokens(splits: list[Rows], labels: Labels) -> Finding:
    """
    Tokens that stand in most rows of one class and next to nowhere else.

    A marker (a token with a sign that words don't have, such as `[spam]`, `#irony`, `__label__2`, `topic:`) counts from
    30 % of the class's rows, a word from 50 %; both only if the lower end of the 95 % interval of the class's share
    among the token's rows is at least 95 %, and its error at most a fifth of what naming the class blindly makes. Words
    count only if they give away a twentieth of the classes or of the rows: a few such words are natural in intents
    ("routing").
    """
    train = next((rows for rows in splits if rows.name == "train" and rows.codes is not None), None)
    if labels.problem_type == REGRESSION or train is None:
        reason = "The labels are numbers, not classes." if train is not None else "There are no labelled training rows."
        return Finding("revealing_tokens", SKIPPED, 0, reason)
    places = np.unique(np.linspace(0, len(train) - 1, min(len(train), SAMPLED_ROWS)).astype(np.int64))
    vocabulary, tokens = _token_matrix(train, places)
    names = labels.membership()[train.codes[places]]
    found = _revealing(vocabulary, tokens, names)
    parts, examples, shown = [], [], set()
    for token, name, hits, rows in found:
        size = int(names[:, [name]].sum())
        parts.append(f"{token!r} in {share(hits, size)} of {labels.names[name]} ({hits:,} of its {rows:,} rows)")
        having = tokens[:, [vocabulary.index(token)]].nonzero()[0]
        # Another row for each token.
        row = next((row for row in places[having].tolist() if row not in shown), None)
        if len(examples) < MOST_EXAMPLES and row is not None:
            shown.add(row)
            examples.append(train.example(row, f"with {token!r}"))
    sampled = f" Counted in {len(places):,} evenly spaced rows." if len(places) < len(train) else ""
    return Finding(
        "revealing_tokens",
        WARN if found else OK,
        len(found),
        f"Tokens that give the label away: {'; '.join(parts[:8])}{' ...' if len(parts) > 8 else ''}.{sampled}"
        if found
        else f"No token gives the label away.{sampled}",
        "If such a token comes from how the data was collected or labelled, remove it from all splits: a model that "
        "reads nothing else looks good here and fails elsewhere. If it is what people write, nothing is wrong.",
        examples,
        {"tokens": len(found)},
    )


# ---- Inside ----


def _token_matrix(rows: Rows, places: np.ndarray):
    """The tokens, and a sparse matrix of shape (rows, tokens) with a 1 where a row has a token."""
    from scipy.sparse import csr_array

    ids: dict[str, int] = {}
    columns, ends = [], [0]
    for start in range(0, len(places), 1_000):
        for text in take_texts(rows.texts, places[start : start + 1_000]):
            words = text.replace(PAIR_SEPARATOR, " ").lower().split()
            distinct = {*words, *(word.strip(PUNCTUATION) for word in words)} - {""}
            columns += [ids.setdefault(word, len(ids)) for word in distinct]
            ends.append(len(columns))
    ones = np.ones(len(columns), np.int32)
    matrix = csr_array((ones, np.asarray(columns, np.int64), np.asarray(ends)), shape=(len(places), len(ids)))
    frequent = np.flatnonzero(matrix.sum(axis=0) >= FEWEST)
    words = list(ids)
    # Sorted: sets have no order of their own.
    frequent = np.asarray(sorted(frequent.tolist(), key=words.__getitem__), dtype=np.int64)
    return [words[index] for index in frequent], matrix[:, frequent]


def _revealing(vocabulary: list[str], tokens, names) -> list[tuple[str, int, int, int]]:
    """(token, class, its rows of the class, its rows), the widest first."""
    together = (names.T @ tokens).tocoo()
    if not together.nnz:
        return []
    name, token, hits = together.coords[0], together.coords[1], together.data
    rows, sizes = tokens.sum(axis=0)[token], names.sum(axis=0)[name]
    needed = np.maximum(SURE, 1 - BLIND_ERROR * (1 - sizes / names.shape[0]))
    is_marker = np.asarray([bool(MARKER.search(word)) for word in vocabulary])[token]
    kept = (wilson_lower(hits, rows) >= needed) & (hits >= np.where(is_marker, MARKER_SHARE, WORD_SHARE) * sizes)
    words = np.flatnonzero(kept & ~is_marker)
    covered = tokens[:, np.unique(token[words])].sum(axis=1) > 0
    few_classes = len(np.unique(name[words])) < GIVEN_AWAY * names.shape[1]
    if few_classes and covered.sum() < GIVEN_AWAY * names.shape[0]:
        kept &= is_marker
    order = sorted(np.flatnonzero(kept).tolist(), key=lambda i: (-hits[i] / sizes[i], vocabulary[token[i]]))
    return [(vocabulary[token[i]], int(name[i]), int(hits[i]), int(rows[i])) for i in order]
