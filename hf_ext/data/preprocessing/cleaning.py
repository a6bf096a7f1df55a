"""Texts as people wrote them -> texts without what only a machine left in them."""

import html
import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_ext.errors import ConfigurationError

UrlPolicy = Literal["keep", "replace", "remove"]
URL_PLACEHOLDER = "[URL]"
# In the order in which they run; the position is the bit of the flags that `clean_texts` returns.
OPERATIONS = ("encoding", "html", "control_characters", "unicode_nfc", "urls", "white_space")

# What `str.split` takes for white space, but for the blank.
UNUSUAL = r"\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
UNTIDY = f"[{UNUSUAL}]|^ | $|  "
# C0 and C1 without those, what is invisible wherever it stands (soft hyphen, zero-width space, word joiner, byte order
# mark), and two code points that are no characters. Not U+200C and U+200D, which Persian and emoji are spelled with.
CONTROL = r"[\x{00}-\x{08}\x{0e}-\x{1b}\x{7f}-\x{84}\x{86}-\x{9f}\x{ad}\x{200b}\x{2060}\x{feff}\x{fffe}\x{ffff}]+"
# A sentence's full stop or a closing bracket after an address is not a part of it.
URL = r"(?i)\b(?:https?://|ftp://|www\.)[^\s<>\"]*[^\s<>\"'.,;:!?)\]}…»”\x{2019}]"
MARKUP = r"(?i)<(?:[a-z!?]|/[a-z])|&(?:[a-z][a-z0-9]+|#[0-9]+|#x[0-9a-f]+);"
TAG = re.compile(r"<(?:[a-z!?]|/[a-z])", re.IGNORECASE)
# Elements that end a word; <b> and <i> may stand inside one.
BLOCK = re.compile(
    r"(?=</?(?:article|aside|blockquote|br|dd|div|dl|dt|figure|footer|form|h[1-6]|header|hr|li|main|nav|ol|option|p|pre"
    r"|section|table|td|th|tr|ul)\b)",
    re.IGNORECASE,
)


def clean_texts(
    texts: pa.Array, clean_html: bool = False, clean_urls: UrlPolicy = "keep", fix_encoding: bool = False
) -> tuple[pa.Array, np.ndarray]:
    """
    Clean a column of texts.

    In this order: text that was decoded wrongly is mended (`fix_encoding`, by ftfy), mark-up becomes the text that a
    browser would show (`clean_html`, by selectolax), control and invisible characters are removed, the others are
    composed (Unicode NFC), addresses are treated (`clean_urls`), and runs of white space, line breaks among them,
    become one space, with none at the ends. Every text is cleaned by itself, so the result does not depend on batches.

    Args:
        texts (`pyarrow.Array` of strings, shape `(rows,)`): Without nulls.
        clean_html (`bool`, *optional*, defaults to `False`): Remove tags, scripts, styles; decode entities.
        clean_urls (`"keep"`, `"replace"` or `"remove"`, *optional*, defaults to `"keep"`):
            What becomes of `http://`, `https://`, `ftp://` and `www.` addresses; `"replace"` writes `[URL]`.
        fix_encoding (`bool`, *optional*, defaults to `False`): Mend mojibake such as `donâ€™t`.

    Returns:
        `tuple[pyarrow.Array, np.ndarray]`: The cleaned texts, and `uint8` flags of shape `(rows,)`: bit i is set where
        operation i of [`OPERATIONS`] changed the text.

    Raises:
        ConfigurationError: If the package that an operation needs is not installed.
    """
    flags = np.zeros(len(texts), dtype=np.uint8)
    for bit, step in enumerate(_steps(clean_html, clean_urls, fix_encoding)):
        if step is None:
            continue
        changed = step(texts)
        flags |= np.uint8(1 << bit) * _to_numpy(pc.not_equal(changed, texts))
        texts = changed
    return texts, flags


def clean_steps(
    text: str, clean_html: bool = False, clean_urls: UrlPolicy = "keep", fix_encoding: bool = False
) -> list[tuple[str, str, str]]:
    """
    What [`clean_texts`] does to one text.

    Args:
        text (`str`): The text.
        clean_html, clean_urls, fix_encoding: As for [`clean_texts`].

    Returns:
        `list[tuple[str, str, str]]`: The operations that changed it, in their order: name, text before, text after.
    """
    done = []
    for name, step in zip(OPERATIONS, _steps(clean_html, clean_urls, fix_encoding), strict=True):
        if step is not None:
            changed = step(pa.array([text]))[0].as_py()
            if changed != text:
                done.append((name, text, changed))
            text = changed
    return done


# ---- Inside ----

Step = Callable[[pa.Array], pa.Array]


def _steps(clean_html: bool, clean_urls: UrlPolicy, fix_encoding: bool) -> list[Step | None]:
    return [
        _mender() if fix_encoding else None,
        _html_stripper() if clean_html else None,
        lambda texts: _replace(texts, CONTROL, ""),
        lambda texts: pc.utf8_normalize(texts, form="NFC"),
        None if clean_urls == "keep" else lambda texts: _replace(texts, URL, _url_replacement(clean_urls)),
        _join_white_space,
    ]


def _url_replacement(policy: UrlPolicy) -> str:
    return URL_PLACEHOLDER if policy == "replace" else " "


def _join_white_space(texts: pa.Array) -> pa.Array:
    return _where(texts, UNTIDY, lambda some: pa.array([" ".join(text.split()) for text in some.to_pylist()]))


def _replace(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    return _where(texts, pattern, lambda some: pc.replace_substring_regex(some, pattern, replacement))


def _where(texts: pa.Array, pattern: str, change: Step) -> pa.Array:
    """Change only the texts in which the pattern occurs: to look is ten times as fast as to change."""
    return _changed_at(texts, pc.match_substring_regex(texts, pattern), change)


def _changed_at(texts: pa.Array, mask: pa.Array, change: Step) -> pa.Array:
    if not pc.any(mask).as_py():
        return texts
    return pc.replace_with_mask(texts, mask, change(texts.filter(mask)).cast(texts.type))


def _to_numpy(mask: pa.Array) -> np.ndarray:
    return mask.to_numpy(zero_copy_only=False).astype(np.uint8)


def _mender() -> Step:
    from ftfy import fix_encoding

    def mend(texts: pa.Array) -> pa.Array:
        # Mojibake is never pure ASCII.
        foreign = pc.invert(pc.string_is_ascii(texts))
        return _changed_at(texts, foreign, lambda some: pa.array([fix_encoding(text) for text in some.to_pylist()]))

    return mend


def _html_stripper() -> Step:
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise ConfigurationError(
            "clean_html needs selectolax, which is not installed: pip install 'hf_ext[html]'."
        ) from None

    def strip(text: str) -> str:
        if not TAG.search(text):
            return html.unescape(text)
        tree = LexborHTMLParser(BLOCK.sub(" ", text))
        tree.strip_tags(["script", "style", "noscript", "template", "head"])
        return tree.body.text(separator="") if tree.body is not None else ""

    return lambda texts: _where(texts, MARKUP, lambda some: pa.array(list(map(strip, some.to_pylist()))))
