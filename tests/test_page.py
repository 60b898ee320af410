"The pages, given whatever a notebook may hold."
import base64
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
from conftest import command, report, report_of, slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from coursekit.notebook import read_notebook
from coursekit.page import format_duration, format_value, write_page
from coursekit.report import Result, attach_previous, compare_reports, notebook_record, read_report, write_json
from coursekit.workspace import TABLE

HOSTILE = "<script>alert(1)</script>"


def test_whatever_a_notebook_printed_is_escaped(make, tmp_path):
    path = make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\n"
                     f"show_table(pd.DataFrame({{'x<b>': ['{HOSTILE}', None], 'y': [1, 2.5]}}), '{HOSTILE}')",
                "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()", f"raise ValueError('{HOSTILE}')")
    command("run", path, "--out", tmp_path / "out")
    page, got = (tmp_path / "out" / "index.html").read_text(), report(tmp_path / "out")["a"]
    assert HOSTILE not in page and "&lt;script&gt;" in page and "x&lt;b&gt;" in page
    assert got["tables"][0]["title"] == HOSTILE and got["tables"][0]["data"] == [[HOSTILE, 1.0], [None, 2.5]]
    assert got["figures"] == 1 and page.count("data:image/png;base64,iVBOR") == 1 and "http:" not in page
    assert "https:" not in page


ANY = st.text(st.characters(codec=None, exclude_categories=[]), max_size=20)  # halves of characters too


SCALARS = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | ANY


JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)


COLUMNS = st.sampled_from(["run", "std", "reference", "accuracy", "recipe", "<b>"])


TABLES = st.fixed_dictionaries({"title": st.text(max_size=9) | JSON, "columns": st.lists(COLUMNS | JSON, max_size=5),
                                "data": st.lists(st.lists(SCALARS, max_size=5) | JSON, max_size=3)})


MIMES = st.sampled_from([TABLE, "image/png", "image/jpeg", "text/html", "text/plain", "application/json"])


OUTPUTS = st.lists(st.dictionaries(MIMES, TABLES | JSON | st.text(), max_size=4), max_size=4)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OUTPUTS, ANY, ANY)
def test_no_output_of_a_notebook_spoils_the_report(tmp_path, outputs, name, value):
    shown = [nbformat.from_dict({"output_type": "display_data", "data": data, "metadata": {}}) for data in outputs]
    failed = nbformat.from_dict({"output_type": "error", "ename": name, "evalue": value,
                                 "traceback": value.splitlines()})
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("x")])
    nb.cells[1].outputs = [*shown, failed]
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="failed", reason=value, cell=2, nb=nb,
                    cell_seconds={2: 1.0})
    (tmp_path / "a.ipynb").write_text(json.dumps(nb))
    now = report_of({**notebook_record(result), "executed": "a.ipynb"})
    now["judged"] = compare_reports(now, now)
    write_json(attach_previous(now, now), tmp_path)
    write_page(now, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<section") == page.count("</section>") and "<b>" not in page.replace("<p><b>", "")
    assert "<script" not in page
    assert read_report(tmp_path)["notebooks"][0]["name"] == "a"


def test_numbers_and_times_are_written_for_people():
    assert [format_value(v) for v in (0.123456, None, 3, "x", True, 132353, 2.5e6,
                                      float("inf"))] == ["0.1235", "", 3, "x", True, "132,353", "2,500,000", "inf"]
    assert [format_duration(s) for s in (0.04, 59.94, 59.97, 61, 119.7, 3599.4, 3599.9,
                                         7260)] == ["0.0 s", "59.9 s", "1 min 0 s", "1 min 1 s", "2 min 0 s",
                                                    "59 min 59 s", "1.0 h", "2.0 h"]


def encoded(image, kind, **options):
    "An image as a notebook holds it."
    image.save(file := io.BytesIO(), kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def noise(*shape):
    "An image that no format can make small."
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, dtype="uint8"))


def shown(*outputs, name="a"):
    "An executed notebook with one cell for each output's data; cells are numbered from 1."
    cells = [nbformat.v4.new_code_cell(f"show({k})", outputs=[nbformat.v4.new_output("display_data", data)])
             for k, data in enumerate(outputs)]
    return name, nbformat.v4.new_notebook(cells=cells)


def page_of(out, *notebooks, **changes):
    "The page of these executed notebooks, and their records by name."
    records = []
    for name, nb in notebooks:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, out / f"{name}.ipynb")
        result = Result(name, Path(f"{name}.ipynb"), out / f"{name}.ipynb", {}, status="passed",
                        nb=read_notebook(out / f"{name}.ipynb"), saved=1.0)
        records.append({**notebook_record(result), **changes})
    write_page(report_of(*records), out)
    return (out / "index.html").read_text(encoding="utf-8"), {n["name"]: n for n in records}


def pictures(page):
    "(mime type, bytes) of the pictures of a page."
    found = re.findall(r'<img src="data:([^;]+);base64,([^"]+)"', page)
    return [(mime, base64.b64decode(data)) for mime, data in found]


@pytest.mark.parametrize("kind, mime", [("GIF", "image/gif"), ("WEBP", "image/webp"), ("BMP", "image/bmp"),
                                        ("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_of_any_format_is_on_the_page_as_it_was(tmp_path, kind, mime):
    data = encoded(noise(20, 30, 3), kind)
    page, got = page_of(tmp_path, shown({mime: data, "text/plain": "<Image>"}))
    assert pictures(page) == [(mime, base64.b64decode(data))] and got["a"]["figures"] == 1
    assert data in (tmp_path / "a.ipynb.html").read_text()


@pytest.mark.parametrize("svg", ['<svg width="9" height="9"><circle r="4"/></svg>',
                                 '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"\n width="9"/>',
                                 '<svg viewBox="0 0 9 9"><script>alert(1)</script><text>é</text></svg>'])
def test_an_svg_is_an_image_that_a_browser_can_read_and_runs_no_script(tmp_path, svg):
    page, got = page_of(tmp_path, shown({"image/svg+xml": svg}))
    (mime, data), = pictures(page)
    assert mime == "image/svg+xml" and ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
    assert got["a"]["figures"] == 1
    assert "<script" not in page and "<svg" not in page
    assert "<script" not in (tmp_path / "a.ipynb.html").read_text().split("<body")[1]


@pytest.mark.parametrize("image, kind, mime", [
    slow(noise(4000, 4000, 3), "PNG", "image/png"),
    (noise(300, 9000), "JPEG", "image/jpeg"),
    (noise(2500, 2500, 4).convert("CMYK"), "JPEG", "image/jpeg"),
    (noise(900, 900, 3).convert("P"), "GIF", "image/gif"),
    (Image.new("1", (5000, 5000)), "PNG", "image/png"),  # few bytes, and 25 million pixels for a browser
])
def test_a_large_picture_is_smaller_on_the_page_and_whole_in_the_executed_notebook(tmp_path, image, kind, mime):
    data = encoded(image, kind)
    page, _ = page_of(tmp_path, shown({mime: data}))
    (given, small), = pictures(page)
    thumbnail = Image.open(io.BytesIO(small))
    assert given == "image/jpeg" and len(page) < 520_000 and max(thumbnail.size) <= 1400
    assert thumbnail.width / thumbnail.height == pytest.approx(image.width / image.height, rel=0.05)
    assert "Smaller here than in the executed notebook (of a GIF, its first picture): the figures of cell 1." in page
    assert data in (tmp_path / "a.ipynb.html").read_text()


def test_a_thumbnail_has_the_tones_of_its_picture(tmp_path):
    grey = Image.fromarray(np.tile(np.array([[6400, 51200]], "uint16"), (2100, 1050)))  # 25 and 200 of 255
    glass = Image.new("RGBA", (2100, 2100), (200, 0, 0, 0))  # quite transparent: white
    page, _ = page_of(tmp_path, shown({"image/png": encoded(grey.resize((2100, 2100), 0), "PNG")},
                                      {"image/png": encoded(glass, "PNG")}))
    (_, one), (_, two) = pictures(page)
    assert np.asarray(Image.open(io.BytesIO(one)).convert("L")).mean() == pytest.approx(112.5, abs=4)
    assert np.asarray(Image.open(io.BytesIO(two)))[5, 5].tolist() == [255, 255, 255]


@pytest.mark.slow
def test_many_figures_fit_on_one_page(tmp_path):
    data = encoded(noise(300, 300, 3), "PNG")
    page, got = page_of(tmp_path, *(shown(*[{"image/png": data}] * 200, name=f"n{k}") for k in range(5)))
    assert sum(n["figures"] for n in got.values()) == 1000 and len(page) < 17e6
    assert 400 < len(pictures(page)) < 1000
    assert "Not shown here, as they are too large, too many or damaged: the figures of cells" in page


@pytest.mark.parametrize("data", [
    {"image/png": encoded(noise(900, 900, 3), "PNG")[:400_000]},
    {"image/png": base64.b64encode(b"no picture").decode()},
    {"image/svg+xml": "<svg>" + "<g/>" * 200_000 + "</svg>"},
    {"image/png": encoded(Image.new("1", (20_000, 20_000)), "PNG")},
])
def test_a_picture_that_can_not_be_shown_is_said(tmp_path, data):
    page, _ = page_of(tmp_path, shown({"text/plain": "1"}, data))
    if not pictures(page):
        assert ("Not shown here, as they are too large, too many or damaged: the figures of cell 2; "
                "see the executed notebook.") in page
    else:  # a browser shows what there is of it
        assert Image.open(io.BytesIO(pictures(page)[0][1])).size == (900, 900)


PLOTLY = {"application/vnd.plotly.v1+json": {"data": [{"y": [1, 3, 2]}], "layout": {}}}


@pytest.mark.parametrize("data, kind", [
    (PLOTLY, "plotly"),
    ({**PLOTLY, "text/html": "<div id=x></div><script>Plotly.newPlot('x')</script>", "text/plain": "Figure()"},
     "plotly"),
    ({"application/vnd.vegalite.v5+json": {"mark": "bar"}, "text/plain": "alt.Chart(...)"}, "vegalite"),
    ({"application/vnd.bokehjs_exec.v0+json": "", "text/html": "<div></div><script>x</script>"}, "bokehjs"),
    ({"text/html": '<iframe srcdoc="&lt;script&gt;"></iframe>'}, "HTML"), ({"application/pdf": "JVBERi0="}, "pdf"),
])
def test_what_only_scripts_can_draw_is_named_with_its_cell_and_a_link(tmp_path, data, kind):
    page, got = page_of(tmp_path, shown({"text/plain": "1"}, data, name="sub/a b"))
    assert got["sub/a b"]["live"] == [[2, kind]] and got["sub/a b"]["figures"] == 0
    assert f"Not shown here, as this page runs no scripts: {kind} of cell 2; open the .ipynb in Jupyter." in page
    assert 'href="sub/a%20b.ipynb.html">the executed notebook</a> (<a href="sub/a%20b.ipynb">.ipynb</a>)' in page
    assert f"as {kind} would: open the .ipynb in Jupyter" in (tmp_path / "sub" / "a b.ipynb.html").read_text()


@pytest.mark.parametrize("data", [{"text/html": "<table><tr><td>1</td></tr></table>"},
                                  {"text/html": "<style>b {}</style><b>x</b>"},
                                  {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"},
                                  {"application/vnd.bokehjs_load.v0+json": ""}])
def test_what_needs_no_scripts_is_not_named(tmp_path, data):
    assert page_of(tmp_path, shown(data))[1]["a"]["live"] == []


def test_an_interactive_figure_with_a_picture_is_a_picture(tmp_path):
    data = {**PLOTLY, "text/html": "<div></div><script>draw()</script>", "image/png": encoded(noise(9, 9, 3), "PNG")}
    page, got = page_of(tmp_path, shown(data))
    assert got["a"]["live"] == [] and pictures(page) == [("image/png", base64.b64decode(data["image/png"]))]
    assert data["image/png"] in (html := (tmp_path / "a.ipynb.html").read_text()) and "draw()" not in html


def test_an_executed_notebook_is_a_page_that_runs_and_fetches_nothing(tmp_path):
    foreign = '<meta http-equiv="refresh" content="0;url=https://example.org"><script>alert(1)</script><b>bold</b>'
    nb = shown({"text/html": foreign}, {"text/markdown": foreign},
               {"application/javascript": "alert(1)", "text/plain": "js"})[1]
    nb.cells.insert(0, nbformat.v4.new_markdown_cell(f"# Title <META http-equiv=refresh> $x^2$\n\n{foreign}"))
    nb.metadata.title = "</title><script>"
    page, _ = page_of(tmp_path, ("index", nb))  # a name that the report's own page has
    html = (tmp_path / "index.ipynb.html").read_text()
    policy = re.search(r'<meta content="([^"]*)" http-equiv="Content-Security-Policy"', html)
    assert "default-src 'none'" in policy[1] and "script-src" not in policy[1] and "https:" not in policy[1]
    assert "'self'" not in policy[1]
    assert html.index("Content-Security-Policy") < html.index("<style") and "<script" not in html.split("<body")[0]
    assert not re.search("<meta", html.split("<body")[1], re.I) and "<b>bold</b>" in html
    assert "<title>coursekit: index</title>" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"(https?:)?//", html)
    assert "<title>coursekit: 0 of 1 passed" in page and 'href="index.ipynb.html">index</a>' in page


def test_a_failing_cell_is_linked_in_the_page_of_its_notebook(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One"),
                                         nbformat.v4.new_code_cell("1/0", id="lesson-error"),
                                         nbformat.v4.new_markdown_cell("# Two"),
                                         nbformat.v4.new_code_cell("x", id="the-one")])
    nb.cells[1].metadata.tags = ["raises-exception"]
    nb.cells[1].outputs = [nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="division by zero",
                                                  traceback=[])]
    nb.cells[3].outputs = [nbformat.v4.new_output("error", ename="NameError", evalue="x", traceback=["NameError: x"])]
    nbformat.write(nb, tmp_path / "a.ipynb")
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="failed", reason="NameError: x", cell=4,
                    heading="Three", nb=nb, saved=1.0)
    failed = notebook_record(result)
    write_page(report_of(failed), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert failed["heading"] == "Two" and failed["error"]["error"] == "NameError: x"
    assert "ZeroDivisionError" not in page
    assert 'href="a.ipynb.html#cell-id=the-one"' in page
    assert 'id="cell-id=the-one"' in (tmp_path / "a.ipynb.html").read_text()


@pytest.mark.parametrize("spoil", ["huge", "no nbconvert", "broken"])
def test_a_notebook_that_can_not_be_rendered_keeps_its_link(tmp_path, monkeypatch, spoil):
    data = {"huge": {"text/html": "<b>x</b>" * 300_000}, "broken": {"image/svg+xml": 3}}.get(spoil, {})
    if spoil == "no nbconvert":
        monkeypatch.setitem(sys.modules, "nbconvert", None)
    nb = shown({"image/png": encoded(noise(9, 9, 3), "PNG")})[1]
    if data:
        nb.cells[0].outputs.append(nbformat.from_dict({"output_type": "display_data", "data": data, "metadata": {}}))
    (tmp_path / "a.ipynb").write_text(json.dumps(nb))
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="passed", nb=nb, saved=1.0)
    write_page(report_of(notebook_record(result)), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert 'href="a.ipynb">the executed notebook</a></p>' in page and len(pictures(page)) == 1
    assert not (tmp_path / "a.ipynb.html").exists()


def test_much_colored_text_is_rendered_in_seconds(tmp_path):
    outputs = [nbformat.v4.new_output("stream", text="\x1b[31mred\x1b[0m\n" * 120_000)]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    begun = time.process_time()
    page_of(tmp_path, ("a", nb))
    assert time.process_time() - begun < 20 and "red\nred" in (tmp_path / "a.ipynb.html").read_text()


def test_a_page_that_is_there_is_not_made_again(tmp_path):
    nb = shown({"text/plain": "1"})
    page_of(tmp_path, nb)
    (tmp_path / "a.ipynb.html").write_text("kept")
    result = Result("a", Path("a"), tmp_path / "a.ipynb", {}, status="passed", nb=nb[1], saved=1.0)
    write_page(report_of(notebook_record(result)), tmp_path)
    assert (tmp_path / "a.ipynb.html").read_text() == "kept"
    os.utime(tmp_path / "a.ipynb", (time.time() + 9,) * 2)
    write_page(report_of(notebook_record(result)), tmp_path)
    assert "<title>coursekit: a</title>" in (tmp_path / "a.ipynb.html").read_text()


@pytest.mark.parametrize("kept, said", [
    (["2026-01-30T09:00:00"] * 2, "2026-01-31 09:00, all kept, which took 1 min 30 s when run."),
    (["2026-01-30T09:00:00", ""], "2026-01-31 09:00, 1.0 s, 1 kept, which took 45.0 s when run."),
    (["", ""], "2026-01-31 09:00, 1.0 s.")])
def test_what_was_kept_is_said_with_the_time_it_took(tmp_path, kept, said):
    made = [notebook_record(Result(name, Path(name), tmp_path / name, {}, status="passed", seconds=45.0))
            | {"kept_from": k} for name, k in zip("ab", kept)]
    write_page(report_of(*made), tmp_path)
    assert said in (tmp_path / "index.html").read_text().replace("\n", " ")
