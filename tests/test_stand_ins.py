"What stands in for a dataset: it says so, is the same everywhere, and can be learned better than by chance."
from pathlib import Path

import numpy as np
import pytest
from conftest import folder_of
from PIL import Image

from coursekit.data import patch_features, ridge_classifier
from coursekit.datasets import cifar10, cifar100, dataset_folder, hippocampus, imagenette, omniglot, pets
from coursekit.files import CourseError, files_below
from coursekit.splits import image_folder
from coursekit.stand_ins import PETS, draw_pet
from coursekit.workspace import setup, sources

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
