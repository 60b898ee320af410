"What data of every kind shares, parts that are never mixed, and labels that are more than one class for an image."
from dataclasses import dataclass, replace

import numpy as np
import pytest

from coursekit.files import CourseError
from coursekit.splits import (
    Data,
    Splits,
    array_splits,
    center_crop_all,
    kfold_splits,
    one_size,
    split_groups,
    subsample,
)


def made(n=40, labels=None, **changes):
    "Splits of `n` small images, half of them for training."
    k = np.arange(n)
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 12, 3), np.uint8)
    labels = k % 2 if labels is None else labels
    return replace(Splits("made", images, labels, ["a", "b"], [f"{i}.png" for i in k], k[:n // 2], k[n // 2:3 * n // 4],
                          k[3 * n // 4:], "made"), **changes)


@dataclass(frozen=True, repr=False)
class Tones(Data):
    "Another kind of data, of which the parts are the examples themselves."
    unit = "tones"
    name: str
    train: list
    valid: list
    test: list
    fingerprint: str
    stand_in: str = ""
    whole: int = 0


def test_what_every_kind_of_data_says():
    tones = Tones("scales", [1, 2, 3], [4], [], "abc")
    assert repr(tones) == "scales: 4 tones; 3 train, 1 valid, 0 test; abc" and not tones.is_part
    part = replace(tones, whole=1000)
    assert part.is_part and part.title == "scales (4 of 1,000 tones)"
    assert replace(part, stand_in="hummed").title == "stand-in for scales (hummed)" \
        and not replace(tones, whole=4).is_part
    splits = made(whole=60_000)
    assert isinstance(splits, Data) and splits.title == "made (40 of 60,000 images)"
    assert repr(splits) == "made (40 of 60,000 images): 40 images, 2 classes; 20 train, 10 valid, 10 test; made"


def test_images_without_labels_are_a_part_of_their_own():
    splits = made(train=np.arange(8), unlabeled=np.arange(8, 20))
    assert splits.parts == ("train", "valid", "test", "unlabeled") \
        and "8 train, 10 valid, 10 test, 12 unlabeled" in repr(splits)
    assert made().parts == ("train", "valid", "test") and len(made().unlabeled) == 0
    for part in "train", "valid", "test":
        with pytest.raises(CourseError, match="1 images of made are in `unlabeled` and in another part, the first is "
                                              "number"):
            made(unlabeled=getattr(made(), part)[:1])


@pytest.mark.parametrize("labels", [None, np.eye(2, dtype=np.uint8)[np.arange(40) % 2],
                                    np.zeros((40, 8, 12), np.uint8)], ids=["classes", "several", "masks"])
def test_a_fraction_of_the_labels(labels):
    splits = made(labels=labels)
    few, less = (subsample(splits, share, unlabeled=True) for share in (0.5, 0.1))
    assert len(few.train) == 10 and set(less.train) < set(few.train) and set(less.unlabeled) > set(few.unlabeled)
    assert set(few.train) | set(few.unlabeled) == set(splits.train) and not set(few.train) & set(few.unlabeled)
    assert (subsample(splits, 0.5).train == few.train).all() and len(subsample(splits, 0.5).unlabeled) == 0
    assert set(subsample(few, 0.5, unlabeled=True).unlabeled) > set(few.unlabeled)  # what had none has none still


def test_folds_hold_each_image_once_and_keep_no_mask_apart():
    assert sorted(np.concatenate([f.valid for f in kfold_splits(made(), 4)])) == list(range(40))
    with pytest.raises(CourseError, match=r"the shape \(40, 8, 12\): one label for each image"):
        kfold_splits(made(labels=np.zeros((40, 8, 12), np.uint8)))
    parts = kfold_splits(made(), 4, n_repeats=2)
    assert len(parts) == 8 and all(np.bincount(p.labels[p.valid]).tolist() == [5, 5] and not len(p.test)
                                   and not set(p.train) & set(p.valid) for p in parts)
    with pytest.raises(CourseError, match="smallest class has 20 images and there are 21 folds"):
        kfold_splits(made(), 21)


def test_the_smallest_fraction_is_one_of_each_class():
    assert np.bincount(made().labels[subsample(made(), 1e-9).train]).tolist() == [1, 1]
    for share in 0, 1.1, -1, float("nan"):
        with pytest.raises(CourseError, match="a number above 0 and up to 1"):
            subsample(made(), share)


@pytest.mark.parametrize("seed", range(5))
def test_what_belongs_together_stays_together(seed):
    groups = np.random.default_rng(seed).integers(0, 12, 200)
    parts = split_groups(groups, 0.2, 0.25, seed)
    assert sorted(np.concatenate(parts)) == list(range(200)) and all(len(p) for p in parts)
    train, valid, test = (set(groups[p]) for p in parts)
    assert not train & valid and not train & test and not valid & test
    chosen = np.flatnonzero(groups < 3)
    assert set(groups[split_groups(groups, 0.2, chosen)[2]]) == {0, 1, 2}


def test_too_few_groups():
    with pytest.raises(CourseError, match="belong to 2 groups: three or more"):
        split_groups([0, 0, 1])


@pytest.mark.parametrize("kind", ["masks", "several"])
def test_arrays_with_other_labels_are_split_and_fixed(ws, kind):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 3, (30, 8, 8), np.uint8) if kind == "masks" else rng.integers(0, 2, (30, 3), np.uint8)
    make = lambda images=images, labels=labels, **kw: array_splits(ws, "made", images, labels, list("abc"),
                                                                   [str(i) for i in range(30)], 0.2, 0.2, **kw)
    one, again = make(), make()
    assert one.fingerprint == again.fingerprint and (one.test == again.test).all() \
        and len(list((ws.runs / "splits").iterdir())) == 1
    other = labels.copy()
    other[3] = 1 - other[3].clip(0, 1)
    assert make(labels=other).fingerprint != one.fingerprint != make(images=255 - images).fingerprint
    grouped = make(groups=[i // 5 for i in range(30)])
    assert not {i // 5 for i in grouped.train} & {i // 5 for i in [*grouped.valid, *grouped.test]}


def test_masks_are_cut_as_their_images_are():
    images = np.zeros((4, 20, 40, 3), np.uint8)
    images[:, 5:9, 18:25] = 255
    masks = (images[..., 0] > 0).astype(np.uint8) * 2
    splits = center_crop_all(replace(made(4), images=images, labels=masks))
    assert splits.images.shape == (4, 20, 20, 3) and (splits.labels == (splits.images[..., 0] > 0) * 2).all()
    small = one_size(center_crop_all(splits, 10))
    assert small.labels.shape == (4, 10, 10) and set(np.unique(small.labels)) == {0, 2}
