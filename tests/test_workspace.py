"Folders, Drive, scale, seeds and the doctor, where things go wrong too."
import errno
import os
import pickle
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import AS_USER

from coursekit import files, machine, workspace
from coursekit.files import CourseError
from coursekit.workspace import doctor, seed_everything, setup


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


def test_drive_that_went_away_is_a_sentence_or_a_local_folder(colab, monkeypatch, tmp_path):
    setup("tiny", drive=True)

    def gone(self, *args, **kwargs):
        raise OSError(107, "Transport endpoint is not connected", str(self))
    with monkeypatch.context() as m:
        m.setattr(Path, "mkdir", gone)
        with pytest.raises(CourseError, match="does not answer .*mount it again"):
            setup("tiny")


def test_a_grandparent_that_is_locked(ordinary):
    (ordinary / "locked").mkdir(mode=0o555)
    with pytest.raises(CourseError, match="Can't write in .*locked/a/b .* choose another folder with COURSEKIT_RUNS"):
        workspace._ready(ordinary / "data", ordinary / "locked" / "a" / "b", ordinary / "local")


def test_a_table_is_escaped_keeps_small_numbers_and_every_key(monkeypatch):
    import IPython.display
    import pandas as pd

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    df = pd.DataFrame({"model": ["<i>a"] * 2, "wd": ["x", "y"], "lr": [3e-5, 2e-7]}).set_index(["model", "wd"])
    workspace.show_table(df, "<b>title")
    workspace.show_table(df, "<b>title")
    data, again = shown
    assert "<i>" not in data["text/html"] and "<b>" not in data["text/html"] and "&lt;i&gt;a" in data["text/html"]
    assert "3e-05" in data["text/html"] and data["text/html"] == again["text/html"]
    assert data[workspace.TABLE] == {"title": "<b>title", "columns": ["model", "wd", "lr"],
                                     "data": [["<i>a", "x", 3e-5], ["<i>a", "y", 2e-7]]}


def test_drive_outside_colab():
    with pytest.raises(CourseError, match="only be mounted in Colab"):
        setup("tiny", drive=True)


def test_unknown_scale():
    with pytest.raises(CourseError, match="'huge': choose 'tiny', 'quick' or 'full'"):
        setup("huge")


@pytest.mark.parametrize("seed", [-1, 2**32, "x", None])
def test_a_seed_that_is_none(seed):
    with pytest.raises(CourseError, match="choose a whole number from 0"):
        setup("tiny", seed=seed)


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
    with pytest.raises(CourseError, match="Can't write in .* with COURSEKIT_RUNS"):
        workspace._ready(locked, locked / "runs", free / "local")
    with pytest.raises(CourseError, match="Can't write in .*locked"):
        workspace._ready(free / "data", locked, free / "local")


def test_full_disk_is_a_sentence_and_leaves_nothing(monkeypatch, tmp_path):
    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    with pytest.raises(CourseError, match="No space is left on the disk of"):
        setup("tiny")
    assert not list((tmp_path / "runs").iterdir())


def test_setup_leaves_what_is_in_the_runs_folder(ws):
    (ws.runs / "probe").mkdir()
    (ws.runs / "probe" / "mine.txt").write_text("results of a linear probe")
    setup("tiny")
    assert [p.name for p in ws.runs.rglob("*")] == ["probe", "mine.txt"]


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
    seed_everything(1)  # says nothing of it
    assert torch.are_deterministic_algorithms_enabled()
    setup("tiny")
    assert not torch.are_deterministic_algorithms_enabled()


def test_doctor_waits_five_seconds_at_most_and_never_fails(monkeypatch):
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]  # accept, and say nothing
    hosts = {f"silent {i}": f"http://127.0.0.1:{s.getsockname()[1]}/" for i, s in enumerate(silent)}
    monkeypatch.setattr(workspace, "_HOSTS", {**hosts, "closed": "http://127.0.0.1:9/", "odd": "no-url"})
    start = time.monotonic()
    table = doctor()
    assert time.monotonic() - start < 7
    assert all("no answer" in table.found[h] for h in workspace._HOSTS)
    assert {"Python", "torch", "GPU", "CPU", "RAM", "disk", "Drive", "scale full"} <= set(table.index)


def test_doctor_in_colab_says_how_to_get_a_gpu(colab, monkeypatch):
    monkeypatch.setattr(workspace, "_HOSTS", {})
    monkeypatch.setattr(workspace, "gpu_name", lambda: "")
    table = doctor()
    assert table.found["Colab"] == "yes" and "Runtime > Change runtime type" in table.found["GPU"]


@pytest.fixture(params=["KAGGLE_KERNEL_RUN_TYPE=Interactive", "KAGGLE_KERNEL_RUN_TYPE=Batch",
                        "KAGGLE_URL_BASE=https://www.kaggle.com"])
def kaggle(request, colab, monkeypatch, tmp_path):
    "A stand-in for Kaggle, which has google.colab too; gives its working folder."
    monkeypatch.setenv(*request.param.split("="))
    monkeypatch.setattr(workspace, "KAGGLE", tmp_path / "kaggle" / "working")
    monkeypatch.setattr(workspace, "_HOSTS", {})
    return workspace.KAGGLE


def test_kaggle_is_not_taken_for_colab(kaggle, colab, monkeypatch):
    monkeypatch.setattr(workspace, "gpu_name", lambda: "")
    table = doctor()
    assert not machine.in_colab() and table.found["Colab"] == "no: this is Kaggle" \
        and "setup(drive=True)" not in table.found["Drive"]
    assert table.found["GPU"] == "no GPU: Settings > Accelerator > GPU T4 x2"
    with pytest.raises(CourseError, match=f"only be mounted in Colab: leave drive=True out here, and what Kaggle keeps "
                                          f"goes to {kaggle}"):
        setup("tiny", drive=True)
    assert not colab.mounts


def test_results_go_where_kaggle_keeps_them_and_data_stays_in_the_cache(kaggle, cache, monkeypatch, tmp_path):
    ws = setup("tiny")
    assert (ws.data, ws.runs, ws.local) == (cache / "data", kaggle / "coursekit" / "runs", cache) and ws.runs.is_dir()
    monkeypatch.setenv("COURSEKIT_DATA", str(tmp_path / "input"))
    assert setup("tiny").data == tmp_path / "input" and setup("tiny", data=tmp_path / "arg").data == tmp_path / "arg"
    monkeypatch.setenv("COURSEKIT_RUNS", str(tmp_path / "mine"))
    assert setup("tiny").runs == tmp_path / "mine"


@pytest.mark.parametrize("variables",
                         [{}, {"KAGGLE_KERNEL_RUN_TYPE": ""}, {"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k"}])
def test_colab_with_a_kaggle_account_is_still_colab(colab, monkeypatch, variables):
    for name in variables:
        monkeypatch.setenv(name, variables[name])
    assert machine.in_colab() and setup("tiny", drive=True).runs.is_relative_to(workspace.DRIVE)


def test_a_table_of_names_that_are_no_text(monkeypatch):
    import IPython.display
    import pandas as pd

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    name = os.fsdecode(b"caf\xe9.png")
    workspace.show_table(pd.DataFrame({"n": [1]}, index=pd.Index([name], name="file")), name)
    workspace.show_table(pd.DataFrame({"file": [name], "n": [1]}), "t")
    for data in shown:
        assert "café.png" in data["text/html"] and data[workspace.TABLE]["data"] == [["café.png", 1]]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users")
def test_in_a_cache_of_another_user_one_has_a_folder_of_ones_own(monkeypatch, tmp_path, cache):
    me = os.geteuid()
    assert setup("tiny").local == cache
    monkeypatch.setattr(workspace.os, "geteuid", lambda: me + 1)
    ws = setup("tiny")
    assert ws.local == cache / f"user-{me + 1}" and ws.data == cache / "data"  # what the owner has fetched is read
    assert workspace.neighbours(ws.local) == [ws.local, cache] and set(workspace.neighbours(cache)) == {cache, ws.local}
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "new"))
    assert setup("tiny").local == tmp_path / "new"
    ws.local.rmdir()


def test_a_workspace_that_is_sent_takes_the_device_of_where_it_arrives(place):
    assert pickle.loads(pickle.dumps(replace(place, device="meta"))) == place


HOMELESS = AS_USER + """
for name in "HOME", "COURSEKIT_CACHE", "COURSEKIT_RUNS", "XDG_CACHE_HOME", "XDG_DATA_HOME":
    os.environ.pop(name, None)
os.chdir(home)
try:
    print(setup("tiny"))
except CourseError as e:
    print("SENTENCE", e)
print(short_path("/a/b"), os.listdir(home))
settle(cache, home + "/runs")
try:
    print(ws := setup("tiny"))
    image_folder("~/pictures", ws)
except CourseError as e:
    print("SENTENCE", e)
"""


@pytest.mark.slow
def test_a_user_without_home_or_name(users):
    as_user, cache = users
    said = as_user(HOMELESS, 4321).splitlines()
    assert said[0].startswith("SENTENCE This user has no home folder: set HOME, or COURSEKIT_RUNS and COURSEKIT_CACHE")
    assert said[1] == "/a/b []"
    assert f"local  {cache}/user-4321" in said and "pictures is no folder" in said[-1]
