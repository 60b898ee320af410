"What decides how a function behaves, and so what a fit is: whatever it reads counts, and what can't be told is said."
import enum
import functools
import importlib
import os
import subprocess
import sys
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial, wraps
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import made, net, quiet
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.learner import Metric
from fastai.metrics import F1Score
from fastai.optimizer import Adam, Lamb, OptimWrapper
from torch import nn
from torchvision.transforms import v2

from coursekit import describe as module
from coursekit.augment import random_hflip, random_translate
from coursekit.describe import describe
from coursekit.learner import learner


def key(x):
    return describe(it=x).key


@dataclass
class Settings:
    smooth: float = 0.1
    sizes: tuple = (1, 2)


class Kind(enum.Enum):
    FEW = 1
    MANY = 2


class Weighted:
    __slots__ = ("w",)

    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        return x * self.w

    @property
    def twice(self):
        return self.w * 2

    @staticmethod
    def plain(x):
        return x


GLOBALS = {
    "a dict in a dict": {"loss": {"smooth": 0.1}}, "a list of arrays": [np.zeros(3), np.ones(3)],
    "a tensor": torch.zeros(2), "a set": {"a", "b"}, "a deque": deque([1]),
    "a dataclass": Settings(), "a namespace": SimpleNamespace(a=SimpleNamespace(b=1)),
    "a table": pd.DataFrame({"w": [1., 2.]}), "an object with slots": Weighted(2.),
    "a member of an enumeration": Kind.FEW, "a bound method": Weighted(2.).__call__,
    "a partial": functools.partial(F.cross_entropy, label_smoothing=0.1),
    "a cached function": functools.cache(lambda x: x + 1), "a generator of numbers": np.random.default_rng(0),
    "torch's generator": torch.Generator().manual_seed(1), "None": None,
    "a transform": v2.Compose([v2.RandomApply([v2.ColorJitter(0.1)], p=0.5)]), "a class": Settings,
}
CHANGED = {
    "a dict in a dict": {"loss": {"smooth": 0.6}}, "a list of arrays": [np.zeros(3), np.array([1., 1., 2.])],
    "a tensor": torch.tensor([0., 1.]), "a set": {"a", "c"}, "a deque": deque([2]),
    "a dataclass": Settings(sizes=(1, 3)), "a namespace": SimpleNamespace(a=SimpleNamespace(b=2)),
    "a table": pd.DataFrame({"w": [1., 3.]}), "an object with slots": Weighted(3.),
    "a member of an enumeration": Kind.MANY, "a bound method": Weighted(3.).__call__,
    "a partial": functools.partial(F.cross_entropy, label_smoothing=0.6),
    "a cached function": functools.cache(lambda x: x + 2), "a generator of numbers": np.random.default_rng(1),
    "torch's generator": torch.Generator().manual_seed(2), "None": 0,
    "a transform": v2.Compose([v2.RandomApply([v2.ColorJitter(0.1)], p=0.6)]),
    "a class": type("Settings", (Settings,), {"smooth": 0.3}),
}


def readers(x):
    "Ways for a function to read something."
    space = {"x": x, "__name__": "__main__"}
    exec("def by_name(p): return use(p, x)\n"
         "def inside(p): return [lambda: x for _ in p]\n"
         "def through(p): return by_name(p)\n"
         "class Holder:\n    def __call__(self, p): return x\n", space)
    return {"by name": space["by_name"], "in an inner function": space["inside"],
            "in a function that it calls": space["through"], "in a method": space["Holder"](),
            "in a closure": (lambda v: lambda p: v)(x), "as a default": lambda p, v=x: v,
            "as a keyword's default": lambda p, *, v=x: v, "as an attribute": SimpleNamespace(f=[{"v": x}])}


@pytest.mark.parametrize("what", GLOBALS)
def test_whatever_a_function_reads_counts(what):
    import copy

    same = copy.deepcopy(GLOBALS[what]) if what not in ("a cached function", "a class") else GLOBALS[what]
    before, again, after = (readers(x) for x in (GLOBALS[what], same, CHANGED[what]))
    for way in before:
        assert key(before[way]) == key(again[way]) != key(after[way]), way
        assert not describe(it=before[way]).unknown


def test_of_a_class_or_a_module_only_what_is_read_counts(tmp_path, monkeypatch):
    class Config:
        smooth, n_epochs = 0.1, 5

    space = SimpleNamespace(smooth=0.1, n_epochs=5)
    for holder in Config, space:
        loss = lambda p: p * holder.smooth  # noqa: B023 - what it reads is the test
        before = key(loss)
        holder.n_epochs = 10
        assert key(loss) == before
        holder.smooth = 0.2
        assert key(loss) != before


@pytest.mark.parametrize("use", ["import {0}\ndef f(x): return {0}.scale(x)",
                                 "from {0} import scale\ndef f(x): return scale(x)",
                                 "def f(x):\n    import {0}\n    return {0}.scale(x)",
                                 "def f(x):\n    from {0} import scale as s\n    return s(x)",
                                 "import {0} as mine\ndef f(x): return [mine.deep.scale(v) for v in x]"])
def test_an_edited_file_counts_through_every_way_to_import_it(use, tmp_path, monkeypatch):
    name = f"own_{abs(hash(use)) % 10**9}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}_deep.py").write_text("FACTOR = 2\ndef scale(x): return x * FACTOR\n")
    (tmp_path / f"{name}.py").write_text(f"import {name}_deep as deep\nOTHER = 1\ndef scale(x): return deep.scale(x)\n")

    def now():
        for n in f"{name}_deep", name:
            sys.modules.pop(n, None)
        importlib.invalidate_caches()
        exec(use.format(name), space := {"__name__": "__main__"})
        return key(space["f"])

    before = now()
    (tmp_path / f"{name}.py").write_text(f"import {name}_deep as deep\nOTHER = 22\ndef scale(x): return "
                                         f"deep.scale(x)\n")
    assert now() == before, "what it does not read"
    (tmp_path / f"{name}_deep.py").write_text("FACTOR = 35\ndef scale(x): return x * FACTOR\n")
    assert now() != before


@pytest.mark.parametrize("note", ["notes.append(x)", "notes.extend([x])", "kept.add(1)", "table.update(a=1)",
                                  "queue.appendleft(x)"])
def test_what_is_only_added_to_does_not_count(note):
    space = {"notes": [], "kept": set(), "table": {}, "queue": deque()}
    exec(f"def f(x):\n    {note}\n    return x", space)
    before = key(space["f"])
    space["f"](3)
    assert any(space[n] for n in ("notes", "kept", "table", "queue")) and key(space["f"]) == before
    exec("def g(x): return len(notes), kept, table, queue", space)
    assert key(space["g"]) != key({**space, "g": None}["f"])
    read = key(space["g"])
    space["notes"].append(1)
    assert key(space["g"]) != read, "but what is read does"


@pytest.mark.parametrize("make, kind", [(lambda: open(os.devnull, "w"), "TextIOWrapper"),
                                        (lambda: (i for i in [1]), "generator"), (lambda: threading.Lock(), "lock"),
                                        (lambda: {"deep": [SimpleNamespace(f=open(os.devnull))]}, "TextIOWrapper")])
def test_what_cannot_be_told_is_said_by_name(make, kind):
    secret = make()

    def loss(x):
        return x, secret
    found = describe(augment=[loss])
    assert len(found.unknown) == 1 \
        and found.unknown[0].startswith("test_what_cannot_be_told_is_said_by_name.<locals>.loss reads secret") \
            and kind in found.unknown[0]


def test_what_is_inside_itself_ends():
    ring = [1]
    ring.append(ring)
    a, b = SimpleNamespace(n=1), SimpleNamespace(n=2)
    a.other, b.other = b, a
    assert key(ring) == key(ring) and key(a) != key(b) and not describe(a=a, ring=ring).unknown


def test_libraries_go_by_name_and_the_kit_by_its_code():
    assert module._is_library("torch.nn.functional") and module._is_library("json") \
        and not module._is_library("coursekit.learner") and not module._is_library("__main__")
    assert key(random_hflip) != key(random_translate(4)) != key(random_translate(2)) \
        and key(random_translate(4)) == key(random_translate(4))
    assert key(np.random.rand) == (np.random.rand(5), key(np.random.rand))[1], "what a fit seeds is not what it reads"


SAME = """
import sys
sys.path.insert(0, sys.argv[1])
from test_describe import GLOBALS, key, readers
print([key(way) for what, x in GLOBALS.items() for way in readers(x).values()])
"""


def test_the_same_in_another_process_whatever_its_hash_seed():
    said = {subprocess.run([sys.executable, "-c", SAME, os.path.dirname(__file__)],
                           env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
                           check=True).stdout
            for seed in ("1", "2")}
    assert len(said) == 1 and len(said.pop()) > 1000


def test_a_model_is_its_numbers_and_its_layers():
    torch.manual_seed(0)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert key(one) == key(one) != key(other) and key(one.state_dict()) != key(other.state_dict())


class Chain(list):
    "A list that does something."
    factor = 1

    def __call__(self, x):
        return x * self.factor


class Names(dict):
    def __missing__(self, key):
        return 0


class Level(float):
    def __call__(self, x):
        return x


@pytest.mark.parametrize("make, change", [(lambda: Chain([1, 2]), lambda x: setattr(x, "factor", 2)),
                                          (lambda: Chain([1, 2]), lambda x: x.append(3)),
                                          (lambda: Names(a=1), lambda x: x.update(a=2)),
                                          (lambda: Level(2.), lambda x: setattr(x, "unit", "m"))])
def test_a_container_of_ones_own_is_what_it_holds_and_what_it_does(make, change):
    x = make()
    before = key(x)
    assert key(make()) == before
    change(x)
    assert key(x) != before


def test_the_code_of_a_container_counts(monkeypatch):
    before = key(Chain([1])), key(Names()), key(Level(1.))
    for cls, name in (Chain, "__call__"), (Names, "__missing__"), (Level, "__call__"):
        monkeypatch.setattr(cls, name, lambda self, x: x + 1)
    assert all(a != b for a, b in zip(before, (key(Chain([1])), key(Names()), key(Level(1.)))))


class AttrDict(dict):
    "A dict whose keys are attributes, and which answers to any name."
    __getattr__ = dict.get


class Strict(dict):
    def __getattr__(self, name):
        return self[name]


@pytest.mark.parametrize("kind", [AttrDict, Strict])
def test_a_dict_that_answers_to_any_name(kind):
    c = kind(w=1, deep=kind(v=2))

    def loss(x):
        return x * c.w + c.deep.v
    before = describe(it=loss)
    assert not before.unknown and describe(it=loss) == before
    c["deep"]["v"] = 3
    assert describe(it=loss) != before


def test_classes_of_torch_are_no_tensors():
    def loss(x):
        return isinstance(x, (torch.Tensor, nn.Parameter, Tensor))
    Tensor = torch.Tensor
    assert not describe(it=loss).unknown and not describe(it=[torch.Tensor, nn.Parameter]).unknown


def test_what_stands_for_missing_keys_counts():
    from collections import defaultdict

    assert key(defaultdict(lambda: 1.)) != key(defaultdict(lambda: 100.)) \
        and key(defaultdict(int)) == key(defaultdict(int)) != key(defaultdict(float))


def test_the_names_of_arguments_count():
    space = {}
    exec("def one(x, a, b): return x * a - b\ndef two(x, b, a): return x * b - a\ndef one_(x, *, a=1): return x * "
         "a\ndef two_(x, a=1): return x * a", space)
    swapped = [functools.partial(space[f], a=2, b=3) for f in ("one", "two")]
    swapped[0].func.__qualname__ = swapped[1].func.__qualname__ = "f"
    space["one_"].__qualname__ = space["two_"].__qualname__ = "g"
    assert swapped[0](5) != swapped[1](5) and key(swapped[0]) != key(swapped[1]) \
        and key(space["one_"]) != key(space["two_"])


LAZY = """
import sys
from coursekit.describe import describe
def g(x):
    from {0} import something
    import {0}.deep as deep
    return something(x), deep.other(x)
before = describe(g=g).key
if sys.argv[1] == "import":
    import {0}
print(before == describe(g=g).key, describe(g=g).unknown)
"""


@pytest.mark.parametrize("library", ["scipy", "sklearn", "tarfile", "nowhere_at_all"])
def test_a_library_is_one_whether_it_was_imported_or_not(library):
    how = "import" if library != "nowhere_at_all" else "not"
    said = subprocess.run([sys.executable, "-c", LAZY.format(library), how], capture_output=True, text=True,
                          check=True).stdout
    assert said == "True ()\n"


def test_a_large_graph_takes_no_time():
    import time

    space = {}
    for k in reversed(range(60)):
        exec(f"def f{k}(x): return [{', '.join(f'f{j}(x)' for j in range(k + 1, 60))}]", space)
    began = time.monotonic()
    before = key(space["f0"])
    exec("def f59(x): return [x]", space)
    assert key(space["f0"]) != before and time.monotonic() - began < 5


@pytest.mark.parametrize("body", ["global steps\n    steps += 1\n    return x * steps", "global steps\n    steps = "
                                                                                        "steps + x\n    return x"])
def test_what_a_function_changes_and_reads_is_said(body):
    space = {"steps": 0}
    exec(f"def loss(x):\n    {body}", space)
    assert describe(it=space["loss"]).unknown == ("loss changes steps, which no checkpoint has,",)


def test_what_a_function_only_notes_is_not_read():
    space = {"notes": {}, "last": None}
    exec("def loss(x):\n    global last\n    last = x\n    notes['last'] = x\n    notes[x] = 1\n    return x", space)
    before = describe(it=space["loss"])
    space["loss"](3)
    assert space["last"] == 3 and len(space["notes"]) == 2 and describe(it=space["loss"]) == before \
        and not before.unknown


# What a fit reads

@pytest.mark.parametrize("one, other", [
    (partial(torch.nn.functional.cross_entropy, label_smoothing=0.1),
     partial(torch.nn.functional.cross_entropy, label_smoothing=0.6)),
    (lambda x, y: torch.nn.functional.cross_entropy(x, y), lambda x, y: torch.nn.functional.multi_margin_loss(x, y)),
    (torch.nn.functional.cross_entropy, torch.nn.functional.multi_margin_loss),
    (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=torch.tensor([1., 2., 3.]))),
], ids=["partial", "lambda", "function", "module"])
def test_another_loss_is_another_fit(one, other, place, capsys):
    for k, loss in enumerate((one, other, one)):
        quiet(learner(made(), net(), place, bs=32, loss_func=loss), 1, 0.01)
        assert ("nothing is trained" in capsys.readouterr().out) == (k == 2)


def test_an_edited_augmentation_metric_or_callback_is_another_fit(place, capsys):
    def with_code(code):
        space = {"__name__": "lesson", "torch": torch, "Callback": Callback}
        exec(code, space)
        return {k: space[k] for k in ("augment", "metric", "cb")}
    plain = """
def inner(x): return x.sin()
def augment(xb, yb): return inner(xb), yb
def metric(preds, y): return (preds.argmax(1) == y).float().mean()
class cb(Callback):
    def before_batch(self): self.learn.xb = (self.xb[0] * 1.0,)
"""
    edits = [("", ""), ("sin", "cos"), (".mean()", ".sum()"), ("1.0", "0.5"), ("before_batch", "after_batch"), ("", "")]
    for k, (a, b) in enumerate(edits):
        made_of = with_code(plain.replace(a, b) if a else plain)
        quiet(learner(made(), net(), place, bs=32, augment=[made_of["augment"]], metrics=[made_of["metric"]],
                      cbs=[made_of["cb"]()]), 1, 0.01)
        assert ("nothing is trained" in capsys.readouterr().out) == (k == 5), (a, b)


SMOOTH = {"by": [0.1]}


class Scaled(Callback):
    "Keeps what it is given under a name of its own."
    def __init__(self, factor):
        self.by = {"factor": factor}

    def before_batch(self):
        self.learn.xb = (self.xb[0] * self.by["factor"],)


class Twice(nn.Module):
    "A layer that reads a global of its file."
    def forward(self, x):
        return x * SMOOTH["by"][0]


class OwnSGD(torch.optim.SGD):
    decay = 1.

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] *= self.decay
        return super().step(closure)


def smoothed(preds, y):
    return torch.nn.functional.cross_entropy(preds, y, label_smoothing=SMOOTH["by"][0])


def wrapped(f):
    @wraps(f)
    def inner(*args):
        return f(*args)
    return inner


def to_change(monkeypatch):
    "Something that a fit reads, deep inside, and how a student changes it."
    change = lambda: monkeypatch.setitem(SMOOTH, "by", [0.6])
    return {
        "a dict that a loss reads": ({"loss_func": smoothed}, change),
        "a wrapped loss": ({"loss_func": wrapped(smoothed)}, change),
        "a partial of a method": ({"loss_func": partial(Losses().loss, 1)}, change),
        "a metric": ({"metrics": [smoothed]}, change),
        "a callback's own attribute": (lambda k: {"cbs": Scaled(0.5 + k)}, None),
        "a layer without weights": (lambda k: {}, change),
        "a list of augmentations in an object": (lambda k: {"augment": [OneAfterAnother([v2.Identity(),
            v2.GaussianNoise(sigma=0.1 + k)])]}, None),
            "an optimizer's class": ({"opt": partial(OptimWrapper, opt=OwnSGD)},
                                     lambda: monkeypatch.setattr(OwnSGD, "decay", 0.5)),
        "fastai's optimizers": (lambda k: {"opt": (ranger, Lamb)[k]}, None),
        "an argument of fastai's metric": (lambda k: {"metrics": [F1Score(average=("macro", "micro")[k])]}, None),
        "fastai's callback": (lambda k: {"cbs": MixUp((0.1, 0.9)[k])}, None),
        "a callback that keeps its own state": (lambda k: {"cbs": Own(0.5 + k)}, None),
        "what stands for a missing key": (lambda k: {"loss_func": partial(weighed, defaultdict(lambda: 1. + k))}, None),
        "a dict with attributes": (lambda k: {"loss_func": partial(weighed, Attributes(w=1. + k))}, None),
        "a metric's own attribute": (lambda k: {"metrics": [Threshold(0.1 + 0.8 * k)]}, None),
        "a share that is drawn": ({"augment": [drawn]}, change),
    }


class Own(Scaled):
    "Says itself what its state is."
    def __init__(self, strength):
        self.by = {"factor": strength}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Attributes(dict):
    __getattr__ = dict.get


class Threshold(Metric):
    "The share of sure answers."
    def __init__(self, least):
        self.by = least

    def reset(self):
        self.sure = []

    def accumulate(self, learn):
        self.sure += (learn.pred.softmax(1).amax(1) > self.by).float().tolist()

    value = property(lambda self: sum(self.sure) / len(self.sure))


def weighed(weights, preds, y):
    return torch.nn.functional.cross_entropy(preds, y) * (weights.w if isinstance(weights, Attributes)
                                                          else weights["w"])


class OneAfterAnother:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, xb, yb):
        for step in self.steps:
            xb = step(xb)
        return xb, yb


class Losses:
    def loss(self, weight, preds, y):
        return weight * smoothed(preds, y)


def ranger(params, lr, **kwargs):
    return Adam(params, lr, **kwargs)


def drawn(xb, yb):
    return torch.where(torch.rand_like(xb) < SMOOTH["by"][-1], 0., xb), yb


@pytest.mark.parametrize("what", ["a dict that a loss reads", "a wrapped loss", "a partial of a method", "a metric",
                                  "a callback's own attribute", "a layer without weights",
                                  "a list of augmentations in an object",
                                  "an optimizer's class", "fastai's optimizers", "a share that is drawn",
                                  "an argument of fastai's metric", "fastai's callback", "a callback that keeps its "
                                                                                         "own state",
                                  "what stands for a missing key", "a dict with attributes",
                                  "a metric's own attribute"])
def test_what_a_fit_reads_deep_inside_makes_it_another(what, place, capsys, monkeypatch):
    settings, change = to_change(monkeypatch)[what]
    def run(k, fresh=False):
        model = nn.Sequential(*net(), Twice()) if "layer" in what else net()
        kwargs = settings(k) if callable(settings) else settings
        return quiet(learner(made(), model, place, bs=32, fresh=fresh, **kwargs), 1, 0.01).epochs[-1]
    before, again = run(0), run(0)
    assert "finished before" in capsys.readouterr().out and before == again, "the same is the same"
    change and change()
    after = run(1)
    assert "finished before" not in capsys.readouterr().out and after == run(1, fresh=True) != before


def test_a_fit_that_cannot_be_described_trains_anew_and_says_why_once(place, tmp_path, capsys):
    log = open(tmp_path / "log.txt", "w")
    def noted(preds, y):
        log.write(".")
        return smoothed(preds, y)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"trains anew, whatever was kept: .*noted reads log.write "
                                             r"\(TextIOWrapper.* can't be described") as said:
            quiet(learner(made(), net(), place, bs=32, loss_func=noted), 1, 0.01)
        assert len([w for w in said if "trains anew" in str(w.message)]) == 1
    assert "finished before" not in capsys.readouterr().out and len(list(place.runs.glob("fits/*/final.pt"))) == 1, \
        "it takes the place of the one before"
