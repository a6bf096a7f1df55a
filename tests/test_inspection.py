"""A model and its gradients as tables, against loops over the parameters."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hf_ext import (
    TextCNNConfig,
    TextCNNForSequenceClassification,
    freeze_parameters,
    gradient_facts,
    gradient_norms,
    gradient_table,
    model_summary,
    parameter_counts,
)

BERT = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
BATCH = {"input_ids": torch.tensor([[4, 5, 6, 7, 8]]), "labels": torch.tensor([1])}


@pytest.fixture(params=["bert", "textcnn"])
def model(request):
    torch.manual_seed(0)
    if request.param == "bert":
        return BertForSequenceClassification(BertConfig(**BERT))
    return TextCNNForSequenceClassification(TextCNNConfig(vocab_size=30, embed_size=8, num_filters=2))


@pytest.mark.parametrize("sparse", [False, True])
def test_facts_are_those_of_each_gradient(model, sparse):
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.sparse = sparse and module.num_embeddings == 30
    model(**BATCH).loss.backward()
    facts = {fact.name: fact for fact in gradient_facts(model)}
    for name, parameter in model.named_parameters():
        grad = parameter.grad.to_dense()
        assert facts[name].norm == pytest.approx(float(grad.norm()), rel=1e-5)
        assert facts[name].largest == pytest.approx(float(grad.abs().max()))
        assert facts[name].zeros == pytest.approx(float((grad == 0).float().mean()), abs=1e-6)
        assert facts[name].nonfinite == 0 and facts[name].shape == tuple(parameter.shape)
    total = sum(norm**2 for norm in gradient_norms(model).values()) ** 0.5
    assert total == pytest.approx(
        sum(float(p.grad.to_dense().norm()) ** 2 for p in model.parameters()) ** 0.5, rel=1e-5
    )


def test_the_table_shows_what_is_wrong(model):
    model(**BATCH).loss.backward()
    name, parameter = list(model.named_parameters())[-1]
    parameter.grad[0] = torch.nan
    line = next(line for line in gradient_table(model).splitlines() if line.startswith(name))
    assert line.split()[2:] == ["nan", "nan", "0.0", "%", "1"]
    model.zero_grad()
    count = len(list(model.parameters()))
    assert gradient_table(model).splitlines()[-1] == f"{count} parameters have no gradient."
    assert gradient_norms(model) == {}


def test_the_summary_counts_everything(model):
    freeze_parameters(model, ["embeddings"])
    lines = {line.split()[0]: line.split() for line in model_summary(model).splitlines()}
    sizes = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert lines["all"][1:4] == [str(len(sizes)), f"{sum(sizes):,}", f"{sum(trained):,}"]
    assert lines["embeddings"][3] == "0" and lines["all"][5:] == ["float32", "cpu"]
    assert lines["all"][4] == f"{4 * sum(sizes) / 1e6:.2f}"
    assert parameter_counts(model) == {"parameters": sum(sizes), "trainable_parameters": sum(trained)}
