"The learner: what fastai promises, new pictures, the recipe in words, and the sentences for bad input."
import os
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import made, net, quiet
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import lr_find  # noqa: F401 - adds Learner.lr_find
from fastai.callback.training import BnFreeze, GradientClip
from fastai.interpret import ClassificationInterpretation
from fastai.torch_core import params
from PIL import Image
from torch import nn

from coursekit.augment import cutout, mixup, random_affine, random_hflip, random_translate
from coursekit.files import CourseError
from coursekit.learner import channel_stats, image_loaders, learner, optimizer
from coursekit.ledger import references
from coursekit.task import CrossEntropy

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


@pytest.mark.parametrize("part", [2, -1, "test"])
def test_the_test_part_is_not_predicted_by_the_way(part, place):
    with pytest.raises(CourseError, match="evaluate_test.learn. of coursekit.baseline"):
        learner(made(), net(), place, bs=32).get_preds(ds_idx=part)
    with pytest.raises(CourseError, match="The splits are 'my-images': what image_folder"):
        learner("my-images", net(), place)


@pytest.mark.parametrize("ask, says", [(lambda learn: learn.show_results(), "plot_top_losses"),
                                       (lambda learn: learn.export("m.pkl"), "weights_only=True"),
                                       (lambda learn: learn.dls.show_batch(), "contact_sheet")])
def test_what_fastai_has_and_this_has_not_says_what_to_use(ask, says, place):
    with pytest.raises(CourseError, match=says):
        ask(learner(made(), net(), place, bs=32))


# New pictures

def brightest(n, h=16, w=16, seed=5):
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
    x = brightest(5)
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

    im = brightest(1, h, w)[0]
    Image.fromarray(im).save(tmp_path / "a.png")
    loaded = center_crop(decode(tmp_path / "a.png", 16))
    expected = answers(trained, loaded[None])
    for item in im, tmp_path / "a.png", Image.fromarray(im):
        assert torch.allclose(answers(trained, [item]), expected, atol=1e-4)


def test_images_that_are_no_squares_have_new_ones_cut_to_their_shape(place):
    s = made()
    wide = replace(s, images=np.concatenate([s.images, s.images[:, :, ::-1]], 2))
    learn = quiet(learner(wide, net(), place, bs=32), 1, 0.01)
    assert answers(learn, [brightest(1, 50, 50)[0], brightest(1, 10, 99)[0]]).shape == (2, 3) \
        and learn.dls.test_dl(brightest(1, 50, 50)).one_batch()[0].shape == (1, 3, 16, 32)


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
        trained.dls.test_dl(brightest(2), with_labels=True)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), torch.nn.functional.cross_entropy,
                                  partial(torch.nn.functional.cross_entropy, label_smoothing=0.2), None])
def test_predictions_are_probabilities_whatever_the_loss(loss, place):
    learn = quiet(learner(made(), net(), place, bs=32, loss_func=loss, augment=[random_hflip]), 1, 0.01)
    with learn.no_bar():
        for preds in learn.get_preds()[0], learn.tta(n=2)[0], learn.predict(brightest(1)[0])[2][None], \
            learn.get_preds(dl=learn.dls.test_dl(brightest(3)))[0]:
            assert (preds >= 0).all() and torch.allclose(preds.sum(1), torch.ones(len(preds)), atol=1e-5)
        assert learn.get_preds(act=lambda x: x)[0].sum(1).std() > 1e-4, "unless another way is asked for"
        with pytest.raises(CourseError, match="loss of new pictures is not known"):
            learn.get_preds(dl=learn.dls.test_dl(brightest(3)), with_loss=True)


def test_features_of_new_pictures_are_taken_and_pictures_are_not(place):
    s = made()
    features = replace(s, images=np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32))
    learn = quiet(learner(features, nn.Linear(6, 3), place, bs=32), 1, 0.01)
    assert answers(learn, features.images[:7]).shape == (7, 3)
    with pytest.raises(CourseError, match="trained on features of shape"):
        learn.dls.test_dl(brightest(2))


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
        assert learn.tta(dl=learn.dls.test_dl(brightest(4)))[0].shape == (4, 3)
    with pytest.raises(CourseError, match="augmentation needs what the training augments by"):
        learner(s, net(), place, bs=32).tta()
    with pytest.raises(CourseError, match="changes labels"):
        learner(s, net(), place, bs=32, augment=[mixup(3)]).tta()


# Bad input

@pytest.mark.parametrize("make, says", [
    (lambda s, ws: learner(s, net(5), ws), "outputs of shape .2, 5. for 2 examples and there are 3 classes"),
    (lambda s, ws: learner(replace(s, labels=s.labels + 1), net(), ws),
     "labels go from 1 to 3 and there are 3 classes"),
    (lambda s, ws: learner(s, net(), ws, bs=0), "batch size is 0"),
    (lambda s, ws: learner(replace(s, valid=np.array([], int)), net(), ws), "no images in this part"),
    (lambda s, ws: learner(s, net(), ws, precision="int8"), "precision is 'int8'"),
    (lambda s, ws: learner(s, net(), ws, lr=None).fit(1), "learning rate is None"),
    (lambda s, ws: learner(s, net(), ws, mean=[0.5] * 3), "std is None: give both, or neither"),
])
def test_bad_input_is_a_sentence(make, says, place):
    with pytest.raises(CourseError, match=says):
        make(made(), place)


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


def test_a_model_that_was_fitted_is_not_taken_for_a_new_one(place, capsys):
    model = net()
    quiet(learner(made(), model, place, bs=32), 1, 0.01)
    assert "was fitted before" not in capsys.readouterr().out
    learner(made(), model, place, bs=32)
    assert "was fitted before" in capsys.readouterr().out


def test_channel_stats_are_exact():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 100, 100, 3), np.uint8)
    mean, std = channel_stats(replace(made(), images=images, train=np.arange(300)))
    assert np.allclose(mean, images.mean((0, 1, 2)) / 255, atol=1e-6) \
        and np.allclose(std, images.astype(float).std((0, 1, 2)) / 255, atol=1e-6)


# The recipe

def said(ws, *args, method="fit", **kwargs):
    "The recipe of a fit of `net`, with SGD and momentum unless another optimizer is given."
    learn = learner(made(64), net(), ws, **{"opt": optimizer("SGD", momentum=0.9), "bs": 8, **kwargs})
    with learn.no_bar(), learn.no_logging():
        getattr(learn, method)(*args)
    return learn.recipe


def test_the_recipe_of_the_references_word_for_word(place):
    raw = {"mean": [0.] * 3, "std": [1.] * 3, "bs": 64, "lr": 1e-3}
    plain = "SGD, lr 0.001, momentum 0.9, batch 64, 1 epoch, inputs in [0, 1]"
    assert said(place, 1, **raw) == plain
    assert plain.replace("1 epoch", "100 epochs") == references()["DD2424 baseline"]["recipe"]
    strong = said(place, 1, **raw, augment=[random_hflip, random_translate(3), cutout(4), mixup(3, alpha=0.4)])
    words = "random_hflip, random_translate(max_shift=3), cutout(side=4), mixup(alpha=0.4, n_classes=3)"
    assert strong == f"{plain}, {words}"
    assert said(place, 2, opt=None) == "fastai's Adam, lr 0.001, weight decay 0.01, batch 8, 2 epochs", \
        "normalized as usual"


def test_a_cycle_is_said_by_where_it_begins_turns_and_ends(place):
    assert said(place, 2, 0.01, method="fit_one_cycle") \
        == "SGD, lr 0.0004 to 0.01 to 1e-07, momentum 0.95 to 0.85 to 0.95, batch 8, 2 epochs"
    assert said(place, 2, 0.01, method="fit_one_cycle", opt=None) \
        == "fastai's Adam, lr 0.0004 to 0.01 to 1e-07, weight decay 0.01, batch 8, 2 epochs", \
            "Adam's own momentum is not said"
    assert said(place, 2, 0.01, method="fit_flat_cos", opt=optimizer("SGD")) \
        == "SGD, lr 0.01 to 1e-07, batch 8, 2 epochs"


def test_frozen_groups_and_rates_of_their_own_are_said(place):
    kwargs = {"splitter": lambda m: [params(m[:2]), params(m[2:])], "train_bn": False, "opt": optimizer("SGD")}
    assert said(place, 1, slice(1e-4, 1e-2), **kwargs) == "SGD, lr 0.01 (first layers 0.0001), batch 8, 1 epoch"
    assert said(place, 1, slice(1e-4, 1e-2), method="fit_one_cycle", **kwargs) \
        == "SGD, lr 0.0004 to 0.01 to 1e-07 (first layers 0.0001), momentum 0.95 to 0.85 to 0.95, batch 8, 1 epoch"
    learn = learner(made(64), net(), place, bs=8, **kwargs)
    learn.freeze()
    assert quiet(learn, 1, 0.01).recipe.endswith("batch 8, 1 epoch, 1 of 2 groups of layers")
    learn.unfreeze()
    first = learn.recipe
    assert quiet(learn, 2, 0.01).recipe.endswith(f"batch 8, 2 epochs; after {first}") and "groups" in first
    norms = learner(made(64), net(), place, bs=8, **{**kwargs, "train_bn": True})
    norms.freeze()
    said_of = quiet(norms, 1, slice(1e-4, 0.01)).recipe
    assert said_of.endswith("batch 8, 1 epoch, 1 of 2 groups of layers") and "first layers" not in said_of


def test_a_recipe_is_of_the_fits_and_of_nothing_that_follows(place):
    learn = learner(made(64), net(), place, bs=8, opt=optimizer("SGD", momentum=0.9, nesterov=True))
    with pytest.raises(CourseError, match="has not been fitted"):
        print(learn.recipe)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.01, cbs=[MixUp(0.4)])
        before = learn.recipe
        learn.lr_find(num_it=5, show_plot=False)
    assert before == learn.recipe and before.startswith("SGD, lr 0.01, momentum 0.9, nesterov, batch 8, 2 epochs, "
                                                        "MixUp")
    again = quiet(learner(made(64), learn.model, place, bs=8, opt=optimizer("SGD")), 1, 0.01)
    assert again.recipe.endswith("batch 8, 1 epoch; after another fit")


def squeezed(k):
    return lambda xb, yb: (xb * k, yb)


class Noise:
    "An augmentation that is an object."
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, xb, yb):
        return xb + self.amount * torch.randn_like(xb), yb


@pytest.mark.parametrize("kwargs, words", [
    ({"loss_func": CrossEntropy(label_smoothing=0.1)}, "loss CrossEntropy(label_smoothing=0.1)"),
    ({"loss_func": nn.CrossEntropyLoss(weight=torch.tensor([1., 2., 3.]))}, "loss CrossEntropyLoss(weight=[1.0, 2.0, "
                                                                            "3.0])"),
    ({"loss_func": nn.functional.cross_entropy}, "loss cross_entropy"),
    ({"augment": [Noise(0.1)]}, "Noise(amount=0.1)"),
    ({"augment": [squeezed(0.5)]}, "<lambda>(k=0.5)"), ({"augment": random_affine(degrees=5)}, "random_affine(")])
def test_losses_and_augmentations_are_said_with_what_they_were_made_with(kwargs, words, place):
    assert words in said(place, 1, 0.01, **kwargs)


def test_restarts_and_steps_are_told_from_a_fall(place):
    lr = said(place, 2, 1, 0.01, method="fit_sgdr")
    assert re.match(r"SGD, lr 0.01 to 6\S+e-06 to 0.00999 to 0,", lr), lr


def test_probabilities_are_those_of_the_task_under_any_loss(place):
    s = made(60)
    several = replace(s, labels=np.stack([s.labels >= 0, s.labels > 1], 1).astype(int), classes=["a", "b"],
                      fingerprint="b")
    learn = learner(several, nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), place, bs=16,
                    loss_func=nn.BCEWithLogitsLoss())
    probs = quiet(learn, 2, 0.01).get_preds()[0]
    xb = learn.dls.valid.one_batch()[0]
    assert torch.allclose(probs[:len(xb)], learn.model.eval()(xb).sigmoid(), atol=1e-5)
    names, labels, _ = learn.predict(s.images[0])
    assert labels.shape == (2,) and names == [c for c, there in zip("ab", labels) if there]


def test_loaders_of_ones_own_and_settings_beside_them_are_a_sentence(place):
    s = made(60)
    own = image_loaders(s, "cpu", 8)
    with pytest.raises(CourseError, match="loaders= brings batches of its own: give bs, augment"):
        learner(s, net(), place, loaders=own, augment=[random_hflip])
    a, b = (quiet(learner(s, net(), place, loaders=image_loaders(s, "cpu", 8, seed=k)), 1, 0.01) for k in (0, 1))
    assert a.checkpoints.kept != b.checkpoints.kept, "another seed of the loaders is another fit"


class Paced(Callback):
    "Does nothing; only what it was made with counts."
    def __init__(self, steps=10, kind="even", rates=(1, 2)):
        self.steps, self.kind, self.rates = steps, kind, rates


@pytest.mark.parametrize("cbs, words", [
    (GradientClip(1.), "GradientClip"), (GradientClip(0.5), "GradientClip(max_norm=0.5)"), (Paced(10), "Paced"),
    (Paced(5), "Paced(steps=5)"), (Paced(rates=(3,)), "Paced"), (BnFreeze(), ""),
    ([Paced(kind="odd"), GradientClip(0.5)], "Paced(kind=odd), GradientClip(max_norm=0.5)")])
def test_a_callback_is_said_with_what_is_not_its_default(cbs, words, place):
    assert said(place, 1, cbs=cbs) == ", ".join(filter(None, ["SGD, lr 0.001, momentum 0.9, batch 8, 1 epoch", words]))
