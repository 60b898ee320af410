"What a picture file may be, the pixels that must come of it, the cache that keeps them, and volumes."
import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from conftest import nifti
from PIL import Image

from coursekit import images
from coursekit.data import audit
from coursekit.datasets import cifar10
from coursekit.files import CourseError
from coursekit.images import center_crop_resize, decode, read_images, read_nifti, write_nifti
from coursekit.splits import image_folder
from coursekit.workspace import setup

pytestmark = pytest.mark.filterwarnings("ignore:.*CIFAR-10 has 60,000 images")  # the sets made here are small

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


def test_the_shortest_side_is_scaled(tmp_path):
    Image.new("RGB", (300, 201)).save(tmp_path / "a.jpg")
    assert decode(tmp_path / "a.jpg", size=50).shape == (50, 75, 3)


# Which way is up

def test_a_phone_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (8, 4, 3) and decode(tmp_path / "a.jpg", size=2).shape == (4, 2, 3)


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


# The cache of pixels

def bitmaps(folder, color, stamp=1_600_000_000):
    "Three files whose names, sizes and dates are the same for every color."
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        Image.new("RGB", (8, 8), color).save(folder / f"{i}.bmp")
        os.utime(folder / f"{i}.bmp", (stamp, stamp))
    return folder


def first_pixel(folder, local):
    return read_images(folder, ["0.bmp", "1.bmp", "2.bmp"], None, local)[0][0][0, 0].tolist()


def test_two_folders_with_the_same_names_sizes_and_dates(tmp_path, monkeypatch):
    a, b = bitmaps(tmp_path / "a" / "set", "red"), bitmaps(tmp_path / "b" / "set", "blue")
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0] and first_pixel(b, tmp_path / "cache") == [0, 0, 255]
    monkeypatch.setattr(images, "_decode_all", lambda *a: pytest.fail("decoded again"))
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0] and first_pixel(b, tmp_path / "cache") == [0, 0, 255]


@pytest.mark.parametrize("swap", [lambda a, b: (shutil.rmtree(a), bitmaps(a, "blue")),  # made anew in its place
                                  # copied over with their dates
                                  lambda a, b: [shutil.copy2(p, a / p.name) for p in b.iterdir()],
                                  lambda a, b: (a.rename(a.with_name("old")), b.rename(a))])
def test_other_files_in_the_place_of_the_first(tmp_path, swap):
    a, b = bitmaps(tmp_path / "a", "red"), bitmaps(tmp_path / "b", "blue")
    assert first_pixel(a, tmp_path / "cache") == [255, 0, 0]
    swap(a, b)
    assert first_pixel(a, tmp_path / "cache") == [0, 0, 255]


def test_inodes_that_change_cost_nothing(tmp_path, monkeypatch):
    "As where Drive is mounted anew."
    a, stat = bitmaps(tmp_path / "a", "red"), os.stat
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


# Smaller

@pytest.mark.parametrize("shape", [(40, 60, 3), (60, 40, 3), (41, 57, 3)])
def test_shrink_takes_the_middle_square(shape):
    image = np.zeros(shape, np.uint8)
    h, w = shape[:2]
    image[h // 2 - 15:h // 2 + 15, w // 2 - 15:w // 2 + 15] = 255
    out = center_crop_resize([image], 20)[0]
    assert out.shape == (3, 20, 20) and out[:, 10, 10].min() == 1 and out[:, 0, 0].max() == 0
    assert (out - out.flip(2)).abs().max() < 0.5  # not shifted


def test_shrink_is_the_same_for_an_array_and_a_list(photos):
    assert (center_crop_resize(photos, 8) == center_crop_resize(list(photos), 8)).all() \
        and (center_crop_resize(photos, 32)[0].permute(1, 2, 0) * 255 == photos[0]).all()


@pytest.mark.parametrize("images, says", [(np.zeros((0, 8, 8, 3), np.uint8), "are none"),
                                          (np.zeros((2, 8, 8), np.uint8), r"uint8 of shape \(8, 8\)"),
                                          (np.zeros((2, 8, 8, 3)), "float64 of shape")])
def test_images_of_another_kind_are_a_sentence(images, says):
    with pytest.raises(CourseError, match=says):
        center_crop_resize(images, 4)


# Volumes

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
