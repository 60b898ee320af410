"Loaders, splits and stand-ins, and what they say of bad data."
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from coursekit import images
from coursekit.data import class_counts
from coursekit.datasets import CIFAR10, cifar10, pets
from coursekit.files import CourseError
from coursekit.images import decode
from coursekit.plots import contact_sheet
from coursekit.splits import image_folder, image_table, make_split
from coursekit.stand_ins import PETS, draw_pet
from coursekit.workspace import setup, sources

pytestmark = pytest.mark.filterwarnings("ignore:.*CIFAR-10 has 60,000 images")  # the sets made here are small


@pytest.fixture
def real(tmp_path):
    "A small CIFAR-10 in the public folder layout, as a user's own data folder, and a workspace on it."
    rng = np.random.default_rng(0)
    for part, n in ("train", 10), ("test", 2):
        for c in CIFAR10:
            folder = tmp_path / "mine" / "cifar10" / part / c
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{c}_{i}.png")
    return setup("quick", data=tmp_path / "mine")


# What a picture file may be

@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.full((6, 4), 40000, np.uint16)) if mode == "I;16" \
        else Image.new("RGB", (4, 6), "white").convert(mode)
    image.save(path)
    pixels = decode(path)
    assert pixels.shape == (6, 4, 3) and pixels.dtype == np.uint8
    assert abs(int(pixels[0, 0, 0]) - (40000 >> 8 if mode == "I;16" else 255)) <= 1


def test_transparent_palette_is_laid_on_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert (decode(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("name, values, expected", [("a.pgm", np.full((2, 2), 40000, np.uint16), 156),
                                                    ("a.tiff", np.full((2, 2), 0.5, np.float32), 128),
                                                    ("b.tiff", np.full((2, 2), 200, np.int32), 200)])
def test_grey_images_of_more_than_8_bits(tmp_path, name, values, expected):
    Image.fromarray(values).save(tmp_path / name)
    assert (decode(tmp_path / name) == expected).all()


def test_a_disk_error_is_not_kept_as_a_broken_file(real, monkeypatch):
    def broken(*args):
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(images, "decode", broken)
    with pytest.raises(CourseError, match="can't be read .Input/output error.: try again"):
        images._decode_chunk(real.data / "cifar10", ["train/cat/cat_0.png"], None)


def test_a_phone_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (8, 4, 3) and decode(tmp_path / "a.jpg", size=2).shape == (4, 2, 3)


def test_the_shortest_side_is_scaled(tmp_path):
    Image.new("RGB", (300, 201)).save(tmp_path / "a.jpg")
    assert decode(tmp_path / "a.jpg", size=50).shape == (50, 75, 3)


# CIFAR-10

def test_folder_layout(real):
    splits = cifar10(real)
    assert splits.images.shape == (120, 32, 32, 3) and splits.images.dtype == np.uint8 and splits.classes == CIFAR10
    assert (class_counts(splits)[["train", "valid", "test"]] == [9, 1, 2]).all().all()
    i = splits.files.index("train/ship/ship_3.png")
    assert (splits.images[i] == np.asarray(Image.open(real.data / "cifar10" / "train/ship/ship_3.png"))).all()
    assert splits.labels[i] == CIFAR10.index("ship") and not splits.stand_in


def as_batches(folder, out):
    "Write a folder layout as the author's pickled batches."
    out.mkdir()
    rows = {"train": [], "test": []}
    for path in sorted(folder.rglob("*.png")):
        rows[path.parts[-3]].append((path.name.encode(), CIFAR10.index(path.parts[-2]),
                                     np.asarray(Image.open(path)).transpose(2, 0, 1).ravel()))
    np.random.default_rng(1).shuffle(rows["train"])
    for i in range(5):
        dump(rows["train"][i::5], out / f"data_batch_{i + 1}")
    dump(rows["test"], out / "test_batch")


def dump(rows, path):
    names, labels, pixels = zip(*rows)
    path.write_bytes(pickle.dumps({b"filenames": list(names), b"labels": [int(n) for n in labels],
                                   b"data": np.stack(pixels).astype(np.uint8)}, protocol=2))


def test_batches_give_the_same_as_the_folders(real, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "batches"
    other.mkdir()
    as_batches(real.data / "cifar10", other / "cifar-10-batches-py")
    ws = setup("quick", data=other)
    a, b = cifar10(real), cifar10(ws)
    assert a.fingerprint == b.fingerprint and (a.images == b.images).all() and (a.valid == b.valid).all()
    assert cifar10(ws).fingerprint == a.fingerprint


@pytest.mark.parametrize("harm", [lambda p: dump([(b"a.png", 10, np.zeros(3072))], p),
                                  lambda p: p.write_bytes(pickle.dumps([1])),
                                  lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.unlink(),
                                  lambda p: p.write_bytes(pickle.dumps(os.system))])
def test_a_bad_batch_is_a_sentence(real, tmp_path, monkeypatch, harm):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    as_batches(real.data / "cifar10", tmp_path / "cifar-10-batches-py")
    harm(tmp_path / "cifar-10-batches-py" / "data_batch_3")
    with pytest.raises(CourseError, match="data_batch_3 is not a whole CIFAR-10 batch|lacks data_batch_3"):
        cifar10(setup("quick", data=tmp_path))
    assert not list(tmp_path.glob("cache/unpacked/*"))


def test_a_batch_cannot_write_elsewhere_and_other_batches_are_other_images(real, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    for where in "a", "b":
        (tmp_path / where).mkdir()
        as_batches(real.data / "cifar10", tmp_path / where / "cifar-10-batches-py")
    rows = [(b"../../../../../escaped.png", 0, np.full(3072, 7)), (b"../x.png", 0, np.full(3072, 8)),
            (b"x.png", 0, np.full(3072, 9))]
    dump(rows, tmp_path / "b" / "cifar-10-batches-py" / "test_batch")
    first = cifar10(setup("quick", data=tmp_path / "a"))
    with pytest.raises(CourseError, match="missing or unknown: automobile, bird"):
        cifar10(setup("quick", data=tmp_path / "b"))
    assert not list(tmp_path.rglob("../escaped.png")) \
        and len(list(tmp_path.glob("cache/unpacked/*/test/airplane/*x.png"))) == 2
    assert cifar10(setup("quick", data=tmp_path / "a")).fingerprint == first.fingerprint


def test_a_missing_class_is_named(real):
    shutil.rmtree(real.data / "cifar10" / "train" / "bird")
    with pytest.raises(CourseError, match="missing or unknown: bird"):
        cifar10(real)


def test_an_empty_class_is_named(real):
    for f in (real.data / "cifar10" / "train" / "bird").iterdir():
        f.write_text("not an image")
    for f in (real.data / "cifar10" / "test" / "bird").iterdir():
        f.write_text("not an image")
    with pytest.warns(UserWarning, match="12 of 120 files"), pytest.raises(CourseError,
                                                                           match="no readable image of 1 of its 10 "
                                                                                 "classes .bird."):
        cifar10(real)


def test_a_missing_part_is_named(real):
    shutil.rmtree(real.data / "cifar10" / "test")
    with pytest.raises(CourseError, match="no folder 'test'"):
        cifar10(real)


def test_files_that_are_no_images_are_named_and_counted(real):
    folder = real.data / "cifar10" / "train" / "dog"
    (folder / "dog_1.png").write_text("<html>")
    (folder / "dog_2.png").write_bytes((folder / "dog_3.png").read_bytes()[:200])
    (folder / ".DS_Store").write_text("hidden files are no concern")
    with pytest.warns(UserWarning, match="2 of 120 files .* left out: train/dog/dog_1.png, train/dog/dog_2.png"):
        splits = cifar10(real)
    assert len(splits.images) == 118 and "train/dog/dog_1.png" not in splits.files
    assert splits.labels[splits.files.index("train/dog/dog_3.png")] == CIFAR10.index("dog")
    assert all(splits.files[i].startswith("test/") for i in splits.test) and len(splits.test) == 20
    with pytest.warns(UserWarning, match="2 of 120"):  # from the cache it is said again
        cifar10(real)


def test_no_data_and_no_host_is_a_sentence_at_quick_and_a_stand_in_at_tiny(ws, tmp_path, monkeypatch):
    nowhere = {**sources()["CIFAR-10"],
               "archives": [{**sources()["CIFAR-10"]["archives"][0], "urls": ["http://127.0.0.1:9/a.tar.gz"]}]}
    monkeypatch.setitem(sources(), "CIFAR-10", nowhere)
    with pytest.raises(CourseError, match="could not be fetched: 127.0.0.1:9 fails .* save it as .*. Scale 'tiny' runs "
                                          "on a stand-in."):
        cifar10(setup("quick", data=tmp_path))
    splits = cifar10(ws)
    assert "stand-in" in splits.title and "stand-in" in repr(splits) \
        and "stand-in" in contact_sheet(splits)._suptitle.get_text()


def test_what_is_not_there_is_fetched_at_quick(real, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    as_batches(real.data / "cifar10", tmp_path / "cifar-10-batches-py")
    archive = shutil.make_archive(tmp_path / "a", "gztar", tmp_path, "cifar-10-batches-py")
    about = {"file": "a.tar.gz", "bytes": os.path.getsize(archive),
             "hash": "sha256:" + hashlib.sha256(Path(archive).read_bytes()).hexdigest(),
             "urls": [Path(archive).as_uri()]}
    monkeypatch.setitem(sources(), "CIFAR-10", {**sources()["CIFAR-10"], "archives": [about]})
    (tmp_path / "empty").mkdir()
    splits = cifar10(setup("quick", data=tmp_path / "empty"))
    assert splits.fingerprint == cifar10(real).fingerprint and not splits.stand_in


def test_tiny_takes_a_slice_of_the_real_data_where_it_is(real):
    splits = cifar10(setup("tiny", data=real.data), per_class=5)
    assert (class_counts(splits).total == 6).all() and not splits.stand_in


# The cache, and the file that fixes the split

def test_decoded_once_and_again_when_a_file_changes(real, monkeypatch):
    first = cifar10(real)
    monkeypatch.setattr(images, "_decode_all", lambda *a: pytest.fail("decoded again"))
    assert cifar10(real).fingerprint == first.fingerprint
    monkeypatch.undo()
    path = real.data / "cifar10" / "test" / "cat" / "cat_0.png"
    Image.new("RGB", (32, 32)).save(path)
    assert cifar10(real).fingerprint != first.fingerprint


@pytest.mark.parametrize("harm", [lambda d: (d / "pixels").unlink(), lambda d: (d / "pixels").write_bytes(b"half"),
                                  lambda d: (d / "about.npz").write_bytes(b"PK half"),
                                  lambda d: (d / "about.npz").write_bytes(b"")])
def test_a_harmed_cache_is_made_anew(real, tmp_path, monkeypatch, harm):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    ws = setup("quick", data=real.data)
    first = cifar10(ws)
    harm(next((ws.local / "arrays").iterdir()))
    assert cifar10(ws).fingerprint == first.fingerprint


def test_images_are_mapped_from_disk(real):
    array = cifar10(real).images
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)


def test_a_full_disk_leaves_no_half_cache(real, monkeypatch, tmp_path):
    import errno

    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    ws = setup("quick", data=real.data)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CourseError, match="No space is left"):
        cifar10(ws)
    assert not list((ws.local / "arrays").iterdir())


def called(process):
    "The command of a process; '' for one that has ended."
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_a_killed_kernel_leaves_no_process_and_no_half_cache(tmp_path, monkeypatch):
    "Killed while its processes decode; then read again, right."
    for c in "ab":
        (tmp_path / "own" / c).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (600, 600, 3), np.uint8)).save(tmp_path / "own"
                / c / f"{i}.png")
    code = ("import sys; from coursekit.workspace import setup; from coursekit.data import image_folder; from pathlib "
            "import Path\n"
            "print(image_folder(sys.argv[1], setup('tiny'), size=None), flush=True)")
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    args = [sys.executable, "-c", code, tmp_path / "own"]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL)
    me, tree = psutil.Process(process.pid), []
    while process.poll() is None and len(tree) < 2:
        tree = [p for p in me.children() if "loky" in called(p)]
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert tree and not list(tmp_path.glob("cache/arrays/own*"))
    assert not psutil.wait_procs(tree, timeout=20)[1]
    again = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert "80 images" in again.stdout, again.stderr


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


def test_other_shares_are_another_split(real):
    root = real.data / "cifar10" / "train"
    first, second = image_folder(root, real, test=0.2), image_folder(root, real, test=0.5)
    assert len(first.test) == 20 and len(second.test) == 50
    assert (image_folder(root, real, test=0.2).test == first.test).all()


def test_an_incomplete_cifar10_is_said(real):
    with pytest.warns(UserWarning, match="holds 120 files that can be read and CIFAR-10 has 60,000 images"):
        cifar10(real)


# Pets

@pytest.fixture
def drawn(ws, tmp_path):
    "A copy of the drawn pets as a user's own data, to be harmed."
    pets(ws, size=32)
    shutil.copytree(ws.local / "stand-ins" / "oxford-iiit-pet", tmp_path / "mine" / "oxford-iiit-pet",
                    ignore=shutil.ignore_patterns(".stand-in"))
    return setup("quick", data=tmp_path / "mine")


def test_pets_keep_their_aspect(drawn):
    splits = pets(drawn, size=40)
    assert {min(im.shape[:2]) for im in splits.images} == {40} and len({im.shape for im in splits.images}) > 3
    assert len(splits.classes) == 37 and splits.classes[0] == "Abyssinian" and not splits.stand_in
    assert len(splits.test) == 37 * 3 and all("_3." in splits.files[i] or "_6." in splits.files[i]
                                              or "_9." in splits.files[i] for i in splits.test)


def test_species(drawn):
    splits = pets(drawn, size=32, target="species")
    assert splits.classes == ["cat", "dog"]
    assert all((splits.labels[i] == 0) == f.split("/")[1][0].isupper() for i, f in enumerate(splits.files))
    with pytest.raises(CourseError, match="'breed' .* or 'species'"):
        pets(drawn, target="color")


@pytest.mark.parametrize("line", ["Abyssinian_1 one 1 1", "Abyssinian_1", "Abyssinian_1 38 1 1", "Abyssinian_1 1 3 1"])
def test_an_annotation_line_that_does_not_parse(drawn, line):
    path = drawn.data / "oxford-iiit-pet" / "annotations" / "trainval.txt"
    path.write_text("# a comment\n" + line + "\n" + path.read_text())
    with pytest.raises(CourseError, match="trainval.txt, line 2: '" + line):
        pets(drawn)


def test_missing_pets_are_named_and_counted(drawn):
    for name in "Bengal_1", "pug_2":
        (drawn.data / "oxford-iiit-pet" / "images" / f"{name}.jpg").unlink()
    with pytest.raises(CourseError, match="2 of the 333 images .*images/Bengal_1.jpg, images/pug_2.jpg"):
        pets(drawn)


def test_an_image_in_both_lists(drawn):
    folder = drawn.data / "oxford-iiit-pet" / "annotations"
    (folder / "test.txt").write_text((folder / "test.txt").read_text() + "Bengal_1 6 1 1\n")
    with pytest.raises(CourseError, match="1 images are listed twice .* the first 'images/Bengal_1.jpg'"):
        pets(drawn)


def test_the_split_is_the_same_at_every_size(drawn):
    small, large = pets(drawn, size=32), pets(drawn, size=48)
    assert (small.valid == large.valid).all() and small.fingerprint != large.fingerprint


def test_a_missing_breed_and_a_missing_list(drawn):
    folder = drawn.data / "oxford-iiit-pet" / "annotations"
    for part in "trainval", "test":
        lines = (folder / f"{part}.txt").read_text().splitlines()
        (folder / f"{part}.txt").write_text("\n".join(line for line in lines if not line.startswith("Bengal")))
    with pytest.raises(CourseError, match="36 of 37 breeds; missing: 6"):
        pets(drawn)
    (folder / "test.txt").unlink()
    with pytest.raises(CourseError, match="test.txt is missing"):
        pets(drawn)


def test_content_decides_and_not_the_name(drawn):
    path = drawn.data / "oxford-iiit-pet" / "images" / "Bengal_1.jpg"
    Image.open(path).convert("RGBA").save(path, "png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = pets(drawn, size=32)
    assert splits.images[splits.files.index("images/Bengal_1.jpg")].shape[2] == 3


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


def test_folders_in_a_class_are_read_too(real):
    inside = real.data / "cifar10" / "train" / "bird" / "more"
    inside.mkdir()
    Image.new("RGB", (32, 32)).save(inside / "b.png")
    splits = image_folder(real.data / "cifar10" / "train", real)
    assert splits.labels[splits.files.index("bird/more/b.png")] == CIFAR10.index("bird")


def test_a_relative_folder_is_the_one_of_now(real, tmp_path, monkeypatch):
    "The decoding processes outlive a change of folder; they must not read the old one's files."
    for where, color in ("here", "red"), ("there", "blue"):
        for c in "ab":
            (tmp_path / where / "own" / c).mkdir(parents=True)
            for i in range(40):
                Image.new("RGB", (8, 8), color).save(tmp_path / where / "own" / c / f"{i}.png")
    for where, pixel in ("here", [255, 0, 0]), ("there", [0, 0, 255]):
        monkeypatch.chdir(tmp_path / where)
        assert image_folder("own", real, size=None).images[0][0, 0].tolist() == pixel


def test_a_folder_without_images(tmp_path, ws):
    for c in "ab":
        (tmp_path / "own" / c).mkdir(parents=True)
        (tmp_path / "own" / c / "x.txt").write_text("text")
    with pytest.raises(CourseError, match="None of the 2 files in .*own is an image that can be read"):
        image_folder(tmp_path / "own", ws)


# Stand-ins can be learned from, better than by chance

def features(splits, idx, side=16):
    return np.stack([np.asarray(Image.fromarray(np.asarray(splits.images[i])).resize((side, side))).ravel()
                     for i in idx]) / 255


@pytest.mark.parametrize("load, at_least", [(lambda ws: cifar10(ws), 0.5), (lambda ws: pets(ws, 64, "species"), 0.8),
                                            (lambda ws: pets(ws, 64), 5 / 37)])
def test_stand_ins_can_be_learned(ws, load, at_least):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    splits = load(ws)
    idx = np.concatenate([splits.train, splits.valid])
    gray = splits.name == "CIFAR-10"  # the digits' colors mean nothing: their contrast does
    x, t = features(splits, idx), features(splits, splits.test)
    if gray:
        x, t = (np.abs(a.reshape(len(a), -1, 3) - np.median(a.reshape(len(a), -1, 3), 1, keepdims=True)).sum(2)
                for a in (x, t))
    model = make_pipeline(PCA(40, random_state=0), LogisticRegression(max_iter=2000)).fit(x, splits.labels[idx])
    assert model.score(t, splits.labels[splits.test]) > at_least


def test_breeds_are_drawn_differently_and_pictures_are_not_alike():
    same_pose = [np.asarray(draw_pet(b, np.random.default_rng(5)).resize((64, 64))).tobytes() for b in range(37)]
    assert len(set(same_pose)) == 37 and len(PETS) == 37 and sum(p[0].isupper() for p in PETS) == 12
    one, two = (draw_pet(3, np.random.default_rng(s)) for s in (1, 2))
    assert one.size != two.size or (np.asarray(one) != np.asarray(two)).any()
