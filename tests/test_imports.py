"The house: who may import whom, and how long a cell, a module and a function may be."
import ast
import importlib
import re

import pytest
from conftest import ROOT

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
    ("functions", "fit_function mlp write_submission")])
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
