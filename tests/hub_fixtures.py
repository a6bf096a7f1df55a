"""The client of this process on a small Hub, and what a process needs to be on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from .hub_server import TOKEN, running_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running Hub that this process is logged in to, although the tests are offline otherwise."""
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # The tests' server speaks LFS only.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # The client's that the library keeps has the address of when it was made.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def on_hub(hub, folder, *words, **environment):
    """Run a Python command in a process of its own that has the tests' Hub for the Hub, and nothing cached."""
    settings = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **environment,
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=settings, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
