"""Each dataset in the layout that its authors give it, made here with few and small images; what stands in for it;
and what is said of a broken one."""
import csv
import gzip
import hashlib
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import folder_of
from PIL import Image

from coursekit.data import patch_features, ridge_classifier
from coursekit.datasets import (
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
from coursekit.images import read_nifti, write_nifti
from coursekit.splits import image_folder
from coursekit.workspace import setup, sources

pytestmark = pytest.mark.filterwarnings("ignore:.*unpack it again before you compare")  # the sets made here are small
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


# The hippocampus, and volumes

def nifti(path, voxels, code, order="<", slope=0.0, inter=0.0, offset=352):
    "A NIfTI-1 file as the format's authors describe it, byte by byte."
    header = struct.pack(f"{order}i36x8h14xhh2x8ff", 348, voxels.ndim, *voxels.shape, *[1] * (7 - voxels.ndim), code,
                         8 * voxels.itemsize, *[1.0] * 8, offset)
    header += struct.pack(f"{order}ff", slope, inter)
    header = header.ljust(344, b"\0") + b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(header + bytes(offset - 348) + body)


@pytest.mark.parametrize("kind, code", [("u1", 2), ("i2", 4), ("i4", 8), ("f4", 16), ("f8", 64), ("i1", 256),
                                        ("u2", 512)])
@pytest.mark.parametrize("order, name, offset", [("<", "a.nii.gz", 352), (">", "a.nii.gz", 352), ("<", "a.nii", 400)])
def test_a_volume_of_any_type(tmp_path, kind, code, order, name, offset):
    voxels = np.arange(60).reshape(3, 4, 5).astype(kind)
    nifti(tmp_path / name, voxels, code, order, offset=offset)
    assert (read_nifti(tmp_path / name) == voxels).all()
    nifti(tmp_path / name, voxels, code, order, slope=2.0, inter=-3.0, offset=offset)
    assert (read_nifti(tmp_path / name) == 2 * voxels.astype(float) - 3).all()


def test_a_volume_that_was_written_is_read_and_has_the_same_bytes(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    for name in "a.nii.gz", "b.nii.gz":
        write_nifti(voxels, tmp_path / name)
    assert (read_nifti(tmp_path / "a.nii.gz") == voxels).all()
    data = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert data == gzip.decompress((tmp_path / "b.nii.gz").read_bytes()) and struct.unpack_from("<i", data)[0] == 348 \
        and data[344:348] == b"n+1\0"


@pytest.mark.parametrize("harm", [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"<html>"),
                                  lambda p: p.write_bytes(p.read_bytes()[:-30]), lambda p: p.unlink(),
                                  lambda p: p.write_bytes(gzip.compress(bytes(400))),
                                  lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())[:-8]))])
def test_a_broken_volume_is_a_sentence(tmp_path, harm):
    path = tmp_path / "a.nii.gz"
    write_nifti(np.zeros((3, 4, 5), np.uint8), path)
    harm(path)
    with pytest.raises(CourseError, match="a.nii.gz can't be read as a NIfTI volume .*unpack the archive again"):
        read_nifti(path)


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


# Stand-ins

LOAD = {"CIFAR-10": cifar10, "CIFAR-100": cifar100, "Oxford-IIIT Pet": pets, "Imagenette": imagenette,
        "Omniglot": omniglot, "Medical Decathlon": hippocampus}


@pytest.mark.parametrize("name", LOAD)
def test_a_stand_in_says_so_and_is_the_same_everywhere(name, ws, tmp_path, monkeypatch):
    splits = LOAD[name](ws)
    assert splits.title.startswith(f"stand-in for {name}") and splits.stand_in \
        and all(len(getattr(splits, p)) for p in splits.parts)
    files = [f for f in files_below(dataset_folder(ws, name))]
    assert sum(Path(dataset_folder(ws, name) / f).stat().st_size for f in files) < 8e6
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "another"))
    again = LOAD[name](setup("tiny"))
    assert again.fingerprint == splits.fingerprint and (again.test == splits.test).all()


@pytest.mark.parametrize("name", LOAD)
def test_no_data_and_no_host_is_a_sentence(name, tmp_path, monkeypatch):
    entry = sources()[name]
    monkeypatch.setitem(sources(), name,
                        {**entry, "archives": [{**a, "urls": ["http://127.0.0.1:9/x"]} for a in entry["archives"]]})
    with pytest.raises(CourseError, match="Scale 'tiny' runs on a stand-in."):
        LOAD[name](setup("quick", data=tmp_path / "empty"))


@pytest.mark.parametrize("share", [1, 5, 25, 50])
def test_a_stand_in_has_as_many_wrong_labels_as_it_says(ws, share):
    clean, noisy = imagenette(ws, per_class=(24, 8)), imagenette(ws, noisy=share, per_class=(24, 8))
    labeled = np.concatenate([clean.train, clean.valid])
    assert (clean.labels != noisy.labels)[labeled].sum() == round(share * 240 / 100) \
        and noisy.title == f"stand-in for Imagenette with {share} % wrong labels (drawn shapes)"


@pytest.mark.parametrize("load, at_least", [(cifar100, 0.5), (lambda ws: cifar100(ws, coarse=True), 0.6),
                                            (imagenette, 0.5)], ids=["fine", "coarse", "shapes"])
def test_a_stand_in_can_be_learned(ws, load, at_least):
    splits = load(ws)
    x, idx = patch_features(splits.images), np.concatenate([splits.train, splits.valid])
    assert ridge_classifier().fit(x[idx], splits.labels[idx]).score(x[splits.test],
                                                                    splits.labels[splits.test]) > at_least


def test_pictures_taken_from_a_stand_in_are_still_one(ws, tmp_path):
    folder = dataset_folder(ws, "CIFAR-10")
    own = image_folder(folder / "train", ws, size=None)
    assert own.title == "stand-in for train (scikit-learn's digits)" \
        and not image_folder(folder_of(tmp_path / "mine", cat=4, dog=4), ws, size=8).stand_in
