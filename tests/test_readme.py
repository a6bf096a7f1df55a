"""The README's Python runs as it stands."""

import re
from pathlib import Path

import datasets
import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.long
def test_the_python_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) == 4
    namespace: dict = {}
    accuracies = (
        r"^validation accuracy (0\.\d+)",
        r", accuracy (0\.\d+)",
        r"^\d+,\d+ texts, accuracy (0\.\d+)",
        r"^14% of the teacher's parameters, accuracy (0\.\d+)",
    )
    for snippet, sought in zip(snippets, accuracies, strict=True):
        exec(compile(snippet, "README.md", "exec"), namespace)
        assert float(re.search(sought, capsys.readouterr().out, re.MULTILINE).group(1)) > 0.7


def test_every_file_it_names_exists():
    names = re.findall(r"\]\(([\w./-]+)\)", README.read_text())
    assert names
    for name in names:
        assert (README.parent / name).exists(), name
