"""What runs the measurements: each once, whatever becomes of the others."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from measurement import PRINTED, Measurement
from needs import missing
from run_all import tables
from running import Runner, read_record

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Counts its calls, and says what it is told to.
SCRIPT = """
import pathlib, sys
with open("calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print('{"loss": 1}')
print("| said |")
print(*sys.argv[1:])
if "fail" in sys.argv:
    sys.exit("for a reason")
if "write" in sys.argv:
    pathlib.Path("written").write_text("a number: 5")
"""


def entry(name, arguments, leaves=None, after=()):
    return Measurement(name, "script.py", arguments, "toy", leaves or {PRINTED: r"^\| said \|"}, after=after)


class Folder:
    """A working folder with the script, and a runner of plans in it."""

    def __init__(self, path):
        self.path, self.records = path, path / "records"
        (path / "script.py").write_text(SCRIPT)

    def start(self, measurement, words, printed, log):
        command = [sys.executable, self.path / measurement.script, *words]
        with printed.open("w") as out, log.open("w") as err:
            return subprocess.Popen(command, cwd=self.path, stdout=out, stderr=err).poll

    def run(self, *plan, **settings):
        """The failures, and the arguments of the calls that were made."""
        (self.path / "calls").write_text("")
        failures = Runner(plan, self.records, self.path, {"data_dir": "here"}, self.start, **settings).run()
        return failures, (self.path / "calls").read_text().splitlines()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_each_once(folder):
    plan = entry("one", "1 {data_dir}"), entry("two", "2", after=("one",))
    assert folder.run(*plan) == ({}, ["1 here", "2"])
    assert folder.run(*plan) == ({}, [])
    assert read_record(folder.records, "one")["command"] == ["script.py", "1", "here"]
    # Another command, and what reads its results.
    changed = entry("one", "3")
    assert folder.run(changed, plan[1]) == ({}, ["3", "2"])
    assert folder.run(changed, plan[1]) == ({}, [])
    assert folder.run(*plan, is_toy=True) == ({}, ["1 here toy", "2 toy"])


def test_what_was_stopped_before_the_rest_is_seen_to(folder):
    one, two = entry("one", "1"), entry("two", "2", after=("one",))
    folder.run(one, two)
    (folder.records / "one.json").unlink()
    assert folder.run(one) == ({}, ["1"])
    assert folder.run(one, two) == ({}, ["2"])


def test_a_failure_stops_only_what_builds_on_it(folder):
    plan = entry("bad", "fail"), entry("on_it", "1", after=("bad",)), entry("further", "2", after=("on_it",))
    other = entry("other", "3")
    failures, calls = folder.run(*plan, other)
    assert calls == ["fail", "3"]
    assert failures == {
        "bad": f"exit status 1; see {folder.records}/bad.log",
        "on_it": "not run, because bad failed",
        "further": "not run, because on_it failed",
    }
    assert (folder.records / "bad.log").read_text() == "for a reason\n"
    assert folder.run(*plan, other)[1] == ["fail"]


def test_a_failure_undoes_what_was_done(folder):
    folder.run(entry("one", "1"))
    folder.run(entry("one", "fail"))
    assert read_record(folder.records, "one") is None


@pytest.mark.parametrize(
    "leaves, why",
    [
        ({PRINTED: "no such words"}, "what it printed does not match 'no such words'"),
        ({"other": ""}, "other was not written"),
        ({"written": r"number: \d\d"}, r"written does not match 'number: \\d\\d'"),
        ({PRINTED: "^write$", "written": r"number: \d$"}, None),
    ],
)
def test_what_has_to_be_left(folder, leaves, why):
    failures, _ = folder.run(entry("one", "write", leaves))
    assert failures == ({} if why is None else {"one": f"{why}; see {folder.records}/one.log"})


def test_two_at_a_time(folder):
    running, most = set(), []

    def poll(name, process):
        status = process()
        if status is not None:
            running.discard(name)
        return status

    def start(measurement, *rest):
        running.add(measurement.name)
        most.append(len(running))
        return partial(poll, measurement.name, Folder.start(folder, measurement, *rest))

    plan = [entry(f"m{number}", str(number)) for number in range(5)]
    assert Runner(plan, folder.records, folder.path, {}, start, jobs=2).run() == {}
    assert max(most) == 2
    assert len(most) == 5


def test_the_tables_of_what_is_done(folder):
    one, two = entry("one", "1 {data_dir}"), entry("two", "fail")
    folder.run(one, two, facts="torch 1 on a machine")
    text = tables({"First": (one,), "Second": (two,), "Third": ()}, folder.records)
    head, section = text.split("## ")
    assert head == "# Measurements\n\n1. torch 1 on a machine\n\n"
    title, command, date, table, *rest = (part for part in section.splitlines() if part)
    assert (title, command, table) == ("First", "`python benchmarks/script.py 1 DIR`", "| said |")
    assert date.startswith("(20")
    assert rest == ["```text", "1 here", "```"]


def test_all_that_is_missing_is_said_at_once(tmp_path):
    read = Measurement("read", "a.py", "--data_dir {data_dir}", "", {PRINTED: ""}, sets=("trec6", "mr"))
    both = Measurement("both", "b.py", "{data_dir} {wordnet_dir}", "", {PRINTED: ""}, sets=("mr",))
    (tmp_path / "trec6").mkdir()
    (tmp_path / "trec6" / "train.json").write_text("[]")
    assert missing([read, both], tmp_path, tmp_path / "wordnet") == {
        f"{tmp_path}/trec6/test.json": ["read"],
        f"{tmp_path}/mr/all.json": ["read", "both"],
        **{
            f"{tmp_path}/wordnet/{name}": ["both"]
            for name in ("data.noun", "data.verb", "data.adj", "data.adv", "index.noun", "index.verb", "index.adj")
        },
        f"{tmp_path}/wordnet/index.adv": ["both"],
        f"{tmp_path}/wordnet/LICENSE": ["both"],
    }


def test_nothing_begins_while_something_is_missing(tmp_path):
    command = [sys.executable, BENCHMARKS / "run_all.py", "--output_dir", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()
    assert done.stderr.startswith("Nothing was begun; missing:")
    assert "--data_dir: a folder of data sets" in done.stderr
    assert "--wordnet_dir: WordNet's files" in done.stderr
    assert "for kim2014_random, " in done.stderr
