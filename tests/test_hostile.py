"Notebooks that do their worst beside good ones: those pass, the others fail with a true reason, nothing runs on."
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import command, report, slow

from coursekit.course import run_notebooks
from coursekit.execute import KERNEL_MARK

SCRIPT = "<script>document.title = 'hacked'</script><img src=x onerror=alert(1)>"
SECONDS = 10_000 + os.getpid()  # a number that no other test sleeps
SLEEPER = f"[sys.executable, '-c', 'import time; time.sleep({SECONDS})']"
HOSTILE = {
    "dead": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
             "the kernel ended in cell 3: killed by SIGKILL, as the system does when memory runs out"),
    "loop": ("while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
             "cell 3 took longer than 20 s, the limit given by --cell-timeout"),
    "fork": ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(4321)",
             "left 1 process behind (a copy of the kernel), which was ended"),
    "exit": ("import os\nos._exit(3)", "the kernel ended in cell 3: exit status 3"),
    "flood": ("for _ in range(200):\n    print('x' * 10**6)",
              "cell 3 printed too much: more than 100 MB came out of this notebook"),
    "script": (f"from IPython.display import HTML, display\ndisplay(HTML({SCRIPT!r}))\nraise ValueError({SCRIPT!r})",
               f"ValueError: {SCRIPT}"),
    "unwritable": ("from pathlib import Path\nPath('/dev/null/runs').mkdir()",
                   "NotADirectoryError: [Errno 20] Not a directory: '/dev/null/runs'"),
    "missing": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "kernel": ("x = 1", "no kernel is called 'cobol' here: choose one that `jupyter kernelspec list` shows"),
    "json": (None, "json.ipynb is not a notebook"),
}


def marked(mark):
    "The living processes whose environment carries a mark."
    found = []
    for p in psutil.process_iter():
        try:
            if mark in p.environ().get(KERNEL_MARK, ""):
                found.append(p)
        except psutil.Error:
            pass
    return found


@pytest.fixture
def mark():
    "A mark that all kernels of a test carry; at the end none of them is left."
    mark = f"test-{uuid.uuid4().hex}"
    yield mark
    assert marked(mark) == []


@pytest.mark.slow
def test_ten_hostile_notebooks_beside_two_good_ones(make, tmp_path, mark):
    paths = [make(name, source or "", kernel="cobol" if name == "kernel" else "python3")
             for name, (source, _) in HOSTILE.items()]
    paths[-1].write_text('{"cells": [')
    good = [make("good", "import os\nassert scale == 'tiny'\nos.getpid()"), make("better", "print('done')")]
    done = command("run", *paths, *good, "--scale", "tiny", "--jobs", 4, "--cell-timeout", 20, "--out",
                   tmp_path / "out", env={KERNEL_MARK: mark})
    assert done.returncode == 1 and "2 of 12 passed" in done.stdout, done.stdout + done.stderr
    got = report(tmp_path / "out")
    expected = {**dict.fromkeys(HOSTILE, "failed"), "good": "passed", "better": "passed"}
    assert {n: r["status"] for n, r in got.items()} == expected
    for name, (_, reason) in HOSTILE.items():
        assert reason in got[name]["reason"], (name, got[name]["reason"])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and 'sandbox srcdoc="&lt;script&gt;' in page
    assert nbformat.read(tmp_path / "out" / "better.ipynb", 4).cells[-1].outputs[0].text == "done\n"
    assert (tmp_path / "out" / "flood.ipynb").stat().st_size < 110e6 and "out of this notebook" in page


@pytest.mark.parametrize("source", [
    f"import subprocess, sys\nsubprocess.Popen({SLEEPER}, start_new_session=True)",  # a session of its own
    # an orphan
    slow("import os, time\nif os.fork() == 0:\n    if os.fork() == 0:\n        os.setsid()\n"
         "        time.sleep(4321)\n"
         "    os._exit(0)"),
    # without the mark
    slow(f"import subprocess, sys, time\nsubprocess.Popen({SLEEPER}, env={{}}, start_new_session=True)\n"
         "time.sleep(2)"),
])
def test_what_a_notebook_leaves_behind_is_ended_and_told(make, tmp_path, mark, source):
    before = {p.pid for p in psutil.process_iter()}
    assert command("run", make("a", source), "--out", tmp_path / "out", env={KERNEL_MARK: mark}).returncode == 1
    got = report(tmp_path / "out")["a"]
    assert "left 1 process behind (" in got["reason"]
    assert f"sleep({SECONDS})" in got["reason"] or "a copy of the kernel" in got["reason"]
    ours = [p for p in psutil.process_iter(["cmdline", "status"]) if p.pid not in before
            and f"time.sleep({SECONDS})" in str(p.info["cmdline"])]
    assert not [p for p in ours if p.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_workers_that_follow_their_kernel_are_not_left_behind(make, tmp_path, mark):
    path = make("a", "from joblib import Parallel, delayed\nParallel(n_jobs=2)(delayed(abs)(-i) for i in range(8))")
    done = command("run", path, "--out", tmp_path / "out", env={KERNEL_MARK: mark})
    assert done.returncode == 0, report(tmp_path / "out")["a"]["reason"]


def test_an_endless_cell_is_interrupted_where_it_is(make, tmp_path, mark):
    path = make("a", "x = 0\nwhile True:\n    x += 1", "never = 1")
    done = command("run", path, "--cell-timeout", 5, "--out", tmp_path / "out", env={KERNEL_MARK: mark})
    assert done.returncode == 1
    got = report(tmp_path / "out")["a"]
    assert got["reason"] == "cell 3 took longer than 5 s, the limit given by --cell-timeout"
    assert "KeyboardInterrupt" in got["error"]["traceback"]
    assert any(line.startswith("->") for line in got["error"]["lines"])


@pytest.mark.slow
def test_a_notebook_that_survives_its_interrupt_has_failed_all_the_same(make, tmp_path, mark):
    path = make("a", "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    pass", "y = 1")
    assert command("run", path, "--timeout", 8, "--out", tmp_path / "out", env={KERNEL_MARK: mark}).returncode == 1
    assert report(tmp_path / "out")["a"]["reason"] == "took longer than 8 s, the limit given by --timeout"


def test_memory_is_limited_for_a_kernel_and_its_children_together(make, tmp_path, mark):
    eat = "x = [bytearray(b'x' * 10**8) for _ in range({})]"
    code = eat.format(20) + "; import time; time.sleep(60)"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}])"
    paths = [make("alone", eat.format(40) + "\nimport time\ntime.sleep(60)"), make("child", child),
             make("modest", eat.format(3) + "\nimport time\ntime.sleep(1)")]
    assert command("run", *paths, "--memory", 1, "--timeout", 60, "--out", tmp_path / "out",
                   env={KERNEL_MARK: mark}).returncode == 1
    got = report(tmp_path / "out")
    for name in "alone", "child":
        assert got[name]["reason"] == "cell 3 used more than 1 GB of memory, the limit given by --memory"
        assert got[name]["peak_mb"] > 1000
    assert got["modest"]["status"] == "passed" and 300 < got["modest"]["peak_mb"] < 1000


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory is told apart on Linux only")
def test_memory_that_forked_children_share_is_counted_once(make, tmp_path, mark):
    source = ("import os, time\nx = bytearray(b'x' * 5 * 10**8)\npids = []\nfor _ in range(4):\n"
              "    if (pid := os.fork()) == 0:\n        time.sleep(3)\n        os._exit(0)\n    pids.append(pid)\n"
              "for pid in pids:\n"
              "    os.waitpid(pid, 0)")
    assert command("run", make("a", source), "--memory", 1.2, "--out", tmp_path / "out",
                   env={KERNEL_MARK: mark}).returncode == 0
    assert report(tmp_path / "out")["a"]["peak_mb"] > 1200


@pytest.mark.parametrize("number, name", [(6, "SIGABRT"), slow(40, "signal 40")])
def test_a_signal_has_its_name_or_its_number(make, tmp_path, mark, number, name):
    path = make("a", f"import os\nos.kill(os.getpid(), {number})")
    command("run", path, make("b", "x = 1"), "--jobs", 1, "--out", tmp_path / "out", env={KERNEL_MARK: mark})
    got = report(tmp_path / "out")
    assert f"the kernel ended in cell 3: killed by {name}" in got["a"]["reason"] and got["b"]["status"] == "passed"


def test_sources_that_are_not_quite_notebooks(make, tmp_path, mark):
    half, null, tags = make("half", "'x'"), make("null", "1"), make("tags", "x = 1")
    half.write_text(half.read_text().replace("'x'", "'\\ud83d'").replace("# A title", "# A \\ud83d"))
    null.write_text(null.read_text().replace('"1"', "null"))
    text = tags.read_text().replace('"tags": [\n     "parameters"\n    ]', '"tags": ["parameters"]')
    tags.write_text(text.replace('"metadata": {}', '"metadata": {"tags": null}'))
    spaced = make("{x} y/a b#c", "x = 1")
    done = command("run", half, null, tags, spaced, make("b", "x = 1"), "--jobs", 1, "--out", tmp_path / "out",
                   env={KERNEL_MARK: mark})
    got = report(tmp_path / "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr and (tmp_path / "out" / "index.html").exists()
    assert {n for n, r in got.items() if r["status"] == "passed"} == {"{x} y/a b#c", "b", "tags"}
    assert "UnicodeEncodeError" in got["half"]["reason"] and "is not a notebook" in got["null"]["reason"]


INCOMPLETE = {  # name: (what is done to a good notebook's JSON, why it fails, '' if it runs)
    "metadata is a list": (lambda nb: nb.update(metadata=[]), ""),
    "a cell's metadata is null": (lambda nb: nb["cells"][1].update(metadata=None), ""),
    "tags are a number": (lambda nb: nb["cells"][1]["metadata"].update(tags=3), ""),
    "one tag is a number": (lambda nb: nb["cells"][1]["metadata"].update(tags=[3, "parameters"]), ""),
    "outputs are null": (lambda nb: nb["cells"][1].update(outputs=None), ""),
    "an output is a word": (lambda nb: nb["cells"][1].update(outputs=["x"]), ""),
    "an id is a number": (lambda nb: nb["cells"][1].update(id=7), ""),
    "no execution count": (lambda nb: nb["cells"][1].pop("execution_count"), ""),
    "no minor version": (lambda nb: nb.pop("nbformat_minor"), ""),
    "the language is a word": (lambda nb: nb["metadata"].update(language_info="python"), ""),
    "papermill's part is a word": (lambda nb: nb["metadata"].update(papermill="x"), ""),
    "no cell at all": (lambda nb: nb.update(cells=[]), ""),
    "a cell is null": (lambda nb: nb["cells"].append(None), "is not a notebook (cell 4 has no cell_type)"),
    "a source of numbers": (lambda nb: nb["cells"][1].update(source=[1, 2]), "is not a notebook ("),
    "a source is a dict": (lambda nb: nb["cells"][2].update(source={}), "is not a notebook (cell 3 has no source)"),
    "the version is a word": (lambda nb: nb.update(nbformat="4"), "is not a notebook ("),
    "the minor version is a word": (lambda nb: nb.update(nbformat_minor="5"), "is not a notebook ("),
    "the kernel is a list": (lambda nb: nb["metadata"].update(kernelspec=["python3"]),
                             "is not a notebook (its kernelspec is ['python3']"),
    "cells are a dict": (lambda nb: nb.update(cells={"0": nb["cells"][0]}), "is not a notebook (it holds no cells)"),
    "worksheets without cells": (lambda nb: nb.pop("cells") and nb.update(nbformat=3, worksheets=[{}]),
                                 "is not a notebook ("),
}


@pytest.mark.slow
def test_notebooks_that_lack_what_nbformat_wants(make, tmp_path, mark):
    for name, (change, _) in INCOMPLETE.items():
        path = make(name, "assert n == 3")
        nb = json.loads(path.read_text())
        change(nb)
        path.write_text(json.dumps(nb))
    (tmp_path / "a mark before it.ipynb").write_bytes(b"\xef\xbb\xbf" + make("good", "x = 1").read_bytes())
    (tmp_path / "deep.ipynb").write_text('{"cells": ' + "[" * 100_000)
    (tmp_path / "bytes.ipynb").write_bytes(b"\x80\xff\x00")
    done = command("run", *tmp_path.glob("*.ipynb"), "--jobs", 3, "--out", tmp_path / "out", env={KERNEL_MARK: mark})
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "out" / "index.html").exists()
    got = report(tmp_path / "out")
    others = {"good": "", "a mark before it": "", "deep": "is not a notebook (", "bytes": "is not a notebook ("}
    for name, reason in {**{name: reason for name, (_, reason) in INCOMPLETE.items()}, **others}.items():
        assert got[name]["status"] == ("failed" if reason else "passed"), (name, got[name]["reason"])
        assert reason in got[name]["reason"]


@pytest.mark.slow
def test_a_notebook_with_widgets_does_not_stall(make, tmp_path, mark):
    "nbclient alone waits for ever in about every second of these (its issue 312)."
    sources = ["import ipywidgets\nfrom IPython.display import display\nout = ipywidgets.Output()\ndisplay(out)",
               "for i in range(30):\n    with out:\n        print(i)\n        if i % 5 == 0:\n"
               "            out.clear_output()",
               "@ipywidgets.interact(x=(0, 10))\ndef f(x=3):\n    print('x', x)\n    return x * 2"] * 3
    done = command("run", *(make(f"w{i}", *sources) for i in range(8)), "--cell-timeout", 20, "--out",
                   tmp_path / "out", env={KERNEL_MARK: mark})
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("source", [
    "import ipywidgets\nfor _ in range(250):\n    ipywidgets.HTML('x' * 10**6)",
    slow("from IPython.display import display\nfor _ in range(250):\n"
         "    display({'application/json': {'x': 'y' * 10**6}}, raw=True)")])
def test_what_is_no_text_floods_too(make, tmp_path, mark, source):
    command("run", make("a", source), "--out", tmp_path / "out", env={KERNEL_MARK: mark})
    assert report(tmp_path / "out")["a"]["reason"].startswith("cell 3 printed too much")


def test_a_notebook_that_leaves_early_has_not_passed(make, tmp_path, mark):
    assert command("run", make("a", "import sys\nsys.exit()", "raise ValueError"), "--out", tmp_path / "out",
                   env={KERNEL_MARK: mark}).returncode == 1
    reason = report(tmp_path / "out")["a"]["reason"]
    assert reason == "cell 3 ended the notebook with sys.exit: what follows was not run"


@pytest.mark.slow
def test_many_notebooks_leave_no_files_open(make, tmp_path, monkeypatch):
    me = psutil.Process()
    run_notebooks([make("first", "x = 1")], out=tmp_path / "out")
    before = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    run_notebooks([make(f"n{i}", "x = 1") for i in range(8)], out=tmp_path / "out")
    after = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    assert after - before < 20


@pytest.mark.slow
def test_a_message_of_two_hundred_megabytes_at_once(make, tmp_path, mark):
    done = command("run", make("a", "print('x' * 2 * 10**8)", "y = 1"), make("good", "y = 1"), "--out",
                   tmp_path / "out", env={KERNEL_MARK: mark})
    got = report(tmp_path / "out")
    assert done.returncode == 1 and got["good"]["status"] == "passed"
    assert got["a"]["reason"].startswith("cell 3 printed too much")
    assert (tmp_path / "out" / "a.ipynb").stat().st_size < 1e5


@pytest.mark.slow
def test_a_progress_bar_that_is_drawn_again_and_again_is_no_flood(make, tmp_path, mark):
    again = ("from IPython.display import HTML, clear_output, display\nhandle = display(HTML(''), display_id=True)\n"
             "for _ in range(70):\n"
             "    handle.update(HTML('x' * 10**6))\n    clear_output()\n    display(HTML('y' * 10**6))")
    assert command("run", make("a", again, again), "--out", tmp_path / "out", env={KERNEL_MARK: mark}).returncode == 0
    assert (tmp_path / "out" / "a.ipynb").stat().st_size < 10e6


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
