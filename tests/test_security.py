"""What no code of the package may do, found in its source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("hf_ext", "recipes", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
# Modules whose readers run what they read.
PICKLING = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
# They would write where an archive says.
UNPACKING = {"extractall", "extract", "unpack_archive", "tarfile"}
SAFE_LOADERS = ("yaml.SafeLoader", "YamlLoader")


def dotted(node: ast.AST) -> str:
    """The name that is called, such as `torch.load`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> list[str]:
    """Calls that could run what a file or a message says, or write where it says."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name, given = dotted(call.func), {item.arg: item.value for item in call.keywords}
        first, _, last = name.rpartition(".")
        literal = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
        bad = (
            name in ("eval", "exec", "os.system", "os.popen")
            or (first in PICKLING and last in ("load", "loads", "open", "Unpickler"))
            or last in UNPACKING
            or (name == "torch.load" and literal.get("weights_only") is not True)
            or (name in ("yaml.load", "yaml.load_all") and dotted(given.get("Loader")) not in SAFE_LOADERS)
            or name in ("yaml.unsafe_load", "yaml.full_load")
            or literal.get("allow_pickle") is True
            or literal.get("trust_remote_code") is True
            or literal.get("shell") is True
        )
        if bad:
            found.append(f"line {call.lineno}: {name}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "pickle.loads(data)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "zipfile.ZipFile(path).extractall(folder)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert len(offences(source)) == 1


def test_nothing_runs_or_unpacks_what_it_reads():
    assert len(SOURCES) > 200
    assert {str(path.relative_to(ROOT)): found for path in SOURCES if (found := offences(path.read_text()))} == {}


def test_yaml_is_plain_data():
    import yaml

    from hf_ext.configuration.files import YamlLoader

    assert issubclass(YamlLoader, yaml.SafeLoader)
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.load("!!python/object/apply:os.getcwd []", Loader=YamlLoader)
