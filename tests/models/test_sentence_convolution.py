"""The largest responses by one matrix product, against `conv1d` in float64."""

import pytest
import torch
import torch.nn.functional as F

from hf_ext import TextCNNConfig, TextCNNForSequenceClassification
from hf_ext.models import sentence_convolution
from hf_ext.models.sentence_convolution import largest_responses, pack


def by_conv1d(vectors, ends, weights):
    """All windows from the widest filter's number of zeros less one before the text to its last token."""
    margin = max(weight.shape[2] for weight in weights) - 1
    padded = F.pad(vectors.transpose(1, 2), (margin, margin))
    found = []
    for weight in weights:
        responses = F.conv1d(padded, weight)
        starts = torch.arange(responses.shape[2])
        beyond = (starts >= margin + ends.unsqueeze(1)) & (starts > 0)
        found.append(responses.masked_fill(beyond.unsqueeze(1), float("-inf")).amax(dim=2))
    return found


def in_one_row(vectors, ends, weights):
    """[`largest_responses`] of padded vectors."""
    mask = torch.arange(vectors.shape[1]) < ends.unsqueeze(1)
    rows = torch.arange(mask.numel()).view(mask.shape)
    places, tokens, lengths = pack(rows, mask, max(weight.shape[2] for weight in weights) - 1)
    return largest_responses(vectors.flatten(0, 1)[places] * tokens.unsqueeze(1), lengths, weights)


@pytest.fixture(params=[(3, 4, 5), (1, 2), (2, 2, 3), (4,), (1,)], ids=str)
def sizes(request):
    return request.param


@pytest.mark.parametrize("chunk", [1, 300, 10**9])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_values_and_gradients_are_those_of_conv1d(monkeypatch, sizes, chunk, length):
    monkeypatch.setattr(sentence_convolution, "CHUNK_VALUES", chunk)
    generator = torch.Generator().manual_seed(length)
    ends = torch.tensor([length, max(0, length - 2), 1, 0, length])
    inside = torch.arange(length) < ends.unsqueeze(1)
    given = torch.randn(5, length, 6, generator=generator) * inside.unsqueeze(2)
    kernels = [torch.randn(7, 6, size, generator=generator) for size in sizes]
    factors = [torch.randn(5, 7, generator=generator) for _ in sizes]
    results = []
    for function, dtype in ((in_one_row, torch.float32), (by_conv1d, torch.float64)):
        vectors = given.detach().to(dtype, copy=True).requires_grad_()
        weights = [kernel.to(dtype, copy=True).requires_grad_() for kernel in kernels]
        found = function(vectors, ends, weights)
        sum((value * factor).sum() for value, factor in zip(found, factors, strict=True)).backward()
        # What is no token gets no gradient in the model, whose mask is a factor of the vectors.
        results.append([*found, vectors.grad * inside.unsqueeze(2), *(weight.grad for weight in weights)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-5)


def test_vectors_that_are_fixed_need_no_gradient():
    weights = [torch.randn(2, 3, 2, requires_grad=True)]
    in_one_row(torch.randn(1, 4, 3), torch.tensor([4]), weights)[0].sum().backward()
    assert weights[0].grad.abs().sum() > 0


@pytest.mark.parametrize("variant", ["rand", "static", "multichannel"])
def test_a_model_answers_alike_in_both_number_formats(variant):
    torch.manual_seed(0)
    config = TextCNNConfig(vocab_size=30, embed_size=6, num_filters=4, variant=variant, dropout_prob=0.0)
    model = TextCNNForSequenceClassification(config).eval()
    ids = torch.tensor([[4, 5, 6, 7, 8, 9], [5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [4, 0, 6, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]])
    single = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(
        single.double(), model.double()(input_ids=ids, attention_mask=mask).logits, atol=1e-6, rtol=1e-5
    )


def test_other_formats_and_traces_take_the_convolution(monkeypatch):
    def refuse(*_):
        raise AssertionError("not here")

    monkeypatch.setattr("hf_ext.models.modeling_textcnn.largest_responses", refuse)
    model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=30, embed_size=6, num_filters=4)).eval()
    ids = torch.tensor([[4, 5, 6]])
    with pytest.raises(AssertionError, match="not here"):
        model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids)
    torch.export.export(model, (ids,))
    with torch.no_grad():
        model(ids)
        with pytest.raises(AssertionError, match="not here"):
            model(ids.repeat(8, 1))
    model.double()(ids)
