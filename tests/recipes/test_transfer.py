"""Transfer-learning techniques by flags: what they leave, what they refuse, and that refusing leaves nothing."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from hf_ext import ConfigurationError, UsageError

ROOT = Path(__file__).parents[2]
QUICK = ["--num_train_epochs", "2", "--per_device_train_batch_size", "16", "--logging_steps", "1"]


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def train(run_classification, write_data, output_dir, tiny_bert):
    """Run the recipe on a tiny BERT: 9 steps an epoch."""
    base = ["--model_name_or_path", tiny_bert, *write_data(), "--output_dir", str(output_dir), "--use_cpu", "true"]

    def run(*flags):
        run_classification([*base, *QUICK, *map(str, flags)])
        return json.loads((output_dir / "run.json").read_text())

    return run


def history(output_dir):
    return json.loads((output_dir / "trainer_state.json").read_text())["log_history"]


def test_ulmfit_by_flags(train, output_dir):
    train(
        *("--unfreezing", "steps", "--unfreezing_interval", 4, "--layerwise_lr_decay", 2.6),
        *("--lr_scheduler_type", "slanted_triangular", "--learning_rate", 1e-3),
    )
    logs = [log for log in history(output_dir) if "loss" in log]
    assert [log["unfreezing/depth"] for log in logs] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 6
    for log in logs:
        assert log["learning_rate/layer.1"] == pytest.approx(log["learning_rate/head"] / 2.6)
        assert log["learning_rate/embeddings"] == pytest.approx(log["learning_rate/head"] / 2.6**3)
    # cut_frac 0.1 of 18 steps is 1; ratio 32.
    assert [logs[0]["learning_rate"], logs[1]["learning_rate"]] == pytest.approx([1e-3 / 32, 1e-3])
    report = (output_dir / "report.html").read_text()
    assert "data:image/png;base64," in report
    assert "head from step 0; layer.1 from step 4; layer.0 from step 8; embeddings from step 12" in report
    with Image.open(output_dir / "unfreezing.png") as image:
        assert image.format == "PNG" and min(image.size) > 100


def test_early_stopping_by_flags(train, output_dir):
    train(
        *("--eval_steps", 2, "--early_stopping_patience", 2, "--early_stopping_threshold", 100),
        *("--early_stopping_metric", "accuracy"),
    )
    # The evaluation of step 2 sets the reference; those of 4 and 6 gain nothing.
    assert json.loads((output_dir / "trainer_state.json").read_text())["global_step"] == 6
    assert "eval_accuracy did not gain more than 100" in (output_dir / "training.log").read_text()


def test_learning_rate_auto_is_found_recorded_and_kept_on_resume(train, output_dir, capsys):
    flags = ("--learning_rate", "auto", "--lr_finder_start", 1e-5, "--lr_finder_num_iter", 60, "--save_steps", 9)
    flags += ("--save_strategy", "steps")
    record = train(*flags)
    found = json.loads((output_dir / "lr_finder.json").read_text())
    rate = found["suggestions"]["valley"]
    assert record["arguments"]["training"]["learning_rate"] == rate
    assert history(output_dir)[0]["learning_rate"] == pytest.approx(rate)
    assert f"The learning rate {rate:.3g} is what the learning-rate finder suggests" in capsys.readouterr().out
    assert "Learning-rate range test" in (output_dir / "report.html").read_text()
    with Image.open(output_dir / "lr_finder.png") as image:
        assert image.format == "PNG"
    again = train(*flags, "--resume_from_checkpoint", output_dir / "checkpoint-9")
    assert again["arguments"]["training"]["learning_rate"] == rate
    assert "was found when the run began" in capsys.readouterr().out


def test_what_is_found_is_the_rate_of_the_fastest_group(train, output_dir):
    train(
        *("--learning_rate", "auto", "--lr_finder_start", 1e-5, "--lr_finder_num_iter", 60),
        *("--learning_rate_scales", '{"head": 10}'),
    )
    rate = json.loads((output_dir / "lr_finder.json").read_text())["suggestions"]["valley"]
    first = history(output_dir)[0]
    assert first["learning_rate/head"] == pytest.approx(rate)
    assert first["learning_rate/layer.0"] == pytest.approx(rate / 10)


def test_a_range_test_alone(run_lr_finder, write_data, output_dir, tiny_bert, capsys):
    flags = ["--model_name_or_path", tiny_bert, *write_data(), "--output_dir", str(output_dir), "--use_cpu", "true"]
    flags += ["--lr_finder_start", "1e-5", "--lr_finder_num_iter", "60", "--per_device_train_batch_size", "16"]
    run_lr_finder([*flags, "--dry_run"])
    assert not output_dir.exists() or not any(output_dir.iterdir())
    run_lr_finder(flags)
    assert sorted(path.name for path in output_dir.iterdir()) == ["lr_finder.json", "lr_finder.png"]
    found = json.loads((output_dir / "lr_finder.json").read_text())
    assert len(found["history"]["lr"]) == len(found["history"]["loss"]) <= 60
    shown = capsys.readouterr().out
    for method, rate in found["suggestions"].items():
        assert re.search(rf"{re.escape(method)} +{rate:.3g}\n", shown)
    with pytest.raises(ConfigurationError, match="holds another run"):
        run_lr_finder(flags)
    assert "no usable slope" not in shown
    run_lr_finder([*flags, "--overwrite", "--lr_finder_end", "1.1e-5", "--lr_finder_num_iter", "20"])
    shown = capsys.readouterr().out
    assert "valley      no usable slope" in shown
    assert "The range test has no usable slope from lr 1e-05 to 1.1e-05: " in shown and "larger batches" in shown


REFUSED = {
    "never trained": (["--unfreezing", "epochs"], r"training ends after 18 steps, so layer.0, embeddings would never"),
    "no pattern": (
        ["--unfreezing", "epochs", "--unfreezing_stages", '{"0": ["head", "layer.7"]}'],
        "'layer.7' matches no",
    ),
    "no head": (["--unfreezing", "epochs", "--unfreezing_stages", '{"0": ["layer.0"]}'], "no stage unfreezes the head"),
    "no stage at 0": (["--unfreezing", "steps", "--unfreezing_stages", '{"1": ["head"]}'], "no stage begins at 0"),
    "no interval": (["--unfreezing", "steps"], "unit=steps needs an interval"),
    "interval alone": (["--unfreezing_interval", "2"], "unfreezing_interval would have no effect"),
    "factor for divisor": (["--layerwise_lr_decay", "0.8"], "a divisor of 1.25"),
    "no such layer": (["--learning_rate_scales", '{"pooling": 2}'], "'pooling' matches no parameter"),
    "warm-up twice": (["--lr_scheduler_type", "slanted_triangular", "--warmup_steps", "5"], "rise of its own"),
    "cut_frac": (
        ["--lr_scheduler_type", "slanted_triangular", "--lr_scheduler_kwargs", '{"cut_frac": 2}'],
        "cut_frac is 2",
    ),
    "kwarg": (["--lr_scheduler_type", "cyclical_triangular", "--lr_scheduler_kwargs", '{"cycles": 2}'], "cycles"),
    "metric": (["--early_stopping_patience", "2", "--early_stopping_metric", "acuracy"], "accuracy"),
    "nothing to watch": (["--early_stopping_patience", "2", "--validation_size", "0"], "eval"),
    "no effect": (["--early_stopping_min_epochs", "2"], "early_stopping_min_epochs"),
    "reversed": (["--learning_rate", "auto", "--lr_finder_start", "1", "--lr_finder_end", "1e-7"], "reversed"),
    "too short": (["--learning_rate", "auto", "--lr_finder_num_iter", "3"], "lr_finder_num_iter is 3"),
    "absolute head": (["--learning_rate", "auto", "--head_learning_rate", "1e-3"], "head_learning_rate"),
    "no slope": (
        ["--learning_rate", "auto", "--lr_finder_end", "1e-6", "--lr_finder_num_iter", "20"],
        "no usable slope",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(train, output_dir, name):
    flags, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        train(*flags)
    assert not output_dir.exists() or not any(output_dir.iterdir())


def test_an_earlier_run_survives_a_refused_one(train, output_dir):
    def files():
        # The log is still open in this process.
        paths = [path for path in output_dir.rglob("*") if path.is_file() and path.name != "training.log"]
        return {path: path.read_bytes() for path in paths}

    train()
    before = files()
    with pytest.raises(ConfigurationError, match="would never be trained"):
        train("--overwrite", "--unfreezing", "epochs")
    assert len(before) > 10 and files() == before


def test_resume_with_another_schedule_is_refused_unless_forced(train, output_dir):
    saving = ("--save_strategy", "steps", "--save_steps", 9)
    train("--unfreezing", "steps", "--unfreezing_interval", 4, *saving)
    changed = ("--unfreezing", "steps", "--unfreezing_interval", 5, *saving)
    changed += ("--resume_from_checkpoint", output_dir / "checkpoint-9")
    with pytest.raises(ConfigurationError, match=r"unfreezing_interval \(4.0 then, 5.0 now\)"):
        train(*changed)
    with pytest.raises(ConfigurationError, match=r"unfreezing \(steps then, None now\)"):
        train(*saving, "--resume_from_checkpoint", output_dir / "checkpoint-9")
    train(*changed, "--allow_changed_unfreezing")
    assert [log["unfreezing/depth"] for log in history(output_dir) if "loss" in log][9:] == [2, 3, 3, 3, 3, 3, 4, 4, 4]


def test_the_example_configuration_runs(run_classification, output_dir, tiny_bert):
    run_classification(
        [
            str(ROOT / "configs/classification/ulmfit.json"),
            *("--model_name_or_path", tiny_bert, "--output_dir", str(output_dir), "--use_cpu", "true"),
            *("--shuffle_train_dataset", "true", "--max_train_samples", "320", "--max_predict_samples", "50"),
            *("--logging_steps", "5"),
        ]
    )
    assert (output_dir / "unfreezing.png").is_file()
    assert any("learning_rate/layer.1" in log for log in history(output_dir))


@pytest.mark.parametrize("recipe", ["run_classification", "run_lr_finder"])
def test_help_has_a_section_for_each_technique(recipe, request, capsys):
    with pytest.raises(SystemExit):
        request.getfixturevalue(recipe)(["--help"])
    shown = capsys.readouterr().out
    for section in ("gradual unfreezing", "discriminative learning rates", "learning rate finder", "early stopping"):
        assert f"\n{section}:\n" in shown
