"""A folder of raw data -> the files and text folders in it, and the splits that their names tell."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path

from hf_ext.data.streaming import FORMATS, TEXTS, Source
from hf_ext.errors import DataError

# "train-00000.parquet" and "dev.json" name a split, "training.json" too, "testimonials.csv" and "values.csv" don't.
SPLIT_NAMES = {
    "train": re.compile(r"train(ing)?(?![a-z])", re.IGNORECASE),
    "validation": re.compile(r"(validation|valid|val|dev)(?![a-z])", re.IGNORECASE),
    "test": re.compile(r"test(ing)?(?![a-z])", re.IGNORECASE),
}
CHUNK = 1 << 20


def find_sources(folder: Path) -> tuple[list[Source], list[tuple[str, str]]]:
    """
    What a folder holds, at any depth, in alphabetical order.

    `.txt` files are rows only in a folder of nothing else: its name is their class. A file whose name, or else the name
    of a folder that it lies in, begins with train, validation (valid, val, dev) or test belongs to that split;
    all others belong to train.

    Args:
        folder (`Path`): The folder of raw data.

    Returns:
        `tuple[list[Source], list[tuple[str, str]]]`: The sources, and the ignored files with the reason.

    Raises:
        DataError: If there is no such folder, it holds no data, or only validation or test data.
    """
    if not folder.is_dir():
        raise DataError(f"input_dir: there is no folder {folder}. Name the folder with the raw data.")
    below: dict[Path, list[Path]] = defaultdict(list)
    sources, ignored, classes = [], [], defaultdict(list)
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
        if not path.is_dir():
            below[path.parent].append(path)
        elif path.is_symlink():
            # A link upwards would never end; but nobody should miss the rows behind another without a word.
            ignored.append((_name(path, folder), "a link to a folder is not followed; name the folder itself"))
    for parent, paths in below.items():
        for path in paths:
            kind = _kind(path)
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden:
                ignored.append((_name(path, folder), "hidden"))
            elif not path.is_file():
                ignored.append((_name(path, folder), "not a regular file"))
            elif kind in FORMATS:
                sources.append(Source(path, _name(path, folder), kind, _split(path, folder)))
            elif kind != ".txt":
                ignored.append((_name(path, folder), f"its kind ({kind or 'no ending'}) is none that is read"))
            elif parent == folder or not _is_class(parent, paths, below):
                ignored.append((_name(path, folder), "a .txt file is read only from a folder of nothing else, a class"))
            else:
                classes[parent.parent].append(path)
    for parent, texts in classes.items():
        sources.append(Source(parent, _name(parent, folder), TEXTS, _split(parent, folder), tuple(texts)))
    sources.sort(key=lambda source: (source.name.split("/"), source.kind))
    _check_found(folder, sources, ignored)
    return sources, ignored


def sha256_of(source: Source) -> tuple[str, int]:
    """The SHA-256 of a source's bytes (and of its texts' names), and their number."""
    digest, size = hashlib.sha256(), 0
    for path in source.files:
        if source.kind == TEXTS:
            digest.update(f"{path.relative_to(source.path).as_posix()}\0{path.stat().st_size}\0".encode())
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest(), size


# ---- Inside ----


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".gz":
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        # Parquet is compressed inside; read_table doesn't unpack it either.
        return inner if inner in FORMATS and inner != ".parquet" else f"{inner}.gz"
    return kind


def _is_class(parent: Path, paths: list[Path], below: dict[Path, list[Path]]) -> bool:
    pure = all(path.suffix.lower() == ".txt" for path in paths if not path.name.startswith("."))
    return pure and not any(parent in other.parents for other in below)


def _split(path: Path, folder: Path) -> str:
    for part in reversed(path.relative_to(folder).parts):
        for split, pattern in SPLIT_NAMES.items():
            if pattern.match(part):
                return split
    return "train"


def _check_found(folder: Path, sources: list[Source], ignored: list[tuple[str, str]]) -> None:
    valid = f"{', '.join(FORMATS)} (all but the last also with .gz), or <class>/<name>.txt"
    if not sources:
        seen = f" It holds {', '.join(name for name, _ in ignored[:5])}, which are not." if ignored else " It is empty."
        raise DataError(f"input_dir: {folder} holds no data. What is read: {valid}.{seen}")
    if all(source.split != "train" for source in sources):
        raise DataError(
            f"input_dir: by their names all files in {folder} are validation or test data "
            f"({', '.join(source.name for source in sources[:5])}); none is left to train on. Add the training files, "
            "or rename what may be split."
        )
