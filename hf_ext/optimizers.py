"""AdamW that updates only the embedding rows of the batch."""

from collections import Counter

import torch
from torch import nn

# Below this a dense update is as fast: position and type embeddings, toy vocabularies.
MIN_ROWS = 2048


class SparseAdamW(torch.optim.AdamW):
    r"""
    AdamW whose step costs, for a parameter with a sparse gradient, as much as the rows that the gradient names.

    A dense step over a 30,522 x 300 embedding reads and writes 9.2 million weights and twice as many moments for the
    few hundred rows that a batch of sentences touches. Here a row is updated when it is seen:

    - The second moment is AdamW's own: the decay of the steps since the row was last seen is made up for.
    - AdamW's first moment goes on moving a row for some ten steps after it was seen. Lazy variants
      ([`torch.optim.SparseAdam`]) drop that motion, and with it nine tenths of what a rare word learns. Here a
      gradient's whole motion, $\sum_k (1-\beta_1) (\beta_1/\sqrt{\beta_2})^k = (1-\beta_1)/(1-\beta_1/\sqrt{\beta_2})$
      of a step, is made at once, so no first moment is stored.
    - Weight decay makes up for the steps since the row was last seen as well.

    Parameters with dense gradients get the ordinary AdamW step.

    Args:
        params (`Iterable`): Parameters, or groups of them.
        kwargs: As [`torch.optim.AdamW`]; `amsgrad` and `maximize` are refused.
    """

    def __init__(self, params, **kwargs):
        for option in ("amsgrad", "maximize"):
            if kwargs.get(option):
                raise ValueError(f"SparseAdamW: {option}=True is not supported; use torch.optim.AdamW for it.")
        super().__init__(params, **kwargs)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse_grads = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    sparse_grads[parameter] = parameter.grad.coalesce()
                    self._update_rows(parameter, sparse_grads[parameter], group)
                    parameter.grad = None
        super().step()
        for parameter, grad in sparse_grads.items():
            parameter.grad = grad
        return loss

    def _update_rows(self, parameter: nn.Parameter, grad: torch.Tensor, group: dict) -> None:
        """One update of the rows that `grad` names (AdamW: Loshchilov & Hutter 2019, algorithm 2)."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["last_step"] = torch.zeros(len(parameter))
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2), lr = state["step"].item(), group["betas"], float(group["lr"])
        rows, values = grad.indices()[0], grad.values().to(parameter.dtype)
        elapsed = (step - state["last_step"].index_select(0, rows)).unsqueeze(1)
        state["last_step"].index_fill_(0, rows, step)

        second = state["exp_avg_sq"].index_select(0, rows).mul_(beta2**elapsed)
        second.addcmul_(values, values, value=1 - beta2)
        state["exp_avg_sq"].index_copy_(0, rows, second)
        denominator = second.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weights = parameter.index_select(0, rows)
        if group["weight_decay"]:
            weights.mul_((1 - lr * group["weight_decay"]) ** elapsed)
        whole_motion = (1 - beta1) / (1 - beta1 / beta2**0.5)
        weights.addcdiv_(values, denominator, value=-lr * whole_motion)
        parameter.index_copy_(0, rows, weights)


def clip_mixed_grad_norm_(parameters, max_norm: float) -> torch.Tensor:
    """
    [`torch.nn.utils.clip_grad_norm_`] for a mix of dense and sparse gradients, which that function refuses.

    Args:
        parameters (`Iterable[torch.nn.Parameter]`): Parameters; those without a gradient are passed over.
        max_norm (`float`): Bound of the L2 norm over all gradients together.

    Returns:
        `torch.Tensor`: The norm before clipping.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    # Repeated rows have to be added up before they are squared.
    coalesce_grads_(parameters)
    grads = [parameter.grad for parameter in parameters]
    values = [grad.values() if grad.is_sparse else grad for grad in grads]
    total_norm = nn.utils.get_total_norm(values)
    # Not through `clip_grads_with_norm_`, which takes parameters; the same formula and epsilon. A norm within the bound
    # costs no pass over the gradients.
    if total_norm > max_norm:
        torch._foreach_mul_(values, max_norm / (total_norm + 1e-6))
    return total_norm


def coalesce_grads_(parameters) -> None:
    """
    Add up the repeated rows of sparse gradients. Otherwise each micro-batch of a step lengthens them by a row for every
    token that it holds, where there are no more different rows than the vocabulary has words.

    Args:
        parameters (`Iterable[torch.nn.Parameter]`): Parameters; those without a gradient or with a dense one stay as
            they are.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()


def large_embeddings(model: nn.Module) -> list[nn.Embedding]:
    """
    The embeddings of `model` for which a sparse gradient saves time.

    Left out are those with few rows, those that are frozen, and those that share their weight with another module
    (tied output layers), whose gradient is dense.

    Args:
        model (`torch.nn.Module`): Any model.

    Returns:
        `list[torch.nn.Embedding]`
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module.num_embeddings >= MIN_ROWS
        and module.weight.requires_grad
        and uses[id(module.weight)] == 1
    ]
