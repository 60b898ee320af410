"The README's snippet for a student with a project, as it stands there."
import re

import numpy as np
import pytest
from conftest import ROOT, slow
from PIL import Image
from torchvision.models import resnet18

from coursekit import finetune
from coursekit.pretrained import Pretrained

SNIPPET = re.search(r"^%pip .*?\n\n(from coursekit.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)[1]


def picture(path, h, w, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([h, w, shade]).integers(shade, shade + 60,
                                                                  (h, w, 3)).astype(np.uint8)).save(path)


SIZES = {"unequal": lambda i: (130 + 7 * (i % 5), 200 - 9 * (i % 7)), "wide": lambda i: (140, 210),
         "smaller than asked for": lambda i: (60 + i, 40), "some tiny": lambda i: (9, 300) if i % 3 else (300, 9)}


@pytest.mark.parametrize("sizes", ["unequal", *map(slow, [*SIZES][1:])])
def test_it_ends_with_a_prediction_for_a_new_picture(sizes, tmp_path, monkeypatch, capsys):
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
    broken, sheet, *_ = shown
    assert len(shown) == 4 and (len(broken) > 0) == (sizes == "some tiny") and sheet.axes and space["learn"].epochs
    sheet.canvas.draw()
