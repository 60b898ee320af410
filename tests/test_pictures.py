"""What a picture file, a folder of pictures and their names may be, and the pixels, parts and classes that must come
of it."""
import io
import json
import os
import shutil
import struct
import sys
import warnings
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import folder_of
from PIL import Image

from coursekit import images
from coursekit.data import audit, class_counts, resolution_sheet
from coursekit.files import CourseError, files_below
from coursekit.folders import part_of
from coursekit.images import decode, read_images
from coursekit.plots import contact_sheet
from coursekit.splits import center_crop_all, image_folder, image_table, make_split

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes, and users")


def png(depth, kind, row, transparent=b"", after=b""):
    "A PNG of one row, given as bytes, with what Pillow does not write."
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    width = len(row) * 8 // (depth * {0: 1, 2: 3}[kind])
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
                      + (chunk(b"tRNS", transparent) if transparent else b"")
                      + chunk(b"IDAT", zlib.compress(b"\0" + row))
                      + (chunk(b"eXIf", after) if after else b"") + chunk(b"IEND", b""))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# Which way is up

@pytest.mark.parametrize("ending", ["tif", "jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 90, 65535])
def test_a_picture_is_scaled_as_it_stands(tmp_path, ending, orientation):
    "Stored wide, red on the left: the scaled picture is the whole one made smaller, and only 5 to 8 turn it."
    im = Image.new("RGB", (96, 64), "red")
    im.paste("blue", (48, 0, 96, 64))
    im.save(tmp_path / f"a.{ending}", exif=exif(orientation), **{"quality": 95} if ending in ("jpg", "webp") else {})
    whole, small = decode(tmp_path / f"a.{ending}"), decode(tmp_path / f"a.{ending}", 32)
    assert whole.shape == ((96, 64, 3) if 5 <= orientation <= 8 else (64, 96, 3))
    assert small.shape == ((48, 32, 3) if 5 <= orientation <= 8 else (32, 48, 3))
    corner = {3: "blue", 7: "blue", 8: "blue", 2: "blue"}.get(orientation, "red")
    for pixels in whole, small:
        assert pixels[2, 2].argmax() == (0 if corner == "red" else 2)


@pytest.mark.parametrize("size, shape", [(None, (2, 1, 3)), (8, (16, 8, 3))])
def test_an_orientation_after_the_pixels_of_a_png(size, shape):
    late = png(8, 2, bytes([255, 0, 0, 0, 0, 255]), after=exif(6).tobytes()[6:])
    assert decode(late, size).shape == shape and decode(late)[:, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


# How many bits

def grey16(path, values, kind):
    "Write 16-bit grey as one of the files that hold it."
    values = np.asarray(values)
    if kind == "12 bits":  # two values in three bytes, which Pillow reads and does not write
        a, b = values[:, ::2] >> 4, values[:, 1::2] >> 4
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8).tobytes()
        tags = {256: values.shape[1], 257: len(values), 258: 12, 259: 1, 262: 1, 273: 200, 277: 1, 278: len(values),
                279: len(data)}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        path.write_bytes((b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + data)
    elif kind == "big-endian":
        Image.frombuffer("I;16B", values.shape[::-1], values.astype(">u2").tobytes(), "raw", "I;16B", 0, 1).save(path)
    else:
        Image.fromarray(values.astype(np.uint16)).save(path)


@pytest.mark.parametrize("name, kind", [("a.png", ""), ("a.tif", ""), ("a.pgm", ""), ("a.tif", "big-endian"),
                                        ("a.tif", "12 bits")])
@pytest.mark.parametrize("top", [1, 255, 256, 4095, 40000, 65535])
def test_the_same_grey_is_the_same_in_every_file_of_16_bits(tmp_path, name, kind, top):
    values = np.linspace(0, top, 64).astype(int).reshape(8, 8)
    grey16(tmp_path / name, values, kind)
    assert (decode(tmp_path / name)[..., 0] == values >> 8).all()


@pytest.mark.parametrize("values, expected",
                         [([0, 0.25, 0.5, 1], [0, 64, 128, 255]), ([0, 0.001, 0.002, 0.003], [0, 0, 1, 1]),
                                              ([-0.1, 0.5, 1.0, 1.2], [0, 128, 255, 255]),
                                              ([np.nan, 0.5, 1, np.nan], [0, 128, 255, 0]),
                                              ([0, 0, 0, 0], [0] * 4), ([np.nan] * 4, [0] * 4)])
def test_fractions_count_from_0_to_1(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_a_picture_of_8_bits_comes_back_from_its_fractions(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.float32).reshape(16, 16) / 255).save(tmp_path / "a.tif")
    assert (decode(tmp_path / "a.tif")[..., 0].ravel() == np.arange(256)).all()


@pytest.mark.parametrize("values, says",
                         [(np.float32([0, 255]), "32-bit fractions from 0 to 255, of which only 0 to 1"),
                          (np.float32([-1, 1]), "from -1 to 1"),
                                          (np.float32([0, np.inf]), "from 0 to inf"),
                                          (np.int32([0, 65535]), "32-bit whole numbers from 0 to 65535, of which only "
                                                                 "0 to 255"),
                                          (np.int32([-5, 20]), "from -5 to 20")])
def test_a_scale_that_nobody_wrote_down_is_said(tmp_path, ws, values, says):
    for c in "ab":
        (tmp_path / "own" / c).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), "red").save(tmp_path / "own" / c / f"{i}.png")
    Image.fromarray(values[None]).save(tmp_path / "own" / "a" / "deep.tif")
    with pytest.raises(CourseError, match=says):
        decode(tmp_path / "own" / "a" / "deep.tif")
    with pytest.warns(UserWarning, match=f"1 of 7 files .* left out: a/deep.tif. The picture holds .*{says}"):
        assert len(image_folder(tmp_path / "own", ws, size=8).images) == 6
    assert says in audit(tmp_path / "own").trouble["a/deep.tif"]
    for path in (tmp_path / "own").glob("*/*.png"):
        shutil.copy(tmp_path / "own" / "a" / "deep.tif", path)
    with pytest.raises(CourseError, match=f"None of the 7 files .*: The picture holds .*{says}"):
        image_folder(tmp_path / "own", ws, size=8)


@pytest.mark.parametrize("depth, kind, row, transparent, expected", [
    (16, 0, struct.pack(">3H", 0, 20000, 20001), struct.pack(">H", 20000), [0, 255, 78]),
    (16, 0, struct.pack(">3H", 0, 300, 65535), struct.pack(">H", 0), [255, 1, 255]),
    (2, 0, bytes([0b00011011]), struct.pack(">H", 1), [0, 255, 170, 255]),
    (4, 0, bytes([0x05, 0xAF]), struct.pack(">H", 5), [0, 255, 170, 255]),
    (8, 0, bytes([0, 85, 170]), struct.pack(">H", 85), [0, 255, 170]),
    (1, 0, bytes([0b00110000]), struct.pack(">H", 0), [255] * 8),
    (16, 2, struct.pack(">6H", 60000, 5, 5, 1000, 2000, 3000), struct.pack(">3H", 60000, 5, 5), [255, 3])])
def test_a_transparent_grey_is_white_at_every_depth(depth, kind, row, transparent, expected):
    assert decode(png(depth, kind, row, transparent))[0, :, 0].tolist() == expected
    assert decode(png(depth, kind, row, transparent), 8).shape[2] == 3


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


# The cache of pixels

def made(folder, color, stamp=1_600_000_000):
    "Three files whose names, sizes and dates are the same for every color."
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        Image.new("RGB", (8, 8), color).save(folder / f"{i}.bmp")
        os.utime(folder / f"{i}.bmp", (stamp, stamp))
    return folder


def first_pixel(folder, local):
    return read_images(folder, ["0.bmp", "1.bmp", "2.bmp"], None, local)[0][0][0, 0].tolist()


def test_two_folders_with_the_same_names_sizes_and_dates(tmp_path, monkeypatch):
    a, b = made(tmp_path / "a" / "set", "red"), made(tmp_path / "b" / "set", "blue")
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0] and first_pixel(b, tmp_path / "cache") == [0, 0, 255]
    monkeypatch.setattr(images, "_decode_all", lambda *a: pytest.fail("decoded again"))
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0] and first_pixel(b, tmp_path / "cache") == [0, 0, 255]


@pytest.mark.parametrize("swap", [lambda a, b: (shutil.rmtree(a), made(a, "blue")),  # made anew in its place
                                  # copied over with their dates
                                  lambda a, b: [shutil.copy2(p, a / p.name) for p in b.iterdir()],
                                  lambda a, b: (a.rename(a.with_name("old")), b.rename(a))])
def test_other_files_in_the_place_of_the_first(tmp_path, swap):
    a, b = made(tmp_path / "a", "red"), made(tmp_path / "b", "blue")
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0]
    swap(a, b)
    assert first_pixel(a, tmp_path / "cache") == [0, 0, 255]


def test_inodes_that_change_cost_nothing(tmp_path, monkeypatch):
    "As where Drive is mounted anew."
    a, stat = made(tmp_path / "a", "red"), os.stat
    first_pixel(a, tmp_path / "cache")
    monkeypatch.setattr(images, "_decode_all", lambda *a: pytest.fail("decoded again"))
    for inode in 0, 77:
        def other(path, *args, inode=inode, **kwargs):
            s = stat(path, *args, **kwargs)
            fields = {k: getattr(s, k) for k in dir(s) if k.startswith("st_")}
            return SimpleNamespace(**fields | {"st_ino": inode}) if str(path).endswith(".bmp") else s
        with monkeypatch.context() as m:
            m.setattr(os, "stat", other)
            assert first_pixel(a, tmp_path / "cache") == [255, 0, 0]


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


@pytest.mark.parametrize("name, part", [("Training", "train"), ("train+val", "train"), ("testing", "test"),
                                        ("VALID", "valid"), ("train_test_split", None), ("attrain", None),
                                        ("cats", None), ("", None)])
def test_the_part_that_a_name_speaks_of(name, part):
    assert part_of(name) == part


def test_a_validation_part_of_the_authors_is_kept_and_the_rest_divided():
    labels, chosen = np.repeat([0, 1], 20), np.array([3, 1, 25])
    train, valid, test = make_split(labels, valid=chosen, test=0.2)
    assert valid.tolist() == [1, 3, 25] and not set(valid) & set(test) and np.bincount(labels[test]).tolist() == [4, 4]
    assert sorted([*train, *valid, *test]) == list(range(40))


# Names and links

def test_what_systems_leave_is_no_picture(tmp_path, ws):
    root = folder_of(tmp_path / "own", cat=4, dog=4)
    for name in "cat/Thumbs.db", "dog/desktop.ini", "dog/.DS_Store", "dog/._0.png", "cat/ehthumbs.db", "cat/Icon\r", \
        "Thumbs.db", "@eaDir/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/0.png":
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = image_folder(root, ws, 8)
    assert len(splits.images) == 8 and splits.classes == ["cat", "dog"]
    assert len(audit(root)) == 8 and not audit(root).trouble.str.contains("read").any()


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


def test_links_that_lead_back(tmp_path, ws):
    root = folder_of(tmp_path / "own", cat=4, dog=4)
    more = folder_of(tmp_path / "more", emu=4)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "cat" / "up").symlink_to(root)  # through it, dogs would be cats
    (root / "top").symlink_to(root)
    (root / "dog" / "twin").symlink_to(root / "cat" / "inner")
    (root / "cat" / "inner").mkdir()
    (root / "cat" / "inner" / "twin").symlink_to(root / "dog")
    (root / "nothing").symlink_to(tmp_path / "absent")
    (root / "emu").symlink_to(more / "emu")  # a link to elsewhere is a folder like any
    splits = image_folder(root, ws, 8)
    assert splits.classes == ["cat", "dog", "emu"]
    assert [f for f in splits.files if f.startswith("emu")] == [f"emu/{i}.png" for i in range(4)]
    assert {f for f in splits.files if f.startswith("dog")} == {f"dog/{i}.png" for i in range(4)}
    assert len(files_below(tmp_path / "own" / "dog")) < 20


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
    said = "sides of" in capsys.readouterr().out
    assert said == (side is None and len({min(s) for s in shapes}) > 1)
    assert center_crop_all(cut) is cut and center_crop_all(cut, expected) is cut and not capsys.readouterr().out


def test_squares_of_one_shape(tmp_path, ws):
    splits = image_folder(folder_of(tmp_path / "own", a=3, b=3), ws, 8)
    wide = replace(splits, images=np.tile(np.arange(12, dtype=np.uint8)[None, None, :, None], (6, 8, 1, 3)))
    assert center_crop_all(wide).images[0, 0, :, 0].tolist() == list(range(2, 10))
    with pytest.raises(CourseError, match="The size is 0: a whole number of pixels"):
        center_crop_all(splits, 0)


# A cache that a class shares

AS_USER = """
import os, sys, tempfile
from coursekit import images
from coursekit.datasets import cifar10
from coursekit.splits import image_folder
from coursekit.files import CourseError, tidy
from coursekit.workspace import setup
user, umask, root, cache, home = sys.argv[1:]
def settle(cache, runs):
    os.environ.update(COURSEKIT_CACHE=cache, COURSEKIT_RUNS=runs)
with tempfile.TemporaryDirectory() as room:  # what is imported late may be closed to the user
    settle(room, room)
    cifar10(setup("tiny")), image_folder(root, setup("tiny"), size=8)
os.umask(int(umask, 8))
os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
"""

SHARE = AS_USER + """
settle(cache, home + "/runs")
decoded, decode_all = [], images._decode_all
images._decode_all = lambda *a: decoded.append(1) or decode_all(*a)
ws = setup("tiny")
cifar10(ws)
splits = image_folder(root, ws, size=8)
print(len(decoded), ws.local.name, splits.images[0][0, 0].tolist(), flush=True)
"""

HOMELESS = AS_USER + """
for name in "HOME", "COURSEKIT_CACHE", "COURSEKIT_RUNS", "XDG_CACHE_HOME", "XDG_DATA_HOME":
    os.environ.pop(name, None)
os.chdir(home)
try:
    print(setup("tiny"))
except CourseError as e:
    print("SENTENCE", e)
print(tidy("/a/b"), os.listdir(home))
settle(cache, home + "/runs")
try:
    print(ws := setup("tiny"))
    image_folder("~/pictures", ws)
except CourseError as e:
    print("SENTENCE", e)
"""


@pytest.mark.slow
@pytest.mark.parametrize("umask, owner, expected", [("022", 0, [2, 1]), ("077", 0, [2, 2]), ("022", 4001, [2, 1])])
def test_several_users_of_one_cache(users, umask, owner, expected):
    """Each decodes the stand-in, which is each user's own; the pictures are decoded once where the umask lets others
    read."""
    as_user, cache = users
    os.chown(cache, owner, -1)
    got = [as_user(SHARE, user, umask).split(" ", 2) for user in (4001, 4002)]
    assert [int(n) for n, _, _ in got] == expected and len({pixel for _, _, pixel in got}) == 1
    assert [name for _, name, _ in got] == ["cache" if owner == 4001 else "user-4001", "user-4002"]
    assert {p.stat().st_uid for p in cache.glob("user-4002/**/*")} == {4002}


def test_what_a_killed_user_left_is_not_in_the_way(users):
    "Folders and files of the first, closed, in each place that the second needs."
    as_user, cache = users
    os.chown(cache, 4001, -1)
    for name in "arrays", "stand-ins", "data", "unpacked", "fits":
        (cache / name).mkdir(mode=0o700)
        (cache / name / ".half.part").touch(mode=0o600)
        os.chown(cache / name, 4001, 4001)
    assert as_user(SHARE, 4002).startswith("2 user-4002")


@pytest.mark.slow
def test_a_user_without_home_or_name(users):
    as_user, cache = users
    said = as_user(HOMELESS, 4321).splitlines()
    assert said[0].startswith("SENTENCE This user has no home folder: set HOME, or COURSEKIT_RUNS and COURSEKIT_CACHE")
    assert said[1] == "/a/b []"
    assert f"local  {cache}/user-4321" in said and "pictures is no folder" in said[-1]
