"The report, given whatever a notebook may hold."
import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coursekit.course import Result
from coursekit.report import compare, figure, machine, put_beside, read_notebook, read_report, record, span, write_json, write_page
from coursekit.workspace import TABLE, CourseError

ANY = st.text(st.characters(codec=None, exclude_categories=[]), max_size=20)  # halves of characters too
SCALARS = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | ANY
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)
COLUMNS = st.sampled_from(["run", "std", "reference", "accuracy", "recipe", "<b>"])
TABLES = st.fixed_dictionaries({"title": st.text(max_size=9) | JSON, "columns": st.lists(COLUMNS | JSON, max_size=5), "data": st.lists(st.lists(SCALARS, max_size=5) | JSON, max_size=3)})
MIMES = st.sampled_from([TABLE, "image/png", "image/jpeg", "text/html", "text/plain", "application/json"])
OUTPUTS = st.lists(st.dictionaries(MIMES, TABLES | JSON | st.text(), max_size=4), max_size=4)


def report_of(*records):
    "A report of these records."
    return {"started": "2026-01-31T09:00:00", "seconds": 1, "jobs": 1, "parameters": {}, "machine": machine(), "passed": 0, "looks": [], "notebooks": list(records)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OUTPUTS, ANY, ANY)
def test_no_output_of_a_notebook_spoils_the_report(tmp_path, outputs, name, value):
    shown = [nbformat.from_dict({"output_type": "display_data", "data": data, "metadata": {}}) for data in outputs]
    failed = nbformat.from_dict({"output_type": "error", "ename": name, "evalue": value, "traceback": value.splitlines()})
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("x")])
    nb.cells[1].outputs = [*shown, failed]
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="failed", reason=value, cell=2, nb=nb, cell_seconds={2: 1.0})
    (tmp_path / "a.ipynb").write_text(json.dumps(nb))
    now = report_of({**record(result), "executed": "a.ipynb"})
    now["judged"] = compare(now, now)
    write_json(put_beside(now, now), tmp_path)
    write_page(now, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<section") == page.count("</section>") and "<b>" not in page.replace("<p><b>", "") and "<script" not in page
    assert read_report(tmp_path)["notebooks"][0]["name"] == "a"


def test_a_json_file_that_is_no_notebook_is_a_sentence(tmp_path):
    for text in "{}", "[]", "3", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "\x00":
        (tmp_path / "a.ipynb").write_text(text)
        with pytest.raises(CourseError, match="a.ipynb is not a notebook"):
            read_notebook(tmp_path / "a.ipynb")


def test_numbers_and_times_are_written_for_people():
    assert [figure(v) for v in (0.123456, None, 3, "x", True, 132353, 2.5e6, float("inf"))] == ["0.1235", "", 3, "x", True, "132,353", "2,500,000", "inf"]
    assert [span(s) for s in (0.04, 59.94, 59.97, 61, 119.7, 3599.4, 3599.9, 7260)] == ["0.0 s", "59.9 s", "1 min 0 s", "1 min 1 s", "2 min 0 s", "59 min 59 s", "1.0 h", "2.0 h"]
