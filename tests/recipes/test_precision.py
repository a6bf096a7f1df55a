"""The flags of number formats, compilation and memory through a recipe."""

import json

import pytest
from safetensors.torch import load_file

FAST = ["--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--disable_tqdm", "true", "--use_cpu", "true"]
FAST += ["--report_to", "none", "--preflight", "off", "--save_strategy", "no", "--logging_steps", "1"]
FLAGS = {
    "plain": ["--mixed_precision", "no"],
    "bf16": ["--bf16", "true"],
    "compiled": ["--mixed_precision", "no", "--torch_compile", "true", "--torch_compile_backend", "aot_eager"],
    "checkpointed": ["--mixed_precision", "no", "--activation_checkpointing", "true"],
}


@pytest.fixture
def run(run_classification, write_data, tiny_bert, tmp_path, monkeypatch):
    # The library tells accelerate by the environment.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")

    def run(name):
        monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
        flags = [*FAST, *FLAGS[name], *write_data(train=48, test=16), "--output_dir", str(tmp_path / name)]
        run_classification(["--model_name_or_path", tiny_bert, *flags])
        return (
            json.loads((tmp_path / name / "all_results.json").read_text()),
            load_file(tmp_path / name / "model.safetensors"),
        )

    return run


@pytest.mark.parametrize("name", ["bf16", "compiled", "checkpointed"])
def test_the_run_is_the_plain_one(run, name, capsys):
    plain, flagged = run("plain"), run(name)
    for metric in ("train_loss", "eval_loss", "test_loss"):
        assert flagged[0][metric] == pytest.approx(plain[0][metric], rel=0.02)
    assert {key: (value.shape, value.dtype) for key, value in flagged[1].items()} == {
        key: (value.shape, value.dtype) for key, value in plain[1].items()
    }
    assert ("The run is in bf16 mixed precision." in capsys.readouterr().out) == (name == "bf16")
