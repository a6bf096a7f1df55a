"""What an experiment must leave as it was. Functions `keep_...` note a state and return what puts it back."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

Restore = Callable[[], None]


def keep_random() -> Restore:
    """The random states of `random`, `numpy`, `torch` on the CPU and on every accelerator."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    backend = None if accelerator is None else torch.get_device_module(accelerator)
    every = hasattr(backend, "get_rng_state_all")
    if backend is not None:
        states = backend.get_rng_state_all() if every else backend.get_rng_state()

    def restore():
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if backend is not None:
            (backend.set_rng_state_all if every else backend.set_rng_state)(states)

    return restore


def keep_order(loader: Any) -> Restore:
    """
    The order in which a loader will give its rows.

    Kept are the generators of the loader, its samplers, its data set and its collator, and the attributes of the loader
    and the samplers (such as the epoch they count). Workers that persist are left alone: the next reader gets new ones.

    Args:
        loader (`Any`): A `DataLoader`, plain or prepared by accelerate, or any iterable.
    """
    attributes, generators, seen, queue = [], [], set(), [(loader, True)]
    while queue:
        part, counts = queue.pop()
        if not hasattr(part, "__dict__") or id(part) in seen:
            continue
        seen.add(id(part))
        mine = dict(vars(part))
        if counts:
            attributes.append((part, mine))
        generators += [put_back for value in mine.values() if (put_back := _keep_generator(value))]
        queue += [(mine.get(name), True) for name in ("sampler", "batch_sampler", "base_dataloader")]
        queue += [(mine.get(name), False) for name in ("dataset", "collate_fn")]
    for part, mine in attributes:
        if mine.get("_iterator") is not None:
            vars(part)["_iterator"] = None

    def restore():
        for part, mine in attributes:
            _restore_dict(vars(part), mine)
        for put_back in generators:
            put_back()

    return restore


def keep_modules(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter] = ()) -> Restore:
    """
    Parameters, gradients, `requires_grad`, all buffers and the training flags of modules. No object is replaced.

    Args:
        modules (`Iterable[torch.nn.Module]`): Modules, each with all that is inside it.
        parameters (`Iterable[torch.nn.Parameter]`, *optional*): Further parameters.
    """
    parts = list({id(part): part for module in modules for part in module.modules()}.values())
    flags = [(part, part.training, dict(part._parameters), dict(part._buffers)) for part in parts]
    owned = [value for part in parts for value in part._parameters.values() if value is not None]
    unique = list({id(value): value for value in (*owned, *parameters)}.values())
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in unique]
    buffers = [value for part in parts for value in part._buffers.values() if value is not None]
    values = [(value, value.detach().clone()) for value in (*unique, *buffers) if not _is_expanded(value)]

    def restore():
        for part, training, own_parameters, own_buffers in flags:
            part.training = training
            _restore_dict(part._parameters, own_parameters)
            _restore_dict(part._buffers, own_buffers)
        with torch.no_grad():
            for value, saved in values:
                value.copy_(saved)
        for parameter, gradient, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient

    return restore


def keep_optimizer(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> Restore:
    """
    State and groups of an optimizer, and of those that it wraps.

    Until they are restored the optimizer works on copies of its state, so the originals are never written to.

    Args:
        optimizer (`torch.optim.Optimizer`): The optimizer.
        parameters (`Iterable[torch.nn.Parameter]`): All that its state may refer to.
    """
    shared = {id(parameter): parameter for parameter in parameters}
    restores, queue, seen = [], [optimizer], set()
    while queue:
        part = queue.pop()
        mine = dict(vars(part))
        queue += [value for value in mine.values() if isinstance(value, torch.optim.Optimizer)]
        restores.append(lambda part=part, mine=mine: _restore_dict(vars(part), mine))
        # A wrapper's state and groups are those of the optimizer inside.
        for kept in (part.state, *part.param_groups):
            if id(kept) not in seen:
                seen.add(id(kept))
                restores.append(_lend_copies(kept, shared))
        if id(part.param_groups) not in seen:
            seen.add(id(part.param_groups))
            groups = part.param_groups
            restores.append(lambda groups=groups, saved=list(groups): groups.__setitem__(slice(None), saved))

    def restore():
        for put_back in restores:
            put_back()

    return restore


def keep_scaler(scaler: torch.amp.GradScaler) -> Restore:
    """Scale and growth tracker of a gradient scaler, and what it notes of each optimizer."""
    return _lend_copies(vars(scaler), {})


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the random states, and what accelerate shares between trainers, as they were before."""
    with ExitStack() as stack:
        stack.callback(keep_random())
        # Of all accelerators of the process.
        for shared in (AcceleratorState._shared_state, GradientState._shared_state):
            stack.callback(_restore_dict, shared, dict(shared))
        yield


def _lend_copies(values: dict, shared: dict[int, Any]) -> Restore:
    """Fill a dict with copies of its values, which go on referring to what is `shared` (by id)."""
    saved, memo = dict(values), dict(shared)
    values.update({key: copy.deepcopy(value, memo) for key, value in saved.items()})
    return lambda: _restore_dict(values, saved)


def _restore_dict(values: dict, saved: dict) -> None:
    values.clear()
    values.update(saved)


def _is_expanded(value: torch.Tensor) -> bool:
    """Whether several elements share a place in memory: such a tensor cannot be written to."""
    if value.layout is not torch.strided:
        return False
    return any(size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride(), strict=True))


def _keep_generator(value: Any) -> Restore | None:
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        state = value.getstate()
        return lambda: value.setstate(state)
    if isinstance(value, np.random.RandomState):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        state = copy.deepcopy(value.bit_generator.state)
        return lambda: setattr(value.bit_generator, "state", state)
    return None
