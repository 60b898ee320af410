"The site: the index of names read from code, notebooks as they are shown, cards; none of it needs Sphinx."
import importlib
import inspect
import json
import re
import sys

import nbformat
import pytest
from conftest import ROOT
from fastcore.docments import docments

sys.path.insert(0, str(ROOT / "tools"))
import api
import website

MODULES = api.modules(ROOT / "coursekit")
SOURCE = '''__all__ = ["SIZE", "Point", "Shape", "area"]

# %% ../nbs/kit/99_shapes.ipynb #aa11
from .files import CourseError

SIZE = 3  # of everything

def area(shape,  # any
         # in pixels,
         # or in none
         unit="px",
         n=1, m=2,  # the last of a line has its comment
         *, exact=True, **more
        ) -> float:  # above 0
    """How large:
    `shape` has it."""
    return 1.

# %% ../nbs/kit/99_shapes.ipynb #bb22
@dataclass(frozen=True)
class Point:
    "A place."
    unit: ClassVar[str] = "px"  # no argument
    x: float        # to the right
    y: float = 0.   # up

    @property
    def far(self):
        "How far it is."

    def quiet(self):
        return 1

class Shape:
    def __init__(self, a,  # in pixels
                 b=(1, 2)):
        pass
    def turned(self, by  # degrees
               ) -> "Shape":  # a new one
        "Turn it."
'''


# Names, read without an import

@pytest.fixture
def read():
    return api.entries(SOURCE)


def test_a_function_has_its_comments_and_the_cell_that_defines_it(read):
    area = read["area"]
    assert area.signature == "(shape, unit='px', n=1, m=2, *, exact=True, **more) -> float"
    assert area.parameters == {"shape": "any", "unit": "in pixels, or in none",
                               "m": "the last of a line has its comment"}
    assert (area.says, area.returns, area.notebook, area.cell) == ("How large: `shape` has it.", "above 0",
                                                                    "kit/99_shapes", "aa11")


def test_a_class_has_its_fields_or_arguments_and_the_methods_that_say_something(read):
    point, shape = read["Point"], read["Shape"]
    assert point.signature == "(x: float, y: float = 0.0)" and point.parameters == {"x": "to the right", "y": "up"}
    assert [(m.kind, m.name) for m in point.members] == [("property", "far")]
    assert shape.signature == "(a, b=(1, 2))" and shape.parameters == {"a": "in pixels"} and shape.cell == "bb22"
    assert [(m.name, m.signature, m.parameters, m.returns) for m in shape.members] == [
        ("turned", "(by) -> 'Shape'", {"by": "degrees"}, "a new one")]


def test_a_constant_has_its_value_and_what_is_not_defined_there_is_not_there(read):
    assert read["SIZE"].signature == " = 3" and read["SIZE"].says == "of everything"
    assert {*read} == {"SIZE", "area", "Point", "Shape"} and api.imported(SOURCE) == {"CourseError": "files"}


def test_markdown_finds_nothing_in_a_comment_but_code():
    assert api.plain("x_1 * {2} of `a_b*`") == r"x\_1 \* \{2\} of `a_b*`"
    assert ":param unit: in pixels, or in none" in api.definition(api.entries(SOURCE)["area"])


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_it_reads_what_docments_reads(module):
    there = importlib.import_module(f"coursekit.{module.name}")
    for entry in module.own:
        f = inspect.unwrap(getattr(there, entry.name))
        if entry.kind == "function" and inspect.isfunction(f):
            read = docments(f, returns=True, args_kwargs=True)
            said = {name: " ".join(comment.split()) for name, comment in read.items() if comment}
            assert said.pop("return", "") == entry.returns and said == entry.parameters, entry.name
            assert entry.says == " ".join((inspect.getdoc(f) or "").split())


def test_each_public_name_is_in_the_index_and_leads_to_a_cell():
    cells = {name: {c["id"] for c in json.loads(path.read_text())["cells"]}
             for path in (ROOT / "nbs").rglob("*.ipynb")
             for name in [path.relative_to(ROOT / "nbs").with_suffix("").as_posix()]}
    own = {(m.name, e.name) for m in MODULES for e in m.own}
    for module in MODULES:
        offered = api.offered((ROOT / "coursekit" / f"{module.name}.py").read_text())
        assert {*offered} <= {e.name for e in module.own} | {*module.handed}
        assert all((home, name) in own for name, home in module.handed.items())
        assert all(e.cell in cells[e.notebook] for e in module.own)


# Notebooks as they are shown

def shown(*cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title\n\nText."), *cells])
    return nbformat.reads(website.as_shown(nbformat.writes(nb), "07"), as_version=4).cells


def test_the_comments_of_nbdev_become_tags_and_what_is_exported_can_be_pointed_at():
    cell = nbformat.v4.new_code_cell("#| default_exp data\n#| export\nimport os\n\nx = 1  #| no comment of nbdev's")
    title, target, code = shown(cell)
    assert title.source == "# 07 · A title\n\nText." and target.source == f"(cell-{cell.id})="
    assert code.source == "import os\n\nx = 1  #| no comment of nbdev's" and code.metadata.tags == ["export"]
    assert shown(nbformat.v4.new_code_cell("#| exporti\nx"))[-1].metadata.tags == ["exporti"]


def test_solutions_and_parameters_are_folded_and_nothing_else():
    _, settings, solution, check = shown(*[nbformat.v4.new_code_cell("x", metadata={"tags": [tag]})
                                           for tag in ("parameters", "solution", "check")])
    assert settings.metadata.tags == ["parameters", "hide-input"]
    assert solution.metadata.tags == ["solution", "hide-cell"]
    assert solution.metadata.mystnb["code_prompt_show"] == "Show the solution"
    assert check.metadata.tags == ["check"] and check.source == "x"


def test_outputs_stay_and_a_table_is_not_shown_twice():
    data = {"application/vnd.coursekit.table+json": {}, "text/html": "<table></table>", "text/plain": "a"}
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data)])
    assert shown(cell)[-1].outputs[0].data == {"text/html": "<table></table>", "text/plain": "a"}


# What is put together

@pytest.fixture(scope="module")
def source(tmp_path_factory):
    website.put_together(out := tmp_path_factory.mktemp("site") / "source")
    return out


def test_each_lesson_has_a_card_with_its_picture_and_the_way_into_colab(source):
    cards = (source / "cards.txt").read_text()
    for path in (ROOT / "nbs").glob("*.ipynb"):
        card = re.search(rf"\{{grid-item-card\}} {path.stem[:2]} · .*?\n::::\n", cards, re.S)[0]
        image = source / re.search(r":img-top: (\S+)", card)[1]
        assert image.stat().st_size > 1000 and f":link: nbs/{path.stem}\n" in card
        assert f"/nbs/{path.name})" in card and website.COLAB.format(*website.facts(), path.stem) in card


def test_each_person_of_the_readme_has_a_tab(source):
    people = (source / "people.txt").read_text()
    assert len(re.findall(r"\{tab-item\}", people)) == 3 and "**An instructor** begins with" in people


def test_notebooks_and_pages_are_there_as_they_are_committed(source):
    for path in [*(ROOT / "nbs").rglob("*.ipynb"), *(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"]:
        assert (source / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert {p.stem for p in (source / "api").glob("*.md")} == {m.name for m in MODULES}
