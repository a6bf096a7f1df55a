"""Kill a run at random moments, resume it each time, and compare what it ends with.

    python benchmarks/kills.py [--kills 50] [--seed 0] [--output_dir outputs/kills]

A run of recipes/run_classification.py with a tiny TextCNN on made-up sentences, which evaluates and saves in every
second step, keeps two checkpoints, and ends with its best model. It is made once in peace, and then with a SIGKILL
after a random time, resumed by `--resume_from_checkpoint true` and killed again, until so many kills are done; then it
is let run to its end. The weights, the predictions and the history of both have to be equal bit for bit.
Called again, it goes on where it was; another --seed needs another --output_dir.

A quarter of the moments is drawn in wall time; the others lie up to 30 ms after the run has begun to train, to save or
to evaluate for a random time, because most of so small a run is reading and reporting. What it was doing is told by
what it noted last. Each attempt is a process that is forked from one which has imported everything.
"""

import argparse
import hashlib
import json
import os
import random
import runpy
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file
from tqdm import tqdm

from hf_ext import ExtendedTrainer
from hf_ext.evaluation.tables import aligned
from hf_ext.files import write_json

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "run_classification.py"
WORDS = {"good": ["good", "great", "fine", "lovely"], "bad": ["bad", "awful", "poor", "dull"]}
FILLER = ["the", "film", "was", "a", "very", "plot", "actor", "scene", "and", "of"]
# How often a run begins, at most, what it is killed in, and how soon after that.
VISITS, DELAY_S = 6, 0.03
ENDED = "it had ended"
SETTINGS = [
    "--model_type", "textcnn", "--embed_size", "8", "--num_filters", "4", "--learning_rate", "1e-2",
    "--num_train_epochs", "3", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2",
    "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2",
    "--save_total_limit", "2", "--load_best_model_at_end", "true", "--metric_for_best_model", "loss",
    "--logging_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true",
]  # fmt: skip


def write_rows(folder: Path, rows: int) -> list[str]:
    """Sentences whose words decide the label; the flags that name their files."""
    generator = random.Random(0)
    for name, count in (("train", rows), ("test", rows // 4)):
        made = []
        for index in range(count):
            label = ("good", "bad")[index % 2]
            words = generator.choices(FILLER, k=generator.randint(2, 9)) + generator.choices(WORDS[label], k=1)
            generator.shuffle(words)
            made.append({"text": " ".join(words), "label": label})
        write_json(folder / f"{name}.json", made)
    return ["--train_file", str(folder / "train.json"), "--test_file", str(folder / "test.json")]


# ---- One attempt ----


def note_what_is_done(path: Path) -> None:
    """Let a run write into a file what it is doing."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)

    def note(text: str) -> None:
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()

    doing = ["before training"]

    def noting(name: str, method: str) -> None:
        plain = getattr(ExtendedTrainer, method)

        def noted(self, *args, **kwargs):
            if doing[-1] == "saving":
                return plain(self, *args, **kwargs)
            doing.append(name)
            note(name)
            try:
                return plain(self, *args, **kwargs)
            finally:
                doing.pop()
                if name == "training":
                    doing[-1] = "results"
                note(doing[-1])

        setattr(ExtendedTrainer, method, noted)

    noting("training", "_inner_training_loop")
    noting("saving", "_save_checkpoint")
    noting("evaluating", "evaluate")
    noting("results", "save_model")
    note(doing[-1])


@contextmanager
def forked(argv: list[str], log: Path, notes: Path | None = None):
    """The recipe in a process forked from this one; the process's number."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            if notes is not None:
                note_what_is_done(notes)
            sys.argv = [str(RECIPE), *argv]
            runpy.run_path(str(RECIPE), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(status)
    yield process


def finish(argv: list[str], log: Path) -> float:
    """Let a run come to its end; its seconds."""
    started = time.perf_counter()
    with forked(argv, log) as process:
        _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"The run ended with {os.waitstatus_to_exitcode(status)}; see {log}.")
    return time.perf_counter() - started


def kill(argv: list[str], log: Path, notes: Path, moment: random.Random, longest: float) -> str:
    """
    Begin or resume a run and kill it.

    Args:
        argv (`list[str]`): Its settings.
        log (`Path`): Gets what it prints.
        notes (`Path`): Gets what it is doing.
        moment (`random.Random`): Draws when: after so many seconds, or so soon after it has begun to train, save or
            evaluate for the n-th time.
        longest (`float`): The most seconds.

    Returns:
        `str`: What it was doing, or [`ENDED`].
    """
    wanted, visits = moment.choice(["anything", "training", "saving", "evaluating"]), moment.randint(1, VISITS)
    after = time.monotonic() + moment.uniform(0, longest)
    delay = moment.uniform(0, DELAY_S)
    notes.unlink(missing_ok=True)
    with forked(argv, log, notes) as process:
        last = ""
        while time.monotonic() < after if wanted == "anything" else visits:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                if status:
                    raise SystemExit(f"A run ended with {os.waitstatus_to_exitcode(status)}; see {log}.")
                return ENDED
            now = notes.read_text(encoding="utf-8") if notes.exists() else ""
            visits -= now == wanted != last
            last = now
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return (notes.read_text(encoding="utf-8") if notes.exists() else "") or "before training"


# ---- The whole ----


def flags_of(folder: Path, flags: list[str]) -> list[str]:
    """Settings of a run; it is resumed if it has begun to write."""
    begun = any((folder / name).exists() for name in ("run.json", "training.log"))
    return [*SETTINGS, *flags, "--output_dir", str(folder), *(["--resume_from_checkpoint", "true"] if begun else [])]


def facts_of(folder: Path) -> dict[str, str]:
    """Digests of what a run has to end with, whatever happened to it."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(name.encode() + value.numpy().tobytes())
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    timed = ("runtime", "per_second", "performance/", "total_flos", "train_loss")
    history = [
        {name: value for name, value in log.items() if not any(word in name for word in timed)}
        for log in state["log_history"]
    ]
    return {
        "weights": digest.hexdigest(),
        "predictions": hashlib.sha256((folder / "predictions_test.jsonl").read_bytes()).hexdigest(),
        "best step": str(state["best_global_step"]),
        "history": hashlib.sha256(json.dumps(history).encode()).hexdigest(),
    }


def measure(folder: Path, kills: int, seed: int, rows: int = 320, show_progress: bool = True) -> dict:
    """
    The whole benchmark.

    Args:
        folder (`Path`): Where the runs, and `kills.json`, are written.
        kills (`int`): How many.
        seed (`int`): Of the moments.
        rows (`int`, *optional*, defaults to 320): To train on.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a bar.

    Returns:
        `dict`: `moments` (what the run was doing -> kills), `differ` (what is not equal), `runs` that came to their
            end, and `seconds` that one takes.
    """
    # The bars' own lock is shared with forked processes: one that is killed while it holds it would stop this one.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "kills.json", folder / "runs.log"
    flags = write_rows(folder, rows)
    done = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seed": seed, "moments": [], "ended": 0}
    if done["seed"] != seed:
        raise SystemExit(f"{path} was begun with --seed {done['seed']}; name another --output_dir.")
    if "seconds" not in done:
        done["seconds"] = finish([*flags_of(folder / "whole", flags), "--overwrite"], log)
        write_json(path, done)
    bar = tqdm(total=kills, initial=len(done["moments"]), disable=not show_progress, desc="kills")
    while len(done["moments"]) < kills:
        attempt, killed = len(done["moments"]) + done["ended"], folder / "killed"
        drawn = random.Random(f"{seed}:{attempt}")
        moment = kill(flags_of(killed, flags), log, folder / "doing", drawn, done["seconds"])
        if moment == ENDED:
            # All the more moments: the next one is in a run that begins anew.
            _require_equal(folder / "whole", killed)
            shutil.rmtree(killed)
            done["ended"] += 1
            write_json(path, done)
            continue
        done["moments"].append(moment)
        write_json(path, done)
        bar.update()
    bar.close()
    finish(flags_of(folder / "killed", flags), log)
    return {
        "moments": dict(Counter(done["moments"])),
        "differ": differences(folder / "whole", folder / "killed"),
        "runs": done["ended"] + 1,
        "seconds": done["seconds"],
    }


def differences(one: Path, other: Path) -> list[str]:
    """What two runs did not end with alike."""
    before, now = facts_of(one), facts_of(other)
    return [name for name in before if before[name] != now[name]]


def _require_equal(one: Path, other: Path) -> None:
    if found := differences(one, other):
        raise SystemExit(f"{one} and {other} differ in {', '.join(found)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/kills"))
    args = parser.parse_args()
    found = measure(args.output_dir, args.kills, args.seed)
    table = sorted(found["moments"].items(), key=lambda item: -item[1])
    print(aligned([["killed while", "times"], *([name, str(count)] for name, count in table)]))
    print(f"{found['runs']} runs came to their end; one in peace takes {found['seconds']:.1f} s.")
    print("Differences: " + (", ".join(found["differ"]) or "none, bit for bit"))
    raise SystemExit(bool(found["differ"]))


if __name__ == "__main__":
    main()
