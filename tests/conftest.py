"Every test has folders of its own; what is slow to make is made once."
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from coursekit import workspace

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'scale = "quick"  # why\nlr = 0.1\nn = 3\nextensions = False'


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    "One cache for the session, so that stand-ins are drawn once."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path, cache):
    "Keep tests out of the user's folders."
    monkeypatch.setenv("COURSEKIT_CACHE", str(cache))
    monkeypatch.setenv("COURSEKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSEKIT_DATA", raising=False)
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "no-drive")


@pytest.fixture
def ws():
    "A workspace at tiny scale without data."
    return workspace.setup("tiny")


@pytest.fixture
def make(tmp_path):
    "Make a notebook with a parameters cell and the given code cells."
    def make(name, *sources, parameters=PARAMETERS, kernel="python3"):
        cells = [nbformat.v4.new_markdown_cell("# A title")]
        if parameters:
            cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        nb = nbformat.v4.new_notebook(cells=[*cells, *map(nbformat.v4.new_code_cell, sources)])
        nb.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
        return path
    return make


def command(*args, env=None, **kwargs):
    "Run coursekit's own command line in a process."
    return subprocess.run([Path(sys.executable).with_name("coursekit"), *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, "COLUMNS": "200", **(env or {})}, timeout=180, **kwargs)


def report(out):
    "{name: what report.json says of a notebook}."
    return {n["name"]: n for n in json.loads((out / "report.json").read_text())["notebooks"]}
