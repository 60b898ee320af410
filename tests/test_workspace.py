"Folders, Drive, scale, seeds and the doctor, where things go wrong too."
import errno
import os
import socket
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from coursekit import workspace
from coursekit.workspace import CourseError, atomic_path, doctor, seed_everything, setup, tidy


@pytest.fixture
def colab(monkeypatch, tmp_path):
    "A stand-in for google.colab whose drive mounts at a temporary place; `errors` are raised first."
    place = tmp_path / "drive"
    module = types.ModuleType("google.colab")
    module.errors, module.mounts = [], []

    def mount(path, force_remount=False):
        module.mounts.append(force_remount)
        if module.errors:
            raise module.errors.pop(0)
        (Path(path) / "MyDrive").mkdir(parents=True, exist_ok=True)

    module.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    sys.modules["google"].colab = module
    monkeypatch.setattr(workspace, "DRIVE", place)
    monkeypatch.setattr(workspace.time, "sleep", lambda s: None)
    monkeypatch.delenv("COURSEKIT_RUNS")
    return module


def test_data_folder_argument_then_environment_then_cache(monkeypatch, tmp_path, cache):
    assert setup("tiny").data == cache / "data"
    monkeypatch.setenv("COURSEKIT_DATA", str(tmp_path / "env"))
    assert setup("tiny").data == tmp_path / "env"
    assert setup("tiny", data=tmp_path / "arg").data == tmp_path / "arg"


def test_drive_is_never_mounted_unasked(colab, monkeypatch, tmp_path):
    monkeypatch.setattr(workspace.platformdirs, "user_data_path", lambda name: tmp_path / name)
    ws = setup("tiny")
    assert not colab.mounts and ws.runs == tmp_path / "coursekit" / "runs"


def test_drive_holds_data_and_runs_but_no_images(colab, cache):
    ws = setup("tiny", drive=True)
    drive = workspace.DRIVE / "MyDrive" / "coursekit"
    assert (ws.data, ws.runs, ws.local) == (drive / "data", drive / "runs", cache)
    assert setup("tiny").data == drive / "data"  # mounted already: used without asking again
    assert len(colab.mounts) == 1


@pytest.mark.parametrize("code", [5, 107])
def test_transient_drive_errors_are_tried_again(colab, code):
    colab.errors = [OSError(code, "transient"), OSError(code, "transient")]
    assert setup("tiny", drive=True).data.is_relative_to(workspace.DRIVE)
    assert colab.mounts == [False, True, True]


@pytest.mark.parametrize("errors", [[OSError(5, "broken")] * 3, [OSError(28, "full")], [ValueError("mount failed")]])
def test_drive_that_stays_broken_is_a_sentence(colab, errors):
    colab.errors = list(errors)
    with pytest.raises(CourseError, match="leave drive=True out"):
        setup("tiny", drive=True)


def test_drive_outside_colab():
    with pytest.raises(CourseError, match="only be mounted in Colab"):
        setup("tiny", drive=True)


def test_unknown_scale():
    with pytest.raises(CourseError, match="'huge': choose 'tiny', 'quick' or 'full'"):
        setup("huge")


def test_pick(ws):
    assert ws.pick(tiny=1, quick=2, full=3) == 1
    with pytest.raises(TypeError):
        ws.pick(tiny=1, quick=2)


@pytest.mark.parametrize("name", ["COURSEKIT_CACHE", "COURSEKIT_RUNS", "COURSEKIT_DATA"])
def test_a_file_in_the_folders_place(monkeypatch, tmp_path, name):
    (tmp_path / "file").touch()
    monkeypatch.setenv(name, str(tmp_path / "file" / "below"))
    with pytest.raises(CourseError, match="Can't write in .*file"):
        setup("tiny")


@pytest.fixture
def ordinary():
    "A user who is not root, and a folder of theirs."
    with tempfile.TemporaryDirectory() as room:
        os.chmod(room, 0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield Path(room)
        if root:
            os.seteuid(0)


def test_read_only_data_is_fine_and_read_only_runs_a_sentence(ordinary):
    locked, free = ordinary / "locked", ordinary / "free"
    locked.mkdir(mode=0o555)
    workspace._ready(locked, free / "runs", free / "local")
    with pytest.raises(CourseError, match="Can't write in .*COURSEKIT_RUNS"):
        workspace._ready(locked, locked / "runs", free / "local")
    with pytest.raises(CourseError, match="Can't write in .*locked"):
        workspace._ready(free / "data", locked, free / "local")


def test_full_disk_is_a_sentence_and_leaves_nothing(monkeypatch, tmp_path):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CourseError, match="No space is left on the disk of"):
        setup("tiny")
    assert not list((tmp_path / "runs").iterdir())


def test_atomic_path_replaces_folders_and_cleans_up(tmp_path):
    for text in "old", "new":
        with atomic_path(tmp_path / "d") as part:
            part.mkdir()
            (part / "f").write_text(text)
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "d") as part:
        part.mkdir()
        1 / 0
    assert (tmp_path / "d" / "f").read_text() == "new" and [p.name for p in tmp_path.glob("*d*")] == ["d"]


def test_an_error_of_something_else_is_not_put_into_our_words(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out"):
        Path("/nowhere/at/all").read_text()


def test_seeds_cover_python_numpy_torch():
    import random

    import numpy as np
    import torch

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert not set(draw()) & set(first)


def test_deterministic_on_request_only():
    import torch

    seed_everything(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(1)
    assert not torch.are_deterministic_algorithms_enabled()


def test_doctor_waits_five_seconds_at_most_and_never_fails(monkeypatch):
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]  # accept, and say nothing
    hosts = {f"silent {i}": f"http://127.0.0.1:{s.getsockname()[1]}/" for i, s in enumerate(silent)}
    monkeypatch.setattr(workspace, "HOSTS", {**hosts, "closed": "http://127.0.0.1:9/", "odd": "no-url"})
    start = time.monotonic()
    table = doctor()
    assert time.monotonic() - start < 7
    assert all("no answer" in table.found[h] for h in workspace.HOSTS)
    assert {"Python", "torch", "GPU", "CPU", "RAM", "disk", "Drive", "scale full"} <= set(table.index)


def test_doctor_in_colab_says_how_to_get_a_gpu(colab, monkeypatch):
    monkeypatch.setattr(workspace, "HOSTS", {})
    monkeypatch.setattr(workspace, "gpu_name", lambda: "")
    table = doctor()
    assert table.found["Colab"] == "yes" and "Runtime > Change runtime type" in table.found["GPU"]


def test_home_is_written_as_tilde():
    assert tidy(Path.home() / "a") == os.path.join("~", "a") and tidy("/x/y") == "/x/y"
