"The notebooks as they are committed: they run, are clean, export to the package, and their exercises can fail."
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from nbformat import NotebookNode
from wrong_answers import WRONG, reached

from coursekit.notebook import parameter_defaults, read_notebook
from coursekit.release import find_exercises, write_release

NOTEBOOKS = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"))
LESSONS = [p for p in NOTEBOOKS if p.parent.name == "nbs"]


def names(path):
    return path.relative_to(ROOT / "nbs").with_suffix("").as_posix()


def test_clean_and_export_leave_no_difference(tmp_path):
    for name in "nbs", "coursekit", "pyproject.toml", "settings.ini", "README.md":
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for tool in "nbdev-clean", "nbdev-export":
        subprocess.run([Path(sys.executable).with_name(tool)], cwd=tmp_path, check=True, capture_output=True)
    for path in [*NOTEBOOKS, *(ROOT / "coursekit").glob("*.py"), ROOT / "pyproject.toml"]:
        copy = tmp_path / path.relative_to(ROOT)
        assert copy.read_text() == path.read_text(), f"{path.name}: run make export"
    modules = lambda root: {p.name for p in (root / "coursekit").glob("*.py")}
    assert modules(tmp_path) == modules(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_a_committed_notebook(path):
    nb = read_notebook(path)
    assert parameter_defaults(nb)["scale"] == "quick"
    assert None not in parameter_defaults(nb).values(), "the parameters are plain literals"
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert any(c.outputs for c in code), "no output is committed: make refresh"
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    shows = [c for c in code if re.search(r"^(show_table|plt.show)\(", c.source, re.M)]
    assert not [c.source for c in shows if not c.outputs], "a cell was edited and not run: make refresh"
    assert not [c.source for c in code if _shows(c.source) and not c.outputs], "a cell that shows a value was not run"
    assert "widgets" not in nb.metadata
    assert not [c for c in code if "injected-parameters" in c.metadata.get("tags", [])]
    assert not [o for c in code for o in c.outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert path.stat().st_size < 1.5e6
    outputs = str([c.outputs for c in code])
    assert not re.search(r"/(root|work|tmp|home)/", outputs), "a path of somebody's machine is in the notebook"


def _shows(source):
    "Whether a cell ends in a value that is no widget, which leaves none behind."
    if re.search(r"^#\||_(game|picker|widget)\(|^\s*[%!]", source, re.M):
        return False
    last = ast.parse(source).body[-1:]
    return bool(last) and isinstance(last[0], ast.Expr) and \
        isinstance(last[0].value, (ast.Name, ast.Tuple, ast.JoinedStr, ast.Subscript))


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_a_committed_lesson_is_on_real_data(path):
    outputs = [str(o) for c in read_notebook(path).cells if c.cell_type == "code" for o in c.outputs]
    assert not any("stand-in for" in o or "not found; scale tiny" in o for o in outputs)
    assert any("image/png" in o or "image/jpeg" in o for o in outputs)


# Exercises: the solution passes, a blank answer and the wrong ones do not.
@pytest.fixture(scope="module")
def students(tmp_path_factory):
    "The lessons as students get them."
    out = tmp_path_factory.mktemp("release") / "lessons"
    write_release(LESSONS, out, "me/my-course")
    return out


def each_exercise(path, students, ws):
    "(what it finds, exercise and check as a student gets them, solution, wrong answers) of each exercise."
    given, solved = (find_exercises(read_notebook(p), path.stem) for p in (students / path.name, path))
    assert [list(e) for e in given] == [["exercise", "check"]] * len(solved)
    assert [name_of(e["exercise"]) for e in given] == list(WRONG[path.stem]), "an exercise without wrong answers"
    space = reached(path.stem, ws)
    for e, own in zip(given, solved):
        yield space, e["exercise"], e["check"], own["solution"], WRONG[path.stem][name_of(e["exercise"])]


def name_of(exercise):
    "The name of the function that an exercise asks for."
    return re.search(r"^def (\w+)", exercise.source, re.M)[1]


def prove(space, exercise, check, solution, wrong):
    "The check calls the solution right, and neither the blank answer nor a wrong one."
    space = dict(space)
    blank = name_of(exercise)
    for cell in exercise, check:
        exec(cell.source, space)
    exec(solution.source, solved := dict(space))
    assert space["check"](solved["solution"]) == "right" and len(wrong) >= 2
    for answer in space[blank], *wrong:
        assert space["check"](answer).startswith("not yet: "), f"a wrong answer to {blank} passed"


def weakened(check):
    "The text of a check that always says right, and of one without each of its complaints."
    yield 'def check(answer):\n    return "right"'
    lines = check.splitlines()
    for node in ast.walk(ast.parse(check)):
        if isinstance(node, ast.Return) and "not yet" in (said := ast.unparse(node)):
            instead = 'return "right"' if "'right'" in said else "pass"
            before = lines[node.lineno - 1].encode()[:node.col_offset].decode()  # the tree counts bytes
            yield "\n".join([*lines[:node.lineno - 1], before + instead, *lines[node.end_lineno:]])


def test_complaints_over_several_lines_are_weakened():
    check = ("def check(é):\n    if é: return f'not yet: {é}'\n    if not é:\n        return ('not yet, '\n"
             "                'nor soon')\n    return 'right' if é is None else \\\n        'not yet'\n\nprint(check)")
    always, *others = weakened(check)
    assert len(others) == 3 and "not yet" not in always
    for source in others:
        compile(source, "check", "exec")
        assert source.count("not yet") == 2 and source.startswith("def check") and source.endswith("print(check)")


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_the_checks_of_exercises_can_fail(path, ws, students):
    for exercise in each_exercise(path, students, ws):
        prove(*exercise)


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_a_weakened_check_is_noticed(path, ws, students):
    for space, exercise, check, solution, wrong in each_exercise(path, students, ws):
        for source in weakened(check.source):
            compile(source, path.name, "exec")
            # the proof fails, or the check itself does on what it no longer refuses
            with pytest.raises(Exception):  # noqa: B017
                prove(space, exercise, NotebookNode(source=source), solution, wrong)
                pytest.fail(f"not noticed:\n{source}")


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_no_exercise_hides_under_another_tag(path):
    for cell in read_notebook(path).cells:
        tags = cell.metadata.get("tags", [])
        assert set(tags) <= {"parameters", "exercise", "check", "solution"} and len(tags) <= 1
        if cell.cell_type == "code" and tags != ["check"]:
            assert "not yet" not in cell.source, "a check without its tag"
        if cell.cell_type == "code" and tags != ["exercise"]:
            assert not re.search(r"^\s*\.\.\.", cell.source, re.M), "a blank without its tag"
