"""Runs measurements, each once: what has been run with the same command, and left what it has to, is not run again."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from measurement import Measurement

# Says how a process ended, as an exit status; `None` as long as it runs.
Poll = Callable[[], int | None]
# Begins a measurement with the given arguments; what it prints and what it says besides go to the two files.
Start = Callable[[Measurement, list[str], Path, Path], Poll]
PAUSE_S = 0.1


def read_record(folder: Path, name: str) -> dict | None:
    """What is known of a measurement that is done: `command`, `finished`, `seconds`, `facts`."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_printed(folder: Path, name: str) -> str:
    path = folder / f"{name}.out"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


class Runner:
    """
    Runs a plan.

    Args:
        plan (`Sequence[Measurement]`): In the order in which they begin, if nothing keeps them from it.
        folder (`Path`): Gets `NAME.out`, `NAME.log` and, when it is done, `NAME.json` of each.
        working_folder (`Path`): In which the commands run.
        places (`Mapping[str, object]`): What the commands hold places open for.
        start (`Start`): Begins one.
        is_toy (`bool`, *optional*, defaults to `False`): Whether at toy size.
        jobs (`int`, *optional*, defaults to 1): How many at a time.
        facts (`str`, *optional*): Versions and machine, for the records.
    """

    def __init__(
        self,
        plan: Sequence[Measurement],
        folder: Path,
        working_folder: Path,
        places: Mapping[str, object],
        start: Start,
        is_toy: bool = False,
        jobs: int = 1,
        facts: str = "",
    ):
        self.plan, self.folder, self.working_folder = plan, folder, working_folder
        self.start, self.jobs, self.facts = start, jobs, facts
        self.commands = {each.name: [each.script, *each.words(places, is_toy)] for each in plan}
        self.done: set[str] = set()
        self.failures: dict[str, str] = {}
        self.running: dict[str, tuple[Measurement, float, Poll]] = {}

    def run(self) -> dict[str, str]:
        """Run what is not done; name -> why of those that failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = list(self.plan)
        while waiting or self.running:
            waiting = [each for each in waiting if not self._settle(each)]
            for measurement, began, poll in list(self.running.values()):
                status = poll()
                if status is not None:
                    self._end(measurement, time.time() - began, status)
            if self.running:
                time.sleep(PAUSE_S)
        return self.failures

    def _settle(self, measurement: Measurement) -> bool:
        """Begin a measurement, or see that it is done or cannot be; whether it need not be looked at again."""
        before = set(measurement.after) & set(self.commands)
        if failed := sorted(before & set(self.failures)):
            self._fail(measurement.name, f"not run, because {', '.join(failed)} failed")
        elif not before <= self.done:
            return False
        elif self._is_done(measurement):
            self.done.add(measurement.name)
            self._say(measurement.name, "done before")
        elif len(self.running) < self.jobs:
            self._begin(measurement)
        else:
            return False
        return True

    def _is_done(self, measurement: Measurement) -> bool:
        """Whether it was run with this command, after what it reads."""
        record = read_record(self.folder, measurement.name)
        if record is None or record["command"] != self.commands[measurement.name]:
            return False
        earlier = (read_record(self.folder, name) for name in measurement.after)
        return all(other is None or other["finished"] <= record["finished"] for other in earlier)

    def _begin(self, measurement: Measurement) -> None:
        name, (_, *words) = measurement.name, self.commands[measurement.name]
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        files = (self.folder / f"{name}.out", self.folder / f"{name}.log")
        self._say(name, f"begins: {measurement.script} {' '.join(words)}")
        self.running[name] = (measurement, time.time(), self.start(measurement, words, *files))

    def _end(self, measurement: Measurement, seconds: float, status: int) -> None:
        name = measurement.name
        del self.running[name]
        lack = f"exit status {status}" if status else None
        lack = lack or measurement.shortfall(read_printed(self.folder, name), self.working_folder)
        if lack:
            self._fail(name, f"{lack}; see {self.folder / name}.log")
            return
        record = {
            "command": self.commands[name],
            "finished": datetime.now(UTC).isoformat(),
            "seconds": round(seconds, 1),
            "facts": self.facts,
        }
        (self.folder / f"{name}.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        self.done.add(name)
        self._say(name, f"done in {seconds:,.0f} s")

    def _fail(self, name: str, why: str) -> None:
        self.failures[name] = why
        self._say(name, f"FAILED: {why}")

    def _say(self, name: str, what: str) -> None:
        settled = len(self.done) + len(self.failures)
        print(f"[{settled}/{len(self.plan)}] {name}: {what}", flush=True)
