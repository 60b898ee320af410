"The baseline's parts and the function fits: each against something known."
import math

import numpy as np
import pandas as pd
import pytest
import torch

from coursekit.baseline import dumb_baselines, final_test, history, most_confident_mistakes, reliability, train_baseline, vgg
from coursekit.data import cifar10
from coursekit.functions import fit_function, mlp, write_submission
from coursekit.ledger import ledger, look, looks, references, results, write_record
from coursekit.workspace import CourseError


def test_vgg_is_the_network_of_the_brief():
    net = vgg()
    assert sum(p.numel() for p in net.parameters()) == 550_570 and net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert (net(torch.rand(2, 3, 32, 32)) == 0).all(), "the last layer starts at zero"
    assert [m.out_channels for m in net if isinstance(m, torch.nn.Conv2d)] == [32, 32, 64, 64, 128, 128]
    assert vgg(37, side=64)(torch.rand(1, 3, 64, 64)).shape == (1, 37)
    first = net[0].weight
    assert first.std().item() == pytest.approx(math.sqrt(2 / 27), rel=0.15), "He initialisation"


def test_dumb_baselines_are_above_chance_and_the_majority_is_not(ws):
    table = dumb_baselines(cifar10(ws)).set_index("model").accuracy
    assert table["majority class"] == pytest.approx(0.1, abs=0.02) and table["5 nearest neighbours"] > 0.5 and len(table) == 4


def test_the_test_part_is_counted_and_judged_in_the_learners_own_normalisation(ws):
    splits = cifar10(ws)
    learn, recipe = train_baseline(splits, ws, 1)
    with torch.no_grad():
        x = torch.as_tensor(splits.images[splits.test]).permute(0, 3, 1, 2) / 255
        dl = learn.dls.train
        right = (learn.model.eval()((x - dl.mean.cpu()) / dl.std.cpu()).argmax(1).numpy() == splits.labels[splits.test]).mean()
    first, second = final_test(learn, splits), final_test(learn, splits)
    assert first["accuracy"] == pytest.approx(right) and first["low"] < right < first["high"] and second["looks"] == first["looks"] + 1
    assert "1 epochs" in recipe and history(learn).epoch.tolist() == [1]


def test_mistakes_are_the_surest_wrong_ones(ws):
    splits = cifar10(ws)
    preds = np.full((len(splits.valid), 10), 0.01)
    preds[np.arange(len(preds)), splits.labels[splits.valid]] = 0.9
    preds[3, (splits.labels[splits.valid[3]] + 1) % 10] = 0.95
    figure = most_confident_mistakes(splits, preds)
    assert "95%" in figure.axes[0].get_title() and not figure.axes[1].get_title() and (figure.axes[0].images[0].get_array() == splits.images[splits.valid[3]]).all()


def test_reliability_of_an_honest_and_a_boastful_model():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    targets = (rng.random(20_000) > p).astype(int)  # class 0 with probability p
    honest, boastful = np.stack([p, 1 - p], 1), np.tile([0.99, 0.01], (20_000, 1))
    assert reliability(honest, targets)[1] < 0.02
    assert reliability(boastful, targets)[1] == pytest.approx(0.99 - (targets == 0).mean())
    with pytest.raises(CourseError, match="2 predictions and 3 labels"):
        reliability(honest[:2], targets[:3])


# The ledger

def run(ws, seed, accuracy, **changes):
    write_record({"name": "baseline", "config": {}, "seed": seed, "recipe": "quick", "scale": "quick", "seconds": 1., "data": {"title": "CIFAR-10", "fingerprint": "f", "stand_in": False},
                  "final": {"accuracy": accuracy}, **changes}, ws)


def test_results_have_mean_spread_and_number(ws):
    for seed, accuracy in enumerate([0.7, 0.72, 0.74, 0.72]):
        run(ws, seed, accuracy)
    row = results(ledger(ws), reference={"baseline": "DD2424 baseline"}).iloc[0]
    assert row.accuracy == pytest.approx(0.72) and row["std"] == pytest.approx(np.std([0.7, 0.72, 0.74, 0.72], ddof=1)) and row.n == 4
    half = 3.182446 * row["std"] / 2  # Student's t, 3 degrees of freedom
    assert row["95 % interval"] == f"{0.72 - half:.3f} to {0.72 + half:.3f}" and "different recipe" in row.reference and "0.73" in row.reference


def test_no_interval_under_three_runs_and_the_same_recipe_is_compared(ws):
    recipe = references()["DD2424 baseline"]["recipe"]
    run(ws, 0, 0.73, recipe=recipe, scale="full", final={"accuracy": 0.7, "test_accuracy": 0.73})
    beside = lambda metric: results(ledger(ws), metric, reference={"baseline": "DD2424 baseline"}).iloc[0]
    assert beside("test_accuracy")["95 % interval"] == "n < 3" and "different recipe" not in beside("test_accuracy").reference
    assert "different recipe" in beside("accuracy").reference, "the reference is of the test set"
    run(ws, 0, 0.73, recipe=recipe, scale="full", final={"test_accuracy": 0.73}, data={"title": "CIFAR-10", "fingerprint": "another", "stand_in": True})
    assert results(ledger(ws), "test_accuracy", reference={"baseline": "DD2424 baseline"}).reference.str.contains("other data").sum() == 1
    path = next((ws.runs / "ledger").glob("*.json"))
    (path.parent / "copy (1).json").write_text(path.read_text())
    assert (results(ledger(ws), "test_accuracy").n == 1).all(), "a copied file is no second run"


@pytest.mark.parametrize("changes", [{"scale": "tiny"}, {"data": {"title": "stand-in", "fingerprint": "g", "stand_in": True}}, {"recipe": "other"}, {"config": {"dropout": 0.1}}])
def test_what_differs_never_shares_a_row(changes, ws):
    run(ws, 0, 0.7)
    run(ws, 1, 0.1, **changes)
    assert sorted(results(ledger(ws)).accuracy) == [0.1, 0.7]


def test_the_same_run_is_one_record_and_a_broken_file_is_said(ws, capsys):
    run(ws, 0, 0.7)
    run(ws, 0, 0.71)
    (ws.runs / "ledger" / "a.json").write_text("{")
    (ws.runs / "ledger" / "b.json").write_text('{"name": "x"}')
    (ws.runs / "ledger" / "c.json").write_text('{"name": 1, "config": 1, "seed": 1, "recipe": 1, "scale": 1, "data": 1, "final": [1]}')
    assert ledger(ws).accuracy.tolist() == [0.71]
    said = capsys.readouterr().out
    assert "a.json is no record" in said and "b.json is no record and was skipped (it lacks config" in said


def test_ledger_mistakes_are_sentences(ws):
    with pytest.raises(CourseError, match="The record has no seed, recipe"):
        write_record({"name": "x", "config": {}}, ws)
    with pytest.raises(CourseError, match="There are no runs to show"):
        results(ledger(ws))
    run(ws, 0, 0.7)
    with pytest.raises(CourseError, match="No run has 'f1': choose one of .*accuracy"):
        results(ledger(ws), "f1")
    with pytest.raises(CourseError, match="no reference 'nonsense': choose one of DD2424 baseline"):
        results(ledger(ws), reference={"baseline": "nonsense"})


def test_looks_are_counted_by_data(ws):
    a, b = cifar10(ws), cifar10(ws, per_class=5)
    assert [look(ws, a, "x"), look(ws, a, "y"), look(ws, b, "z"), looks(ws, a)] == [1, 2, 1, 2]


# Functions

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


SAMPLE = pd.DataFrame({"id": [3, 1, 2], "y": 0.0})


def test_a_submission_is_in_the_order_of_the_sample(tmp_path):
    write_submission(tmp_path / "s.csv", [1, 2, 3], [10, 20, 30], SAMPLE)
    assert pd.read_csv(tmp_path / "s.csv").to_dict("list") == {"id": [3, 1, 2], "y": [30, 10, 20]}
    SAMPLE.to_csv(tmp_path / "sample.csv", index=False)
    write_submission(tmp_path / "labels.csv", [1, 2, 3], ["cat", "dog", "cat"], SAMPLE)
    assert pd.read_csv(tmp_path / "labels.csv").iloc[:, 1].tolist() == ["cat", "cat", "dog"], "in the sample's order"
    write_submission(tmp_path / "whole.csv", [1, 2, 3], [4, 5, 6], SAMPLE)
    assert (tmp_path / "whole.csv").read_text().splitlines()[1] == "3,6", "a label that is a whole number stays one"
    for ids, values, says in (["1", "2", "3"], [1, 2, 3], "Your ids are text"), ([], [], "Ids are missing"):
        with pytest.raises(CourseError, match=says):
            write_submission(tmp_path / "bad.csv", ids, values, SAMPLE)
    write_submission(tmp_path / "t.csv", [1, 2, 3], np.array([[10], [20], [30]]), tmp_path / "sample.csv")
    assert (tmp_path / "t.csv").read_text() == (tmp_path / "s.csv").read_text()


@pytest.mark.parametrize("ids, values, says", [([1, 2], [1, 2], "missing or unknown: 3"), ([1, 2, 3, 4], [1, 2, 3, 4], "missing or unknown: 4"), ([1, 2, 2], [1, 2, 3], "1 ids come twice, the first is 2"),
                                               ([1, 2, 3], [1, 2], "2 values for 3 ids"), ([1, 2, 3], [[1, 2]] * 3, "2 values a row and the sample has 1 columns"), ([1, 2, 3], [1, float("nan"), 3], "1 row.s. hold NaN .* id 2"),
                                               ([1, 2, 3], [1, 2, float("inf")], "id 3")])
def test_a_submission_that_would_be_refused_is_not_written(ids, values, says, tmp_path):
    with pytest.raises(CourseError, match=says):
        write_submission(tmp_path / "s.csv", ids, values, SAMPLE)
    assert not list(tmp_path.glob("*.csv"))
