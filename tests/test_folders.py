"Folders of pictures: the part that a name speaks of, what systems leave, and links that lead back."
import warnings

import pytest
from conftest import folder_of
from PIL import Image

from coursekit.data import audit
from coursekit.datasets import CIFAR10
from coursekit.files import files_below
from coursekit.folders import part_of
from coursekit.splits import image_folder


@pytest.mark.parametrize("name, part", [("Training", "train"), ("train+val", "train"), ("testing", "test"),
                                        ("VALID", "valid"), ("train_test_split", None), ("attrain", None),
                                        ("cats", None), ("", None)])
def test_the_part_that_a_name_speaks_of(name, part):
    assert part_of(name) == part


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


def test_folders_in_a_class_are_read_too(real):
    inside = real.data / "cifar10" / "train" / "bird" / "more"
    inside.mkdir()
    Image.new("RGB", (32, 32)).save(inside / "b.png")
    splits = image_folder(real.data / "cifar10" / "train", real)
    assert splits.labels[splits.files.index("bird/more/b.png")] == CIFAR10.index("bird")
