"Transfer learning: what moves and what must not, looking inside, and the sentences for bad input."
import io
import math

import numpy as np
import pytest
import torch
from conftest import bright
from fastai.callback.core import Callback
from PIL import Image
from torch import nn
from torchvision.models import SwinTransformer, get_model

from coursekit.baseline import simple_baselines, vgg
from coursekit.evaluate import evaluate_test
from coursekit.features import cached_features
from coursekit.files import CourseError
from coursekit.finetune import finetune_learner, grad_cam
from coursekit.learner import learner
from coursekit.plots import show_prediction
from coursekit.pretrained import Pretrained, layer_groups, splitter
from coursekit.splits import Splits, _say_squares, center_crop_all


def trained(learn):
    "Names of what one epoch of training changes, without the counters."
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    return {k for k, v in learn.model.state_dict().items() if not torch.equal(before[k], v)
            and not k.endswith("num_batches_tracked")}


# What moves

@pytest.mark.parametrize("n_stages", [1, 2, 6])
def test_frozen_stages_do_not_move_and_trained_ones_do(n_stages, pre, ws):
    moved = trained(finetune_learner(pre, bright(), ws, n_stages, keep_weights=False))
    names = list(layer_groups(pre.model))
    free = {k for k in pre.model.state_dict() for name in names[-n_stages:] if k.startswith(name + ".")
            and not k.endswith("num_batches_tracked")}
    free |= {k for k in pre.model.state_dict() if n_stages == 6 and k.startswith("bn1.")
             and not k.endswith("num_batches_tracked")}
    assert moved == free


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
def test_the_four_cases_of_batch_norm(affine, statistics, pre, ws):
    moved = trained(finetune_learner(pre, bright(), ws, 2, batch_norm=(affine, statistics), keep_weights=False))
    norms = [name for name, m in pre.model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    expected = {f"{n}.{part}" for n in norms for part in (["weight", "bias"] if affine else [])
                + (["running_mean", "running_var"] if statistics else [])}
    assert {k for k in moved if k.rsplit(".", 1)[0] in norms} == expected
    assert "layer4.0.conv1.weight" in moved and "fc.weight" in moved and "layer3.0.conv1.weight" not in moved


class Free(Callback):
    "Notes at each batch which stages are free, how many parameters the optimizer remembers, and which norms are."
    order = 50

    def before_fit(self):
        self.seen = []

    def before_batch(self):
        model = self.learn.model
        free = {name for name, g in zip(layer_groups(model), splitter(model))
                if any(p.requires_grad for p in g if p.ndim > 1)}
        self.seen.append((free, len(self.opt.opt.state),
                          any(m.weight.requires_grad for m in model.modules() if isinstance(m, nn.BatchNorm2d))))


def test_gradual_unfreezing_frees_one_stage_an_epoch_and_the_optimizer_forgets_nothing(pre, ws):
    notes = Free()
    learn = finetune_learner(pre, bright(), ws, 3, gradual=True, cbs=notes, bs=30, keep_weights=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(4, 1e-3)
    # each epoch is a batch of training and one of validation
    free, moments, _ = zip(*[n for k, n in enumerate(notes.seen) if k % 2 == 0])
    assert list(free) == [{"fc"}, {"layer4", "fc"}, {"layer3", "layer4", "fc"}, {"layer3", "layer4", "fc"}]
    assert moments[0] == 0 < moments[1] < moments[2] < moments[3]


def test_gradual_unfreezing_leaves_the_case_of_batch_norm_as_it_was_asked_for(pre, ws):
    for affine in False, True:
        notes = Free()
        learn = finetune_learner(pre, bright(), ws, 2, gradual=True, batch_norm=(affine, False), cbs=[notes],
                                 keep_weights=False)
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e-3)
        assert {n[2] for n in notes.seen} == {affine}


def test_callbacks_of_ones_own_do_not_replace_those_that_freeze(pre, ws):
    learn = finetune_learner(pre, bright(), ws, 1, cbs=Free())
    assert {"BnFreeze", "Free"} <= {type(cb).__name__ for cb in learn.cbs}


def test_the_head_is_one_layer_and_what_is_frozen_drops_nothing(ws):
    with torch.device("meta"):
        assert [list(layer_groups(get_model(n, weights=None)))[-1] for n in ("vgg11", "mobilenet_v3_small",
                                                                             "convnext_tiny")] == ["head"] * 3
    torch.manual_seed(0)
    small = Pretrained("mobilenet", get_model("mobilenet_v3_small", weights=None, num_classes=5, dropout=0.5).eval(),
                       [0.5] * 3, [0.25] * 3, 224, list("abcde"), math.nan)
    notes = []
    learn = finetune_learner(small, bright(), ws, 1, keep_weights=False)
    second = learn.model.features[1]
    # not the copy that tells one fit from another
    second.register_forward_hook(lambda m, x, y: notes.append(m.training) if m is second else None)
    assert sum(p.requires_grad for p in learn.model.parameters()) == 2, "weights and bias of the last layer"
    assert any(type(cb).__name__ == "EvalFrozen" for cb in learn.cbs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    assert notes and not any(notes)


def test_a_network_of_timm_is_frozen_cached_and_fine_tuned_as_others_are(ws):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    lite = Pretrained("tf_efficientnet_lite0", timm.create_model("tf_efficientnet_lite0").eval(), [0.5] * 3, [0.5] * 3,
                      224, [], math.nan, "timm")
    moved = trained(finetune_learner(lite, bright(), ws, 2, keep_weights=False))
    assert moved == {"conv_head.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var",
                     "classifier.weight", "classifier.bias"}
    assert cached_features(lite, bright(), ws).images.shape == (60, 1280)


# Sizes, maps, pictures

def test_a_learner_and_a_cache_for_images_that_are_too_small_say_so(ws):
    small = Pretrained("alexnet", get_model("alexnet", weights=None).eval(), [0.5] * 3, [0.25] * 3, 224, [], math.nan)
    for ask in finetune_learner, cached_features:
        with pytest.raises(CourseError, match="vanish below 63"):
            ask(small, bright(side=32), ws)


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
    assert heat.shape == (2, 8, 8) and heat[0].argmax() == 2 * 8 + 5 and heat.max() == 1 \
        and torch.allclose(probabilities.sum(1), torch.ones(2))
    assert grad_cam(model, xb, bright, [1, 1])[0].max() == 0, "what speaks for one answer does not speak for the other"
    with pytest.raises(CourseError, match="Grad-CAM needs a square map"):
        grad_cam(model, xb, head)
    swin = SwinTransformer(patch_size=[4, 4], embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4],
                           num_classes=2)
    with pytest.raises(CourseError, match="of a convolutional network"):
        grad_cam(swin, torch.rand(1, 3, 96, 96), swin.features[-1])


def test_a_picture_of_ones_own(pre, tmp_path):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    figure = show_prediction(tmp_path / "red.png", pre.model, pre, list("abcde"), 48)
    assert figure.axes[0].images[0].get_array().shape == (48, 48, 3) and len(figure.axes[1].patches) == 5
    for bad in tmp_path / "none.png", io.BytesIO(b"no image"):
        with pytest.raises(CourseError, match="can't be read as an image"):
            show_prediction(bad, pre.model, pre, list("abcde"), 48)


def test_a_class_may_have_any_name(pre):
    picture, classes = io.BytesIO(), ["$^$", r"\frac{$x$}", "a b", "$a_b$", "a_b"]  # two look alike and stay two
    Image.new("RGB", (60, 60), "red").save(picture, "PNG")
    right = show_prediction(picture, pre.model, pre, classes, 48).axes[1]
    right.figure.canvas.draw()
    ticks = right.get_yticklabels()
    assert sorted(t.get_text() for t in ticks) == sorted(c.replace("_", " ") for c in classes) \
        and len(right.patches) == 5
    assert not any(t.get_parse_math() for t in ticks) and [p.get_y() + p.get_height() / 2
                                                           for p in right.patches] == pytest.approx(range(5)), \
                                                               "as they are, a bar each"


def test_stages_out_of_range(pre, ws):
    for n in 0, 7:
        with pytest.raises(CourseError, match="n_stages is . and resnet18 has 6 stages"):
            finetune_learner(pre, bright(), ws, n)


def of_shapes(*shapes, n=40):
    "Images of these shapes in turn."
    y, rng, k = np.arange(n) % 2, np.random.default_rng(0), np.arange(n)
    images = np.empty(n, object)
    images[:] = [rng.integers(0, 200, (*shapes[i % len(shapes)], 3)).astype(np.uint8) for i in range(n)]
    images = np.stack(images) if len(shapes) == 1 else images
    return Splits(f"made {shapes}", images, y, ["a", "b"], [str(i) for i in k], k[:20], k[20:30], k[30:], str(shapes))


FORGOTTEN = {
    "fine-tuned": lambda s, pre, ws: finetune_learner(pre, s, ws).data.images,
    "cached features": lambda s, pre, ws: cached_features(pre, s, ws).images,
    "simple baselines": lambda s, pre, ws: simple_baselines(s) is None or [0] * 40,
    "a network for 24 pixels": lambda s, pre, ws: learner(s, vgg(2, (4, 4, 4), 8, side=24), ws).data.images,
    "the test part": lambda s, pre, ws: [evaluate_test(learner(s, vgg(2, (4, 4, 4), 8, side=24), ws))] * 40,
}


@pytest.mark.parametrize("shapes", [[(24, 30), (30, 24)], [(24, 40)], [(40, 24)], [(24, 24), (31, 45), (50, 33)]],
                         ids=str)
@pytest.mark.parametrize("how", FORGOTTEN)
def test_forgotten_squares_are_cut_and_that_is_said_once(how, shapes, pre, ws, capsys):
    _say_squares.cache_clear()
    s = of_shapes(*shapes)
    got = [FORGOTTEN[how](s, pre, ws) for _ in range(2)]
    said = capsys.readouterr().out
    # else the images are taken as they are
    assert said.count("middle square") == (len(shapes) > 1 or "24 pixels" in how or "test" in how)
    assert said.count("center_crop_all(splits) of coursekit.data") == said.count("middle square")
    assert len(got[0]) == 40
    if "pixels" in how:
        assert got[0].shape == (40, 24, 24, 3) and (got[0] == center_crop_all(s).images).all()


def test_squares_that_are_there_are_left_alone(pre, ws, capsys):
    s = of_shapes((24, 24))
    assert finetune_learner(pre, s, ws).data is s and learner(s, vgg(2, (4, 4, 4), 8, side=24), ws).data is s \
        and not capsys.readouterr().out
    with pytest.raises(CourseError, match=r"can't take inputs of shape .2, 3, 24, 24."):
        learner(s, vgg(2, (4, 4, 4), 8, side=32), ws)


def test_a_fit_that_keeps_no_weights_is_known_and_nothing_can_follow_it(pre, ws, capsys):
    def fit(keep):
        learn = finetune_learner(pre, bright(), ws, 1, keep_weights=keep)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
        return learn
    first, again = fit(False), fit(False)
    assert "its history is loaded" in capsys.readouterr().out and again.recorder.values == first.recorder.values
    assert sum(f.stat().st_size for f in again.checkpoints.kept.iterdir()) < 1e6 < 4 * sum(p.numel()
        for p in pre.model.parameters())
    for ask in (lambda: again.fit(1, 1e-3)), again.get_preds, again.validate:
        with pytest.raises(CourseError, match="weights were not kept"):
            ask()
    whole = fit(True)
    assert "nothing is trained" not in capsys.readouterr().out and whole.recorder.values == first.recorder.values, \
        "asked for weights, it trains again"
    fit(False)
    assert "its history and weights are loaded" in capsys.readouterr().out
