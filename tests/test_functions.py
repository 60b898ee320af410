"Function fits and submissions: each against something known."
import numpy as np
import pandas as pd
import pytest
import torch

from coursekit.files import CourseError
from coursekit.functions import fit_function, fit_starts, lorenz96, mlp, neuron_sensitivity, write_submission


def test_an_mlp_learns_a_line_and_counts():
    assert sum(p.numel() for p in mlp(5, [38] * 4).parameters()) == 6 * 38 + 3 * 39 * 38 + 39
    torch.manual_seed(0)
    x = np.linspace(-1, 1, 50)[:, None]
    train, valid = fit_function(mlp(1, [16]), x, 2 * x + 1, x, 2 * x + 1, 800, lr=1e-2)
    assert train[-1] < 1e-3 < train[0] and len(train) == len(valid) == 80
    with pytest.raises(CourseError, match="50 inputs for 49 values"):
        fit_function(mlp(1, [4]), x, x[1:], x, x)
    for values in x[:, 0], np.hstack([x, x]):
        with pytest.raises(CourseError, match="makes a column"):
            fit_function(mlp(1, [4]), x, values, x, values)


def seeded(widths, seeds=range(3), n_in=2, n_out=2):
    "A network from each seed."
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(mlp(n_in, widths, n_out))
    return models


def test_starts_that_are_fitted_together_are_as_if_alone():
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = np.stack([np.sin(x[:, 0]), x[:, 0] * x[:, 1]], 1)
    points = x[:30], y[:30], x[30:], y[30:]
    models, others = seeded([8, 8]), seeded([8, 8])
    together = fit_starts(models, *points, n_steps=100)
    alone = np.stack([fit_function(model, *points, n_steps=100) for model in others], 1)
    assert together.shape == (2, 3, 10) and np.allclose(together, alone, rtol=1e-2)
    for model, other in zip(models, others):  # the networks themselves have learned
        assert torch.allclose(model(torch.ones(1, 2)), other(torch.ones(1, 2)), atol=1e-2)
    assert len({model(torch.ones(1, 2))[0, 0].item() for model in models}) == 3
    assert (together[0, :, -1] < together[0, :, 0]).all()


def test_steps_that_take_some_points_take_others_each_time():
    x = np.linspace(-1, 1, 200)[:, None]
    torch.manual_seed(0)
    losses, valid = fit_starts(seeded([16], n_in=1, n_out=1), x, x**2, x, x**2, 400, lr=1e-2, bs=8)
    assert (valid[:, -1] < 0.01).all() and not np.allclose(losses[:, 1], valid[:, 1], rtol=0.01)


def test_networks_of_different_shapes_are_refused():
    x = np.zeros((4, 2))
    for models in seeded([4]) + seeded([5]), seeded([4]) + seeded([4, 4]), []:
        with pytest.raises(CourseError, match="networks differ in shape, or there are none"):
            fit_starts(models, x, x, x, x)
    with pytest.raises(CourseError, match="4 inputs for 3 values"):
        fit_starts(seeded([4]), x, x[1:], x, x)
    with pytest.raises(CourseError, match="makes a column"):
        fit_starts(seeded([4]), x, x[:, :1], x, x)


def test_the_ring_is_a_flow():
    x = np.random.default_rng(0).uniform(-3, 8, (20, 5))
    assert np.allclose(lorenz96(x, 1e-6), x, atol=1e-3)
    assert np.allclose(lorenz96(lorenz96(x, 0.1), 0.2), lorenz96(x, 0.3), atol=1e-3)
    slope = (lorenz96(x, 1e-3) - x) / 1e-3
    first = (x[:, 1] - x[:, 3]) * x[:, 4] - x[:, 0] + 8  # places -2 and -1 of a ring of five are 3 and 4
    assert np.allclose(slope[:, 0], first, rtol=0.05, atol=0.5)
    still = lorenz96(np.full((2, 4), 5.), 50, force=0.)
    assert np.allclose(still, 0, atol=1e-3), "friction stops what nothing drives"
    for wrong in x[0], x[:, :3], x[:0]:
        with pytest.raises(CourseError, match="at least 4 places"):
            lorenz96(wrong)


def test_sensitivity_is_that_of_one_neuron_at_a_time():
    model, x = seeded([6, 4], [0])[0], torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[2].weight[:, 3] = 0  # the fourth unit of the first layer leads nowhere
        model[2].bias[1] = -100    # the second unit of the second one is never on
    first, second = neuron_sensitivity(model, x)
    assert first.shape == (6,) and second.shape == (4,) and first[3] == second[1] == 0
    assert (first[[0, 1, 2, 4, 5]] >= 0).all() and first.max() > 0 and second.max() > 0
    assert all(np.array_equal(a, b) for a, b in zip((first, second), neuron_sensitivity(model, x)))
    assert not np.array_equal(first, neuron_sensitivity(model, x, seed=1)[0])
    assert not neuron_sensitivity(model, x, amount=0.)[0].any()
    g, before = torch.Generator().manual_seed(0), model(x)  # one unit, by hand
    weight, bias = (p * (1 + 0.1 * torch.randn(p.shape, generator=g)) for p in model[0].parameters())
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = weight[2], bias[2]
        by_hand = (model(x) - before).square().mean().sqrt()
        fresh = seeded([6, 4], [0])[0]
        fresh[2].weight[:, 3], fresh[2].bias[1] = 0, -100
    assert np.isclose(neuron_sensitivity(fresh, x, n_draws=1)[0][2], by_hand.item(), rtol=1e-4)


SAMPLE = pd.DataFrame({"id": [3, 1, 2], "y": 0.0})


def test_a_submission_is_in_the_order_of_the_sample(tmp_path):
    write_submission(tmp_path / "s.csv", [1, 2, 3], [10, 20, 30], SAMPLE)
    assert pd.read_csv(tmp_path / "s.csv").to_dict("list") == {"id": [3, 1, 2], "y": [30, 10, 20]}
    SAMPLE.to_csv(tmp_path / "sample.csv", index=False)
    write_submission(tmp_path / "labels.csv", [1, 2, 3], ["cat", "dog", "cat"], SAMPLE)
    assert pd.read_csv(tmp_path / "labels.csv").iloc[:, 1].tolist() == ["cat", "cat", "dog"], "in the sample's order"
    write_submission(tmp_path / "whole.csv", [1, 2, 3], [4, 5, 6], SAMPLE)
    assert (tmp_path / "whole.csv").read_text().splitlines()[1] == "3,6", "a label that is a whole number stays one"
    for ids in [1, 2, 3], ["1", "2", "3"], np.array([1., 2, 3]), torch.tensor([1, 2, 3]), {1: 0, 2: 0, 3: 0}.keys(), \
        pd.DataFrame({"id": [1, 2, 3]}):
        write_submission(tmp_path / "t.csv", ids, np.array([[10], [20], [30]]), tmp_path / "sample.csv")
        assert (tmp_path / "t.csv").read_text() == (tmp_path / "s.csv").read_text(), ids


@pytest.mark.parametrize("expected, ids, labels", [
    (["0001", "0010", "0002"], ["0001", "0002", "0010"], "021"),
    (["0001", "0010", "0002"], pd.Series([1, 2, 10], index=[7, 8, 9]), "021"),
    (["007", "1e3", "x1"], [1000.0, 7, "x1"], "102"),  # as pandas reads single ones
    (["1", "01", "2"], ["01", 1, 2.0], "102"),  # 1 stands there as it is
    (["NULL", "nan", "", "N/A"], ["", "N/A", "NULL", "nan"], "2301"),
    (["TRUE", "False", "true"], ["true", "TRUE", "False"], "120"),
    (["9223372036854775809", "9223372036854775808", "1"], [1, 2**63, 2**63 + 1], "210"),
    ([" a", "a", 'say "b"', "c,d", "é"], ["é", "c,d", 'say "b"', "a", " a"], "43210"),
    (["2024-01-02", "+3", "-0.50"], [-0.5, 3, "2024-01-02"], "210"),
])
def test_ids_are_written_as_the_sample_has_them(expected, ids, labels, tmp_path):
    sample = pd.DataFrame({"id": expected, "label": "0"})
    sample.to_csv(tmp_path / "sample.csv", index=False)
    for given in tmp_path / "sample.csv", sample:
        write_submission(tmp_path / "s.csv", ids, range(len(ids)), given)
        assert pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False).to_dict("list") == {"id": expected,
            "label": list(labels)}


@pytest.mark.parametrize("expected, ids, says", [
    ("1,01,001", [1, "1", "001"], "1 ids come twice, the first is 1:"),
    ("01,001", [1, 2], "unknown: 001, 01, 1, 2; those of the sample are expected, 2 in all.$"),  # 1 may be either
    ("0001,0002", ["1", "2"], "unknown: 0001, 0002, 1, 2;"),
    ("0001,0002", [1, "2"], "unknown: 0002, 2;"),
    ("10e2,20e3", ["1000", "20000"], "unknown: 1000, 10e2"),
    ("True,False", [1, 0], "unknown: 0, 1, False, True"),
    ("NA,b", [float("nan"), "b"], "1 ids are NaN, as pandas reads an id such as NA: read their file with dtype=str and "
                                  "keep_default_na=False"),
    ("a,a", ["a", "b"], "1 ids of the sample come twice, the first is a"),
    ("12345678901234567890123,2", [1.2345678901234568e22, 2], r"unknown: 1.2345678901234568e\+22, "
                                                              r"12345678901234567890123"),
])
def test_ids_that_could_be_others_are_refused(expected, ids, says, tmp_path):
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"{e},0\n" for e in expected.split(",")))
    with pytest.raises(CourseError, match=says):
        write_submission(tmp_path / "s.csv", ids, range(len(ids)), tmp_path / "sample.csv")
    assert not (tmp_path / "s.csv").exists()


def test_a_sample_that_pandas_has_read_keeps_what_is_left(tmp_path):
    (tmp_path / "sample.csv").write_text("id,label\n0001,0\n0002,0\n")
    lossy = pd.read_csv(tmp_path / "sample.csv")
    write_submission(tmp_path / "s.csv", lossy.id, [5, 6], lossy)
    assert (tmp_path / "s.csv").read_text() == "id,label\n1,5\n2,6\n"
    with pytest.raises(CourseError, match="unknown: 0001, 0002, 1, 2; .*give the sample's file instead of a DataFrame, "
                                          "as pandas reads 0001 as 1"):
        write_submission(tmp_path / "s.csv", ["0001", "0002"], [5, 6], lossy)
    (tmp_path / "sample.csv").write_text("id,label\nNA,0\nb,0\n")
    with pytest.raises(CourseError, match="1 ids of the sample are NaN"):
        write_submission(tmp_path / "s.csv", ["NA", "b"], [5, 6], pd.read_csv(tmp_path / "sample.csv"))
    for sample in tmp_path / "none.csv", tmp_path, tmp_path / "empty.csv", tmp_path / "latin.csv":
        (tmp_path / "empty.csv").touch(), (tmp_path / "latin.csv").write_bytes("id,été\n1,0\n".encode("latin-1"))
        with pytest.raises(CourseError, match="sample submission can't be read"):
            write_submission(tmp_path / "s.csv", [1], [1], sample)


@pytest.mark.parametrize("in_sample, values, written", [
    ("0,0,1", [1., 0., 2.], "1,0,2"), ("0,0,1", np.float32([1, 0, -2]), "1,0,-2"),
    ("0,0,0", [True, False, True], "1,0,1"), ("0,0,0", [0.5, 1., 0.25], "0.5,1.0,0.25"),
    ("0.0,0.0,0.0", [1., 0., 2.], "1.0,0.0,2.0"), ("0.5,0,1", [1., 0., 2.], "1.0,0.0,2.0"),
    ("0.0,0.0,0.0", [1, 0, 2], "1,0,2"), ("0,0,0", [1e300, 1., 2.], "1e+300,1.0,2.0"),
    ("False,False,True", [1, 0, 1], "True,False,True"), ("False,False,False", [0.9, 0.1, 1.], "0.9,0.1,1.0"),
    ("cat,cat,cat", ["cat", "1.0", "dog"], "cat,1.0,dog")])
def test_whole_labels_are_written_as_the_sample_has_them(in_sample, values, written, tmp_path):
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"{k},{v}\n"
                                                                for k, v in enumerate(in_sample.split(","))))
    for sample in tmp_path / "sample.csv", pd.read_csv(tmp_path / "sample.csv"):
        write_submission(tmp_path / "s.csv", range(3), values, sample)
        assert [line.split(",")[1] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]] == written.split(",")


def test_each_column_has_its_own_kind(tmp_path):
    (tmp_path / "sample.csv").write_text("id,label,score,name\n01,0,0.0,x\n02,0,0.0,x\n")
    values = pd.DataFrame({"label": [3., 4.], "score": [1., 0.5], "name": ["a", "b"]})
    write_submission(tmp_path / "s.csv", [2, 1], values, tmp_path / "sample.csv")
    assert (tmp_path / "s.csv").read_text() == "id,label,score,name\n01,4,0.5,b\n02,3,1.0,a\n"


@pytest.mark.parametrize("ids, values, says",
                         [([1, 2], [1, 2], "missing or unknown: 3"),
                          ([1, 2, 3, 4], [1, 2, 3, 4], "missing or unknown: 4"),
                          ([1, 2, 2], [1, 2, 3], "1 ids come twice, the first is 2"),
                                               ([1, 2, 3], [1, 2], "2 values for 3 ids"),
                                               ([1, 2, 3], [[1, 2]] * 3, "2 values a row and the sample has 1 columns"),
                                               ([1, 2, 3], [1, float("nan"), 3], "1 row.s. hold NaN .* id 2"),
                                               ([1, 2, 3], [1, 2, float("inf")], "id 3"),
                                               ([1, 2, 3], ["cat", float("nan"), "dog"], "1 row.s. hold NaN .* id 2"),
                                               ([1, 2, 3], [None, 1, 2], "id 1"),
                                               ([], [], "Ids are missing or unknown: 1, 2, 3")])
def test_a_submission_that_would_be_refused_is_not_written(ids, values, says, tmp_path):
    with pytest.raises(CourseError, match=says):
        write_submission(tmp_path / "s.csv", ids, values, SAMPLE)
    assert not list(tmp_path.glob("*.csv"))
