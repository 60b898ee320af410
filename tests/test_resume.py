"What a fit is, fits that were killed or interrupted and go on, and what is refused because it would be lost."
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import cut_off, interrupt, made, net, quiet
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.learner import Metric
from torch import nn

from coursekit import checkpoints, resume
from coursekit.augment import random_translate
from coursekit.checkpoints import read_checkpoint
from coursekit.files import CourseError
from coursekit.learner import learner, optimizer
from coursekit.ledger import ledger
from coursekit.runs import record

# What a fit is

def test_a_finished_fit_is_loaded_and_fresh_trains_anew(place, capsys):
    s = made()
    first = quiet(learner(s, net(), place, bs=32), 2, 0.01)
    again = quiet(learner(s, net(), place, bs=32), 2, 0.01)
    assert "was finished before" in capsys.readouterr().out and again.recorder.values == first.recorder.values
    assert all(map(torch.equal, first.model.state_dict().values(), again.model.state_dict().values())) \
        and again.recorder.hps == first.recorder.hps
    quiet(learner(s, net(), place, bs=32, fresh=True), 2, 0.01)
    assert "was finished before" not in capsys.readouterr().out


CHANGES = {"lr": dict(lr_max=0.02), "epochs": dict(n_epoch=3), "seed": dict(seed=7),
           "optimizer": dict(opt=optimizer("AdamW")), "augmentation": dict(augment=[random_translate(2)]),
           "batch size": dict(bs=16), "precision": dict(precision="bf16"), "weight decay": dict(wd=0.1),
           "metrics": dict(metrics=[])}


@pytest.mark.parametrize("change", CHANGES)
def test_another_setting_is_another_fit(change, place, capsys):
    s = made()
    def run(lr_max=0.01, n_epoch=2, **kwargs):
        return quiet(learner(s, net(), place, **{"bs": 32, **kwargs}), n_epoch, lr_max)
    a, b = run(), run(**CHANGES[change])
    assert a.checkpoints.kept != b.checkpoints.kept and "finished before" not in capsys.readouterr().out


class Two(nn.Module):
    "The same weights, used in one order or the other."
    def __init__(self, swapped):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head, self.swapped = nn.Linear(768, 768), nn.Linear(768, 768), nn.Linear(768, 3), swapped

    def forward(self, x):
        x = x.flatten(1)
        one, two = (self.b, self.a) if self.swapped else (self.a, self.b)
        return self.head(two(one(x).relu()).relu())


@pytest.mark.parametrize("change", [lambda m: setattr(m[5], "p", 0.5), lambda m: m.__setitem__(2, nn.Tanh()),
                                    lambda m: m.insert(3, Shifted())])
def test_a_changed_model_is_a_new_fit_under_a_last_layer_of_zeros_too(change, place, capsys):
    s = made()
    fits = []
    for changed in False, True:
        model = net()
        nn.init.zeros_(model[-1].weight), nn.init.zeros_(model[-1].bias)
        if changed:
            change(model)
        fits.append(quiet(learner(s, model, place, bs=32), 1, 0.01))
    assert fits[0].checkpoints.kept != fits[1].checkpoints.kept and "finished before" not in capsys.readouterr().out


class Shifted(nn.Module):
    "A layer without weights."
    def forward(self, x):
        return x + 0.1


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize("what", ["labels", "images"])
def test_one_changed_label_or_pixel_is_a_new_fit(part, what, place, capsys):
    s = made()
    quiet(learner(s, net(), place, bs=32), 1, 0.01)
    i, changed = getattr(s, part)[-1], getattr(s, what).copy()
    changed[i] = (changed[i] + 1) % 3 if what == "labels" else 255 - changed[i]
    quiet(learner(replace(s, **{what: changed}), net(), place, bs=32, mean=[0.3] * 3, std=[0.2] * 3), 1, 0.01)
    quiet(learner(s, net(), place, bs=32, mean=[0.3] * 3, std=[0.2] * 3), 1, 0.01)
    assert "finished before" not in capsys.readouterr().out


def test_swapping_two_modules_is_a_new_fit_and_neither_is_lost(place, capsys):
    s = made()
    straight, swapped = (quiet(learner(s, Two(k), place, bs=32), 1, 1e-3) for k in (False, True))
    assert straight.checkpoints.kept != swapped.checkpoints.kept and "finished before" not in capsys.readouterr().out
    for k, before in (False, straight), (True, swapped):
        assert quiet(learner(s, Two(k), place, bs=32), 1, 1e-3).recorder.values == before.recorder.values
    assert capsys.readouterr().out.count("finished before") == 2


# What goes on

def test_a_callback_that_counts_goes_on_at_an_epochs_beginning(place):
    class Sums(Callback):
        def before_epoch(self):
            self.total = 0.
        def after_batch(self):
            if self.training:
                self.total += self.loss.item()
        def after_train(self):
            totals.append(self.total)
    s, opt, totals = made(), optimizer("SGD"), []
    whole = quiet(learner(s, net(), place, bs=32, opt=opt, cbs=Sums()), 3, 0.05)
    expected, totals = list(totals), []
    whole.checkpoints.forget()
    # the fifth is written at the end of an epoch
    cut_off(learner(s, net(), place, bs=32, opt=opt, cbs=Sums()), 5, 3, 0.05)
    quiet(learner(s, net(), place, bs=32, opt=opt, cbs=Sums()), 3, 0.05)
    assert totals == expected


def test_on_another_machine_it_says_so(place, capsys, monkeypatch):
    s = made()
    quiet(learner(s, net(), place, bs=32), 1, 0.01)
    monkeypatch.setattr(checkpoints, "cpu_name", lambda: "another CPU")
    quiet(learner(s, net(), place, bs=32), 1, 0.01)
    assert "resumed, not bit-identical" in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_not_used(place, capsys):
    s = made()
    learn = learner(s, net(), place, bs=32)
    cut_off(learn, 3, 2, 0.01)
    for slot in learn.checkpoints.local.glob("*.pt"):
        state = read_checkpoint(slot)
        checkpoints.write_checkpoint(slot, state | {"model": {"other.weight": torch.zeros(2)}})
    again = quiet(learner(s, net(), place, bs=32), 2, 0.01)
    assert "another model" in capsys.readouterr().out and len(again.recorder.values) == 2


def test_the_best_model_of_a_killed_fit_is_still_the_best(place):
    s, opt = made(), optimizer("SGD", momentum=0.9)
    best = lambda: SaveModelCallback(monitor="accuracy")
    whole = quiet(learner(s, net(), place, bs=32, opt=opt, cbs=best()), 4, 0.3)
    subprocess.run(["rm", "-rf", str(place.runs / "fits")], check=True)
    learn = learner(s, net(), place, bs=32, opt=opt, cbs=best())
    cut_off(learn, 14, 4, 0.3)
    again = quiet(learner(s, net(), place, bs=32, opt=opt, cbs=best()), 4, 0.3)
    assert all(map(torch.equal, again.model.state_dict().values(), whole.model.state_dict().values())) \
        and again.save_model.best == whole.save_model.best


@pytest.mark.parametrize("method, args", [("fit", (3, 0.05)), ("fit_flat_cos", (3, 0.05)), ("fit_sgdr", (2, 1, 0.05))])
@pytest.mark.parametrize("after", [4, 8])
def test_every_way_to_fit_goes_on(method, args, after, place, capsys):
    s, opt = made(), optimizer("SGD", momentum=0.9)
    def run(learn):
        with learn.no_bar(), learn.no_logging():
            getattr(learn, method)(*args)
        return learn
    whole = run(learner(s, net(), place, bs=32, opt=opt))
    whole.checkpoints.forget()
    learn = learner(s, net(), place, bs=32, opt=opt)
    cut_off(learn, after, *args, method=method)
    again = run(learner(s, net(), place, bs=32, opt=opt))
    assert "it goes on from there" in capsys.readouterr().out
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))
    assert torch.equal(torch.stack(again.recorder.losses), torch.stack(whole.recorder.losses)) \
        and again.recorder.lrs == whole.recorder.lrs


class Counted(Metric):
    "A metric that keeps something between batches."
    def reset(self): self.n = 0
    def accumulate(self, learn): self.n += len(learn.yb[0])
    value = property(lambda self: self.n)


def test_a_metric_that_keeps_something_does_not_make_an_interrupted_fit_another_one(place, tmp_path, capsys):
    (tmp_path / "mark").touch()
    learn = learner(made(), net(), place, bs=32, cbs=Cut(tmp_path / "mark"), metrics=[Counted()])
    for _ in range(2):
        try:
            quiet(learn, 5, 0.01)
        except ConnectionError:
            pass
    assert "it goes on from there" in capsys.readouterr().out and [e["counted"] for e in learn.epochs] == [60] * 5


class Cut(Callback):
    "The runtime is gone, once, while a file is there."
    def __init__(self, mark):
        self.mark = str(mark)

    def after_epoch(self):
        if self.epoch == 3 and os.path.exists(self.mark):
            os.remove(self.mark)
            raise ConnectionError("the runtime is gone")


def test_a_fit_goes_on_with_the_bar_on_and_keeps_its_figures_through_predictions(place, tmp_path, capsys):
    (tmp_path / "mark").touch()
    fit = lambda: learner(made(), net(), place, bs=32, cbs=Cut(tmp_path / "mark"))
    with pytest.raises(ConnectionError):
        fit().fit_one_cycle(5, 0.01)
    learn = fit()
    learn.fit_one_cycle(5, 0.01)
    assert "it goes on from there" in capsys.readouterr().out and len(learn.epochs) == 5
    before = [dict(e) for e in learn.epochs]
    learn.get_preds(), learn.validate()
    record(learn, "cut")
    row = ledger(place).iloc[0]
    assert learn.epochs == before and len(row.epochs) == 5
    assert row.accuracy == before[-1]["accuracy"] and row.valid_loss == before[-1]["valid_loss"]


# Ctrl-C

@pytest.mark.parametrize("note", ["history['last'] = float(preds.mean())", "history.setdefault('all', []).append(1)",
                                  "seen.append(len(y))"])
def test_what_a_metric_notes_does_not_stop_an_interrupted_fit_from_going_on(note, place, capsys):
    def metric():
        exec(f"def noted(preds, y):\n    {note}\n    return (preds.argmax(1) == y).float().mean()",
             space := {"history": {}, "seen": []})
        return space["noted"]
    s = made()
    whole = quiet(learner(s, net(), place, bs=32, metrics=[metric()]), 3, 0.05)
    whole.checkpoints.forget()
    learn = learner(s, net(), place, bs=32, metrics=[metric()])
    interrupt(learn, 8, 3, 0.05)
    quiet(learn, 3, 0.05)
    assert "it goes on from there" in capsys.readouterr().out and learn.recorder.values == whole.recorder.values


class Warming(nn.Module):
    "Counts its calls, and is the stricter for them."
    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, preds, y):
        self.n += torch.is_grad_enabled()
        return torch.nn.functional.cross_entropy(preds, y) * (1 + self.n / 10)


class Drifting:
    "An augmentation with random numbers of its own."
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, xb, yb):
        return xb * float(self.rng.uniform(0.5, 1.5)), yb


SCHEDULE = {"step": 0}


def scheduled(preds, y):
    SCHEDULE["step"] = SCHEDULE["step"] + torch.is_grad_enabled()
    return torch.nn.functional.cross_entropy(preds, y) * (1 + SCHEDULE["step"] / 10)


@pytest.mark.parametrize("make", [lambda: {"loss_func": Warming()}, lambda: {"augment": [Drifting()]},
                                  lambda: SCHEDULE.update(step=0) or {"loss_func": scheduled}])
def test_what_changes_while_it_trains_is_never_gone_on_from(make, place, capsys):
    fit = lambda: learner(made(), net(), place, bs=32, **make())
    with pytest.warns(UserWarning, match="changes while it trains, and checkpoints don't have that") as said:
        whole = quiet(fit(), 3, 0.05)
    assert len([w for w in said if "changes while" in str(w.message)]) == 1
    whole.checkpoints.forget()
    learn = fit()
    with pytest.warns(UserWarning, match="changes while it trains"):
        interrupt(learn, 8, 3, 0.05)
    assert not list(learn.checkpoints.local.glob("*.pt")), "nothing was kept that would be wrong"
    with pytest.warns(UserWarning, match="changes while it trains"):
        again = quiet(fit(), 3, 0.05)  # as after a kill
    assert "goes on" not in capsys.readouterr().out and again.recorder.values == whole.recorder.values
    quiet(fit(), 3, 0.05)
    assert "finished before" in capsys.readouterr().out


def test_mixup_of_fastai_keeps_its_checkpoints(place, capsys):
    s = made()
    learn = learner(s, net(), place, bs=32, cbs=MixUp(0.4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        interrupt(learn, 8, 3, 0.05)
    quiet(learner(s, net(), place, bs=32, cbs=MixUp(0.4)), 3, 0.05)
    assert "it goes on from there" in capsys.readouterr().out


def test_a_loss_that_counts_is_said_and_never_taken_for_the_same(place, capsys):
    steps = 0
    def loss(preds, y):
        nonlocal steps
        steps += 1
        return torch.nn.functional.cross_entropy(preds, y) * (1 + steps / 100)
    for _ in range(2):
        with pytest.warns(UserWarning, match="loss changes steps, which no checkpoint has, can't be described"):
            quiet(learner(made(), net(), place, bs=32, loss_func=loss), 1, 0.01)
    assert "finished before" not in capsys.readouterr().out


@pytest.mark.parametrize("opt", [optimizer("SGD", momentum=0.9), None])
def test_an_interrupted_learner_goes_on_by_fitting_again(opt, place, capsys):
    s = made()
    whole = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    whole.checkpoints.forget()
    learn = learner(s, net(), place, bs=32, opt=opt)
    interrupt(learn, 8, 3, 0.05)  # an epoch has four batches of training and two of validation
    quiet(learn, 3, 0.05)
    assert "was cut off in epoch 1, batch 2: it goes on from there" in capsys.readouterr().out
    assert learn.recorder.values == whole.recorder.values and all(map(torch.equal, learn.model.parameters(),
                                                                      whole.model.parameters()))


def test_an_interrupted_learner_with_other_settings_goes_on_from_its_weights(place, capsys):
    learn = learner(made(), net(), place, bs=32)
    interrupt(learn, 8, 3, 0.05)
    before = [p.clone() for p in learn.model.parameters()]
    quiet(learn, 1, 1e-7)
    said = capsys.readouterr().out
    assert "cut off" not in said and "a setting differs: it goes on from the weights as they are" in said \
        and all(torch.allclose(a, b, atol=1e-4) for a, b in zip(before, learn.model.parameters()))


# What is said and refused

def test_a_long_fit_says_how_long(place, capsys, monkeypatch):
    monkeypatch.setattr(resume, "gpu_name", lambda: "")
    learn = learner(made(), net(), place, bs=8)
    wait = learn.one_batch
    monkeypatch.setattr(learn, "one_batch", lambda i, b: (time.sleep(0.02), wait(i, b)))
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging():
        learn.add_cb(Impatient())
        learn.fit(200, 1e-3)
    assert re.search(r"about \d+ (s|min) on this CPU", capsys.readouterr().out)


class Impatient(Callback):
    def before_batch(self):
        if self.train_iter == 10:
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [lambda: MixedPrecision(), lambda: NonNativeMixedPrecision(),
                                  lambda: GradientAccumulation(64), lambda: type("Mine", (MixedPrecision,), {})()])
def test_callbacks_that_would_lose_the_fit_are_refused_at_once(make, place):
    for attempt in (lambda: learner(made(), net(), place, cbs=make()),
                    lambda: learner(made(), net(), place).add_cb(make()),
                    lambda: learner(made(), net(), place).fit(1, cbs=make())):
        with pytest.raises(CourseError, match="precision=|gradients between batches"):
            attempt()
    assert not list(place.runs.glob("fits/*/final.pt"))


def test_a_loss_that_is_no_number_stops_the_fit(place):
    learn = learner(made(), net(), place, bs=32, opt=optimizer("SGD"))
    with pytest.raises(CourseError, match="loss is (nan|inf).* in epoch 0, batch [0-9]+: the usual causes are a "
                                          "learning rate"):
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e30)


def test_a_callback_whose_state_cannot_be_kept_is_refused(place):
    class Mine(Callback):
        def before_fit(self):
            self.seen = {1, 2}
    with pytest.raises(CourseError, match="callback Mine keeps 'seen', which can't be saved"):
        quiet(learner(made(), net(), place, cbs=Mine()), 1)


# Real kills

RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from conftest import made, net, quiet
from coursekit import checkpoints
from coursekit.augment import random_hflip, random_translate
from coursekit.learner import learner, optimizer
from coursekit.workspace import setup
name, precision, torn = sys.argv[2], sys.argv[3], sys.argv[4] == "torn"
ws = setup("tiny")
opt = {"SGD": optimizer("SGD", momentum=0.9, nesterov=True), "Adam": None,
       "AdamW": optimizer("AdamW", weight_decay=0.1)}[name]
learn = learner(made(), net(), ws, bs=8, opt=opt, augment=[random_hflip, random_translate(2)], precision=precision)
learn.checkpoint_seconds = 0
if torn:  # die in the middle of the 20th checkpoint
    write, n = checkpoints.torch.save, [0]
    def save(state, box):
        write(state, box)
        n[0] += 1
        if n[0] == 20:
            with open(learn.checkpoints.local / "half.part", "wb") as f:
                f.write(box.getvalue()[:1000])
            os.kill(os.getpid(), 9)
    checkpoints.torch.save = save
print("begun", flush=True)
quiet(learn, 6, 0.02)
print("done", flush=True)
r = learn.recorder
torch.save({"weights": [p.detach() for p in learn.model.state_dict().values()], "values": [list(v) for v in r.values],
            "losses": torch.stack(list(r.losses)).as_subclass(torch.Tensor),
            "hps": [list(map(float, v)) for v in r.hps.values()]}, sys.argv[5])
"""


def run(folder, out, name, precision, torn=""):
    env = {**os.environ, "COURSEKIT_CACHE": str(folder / "cache"), "COURSEKIT_RUNS": str(folder / "runs")}
    child = subprocess.Popen([sys.executable, "-c", RUN, os.path.dirname(__file__), name, precision, torn or "whole",
                              str(out)],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    assert child.stdout.readline() == "begun\n"
    return child


# 8 random kills and 2 in a write
KILLS = [("SGD", "fp32", 2, ""), ("Adam", "fp32", 2, ""), ("AdamW", "fp32", 1, "torn"), ("SGD", "bf16", 2, "torn"),
         ("AdamW", "bf16", 1, "")]


@pytest.mark.slow
@pytest.mark.parametrize("name, precision, kills, torn", KILLS)
def test_a_killed_run_ends_as_the_one_that_nobody_killed(name, precision, kills, torn, tmp_path):
    child = run(tmp_path / "a", tmp_path / "whole.pt", name, precision)
    began = time.monotonic()
    assert "done\n" in iter(child.stdout.readline, "")
    seconds = time.monotonic() - began
    assert child.wait(timeout=120) == 0
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    seed, moments, hit = random.SystemRandom().randrange(10_000), [], 0
    if torn:
        assert run(tmp_path / "b", tmp_path / "out.pt", name, precision, torn).wait(timeout=120) == -signal.SIGKILL
    while hit < kills and len(moments) < 15:
        moments.append(random.Random(seed + len(moments)).uniform(0.1, 0.8) * seconds / kills)
        child = run(tmp_path / "b", tmp_path / "out.pt", name, precision)
        time.sleep(moments[-1])
        child.kill()
        child.communicate()
        if list(tmp_path.glob("b/runs/fits/*/final.pt")):  # too late: once more from the beginning
            subprocess.run(["rm", "-rf", str(tmp_path / "b")], check=True)
            hit = 0
        elif list(tmp_path.glob("b/cache/fits/*/[ab].pt")):
            hit += 1
    said = run(tmp_path / "b", tmp_path / "out.pt", name, precision).communicate(timeout=120)[0]
    again = torch.load(tmp_path / "out.pt", weights_only=True)
    assert hit == kills and "it goes on from there." in said, (seed, moments, said)
    assert all(map(torch.equal, whole["weights"], again["weights"])), seed
    assert whole["values"] == again["values"] and torch.equal(whole["losses"], again["losses"]) \
        and whole["hps"] == again["hps"], seed


# Users side by side

FIT = """
import os, sys
sys.path.insert(0, %r)
import torch
torch.set_num_threads(1)
from conftest import cut_off, made, net, quiet
from coursekit import ledger
from coursekit.learner import learner, optimizer
from coursekit.workspace import setup
ledger._version = str  # what it reads may be closed to the user
user, umask, root, cache, home = sys.argv[1:]
def fit():
    return learner(made(), net(), setup("tiny"), bs=32, opt=optimizer("SGD"))
os.environ.update(COURSEKIT_CACHE=home + "/first", COURSEKIT_RUNS=home + "/first")
quiet(fit(), 1, 0.05)  # what is imported late may be closed to the user
os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
os.environ.update(COURSEKIT_CACHE=cache, COURSEKIT_RUNS=home + "/runs")
if %r == "killed":
    cut_off(fit(), 3, 3, 0.05)
else:
    print(quiet(fit(), 3, 0.05).epochs[-1]["train_loss"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("owner, second", [(0, 4002), (4001, 4001)])
def test_several_users_of_one_cache_train_side_by_side(owner, second, users):
    as_user, cache = users
    os.chown(cache, owner, -1)
    fit = lambda user, how: as_user(FIT % (os.path.dirname(__file__), how), user)
    fit(4001, "killed")
    others, own = fit(second, "whole"), fit(4001, "whole")
    assert ("it goes on from there" in others) == (second == 4001) and ("finished before" if second == 4001
                                                                        else "it goes on from there") in own
    assert others.split()[-1] == own.split()[-1]
