"""The losses of distillation against loops over rows and classes, against torch, and their gradients by differences."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, log_softmax, softmax
from scipy.stats import entropy

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.losses import (
    distillation_loss,
    hard_target_loss,
    hidden_state_loss,
    labelled_rows,
    soft_target_loss,
)

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEMS = (SINGLE, MULTI, REGRESSION)
KINDS = ("kl", "mse")


def random_logits(rows=6, classes=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(rows, classes, generator=generator, dtype=dtype)
    teacher = 3 * torch.randn(rows, classes, generator=generator, dtype=dtype)
    return student, teacher


def random_labels(problem_type, rows, classes, seed=0):
    """Rows 1 and 4 have no label; of several labels one entry of row 1 is missing."""
    generator = np.random.default_rng(seed)
    if problem_type == SINGLE:
        labels = torch.from_numpy(generator.integers(0, classes, rows))
        labels[[1, 4]] = -100
    elif problem_type == MULTI:
        labels = torch.from_numpy(generator.integers(0, 2, (rows, classes)).astype(np.float64))
        labels[1, 0] = math.nan
        labels[4] = math.nan
    else:
        labels = torch.from_numpy(generator.normal(size=rows))
        labels[[1, 4]] = math.nan
    return labels


# ---- The same, row by row and class by class ----


def soft_row(student, teacher, problem_type, temperature, kind):
    if problem_type == REGRESSION or kind == "mse":
        return sum((s - t) ** 2 for s, t in zip(student, teacher, strict=True)) / len(student)
    if problem_type == SINGLE:
        return temperature**2 * entropy(softmax(teacher / temperature), softmax(student / temperature))
    total = 0.0
    for s, t in zip(expit(student / temperature), expit(teacher / temperature), strict=True):
        total += entropy([t, 1 - t], [s, 1 - s])
    return temperature**2 * total / len(student)


def hard_row(logits, label, problem_type, smoothing=0.0):
    if np.isnan(label).any() or (problem_type == SINGLE and label == -100):
        return None
    if problem_type == SINGLE:
        target = np.full(len(logits), smoothing / len(logits))
        target[int(label)] += 1 - smoothing
        return -(target * log_softmax(logits)).sum()
    if problem_type == REGRESSION:
        return ((logits - label) ** 2).mean()
    p = expit(logits)
    return -(label * np.log(p) + (1 - label) * np.log(1 - p)).mean()


def reference(student, teacher, labels, problem_type, temperature, alpha, kind, smoothing=0.0):
    total = 0.0
    for s, t, label in zip(student.numpy(), teacher.numpy(), labels.numpy(), strict=True):
        soft, hard = soft_row(s, t, problem_type, temperature, kind), hard_row(s, label, problem_type, smoothing)
        total += soft if hard is None else alpha * soft + (1 - alpha) * hard
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_soft_loss_is_the_loop(problem_type, kind, temperature):
    student, teacher = random_logits(classes=1 if problem_type == REGRESSION else 4)
    losses = soft_target_loss(student, teacher, problem_type, temperature, kind)
    expected = [
        soft_row(s, t, problem_type, temperature, kind) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)
    ]
    assert losses.shape == (6,)
    assert losses.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_distillation_loss_is_the_loop(problem_type, kind, alpha):
    student, teacher = random_logits(classes=1 if problem_type == REGRESSION else 4)
    labels = random_labels(problem_type, *student.shape)
    smoothing = 0.2 if problem_type == SINGLE else 0.0
    loss = distillation_loss(student, teacher, labels, problem_type, 3.0, alpha, kind, smoothing)
    expected = reference(student, teacher, labels, problem_type, 3.0, alpha, kind, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_gradients_are_those_of_differences(problem_type, kind):
    student, teacher = random_logits(classes=1 if problem_type == REGRESSION else 4)
    labels = random_labels(problem_type, *student.shape)
    smoothing = 0.1 if problem_type == SINGLE else 0.0
    assert torch.autograd.gradcheck(
        lambda logits: distillation_loss(logits, teacher, labels, problem_type, 3.0, 0.6, kind, smoothing),
        student.requires_grad_(),
    )


def test_the_defaults_are_the_guides():
    student, teacher = random_logits()
    labels = random_labels(SINGLE, *student.shape)
    expected = reference(student, teacher, labels, SINGLE, 4.0, 0.7, "kl")
    assert distillation_loss(student, teacher, labels, SINGLE).item() == pytest.approx(expected)


def test_alpha_weighs_the_soft_term():
    student, teacher = random_logits()
    labels = random_labels(SINGLE, *student.shape)
    soft_only = soft_target_loss(student, teacher, SINGLE).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, labels, SINGLE, alpha=1.0), soft_only)
    labelled = labelled_rows(labels)
    hard_only = distillation_loss(student[labelled], teacher[labelled], labels[labelled], SINGLE, alpha=0.0)
    torch.testing.assert_close(hard_only, F.cross_entropy(student, labels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_equal_logits_cost_nothing(problem_type, kind):
    _, teacher = random_logits(dtype=torch.float32)
    student = teacher.clone().requires_grad_()
    losses = soft_target_loss(student, teacher, problem_type, 2.0, kind)
    losses.sum().backward()
    torch.testing.assert_close(losses, torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(student.grad, torch.zeros(6, 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_at_a_high_temperature_kl_is_half_the_mse_of_centred_logits(classes):
    student, teacher = random_logits(rows=50, classes=classes)
    difference = student - teacher
    centred = (difference - difference.mean(dim=1, keepdim=True)).pow(2).mean(dim=1)
    torch.testing.assert_close(soft_target_loss(student, teacher, SINGLE, 1e4), centred / 2, rtol=1e-2, atol=1e-6)
    shifted = soft_target_loss(student + 5, teacher, SINGLE, 4.0)
    torch.testing.assert_close(shifted, soft_target_loss(student, teacher, SINGLE, 4.0))


def test_two_classes_differ_little_above_a_temperature_of_4():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 200, 2, generator=generator, dtype=torch.float64)
    at = {t: soft_target_loss(student, teacher, SINGLE, t).mean().item() for t in (1.0, 4.0, 64.0)}
    assert at[4.0] == pytest.approx(at[64.0], rel=0.05)
    assert at[1.0] != pytest.approx(at[64.0], rel=0.15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_short_formats_are_widened_first(dtype):
    student, teacher = (logits.to(dtype) for logits in random_logits())
    loss = distillation_loss(student, teacher, random_labels(SINGLE, 6, 4), SINGLE)
    assert loss.dtype == torch.float32
    wide = distillation_loss(student.double(), teacher.double(), random_labels(SINGLE, 6, 4), SINGLE)
    assert loss.item() == pytest.approx(wide.item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_extreme_logits_stay_finite(problem_type, kind):
    student = torch.tensor([[300.0, -300.0, 0.0], [-80.0, 80.0, 80.0]], requires_grad=True)
    teacher = torch.tensor([[-300.0, 300.0, 0.0], [80.0, -80.0, 0.0]])
    loss = soft_target_loss(student, teacher, problem_type, 1.0, kind).sum()
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


# ---- Labels ----


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_hard_loss_is_that_of_the_librarys_heads(problem_type):
    from transformers import BertConfig, BertForSequenceClassification

    classes = 1 if problem_type == REGRESSION else 3
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=classes,
        problem_type=problem_type,
    )
    labels = random_labels(problem_type, 6, classes)[[0, 2, 3, 5]]
    labels = labels.float() if labels.is_floating_point() else labels
    output = BertForSequenceClassification(config).eval()(torch.randint(0, 20, (4, 5)), labels=labels)
    losses, labelled = hard_target_loss(output.logits, labels, problem_type)
    assert labelled.all()
    torch.testing.assert_close(losses.mean(), output.loss)


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_rows_without_labels_leave_no_trace(problem_type):
    classes = 1 if problem_type == REGRESSION else 4
    logits = random_logits(classes=classes)[0].requires_grad_()
    labels = random_labels(problem_type, 6, classes)
    losses, labelled = hard_target_loss(logits, labels, problem_type)
    losses.sum().backward()
    assert labelled.tolist() == labelled_rows(labels).tolist() == [True, False, True, True, False, True]
    assert losses[[1, 4]].tolist() == [0, 0]
    assert logits.grad.isfinite().all()
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == labelled.tolist()


@pytest.mark.parametrize("labels_given", [True, False])
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_a_batch_without_labels_is_the_teachers_alone(problem_type, labels_given):
    classes = 1 if problem_type == REGRESSION else 4
    student, teacher = random_logits(classes=classes)
    student.requires_grad_()
    labels = random_labels(problem_type, 6, classes)[[1, 4, 4, 4, 4, 4]] if labels_given else None
    if problem_type == MULTI and labels_given:
        labels[0] = torch.tensor([math.nan, 1.0, 0.0, 1.0])
    loss = distillation_loss(student, teacher, labels, problem_type, 2.0, 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(soft_target_loss(student, teacher, problem_type, 2.0).mean().item())
    assert student.grad.isfinite().all()
    assert (student.grad != 0).any()


def test_smoothing_is_torchs_and_of_the_hard_term_only():
    student, teacher = random_logits()
    labels = random_labels(SINGLE, *student.shape)
    losses, _ = hard_target_loss(student, labels, SINGLE, 0.3)
    expected = F.cross_entropy(student, labels, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(losses, expected)
    smoothed = distillation_loss(student, teacher, labels, SINGLE, alpha=1.0, label_smoothing=0.3)
    torch.testing.assert_close(smoothed, distillation_loss(student, teacher, labels, SINGLE, alpha=1.0))


def test_values_may_stand_in_a_column():
    logits = random_logits(classes=1)[0]
    labels = random_labels(REGRESSION, 6, 1)
    flat, column = hard_target_loss(logits, labels, REGRESSION), hard_target_loss(logits, labels[:, None], REGRESSION)
    torch.testing.assert_close(flat, column)


def test_what_does_not_fit_is_refused():
    student, teacher = random_logits()
    with pytest.raises(DataError, match=r"\(6, 4\), the teacher's \(6, 3\)"):
        soft_target_loss(student, teacher[:, :3], SINGLE)
    for labels in (torch.zeros(6), torch.zeros(6, 4), torch.zeros(5, dtype=torch.long)):
        with pytest.raises(DataError, match="class ids of shape"):
            hard_target_loss(student, labels, SINGLE)
    for problem_type in (MULTI, REGRESSION):
        with pytest.raises(DataError, match="one a logit"):
            hard_target_loss(student, torch.zeros(6), problem_type)
    for name, value in {"label_smoothing": 0.1, "class_weights": torch.ones(4), "focal_gamma": 2.0}.items():
        with pytest.raises(ConfigurationError, match=f"{name} is .*not for regression"):
            hard_target_loss(student, torch.zeros(6, 4), REGRESSION, **{name: value})


# ---- Hidden states ----


def random_hidden(width, teacher_width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(3, 5, width, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 5, teacher_width, generator=generator, dtype=torch.float64)
    return student, teacher, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def hidden_row(student, teacher, length, kind):
    """By NumPy, of the tokens alone: padding cut away instead of masked."""
    student, teacher = student[:length].numpy(), teacher[:length].numpy()
    if kind == "mse":
        s, t = ((h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5) for h in (student, teacher))
        return ((s - t) ** 2).mean()
    total = 0.0
    for token in range(length):
        p, q = (softmax(h @ h[token] / math.sqrt(h.shape[1])) for h in (teacher, student))
        total += entropy(p, q)
    return total / length


@pytest.mark.parametrize(("kind", "teacher_width"), [("mse", 8), ("relations", 8), ("relations", 20)])
def test_hidden_state_loss_is_the_loop_over_tokens(kind, teacher_width):
    student, teacher, mask = random_hidden(8, teacher_width)
    losses = hidden_state_loss(student, teacher, mask, kind)
    lengths = mask.sum(dim=1).tolist()
    expected = [hidden_row(s, t, n, kind) for s, t, n in zip(student, teacher, lengths, strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["mse", "relations"])
def test_hidden_gradients_are_finite_and_spare_the_padding(kind):
    student, teacher, mask = random_hidden(8, 8)
    student.requires_grad_()
    hidden_state_loss(student, teacher, mask, kind).sum().backward()
    assert student.grad.isfinite().all()
    assert (student.grad[mask == 0] == 0).all()
    assert torch.autograd.gradcheck(lambda hidden: hidden_state_loss(hidden, teacher, mask, kind), student)


def test_hidden_states_are_compared_in_full_precision():
    student, teacher, mask = (t.float() if t.is_floating_point() else t for t in random_hidden(8, 20))
    exact = hidden_state_loss(student, teacher, mask, "relations")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hidden_state_loss(student, teacher, mask, "relations"), exact)


def test_scale_and_shift_of_a_state_do_not_count_for_mse():
    student, _, mask = random_hidden(8, 8)
    losses = hidden_state_loss(100 * student + 3, student, mask, "mse")
    assert losses.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_two_widths_need_relations():
    student, teacher, mask = random_hidden(8, 20)
    with pytest.raises(ConfigurationError, match=r"8 wide, the teacher's 20.*relations"):
        hidden_state_loss(student, teacher, mask, "mse")


def test_terms_are_never_negative():
    for seed, problem_type, kind in itertools.product(range(20), PROBLEMS, KINDS):
        student, teacher = random_logits(seed=seed, dtype=torch.float32)
        assert (soft_target_loss(student, teacher, problem_type, 4.0, kind) >= 0).all()


# ---- Classes that count more, rows that count less ----


def all_labelled(problem_type, rows=6, classes=4):
    generator = np.random.default_rng(1)
    if problem_type == SINGLE:
        return torch.from_numpy(generator.integers(0, classes, rows))
    return torch.from_numpy(generator.integers(0, 2, (rows, classes)).astype(np.float64))


def focal_by_hand(logits, target, gamma, weights, problem_type, smoothing=0.0):
    """Lin et al. (2017), equation 4, on probabilities, a row at a time."""
    losses = []
    for row, truth in zip(logits, target, strict=True):
        if problem_type == SINGLE:
            p, q = row.softmax(0), F.one_hot(truth, len(row)) * (1 - smoothing) + smoothing / len(row)
            loss = sum(-q[c] * (1 - p[c]) ** gamma * p[c].log() for c in range(len(row)))
            losses.append(loss * weights[truth])
        else:
            terms = []
            for c, y in enumerate(truth):
                # As torchvision's sigmoid_focal_loss has it: p_t is the probability of what is true.
                p, q = row[c].sigmoid(), y * (1 - smoothing) + smoothing / 2
                term = q * (1 - p) ** gamma * -p.log() + (1 - q) * p**gamma * -(1 - p).log()
                terms.append(term * weights[int(y), c])
            losses.append(sum(terms) / len(terms))
    return torch.stack(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_weights_focus_and_smoothing_are_the_formula(problem_type, gamma, smoothing):
    logits, _ = random_logits()
    labels = all_labelled(problem_type)
    weights = torch.tensor([[0.5, 2.0, 1.0, 3.0], [4.0, 0.1, 1.0, 1.5]], dtype=logits.dtype)
    weights = weights[0] if problem_type == SINGLE else weights
    losses, labelled = hard_target_loss(logits, labels, problem_type, smoothing, weights, gamma)
    expected = focal_by_hand(logits, labels, gamma, weights, problem_type, smoothing)
    torch.testing.assert_close(losses, expected)
    assert labelled.all()


def test_the_weighted_mean_over_all_rows_is_torchs():
    logits, _ = random_logits()
    labels = all_labelled(SINGLE)
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=logits.dtype)
    weights = weights / weights[labels].mean()
    losses, _ = hard_target_loss(logits, labels, SINGLE, class_weights=weights)
    torch.testing.assert_close(losses.mean(), F.cross_entropy(logits, labels, weight=weights))
    labels = all_labelled(MULTI)
    weights = torch.stack([torch.ones(4), torch.tensor([0.5, 2.0, 1.0, 3.0])]).to(logits)
    losses, _ = hard_target_loss(logits, labels, MULTI, class_weights=weights)
    expected = F.binary_cross_entropy_with_logits(logits, labels.to(logits), pos_weight=weights[1])
    torch.testing.assert_close(losses.mean(), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_certainty_has_a_finite_gradient(problem_type, gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([0, 0]) if problem_type == SINGLE else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    losses, _ = hard_target_loss(logits, labels, problem_type, 0.0, None, gamma)
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1] > 100
    assert logits.grad.isfinite().all()


def test_rows_without_a_label_stay_out_of_weights_and_focus():
    logits = random_logits()[0].requires_grad_()
    for problem_type, labels, weights in (
        (SINGLE, torch.tensor([0, -100, 3, -100, 1, 2]), torch.ones(4)),
        (MULTI, torch.tensor([[1.0, math.nan, 0.0, 0.0]] * 6), torch.ones(2, 4)),
    ):
        logits.grad = None
        losses, labelled = hard_target_loss(logits, labels, problem_type, 0.1, weights, 2.0)
        losses.sum().backward()
        assert (losses[~labelled] == 0).all()
        assert (logits.grad[~labelled] == 0).all()
        assert logits.grad.isfinite().all()
