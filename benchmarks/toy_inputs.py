"""What the benchmarks read, at toy size: data sets, an encoder, word vectors, WordNet. The same in every call."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from needs import SETS

SEED = 0
ROWS = {"all": 120, "train": 96, "train_phrases": 120, "validation": 40, "test": 40}
OUT_OF_SCOPE_ROWS = 20
# Real words, some of them in the package's synonym table.
SENTENCES = """
the a this that film movie picture plot story scene actor player camera sound was is and with of very quite rather again
"""
TOPICS = """
good fine great lovely superb bright bad awful poor dull weak dreary where when who what which how bank card money loan
rate grain ship trade angry sad joyful proud fond calm city river person number meaning reason travel food music sport
"""
FILLER, MARKS = SENTENCES.split(), TOPICS.split()
LABELS = {
    "mr": (0, 1),
    "sst2": (0, 1),
    "sst2_glue": (0, 1),
    "sst1": (0, 1, 2, 3, 4),
    "subj": ("objective", "subjective"),
    "trec6": ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"),
    "trec50": ("ABBR:exp", "DESC:def", "DESC:reason", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:count", "NUM:date"),
    "banking77": ("card_arrival", "card_lost", "exchange_rate", "top_up_failed", "verify_identity"),
    "clinc150": ("balance", "book_flight", "greeting", "play_music", "translate", "weather"),
    "r8": ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"),
    "sms_spam": ("ham", "spam"),
    "tweeteval_irony": ("irony", "non_irony"),
    "tweeteval_offensive": ("non-offensive", "offensive"),
    "goemotions": ("anger", "joy", "love", "neutral", "sadness"),
    "mrpc": (0, 1),
}
# What is planted in trec6, for the preflight to find.
COUNTS = {
    "trec6": {
        "exact_duplicates": {"train": 3, "test": 0},
        "conflicting_labels": {"train": 0},
        "exact_leaks": {"test in train": 2, "test in train, other label": 1},
    },
    "sst2": {"exact_duplicates": {"train": 0}, "exact_leaks": {"test in train": 0, "validation in train": 0}},
    "sst2/train_phrases": {"exact_leaks": {"test in train": 0, "validation in train": 0}},
    "goemotions": {"exact_duplicates": {"train": 0}, "exact_leaks": {"test in train": 0}},
    "mrpc": {"exact_duplicates": {"train": 0}, "exact_leaks": {"test in train": 0}},
    "mr": {"exact_duplicates": {"train": 0}},
}
ENCODER = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64}
VECTOR_WIDTH = 20


def places(folder: Path) -> dict[str, Path]:
    """Where in a folder is what the commands of plan.py hold places open for."""
    names = {"word_vectors": "word_vectors.npy", "counts": "counts.json"}
    return {name: folder / names.get(name, name) for name in ("data_dir", "wordnet_dir", "encoder", *names)}


def write_inputs(folder: Path) -> None:
    """Write all of it into a folder, which is not there yet."""
    where = places(folder)
    write_sets(where["data_dir"])
    write_wordnet(where["wordnet_dir"])
    write_encoder(where["encoder"])
    write_word_vectors(where["word_vectors"])
    where["counts"].write_text(json.dumps(COUNTS), encoding="utf-8")


# ---- Data sets ----


def write_sets(folder: Path) -> None:
    """The sets of needs.py, with tens of rows: words of its label are in each text."""
    for name, parts in SETS.items():
        generator = random.Random(f"{SEED} {name}")
        texts = distinct_texts(generator)
        rows = {part: make_rows(name, part, texts, generator) for part in parts}
        if name == "trec6":
            rows["train"][-3:] = rows["train"][:3]
            other = rows["train"][1]["label"]
            rows["test"][-2:] = [rows["train"][0], {**rows["train"][2], "label": other}]
        (folder / name).mkdir(parents=True)
        for part, made in rows.items():
            lines = ",\n".join(json.dumps(row) for row in made)
            (folder / name / f"{part}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def make_rows(name: str, part: str, texts, generator: random.Random) -> list[dict]:
    labels = LABELS[name]
    if part.startswith("oos_"):
        return [{"text": texts(MARKS[-3:]), "label": "oos"} for _ in range(OUT_OF_SCOPE_ROWS)]
    rows = []
    for index in range(ROWS[part]):
        number = index % len(labels)
        marks = MARKS[3 * number : 3 * number + 3]
        if name == "mrpc":
            first = texts(FILLER)
            words = first.split()
            second = " ".join(generator.sample(words, len(words))) if number else texts(marks)
            rows.append({"text_a": first, "text_b": second, "label": labels[number]})
        elif name == "goemotions":
            # Every fifth row has two.
            second = (number + 1) % len(labels)
            numbers = [number, second] if index % 5 == 0 else [number]
            both = [mark for each in numbers for mark in MARKS[3 * each : 3 * each + 3]]
            rows.append({"text": texts(both), "label": [labels[each] for each in numbers]})
        else:
            rows.append({"text": texts(marks), "label": labels[number]})
    return rows


def distinct_texts(generator: random.Random):
    """A function from a label's words to a text with some of them that it has never given before."""
    given: set[str] = set()

    def text(marks: list[str]) -> str:
        while True:
            # benchmarks/data.py times sentences of 21 words.
            count = generator.choice((9, 12, 15, 21))
            words = generator.choices(FILLER, k=count - 3) + generator.choices(marks, k=3)
            generator.shuffle(words)
            made = " ".join(words)
            if made not in given:
                given.add(made)
                return made

    return text


# ---- Models ----


def write_encoder(folder: Path) -> None:
    """A random BERT of six layers with a WordPiece tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizer, set_seed

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
    pieces = [*FILLER, *MARKS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    tokenizer = BertTokenizer.from_pretrained(folder, model_max_length=512)
    tokenizer.save_pretrained(folder)
    set_seed(SEED)
    BertModel(BertConfig(vocab_size=len(tokenizer), **ENCODER)).save_pretrained(folder)


def write_word_vectors(matrix: Path) -> None:
    import numpy as np

    words = [*FILLER, *MARKS]
    vectors = np.random.default_rng(SEED).normal(size=(len(words), VECTOR_WIDTH)).astype(np.float32)
    np.save(matrix, vectors)
    matrix.with_suffix(".words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")


# ---- WordNet ----

# Part of speech -> the letter of its synsets, and these.
SYNSETS = {
    "adj": ("a", [("good", "fine"), ("bad", "awful")]),
    "adv": ("r", [("quite", "rather")]),
    "noun": ("n", [("film", "movie", "picture"), ("plot", "story"), ("actor", "player"), ("sound",)]),
    "verb": ("v", [("play", "act")]),
}
FRAMES = " 01 + 02 00"


def write_wordnet(folder: Path) -> None:
    """Files in WordNet's form (its manual pages wndb(5) and senseidx(5)), with eight synsets."""
    folder.mkdir(parents=True)
    senses = []
    for number, (part, (letter, synsets)) in enumerate(SYNSETS.items()):
        entries = list(data_entries(number, letter, synsets))
        (folder / f"data.{part}").write_text("".join(line for _, _, line in entries), encoding="ascii")
        index = sorted((word, offset) for offset, words, _ in entries for word in words)
        lines = [f"{word} {letter} 1 0 1 0 {offset:08d}  \n" for word, offset in index]
        (folder / f"index.{part}").write_text("".join(lines), encoding="ascii")
        (folder / f"{part}.exc").write_text("", encoding="ascii")
        # WordNet counts nouns, verbs, adjectives and adverbs from 1.
        kind = "nvar".index(letter) + 1
        senses += [f"{word}%{kind}:{number:02d}:00:: {offset:08d} 1 0\n" for word, offset in index]
    (folder / "index.sense").write_text("".join(sorted(senses)), encoding="ascii")
    (folder / "cntlist.rev").write_text("", encoding="ascii")
    names = [f"{number:02d}\t{part}.all\t{number + 1}\n" for number, part in enumerate(SYNSETS)]
    (folder / "lexnames").write_text("".join(names), encoding="ascii")
    (folder / "LICENSE").write_text("A toy in WordNet's form.\n", encoding="ascii")


def data_entries(
    number: int, letter: str, synsets: list[tuple[str, ...]]
) -> Iterator[tuple[int, tuple[str, ...], str]]:
    """Where in its file each synset stands, its words, and its line."""
    offset = 0
    for words in synsets:
        shown = " ".join(f"{word} 0" for word in words)
        frames = FRAMES if letter == "v" else ""
        line = f"{offset:08d} {number:02d} {letter} {len(words):02x} {shown} 000{frames} | a toy  \n"
        yield offset, words, line
        offset += len(line)
