"""How fast a training goes, what for, and how full its batches are: between one log and the next."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hf_ext.run_record import peak_memory

PREFIX = "performance/"


class StepStatistics:
    """
    Counts rows and tokens, and the seconds that were spent waiting for them, since the last log.

    Args:
        processes (`int`): Over which rates are summed: each is taken to be as fast as this one, as in DDP they are.
    """

    def __init__(self, processes: int = 1):
        self.processes = processes
        self._begin()

    def loaded(self, batches: list[dict[str, Any]], seconds: float) -> None:
        """
        Note the micro-batches of a step.

        Args:
            batches (`list[dict]`): As the model gets them.
            seconds (`float`): How long the process waited for them.
        """
        self._waited += seconds
        for batch in batches:
            value = next((value for value in batch.values() if isinstance(value, torch.Tensor) and value.ndim), None)
            self._rows += 0 if value is None else len(value)
            mask = batch.get("attention_mask")
            if isinstance(mask, torch.Tensor) and mask.ndim == 2:
                self._places += mask.numel()
                # Added up on the device: to look at each would make it wait.
                self._tokens = self._tokens + mask.sum()

    def take(self) -> dict[str, float]:
        """
        What was measured since the last call.

        Returns:
            `dict[str, float]`, all after `performance/`: `examples_per_second`, `tokens_per_second` (without padding),
            `padding_share` (of all token places), `data_loading_share` (of the time), `peak_cpu_memory_mib` and, on a
            GPU, `peak_gpu_memory_mib`.
        """
        seconds = time.perf_counter() - self._started
        rows, places, tokens, waited = self._rows, self._places, float(self._tokens), self._waited
        self._begin()
        if not rows or seconds <= 0:
            return {}
        found: dict[str, float] = {"examples_per_second": self.processes * rows / seconds}
        if places:
            found["tokens_per_second"] = self.processes * tokens / seconds
            found["padding_share"] = 1 - tokens / places
        found["data_loading_share"] = min(1.0, waited / seconds)
        found = {name: float(f"{value:.4g}") for name, value in found.items()} | peak_memory()
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside a `with` block is no training: an evaluation, a checkpoint."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - began

    def _begin(self) -> None:
        self._started, self._waited, self._rows, self._places = time.perf_counter(), 0.0, 0, 0
        self._tokens: Any = 0
