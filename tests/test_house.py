"""The house: who may import whom, how long a cell, a module and a function may be, which file tests which module, and
comments where tools that read docments find them."""
import ast
import importlib
import inspect
import io
import re
import token
import tokenize

import pytest
from conftest import ROOT
from fastcore.docments import docments

from coursekit.notebook import read_notebook

LESSONS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
KIT = sorted((ROOT / "nbs" / "kit").glob("[0-9][0-9]_*.ipynb"))
MODULES = sorted(p for p in (ROOT / "coursekit").glob("*.py") if p.stem not in ("__init__", "_modidx"))


def cases(paths):
    "A case for each notebook or module."
    return [pytest.param(p, id=name(p)) for p in paths]


def name(path):
    "A notebook's path in nbs, or a module's name."
    return path.stem if path.suffix == ".py" else path.relative_to(ROOT / "nbs").with_suffix("").as_posix()


def source_of(cell):
    "A cell's code without what is IPython's."
    return re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.M)


def code(path):
    "The sources of the code cells of a notebook."
    return [source_of(c) for c in read_notebook(path).cells if c.cell_type == "code"]


def module(path):
    "The module that a notebook makes, or None."
    found = re.search(r"^#\|\s*default_exp\s+(\w+)", "\n".join(code(path)), re.M)
    return found and found[1]


def imported(source):
    "The modules of coursekit that code imports, inside functions too."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "coursekit":
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coursekit."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("coursekit."))


def all_imported(path):
    return {m for source in code(path) for m in imported(source)}


OF_LESSONS = {module(p) for p in LESSONS} - {None}


@pytest.mark.parametrize("source, modules", [
    ("from coursekit.data import a", ["data"]), ("from coursekit import text, data", ["text", "data"]),
    ("import coursekit.ledger as l, os", ["ledger"]),
    ("def f():\n    from coursekit.fetch import x", ["fetch"]), ("import numpy\nfrom pathlib import Path\nimport "
                                                                 "coursekit", [])])
def test_the_checker_sees_imports(source, modules):
    assert list(imported(source)) == modules


@pytest.mark.parametrize("path", cases(LESSONS))
def test_no_lesson_imports_another(path):
    assert all_imported(path) & OF_LESSONS <= {module(path)}


@pytest.mark.parametrize("lesson, names", [
    ("data", "Splits audit class_counts contact_sheet dataset_picker ridge_classifier image_folder image_table "
             "imbalance_ratio wilson_interval learning_curve make_split extrapolate_learning_curve near_duplicates "
             "pair_sheet split_names patch_features resolution_game resolution_score resolution_sheet "
             "center_crop_all suggest_split"),
    ("baseline", "simple_baselines evaluate_test history plot_top_losses calibration_curve train_baseline vgg"),
    ("ablate", "TrainAccuracy ablate augmentations config_diff plot_curves plot_dots plot_networks plot_gaps "
               "evaluate_test_once network plot_comparison schedule count_params_flops train_variant summarize"),
    ("functions", "fit_function fit_starts lorenz96 mlp neuron_sensitivity write_submission")])
def test_what_students_import_from_a_lesson_is_there(lesson, names):
    there = importlib.import_module(f"coursekit.{lesson}")
    assert set(names.split()) <= set(there.__all__) and all(hasattr(there, n) for n in there.__all__)


@pytest.mark.parametrize("path", cases(KIT))
def test_the_kit_imports_no_lesson(path):
    assert not all_imported(path) & OF_LESSONS


@pytest.mark.parametrize("path", cases(KIT))
def test_the_kit_is_numbered_in_the_order_of_dependence(path):
    earlier = {module(p) for p in KIT if p.name[:2] < path.name[:2]}
    assert all_imported(path) - OF_LESSONS <= earlier | {module(path)}
    assert [p.name[:2] for p in KIT].count(path.name[:2]) == 1, "two notebooks of one number"


@pytest.mark.parametrize("path", cases(LESSONS + KIT))
def test_no_cell_is_over_60_lines(path):
    assert not [f"{len(source.splitlines())} lines: {source[:60]!r}" for source in code(path)
                if len(source.splitlines()) > 60]


@pytest.mark.parametrize("path", cases(MODULES))
def test_no_module_is_over_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def long_functions(source):
    """Functions of more than 30 lines of code (signature, docstring and blank lines not counted) that have no
    comment '# long because'."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[ast.get_docstring(node) is not None:]
            inside = lines[body[0].lineno - 1:node.end_lineno] if body else []
            n = sum(bool(line.strip()) for line in inside)
            if n > 30 and "# long because" not in "\n".join(lines[max(0, node.lineno - 2):node.end_lineno]):
                yield f"{node.name}: {n} lines"


@pytest.mark.parametrize("path", cases(MODULES))
def test_no_function_is_over_30_lines_without_a_reason(path):
    assert not list(long_functions(path.read_text()))


def test_a_long_function_is_seen_and_a_reason_counts():
    body = "\n".join(f"    x = {i}\n" for i in range(31))
    assert list(long_functions(f'def f(a,\n      b):\n    "What."\n{body}')) == ["f: 31 lines"]
    assert not list(long_functions(f'# long because of the sea\ndef f():\n{body}')) \
        and not list(long_functions(f"def f():\n    # long because of the sea\n{body}"))
    assert not list(long_functions('def f(a,\n      b):\n    "What."\n' + body.replace("    x = 3\n", "", 1)))


# Tests

BESIDE = {"house", "notebooks", "package", "readme", "site"}  # what no single module is to blame for


def test_each_module_has_a_file_of_tests_with_its_name():
    files = {p.stem.removeprefix("test_") for p in (ROOT / "tests").glob("test_*.py")}
    assert files == {p.stem for p in MODULES} | BESIDE


# Comments beside parameters and returns

def headers(source):
    "{line of a `def`: (name, whether it has ->, the comment behind its colon or '')}."
    found, tokens = {}, tokenize.generate_tokens(io.StringIO(source).readline)
    for t in tokens:
        if t.type == token.NAME and t.string == "def":
            line, name, depth, arrow = t.start[0], next(tokens).string, 0, False
            for t in tokens:
                depth += (t.string in "([{") - (t.string in ")]}") if t.type == token.OP else 0
                arrow |= t.string == "->" and not depth
                if t.string == ":" and not depth:
                    break
            after = next(tokens)
            found[line] = name, arrow, after.string.lstrip("# ") if after.type == token.COMMENT else ""
    return found


def misplaced(source):
    "The functions whose comment stands behind `):`, where it is the last parameter's."
    return [name for name, arrow, comment in headers(source).values() if comment and not arrow]


def public(module):
    "The functions of `__all__`, and the public methods of its classes, that the module defines itself."
    own = [x for x in (getattr(module, name) for name in module.__all__) if getattr(x, "__module__", "")
           == module.__name__]
    classes = [x for x in own if inspect.isclass(x)]
    methods = [f for c in classes for name, f in vars(c).items() if inspect.isfunction(f)
               and (name == "__init__" or not name.startswith("_"))]
    return [f for f in (inspect.unwrap(x) for x in own if callable(x) and x not in classes)
            if inspect.isfunction(f)] + [
        f for f in methods if f.__code__.co_filename == module.__file__]  # a dataclass makes its own


@pytest.mark.parametrize("source, names", [
    ("def f(a, # one\n     ): # what comes back\n    pass", ["f"]), ("def f(a): # what", ["f"]),
    ("class A:\n    def f(self): # what\n        pass", ["f"]),
    ("def f(a={1: 2}, # one\n     ) -> dict[str, int]: # what\n    pass", []), ("def f(a) -> 'x: y': # what", []),
    ("def f(a # one\n     ):\n    # what\n    pass", []),
    ("def f(a: (lambda: 1)): # what", ["f"])])
def test_the_checker_tells_a_return_from_a_parameter(source, names):
    assert misplaced(source if source.endswith("pass") else source + "\n    pass") == names


@pytest.mark.parametrize("path", cases(MODULES))
def test_no_comment_stands_behind_a_bracket_without_a_type(path):
    assert misplaced(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", cases(MODULES))
def test_docments_has_a_comment_where_it_belongs(path):
    said = headers(path.read_text(encoding="utf-8"))
    for f in public(importlib.import_module(f"coursekit.{path.stem}")):
        ours = said[next(line for line in range(f.__code__.co_firstlineno, f.__code__.co_firstlineno + 9)
                         if line in said)][2]
        read = dict(docments(f, returns=True))
        back = read.pop("return", None)
        assert (back or "") == ours and not (ours and ours in read.values()), (f"{f.__qualname__}: docments reads "
                                                                               f"{back!r} as what comes back")


def test_what_the_comments_say_of_parameters_and_returns():
    from coursekit import data, fetch, stats
    assert docments(fetch.fetch, returns=True)["return"] == "the folder, or the file of a single text"
    assert dict(docments(data.wilson_interval, returns=True)) == {"right": "how many of n were right", "n": None,
                                                                  "return": "low and high end, shares of 1"}
    assert dict(docments(data.resolution_score, returns=True)) == {"answers": "[(size, label, answer)]",
                                                                   "return": "a row a size"}
    assert docments(stats.ci_half_width, returns=True)["return"] == "not a number under three runs, or five folds" \
        and stats.ci_half_width.__annotations__ == {"return": float}
