"Lesson 13: pinned environments, analogies, attribution, pages and a board."
import json
import os
import sys
from pathlib import Path

import nbformat.v4 as nbf
import numpy as np
import pandas as pd
import pytest

from coursekit import claims
from coursekit.claims import (
    first_other,
    missing_attribution,
    nearest_words,
    pinned_environment,
    project_board,
    read_analogies,
    report_and_slides,
    run_pinned,
)
from coursekit.files import CourseError
from coursekit.vocabulary import WordVectors

# An environment of its own

def test_an_environment_sees_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(claims.__file__).parents[1]))
    python = pinned_environment(tmp_path / "own", [])
    script = tmp_path / "a.py"
    script.write_text("import sys, importlib.util as u\nprint(sys.prefix, u.find_spec('coursekit'), "
                      "u.find_spec('numpy'), sys.argv[1:])")
    said = run_pinned(python, script, "x y", 3)
    assert said.split()[1:3] == ["None", "None"] and "['x y', '3']" in said and sys.prefix not in said.split()
    assert (tmp_path / "own" / "installed.txt").read_text() == f"# Python {sys.version.split()[0]}\n"
    made = os.stat(python.parent.parent / "pyvenv.cfg").st_mtime_ns
    assert pinned_environment(tmp_path / "own", []) == python  # used again
    assert os.stat(python.parent.parent / "pyvenv.cfg").st_mtime_ns == made


@pytest.mark.parametrize("loose", ["numpy", "numpy>=2", "numpy==2.*", "numpy==2.2.6; python_version<'4'", "-e .",
                                   "glove @ git+https://github.com/a/b@main", "glove @ git+https://github.com/a/b"])
def test_what_is_no_pin_is_refused(tmp_path, loose):
    with pytest.raises(CourseError, match="is no pin: an exact version"):
        pinned_environment(tmp_path / "own", ["scipy==1.15.3", loose])
    assert not (tmp_path / "own").exists()


def test_pins_are_installed_checked_and_listed_and_made_anew_when_they_change(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(claims, "_pip", lambda python, *args: asked.append(args) or "six==1.17.0\n")
    commit = f"glove @ git+https://github.com/a/b@{'0a' * 20}"
    pinned_environment(tmp_path / "own", ["six==1.17.0", commit])
    assert [args[0] for args in asked] == ["install", "check", "freeze"] and "--no-deps" in asked[0]
    assert (tmp_path / "own" / "requirements.txt").read_text() == f"six==1.17.0\n{commit}\n"
    assert "six==1.17.0" in (tmp_path / "own" / "installed.txt").read_text()
    pinned_environment(tmp_path / "own", ["six==1.17.0", commit])
    assert len(asked) == 3
    pinned_environment(tmp_path / "own", ["six==1.16.0"])
    assert len(asked) == 6


def test_an_environment_that_was_not_finished_is_made_anew(tmp_path, monkeypatch):
    def fails(python, *args):
        raise CourseError("no network")
    with monkeypatch.context() as m, pytest.raises(CourseError, match="no network"):
        m.setattr(claims, "_pip", fails)
        pinned_environment(tmp_path / "own", ["six==1.17.0"])
    assert not (tmp_path / "own" / "installed.txt").exists()


def test_a_program_that_fails_or_hangs_is_a_sentence(tmp_path):
    script = tmp_path / "a.py"
    script.write_text("raise ValueError('no such vectors')")
    with pytest.raises(CourseError, match="a.py failed .*ValueError: no such vectors"):
        run_pinned(sys.executable, script)
    script.write_text("import time\ntime.sleep(60)")
    with pytest.raises(CourseError, match="a.py was stopped after 0.5 s"):
        run_pinned(sys.executable, script, seconds=0.5)


# Analogies

VECTORS = WordVectors("made", ["man", "woman", "king", "queen", "far"],
                      np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1.2], [-1, -1, -1]], np.float32))
QUESTIONS = pd.DataFrame([("man", "woman", "king", "queen"), ("man", "king", "woman", "queen"),
                          ("man", "woman", "boy", "girl")], columns=["a", "b", "c", "answer"])


def test_questions_are_read_by_category(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text(": family\nMan Woman King Queen\n: grammar\nbig bigger small smaller\n")
    table = read_analogies(path)
    assert table.values.tolist() == [["man", "woman", "king", "queen", "family"],
                                     ["big", "bigger", "small", "smaller", "grammar"]]
    path.write_text(": family\nman woman king\n")
    with pytest.raises(CourseError, match="can't be read as questions"):
        read_analogies(path)
    with pytest.raises(CourseError, match="can't be read as questions"):
        read_analogies(tmp_path / "none.txt")


def test_nearest_words_are_those_of_a_loop():
    near = nearest_words(VECTORS, QUESTIONS)
    unit = VECTORS.vectors / np.linalg.norm(VECTORS.vectors, axis=1, keepdims=True)
    for k in (0, 1):
        a, b, c = (VECTORS.words.index(w) for w in QUESTIONS.iloc[k, :3])
        assert near[k].tolist() == np.argsort(-unit @ (unit[b] - unit[a] + unit[c]))[:4].tolist()
    assert near[2].tolist() == [-1] * 4
    alone = nearest_words(VECTORS, QUESTIONS, (0, 0, 1))
    assert VECTORS.words[alone[0, 0]] == "king" and VECTORS.words[alone[1, 0]] == "woman"
    assert alone[2].tolist() == [-1] * 4


def test_a_rule_leaves_words_of_the_question_out():
    near = np.array([[2, 1, 3, 0], [1, 2, 3, 0], [-1] * 4])
    assert first_other(near, VECTORS.words, QUESTIONS).tolist() == ["queen", "queen", ""]
    assert first_other(near, VECTORS.words, QUESTIONS, ()).tolist() == ["king", "woman", ""]
    assert first_other(near, VECTORS.words, QUESTIONS, ("c",)).tolist() == ["woman", "king", ""]


# What is whose

def table(*rows):
    return pd.DataFrame(rows, columns=["what", "kind", "whose", "source", "licence", "changes"])


WHOLE = ("vectors", "data", "Pennington", "https://nlp.stanford.edu/projects/glove/", "PDDL", "none")


@pytest.mark.parametrize("row, missing", [
    (WHOLE, []), (("picture", "figure", "own", "", "", ""), []),
    (("a thought", "idea", "Linzen", "RepEval 2016", "", "by category"), []),
    (("vectors", "data", "Pennington", " ", "", "none"), ["vectors: no source", "vectors: no licence"]),
    (("vectors", "data", "", None, "PDDL", None), ["vectors: no whose", "vectors: no source", "vectors: no changes"]),
    (("", "figure", "own", "", "", ""), ["row 1: no what"]),
    (("a thing", "thing", "own", "", "", ""), ["a thing: the kind is 'thing', not one of code, data, text, figure, "
                                               "idea"])])
def test_blanks_are_named(row, missing):
    assert missing_attribution(table(row)) == missing


def test_addresses_and_packages_of_a_notebook_are_looked_for(tmp_path):
    path = tmp_path / "own.ipynb"
    path.write_text(json.dumps(nbf.new_notebook(cells=[
        nbf.new_markdown_cell("See (https://example.org/a), and <https://nlp.stanford.edu/projects/glove/>."),
        nbf.new_code_cell("import json\nfrom gensim.models import KeyedVectors\nx = 'import nothing'")])))
    assert missing_attribution(table(WHOLE), path) == ["the table does not name https://example.org/a",
                                                       "the table does not name gensim"]
    more = ("gensim", "code", "Rehurek", "https://example.org/a", "LGPL", "none")
    assert missing_attribution(table(WHOLE, more), path) == []
    with pytest.raises(CourseError, match="no column licence, changes"):
        missing_attribution(table(WHOLE).iloc[:, :4])


# Report, slides and board

def saved(path, tags):
    "A notebook with a cell for each list of tags."
    cells = [nbf.new_markdown_cell(f"words {k}", metadata={"tags": t}) for k, t in enumerate(tags)]
    cells.append(nbf.new_code_cell("secret = 1", outputs=[nbf.new_output("display_data", {"text/plain": "shown"})]))
    path.write_text(json.dumps(nbf.new_notebook(cells=cells)))
    return path


def test_slides_begin_at_their_tag_and_the_report_has_all(tmp_path):
    notebook = saved(tmp_path / "own.ipynb", [[], ["slide"], [], ["report"], ["slide"]])
    report, slides = (p.read_text() for p in report_and_slides(notebook, tmp_path / "out"))
    assert all(f"words {k}" in report for k in range(5)) and "shown" in report and "secret" not in report
    assert [f"words {k}" in slides for k in range(5)] == [False, True, True, False, True] and "shown" in slides
    assert slides.count("<section>") == 4  # reveal.js wraps each slide twice
    report, _ = report_and_slides(notebook, tmp_path / "out", code=True)
    assert "secret" in report.read_text()


def test_a_notebook_without_slides_is_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="no cell with the tag 'slide'"):
        report_and_slides(saved(tmp_path / "own.ipynb", [[], ["report"]]), tmp_path / "out")


def test_a_board_counts_days_and_names_what_is_open():
    board = project_board({"report": "2027-06-09", "proposal": "2027-04-16"},
                          {"proposal": {"a claim": True, "code": np.True_}, "report": {"text": True, "slides": False}},
                          "2027-05-01")
    assert board.part.tolist() == ["proposal", "report"] and board["days left"].tolist() == [-15, 39]
    assert board.done.tolist() == ["2 of 2", "1 of 2"] and board.open.tolist() == ["nothing", "slides"]
    with pytest.raises(CourseError, match="the same parts are expected"):
        project_board({"report": "2027-06-09"}, {})
    with pytest.raises(CourseError, match="days such as '2027-04-16' are expected"):
        project_board({"report": "9 June"}, {"report": {}})
