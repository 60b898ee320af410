"Every test has folders of its own; what is slow to make is made once."
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coursekit import workspace

ROOT = Path(__file__).resolve().parents[1]


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


def command(*args, **kwargs):
    "Run coursekit's own command line in a process."
    return subprocess.run([Path(sys.executable).with_name("coursekit"), *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, "COLUMNS": "200"}, timeout=180, **kwargs)
