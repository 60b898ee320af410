"Transfer learning: what moves and what must not, the cache of features, folds, and the sentences for bad input."
import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image
from torch import nn
from torchvision.models import SwinTransformer, get_model

from coursekit import finetune
from coursekit.baseline import dumb_baselines, final_test, vgg
from coursekit.datasets import pets
from coursekit.splits import squares
from coursekit.finetune import (Head, Pretrained, body, cached_features, check_side, compare, finetuned, folds, fraction, grad_cam, map_sizes, name_it, pretrained,
                                random_view, stage_parameters, stages, train_head, with_head)
from coursekit.splits import Splits, _say_squares
from coursekit.training import flip, learner
from coursekit.files import CourseError
from coursekit.workspace import setup


@pytest.fixture(scope="module")
def pre():
    "A ResNet with random weights and random statistics, so that each would be missed."
    torch.manual_seed(0)
    model = get_model("resnet18", weights=None, num_classes=5)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2)
    return Pretrained("resnet18", model.eval(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 224, list("abcde"), float("nan"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A workspace with a cache of its own."
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    return setup("tiny")


def made(n=60, side=32, n_classes=3):
    "Images whose brightness says their class."
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    images = (rng.integers(0, 60, (n, side, side, 3)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    k = np.arange(n)
    return Splits("made", images, labels, list("xyz")[:n_classes], [f"{i}.png" for i in k], k[:n // 2], k[n // 2:3 * n // 4], k[3 * n // 4:], f"made-{n}-{side}")


def trained(learn):
    "Names of what one epoch of training changes, without the counters."
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    return {k for k, v in learn.model.state_dict().items() if not torch.equal(before[k], v) and not k.endswith("num_batches_tracked")}


# What moves

def test_stages_of_a_resnet_and_of_others():
    assert list(stages(get_model("resnet18", weights=None))) == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    for name in "resnet18", "convnext_tiny", "efficientnet_b0", "swin_t", "vit_b_16", "shufflenet_v2_x0_5":
        with torch.device("meta"):
            model = get_model(name, weights=None)
        groups = stage_parameters(model)
        assert sorted(map(id, (p for g in groups for p in g))) == sorted(map(id, model.parameters())), f"{name}: each parameter in one stage"
        assert any(p is groups[-1][-1] for p in finetune._last_linear(model)[1].parameters()), f"{name}: the last stage holds the head"


@pytest.mark.parametrize("n_stages", [1, 2, 6])
def test_frozen_stages_do_not_move_and_trained_ones_do(n_stages, pre, ws):
    moved = trained(finetuned(pre, made(), ws, n_stages, keep_weights=False))
    names = list(stages(pre.model))
    free = {k for k in pre.model.state_dict() for name in names[-n_stages:] if k.startswith(name + ".") and not k.endswith("num_batches_tracked")}
    free |= {k for k in pre.model.state_dict() if n_stages == 6 and k.startswith("bn1.") and not k.endswith("num_batches_tracked")}
    assert moved == free


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
def test_the_four_cases_of_batch_norm(affine, statistics, pre, ws):
    moved = trained(finetuned(pre, made(), ws, 2, batch_norm=(affine, statistics), keep_weights=False))
    norms = [name for name, m in pre.model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    expected = {f"{n}.{part}" for n in norms for part in (["weight", "bias"] if affine else []) + (["running_mean", "running_var"] if statistics else [])}
    assert {k for k in moved if k.rsplit(".", 1)[0] in norms} == expected
    assert "layer4.0.conv1.weight" in moved and "fc.weight" in moved and "layer3.0.conv1.weight" not in moved


class Free(Callback):
    "Notes at each batch which stages are free, how many parameters the optimizer remembers, and which norms are."
    order = 50

    def before_fit(self):
        self.seen = []

    def before_batch(self):
        model = self.learn.model
        free = {name for name, g in zip(stages(model), stage_parameters(model)) if any(p.requires_grad for p in g if p.ndim > 1)}
        self.seen.append((free, len(self.opt.opt.state), any(m.weight.requires_grad for m in model.modules() if isinstance(m, nn.BatchNorm2d))))


def test_gradual_unfreezing_frees_one_stage_an_epoch_and_the_optimizer_forgets_nothing(pre, ws):
    notes = Free()
    learn = finetuned(pre, made(), ws, 3, gradual=True, cbs=notes, bs=30, keep_weights=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(4, 1e-3)
    free, moments, _ = zip(*[n for k, n in enumerate(notes.seen) if k % 2 == 0])  # each epoch is a batch of training and one of validation
    assert list(free) == [{"fc"}, {"layer4", "fc"}, {"layer3", "layer4", "fc"}, {"layer3", "layer4", "fc"}]
    assert moments[0] == 0 < moments[1] < moments[2] < moments[3]


def test_gradual_unfreezing_leaves_the_case_of_batch_norm_as_it_was_asked_for(pre, ws):
    for affine in False, True:
        notes = Free()
        learn = finetuned(pre, made(), ws, 2, gradual=True, batch_norm=(affine, False), cbs=[notes], keep_weights=False)
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e-3)
        assert {n[2] for n in notes.seen} == {affine}


def test_callbacks_of_ones_own_do_not_replace_those_that_freeze(pre, ws):
    learn = finetuned(pre, made(), ws, 1, cbs=Free())
    assert {"BnFreeze", "Free"} <= {type(cb).__name__ for cb in learn.cbs}


def test_the_head_is_one_layer_and_what_is_frozen_drops_nothing(ws):
    with torch.device("meta"):
        assert [list(stages(get_model(n, weights=None)))[-1] for n in ("vgg11", "mobilenet_v3_small", "convnext_tiny")] == ["head"] * 3
    torch.manual_seed(0)
    small = Pretrained("mobilenet", get_model("mobilenet_v3_small", weights=None, num_classes=5, dropout=0.5).eval(), [0.5] * 3, [0.25] * 3, 224, list("abcde"), math.nan)
    notes = []
    learn = finetuned(small, made(), ws, 1, keep_weights=False)
    second = learn.model.features[1]
    second.register_forward_hook(lambda m, x, y: notes.append(m.training) if m is second else None)  # not the copy that tells one fit from another
    assert sum(p.requires_grad for p in learn.model.parameters()) == 2, "weights and bias of the last layer"
    assert any(type(cb).__name__ == "EvalFrozen" for cb in learn.cbs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    assert notes and not any(notes)


def test_a_new_head_leaves_the_network_that_it_came_from_alone(pre):
    before = {k: v.clone() for k, v in pre.model.state_dict().items()}
    new = with_head(pre.model, 7, seed=1)
    assert new(torch.rand(2, 3, 32, 32)).shape == (2, 7) and pre.model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert torch.equal(new.fc.weight, with_head(pre.model, 7, seed=1).fc.weight) and not torch.equal(new.fc.weight, with_head(pre.model, 7, seed=2).fc.weight)
    assert all(torch.equal(before[k], v) for k, v in pre.model.state_dict().items())


# Cached features

def test_cached_and_uncached_logits_agree(pre, ws):
    s = made(side=48)
    features = cached_features(pre, s, ws, precision="fp32")
    assert isinstance(features.images, np.memmap) and features.images.dtype == np.float32 and features.images.shape == (60, 512)
    x = (torch.as_tensor(s.images).permute(0, 3, 1, 2) / 255 - torch.tensor(pre.mean).view(3, 1, 1)) / torch.tensor(pre.std).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(pre.model.fc(torch.as_tensor(np.array(features.images))), pre.model(x), atol=1e-4)
    learn = train_head(features, ws, 5)
    whole = with_head(pre.model, 3)
    whole.fc.load_state_dict(learn.model.state_dict())
    with learn.no_bar(), torch.no_grad():
        assert torch.allclose(learn.get_preds()[0], whole.eval()(x[s.valid]).softmax(1), atol=1e-4)


def test_the_cache_is_read_again_and_not_made_again(pre, place, monkeypatch):
    first = np.array(cached_features(pre, made(), place).images)
    monkeypatch.setattr(finetune, "_write_features", lambda *a: pytest.fail("computed again"))
    assert np.array_equal(cached_features(pre, made(), place).images, first)


@pytest.mark.parametrize("harm, says", [("half", "torn"), ("gone", "No such file"), ("facts", "."), ("other", "another network")])
def test_a_torn_or_stale_cache_is_said_and_made_again(harm, says, pre, place, capsys):
    good = np.array(cached_features(pre, made(), place).images)
    folder, = (place.local / "features").iterdir()
    file = folder / "features.npy"
    if harm == "half":
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    elif harm == "gone":
        file.unlink()
    elif harm == "facts":
        (folder / "facts.json").write_text("{")
    else:  # whole, but of another network
        import hashlib
        import json
        np.save(file, np.random.default_rng(0).random((60, 1, 512), np.float32))
        (folder / "facts.json").write_text(json.dumps({"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    assert np.allclose(cached_features(pre, made(), place).images, good, atol=1e-5)
    said = capsys.readouterr().out
    assert "can't be used" in said and says in said and "computed again" in said
    cached_features(pre, made(), place)
    assert not capsys.readouterr().out


def test_what_the_cache_depends_on(pre, place):
    from dataclasses import replace
    few = replace(made(), images=made().images[:48], labels=made().labels[:48])  # cut by hand: the fingerprint is still that of all
    assert cached_features(pre, few, place).images.shape == (48, 512)
    assert not np.allclose(cached_features(replace(pre, std=[0.3] * 3), made(), place).images, cached_features(pre, made(), place).images)
    with pytest.raises(CourseError, match="1 views and 1 augmentations"):
        cached_features(pre, made(), place, augment=[flip])
    other = Pretrained("resnet18", with_head(pre.model, 5, seed=3), pre.mean, pre.std, 224, pre.categories, pre.accuracy)
    with torch.no_grad():
        other.model.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
    for p, s, kwargs in (pre, made(), {}), (pre, made(side=40), {}), (pre, made(n=63), {}), (other, made(), {}), (pre, made(), {"views": 2, "augment": [flip]}):
        cached_features(p, s, place, **kwargs)
    assert len(list((place.local / "features").iterdir())) == 7


def test_views_differ_and_the_first_is_the_image_as_it_is(pre, ws):
    plain, viewed = (np.array(cached_features(pre, made(), ws, **kw).images) for kw in ({}, {"views": 3, "augment": [flip]}))
    assert viewed.shape == (60, 3, 512) and np.allclose(viewed[:, 0], plain, atol=1e-4)
    mirrored = np.abs(viewed[:, 1:] - plain[:, None]).max(2) > 1e-3
    assert 0.3 < mirrored.mean() < 0.7, "half of the views are mirrored"
    torch.manual_seed(0)
    x, y = random_view(torch.arange(24.).view(4, 3, 2), torch.arange(4))
    assert x.shape == (4, 2) and all(x[i].tolist() in [[6 * i + 2 * v, 6 * i + 2 * v + 1] for v in range(3)] for i in range(4))
    head = Head(2, 5)
    assert torch.equal(head(torch.ones(4, 3, 2)), head(torch.ones(4, 2)))


# Folds, fractions, intervals

def test_folds_judge_each_image_once_and_keep_the_classes():
    s = made()
    parts = folds(s, 5, 2)
    assert len(parts) == 10 and sorted(np.concatenate([p.valid for p in parts[:5]])) == list(range(60)) and not any(set(p.train) & set(p.valid) for p in parts)
    assert all(np.bincount(s.labels[p.valid]).tolist() == [4, 4, 4] and len(p.test) == 0 for p in parts)
    with pytest.raises(CourseError, match="smallest class has 20 images and there are 21 folds"):
        folds(s, 21)


def test_fractions_are_nested_stratified_and_leave_one_of_each():
    s = made()
    sets = [set(fraction(s, share).train) for share in (1e-9, 0.1, 0.5, 1.0)]
    assert [len(x) for x in sets] == [3, 3, 15, 30] and sets[0] <= sets[1] <= sets[2] <= sets[3] == set(s.train)
    assert np.bincount(s.labels[sorted(sets[0])]).tolist() == [1, 1, 1]
    for share in 0, 1.1, -1, math.nan:
        with pytest.raises(CourseError, match="a number above 0 and up to 1"):
            fraction(s, share)


def test_compare_pairs_by_seed_and_widens_for_folds():
    runs = pd.DataFrame([{"name": n, "seed": s, "accuracy": a + 0.01 * s + (0.002 * (s % 2) if n == "b" else 0)} for n, a in (("a", 0.7), ("b", 0.75)) for s in range(5)])
    plain, wide = compare(runs).set_index("run"), compare(runs, share=0.25).set_index("run")
    assert plain.loc["b", "difference"] == pytest.approx(0.0508) and plain.loc["b", "± of it"] < 0.01 < plain.loc["b", "±"]
    assert wide.loc["b", "±"] / plain.loc["b", "±"] == pytest.approx(math.sqrt(0.45 / 0.2))
    by_run = compare(runs, share={"a": 0.25, "b": 1.}).set_index("run")["±"]
    assert by_run["a"] == pytest.approx(wide.loc["a", "±"]) and by_run["b"] > wide.loc["b", "±"]
    with pytest.raises(CourseError, match="no runs with 'accuracy'"):
        compare(runs[:0])
    assert np.isnan(compare(runs[runs.seed < 2])["±"]).all() and compare(runs[::-1].reset_index(drop=True)).loc[0, "run"] == "b"


# Sizes, maps, pictures

def test_map_sizes_are_those_of_a_real_pass(pre):
    table = map_sizes(pre.model, [16, 33, 224]).set_index("input")
    assert table.loc[224].tolist() == [112, 56, 28, 14, 7] and table.loc[33].tolist() == [17, 9, 5, 3, 2]
    alexnet = get_model("alexnet", weights=None)
    assert map_sizes(alexnet, [20]).iloc[0, 1:].eq(0).all()


@pytest.mark.parametrize("name, side, says", [("alexnet", 20, "vanish below 63"), ("vgg11", 20, "vanish below 32"), ("vit_b_16", 32, "takes 224 only")])
def test_an_input_that_is_too_small_is_told_the_smallest(name, side, says):
    with torch.device("meta"):
        model = get_model(name, weights=None)
    with pytest.raises(CourseError, match=says):
        check_side(model, side)
    check_side(model, 224)


def test_a_learner_and_a_cache_for_images_that_are_too_small_say_so(ws):
    small = Pretrained("alexnet", get_model("alexnet", weights=None).eval(), [0.5] * 3, [0.25] * 3, 224, [], math.nan)
    for ask in finetuned, cached_features:
        with pytest.raises(CourseError, match="vanish below 63"):
            ask(small, made(side=32), ws)


def test_grad_cam_finds_what_spoke_for_the_answer():
    torch.manual_seed(0)
    bright = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        bright.weight.fill_(1.), bright.bias.zero_()
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.], [-1.]])), head.bias.zero_()
    model = nn.Sequential(bright, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    xb = torch.zeros(2, 3, 8, 8)
    xb[:, :, 2, 5] = 1
    heat, probabilities = grad_cam(model, xb, bright)
    assert heat.shape == (2, 8, 8) and heat[0].argmax() == 2 * 8 + 5 and heat.max() == 1 and torch.allclose(probabilities.sum(1), torch.ones(2))
    assert grad_cam(model, xb, bright, [1, 1])[0].max() == 0, "what speaks for one answer does not speak for the other"
    with pytest.raises(CourseError, match="Grad-CAM needs a square map"):
        grad_cam(model, xb, head)
    swin = SwinTransformer(patch_size=[4, 4], embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=2)
    with pytest.raises(CourseError, match="of a convolutional network"):
        grad_cam(swin, torch.rand(1, 3, 96, 96), swin.features[-1])


def test_a_picture_of_ones_own(pre, tmp_path):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    figure = name_it(tmp_path / "red.png", pre.model, pre, list("abcde"), 48)
    assert figure.axes[0].images[0].get_array().shape == (48, 48, 3) and len(figure.axes[1].patches) == 5
    for bad in tmp_path / "none.png", io.BytesIO(b"no image"):
        with pytest.raises(CourseError, match="can't be read as an image"):
            name_it(bad, pre.model, pre, list("abcde"), 48)


def test_a_class_may_have_any_name(pre):
    picture, classes = io.BytesIO(), ["$^$", r"\frac{$x$}", "a b", "$a_b$", "a_b"]  # two look alike and stay two
    Image.new("RGB", (60, 60), "red").save(picture, "PNG")
    right = name_it(picture, pre.model, pre, classes, 48).axes[1]
    right.figure.canvas.draw()
    ticks = right.get_yticklabels()
    assert sorted(t.get_text() for t in ticks) == sorted(c.replace("_", " ") for c in classes) and len(right.patches) == 5
    assert not any(t.get_parse_math() for t in ticks) and [p.get_y() + p.get_height() / 2 for p in right.patches] == pytest.approx(range(5)), "as they are, a bar each"


# Weights

def test_an_unknown_network_is_told_the_nearest(ws):
    with pytest.raises(CourseError, match="no classifier 'ResNet-18': did you mean 'resnet18'"):
        pretrained("ResNet-18", ws)


def test_no_weights_and_no_network(ws, monkeypatch):
    from dataclasses import replace
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(ws.local / "torch"))
    with pytest.raises(CourseError, match="scale 'tiny' downloads nothing: download https.*resnet18-f37072fd.pth .* put it into"):
        pretrained("resnet18", ws)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(CourseError, match="could not be downloaded .no route to host.*put it into .* Scale 'tiny' needs none"):
        pretrained("resnet18", replace(ws, scale="quick"))


@pytest.mark.parametrize("content, says", [("torn", "does not hold the weights of resnet18"), ("other", "does not hold the weights of resnet18"), ("good", "is not torchvision's file")])
def test_weights_of_ones_own(content, says, pre, place, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place.local / "torch"))
    file = place.local / "torch" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(get_model("resnet18", weights=None, num_classes=1000 if content == "good" else 3).state_dict(), file)
    if content == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    if content == "good":
        got = pretrained("resnet18", place)
        assert says in capsys.readouterr().out and math.isnan(got.accuracy) and "other weights" in got.title and not got.model.training and got.side == 224
    else:
        with pytest.raises(CourseError, match=says):
            pretrained("resnet18", place)


def test_stages_out_of_range(pre, ws):
    for n in 0, 7:
        with pytest.raises(CourseError, match="n_stages is . and resnet18 has 6 stages"):
            finetuned(pre, made(), ws, n)


def of_shapes(*shapes, n=40):
    "Images of these shapes in turn."
    y, rng, k = np.arange(n) % 2, np.random.default_rng(0), np.arange(n)
    images = np.empty(n, object)
    images[:] = [rng.integers(0, 200, (*shapes[i % len(shapes)], 3)).astype(np.uint8) for i in range(n)]
    images = np.stack(images) if len(shapes) == 1 else images
    return Splits(f"made {shapes}", images, y, ["a", "b"], [str(i) for i in k], k[:20], k[20:30], k[30:], str(shapes))


FORGOTTEN = {
    "finetuned": lambda s, pre, ws: finetuned(pre, s, ws).data.images,
    "cached features": lambda s, pre, ws: cached_features(pre, s, ws).images,
    "simple baselines": lambda s, pre, ws: dumb_baselines(s) is None or [0] * 40,
    "a network for 24 pixels": lambda s, pre, ws: learner(s, vgg(2, (4, 4, 4), 8, side=24), ws).data.images,
    "the test part": lambda s, pre, ws: [final_test(learner(s, vgg(2, (4, 4, 4), 8, side=24), ws), s)] * 40,
}


@pytest.mark.parametrize("shapes", [[(24, 30), (30, 24)], [(24, 40)], [(40, 24)], [(24, 24), (31, 45), (50, 33)]], ids=str)
@pytest.mark.parametrize("how", FORGOTTEN)
def test_forgotten_squares_are_cut_and_that_is_said_once(how, shapes, pre, ws, capsys):
    _say_squares.cache_clear()
    s = of_shapes(*shapes)
    got = [FORGOTTEN[how](s, pre, ws) for _ in range(2)]
    said = capsys.readouterr().out
    assert said.count("middle square") == (len(shapes) > 1 or "24 pixels" in how or "test" in how)  # else the images are taken as they are
    assert len(got[0]) == 40
    if "pixels" in how:
        assert got[0].shape == (40, 24, 24, 3) and (got[0] == squares(s).images).all()


def test_squares_that_are_there_are_left_alone(pre, ws, capsys):
    s = of_shapes((24, 24))
    assert finetuned(pre, s, ws).data is s and learner(s, vgg(2, (4, 4, 4), 8, side=24), ws).data is s and not capsys.readouterr().out
    with pytest.raises(CourseError, match=r"can't take inputs of shape .2, 3, 24, 24."):
        learner(s, vgg(2, (4, 4, 4), 8, side=32), ws)


def test_a_fit_that_keeps_no_weights_is_known_and_nothing_can_follow_it(pre, ws, capsys):
    def fit(keep):
        learn = finetuned(pre, made(), ws, 1, keep_weights=keep)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
        return learn
    first, again = fit(False), fit(False)
    assert "its history is loaded" in capsys.readouterr().out and again.recorder.values == first.recorder.values
    assert sum(f.stat().st_size for f in again.place.kept.iterdir()) < 1e6 < 4 * sum(p.numel() for p in pre.model.parameters())
    for ask in (lambda: again.fit(1, 1e-3)), again.get_preds, again.validate:
        with pytest.raises(CourseError, match="weights were not kept"):
            ask()
    whole = fit(True)
    assert "nothing is trained" not in capsys.readouterr().out and whole.recorder.values == first.recorder.values, "asked for weights, it trains again"
    fit(False)
    assert "its history and weights are loaded" in capsys.readouterr().out
