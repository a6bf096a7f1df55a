"""What the preflight found: one finding a check, as text, as JSON, as an error."""

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from hf_ext.errors import DataError

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
MOST_EXAMPLES = 5
SHOWN_CHARACTERS = 200
WIDTH = 100


@dataclass(frozen=True)
class Example:
    """
    One row that a check is about.

    Args:
        split (`str`): The row's split.
        row (`int`): Its number in the split, from 1.
        text (`str`): Its beginning, 200 characters at most.
        label (`str`, *optional*): Its label, by name.
        note (`str`, *optional*): What is wrong with it, or which row it is like.
    """

    split: str
    row: int
    text: str
    label: str | None = None
    note: str = ""

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        note = f" ({self.note})" if self.note else ""
        return f"{self.split}, row {self.row}{label}: {self.text!r}{note}"


@dataclass(frozen=True)
class Finding:
    """
    The result of one check.

    Args:
        check (`str`): Its name.
        verdict (`str`): `"ok"`, `"warn"`, `"fail"` (results cannot be trusted, or rows cannot be used), `"skipped"`.
        count (`int`): How many rows, texts, classes or tokens are affected.
        message (`str`): What was found, or why the check was skipped.
        advice (`str`, *optional*): What to do.
        examples (`list[Example]`, *optional*): Five at most, the first ones.
        numbers (`dict[str, float]`, *optional*): The counts and shares behind the message.
    """

    check: str
    verdict: str
    count: int
    message: str
    advice: str = ""
    examples: list[Example] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PreflightReport:
    """
    All findings.

    Args:
        findings (`list[Finding]`): One a check, in a fixed order.
    """

    findings: list[Finding]

    @property
    def verdict(self) -> str:
        """The worst verdict of all checks."""
        verdicts = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in (FAIL, WARN) if verdict in verdicts), OK)

    def __getitem__(self, check: str) -> Finding:
        return next(finding for finding in self.findings if finding.check == check)

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file. The same data gives the same bytes."""
        findings = [asdict(finding) for finding in self.findings]
        for finding in findings:
            # A row without a label or a note says nothing about them.
            finding["examples"] = [
                {key: value for key, value in example.items() if value not in (None, "") or key == "text"}
                for example in finding["examples"]
            ]
        return {"verdict": self.verdict, "findings": findings}

    def summary(self) -> str:
        """What is not as it should be, in a few lines of 100 columns."""
        lines = [f"Preflight: {self.verdict}"]
        for finding in self.findings:
            if finding.verdict in (WARN, FAIL):
                lines += _wrapped(f"{finding.verdict:<4}  {finding.check}: {finding.message}", "  ", "        ")
        return "\n".join(lines)

    def table(self) -> str:
        """A line a check, then what was found and what to do, 100 columns wide."""
        counts = ", ".join(
            f"{sum(finding.verdict == verdict for finding in self.findings)} {verdict}"
            for verdict in (FAIL, WARN, OK, SKIPPED)
        )
        name_width = max(len(finding.check) for finding in self.findings)
        lines = [f"Preflight: {self.verdict} ({counts})"]
        for finding in self.findings:
            start = f"  {finding.verdict:<7}  {finding.check:<{name_width}}  "
            width = WIDTH - len(start)
            message = finding.message
            lines.append(start + (message if len(message) <= width else message[: width - 4].rstrip() + " ..."))
        for finding in self.findings:
            if finding.verdict in (WARN, FAIL):
                lines += ["", f"{finding.verdict}: {finding.check}", *_wrapped(finding.message, "  ")]
                lines += _wrapped(f"What to do: {finding.advice}", "  ")
                for example in finding.examples:
                    lines += _wrapped(f"- {example}", "  ", "    ")
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """
        Refuse data on which results could not be trusted.

        Raises:
            DataError: With the checks that failed, their first rows and what to do.
        """
        failed = [finding for finding in self.findings if finding.verdict == FAIL]
        if not failed:
            return
        parts = []
        for finding in failed:
            first = f" First: {finding.examples[0]}." if finding.examples else ""
            parts.append(f"{finding.check}: {finding.message}{first} {finding.advice}")
        raise DataError(
            f"The preflight failed {len(failed)} check{'s' if len(failed) > 1 else ''}.\n  " + "\n  ".join(parts)
        )


def shorten(text: str) -> str:
    """A text as examples show it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def share(part: float, whole: float) -> str:
    """`"1.3 %"`; what is not zero is never shown as zero."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    return "below 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def rows_of(count: int) -> str:
    """`"1 row"`, `"2 rows"`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


# ---- Inside ----


def _wrapped(text: str, indent: str, next_indent: str | None = None) -> list[str]:
    following = indent if next_indent is None else next_indent
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=following, break_on_hyphens=False)
