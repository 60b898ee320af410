"The README: its snippet for a student with a project as it stands there, its lessons, and where its links lead."
import re

import numpy as np
import pytest
from conftest import ROOT, slow
from PIL import Image
from torchvision.models import resnet18

from coursekit import finetune
from coursekit.pretrained import Pretrained

README = (ROOT / "README.md").read_text()
SNIPPET = re.search(r"^%pip .*?\n\n(from coursekit.*?)^```", README, re.M | re.S)[1]


def picture(path, h, w, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([h, w, shade]).integers(shade, shade + 60,
                                                                  (h, w, 3)).astype(np.uint8)).save(path)


SIZES = {"unequal": lambda i: (130 + 7 * (i % 5), 200 - 9 * (i % 7)), "wide": lambda i: (140, 210),
         "smaller than asked for": lambda i: (60 + i, 40), "some tiny": lambda i: (9, 300) if i % 3 else (300, 9)}


@pytest.mark.parametrize("sizes", ["unequal", *map(slow, [*SIZES][1:])])
def test_it_ends_with_mistakes_accuracy_and_a_prediction_for_a_new_picture(sizes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for c, (name, n) in enumerate({"rare": 3, "cat": 9, "dog": 12, "$^$": 8}.items()):
        for i in range(n):
            picture(tmp_path / "my-images" / name / f"{i}.{'jpg' if i % 2 else 'png'}", *SIZES[sizes](i), 45 * c)
    (tmp_path / "my-images" / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 100)
    picture(tmp_path / "new.jpg", 150, 90, 92)
    monkeypatch.setattr(finetune, "pretrained", lambda name, ws: Pretrained(name, resnet18().eval(), [.5] * 3, [.2] * 3,
                                                                            224, [], .7))
    shown = []
    *before, last = SNIPPET.strip().splitlines()
    exec("\n".join(before).replace("fit_one_cycle(5", "fit_one_cycle(1"),
         space := {"display": shown.append, "__name__": "__main__"})
    name, number, probabilities = eval(last.split("#")[0], space)
    assert name == ["$^$", "cat", "dog", "rare"][int(number)] and len(probabilities) == 4 \
        and abs(float(probabilities.sum()) - 1) < 1e-5
    broken, sheet, twice, mistakes, judged = shown
    assert (len(broken) > 0) == (sizes == "some tiny") and "similarity" in twice and space["learn"].epochs
    assert 0 <= judged["low"] <= judged["accuracy"] <= judged["high"] <= 1 and judged["looks"] == 1
    assert judged["n"] == len(space["splits"].test) and "mistakes" in mistakes.get_suptitle()
    sheet.canvas.draw(), mistakes.canvas.draw()


LESSONS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))


def test_each_lesson_has_a_whole_row_with_its_badge_and_one_in_the_syllabus():
    rows = {row[1]: row for row in re.findall(r"^(\| \[(\w+)\]\(nbs/.*\|)$", README, re.M)}
    assert list(rows) == [path.stem for path in LESSONS]
    header = re.search(r"^\| lesson .*$", README, re.M)[0]
    for path in LESSONS:
        row = rows[path.stem][0]
        assert row.count(" |") == header.count(" |") and f"](nbs/{path.name})" in row
        assert re.search(rf"\(https://colab\.research\.google\.com/github/\S+/nbs/{path.name}\) \|$", row)
        assert (ROOT / "docs" / "syllabus.md").read_text().count(f"[{path.stem}](../nbs/{path.name})") == 1


PAGES = ["README.md", "CONTRIBUTING.md", "data_links.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    own = [link.split("#")[0] for link in links if not re.match("https?://|#", link)]
    assert not [link for link in own if not ((ROOT / page).parent / link).exists()]


def test_the_syllabus_names_sections_that_the_lessons_have():
    notebooks = {path.stem[:2]: path.read_text() for path in LESSONS}
    named = re.findall(r"\b([01]\d), ((?:\*[^*]+\*(?:, )?)+)", (ROOT / "docs" / "syllabus.md").read_text())
    assert len(named) > 10
    for number, sections in named:
        for section in re.findall(r"\*([^*]+)\*", sections):
            assert re.search(rf'"##+ {re.escape(section)}', notebooks[number]), f"{number} has no section {section!r}"
