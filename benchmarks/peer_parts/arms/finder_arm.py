"""One learning-rate finder: settings.json -> found.json. Runs in the finder's own environment."""

import copy
import hashlib
import json
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# Before the test, so that the optimizer has a state to lose.
STEPS_BEFORE = 3


class TextCNN(nn.Module):
    """In plain PyTorch, with what a test can leave changed: dropout draws random numbers, batch norm has buffers."""

    def __init__(self, words: int, classes: int):
        super().__init__()
        self.embeddings = nn.Embedding(words, 100, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(100, 100, width) for width in (3, 4, 5))
        self.norm, self.dropout, self.head = nn.BatchNorm1d(300), nn.Dropout(0.5), nn.Linear(300, classes)

    def forward(self, ids):
        vectors = self.embeddings(ids).transpose(1, 2)
        found = torch.cat([torch.relu(conv(vectors)).amax(2) for conv in self.convolutions], 1)
        return self.head(self.dropout(self.norm(found)))


class Setup:
    """Model, optimizer and rows, the same for each tool and seed."""

    def __init__(self, settings: dict):
        random.seed(settings["seed"])
        np.random.seed(settings["seed"])
        torch.manual_seed(settings["seed"])
        self.model = TextCNN(settings["words"], 1 + max(settings["labels"]))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.loss = nn.CrossEntropyLoss()
        data = TensorDataset(torch.tensor(settings["ids"]), torch.tensor(settings["labels"]))
        self.loader = DataLoader(data, settings["batch"], shuffle=True, drop_last=True)

    def train(self, optimizer) -> None:
        """A few steps."""
        self.model.train()
        for _, (ids, labels) in zip(range(STEPS_BEFORE), self.loader, strict=False):
            self.loss(self.model(ids), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    def states(self) -> dict[str, str]:
        """A digest of each state that a test has to leave as it was."""
        numpy_state = np.random.get_state()
        return {
            "model": digest(self.model.state_dict()),
            "optimizer": digest(self.optimizer.state_dict()),
            "random": digest([torch.get_rng_state(), random.getstate(), list(numpy_state[1]), numpy_state[2:]]),
        }


def digest(state) -> str:
    """SHA-256 of nested containers of tensors and numbers, bit by bit."""
    found = hashlib.sha256()

    def add(value) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for name, item in sorted(value.items(), key=lambda pair: str(pair[0])):
                found.update(str(name).encode())
                add(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            found.update(repr(value).encode())

    add(state)
    return found.hexdigest()


# ---- The tools: train `setup` a little, and return a function that makes the test up to a rate ----


def hf_ext(setup: Setup, settings: dict):
    from hf_ext import LRFinder, NoUsableSlopeError

    setup.train(setup.optimizer)

    def test(end_lr: float, suggest: bool) -> float | None:
        finder = LRFinder(setup.model, setup.optimizer, setup.loss)
        finder.range_test(setup.loader, settings["start_lr"], end_lr, settings["steps"])
        try:
            return finder.suggestion() if suggest else None
        except NoUsableSlopeError:
            return None

    return test


def torch_lr_finder(setup: Setup, settings: dict):
    from torch_lr_finder import LRFinder

    setup.train(setup.optimizer)

    def test(end_lr: float, suggest: bool) -> float | None:
        finder = LRFinder(setup.model, setup.optimizer, setup.loss, device="cpu")
        finder.range_test(setup.loader, start_lr=settings["start_lr"], end_lr=end_lr, num_iter=settings["steps"])
        found = finder.plot(suggest_lr=True) if suggest else None
        finder.reset()
        return float(found[1]) if isinstance(found, tuple) else None

    return test


def fastai(setup: Setup, settings: dict):
    from functools import partial

    from fastai.callback.schedule import valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    optimizer = partial(OptimWrapper, opt=torch.optim.AdamW)
    loaders = DataLoaders(setup.loader, setup.loader, device=torch.device("cpu"))
    learner = Learner(loaders, setup.model, loss_func=setup.loss, opt_func=optimizer, lr=1e-3, path=Path.cwd())
    learner.create_opt()
    setup.optimizer = learner.opt.opt
    setup.train(learner.opt)

    def test(end_lr: float, suggest: bool) -> float | None:
        functions = (valley,) if suggest else ()
        with learner.no_bar(), learner.no_logging():
            found = learner.lr_find(settings["start_lr"], end_lr, settings["steps"], True, False, functions)
        setup.optimizer = learner.opt.opt
        return float(found.valley) if suggest else None

    return test


TOOLS = {"hf_ext": hf_ext, "torch-lr-finder": torch_lr_finder, "fastai": fastai}


def main(given: str, found: str) -> None:
    settings = json.loads(Path(given).read_text())
    tool = TOOLS[settings["tool"]]
    setup = Setup(settings)
    test = tool(setup, settings)
    before = copy.deepcopy(setup.states())
    suggested = test(settings["end_lr"], suggest=True)
    after = setup.states()
    # Once more from the beginning, where nothing diverges: the same number of steps for all.
    setup = Setup(settings)
    test = tool(setup, settings)
    started = time.perf_counter()
    test(settings["timed_end_lr"], suggest=False)
    seconds = time.perf_counter() - started
    restored = {name: before[name] == after[name] for name in before}
    result = {"suggested": suggested, "seconds": seconds, "restored": restored, "version": version(settings["tool"])}
    Path(found).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
