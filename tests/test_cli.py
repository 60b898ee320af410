"The command line as a person meets it: wrong commands, parameters, which notebooks."
import json
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, command, report, slow

from coursekit.cli import _type_in_words, parse_parameters
from coursekit.course import run_notebooks
from coursekit.files import CourseError
from coursekit.notebook import parameter_defaults, read_notebook
from coursekit.report import Limits
from coursekit.workspace import sources


def started(tmp_path):
    "Whether any notebook was executed."
    return list((tmp_path / "out").rglob("*.ipynb"))


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


def test_of_two_parameters_cells_the_first_counts_as_in_papermill(make, tmp_path):
    path = make("a", "n = 4", "assert (n, lr) == (4, 7)")
    nb = nbformat.read(path, 4)
    nb.cells[2].metadata.tags = ["parameters"]
    nbformat.write(nb, path)
    assert parameter_defaults(read_notebook(path))["lr"] == 0.1
    assert command("run", path, "-p", "lr=7", "-p", "n=9", "--out", tmp_path / "out").returncode == 0


def test_a_notebook_without_parameters_runs_as_it_is(make, tmp_path):
    plain = make("plain", "assert 'scale' not in globals()", parameters=None)
    odd, tagged = make("odd", "n", parameters="import os\nn = 2**10"), make("tagged", "assert scale == 'tiny'")
    assert command("run", plain, odd, tagged, "--scale", "tiny", "--out", tmp_path / "out").returncode == 0
    got = report(tmp_path / "out")
    assert {n: r["parameters"] for n, r in got.items()} == {"plain": {}, "odd": {}, "tagged": {"scale": "tiny"}}
    assert {n: r["note"] for n, r in got.items()} == {"plain": "no parameters", "odd": "", "tagged": ""}
    done = command("run", plain, "--scale", "tiny", "--out", tmp_path / "other")
    assert done.returncode == 2
    assert "no notebook here has a parameter 'scale': tag the cell that sets it 'parameters'" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("line", ["m = n * 2", "steps: int = [n, n]", "config['n'] = n", "m = [x for x in range(n)]",
                                  "import random; random.seed(n)", "if n > 1: many = True"])
def test_what_the_parameters_cell_computes_from_a_parameter_is_not_left_as_it_was(make, tmp_path, line):
    path = make("a", "x = 1", parameters=f"n = 2\nconfig = {{}}\n{line}\nprint(n)")
    done = command("run", path, "-p", "n=5", "--out", tmp_path / "out")
    assert done.returncode == 2 and "The parameters cell of a uses n in " in done.stderr
    assert "move that line to a later cell" in done.stderr and not started(tmp_path)
    if "m =" in line:
        # what is given itself is no old value
        assert command("run", path, "-p", "n=5", "-p", "m=10", "--out", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("line", ["f = lambda: n", "def f(): return n", "assert n > 0", "n", "display(n)",
                                  "n: int = n"])
def test_what_the_parameters_cell_only_shows_or_reads_later_is_no_hindrance(make, tmp_path, line):
    path = make("a", "assert n == 5", parameters=f"n = 2\n{line}")
    done = command("run", path, "-p", "n=5", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Python", "python3", "ipython", ["python"], 3])
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
    assert done.returncode == 2 and "is not worked out here: give the number itself" in done.stderr
    assert not started(tmp_path)
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


def test_another_language_is_left_to_papermill(make, tmp_path):
    "The kernel is Python's here, and says that it is R: what papermill writes for R says TRUE."
    kernel = tmp_path / "jupyter" / "kernels" / "like-r"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "R", "language": "R"}))
    path = make("a", "assert on == 'as R has it' and n == 5", parameters="TRUE = 'as R has it'\non = 0\nn = 3",
                kernel="like-r")
    path.write_text(path.read_text().replace('"language": "python"', '"language": "R"'))
    done = command("run", path, "-p", "on=true", "-p", "n=5", "--out", tmp_path / "out",
                   env={"JUPYTER_PATH": str(tmp_path / "jupyter")})
    assert done.returncode == 0, done.stdout + done.stderr


VALUES = ["(16, 32)", "()", "[(1, 2), [3]]", "{1: 'a', 2: (None, True)}", "None", "-1e-3", "'a\"b\\\\c\\n'"]


def test_values_arrive_as_they_were_given(make, tmp_path):
    path = make("a", *(f"assert v{i} == {v}, v{i}" for i, v in enumerate(VALUES)),
                parameters="\n".join(f"v{i} = f()" for i in range(len(VALUES))).replace("f()", "str()"))
    given = [x for i, v in enumerate(VALUES) for x in ("-p", f"v{i}={v}")]
    done = command("run", path, *given, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report(tmp_path / "out")["a"]["parameters"]["v0"] == [16, 32]
    injected = nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells[2].source
    assert injected.splitlines()[1].replace(" ", "") == "v0=(16,32)"


@pytest.mark.parametrize("value", ["{1, 2}", "b'x'", "3j", "[1, {2}]", "{(1, 2): 3}", "1e999", "..."])
def test_a_value_that_no_report_can_hold_is_refused_before_anything_runs(make, tmp_path, value):
    done = command("run", make("a", parameters="n = str()"), "-p", f"n={value}", "--out", tmp_path / "out")
    assert done.returncode == 2 and "The parameter n can't be" in done.stderr and "Traceback" not in done.stderr
    assert not started(tmp_path)
    with pytest.raises(CourseError, match="The parameter n can't be"):
        run_notebooks([tmp_path / "a.ipynb"], {"n": {1, 2}}, out=tmp_path / "out")


def test_a_scale_of_another_kind_is_not_judged_as_ours():
    assert parse_parameters(["scale=2.5"], {"a": {"scale": 1.0}}) == {"scale": 2.5}
    assert parse_parameters(["scale={[1]}"], {"a": {"scale": "big"}}) == {"scale": "{[1]}"}
    with pytest.raises(CourseError, match="choose 'tiny'"):
        parse_parameters(["scale=2x"], {"a": {"scale": "quick"}, "b": {"scale": "big"}})


def test_notebooks_are_skipped_by_pattern(make, tmp_path):
    paths = [make("a"), make("old/a"), make("old/b"), make("05_draft"), make("05_text")]
    done = command("run", *paths, "--skip", "old/*", "--skip", "05_d*", "--skip", "nothing", "--out",
                   tmp_path / "out")
    assert done.returncode == 0 and "2 of 2 passed, 3 skipped" in done.stdout
    assert set(report(tmp_path / "out")) == {"a", "05_text"}
    done = command("run", *paths, "--skip", "*", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--skip leaves nothing to run" in done.stderr
    assert set(report(tmp_path / "out")) == {"a", "05_text"}
    done = command("run", *paths, "--skip", "05_text.ipynb", "--skip", "", "--skip", "old/[ab]", "--out",
                   tmp_path / "out")
    assert "2 of 2 passed, 3 skipped" in done.stdout and set(report(tmp_path / "out")) == {"a", "05_draft"}


def test_literals_are_read_as_python_and_as_yaml_would():
    known = {"a": {"scale": "quick", "word": "x", "lr": 0.1, "n": 3, "on": False, "what": None, "sizes": [1]}}
    got = parse_parameters(["scale=tiny", "lr=1e-3", "n=-2", "on=true", "what=3", "sizes=[1, 2]"], known)
    assert got == {"scale": "tiny", "lr": 1e-3, "n": -2, "on": True, "what": 3, "sizes": [1, 2]}
    assert parse_parameters(["lr=1", "word='3'"], known) == {"lr": 1, "word": "3"}
    assert _type_in_words([1]) == "a list"


def test_no_lessons_here(tmp_path):
    done = command("run", cwd=tmp_path)
    assert done.returncode == 2 and "There are no lessons here" in done.stderr


def test_notebooks_of_one_name_have_their_own_parameters(make, tmp_path):
    a, b = make("k/x", parameters='scale = "quick"'), make("k/l/x", "assert n == 5")
    assert command("run", a, b, "-p", "n=5", "--out", tmp_path / "out").returncode == 0


def test_the_parameters_of_one_notebook_are_not_given_to_another(make, tmp_path):
    a = make("a", "assert n == 7")
    b = make("b", "assert 'n' not in globals()", parameters='scale = "quick"')
    assert command("run", a, b, "-p", "n=7", "--out", tmp_path / "out").returncode == 0


def test_a_cell_has_six_hours_unless_told_otherwise():
    assert Limits().cell_seconds == 6 * 3600
    assert "6 hours" in command("run", "--help").stdout


@pytest.mark.parametrize("text", ["", "[]", '{"notebooks": 3}', '{"notebooks": [], "started": 1}'])
def test_a_report_that_is_none_is_a_sentence(make, tmp_path, text):
    (tmp_path / "last.json").write_text(text)
    done = command("run", make("a", "x = 1"), "--against", tmp_path / "last.json", "--out", tmp_path / "out")
    assert done.returncode == 2 and "last.json is no report of a run" in done.stderr and not started(tmp_path)


def test_doctor_command():
    done = command("doctor")
    assert done.returncode == 0 and "torch" in done.stdout and "scale full" in done.stdout


def test_the_commands_and_the_import_is_light():
    done = command("--help")
    assert done.returncode == 0 and all(name in done.stdout for name in ("run", "merge", "doctor", "data", "release"))
    code = "import sys, coursekit.cli; print({'torch', 'pandas', 'papermill', 'nbformat'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout == "set()\n"


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    name, archive = "tiny Shakespeare", sources()["tiny Shakespeare"]["archives"][0]
    listed = command("data", "list", "--task", "text")
    assert listed.returncode == 0 and "tiny Shakespeare" in listed.stdout and "ImageNet" not in listed.stdout
    wrong = command("data", "list", "--task", "cooking")
    assert wrong.returncode == 2 and "There is no task 'cooking'" in wrong.stderr and "Traceback" not in wrong.stderr
    assert "did you mean 'CIFAR-10'" in command("data", "fetch", "CIFAR10").stderr
    assert "CelebA" in command("data", "list", "--task", "Faces").stdout
    both = command("data", "fetch", name, "nonsense")
    assert both.returncode == 2 and "no dataset 'nonsense'" in both.stderr \
        and "fetched" not in both.stdout + both.stderr
    none = command("data", "check")
    assert none.returncode == 1 and "No dataset is here yet" in none.stdout
    absent = command("data", "check", name)
    assert absent.returncode == 1 and f"coursekit data fetch '{name}'" in absent.stdout
    text = tmp_path / "data" / archive["file"]
    text.parent.mkdir(parents=True)
    text.write_bytes(b"short")
    broken = command("data", "check")
    assert broken.returncode == 1 and "has other bytes than the recorded ones" in broken.stdout
