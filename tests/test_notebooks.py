"The notebooks as they are committed: they run, they are clean, they export to the package, and their exercises can fail."
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, command
from torch import nn
from torchvision.models import get_model

from coursekit import finetune
from coursekit.ablate import changes
from coursekit.course import defaults, read_notebook
from coursekit.data import cifar10, interval, near_duplicates, parts_of, pets, squares
from coursekit.fetch import catalogue
from coursekit.functions import mlp
from coursekit.training import affine, colour, flip
from coursekit.workspace import show_table

NOTEBOOKS = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"))
LESSONS = [p for p in NOTEBOOKS if p.parent.name == "nbs"]


def names(path):
    return path.relative_to(ROOT / "nbs").with_suffix("").as_posix()


def test_the_kit_notebooks_run_at_tiny_scale(tmp_path):
    done = command("run", *(ROOT / "nbs" / "kit").glob("*.ipynb"), "--scale", "tiny", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr


def test_clean_and_export_leave_no_difference(tmp_path):
    for name in "nbs", "coursekit", "pyproject.toml", "settings.ini", "README.md":
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for tool in "nbdev-clean", "nbdev-export":
        subprocess.run([Path(sys.executable).with_name(tool)], cwd=tmp_path, check=True, capture_output=True)
    for path in [*NOTEBOOKS, *(ROOT / "coursekit").glob("*.py"), ROOT / "pyproject.toml"]:
        copy = tmp_path / path.relative_to(ROOT)
        assert copy.read_text() == path.read_text(), f"{path.name}: run make export"
    assert {p.name for p in (tmp_path / "coursekit").glob("*.py")} == {p.name for p in (ROOT / "coursekit").glob("*.py")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_a_committed_notebook(path):
    nb = read_notebook(path)
    assert defaults(nb, path.name)["scale"] == "quick"
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert any(c.outputs for c in code), "no output is committed: make refresh"
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert not [c.source for c in code if re.search(r"^(show_table|plt.show)\(", c.source, re.M) and not c.outputs], "a cell was edited and not run: make refresh"
    assert "widgets" not in nb.metadata and not [c for c in code if "injected-parameters" in c.metadata.get("tags", [])]
    assert not [o for c in code for o in c.outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert path.stat().st_size < 1.5e6
    assert not re.search(r"/(root|work|tmp|home)/", str([c.outputs for c in code])), "a path of somebody's machine is in the notebook"


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_a_committed_lesson_is_on_real_data(path):
    outputs = [str(o) for c in read_notebook(path).cells if c.cell_type == "code" for o in c.outputs]
    assert not any("stand-in for" in o or "not found; scale tiny" in o for o in outputs)
    assert any("image/png" in o or "image/jpeg" in o for o in outputs)


# Exercises: the solution passes, a blank answer and two wrong ones do not. By lesson, a pair for each exercise in order.
def pairs_instead_of_images(pairs, splits):
    part = parts_of(splits)
    return sum((part[i] == "test") != (part[j] == "test") for i, j in zip(pairs["first"], pairs["second"]))


WRONG = {
    "00_start": [(lambda ws: 15, lambda ws: ws.pick(tiny=1, quick=100, full=15))],
    "01_data": [
        (lambda accuracy, half_width: accuracy * (1 - accuracy) / half_width**2, lambda accuracy, half_width: 1.96**2 * accuracy / half_width**2),
        (pairs_instead_of_images, lambda pairs, splits: len({i for i in pairs["first"] if parts_of(splits)[i] == "test"})),
        (lambda table: table.index[table.task.str.contains("image classification") & (table.commercial != "no") & (table.size_gb <= 1)].tolist(),
         lambda table: table.index[(table.task == "image classification") & (table.commercial == "yes") & (table.size_gb <= 1)].tolist()),
    ],
    "02_baseline": [
        (lambda a, b, n: abs(a - b) < 0.06 * n, lambda a, b, n: interval(a, n)[0] <= interval(b, n)[1]),
        (lambda n_in, n_out, side: (n_out * 9 * n_in, side * side * n_out * 9 * n_in), lambda n_in, n_out, side: (n_out * (9 * n_in + 1), side * side * n_out * n_in)),
    ],
    "03_finetune": [
        (lambda name: 0.5, lambda name: -1.),
        (lambda: {"n_stages": 1, "batch_norm": (False, True)}, lambda: {"n_stages": 6, "batch_norm": (True, True)}),
        (lambda: [affine(15, 0.2, 15)], lambda: [flip, colour(0.3)]),
        (lambda k: 32 * k, lambda k: 32 * (k - 1)),
        (lambda before, after, head: sorted(k for k in before if k.endswith(("weight", "bias")) and not k.startswith(head) and not torch.equal(before[k], after[k])),
         lambda before, after, head: sorted(k for k in before if not k.startswith(head) and not torch.equal(before[k], after[k]))),
    ],
    "05_text": [
        (lambda probs, p: {i for i, q in enumerate(probs) if q >= 1 - p}, lambda probs, p: {i for i in range(len(probs)) if sum(q for q in probs if q >= probs[i]) <= p}),
        (lambda kind, n_in, n_hidden: {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * n_hidden * (n_in + n_hidden + 1), lambda kind, n_in, n_hidden: n_hidden * (n_in + n_hidden + 2)),
        (lambda: {f"{n} deep": {"n_layers": n, "n_hidden": 64 * n} for n in (1, 2, 3)}, lambda: {f"{n} deep": {"n_layers": n} for n in (1, 2)}),
        (lambda: {"plain": {"n_layers": 3}, "dropout": {"n_layers": 3, "dropout": 0.5}, "norm": {"n_layers": 3, "norm": True}},
         lambda: {f"{n} {d} {norm}": {"n_layers": n, "dropout": d, "norm": norm} for n, d, norm in ((1, 0, False), (3, 0.5, False), (3, 0, True), (3, 0.5, True))}),
    ],
    "04_ablate": [
        (lambda final: {"SGD": final, **{opt + str(wd): {**final, "opt": opt, "weight_decay": wd} for opt, wd in (("Adam", 0.), ("Adam", 0.01), ("AdamW", 0.01))}},  # Adam at SGD's rate
         lambda final: {"SGD": {**final, "weight_decay": 0.01}, **{opt + str(wd): {**final, "opt": opt, "lr": 1e-3, "weight_decay": wd} for opt, wd in (("Adam", 0.), ("Adam", 0.01), ("AdamW", 0.01))}}),
        (lambda final: {shape: {**final, "shape": shape} for shape in ("constant", "step decay", "warm-up, cosine", "restarts")},
         lambda final: {shape: {"shape": shape} for shape in ("constant", "step decay", "warm-up, cosine", "restarts", "one cycle")}),
        (lambda a, b: (np.mean(a) - np.mean(b), 1.96 * np.std(np.subtract(a, b), ddof=1) / len(a) ** 0.5), lambda a, b: (np.mean(a) - np.mean(b), 4.302653 * (np.var(a, ddof=1) + np.var(b, ddof=1)) ** 0.5 / len(a) ** 0.5)),
        (lambda strided, widths: {f"{w}{skip}": {**strided, "widths": w, "skip": skip} for w in (widths, [*widths, 2 * widths[-1]]) for skip in (None, "identity")},
         lambda strided, widths: {f"{w}{skip}": {**strided, "widths": w, "dropout": d, "skip": skip} for w, d in ((widths, strided["dropout"]), ([*widths, 2 * widths[-1]], [0.2, 0.3, 0.4, 0.4, 0.5])) for skip in (None, "projection")}),
        (lambda final: {name: {**final, "augment": [name]} for name in ("affine", "scaling", "rotation", "colour", "cutout", "mixup")},
         lambda final: {name: {**final, "dropout": 0., "augment": ["flip", "shift", name]} for name in ("affine", "scaling", "rotation", "colour", "cutout", "mixup")} | {"none": {}, "final": final}),
        (lambda final: {f"{norm}{bs}": {**final, "norm": norm, "bs": bs} for norm in (None, "batch", "layer", "instance", "group") for bs in (64, 8)},
         lambda final: {f"{norm}{bs}": {**final, "norm": norm, "bs": bs, "lr": lr} for norm in ("batch", "layer", "instance", "group") for bs, lr in ((64, 0.02), (8, 0.0025))}),
    ],
    "06_functions": [(lambda n_in, depth, most: most // (n_in + 2), lambda n_in, depth, most: max(1, int((most / depth) ** 0.5)))],
}


def lesson_03(ws):
    "What the exercises of 03_finetune find when they are reached."
    torch.manual_seed(0)
    model = get_model("shufflenet_v2_x0_5", weights=None, num_classes=5).eval()
    pre, splits = finetune.Pretrained("small", model, [0.5] * 3, [0.25] * 3, 32, list("abcde"), float("nan")), squares(pets(ws, size=32))
    return {**vars(finetune), "torch": torch, "get_model": get_model, "flip": flip, "affine": affine, "colour": colour, "pre": pre, "splits": splits, "n_epochs": 1, "extensions": False,
            "chosen": {}, "parts_of_runs": lambda s: finetune.folds(s, 2), "parts": finetune.folds(splits, 2)}


@pytest.mark.parametrize("path", LESSONS, ids=names)
def test_the_checks_of_exercises_can_fail(path, ws):
    space = {"ws": ws, "np": np, "pd": pd, "table": catalogue(), "parts_of": parts_of, "show_table": show_table, "interval": interval, "mlp": mlp, "nn": nn, "n_hidden": 8, "extensions": False}
    space = {"ws": ws, "np": np, "pd": pd, "table": catalogue(), "parts_of": parts_of, "show_table": show_table, "interval": interval, "mlp": mlp, "nn": nn, "n_hidden": 8, "extensions": False}
    if path.stem == "04_ablate":
        final = {"dropout": [0.2, 0.3, 0.4, 0.5], "norm": "batch", "augment": ["flip", "shift"]}
        strided = {**final, "order": "norm act pool drop", "head": "average", "pool": "strided"}
        space |= {"changes": changes, "final": final, "strided": strided, "small": {}, "extensions": False, "explore": lambda configurations, title: None}
    if path.stem == "01_data":
        space |= {"cifar": cifar10(ws), "pairs": near_duplicates(cifar10(ws))}
    if path.stem == "03_finetune":
        space |= lesson_03(ws)
    cells = [(tag, c.source) for c in read_notebook(path).cells for tag in ("exercise", "check", "solution") if tag in c.metadata.get("tags", [])]
    assert [tag for tag, _ in cells] == ["exercise", "check", "solution"] * len(WRONG[path.stem]), "an exercise without wrong answers"
    for k, wrong in enumerate(WRONG[path.stem]):
        for _, source in cells[3 * k:3 * k + 3]:
            exec(source, space)
        blank = space[re.search(r"def (\w+)", cells[3 * k][1])[1]]
        assert space["check"](space["solution"]) == "right" and len(wrong) == 2
        for answer in blank, *wrong:
            assert space["check"](answer).startswith("not yet: "), f"a wrong answer to exercise {k + 1} passed"
