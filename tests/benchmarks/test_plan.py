"""Every benchmark, and every part of it, is in the plan that `make benchmarks` and `make benchmarks-smoke` run."""

import ast
import re
import string
from pathlib import Path

import pytest
from needs import NEEDS, SETS
from plan import CALLED_BY, MEASUREMENTS, chosen
from toy_inputs import LABELS, places

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# They run the plan.
RUNNERS = {"run_all.py", "smoke.py"}


def scripts():
    """Files that are command lines."""
    found = [path for path in sorted(BENCHMARKS.glob("*.py")) if 'if __name__ == "__main__":' in path.read_text()]
    return [path for path in found if path.name not in RUNNERS]


def parts_of(path):
    """What its first argument may be: subcommands, or the choices of an argument `part`."""
    tree = ast.parse(path.read_text())
    values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}

    def names(node):
        match node:
            case ast.Constant():
                return [node.value]
            case ast.Name():
                # A function's, or that of other names.
                return names(values[node.id]) if node.id in values else [node.id]
            case ast.Tuple():
                return [name for item in node.elts for name in names(item)]
            case ast.Dict():
                return [name for key in node.keys for name in names(key)]
            case ast.DictComp():
                return names(node.generators[0].iter)
            case ast.Starred():
                return names(node.value)
        raise AssertionError(f"{path.name}: {ast.unparse(node)}")

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    found = [call.args[0].value for call in calls if call.func.attr == "add_parser"]
    for call in calls:
        if call.func.attr == "add_argument" and call.args[0].value == "part":
            found += names(next(keyword.value for keyword in call.keywords if keyword.arg == "choices"))
    return found or [None]


def test_every_part_of_every_script_is_in_the_plan():
    parts = [(path.name, part) for path in scripts() for part in parts_of(path)]
    assert len(scripts()) == 18
    assert len(parts) == 54
    planned = {(each.script, each.part) for each in MEASUREMENTS}
    names = {each.name for each in MEASUREMENTS}
    for called, caller in CALLED_BY.items():
        assert caller in names
        planned.add(tuple(called.split(" ")))
    assert planned == set(parts)


def test_the_entries_hold_together():
    known = set(places(Path()))
    seen = set()
    for each in MEASUREMENTS:
        assert each.name not in seen
        assert re.fullmatch(r"\w+", each.name)
        assert set(each.after) <= seen, "the plan's order"
        assert set(each.sets) <= set(SETS)
        assert set(each.needs) <= set(NEEDS)
        fields = {field for _, field, _, _ in string.Formatter().parse(each.arguments) if field}
        assert fields <= {"data_dir", "wordnet_dir"}
        assert {field for _, field, _, _ in string.Formatter().parse(each.toy or "") if field} <= known
        assert ("data_dir" in fields) == bool(each.sets)
        assert each.leaves
        for pattern in each.leaves.values():
            re.compile(pattern)
        seen.add(each.name)
    assert set(LABELS) == set(SETS)
    # They build environments, which takes longer than all toys together.
    assert {each.name for each in MEASUREMENTS if each.toy is None} == {
        "peers_setfit",
        "peers_fasttext",
        "peers_finder",
    }


def test_the_commands_in_the_results_are_in_the_plan():
    page = (BENCHMARKS.parent / "docs" / "results.md").read_text()
    commands = re.findall(r"python benchmarks/(\w+\.py)(?: ([a-z]\w*))?", page)
    assert len(commands) >= 17
    assert {(script, part or None) for script, part in commands} <= {(each.script, each.part) for each in MEASUREMENTS}


def test_what_a_measurement_builds_on_comes_along():
    names = [each.name for each in chosen(["distillation_tables"])]
    assert names == [
        "distillation_sentences",
        "distillation_teachers",
        "distillation_students",
        "distillation_tables",
    ]
    assert chosen(None) == list(MEASUREMENTS)
    with pytest.raises(SystemExit, match=r"no measurement nothing; there are kim2014_random, "):
        chosen(["kills", "nothing"])
