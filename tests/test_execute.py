"One notebook in its kernel: why it failed, its limits, what it leaves behind; some do their worst beside good ones."
import contextlib
import os
import sys
import time

import nbformat
import psutil
import pytest
from conftest import command, report, slow

from coursekit.course import run_notebooks
from coursekit.execute import KERNEL_MARK
from coursekit.files import CourseError, atomic_path


def test_a_failure_elsewhere_goes_by_its_own_cell(make, tmp_path):
    "The line that is marked is the cell's own, not one of a library that it called."
    path = make("a", "import json\nx = 0\njson.loads('{')")
    command("run", path, "--out", tmp_path / "out")
    assert "->   3 json.loads('{')" in report(tmp_path / "out")["a"]["error"]["lines"]


@pytest.mark.parametrize("source, line", [
    ("x = 0\n\ntry:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('chained') from e",
     ("{}['k']", "raise ValueError('chained') from e")),  # IPython 7 shows the cause first, later ones last
    ("x = 1\n" * 20 + "y = (", "21 y = ("),
])
def test_the_line_of_a_chained_error_and_of_a_syntax_error(make, tmp_path, source, line):
    command("run", make("a", source), "--out", tmp_path / "out")
    marked = [text for text in report(tmp_path / "out")["a"]["error"]["lines"] if text.startswith("->")]
    assert len(marked) == 1 and marked[0].endswith(line)


def test_a_child_of_a_shell_does_not_outlive_the_run(make, tmp_path):
    assert command("run", make("a", "import subprocess\nsubprocess.run('sleep 4321 &', shell=True)"), "--out",
                   tmp_path / "out").returncode == 1
    assert "left 1 process behind (sleep 4321)" in report(tmp_path / "out")["a"]["reason"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4321"]]


@pytest.mark.slow
def test_time_is_limited(make, tmp_path):
    slow = make("slow", "import time\ntime.sleep(600)")
    start = time.monotonic()
    done = command("run", slow, make("good"), "--timeout", 15, "--out", tmp_path / "out")
    got = report(tmp_path / "out")
    assert done.returncode == 1 and time.monotonic() - start < 50
    assert "took longer than 15 s" in got["slow"]["reason"] and got["good"]["status"] == "passed"
    assert "time.sleep(600)" in "\n".join(got["slow"]["error"]["lines"])


def test_the_cell_that_failed_is_not_an_earlier_one_whose_error_is_allowed(make, tmp_path):
    path = make("a", "1/0", "x = 1\nundefined")
    nb = nbformat.read(path, 4)
    nb.cells[2].metadata.tags = ["raises-exception"]
    nb.cells.insert(3, nbformat.v4.new_markdown_cell("# One\n\ntext\n\n## Two"))
    nbformat.write(nb, path)
    command("run", path, "--out", tmp_path / "out")
    got = report(tmp_path / "out")["a"]
    assert got["reason"] == "NameError: name 'undefined' is not defined" and got["heading"] == "Two"
    assert got["error"]["cell"] == 5 and got["error"]["in"] == 3 and "->   2 undefined" in got["error"]["lines"]


def tag(path, cell, *tags):
    "Tag a cell (from 1) of a notebook."
    nb = nbformat.read(path, 4)
    nb.cells[cell - 1].metadata.tags = list(tags)
    nbformat.write(nb, path)
    return path


def test_a_cell_that_may_raise_does(make, tmp_path):
    paths = [tag(make("error", "1/0", "assert n == 3"), 3, "raises-exception"),
             tag(make("magic", "%nosuch", "x = 1"), 3, "slow", "raises-exception"),
             tag(make("shown", "try:\n    1/0\nexcept ValueError:\n    pass", "x = 1"), 3, "raises-exception"),
             tag(make("quiet", "x = 1"), 3, "raises-exception"),
             tag(make("leaves", "import sys\nsys.exit(1)", "assert n == 3"), 3, "raises-exception")]
    done = command("run", *paths, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    executed = nbformat.read(tmp_path / "out" / "error.ipynb", 4)
    assert [c.source for c in executed.cells] == [c.source for c in nbformat.read(paths[0], 4).cells]
    assert executed.cells[2].outputs[0].ename == "ZeroDivisionError"
    assert all(n["error"] is None for n in report(tmp_path / "out").values())


CUSTOM = ("def handle(shell, etype, value, tb, tb_offset=None):\n    print('mine')\n"
          "get_ipython().set_custom_exc((KeyError,), handle)")


@pytest.mark.parametrize("sources, reason, cell, number", [
    (["x = 1", "try:\n    1/0\nexcept ArithmeticError:\n    get_ipython().showtraceback()", "y = 1"],
     "ZeroDivisionError: division by zero", 5, 3),
    (["%matplotlib inline\nimport matplotlib.pyplot as plt", "plt.title('$\\\\frac{$')", "y = 1", "z = 1"],
     "ValueError: \\frac{", 5, 3),
    slow(["%matplotlib inline\nimport matplotlib.pyplot as plt",
          "figure = plt.figure()\nplt.title('$\\\\frac{$')\nfigure", "y = 1"], "ValueError: \\frac{", 5, 3),
    (["class Bad:\n    def __repr__(self):\n        raise TypeError('no face')\nBad()", "y = 1"],
     "TypeError: no face", 4, 2),
    slow(["x = 1", "%nosuchmagic 3"], "UsageError: Line magic function `%nosuchmagic` not found.", 5, 3),
    (["%%nosuchcell\nx"], "UsageError: Cell magic `%%nosuchcell` not found.", 4, 2),
    slow(["raise ExceptionGroup('many', [ValueError(1), TypeError(2)])"],
         "ExceptionGroup: many (2 sub-exceptions)", 4, 2),
    slow([CUSTOM, "{}['k']"], "KeyError: 'k'", 5, 3),
    slow(["raise ValueError('\\n  \\n   at last\\nmore')"], "ValueError: at last", 4, 2),
    slow(["raise ValueError(' ')"], "ValueError", 4, 2),
])
def test_a_failure_has_a_sentence_and_its_own_cell(make, tmp_path, sources, reason, cell, number):
    path = make("a", "# %% text", *sources)
    nb = nbformat.read(path, 4)
    nb.cells[2] = nbformat.v4.new_markdown_cell("## Where it happens")
    nb.cells.append(nbformat.v4.new_markdown_cell("## The end"))
    nbformat.write(nb, path)
    assert command("run", path, "--out", tmp_path / "out").returncode == 1
    got = report(tmp_path / "out")["a"]
    assert (got["reason"], got["heading"]) == (reason, "Where it happens")
    assert (got["error"]["cell"], got["error"]["in"]) == (cell, number)
    executed = [c.source for c in nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells]
    assert f"In [{number}]" in executed[0]
    assert "papermill-error-cell" in executed[executed.index(sources[cell - 4]) - 1]


@pytest.mark.slow
def test_all_failures_are_listed_when_a_run_goes_on(make, tmp_path):
    path = make("a", "1/0", "x = 1", "undefined", "%nosuch", "assert x == 1\nraise KeyError",
                "from pathlib import Path\nPath('done').touch()")
    allowed = tag(make("allowed", "1/0", "undefined"), 3, "raises-exception")
    dead = make("dead", "1/0", "import os\nos._exit(3)")
    slow = make("slow", "1/0", "import time\ntime.sleep(60)", "undefined")
    leaves = make("leaves", "1/0", "import sys\nsys.exit()", "undefined")
    done = command("run", path, allowed, dead, slow, leaves, "--keep-going", "--cell-timeout", 8, "--out",
                   tmp_path / "out")
    assert done.returncode == 1 and (tmp_path / "done").exists()
    got = {n: r["reason"] for n, r in report(tmp_path / "out").items()}
    assert got["a"] == ("ZeroDivisionError: division by zero; 3 more cells failed: "
                        "5 (NameError: name 'undefined' is not defined), "
                        "6 (UsageError: Line magic function `%nosuch` not found.), 7 (KeyError)")
    assert report(tmp_path / "out")["a"]["error"]["cell"] == 3
    assert got["allowed"] == "NameError: name 'undefined' is not defined"
    assert got["dead"].startswith("the kernel ended in cell 4: exit status 3")
    assert "; 1 more cell failed: 3 (" in got["dead"]
    assert got["slow"].startswith("cell 4 took longer than 8 s, the limit given by --cell-timeout; 1 more cell "
                                  "failed: 3 (")
    assert got["leaves"].startswith("cell 4 ended the notebook with sys.exit: what follows was not run; 1 more cell "
                                    "failed: 3 (")
    command("run", path, "--out", tmp_path / "out")
    assert report(tmp_path / "out")["a"]["reason"] == "ZeroDivisionError: division by zero"


def test_a_persons_history_is_left_alone(make, tmp_path):
    mine = tmp_path / "ipython" / "profile_default" / "history.sqlite"
    done = command("run", make("a", "secret = 1"), "--out", tmp_path / "out",
                   env={"IPYTHONDIR": str(tmp_path / "ipython")})
    assert done.returncode == 0 and mine.parent.exists() and not mine.exists()


def test_what_a_notebook_wants_done_at_its_end_is_done(make, tmp_path):
    path = make("a", "import atexit, os, tempfile\nfrom pathlib import Path\n"
                     f"folder = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})\n"
                     f"atexit.register(lambda: Path({str(tmp_path / 'done')!r}).write_text('yes'))\n"
                     "assert os.path.isdir(folder.name)",
                "import sys\nif (pid := os.fork()) == 0:\n    os._exit(3)\n"
                "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3")
    assert command("run", path, "--out", tmp_path / "out").returncode == 0
    assert (tmp_path / "done").read_text() == "yes" and not list(tmp_path.glob("tmp*"))


def test_a_notebook_that_can_not_be_written_has_failed_and_the_report_knows_its_results(make, tmp_path, monkeypatch):
    good, path = make("good", "x = 1"), make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\n"
                                                  "show_table(pd.DataFrame({'x': [7]}), 't')")

    @contextlib.contextmanager
    def full(path, setting=""):
        if path.name == "a.ipynb":
            raise CourseError("No space is left on the disk of out: free some, or choose another folder with --out.")
        with atomic_path(path, setting) as part:
            yield part
    monkeypatch.setattr("coursekit.execute.atomic_path", full)
    run_notebooks([path, good], out=tmp_path / "out")
    got = report(tmp_path / "out")
    assert got["good"]["status"] == "passed"
    assert got["a"]["reason"].startswith("it ran, but could not be written: No space is left")
    assert got["a"]["tables"][0]["data"] == [[7]] and got["a"]["executed"] == ""


@pytest.mark.slow
def test_a_cell_that_was_killed_at_its_limit_is_the_slowest(make, tmp_path):
    path = make("a", "import time\nwhile True:\n    try:\n        time.sleep(99)\n    except BaseException:\n"
                     "        pass")
    command("run", path, "--cell-timeout", 2, "--out", tmp_path / "out")
    first = report(tmp_path / "out")["a"]["slowest"][0]
    assert first["cell"] == 3 and first["seconds"] >= 2
    assert "cell 3 <code>import time" in (tmp_path / "out" / "index.html").read_text()


# Notebooks that do their worst

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
