"What several files of tests share: folders of their own, what is slow to make and made once, small data and networks."
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import types
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coursekit import workspace
from coursekit.report import machine_info

ROOT = Path(__file__).resolve().parents[1]
slow = partial(pytest.param, marks=pytest.mark.slow)  # a case that make test leaves out
PARAMETERS = 'scale = "quick"  # why\nlr = 0.1\nn = 3\nextensions = False'


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    "One cache for the session, so that stand-ins are drawn once."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path, cache):
    "Keep tests out of the user's folders."
    monkeypatch.setenv("COURSEKIT_CACHE", str(cache))
    monkeypatch.setenv("COURSEKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSEKIT_DATA", raising=False)
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "no-drive")


@pytest.fixture
def ws():
    "A workspace at tiny scale without data."
    return workspace.setup("tiny")


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A workspace with a cache of its own."
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    return workspace.setup("tiny")


@pytest.fixture(scope="session")
def pre():
    "A pretrained ResNet, with random weights and random statistics, so that each would be missed."
    import torch
    from torchvision.models import get_model

    from coursekit.pretrained import Pretrained

    torch.manual_seed(0)
    model = get_model("resnet18", weights=None, num_classes=5)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2)
    return Pretrained("resnet18", model.eval(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 224, list("abcde"),
                      float("nan"))


@pytest.fixture
def colab(monkeypatch, tmp_path):
    "A stand-in for google.colab whose drive mounts at a temporary place; `errors` are raised first."
    place = tmp_path / "drive"
    module = types.ModuleType("google.colab")
    for name in "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE":
        monkeypatch.delenv(name, raising=False)
    module.errors, module.mounts = [], []

    def mount(path, force_remount=False):
        module.mounts.append(force_remount)
        if module.errors:
            raise module.errors.pop(0)
        (Path(path) / "MyDrive").mkdir(parents=True, exist_ok=True)

    module.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    sys.modules["google"].colab = module
    monkeypatch.setattr(workspace, "DRIVE", place)
    monkeypatch.setattr(workspace.time, "sleep", lambda s: None)
    monkeypatch.delenv("COURSEKIT_RUNS")
    return module


@pytest.fixture
def real(tmp_path):
    "A small CIFAR-10 in the public folder layout, as a user's own data folder, and a workspace on it."
    from coursekit.datasets import CIFAR10

    rng = np.random.default_rng(0)
    for part, n in ("train", 10), ("test", 2):
        for c in CIFAR10:
            folder = tmp_path / "mine" / "cifar10" / part / c
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{c}_{i}.png")
    return workspace.setup("quick", data=tmp_path / "mine")


@pytest.fixture(scope="session")
def photos():
    "Pictures with large soft shapes, no two alike, as uint8 (60, 32, 32, 3)."
    rng = np.random.default_rng(0)
    return np.stack([np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((32, 32),
        Image.Resampling.BICUBIC)) for _ in range(60)])


def bright(n=60, side=32, n_classes=3):
    "Images whose brightness says their class."
    from coursekit.splits import Splits

    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    images = (rng.integers(0, 60, (n, side, side, 3)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    k = np.arange(n)
    return Splits("made", images, labels, list("xyz")[:n_classes], [f"{i}.png" for i in k], k[:n // 2],
                  k[n // 2:3 * n // 4], k[3 * n // 4:], f"made-{n}-{side}")


def made(n=240, n_classes=3):
    "Images of 16 pixels a side whose brightness says their class, in random order."
    from coursekit.splits import Splits

    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    images = (rng.integers(0, 120, (n, 16, 16, 3)) + 40 * labels[:, None, None, None]).astype(np.uint8)
    k = np.arange(n)
    return Splits("made", images, labels, list("abcdef")[:n_classes], [f"{i}.png" for i in k], k[:n // 2],
                  k[n // 2:3 * n // 4], k[3 * n // 4:], "made")


def with_masks(n=96):
    "Images and a mask of their bright pixels."
    s = made(n)
    return replace(s, labels=(s.images[..., 0] > 90).astype(np.uint8), classes=["dark", "bright"], fingerprint="masks")


def half_labeled(n=160):
    "A quarter of the training images with labels, the rest without."
    s = made(n)
    few = s.train[::4]
    return replace(s, train=few, unlabeled=np.setdiff1d(s.train, few))


def net(n_classes=3):
    "A small network with batch norm and dropout, with the same weights each time."
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Dropout(0.3), nn.Linear(32, n_classes))


def quiet(learn, *args, **kwargs):
    "Fit by one cycle without a word; gives the learner."
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(*args, **kwargs)
    return learn


def cut_off(learn, after, *args, method="fit_one_cycle"):
    "Stop a fit after some checkpoints, as a crash would."
    class Crash(Exception):
        pass
    write, n = learn._write, [0]
    def counted(*a):
        write(*a)
        n[0] += 1
        if n[0] == after:
            raise Crash
    learn._write, learn.checkpoint_seconds = counted, 0
    with pytest.raises(Crash), learn.no_bar(), learn.no_logging():
        getattr(learn, method)(*args)


def interrupt(learn, after, *args, fit=quiet):
    "Ctrl-C in a fit, when so many batches are done."
    one_batch, n = learn.one_batch, [0]
    def counted(*a):
        if n[0] == after:
            raise KeyboardInterrupt
        n[0] += 1
        one_batch(*a)
    learn.one_batch, learn.checkpoint_seconds = counted, 0
    with pytest.raises(KeyboardInterrupt):
        fit(learn, *args)
    del learn.one_batch


@pytest.fixture
def make(tmp_path):
    "Make a notebook with a parameters cell and the given code cells."
    def make(name, *sources, parameters=PARAMETERS, kernel="python3"):
        cells = [nbformat.v4.new_markdown_cell("# A title")]
        if parameters:
            cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        nb = nbformat.v4.new_notebook(cells=[*cells, *map(nbformat.v4.new_code_cell, sources)])
        nb.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
        return path
    return make


def command(*args, env=None, **kwargs):
    "Run coursekit's own command line in a process."
    return subprocess.run([Path(sys.executable).with_name("coursekit"), *map(str, args)], capture_output=True,
                          text=True,
                          env={**os.environ, "COLUMNS": "200", **(env or {})}, timeout=180, **kwargs)


def marked(mark):
    "The living processes whose environment carries a mark."
    import psutil

    from coursekit.execute import KERNEL_MARK

    found = []
    for p in psutil.process_iter():
        try:
            if mark in p.environ().get(KERNEL_MARK, ""):
                found.append(p)
        except psutil.Error:
            pass
    return found


@pytest.fixture
def mark():
    "A mark that all kernels of a test carry; at the end none of them is left."
    mark = f"test-{uuid.uuid4().hex}"
    yield mark
    assert marked(mark) == []


def report(out):
    "{name: what report.json says of a notebook}."
    return {n["name"]: n for n in json.loads((out / "report.json").read_text())["notebooks"]}


def report_of(*records):
    "A report of these records of notebooks."
    return {"started": "2026-01-31T09:00:00", "seconds": 1, "jobs": 1, "parameters": {}, "machine": machine_info(),
            "passed": 0, "looks": [], "notebooks": list(records)}


def runs_of(values, name="a"):
    "Runs with these final accuracies, a seed each, as the ledger would have them."
    epochs = lambda v: [{"accuracy": v - 0.1, "train_accuracy": 0.5}, {"accuracy": v, "train_accuracy": 0.9}]
    return pd.DataFrame([{"name": name, "seed": k, "accuracy": v, "train_accuracy": 0.9, "epochs": epochs(v),
                          "right": {"valid": np.arange(1000) < round(1000 * v)}} for k, v in enumerate(values)])


def folder_of(root, **counts):
    "Pictures in folders: `a__b=3` makes three in a/b; no two alike."
    for n, (names, count) in enumerate(counts.items()):
        folder = root / names.replace("__", "/").replace("_0_", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.random.default_rng([n, i]).integers(0, 256, (8, 8, 3), np.uint8)).save(folder
                / f"{i}.png")
    return root


def nifti(path, voxels, code, order="<", slope=0.0, inter=0.0, offset=352):
    "A NIfTI-1 file as the format's authors describe it, byte by byte."
    header = struct.pack(f"{order}i36x8h14xhh2x8ff", 348, voxels.ndim, *voxels.shape, *[1] * (7 - voxels.ndim), code,
                         8 * voxels.itemsize, *[1.0] * 8, offset)
    header += struct.pack(f"{order}ff", slope, inter)
    header = header.ljust(344, b"\0") + b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(header + bytes(offset - 348) + body)


AS_USER = """
import os, sys, tempfile
from coursekit import images
from coursekit.datasets import cifar10
from coursekit.splits import image_folder
from coursekit.files import CourseError, short_path
from coursekit.workspace import setup
user, umask, root, cache, home = sys.argv[1:]
def settle(cache, runs):
    os.environ.update(COURSEKIT_CACHE=cache, COURSEKIT_RUNS=runs)
with tempfile.TemporaryDirectory() as room:  # what is imported late may be closed to the user
    settle(room, room)
    cifar10(setup("tiny")), image_folder(root, setup("tiny"), size=8)
os.umask(int(umask, 8))
os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
"""


@pytest.fixture
def users(tmp_path):
    "Run code as other users on a cache folder that all may write in; gives (as_user, cache)."
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can be several users")
    with tempfile.TemporaryDirectory() as room:  # pytest's own folders are closed to others
        os.chmod(room, 0o755)
        root, cache = folder_of(Path(room) / "own", cat=4, dog=4), Path(room) / "cache"
        cache.mkdir()
        os.chmod(cache, 0o1777)

        def as_user(code, user, umask="022"):
            home = Path(room) / str(user)
            home.mkdir(exist_ok=True)
            os.chown(home, user, user)
            done = subprocess.run([sys.executable, "-c", code, str(user), umask, root, cache, home],
                                  capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stdout
        yield as_user, cache
