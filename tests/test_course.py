"The run as a person meets it: many notebooks, ctrl-C, one folder, GPUs, outputs in place."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, command, marked, report

from coursekit import course
from coursekit.course import _slots, run_notebooks
from coursekit.execute import KERNEL_MARK
from coursekit.files import CourseError
from coursekit.machine import n_cores
from coursekit.report import machine_info


def test_nothing_is_written_over_but_what_an_earlier_run_executed(make, tmp_path):
    a, deep = make("a", "x = 1"), make("b/a", "x = 2")
    dotted = make("b/a.v2", "x = 3")
    nb = nbformat.read(a, 4)
    nb.metadata["papermill"] = {}  # executed once, and a source now
    nbformat.write(nb, a)
    before = {p: p.read_bytes() for p in (a, deep, dotted)}
    for args in ([a, "--out", tmp_path], [a, deep, "--out", tmp_path / "b"], [dotted, deep, "--out", tmp_path / "b"],
                 [f"../{tmp_path.name}/a.ipynb", "--out", "."]):
        done = command("run", *args, cwd=tmp_path)
        assert done.returncode == 2 and "choose another folder with --out" in done.stderr, done.stderr
        assert all(p.read_bytes() == old for p, old in before.items())


def test_names_with_dots_are_kept_apart(make, tmp_path):
    assert command("run", make("a", "x = 1"), make("a.v2", "1/0"), "--out", tmp_path / "out").returncode == 1
    assert {p.name for p in (tmp_path / "out").glob("*.ipynb")} == {"a.ipynb", "a.v2.ipynb"}
    assert {n: r["status"] for n, r in report(tmp_path / "out").items()} == {"a": "passed", "a.v2": "failed"}


def test_one_failing_notebook_does_not_stop_the_rest(make, tmp_path):
    good = make("good", "import os\nassert scale == 'tiny' and n == 3\nos.environ['OMP_NUM_THREADS']")
    bad = make("deep/bad", "# %% [markdown]", "def f():\n    return 1 / 0\n\nf()\nlast = 1")
    dead = make("dead", "import os\nos._exit(3)")
    kernel = make("kernel", kernel="cobol")
    broken = tmp_path / "broken.ipynb"
    broken.write_text('{"cells": [')
    done = command("run", bad, dead, kernel, broken, good, "--scale", "tiny", "--out", tmp_path / "out", "--jobs", 2)
    assert done.returncode == 1 and "1 of 5 passed" in done.stdout, done.stdout + done.stderr
    got = report(tmp_path / "out")
    assert [n["status"] for n in got.values()] == ["failed"] * 4 + ["passed"] and list(got)[-1] == "good"
    assert got["deep/bad"]["reason"] == "ZeroDivisionError: division by zero"
    assert "->   4 f()" in got["deep/bad"]["error"]["lines"] and got["deep/bad"]["error"]["cell"] == 4
    assert "the kernel ended in cell 3" in got["dead"]["reason"] and "os._exit(3)" in got["dead"]["error"]["lines"][1]
    assert "no kernel is called 'cobol'" in got["kernel"]["reason"]
    assert "broken.ipynb is not a notebook" in got["broken"]["reason"]
    assert got["good"]["peak_mb"] > 10 and got["good"]["slowest"] and got["good"]["parameters"] == {"scale": "tiny"}
    threads = nbformat.read(tmp_path / "out" / "good.ipynb", 4).cells[-1].outputs[0].data["text/plain"]
    assert int(threads.strip("'")) == max(1, n_cores() // 2)


def test_a_broken_notebook_alone_is_told_as_such(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    done = command("run", tmp_path / "a.ipynb", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 1 and "a.ipynb is not a notebook" in done.stdout


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_kernels_and_leaves_a_true_report(make, tmp_path, sig):
    slow = make("slow", "import subprocess, time\nsubprocess.Popen(['sleep', '987'])\ntime.sleep(987)")
    paths = [make("a"), slow, make("later")]
    own = Path(sys.executable).with_name("coursekit")
    run = subprocess.Popen([own, "run", *paths, "--jobs", "1", "--out", tmp_path / "out"],
                           stdout=subprocess.PIPE, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    me = psutil.Process(run.pid)
    for _ in range(300):
        if (tree := me.children(recursive=True)) and any(p.name() == "sleep" for p in tree):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    run.send_signal(sig)
    time.sleep(0.03)
    run.send_signal(sig)  # impatience changes nothing
    assert run.wait(30) == 130
    got = report(tmp_path / "out")
    assert {n: r["status"] for n, r in got.items()} == {"a": "passed", "slow": "stopped", "later": "not run"}
    assert got["slow"]["reason"] == "stopped from outside, by ctrl-C or a signal"
    assert (tmp_path / "out" / "index.html").read_text().count('class="failure"') == 1
    assert not [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_a_run_under_nohup_goes_on(make, tmp_path):
    run = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run",
                            make("a", "import time\ntime.sleep(6)"), "--out", tmp_path / "out"],
                           stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(3)
    run.send_signal(signal.SIGHUP)
    assert run.wait(60) == 0


def test_a_second_run_replaces_the_first(make, tmp_path):
    path = make("a", "x = 1")
    command("run", path, "--out", tmp_path / "out")
    make("a", "1/0")
    assert command("run", path, "--out", tmp_path / "out").returncode == 1
    assert report(tmp_path / "out")["a"]["status"] == "failed"


def test_changed_keeps_the_results_of_notebooks_that_are_not_asked_for(make, tmp_path):
    a, b, out = make("a", "print(1)"), make("b", "print(2)"), tmp_path / "out"
    command("run", a, b, "--out", out)
    make("a", "print(3)")
    done = command("run", a, "--changed", "--out", out)
    got = report(out)
    assert "1 of 1 passed" in done.stdout and not got["a"]["kept_from"] and got["b"]["kept_from"]
    assert (out / "b.ipynb").exists()
    assert command("run", a, b, "--changed", "--out", out).stdout.count("(kept: unchanged)") == 2
    command("run", a, "--out", out)
    assert set(report(out)) == {"a"} and not (out / "b.ipynb").exists()


@pytest.mark.slow
def test_a_second_run_in_one_folder_at_the_same_time_is_turned_away(make, tmp_path):
    out, path = tmp_path / "out", make("a", "import time\ntime.sleep(8)")
    first = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run", path, "--out", out],
                             stdout=subprocess.PIPE, text=True)
    for _ in range(100):
        if (out / ".lock").exists():
            break
        time.sleep(0.1)
    second = command("run", make("b", "x = 1"), "--out", out)
    assert second.returncode == 2 and "Another run is writing into" in second.stderr and "--out" in second.stderr
    assert first.wait(60) == 0 and set(report(out)) == {"a"}
    assert command("run", make("b", "x = 1"), "--out", out).returncode == 0


def test_a_run_removes_what_the_last_one_left_and_nothing_else(make, tmp_path):
    out = tmp_path / "out"
    command("run", make("a", "x = 1"), make("b", "x = 1"), "--out", out)
    nbformat.write(nbformat.v4.new_notebook(), out / "mine.ipynb")
    command("run", make("b", "x = 1"), "--out", out)
    left = {p.name for p in out.iterdir() if p.name != ".lock"}
    assert left == {"b.ipynb", "b.ipynb.html", "mine.ipynb", "index.html", "report.json"}


def test_a_disk_that_fills_while_the_page_is_written_loses_no_result(make, tmp_path, monkeypatch):
    write = course.write_page

    def full(*args):
        raise CourseError("No space is left on the disk")
    monkeypatch.setattr("coursekit.course.write_page", full)
    with pytest.raises(CourseError, match="No space"):
        run_notebooks([make("a", "print(1)")], out=tmp_path / "out")
    assert report(tmp_path / "out")["a"]["status"] == "passed" and (tmp_path / "out" / "a.ipynb").exists()
    monkeypatch.setattr("coursekit.course.write_page", write)
    run_notebooks([tmp_path / "a.ipynb"], out=tmp_path / "out", changed=True)
    assert report(tmp_path / "out")["a"]["kept_from"] and (tmp_path / "out" / "index.html").exists()


@pytest.mark.slow
def test_the_longest_starts_first(make, tmp_path):
    a, b, out = make("a", "x = 1"), make("b", "import time\ntime.sleep(3)"), tmp_path / "out"
    first, second = (command("run", a, b, "--jobs", 1, "--out", out).stdout.index("  a  ") for _ in range(2))
    assert first < second
    assert report(out)["b"]["seconds"] > report(out)["a"]["seconds"]


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    "Let torch see GPUs, {name, capability} as CUDA_VISIBLE_DEVICES shows them, and have kernels from 7.0 on."
    from torch import cuda

    def see(there, given=None):
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
            there = [there[int(i)] for i in given.split(",") if i not in ("", "-1")]
        monkeypatch.setattr(cuda, "is_available", lambda: bool(there))
        monkeypatch.setattr(cuda, "device_count", lambda: len(there))
        monkeypatch.setattr(cuda, "get_device_name", lambda i: there[i][0])
        monkeypatch.setattr(cuda, "get_device_capability", lambda i: there[i][1])
        monkeypatch.setattr(cuda, "get_arch_list", lambda: ["sm_70", "sm_75", "sm_90"])
    return see


@pytest.mark.parametrize("given, jobs, expected", [
    (None, None, ["0", "1"]), (None, 3, ["0", "1", "0"]), ("1", None, ["1"]), ("", None, [None] * n_cores()),
    ("-1", 1, [None])])
def test_a_gpu_is_used_by_one_notebook_at_a_time(gpus, given, jobs, expected):
    gpus([("Tesla T4", (7, 5)), ("Tesla T4", (7, 5))], given)
    slots = _slots(jobs, 7)
    got = [slots.get() for _ in range(slots.qsize())]
    assert [s.get("CUDA_VISIBLE_DEVICES") for s in got] == expected
    assert {s["OMP_NUM_THREADS"] for s in got} == {str(max(1, n_cores() // len(expected)))}


P100, T4 = ("Tesla P100-PCIE-16GB", (6, 0)), ("Tesla T4", (7, 5))


@pytest.mark.parametrize("there, given, names, devices", [
    ([P100], None, "none", [None] * n_cores()), ([P100, T4], None, "Tesla T4", ["1"]),
    ([T4, P100, T4], "2,1,0", "Tesla T4, Tesla T4", ["2", "0"]), ([P100, T4], "0", "none", [None] * n_cores())])
def test_a_gpu_that_this_torch_has_no_kernels_for_is_none(gpus, there, given, names, devices):
    gpus(there, given)
    slots = _slots(None, 7)
    assert machine_info()["GPU"] == names
    assert [slots.get().get("CUDA_VISIBLE_DEVICES") for _ in range(slots.qsize())] == devices


@pytest.mark.parametrize("name, text", [("report.json", "{}"), ("report.json", '{"notebooks'),
                                        ("index.html", "<title>my page</title>")])
def test_a_folder_that_holds_a_persons_own_page_or_report_is_left_alone(make, tmp_path, name, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    done = command("run", make("a", "x = 1"), "--out", tmp_path / "out")
    assert done.returncode == 2 and f"would write over {tmp_path / 'out' / name}" in done.stderr
    assert (tmp_path / "out" / name).read_text() == text


def test_a_notebook_that_plain_papermill_made_is_left_alone(make, tmp_path):
    path, mine = make("a", "x = 1"), tmp_path / "out" / "a.ipynb"
    mine.parent.mkdir()
    subprocess.run([sys.executable, "-m", "papermill", path, mine, "-p", "n", "5"], check=True, capture_output=True)
    before = mine.read_bytes()
    assert command("run", path, "--out", tmp_path / "out").returncode == 2 and mine.read_bytes() == before


def test_inplace_writes_outputs_only(make, tmp_path):
    widget = "import ipywidgets\nipywidgets.IntSlider()"
    path, bad = make("a", "print(scale)", widget), make("bad", "1/0")
    before, bad_before = nbformat.read(path, 4), bad.read_bytes()
    done = command("run", path, bad, "--scale", "tiny", "--inplace", "--out", tmp_path / "out")
    after = nbformat.read(path, 4)
    assert done.returncode == 1 and bad.read_bytes() == bad_before
    assert [c.source for c in after.cells] == [c.source for c in before.cells]
    assert after.cells[2].outputs[0].text == "tiny\n"
    assert after.metadata == before.metadata and "widget" not in path.read_text().replace("ipywidgets", "")
    once = path.read_bytes()
    command("run", path, "--scale", "tiny", "--inplace", "--out", tmp_path / "out")
    assert path.read_bytes() == once


def test_inplace_leaves_a_notebook_that_was_edited_meanwhile(make, tmp_path):
    path = tmp_path / "a.ipynb"
    make("a", f"import json, pathlib\np = pathlib.Path({str(path)!r})\n"
              "p.write_text(p.read_text().replace('# A title', '# B title'))")
    other = make("other", "print(1)")
    done = command("run", path, other, "--jobs", 1, "--inplace", "--out", tmp_path / "out")
    assert done.returncode == 1 and "was edited while it ran" in done.stderr and "# B title" in path.read_text()
    assert nbformat.read(other, 4).cells[-1].outputs


@pytest.mark.parametrize("options", [(), ("--scale", "tiny")])
def test_inplace_on_a_notebook_that_papermill_wrote(make, tmp_path, options):
    path, source = tmp_path / "mine.ipynb", make("a", "print(scale)")
    subprocess.run([sys.executable, "-m", "papermill", source, path, "-p", "scale", "full"], check=True,
                   capture_output=True)
    done = command("run", path, *options, "--inplace", "--out", tmp_path / "out")
    assert done.returncode == 0 and "edited" not in done.stderr
    after = nbformat.read(path, 4)
    assert [c.metadata.get("tags") for c in after.cells[1:3]] == [["parameters"], ["injected-parameters"]]
    assert "full" in after.cells[2].source
    assert after.cells[-1].outputs[0].text == ("tiny\n" if options else "full\n")


@pytest.mark.slow
def test_plain_papermill_runs_a_lesson(tmp_path):
    done = subprocess.run([sys.executable, "-m", "papermill", ROOT / "nbs/00_start.ipynb", tmp_path / "out.ipynb",
                           "-p", "scale", "tiny"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_run_renders_what_it_executed_and_takes_away_what_it_does_not_keep(make, tmp_path):
    out = tmp_path / "out"
    assert command("run", make("a", "print('first')"), make("b", "x = 1"), "--out", out).returncode == 0
    assert {p.name for p in out.glob("*.html")} == {"index.html", "a.ipynb.html", "b.ipynb.html"}
    assert command("run", make("a", "print('second')"), "--out", out).returncode == 0
    assert {p.name for p in out.glob("*.html")} == {"index.html", "a.ipynb.html"}
    assert "second" in (out / "a.ipynb.html").read_text()


def test_a_persons_own_page_is_not_written_over(make, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.ipynb.html").write_text("<title>mine</title>")
    done = command("run", make("a", "x = 1"), "--out", tmp_path / "out")
    assert done.returncode == 2 and "The run would write over" in done.stderr
    assert (tmp_path / "out" / "a.ipynb.html").read_text() == "<title>mine</title>"


@pytest.mark.slow
def test_many_notebooks_leave_no_files_open(make, tmp_path, monkeypatch):
    me = psutil.Process()
    run_notebooks([make("first", "x = 1")], out=tmp_path / "out")
    before = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    run_notebooks([make(f"n{i}", "x = 1") for i in range(8)], out=tmp_path / "out")
    after = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    assert after - before < 20


def test_a_run_that_is_killed_leaves_a_report_of_what_was_finished(make, tmp_path, mark):
    paths = [make("a", "x = 1"), make("slow", "import time\ntime.sleep(600)")]
    run = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run", *paths, "--jobs", "1", "--out",
                            tmp_path / "out"],
                           env={**os.environ, KERNEL_MARK: mark}, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "out" / "report.json").exists() and time.monotonic() < end:
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert {n: r["status"] for n, r in report(tmp_path / "out").items()} == {"a": "passed", "slow": "running"}
    make("slow", "x = 2")
    done = command("run", *paths, "--changed", "--out", tmp_path / "out")
    assert done.returncode == 0 and "(kept: unchanged)" in done.stdout
    assert report(tmp_path / "out")["slow"]["status"] == "passed"
    end = time.monotonic() + 20
    while marked(mark) and time.monotonic() < end:  # a kernel looks for its parent now and then
        time.sleep(0.2)
