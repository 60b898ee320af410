"Training: batches, precision, what a fit is, and runs that are killed and go on."
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import replace
from functools import partial, wraps

import numpy as np
import pytest
import torch
from conftest import made, net, quiet
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import lr_find  # noqa: F401 - adds Learner.lr_find
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Metric
from fastai.metrics import F1Score
from fastai.optimizer import Adam, Lamb, OptimWrapper
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from coursekit import checkpoints, resume
from coursekit import precision as precision_module
from coursekit.augment import cutout, mixup, random_hflip, random_translate
from coursekit.checkpoints import read_checkpoint
from coursekit.files import CourseError
from coursekit.learner import channel_stats, learner, optimizer
from coursekit.ledger import ledger, results
from coursekit.loaders import ArrayLoader
from coursekit.runs import record, run_grid

# Batches and augmentation

def test_a_batch_depends_on_seed_epoch_and_number_alone():
    s = made()
    a, b = (ArrayLoader(s.images, s.labels, s.classes, bs=32, augment=[random_hflip, random_translate(2), cutout(4),
                                                                       mixup(3)], shuffle=True, seed=1)
            for _ in range(2))
    a.epoch = b.epoch = 3
    list(a), torch.rand(5)
    for (x, y), (_, (x2, y2)) in zip(list(a)[4:], b.batches(4)):
        assert torch.equal(x, x2) and torch.equal(y, y2)
    before = torch.get_rng_state()
    next(iter(a))
    assert torch.equal(before, torch.get_rng_state()), "augmentation must not use up the model's random numbers"


def test_every_image_comes_once_an_epoch_and_epochs_differ():
    s = made()
    dl = ArrayLoader(np.arange(240, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), s.labels,
                     s.classes, bs=50, shuffle=True)
    seen = [torch.cat([x[:, 0, 0, 0] for x, _ in dl]).mul(255).round().int().tolist()]
    dl.epoch = 1
    seen.append(torch.cat([x[:, 0, 0, 0] for x, _ in dl]).mul(255).round().int().tolist())
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(240)) and seen[0] != seen[1] and len(dl) == 5


def test_shift_moves_and_reflects():
    x = torch.arange(25.).view(1, 1, 5, 5).repeat(200, 3, 1, 1)
    out, _ = random_translate(2)(x, None)
    padded = torch.nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")
    crops = [padded[0, :, i:i + 5, j:j + 5] for i in range(5) for j in range(5)]
    found = [next((k for k, c in enumerate(crops) if torch.equal(c, o)), None) for o in out]
    assert None not in found and len(set(found)) == 25


def test_cutout_blanks_a_square_and_flip_mirrors():
    x = torch.ones(500, 3, 16, 16)
    blank = (cutout(6)(x, None)[0][:, 0] == 0).sum((1, 2))
    assert blank.max() == 36 and blank.min() >= 9
    x = torch.arange(16.).view(1, 1, 1, 16).repeat(400, 3, 2, 1)
    turned = (random_hflip(x, None)[0][:, 0, 0, 0] == 15).float().mean()
    assert 0.4 < turned < 0.6


def test_mixup_keeps_the_sum_of_the_labels():
    x, y = mixup(3)(torch.rand(64, 3, 4, 4), torch.arange(64) % 3)
    assert y.shape == (64, 3) and torch.allclose(y.sum(1), torch.ones(64)) and (y.max(1).values >= 0.5).all()


# What fastai promises

def test_predictions_and_interpretation(place):
    s = made()
    learn = quiet(learner(s, net(), place, bs=32, augment=[random_hflip]), 4, 0.03)
    with learn.no_bar():
        preds, targets = learn.get_preds()
        assert torch.equal(targets, torch.as_tensor(s.labels[s.valid])) \
            and torch.allclose(preds.sum(1), torch.ones(len(preds)), atol=1e-5)
        train_preds, train_targets = learn.get_preds(ds_idx=0)
        assert torch.equal(train_targets, torch.as_tensor(s.labels[s.train])), "in the order of the data"
        interp = ClassificationInterpretation.from_learner(learn)
        matrix = interp.confusion_matrix()
    assert matrix.sum() == len(s.valid) and matrix.trace() == (preds.argmax(1) == targets).sum()
    losses, idx = interp.top_losses(5)
    worst = torch.nn.functional.nll_loss(preds.log(), targets, reduction="none")
    assert torch.allclose(losses, worst.topk(5).values, atol=1e-4) \
        and set(idx.tolist()) == set(worst.topk(5).indices.tolist())


def test_lr_find_writes_nothing(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = learner(made(), net(), place, bs=16)
    before = [p.clone() for p in learn.model.parameters()]
    with learn.no_bar():
        found = learn.lr_find(num_it=30, show_plot=False)
    assert 0 < found.valley < 10 and all(map(torch.equal, before, learn.model.parameters())) \
        and not (place.runs / "fits").exists() and not os.path.exists("models")


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16),
                                              ("fp16", torch.float16)])
def test_precision_is_used_and_left_again(precision, dtype, place):
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    learn = quiet(learner(made(), nn.Sequential(nn.Flatten(), Spy(768, 3)), place, bs=32, precision=precision), 1, 1e-3)
    assert seen[-1] == dtype and seen.count(dtype) >= 6 and not torch.is_autocast_enabled("cpu") \
        and learn.precision == precision


def test_an_exception_leaves_no_autocast_behind(place):
    class Broken(nn.Linear):
        def forward(self, x):
            if len(x) > 16:
                raise RuntimeError("broken")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="broken"):
        quiet(learner(made(), nn.Sequential(nn.Flatten(), Broken(768, 3)), place, bs=32, precision="bf16"), 1)
    assert not torch.is_autocast_enabled("cpu")


class NoHalf(nn.Linear):
    "Like an LSTM on a CPU without bf16: it fails forwards, or backwards only, or in use only."
    def __init__(self, where):
        super().__init__(768, 3)
        self.where = where

    def forward(self, x):
        out = super().forward(x)
        if torch.is_autocast_enabled("cpu") and self.where == "forwards":
            raise RuntimeError("could not create a primitive descriptor")
        if torch.is_autocast_enabled("cpu") and self.where == "backwards" and out.requires_grad:
            out.register_hook(no_gradient)
        return out


def no_gradient(grad):
    raise RuntimeError("not implemented for 'BFloat16'")


@pytest.mark.parametrize("where", ["forwards", "backwards"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("asked", ["as an argument", "as fastai has it"])
def test_a_precision_that_this_machine_cannot_do_is_said_and_full_precision_used(where, precision, asked, place, capsys,
    monkeypatch):
    model = nn.Sequential(nn.Flatten(), NoHalf(where))
    learn = learner(made(), model, place, bs=32, **({"precision": precision} if asked == "as an argument" else {}))
    if asked != "as an argument":
        monkeypatch.setattr(precision_module, "best_precision", lambda device: precision)
        learn = getattr(learn, f"to_{precision}")()
    said = capsys.readouterr().out
    assert f"can't train this model in {precision} (" in said and said.endswith("it trains in fp32.\n") \
        and learn.precision == "fp32"
    quiet(learn, 1, 1e-3)
    with learn.no_bar():
        assert len(learn.get_preds()[0]) == len(made().valid)


@pytest.mark.parametrize("has", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("ask", ["fp16", "bf16", "fp32"])
def test_fastais_names_for_a_precision(ask, has, place, capsys, monkeypatch):
    monkeypatch.setattr(precision_module, "best_precision", lambda device: has)
    s, taken = made(), ask if ask in (has, "fp32") else has
    learn = learner(s, net(), place, bs=32)
    capsys.readouterr()
    assert getattr(learn, f"to_{ask}")() is learn and learn.precision == taken
    assert capsys.readouterr().out == ("" if taken == ask else f"{ask} is for GPUs and would make this CPU many times "
                                                               f"slower: it trains in {has}. precision='{ask}' "
                                                               f"insists.\n")
    quiet(learn, 1, 0.01)
    assert len(learn.epochs) == 1
    again = learner(s, net(), place, bs=32, **({"precision": ask} if taken == ask else {}))
    assert quiet(again, 1, 0.01).checkpoints.kept == learn.checkpoints.kept, "the same fit under either name"


@pytest.mark.parametrize("when", ["before a fit", "after a fit", "after another fit"])
def test_weights_that_were_saved_are_there_for_another_learner(when, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    s, learn = made(), quiet(learner(made(), net(), place, bs=32), 1, 0.02)
    learn.save("mine")
    if when == "after another fit":
        quiet(learn, 1, 0.01)
    other = learner(s, net(), place, bs=32)
    if when == "after a fit":
        quiet(other, 2, 0.03)
    other.load("mine")
    saved = torch.load(place.runs / "models" / "mine.pth", weights_only=False)
    assert all(map(torch.equal, saved["model"].values(), other.model.state_dict().values())) \
        and not (tmp_path / "models").exists()
    with pytest.raises(CourseError, match=r"There is no .*none.pth: learn.save\('none'\) writes it"):
        other.load("none")


@pytest.mark.parametrize("augment, says",
                         [(lambda xb, yb: xb, "returns a Tensor"), (lambda xb, yb: None, "returns a NoneType"),
                          (lambda xb, yb: (xb, yb, 1), "returns a tuple")])
def test_an_augmentation_that_returns_something_else_is_a_sentence(augment, says, place):
    with pytest.raises(CourseError, match=says + ": a function .xb, yb. -> .xb, yb. is expected"):
        quiet(learner(made(), net(), place, bs=32, augment=[augment]), 1, 0.01)


@pytest.mark.parametrize("part", [2, -1, "test"])
def test_the_test_part_is_not_predicted_by_the_way(part, place):
    with pytest.raises(CourseError, match="evaluate_test.learn. of coursekit.baseline"):
        learner(made(), net(), place, bs=32).get_preds(ds_idx=part)
    with pytest.raises(CourseError, match="The splits are 'my-images': what image_folder"):
        learner("my-images", net(), place)


@pytest.mark.parametrize("make", [lambda: MixedPrecision(), lambda: NonNativeMixedPrecision(),
                                  lambda: GradientAccumulation(64), lambda: type("Mine", (MixedPrecision,), {})()])
def test_callbacks_that_would_lose_the_fit_are_refused_at_once(make, place):
    for attempt in (lambda: learner(made(), net(), place, cbs=make()),
                    lambda: learner(made(), net(), place).add_cb(make()),
                    lambda: learner(made(), net(), place).fit(1, cbs=make())):
        with pytest.raises(CourseError, match="precision=|gradients between batches"):
            attempt()
    assert not list(place.runs.glob("fits/*/final.pt"))


# New pictures

def bright(n, h=16, w=16, seed=5):
    "Pictures of the brightest class of `made`."
    return (np.random.default_rng(seed).integers(0, 120, (n, h, w, 3)) + 80).astype(np.uint8)


@pytest.fixture
def trained(place):
    return quiet(learner(made(), net(), place, bs=32), 6, 0.03)


def answers(learn, items):
    with learn.no_bar():
        preds, targets = learn.get_preds(dl=learn.dls.test_dl(items))
    assert targets is None
    return preds


def test_new_pictures_are_answered_whatever_they_come_as(trained, tmp_path):
    x = bright(5)
    (tmp_path / "new" / "below").mkdir(parents=True)
    for k, im in enumerate(x):
        Image.fromarray(im).save(tmp_path / "new" / ("below/" * (k == 4)) / f"{k}.png")
    paths = [tmp_path / "new" / f"{k}.png" for k in range(4)] + [tmp_path / "new" / "below" / "4.png"]
    expected = answers(trained, x)
    assert (expected.argmax(1) == 2).all() and len(expected) == 5
    with torch.no_grad():
        dl = trained.dls.valid
        xb = (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - dl.mean) / dl.std
        assert torch.allclose(trained.model.eval()(xb).softmax(1), expected, atol=1e-5)
    forms = {"a list of arrays": list(x), "paths": paths, "strings": [str(p) for p in paths],
             "a folder": tmp_path / "new", "a folder's name": str(tmp_path / "new"),
             "Pillow's images": [Image.open(p) for p in paths],
             "bytes": [p.read_bytes() for p in paths], "open files": [open(p, "rb") for p in paths],
             "of all kinds": [x[0], paths[1], str(paths[2]), Image.open(paths[3]), paths[4].read_bytes()],
             "an object array": np.array([*[None] * 5, 0], object)[:5]}
    forms["an object array"][:] = list(x)
    for form, items in forms.items():
        assert torch.allclose(answers(trained, items), expected, atol=1e-5), form
    names = lambda dl: [os.path.basename(p) for p in dl.items]
    assert names(trained.dls.test_dl(tmp_path / "new")) == names(trained.dls.test_dl(paths)) == [f"{k}.png"
        for k in range(5)]
    for one in x[0], paths[0], str(paths[0]), Image.open(paths[0]), paths[0].read_bytes():
        assert torch.allclose(answers(trained, one), expected[:1], atol=1e-5)
        name, number, probs = trained.predict(one)
        assert name == "c" and int(number) == 2 and torch.allclose(probs, expected[0], atol=1e-5)
    assert trained.predict(x[0], with_input=True)[0].shape == (3, 16, 16)


@pytest.mark.parametrize("h, w", [(32, 32), (40, 20), (20, 40), (16, 90), (8, 8), (7, 5)])
def test_new_pictures_of_another_size_are_scaled_and_cut_as_the_loader_does(h, w, trained, tmp_path):
    from coursekit.images import center_crop, decode

    im = bright(1, h, w)[0]
    Image.fromarray(im).save(tmp_path / "a.png")
    loaded = center_crop(decode(tmp_path / "a.png", 16))
    expected = answers(trained, loaded[None])
    for item in im, tmp_path / "a.png", Image.fromarray(im):
        assert torch.allclose(answers(trained, [item]), expected, atol=1e-4)


def test_images_that_are_no_squares_have_new_ones_cut_to_their_shape(place):
    s = made()
    wide = replace(s, images=np.concatenate([s.images, s.images[:, :, ::-1]], 2))
    learn = quiet(learner(wide, net(), place, bs=32), 1, 0.01)
    assert answers(learn, [bright(1, 50, 50)[0], bright(1, 10, 99)[0]]).shape == (2, 3) \
        and learn.dls.test_dl(bright(1, 50, 50)).one_batch()[0].shape == (1, 3, 16, 32)


@pytest.mark.parametrize("items, says", [(None, "The pictures are None"), ([["a.png"]], "is of the type list"),
                                         ([], "the pictures are \\[\\]|The pictures are"),
                                         (["nowhere.png"], "nowhere.png can't be read as an image"),
                                         (np.zeros((3, 16, 16, 3)), "array of float64"), (7, "The pictures are 7"),
                                         (torch.zeros(3, 16, 16), "is of the type Tensor"),
                                         ([None], "is of the type NoneType"),
                                         (np.zeros((2, 2, 16, 16, 3), np.uint8), "shape .2, 16, 16, 3.")])
def test_what_is_no_picture_is_a_sentence(items, says, trained):
    with pytest.raises(CourseError, match=says):
        trained.dls.test_dl(items)
    with pytest.raises(CourseError, match="without labels"):
        trained.dls.test_dl(bright(2), with_labels=True)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), torch.nn.functional.cross_entropy,
                                  partial(torch.nn.functional.cross_entropy, label_smoothing=0.2), None])
def test_predictions_are_probabilities_whatever_the_loss(loss, place):
    learn = quiet(learner(made(), net(), place, bs=32, loss_func=loss, augment=[random_hflip]), 1, 0.01)
    with learn.no_bar():
        for preds in learn.get_preds()[0], learn.tta(n=2)[0], learn.predict(bright(1)[0])[2][None], \
            learn.get_preds(dl=learn.dls.test_dl(bright(3)))[0]:
            assert (preds >= 0).all() and torch.allclose(preds.sum(1), torch.ones(len(preds)), atol=1e-5)
        assert learn.get_preds(act=lambda x: x)[0].sum(1).std() > 1e-4, "unless another way is asked for"
        with pytest.raises(CourseError, match="loss of new pictures is not known"):
            learn.get_preds(dl=learn.dls.test_dl(bright(3)), with_loss=True)


def test_features_of_new_pictures_are_taken_and_pictures_are_not(place):
    s = made()
    features = replace(s, images=np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32))
    learn = quiet(learner(features, nn.Linear(6, 3), place, bs=32), 1, 0.01)
    assert answers(learn, features.images[:7]).shape == (7, 3)
    with pytest.raises(CourseError, match="trained on features of shape"):
        learn.dls.test_dl(bright(2))


def test_views_are_averaged_and_labels_that_change_are_refused(place):
    s = made()
    learn = quiet(learner(s, net(), place, bs=32, augment=[random_hflip, random_translate(2)]), 3, 0.02)
    with learn.no_bar():
        own, targets = learn.get_preds()
        views = torch.stack([learn.get_preds(dl=learn.dls.valid.augmented([random_hflip, random_translate(2)], k))[0]
                             for k in range(3)])
        assert not torch.equal(views[0], own)
        for settings, expected in ({}, torch.lerp(views.mean(0), own, 0.25)), ({"use_max": True},
            torch.maximum(own, views.amax(0))), ({"beta": 0.5}, (views.mean(0) + own) / 2):
            preds, t = learn.tta(n=3, **settings)
            assert torch.allclose(preds, expected, atol=1e-6) and torch.equal(t, targets)
        assert learn.tta(dl=learn.dls.test_dl(bright(4)))[0].shape == (4, 3)
    with pytest.raises(CourseError, match="augmentation needs what the training augments by"):
        learner(s, net(), place, bs=32).tta()
    with pytest.raises(CourseError, match="changes labels"):
        learner(s, net(), place, bs=32, augment=[mixup(3)]).tta()


@pytest.mark.parametrize("ask, says", [(lambda learn: learn.show_results(), "plot_top_losses"),
                                       (lambda learn: learn.export("m.pkl"), "weights_only=True"),
                                       (lambda learn: learn.dls.show_batch(), "contact_sheet")])
def test_what_fastai_has_and_this_has_not_says_what_to_use(ask, says, place):
    with pytest.raises(CourseError, match=says):
        ask(learner(made(), net(), place, bs=32))


def test_a_record_says_what_the_learner_was_trained_on(place):
    s = made()
    learn = quiet(learner(replace(s, train=s.train[:60]), net(), place, bs=32), 1, 0.01)
    record(learn, "half")
    assert ledger(place).data[0]["train"] == 60
    record(quiet(learner(replace(s, train=s.train[:30]), net(), place, bs=32), 1, 0.01), "half")
    assert sorted(d["train"] for d in ledger(place).data) == [30, 60], "a learning curve keeps its points"
    row = ledger(place).iloc[0]
    assert row.recipe == learn.recipe and row.data["fingerprint"] == "made" and len(ledger(place)) == 2


def test_a_run_that_failed_once_on_a_part_leaves_no_failure_behind(place):
    s, k = made(), [0]
    def train(data, ws, seed):
        k[0] += 1
        if k[0] == 1:
            raise RuntimeError("out of luck")
        return quiet(learner(replace(data, train=data.train[:60]), net(), ws, bs=32, seed=seed), 1, 0.01)
    for n_failed in 1, 0:
        run_grid(train, {"part": {}}, [0], s, place)
        df = ledger(place)
        assert len(df) == 1 and ("failed" in df and df.failed.notna().sum()) == n_failed


# A batch of one

def with_norm(n_classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes))


@pytest.mark.parametrize("n_train, n_valid, bs, sizes", [(33, 20, 32, [33]), (97, 20, 32, [32, 32, 33]),
                                                         (9, 9, 4, [4, 5]), (40, 1, 32, [32, 8]), (33, 1, 16, [16, 17]),
                                                         (3, 3, 2, [3]), (2, 1, 64, [2])])
def test_a_last_batch_of_one_joins_the_one_before(n_train, n_valid, bs, sizes, place):
    k = np.arange(240)
    learn = learner(replace(made(), train=k[:n_train], valid=k[n_train:n_train + n_valid]), with_norm(), place, bs=bs)
    assert [len(yb) for _, yb in learn.dls.train] == sizes and len(learn.dls.train) == len(sizes)
    seen = torch.cat([xb.flatten(1) for xb, _ in learn.dls.train])
    assert len(torch.unique(seen, dim=0)) == n_train, "each image once"
    quiet(learn, 2, 0.01)
    assert len(learn.epochs) == 2 and len(learn.recorder.losses) == 2 * len(sizes)
    with learn.no_bar():
        assert len(learn.get_preds()[0]) == n_valid


@pytest.mark.parametrize("n_train, bs", [(1, 64), (8, 1), (1, 1)])
def test_a_batch_norm_and_one_image_is_a_sentence(n_train, bs, place):
    with pytest.raises(CourseError, match="batch norm can't go by one image"):
        quiet(learner(replace(made(), train=np.arange(n_train)), with_norm(), place, bs=bs), 1, 0.01)


# Users side by side

FIT = """
import os, sys
sys.path.insert(0, %r)
import torch
torch.set_num_threads(1)
from test_learner import cut_off, made, net, quiet
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


# Bad input

@pytest.mark.parametrize("make, says", [
    (lambda s, ws: learner(s, net(5), ws), "outputs of shape .2, 5. for 2 examples and there are 3 classes"),
    (lambda s, ws: learner(replace(s, labels=s.labels + 1), net(), ws),
     "labels go from 1 to 3 and there are 3 classes"),
    (lambda s, ws: learner(s, net(), ws, bs=0), "batch size is 0"),
    (lambda s, ws: learner(replace(s, valid=np.array([], int)), net(), ws), "no images in this part"),
    (lambda s, ws: learner(s, net(), ws, precision="int8"), "precision is 'int8'"),
    (lambda s, ws: learner(s, net(), ws, lr=None).fit(1), "learning rate is None"),
])
def test_bad_input_is_a_sentence(make, says, place):
    with pytest.raises(CourseError, match=says):
        make(made(), place)


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


def test_time_stands_still_after_the_fit_and_its_environment_is_those_of_the_training(place, monkeypatch):
    s = made()
    learn = quiet(learner(s, net(), place, bs=32), 1, 0.01)
    before = learn.seconds
    time.sleep(0.2)
    assert learn.seconds == before
    monkeypatch.setattr("coursekit.machine.cpu_name", lambda: "another CPU")
    again = quiet(learner(s, net(), place, bs=32), 1, 0.01)
    record(again, "small", metric=np.float32(0.5))
    assert "another CPU" not in ledger(place).hardware[0] and ledger(place).metric[0] == 0.5 \
        and again.seconds == pytest.approx(before)
    with pytest.raises(CourseError, match="has not finished a fit"):
        record(learner(s, net(), place), "none")


def test_channel_stats_are_exact():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 100, 100, 3), np.uint8)
    mean, std = channel_stats(replace(made(), images=images, train=np.arange(300)))
    assert np.allclose(mean, images.mean((0, 1, 2)) / 255, atol=1e-6) \
        and np.allclose(std, images.astype(float).std((0, 1, 2)) / 255, atol=1e-6)


def test_swapping_two_modules_is_a_new_fit_and_neither_is_lost(place, capsys):
    s = made()
    straight, swapped = (quiet(learner(s, Two(k), place, bs=32), 1, 1e-3) for k in (False, True))
    assert straight.checkpoints.kept != swapped.checkpoints.kept and "finished before" not in capsys.readouterr().out
    for k, before in (False, straight), (True, swapped):
        assert quiet(learner(s, Two(k), place, bs=32), 1, 1e-3).recorder.values == before.recorder.values
    assert capsys.readouterr().out.count("finished before") == 2


def test_on_another_machine_it_says_so(place, capsys, monkeypatch):
    s = made()
    quiet(learner(s, net(), place, bs=32), 1, 0.01)
    monkeypatch.setattr(checkpoints, "cpu_name", lambda: "another CPU")
    quiet(learner(s, net(), place, bs=32), 1, 0.01)
    assert "resumed, not bit-identical" in capsys.readouterr().out


# Checkpoints

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


@pytest.mark.parametrize("harm", [lambda data: data[:len(data) // 2], lambda data: b"", lambda data: data[:1000] + b"x"
                                  + data[1001:], lambda data: b"0" * 64 + data[64:]])
def test_a_torn_checkpoint_is_said_and_the_one_before_is_used(harm, place, capsys):
    s, opt = made(), optimizer("SGD", momentum=0.9)
    whole = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    subprocess.run(["rm", "-rf", str(place.runs / "fits")], check=True)
    learn = learner(s, net(), place, bs=32, opt=opt)
    cut_off(learn, 6, 3, 0.05)
    slots = sorted(learn.checkpoints.local.glob("*.pt"), key=lambda p: p.stat().st_mtime_ns)
    slots[-1].write_bytes(harm(slots[-1].read_bytes()))
    again = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    said = capsys.readouterr().out
    assert f"{slots[-1].name} can't be used" in said and "was cut off in epoch 1, batch 0: it goes on" in said
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))


def test_a_checkpoint_of_another_model_is_not_used(place, capsys):
    s = made()
    learn = learner(s, net(), place, bs=32)
    cut_off(learn, 3, 2, 0.01)
    for slot in learn.checkpoints.local.glob("*.pt"):
        state = read_checkpoint(slot)
        checkpoints.write_checkpoint(slot, state | {"model": {"other.weight": torch.zeros(2)}})
    again = quiet(learner(s, net(), place, bs=32), 2, 0.01)
    assert "another model" in capsys.readouterr().out and len(again.recorder.values) == 2


def test_a_full_disk_is_a_warning_and_the_training_goes_on(place, monkeypatch):
    learn = learner(made(), net(), place, bs=32)
    write = checkpoints.write_checkpoint
    def full(path, state):
        if path.name in checkpoints.SLOTS:
            raise CourseError("No space is left on the disk.")
        write(path, state)
    monkeypatch.setattr(checkpoints, "write_checkpoint", full)
    with pytest.warns(UserWarning, match="checkpoint was not kept: No space is left"):
        quiet(learn, 2, 0.01)
    assert len(learn.recorder.values) == 2


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


def test_a_new_machine_goes_on_from_the_runs_folder(place, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "COPY_EVERY", 0)
    s, opt = made(), optimizer("SGD", momentum=0.9)
    learn = learner(s, net(), place, bs=32, opt=opt)
    cut_off(learn, 5, 3, 0.05)
    subprocess.run(["rm", "-rf", str(place.local / "fits")], check=True)
    again = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    assert "it goes on from there" in capsys.readouterr().out
    whole = quiet(learner(s, net(), place, bs=32, opt=opt, fresh=True), 3, 0.05)
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))


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


def test_a_gpu_that_is_full_is_told_a_batch_size_that_fits(place):
    class Hungry(nn.Linear):
        def forward(self, x):
            if self.training and len(x) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)
    with pytest.raises(CourseError, match="too small for batches of 64; 16 was tried and fits: take bs=16"):
        quiet(learner(made(), nn.Sequential(nn.Flatten(), Hungry(768, 3)), place, bs=64), 1)


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


def interrupt(learn, after, *args):
    "Ctrl-C before a batch."
    one_batch, n = learn.one_batch, [0]
    def counted(*a):
        if n[0] == after:
            raise KeyboardInterrupt
        n[0] += 1
        one_batch(*a)
    learn.one_batch, learn.checkpoint_seconds = counted, 0
    with pytest.raises(KeyboardInterrupt):
        quiet(learn, *args)
    del learn.one_batch


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


# Real kills

RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_learner import made, net, quiet
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


# The ledger and the grid

def test_a_run_is_recorded_once(place):
    s = made()
    for _ in range(2):
        record(quiet(learner(s, net(), place, bs=32), 1, 0.01), "small", test_accuracy=0.5)
    row = ledger(place).iloc[0]
    assert len(ledger(place)) == 1 and row.test_accuracy == 0.5 \
        and row.parameters == sum(p.numel() for p in net().parameters())
    assert row.flops == 2 * (16 * 16 * 8 * 27 + 32 * 3) and not row.data["stand_in"] and len(row.epochs) == 1


def fit_one(data, ws, seed, width=4):
    if width == 0:
        raise ValueError("no units")
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, width), nn.ReLU(), nn.Linear(width, 3))
    return quiet(learner(data, model, ws, bs=32, seed=seed), 1, 0.01)


@pytest.mark.slow
def test_a_grid_in_processes(place):

    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        table = run_grid(fit_one, {"a": {"width": 4}, "none": {"width": 0}, "b": {"width": 8}}, [0, 1], made(), place,
                         executor=pool)
    assert table.status.tolist() == ["finished", "failed", "finished"] * 2 and "no units" in table.why[1]
    df = ledger(place)
    good = df[df.failed.isna()]
    assert len(df) == 6 and len(good) == 4 and set(good.name) == {"a", "b"} and set(good.seed) == {0, 1} \
        and df.failed.dropna().str.contains("no units").all()
    assert results(df).set_index("run").loc["none", ["n", "failed"]].tolist() == [0, 2]


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


@pytest.mark.parametrize("kwargs, says", [({"opt": torch.optim.SGD}, "optimizer.'SGD'"),
                                          ({"opt": "SGD"}, "optimizer.'SGD'"), ({"bs": "64"}, "batch size is '64'")])
def test_a_wrong_optimizer_or_batch_size(kwargs, says, place):
    with pytest.raises(CourseError, match=says):
        learner(made(), net(), place, **kwargs)
    with pytest.raises(CourseError, match="torch.optim has no 'Sgd'"):
        optimizer("Sgd")


def test_a_model_for_another_size_is_said(place):
    with pytest.raises(CourseError, match=r"can't take inputs of shape \(2, 3, 16, 16\)"):
        learner(made(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), place)


def test_a_failure_never_replaces_a_finished_run_and_a_finished_run_replaces_it(place):
    def fails(data, ws, seed, **kwargs):
        raise RuntimeError("out of luck")
    settings = {"a": {"width": 4}}, [0], made(), place
    for train, failed in (fails, 1), (fit_one, 0), (fails, 0):
        run_grid(train, *settings)
        df = ledger(place)
        assert len(df) == 1 and ("failed" in df and df.failed.notna().sum()) == failed


def test_a_model_that_was_fitted_is_not_taken_for_a_new_one(place, capsys):
    model = net()
    quiet(learner(made(), model, place, bs=32), 1, 0.01)
    assert "was fitted before" not in capsys.readouterr().out
    learner(made(), model, place, bs=32)
    assert "was fitted before" in capsys.readouterr().out


def test_a_dead_worker_is_a_failed_run_and_the_rest_is_known(place):
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        table = run_grid(lambda data, ws, seed, die: os._exit(9) if die else None, {"dies": {"die": True}}, [0], made(),
                         place, executor=pool)
    assert table.status.tolist() == ["failed"] and "its process ended" in table.why[0]


@pytest.mark.slow
def from_far(data, ws, seed, width):
    "What `fit_one` does, and where its data lies."
    assert isinstance(data.images, np.memmap) and str(data.images.filename).startswith(str(ws.runs)), \
        "the data came by path"
    assert ws.device == ("cuda" if torch.cuda.is_available() else "cpu"), "the device is the worker's"
    return fit_one(data, ws, seed, width)


@pytest.mark.slow
def test_a_grid_through_submitit_gets_its_data_by_path_and_its_own_device(place, monkeypatch):
    submitit = pytest.importorskip("submitit")

    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    executor = submitit.AutoExecutor(folder=str(place.local / "jobs" / "%j"), cluster="local")
    executor.update_parameters(timeout_min=3)
    elsewhere = replace(place, device="meta")  # as it is called on another machine
    table = run_grid(from_far, {"a": {"width": 4}, "none": {"width": 0}}, [0, 1], made(), elsewhere, executor=executor)
    assert table.status.tolist() == ["finished", "failed"] * 2 and "no units" in table.why[1], table.why.tolist()
    assert ledger(place).failed.isna().sum() == 2


def test_a_workspace_that_is_sent_takes_the_device_of_where_it_arrives(place):
    assert pickle.loads(pickle.dumps(replace(place, device="meta"))) == place


def test_a_grid_on_a_cluster_survives_a_dead_worker(place):
    distributed = pytest.importorskip("distributed")

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, \
        distributed.Client(cluster) as client:
        def train(data, ws, seed, width, mark):
            import os
            import signal
            from pathlib import Path

            import test_learner
            if seed == 1 and not Path(mark).exists():  # this worker dies, once
                Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return test_learner.fit_one(data, ws, seed, width)

        client.run(lambda folder: __import__("sys").path.insert(0, folder), os.path.dirname(__file__))
        client.register_plugin(Paths())
        table = run_grid(partial(train, mark=str(place.local / "mark")), {"a": {"width": 4}, "b": {"width": 8}}, [0, 1],
                         made(), place, executor=client.get_executor())
    assert table.status.tolist() == ["finished"] * 4 and (place.local / "mark").exists() and len(ledger(place)) == 4


try:
    from distributed import WorkerPlugin
except ImportError:
    WorkerPlugin = object


class Paths(WorkerPlugin):
    "A worker that starts anew finds the tests too."
    def setup(self, worker):
        sys.path.insert(0, os.path.dirname(__file__))
