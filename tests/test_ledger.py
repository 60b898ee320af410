"The ledger: records, tables, the runs of a lesson, and looks at the test part."
from types import SimpleNamespace

import numpy as np
import pytest

from coursekit.datasets import cifar10
from coursekit.files import CourseError
from coursekit.ledger import count_test_evals, ledger, load_runs, log_test_eval, references, results, write_record


def run(ws, seed, accuracy, **changes):
    write_record({"name": "baseline", "config": {}, "seed": seed, "recipe": "quick", "scale": "quick", "seconds": 1.,
                  "data": {"title": "CIFAR-10", "fingerprint": "f", "stand_in": False},
                  "final": {"accuracy": accuracy}, **changes}, ws)


def test_results_have_mean_spread_and_number(ws):
    for seed, accuracy in enumerate([0.7, 0.72, 0.74, 0.72]):
        run(ws, seed, accuracy)
    row = results(ledger(ws), reference={"baseline": "DD2424 baseline"}).iloc[0]
    assert row.accuracy == pytest.approx(0.72) \
        and row["std"] == pytest.approx(np.std([0.7, 0.72, 0.74, 0.72], ddof=1)) and row.n == 4
    half = 3.182446 * row["std"] / 2  # Student's t, 3 degrees of freedom
    assert row["95 % interval"] == f"{0.72 - half:.3f} to {0.72 + half:.3f}" and "different recipe" in row.reference \
        and "0.73" in row.reference


def test_no_interval_under_three_runs_and_the_same_recipe_is_compared(ws):
    recipe = references()["DD2424 baseline"]["recipe"]
    run(ws, 0, 0.73, recipe=recipe, scale="full", final={"accuracy": 0.7, "test_accuracy": 0.73})
    beside = lambda metric: results(ledger(ws), metric, reference={"baseline": "DD2424 baseline"}).iloc[0]
    assert beside("test_accuracy")["95 % interval"] == "n < 3" \
        and "different recipe" not in beside("test_accuracy").reference
    assert "different recipe" in beside("accuracy").reference, "the reference is of the test set"
    run(ws, 0, 0.73, recipe=recipe, scale="full", final={"test_accuracy": 0.73},
        data={"title": "CIFAR-10", "fingerprint": "another", "stand_in": True})
    assert results(ledger(ws), "test_accuracy",
                   reference={"baseline": "DD2424 baseline"}).reference.str.contains("other data").sum() == 1
    path = next((ws.runs / "ledger").glob("*.json"))
    (path.parent / "copy (1).json").write_text(path.read_text())
    assert (results(ledger(ws), "test_accuracy").n == 1).all(), "a copied file is no second run"


@pytest.mark.parametrize("changes",
                         [{"scale": "tiny"}, {"data": {"title": "stand-in", "fingerprint": "g", "stand_in": True}},
                          {"recipe": "other"}, {"config": {"dropout": 0.1}}])
def test_what_differs_never_shares_a_row(changes, ws):
    run(ws, 0, 0.7)
    run(ws, 1, 0.1, **changes)
    assert sorted(results(ledger(ws)).accuracy) == [0.1, 0.7]


def test_the_same_run_is_one_record_and_a_broken_file_is_said(ws, capsys):
    run(ws, 0, 0.7)
    run(ws, 0, 0.71)
    (ws.runs / "ledger" / "a.json").write_text("{")
    (ws.runs / "ledger" / "b.json").write_text('{"name": "x"}')
    (ws.runs / "ledger" / "c.json").write_text('{"name": 1, "config": 1, "seed": 1, "recipe": 1, "scale": 1, "data": '
                                               '1, "final": [1]}')
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
    assert [log_test_eval(ws, a, "x"), log_test_eval(ws, a, "y"), log_test_eval(ws, b, "z"),
            count_test_evals(ws, a)] == [1, 2, 1, 2]


def test_the_references_are_the_briefs():
    known = references()
    assert [known[f"DD2424 {name}"]["value"] for name in ("baseline", "dropout", "weight decay", "augmentation",
                                                          "all")] == [0.73, 0.83, 0.72, 0.84, 0.88]
    assert all(ref["metric"] == "test_accuracy" and ("400 epochs" in ref["recipe"]) == (key == "DD2424 all")
               for key, ref in known.items() if key.startswith("DD2424"))


# The runs of a lesson

def data(fingerprint="f", train=100):
    return SimpleNamespace(fingerprint=fingerprint, train=range(train))


def put(ws, name="a", config=None, seed=0, accuracy=0.5, recipe="r", fingerprint="f", train=100, **more):
    of = {"title": "made", "fingerprint": fingerprint, "train": train}
    write_record({"name": name, "config": config or {}, "seed": seed, "recipe": recipe, "scale": ws.scale, "data": of,
                  "final": {"accuracy": accuracy}, **more}, ws)


def test_no_runs_are_an_empty_table_with_its_columns(ws):
    for runs in load_runs(ws), load_runs(ws, data(), {"a": {}}):
        assert not len(runs) and {"name", "config", "seed", "accuracy", "test_accuracy", "diverged", "fit",
                                  "seconds"} <= set(runs)


def test_runs_come_in_the_order_of_configurations_and_seeds(ws):
    for seed in 10, 2, 0:
        for name, config in ("a", {"lr": 1}), ("b", {"widths": [1, 2], "lr": 2}):
            put(ws, name, config, seed, accuracy=seed / 100)
    runs = load_runs(ws, data(), {"b": {"lr": 2, "widths": (1, 2)}, "a": {"lr": np.int64(1)}, "c": {}})
    assert runs.name.tolist() == ["b"] * 3 + ["a"] * 3 and runs.seed.tolist() == [0, 2, 10] * 2 \
        and runs.index.tolist() == list(range(6))
    assert runs.accuracy.tolist() == [0, 0.02, 0.1] * 2 and runs.test_accuracy.isna().all() \
        and runs.diverged.isna().all()
    assert not len(load_runs(ws, data(), {"a": {"lr": 2}})) and len(load_runs(ws)) == 6 \
        and load_runs(ws, configurations={"a": {"lr": 1}}).seed.tolist() == [0, 2, 10]


@pytest.mark.parametrize("other", [{"fingerprint": "g"}, {"train": 99}, {"name": "b"}, {"config": {"lr": 1}},
                                   {"scale": "quick"}])
def test_a_run_of_something_else_is_left_out(other, ws):
    put(ws, seed=0)
    put(ws, seed=1, **other)
    assert load_runs(ws, data(), {"a": {}}).seed.tolist() == [0]


def test_of_a_run_that_was_made_anew_the_later_one_counts(ws, monkeypatch):
    for minute, recipe, accuracy in (1, "edited", 0.7), (0, "r", 0.5):
        monkeypatch.setattr("coursekit.ledger.time.strftime", lambda _, minute=minute: f"2026-01-01T00:0{minute}:00")
        put(ws, recipe=recipe, accuracy=accuracy), put(ws, seed=1, recipe=recipe, accuracy=accuracy)
    runs = load_runs(ws, data(), {"a": {}})
    assert len(ledger(ws)) == 4 and runs.seed.tolist() == [0, 1] and runs.recipe.tolist() == ["edited"] * 2 \
        and runs.accuracy.tolist() == [0.7] * 2


def test_what_all_configurations_share_is_part_of_each(ws):
    put(ws, config={"lr": 1, "n_epochs": 2})
    put(ws, config={"lr": 1, "n_epochs": 3}, seed=1)
    assert load_runs(ws, data(), {"a": {"lr": 1}}, n_epochs=2).seed.tolist() == [0] \
        and load_runs(ws, data(), {"a": {"lr": 1, "n_epochs": 3}}, n_epochs=2).seed.tolist() == [1]


def test_folds_may_differ_in_how_many_they_train_on(ws):
    for seed, train in enumerate((99, 100, 80)):
        put(ws, seed=seed, train=train)
    assert load_runs(ws, [data(train=100), data(train=99)]).seed.tolist() == [0, 1]


def test_what_diverged_is_in_the_table(ws):
    put(ws, seed=0, final={}, failed="CourseError: The loss is nan in epoch 2: take a lower rate.")
    put(ws, seed=1, final={}, failed="ValueError: the disk is full")
    runs = load_runs(ws, data())
    assert runs.diverged[0] == "The loss is nan in epoch 2: take a lower rate." \
        and runs.diverged.isna().tolist() == [False, True]
    assert runs.accuracy.isna().all() and runs.failed.notna().all()
