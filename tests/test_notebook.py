"Notebooks as files, whatever they hold: read or refused in a sentence, and their parameters."
import pytest

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
