"""Models with an adapter. Apart from the tests, so that the processes of a run can import it."""

from peft import LoraConfig
from runs import Case, make_model

from hf_ext import add_adapter


def adapted_model(case: Case) -> dict:
    return {"model": add_adapter(make_model(case), LoraConfig(r=4, lora_dropout=case.dropout))}


def merged_model(case: Case) -> dict:
    return {**adapted_model(case), "merge_adapter": True}
