"""Each dataset in the layout that its authors give it, made here with few and small images; what is said of a broken
one; and a cache that several users share."""
import csv
import hashlib
import json
import os
import pickle
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import AS_USER, nifti
from PIL import Image

from coursekit.data import class_counts
from coursekit.datasets import (
    CIFAR10,
    HIPPOCAMPUS,
    IMAGENETTE,
    cifar10,
    cifar100,
    dataset_folder,
    hippocampus,
    imagenette,
    omniglot,
    pets,
)
from coursekit.files import CourseError, files_below
from coursekit.plots import contact_sheet
from coursekit.workspace import setup, sources

pytestmark = pytest.mark.filterwarnings("ignore:.*unpack it again before you compare")  # the sets made here are small

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


def test_an_incomplete_cifar10_is_said(real):
    with pytest.warns(UserWarning, match="holds 120 files that can be read and CIFAR-10 has 60,000 images"):
        cifar10(real)


def test_what_another_version_drew_is_not_taken_for_this_ones(ws, tmp_path, monkeypatch):
    first = dataset_folder(ws, "Omniglot")
    assert dataset_folder(ws, "Omniglot") == first
    (tmp_path / "stand_ins.py").write_text("of another version")
    monkeypatch.setattr("coursekit.stand_ins.__file__", str(tmp_path / "stand_ins.py"))
    assert dataset_folder(ws, "Omniglot") != first


# Pets

@pytest.fixture
def drawn(ws, tmp_path):
    "A copy of the drawn pets as a user's own data, to be harmed."
    pets(ws, size=32)
    shutil.copytree(next((ws.local / "stand-ins").glob("oxford-iiit-pet-*")), tmp_path / "mine" / "oxford-iiit-pet",
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


FINE, COARSE = [f"class_{i:02d}" for i in range(100)], [f"group_{i:02d}" for i in range(20)]


def offer(monkeypatch, name, *archives):
    "Let `fetch` find a dataset's archives where they were made, and put them into a cache of their own."
    monkeypatch.setenv("COURSEKIT_CACHE", str(archives[0].parent / "cache"))
    entries = [{"file": a.name, "bytes": a.stat().st_size,
                "hash": f"sha256:{hashlib.sha256(a.read_bytes()).hexdigest()}", "urls": [a.as_uri()]} for a in archives]
    monkeypatch.setitem(sources(), name, {**sources()[name], "archives": entries})


def packed(folder, archive):
    "A folder as a tar file."
    with tarfile.open(archive, "w:gz" if archive.suffix != ".tar" else "w") as t:
        t.add(folder, folder.name)
    return archive


def picture(path, rng, shape=(20, 24, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)


# CIFAR-100

@pytest.fixture
def hundred(tmp_path):
    """CIFAR-100 as its author packs it, with two training images and a test image of each class; every pixel of an
    image is its class."""
    root = tmp_path / "made" / "cifar-100-python"
    root.mkdir(parents=True)
    dump = lambda name, things: (root / name).write_bytes(pickle.dumps(things, protocol=2))
    dump("meta", {b"fine_label_names": [c.encode() for c in FINE], b"coarse_label_names": [g.encode() for g in COARSE]})
    for part, n in ("train", 3), ("test", 1):
        fine = np.repeat(np.random.default_rng(n).permutation(100), n)
        dump(part, {b"filenames": [f"{part}_{i:05d}.png".encode() for i in range(len(fine))], b"batch_label": b"x",
                    b"fine_labels": fine.tolist(),
                    b"coarse_labels": (fine % 20).tolist(), b"data": np.repeat(fine.astype(np.uint8)[:, None], 3072,
                        1)})
    return root


def test_cifar100_as_its_author_packs_it(hundred, tmp_path, monkeypatch):
    offer(monkeypatch, "CIFAR-100", packed(hundred, tmp_path / "cifar-100-python.tar.gz"))
    ws = setup("quick", data=tmp_path / "data")
    fine, coarse = cifar100(ws), cifar100(ws, coarse=True)
    assert fine.classes == FINE and coarse.classes == COARSE and fine.images.shape == (400, 32, 32, 3)
    assert (fine.images[:, 5, 5, 1] == fine.labels).all() and (coarse.images[:, 5, 5, 1] % 20 == coarse.labels).all()
    assert [len(p) for p in (fine.train, fine.valid, fine.test)] == [200, 100, 100] \
        and all(fine.files[i].startswith("test/") for i in fine.test)
    assert fine.title == "CIFAR-100 (400 of 60,000 images)" and fine.files[0].startswith("train/group_00/class_00/")
    assert len(cifar100(ws, per_class=2).images) == 300


@pytest.mark.parametrize("harm, says", [(lambda r: (r / "meta").unlink(), "meta has no names of classes"),
                                        (lambda r: (r / "meta").write_bytes(pickle.dumps(print)), "meta has no names"),
                                        (lambda r: (r / "test").unlink(), "lacks test"),
                                        (lambda r: (r / "train").write_bytes(b"half"), "train is not a whole CIFAR-100 "
                                                                                       "batch")])
def test_a_broken_cifar100_is_a_sentence(hundred, monkeypatch, tmp_path, harm, says):
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "cache"))
    harm(hundred)
    with pytest.raises(CourseError, match=says):
        cifar100(setup("quick", data=hundred.parent))


def test_a_cifar100_with_a_class_too_few(tmp_path):
    for part in "train", "test":
        for c in range(99):
            picture(tmp_path / "mine" / "cifar100" / part / COARSE[c % 20] / FINE[c] / "1.png",
                    np.random.default_rng(c), (32, 32, 3))
    with pytest.raises(CourseError, match="holds 99 classes in 20 groups"):
        cifar100(setup("quick", data=tmp_path / "mine"))


# Imagenette

@pytest.fixture
def nette(tmp_path):
    """Imagenette's folders, with eight training images and two others of each class, and its table; at 50 % half of
    the labels are the next class."""
    root, rng, rows = tmp_path / "made" / "imagenette2-160", np.random.default_rng(0), []
    for part, n in ("train", 8), ("val", 2):
        for k, c in enumerate(IMAGENETTE):
            for i in range(n):
                file = f"{part}/{c}/{c}_{i}.JPEG"
                picture(root / file, rng)
                rows.append([file, *[c] * 4, list(IMAGENETTE)[(k + (part == "train" and i % 2)) % 10], part == "val"])
    with open(root / "noisy_imagenette.csv", "w") as f:
        csv.writer(f).writerows([["path", *(f"noisy_labels_{p}" for p in (0, 1, 5, 25, 50)), "is_valid"], *rows])
    return root


def test_imagenette_as_its_authors_pack_it(nette, tmp_path, monkeypatch):
    offer(monkeypatch, "Imagenette", packed(nette, tmp_path / "imagenette2-160.tgz"))
    ws = setup("quick", data=tmp_path / "data")
    clean, noisy = imagenette(ws, size=16), imagenette(ws, size=16, noisy=50)
    assert clean.classes == list(IMAGENETTE.values()) and min(clean.images[0].shape[:2]) == 16
    assert all(("val/" in clean.files[i]) == (i in clean.test) for i in range(clean.n)) and len(clean.test) == 20 \
        and len(clean.valid) == 10
    assert clean.labels[clean.files.index("train/n03000684/n03000684_3.JPEG")] == clean.classes.index("chain saw")
    assert all((getattr(noisy, p) == getattr(clean, p)).all() for p in clean.parts) \
        and (noisy.labels[noisy.test] == clean.labels[clean.test]).all()
    expected = [(clean.labels[i] + int(clean.files[i][-6]) % 2) % 10 for i in [*clean.train, *clean.valid]]
    assert noisy.labels[[*clean.train, *clean.valid]].tolist() == expected and noisy.labels.dtype == np.int64
    assert noisy.fingerprint != clean.fingerprint and noisy.title == ("Imagenette with 50 % wrong labels (100 of "
                                                                      "13,394 images)")


def test_imagenettes_words_are_torchvisions():
    from torchvision.datasets import Imagenette

    assert {c: names[0] for c, names in Imagenette._WNID_TO_CLASS.items()} == IMAGENETTE


@pytest.mark.parametrize("harm, kwargs, says", [
    (lambda r: None, {"noisy": 10}, "noisy is 10: 0, 1, 5, 25 or 50 is expected"),
    (lambda r: (r / "noisy_imagenette.csv").unlink(), {"noisy": 5}, "noisy_imagenette.csv has no wrong labels to read"),
    (lambda r: (r / "noisy_imagenette.csv").write_text("path,is_valid\na,b\n"), {"noisy": 5},
     "columns path and noisy_labels_5"),
    (lambda r: (r / "noisy_imagenette.csv").write_text("path,noisy_labels_5\na,b\n"), {"noisy": 5},
     "names no class for 80 of 100 images"),
    (lambda r: (r / "val").rename(r / "test"), {}, "has no folder 'val'"),
    (lambda r: (r / "val" / "n01440764").rename(r / "val" / "tench"), {}, "should have the folders of 10 classes; "
                                                                          "missing or unknown: n01440764, tench")])
def test_a_broken_imagenette_is_a_sentence(nette, harm, kwargs, says):
    harm(nette)
    with pytest.raises(CourseError, match=says):
        imagenette(setup("quick", data=nette.parent), size=16, **kwargs)


# Omniglot

@pytest.fixture
def characters(tmp_path):
    "Omniglot's two archives: 10 and 3 alphabets of 2 characters, each drawn by 4 people."
    rng, archives = np.random.default_rng(0), []
    for part, alphabets in ("images_background", 10), ("images_evaluation", 3):
        for a in range(alphabets):
            for c in 1, 2:
                for i in range(4):
                    path = tmp_path / "made" / part / f"{part[7]}_{a}" / f"character{c:02d}" \
                        / f"{100 * a + c:04d}_{i + 1:02d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 2, (105, 105), np.uint8) * 255).convert("1").save(path)
        archives.append(tmp_path / f"omniglot-{part}.zip")
        with zipfile.ZipFile(archives[-1], "w") as z:
            for file in files_below(tmp_path / "made" / part):
                z.write(tmp_path / "made" / part / file, f"{part}/{file}")
    return archives


def test_omniglot_as_its_authors_pack_it(characters, tmp_path, monkeypatch):
    offer(monkeypatch, "Omniglot", *characters)
    splits = omniglot(setup("quick", data=tmp_path / "data"))
    assert splits.images.shape == (104, 28, 28, 3) and (splits.images[..., 0] == splits.images[..., 2]).all() \
        and splits.title == "Omniglot (104 of 32,460 images)"
    assert len(splits.classes) == 26 and splits.classes[:3] == ["b_0/character01", "b_0/character02", "b_1/character01"]
    classes = [set(splits.labels[getattr(splits, part)]) for part in splits.parts]
    assert [len(c) for c in classes] == [16, 4, 6] and len(set.union(*classes)) == 26, ("each part has characters of "
                                                                                        "its own")
    assert {splits.files[i].split("/")[0] for i in splits.test} == {"images_evaluation"} \
        and classes[2] == set(range(20, 26))
    assert all("/".join(splits.files[i].split("/")[1:3]) == splits.classes[splits.labels[i]] for i in range(splits.n))
    alphabets = [{splits.classes[c].split("/")[0] for c in part} for part in classes]
    assert not alphabets[0] & alphabets[1]


def test_an_omniglot_with_one_archive(characters, tmp_path):
    with zipfile.ZipFile(characters[0]) as z:
        z.extractall(tmp_path / "mine" / "omniglot")
    with pytest.raises(CourseError, match="has no folder 'images_evaluation'"):
        omniglot(setup("quick", data=tmp_path / "mine"))


# The hippocampus

SHAPES = [(30 + i, 40 + 2 * i, 6 + i % 3) for i in range(9)] + [(70, 20, 5)]


@pytest.fixture
def volumes(tmp_path):
    "The Decathlon's Task04 with ten labeled patients and one without labels, and what a Mac leaves in an archive."
    root, rng = tmp_path / "made" / "Task04_Hippocampus", np.random.default_rng(0)
    listed = []
    for i, shape in enumerate(SHAPES):
        file = f"hippocampus_{3 * i + 1:03d}.nii.gz"
        labels = np.zeros(shape, np.uint8)
        labels[10:14, 5:9, 2:4], labels[10:14, 12:16, 2:4] = 2, 1
        nifti(root / "imagesTr" / file, (labels * 1000.0 * (i + 1) + rng.random(shape)).astype(np.float32), 16)
        nifti(root / "labelsTr" / file, labels, 2)
        (root / "imagesTr" / f"._{file}").write_bytes(b"\0\5\x16\7")
        listed.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    nifti(root / "imagesTs" / "hippocampus_002.nii.gz", np.zeros((30, 40, 6), np.float32), 16)
    about = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "numTraining": 10, "numTest": 1,
             "training": listed, "test": ["./imagesTs/hippocampus_002.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def test_the_hippocampus_as_the_decathlon_packs_it(volumes, tmp_path, monkeypatch):
    offer(monkeypatch, "Medical Decathlon", packed(volumes, tmp_path / "Task04_Hippocampus.tar"))
    ws = setup("quick", data=tmp_path / "data")
    with pytest.warns(UserWarning, match="lists 10 volumes with labels and the set has 260"):
        splits = hippocampus(ws)
    n = sum(shape[2] for shape in SHAPES)
    assert splits.images.shape == (n, 64, 64, 3) and splits.labels.shape == (n, 64, 64) \
        and splits.labels.dtype == np.uint8 and splits.whole == n
    assert splits.classes == HIPPOCAMPUS == ["background", "anterior", "posterior"] and not splits.is_part
    patients = [{splits.files[i].rsplit("/", 1)[0] for i in getattr(splits, p)} for p in splits.parts]
    assert [len(p) for p in patients] == [7, 1, 2] and len(set.union(*patients)) == 10, "no patient is in two parts"
    i = splits.files.index("imagesTr/hippocampus_001.nii.gz/2")
    assert (splits.labels[i] > 0).sum() == 32 and (splits.images[i, ..., 0][splits.labels[i] > 0] > 100).all() \
        and splits.images[i][splits.labels[i] == 0].max() < 5
    front, back = (np.argwhere(splits.labels[i] == c)[:, 0].mean() for c in (1, 2))
    assert front < back, "the front is up"
    few = hippocampus(ws, n_patients=5)
    assert few.n == sum(shape[2] for shape in SHAPES[::2]) \
        and few.title == f"Medical Decathlon, hippocampus ({few.n} of {n} images)"


@pytest.mark.parametrize("harm, says", [
    (lambda r: (r / "dataset.json").unlink(), "dataset.json does not list the volumes"),
    (lambda r: (r / "dataset.json").write_text("{}"), "does not list"),
    (lambda r: (r / "labelsTr" / "hippocampus_004.nii.gz").unlink(),
     "1 of the 20 files that .* lists are not there, the first is './labelsTr/hippocampus_004.nii.gz'"),
    (lambda r: nifti(r / "labelsTr" / "hippocampus_004.nii.gz", np.full(SHAPES[1], 3, np.uint8), 2), "values to 3"),
    (lambda r: nifti(r / "labelsTr" / "hippocampus_004.nii.gz", np.zeros((3, 4, 5), np.uint8), 2),
     r"has the shape \(3, 4, 5\) .* its image \(31, 42, 7\)"),
    (lambda r: (r / "imagesTr" / "hippocampus_004.nii.gz").write_bytes(b"half"), "can't be read as a NIfTI volume")])
def test_a_broken_decathlon_is_a_sentence(volumes, harm, says):
    harm(volumes)
    with pytest.raises(CourseError, match=says):
        hippocampus(setup("quick", data=volumes.parent))


# A cache that a class shares

SHARE = AS_USER + """
settle(cache, home + "/runs")
decoded, decode_all = [], images._decode_all
images._decode_all = lambda *a: decoded.append(1) or decode_all(*a)
ws = setup("tiny")
cifar10(ws)
splits = image_folder(root, ws, size=8)
print(len(decoded), ws.local.name, splits.images[0][0, 0].tolist(), flush=True)
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
