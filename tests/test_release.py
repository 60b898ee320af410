"The students' release: what is in it, where its links lead, what it refuses, and that nothing of a person's is lost."
import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import nbformat
import pytest
from conftest import ROOT, command, slow

from coursekit import release as module
from coursekit.files import CourseError
from coursekit.notebook import read_notebook
from coursekit.release import LINK, find_exercises, write_release

LESSONS = sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
COLAB = "https://colab.research.google.com/github/"
OURS = "[coursekit/coursekit](https://github.com/coursekit/coursekit/tree/v0.1.0), v0.1.0"
EXERCISE = 'def {0}(x):\n    "{0} x."\n    ...  # your line'
CHECK = 'def check(answer):\n    return "right" if answer(3) == 6 else "not yet: 3"\n\ncheck({0})'
SOLUTION = 'def solution(x):\n    return x + x\n\nassert check(solution) == "right"\nfour = solution(2)\nfour'


def cell(source, *tags, output=None):
    "A code cell."
    outputs = [nbformat.v4.new_output("execute_result", {"text/plain": output})] if output else []
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=outputs)


def lesson(*more, name="00_twice", text=""):
    "A lesson with an exercise, its check and solution, and `more` cells."
    title = f"# Twice\n\nHow to double.\n\n[badge]({COLAB}coursekit/coursekit/blob/v0.1.0/nbs/{name}.ipynb)\n\n{text}"
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title),
                                           cell(EXERCISE.format("twice"), "exercise"),
                                           cell(CHECK.format("twice"), "check", output="'not yet: 3'"),
                                           cell(SOLUTION, "solution", output="4"), *more])


def titled(text):
    "A notebook of one text cell."
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


@pytest.fixture
def course(tmp_path):
    "A small clone: two lessons, a kit notebook, a list of data."
    root = tmp_path / "course"
    (root / "nbs" / "kit").mkdir(parents=True)
    nbformat.write(lesson(), root / "nbs" / "00_twice.ipynb")
    nbformat.write(lesson(name="01_more"), root / "nbs" / "01_more.ipynb")
    nbformat.write(lesson(), root / "nbs" / "kit" / "00_kit.ipynb")
    for name in "README.md", "data_links.md", "LICENSE", "nbs/cat.png":
        (root / name).write_text(name)
    return root


def lessons(course):
    return sorted((course / "nbs").glob("*.ipynb"))


def tags(cell):
    return cell.metadata.get("tags", [])


def contents(folder):
    "{path: bytes} of all files in a folder."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The course's own lessons

@pytest.fixture(scope="module")
def students(tmp_path_factory):
    "The course's release, by the command."
    out = tmp_path_factory.mktemp("release") / "students"
    done = command("release", out, "--repo", "me/my-course", cwd=ROOT)
    assert done.returncode == 0 and f"{len(LESSONS)} lessons are in" in done.stdout, done.stdout + done.stderr
    return out


def test_a_release_holds_the_lessons_a_readme_and_the_license(students):
    assert set(contents(students)) == {*(p.name for p in LESSONS), "README.md", "LICENSE", ".release.json"}
    assert (students / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    readme = (students / "README.md").read_text()
    assert all(f"]({p.name})" in readme and f"{COLAB}me/my-course/blob/main/{p.name})" in readme for p in LESSONS)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_only_solutions_are_taken_out(path, students):
    source, given = read_notebook(path), read_notebook(students / path.name)
    kept = [c for c in source.cells if "solution" not in tags(c)]
    assert 0 < len(kept) < len(source.cells) and [c.id for c in kept] == [c.id for c in given.cells]
    for old, new in zip(kept, given.cells):
        assert old == new or old.cell_type == "markdown"
    nbformat.validate(given)


def text_of(cell):
    "All that a cell holds: its source and its outputs, pictures too."
    outputs = [o.get("text", "") + "\n".join(map(str, o.get("data", {}).values())) for o in cell.get("outputs", [])]
    return "\n".join([cell.source, *outputs])


def test_no_line_of_a_solution_and_of_its_output_is_in_a_release(students):
    cells = [c for p in LESSONS for c in read_notebook(p).cells]
    kept = "\n".join(text_of(c) for c in cells if "solution" not in tags(c))
    lines = {line.strip() for c in cells if "solution" in tags(c) for line in text_of(c).splitlines()}
    secret = {line for line in lines if line not in kept}
    assert len(secret) > 300 and any(len(line) > 10_000
                                     for line in secret), "sources and pictures should be among them"
    given = "\n".join(text_of(c) for p in students.glob("*.ipynb")
                      for c in read_notebook(p).cells) + (students / "README.md").read_text()
    assert not [line for line in secret if line in given]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_exercises_are_blank_and_their_checks_say_so(path, students):
    for e in find_exercises(read_notebook(students / path.name), path.stem):
        assert list(e) == ["exercise", "check"] and "...  # your line" in e["exercise"].source
        said, = e["check"].outputs
        assert re.match(r"[\"']not yet: ",
                        said.data["text/plain"]) or said.data["text/plain"] == "'runs with extensions = True'"


def test_every_link_of_a_release_leads_somewhere(students):
    text = {p.name: "\n".join(c.source for c in read_notebook(p).cells if c.cell_type == "markdown")
            for p in students.glob("*.ipynb")}
    text["README.md"] = (students / "README.md").read_text()
    for name, said in text.items():
        assert all((students / m["file"]).exists() for m in re.finditer(LINK, said) if m["file"]), name
        badges = re.findall(rf"{COLAB}(\S+?)[\")]", said)
        assert badges
        assert all(b.startswith("me/my-course/blob/main/") and (students / Path(b).name).exists() for b in badges)
        assert all((ROOT / at).exists()
                   for at in re.findall(r"github\.com/coursekit/coursekit/blob/v[^/]+/([^)\"\s#]+)", said))


@pytest.mark.slow
def test_a_released_lesson_runs(students, tmp_path):
    done = command("run", students / "00_start.ipynb", "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    said = [o.data["text/plain"] for c in read_notebook(tmp_path / "out" / "00_start.ipynb").cells
            if "check" in tags(c) for o in c.outputs]
    assert len(said) == 1 and said[0].startswith("'not yet: ")


# Links

def test_links_lead_to_neighbours_and_else_to_the_course(course):
    text = ("[next](01_more.ipynb) [part](01_more.ipynb#twice) [data](../data_links.md#text) [kit](kit/00_kit.ipynb) "
            "<img src=\"cat.png\"> [up](#twice) [out](https://example.org/x.md) "
            "`[code](nowhere.md)` ![p](attachment:p.png) "
            f"{COLAB}coursekit/coursekit/blob/v0.1.0/nbs/kit/00_kit.ipynb")
    nbformat.write(lesson(text=text), course / "nbs" / "00_twice.ipynb")
    write_release(lessons(course), course / "out", "me/my-course", "spring/2027", "a/lessons")
    new = read_notebook(course / "out" / "00_twice.ipynb").cells[0].source
    at = "https://github.com/coursekit/coursekit/blob/v0.1.0"
    assert new.splitlines()[4] == f"[badge]({COLAB}me/my-course/blob/spring/2027/a/lessons/00_twice.ipynb)"
    moved = {"../data_links.md": f"{at}/data_links.md", "(kit/": f"({at}/nbs/kit/",
             "cat.png": f"{at.replace('blob', 'raw')}/nbs/cat.png"}
    for old, there in moved.items():
        text = text.replace(old, there)
    assert new.splitlines()[6] == text
    readme = (course / "out" / "README.md").read_text()
    assert f"{COLAB}me/my-course/blob/spring/2027/a/lessons/01_more.ipynb" in readme


# Refusals

REFUSED = {
    "an exercise without a check": (lesson(cell(EXERCISE.format("thrice"), "exercise")),
                                    "exercise 'def thrice(x):' of 00_twice has no check"),
    "an exercise before the next one": (lesson(cell(EXERCISE.format("a"), "exercise"),
                                               cell(EXERCISE.format("b"), "exercise"),
                                               cell(CHECK.format("b"), "check")),
                                        "'def a(x):' of 00_twice has no check"),
    "a solution without an exercise": (lesson(cell(SOLUTION, "solution")),
                                       "The solution in cell 5 of 00_twice belongs to no exercise"),
    "a check without an exercise": (lesson(cell(CHECK.format("twice"), "check")),
                                    "The check in cell 5 of 00_twice belongs to no exercise"),
    "a solution that lost its tag": (lesson(cell(SOLUTION)),
                                     "Cell 5 of 00_twice is tagged none of the three and reads like 'solution'"),
    "a check that lost its tag": (lesson(cell(EXERCISE.format("a"), "exercise"), cell(CHECK.format("a"))),
                                  "tagged none of the three and reads like 'check'"),
    "a solution tagged in other words": (lesson(cell(SOLUTION, "Solution")), "reads like 'solution'"),
    "an exercise with an answer for a blank": (lesson(cell("def thrice(x):\n    return 3 * x", "exercise")),
                                               "is tagged 'exercise' and reads like none of the three"),
    "a check that says right": (lesson(cell(EXERCISE.format("a"), "exercise"),
                                       cell(CHECK.format("a"), "check", output="'right'")),
                                "The check in cell 6 of 00_twice says 'right'"),
    "an output made with a solution": (lesson(cell("f'{four}'", output="'4'")),
                                       "Cell 5 of 00_twice uses four, which a solution made"),
    "a function made with a solution": (lesson(cell("def f():\n    return [solution(i) for i in range(3)]")),
                                        "Cell 5 of 00_twice uses solution, which a solution made"),
    "a dead link": (lesson(text="[gone](../gone.md)"), "00_twice.ipynb links to ../gone.md, which does not exist"),
    "another's badge": (lesson(name="00_other"),
                        "00_twice.ipynb has another notebook's 'Open In Colab' badge in its first cell"),
    "no badge and a link to a file": (titled("# Own\n\n[data](../data_links.md)"),
                                      "00_twice.ipynb links to ../data_links.md, which no release holds, and has no "
                                      "badge that says where it is"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_lesson_that_would_give_a_solution_away_or_lead_nowhere_is_refused(what, course):
    nb, words = REFUSED[what]
    nbformat.write(nb, course / "nbs" / "00_twice.ipynb")
    with pytest.raises(CourseError, match=re.escape(words)):
        write_release(lessons(course), course / "out", "me/my-course")
    assert not (course / "out").exists()


def test_a_name_that_a_lesson_makes_again_is_its_own(course):
    nbformat.write(lesson(cell("%pip list\nfour = 2 + 2\nfour"), cell("four")), course / "nbs" / "00_twice.ipynb")
    write_release(lessons(course), course / "out", "me/my-course")


@pytest.mark.parametrize("options, words", [
    (["--repo", "my-course"], "--repo 'my-course': write OWNER/NAME"),
    (["--repo", "https://github.com/me/my-course"], "write OWNER/NAME"),
    (["--repo", "me/my-course.git"], "write OWNER/NAME"),
    (["--repo", "me/my course"], "write OWNER/NAME"),
    (["--repo", "me/c", "--branch", "a b"], "--branch 'a b': write a branch"),
    (["--repo", "me/c", "--folder", "a?b"], "--folder 'a?b': write a folder"),
    (["--repo", "me/c", "--folder", "../up"], "--folder '../up': write a folder"),
    ([], "Missing option '--repo'"),
])
def test_a_wrong_place_is_a_sentence(course, options, words):
    done = command("release", "out", *options, cwd=course)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not (course / "out").exists()


def test_the_import_is_light():
    slow = {"torch", "numpy", "pandas", "nbconvert", "nbformat", "IPython"}
    code = f"import sys, coursekit.release; print({slow} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip() == "set()"


def test_without_nbconvert_it_says_what_to_install(course, monkeypatch):
    monkeypatch.setattr("coursekit.machine._version", lambda package: "not installed")
    with pytest.raises(CourseError, match=r"pip install 'coursekit\[run\]'"):
        write_release(lessons(course), course / "out", "me/my-course")


# Lessons of an instructor's own

def own(*cells):
    "A lesson without a badge."
    return nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("1 + 1")])


@pytest.mark.parametrize("first, given, title", [
    ("# Own\n\nSee [twice](00_twice.ipynb).", "# Own\n\n{badge}\n\nSee [twice](00_twice.ipynb).", "Own"),
    ("# Own", "# Own\n\n{badge}\n", "Own"),
    ("## No *title*\ntext", "## No *title*\n\n{badge}\ntext", "No *title*"),
])
def test_a_lesson_without_a_badge_gets_one_under_its_title(course, first, given, title):
    nbformat.write(own(nbformat.v4.new_markdown_cell(first)), course / "nbs" / "10_own.ipynb")
    write_release(lessons(course), course / "out", "me/my-course", folder="a")
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    badge = f"[![Open In Colab]({picture})]({COLAB}me/my-course/blob/main/a/10_own.ipynb)"
    assert read_notebook(course / "out" / "10_own.ipynb").cells[0].source == given.format(badge=badge)
    readme = (course / "out" / "README.md").read_text()
    assert f"| [10_own](10_own.ipynb) | {title} | {badge} |" in readme
    assert (f"The lessons, but for 10_own, are those of {OURS}, "
            "without the solutions, under the license in LICENSE.") in readme


@pytest.mark.parametrize("cells, title",
                         [([], ""), ([nbformat.v4.new_code_cell("%pip install x"),
                                      nbformat.v4.new_markdown_cell("# Later")], "Later")])
def test_a_lesson_that_begins_with_code_stays_as_it_is_and_its_badge_is_in_the_readme(course, cells, title):
    nbformat.write(nb := own(*cells), course / "nbs" / "10_own.ipynb")
    write_release(lessons(course), course / "out", "me/my-course")
    assert [c.source for c in read_notebook(course / "out" / "10_own.ipynb").cells] == [c.source for c in nb.cells]
    assert f"| [10_own](10_own.ipynb) | {title} | [![Open In Colab]" in (course / "out" / "README.md").read_text()


@pytest.mark.parametrize("license", [True, False])
def test_a_course_of_ones_own_without_any_badge(course, license):
    (course / "nbs" / "00_twice.ipynb").unlink(), (course / "nbs" / "01_more.ipynb").unlink()
    nbformat.write(own(nbformat.v4.new_markdown_cell("# Own")), course / "nbs" / "10_own.ipynb")
    if not license:
        (course / "LICENSE").unlink()
    write_release(lessons(course), course / "out", "me/my-course")
    assert ((course / "out" / "LICENSE").exists()) == license
    assert ("The lessons are without the solutions, under the license in LICENSE." if license
            else "The lessons are without the solutions.") in (course / "out" / "README.md").read_text()


def test_a_badge_of_ones_own_course_is_not_taken_for_the_courses(course):
    nb = lesson(name="10_own")
    nb.cells[0].source = nb.cells[0].source.replace("coursekit/coursekit/blob/v0.1.0", "me/mine/blob/main")
    nbformat.write(nb, course / "nbs" / "10_own.ipynb")
    write_release(lessons(course), course / "out", "me/my-course")
    readme = (course / "out" / "README.md").read_text()
    assert f"those of {OURS} and [me/mine](https://github.com/me/mine/tree/main), main, without" in readme


# A hub, and Kaggle

INSTALLS = cell("import importlib.util\n\nif importlib.util.find_spec(\"coursekit\") is None:\n    %pip install -q "
                "https://github.com/coursekit/coursekit/archive/refs/tags/v0.1.0.tar.gz")


def test_a_hub_opens_each_lesson_where_it_pulls_it(course):
    write_release(lessons(course), course / "out", "me/my-course", "spring/2027", "a/b", hub="https://hub.example.edu/x/")
    link = re.search(r"\[on our hub\]\((\S+)\)", (course / "out" / "README.md").read_text())[1]
    address, _, query = link.partition("?")
    assert address == "https://hub.example.edu/x/hub/user-redirect/git-pull"
    assert parse_qs(query) == {"repo": ["https://github.com/me/my-course"], "branch": ["spring/2027"],
                               "urlpath": ["lab/tree/my-course/a/b/00_twice.ipynb"]}


def test_kaggle_gets_a_folder_for_each_lesson_and_one_for_the_wheel(course):
    nbformat.write(lesson(INSTALLS), course / "nbs" / "00_twice.ipynb")
    write_release(lessons(course), out := course / "out", "me/my-course", kaggle="me")
    facts = json.loads((out / "kaggle" / "00_twice" / "kernel-metadata.json").read_text())
    assert facts["id"] == "me/coursekit-00-twice" and facts["title"] == "coursekit 00 twice"
    assert facts["enable_internet"] is False and facts["dataset_sources"] == ["me/coursekit"]
    given = read_notebook(out / "kaggle" / "00_twice" / facts["code_file"])
    code = "\n".join(c.source for c in given.cells)
    assert "github.com/coursekit/coursekit/archive" not in code and "    %pip install -q --no-deps {wheel}" in code
    assert "return x + x" not in code
    assert "archive/refs" in "\n".join(c.source for c in read_notebook(out / "00_twice.ipynb").cells)
    assert json.loads((out / "kaggle" / "coursekit" / "dataset-metadata.json").read_text())["id"] == "me/coursekit"
    (out / "kaggle" / "coursekit" / "coursekit-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    write_release(lessons(course), out, "me/my-course")  # without Kaggle: its files go, the wheel stays
    assert [p.name for p in (out / "kaggle").rglob("*") if p.is_file()] == ["coursekit-0.1.0-py3-none-any.whl"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_lesson_installs_the_wheel_on_kaggle(path):
    nb = module._for_kaggle(read_notebook(path), "me")
    code = [c.source for c in nb.cells if c.cell_type == "code"]
    assert sum("--no-deps {wheel}" in source for source in code) == 1
    assert not any("archive/refs/tags" in source for source in code)


@pytest.mark.parametrize("option, value", [("hub", "hub.example.edu"), ("hub", "https://a b"), ("kaggle", "a/b"),
                                           ("kaggle", "Me")])
def test_a_wrong_hub_or_user_is_a_sentence(course, option, value):
    with pytest.raises(CourseError, match=f"--{option} '{value}': write "):
        write_release(lessons(course), course / "out", "me/my-course", **{option: value})
    assert not (course / "out").exists()


# Written whole, and over nothing of a person's

def test_the_same_bytes_twice_and_a_page_of_ones_own_stays(course):
    out = course / "out"
    write_release(lessons(course), out, "me/my-course")
    first = contents(out)
    own = {".git/config": b"git", "syllabus.md": b"mine"}
    for name, data in own.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    write_release(lessons(course), out, "me/my-course")
    assert contents(out) == first | own


def test_a_second_release_replaces_the_first(course):
    out = course / "out"
    write_release(lessons(course), out, "me/my-course")
    (course / "nbs" / "01_more.ipynb").rename(course / "nbs" / "02_less.ipynb")
    nbformat.write(lesson(name="02_less"), course / "nbs" / "02_less.ipynb")
    write_release(lessons(course), out, "you/yours")
    assert set(contents(out)) == {"00_twice.ipynb", "02_less.ipynb", "README.md", "LICENSE", ".release.json"}
    assert not any(b"me/my-course" in data for data in contents(out).values())
    write_release(lessons(course), course / "new", "you/yours")
    assert contents(out) == contents(course / "new")


def test_a_file_that_was_changed_since_stops_everything(course):
    out = course / "out"
    write_release(lessons(course), out, "me/my-course")
    (out / "01_more.ipynb").write_text("a student's work")
    before = contents(out)
    with pytest.raises(CourseError, match="01_more.ipynb was changed since it was released.*nothing was written"):
        write_release(lessons(course), out, "you/yours")
    assert contents(out) == before


def test_a_file_of_a_persons_in_the_place_of_a_new_lesson_stops_everything(course):
    out = course / "out"
    write_release(lessons(course)[:1], out, "me/my-course")
    (out / "01_more.ipynb").write_text("mine")
    with pytest.raises(CourseError, match="01_more.ipynb was changed"):
        write_release(lessons(course), out, "me/my-course")
    assert (out / "01_more.ipynb").read_text() == "mine"


@pytest.mark.parametrize("out", ["nbs", slow("."), slow("README.md"), "LICENSE/out"])
def test_a_folder_with_other_things_is_refused(course, out):
    before = contents(course)
    done = command("release", out, "--repo", "me/my-course", cwd=course)
    assert done.returncode == 2 and done.stderr.startswith("coursekit: ") and "Traceback" not in done.stderr
    assert contents(course) == before


@pytest.mark.parametrize("already", [[], [".git/config"]])
def test_an_empty_folder_and_a_new_clone_are_filled(course, already):
    out = course / "out"
    (out / ".git").mkdir(parents=True) if already else out.mkdir()
    for name in already:
        (out / name).write_text("git")
    write_release(lessons(course), out, "me/my-course")
    assert {"00_twice.ipynb", "README.md", *already} <= set(contents(out))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_what_was_there(course, monkeypatch, earlier):
    out = course / "out"
    if earlier:
        write_release(lessons(course), out, "me/my-course")
    before, write = contents(course), Path.write_bytes

    def full(path, data):
        if path.name == "LICENSE":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CourseError, match="No space is left"):
        write_release(lessons(course), out, "you/yours")
    assert contents(course) == before and out.exists() == earlier


def test_a_release_that_was_killed_while_it_replaced_another_goes_on(course, monkeypatch):
    out, replace = course / "out", module.os.replace
    write_release(lessons(course), out, "me/my-course")

    def killed(part, path):
        if path.name == "README.md":
            raise KeyboardInterrupt
        replace(part, path)
    monkeypatch.setattr(module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_release(lessons(course), out, "you/yours")
    monkeypatch.undo()
    write_release(lessons(course), out, "you/yours")
    write_release(lessons(course), course / "new", "you/yours")
    assert contents(out) == contents(course / "new")
