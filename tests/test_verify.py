"Faces and drawings for verification: each against folders that are made by hand."
import shutil

import numpy as np
import pytest
from scipy.io import savemat

from coursekit.datasets import dataset_folder
from coursekit.files import CourseError
from coursekit.verify import (
    fold_accuracy,
    handwriting,
    has_glasses,
    ink_distance,
    lfw_pairs,
    olivetti,
    published_trials,
)
from coursekit.workspace import setup


@pytest.fixture
def faces(tmp_path):
    "A data folder with a file of faces as the authors' has them: columns of pixels, each picture on its side."
    pictures = np.zeros((400, 64, 64), np.uint8)
    pictures += np.arange(400, dtype=np.uint16).astype(np.uint8)[:, None, None]
    pictures[:, 0, :] = 255  # a bright upper edge
    (tmp_path / "data" / "olivetti").mkdir(parents=True)
    savemat(tmp_path / "data" / "olivetti" / "olivettifaces.mat",
            {"faces": pictures.transpose(0, 2, 1).reshape(400, -1).T})
    return setup("quick", data=tmp_path / "data")


def test_faces_are_upright_and_nobody_is_in_two_parts(faces):
    s = olivetti(faces)
    assert s.images.shape == (400, 64, 64, 3) and not s.stand_in and s.title == "Olivetti faces by person"
    assert (s.images[:, 0] == 255).all() and (s.images[:, 1:, 0] < 255).sum() > 0 and s.images[7, 1, 0, 0] == 7
    assert [len(getattr(s, part)) for part in s.parts] == [200, 100, 100]
    people = [set(s.labels[getattr(s, part)]) for part in s.parts]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]
    assert (s.labels == np.repeat(np.arange(40), 10)).all() and s.files[57] == "05/7"
    small = olivetti(faces, size=32)
    assert small.images.shape == (400, 32, 32, 3)
    assert all(np.array_equal(getattr(small, part), getattr(s, part)) for part in s.parts)


def test_a_split_by_picture_has_everybody_in_every_part(faces):
    s = olivetti(faces, by="picture", size=32)
    counts = [np.bincount(s.labels[getattr(s, part)], minlength=40) for part in s.parts]
    assert [set(c) for c in counts] == [{5}, {2}, {3}]
    with pytest.raises(CourseError, match="'person' or 'picture' is expected"):
        olivetti(faces, by="people")


def test_glasses_are_as_labeled():
    assert has_glasses().sum() == 119 and has_glasses().shape == (400,)
    by_person = has_glasses().reshape(40, 10).sum(1)
    assert (by_person == 10).sum() == 8 and ((by_person > 0) & (by_person < 10)).sum() == 7
    # as R. Garreta and G. Moncecchi list them, first and last of each row of pictures
    listed = [(10, 19), (30, 32), (37, 38), (50, 59), (63, 64), (69, 69), (120, 121), (124, 139), (160, 161),
              (164, 169), (180, 182), (185, 185), (189, 192), (194, 194), (196, 199), (260, 279), (300, 309),
              (330, 339), (358, 369)]
    assert np.flatnonzero(has_glasses()).tolist() == [k for a, b in listed for k in range(a, b + 1)]


def test_without_data_faces_are_drawn_and_say_so(ws):
    s = olivetti(ws)
    assert s.title == "stand-in for Olivetti faces by person (drawn faces)"
    faces = s.images[..., 0].reshape(40, 10, -1).astype(float)
    within, between = faces.std(1).mean(), faces.mean(1).std(0).mean()
    assert between > within, "a person looks like themselves"


def test_faces_that_cannot_be_fetched_are_a_sentence(tmp_path, monkeypatch):
    def offline(**kwargs):
        raise OSError("no network")
    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", offline)
    with pytest.raises(CourseError, match="could not be fetched .no network.: try again later, or save olivettifaces"):
        olivetti(setup("quick", data=tmp_path))


def test_drawings_and_runs_are_read(ws):
    s = handwriting(ws)
    assert s.stand_in and s.images.shape[1:] == (28, 28, 3) and s.images[:, 0, 0].max() == 0, "white ink on black"
    alphabet = lambda i: s.files[i].split("/")[1] if s.files[i].startswith("images") else s.files[i].split("/")[0]
    parts = [{alphabet(i) for i in getattr(s, part)} for part in s.parts]
    assert not parts[0] & parts[1] and parts[2] == {"run01", "run02", "run03"} and len(parts[1]) == 1
    asked, shown = published_trials(s)
    assert asked.shape == (18,) and shown.shape == (18, 6) and set(asked) | set(shown.ravel()) == set(s.test)
    assert (s.labels[asked] == s.labels[shown[:, 0]]).all() and all(len(set(s.labels[row])) == 6 for row in shown)
    assert all("/test/" in s.files[i] and "/training/" in s.files[j] and s.files[i][:5] == s.files[j][:5]
               for i, row in zip(asked, shown) for j in row)


def test_an_omniglot_without_runs_is_a_sentence(place, tmp_path):
    shutil.copytree(dataset_folder(place, "Omniglot"), tmp_path / "data" / "omniglot")
    ws = setup("tiny", data=tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "omniglot" / "run02")
    assert {s for s in np.unique([f[:5] for f in handwriting(ws).files])} == {"image", "run01", "run03"}
    for run in "run01", "run03":
        shutil.rmtree(tmp_path / "data" / "omniglot" / run)
    with pytest.raises(CourseError, match="no folders run01 to run20: unpack Omniglot's all_runs.zip into it"):
        handwriting(ws)


def test_a_drawing_that_is_none_is_a_sentence(place, tmp_path):
    shutil.copytree(dataset_folder(place, "Omniglot"), tmp_path / "data" / "omniglot")
    (tmp_path / "data" / "omniglot" / "run01" / "test" / "item01.png").write_bytes(b"no picture")
    with pytest.raises(CourseError, match="1 of the .* drawings in .* can't be read"):
        handwriting(setup("tiny", data=tmp_path / "data"))


def test_ink_is_compared_wherever_it_lies():
    line = np.stack([np.arange(10), np.zeros(10)], 1)
    turned, far = line[:, ::-1], np.concatenate([line, [[100, 0]]])
    assert ink_distance(line, line + 7) == 0 and ink_distance(line, turned) == ink_distance(turned, line) > 1
    d = np.abs((line - line.mean(0))[:, None] - (far - far.mean(0))[None]).sum(-1)  # all lie on a line
    assert ink_distance(line, far) == pytest.approx(max(d.min(0).mean(), d.min(1).mean()))


def test_thresholds_come_from_the_other_folds():
    rng, same = np.random.default_rng(0), np.arange(400) % 2 == 0
    distances = np.where(same, 1., 3.) + rng.uniform(-0.5, 0.5, 400)
    assert (fold_accuracy(distances, same) == 1).all() and len(fold_accuracy(distances, same, 5)) == 5
    distances[:40] += 10  # of the first fold, which no other fold's threshold knows
    found = fold_accuracy(distances, same)
    assert found[0] == 0.5 and (found[1:] == 1).all()


def test_pairs_in_the_wild_are_bytes_or_a_sentence(ws, monkeypatch):
    pairs = np.random.default_rng(0).random((6, 2, 32, 32)).astype(np.float32)
    found = type("Found", (), {"pairs": pairs, "target": np.array([1, 0] * 3)})
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_pairs", lambda **kwargs: found)
    images, same = lfw_pairs(ws)
    assert images.dtype == np.uint8 and images.shape == (6, 2, 32, 32) and images.max() == 255
    assert same.tolist() == [True, False] * 3
    def offline(**kwargs):
        raise OSError("no network")
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_pairs", offline)
    with pytest.raises(CourseError, match="LFW's pairs could not be fetched"):
        lfw_pairs(ws)
