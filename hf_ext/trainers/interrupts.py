"""Ctrl-C and SIGTERM during a training: noted when they come, acted upon when a step is whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from hf_ext.errors import TrainingInterrupted, TrainingTerminated

WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """
    Notes SIGINT and SIGTERM while it watches; a second Ctrl-C stops at once.

    Attributes:
        is_watching (`bool`): Whether signals are noted, rather than doing what they did before.
        received (`int`): The first signal that came and was not acted upon, or 0.
    """

    def __init__(self):
        self.is_watching, self.received = False, 0
        self._process, self._before = 0, {}

    @contextmanager
    def watching(self, wanted: bool) -> Iterator[None]:
        """
        Note signals inside a `with` block, in the main thread; afterwards they do again what they did before.

        Args:
            wanted (`bool`): Whether to. Nothing is noted of a signal that is ignored (as of a job in the background).
        """
        if not wanted or self.is_watching or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._process = os.getpid()
        self._before = {
            number: before for number in WATCHED if (before := signal.getsignal(number)) not in (None, signal.SIG_IGN)
        }
        self.is_watching = True
        try:
            for number in self._before:
                signal.signal(number, self._note)
            yield
        finally:
            for number, before in self._before.items():
                signal.signal(number, before)
            self.is_watching = False

    def _note(self, number: int, frame) -> None:
        again = bool(self.received)
        self.received = self.received or number
        if os.getpid() != self._process:
            # A process that loads data, forked from this one: it is needed until the step is whole.
            if again and number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif again and number == signal.SIGINT:
            raise KeyboardInterrupt
        elif not again and os.environ.get("RANK", "0") == "0":
            how = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            # Not through print, which the signal may have come in the middle of.
            os.write(2, f"\n{signal.Signals(number).name}: the training ends after this step{how}.\n".encode())

    def agreed(self, accelerator: Accelerator) -> int:
        """
        A signal that any process has received, the same on all of them; 0 if none has. All have to call this together.

        Args:
            accelerator ([`~accelerate.Accelerator`]): Knows the processes.
        """
        if not self.is_watching or accelerator.num_processes == 1:
            return self.received if self.is_watching else 0
        own = torch.tensor([self.received], device=accelerator.device)
        return int(accelerator.gather(own).max())


def interruption(number: int, step: int, steps: int, checkpoint: Path | None) -> BaseException:
    """
    What ends a training after a signal.

    Args:
        number (`int`): The signal.
        step (`int`): The last optimizer step that was made.
        steps (`int`): How many there are.
        checkpoint (`Path`, *optional*): That of this step, or the last one of a training that was over.

    Returns:
        [`TrainingInterrupted`] or [`TrainingTerminated`]
    """
    kind = TrainingInterrupted if number == signal.SIGINT else TrainingTerminated
    ended = f"{signal.Signals(number).name} has ended the training after step {step} of {steps}"
    if checkpoint is None:
        return kind(f"{ended}; it was over, and has no checkpoint.")
    return kind(
        f"{ended}; {checkpoint} is saved. Go on with the same command and --resume_from_checkpoint true (in Python: "
        f"trainer.train(resume_from_checkpoint={str(checkpoint)!r}))."
    )
