import gc
import os
import sys
from pathlib import Path

# Before anything imports the Hub client: no test may reach for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The runs of the contract tests are started by a fork server, which reads its path from the environment.
CONTRACTS = str(Path(__file__).parent / "contracts")
sys.path.insert(0, CONTRACTS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [CONTRACTS, os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items):
    """What takes a minute begins first, so that in the end no worker is left alone with it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish(session):
    """A Trainer collects garbage whenever it begins, which takes longer than a small training: not through imports."""
    gc.collect()
    gc.freeze()
