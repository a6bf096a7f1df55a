import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from hf_ext.data.augmentation import DataAugmenter
from hf_ext.data.augmentation.collator import AugmentingCollator
from hf_ext.errors import DataError
from hf_ext.models.word_tokenizer import build_word_tokenizer

TEXT = "the film is slow but the acting is superb and every other scene was shot with great care number"
TEXTS = [
    f"{TEXT} {word}" for word in ("one", "two", "six", "ten", "red", "blue", "green", "grey", "x", "y", "z", "end")
]


@pytest.fixture(scope="module")
def tokenizer():
    augmenter = DataAugmenter()
    words = [text for epoch in range(40) for text in augmenter.augment(TEXTS, copy=epoch)]
    return build_word_tokenizer([*TEXTS, *words])


@pytest.fixture
def collator(tokenizer):
    return AugmentingCollator(tokenizer, DataAugmenter(seed=3), DataCollatorWithPadding(tokenizer), max_length=64)


def rows_of(texts):
    return [{"text": text, "row": row, "labels": row % 2} for row, text in enumerate(texts)]


def decoded(tokenizer, batch):
    return tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)


def test_a_batch_is_what_the_augmenter_makes_of_it(collator, tokenizer):
    collator.set_epoch(2)
    batch = collator(rows_of(TEXTS))
    assert batch["labels"].tolist() == [row % 2 for row in range(12)]
    assert set(batch) <= {"input_ids", "attention_mask", "token_type_ids", "labels"}
    edited = DataAugmenter(seed=3).augment(TEXTS, copy=2)
    for row, found in enumerate(batch["input_ids"]):
        expected = [tokenizer(text)["input_ids"] for text in (TEXTS[row], edited[row])]
        assert found[batch["attention_mask"][row] > 0].tolist() in expected


def test_each_row_stays_or_takes_a_technique_with_equal_probability(collator, tokenizer):
    plain = decoded(tokenizer, DataCollatorWithPadding(tokenizer)([tokenizer(text) for text in TEXTS]))
    unchanged = []
    for epoch in range(300):
        collator.set_epoch(epoch)
        found = decoded(tokenizer, collator(rows_of(TEXTS)))
        unchanged += [one == other for one, other in zip(plain, found, strict=True)]
    # 3,600 draws of probability 1/5: five standard deviations.
    assert abs(sum(unchanged) / 3600 - 0.2) < 5 * (0.16 / 3600) ** 0.5


@pytest.mark.parametrize("num_workers, persistent", [(0, False), (2, False), (2, True)])
def test_workers_see_the_epoch_and_make_the_same_batches(collator, num_workers, persistent):
    data = Dataset.from_list(rows_of(TEXTS))
    loader = DataLoader(data, batch_size=5, collate_fn=collator, num_workers=num_workers, persistent_workers=persistent)
    epochs = []
    for epoch in (0, 1, 0):
        collator.set_epoch(epoch)
        epochs.append([batch["input_ids"] for batch in loader])
    collator.set_epoch(1)
    expected = [collator(rows_of(TEXTS)[i : i + 5])["input_ids"] for i in (0, 5, 10)]
    assert all(torch.equal(a, b) for a, b in zip(epochs[1], expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))


def test_the_order_of_the_rows_makes_no_difference(collator, tokenizer):
    rows = rows_of(TEXTS)
    forwards, backwards = (decoded(tokenizer, collator(some)) for some in (rows, rows[::-1]))
    assert forwards == backwards[::-1]


def test_rows_without_a_number_go_to_the_other_collator(collator, tokenizer):
    rows = [{**tokenizer(text), "labels": 1} for text in TEXTS]
    batch, expected = collator(rows), DataCollatorWithPadding(tokenizer)(rows)
    assert batch.keys() == expected.keys() and all(torch.equal(batch[name], expected[name]) for name in batch)


def test_pairs_are_both_edited_and_what_was_tokenised_before_is_replaced(collator, tokenizer):
    rows = [{**tokenizer(text), "text": text, "text_pair": text, "row": i} for i, text in enumerate(TEXTS)]
    collator.set_epoch(1)
    batch = collator(rows)
    augmenter = DataAugmenter(seed=3)
    edited = [augmenter.augment(TEXTS, copy=1, column=column) for column in (0, 1)]
    for row, found in enumerate(batch["input_ids"]):
        pairs = [(TEXTS[row], TEXTS[row]), (edited[0][row], edited[1][row])]
        expected = [tokenizer(*pair, truncation=True, max_length=64)["input_ids"] for pair in pairs]
        assert found[batch["attention_mask"][row] > 0].tolist() in expected


def test_texts_are_cut(tokenizer):
    collator = AugmentingCollator(tokenizer, DataAugmenter(), DataCollatorWithPadding(tokenizer), max_length=6)
    assert collator(rows_of(TEXTS))["input_ids"].shape == (12, 6)


def test_a_row_without_text_is_refused(collator):
    with pytest.raises(DataError, match="no 'text' to edit; they have row, labels"):
        collator([{"row": 0, "labels": 1}])
