"""The learning-rate finder beside those of torch-lr-finder and fastai: the same model, rows, optimizer and range."""

import re
import sys
from collections import Counter
from functools import partial
from itertools import product

from peer_parts.environments import note_missing, peer_python, print_missing, run_arm
from peer_parts.protocols import check_sets, read_splits
from peer_parts.runs import once, read_results, shown_set, spread

SETS = ("trec6", "sst2")
TOOLS = ("hf_ext", "torch-lr-finder", "fastai")
SETTINGS = {
    "batch": 50,
    "length": 40,
    "start_lr": 1e-7,
    "end_lr": 1.0,
    "steps": 100,
    # Nothing diverges below it, so that all make as many steps.
    "timed_end_lr": 1e-3,
}
WORDS = re.compile(r"\w+|[^\w\s]")


def run(args) -> None:
    """Each tool of each round in a process of its own, the tools in turns."""
    names = args.sets or SETS
    check_sets(args.data_dir, names, SETS)
    folder = args.work_dir / "finder"
    pythons = {"hf_ext": sys.executable}
    for tool in TOOLS[1:]:
        with note_missing(folder, tool):
            pythons[tool] = peer_python(args.work_dir, tool)
    rows = {name: numbered(read_splits(args.data_dir, name, args.max_rows)["train"]) for name in names}
    for number, name in product(range(args.rounds), names):
        for tool in list(pythons)[:: 1 - 2 * (number % 2)]:
            settings = {"set": name, "tool": tool, "seed": number, "max_rows": args.max_rows, **SETTINGS}
            title = f"{name}_{number}_{tool}"
            log = folder / "logs" / f"{title}.log"
            work = partial(run_arm, pythons[tool], "finder_arm", {**settings, **rows[name]}, log)
            once(folder / f"{title}.json", settings, work)


def numbered(rows: list[dict]) -> dict:
    """Texts as padded numbers of words (0: none), labels as numbers."""
    texts = [WORDS.findall(row["text"].lower())[: SETTINGS["length"]] for row in rows]
    counts = Counter(word for text in texts for word in text)
    numbers = {word: number for number, word in enumerate(sorted(counts), 1)}
    labels = sorted({row["label"] for row in rows})
    ids = [[numbers[word] for word in text] + [0] * (SETTINGS["length"] - len(text)) for text in texts]
    return {"ids": ids, "labels": [labels.index(row["label"]) for row in rows], "words": len(numbers) + 1}


def tables(args) -> None:
    folder = args.work_dir / "finder"
    results = read_results(folder)
    if not results:
        return
    print("\nLearning-rate finders, a TextCNN of 100 dimensions, AdamW, batch 50, 1e-7 to 1 in 100 steps:\n")
    print_missing(folder)
    print("| set | tool | suggested, median (range) | s for 100 steps | rounds | model | optimizer | random state |")
    print("|---|---|---|---|---|---|---|---|")
    for name, tool in product(SETS, TOOLS):
        key = {"set": name, "tool": tool}
        runs = [found for found in results if key.items() <= found["settings"].items()]
        if not runs:
            continue
        rates = [found["suggested"] for found in runs if found["suggested"] is not None]
        suggested = spread(rates, ".2g") if rates else "none"
        if 0 < len(rates) < len(runs):
            suggested += f", none in {len(runs) - len(rates)}"
        seconds = spread([found["seconds"] for found in runs], ".2f")
        restored = [
            "restored" if all(found["restored"][part] for found in runs) else "changed"
            for part in ("model", "optimizer", "random")
        ]
        cells = [shown_set(runs[0]["settings"]), f"{tool} {runs[0]['version']}", suggested, seconds, str(len(runs))]
        print(f"| {' | '.join(cells + restored)} |")
