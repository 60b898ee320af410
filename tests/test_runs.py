"Runs in words, in the ledger, and in grids: on other processes, through schedulers, with workers that die."
import gc
import os
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import made, net, quiet, runs_of, with_masks
from torch import nn

from coursekit.evaluate import answered_right
from coursekit.files import CourseError
from coursekit.learner import learner
from coursekit.ledger import ledger, load_runs, results
from coursekit.runs import ablate, config_diff, evaluate_test_once, record, run_grid, summarize
from coursekit.splits import kfold_splits, subsample
from coursekit.stats import compare_paired, paired_bootstrap, right_answers


def test_the_ends_are_told_with_an_interval_for_all_pairs():
    a, b, c = runs_of([0.6]), runs_of([0.4], "b"), runs_of([0.5], "c")
    said = summarize(pd.concat([a, b]))
    _, low, high = paired_bootstrap(a.right[0]["valid"], b.right[0]["valid"], 100_000)
    assert "Highest: a (60.0%); lowest: b (40.0%); on the same 1,000 images the difference is 20.0 points" in said \
        and f" {100 * low:.1f} to {100 * high:.1f} (95 % interval);" in said and "n = 1, which says nothing" in said
    said = summarize(pd.concat([a, b, c]))
    _, low, high = paired_bootstrap(a.right[0]["valid"], b.right[0]["valid"], 100_000, level=1 - 0.05 / 3)
    assert f" {100 * low:.1f} to {100 * high:.1f} (95 % interval, corrected for the 3 pairs" in said
    assert summarize(runs_of([0.6, 0.7, 0.8])) == "a alone: 70.0%, n = 3." \
        and "no seed on the same images in common" in summarize(pd.concat([a, b.assign(seed=1)]))


def test_the_test_part_has_ends_too():
    runs = pd.concat([runs_of([0.6, 0.6]), runs_of([0.4, 0.5], "b")]).drop(columns="accuracy")
    runs["right"] = [{"test": right["valid"]} for right in runs.right]
    assert "Highest: a (60.0%); lowest: b (45.0%)" in summarize(runs, "test")
    with pytest.raises(CourseError, match="'a', seed 0, has no answers image by image on the part 'valid'"):
        summarize(runs)


def test_changes_name_what_differs():
    assert config_diff({"a": 1, "c": 3}, {"a": 1, "b": 2}) == {"b": (2, None), "c": (None, 3)} \
        and config_diff({}, {}) == {}


# The ledger

def test_a_run_is_recorded_once(place):
    s = made()
    for _ in range(2):
        record(quiet(learner(s, net(), place, bs=32), 1, 0.01), "small", test_accuracy=0.5)
    row = ledger(place).iloc[0]
    assert len(ledger(place)) == 1 and row.test_accuracy == 0.5 \
        and row.parameters == sum(p.numel() for p in net().parameters())
    assert row.flops == 2 * (16 * 16 * 8 * 27 + 32 * 3) and not row.data["stand_in"] and len(row.epochs) == 1


def test_a_record_says_what_the_learner_was_trained_on(place):
    s = made()
    learn = quiet(learner(replace(s, train=s.train[:60]), net(), place, bs=32), 1, 0.01)
    record(learn, "half")
    assert ledger(place).data[0]["train"] == 60
    record(quiet(learner(replace(s, train=s.train[:30]), net(), place, bs=32), 1, 0.01), "half")
    assert sorted(d["train"] for d in ledger(place).data) == [30, 60], "a learning curve keeps its points"
    row = ledger(place).iloc[0]
    assert row.recipe == learn.recipe and row.data["fingerprint"] == "made" and len(ledger(place)) == 2


def test_time_stands_still_after_the_fit_and_its_environment_is_those_of_the_training(place, monkeypatch):
    s = made()
    learn = quiet(learner(s, net(), place, bs=32), 1, 0.01)
    before = learn.seconds
    time.sleep(0.2)
    assert learn.seconds == before
    monkeypatch.setattr("coursekit.machine.cpu_name", lambda: "another CPU")
    again = quiet(learner(s, net(), place, bs=32), 1, 0.01)
    record(again, "small", metric=np.float32(0.5))
    assert "another CPU" not in ledger(place).hardware[0] and ledger(place).metric[0] == 0.5 \
        and again.seconds == pytest.approx(before)
    with pytest.raises(CourseError, match="has not finished a fit"):
        record(learner(s, net(), place), "none")


# Answers

def counted(monkeypatch):
    "How often a network was asked which images it answers right."
    from coursekit import runs
    times, asked = [0], runs.answered_right
    monkeypatch.setattr(runs, "answered_right", lambda *a: (times.__setitem__(0, times[0] + 1), asked(*a))[1])
    return times


def test_a_record_keeps_which_images_were_right(place, monkeypatch):
    s, times = made(), counted(monkeypatch)
    s = replace(s, valid=s.valid[::-1])
    learn = quiet(learner(s, net(), place, bs=32), 2, 0.01)
    record(learn, "small")
    expected = (learn.model.eval()(learn.dls.valid.sample_batch(999)[0]).argmax(1).numpy() == s.labels[s.valid])
    right = right_answers(ledger(place).iloc[0])
    assert (right == expected).all() and right.mean() == pytest.approx(ledger(place).accuracy[0]) and times == [1]
    record(learn, "small again"), record(quiet(learner(s, net(), place, bs=32), 2, 0.01), "small")
    assert times == [1] and all((right_answers(row) == expected).all() for _, row in ledger(place).iterrows()), \
        "of one fit they are asked once"
    record(quiet(learner(s, net(), place, bs=32, fresh=True), 2, 0.01), "small")
    assert times == [2], "what is trained anew may answer otherwise"


def test_asking_leaves_no_trace(place):
    learn = quiet(learner(made(), net(), place, bs=32), 2, 0.01)
    learn.model.train()
    seen = lambda: (repr(learn.recorder.values), repr(learn.final_record), learn.epochs, torch.get_rng_state().tolist(),
                    str(np.random.get_state()), [m.training for m in learn.model.modules()],
                    [v.tolist() for v in learn.model.state_dict().values()])
    before = seen()
    record(learn, "small")
    assert seen() == before
    learn.model[1].eval()
    answered_right(learn, learn.dls.valid)
    assert [m.training for m in learn.model[:3]] == [True, False, True], "each layer as it was"


def test_no_weights_no_answers_and_other_tasks_have_none(place):
    fit = lambda **kwargs: quiet(learner(made(), net(), place, bs=32, keep_weights=False, **kwargs), 1, 0.01)
    fit()
    record(fit(), "small")
    assert ledger(place).get("right") is None
    with pytest.raises(CourseError, match="'small', seed 42, has no answers image by image .*keep_weights=True.* by "
                                          "record.$"):
        compare_paired(load_runs(place))
    s = with_masks()
    record(quiet(learner(s, nn.Conv2d(3, 2, 1), place, bs=32), 1, 0.01), "masks")
    assert ledger(place).get("right") is None
    record(fit(fresh=True), "small")
    assert right_answers(load_runs(place, made()).iloc[0]).shape == made().valid.shape, "asked before they are gone"


def test_the_look_at_the_test_part_keeps_its_answers(place):
    s = made()
    learn = quiet(learner(s, net(), place, bs=32), 1, 0.01)
    record(learn, "small")
    evaluate_test_once(learn, "small", {})
    plain, tested = (load_runs(place, s, {"small": config}).iloc[0] for config in ({}, {"tested": True}))
    assert right_answers(tested, "test").mean() == pytest.approx(tested.test_accuracy) \
        and (right_answers(tested) == right_answers(plain)).all() and "test" not in plain.right
    with pytest.raises(CourseError, match="on the part 'test'.* by evaluate_test_once.$"):
        right_answers(plain, "test")
    record(quiet(learner(s, net(), place, bs=32), 1, 0.01), "small")
    assert "test" not in load_runs(place, s, {"small": {}}).right[0]


def test_folds_are_put_together(place):
    folds = kfold_splits(made(60), 3, n_repeats=2)
    run_grid(fit_one, {"a": {"width": 4}, "b": {"width": 8}}, range(6), folds, place)
    table = compare_paired(load_runs(place, folds))
    assert table.n.tolist() == [6, 6] and table.images.tolist() == [60, 60], \
        "an image that was judged twice counts once"
    assert len(table.by_seed[1]) == 6 and table.difference[1] == pytest.approx(np.mean(table.by_seed[1]))


# Grids

def fit_one(data, ws, seed, width=4):
    if width == 0:
        raise ValueError("no units")
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, width), nn.ReLU(), nn.Linear(width, 3))
    return quiet(learner(data, model, ws, bs=32, seed=seed), 1, 0.01)


@pytest.mark.slow
def test_a_grid_in_processes(place):

    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        table = run_grid(fit_one, {"a": {"width": 4}, "none": {"width": 0}, "b": {"width": 8}}, [0, 1], made(), place,
                         executor=pool)
    assert table.status.tolist() == ["finished", "failed", "finished"] * 2 and "no units" in table.why[1]
    df = ledger(place)
    good = df[df.failed.isna()]
    assert len(df) == 6 and len(good) == 4 and set(good.name) == {"a", "b"} and set(good.seed) == {0, 1} \
        and df.failed.dropna().str.contains("no units").all()
    assert results(df).set_index("run").loc["none", ["n", "failed"]].tolist() == [0, 2]


def test_a_run_that_failed_once_on_a_part_leaves_no_failure_behind(place):
    s, k = made(), [0]
    def train(data, ws, seed):
        k[0] += 1
        if k[0] == 1:
            raise RuntimeError("out of luck")
        return quiet(learner(replace(data, train=data.train[:60]), net(), ws, bs=32, seed=seed), 1, 0.01)
    for n_failed in 1, 0:
        run_grid(train, {"part": {}}, [0], s, place)
        df = ledger(place)
        assert len(df) == 1 and ("failed" in df and df.failed.notna().sum()) == n_failed


def test_a_grid_leaves_the_garbage_collector_as_it_was(place):
    for train in part_of_it, lambda data, ws, seed: 1 / 0:
        run_grid(train, {"a": {"share": 0.5} if train is part_of_it else {}}, [0], made(), place)
        assert not gc.get_freeze_count()


def test_a_failure_never_replaces_a_finished_run_and_a_finished_run_replaces_it(place):
    def fails(data, ws, seed, **kwargs):
        raise RuntimeError("out of luck")
    settings = {"a": {"width": 4}}, [0], made(), place
    for train, failed in (fails, 1), (fit_one, 0), (fails, 0):
        run_grid(train, *settings)
        df = ledger(place)
        assert len(df) == 1 and ("failed" in df and df.failed.notna().sum()) == failed


def test_a_dead_worker_is_a_failed_run_and_the_rest_is_known(place):
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        table = run_grid(lambda data, ws, seed, die: os._exit(9) if die else None, {"dies": {"die": True}}, [0], made(),
                         place, executor=pool)
    assert table.status.tolist() == ["failed"] and "its process ended" in table.why[0]


def from_far(data, ws, seed, width):
    "What `fit_one` does, and where its data lies."
    assert isinstance(data.images, np.memmap) and str(data.images.filename).startswith(str(ws.runs)), \
        "the data came by path"
    assert ws.device == ("cuda" if torch.cuda.is_available() else "cpu"), "the device is the worker's"
    return fit_one(data, ws, seed, width)


@pytest.mark.slow
def test_a_grid_through_submitit_gets_its_data_by_path_and_its_own_device(place, monkeypatch):
    submitit = pytest.importorskip("submitit")

    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    executor = submitit.AutoExecutor(folder=str(place.local / "jobs" / "%j"), cluster="local")
    executor.update_parameters(timeout_min=3)
    elsewhere = replace(place, device="meta")  # as it is called on another machine
    table = run_grid(from_far, {"a": {"width": 4}, "none": {"width": 0}}, [0, 1], made(), elsewhere, executor=executor)
    assert table.status.tolist() == ["finished", "failed"] * 2 and "no units" in table.why[1], table.why.tolist()
    assert ledger(place).failed.isna().sum() == 2


def test_a_grid_on_a_cluster_survives_a_dead_worker(place):
    distributed = pytest.importorskip("distributed")

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, \
        distributed.Client(cluster) as client:
        def train(data, ws, seed, width, mark):
            import os
            import signal
            from pathlib import Path

            import test_runs
            if seed == 1 and not Path(mark).exists():  # this worker dies, once
                Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return test_runs.fit_one(data, ws, seed, width)

        client.run(lambda folder: __import__("sys").path.insert(0, folder), os.path.dirname(__file__))
        client.register_plugin(Paths())
        table = run_grid(partial(train, mark=str(place.local / "mark")), {"a": {"width": 4}, "b": {"width": 8}}, [0, 1],
                         made(), place, executor=client.get_executor())
    assert table.status.tolist() == ["finished"] * 4 and (place.local / "mark").exists() and len(ledger(place)) == 4


try:
    from distributed import WorkerPlugin
except ImportError:
    WorkerPlugin = object


class Paths(WorkerPlugin):
    "A worker that starts anew finds the tests too."
    def setup(self, worker):
        sys.path.insert(0, os.path.dirname(__file__))


def part_of_it(data, ws, seed, share=1.):
    "A run that takes fewer images than the grid hands over."
    return fit_one(subsample(data, share, seed) if share < 1 else data, ws, seed)


def test_a_run_that_takes_a_part_is_found_by_what_the_grid_was_given(place):
    runs = ablate(part_of_it, {"half": {"share": 0.5}, "all": {}}, [0], made(), place)
    assert runs.name.tolist() == ["half", "all"] and [d["train"] for d in runs.data][0] < [d["train"]
        for d in runs.data][1]
    assert len(ablate(part_of_it, {"half": {"share": 0.5}, "all": {}}, [0], made(), place)) == len(ledger(place)) == 2


def test_other_folds_and_other_parts_are_other_data(place):
    s = made()
    for k in 0, 1:
        run_grid(fit_one, {"a": {}}, [0, 1, 2], kfold_splits(s, 3, seed=k), place)
        run_grid(fit_one, {"b": {}}, [0], subsample(s, 0.5, seed=k), place)
    assert len(ledger(place)) == 8
    for k in 0, 1:
        assert len(load_runs(place, kfold_splits(s, 3, seed=k), {"a": {}})) == 3
        assert len(load_runs(place, subsample(s, 0.5, seed=k), {"b": {}})) == 1


@pytest.mark.parametrize("change, says", [
    ({"seeds": [0, 0]}, "each once is expected"), ({"data": [1]}, "what a loader of coursekit.data gives"),
    ({"configurations": ["a"]}, "name: .*argument: value"), ({"data": "my-images"}, "what a loader of coursekit.data "
                                                                                    "gives"),
    ({"train": lambda seed=0: None}, "can't be called as train.data, ws, seed=..., ..configuration.")])
def test_a_grid_that_cannot_run_is_a_sentence(change, says, place):
    given = {"train": fit_one, "configurations": {"a": {}}, "seeds": [0], "data": made(), **change}
    with pytest.raises(CourseError, match=says):
        run_grid(*given.values(), place)
    assert not len(ledger(place))
