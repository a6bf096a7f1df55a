"""What is refused before a run that could not be compiled, or would not be what it says."""

import logging

import pytest
from torch._inductor import config, cpp_builder
from transformers import TrainingArguments

from hf_ext import ConfigurationError, ModelArguments, load_config
from hf_ext.compilation import check_compilation
from hf_ext.precision import check_precision


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    # The library tells accelerate by the environment.
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):
        monkeypatch.setenv(name, "no")
        monkeypatch.delenv(name)
    return lambda **more: TrainingArguments(str(tmp_path / "out"), use_cpu=True, **more)


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    yield
    cpp_builder.cpp_compiler_search.cache_clear()


def test_an_unknown_backend(arguments):
    with pytest.raises(ConfigurationError, match=r"torch_compile_backend is 'inducter'; it must be one of .*inductor"):
        check_compilation(arguments(torch_compile_backend="inducter"))


def test_without_a_compiler(arguments, without_compiler):
    with pytest.raises(ConfigurationError, match=r"needs a C\+\+ compiler.*Install g\+\+"):
        check_compilation(arguments(torch_compile=True))
    check_compilation(arguments(torch_compile=True, torch_compile_backend="aot_eager"))
    check_compilation(arguments())


def test_fp16_on_a_cpu(arguments):
    with pytest.raises(ConfigurationError, match="fp16=True needs a GPU; this run is on a CPU"):
        check_precision(arguments(fp16=True))
    check_precision(arguments(bf16=True))


def test_code_that_comes_with_a_model_is_said(tmp_path, caplog):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").touch()
    for trusted, said in ((False, 0), (True, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hf_ext"):
            load_config(ModelArguments(model_name_or_path=str(tmp_path), trust_remote_code=trusted))
        assert [record.getMessage() for record in caplog.records] == [
            f"trust_remote_code is on: Python files that come with {tmp_path} are run on this machine."
        ] * said
