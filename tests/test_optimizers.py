from copy import deepcopy

import pytest
import runs
import torch
from torch import nn

from hf_ext import SparseAdamW
from hf_ext.optimizers import MIN_ROWS, clip_mixed_grad_norm_, coalesce_grads_, large_embeddings

ROWS, WIDTH = 12, 4


def weights(optimizer_cls, batches, sparse, **kwargs):
    """Train an embedding to hit random targets; batch by batch, the ids in it."""
    torch.manual_seed(0)
    embedding = nn.Embedding(ROWS, WIDTH, sparse=sparse)
    targets = torch.randn(ROWS, WIDTH)
    optimizer = optimizer_cls(embedding.parameters(), **{"lr": 0.01, **kwargs})
    for ids in batches:
        ids = torch.tensor(ids)
        (embedding(ids) - targets[ids]).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return embedding.weight.detach()


def row_by_row(batches, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """The update as the docstring states it, one row and one step at a time, with dense bookkeeping."""
    torch.manual_seed(0)
    table = nn.Embedding(ROWS, WIDTH).weight.detach().clone()
    targets = torch.randn(ROWS, WIDTH)
    second, pending_decay = torch.zeros(ROWS, WIDTH), torch.zeros(ROWS, dtype=torch.int)
    motion = sum((1 - betas[0]) * (betas[0] / betas[1] ** 0.5) ** k for k in range(2000))
    for step, ids in enumerate(batches, start=1):
        second *= betas[1]
        pending_decay += 1
        for row in set(ids):
            gradient = 2 * (table[row] - targets[row]) * ids.count(row)
            second[row] += (1 - betas[1]) * gradient**2
            denominator = (second[row] / (1 - betas[1] ** step)).sqrt() + eps
            table[row] *= (1 - lr * weight_decay) ** pending_decay[row].item()
            pending_decay[row] = 0
            table[row] -= lr * motion * gradient / denominator
    return table


def test_equals_the_update_it_states():
    batches = [[0, 1, 1], [2, 0], [5], [5, 5, 7], [0], [11, 3], [1]] * 3
    torch.testing.assert_close(weights(SparseAdamW, batches, sparse=True), row_by_row(batches), rtol=1e-4, atol=1e-6)


def test_rows_that_are_never_seen_stay():
    torch.manual_seed(0)
    before = nn.Embedding(ROWS, WIDTH).weight.detach().clone()
    after = weights(SparseAdamW, [[1, 2], [2]], sparse=True)
    moved = (after != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [1, 2]


def test_a_rare_row_goes_as_far_as_with_dense_adamw():
    # Row 0 is seen in step 100 only; dense AdamW moves it until its first moment has faded.
    batches = [[1]] * 99 + [[0, 1]] + [[1]] * 150
    torch.manual_seed(0)
    start = nn.Embedding(ROWS, WIDTH).weight.detach()[0].clone()
    options = {"weight_decay": 0.0, "lr": 1e-3}
    dense = weights(torch.optim.AdamW, batches, sparse=False, **options)[0] - start
    ours = weights(SparseAdamW, batches, sparse=True, **options)[0] - start
    lazy = weights(torch.optim.SparseAdam, batches, sparse=True, lr=1e-3)[0] - start
    # Not equal: AdamW's correction of the second moment still changes while the row moves on.
    torch.testing.assert_close(ours, dense, rtol=0.05, atol=0)
    # Why the usual lazy Adam is not used.
    assert lazy.norm() < 0.15 * dense.norm()


def test_dense_gradients_get_adamw():
    batches = [[0, 1], [2]]
    assert torch.equal(weights(SparseAdamW, batches, False), weights(torch.optim.AdamW, batches, False))


def test_state_survives_a_checkpoint():
    torch.manual_seed(0)
    model, copy = nn.Embedding(ROWS, WIDTH, sparse=True), nn.Embedding(ROWS, WIDTH, sparse=True)
    optimizer = SparseAdamW(model.parameters(), lr=0.1)

    def step(embedding, optimizer, ids):
        embedding(torch.tensor(ids)).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(model, optimizer, [0, 1])
    step(model, optimizer, [1])
    copy.load_state_dict(model.state_dict())
    other = SparseAdamW(copy.parameters(), lr=0.1)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    step(model, optimizer, [0, 2])
    step(copy, other, [0, 2])
    assert torch.equal(model.weight, copy.weight)


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_options_it_does_not_have_are_refused(option):
    with pytest.raises(ValueError, match=option):
        SparseAdamW([nn.Parameter(torch.zeros(1))], **{option: True})


@pytest.mark.parametrize("max_norm", [0.1, 1e6, float("inf")])
def test_clipping_equals_that_of_dense_gradients(max_norm):
    torch.manual_seed(0)
    ids = torch.tensor([3, 3, 1])
    grads, norms = [], []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(ROWS, WIDTH, sparse=sparse), nn.Linear(WIDTH, 2), nn.Linear(2, 1))
        model[2].weight.requires_grad_(False)
        model(ids).pow(2).sum().backward()
        clip = clip_mixed_grad_norm_ if sparse else nn.utils.clip_grad_norm_
        norms.append(clip(model.parameters(), max_norm))
        grads.append([p.grad.to_dense() if p.grad.is_sparse else p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(norms[0], norms[1])
    for dense, sparse in zip(*grads, strict=True):
        torch.testing.assert_close(dense, sparse)


def test_rows_of_several_backward_passes_are_added_up():
    embeddings = [
        nn.Embedding.from_pretrained(torch.ones(ROWS, WIDTH), freeze=False, sparse=kind) for kind in (False, True)
    ]
    for ids in ([3, 3, 1], [1, 5], [3, 5]):
        for embedding in embeddings:
            (embedding(torch.tensor(ids)) * torch.arange(1.0, WIDTH + 1)).sum().backward()
    dense, sparse = (embedding.weight for embedding in embeddings)
    coalesce_grads_([dense, sparse, nn.Parameter(torch.ones(1))])
    assert sparse.grad._nnz() == 3
    torch.testing.assert_close(sparse.grad.to_dense(), dense.grad)


def test_which_embeddings_are_worth_it():
    model = nn.ModuleDict(
        {
            "large": nn.Embedding(MIN_ROWS, 2),
            "small": nn.Embedding(MIN_ROWS - 1, 2),
            "frozen": nn.Embedding(MIN_ROWS, 2),
            "tied": nn.Embedding(MIN_ROWS, 2),
            "head": nn.Linear(2, MIN_ROWS, bias=False),
        }
    )
    model["frozen"].weight.requires_grad_(False)
    model["head"].weight = model["tied"].weight
    assert large_embeddings(model) == [model["large"]]


def test_the_rows_of_a_gradient_do_not_grow_with_the_micro_batches(tmp_path):
    case = runs.Case(str(tmp_path), model="textcnn", rows=64, batch_size=8, accumulation=4)
    trainer, lengths = runs.make_trainer(case), []
    step = trainer.training_step

    def watched_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        grad = trainer.model.encoder.embeddings.word_embeddings.weight.grad
        lengths.append((grad._nnz(), len(grad.coalesce().indices()[0])))
        return loss

    trainer.training_step = watched_step
    trainer.train()
    assert len(lengths) == 16 and all(rows == distinct for rows, distinct in lengths)
