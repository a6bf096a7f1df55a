import pickle
import random
import subprocess
import sys
import time

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets.fingerprint import Hasher

from hf_ext.data.augmentation import AugmentationArguments, DataAugmenter
from hf_ext.data.augmentation.text_edits import TECHNIQUES
from hf_ext.errors import ConfigurationError, DataError

SENTENCES = [
    "the film is slow but the acting is superb and the music wonderful",
    "Nobody laughed at the jokes, and the story was not interesting.",
    "A great, warm and funny picture\u2026 one of the year's best!",
    "The hotel room smelled of smoke; the staff did not care about the complaint.",
    "I'd buy this phone again: battery, camera and screen are excellent \U0001f389",
]


@pytest.fixture(scope="module")
def rows():
    """2,300 different rows: more than one batch."""
    return [{"text": f"{SENTENCES[i % 5]} Number {i}.", "label": i % 2, "more": [i]} for i in range(2300)]


@pytest.fixture(scope="module")
def augmented(rows):
    return DataAugmenter().augment_dataset(rows, augmentation_factor=3)


def test_answers_to_the_originals_are_not_given_to_copies():
    rows = [{"text": "a slow film", "teacher_logits": [0.5, 1.0]}]
    for data in (rows, pd.DataFrame(rows), Dataset.from_list(rows)):
        with pytest.raises(DataError, match="'teacher_logits', which holds answers to the texts as they are"):
            DataAugmenter().augment_dataset(data)


def test_the_example_of_the_documentation():
    augmenter = DataAugmenter(techniques=["random_swap"])
    assert augmenter.augment(["the film is slow but the acting is superb"]) == [
        "the film is slow but the superb is acting"
    ]
    assert augmenter.augment(["the film is slow but the acting is superb"])[0] in DataAugmenter.__doc__


def test_originals_stay_and_are_followed_by_their_copies(rows, augmented):
    assert [{**row, "source_idx": i, "is_augmented": False} for i, row in enumerate(rows)] == [
        row for row in augmented if not row["is_augmented"]
    ]
    assert [row["source_idx"] for row in augmented] == sorted(row["source_idx"] for row in augmented)
    versions = {}
    for row in augmented:
        source = rows[row["source_idx"]]
        assert (row["label"], row["more"]) == (source["label"], source["more"])
        versions.setdefault(row["source_idx"], []).append(row["text"])
    assert all(texts[0] == rows[source]["text"] for source, texts in versions.items())
    assert all(len(texts) == len(set(texts)) == 4 for texts in versions.values())
    assert "source_idx" not in rows[0]


def test_every_kind_of_data_gives_the_same(rows, augmented):
    augmenter = DataAugmenter()
    frame = augmenter.augment_dataset(pd.DataFrame(rows, index=range(5, 2305)), augmentation_factor=3)
    assert frame.to_dict("records") == augmented
    assert frame.index.tolist() == list(range(len(augmented)))
    assert frame.dtypes.astype(str).to_dict() == {
        "text": "str", "label": "int64", "more": "object", "source_idx": "int64", "is_augmented": "bool",
    }  # fmt: skip
    dataset = Dataset.from_list(rows)
    assert augmenter.augment_dataset(dataset, augmentation_factor=3).to_list() == augmented
    assert augmenter.augment_dataset(dataset, augmentation_factor=3, num_proc=2).to_list() == augmented
    splits = DatasetDict({"test": dataset.select([1]), "train": dataset})
    result = augmenter.augment_dataset(splits, augmentation_factor=3)
    assert list(result) == ["test", "train"] and result["test"] is splits["test"]
    assert result["train"].to_list() == augmented


@pytest.mark.parametrize("dtype", ["object", "string[python]", "category"])
def test_frames_of_every_kind_of_text(rows, augmented, dtype):
    frame = pd.DataFrame(rows).astype({"text": dtype})
    result = DataAugmenter().augment_dataset(frame, augmentation_factor=3)
    assert result["text"].tolist() == [row["text"] for row in augmented]
    assert result["text"].dtype == ("str" if dtype == "category" else frame["text"].dtype)


def test_features_and_formats_are_kept(rows):
    features = Features(
        {"text": Value("large_string"), "label": ClassLabel(names=["bad", "good"]), "more": Sequence(Value("int16"))}
    )
    dataset = Dataset.from_list(rows[:50], features=features).with_format("numpy", dtype=np.float32)
    result = DataAugmenter().augment_dataset(dataset)
    assert result.features == Features({**features, "source_idx": Value("int64"), "is_augmented": Value("bool")})
    assert result.format["type"] == "numpy" and result.format["format_kwargs"] == {"dtype": np.float32}
    assert result.column_names == [*dataset.column_names, "source_idx", "is_augmented"]
    assert dataset.column_names == ["text", "label", "more"]


@pytest.mark.parametrize("every", [False, True])
def test_the_columns_of_a_format_are_kept(rows, every):
    dataset = Dataset.from_list(rows[:5]).with_format("numpy", columns=["label"], output_all_columns=every)
    result = DataAugmenter().augment_dataset(dataset)
    assert result.format["columns"] == ["label"] and result.format["output_all_columns"] is every
    assert list(result[0]) == list(dataset[0]) + ["source_idx", "is_augmented"] * every


def test_a_row_does_not_depend_on_its_neighbours(rows):
    augmenter = DataAugmenter(seed=5)
    texts = [row["text"] for row in rows]
    whole = augmenter.augment(texts, copy=2)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = augmenter.augment([texts[i] for i in order], rows=order, copy=2)
    assert shuffled == [whole[i] for i in order]
    random.seed(0)
    assert pickle.loads(pickle.dumps(augmenter)).augment(texts[7:8], rows=[7], copy=2) == whole[7:8]


def test_seed_row_copy_and_column_make_a_difference():
    text = SENTENCES[0] * 20
    variants = [
        DataAugmenter(seed=seed).augment([text], rows=[row], copy=copy, column=column)[0]
        for seed in range(3) for row in range(3) for copy in range(3) for column in range(3)
    ]  # fmt: skip
    assert len(set(variants)) == 81


def test_techniques_are_taken_in_turn():
    """Told apart by what they do to the number of words, on a text that offers all of them."""
    texts = [SENTENCES[0].replace("slow", "incredibly dull")] * 400
    words = len(texts[0].split())
    augmenter = DataAugmenter(augmentation_prob=0.05)
    copies = [augmenter.augment(texts, copy=copy) for copy in range(4)]
    kinds = {0: 0, 1: 0, -1: 0}
    for row in zip(*copies, strict=True):
        changes = sorted(np.sign(len(text.split()) - words) for text in row)
        assert changes == [-1, 0, 0, 1]
    for text in copies[0]:
        kinds[int(np.sign(len(text.split()) - words))] += 1
    assert 70 < kinds[1] < 130 and 70 < kinds[-1] < 130


def test_a_share_of_0_changes_nothing(rows):
    augmenter = DataAugmenter(augmentation_prob=0)
    assert augmenter.augment(SENTENCES) == SENTENCES
    assert len(augmenter.augment_dataset(rows, augmentation_factor=2)) == len(rows)
    assert augmenter.dropped == 2 * len(rows)


def test_copies_that_cannot_differ_are_left_out_and_counted():
    data = [{"text": text} for text in ["", "hello", "The and of", "\U0001f389 123", "good film"]]
    augmenter = DataAugmenter(techniques=["random_swap"])
    for kind in (list, Dataset.from_list, pd.DataFrame):
        augmenter.dropped = None
        result = augmenter.augment_dataset(kind(data), augmentation_factor=3)
        result = result.to_dict("records") if kind is pd.DataFrame else list(result)
        assert [row["text"] for row in result if row["is_augmented"]] == ["film good"]
        assert augmenter.dropped == 14


def test_a_retry_takes_the_next_technique():
    # No synonyms, no pair to swap: only deletion can change it.
    data = [{"text": "The qwertz"}] * 40
    result = DataAugmenter().augment_dataset(data)
    assert [row["text"] for row in result] == ["The qwertz", "The"] * 40


def test_stop_words_negations_and_protected_words_stay():
    text = (
        "It isn\u2019t the Acme phone that we wouldn't buy without a good reason; nobody at ACME was happy, never mind"
    )
    augmenter = DataAugmenter(
        augmentation_prob=1.0, protected=["acme", "happy"], techniques=TECHNIQUES[:1] + TECHNIQUES[2:]
    )
    kept = [
        "It",
        "isn\u2019t",
        "the",
        "Acme",
        "that",
        "we",
        "wouldn't",
        "without",
        "nobody",
        "ACME",
        "was",
        "happy,",
        "never",
    ]
    seen = set()
    for row in range(60):
        (edited,) = augmenter.augment([text], rows=[row])
        words = edited.split()
        assert [word for word in words if word in kept] == kept
        seen.update(set(words) - set(text.split()))
    assert seen


def test_synonyms_of_ones_own_keep_the_case():
    augmenter = DataAugmenter(
        augmentation_prob=1.0, techniques=["synonym_replacement"], synonyms={"Film": ["movie"], "ok": ["all right"]}
    )
    assert augmenter.augment(["film Film FILM fILM Ok, OK films"]) == [
        "movie Movie MOVIE movie All right, ALL RIGHT films"
    ]


def test_pairs_are_edited_together(rows):
    data = Dataset.from_list(
        [{"text_a": row["text"], "text_b": row["text"], "id": i} for i, row in enumerate(rows[:200])]
    )
    result = DataAugmenter().augment_dataset(data, text_column=["text_a", "text_b"], augmentation_factor=2)
    copies = [row for row in result if row["is_augmented"]]
    assert len(copies) == 400 and [row["id"] for row in copies] == [i for i in range(200) for _ in range(2)]
    changed = [[row[name] != data[row["id"]][name] for name in ("text_a", "text_b")] for row in copies]
    assert np.mean(changed, axis=0).min() > 0.95
    # Each with draws of its own.
    assert np.mean([row["text_a"] == row["text_b"] for row in copies]) < 0.2


def test_other_characters_stay_byte_for_byte():
    text = "\ufeff\u201cGood\u201d films\r\n\r\n\tcost\xa0more  \u2026 \x00 caf\u00e9\u0301\u200b 3rd e\u0301t\u00e9 "
    text += "\U0001f468\u200d\U0001f469 good, old \x1f\x7f\xff"
    for technique in TECHNIQUES:
        for row in range(20):
            (edited,) = DataAugmenter(augmentation_prob=0.3, techniques=[technique]).augment([text], rows=[row])
            rest = [part for part in edited if not part.isascii() or part in "\r\n\x00\x1f\x7f"]
            assert rest == [part for part in text if not part.isascii() or part in "\r\n\x00\x1f\x7f"]


def test_time_is_linear_in_the_rows():
    augmenter = DataAugmenter()
    texts = [f"{SENTENCES[i % 5]} {i}" for i in range(40_000)]
    augmenter.augment(texts)

    def seconds(count):
        started = time.process_time()
        augmenter.augment(texts[:count])
        return time.process_time() - started

    # In turns: what slows the machine down for a while slows both.
    few, many = zip(*((seconds(4_000), seconds(40_000)) for _ in range(5)), strict=True)
    assert min(many) < 10 * 2 * min(few)


# ---- Other backends ----


def test_a_function_as_backend():
    def shuffle(text, rng):
        return " ".join(rng.sample(text.split(), len(text.split())))

    augmenter = DataAugmenter(backend=shuffle)
    texts = [text * 3 for text in SENTENCES]
    edited = augmenter.augment(texts)
    assert all(sorted(a.split()) == sorted(b.split()) and a != b for a, b in zip(texts, edited, strict=True))
    assert augmenter.augment(texts[3:], rows=[3, 4]) == edited[3:]
    assert augmenter.augment(texts, copy=1) != edited
    result = augmenter.augment_dataset([{"text": text} for text in texts], augmentation_factor=2)
    assert len({row["text"] for row in result}) == 15


def test_a_copy_of_which_a_backend_leaves_nothing_is_left_out():
    def delete(text, rng):
        return "" if text == "short" else text.replace("the ", "")

    augmenter = DataAugmenter(backend=delete)
    rows = [{"text": text} for text in ("the film", "short", " ")]
    assert [row["text"] for row in augmenter.augment_dataset(rows)] == ["the film", "film", "short", " "]
    assert augmenter.dropped == 2


def test_nlpaug_as_backend():
    word = pytest.importorskip("nlpaug.augmenter.word")
    flow = pytest.importorskip("nlpaug.flow")
    swap = word.RandomWordAug(action="swap", aug_p=0.3)
    for augmenter in (swap, flow.Sequential([swap, word.RandomWordAug(action="delete", aug_p=0.2)])):
        augmenter = DataAugmenter(backend="nlpaug", augmenter=augmenter)
        random.seed(3)
        np.random.seed(3)
        edited = augmenter.augment([*SENTENCES, ""])
        after = random.random(), np.random.rand()
        random.seed(3)
        np.random.seed(3)
        assert after == (random.random(), np.random.rand())
        assert edited[5] == "" and all(a != b for a, b in zip(edited, SENTENCES, strict=False))
        # Neither the position nor what ran before matters.
        assert augmenter.augment(SENTENCES[2:4], rows=[2, 3]) == edited[2:4]
        data = Dataset.from_list([{"text": text} for text in SENTENCES * 10])
        assert augmenter.augment_dataset(data).to_list() == augmenter.augment_dataset(data.to_list())


@pytest.mark.parametrize("value", [None, 3, ["a", "b"]], ids=str)
def test_what_a_backend_returns_must_be_a_text(value):
    with pytest.raises(DataError, match="Row 9: the backend returned"):
        DataAugmenter(backend=lambda text, rng: value).augment(["text"], rows=[8])


def test_what_a_backend_returns_must_be_whole_characters():
    data = Dataset.from_list([{"text": "fine"}, {"text": "cut"}])
    augmenter = DataAugmenter(backend=lambda text, rng: text + ("\ud83d" if text == "cut" else "!"))
    for rows in (data, data.to_list()):
        with pytest.raises(DataError, match="Row 2: the backend returned half a character"):
            augmenter.augment_dataset(rows)


def test_a_missing_nlpaug_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'hf_ext\[nlpaug\]'"):
        DataAugmenter(backend="nlpaug", augmenter=object())


# ---- Bad input ----


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"augmentation_prob": 1.5}, r"augmentation_prob is 1.5; it must be a number from 0 to 1"),
        ({"augmentation_prob": -0.1}, "augmentation_prob is -0.1"),
        ({"augmentation_prob": True}, "augmentation_prob is True"),
        ({"augmentation_prob": "0.1"}, "augmentation_prob is '0.1'"),
        ({"augmentation_prob": float("nan")}, "augmentation_prob is nan"),
        ({"techniques": []}, r"techniques is \[\]; it must be a list of one or more of synonym_replacement"),
        ({"techniques": "random_swap"}, "techniques is 'random_swap'; it must be a list"),
        (
            {"techniques": ["random_swop"]},
            "no 'random_swop'. Did you mean 'random_swap'.*Valid are synonym_replacement",
        ),
        ({"techniques": ["random_swap", "random_swap"]}, "name each technique once"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"protected": "Acme"}, "protected is 'Acme'; it must be a list"),
        ({"protected": ["New York"]}, "protected: 'New York' is not a single word"),
        ({"protected": ["a" * 65]}, "not a single word"),
        ({"synonyms": {}}, "synonyms is {}"),
        ({"synonyms": {"film": []}}, r"synonyms\['film'\] is \[\]"),
        ({"synonyms": {"film": "movie"}}, r"synonyms\['film'\] is 'movie'; it must be a list"),
        ({"synonyms": {"film": ["Film"]}}, r"synonyms\['film'\] holds 'Film'; it must be another word"),
        ({"synonyms": {"film": [3]}}, r"synonyms\['film'\] holds 3"),
        ({"synonyms": {"my film": ["movie"]}}, "synonyms: 'my film' is not a single word"),
        ({"synonyms": {"film": ["movie"], "Film": ["movie"]}}, "synonyms: 'Film' is twice there"),
        ({"backend": "nltk"}, 'backend is \'nltk\'; it must be "native", "nlpaug" or a function'),
        ({"backend": "nlpaug"}, "augmenter is None.*SynonymAug"),
        ({"augmenter": object()}, 'pass backend="nlpaug"'),
        ({"backend": str.upper, "techniques": ["random_swap"], "protected": ["x"]}, "^techniques, protected: only the"),
    ],
    ids=range(24),
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        DataAugmenter(**settings)


def with_split(name):
    return Dataset.from_dict({"text": ["a"]}, split=datasets.Split(name))


@pytest.mark.parametrize(
    "data, options, error, message",
    [
        ([], {}, DataError, "no rows to augment"),
        (pd.DataFrame({"text": []}), {}, DataError, "no rows"),
        (Dataset.from_dict({"text": []}), {}, DataError, "no rows"),
        ([{"txt": "a"}], {}, DataError, "Row 1 has no column 'text'. Did you mean 'txt'.*text_column"),
        ([{"text": "a"}, {"b": 1}], {}, DataError, "Row 2 has no column 'text'"),
        (["a"], {}, DataError, "Row 1 is a str"),
        (pd.DataFrame({"Text": ["a"]}), {}, DataError, "no column 'text'. Did you mean 'Text'"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), {}, DataError, "several columns 'text'"),
        (Dataset.from_dict({"text": ["a"]}), {"text_column": "tekst"}, DataError, "Did you mean 'text'"),
        ([{"text": "a"}] * 3 + [{"text": None}], {}, DataError, "Row 4: the text is None; it must be a string"),
        (pd.DataFrame({"text": ["a", None]}), {}, DataError, "Row 2: the text is"),
        (Dataset.from_dict({"text": [*"abcdefgh"] * 200 + [None]}), {}, DataError, "Row 1601: the text is None"),
        (Dataset.from_dict({"text": [1, 2]}), {}, DataError, "Row 1: the text is 1"),
        ([{"text": "ab\ud800"}], {}, DataError, "Row 1: the text holds half a character"),
        ([{"text": "a", "source_idx": 0}], {}, DataError, "Row 1 has 'source_idx' already"),
        (
            pd.DataFrame({"text": ["a"], "is_augmented": [0], "source_idx": 0}),
            {},
            DataError,
            "'source_idx' and 'is_aug",
        ),
        (with_split("test"), {}, DataError, r"split 'test'; only training.*DatasetDict\(\{\"train\": data\}\)"),
        (with_split("validation"), {}, DataError, "split 'validation'"),
        (DatasetDict({"dev": with_split("dev")}), {}, DataError, "no split 'train' but 'dev'"),
        ({"text": ["a"]}, {}, DataError, "data is a dict; it must be a list of dicts"),
        ([{"text": "a"}], {"augmentation_factor": 0}, ConfigurationError, "augmentation_factor is 0"),
        ([{"text": "a"}], {"augmentation_factor": 1.0}, ConfigurationError, "augmentation_factor is 1.0"),
        ([{"text": "a"}], {"augmentation_factor": True}, ConfigurationError, "augmentation_factor is True"),
        ([{"text": "a"}], {"num_proc": 2}, ConfigurationError, "num_proc is 2, which needs a Dataset; data is a list"),
        ([{"text": "a"}], {"num_proc": 0}, ConfigurationError, "num_proc is 0"),
        ([{"text": "a"}], {"text_column": []}, ConfigurationError, r"text_column is \[\]"),
        ([{"text": "a"}], {"text_column": ["text", "text"]}, ConfigurationError, "several different ones"),
    ],
    ids=range(27),
)
def test_data_that_cannot_be_augmented(data, options, error, message):
    with pytest.raises(error, match=message):
        DataAugmenter().augment_dataset(data, **options)


def test_the_rows_must_fit_the_texts():
    with pytest.raises(DataError, match="2 texts but 1 rows"):
        DataAugmenter().augment(["a", "b"], rows=[1])
    with pytest.raises(DataError, match="Row 12: texts is 3"):
        DataAugmenter().augment(["a", 3], rows=[1, 11])
    with pytest.raises(DataError, match="single text 'a film'; it must be a list"):
        DataAugmenter().augment("a film")


# ---- Fingerprints, arguments ----


def test_the_fingerprint_is_the_same_in_every_process_and_before_and_after_use():
    code = (
        "from datasets.fingerprint import Hasher; from hf_ext.data.augmentation import DataAugmenter; "
        "a = DataAugmenter(protected={'alpha', 'beta', 'gamma', 'delta'}, synonyms={'film': ['movie']}); "
        "print(Hasher.hash(a)); a.augment(['a good film']); print(Hasher.hash(a), Hasher.hash(DataAugmenter()))"
    )
    environment = {"PYTHONHASHSEED": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout
    one, other, default = output.split()
    assert one == other != default
    settings = {"protected": {"delta", "gamma", "beta", "alpha"}, "synonyms": {"film": ["movie"]}}
    assert (Hasher.hash(DataAugmenter(**settings)), Hasher.hash(DataAugmenter())) == (one, default)


def test_a_data_set_on_disk_is_augmented_once(tmp_path):
    Dataset.from_dict({"text": SENTENCES}).save_to_disk(tmp_path / "data")
    results = [
        DataAugmenter(seed=seed).augment_dataset(datasets.load_from_disk(tmp_path / "data")) for seed in (1, 1, 2)
    ]
    files = [result.cache_files[0]["filename"] for result in results]
    assert files[0] == files[1] != files[2]
    assert results[0].to_list() == results[1].to_list() != results[2].to_list()


def test_arguments_make_the_augmenter():
    assert AugmentationArguments().augmenter(1) is None
    assert AugmentationArguments(augmentation_prob=0.3).augmenter(1) is None
    arguments = AugmentationArguments(True, ["random_swap", "random_deletion"], 0.2, 4)
    augmenter = arguments.augmenter(seed=9)
    assert (augmenter.augmentation_prob, augmenter.seed) == (0.2, 9)
    assert augmenter.techniques == ("random_swap", "random_deletion")
    assert AugmentationArguments(augmentation_enabled=True).augmenter(0).techniques == TECHNIQUES


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"augmentation_prob": 2}, "augmentation_prob is 2"),
        ({"augmentation_techniques": ["random_insert"]}, "augmentation_techniques: .*Did you mean 'random_insertion'"),
        ({"augmentation_techniques": []}, "augmentation_techniques is"),
        ({"augmentation_factor": 0}, "augmentation_factor is 0"),
        (
            {"augmentation_enabled": True, "augmentation_on_the_fly": True, "augmentation_factor": 2},
            "no copies are stored",
        ),
        ({"augmentation_on_the_fly": True}, "augmentation_on_the_fly has no effect without --augmentation_enabled"),
        ({"augmentation_factor": 4}, "augmentation_factor has no effect without --augmentation_enabled"),
    ],
    ids=range(7),
)
def test_arguments_that_make_no_sense(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        AugmentationArguments(**settings)
