"Statistics: each against a value worked out elsewhere."
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from coursekit.files import CourseError
from coursekit.stats import ci_half_width, compare_runs, mcnemar, mean_interval, paired_bootstrap, wilson_interval


def test_the_interval_is_wilsons():
    low, high = wilson_interval(4, 4)
    assert low == pytest.approx(1 / (1 + 1.95996**2 / 4), abs=1e-4) and high == 1
    assert wilson_interval(0, 4)[1] == pytest.approx(1 - low)


@pytest.mark.parametrize("right, n", [(0, 0), (5, 3), (-1, 3)])
def test_an_impossible_score_is_a_sentence(right, n):
    with pytest.raises(CourseError, match="at least one answer"):
        wilson_interval(right, n)


@pytest.mark.parametrize("right, n, low, high", [(81, 263, 0.2553, 0.3662), (0, 10, 0., 0.2775),
                                                 (15, 148, 0.0624, 0.1605)])
def test_wilsons_interval_as_published(right, n, low, high):
    "Newcombe (1998), table I, method 3."
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)


def test_students_interval_by_hand():
    values = pd.Series([0.7, 0.8, 0.9])
    assert ci_half_width(values) == pytest.approx(4.302653 * 0.1 / 3**0.5) \
        and ci_half_width(values, 0.5) == pytest.approx(4.302653 * 0.1 * (1 / 3 + 0.5) ** 0.5)
    assert np.isnan(ci_half_width(values[:2])) and mean_interval(values[:2]) == "n < 3"
    assert mean_interval(values) == f"{0.8 - 4.302653 * 0.1 / 3**0.5:.3f} to {0.8 + 4.302653 * 0.1 / 3**0.5:.3f}"


def three_runs():
    "b, then a, of the same seeds; a is 0.02 better, and once 0.05."
    a, b = [0.72, 0.82, 0.92, 0.75], [0.70, 0.80, 0.90, 0.70]
    return pd.DataFrame([(name, k, v) for name, values in (("b", b), ("a", a)) for k, v in enumerate(values)],
                        columns=["name", "seed", "accuracy"])


def test_runs_are_paired_by_seed():
    table = compare_runs(three_runs()[::-1].sort_values("name", ascending=False, kind="stable")).set_index("run")
    d = np.array([0.02, 0.02, 0.02, 0.05])
    assert table.index.tolist() == ["b", "a"] and table.difference.tolist() == [0, pytest.approx(d.mean())]
    assert table["± of it"].tolist() == [0, pytest.approx(3.182446 * d.std(ddof=1) / 2, rel=1e-5)] \
        and table["±"]["a"] > 5 * table["± of it"]["a"]
    assert table.n.tolist() == [4, 4] and table.accuracy["b"] == pytest.approx(0.775)


def test_a_seed_that_only_one_has_is_not_compared():
    runs = three_runs()
    assert compare_runs(runs[:-1]).difference[1] == pytest.approx(0.02) \
        and compare_runs(pd.concat([runs, runs])).n.tolist() == [4, 4], "a copied file is no second run"


def test_folds_widen_the_interval():
    plain, folds = compare_runs(three_runs()), compare_runs(three_runs(), share={"b": 0., "a": 1 / 3})
    assert folds["±"][0] == plain["±"][0] \
        and folds["± of it"][1] / plain["± of it"][1] == pytest.approx((1 / 4 + 1 / 3) ** 0.5 / 0.5)
    for share in {"a": 0.1}, {}:
        with pytest.raises(CourseError, match="share has no value for b.*: give one for each run"):
            compare_runs(three_runs(), share=share)
    for runs in three_runs()[:0], three_runs().drop(columns="accuracy"):
        with pytest.raises(CourseError, match="no runs with 'accuracy' to compare"):
            compare_runs(runs)


def answers(both, only_a, only_b, neither):
    "What two networks had right, by how many images of each kind there are."
    return [np.repeat(kinds, [both, only_a, only_b, neither]) for kinds in ([True, True, False, False],
                                                                            [True, False, True, False])]


def test_mcnemar_is_the_binomial():
    assert mcnemar(*answers(50, 8, 2, 7)) == (8, 2, pytest.approx(0.109375)), "2 * (1 + 10 + 45) / 1024"
    assert mcnemar(*answers(0, 0, 6, 0)) == (0, 6, pytest.approx(2 / 64)) and mcnemar(*answers(9, 0, 0, 1)) == (0, 0,
        1.)
    a, b = answers(900, 80, 40, 100)
    assert mcnemar(a, b)[2] == mcnemar(b, a)[2] == mcnemar(a.astype(int).tolist(), b)[2], \
        "two-sided, and booleans may be 0 and 1"
    assert mcnemar(a, b)[2] == pytest.approx(chi2.sf((abs(80 - 40) - 1) ** 2 / 120, 1), rel=0.2), \
        "the approximation with Edwards's correction"
    assert isinstance(mcnemar(a, b)[0], int) and isinstance(mcnemar(a, b)[2], float)


def test_the_bootstrap_is_that_of_the_images():
    a, b = answers(600, 150, 100, 150)
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx(0.05) == a.mean() - b.mean()
    half = 1.96 * (0.25 - 0.05**2) ** 0.5 / 1000**0.5  # the standard error of a mean of -1, 0 and 1
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.002)
    rng, d = np.random.default_rng(1), a.astype(int) - b
    drawn = [d[rng.integers(1000, size=1000)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.003), "image by image"
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1) \
        and paired_bootstrap(a, a) == (0, 0, 0)
    assert paired_bootstrap(*answers(0, 3, 7, 0), n=100)[0] == pytest.approx(-0.4)


@pytest.mark.parametrize("a, b", [([True], [True, False]), ([], []), ([[True]], [[True]]), ([0.7, 0.2], [1, 0]),
                                  (["a"], ["b"]), (True, True)])
def test_answers_to_other_images_are_a_sentence(a, b):
    for f in mcnemar, paired_bootstrap:
        with pytest.raises(CourseError, match="for each of the same images, in the same order"):
            f(a, b)
