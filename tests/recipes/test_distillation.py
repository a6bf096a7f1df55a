"""Distillation by the recipe: teachers and students of every kind, what a run leaves, what it refuses."""

import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_launched, run_program
from safetensors.torch import load_file, save_file
from starting import begin_script, exit_code_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from hf_ext import ConfigurationError, DataError, UsageError, build_word_tokenizer
from hf_ext.evaluation import speed

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "run_distillation.py"
INTERRUPTED = Path(__file__).with_name("interrupted_distillation.py")
GOOD, BAD = ["good", "great", "fine", "lovely", "superb"], ["bad", "awful", "poor", "dull", "weak"]
WORDS = [*GOOD, *BAD, "the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]
VECTORS = "encoder.embeddings.word_embeddings.weight"
CNN = ["--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4"]
SHORT = ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--logging_steps", "1"]
SHORT += ["--disable_tqdm", "true", "--use_cpu", "true", "--report_to", "none", "--learning_rate", "1e-2"]
SHORT += ["--teacher_num_train_epochs", "1", "--mixed_precision", "no"]


@pytest.fixture(scope="session")
def run_distillation():
    spec = importlib.util.spec_from_file_location("run_distillation", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch):
    # Nobody reads the speeds of these models.
    monkeypatch.setattr(speed, "MIN_ROUND_SECONDS", 0.01)


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def flags(tmp_path, write_data, output_dir):
    """A CNN as student: 144 training rows, 9 steps an epoch."""
    return [*CNN, *SHORT, *write_data(), "--output_dir", str(output_dir), "--teacher_cache_dir", str(tmp_path / "kept")]


@pytest.fixture
def distil(run_distillation, flags, output_dir):
    def run(*more):
        run_distillation([*flags, *map(str, more)])
        return json.loads((output_dir / "run.json").read_text())

    return run


def save_classifier(path, names=("negative", "positive"), problem_type="single_label_classification", seed=0, words=()):
    """The directory of a small random classifier whose logits are far apart."""
    torch.manual_seed(seed)
    tokenizer = build_word_tokenizer([" ".join([*words, *WORDS])], model_max_length=32)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=len(names),
        problem_type=problem_type,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def teacher(tmp_path):
    return save_classifier(tmp_path / "classifier")


def logits_of(path, texts):
    """A plain loop over a classifier's answers."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    with torch.inference_mode():
        rows = [text if isinstance(text, (list, tuple)) else [text] for text in texts]
        return torch.cat([model(**tokenizer(*row, return_tensors="pt")).logits for row in rows]).numpy()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same_weights(first, second):
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps_of(folder):
    return json.loads((folder / "trainer_state.json").read_text())["global_step"]


# ---- What a run leaves ----


def test_an_encoder_is_fine_tuned_and_labels_further_texts(distil, tiny_bert, tmp_path, output_dir, capsys):
    (tmp_path / "more.txt").write_text("a lovely plot\nan awful scene\n\na lovely plot\n")
    (tmp_path / "more.json").write_text(json.dumps([{"text": "dull actor", "label": "negative"}]))
    files = f"{tmp_path / 'more.txt'},{tmp_path / 'more.json'}"
    more = ("--teacher_name_or_path", tiny_bert, "--unlabelled_files", files)
    record = distil(*more)
    facts = json.loads((output_dir / "distillation.json").read_text())
    assert facts["transfer_set"]["unlabelled"] == 3
    assert any("column label of" in note and "not used" in note for note in record["notes"])
    assert any("was fine-tuned on the training rows" in note for note in record["notes"])
    for folder in (output_dir, output_dir / "teacher", output_dir / "control"):
        assert len(lines(folder / "predictions_test.jsonl")) == 40
        assert len(lines(folder / "predictions_validation.jsonl")) == 16
        assert (folder / "finished.json").is_file()
    report = (output_dir / "report.html").read_text()
    assert "Models compared" in report and "control" in report
    assert "distilled" in (output_dir / "README.md").read_text()
    assert list(facts["models"]) == ["teacher", "distilled", "control"]
    assert (output_dir / "run.json").is_file() and (output_dir / "training.log").is_file()
    shown = capsys.readouterr().out
    for part in ("The teacher is fine-tuned", "The teacher answers", "The student learns", "The control, the student"):
        assert part in shown
    # The words of the unlabelled texts are in both word lists, their rows only in the student's training.
    rows = facts["transfer_set"]["train"] + 3
    assert json.loads((output_dir / "train_results.json").read_text())["train_samples"] == rows
    assert weights(output_dir).keys() == weights(output_dir / "control").keys()
    assert steps_of(output_dir) == steps_of(output_dir / "control") == facts["steps"]
    # Of the teacher there is nothing in the student's folder.
    assert not any("bert" in name or "attention" in name for name in weights(output_dir))
    asked = next(note for note in record["notes"] if "was asked for" in note)
    assert f"was asked for {rows} texts" in asked
    again = distil(*more, "--output_dir", output_dir, "--overwrite", "--temperature", 2)
    assert any("was asked for 0 texts" in note for note in again["notes"])


def test_the_student_loads_in_another_process(distil, teacher, output_dir, tmp_path):
    distil("--teacher_name_or_path", teacher)
    code = (
        "import sys; from transformers import pipeline; "
        f"print(pipeline('text-classification', {str(output_dir)!r}, trust_remote_code=True)('a good film')); "
        "assert not any('teacher' in name for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "positive" in done.stdout or "negative" in done.stdout
    assert not (output_dir / "teacher" / "model.safetensors").exists()


def test_the_control_is_what_a_training_without_a_teacher_gives(
    distil, run_classification, teacher, output_dir, tmp_path
):
    distil("--teacher_name_or_path", teacher, "--alpha", 0, "--label_smoothing_factor", 0.1)
    plain = [*CNN, *SHORT[: SHORT.index("--teacher_num_train_epochs")], "--mixed_precision", "no"]
    files = ["--train_file", str(tmp_path / "train.json"), "--test_file", str(tmp_path / "test.json")]
    run_classification([*plain, *files, "--label_smoothing_factor", "0.1", "--output_dir", str(tmp_path / "plain")])
    # Repeated rows are left out of a transfer set; there are none here.
    assert json.loads((output_dir / "distillation.json").read_text())["transfer_set"]["repeated"] == 0
    assert same_weights(output_dir / "control", tmp_path / "plain")
    # A student that does not listen to its teacher is its control.
    for name, value in weights(output_dir).items():
        assert torch.allclose(value, weights(output_dir / "control")[name], atol=1e-5), name


# ---- Kinds of teachers, students and data ----


def pair_rows(count, seed):
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        first, second = (" ".join(generator.choices(WORDS, k=5)) for _ in range(2))
        rows.append({"premise": first, "hypothesis": second, "label": ("negative", "positive")[index % 2]})
    return rows


@pytest.mark.parametrize("kind", ["multi", "number", "pairs", "ensemble"])
def test_what_the_teacher_predicts_is_its_own_answer(distil, write_data, tmp_path, output_dir, kind):
    more, names, problem_type = [], ("negative", "positive"), "single_label_classification"
    if kind == "multi":
        write_data("multi")
        names, problem_type = ("bad", "good", "long"), "multi_label_classification"
    elif kind == "number":
        write_data("number")
        names, problem_type = ("LABEL_0",), "regression"
    elif kind == "pairs":
        for seed, (name, count) in enumerate((("train", 120), ("test", 40))):
            (tmp_path / f"{name}.json").write_text(json.dumps(pair_rows(count, seed)))
        more = ["--text_column_names", "premise", "--text_pair_column_name", "hypothesis"]
    teachers = [save_classifier(tmp_path / "classifier", names, problem_type)]
    if kind == "ensemble":
        teachers.append(save_classifier(tmp_path / "second", names[::-1], seed=1, words=["further", "words"]))
    distil("--teacher_name_or_path", ",".join(teachers), *more)
    predicted = lines(output_dir / "teacher" / "predictions_test.jsonl")
    texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in predicted]
    answers = [logits_of(path, texts) for path in teachers]
    if kind == "number":
        expected = answers[0][:, 0]
        found = [row["prediction"] for row in predicted]
    elif kind == "multi":
        expected = 1 / (1 + np.exp(-answers[0]))
        found = [[row["probabilities"][name] for name in names] for row in predicted]
    else:
        softmaxes = [np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in answers]
        order = [softmaxes[0], *(probabilities[:, ::-1] for probabilities in softmaxes[1:])]
        expected = np.mean(order, axis=0)
        found = [[row["probabilities"][name] for name in names] for row in predicted]
    # The answers are kept with half precision.
    assert np.allclose(found, expected, atol=1e-3)
    assert (output_dir / "distillation.json").is_file()


def test_a_transformer_learns_the_hidden_states_online(run_distillation, flags, teacher, tiny_bert, output_dir):
    without_cnn = [*flags[len(CNN) :], "--model_name_or_path", tiny_bert, "--learning_rate", "1e-3"]
    run_distillation(
        [
            *without_cnn,
            *("--teacher_name_or_path", teacher, "--teacher_logits", "online", "--hidden_states_weight", "0.5"),
            *("--final_temperature", "1", "--final_alpha", "0.2", "--num_hidden_layers", "1"),
        ]
    )
    logs = [log for log in json.loads((output_dir / "trainer_state.json").read_text())["log_history"] if "loss" in log]
    assert all(log["distillation/hidden_states_loss"] > 0 for log in logs)
    assert logs[0]["distillation/temperature"] == 4 and logs[-1]["distillation/temperature"] < 2
    assert AutoModelForSequenceClassification.from_pretrained(output_dir).config.num_hidden_layers == 1


def test_a_student_with_fewer_layers_takes_none_from_its_teacher(run_distillation, flags, tiny_bert, output_dir):
    without_cnn = [*flags[len(CNN) :], "--model_name_or_path", tiny_bert, "--learning_rate", "1e-3"]
    run_distillation([*without_cnn, "--teacher_name_or_path", tiny_bert, "--num_hidden_layers", "1"])
    layers = [
        AutoModelForSequenceClassification.from_pretrained(folder).config.num_hidden_layers
        for folder in (output_dir, output_dir / "control", output_dir / "teacher")
    ]
    assert layers == [1, 1, 2]


def test_word_vectors_from_the_teacher(distil, teacher, output_dir):
    rate = ("--learning_rate", "1e-9")
    distil("--teacher_name_or_path", teacher, "--student_embeddings", "teacher", *rate)
    student, control = (weights(folder)[VECTORS] for folder in (output_dir, output_dir / "control"))
    assert not torch.allclose(student, control)
    assert student.std() == pytest.approx(0.25 / 3**0.5, rel=0.1)
    assert student[0].abs().max() == 0


def test_word_vectors_for_a_tokenizer_with_other_special_tokens(distil, teacher, output_dir, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    own = build_word_tokenizer(["film good bad " + " ".join(WORDS)], model_max_length=32)
    content = json.loads(own.backend_tokenizer.to_str().replace("<pad>", "[PAD]").replace("<unk>", "[UNK]"))
    own.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(content))
    path = tmp_path / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<pad>", "[PAD]").replace("<unk>", "[UNK]"))
    distil(
        *("--teacher_name_or_path", teacher, "--student_embeddings", "teacher", "--learning_rate", "1e-9"),
        *("--tokenizer_name", tmp_path / "tokenizer"),
    )
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    assert tokenizer.pad_token == "[PAD]"
    assert weights(output_dir)[VECTORS][tokenizer.pad_token_id].abs().max() == 0


@pytest.mark.parametrize("way", ["stored", "on the fly"])
def test_augmentation(distil, teacher, output_dir, way):
    fly = ("--augmentation_on_the_fly", "true", "--teacher_logits", "online") if way == "on the fly" else ()
    distil("--teacher_name_or_path", teacher, "--augmentation_enabled", "true", *fly, "--alpha", 0)
    counts = json.loads((output_dir / "distillation.json").read_text())["transfer_set"]
    assert (counts["augmented"] > 0) == (way == "stored")
    # The control sees the edited texts too.
    for name, value in weights(output_dir).items():
        assert torch.allclose(value, weights(output_dir / "control")[name], atol=1e-5), name


def test_without_test_rows_the_validation_is_compared(run_distillation, flags, teacher, output_dir):
    place = flags.index("--test_file")
    run_distillation([*flags[:place], *flags[place + 2 :], "--teacher_name_or_path", teacher])
    assert json.loads((output_dir / "distillation.json").read_text())["split"] == "validation"


def test_test_rows_without_labels(distil, teacher, output_dir, tmp_path):
    rows = json.loads((tmp_path / "test.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps([{"text": row["text"]} for row in rows]))
    distil("--teacher_name_or_path", teacher)
    assert json.loads((output_dir / "distillation.json").read_text())["split"] == "validation"
    for folder in (output_dir, output_dir / "teacher", output_dir / "control"):
        assert len(lines(folder / "predictions_test.jsonl")) == 40


def test_nothing_to_compare_on(run_distillation, flags, teacher, output_dir):
    place = flags.index("--test_file")
    run_distillation([*flags[:place], *flags[place + 2 :], "--teacher_name_or_path", teacher, "--validation_size", "0"])
    assert "split" not in json.loads((output_dir / "distillation.json").read_text())


def test_fewer_rows_than_a_batch(distil, tiny_bert, output_dir, tmp_path):
    rows = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps(rows[:12]))
    distil("--teacher_name_or_path", tiny_bert, "--gradient_accumulation_steps", 4)
    assert steps_of(output_dir) == steps_of(output_dir / "control") == 2


@pytest.mark.parametrize(
    "more, steps",
    [
        (("--max_steps", 5), 5),
        (("--gradient_accumulation_steps", 4), 6),
        (("--early_stopping_patience", 1, "--early_stopping_threshold", 100, "--eval_steps", 2), 4),
    ],
    ids=["max_steps", "accumulation", "early_stopping"],
)
def test_the_control_makes_the_students_steps(distil, teacher, output_dir, tmp_path, more, steps):
    (tmp_path / "more.txt").write_text("a lovely plot\nan awful scene\n")
    distil("--teacher_name_or_path", teacher, "--unlabelled_files", tmp_path / "more.txt", *more)
    assert steps_of(output_dir) == steps_of(output_dir / "control") == steps
    rates = [
        [
            log["learning_rate"]
            for log in json.loads((folder / "trainer_state.json").read_text())["log_history"]
            if "loss" in log
        ]
        for folder in (output_dir, output_dir / "control")
    ]
    assert rates[0] == rates[1] and len(rates[0]) == steps


def test_a_dry_run_writes_nothing(distil, tiny_bert, output_dir, tmp_path, run_distillation, flags, capsys):
    before = sorted(tmp_path.rglob("*"))
    run_distillation([*flags, "--teacher_name_or_path", tiny_bert, "--dry_run"])
    assert "Dry run: nothing was trained or written" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


# ---- Several processes, and ends before the end ----


def test_two_processes_make_what_one_makes(flags, teacher, tmp_path):
    settings = [*flags, "--teacher_name_or_path", teacher, "--dropout_prob", "0"]
    shown = {}
    for name, size in (("two", "8"), ("one", "16")):
        own = ["--per_device_train_batch_size", size, "--output_dir", str(tmp_path / name)]
        own += ["--teacher_cache_dir", str(tmp_path / f"kept {name}")]
        if name == "two":
            processes = run_launched(RECIPE, [*settings, *own])
        else:
            processes = [run_program(RECIPE, [*settings, *own])]
        for done in processes:
            assert done.returncode == 0, done.stderr[-2000:]
        shown[name] = "".join(done.stdout for done in processes)
    for part in (".", "control"):
        one, two = (weights(tmp_path / name / part) for name in ("one", "two"))
        assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    for sentence in ("The student learns from the teacher", "Note: The teacher was asked for 1"):
        assert [shown[name].count(sentence) for name in ("one", "two")] == [1, 1]


def in_a_process(argv, part=None, moment=0):
    """The exit code of a run, negative for a signal."""
    process = begin_script(INTERRUPTED, ARGV=[str(flag) for flag in argv], PART=part, MOMENT=moment)
    return exit_code_of(process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bert):
    """The settings of a run, and the folder of one that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"text": " ".join(random.Random(i).choices(WORDS, k=6)), "label": ("n", "p")[i % 2]} for i in range(160)]
    (folder / "train.json").write_text(json.dumps(rows[:120]))
    (folder / "test.json").write_text(json.dumps(rows[120:]))
    settings = [*CNN, *SHORT, "--teacher_name_or_path", tiny_bert, "--teacher_num_train_epochs", "2"]
    settings += ["--train_file", folder / "train.json", "--test_file", folder / "test.json"]
    settings += ["--student_embeddings", "teacher", "--save_strategy", "steps", "--save_steps", "5"]
    settings += ["--eval_steps", "5", "--load_best_model_at_end", "true"]
    assert in_a_process([*settings, "--output_dir", folder / "out", "--teacher_cache_dir", folder / "kept"]) == 0
    return settings, folder / "out"


@pytest.mark.parametrize(
    "part, moment", [("teacher", 3), ("teacher", 5), ("labelling", 3), ("out", 0), ("out", 12), ("control", 12)]
)
def test_a_run_that_was_killed_goes_on(whole, run_distillation, tmp_path, output_dir, part, moment):
    settings = [*whole[0], "--output_dir", output_dir, "--teacher_cache_dir", tmp_path / "kept"]
    assert in_a_process(settings, part, moment) == -signal.SIGKILL
    assert not (output_dir / "report.html").exists()
    with pytest.raises(ConfigurationError, match=r"holds another run .*--resume_from_checkpoint true"):
        run_distillation([str(flag) for flag in settings])
    run_distillation([*map(str, settings), "--resume_from_checkpoint", "true"])
    for folder in (".", "teacher", "control"):
        assert same_weights(output_dir / folder, whole[1] / folder), folder
    assert (output_dir / "report.html").is_file()
    results = [json.loads((folder / "train_results.json").read_text()) for folder in (output_dir, whole[1])]
    assert results[0]["train_samples"] == results[1]["train_samples"]
    assert steps_of(output_dir) == steps_of(whole[1])


def test_a_finished_part_is_not_trained_again(distil, teacher, output_dir):
    distil("--teacher_name_or_path", teacher)
    before = {
        path: path.read_bytes()
        for path in output_dir.rglob("*")
        if path.name in ("model.safetensors", "train_results.json")
    }
    (output_dir / "control" / "finished.json").unlink()
    (output_dir / "report.html").unlink()
    distil("--teacher_name_or_path", teacher, "--resume_from_checkpoint", "true")
    assert {path: path.read_bytes() for path in before} == before
    assert (output_dir / "report.html").is_file()


def test_going_on_with_something_else_is_refused(distil, run_distillation, flags, teacher, output_dir, tmp_path):
    (tmp_path / "more.txt").write_text("a lovely plot\nan awful scene\n")
    other = save_classifier(tmp_path / "other", seed=5)
    base = ("--teacher_name_or_path", teacher, "--unlabelled_files", tmp_path / "more.txt")
    distil(*base)
    before = {path: path.read_bytes() for path in output_dir.rglob("*") if path.is_file() and path.suffix != ".log"}
    go_on = ("--resume_from_checkpoint", "true")
    for changed, message in (
        ((*base, "--temperature", "2"), r"temperature \(4.0 then, 2.0 now\)"),
        (base[:2], "unlabelled_files"),
        (("--teacher_name_or_path", other, *base[2:]), r"teacher_name_or_path \(.*classifier.* then, .*other.* now\)"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            distil(*changed, *go_on)
    (tmp_path / "more.txt").write_text("a lovely plot\n")
    with pytest.raises(ConfigurationError, match=r"unlabelled texts .* are others"):
        distil(*base, *go_on)
    (tmp_path / "more.txt").write_text("a lovely plot\nan awful scene\n")
    save_classifier(teacher, seed=7)
    with pytest.raises(ConfigurationError, match=r"weights, tokenizer or settings of the teacher are others"):
        distil(*base, *go_on)
    assert {path: path.read_bytes() for path in before} == before
    save_classifier(teacher)
    # Where answers are kept may change.
    distil(*base, *go_on, "--teacher_cache_dir", tmp_path / "elsewhere")
    distil(*base, "--overwrite", "--temperature", 2)
    assert json.loads((output_dir / "run.json").read_text())["arguments"]["distillation"]["temperature"] == 2


# ---- Bad input ----


def spoil(path, change):
    state = load_file(Path(path) / "model.safetensors")
    change(state)
    save_file(state, Path(path) / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def refused(run_distillation, flags, tmp_path):
    """The message of a run that is refused, after seeing that nothing was written or lost."""

    def refused(*more, kind=UsageError):
        before = {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}
        with pytest.raises(kind) as error:
            run_distillation([*flags, *map(str, more)])
        after = {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}
        assert after == before
        return str(error.value)

    return refused


def test_teachers_that_cannot_teach(refused, tmp_path, teacher, tiny_bert):
    other = save_classifier(tmp_path / "other", ("negative", "neutral"))
    message = refused("--teacher_name_or_path", other)
    assert "Only the teacher has 'neutral'; only the student has 'positive'" in message
    nan = save_classifier(tmp_path / "nan")
    spoil(nan, lambda state: state["classifier.bias"].fill_(float("nan")))
    assert "finite" in refused("--teacher_name_or_path", nan)
    assert "is no classifier yet" in refused("--teacher_name_or_path", f"{teacher},{tiny_bert}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    assert "has no weights" in refused("--teacher_name_or_path", tmp_path / "empty")
    assert "there is no directory" in refused("--teacher_name_or_path", tmp_path / "nowhere")
    assert "There is no teacher" in refused()


def test_a_teacher_that_gives_probabilities(refused, tmp_path):
    sure = save_classifier(tmp_path / "sure")

    def probabilities(state):
        state["classifier.weight"].zero_()
        state["classifier.bias"][:] = torch.tensor([0.3, 0.7])

    spoil(sure, probabilities)
    assert "probabilities" in refused("--teacher_name_or_path", sure)


REFUSED = {
    "temperature": (["--temperature", "0"], "temperature is 0.0; it must be a number above 0"),
    "alpha": (["--alpha", "1.5"], r"alpha is 1.5; it must be a number from 0"),
    "final": (["--final_alpha", "-1"], "final_alpha is -1.0"),
    "rate": (["--learning_rate", "auto"], "learning_rate is 'auto'; it must be a number"),
    "key": (["--temprature", "2"], "Did you mean 'temperature'"),
    "curriculum": (["--curriculum", "cross_review"], "curriculum=cross_review"),
    "fly": (["--augmentation_enabled", "true", "--augmentation_on_the_fly", "true"], "--teacher_logits online"),
    "wide": (["--student_embeddings", "teacher", "--embed_size", "17"], "embed_size is 17, .* have 16"),
    "vectors": (["--student_embeddings", "teacher", "--word_vectors", "x.txt", "--variant", "static"], "two starts"),
    "unfreezing": (["--unfreezing", "epochs"], "would never be trained|never"),
    "stage": (["--unfreezing", "steps", "--unfreezing_stages", '{"0": ["head", "layer.7"]}'], "'layer.7' matches no"),
    "scales": (["--learning_rate_scales", '{"layer.3": 2}'], "matches no parameter"),
    "hidden": (["--hidden_states_weight", "1", "--teacher_logits", "online"], "no transformer"),
    "part": (["--do_train", "false"], "do_train=false would leave a part out"),
    "length": (["--teacher_max_seq_length", "1000"], "teacher_max_length is 1000"),
    "patience": (["--early_stopping_patience", "2", "--validation_size", "0"], "eval"),
    "missing": (["--unlabelled_files", "nowhere.txt"], "There is no file nowhere.txt"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("teacher_kind", ["classifier", "encoder"])
def test_refused_before_anything_is_written(refused, teacher, tiny_bert, name, teacher_kind):
    more, message = REFUSED[name]
    path = teacher if teacher_kind == "classifier" else tiny_bert
    assert re.search(message, refused("--teacher_name_or_path", path, *more))


def test_an_earlier_run_survives_a_refused_one(distil, refused, teacher, output_dir):
    distil("--teacher_name_or_path", teacher)
    refused("--teacher_name_or_path", teacher, "--overwrite", "--unfreezing", "epochs")
    refused("--teacher_name_or_path", teacher, "--overwrite", "--temperature", "0")


def test_unlabelled_files_that_hold_none(refused, teacher, tmp_path):
    base = ("--teacher_name_or_path", teacher, "--unlabelled_files")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "empty.txt holds no text" in refused(*base, tmp_path / "empty.txt")
    (tmp_path / "other.json").write_text(json.dumps([{"body": 1, "title": 2}]))
    assert "other.json" in refused(*base, tmp_path / "other.json")
    (tmp_path / "pairs.json").write_text(json.dumps([{"text": "a", "text_pair": "b"}]))
    assert "pairs of texts" in refused(*base, tmp_path / "pairs.json")


def test_folders_of_models_are_left_alone(refused, teacher, tiny_bert, tmp_path):
    own = ("--teacher_name_or_path", teacher, "--output_dir")
    assert "holds the model" in refused(*own, teacher, "--overwrite")
    assert "holds the model" in refused(*own, tmp_path, "--overwrite")
    # A model of the user's where the teacher would be written.
    save_classifier(tmp_path / "models" / "teacher")
    message = refused("--teacher_name_or_path", tiny_bert, "--output_dir", tmp_path / "models")
    assert "holds another run" in message
    (tmp_path / "file").write_text("")
    message = refused("--teacher_name_or_path", tiny_bert, "--teacher_cache_dir", tmp_path / "file" / "below")
    assert "teacher_cache_dir" in message and "cannot be written" in message


def test_a_checkpoint_of_another_run_does_not_replace_this_one(distil, refused, teacher, output_dir, tmp_path):
    distil("--teacher_name_or_path", teacher)
    distil("--teacher_name_or_path", teacher, "--output_dir", tmp_path / "second", "--save_strategy", "epoch")
    checkpoint = tmp_path / "second" / "checkpoint-9"
    assert "holds another run" in refused("--teacher_name_or_path", teacher, "--resume_from_checkpoint", checkpoint)


def test_a_file_of_answers_that_was_cut_short_is_made_anew(distil, teacher, tmp_path, output_dir):
    distil("--teacher_name_or_path", teacher)
    first = weights(output_dir)
    for path in (tmp_path / "kept").rglob("*.arrow"):
        path.write_bytes(path.read_bytes()[:-20])
    record = distil("--teacher_name_or_path", teacher, "--overwrite")
    assert any("cut short or altered" in note for note in record["notes"])
    assert all(torch.equal(first[name], value) for name, value in weights(output_dir).items())


def test_an_error_is_one_message(flags, teacher, tmp_path):
    done = run_program(RECIPE, [*flags, "--teacher_name_or_path", teacher, "--alpha", "2"])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("run_distillation.py: error: alpha is 2.0")


def test_an_unfinished_teacher_of_other_settings_is_not_taken(distil, tiny_bert, output_dir, tmp_path):
    distil("--teacher_name_or_path", tiny_bert)
    rows = json.loads((tmp_path / "test.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps(rows[1:]))
    with pytest.raises((ConfigurationError, DataError), match="begun with other values of data"):
        distil("--teacher_name_or_path", tiny_bert, "--resume_from_checkpoint", "true")
