"Batches: the same for the same seed and epoch, none of one image, and what is refused."
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import half_labeled, made, net, quiet, with_masks
from torch import nn

from coursekit.augment import cutout, mixup, random_hflip, random_translate
from coursekit.files import CourseError
from coursekit.learner import learner
from coursekit.loaders import ArrayLoader, LMLoader, Loader, SemiSupervisedLoader


def test_a_batch_depends_on_seed_epoch_and_number_alone():
    s = made()
    a, b = (ArrayLoader(s.images, s.labels, s.classes, bs=32, augment=[random_hflip, random_translate(2), cutout(4),
                                                                       mixup(3)], shuffle=True, seed=1)
            for _ in range(2))
    a.epoch = b.epoch = 3
    list(a), torch.rand(5)
    for (x, y), (_, (x2, y2)) in zip(list(a)[4:], b.batches(4)):
        assert torch.equal(x, x2) and torch.equal(y, y2)
    before = torch.get_rng_state()
    next(iter(a))
    assert torch.equal(before, torch.get_rng_state()), "augmentation must not use up the model's random numbers"


def test_every_image_comes_once_an_epoch_and_epochs_differ():
    s = made()
    dl = ArrayLoader(np.arange(240, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), s.labels,
                     s.classes, bs=50, shuffle=True)
    seen = [torch.cat([x[:, 0, 0, 0] for x, _ in dl]).mul(255).round().int().tolist()]
    dl.epoch = 1
    seen.append(torch.cat([x[:, 0, 0, 0] for x, _ in dl]).mul(255).round().int().tolist())
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(240)) and seen[0] != seen[1] and len(dl) == 5


@pytest.mark.parametrize("augment, says",
                         [(lambda xb, yb: xb, "returns a Tensor"), (lambda xb, yb: None, "returns a NoneType"),
                          (lambda xb, yb: (xb, yb, 1), "returns a tuple")])
def test_an_augmentation_that_returns_something_else_is_a_sentence(augment, says, place):
    with pytest.raises(CourseError, match=says + ": a function .xb, yb. -> .xb, yb. is expected"):
        quiet(learner(made(), net(), place, bs=32, augment=[augment]), 1, 0.01)


def with_norm(n_classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes))


@pytest.mark.parametrize("n_train, n_valid, bs, sizes", [(33, 20, 32, [33]), (97, 20, 32, [32, 32, 33]),
                                                         (9, 9, 4, [4, 5]), (40, 1, 32, [32, 8]), (33, 1, 16, [16, 17]),
                                                         (3, 3, 2, [3]), (2, 1, 64, [2])])
def test_a_last_batch_of_one_joins_the_one_before(n_train, n_valid, bs, sizes, place):
    k = np.arange(240)
    learn = learner(replace(made(), train=k[:n_train], valid=k[n_train:n_train + n_valid]), with_norm(), place, bs=bs)
    assert [len(yb) for _, yb in learn.dls.train] == sizes and len(learn.dls.train) == len(sizes)
    seen = torch.cat([xb.flatten(1) for xb, _ in learn.dls.train])
    assert len(torch.unique(seen, dim=0)) == n_train, "each image once"
    quiet(learn, 2, 0.01)
    assert len(learn.epochs) == 2 and len(learn.recorder.losses) == 2 * len(sizes)
    with learn.no_bar():
        assert len(learn.get_preds()[0]) == n_valid


@pytest.mark.parametrize("n_train, bs", [(1, 64), (8, 1), (1, 1)])
def test_a_batch_norm_and_one_image_is_a_sentence(n_train, bs, place):
    with pytest.raises(CourseError, match="batch norm can't go by one image"):
        quiet(learner(replace(made(), train=np.arange(n_train)), with_norm(), place, bs=bs), 1, 0.01)


def test_unlabeled_images_come_in_views_and_each_as_often():
    s = half_labeled()
    args = s.images[s.train], s.labels[s.train], s.classes, s.images[s.unlabeled]
    dl = SemiSupervisedLoader(*args, views=[(), (random_hflip,)], ratio=3, bs=10, shuffle=True)
    batches = [b for _, b in dl.batches()]
    assert [len(yb) for _, yb in batches] == [10, 10] and all(len(xb) == 10 + 2 * 30 for xb, _ in batches)
    weak, strong = batches[0][0][10:].chunk(2)
    same = (weak == strong).flatten(1).all(1)
    assert 0 < same.sum() < 30 and all(torch.equal(a, b) or torch.equal(a.flip(2), b) for a, b in zip(weak, strong)), \
        "the same images, half of them mirrored"
    assert torch.equal([b for _, b in dl.batches(1)][0][0], batches[1][0]), "a batch does not depend on those before it"
    seen = torch.cat([xb[10:40] for xb, _ in batches])
    assert len(torch.unique(seen, dim=0)) == len(s.unlabeled) == 60, "each once before any comes twice"
    assert len(dl.sample_batch(4)[0]) == 4 and len(next(iter(dl.new(shuffle=False)))[0]) == 10, \
        "predictions want the labeled ones alone"
    with pytest.raises(CourseError, match="There are no unlabeled images"):
        SemiSupervisedLoader(*args[:3], s.images[:0])


def test_a_mask_moves_with_its_image():
    s = with_masks(64)
    dl = ArrayLoader(s.images, s.labels, s.classes, bs=32, augment=[random_hflip, random_translate(3)], shuffle=True)
    for xb, yb in dl:
        assert torch.equal(xb[:, 0] > 90.5 / 255, yb == 1) and yb.dtype == torch.int64


@pytest.mark.parametrize("make, says", [
    (lambda x: Loader(2.5), "batch size is 2.5: a whole number above 0"),
    (lambda x: Loader(8).new(), "Loader can't prepare other data: give predictions what the network takes"),
    (lambda x: ArrayLoader(x[:0], [], ["a"]), "no images in this part: check the split"),
    (lambda x: ArrayLoader(np.array([*x, None], object)[:-1], [0] * 4, ["a"]), "different sizes and batches want one"),
    (lambda x: ArrayLoader(x, [0, 1, 0, -1], ["a", "b"]), "labels go from -1 to 1 and there are 2 classes"),
    (lambda x: ArrayLoader(x, np.eye(4), ["a", "b"]), r"shape \(4, 4\) and there are 2 classes: a 0 or a 1 for each"),
    (lambda x: ArrayLoader(x, np.full((4, 2), 0.5), ["a", "b"]), "a 0 or a 1 for each class"),
    (lambda x: LMLoader(range(100), 4, 2.5), "batch is 4 x 2.5: whole numbers above 0"),
    (lambda x: LMLoader(range(100), 10, 10), "has 100 characters and one batch takes 10 x 10 and one more"),
    (lambda x: LMLoader(range(101), 10, 10).new(), "Texts are not answered in batches: generate"),
])
def test_what_makes_no_batches_is_a_sentence(make, says):
    with pytest.raises(CourseError, match=says):
        make(np.zeros((4, 2, 2, 3), np.uint8))
