"The course runner as a person meets it: the command line, failing notebooks, ctrl-C, the report."
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, command, report, slow

from coursekit.course import Limits, _files, _kind, _slots, beside, defaults, parse_parameters, run_notebooks
from coursekit.ledger import _beside, references
from coursekit.report import agrees, machine, read_notebook
from coursekit.files import CourseError, atomic_path
from coursekit.machine import n_cores

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
    ([ROOT / "README.md"], "README.md is no notebook: those end in .ipynb"),
])
def test_a_wrong_command_is_a_sentence_before_a_kernel_starts(make, tmp_path, options, words):
    done = command("run", make("a", "1/0"), *options, "--out", tmp_path / "out")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not started(tmp_path)


@pytest.mark.parametrize("parameters, expected", [
    ('scale = "quick"  # why\nn = 3', {"scale": "quick", "n": 3}),
    ("n: int = 3\nlr: float = 1e-3\nword: str", {"n": 3, "lr": 1e-3}),
    ("n = 2**10\nscale = pick()", {"n": None, "scale": None}),
    ("%matplotlib inline\n!echo x\nimport os\nn = -3\na, b = 1, 2\nprint(n)\nfirst = second = (1, 2)", {"n": -3, "first": (1, 2), "second": (1, 2)}),
    ("%%time\nn = 3", {}), ("n = ", {}), ("", {}), (None, {})])
def test_parameters_are_the_plain_lines_of_the_tagged_cell(make, parameters, expected):
    assert defaults(read_notebook(make("a", parameters=parameters))) == expected


def test_of_two_parameters_cells_the_first_counts_as_in_papermill(make, tmp_path):
    path = make("a", "n = 4", "assert (n, lr) == (4, 7)")
    nb = nbformat.read(path, 4)
    nb.cells[2].metadata.tags = ["parameters"]
    nbformat.write(nb, path)
    assert defaults(read_notebook(path))["lr"] == 0.1
    assert command("run", path, "-p", "lr=7", "-p", "n=9", "--out", tmp_path / "out").returncode == 0


def test_a_notebook_without_parameters_runs_as_it_is(make, tmp_path):
    plain, odd, tagged = make("plain", "assert 'scale' not in globals()", parameters=None), make("odd", "n", parameters="import os\nn = 2**10"), make("tagged", "assert scale == 'tiny'")
    assert command("run", plain, odd, tagged, "--scale", "tiny", "--out", tmp_path / "out").returncode == 0
    got = report(tmp_path / "out")
    assert {n: (r["parameters"], r["note"]) for n, r in got.items()} == {"plain": ({}, "no parameters"), "odd": ({}, ""), "tagged": ({"scale": "tiny"}, "")}
    done = command("run", plain, "--scale", "tiny", "--out", tmp_path / "other")
    assert done.returncode == 2 and "no notebook here has a parameter 'scale': tag the cell that sets it 'parameters'" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("line", ["m = n * 2", "steps: int = [n, n]", "config['n'] = n", "m = [x for x in range(n)]", "import random; random.seed(n)", "if n > 1: many = True"])
def test_what_the_parameters_cell_computes_from_a_parameter_is_not_left_as_it_was(make, tmp_path, line):
    path = make("a", "x = 1", parameters=f"n = 2\nconfig = {{}}\n{line}\nprint(n)")
    done = command("run", path, "-p", "n=5", "--out", tmp_path / "out")
    assert done.returncode == 2 and "The parameters cell of a uses n in " in done.stderr and "move that line to a later cell" in done.stderr and not started(tmp_path)
    if "m =" in line:
        assert command("run", path, "-p", "n=5", "-p", "m=10", "--out", tmp_path / "out").returncode == 0  # what is given itself is no old value


@pytest.mark.parametrize("line", ["f = lambda: n", slow("def f(): return n"), slow("assert n > 0"), "n", slow("display(n)"), slow("n: int = n")])
def test_what_the_parameters_cell_only_shows_or_reads_later_is_no_hindrance(make, tmp_path, line):
    path = make("a", "assert n == 5", parameters=f"n = 2\n{line}")
    done = command("run", path, "-p", "n=5", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Python", slow("python3"), slow("ipython"), ["python"], slow(3)])
def test_python_is_python_however_a_notebook_spells_it(make, tmp_path, name):
    path = make("a", "assert n == 5")
    nb = json.loads(path.read_text())
    nb["metadata"]["language_info"] = {"name": name}
    path.write_text(json.dumps(nb))
    assert command("run", path, "-p", "n=5", "--out", tmp_path / "out").returncode == 0
    assert "there 3" in command("run", path, "-p", "n=five", "--out", tmp_path / "out").stderr


@pytest.mark.parametrize("value", ["2**11", slow("1/3"), slow("(1 + 2) * 3"), slow("1e3*2")])
def test_what_is_not_worked_out_is_refused_where_the_default_says_nothing(make, tmp_path, value):
    path = make("a", "print(n)", parameters="n = 2**10")
    done = command("run", path, "-p", f"n={value}", "--out", tmp_path / "out")
    assert done.returncode == 2 and "is not worked out here: give the number itself" in done.stderr and not started(tmp_path)
    for fine in "2048", "2/11/2026 or so", "a*b", "n1":
        assert command("run", path, "-p", f"n={fine}", "--out", tmp_path / "out").returncode == 0, fine


@pytest.mark.slow
def test_parameters_that_are_alike_in_json_are_not_the_same(make, tmp_path):
    path = make("a", "print(type(t), t)", parameters="t = None")
    for value in "(1,2)", "[1,2]", "{1:2,3:4}", "{'1':2,'3':4}", "{1:2,3:4}":
        done = command("run", path, "-p", f"t={value}", "--out", tmp_path / "out", "--changed")
        assert done.returncode == 0 and "unchanged" not in done.stdout, (value, done.stderr)
    assert "unchanged" in command("run", path, "-p", "t={1:2,3:4}", "--out", tmp_path / "out", "--changed").stdout
    done = command("run", path, "-p", "t={1:2,'a':3}", "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("coursekit: The parameter t can't be {1: 2, 'a': 3}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give up what it may read")
def test_a_notebook_or_a_folder_that_is_closed_is_no_traceback():
    with tempfile.TemporaryDirectory() as room:  # pytest's own folders are closed to others
        os.chmod(room, 0o755)
        path, data = Path(room) / "a.ipynb", Path(room) / "data"
        (data / "closed").mkdir(parents=True)
        for file in data / "open.txt", data / "closed" / "in.txt", path:
            file.write_text("{}")
        path.chmod(0), (data / "closed").chmod(0)
        os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(CourseError, match="a.ipynb can't be read .Permission denied"):
                read_notebook(path)
            found = [f.name for f in _files(data, set())]
        finally:
            os.setresuid(0, 0, 0)
        assert found == ["open.txt"]


@pytest.mark.parametrize("language, source, names", [("R", "n <- 3 # a = b\nlr = 0.1\nif (n == 3) x", {"n", "lr", "a"}), ("bash", "n=3\nword='x'", {"n", "word"}), ("scala", "val n: Int = 3", {"n"})])
def test_parameters_in_another_language_have_names_only(make, language, source, names):
    nb = read_notebook(make("a", parameters=source))
    nb.metadata.kernelspec.language = language
    assert defaults(nb) == dict.fromkeys(names)


def test_another_language_is_left_to_papermill(make, tmp_path):
    "The kernel is Python's here, and says that it is R: what papermill writes for R says TRUE."
    kernel = tmp_path / "jupyter" / "kernels" / "like-r"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "R", "language": "R"}))
    path = make("a", "assert on == 'as R has it' and n == 5", parameters="TRUE = 'as R has it'\non = 0\nn = 3", kernel="like-r")
    path.write_text(path.read_text().replace('"language": "python"', '"language": "R"'))
    done = command("run", path, "-p", "on=true", "-p", "n=5", "--out", tmp_path / "out", env={"JUPYTER_PATH": str(tmp_path / "jupyter")})
    assert done.returncode == 0, done.stdout + done.stderr


VALUES = ["(16, 32)", "()", "[(1, 2), [3]]", "{1: 'a', 2: (None, True)}", "None", "-1e-3", "'a\"b\\\\c\\n'"]


def test_values_arrive_as_they_were_given(make, tmp_path):
    path = make("a", *(f"assert v{i} == {v}, v{i}" for i, v in enumerate(VALUES)), parameters="\n".join(f"v{i} = f()" for i in range(len(VALUES))).replace("f()", "str()"))
    given = [x for i, v in enumerate(VALUES) for x in ("-p", f"v{i}={v}")]
    done = command("run", path, *given, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report(tmp_path / "out")["a"]["parameters"]["v0"] == [16, 32]
    assert nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells[2].source.splitlines()[1].replace(" ", "") == "v0=(16,32)"


@pytest.mark.parametrize("value", ["{1, 2}", "b'x'", "3j", "[1, {2}]", "{(1, 2): 3}", "1e999", "..."])
def test_a_value_that_no_report_can_hold_is_refused_before_anything_runs(make, tmp_path, value):
    done = command("run", make("a", parameters="n = str()"), "-p", f"n={value}", "--out", tmp_path / "out")
    assert done.returncode == 2 and "The parameter n can't be" in done.stderr and "Traceback" not in done.stderr and not started(tmp_path)
    with pytest.raises(CourseError, match="The parameter n can't be"):
        run_notebooks([tmp_path / "a.ipynb"], {"n": {1, 2}}, out=tmp_path / "out")


def test_a_scale_of_another_kind_is_not_judged_as_ours():
    assert parse_parameters(["scale=2.5"], {"a": {"scale": 1.0}}) == {"scale": 2.5}
    assert parse_parameters(["scale={[1]}"], {"a": {"scale": "big"}}) == {"scale": "{[1]}"}
    with pytest.raises(CourseError, match="choose 'tiny'"):
        parse_parameters(["scale=2x"], {"a": {"scale": "quick"}, "b": {"scale": "big"}})


def test_notebooks_are_skipped_by_pattern(make, tmp_path):
    paths = [make("a"), make("old/a"), make("old/b"), make("05_draft"), make("05_text")]
    done = command("run", *paths, "--skip", "old/*", "--skip", "05_d*", "--skip", "nothing", "--out", tmp_path / "out")
    assert done.returncode == 0 and "2 of 2 passed, 3 skipped" in done.stdout and set(report(tmp_path / "out")) == {"a", "05_text"}
    done = command("run", *paths, "--skip", "*", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--skip leaves nothing to run" in done.stderr and set(report(tmp_path / "out")) == {"a", "05_text"}
    done = command("run", *paths, "--skip", "05_text.ipynb", "--skip", "", "--skip", "old/[ab]", "--out", tmp_path / "out")
    assert "2 of 2 passed, 3 skipped" in done.stdout and set(report(tmp_path / "out")) == {"a", "05_draft"}


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
    assert command("run", make("a", "import subprocess\nsubprocess.run('sleep 4321 &', shell=True)"), "--out", tmp_path / "out").returncode == 1
    assert "left 1 process behind (sleep 4321)" in report(tmp_path / "out")["a"]["reason"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4321"]]


def test_an_output_that_is_no_picture_and_no_table_spoils_nothing(make, tmp_path):
    path = make("a", "from IPython.display import display\nfrom coursekit.workspace import TABLE\n"
                     "display({'image/png': 'a', 'text/plain': ''}, raw=True)\ndisplay({TABLE: 'text', 'text/plain': ''}, raw=True)\n"
                     "display({TABLE: {'title': 1, 'columns': [1], 'data': [2]}, 'text/plain': ''}, raw=True)")
    assert command("run", path, make("b", "x = 1"), "--out", tmp_path / "out").returncode == 0
    assert report(tmp_path / "out")["a"]["figures"] == 0 and report(tmp_path / "out")["a"]["tables"] == []


def test_notebooks_of_one_name_have_their_own_parameters(make, tmp_path):
    a, b = make("k/x", parameters='scale = "quick"'), make("k/l/x", "assert n == 5")
    assert command("run", a, b, "-p", "n=5", "--out", tmp_path / "out").returncode == 0


def test_a_broken_notebook_alone_is_told_as_such(tmp_path):
    (tmp_path / "a.ipynb").write_text("{")
    done = command("run", tmp_path / "a.ipynb", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 1 and "a.ipynb is not a notebook" in done.stdout


@pytest.mark.slow
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
                           stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
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
    run = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run", make("a", "import time\ntime.sleep(6)"), "--out", tmp_path / "out"],
                           stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(3)
    run.send_signal(signal.SIGHUP)
    assert run.wait(60) == 0


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
    assert got["figures"] == 1 and page.count("data:image/png;base64,iVBOR") == 1 and "http:" not in page and "https:" not in page


def test_a_table_without_rows_and_nan(make, tmp_path):
    path = make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\nshow_table(pd.DataFrame({'x': []}), 'empty')\n"
                     "show_table(pd.DataFrame({'x': [float('nan'), float('inf')]}, index=pd.Index(['p', 'q'], name='row')), 'odd')")
    assert command("run", path, "--out", tmp_path / "out").returncode == 0
    tables = report(tmp_path / "out")["a"]["tables"]
    assert tables[0]["data"] == [] and tables[1]["columns"] == ["row", "x"]


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
    paths = [tag(make("error", "1/0", "assert n == 3"), 3, "raises-exception"), tag(make("magic", "%nosuch", "x = 1"), 3, "slow", "raises-exception"),
             tag(make("shown", "try:\n    1/0\nexcept ValueError:\n    pass", "x = 1"), 3, "raises-exception"), tag(make("quiet", "x = 1"), 3, "raises-exception"),
             tag(make("leaves", "import sys\nsys.exit(1)", "assert n == 3"), 3, "raises-exception")]
    done = command("run", *paths, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    executed = nbformat.read(tmp_path / "out" / "error.ipynb", 4)
    assert [c.source for c in executed.cells] == [c.source for c in nbformat.read(paths[0], 4).cells] and executed.cells[2].outputs[0].ename == "ZeroDivisionError"
    assert all(n["error"] is None for n in report(tmp_path / "out").values())


CUSTOM = "def handle(shell, etype, value, tb, tb_offset=None):\n    print('mine')\nget_ipython().set_custom_exc((KeyError,), handle)"


@pytest.mark.parametrize("sources, reason, cell, number", [
    (["x = 1", "try:\n    1/0\nexcept ArithmeticError:\n    get_ipython().showtraceback()", "y = 1"], "ZeroDivisionError: division by zero", 5, 3),
    (["%matplotlib inline\nimport matplotlib.pyplot as plt", "plt.title('$\\\\frac{$')", "y = 1", "z = 1"], "ValueError: \\frac{", 5, 3),
    slow(["%matplotlib inline\nimport matplotlib.pyplot as plt", "figure = plt.figure()\nplt.title('$\\\\frac{$')\nfigure", "y = 1"], "ValueError: \\frac{", 5, 3),
    (["class Bad:\n    def __repr__(self):\n        raise TypeError('no face')\nBad()", "y = 1"], "TypeError: no face", 4, 2),
    slow(["x = 1", "%nosuchmagic 3"], "UsageError: Line magic function `%nosuchmagic` not found.", 5, 3),
    (["%%nosuchcell\nx"], "UsageError: Cell magic `%%nosuchcell` not found.", 4, 2),
    slow(["raise ExceptionGroup('many', [ValueError(1), TypeError(2)])"], "ExceptionGroup: many (2 sub-exceptions)", 4, 2),
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
    assert (got["reason"], got["error"]["cell"], got["error"]["in"], got["heading"]) == (reason, cell, number, "Where it happens")
    executed = [c.source for c in nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells]
    assert f"In [{number}]" in executed[0] and "papermill-error-cell" in executed[executed.index(sources[cell - 4]) - 1]


@pytest.mark.slow
def test_all_failures_are_listed_when_a_run_goes_on(make, tmp_path):
    path = make("a", "1/0", "x = 1", "undefined", "%nosuch", "assert x == 1\nraise KeyError", "from pathlib import Path\nPath('done').touch()")
    allowed = tag(make("allowed", "1/0", "undefined"), 3, "raises-exception")
    dead = make("dead", "1/0", "import os\nos._exit(3)")
    slow = make("slow", "1/0", "import time\ntime.sleep(60)", "undefined")
    leaves = make("leaves", "1/0", "import sys\nsys.exit()", "undefined")
    done = command("run", path, allowed, dead, slow, leaves, "--keep-going", "--cell-timeout", 8, "--out", tmp_path / "out")
    assert done.returncode == 1 and (tmp_path / "done").exists()
    got = {n: r["reason"] for n, r in report(tmp_path / "out").items()}
    assert got["a"] == ("ZeroDivisionError: division by zero; 3 more cells failed: 5 (NameError: name 'undefined' is not defined), "
                        "6 (UsageError: Line magic function `%nosuch` not found.), 7 (KeyError)") and report(tmp_path / "out")["a"]["error"]["cell"] == 3
    assert got["allowed"] == "NameError: name 'undefined' is not defined"
    assert got["dead"].startswith("the kernel ended in cell 4: exit status 3") and "; 1 more cell failed: 3 (" in got["dead"]
    assert got["slow"].startswith("cell 4 took longer than 8 s, the limit given by --cell-timeout; 1 more cell failed: 3 (")
    assert got["leaves"].startswith("cell 4 ended the notebook with sys.exit: what follows was not run; 1 more cell failed: 3 (")
    command("run", path, "--out", tmp_path / "out")
    assert report(tmp_path / "out")["a"]["reason"] == "ZeroDivisionError: division by zero"


def test_a_cell_has_six_hours_unless_told_otherwise():
    assert Limits().cell_seconds == 6 * 3600
    assert "6 hours" in command("run", "--help").stdout


def test_a_persons_history_is_left_alone(make, tmp_path):
    mine = tmp_path / "ipython" / "profile_default" / "history.sqlite"
    done = command("run", make("a", "secret = 1"), "--out", tmp_path / "out", env={"IPYTHONDIR": str(tmp_path / "ipython")})
    assert done.returncode == 0 and mine.parent.exists() and not mine.exists()


# Leaving

def test_what_a_notebook_wants_done_at_its_end_is_done(make, tmp_path):
    path = make("a", f"import atexit, os, tempfile\nfrom pathlib import Path\nfolder = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})\n"
                     f"atexit.register(lambda: Path({str(tmp_path / 'done')!r}).write_text('yes'))\nassert os.path.isdir(folder.name)",
                "import sys\nif (pid := os.fork()) == 0:\n    os._exit(3)\nassert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3")
    assert command("run", path, "--out", tmp_path / "out").returncode == 0
    assert (tmp_path / "done").read_text() == "yes" and not list(tmp_path.glob("tmp*"))


# What need not run again, two runs at once, a full disk

@pytest.mark.slow
def test_changed_keeps_what_would_run_the_same(make, tmp_path):
    a, b, out = make("a", "print(1)"), make("b", "1/0"), tmp_path / "out"
    data = {"env": {"COURSEKIT_DATA": str(tmp_path / "data")}}
    again = lambda *options: {n: r["kept_from"] != "" for n, r in (command("run", a, b, *options, "--changed", "--out", out, **data), report(out))[1].items()}
    assert again() == {"a": False, "b": False}
    assert again() == {"a": True, "b": False} and (out / "a.ipynb").exists()  # what failed runs again
    since = report(out)["a"]["kept_from"]
    assert again() == {"a": True, "b": False} and report(out)["a"]["kept_from"] == since
    assert again("-p", "n=4") == {"a": False, "b": False}
    nb = nbformat.read(a, 4)
    nb.cells[-1].outputs = [nbformat.v4.new_output("stream", text="of another day")]
    nbformat.write(nb, a)
    assert again("-p", "n=4") == {"a": True, "b": False}  # outputs decide nothing
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"1")
    assert again("-p", "n=4") == {"a": False, "b": False}
    make("a", "print(2)")
    assert again("-p", "n=4") == {"a": False, "b": False}
    make("a", "print(2)", kernel="cobol")
    assert again("-p", "n=4") == {"a": False, "b": False} and report(out)["a"]["status"] == "failed"
    make("a", "print(2)")
    assert again("-p", "n=4") == {"a": False, "b": False}
    (out / "a.ipynb").unlink()
    assert again("-p", "n=4") == {"a": False, "b": False}


IMPORTS = {
    "a module": ("import helper", "helper.py"),
    "in a function": ("def f():\n    from helper import x\nf()", "helper.py"),
    "through a module": ("import helper", "deep.py"),
    "a package's module": ("from pkg.sub import thing", "pkg/sub.py"),
    "a package's own lines": ("import pkg.sub", "pkg/__init__.py"),
    "what it imports from beside it": ("import pkg.sub", "pkg/near.py"),
    "a folder that is added": ("import sys\nsys.path.append('../src')\nimport far", "../src/far.py"),
    "a folder without __init__": ("import bare.inner", "bare/inner.py"),
    "a script": ("%run helper.py", "helper.py"),
    "a script without its suffix": ("%run helper", "deep.py"),
    "one that a shell runs": ("!{sys.executable} helper.py", "helper.py"),
    "a file": ("open('table.csv')", "table.csv"),
    "a file through a module": ("import helper", "named.txt"),
    "a file in a folder": ("open('data/x y.csv')", "data/x y.csv"),
    "a folder": ("from pathlib import Path\nlist(Path('data').glob('*'))", "data/x y.csv"),
    "a file beside the folder": ("open('../shared.csv')", "../shared.csv"),
    "a shell's file": ("%%bash\ncat table.csv | wc", "table.csv"),
    "files by a pattern": ("import glob\nglob.glob('data/*.csv')", "data/x y.csv"), "new files by a pattern": ("from glob import glob\nglob('data/*.csv')", "data/new.csv"),
    "files of any kind by a pattern": ("import glob\nglob.glob('data/*')", "data/more.txt"), "files beside it by a pattern": ("import glob\nglob.glob('*.csv')", "table.csv"),
}


@pytest.fixture
def beside_it(tmp_path):
    "A folder with modules and files in it."
    files = {"helper.py": "import deep\nNAME = 'named.txt'", "deep.py": "x = 1", "pkg/__init__.py": "", "pkg/sub.py": "from . import near\nfrom .. import no\nthing = 1", "pkg/near.py": "",
             "../src/far.py": "", "bare/inner.py": "", "table.csv": "1", "named.txt": "1", "data/x y.csv": "1", "../shared.csv": "1", "broken.py": "x = (", "other.py": "", "data/.hidden": "1"}
    for name, text in files.items():
        path = tmp_path / "nbs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "nbs"


@pytest.mark.parametrize("source, file", IMPORTS.values(), ids=IMPORTS)
def test_what_is_beside_a_notebook_counts_if_it_names_it(make, beside_it, source, file):
    nb = read_notebook(make("nbs/a", source, "import broken, json, numpy, no_such, coursekit", "open('/etc/hostname')\n'.', '..', 'a' * 300, 'x\\0y', ''", "not python at all"))
    look = lambda: beside(nb, beside_it, beside_it / "report")
    before = look()
    assert look() == before and not [f for f in before if "site-packages" in f or f.startswith("/") or "other" in f or f.endswith(".ipynb")] and "broken.py" in before
    (beside_it / "other.py").write_text("changed")
    (beside_it / "data" / ".hidden").write_text("changed")
    assert look() == before
    (beside_it / file).write_text("changed = 1")
    assert look() != before


@pytest.mark.slow
def test_changed_runs_what_reads_an_edited_file(make, tmp_path):
    (tmp_path / "helper.py").write_text("x = 1")
    (tmp_path / "report").mkdir()
    a, b = make("a", "import helper\nhelper.x"), make("b", "open('table.csv', 'w').write('1')\n'report'")
    data = {"cwd": tmp_path, "env": {"COURSEKIT_DATA": str(tmp_path / "data")}}
    again = lambda: {n: r["kept_from"] != "" for n, r in (command("run", a, b, "--changed", **data), report(tmp_path / "report"))[1].items()}
    assert again() == {"a": False, "b": False} and again() == {"a": True, "b": False}  # b has made a file that it names
    assert again() == {"a": True, "b": True}
    (tmp_path / "helper.py").write_text("x = 2")
    assert again() == {"a": False, "b": True}
    for name in ".CIFAR-10.lock", "cifar.lock", "cifar.tar.gz.part", ".DS_Store":
        (tmp_path / "data" / name).write_text("")
    assert again() == {"a": True, "b": True}  # a fetch that failed leaves no data
    (tmp_path / "data" / "x.png").write_text("")
    assert again() == {"a": False, "b": False}


def test_a_module_that_is_installed_to_be_worked_on_counts(make, tmp_path, monkeypatch):
    (tmp_path / "work" / "mine").mkdir(parents=True)
    (tmp_path / "work" / "mine" / "__init__.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    nb = read_notebook(make("nbs/a", "import mine, random, pandas"))
    before = beside(nb, tmp_path / "nbs", tmp_path / "out")
    assert list(before) == ["../work/mine/__init__.py"]
    (tmp_path / "work" / "mine" / "__init__.py").write_text("x = 2")
    assert beside(nb, tmp_path / "nbs", tmp_path / "out") != before


def test_changed_keeps_the_results_of_notebooks_that_are_not_asked_for(make, tmp_path):
    a, b, out = make("a", "print(1)"), make("b", "print(2)"), tmp_path / "out"
    command("run", a, b, "--out", out)
    make("a", "print(3)")
    done = command("run", a, "--changed", "--out", out)
    got = report(out)
    assert "1 of 1 passed" in done.stdout and not got["a"]["kept_from"] and got["b"]["kept_from"] and (out / "b.ipynb").exists()
    assert command("run", a, b, "--changed", "--out", out).stdout.count("(kept: unchanged)") == 2
    command("run", a, "--out", out)
    assert set(report(out)) == {"a"} and not (out / "b.ipynb").exists()


def test_the_package_and_versions_are_in_the_fingerprint(tmp_path, monkeypatch):
    import shutil

    import coursekit
    from coursekit import course
    shutil.copytree(Path(coursekit.__file__).parent, tmp_path / "coursekit")
    before = course.surroundings(tmp_path / "none", machine())
    monkeypatch.setattr(coursekit, "__file__", str(tmp_path / "coursekit" / "__init__.py"))
    assert course.surroundings(tmp_path / "none", machine()) == before
    (tmp_path / "coursekit" / "text.py").open("a").write("\n")
    assert course.surroundings(tmp_path / "none", machine()) != before
    monkeypatch.undo()
    assert course.surroundings(tmp_path / "none", {**machine(), "torch": "0.1"}) != before


@pytest.mark.slow
def test_a_second_run_in_one_folder_at_the_same_time_is_turned_away(make, tmp_path):
    out, path = tmp_path / "out", make("a", "import time\ntime.sleep(8)")
    first = subprocess.Popen([Path(sys.executable).with_name("coursekit"), "run", path, "--out", out], stdout=subprocess.PIPE, text=True)
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
    assert {p.name for p in out.iterdir() if p.name != ".lock"} == {"b.ipynb", "b.ipynb.html", "mine.ipynb", "index.html", "report.json"}


def test_a_disk_that_fills_while_the_page_is_written_loses_no_result(make, tmp_path, monkeypatch):
    from coursekit import report as page

    def full(*args):
        raise CourseError("No space is left on the disk")
    monkeypatch.setattr("coursekit.course.write_page", full)
    with pytest.raises(CourseError, match="No space"):
        run_notebooks([make("a", "print(1)")], out=tmp_path / "out")
    assert report(tmp_path / "out")["a"]["status"] == "passed" and (tmp_path / "out" / "a.ipynb").exists()
    monkeypatch.setattr("coursekit.course.write_page", page.write_page)
    run_notebooks([tmp_path / "a.ipynb"], out=tmp_path / "out", changed=True)
    assert report(tmp_path / "out")["a"]["kept_from"] and (tmp_path / "out" / "index.html").exists()


def test_a_notebook_that_can_not_be_written_has_failed_and_the_report_knows_its_results(make, tmp_path, monkeypatch):
    good, path = make("good", "x = 1"), make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\nshow_table(pd.DataFrame({'x': [7]}), 't')")

    @contextlib.contextmanager
    def full(path, setting=""):
        if path.name == "a.ipynb":
            raise CourseError("No space is left on the disk of out: free some, or choose another folder with --out.")
        with atomic_path(path, setting) as part:
            yield part
    monkeypatch.setattr("coursekit.course.atomic_path", full)
    run_notebooks([path, good], out=tmp_path / "out")
    got = report(tmp_path / "out")
    assert got["good"]["status"] == "passed" and got["a"]["reason"].startswith("it ran, but could not be written: No space is left")
    assert got["a"]["tables"][0]["data"] == [[7]] and got["a"]["executed"] == ""


# Order, and the GPU

@pytest.mark.slow
def test_the_longest_starts_first(make, tmp_path):
    a, b, out = make("a", "x = 1"), make("b", "import time\ntime.sleep(3)"), tmp_path / "out"
    assert command("run", a, b, "--jobs", 1, "--out", out).stdout.index("  a  ") < command("run", a, b, "--jobs", 1, "--out", out).stdout.index("  a  ")
    assert report(out)["b"]["seconds"] > report(out)["a"]["seconds"]


@pytest.mark.parametrize("given, jobs, expected", [
    (None, None, ["0", "1"]), (None, 3, ["0", "1", "0"]), ("1", None, ["1"]), ("", None, [None] * n_cores()), ("-1", 1, [None])])
def test_a_gpu_is_used_by_one_notebook_at_a_time(tmp_path, monkeypatch, given, jobs, expected):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho Tesla T4\necho Tesla T4\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    slots = _slots(jobs, 7)
    got = [slots.get() for _ in range(slots.qsize())]
    assert [s.get("CUDA_VISIBLE_DEVICES") for s in got] == expected
    assert {s["OMP_NUM_THREADS"] for s in got} == {str(max(1, n_cores() // len(expected)))}


# Against an earlier run

RESULT = ("import pandas as pd\nfrom coursekit.workspace import show_table\n"
          "show_table(pd.DataFrame({'run': ['vgg'], 'recipe': ['SGD'], 'data': ['CIFAR-10'], 'scale': ['full'], 'test_accuracy': [lr], 'std': [0.01], "
          "'n': [3], 'reference': [REFERENCE]}), 'Results')")


@pytest.mark.parametrize("reference, then, now, verdict", [
    ("0.73 (a brief)", 0.74, 0.70, "left its reference"), slow("0.73 (a brief)", 0.74, 0.72, "agrees"), slow("0.73 (a brief)", 0.5, 0.7, "does not agree"),
    slow("at least 0.95 (a paper)", 0.96, 0.94, "left its reference"), slow("0.73 (a brief); different recipe", 0.5, 0.53, "moved"),
    slow("0.73 (a brief); different recipe", 0.5, 0.515, None), slow("", 0.5, 0.4, "moved")])
def test_a_result_that_left_its_reference_is_marked(make, tmp_path, reference, then, now, verdict):
    out, path = tmp_path / "out", make("a", f"REFERENCE = {reference!r}", RESULT)
    command("run", path, "-p", f"lr={then}", "--out", out)
    assert command("run", path, "-p", f"lr={now}", "--out", tmp_path / "new", "--against", out).returncode == 0
    judged, page = json.loads((tmp_path / "new" / "report.json").read_text())["judged"], (tmp_path / "new" / "index.html").read_text()
    assert [j["verdict"] for j in judged] == ([verdict] if verdict else [])
    assert not verdict or judged[0]["before"] == then and judged[0]["value"] == now and f">{verdict}</td>" in page


def test_the_ledger_writes_references_as_the_report_reads_them():
    known = references()["DD2424 baseline"]
    for recipe, scale, expected in (known["recipe"], "full", True), (known["recipe"], "quick", None), ("another", "full", None):
        assert agrees(known["value"] + 0.01, 0.01, _beside(known, "test_accuracy", recipe, scale, {})) is expected


@pytest.mark.slow
def test_what_got_slower_by_half_is_marked(make, tmp_path):
    out, path, other = tmp_path / "out", make("a", "import time\ntime.sleep(lr)"), make("b", "1/0")
    command("run", path, other, "-p", "lr=0.1", "--out", out)
    last = json.loads((out / "report.json").read_text())
    for n in last["notebooks"]:
        n["seconds"], n["parameters"] = 0.5, {"lr": 2.0}
    for name, cpu, slower in ("same", last["machine"]["CPU"], True), ("other", "abacus", False):
        (tmp_path / name).write_text(json.dumps({**last, "machine": {**last["machine"], "CPU": cpu}}))
        assert command("run", path, other, "-p", "lr=2.0", "--out", out, "--against", tmp_path / name).returncode == 1
        got, page = report(out), (out / "index.html").read_text()
        assert got["a"]["last"] == {"status": "passed", "seconds": 0.5, "slower": slower} and not got["b"]["last"]["slower"]
        assert (">slower, ×" in page) == slower and ("on other hardware" in page) != slower


@pytest.mark.parametrize("text", ["", "[]", '{"notebooks": 3}', '{"notebooks": [], "started": 1}'])
def test_a_report_that_is_none_is_a_sentence(make, tmp_path, text):
    (tmp_path / "last.json").write_text(text)
    done = command("run", make("a", "x = 1"), "--against", tmp_path / "last.json", "--out", tmp_path / "out")
    assert done.returncode == 2 and "last.json is no report of a run" in done.stderr and not started(tmp_path)


@pytest.mark.parametrize("name, text", [("report.json", "{}"), ("report.json", '{"notebooks'), ("index.html", "<title>my page</title>")])
def test_a_folder_that_holds_a_persons_own_page_or_report_is_left_alone(make, tmp_path, name, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    done = command("run", make("a", "x = 1"), "--out", tmp_path / "out")
    assert done.returncode == 2 and f"would write over {tmp_path / 'out' / name}" in done.stderr and (tmp_path / "out" / name).read_text() == text


def test_a_notebook_that_plain_papermill_made_is_left_alone(make, tmp_path):
    path, mine = make("a", "x = 1"), tmp_path / "out" / "a.ipynb"
    mine.parent.mkdir()
    subprocess.run([sys.executable, "-m", "papermill", path, mine, "-p", "n", "5"], check=True, capture_output=True)
    before = mine.read_bytes()
    assert command("run", path, "--out", tmp_path / "out").returncode == 2 and mine.read_bytes() == before


@pytest.mark.slow
def test_a_report_of_an_earlier_version_is_taken_for_what_it_says(make, tmp_path):
    out, path = tmp_path / "out", make("a", "x = 1")
    command("run", path, "--out", out)
    old = json.loads((out / "report.json").read_text())
    for n in old["notebooks"]:
        del n["fingerprint"], n["kept_from"]
        n["tables"] = [{"title": "no columns", "data": [[1]]}]
    (out / "report.json").write_text(json.dumps(old))
    assert command("run", path, "--changed", "--out", out).returncode == 0 and report(out)["a"]["kept_from"] == ""

@pytest.mark.slow
def test_looks_at_the_test_set_are_counted(make, tmp_path):
    look = "from types import SimpleNamespace as S\nfrom coursekit.ledger import look\nfrom coursekit.workspace import setup\n" \
           "ws = setup('tiny')\nlook(ws, S(fingerprint='f', title='CIFAR-10 <b>'), 'try')"
    path, runs = make("a", look), {"env": {"COURSEKIT_RUNS": str(tmp_path / "runs")}}
    for _ in range(2):
        assert command("run", path, "--out", tmp_path / "out", **runs).returncode == 0
        time.sleep(1)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["looks"][0].items() >= {"data": "CIFAR-10 <b>", "fingerprint": "f", "looks": 2, "in this run": 1}.items()
    assert "CIFAR-10 &lt;b&gt;" in (tmp_path / "out" / "index.html").read_text()


def test_a_long_output_is_cut_in_the_report(make, tmp_path):
    command("run", make("a", "print('y' * 10**6)\nraise ValueError('z' * 10**6)"), "--out", tmp_path / "out")
    got = report(tmp_path / "out")["a"]
    assert len(got["reason"]) < 400 and len(got["error"]["printed"]) < 5000 and len(got["error"]["traceback"]) < 21_000
    assert (tmp_path / "out" / "index.html").stat().st_size < 1e5


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


@pytest.mark.parametrize("options", [(), ("--scale", "tiny")])
def test_inplace_on_a_notebook_that_papermill_wrote(make, tmp_path, options):
    path, source = tmp_path / "mine.ipynb", make("a", "print(scale)")
    subprocess.run([sys.executable, "-m", "papermill", source, path, "-p", "scale", "full"], check=True, capture_output=True)
    done = command("run", path, *options, "--inplace", "--out", tmp_path / "out")
    assert done.returncode == 0 and "edited" not in done.stderr
    after = nbformat.read(path, 4)
    assert [c.metadata.get("tags") for c in after.cells[1:3]] == [["parameters"], ["injected-parameters"]] and "full" in after.cells[2].source
    assert after.cells[-1].outputs[0].text == ("tiny\n" if options else "full\n")


@pytest.mark.slow
def test_plain_papermill_runs_a_lesson(tmp_path):
    done = subprocess.run([sys.executable, "-m", "papermill", ROOT / "nbs/00_start.ipynb", tmp_path / "out.ipynb", "-p", "scale", "tiny"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_doctor_command():
    done = command("doctor")
    assert done.returncode == 0 and "torch" in done.stdout and "scale full" in done.stdout
