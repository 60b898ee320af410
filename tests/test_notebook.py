"Notebooks as files, whatever they hold: read or refused in a sentence, and their parameters."
import json

import pytest
from conftest import command, report

from coursekit.execute import KERNEL_MARK
from coursekit.files import CourseError
from coursekit.notebook import parameter_defaults, read_notebook


@pytest.mark.parametrize("parameters, expected", [
    ('scale = "quick"  # why\nn = 3', {"scale": "quick", "n": 3}),
    ("n: int = 3\nlr: float = 1e-3\nword: str", {"n": 3, "lr": 1e-3}),
    ("n = 2**10\nscale = pick()", {"n": None, "scale": None}),
    ("%matplotlib inline\n!echo x\nimport os\nn = -3\na, b = 1, 2\nprint(n)\nfirst = second = (1, 2)",
     {"n": -3, "first": (1, 2), "second": (1, 2)}),
    ("%%time\nn = 3", {}), ("n = ", {}), ("", {}), (None, {})])
def test_parameters_are_the_plain_lines_of_the_tagged_cell(make, parameters, expected):
    assert parameter_defaults(read_notebook(make("a", parameters=parameters))) == expected


@pytest.mark.parametrize("language, source, names",
                         [("R", "n <- 3 # a = b\nlr = 0.1\nif (n == 3) x", {"n", "lr", "a"}),
                          ("bash", "n=3\nword='x'", {"n", "word"}), ("scala", "val n: Int = 3", {"n"})])
def test_parameters_in_another_language_have_names_only(make, language, source, names):
    nb = read_notebook(make("a", parameters=source))
    nb.metadata.kernelspec.language = language
    assert parameter_defaults(nb) == dict.fromkeys(names)


def test_a_json_file_that_is_no_notebook_is_a_sentence(tmp_path):
    for text in "{}", "[]", "3", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "\x00":
        (tmp_path / "a.ipynb").write_text(text)
        with pytest.raises(CourseError, match="a.ipynb is not a notebook"):
            read_notebook(tmp_path / "a.ipynb")


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
