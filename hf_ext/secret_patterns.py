"""What passwords, tokens and keys look like, to find them in files and to leave them out of what is shown."""

import re
from collections.abc import Iterable, Iterator, Mapping

# Kind -> what it looks like. The word lists of tokenizers are searched too, and those may be in lower case.
PATTERNS = {
    "a Hugging Face token": re.compile(r"\b(?:hf|api_org)_[a-z0-9]{30,}\b", re.IGNORECASE),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[a-z0-9]{36,}|github_pat_[a-z0-9_]{22,})\b", re.IGNORECASE),
    "an API key (sk-...)": re.compile(r"\bsk-(?=[\w-]*\d)[\w-]{20,}", re.IGNORECASE),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)(?=[A-Z0-9]*\d)[A-Z0-9]{16}\b", re.IGNORECASE),
    "an AWS secret key": re.compile(r"aws_?secret_?(?:access_?)?key\W{1,5}[\w/+=]{30,}", re.IGNORECASE),
    "a Google API key": re.compile(r"\bAIza[\w-]{35}", re.IGNORECASE),
    "a Slack token": re.compile(r"\bxox[abeprs]-[a-z0-9-]{10,}", re.IGNORECASE),
    "a Weights & Biases key": re.compile(
        r"\bwandb_v\d_\w{20,}|wandb[^\n]{0,60}?\b(?:[a-z]+-)?[0-9a-f]{40}\b", re.IGNORECASE
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:(?!\*+@)[^\s/@\"'<>]+@", re.IGNORECASE),
    "a password or key that is set": re.compile(
        r"(?:password|passwd|passphrase|api_?key|secret_?key|(?:access|auth|api|hub)_token)[\"']?\s*[:=]\s*"
        r"[\"'](?!<)[^\"'\s]{8,}[\"']",
        re.IGNORECASE,
    ),
}
# Names of environment variables whose values are secrets, and how short one may be and still be looked for.
SECRET_NAMES = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
SHORTEST = 8


def environment_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """
    The secrets that a process was given by its environment.

    Args:
        environment (`Mapping[str, str]`): Such as `os.environ`.

    Returns:
        `dict[str, str]`: What it is -> its value. Values of fewer than 8 characters and paths are none.
    """
    return {
        f"the value of the environment variable {name}": value
        for name, value in environment.items()
        if SECRET_NAMES.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "~"))
    }


def find_secrets(lines: Iterable[str], known: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """
    Find what looks like a secret.

    Args:
        lines (`Iterable[str]`): Lines of a text.
        known (`Mapping[str, str]`): What it is -> a secret that is looked for itself, in any case of letters.

    Yields:
        `tuple[int, str]`: The number of a line, from 1, and what it holds: one of `PATTERNS` or of `known`, once a
        line. Never the secret.
    """
    wanted = {value.lower(): kind for kind, value in known.items() if len(value) >= SHORTEST}
    for number, line in enumerate(lines, 1):
        folded = line.lower()
        found = {kind for value, kind in wanted.items() if value in folded}
        found |= {kind for kind, pattern in PATTERNS.items() if pattern.search(line)}
        for kind in sorted(found):
            yield number, kind


def without_password(text: str) -> str:
    """A URL, or a text that holds some, as it may be shown and written down."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def without_secrets(text: str, known: Mapping[str, str]) -> str:
    """
    A text as it may be shown.

    Args:
        text (`str`): Such as what a server answered.
        known (`Mapping[str, str]`): What it is -> a secret that is left out too.
    """
    for value in known.values():
        if len(value) >= SHORTEST:
            text = text.replace(value, "***")
    for pattern in PATTERNS.values():
        text = pattern.sub("***", text)
    return text
