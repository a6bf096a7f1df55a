"""Losses of classes (weighted, focal, smoothed) and of distillation. One number a row, so that rows can be weighed."""

import torch
import torch.nn.functional as F

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL, UNLABELLED

SOFT_LOSSES = ("kl", "mse")
HIDDEN_LOSSES = ("mse", "relations")


def soft_target_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    problem_type: str,
    temperature: float = 4.0,
    kind: str = "kl",
) -> torch.Tensor:
    r"""
    How far each row's logits are from the teacher's.

    - `"kl"`, single label: $T^2 \sum_c p_c \log(p_c / q_c)$ with $p$ and $q$ the softmax of the teacher's and the
      student's logits divided by $T$ (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"). $T^2$ keeps
      the gradient's size when $T$ changes.
    - `"kl"`, multi-label: $T^2$ times the mean over the classes of the divergence of two Bernoulli distributions, i.e.
      binary cross-entropy less the teacher's entropy: a mean, as that of the labels is, and 0 for equal logits.
    - `"mse"`: the mean over the classes of the squared difference of the logits (Ba & Caruana 2014; Kim et al. 2021,
      "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation", who find it the
      better one on images). There is no temperature in it.
    - Regression: the squared error, whatever the kind.

    As $T$ grows, `"kl"` of a single label tends to $\frac{1}{2C} \sum_c (d_c - \bar d)^2$, where $d$ is the difference
    of the logits of $C$ classes: half the `"mse"` of centred logits. Of two classes only the difference of the two
    logits matters, and $T$ only bends how its error is counted; where the logits lie within a few $T$ of each other
    a greater $T$ changes little.

    Args:
        student_logits (`torch.Tensor` of shape `(rows, num_labels)`): With gradient.
        teacher_logits (`torch.Tensor` of shape `(rows, num_labels)`): In the student's order of classes.
        problem_type (`str`): `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
        temperature (`float`, *optional*, defaults to 4.0): $T$, above 0.
        kind (`str`, *optional*, defaults to `"kl"`): `"kl"` or `"mse"`.

    Returns:
        `torch.Tensor` of shape `(rows,)`, at least float32.

    Raises:
        DataError: If the shapes differ.
    """
    student, teacher = _precise(student_logits), _precise(teacher_logits)
    if student.shape != teacher.shape:
        raise DataError(
            f"The student's logits have the shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}; both "
            "must have one row a text and one column a class."
        )
    if problem_type == REGRESSION or kind == "mse":
        return (student - teacher).pow(2).mean(dim=-1)
    student, teacher = student / temperature, teacher / temperature
    if problem_type == MULTI_LABEL:
        yes = F.logsigmoid(teacher) - F.logsigmoid(student)
        no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
        divergence = (teacher.sigmoid() * yes + (-teacher).sigmoid() * no).mean(dim=-1)
    else:
        log_p, log_q = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * divergence


def hard_target_loss(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    problem_type: str,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
    focal_gamma: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    The loss of each row against its label, and which rows have one.

    By default the losses of the library's classification heads, before they are averaged over the rows: cross-entropy;
    of several labels the mean binary cross-entropy over the classes; of numbers the squared error. In general

    - single label: $w_y \sum_c q_c (1 - p_c)^\gamma (-\log p_c)$ with the probabilities $p$ and the target
      $q = (1 - \epsilon) \cdot onehot(y) + \epsilon / C$ (Szegedy et al. 2016);
    - multi-label: the mean over the classes of $w_{c, y_c} (q_c (1 - p_c)^\gamma (-\log p_c) + (1 - q_c) p_c^\gamma
      (-\log (1 - p_c)))$ with $q_c = (1 - \epsilon) y_c + \epsilon / 2$: targets moved toward one half.

    $\gamma$ is the focal loss of Lin et al. (2017), "Focal Loss for Dense Object Detection", equation 4, without its
    $\alpha$, which `class_weights` stand for.

    Args:
        logits (`torch.Tensor` of shape `(rows, num_labels)`): Of the model.
        labels (`torch.Tensor`, *optional*):
            Class ids of shape `(rows,)`, of which -100 is no label; 0/1 floats of shape `(rows, num_labels)` or values
            of shape `(rows,)`, of which a row with a NaN has no label. `None`: no row has one.
        problem_type (`str`): `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
        label_smoothing (`float`, *optional*, defaults to 0.0): $\epsilon$, in [0, 1). Of classes only.
        class_weights (`torch.Tensor`, *optional*):
            $w$: of shape `(num_labels,)`; of several labels `(2, num_labels)`, for its absence (0) and presence (1) in
            a row. See [`resolve_class_weights`].
        focal_gamma (`float`, *optional*, defaults to 0.0): $\gamma$, at least 0. Of classes only.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The losses of shape `(rows,)`, 0 (with gradient 0) where there is no label,
        and a mask of shape `(rows,)` of the rows that have one.

    Raises:
        ConfigurationError: For smoothing, weights or a focus of numbers.
        DataError: If the labels do not fit the logits.
    """
    logits = _precise(logits)
    if labels is None:
        return logits.sum(dim=-1) * 0.0, torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    _check_labels(logits, labels, problem_type)
    labelled = labelled_rows(labels)
    if problem_type == REGRESSION:
        _refuse_class_terms(label_smoothing, class_weights, focal_gamma)
        losses = (logits - _known(labels, labelled, logits)).pow(2).mean(dim=-1)
    elif problem_type == MULTI_LABEL:
        truth = _known(labels, labelled, logits)
        losses = _binary_losses(logits, truth, label_smoothing, focal_gamma)
        if class_weights is not None:
            absent, present = class_weights.to(logits)
            losses = losses * torch.lerp(absent.expand_as(truth), present.expand_as(truth), truth)
        losses = losses.mean(dim=-1)
    else:
        classes = labels.clamp(min=0)
        losses = _class_losses(logits, classes, label_smoothing, focal_gamma)
        if class_weights is not None:
            losses = losses * class_weights.to(logits)[classes]
    return torch.where(labelled, losses, 0.0), labelled


def labelled_rows(labels: torch.Tensor) -> torch.Tensor:
    """
    Which rows have a label.

    Args:
        labels (`torch.Tensor`): Class ids, of which -100 is none, or floats: a row with a NaN has none.

    Returns:
        `torch.Tensor` of shape `(rows,)`, bool.
    """
    # Of no rows -1 would not say how many columns there are.
    by_row = labels.reshape(len(labels), labels[:1].numel() or 1)
    if labels.is_floating_point():
        return ~by_row.isnan().any(dim=1)
    return by_row.ne(UNLABELLED).all(dim=1)


def mixed_loss(soft: torch.Tensor, hard: torch.Tensor, labelled: torch.Tensor, alpha: float) -> torch.Tensor:
    """
    The mean over rows of `alpha * soft + (1 - alpha) * hard`; rows without a label have the soft term only, in full.

    Args:
        soft (`torch.Tensor` of shape `(rows,)`): From [`soft_target_loss`].
        hard (`torch.Tensor` of shape `(rows,)`): From [`hard_target_loss`].
        labelled (`torch.Tensor` of shape `(rows,)`): From [`hard_target_loss`].
        alpha (`float`): Weight of the **soft** term, in [0, 1].

    Returns:
        `torch.Tensor`: A scalar.
    """
    weight = torch.full_like(soft, alpha).masked_fill(~labelled, 1.0)
    return (weight * soft + (1 - weight) * hard).mean()


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor | None,
    problem_type: str,
    temperature: float = 4.0,
    alpha: float = 0.7,
    kind: str = "kl",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """
    The loss of a student that learns from a teacher's logits and from labels.

    `alpha` weighs the **soft** term: 1 is the teacher alone, 0 the labels alone. (Other recipes write it the other way
    round.) Rows without a label learn from the teacher alone, so a batch without any label has a finite loss too.

    Args:
        student_logits (`torch.Tensor` of shape `(rows, num_labels)`): With gradient.
        teacher_logits (`torch.Tensor` of shape `(rows, num_labels)`): In the student's order of classes.
        labels (`torch.Tensor`, *optional*): See [`hard_target_loss`].
        problem_type (`str`): `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
        temperature (`float`, *optional*, defaults to 4.0): Of the soft term, above 0.
        alpha (`float`, *optional*, defaults to 0.7): Weight of the soft term, in [0, 1].
        kind (`str`, *optional*, defaults to `"kl"`): Of the soft term; see [`soft_target_loss`].
        label_smoothing (`float`, *optional*, defaults to 0.0): Of the hard term.

    Returns:
        `torch.Tensor`: A scalar, the mean over the rows.
    """
    soft = soft_target_loss(student_logits, teacher_logits, problem_type, temperature, kind)
    hard, labelled = hard_target_loss(student_logits, labels, problem_type, label_smoothing)
    return mixed_loss(soft, hard, labelled, alpha)


def hidden_state_loss(
    student_hidden: torch.Tensor, teacher_hidden: torch.Tensor, mask: torch.Tensor, kind: str = "mse"
) -> torch.Tensor:
    r"""
    How far the hidden states of each row are from the teacher's, as a mean over the row's tokens.

    - `"mse"`: mean squared difference, for equal widths. Each token's state is brought to mean 0 and variance 1 first,
      as Sun et al. (2019), "Patient Knowledge Distillation", bring it to length 1: otherwise models whose states grow
      from layer to layer would weigh the last ones most. (TinyBERT, Jiao et al. 2020, takes the states as they are and
      learns a projection; DistilBERT, Sanh et al. 2019, takes the cosine.)
    - `"relations"`: the divergence $KL(R^T \| R^S)$ of the relations of tokens, $R = softmax(h h^\top / \sqrt d)$, for
      any two widths $d$ (Wang et al. 2021, "MiniLMv2", with the hidden states in place of queries,
      keys and values, and one relation head).

    Args:
        student_hidden (`torch.Tensor` of shape `(rows, length, width)`): With gradient.
        teacher_hidden (`torch.Tensor` of shape `(rows, length, teacher's width)`): Of the same tokens.
        mask (`torch.Tensor` of shape `(rows, length)`): 1 for tokens, 0 for padding.
        kind (`str`, *optional*, defaults to `"mse"`): `"mse"` or `"relations"`.

    Returns:
        `torch.Tensor` of shape `(rows,)`, at least float32.

    Raises:
        ConfigurationError: If `"mse"` gets two widths.
    """
    mask = mask.bool()
    # In full precision also where the model's own products are not.
    with torch.autocast(student_hidden.device.type, enabled=False):
        student, teacher = _precise(student_hidden), _precise(teacher_hidden)
        if kind == "relations":
            log_p, log_q = _log_relations(teacher, mask), _log_relations(student, mask)
            per_token = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
        elif student.shape[-1] != teacher.shape[-1]:
            raise ConfigurationError(
                f"The student's hidden states are {student.shape[-1]} wide, the teacher's {teacher.shape[-1]}; 'mse' "
                "needs equal widths. Take 'relations'."
            )
        else:
            width = student.shape[-1:]
            per_token = (F.layer_norm(student, width) - F.layer_norm(teacher, width)).pow(2).mean(dim=-1)
        return torch.where(mask, per_token, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


# ---- Inside ----


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _known(labels: torch.Tensor, labelled: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Float labels in the logits' shape, without NaN: the gradient of a NaN that is masked afterwards is still NaN."""
    return torch.where(labelled.unsqueeze(-1), labels.reshape(logits.shape).to(logits.dtype), 0.0)


def _class_losses(logits: torch.Tensor, classes: torch.Tensor, smoothing: float, gamma: float) -> torch.Tensor:
    if gamma == 0:
        return F.cross_entropy(logits, classes, reduction="none", label_smoothing=smoothing)
    log_p = logits.log_softmax(dim=-1)
    terms = _doubt(log_p).pow(gamma) * -log_p
    of_truth = terms.gather(-1, classes.unsqueeze(-1)).squeeze(-1)
    return of_truth if smoothing == 0 else (1 - smoothing) * of_truth + smoothing * terms.mean(dim=-1)


def _binary_losses(logits: torch.Tensor, truth: torch.Tensor, smoothing: float, gamma: float) -> torch.Tensor:
    targets = truth * (1 - smoothing) + smoothing / 2
    if gamma == 0:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -targets * _doubt(yes).pow(gamma) * yes - (1 - targets) * _doubt(no).pow(gamma) * no


def _doubt(log_p: torch.Tensor) -> torch.Tensor:
    """One minus the probability. Not quite 0: there the gradient of a root, times 0, is NaN."""
    return -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)


def _refuse_class_terms(label_smoothing: float, class_weights: torch.Tensor | None, focal_gamma: float) -> None:
    given = {"label_smoothing": label_smoothing, "class_weights": class_weights, "focal_gamma": focal_gamma}
    for name, value in given.items():
        if value is not None and (name == "class_weights" or value):
            raise ConfigurationError(
                f"{name} is {value}, but it is defined for classes only, not for regression; leave it out."
            )


def _check_labels(logits: torch.Tensor, labels: torch.Tensor, problem_type: str) -> None:
    single = problem_type == SINGLE_LABEL
    fits = labels.shape == logits.shape[:1] if single else labels.numel() == logits.numel()
    if not fits or (single and labels.is_floating_point()):
        wanted = "class ids of shape (rows,)" if single else "floats, one a logit"
        raise DataError(
            f"Labels of the shape {tuple(labels.shape)} and the type {labels.dtype} do not fit logits of the shape "
            f"{tuple(logits.shape)} and the problem type {problem_type}, which takes {wanted}."
        )


def _log_relations(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    scores = hidden @ hidden.transpose(1, 2) / hidden.shape[-1] ** 0.5
    # Not minus infinity, which times a probability of zero is NaN.
    return scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min / 2).log_softmax(dim=-1)
