"The course runner as a person meets it: the command line, failing notebooks, ctrl-C, the report."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, command

from coursekit.course import _kind, defaults, parse_parameters, read_notebook
from coursekit.workspace import CourseError, n_cores

PARAMETERS = 'scale = "quick"  # why\nlr = 0.1\nn = 3\nextensions = False'


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


def report(out):
    "{name: what report.json says of a notebook}."
    return {n["name"]: n for n in json.loads((out / "report.json").read_text())["notebooks"]}


def started(tmp_path):
    "Whether any notebook was executed."
    return list((tmp_path / "out").rglob("*.ipynb"))


# Before anything runs

@pytest.mark.parametrize("options, words", [
    (["-p", "scal=tiny"], "no notebook here has a parameter 'scal'; did you mean 'scale'?"),
    (["-p", "scale=3"], "3 is a whole number, but in a scale is a word (there 'quick')"),
    (["-p", "n=many"], "many is a word, but in a n is a whole number"),
    (["-p", "n=1.5"], "1.5 is a number"),
    (["-p", "extensions=1"], "extensions is True or False"),
    (["-p", "scale"], "-p scale: write NAME=VALUE"),
    (["-p", "scale=huge"], "choose 'tiny', 'quick' or 'full'"),
    (["."], ". is a folder: name its notebooks"),
    (["--scale", "huge"], "choose 'tiny', 'quick' or 'full'"),
    (["nowhere.ipynb"], "There is no notebook nowhere.ipynb"),
])
def test_a_wrong_command_is_a_sentence_before_a_kernel_starts(make, tmp_path, options, words):
    done = command("run", make("a", "1/0"), *options, "--out", tmp_path / "out")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not started(tmp_path)


@pytest.mark.parametrize("parameters, words", [
    (None, "has 0 cells tagged 'parameters': one is expected"),
    ("scale = pick()", "holds more than 'name = literal' lines"),
    ("import os", "holds more than 'name = literal' lines"),
    ("scale = ", "holds more than 'name = literal' lines"),
])
def test_a_wrong_parameters_cell_is_a_sentence_before_a_kernel_starts(make, tmp_path, parameters, words):
    done = command("run", make("good"), make("a", parameters=parameters), "--out", tmp_path / "out")
    assert done.returncode == 2 and words in done.stderr and not started(tmp_path)


def test_two_parameters_cells_are_one_too_many(make):
    nb = read_notebook(make("a"))
    nb.cells.append(nb.cells[1])
    with pytest.raises(CourseError, match="a has 2 cells"):
        defaults(nb, "a")


def test_literals_are_read_as_python_and_as_yaml_would():
    known = {"a": {"scale": "quick", "word": "x", "lr": 0.1, "n": 3, "on": False, "what": None, "sizes": [1]}}
    got = parse_parameters(["scale=tiny", "lr=1e-3", "n=-2", "on=true", "what=3", "sizes=[1, 2]"], known)
    assert got == {"scale": "tiny", "lr": 1e-3, "n": -2, "on": True, "what": 3, "sizes": [1, 2]}
    assert parse_parameters(["lr=1", "word='3'"], known) == {"lr": 1, "word": "3"}
    assert _kind([1]) == "a list"


def test_no_lessons_here(tmp_path):
    done = command("run", cwd=tmp_path)
    assert done.returncode == 2 and "There are no lessons here" in done.stderr


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


# Running

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
    command("run", make("a", "import subprocess\nsubprocess.run('sleep 4321 &', shell=True)"), "--out", tmp_path / "out")
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4321"]]


def test_an_output_that_is_no_picture_and_no_table_spoils_nothing(make, tmp_path):
    path = make("a", "from IPython.display import display\nfrom coursekit.workspace import TABLE\n"
                     "display({'image/png': 'a', 'text/plain': ''}, raw=True)\ndisplay({TABLE: 'text', 'text/plain': ''}, raw=True)\n"
                     "display({TABLE: {'title': 1, 'columns': [1], 'data': [2]}, 'text/plain': ''}, raw=True)")
    assert command("run", path, make("b", "x = 1"), "--out", tmp_path / "out").returncode == 0
    assert report(tmp_path / "out")["a"]["figures"] == report(tmp_path / "out")["a"]["tables"] == []


def test_notebooks_of_one_name_have_their_own_parameters(make, tmp_path):
    a, b = make("k/x", parameters='scale = "quick"'), make("k/l/x", "assert n == 5")
    assert command("run", a, b, "-p", "n=5", "--out", tmp_path / "out").returncode == 0


def test_a_broken_notebook_alone_is_told_as_such(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    done = command("run", tmp_path / "a.ipynb", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 1 and "a.ipynb is not a notebook" in done.stdout


def test_time_is_limited(make, tmp_path):
    slow = make("slow", "import time\ntime.sleep(600)")
    start = time.monotonic()
    done = command("run", slow, make("good"), "--timeout", 15, "--out", tmp_path / "out")
    got = report(tmp_path / "out")
    assert done.returncode == 1 and time.monotonic() - start < 50
    assert "took longer than 15 s" in got["slow"]["reason"] and got["good"]["status"] == "passed"
    assert "time.sleep(600)" in "\n".join(got["slow"]["error"]["lines"])


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_kernels_and_leaves_a_true_report(make, tmp_path, sig):
    slow = make("slow", "import subprocess, time\nsubprocess.Popen(['sleep', '987'])\ntime.sleep(987)")
    paths = [make("a"), slow, make("later")]
    run = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run", *paths, "--jobs", "1", "--out", tmp_path / "out"],
                           stdout=subprocess.PIPE, text=True)
    me = psutil.Process(run.pid)
    for _ in range(300):
        if (tree := me.children(recursive=True)) and any(p.name() == "sleep" for p in tree):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    run.send_signal(sig)
    assert run.wait(30) == 130
    got = report(tmp_path / "out")
    assert {n: r["status"] for n, r in got.items()} == {"a": "passed", "slow": "stopped", "later": "not run"}
    assert not [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_the_parameters_of_one_notebook_are_not_given_to_another(make, tmp_path):
    a = make("a", "assert n == 7")
    b = make("b", "assert 'n' not in globals()", parameters='scale = "quick"')
    assert command("run", a, b, "-p", "n=7", "--out", tmp_path / "out").returncode == 0


def test_a_second_run_replaces_the_first(make, tmp_path):
    path = make("a", "x = 1")
    command("run", path, "--out", tmp_path / "out")
    make("a", "1/0")
    assert command("run", path, "--out", tmp_path / "out").returncode == 1
    assert report(tmp_path / "out")["a"]["status"] == "failed"


# The report

HOSTILE = "<script>alert(1)</script>"


def test_whatever_a_notebook_printed_is_escaped(make, tmp_path):
    path = make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\n"
                     f"show_table(pd.DataFrame({{'x<b>': ['{HOSTILE}', None], 'y': [1, 2.5]}}), '{HOSTILE}')",
                "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()", f"raise ValueError('{HOSTILE}')")
    command("run", path, "--out", tmp_path / "out")
    page, got = (tmp_path / "out" / "index.html").read_text(), report(tmp_path / "out")["a"]
    assert HOSTILE not in page and "&lt;script&gt;" in page and "x&lt;b&gt;" in page
    assert got["tables"][0]["title"] == HOSTILE and got["tables"][0]["data"] == [[HOSTILE, 1.0], [None, 2.5]]
    assert (tmp_path / "out" / got["figures"][0]["file"]).read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png;base64," in page and "http" not in page.replace("http://www.w3.org", "")


def test_a_table_without_rows_and_nan(make, tmp_path):
    path = make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\nshow_table(pd.DataFrame({'x': []}), 'empty')\n"
                     "show_table(pd.DataFrame({'x': [float('nan'), float('inf')]}, index=pd.Index(['p', 'q'], name='row')), 'odd')")
    assert command("run", path, "--out", tmp_path / "out").returncode == 0
    tables = report(tmp_path / "out")["a"]["tables"]
    assert tables[0]["data"] == [] and tables[1]["columns"] == ["row", "x"]


# In place

def test_inplace_writes_outputs_only(make, tmp_path):
    widget = "import ipywidgets\nipywidgets.IntSlider()"
    path, bad = make("a", "print(scale)", widget), make("bad", "1/0")
    before, bad_before = nbformat.read(path, 4), bad.read_bytes()
    done = command("run", path, bad, "--scale", "tiny", "--inplace", "--out", tmp_path / "out")
    after = nbformat.read(path, 4)
    assert done.returncode == 1 and bad.read_bytes() == bad_before
    assert [c.source for c in after.cells] == [c.source for c in before.cells] and after.cells[2].outputs[0].text == "tiny\n"
    assert after.metadata == before.metadata and "widget" not in path.read_text().replace("ipywidgets", "")
    once = path.read_bytes()
    command("run", path, "--scale", "tiny", "--inplace", "--out", tmp_path / "out")
    assert path.read_bytes() == once


def test_inplace_leaves_a_notebook_that_was_edited_meanwhile(make, tmp_path):
    path = tmp_path / "a.ipynb"
    make("a", f"import json, pathlib\np = pathlib.Path({str(path)!r})\np.write_text(p.read_text().replace('# A title', '# B title'))")
    other = make("other", "print(1)")
    done = command("run", path, other, "--jobs", 1, "--inplace", "--out", tmp_path / "out")
    assert done.returncode == 1 and "was edited while it ran" in done.stderr and "# B title" in path.read_text()
    assert nbformat.read(other, 4).cells[-1].outputs


def test_plain_papermill_runs_a_lesson(tmp_path):
    done = subprocess.run([sys.executable, "-m", "papermill", ROOT / "nbs/00_start.ipynb", tmp_path / "out.ipynb", "-p", "scale", "tiny"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_doctor_command():
    done = command("doctor")
    assert done.returncode == 0 and "torch" in done.stdout and "scale full" in done.stdout
