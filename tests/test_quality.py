"Balance, copies and files with trouble: each answer is held against data made to have a known one."
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coursekit.datasets import cifar10, hippocampus
from coursekit.files import CourseError
from coursekit.quality import audit, class_counts, imbalance_ratio, near_duplicates, pair_sheet, split_names
from coursekit.splits import Splits, subsample


def as_splits(images, valid=(), test=()):
    "Images without classes, all for training but for some."
    n = len(images)
    parts = [np.setdiff1d(np.arange(n), [*valid, *test]), np.array(valid, int), np.array(test, int)]
    return Splits("made", images, np.zeros(n, int), ["a"], [f"{i}.png" for i in range(n)], *parts, "")


def test_imbalance_ratio(ws):
    made = replace(cifar10(ws), labels=np.array([0, 0, 0, 1, 1]), classes=["a", "b"], train=np.array([0, 1, 2, 3]),
                   valid=np.array([4]), test=np.array([], int))
    assert imbalance_ratio(made) == 3


@pytest.mark.parametrize("count", [class_counts, imbalance_ratio])
def test_what_counts_classes_wants_one_label_an_image(ws, count):
    one = cifar10(ws)
    several = replace(one, labels=np.eye(10, dtype=np.uint8)[one.labels])
    for splits, has in (hippocampus(ws), "masks"), (several, "several labels an image"):
        with pytest.raises(CourseError, match=f"^{count.__name__} wants one label an image .* has {has}: "):
            count(splits)


CHANGES = {"the same": lambda im: im, "brighter": lambda im: Image.eval(im, lambda v: min(255, v + 30)),
           "more contrast": lambda im: Image.eval(im, lambda v: int(max(0, min(255, 1.3 * v - 40)))),
           "cropped": lambda im: im.crop((1, 1, 31, 31)).resize((32, 32), Image.Resampling.BICUBIC),
           "compressed": lambda im: as_jpeg(im, 60)}


def as_jpeg(image, quality):
    box = io.BytesIO()
    image.save(box, "jpeg", quality=quality)
    return Image.open(box)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change, photos):
    copy = np.asarray(CHANGES[change](Image.fromarray(photos[7])))
    pairs = near_duplicates(as_splits(np.concatenate([photos, copy[None]])))
    assert pairs[["first", "second"]].to_numpy().tolist() == [[7, 60]]


def test_duplicates_among_images_of_different_sizes(photos):
    images = np.empty(4, object)
    for i, im in enumerate([photos[0], photos[1], np.kron(photos[0], np.ones((3, 3, 1), np.uint8)),
                            np.zeros((50, 20, 3), np.uint8)]):
        images[i] = im
    assert near_duplicates(as_splits(images))[["first", "second"]].to_numpy().tolist() == [[0, 2]]


def test_a_frame_does_not_make_two_pictures_one(photos):
    framed = photos[:2].copy()
    framed[:, [0, 1, 2, 3, -4, -3, -2, -1]] = 255
    framed[:, :, [0, 1, 2, 3, -4, -3, -2, -1]] = 255
    assert len(near_duplicates(as_splits(framed), limit=0.5)) == 0


def test_a_set_that_looks_all_alike_stays_in_memory():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (32, 32, 3))
    noisy = (base + rng.normal(0, 60, (1500, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    assert near_duplicates(as_splits(noisy)).similarity.between(0.9, 1).all()


def test_blank_images_are_no_duplicates_of_all(photos):
    blank = np.full((2, 32, 32, 3), 200, np.uint8)
    assert len(near_duplicates(as_splits(np.concatenate([photos, blank])))) == 0


def test_duplicates_say_where_they_are(photos):
    images = np.concatenate([photos[:3], photos[:3]])
    pairs = near_duplicates(as_splits(images, valid=[3], test=[1, 4, 5])).set_index("first")["where"]
    assert pairs.to_dict() == {0: "train and valid", 1: "inside test", 2: "train and test"}
    with pytest.raises(CourseError, match="The limit is 90"):
        near_duplicates(as_splits(images), limit=90)
    assert len(near_duplicates(as_splits(photos[:1]))) == 0


def test_duplicates_across_blocks(photos):
    rng = np.random.default_rng(1)
    many = rng.integers(0, 256, (4100, 32, 32, 3), np.uint8)
    many[4050] = many[10]
    many[2001] = many[1999]
    assert sorted(near_duplicates(as_splits(many))[["first", "second"]].to_numpy().tolist()) == [[10, 4050],
        [1999, 2001]]


def test_pairs_are_shown_with_their_parts(ws):
    splits = cifar10(ws)
    pairs = pd.DataFrame({"first": [splits.train[0]], "second": [splits.test[0]], "similarity": [0.95]})
    assert pair_sheet(splits, pairs, "a pair").axes[0].get_title() == "train / test, 0.950"
    assert (split_names(splits)[splits.valid] == "valid").all()
    pair_sheet(splits, pairs.head(0), "none")


def test_duplicates_name_their_files(photos):
    pairs = near_duplicates(as_splits(np.concatenate([photos[:3], photos[:2]]), test=[3, 4]))
    named = pairs.sort_values("first")[["first_file", "second_file"]].to_numpy().tolist()
    assert named == [["0.png", "3.png"], ["1.png", "4.png"]]


def test_audit_names_each_trouble(tmp_path):
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "fine.jpg")
    Image.effect_noise((64, 64), 80).convert("RGBA").save(tmp_path / "alpha.png")
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "really.jpg", "webp")
    Image.effect_noise((16, 16), 80).convert("RGB").save(tmp_path / "small.png")
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "blank.png")
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "nameless", "png")
    assert audit(tmp_path, ["blank.png", "nameless"]).trouble.tolist() == ["is blank", "is PNG, not what a name "
                                                                                       "without an ending says"]
    [(tmp_path / name).unlink() for name in ("blank.png", "nameless")]
    trouble = audit(tmp_path, ["fine.jpg", "alpha.png", "really.jpg", "small.png", "empty.png", "absent.png"]).trouble
    assert trouble.tolist() == ["", "is RGBA, not RGB", "is WEBP, not JPEG", "is 16 x 16",
                                "can't be read (UnidentifiedImageError)", "can't be read (FileNotFoundError)"]
    assert audit(tmp_path).trouble.sort_index().tolist() == ["is RGBA, not RGB", "can't be read "
                                                                                 "(UnidentifiedImageError)", "",
                                                                                 "is WEBP, not JPEG", "is 16 x 16"]
    with pytest.raises(CourseError, match="nowhere is no folder"):
        audit(tmp_path / "nowhere")


def test_the_audit_judges_what_the_loader_reads(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (64, 64))
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((deep // 16).astype(np.uint16)).save(tmp_path / "twelve.tif")
    Image.fromarray((deep / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    shape = np.zeros((64, 64, 4), np.uint8)
    shape[16:48, 16:48, 3] = 255
    Image.fromarray(shape).save(tmp_path / "silhouette.png")
    alike = np.zeros((64, 64, 3), np.uint8)
    alike[:, :32], alike[:, 32:] = (255, 0, 0), (0, 130, 0)  # of one grey
    Image.fromarray(alike).save(tmp_path / "colors.png")
    assert audit(tmp_path).trouble.to_dict() == {"colors.png": "", "deep.png": "is I;16, not RGB",
                                                 "twelve.tif": "is I;16, not RGB",
                                                 "float.tif": "is F, not RGB", "silhouette.png": "is RGBA, not RGB"}
    Image.fromarray((deep // 256).astype(np.uint16)).save(tmp_path / "deep.png")
    shape[..., :3] = 255  # white on white
    Image.fromarray(shape).save(tmp_path / "silhouette.png")
    assert audit(tmp_path, ["deep.png", "silhouette.png"]).trouble.tolist() == ["is I;16, not RGB; is blank when it is "
                                                                                "cut to 8 bits",
                                                                                "is RGBA, not RGB; is blank"]


def test_duplicates_of_images_in_no_part_or_without_labels(ws):
    splits = cifar10(ws)
    few = subsample(replace(splits, images=splits.images.copy()), 0.5)
    out = np.setdiff1d(splits.train, few.train)[0]
    few.images[out] = few.images[few.test[0]]
    unlabeled = replace(few, unlabeled=np.array([out]))
    for s, where in (few, "test and no part"), (unlabeled, "test and unlabeled"):
        pair = near_duplicates(s, 0.999).iloc[0]
        assert {pair["first"], pair["second"]} == {out, few.test[0]} and pair["where"] == where
    masks = replace(few, labels=np.zeros((len(few.images), 32, 32), np.uint8), classes=["none", "some"])
    assert near_duplicates(masks, 0.999).same_label.iloc[0]
