"""How often a plain DDP loop on CPUs crashes or hangs, with an embedding's gradient sparse and dense.

    python benchmarks/sparse_gradients.py [--runs 10] [--steps 4000]

Two processes of a thread each (gloo), 8 texts of 3 to 11 words a step, an embedding of 3,000 words and a linear layer,
SGD; torch alone, nothing of hf_ext. The two kinds take turns. Each process needs a core of its own: where they shared
one, no crash was met.
"""

import argparse
import multiprocessing
import signal
import socket
import time
from multiprocessing.connection import wait

import torch
from torch import nn
from tqdm import tqdm

WORDS, WIDTH, CLASSES, PROCESSES = 3000, 16, 3, 2
KINDS = ("sparse", "dense")
FORK = multiprocessing.get_context("fork")
# At most, on a slow machine.
STARTING_S, STEP_S, PATIENCE_S = 60, 0.1, 60


class Texts(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, sparse=kind == "sparse")
        self.classify = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.classify(self.words(ids).mean(1))


def train(kind: str, steps: int, rank: int, port: int) -> None:
    """One process of a run."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Texts(kind))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(steps):
        length = int(torch.randint(3, 12, (), generator=generator))
        ids = torch.randint(0, WORDS, (8, length), generator=generator)
        loss = nn.functional.cross_entropy(model(ids), ids[:, 0] % CLASSES)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # The group is not taken apart: that can hang, right after a step.
    torch.distributed.barrier()


def crashes(kind: str, steps: int) -> bool:
    """Whether a signal ends a process of a run, or it hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=train, args=(kind, steps, rank, port)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    statuses, limit = [], time.monotonic() + STARTING_S + steps * STEP_S
    while processes and not any(statuses):
        if not wait([process.sentinel for process in processes], limit - time.monotonic()):
            statuses.append(-signal.SIGKILL)
        ended = [process for process in processes if not process.is_alive()]
        statuses += [process.exitcode for process in ended]
        processes = [process for process in processes if process not in ended]
    for process in processes:
        # It may be the one that crashed: the other can be the first to end.
        process.join(PATIENCE_S)
        statuses.append(process.exitcode or 0)
        process.kill()
        process.join()
    if any(statuses) and min(statuses) >= 0:
        raise SystemExit(f"A run with a {kind} gradient failed, and not by a signal.")
    return any(statuses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    crashed = dict.fromkeys(KINDS, 0)
    for kind in tqdm([*KINDS] * args.runs, desc="runs"):
        crashed[kind] += crashes(kind, args.steps)
    print("| gradient of the embedding | runs | of them crashed or hung |")
    print("|---|---|---|")
    for kind, count in crashed.items():
        print(f"| {kind} | {args.runs} | {count} |")


if __name__ == "__main__":
    main()
