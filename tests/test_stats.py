"Statistics: each against a value worked out elsewhere."
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from coursekit.files import CourseError
from coursekit.stats import (
    _unpacked,
    accept_threshold,
    ci_half_width,
    compare_losses,
    compare_paired,
    compare_runs,
    contrasts,
    grouped_bootstrap,
    images_to_tell,
    mcnemar,
    mean_interval,
    pack_answers,
    paired_bootstrap,
    right_answers,
    wilson_interval,
)


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
    assert ci_half_width(values) == pytest.approx(4.302653 * 0.1 / 3**0.5)
    five = pd.Series([0.6, 0.7, 0.8, 0.9, 1.0])
    assert ci_half_width(five, 0.5) == pytest.approx(2.776445 * five.std() * (1 / 5 + 0.5) ** 0.5) \
        and np.isnan(ci_half_width(five[:4], 0.5)), "five folds are the least"
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


def folds_of(n=5):
    "b and a on five folds; b trains on 400 images of a fold's, a on 300."
    rng = np.random.default_rng(0)
    return pd.DataFrame([{"name": name, "seed": k, "accuracy": rng.random(), "data": {"train": train, "valid": 100}}
                         for name, train in (("b", 400), ("a", 300)) for k in range(n)])


def test_folds_widen_the_interval_by_what_their_records_say():
    plain, folds = compare_runs(folds_of()), compare_runs(folds_of(), folds=True)
    assert (folds["±"] / plain["±"]).tolist() == pytest.approx([(1 + 5 / 4) ** 0.5, (1 + 5 / 3) ** 0.5]) \
        and folds["± of it"][1] / plain["± of it"][1] == pytest.approx((1 + 5 / 3) ** 0.5), "the wider of the two"
    assert compare_runs(folds_of(3), folds=True)["± of it"].isna().tolist() == [False, True] \
        and compare_runs(folds_of(3))["± of it"].notna().all()
    for runs in folds_of().drop(columns="data"), folds_of().assign(data=[{"train": 4}] * 10):
        with pytest.raises(CourseError, match="do not say how many images each fold trains on"):
            compare_runs(runs, folds=True)


def test_nothing_to_compare_is_a_sentence():
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
    _, wider, _ = paired_bootstrap(a, b, level=0.99)
    assert wider == pytest.approx(0.05 - half * 2.5758 / 1.96, abs=0.003)


def test_of_several_seeds_an_image_counts_by_their_mean():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 500)) < 0.7, rng.random((3, 500)) < 0.6
    difference, low, high = paired_bootstrap(a, b)
    d = a.mean(0) - b.mean(0)
    drawn = [d[rng.integers(500, size=500)].mean() for _ in range(4000)]
    assert difference == pytest.approx(d.mean()) \
        and (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.004), "image by image"
    assert paired_bootstrap(a[:1], b[:1]) == paired_bootstrap(a[0], b[0])
    assert paired_bootstrap([a[0]] * 5, [b[0]] * 5) == pytest.approx(paired_bootstrap(a[0], b[0]))


@pytest.mark.parametrize("a, b", [([True], [True, False]), ([], []), ([[[True]]], [[[True]]]), ([0.7, 0.2], [1, 0]),
                                  (["a"], ["b"]), (True, True), ([True], [[True]])])
def test_answers_to_other_images_are_a_sentence(a, b):
    for f in mcnemar, paired_bootstrap:
        with pytest.raises(CourseError, match="for each of the same images, in the same order"):
            f(a, b)


# The ledger's answers

def kept(name, seed, right, idx=None, **more):
    "A run with answers, as the ledger has it."
    idx = np.arange(len(right)) if idx is None else idx
    return {"name": name, "seed": seed, "right": {"valid": pack_answers(right, idx)}, **more}


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1001])
def test_answers_come_back_as_they_were(n):
    rng = np.random.default_rng(n)
    right, idx = rng.random(n) < 0.5, rng.permutation(3 * n)[:n]
    run = json.loads(json.dumps(kept("a", 0, right, idx)))
    assert (right_answers(run) == right).all() and (_unpacked(run["right"]["valid"])[1] == idx).all()
    assert (right_answers({**run, "right": {"valid": right.tolist()}}) == right).all(), "plain ones do too"


def test_five_thousand_answers_are_small():
    rng = np.random.default_rng(0)
    assert len(json.dumps(pack_answers(rng.random(5000) < 0.7, np.sort(rng.permutation(60_000)[:5000])))) < 9000


def test_runs_are_compared_on_the_same_images():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400)) < 0.8, rng.random((2, 400)) < 0.7
    runs = pd.DataFrame([*(kept("b", k, r) for k, r in enumerate(b)), *(kept("a", k, r) for k, r in enumerate(a)),
                         kept("c", 1, a[0])])
    table = compare_paired(runs).set_index("run")
    assert table.index.tolist() == ["b", "a", "c"] and table.n.tolist() == [2, 2, 1] and (table.images == 400).all()
    difference, low, high = paired_bootstrap(a, b, n=100_000, level=0.975)
    assert table.loc["a", ["difference", "low", "high"]].tolist() == pytest.approx([100 * difference, 100 * low,
                                                                                    100 * high])
    assert table.by_seed["a"] == pytest.approx(list(100 * (a.mean(1) - b.mean(1)))) \
        and table.by_seed["c"] == pytest.approx([100 * (a[0].mean() - b[1].mean())]), "paired by the seed they share"
    assert table["std"]["a"] == pytest.approx(a.mean(1).std(ddof=1)) and np.isnan(table["std"]["c"])
    assert compare_paired(pd.concat([runs, runs])).equals(compare_paired(runs)), "a copied file is no second run"


def four_runs():
    "Two seeds each of four runs on 400 images: the answers, shape (4, 2, 400), and the rows."
    right = np.random.default_rng(3).random((4, 2, 400)) < np.array([0.5, 0.6, 0.55, 0.8])[:, None, None]
    return right, pd.DataFrame([kept(name, seed, own) for name, both in zip("abcd", right)
                                for seed, own in enumerate(both)])


def test_a_contrast_of_two_runs_is_their_paired_comparison():
    right, runs = four_runs()
    pairs = ("b", "a"), ("d", "a"), ("d", "c")
    found = contrasts(runs, {f"{high} less {low}": {high: 1, low: -1} for high, low in pairs})
    table = compare_paired(runs[runs.name != "c"], level=1 - 0.05 / 3)
    for column in "difference", "low", "high", "images":
        assert found[column][:2].tolist() == pytest.approx(table[column][1:].tolist())
    assert found.by_seed[2] == pytest.approx(list(100 * (right[3].mean(1) - right[2].mean(1))))


def test_a_difference_of_differences_is_of_each_image():
    right, runs = four_runs()
    found = contrasts(runs, {"both": {"d": 1, "c": -1, "b": -1, "a": 1}}).iloc[0]
    each = 100 * (right * np.array([1, -1, -1, 1])[:, None, None]).sum(0).mean(0)
    half = 1.96 * each.std() / 400**0.5  # the bootstrap of a mean is close to the normal one
    assert found.difference == pytest.approx(each.mean()) and found.images == 400
    assert found.low == pytest.approx(each.mean() - half, abs=0.3) and found.high == pytest.approx(each.mean() + half,
                                                                                                   abs=0.3)


def test_a_contrast_of_what_is_not_there_has_no_numbers_or_is_a_sentence():
    runs = four_runs()[1]
    gone = pd.concat([runs[runs.name != "d"], pd.DataFrame([{"name": "d", "seed": 0, "diverged": "The loss is nan"}])])
    assert np.isnan(contrasts(gone, {"d less a": {"d": 1, "a": -1}}).difference[0])
    with pytest.raises(CourseError, match="no run 'e' for the contrast 'x': choose from a, b, c, d"):
        contrasts(runs, {"x": {"a": 1, "e": -1}})
    for weights in {}, {"a": 1}, {"a": 1, "b": 1}:
        with pytest.raises(CourseError, match="weights of the contrast 'x' .* add up to 0"):
            contrasts(runs, {"x": weights})


def test_what_was_not_judged_on_the_same_images_is_not_paired():
    right = np.arange(50) % 3 > 0
    other = compare_paired(pd.DataFrame([kept("a", 0, right), kept("b", 0, right, np.arange(50) + 50)]))
    assert other.by_seed.tolist() == [[0.], []] and np.isnan(other.difference[1]) and other.n.tolist() == [1, 1]


def test_a_run_that_diverged_has_no_numbers_and_widens_nothing():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame([kept("a", 0, rng.random(99) < 0.5), kept("b", 0, rng.random(99) < 0.5)])
    table = compare_paired(pd.concat([runs, pd.DataFrame([{"name": "c", "seed": 0, "diverged": "The loss is nan"}])]))
    assert table[:2].equals(compare_paired(runs)) and table.accuracy.isna().tolist() == [False, False, True] \
        and np.isnan(table.high[2]) and table.n[2] == 0
    first = compare_paired(pd.DataFrame([{"name": "c", "seed": 0, "failed": "The loss is nan"},
                                         *runs.to_dict("records")]))
    assert first.difference.isna().all() and first.accuracy.notna().tolist() == [False, True, True]


def test_no_answers_are_a_sentence():
    with pytest.raises(CourseError, match="There are no runs to compare: train"):
        compare_paired(pd.DataFrame(columns=["name", "seed"]))
    for run in {"accuracy": 0.5}, {"right": {}}, {"right": float("nan")}:
        with pytest.raises(CourseError, match="The run 'a', seed 3, has no answers image by image on the part 'valid': "
                                              "record it again from a learner that has its weights"):
            compare_paired(pd.DataFrame([{"name": "a", "seed": 3, **run}]))


# Losses on one text

def test_losses_are_compared_block_by_block():
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.gamma(4, 0.4, 50), 200)
    losses = {"a": [hard, hard + 0.02], "b": [hard - 0.1, hard], "c": [hard + 1, hard + 1]}
    table = compare_losses(losses, block=200)
    assert table.difference.tolist() == pytest.approx([0, -0.06, 0.99]) and table.blocks.tolist() == [50] * 3
    assert table.by_seed[1] == pytest.approx([-0.1, -0.02]) and table.n.tolist() == [2] * 3
    one = compare_losses({"a": hard, "b": hard + rng.normal(0.01, 0.3, hard.size)}, block=200)
    assert one.low[1] < one.difference[1] < one.high[1] and np.isnan(one["std"][1])


def test_characters_of_a_passage_are_not_independent():
    rng, widths = np.random.default_rng(0), []
    scene = np.repeat(rng.normal(0, 0.3, 100), 100)  # what a hundred neighbors share
    for block in (1, 100):
        table = compare_losses({"a": np.zeros(scene.size), "b": scene}, block=block)
        widths.append(table.high[1] - table.low[1])
    assert widths[1] > 5 * widths[0]


@pytest.mark.parametrize("losses", [{}, {"a": np.zeros(3000), "b": np.zeros(2999)}, {"a": np.zeros(1999)}])
def test_losses_of_other_characters_are_refused(losses):
    with pytest.raises(CourseError, match="the same seeds and characters are expected"):
        compare_losses(losses)


# Connor (1987): z squared times the disagreement over the squared difference, a little less as the difference is known
@pytest.mark.parametrize("difference, disagree", [(0.01, 0.02), (0.01, 0.1), (0.05, 0.3)])
def test_the_number_of_images_goes_with_the_disagreement(difference, disagree):
    rough = (1.959964 + 0.841621)**2 * disagree / difference**2
    assert 0.98 * rough - difference**-1 < images_to_tell(difference, disagree) <= np.ceil(rough)
    assert images_to_tell(difference, disagree, power=0.9) > images_to_tell(difference, disagree)


@pytest.mark.parametrize("args", [(0, 0.1), (0.1, 0.05), (0.01, 2), (0.01, 0.1, 1)])
def test_networks_that_cannot_differ_so_are_a_sentence(args):
    with pytest.raises(CourseError, match="0 < difference <= disagree"):
        images_to_tell(*args)


@pytest.mark.parametrize("rate, accepted", [(0.3, 3), (0.1, 1), (0.35, 3)])
def test_no_more_strangers_are_accepted_than_allowed(rate, accepted):
    scores = np.random.default_rng(0).permutation(10) / 10
    assert (scores > accept_threshold(scores, rate)).sum() == accepted
    assert (np.zeros(10) > accept_threshold(np.zeros(10), rate)).sum() == 0, "ties are kept out"


@pytest.mark.parametrize("n, rate", [(50, 0.01), (100, 0), (100, 1)])
def test_a_rate_that_cannot_be_seen_is_a_sentence(n, rate):
    with pytest.raises(CourseError, match="false accepts can't be seen"):
        accept_threshold(np.arange(n), rate)


def test_a_bootstrap_by_group_is_as_wide_as_the_groups_differ():
    values, groups = np.repeat([0., 1.] * 10, 50), np.repeat(np.arange(20), 50)
    mean, low, high = grouped_bootstrap(values, groups)
    assert mean == 0.5 and high - low == pytest.approx(2 * 1.96 * (0.25 / 20) ** 0.5, rel=0.1)
    _, low, high = grouped_bootstrap(values, np.arange(1000))
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 1000) ** 0.5, rel=0.1)
    mean, low, high = grouped_bootstrap([1., 1., 1., 0.], ["a", "a", "a", "b"])
    assert (mean, low, high) == (0.75, 0., 1.)
    for values, groups in ([1., 2.], ["a"]), ([], []), ([1., 2.], ["a", "a"]):
        with pytest.raises(CourseError, match="two groups at least"):
            grouped_bootstrap(values, groups)
