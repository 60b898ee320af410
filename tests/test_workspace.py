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

from coursekit import files, machine, workspace
from coursekit.files import CourseError, atomic_path, readable, short_path, shorten
from coursekit.workspace import doctor, seed_everything, setup


@pytest.fixture
def colab(monkeypatch, tmp_path):
    "A stand-in for google.colab whose drive mounts at a temporary place; `errors` are raised first."
    place = tmp_path / "drive"
    module = types.ModuleType("google.colab")
    for name in "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE":
        monkeypatch.delenv(name, raising=False)
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


def test_atomic_path_replaces_files_keeps_folders_and_cleans_up(tmp_path):
    for text in "old", "new":
        with atomic_path(tmp_path / "f") as part:
            part.write_text(text)
        with atomic_path(tmp_path / "d") as part:  # the second comes too late
            part.mkdir()
            (part / "f").write_text(text)
    for name in "f", "d", "e":
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / name) as part:
            part.mkdir()
            raise ZeroDivisionError
    assert (tmp_path / "f").read_text() == "new" and (tmp_path / "d" / "f").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "f"]


def test_many_writers_of_one_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def write(i):
        with atomic_path(tmp_path / str(i % 50)) as part:
            part.mkdir()
            (part / "f").write_text("whole")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(400)))
    assert all((tmp_path / str(i) / "f").read_text() == "whole" for i in range(50)) \
        and len(list(tmp_path.iterdir())) == 50


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


@pytest.mark.parametrize("archs, runs, fails", [
    (["sm_70", "sm_75", "sm_80", "sm_86", "sm_90"], [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)],
     [(6, 0), (6, 1), (10, 0), (12, 0)]),
    (["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], [(7, 5), (10, 0), (10, 3), (12, 1)],
     [(6, 0), (7, 0), (7, 2), (11, 0)]),
    (["sm_60", "sm_86"], [(6, 0), (6, 1), (8, 6), (8, 9)], [(5, 2), (7, 0), (8, 0)]),
    (["sm_50", "compute_50"], [(5, 0), (6, 0), (12, 1)], [(3, 7)]),
    (["sm_80", "compute_90"], [(8, 0), (8, 9), (9, 0), (12, 0)], [(7, 5), (6, 0)]),
    (["sm_90a", "compute_100f", "compute_120a"], [(9, 0), (10, 3), (12, 0)], [(9, 1), (11, 0), (12, 1)]),
    (["gfx906", "gfx90a"], [(9, 0), (9, 4)], []),
    ([], [(6, 0)], []),
])
def test_what_a_torch_has_kernels_for(archs, runs, fails):
    assert all(machine._has_kernels(c, archs) for c in runs) and not any(machine._has_kernels(c, archs) for c in fails)


def with_gpu(monkeypatch, name, capability, archs):
    "Let torch see a GPU, and be built for `archs`."
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda device=None: types.SimpleNamespace(name=name, total_memory=16e9))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: archs)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(workspace, "_HOSTS", {})


@pytest.mark.parametrize("name, capability, archs", [("Tesla P100-PCIE-16GB", (6, 0), ["sm_70", "sm_75", "sm_90"]),
                                                     ("Tesla V100-SXM2-16GB", (7, 0), ["sm_75", "sm_120"]),
                                                     ("NVIDIA GB10", (12, 1), ["sm_80", "sm_90"])])
def test_a_gpu_without_kernels_is_not_used_and_the_reason_said(name, capability, archs, monkeypatch, capsys):
    with_gpu(monkeypatch, name, capability, archs)
    assert setup("tiny").device == "cpu" and machine.gpu_name() == ""
    said, table = capsys.readouterr().out, doctor()
    assert said.count("\n") == 1 \
        and said.startswith(f"The GPU {name} (sm_{capability[0]}{capability[1]}) is not used") \
            and ", ".join(archs) in said
    assert said.endswith("install a torch that was built for it (pytorch.org/get-started).\n")
    assert table.found["GPU"] == said.strip() and table.found["scale full"] == "needs a GPU"
    assert name not in machine.environment(setup("tiny").device)["hardware"]


@pytest.mark.parametrize("name, capability, archs",
                         [("Tesla T4", (7, 5), ["sm_70", "sm_80"]), ("NVIDIA L4", (8, 9), ["sm_75", "sm_86"]),
                          ("NVIDIA GB10", (12, 1), ["sm_90", "compute_90"])])
def test_a_gpu_with_kernels_is_used_in_silence(name, capability, archs, monkeypatch, capsys):
    with_gpu(monkeypatch, name, capability, archs)
    assert setup("tiny").device == "cuda" and capsys.readouterr().out == ""
    assert machine.gpu_name() == doctor().found["GPU"] == f"{name}, 16 GB"


def test_the_remedy_is_where_one_is(colab, monkeypatch, capsys):
    with_gpu(monkeypatch, "Tesla P100-PCIE-16GB", (6, 0), ["sm_70"])
    assert "choose another GPU (Runtime > Change runtime type)." in doctor().found["GPU"]
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "choose another GPU (Settings > Accelerator > GPU T4 x2)." in doctor().found["GPU"]


def test_home_is_written_as_tilde():
    assert short_path(Path.home() / "a") == os.path.join("~", "a") and short_path("/x/y") == "/x/y"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes")
@pytest.mark.parametrize("name, shown", [(b"caf\xe9", "café"), (b"\xff\xfe", "ÿþ"), ("é".encode() + b"\xe9", "éé"),
                                         (b"plain", "plain"), ("猫".encode(), "猫")])
def test_a_name_that_is_no_text_can_be_printed_and_stored(name, shown):
    path = Path("/x") / os.fsdecode(name)
    assert readable(os.fsdecode(name)) == shown and short_path(path) == f"/x/{shown}"
    short_path(path).encode()
    with pytest.raises(CourseError, match=f"/x/{shown}") as e, files.explain_os_errors(path):
        raise OSError(errno.ENOSPC, "full", str(path))
    str(e.value).encode()


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


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 240 + ".json", "猫" * 85])
def test_a_file_with_the_longest_name_is_written(tmp_path, name):
    for text in "old", "new":
        with atomic_path(tmp_path / name) as part:
            part.write_text(text)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "new"


def test_a_name_is_cut_between_letters():
    assert shorten("猫" * 40, 100) == "猫" * 33 and shorten("short") == "short" and len(shorten("n" * 300)) == 100


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


@pytest.mark.parametrize("allowed, expected", [(None, True), ("ALL", True), ("avx512_core_amx", True), ("AVX2", False),
                                               ("AVX512_CORE_BF16", False)])
def test_a_cpu_is_taken_for_what_it_is_allowed_to_be(allowed, expected, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if allowed:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert machine.has_amx() is expected
