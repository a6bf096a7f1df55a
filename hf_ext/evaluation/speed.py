"""What a model costs: parameters, bytes, and seconds from raw text to answer."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from hf_ext.errors import ConfigurationError

Texts = Sequence[str] | Sequence[tuple[str, str]]
Measured = tuple[nn.Module, Any] | Callable[[Texts], np.ndarray]
# Fewer texts would not stand for the lengths of all.
MIN_TEXTS = 256
MIN_ROUNDS = 3
MIN_LATENCY_TEXTS = 40
# A fast model repeats the texts until a round takes this long: a few milliseconds would measure the clock's noise.
MIN_ROUND_SECONDS = 0.25
# Of the time there is, the part for single texts.
LATENCY_SHARE = 0.25


def model_cost(model: nn.Module) -> dict[str, Any]:
    """
    How large a model is.

    Args:
        model (`nn.Module`): On any device.

    Returns:
        `dict[str, Any]`: `parameters`, each counted once however many modules share it, frozen ones included; and
        `megabytes`, the tensors of the state dict as safetensors stores them: in their own type, shared ones once, in
        10^6 bytes, without the file's header of a few kilobytes. Nothing is written.
    """
    tensors = {}
    for tensor in model.state_dict().values():
        tensors[tensor.device, tensor.data_ptr(), tensor.shape, tensor.dtype] = tensor
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "megabytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6,
    }


def compare_speed(
    models: dict[str, Measured],
    texts: Texts,
    *,
    max_length: int | dict[str, int] | None = None,
    batch_size: int = 32,
    rounds: int = 5,
    latency_texts: int = 200,
    seconds: float = 20.0,
) -> dict[str, dict[str, Any]]:
    """
    Measure models side by side in one run, end to end: from raw strings through the tokenizer to class ids as Python
    numbers.

    Texts go through in the order given, in plain batches, each padded to its longest text; they are not sorted by
    length, which a file could be but requests are not. Models take turns within each round, each round in another
    order, with the same texts, number format and threads as they were called with, on the device where each of them
    is. So what else the machine does hits all of them, and the ratio of one round is fair even if its times are not.

    A short probe, which also warms up, chooses how many texts there is time for: as many as fit, evenly spread over
    all. No fewer than 256 (or all, if there are fewer) are taken; should those not fit, there are fewer rounds, down
    to 3, which with long texts and slow models can take longer than `seconds`. A model that is through in less than
    0.25 s repeats the texts.

    Args:
        models (`dict[str, tuple or Callable]`):
            Name -> (sequence classifier, its tokenizer), or a function from a batch of texts to logits of shape
            `(rows, classes)` as an array, such as an [`ExportedModel`]. The first is what the others' speed-up refers
            to.
        texts (`list[str]` or `list[tuple[str, str]]`): Texts, or pairs of texts.
        max_length (`int` or `dict[str, int]`, *optional*):
            Tokens at which the texts of the classifiers are cut; by model, if they differ. Functions cut texts
            themselves.
        batch_size (`int`, *optional*, defaults to 32): Texts a batch, for throughput.
        rounds (`int`, *optional*, defaults to 5): Repetitions.
        latency_texts (`int`, *optional*, defaults to 200):
            How many texts go through alone, for latency; fewer, down to 40, if there is no time. They are spread over
            the rounds.
        seconds (`float`, *optional*, defaults to 20.0): What all of it may take, about.

    Returns:
        `dict[str, dict[str, Any]]`: For each model `texts_per_second`, the median of the rounds, and its
        `texts_per_second_range` (least, most); `speed_up`, the median over rounds of the ratio to the first model in
        the same round, and its `speed_up_range`; `p50_ms` and `p95_ms`, percentiles of the time for one text alone; and
        what was measured: `texts`, `rounds`, `latency_texts`, `batch_size` and torch's `threads` (fast tokenizers, and
        functions, have their own); of a classifier `max_length` and `device`.

    Raises:
        ConfigurationError: If there is nothing to measure.
    """
    classifiers = {name: pair for name, pair in models.items() if isinstance(pair, tuple)}
    lengths = max_length if isinstance(max_length, dict) else dict.fromkeys(classifiers, max_length)
    if set(lengths) != set(classifiers):
        raise ConfigurationError(
            f"compare_speed: max_length names {', '.join(lengths)}; the models are {', '.join(classifiers)}."
        )
    if None in lengths.values():
        raise ConfigurationError("compare_speed: max_length is missing: at how many tokens are the texts to be cut?")
    numbers = {
        "max_length": min(lengths.values(), default=1),
        "batch_size": batch_size,
        "rounds": rounds,
        "latency_texts": latency_texts,
    }
    for name, value in {
        **numbers,
        "seconds": seconds,
        "the number of texts": len(texts),
        "models": len(models),
    }.items():
        if not value > 0:
            raise ConfigurationError(f"compare_speed: {name} is {value}; it must be positive.")
    runners = {
        name: _Classifier(*model, lengths[name]) if name in classifiers else _Function(model)
        for name, model in models.items()
    }
    with evaluating([model for model, _ in classifiers.values()]), torch.inference_mode():
        plan = _probe(runners, texts, batch_size, rounds, latency_texts, seconds)
        rates, latencies = _measure(runners, plan, batch_size)
    first = rates[next(iter(rates))]
    setting = {
        "texts": len(plan.texts), "rounds": plan.rounds, "latency_texts": len(plan.single),
        "batch_size": batch_size, "threads": torch.get_num_threads(),
    }  # fmt: skip
    results = {}
    for name, values in rates.items():
        p50, p95 = np.percentile(latencies[name], [50, 95])
        results[name] = {
            **_median_and_range("texts_per_second", values),
            **_median_and_range("speed_up", values / first),
            "p50_ms": 1000 * float(p50),
            "p95_ms": 1000 * float(p95),
            **setting,
            **runners[name].setting,
        }
    return results


@contextmanager
def evaluating(models: list[nn.Module]) -> Iterator[None]:
    """
    Evaluation mode inside a `with` block; afterwards every module is in the mode it was in, also where a model mixes
    them.

    Args:
        models (`list[nn.Module]`): Any modules.
    """
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


# ---- Inside ----


class _Function:
    """From raw texts to class ids, as a program would use a function from texts to logits."""

    setting: dict[str, Any] = {}

    def __init__(self, logits: Callable[[Texts], np.ndarray]):
        self.logits = logits

    def __call__(self, texts: Texts) -> list[int]:
        return self.logits(texts).argmax(-1).tolist()

    def seconds(self, batches: list[Texts]) -> float:
        start = time.perf_counter()
        for batch in batches:
            self(batch)
        return time.perf_counter() - start


class _Classifier(_Function):
    """The same of a model and its tokenizer."""

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int):
        super().__init__(self._logits)
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self.device = next(model.parameters()).device
        self.accepted = set(inspect.signature(model.forward).parameters)
        self.setting = {"max_length": max_length, "device": str(self.device)}

    def _logits(self, texts: Texts) -> torch.Tensor:
        columns = [texts] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]
        encoded = self.tokenizer(
            *columns, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        )
        # A wrapper's forward may name nothing. Ids of empty texts alone would be floats.
        wanted = self.accepted if "input_ids" in self.accepted else set(encoded)
        inputs = {name: ids.to(self.device, torch.long) for name, ids in encoded.items() if name in wanted}
        return self.model(**inputs).logits


@dataclass(frozen=True)
class _Plan:
    texts: Texts
    single: Texts
    rounds: int


def _probe(
    runners: dict[str, _Function], texts: Texts, batch_size: int, rounds: int, latency_texts: int, seconds: float
) -> _Plan:
    """Warm every model up, and see how much there is time for."""
    sample, batched, alone = _spread(texts, batch_size), 0.0, 0.0
    few = [[text] for text in _spread(sample, 4)]
    for runner in tqdm(runners.values(), desc="warming up", delay=2):
        runner.seconds([_spread(sample, 8), few[0]])
        batched += runner.seconds([sample]) / len(sample)
        alone += runner.seconds(few) / len(few)
    budget = seconds * (1 - LATENCY_SHARE)
    count = min(len(texts), max(MIN_TEXTS, int(budget / rounds / batched)))
    singles = min(len(texts), latency_texts, max(MIN_LATENCY_TEXTS, int(seconds * LATENCY_SHARE / alone)))
    fitting = max(MIN_ROUNDS, int(budget / (count * batched)))
    return _Plan(_spread(texts, count), _spread(texts, singles), min(rounds, fitting))


def _measure(
    runners: dict[str, _Function], plan: _Plan, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Texts a second of each model and round, and seconds of each model and single text."""
    batches = [plan.texts[start : start + batch_size] for start in range(0, len(plan.texts), batch_size)]
    shares = [[[plan.single[i]] for i in part] for part in np.array_split(np.arange(len(plan.single)), plan.rounds)]
    names = list(runners)
    rates, latencies = {name: np.zeros(plan.rounds) for name in names}, {name: [] for name in names}
    with tqdm(total=plan.rounds * len(names), desc="timing") as bar:
        for index, share in enumerate(shares):
            turn = index % len(names)
            for name in names[turn:] + names[:turn]:
                passes, spent = 0, 0.0
                while spent < MIN_ROUND_SECONDS:
                    spent += runners[name].seconds(batches)
                    passes += 1
                rates[name][index] = passes * len(plan.texts) / spent
                # The first text alone after full batches takes longer than the others.
                runners[name].seconds(share[:1])
                latencies[name] += [runners[name].seconds([text]) for text in share]
                bar.update()
    return rates, latencies


def _spread(texts: Texts, count: int) -> Texts:
    """At most `count` texts, evenly spread, in their order."""
    return [texts[i] for i in np.unique(np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int))]


def _median_and_range(name: str, values: np.ndarray) -> dict[str, Any]:
    return {name: float(np.median(values)), f"{name}_range": (float(values.min()), float(values.max()))}
