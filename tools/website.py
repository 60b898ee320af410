"""Put together what Sphinx makes the site from, in the folder that is named: pages and notebooks as they are committed,
cards of the lessons, and the index of names. `make site` runs it; it needs no package."""
import base64
import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import api
from stamp import facts

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_links.md", "CITATION.cff"]
FOLDERS = {"nbs": "*.ipynb", "nbs/kit": "*.ipynb", "docs": "*.md", ".github": "*.[jp][pn]g", "docs/site": "*.md"}
COLAB = "https://colab.research.google.com/github/{}/blob/v{}/nbs/{}.ipynb"
FOLDED = {"solution": ("hide-cell", "the solution"), "parameters": ("hide-input", "the settings of this notebook")}


# A notebook as the site shows it

def cell_as_shown(cell):
    "A code cell without nbdev's comments: what they say, and what is folded, is in its tags."
    lines = cell["source"].splitlines(keepends=True)
    directives = {word for line in lines for word in re.findall(r"^#\|\s*(\w+)", line)}
    tags = [*cell["metadata"].get("tags", []), *sorted(directives & {"export", "exporti"})]
    shown = {**cell["metadata"], "tags": tags}
    for fold, what in [FOLDED[tag] for tag in tags if tag in FOLDED]:
        shown |= {"tags": [*tags, fold],
                  "mystnb": {"code_prompt_show": f"Show {what}", "code_prompt_hide": f"Hide {what}"}}
    return {**cell, "metadata": shown,
            "source": "".join(line for line in lines if not re.match(r"#\|\s*\w", line)).strip("\n")}


def target(cell):
    "A cell that nobody sees, which the index of names can point at."
    return {"cell_type": "markdown", "id": f"to-{cell['id']}", "metadata": {}, "source": f"(cell-{cell['id']})="}


def as_shown(text,   # a notebook's JSON
             number  # of the notebook, for its title
             ):      # JSON
    "A notebook as the site shows it."
    nb, cells = json.loads(text), []
    for cell in nb["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            for output in cell["outputs"]:  # a table is there as HTML, too
                output.get("data", {}).pop("application/vnd.coursekit.table+json", None)
            cell = cell_as_shown(cell)
            cells += [target(cell)] * bool({"export", "exporti"} & {*cell["metadata"]["tags"]})
        cells.append(cell)
    cells[0]["source"] = re.sub("^# ", f"# {number} · ", cells[0]["source"])
    nb["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return json.dumps({**nb, "cells": cells})


# What is read from the notebooks and the README

@cache
def notebook(path # in nbs, without .ipynb
             ):   # (title with its number, first paragraph, first picture: (ending, bytes) or None)
    "What cards and index say of a notebook."
    cells = json.loads((ROOT / "nbs" / f"{path}.ipynb").read_text(encoding="utf-8"))["cells"]
    title, _, about = "".join(cells[0]["source"]).partition("\n\n")
    pictures = [(mime.removeprefix("image/"), base64.b64decode("".join(data)))
                for cell in cells for output in cell.get("outputs", [])
                for mime, data in output.get("data", {}).items() if mime in ("image/png", "image/jpeg")]
    number = Path(path).name[:2]
    return title.replace("# ", f"{number} · "), about.split("\n\n")[0], next(iter(pictures), None)


def section(text, heading):
    "What stands under a heading of the second level."
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def rows(readme):
    "The README's table of lessons: {notebook: {column: cell}}."
    head, _, *lines = [[cell.strip() for cell in line.strip(" |").split(" | ")]
                       for line in section(readme, "Lessons").splitlines() if line.startswith("|")]
    return {re.match(r"\[(\w+)\]", cells[0])[1]: dict(zip(head, cells)) for cells in lines}


def card(path, row, out):
    "A lesson's card: its first picture, what one does in it, how long that takes, and the way into Colab."
    title, _, picture = notebook(path)
    image = []
    if picture:
        file = out / "cards" / f"{path}.{picture[0]}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture[1])
        image = [f":img-top: cards/{file.name}"]
    others = [f"{name}: {cell}" for name, cell in row.items() if name not in ("lesson", "what you do", "serves")]
    return "\n".join([f"::::{{grid-item-card}} {title}", f":link: nbs/{path}", ":link-type: doc", *image, "",
                      row["what you do"], "", ":::{card-footer}", " · ".join(others), "",
                      f"[Open in Colab]({COLAB.format(*facts(), path)})", ":::", "::::", ""])


def cards(readme, out):
    "The grid of all lessons in nbs/, with their rows of the README."
    return "\n".join([":::::{grid} 1 2 2 2", ":gutter: 3", "", *(card(p, row, out) for p, row in rows(readme).items()),
                      ":::::", ""])


def people(readme):
    "How each of the README's people starts, behind a tab each."
    _, *parts = re.split(r"^\*\*(An? [^*]+)\*\*", section(readme, "How you start"), flags=re.M)
    return "\n".join(["::::{tab-set}", *(f":::{{tab-item}} {who}\n\n**{who}**{text}\n:::\n"
                                         for who, text in zip(parts[::2], parts[1::2])), "::::", ""])


def put_together(out):
    "Write all that the site is made from into a new folder."
    shutil.rmtree(out, ignore_errors=True)
    for folder, files in FOLDERS.items():
        to = out if folder == "docs/site" else out / folder
        to.mkdir(parents=True, exist_ok=True)
        for path in (ROOT / folder).glob(files):
            shutil.copy2(path, to)
    for name in PAGES:
        shutil.copy2(ROOT / name, out)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = api.modules(ROOT / "coursekit")
    written = {"cards.txt": cards(readme, out), "people.txt": people(readme),
               "names.txt": api.index(found, lambda path: notebook(path)[0]),
               **{f"api/{m.name}.md": api.page(m, found, *notebook(m.notebook)[:2]) for m in found}}
    for name, text in written.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    put_together(Path(sys.argv[1]))
