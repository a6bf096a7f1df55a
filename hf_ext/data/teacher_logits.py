"""A teacher's answers to many texts: each text once, in a cache that later runs and students share."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from hf_ext.data.logits_cache import LogitsCache, text_keys
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.models.teacher import Precision, Teacher, resolve_dtype
from hf_ext.problem_types import REGRESSION

# Part of the cache's key: to be raised when the same teacher and text give other logits.
VERSION = 1
# Texts a file of the cache, and the seconds after which a slow teacher's are written before it is full.
SHARD_ROWS, SHARD_S = 4096, 30.0
# Tokens a batch, padding included.
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 65536


@dataclass(frozen=True)
class TeacherLogits:
    """
    What a teacher answers, and what it cost.

    Args:
        logits (`np.ndarray` of shape (texts, classes)): float32, in the order of the texts and the student's classes.
        labelled (`int`): Different texts that the teacher was asked now, by all processes.
        cached (`int`): Different texts whose logits were in the cache.
        seconds (`float`): What all of it took.
        notes (`list[str]`): What a reader of the results has to know, in sentences.
    """

    logits: np.ndarray = field(repr=False)
    labelled: int
    cached: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def teacher_logits(
    texts: Sequence,
    teacher: Teacher,
    *,
    cache_dir: str | Path | None = None,
    precision: Precision = "auto",
    batch_tokens: int | None = None,
    progress: bool = True,
) -> TeacherLogits:
    """
    Ask a teacher for its logits on texts, or find them in the cache.

    Each different text is asked once, the longest ones first, in batches of about equal lengths. Logits are kept by
    text, teacher (its weights, configuration and tokenizer), greatest length and number format; with anything else
    they are never used. They are written every 4,096 texts or 30 seconds, so that labelling that was interrupted goes
    on from there. On several processes all of them have to call this with the same texts: each labels a part, and all
    get the same.

    Args:
        texts (`Sequence`): Strings, or pairs of them. Repeats are allowed.
        teacher ([`Teacher`]): On the device where it is to compute; it is left in the format that it came in.
        cache_dir (`str` or `Path`, *optional*):
            Defaults to `hf_ext/teacher_logits` in the cache folder of Hugging Face.
        precision (`str`, *optional*, defaults to `"auto"`):
            The format to compute in: `"float32"`, `"bfloat16"`, or bfloat16 where the hardware has it. The logits are
            kept in float16 (regression, and what float16 cannot hold: in float32).
        batch_tokens (`int`, *optional*): Tokens a batch with its padding; by default 1,024, on a GPU 65,536.
        progress (`bool`, *optional*, defaults to `True`): Show a progress bar when there is something to label.

    Returns:
        [`TeacherLogits`]

    Raises:
        DataError: If a text is no string or pair, there is none, or the teacher's answer to one is not finite.
        ConfigurationError: If an argument is out of range, or the cache cannot be used.
    """
    start = time.perf_counter()
    if len(texts) == 0:
        raise DataError("There are no texts to ask the teacher about.")
    if batch_tokens is not None and (not isinstance(batch_tokens, int) or batch_tokens < 1):
        raise ConfigurationError(f"batch_tokens is {batch_tokens!r}; it must be a whole number of at least 1.")
    all_keys = text_keys(texts)
    coded = all_keys.dictionary_encode()
    keys, row_of = coded.dictionary, coded.indices.to_numpy()
    first = np.full(len(keys), len(texts), dtype=np.int64)
    np.minimum.at(first, row_of, np.arange(len(texts)))
    classes, state = len(teacher.label_names), PartialState()
    # The first process decides, so that all know the same files also when other runs are writing.
    dtype = broadcast_object_list([resolve_dtype(precision, teacher.device)])[0]
    cache = LogitsCache(_folder(cache_dir, teacher, dtype))
    names, notes = broadcast_object_list(list(cache.whole_files() if state.is_main_process else (None, None)))
    logits, found = cache.read(names, keys, classes)
    missing = np.flatnonzero(~found)
    if len(missing):
        lengths = np.array([_characters(texts[first[index]]) for index in missing.tolist()])
        own = missing[np.argsort(-lengths, kind="stable")][state.process_index :: state.num_processes]
        asked = [texts[row] for row in first[own].tolist()]
        names = names + _together(
            lambda: label(
                asked,
                keys.take(pa.array(own)),
                teacher,
                cache,
                dtype,
                batch_tokens or (CPU_BATCH_TOKENS if teacher.device.type == "cpu" else GPU_BATCH_TOKENS),
                progress and state.is_main_process,
            )
        )
        logits, _ = cache.read(names, keys, classes)
    return TeacherLogits(
        logits[row_of], len(missing), len(keys) - len(missing), time.perf_counter() - start, list(notes)
    )


def label(
    texts: list,
    keys: pa.Array,
    teacher: Teacher,
    cache: LogitsCache,
    dtype: torch.dtype,
    batch_tokens: int,
    progress: bool,
) -> list[str]:
    """
    Ask a teacher about texts and write what it answers.

    Args:
        texts (`list`): Different texts, the longest first.
        keys (`pyarrow.Array`): Theirs, from [`text_keys`].
        teacher ([`Teacher`]): Whose format is as before afterwards.
        cache ([`LogitsCache`]): Where to write.
        dtype (`torch.dtype`): What to compute in.
        batch_tokens (`int`): Tokens a batch, padding included.
        progress (`bool`): Whether to show a bar.

    Returns:
        `list[str]`: The files that were written.
    """
    names, answers, since = [], [], time.monotonic()
    exact, before = teacher.problem_type == REGRESSION, [member.running.dtype for member in teacher.members]
    teacher.to(teacher.device, dtype)

    def write():
        rows, logits = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        answers.clear()
        names.append(cache.write(keys.take(pa.array(rows)), logits, exact))

    try:
        with tqdm(total=len(texts), desc="Asking the teacher", unit=" texts", disable=not progress) as bar:
            for batch, inputs in _batches(texts, teacher, batch_tokens):
                answers.append((batch, teacher.logits(inputs).cpu().numpy()))
                if sum(len(rows) for rows, _ in answers) >= SHARD_ROWS or time.monotonic() - since > SHARD_S:
                    write()
                    since = time.monotonic()
                bar.update(len(batch))
    finally:
        # Also what was answered before Ctrl-C, or before a text that cannot be.
        if answers:
            write()
        for member, format_before in zip(teacher.members, before, strict=True):
            member.to(teacher.device, format_before)
    return names


# ---- Inside ----


def _folder(cache_dir: str | Path | None, teacher: Teacher, dtype: torch.dtype) -> Path:
    key = {"version": VERSION, "teacher": teacher.fingerprint, "format": str(dtype)}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    parent = Path(datasets.config.HF_CACHE_HOME) / "hf_ext" / "teacher_logits" if cache_dir is None else Path(cache_dir)
    return parent / name


def _characters(text: str | tuple[str, str]) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def _batches(texts: list, teacher: Teacher, batch_tokens: int) -> Iterator[tuple[np.ndarray, list]]:
    """Rows and what the teacher takes of them, in pieces whose memory does not depend on how many texts there are."""
    for start in range(0, len(texts), SHARD_ROWS):
        encoded = teacher.tokenize(texts[start : start + SHARD_ROWS])
        lengths = np.max([[len(row["input_ids"]) for row in rows] for rows in encoded], axis=0)
        order, position = np.argsort(-lengths, kind="stable"), 0
        while position < len(order):
            size = max(1, batch_tokens // max(1, int(lengths[order[position]])))
            batch = order[position : position + size]
            yield start + batch, teacher.pad([[rows[index] for index in batch.tolist()] for rows in encoded])
            position += size


def _together(work) -> list[str]:
    """The names that all processes wrote; if one of them failed all raise, rather than wait for it."""
    written, failure = [], None
    try:
        written = work()
    except Exception as error:
        failure = error
    reports = gather_object([(PartialState().process_index, written, failure and str(failure))])
    if failure is not None:
        raise failure
    for process, _, message in reports:
        if message is not None:
            raise DataError(f"Process {process + 1} could not ask the teacher: {message}")
    return [name for _, names, _ in sorted(reports) for name in names]
