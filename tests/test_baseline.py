"The baseline's parts, each against something known."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import bright

from coursekit.ablate import train_variant
from coursekit.baseline import simple_baselines, train_baseline, vgg
from coursekit.datasets import cifar10, hippocampus
from coursekit.files import CourseError


def test_vgg_is_the_network_of_the_brief():
    net = vgg()
    assert sum(p.numel() for p in net.parameters()) == 550_570 and net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert (net(torch.rand(2, 3, 32, 32)) == 0).all(), "the last layer starts at zero"
    assert [m.out_channels for m in net if isinstance(m, torch.nn.Conv2d)] == [32, 32, 64, 64, 128, 128]
    assert vgg(37, side=64)(torch.rand(1, 3, 64, 64)).shape == (1, 37)
    first = net[0].weight
    assert first.std().item() == pytest.approx(math.sqrt(2 / 27), rel=0.15), "He initialization"


def test_dumb_baselines_are_above_chance_and_the_majority_is_not(ws):
    table = simple_baselines(cifar10(ws)).set_index("model").accuracy
    assert table["majority class"] == pytest.approx(0.1, abs=0.02) and table["5 nearest neighbours"] > 0.5 \
        and len(table) == 4


def test_simple_baselines_want_one_label_an_image(ws):
    one = cifar10(ws)
    several = replace(one, labels=np.eye(10, dtype=np.uint8)[one.labels])
    for splits, has in (hippocampus(ws), "masks"), (several, "several labels an image"):
        with pytest.raises(CourseError, match=f"^simple_baselines wants one label an image .* has {has}: "):
            simple_baselines(splits)


def test_the_baseline_is_that_of_lesson_04(ws, capsys):
    "The very same fit, so that what one lesson has trained, the other finds."
    splits = bright(n_classes=3)
    for seed in 0, 1:
        learn = train_baseline(splits, ws, 1, seed)
        capsys.readouterr()
        again = train_variant(splits, ws, seed, n_epochs=1)
        assert again.checkpoints.kept.name == learn.checkpoints.kept.name and again.epochs == learn.epochs
        assert "was finished before" in capsys.readouterr().out \
            and {"accuracy", "train_accuracy"} <= set(again.epochs[0])
        assert learn.recipe == again.recipe \
            == "SGD, lr 0.0008 to 0.02 to 2e-07, momentum 0.95 to 0.85 to 0.95, batch 64, 1 epoch"


def test_at_full_scale_it_is_trained_by_the_brief(ws):
    ws, splits = replace(ws, scale="full"), bright(n_classes=3)
    learn = train_baseline(splits, ws, 1)
    assert learn.recipe == "SGD, lr 0.001, momentum 0.9, batch 64, 1 epoch, inputs in [0, 1]"
    again = train_variant(splits, ws, 0, n_epochs=1, lr=1e-3, shape="constant", unit_range=True)
    assert again.checkpoints.kept.name == learn.checkpoints.kept.name
