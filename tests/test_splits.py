"What data of every kind shares, parts that are never mixed, folders and tables of one's own, labels of any kind."
import json
import os
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from conftest import folder_of
from PIL import Image

from coursekit.corpora import Text
from coursekit.data import class_counts, resolution_sheet
from coursekit.datasets import CIFAR10, cifar10
from coursekit.files import CourseError
from coursekit.plots import contact_sheet
from coursekit.splits import (
    Data,
    Splits,
    array_splits,
    center_crop_all,
    check_one_label,
    image_folder,
    image_table,
    kfold_splits,
    make_split,
    one_size,
    split_groups,
    subsample,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*CIFAR-10 has 60,000 images")  # the sets made here are small


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


def test_folds_leave_the_unlabeled_as_they_are():
    few = subsample(made(labels=np.repeat([0, 1], [30, 10])), 0.2, unlabeled=True)
    folds = kfold_splits(few, 4)
    labeled = np.setdiff1d(np.arange(40), few.unlabeled)
    assert len(few.unlabeled) == 16 and sorted(np.concatenate([f.valid for f in folds])) == labeled.tolist()
    for fold in folds:
        assert (fold.unlabeled == few.unlabeled).all() and not len(fold.test) \
            and sorted([*fold.train, *fold.valid]) == labeled.tolist()


def test_what_has_no_images_or_no_one_label_is_a_sentence():
    text = Text("plain", "".join("ab"), *[np.zeros(4, np.uint8)] * 3, "abc")
    for wrong in lambda: subsample(text, 0.5), lambda: kfold_splits(text), lambda: check_one_label(text, "f"):
        with pytest.raises(CourseError, match="The splits are .*plain.*image_folder.folder, ws.*images, gives is "
                                              "expected"):
            wrong()
    check_one_label(made(), "f")
    for labels, has in (np.eye(2, dtype=np.uint8)[np.arange(40) % 2], "several labels an image"), \
            (np.zeros((40, 8, 12), np.uint8), "masks"):
        with pytest.raises(CourseError, match=f"^f wants one label an image and made has {has}: .*for f give each"):
            check_one_label(made(labels=labels), "f")


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
    for kind in np.int64, np.int32, np.float32:
        cut = center_crop_all(replace(splits, labels=splits.labels.astype(kind)), 10)
        assert cut.labels.dtype == np.uint8 and (cut.labels == small.labels).all()
    for wrong, says in (300, "from 0 to 300"), (-1, "from -1 to 2"):
        with pytest.raises(CourseError, match=f"masks hold numbers {says}: a class from 0 to 255"):
            center_crop_all(replace(splits, labels=np.where(np.arange(20) == 0, wrong, splits.labels.astype(int))), 8)


# Shares

def test_split_is_seeded_stratified_and_whole():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    train, valid, test = make_split(labels, 0.2, 0.2)
    assert sorted([*train, *valid, *test]) == list(range(160))
    assert np.bincount(labels[test]).tolist() == [20, 10, 2] and np.bincount(labels[valid]).tolist() == [16, 8, 2]
    assert all((a == b).all() for a, b in zip((train, valid, test), make_split(labels, 0.2, 0.2)))
    assert (make_split(labels, 0.2, 0.2, seed=1)[2] != test).any()


def test_a_class_of_two_cannot_be_split():
    with pytest.raises(CourseError, match="No image is left to train on for b: each class needs 3 or more"):
        make_split([0, 0, 0, 0, 1, 1], classes=["a", "b"])


@pytest.mark.parametrize("shares", [{"valid": 15}, {"test": 0}, {"test": 1.0}, {"valid": -0.1}])
def test_a_share_that_is_none(shares):
    with pytest.raises(CourseError, match="a share between 0 and 1 is expected"):
        make_split([0] * 10 + [1] * 10, **shares)


def test_shares_that_leave_nothing():
    with pytest.raises(CourseError, match="No image is left to train on for label 0, label 1"):
        make_split([0] * 10 + [1] * 10, valid=0.9, test=0.95)


def test_a_validation_part_of_the_authors_is_kept_and_the_rest_divided():
    labels, chosen = np.repeat([0, 1], 20), np.array([3, 1, 25])
    train, valid, test = make_split(labels, valid=chosen, test=0.2)
    assert valid.tolist() == [1, 3, 25] and not set(valid) & set(test) and np.bincount(labels[test]).tolist() == [4, 4]
    assert sorted([*train, *valid, *test]) == list(range(40))


# The file that fixes the split

def test_the_split_is_what_the_file_says(real):
    first = cifar10(real)
    path = next((real.runs / "splits").iterdir())
    fixed = json.loads(path.read_text())
    fixed["valid"][0], moved = int(first.train[0]), fixed["valid"][0]
    path.write_text(json.dumps(fixed))
    again = cifar10(real)
    assert first.train[0] in again.valid and moved in again.train


@pytest.mark.parametrize("text", ["", "{}", '{"n": 3, "valid": [0], "test": [1]}', '{"n": 120, "valid": [0], "test": '
                                                                                   '[0]}'])
def test_a_broken_split_file_is_a_sentence(real, text):
    cifar10(real)
    path = next((real.runs / "splits").iterdir())
    path.write_text(text)
    with pytest.raises(CourseError, match="split file .* broken or belongs to other data"):
        cifar10(real)
    assert path.read_text() == text


def test_other_shares_are_another_split(real):
    root = real.data / "cifar10" / "train"
    first, second = image_folder(root, real, test=0.2), image_folder(root, real, test=0.5)
    assert len(first.test) == 20 and len(second.test) == 50
    assert (image_folder(root, real, test=0.2).test == first.test).all()


# One's own images

def test_image_folder_and_table_agree(real):
    root = real.data / "cifar10" / "train"
    a = image_folder(root, real)
    table = pd.DataFrame({"image": a.files, "label": [a.classes[i] for i in a.labels]})
    table.to_csv(real.runs / "t.csv", index=False)
    b = image_table(real.runs / "t.csv", root, real)
    assert a.fingerprint == b.fingerprint and (a.test == b.test).all() and len(a.test) == 20


def test_own_images_told_in_a_sentence(real, tmp_path):
    root = real.data / "cifar10" / "train"
    table = pd.DataFrame({"image": ["bird/bird_0.png", "cat/cat_0.png"], "label": ["a", "b"]})
    for name, text in {"empty.csv": b"", "latin.csv": "image,label\né.png,a\n".encode("latin-1"),
                       "semi.csv": b"image;label\na.png;b\n"}.items():
        (tmp_path / name).write_bytes(text)
    for bad, match in ((lambda: image_folder(tmp_path / "nowhere", real), "is no folder"),
                       (lambda: image_folder(root / "bird", real), "holds 0 folders"),
                       (lambda: image_table(table.assign(image=["bird/bird_0.png", "x.png"]), root, real),
                        "1 of 2 files .* the first is 'x.png'"),
                       (lambda: image_table(table, root, real, label="kind"),
                        "no column 'kind', only 'image', 'label'"),
                       (lambda: image_table(table.assign(label=["a", None]), root, real),
                        "1 of 2 rows have no label, the first for 'cat/cat_0.png'"),
                       (lambda: image_table(table.assign(label=["a", " "]), root, real), "1 of 2 rows have no label"),
                       (lambda: image_table(table.assign(label="a"), root, real), "2 rows and 1 classes"),
                       (lambda: image_table(table[:0], root, real), "0 rows and 0 classes"),
                       (lambda: image_table(pd.concat([table, table]), root, real), "2 of 4 rows repeat a file, the "
                                                                                    "first 'bird/bird_0.png'"),
                       (lambda: image_table(tmp_path / "none.csv", root, real), "can't be read as a table"),
                       (lambda: image_table(tmp_path / "empty.csv", root, real), "can't be read as a table"),
                       (lambda: image_table(tmp_path / "latin.csv", root, real), "can't be read as a table"),
                       (lambda: image_table(tmp_path / "semi.csv", root, real), "only 'image;label': .* with commas")):
        with pytest.raises(CourseError, match=match):
            bad()


def test_number_labels_keep_their_order_and_words_their_sense(real, tmp_path):
    root = real.data / "cifar10" / "train"
    files = [f"{c}/{c}_{i}.png" for c in CIFAR10 for i in range(10)]
    numbers = image_table(pd.DataFrame({"image": files, "label": [i // 10 + 3 for i in range(100)]}), root, real)
    assert numbers.classes == [str(n) for n in range(3, 13)] \
        and numbers.labels.tolist() == [i // 10 for i in range(100)]
    rows = "\n".join(f"{f},{[' None', 'x '][i % 2]}" for i, f in enumerate(files))
    (tmp_path / "t.csv").write_text("image,label\n" + rows)
    assert image_table(tmp_path / "t.csv", root, real).classes == ["None", "x"]


def test_a_folder_without_images(tmp_path, ws):
    for c in "ab":
        (tmp_path / "own" / c).mkdir(parents=True)
        (tmp_path / "own" / c / "x.txt").write_text("text")
    with pytest.raises(CourseError, match="None of the 2 files in .*own is an image that can be read"):
        image_folder(tmp_path / "own", ws)


def test_one_picture_under_two_names(tmp_path, ws):
    root = folder_of(tmp_path, a=4, b=4)
    (root / "a" / "link.png").symlink_to(root / "a" / "0.png")
    files = [f"{c}/{i}.png" for c in "ab" for i in range(4)]
    for again in "./a/0.png", "a//0.png", "a/../a/0.png", str(root / "a" / "0.png"), "a/./0.png", "a/link.png":
        table = pd.DataFrame({"image": [*files, again], "label": [*(f[0] for f in files), "b"]})
        with pytest.raises(CourseError, match="1 of 9 rows repeat a file, the first "):
            image_table(table, root, ws, size=8)
    dotted = image_table(pd.DataFrame({"image": [f"./{f}" for f in files], "label": [f[0] for f in files]}), root, ws,
                         size=8)
    assert dotted.files == files


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes, and users")


@linux
def test_names_that_are_no_text_or_long_or_mathematics(tmp_path, ws):
    root = tmp_path / os.fsdecode(b"photos \xe9 " + b"x" * 230)
    for c in b"caf\xe9", b"$^$", b"n" * 240:
        folder = root / os.fsdecode(c)
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.random.default_rng([len(c), i]).integers(0, 256, (40, 40, 3), np.uint8)).save(folder
                / os.fsdecode(b"\xe9%d.png" % i))
    (root / "$^$" / os.fsdecode(b"\xfc.png")).write_text("no picture")
    with pytest.warns(UserWarning, match=r"left out: \S{3}/ü.png"):
        splits = image_folder(root, ws, size=32)
    assert splits.classes == ["$^$", "café", "n" * 240] and splits.name == "photos é " + "x" * 230
    assert (root / splits.files[0]).is_file()  # a name of a file is what opens it
    print(splits, class_counts(splits))
    json.dumps(splits.classes).encode(), splits.title.encode()
    for figure in contact_sheet(splits), resolution_sheet(splits, splits.test, sizes=(8,)):
        figure.canvas.draw()
    assert "$^$" in [ax.get_title() for ax in contact_sheet(splits).axes]
    contact_sheet(replace(splits, name="$_$")).canvas.draw()
    with pytest.warns(UserWarning):
        assert image_folder(root, ws, size=32).fingerprint == splits.fingerprint
    with pytest.raises(CourseError, match="photos é x* is no folder|holds 0 folders") as e:
        image_folder(root / os.fsdecode(b"caf\xe9"), ws)
    str(e.value).encode()


# Parts and classes

def in_parts(root, train=None, valid=None, test=None):
    "Two classes in each of the named parts: 10, 4 and 6 pictures of each."
    for name, n in (train, 10), (valid, 4), (test, 6):
        if name:
            folder_of(root, **{f"{name}__{c}": n for c in ("cat", "dog")})
    return root


def parts_in(splits):
    "Which top folders each part's files come from."
    return tuple({splits.files[i].split("/")[-3] for i in getattr(splits, p)} for p in ("train", "valid", "test"))


@pytest.mark.parametrize("train, test", [("train", "test"), ("Training", "TESTING"), ("X_train", "X_test"),
                                         ("trainset", "testset"), ("TrainData", "TestData"),
                                         ("train1", "test1"), ("asl_alphabet_train", "asl_alphabet_test"),
                                         ("trainval", "test"), ("1 - train", "2 - holdout"),
                                         ("train2017", "test2017")])
def test_folders_of_parts_are_the_split(tmp_path, ws, capsys, train, test):
    splits = image_folder(in_parts(tmp_path / "own", train, None, test), ws, 8)
    assert splits.classes == ["cat", "dog"] and (class_counts(splits)[["train", "valid", "test"]]
                                                 == [8, 2, 6]).all().all()
    assert parts_in(splits) == ({train}, {train}, {test})
    assert all(f.split("/")[-2] == splits.classes[label] for f, label in zip(splits.files, splits.labels))
    said = capsys.readouterr().out
    assert f"{test} for test" in said and f"{train} for training" in said \
        and "the validation part is cut from what is for training" in said


@pytest.mark.parametrize("train, valid", [("train", "val"), ("Train", "Validation"), ("train_images", "valid_images"),
                                          ("training", "dev"), ("seg_train", "seg_eval")])
def test_a_validation_part_without_a_test_part(tmp_path, ws, capsys, train, valid):
    splits = image_folder(in_parts(tmp_path / "own", train, valid), ws, 8, test=0.3)
    assert (class_counts(splits)[["train", "valid", "test"]] == [7, 4, 3]).all().all() and parts_in(splits) == ({train},
        {valid}, {train})
    assert "the test part is cut from what is for training" in capsys.readouterr().out


def test_three_parts_are_used_as_they_are_and_fixed(tmp_path, ws, capsys):
    root = in_parts(tmp_path / "own", "TRAIN", "VAL", "TEST")
    in_parts(root, test="TEST_SIMPLE")
    splits = image_folder(root, ws, 8)
    assert (class_counts(splits)[["train", "valid", "test"]] == [10, 4, 12]).all().all()
    assert parts_in(splits) == ({"TRAIN"}, {"VAL"}, {"TEST", "TEST_SIMPLE"}) and "cut" not in capsys.readouterr().out
    path = next((ws.runs / "splits").iterdir())
    assert path.name.endswith("-official-official.json") \
        and json.loads(path.read_text())["valid"] == splits.valid.tolist()
    again = image_folder(root, ws, 8)
    assert again.fingerprint == splits.fingerprint and (again.test == splits.test).all()


@pytest.mark.parametrize("names", ["wrap__train wrap__test", "a__b__train a__b__test", "train__train test__test",
                                   "set__seg_train__seg_train set__seg_test__seg_test"])
def test_folders_around_folders(tmp_path, ws, names):
    train, test = names.split()
    splits = image_folder(in_parts(tmp_path / "own", train, None, test), ws, 8)
    assert splits.classes == ["cat", "dog"] and len(splits.test) == 12
    assert all((tmp_path / "own" / f).is_file() and "test" in f for f in np.array(splits.files)[splits.test])


def test_a_folder_around_classes(tmp_path, ws):
    splits = image_folder(folder_of(tmp_path / "own", set__cat=5, set__dog=5), ws, 8)
    assert splits.classes == ["cat", "dog"] and splits.name == "own" and splits.files[0] == "set/cat/0.png"


@pytest.mark.parametrize("tree, says", [
    ({"one__cat": 4, "one__dog": 4, "two__cat": 4, "two__dog": 4}, "holds one, two, with the same folders inside .cat, "
                                                                   "dog.: .* call the folders around them train, valid "
                                                                   "or test"),
    ({"fold1__cat": 4, "fold1__dog": 4, "fold1__emu": 4, "fold2__cat": 4, "fold2__dog": 4},
     "with the same folders inside .cat, dog."),
    ({"cat__train": 4, "cat__test": 4, "dog__train": 4, "dog__test": 4}, "holds cat, dog, with the parts test, train "
                                                                         "inside each: turn them round"),
    ({"trainA": 4, "trainB": 4, "testA": 4, "testB": 4}, "holds testA, testB, trainA, trainB, names that speak of a "
                                                         "part and of a class at once"),
    ({"train_cats": 4, "train_dogs": 4, "val_cats": 4, "val_dogs": 4}, "names that speak of a part and of a class at "
                                                                       "once"),
    ({"cats-test": 4, "dogs-test": 4, "cats-train": 4, "dogs-train": 4}, "names that speak of a part and of a class at "
                                                                         "once"),
    ({"entrenamiento__cat": 4, "entrenamiento__dog": 4, "prueba__cat": 4, "prueba__dog": 4},
     "with the same folders inside"),
    ({"seg_train__cat": 4, "seg_train__dog": 4, "seg_test__cat": 4, "seg_test__dog": 4, "seg_pred__seg_pred": 4},
     "or take them away .seg_pred."),
    ({"cat": 4, "dog": 4, "test": 4}, "holds cat, dog, test, of which test is called like a part .* if it is a class, "
                                      "call it otherwise, or use image_table"),
    ({"Training_Set": 4, "Test_Set": 4}, "of which Test_Set, Training_Set are called like a part"),
    ({"train__cat": 4, "train__dog": 4, "test": 4}, "test should have a folder with images for each class of the "
                                                    "training part; missing or unknown: cat, dog"),
    ({"train__cat": 4, "train__dog": 4, "test__cat": 4, "test__dog": 0}, "missing or unknown: dog"),
    ({"train__cat": 4, "train__dog": 4, "val__Cat": 4, "val__dog": 4}, "missing or unknown: Cat, cat"),
    ({"val__cat": 4, "val__dog": 4, "test__cat": 4, "test__dog": 4}, "no part to train on"),
])
def test_what_may_be_parts_or_classes_is_a_sentence(tmp_path, ws, tree, says):
    with pytest.raises(CourseError, match=says):
        image_folder(folder_of(tmp_path / "own", **tree), ws, 8)


@pytest.mark.parametrize("tree, classes", [({"train_station": 4, "test_tube": 4}, ["test_tube", "train_station"]),
                                           ({"steam_train": 4, "model_train": 4}, ["model_train", "steam_train"]),
                                           ({"dev_board": 4, "sensor": 4, "test_pad": 4},
                                            ["dev_board", "sensor", "test_pad"]),
                                           ({"trains": 4, "contest": 4, "valley": 4}, ["contest", "trains", "valley"]),
                                           ({"bus": 4, "car": 4, "train": 4}, ["bus", "car", "train"]),
                                           ({"test_tube": 4, "test_pad": 4, "train_station": 4},
                                            ["test_pad", "test_tube", "train_station"]),
                                           ({"cat__images": 4, "dog__images": 4}, ["cat", "dog"]),
                                           ({"cat": 4, "dog__2019": 4, "dog__2020": 4}, ["cat", "dog"])])
def test_classes_stay_classes(tmp_path, ws, capsys, tree, classes):
    assert image_folder(folder_of(tmp_path / "own", **tree), ws, 8).classes == classes and not capsys.readouterr().out


# Squares

def of_sizes(splits, shapes):
    images = np.empty(len(shapes), object)
    for i, (h, w) in enumerate(shapes):
        images[i] = np.full((h, w, 3), 255, np.uint8)
        top, left, s = (h - min(h, w)) // 2, (w - min(h, w)) // 2, min(h, w)
        images[i][top:top + s, left:left + s] = i
    return replace(splits, images=images)


@pytest.mark.parametrize("shapes, side, expected",
                         [([(32, 48), (48, 32), (40, 40)], None, 32), ([(32, 48), (64, 48), (500, 90)], 24, 24),
                                                    ([(30, 48), (30, 31), (30, 30)], None, 30),
                                                    ([(16, 48), (20, 31), (30, 30)], 64, 64)])
def test_squares_of_any_sizes(tmp_path, ws, capsys, shapes, side, expected):
    splits = of_sizes(image_folder(folder_of(tmp_path / "own", a=3, b=3), ws, 8), shapes)
    cut = center_crop_all(splits, side)
    assert cut.images.shape == (3, expected, expected, 3) and cut.images.dtype == np.uint8 \
        and cut.fingerprint == splits.fingerprint
    assert (cut.images == np.arange(3)[:, None, None, None]).all()  # nothing of what lies outside
    out = capsys.readouterr().out
    said = "sides of" in out and "center_crop_all(splits, side=...) takes another" in out
    assert said == (side is None and len({min(s) for s in shapes}) > 1)
    assert center_crop_all(cut) is cut and center_crop_all(cut, expected) is cut and not capsys.readouterr().out


def test_squares_of_one_shape(tmp_path, ws):
    splits = image_folder(folder_of(tmp_path / "own", a=3, b=3), ws, 8)
    wide = replace(splits, images=np.tile(np.arange(12, dtype=np.uint8)[None, None, :, None], (6, 8, 1, 3)))
    assert center_crop_all(wide).images[0, 0, :, 0].tolist() == list(range(2, 10))
    with pytest.raises(CourseError, match="The size is 0: a whole number of pixels"):
        center_crop_all(splits, 0)
