"Tasks: masks, several labels and unlabeled images through the same learner; each goes on bit for bit after a kill."
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import half_labeled, made, net, quiet, with_masks
from torch import nn

from coursekit.augment import mixup, random_hflip, random_translate
from coursekit.evaluate import evaluate_test
from coursekit.files import CourseError
from coursekit.learner import image_loaders, learner, optimizer
from coursekit.task import CLASSIFICATION, MULTI_LABEL, SEGMENTATION, SEQUENCE, Task, as_task, check_outputs

HERE = os.path.dirname(__file__)


def by_pixel(n_classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
                         nn.Conv2d(8, n_classes, 1))


def segment(ws):
    "A mask for each pixel."
    learn = learner(with_masks(), by_pixel(), ws, bs=16, opt=optimizer("SGD", momentum=0.9),
                    augment=[random_hflip, random_translate(2)])
    learn.checkpoint_seconds = 0
    return learn


class Consistency(nn.Module):
    "Cross-entropy of the labeled images; and two views of an unlabeled one should get one answer."
    def forward(self, preds, yb):
        loss, others = nn.functional.cross_entropy(preds[:len(yb)], yb), preds[len(yb):]
        if len(others):
            weak, strong = others.softmax(1).chunk(2)
            loss = loss + nn.functional.mse_loss(strong, weak.detach())
        return loss


def consistent(ws):
    "A few labels and many images without."
    s = half_labeled()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                          nn.Dropout(0.2), nn.Linear(32, 3))
    loaders = image_loaders(s, ws.device, 8, views=[(random_hflip,), (random_hflip, random_translate(3))], ratio=2)
    learn = learner(s, model, ws, loaders=loaders, loss_func=Consistency())
    learn.checkpoint_seconds = 0
    return learn


RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import test_task
from coursekit.workspace import setup
what, dies_after, out = sys.argv[2], int(sys.argv[3]), sys.argv[4]
test_task.RUNS[what](setup("tiny"), dies_after, out)
"""


def fit_and_save(make):
    def run(ws, dies_after, out):
        learn, done = make(ws), [0]
        write = learn._write
        def count(*args):
            write(*args)
            done[0] += 1
            if done[0] == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
        learn._write = count
        quiet(learn, 3, 0.01)
        torch.save([*learn.model.state_dict().values(),
                    torch.stack(list(learn.recorder.losses)).as_subclass(torch.Tensor)], out)
    return run


def two_models(ws, dies_after, out):
    "A generator and a discriminator, with the checkpoints alone."
    from coursekit.checkpoints import resumable

    torch.manual_seed(0)
    real, gen, disc = torch.randn(64, 4) + 2, nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(),
                                                                             nn.Dropout(0.1), nn.Linear(8, 1))
    parts = {"gen": gen, "disc": disc, "opt_gen": torch.optim.Adam(gen.parameters(), 0.01),
             "opt_disc": torch.optim.AdamW(disc.parameters(), 0.01), "losses": []}
    bce = nn.functional.binary_cross_entropy_with_logits

    def train(opt, loss):
        opt.zero_grad()
        loss.backward()
        opt.step()
        parts["losses"].append(loss.item())

    for step in resumable(60, ws, parts, [real, "a small GAN"], every=0):
        if step == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        xb, fake = real[torch.randint(64, (16,))], gen(torch.randn(16, 2))
        train(parts["opt_disc"], bce(disc(xb), torch.ones(16, 1)) + bce(disc(fake.detach()), torch.zeros(16, 1)))
        train(parts["opt_gen"], bce(disc(fake), torch.ones(16, 1)))
    torch.save([*gen.state_dict().values(), *disc.state_dict().values(), torch.tensor(parts["losses"])], out)


RUNS = {"masks": fit_and_save(segment), "unlabeled": fit_and_save(consistent), "two models": two_models}


def run(folder, what, dies_after=-1):
    "Run one in a process of its own; what it printed, and its exit status."
    env = {**os.environ, "COURSEKIT_CACHE": str(folder / "cache"), "COURSEKIT_RUNS": str(folder / "runs")}
    done = subprocess.run([sys.executable, "-c", RUN, HERE, what, str(dies_after), str(folder / "out.pt")],
                          capture_output=True, text=True, env=env, timeout=180)
    return done.stdout, done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", RUNS)
def test_a_killed_run_of_any_task_ends_as_the_one_that_nobody_killed(what, tmp_path):
    for name in "whole", "cut":
        (tmp_path / name).mkdir()
    assert run(tmp_path / "whole", what)[1] == 0
    assert run(tmp_path / "cut", what, 5)[1] == -signal.SIGKILL
    said, status, errors = run(tmp_path / "cut", what)
    assert status == 0 and "it goes on from there.\n" in said, (said, errors)
    whole, cut = (torch.load(tmp_path / name / "out.pt", weights_only=True) for name in ("whole", "cut"))
    assert len(whole) == len(cut) and all(map(torch.equal, whole, cut))


def test_the_task_is_told_from_the_labels():
    s = made(40)
    several = replace(s, labels=np.eye(3, dtype=np.int64)[s.labels])
    assert as_task(None, s) is CLASSIFICATION and as_task(None, several) is MULTI_LABEL \
        and as_task(None, with_masks(40)) is SEGMENTATION
    assert as_task("sequence", s) is SEQUENCE
    with pytest.raises(CourseError, match="The task is 'detection': 'classification', 'multi-label'"):
        as_task("detection", s)


def test_masks_are_learned_and_judged_by_pixel(place):
    learn = quiet(segment(place), 12, 0.05)
    assert set(learn.epochs[-1]) == {"train_loss", "valid_loss", "pixel_accuracy", "mean_dice"} \
        and learn.epochs[-1]["pixel_accuracy"] > 0.8
    preds, masks = learn.get_preds()
    assert preds.shape == (24, 2, 16, 16) and torch.allclose(preds.sum(1), torch.ones(24, 16, 16), atol=1e-5) \
        and masks.shape == (24, 16, 16)
    answer, decoded, probs = learn.predict(made().images[0])
    assert decoded.shape == (16, 16) and torch.equal(decoded, probs.argmax(0)) and answer is decoded


def test_several_labels_are_learned_and_named(place):
    s = made(120)
    s = replace(s, labels=np.stack([s.labels > 0, s.labels > 1], 1).astype(np.int64), classes=["not dark", "bright"],
                fingerprint="several")
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    learn = quiet(learner(s, model, place, bs=16), 15, 0.3)
    assert learn.epochs[-1]["accuracy_multi"] > 0.9
    names, labels, probs = learn.predict(s.images[np.flatnonzero(s.labels.sum(1) == 2)[0]])
    assert names == ["not dark", "bright"] and labels.tolist() == [1, 1] and (probs > 0.5).all()


@pytest.mark.parametrize("make, says", [
    (lambda ws: learner(with_masks(40), by_pixel(3), ws), "outputs of shape .2, 3, 16, 16. for 2 examples and there "
                                                          "are 2 classes: its last layer should have 2 outputs"),
    (lambda ws: learner(with_masks(40), nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), ws),
     "outputs of shape .2, 2. .*2, 2, 16, 16. is expected for segmentation"),
    (lambda ws: learner(replace(with_masks(40), classes=["one"]), by_pixel(1), ws), "labels go from 0 to 1 and there "
                                                                                    "are 1 classes"),
    (lambda ws: learner(replace(made(40), labels=np.ones((40, 2), int)), by_pixel(), ws),
     "a 0 or a 1 for each class is expected")])
def test_what_does_not_fit_the_task_is_a_sentence(make, says, place):
    with pytest.raises(CourseError, match=says):
        make(place)


def test_a_task_of_ones_own_makes_its_targets(place):
    again = Task("reconstruction", nn.MSELoss, (), lambda xb, n: tuple(xb.shape), targets=lambda xb, yb: (xb, xb))
    learn = quiet(learner(made(64), nn.Conv2d(3, 3, 1), place, bs=16, task=again), 3, 0.05)
    assert set(learn.epochs[-1]) == {"train_loss", "valid_loss"} \
        and learn.epochs[-1]["valid_loss"] < learn.epochs[0]["valid_loss"]


@pytest.mark.parametrize("task", ["Classification", 3])
def test_a_task_that_nobody_knows_is_a_sentence(task):
    with pytest.raises(CourseError, match="'segmentation', 'sequence', or a Task of your own, is expected"):
        as_task(task, made(40))
    own = Task("own", nn.MSELoss, (), lambda xb, n: (len(xb),))
    assert as_task(own, made(40)) is own


@pytest.mark.parametrize("training", [True, False])
def test_a_look_at_the_outputs_leaves_the_model_as_it_was(training):
    model, xb = net().train(training), torch.rand(2, 3, 16, 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    check_outputs(model, (xb,), 3, CLASSIFICATION)
    for wrong, n in (xb, 4), (xb[:, :2], 3):
        with pytest.raises(CourseError, match="its last layer should have 4 outputs|can't take inputs of shape"):
            check_outputs(model, (wrong,), n, CLASSIFICATION)
        assert model.training == training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("make, says", [
    (lambda ws: learner(made(40), net(), ws, task="multi-label"), "have the shape .2,. and multi-label takes .2, 3."),
    (lambda ws: learner(made(40), by_pixel(3), ws, task="segmentation"), "segmentation takes .2, 16, 16."),
    (lambda ws: learner(replace(made(40), labels=None), net(), ws), "no labels to tell the task from"),
    (lambda ws: quiet(learner(with_masks(40), by_pixel(), ws, augment=[mixup(2)]), 1), "mixup blends one label an "
                                                                                       "image"),
    (lambda ws: learner(with_masks(40), Dicts(), ws), "The model gives a dict: a tensor is expected"),
    (lambda ws: learner(made(40), nn.Conv2d(3, 4, 1), ws, task=Task("again", nn.MSELoss, (), lambda xb, n: xb.shape,
     lambda xb, yb: (xb, xb))), "outputs of shape .2, 4, 16, 16. for 2 examples and there are 3 classes: its last "
                                "layer should have 3")])
def test_targets_and_outputs_that_are_another_tasks_are_a_sentence(make, says, place):
    with pytest.raises(CourseError, match=says):
        make(place)


class Dicts(nn.Module):
    "Answers as torchvision's segmentation models do."
    def forward(self, xb):
        return {"out": xb[:, :2]}


def test_the_test_part_of_masks_is_judged_by_the_metrics(place):
    learn = quiet(segment(place), 3, 0.05)
    first, second = evaluate_test(learn), evaluate_test(learn)
    assert set(first) == {"loss", "pixel_accuracy", "mean_dice", "n", "looks"} and first["n"] == 24
    assert 0 < first["pixel_accuracy"] <= 1 and second["looks"] == first["looks"] + 1 \
        and second["loss"] == first["loss"]
