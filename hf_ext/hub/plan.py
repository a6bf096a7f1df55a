"""What a push to the Hub would publish, and whether it may."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from hf_ext.errors import ConfigurationError
from hf_ext.hub.model_files import model_files
from hf_ext.hub.quoted_rows import QuotedRows, lines_of, strings_of
from hf_ext.models.adapter_files import ADAPTER_CONFIG, is_local
from hf_ext.secret_patterns import environment_secrets, find_secrets

MAX_GIGABYTES = 5.0
# Files that are no text: their bytes are not searched, but for what safetensors says of itself in its head.
BINARY = (".safetensors", ".model")
ADVICE = {
    "secret": "Take it out of the file, and have it replaced where it was issued: it may be known already.",
    "training data": "Take the text out of the file, or publish the data on purpose, as a data set.",
    "no text": "Only safetensors and plain texts are pushed. Save the model again with save_pretrained.",
    "outside": "Only what lies in the folder is pushed. Put a copy there in place of the link.",
    "base model": "Write its name on the Hub there (base_model_name_or_path), or train with --peft_merge true and push "
    "the whole model.",
    "size": "Push it with recipes/push_to_hub.py and a larger --max_gigabytes, or make the model smaller.",
}
MAX_SHOWN = 10


@dataclass(frozen=True)
class PushFinding:
    """
    Why a folder must not be pushed as it is.

    Args:
        kind (`str`): `"secret"`, `"training data"`, `"no text"`, `"outside"`, `"base model"` or `"size"`.
        place (`str`): File and line.
        message (`str`): What is there; never a secret itself.
    """

    kind: Literal["secret", "training data", "no text", "outside", "base model", "size"]
    place: str
    message: str


@dataclass(frozen=True)
class PushPlan:
    """
    What would be pushed.

    Args:
        folder (`Path`): Where the files are.
        files (`dict[str, int]`): Name -> bytes.
        left_out (`dict[str, str]`): Name -> why it is not pushed.
        findings (`list[PushFinding]`): Why nothing may be pushed; empty if it may.
    """

    folder: Path
    files: dict[str, int]
    left_out: dict[str, str]
    findings: list[PushFinding]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def table(self) -> str:
        """What is pushed with its sizes, and what is not with the reasons."""
        rows = [*self.files.items(), (f"{len(self.files)} files", self.size)]
        width = max(len(name) for name in (*self.files, *self.left_out, rows[-1][0]))
        lines = [f"{'pushed':<{width}}  {'bytes':>14}", *(f"{name:<{width}}  {size:>14,}" for name, size in rows)]
        if self.left_out:
            lines += [
                "",
                f"{'left out':<{width}}  why",
                *(f"{name:<{width}}  {why}" for name, why in self.left_out.items()),
            ]
        return "\n".join(lines)

    def raise_if_refused(self) -> None:
        """
        Refuse to go on with findings.

        Raises:
            ConfigurationError: With each place, what is there and what to do.
        """
        if not self.findings:
            return
        lines = [f"{self.folder} is not pushed. Nothing was sent, and the folder is as it was."]
        lines += [f"  {found.place}: {found.message}. {ADVICE[found.kind]}" for found in self.findings[:MAX_SHOWN]]
        if len(self.findings) > MAX_SHOWN:
            lines.append(f"  And {len(self.findings) - MAX_SHOWN} more places.")
        raise ConfigurationError("\n".join(lines))


def plan_push(
    folder: str | os.PathLike,
    rows: Iterable[Any] = (),
    known_secrets: Mapping[str, str] | None = None,
    max_gigabytes: float = MAX_GIGABYTES,
) -> PushPlan:
    """
    Look at a model's folder as a push would publish it. Nothing is sent or written.

    Args:
        folder (`str` or `os.PathLike`): As `save_pretrained` or a run leaves it.
        rows (`Iterable`, *optional*): Texts, or tuples of texts, that must not be in any file that is pushed: training
            data. Those of fewer than 24 letters, digits and spaces are not looked for.
        known_secrets (`Mapping[str, str]`, *optional*): What it is -> a secret to look for besides the values of this
            process's environment variables that are named like one (`HF_TOKEN`, `WANDB_API_KEY` ...) and what looks
            like a token, a key or a password in a URL.
        max_gigabytes (`float`, *optional*, defaults to 5.0): Above this many billions of bytes the push is refused.

    Returns:
        [`PushPlan`]

    Raises:
        ConfigurationError: If it is no folder of a model, or something is missing without which the model would not
            load elsewhere.
    """
    folder = Path(folder)
    names, left_out = model_files(folder)
    findings, texts = [], {}
    for name in names:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            findings.append(PushFinding("outside", name, "it is a link to a file outside of the folder"))
            continue
        try:
            texts[name] = _text_in(path)
        except (ValueError, SafetensorError) as error:
            findings.append(PushFinding("no text", name, f"it is not what its name says ({error})"))
    secrets = {**environment_secrets(os.environ), **(known_secrets or {})}
    for name, text in texts.items():
        for line, kind in find_secrets(text.splitlines(), secrets):
            findings.append(PushFinding("secret", f"{name}, line {line}", f"it holds {kind}"))
    parts = {
        name: strings_of(text) if name.endswith((".json", ".safetensors")) else lines_of(text)
        for name, text in texts.items()
    }
    for name, line in QuotedRows(parts).find(rows):
        findings.append(PushFinding("training data", f"{name}, line {line}", "it quotes a row of the data"))
    if ADAPTER_CONFIG in texts:
        base = json.loads(texts[ADAPTER_CONFIG]).get("base_model_name_or_path") or ""
        if not base or is_local(base):
            what = f"a folder of this machine ({base}) as the adapter's" if base else "no"
            findings.append(PushFinding("base model", ADAPTER_CONFIG, f"it names {what} base model"))
    files = {name: (folder / name).stat().st_size for name in names}
    plan = PushPlan(folder, files, left_out, findings)
    if plan.size > max_gigabytes * 1e9:
        size = f"its {len(files)} files have {plan.size / 1e9:,.2f} GB, more than {max_gigabytes:g}"
        findings.append(PushFinding("size", str(folder), size))
    return plan


# ---- Inside ----


def _text_in(path: Path) -> str:
    """What there is to read in a file: of weights, what their head says."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return json.dumps(file.metadata() or {}, indent=0)
    if path.suffix in BINARY:
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        json.loads(text)
    return text
