"""What a push of an adapter is refused for."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_ext import plan_push


@pytest.mark.parametrize(
    "base, message",
    [
        (None, "it names no base model"),
        ("/home/me/bert", r"a folder of this machine \(/home/me/bert\) as the adapter's base model"),
        ("me/bert", None),
    ],
)
def test_the_base_model_has_to_be_on_the_hub(tmp_path, base, message):
    settings = {"peft_type": "LORA", "base_model_name_or_path": base}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    plan = plan_push(tmp_path)
    assert [found.kind for found in plan.findings] == ([] if message is None else ["base model"])
    if message is not None:
        with pytest.raises(ValueError, match=f"{message}.*base_model_name_or_path"):
            plan.raise_if_refused()
