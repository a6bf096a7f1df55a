import pytest
from datasets import Dataset

from hf_ext.data.tokenization import tokenize_dataset
from hf_ext.errors import DataError
from hf_ext.models.word_tokenizer import build_word_tokenizer

PAD, UNKNOWN, SEPARATOR = 0, 1, 2
# By frequency, then alphabetically: a b c d have the ids 3 4 5 6.
WORDS = ["a a a a", "b b b", "c c", "d"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(WORDS, model_max_length=512)


def tokenize(tokenizer, max_seq_length=10, **columns):
    options = {key: columns.pop(key) for key in ("pad_to_max_length", "load_from_cache_file") if key in columns}
    return tokenize_dataset(Dataset.from_dict(columns), tokenizer, max_seq_length, **options)


def test_single_texts(tokenizer):
    rows = tokenize(tokenizer, text=["a b c", "d what", ""], label=[1, 0, 1], extra=["x", "y", "z"])
    assert set(rows.column_names) == {"input_ids", "attention_mask", "length", "labels"}
    assert rows["input_ids"][:] == [[3, 4, 5], [6, UNKNOWN], []]
    assert rows["attention_mask"][:] == [[1, 1, 1], [1, 1], []]
    assert rows["length"][:] == [3, 2, 0]
    assert rows["labels"][:] == [1, 0, 1]


def test_long_texts_are_cut(tokenizer):
    rows = tokenize(tokenizer, 3, text=["a b c d a", "a b"])
    assert rows["input_ids"][:] == [[3, 4, 5], [3, 4]]
    assert rows["length"][:] == [3, 2]


def test_of_a_pair_the_longer_is_cut_first(tokenizer):
    rows = tokenize(tokenizer, 6, text=["a", "a b c d a"], text_pair=["d c b a d c", "d"], label=[0, 1])
    assert rows["input_ids"][:] == [[3, SEPARATOR, 6, 5, 4, 3], [3, 4, 5, 6, SEPARATOR, 6]]
    rows = tokenize(tokenizer, 5, text=["a a a a"], text_pair=["b b b b"])
    assert rows["input_ids"][:] == [[3, 3, SEPARATOR, 4, 4]]


def test_padding_to_the_longest_is_left_to_the_batch(tokenizer):
    rows = tokenize(tokenizer, 4, text=["a b", "c"], pad_to_max_length=True)
    assert rows["input_ids"][:] == [[3, 4, PAD, PAD], [5, PAD, PAD, PAD]]
    assert rows["attention_mask"][:] == [[1, 1, 0, 0], [1, 0, 0, 0]]
    # The length counts tokens, not padding, so that rows are grouped alike either way.
    assert rows["length"][:] == [2, 1]
    assert tokenize(tokenizer, 4, text=["a b", "c"])["input_ids"][:] == [[3, 4], [5]]


def test_rows_without_labels(tokenizer):
    assert "labels" not in tokenize(tokenizer, text=["a"]).column_names


@pytest.mark.parametrize("labels", [[[1.0, 0.0], [0.0, 0.0]], [0.5, -2.0]])
def test_labels_of_other_tasks(tokenizer, labels):
    assert tokenize(tokenizer, text=["a", "b"], label=labels)["labels"][:] == labels


def test_a_cached_result_is_of_the_same_arguments(tokenizer, tmp_path):
    Dataset.from_dict({"text": ["a b c", "d"]}).to_parquet(tmp_path / "rows.parquet")
    dataset = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    other = build_word_tokenizer(["d d d", "c c", "b"])
    first = tokenize_dataset(dataset, tokenizer, 2)
    assert tokenize_dataset(dataset, tokenizer, 2)["input_ids"][:] == first["input_ids"][:] == [[3, 4], [6]]
    assert tokenize_dataset(dataset, tokenizer, 3)["input_ids"][:] == [[3, 4, 5], [6]]
    assert tokenize_dataset(dataset, other, 2)["input_ids"][:] == [[UNKNOWN, 5], [3]]


def test_columns_are_kept_as_they_are(tokenizer):
    dataset = Dataset.from_dict({"text": ["a b", "c"], "label": [0, 1], "hard": [0.5, 2.0], "source_idx": [4, 4]})
    rows = tokenize_dataset(dataset, tokenizer, 10, keep_columns=("hard", "source_idx", "text"))
    expected = {"input_ids", "attention_mask", "length", "labels", "hard", "source_idx", "text"}
    assert set(rows.column_names) == expected
    assert rows["hard"][:] == [0.5, 2.0]
    assert rows["source_idx"][:] == [4, 4]
    assert rows["text"][:] == ["a b", "c"]
    assert rows["input_ids"][:] == [[3, 4], [5]]


def test_a_column_that_cannot_be_kept_is_refused(tokenizer):
    dataset = Dataset.from_dict({"text": ["a b"], "length": [7.0], "hardness": [1.0]})
    with pytest.raises(DataError, match=r"no column 'hardnes' among text, length, hardness. Did you mean 'hardness'\?"):
        tokenize_dataset(dataset, tokenizer, 10, keep_columns=("hardnes",))
    with pytest.raises(DataError, match="length would be overwritten"):
        tokenize_dataset(dataset, tokenizer, 10, keep_columns=("length",))
