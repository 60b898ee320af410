"Files: written whole or not at all, names of any kind, and archives that mean harm or are none."
import errno
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from coursekit import files
from coursekit.files import CourseError, atomic_path, readable, short_path, shorten, unpack


def test_atomic_path_replaces_files_keeps_folders_and_cleans_up(tmp_path):
    for text in "old", "new":
        with atomic_path(tmp_path / "f") as part:
            part.write_text(text)
        with atomic_path(tmp_path / "d") as part:  # the second comes too late
            part.mkdir()
            (part / "f").write_text(text)
    for name in "f", "d", "e":
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / name) as part:
            part.mkdir()
            raise ZeroDivisionError
    assert (tmp_path / "f").read_text() == "new" and (tmp_path / "d" / "f").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "f"]


def test_many_writers_of_one_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def write(i):
        with atomic_path(tmp_path / str(i % 50)) as part:
            part.mkdir()
            (part / "f").write_text("whole")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(400)))
    assert all((tmp_path / str(i) / "f").read_text() == "whole" for i in range(50)) \
        and len(list(tmp_path.iterdir())) == 50


def test_an_error_of_something_else_is_not_put_into_our_words(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out"):
        Path("/nowhere/at/all").read_text()


# Names

def test_home_is_written_as_tilde():
    assert short_path(Path.home() / "a") == os.path.join("~", "a") and short_path("/x/y") == "/x/y"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of any bytes")
@pytest.mark.parametrize("name, shown", [(b"caf\xe9", "café"), (b"\xff\xfe", "ÿþ"), ("é".encode() + b"\xe9", "éé"),
                                         (b"plain", "plain"), ("猫".encode(), "猫")])
def test_a_name_that_is_no_text_can_be_printed_and_stored(name, shown):
    path = Path("/x") / os.fsdecode(name)
    assert readable(os.fsdecode(name)) == shown and short_path(path) == f"/x/{shown}"
    short_path(path).encode()
    with pytest.raises(CourseError, match=f"/x/{shown}") as e, files.explain_os_errors(path):
        raise OSError(errno.ENOSPC, "full", str(path))
    str(e.value).encode()


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 240 + ".json", "猫" * 85])
def test_a_file_with_the_longest_name_is_written(tmp_path, name):
    for text in "old", "new":
        with atomic_path(tmp_path / name) as part:
            part.write_text(text)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "new"


def test_a_name_is_cut_between_letters():
    assert shorten("猫" * 40, 100) == "猫" * 33 and shorten("short") == "short" and len(shorten("n" * 300)) == 100


# Archives that mean harm, and archives that are none

def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as t:
        for m in members:
            t.addfile(m, io.BytesIO(b"x" * m.size) if m.isfile() else None)


def member(name, **facts):
    info = tarfile.TarInfo(name)
    for k, v in {"size": 1, **facts}.items():
        setattr(info, k, v)
    return info


HARM = {"up": member("../escaped"), "deep": member("a/../../escaped"), "absolute": member("/tmp/escaped"),
        "symlink": member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        "hardlink": member("a", type=tarfile.LNKTYPE, linkname="fine", size=0),
        "device": member("a", type=tarfile.CHRTYPE, size=0), "backslash": member("..\\escaped"),
        "drive": member("C:/escaped")}


@pytest.mark.parametrize("harm", HARM)
def test_a_tar_that_would_leave_its_folder_is_refused(harm, tmp_path):
    tar_of(tmp_path / "a.tgz", member("fine"), HARM[harm])
    with pytest.raises(CourseError, match="lies outside its folder|is a link or a device"):
        unpack([tmp_path / "a.tgz"], tmp_path / "room" / "out")
    assert not list((tmp_path / "room").iterdir()) and not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name, link", [("../escaped", False), ("/tmp/escaped", False), ("a", True)])
def test_a_zip_that_would_leave_its_folder_is_refused(name, link, tmp_path):
    info = zipfile.ZipInfo(name)
    info.external_attr = (0o120777 if link else 0o100644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("fine", "fine")
        z.writestr(info, "/etc/passwd")
    with pytest.raises(CourseError, match="lies outside its folder|is a link or a device"):
        unpack([tmp_path / "a.zip"], tmp_path / "room" / "out")
    assert not list((tmp_path / "room").iterdir()) and not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("harm", [lambda whole: b"", lambda whole: b"<html>", lambda whole: whole[:len(whole) // 2],
                                  lambda whole: whole[:-8] + bytes(8), lambda whole: b"PK\x03\x04" + bytes(50)])
def test_what_is_no_whole_archive_is_a_sentence(harm, tmp_path):
    path, rng = tmp_path / "a.tgz", np.random.default_rng(0)
    with tarfile.open(path, "w:gz", compresslevel=1) as t:
        for i in range(400):
            t.addfile(member(f"set/{i % 7}/{i}.bin", size=3000), io.BytesIO(rng.bytes(3000)))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(CourseError, match="a.tgz can't be unpacked .*a whole zip or tar file is expected"):
        unpack([tmp_path / "a.tgz"], tmp_path / "room" / "out")
    assert not list((tmp_path / "room").iterdir())


def test_a_folder_is_never_unpacked_over(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(CourseError, match="is there already"):
        unpack([], tmp_path / "out")


def test_files_beside_the_folder_of_the_same_name_are_kept(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("out/1.txt", "1")
        z.writestr("labels.csv", "x")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in unpack([tmp_path / "a.zip"],
                                                                       tmp_path / "out").rglob("*")} >= {"out/1.txt",
                                                                           "labels.csv"}


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(CourseError, match="no archive .*a.zip"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


WINDOWS = {r"set\cats\1.jpg": b"1", r"set\cats\2.jpg": b"2", "set/dogs\\3.jpg": b"3", "set/4.jpg": b"4"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_backslashes_are_folders(tmp_path, kind):
    archive = tmp_path / f"a.{kind}"
    with zipfile.ZipFile(archive, "w") if kind == "zip" else tarfile.open(archive, "w") as a:
        if kind == "zip":
            a.writestr("set\\cats\\", b"")  # a folder has an entry of its own
        for name, data in WINDOWS.items():
            a.writestr(name, data) if kind == "zip" else a.addfile(member(name), io.BytesIO(data))
    out = unpack([archive], tmp_path / "set")
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.jpg")} == {"cats/1.jpg": b"1",
        "cats/2.jpg": b"2", "dogs/3.jpg": b"3", "4.jpg": b"4"}


@pytest.mark.parametrize("names, says", [([r"..\out.txt"], "lies outside"), ([r"a\..\..\out.txt"], "lies outside"),
                                         ([r"\out.txt"], "lies outside"),
                                         (["a/b.txt", r"a\b.txt"], "would be one file"),
                                         ([r"a\b.txt", "a/./b.txt"], "would be one file")])
def test_backslashes_lead_nowhere_else(tmp_path, names, says):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for name in names:
            z.writestr(name, "x")
    with pytest.raises(CourseError, match=says):
        unpack([tmp_path / "a.zip"], tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("*.txt")) and not list((tmp_path / "in").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize("umask, modes", [(0o022, {0o644, 0o755}), (0o077, {0o600, 0o700}), (0o002, {0o664, 0o775})])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_is_unpacked_is_as_open_as_any_new_file(tmp_path, kind, umask, modes):
    "Whatever the author's own modes were: what one user of a class unpacks, the others read."
    if kind == "tar":
        tar_of(tmp_path / "a.tar", member("set", type=tarfile.DIRTYPE, size=0, mode=0o700),
               member("set/x/1.jpg", mode=0o600), member("set/2.jpg", mode=0o400))
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
            z.writestr("set/x/1.jpg", "x")
    before = os.umask(umask)
    try:
        out = unpack([tmp_path / f"a.{kind}"], tmp_path / "set")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (out, *out.rglob("*"))} == modes


def test_a_folder_with_a_long_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("1.txt", "1")
    for name in "n" * 240, "é" * 120:
        assert (unpack([tmp_path / "a.zip"], tmp_path / name) / "1.txt").read_text() == "1"
