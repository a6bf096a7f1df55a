import os
import re
import time

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import PartialState
from starting import exit_code_of, own_port, process_context
from transformers import BertConfig, BertForSequenceClassification, set_seed

import hf_ext.data.teacher_logits as module
from hf_ext.data.logits_cache import LogitsCache, text_keys
from hf_ext.data.teacher_logits import teacher_logits
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.models.teacher import Teacher
from hf_ext.models.word_tokenizer import build_word_tokenizer

WORDS = [f"word{index}" for index in range(30)]


def make_texts(count=60, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size)) for size in generator.integers(1, 12, count)]


def raises(error, *words):
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(str(word)) for word in words))


def make_model(seed=0, problem_type="single_label_classification", labels=3):
    set_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=labels,
        problem_type=problem_type,
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight *= 30
    return model


def make_teacher(seed=0, max_length=None, **settings):
    model = make_model(seed, **settings)
    tokenizer = build_word_tokenizer([" ".join(WORDS)])
    return Teacher.load(model, tokenizer, student_config=model.config, max_length=max_length)


def one_by_one(teacher, texts):
    return np.concatenate([teacher.logits(teacher.collate([text])).numpy() for text in texts])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 16)


def label(texts, teacher, folder, **settings):
    return teacher_logits(texts, teacher, cache_dir=folder, precision="float32", progress=False, **settings)


def counting(teacher):
    """How many texts the teacher is asked."""
    asked, logits = [], teacher.logits

    def logits_of(inputs, *args):
        asked.append(len(inputs[0]["input_ids"]))
        return logits(inputs, *args)

    teacher.logits = logits_of
    return asked


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_each_text_is_asked_once_in_the_order_given(tmp_path, batch_tokens):
    teacher, texts = make_teacher(), make_texts()
    wanted = one_by_one(teacher, texts)
    repeated = [texts[index] for index in (3, 1, 3)] + texts
    asked = counting(teacher)
    result = label(repeated, teacher, tmp_path, batch_tokens=batch_tokens)
    np.testing.assert_allclose(result.logits, np.concatenate([wanted[[3, 1, 3]], wanted]), rtol=2e-3, atol=1e-3)
    assert sum(asked) == result.labelled == len(set(texts))
    assert result.cached == 0
    again = label(repeated[::-1], teacher, tmp_path)
    assert (again.labelled, again.cached) == (0, result.labelled)
    np.testing.assert_array_equal(again.logits, result.logits[::-1])
    assert sum(asked) == result.labelled
    more = label([*texts, "word1 word2 word3 word4 word5 word6"], teacher, tmp_path)
    assert (more.labelled, more.cached) == (1, result.labelled)


def test_pairs_are_not_joined(tmp_path):
    teacher = make_teacher()
    pairs = [("word1 word2", "word3"), ("word1", "word2 word3"), ("word3", "word1 word2")]
    result = label(pairs, teacher, tmp_path)
    assert result.labelled == 3
    np.testing.assert_allclose(result.logits, one_by_one(teacher, pairs), rtol=2e-3, atol=1e-3)
    assert label([["word1", "word2 word3"]], teacher, tmp_path).labelled == 0
    keys = text_keys([("a", "bc"), ("ab", "c"), ("abc", "")]).to_pylist() + text_keys(["abc"]).to_pylist()
    assert len(set(keys)) == 4


def test_nothing_else_ever_matches(tmp_path):
    texts = make_texts(20)
    teachers = {
        "first": make_teacher(),
        "weights": make_teacher(seed=1),
        "length": make_teacher(max_length=6),
    }
    for teacher in teachers.values():
        assert label(texts, teacher, tmp_path).cached == 0
    short = teacher_logits(texts, teachers["first"], cache_dir=tmp_path, precision="bfloat16", progress=False)
    assert short.cached == 0
    assert len(list(tmp_path.iterdir())) == 4
    # As in another process, from the same weights.
    assert label(texts, make_teacher(), tmp_path).labelled == 0


def test_the_format_is_put_back(tmp_path):
    teacher = make_teacher()
    teacher_logits(make_texts(5), teacher, cache_dir=tmp_path, precision="bfloat16", progress=False)
    assert teacher.members[0].running is teacher.members[0].model
    with raises(ConfigurationError, "precision is 'fp8'", "auto, float32, bfloat16"):
        teacher_logits(["word1"], teacher, cache_dir=tmp_path, precision="fp8")
    with raises(ConfigurationError, "batch_tokens is 0"):
        teacher_logits(["word1"], teacher, cache_dir=tmp_path, batch_tokens=0)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_problem_types(tmp_path, problem_type):
    labels = 1 if problem_type == "regression" else 3
    teacher, texts = make_teacher(problem_type=problem_type, labels=labels), make_texts(20)
    result = label(texts, teacher, tmp_path)
    tolerance = 1e-5 if problem_type == "regression" else 2e-3
    np.testing.assert_allclose(result.logits, one_by_one(teacher, texts), rtol=tolerance, atol=tolerance)


def test_numbers_that_float16_cannot_hold(tmp_path):
    cache, keys = LogitsCache(tmp_path / "cache"), text_keys(["a", "b"])
    values = np.array([[70_000.0, -1.0], [0.5, 2.0]], dtype=np.float32)
    names = [cache.write(keys, values), cache.write(keys.take(pa.array([1])), values[1:] + 1)]
    found, present = cache.read(names, text_keys(["b", "c", "a"]), 2)
    assert present.tolist() == [True, False, True]
    # The first file counts.
    np.testing.assert_array_equal(found[[0, 2]], values[::-1])
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("damage", ["cut", "altered", "empty"])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage, caplog):
    teacher, texts = make_teacher(), make_texts()
    first = label(texts, teacher, tmp_path)
    files = sorted(tmp_path.glob("*/*.arrow"))
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes({"cut": content[: len(content) // 2], "altered": content, "empty": b""}[damage])
    again = label(texts, teacher, tmp_path)
    assert 0 < again.labelled <= 2 * 16
    assert again.labelled + again.cached == first.labelled
    assert files[1].name in again.notes[0]
    assert "cut short or altered" in caplog.text
    np.testing.assert_allclose(again.logits, first.logits, rtol=2e-3, atol=1e-3)
    assert not label(texts, teacher, tmp_path).notes


def test_what_was_answered_before_an_error_is_kept(tmp_path):
    teacher, texts = make_teacher(), make_texts()
    asked, logits = [], teacher.logits

    def failing(inputs):
        asked.append(len(inputs[0]["input_ids"]))
        if len(asked) == 4:
            raise DataError("not finite")
        return logits(inputs)

    teacher.logits = failing
    with raises(DataError, "not finite"):
        label(texts, teacher, tmp_path, batch_tokens=60)
    teacher.logits = logits
    result = label(texts, teacher, tmp_path)
    assert result.cached == sum(asked[:3])
    assert result.labelled == len(set(texts)) - result.cached


def test_files_that_were_left_by_a_killed_process_go(tmp_path):
    teacher = make_teacher()
    label(["word1"], teacher, tmp_path)
    (folder,) = tmp_path.iterdir()
    old, new = folder / "old.tmp", folder / "new.tmp"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    label(["word1"], teacher, tmp_path)
    assert not old.exists()
    # It may be another run's that is being written.
    assert new.exists()


def test_bad_texts(tmp_path):
    teacher = make_teacher()
    with raises(DataError, "no texts"):
        label([], teacher, tmp_path)
    with raises(DataError, "Row 2", "None", "strings"):
        label(["word1", None], teacher, tmp_path)
    with raises(DataError, "Row 2", "pairs"):
        label([("word1", "word2"), "word1"], teacher, tmp_path)
    with raises(DataError, "Row 1", "half a character"):
        label(["\ud800"], teacher, tmp_path)
    (tmp_path / "file").touch()
    with raises(ConfigurationError, "cache_dir"):
        label(["word1"], teacher, tmp_path / "file")
    assert not list(tmp_path.glob("*/*"))


# ---- Processes ----


def run(folder, seconds, name, environment):
    os.environ.update(environment)
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    module.SHARD_ROWS = 16
    teacher = make_teacher()
    logits = teacher.logits

    def slowly(inputs):
        time.sleep(seconds)
        return logits(inputs)

    teacher.logits = slowly
    result = label(make_texts(200), teacher, folder, batch_tokens=40)
    counts = [result.labelled, result.cached]
    np.savez(f"{folder}/result{state.process_index}{name}.npz", logits=result.logits, counts=counts)


@pytest.fixture
def start(tmp_path):
    context, started = process_context("runs"), []

    def start(seconds=0.0, name="", **environment):
        started.append(context.Process(target=run, args=(str(tmp_path), seconds, name, environment)))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        exit_code_of(process)


def ended_well(processes):
    return [exit_code_of(process) for process in processes] == [0] * len(processes)


def test_after_a_kill_labelling_goes_on(tmp_path, start):
    process = start(seconds=0.3)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*/*.arrow"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    exit_code_of(process)
    rows = [pa.ipc.open_file(path.read_bytes()).read_all().num_rows for path in tmp_path.glob("*/*.arrow")]
    texts = make_texts(200)
    result = label(texts, make_teacher(), tmp_path)
    assert result.cached == sum(rows) > 0
    assert result.labelled == len(set(texts)) - sum(rows) > 0
    np.testing.assert_allclose(result.logits, one_by_one(make_teacher(), texts), rtol=2e-3, atol=1e-3)


def test_two_processes_share_the_work(tmp_path, start):
    with own_port() as port:
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [start(RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
        assert ended_well(processes)
    one, other = (np.load(tmp_path / f"result{rank}.npz") for rank in range(2))
    np.testing.assert_array_equal(one["logits"], other["logits"])
    texts = make_texts(200)
    assert one["counts"].tolist() == other["counts"].tolist() == [len(set(texts)), 0]
    np.testing.assert_allclose(one["logits"], one_by_one(make_teacher(), texts), rtol=2e-3, atol=1e-3)
    # Each text was asked by one of them.
    rows = [pa.ipc.open_file(path.read_bytes()).read_all().num_rows for path in tmp_path.glob("*/*.arrow")]
    assert sum(rows) == len(set(texts))


def test_two_runs_at_the_same_time(tmp_path, start):
    processes = [start(seconds=0.01, name=name) for name in ("a", "b")]
    assert ended_well(processes)
    wanted = one_by_one(make_teacher(), make_texts(200))
    for name in ("a", "b"):
        np.testing.assert_allclose(np.load(tmp_path / f"result0{name}.npz")["logits"], wanted, rtol=2e-3, atol=1e-3)
    assert not list(tmp_path.glob("*/*.tmp"))
