"""Folds side by side: processes that train them, and the one that hands them out and sees that all live."""

import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from queue import SimpleQueue

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from hf_ext.errors import UsageError
from hf_ext.experiments.cross_validation import FOLDS, PART, CrossValidation, publish_fold
from hf_ext.experiments.fold_lists import FoldList
from hf_ext.experiments.fold_training import train_fold

logger = logging.getLogger(__name__)

# Of a worker that died.
SHOWN_LINES = 15
# Seconds that a worker has to end when it is asked to.
PATIENCE_S = 5
# What a launcher tells the processes of one training, which the workers are not.
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train_here(run: CrossValidation, folds: FoldList) -> None:
    """
    Train folds in this process, one after the other. All processes of a launch have to call this.

    Args:
        run ([`CrossValidation`]): The run.
        folds ([`FoldList`]): One that is not shared.
    """
    with _progress(run, folds) as bar, _frozen_garbage():
        while (number := folds.take()) is not None:
            folder = run.output_dir / FOLDS / f"{run.folds[number].name}{PART}"
            train_fold(run, number, folder)
            if run.settings["training"].should_save:
                publish_fold(run, number, folder)
            folds.finish(number)
            _tell(run, number, bar)


def train_in_workers(run: CrossValidation, folds: FoldList, workers: int) -> None:
    """
    Train folds in processes of their own, which end when this one does.

    Each worker is a fresh process with a part of this one's threads and, with accelerators, one of them in turn.

    Args:
        run ([`CrossValidation`]): The run.
        folds ([`FoldList`]): Where to take folds from. Of one that is shared, the folds that other machines train are
            waited for.
        workers (`int`): Processes at most.

    Raises:
        UsageError: If a worker dies (with the last lines of its log), or a fold cannot be trained.
    """
    pool = [_Worker(run, number, workers) for number in range(min(workers, folds.open()))]
    with _progress(run, folds) as bar:
        try:
            # Before any fold is taken: no sign of life is given meanwhile.
            for worker in pool:
                worker.start()
            while _hand_out(run, folds, pool) or folds.open():
                _wait(pool, folds.interval)
                for number in folds.beat():
                    # Another machine took this process for dead.
                    next(worker for worker in pool if worker.fold == number).end()
                for worker in pool:
                    number = worker.answer()
                    if number is not None:
                        publish_fold(run, number, work_folder(run, number))
                        folds.finish(number)
                        _tell(run, number, bar)
                if folds.interval is not None:
                    bar.n = len(run.folds) - folds.open()
                    bar.refresh()
        finally:
            for worker in pool:
                number = worker.fold
                worker.end()
                if number is not None:
                    folds.release(number)


def share_of_machine(number: int, workers: int, threads: int, devices: list[str]) -> dict[str, str]:
    """
    The part of a machine that one worker gets, as environment variables.

    Args:
        number (`int`): Which worker, from 0.
        workers (`int`): How many share the machine.
        threads (`int`): Of torch, for all of them.
        devices (`list[str]`): Names of the accelerators, if there are any; each worker gets one, in turn.
    """
    share = {"OMP_NUM_THREADS": str(max(1, threads // workers))}
    return share | ({"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {})


def work_folder(run: CrossValidation, number: int) -> Path:
    """Where this process trains a fold; another one may train it elsewhere."""
    return run.output_dir / FOLDS / f"{run.folds[number].name}{PART}-{socket.gethostname()}-{os.getpid()}"


# ---- Inside: in the process that hands out ----


class _Worker:
    """A process that trains the folds that it is told to."""

    def __init__(self, run: CrossValidation, number: int, workers: int):
        self.run, self.number, self.workers = run, number, workers
        self.log = run.output_dir / FOLDS / "workers" / f"{socket.gethostname()}-{os.getpid()}-{number}.log"
        self.process, self.pipe, self.fold = None, None, None

    def train(self, fold: int) -> None:
        if self.process is None:
            self.start()
        self.fold = fold
        self.pipe.send((fold, work_folder(self.run, fold)))

    def answer(self) -> int | None:
        """The fold that has just been finished, if one has."""
        if self.fold is None:
            return None
        if self.pipe.poll():
            try:
                message = self.pipe.recv()
            except EOFError:
                self._report_death()
            if message is not None:
                raise UsageError(message)
            fold, self.fold = self.fold, None
            return fold
        if not self.process.is_alive():
            self._report_death()
        return None

    def end(self) -> None:
        if self.process is None:
            return
        if self.fold is None and self.process.is_alive():
            self.pipe.send(None)
        else:
            self.process.terminate()
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        if self.log.is_file() and not self.log.stat().st_size:
            self.log.unlink()
        self.process, self.pipe, self.fold = None, None, None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A server that has imported everything once starts a worker in no time; an accelerator bears no forks.
        context = multiprocessing.get_context("spawn" if torch.accelerator.is_available() else "forkserver")
        multiprocessing.set_forkserver_preload(["hf_ext"])
        self.pipe, theirs = context.Pipe()
        devices = _devices(self.run.settings["training"].use_cpu)
        share = share_of_machine(self.number, self.workers, torch.get_num_threads(), devices)
        given = (self.run, theirs, str(self.log), share, multiprocessing.get_start_method())
        self.process = context.Process(target=_work, args=given)
        with _environment(share):
            self.process.start()
        theirs.close()

    def _report_death(self):
        self.process.join(PATIENCE_S)
        code = self.process.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.is_file() else []
        shown = "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:]) or "  (nothing)"
        raise UsageError(
            f"Worker {self.number} (process {self.process.pid}) {how} while it trained "
            f"{self.run.folds[self.fold].name}. The last lines of its log {self.log}:\n{shown}\n"
            "The folds that are finished stay so: the same command with --resume_from_checkpoint true goes on (with "
            "--storage, the same command)."
        )


def _hand_out(run: CrossValidation, folds: FoldList, pool: list[_Worker]) -> bool:
    """Give each idle worker a fold; whether any of them has one."""
    for worker in (worker for worker in pool if worker.fold is None):
        while (number := folds.take()) is not None and run.is_finished(number):
            # By a machine that died before it could say so.
            folds.finish(number)
        if number is None:
            break
        worker.train(number)
    return any(worker.fold is not None for worker in pool)


def _wait(pool: list[_Worker], interval: float | None) -> None:
    """Until a worker answers or dies, or the interval is over."""
    busy = [worker for worker in pool if worker.fold is not None]
    if busy:
        connection.wait([thing for worker in busy for thing in (worker.pipe, worker.process.sentinel)], interval)
    elif interval is not None:
        time.sleep(interval)


def _devices(use_cpu: bool) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls the accelerators that this process sees."""
    if use_cpu or not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """What a process that is started here finds in its environment."""
    before = dict(os.environ)
    _change_environment(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _change_environment(changes: dict[str, str]) -> None:
    os.environ.update(changes)
    for name in LAUNCHED:
        os.environ.pop(name, None)


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Collecting what a fold leaves does not go through all that was imported: a second each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _progress(run: CrossValidation, folds: FoldList) -> tqdm:
    disabled = not run.settings["training"].should_save or run.settings["training"].disable_tqdm
    return tqdm(desc="folds", total=len(run.folds), initial=len(run.folds) - folds.open(), disable=disabled)


def _tell(run: CrossValidation, number: int, bar: tqdm) -> None:
    logger.info("%s is finished: %s", run.folds[number].name, run.folder(number))
    bar.update()


# ---- Inside: in a worker ----


def _work(
    run: CrossValidation, pipe: connection.Connection, log: str, share: dict[str, str], start_method: str
) -> None:
    # A server that forks has the environment in which it was started.
    _change_environment(share)
    torch.set_num_threads(int(share["OMP_NUM_THREADS"]))
    # Processes that load data would come from a server of their own, which imports everything once more.
    multiprocessing.set_start_method(start_method, force=True)
    # Ctrl-C reaches all processes of a terminal; the one that hands out ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with open(log, "a", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    PartialState(cpu=run.settings["training"].use_cpu)
    orders: SimpleQueue = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, orders), daemon=True).start()
    with _frozen_garbage():
        while (order := orders.get()) is not None:
            try:
                train_fold(run, *order)
            except UsageError as error:
                pipe.send(str(error))
            else:
                pipe.send(None)


def _listen(pipe: connection.Connection, orders: SimpleQueue) -> None:
    """Take orders; end as soon as there is nobody to give them, also in the middle of a training."""
    while True:
        try:
            orders.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)
