"""`run.json`: the facts of a run."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hf_ext.files import write_json
from hf_ext.secret_patterns import without_password

PACKAGES = (
    "hf_ext",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "evaluate",
    "accelerate",
    "tokenizers",
    "scikit-learn",
    "numpy",
)
SECRETS = ("token", "hub_token", "push_to_hub_token")


class RunRecord:
    """
    The facts of a run, from its start; [`RunRecord.as_dict`] gives them with the times so far.

    Args:
        argv (`list[str]`): The command line.
        arguments (`dict[str, Any]`):
            Section -> dataclass with the resolved arguments. Tokens, and passwords in URLs, are left out.
    """

    def __init__(self, argv: list[str], arguments: dict[str, Any]):
        self.started = time.time()
        self.facts = {
            "command": [Path(sys.argv[0]).name, *shown_command(argv)],
            "arguments": plain_arguments(arguments),
            "versions": {"python": platform.python_version(), **_versions()},
            "code": _git_state(),
            "hardware": _hardware(),
        }

    def add(self, **facts: Any) -> None:
        """Add facts such as the data's fingerprint."""
        self.facts.update(facts)

    def as_dict(self) -> dict[str, Any]:
        """All facts, JSON-able."""
        now = time.time()
        times = {
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "finished": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "seconds": round(now - self.started, 1),
        }
        return {**self.facts, "times": times, "memory": peak_memory()}

    def write(self, path: Path) -> None:
        """Write `run.json`."""
        write_json(path / "run.json", self.as_dict())


def peak_memory() -> dict[str, int]:
    """The most memory held so far, in MiB: `peak_cpu_memory_mib` of the process, `peak_gpu_memory_mib` on a GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    memory = {"peak_cpu_memory_mib": round(peak / 2**20)}
    if torch.cuda.is_available():
        memory["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return memory


def plain_arguments(arguments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Resolved arguments as JSON-able dictionaries, without tokens and passwords: section -> field -> value."""
    return {section: _plain(value) for section, value in arguments.items()}


def shown_command(argv: list[str]) -> list[str]:
    """A command line without tokens and passwords."""
    shown, hide = [], False
    for argument in argv:
        name = argument.split("=")[0].lstrip("-").replace("-", "_")
        given = f"--{name}=<hidden>" if name in SECRETS and "=" in argument else without_password(argument)
        shown.append("<hidden>" if hide else given)
        hide = argument.startswith("--") and name in SECRETS and "=" not in argument
    return shown


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Turn nested dictionaries into `{"outer.inner": text}`."""
    if isinstance(value, dict) and value:
        parts = (flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}


# ---- Inside ----


def _plain(value: Any) -> dict[str, Any]:
    content = value.to_dict() if hasattr(value, "to_dict") else asdict(value) if is_dataclass(value) else dict(value)
    return {key: _shown(item) for key, item in content.items() if key not in SECRETS}


def _shown(value: Any) -> Any:
    return without_password(str(value)) if isinstance(value, str | Path) else value


def _versions() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether it was changed since; empty outside a checkout."""
    folder = Path(sys.argv[0]).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _hardware() -> dict[str, Any]:
    capabilities = torch.cpu.get_capabilities()
    facts = {
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts
