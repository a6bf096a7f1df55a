"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_python_snippet_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    accuracy = float(re.search(r"validation accuracy (0\.\d+)", capsys.readouterr().out).group(1))
    assert accuracy > 0.7


def test_every_file_it_names_exists():
    names = re.findall(r"\]\(([\w./-]+)\)", README.read_text())
    assert names
    for name in names:
        assert (README.parent / name).exists(), name
