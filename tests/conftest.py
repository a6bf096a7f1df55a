import gc
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

# Before anything imports the Hub client: no test may reach for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The runs of the contract tests are started by a fork server, which reads its path from the environment.
CONTRACTS = str(Path(__file__).parent / "contracts")
sys.path.insert(0, CONTRACTS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [CONTRACTS, os.environ.get("PYTHONPATH")]))

# How many modules there were when garbage was last told from what stays.
MODULES = pytest.StashKey[int]()


def pytest_collection_modifyitems(items):
    """What takes a minute begins first, so that in the end no worker is left alone with it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish(session):
    keep_out_of_collections(session)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    # One that hangs would be waited for when all the tests have ended.
    for process in multiprocessing.active_children():
        process.kill()
    # What a recipe imports on its way (matplotlib, Optuna, ONNX) is not there before.
    if len(sys.modules) > item.session.stash[MODULES] + 50:
        keep_out_of_collections(item.session)


def keep_out_of_collections(session):
    """A Trainer collects garbage whenever it begins, which takes longer than a small training: not through imports."""
    gc.collect()
    gc.freeze()
    session.stash[MODULES] = len(sys.modules)
