"Judging a fitted network: each figure against one that is known."
import numpy as np
import pytest
import torch

from coursekit.baseline import train_baseline
from coursekit.datasets import cifar10
from coursekit.evaluate import calibration_curve, evaluate_test
from coursekit.files import CourseError
from coursekit.plots import history


def test_the_test_part_is_counted_and_judged_in_the_learners_own_normalization(ws):
    splits = cifar10(ws)
    learn = train_baseline(splits, ws, 1)
    with torch.no_grad():
        x = torch.as_tensor(splits.images[splits.test]).permute(0, 3, 1, 2) / 255
        dl = learn.dls.train
        right = (learn.model.eval()((x - dl.mean.cpu()) / dl.std.cpu()).argmax(1).numpy()
                 == splits.labels[splits.test]).mean()
    first, second = evaluate_test(learn), evaluate_test(learn, splits)
    assert first["accuracy"] == pytest.approx(right) and first["low"] < right < first["high"] \
        and second["looks"] == first["looks"] + 1
    assert "batch 64, 1 epoch" in learn.recipe and history(learn).epoch.tolist() == [1]


def test_reliability_of_an_honest_and_a_boastful_model():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    targets = (rng.random(20_000) > p).astype(int)  # class 0 with probability p
    honest, boastful = np.stack([p, 1 - p], 1), np.tile([0.99, 0.01], (20_000, 1))
    assert calibration_curve(honest, targets)[1] < 0.02
    assert calibration_curve(boastful, targets)[1] == pytest.approx(0.99 - (targets == 0).mean())
    with pytest.raises(CourseError, match="2 predictions and 3 labels"):
        calibration_curve(honest[:2], targets[:3])
