"Learning curves: known laws are found, and the fast model learns."
import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from coursekit.curves import extrapolate_learning_curve, learning_curve, patch_features, ridge_classifier
from coursekit.datasets import cifar10
from coursekit.files import CourseError


def test_more_data_finds_a_known_law():
    rng, sizes = np.random.default_rng(0), [100, 200, 400, 800, 1600]
    law = lambda n: 1 - (0.1 + 2 * n**-0.4)
    rows = [(n, k, law(n) + rng.normal(0, 0.003)) for n in sizes for k in range(5)]
    ahead = extrapolate_learning_curve(pd.DataFrame(rows, columns=["n", "repeat", "accuracy"]))
    assert ahead["n"] == 3200 and ahead["low"] < law(3200) < ahead["high"] and ahead["high"] - ahead["low"] < 0.05
    assert abs(ahead["accuracy"] - law(3200)) < 0.02


@pytest.mark.slow
def test_the_interval_of_more_data_covers_the_truth():
    law, sizes, hits = lambda n: 1 - (0.1 + 2 * n**-0.4), [100, 200, 400, 800, 1600], 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        curve = pd.DataFrame([(n, k, law(n) + rng.normal(0, 0.01)) for n in sizes for k in range(5)],
                             columns=["n", "repeat", "accuracy"])
        ahead = extrapolate_learning_curve(curve, draws=60)
        hits += ahead["low"] < law(3200) + rng.normal(0, 0.01) < ahead["high"]
        assert ahead["high"] - ahead["low"] > 0.02, "the spread of single subsets is in it"
    assert hits >= 25


def test_more_data_needs_four_sizes():
    with pytest.raises(CourseError, match="3 sizes .* measure 4 sizes or more"):
        extrapolate_learning_curve(pd.DataFrame([(n, k, 0.5) for n in (1, 2, 4) for k in range(3)],
                                                columns=["n", "repeat", "accuracy"]))
    with pytest.raises(CourseError, match="1 subsets of each size"):
        extrapolate_learning_curve(pd.DataFrame([(n, 0, 0.5) for n in (1, 2, 4, 8)],
                                                columns=["n", "repeat", "accuracy"]))


def test_the_fast_model_learns_and_more_examples_help(ws):
    splits = cifar10(ws)
    features = patch_features(splits.images, n_filters=16)
    assert features.shape == (len(splits.images), 128) and features.dtype == np.float32
    curve = learning_curve(features, splits.labels, splits.train, splits.valid, [30, 60, 200, 400], repeats=3)
    means = curve.groupby("n").accuracy.mean()
    assert means.index.tolist() == [30, 60, 200, 400] and means.iloc[-1] > means.iloc[0] + 0.1
    with pytest.raises(CourseError, match="largest subset has 5,000 examples and there are 450"):
        learning_curve(features, splits.labels, splits.train, splits.valid, [5000])
    with pytest.raises(CourseError, match=r"sizes are \[0.1, 0.5\]"):
        learning_curve(features, splits.labels, splits.train, splits.valid, [0.1, 0.5])
    shuffled = np.random.default_rng(0).permutation(splits.labels)
    assert ridge_classifier().fit(features[splits.train], shuffled[splits.train]).score(features[splits.valid],
        shuffled[splits.valid]) < 0.35


def test_a_curve_of_another_model():
    x = np.linspace(-1, 1, 400)[:, None]
    curve = learning_curve(x, np.abs(x[:, 0]) < 0.5, np.arange(0, 400, 2), np.arange(1, 400, 2), [100, 200],
                           repeats=2, model=DecisionTreeClassifier())
    assert curve.groupby("n").accuracy.mean().iloc[-1] > 0.95, "no linear model can do that"
