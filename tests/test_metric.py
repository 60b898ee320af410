"Encodings: the loss and the measures against slow ones, batches by class, fits that are cut off and go on."
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import interrupt

from coursekit.augment import random_affine
from coursekit.files import CourseError
from coursekit.learner import learner
from coursekit.ledger import load_runs
from coursekit.metric import (
    ClassLoader,
    Encoder,
    OneShot,
    Spread,
    TripletLoss,
    TripletsAtWork,
    draw_trials,
    encode,
    measure_test_once,
    metric_task,
    one_shot_right,
    pair_distances,
    triplet_loaders,
    triplet_margins,
    verification,
)
from coursekit.splits import Splits


def drawn(n_classes=9, n_each=6, side=12) -> Splits:
    "A blot a class, moved about; a third of the classes for each part."
    rng = np.random.default_rng(0)
    blots = rng.integers(0, 256, (n_classes, side, side), np.uint8)
    images = np.stack([np.roll(blot, rng.integers(-1, 2, 2), (0, 1)) for blot in blots for _ in range(n_each)])
    labels, third = np.repeat(np.arange(n_classes), n_each), np.arange(n_classes * n_each).reshape(3, -1)
    return Splits("blots", np.repeat(images[..., None], 3, 3), labels, [f"blot {c}" for c in range(n_classes)],
                  [f"{i}.png" for i in range(len(labels))], *third, "blots")


def made(ws, mining="semi-hard", seed=0):
    "A learner of blots, not fitted."
    torch.manual_seed(seed)
    metrics, s = [OneShot(3, 20), Spread(), TripletsAtWork(n_batches=2)], drawn()
    return learner(s, Encoder(12, 8, 4), ws, lr=3e-3, seed=seed, task=metric_task(8, mining=mining, metrics=metrics),
                   loaders=triplet_loaders(s, ws, seed, n_classes=3, n_each=3, n_batches=5,
                                           augment=[random_affine(10, 0.1)]))


def quiet(learn, n_epochs=3):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(n_epochs, 3e-3)
    return learn


def by_loops(emb, labels, margin, mining):
    "The loss, triplet by triplet."
    d = [[float((a - b).square().sum()) for b in emb] for a in emb]
    n, out = range(len(emb)), []
    for a in n:
        negatives = [d[a][k] for k in n if labels[k] != labels[a]]
        to_positive = [d[a][p] for p in n if p != a and labels[p] == labels[a]]
        if mining == "hardest" and to_positive:
            to_positive = [max(to_positive)]
        for p in to_positive:
            beyond = [k for k in negatives if k > p]
            negative = min(negatives) if mining == "hardest" else min(beyond) if beyond else max(negatives)
            out.append(p if mining == "no negatives" else max(0, p - negative + margin))
    return np.mean(out)


@pytest.mark.parametrize("mining", ["semi-hard", "hardest", "no negatives"])
def test_the_loss_is_that_of_all_its_triplets(mining):
    g = torch.Generator().manual_seed(0)
    emb, labels = torch.nn.functional.normalize(torch.randn(14, 3, generator=g)), torch.arange(14) // 5
    for order in torch.arange(14), torch.randperm(14, generator=g):
        assert np.isclose(TripletLoss(0.3, mining)(emb[order], labels[order]).item(),
                          by_loops(emb[order], labels[order], 0.3, mining), atol=1e-5)


def test_random_negatives_are_of_other_classes_and_gradients_are_numbers():
    emb = torch.tensor([[0., 0.], [0., 0.], [3., 0.], [3., 0.]], requires_grad=True)
    loss = TripletLoss(10., "random")(emb, torch.tensor([0, 0, 1, 1]))
    assert loss.item() == 1., "each positive is at 0 and each negative at 9"
    loss.backward()
    assert torch.isfinite(emb.grad).all()
    with pytest.raises(CourseError, match="The mining is 'semihard': 'random', 'semi-hard'"):
        TripletLoss(mining="semihard")


def test_a_batch_without_a_pair_or_without_another_class_has_no_loss():
    emb = torch.randn(4, 2, requires_grad=True)
    for labels in torch.arange(4), torch.zeros(4):
        loss = TripletLoss()(emb, labels)
        loss.backward()
        assert loss.item() == 0
    assert len(triplet_margins(emb, torch.arange(4))) == 0


def test_batches_are_decided_by_seed_epoch_and_number():
    s = drawn()
    loader = ClassLoader(s.images, s.labels, s.classes, 4, 3, 6, seed=1)
    first, again = [yb for yb in (b[1] for _, b in loader.batches())], dict(loader.batches(4))
    assert all(torch.unique(yb, return_counts=True)[1].tolist() == [3] * 4 for yb in first) and len(loader) == 6
    assert sorted(again) == [4, 5] and torch.equal(first[5], again[5][1]) and not torch.equal(first[4], first[5])
    loader.epoch = 1
    assert not torch.equal(next(iter(loader))[1], first[0])
    assert loader.config_key != ClassLoader(s.images, s.labels, s.classes, 3, 4, 6, seed=1).config_key
    assert torch.equal(torch.cat([yb for _, yb in loader.new(shuffle=False)]), torch.as_tensor(s.labels))
    for n_classes, n_each in (10, 3), (4, 7):
        with pytest.raises(CourseError, match="there are 9 classes, the smallest of 6 images: take fewer"):
            ClassLoader(s.images, s.labels, s.classes, n_classes, n_each)


def test_trials_and_answers():
    labels = np.repeat(np.arange(7), 3)
    asked, shown = draw_trials(labels, 5, 50)
    assert shown.shape == (50, 5) and (labels[asked] == labels[shown[:, 0]]).all() and (asked != shown[:, 0]).all()
    assert all(len(set(labels[row])) == 5 for row in shown) and len(set(asked)) > 10
    assert (draw_trials(labels, 5, 50)[1] == shown).all() and (draw_trials(labels, 5, 50, 1)[1] != shown).any()
    assert one_shot_right(labels[:, None], asked, shown).all()
    assert not one_shot_right(np.zeros((21, 1)), asked, shown).any()
    for n_way, of in (8, labels), (2, np.array([0, 0, 1])):
        with pytest.raises(CourseError, match="take a smaller n_way"):
            draw_trials(of, n_way)


def test_verification_counts_what_it_says():
    same, different = pair_distances(np.array([0., 1, 5, 7]), [0, 0, 1, 1])
    assert sorted(same) == [1, 2] and sorted(different) == [4, 5, 6, 7]
    found = verification(np.array([1., 4.5, 9]), np.arange(4, 104), false_accepts=0.02)
    assert found["threshold"] == 6 and found["false_accepts"] == 0.02 and found["false_rejects"] == pytest.approx(1 / 3)
    with pytest.raises(CourseError, match="can't be seen in 4 pairs"):
        verification(same, different)
    assert verification(same, different, 4.5) == {"threshold": 4.5, "false_rejects": 0, "false_accepts": 0.25,
                                                  "auc": 1.}


def test_an_encoder_takes_other_sides_and_says_which_not():
    for side in 8, 9, 28, 32, 65:
        assert torch.allclose(Encoder(side, 5, 3)(torch.rand(4, 3, side, side)).norm(dim=1), torch.ones(4))
    with pytest.raises(CourseError, match="squares of 8 pixels or more"):
        Encoder(7)


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(place, capsys):
    whole = quiet(made(place))
    whole.checkpoints.forget()
    interrupt(made(place), 8, fit=quiet)
    again = quiet(made(place))
    assert "it goes on from there" in capsys.readouterr().out and again.recorder.values == whole.recorder.values
    assert all(map(torch.equal, whole.model.state_dict().values(), again.model.state_dict().values()))


def test_the_test_part_is_looked_at_once(place):
    learn, looks = quiet(made(place), 1), []
    def measure(learn):
        looks.append(encode(learn.model, learn.dls.valid, learn.data.images[learn.data.test]).shape)
        return {"test_figure": 0.5}, None, None
    for _ in range(2):
        measure_test_once(learn, "blots", {"a": 1}, measure)
    measure_test_once(quiet(made(place, seed=1), 1), "blots", {"a": 1}, measure)
    runs = load_runs(place, learn.data, {"blots": {"a": 1, "tested": True}})
    assert looks == [(18, 8)] * 2 and runs.test_looks.tolist() == [1, 2] and (runs.test_figure == 0.5).all()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_metric import made, quiet
from coursekit.workspace import setup
learn, n = made(setup("tiny")), [0]
one_batch = learn.one_batch
def counted(*a):
    n[0] += 1
    if n[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    one_batch(*a)
learn.one_batch, learn.checkpoint_seconds = counted, 0
quiet(learn)
torch.save(learn.model.state_dict(), sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_fit_ends_as_the_one_that_nobody_killed(tmp_path, place):
    def run(at):
        env = {**os.environ, "COURSEKIT_CACHE": str(tmp_path / "c"), "COURSEKIT_RUNS": str(tmp_path / "r")}
        return subprocess.run([sys.executable, "-c", KILLED, os.path.dirname(__file__), str(at),
                               str(tmp_path / "weights.pt")], env=env, capture_output=True, text=True)
    assert run(8).returncode == -signal.SIGKILL
    assert "cut off in epoch 1, batch 1: it goes on" in run(-1).stdout  # validation counts its batches, too
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = quiet(made(place)).model.state_dict()
    torch.set_num_threads(n_threads)
    ended = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(ended[name], value) for name, value in whole.items())
