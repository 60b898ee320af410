"""Downloads from hosts that are dead, wrong, slow or cut off, and kills half-way; and the catalogue: every name of the
course briefs, each fact with its source, one page of links, and what can really be loaded."""
import ast
import codecs
import contextlib
import hashlib
import http.server
import importlib
import inspect
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from coursekit import fetch as fetching
from coursekit.fetch import catalogue, check_datasets, fetch, present
from coursekit.files import CourseError
from coursekit.workspace import sources

sys.path.insert(0, str(ROOT / "tools"))
from data_links import COLUMNS, START, TABLES, links

CONTENT = {f"set/{i % 7}/{i}.bin": np.random.default_rng(i).bytes(3000) for i in range(400)}


def packed():
    "A tar.gz of CONTENT, the same bytes each time."
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w:gz", compresslevel=1) as t:
        for name, data in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return box.getvalue()


ARCHIVE = packed()
N = len(ARCHIVE)


class Host(http.server.BaseHTTPRequestHandler):
    "Plays the host that the first part of the path names."
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.asked.append((kind, self.headers["Range"]))
        getattr(self, f"play_{kind}")()

    def log_message(self, *args):
        pass

    def send(self, body, ranges=True, stop_after=None, rate=None, status=None, kind="application/gzip", length=True):
        "Send `body`, or what is asked of it; at `rate` bytes a second; hang up after `stop_after` bytes."
        start = int(self.headers["Range"][6:-1]) if ranges and self.headers["Range"] else 0
        self.send_response(status or (206 if start else 200))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if length:
            self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        rest = body[start:][:stop_after]
        step = max(1, int(rate / 20)) if rate else len(rest) or 1
        with contextlib.suppress(ConnectionError):
            for i in range(0, len(rest), step):
                self.wfile.write(rest[i:i + step])
                self.wfile.flush()
                if rate:
                    time.sleep(step / rate)

    def play_good(self):
        self.send(ARCHIVE)

    def play_norange(self):
        self.send(ARCHIVE, ranges=False)

    def play_404(self):
        self.send_error(404)

    def play_500(self):
        self.send_error(500)

    def play_slow(self):
        self.send(ARCHIVE, rate=80_000)

    def play_medium(self):
        self.send(ARCHIVE, rate=1_000_000)

    def play_halfnorange(self):
        self.send(ARCHIVE, ranges=False, stop_after=N // 2)

    def play_half(self):
        self.send(ARCHIVE, stop_after=N // 2)

    def play_html(self):
        self.send(b"<!DOCTYPE html><html>quota exceeded</html>", ranges=False, kind="text/html; charset=utf-8")

    def play_silenthtml(self):  # a page that does not say what it is, nor how long
        self.send(b"<!DOCTYPE html><html>quota exceeded</html>", ranges=False, kind="application/gzip", length=False)

    def play_wrong(self):
        self.send(bytes(N))

    def play_endless(self):
        self.send(ARCHIVE + bytes(N), ranges=False, length=False)

    def play_lyingrange(self):  # says that it goes on, and sends the beginning again
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{N - 1}/{N}")
        self.send_header("Content-Length", str(N - start))
        self.end_headers()
        self.wfile.write(ARCHIVE[:N - start])


@pytest.fixture
def host():
    "A loopback server; `.url(kind)` is where it plays a host."
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.asked, server.daemon_threads = [], True
    server.url = lambda kind: f"http://127.0.0.1:{server.server_port}/{kind}/set.tar.gz"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A workspace's folders, and a speed that is measured over a second."
    monkeypatch.setattr(fetching, "_WINDOW", 0.5)
    monkeypatch.setattr(fetching, "_FLOOR", 200_000)
    monkeypatch.setattr(fetching, "_PATIENCE", 2)
    for name in "data", "local":
        (tmp_path / name).mkdir()
    return SimpleNamespace(data=tmp_path / "data", local=tmp_path / "local")


def source(*urls, archive=ARCHIVE, file="set.tar.gz"):
    return {"folder": "set",
            "archives": [{"file": file, "bytes": len(archive), "hash": f"sha256:{hashlib.sha256(archive).hexdigest()}",
                          "urls": list(urls)}]}


@pytest.fixture
def offer(monkeypatch):
    "Make `a set` a dataset that is to be had from some URLs."
    return lambda *urls, **kwargs: monkeypatch.setitem(sources(), "a set", source(*urls, **kwargs))


def dead_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/set.tar.gz"


def assert_right(folder, when=""):
    assert {f"set/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*.bin")} == CONTENT, when


SAYS = {"404": "answers 404 Not Found", "500": "answers 500", "slow": "sends .* kB/s", "halfnorange": "cuts off after",
        "html": "answers with a web page", "silenthtml": "cuts off after 42 of", "wrong": "sent other bytes",
        "endless": "sends more than"}


@pytest.mark.parametrize("kind", SAYS)
def test_a_bad_host_is_left_for_the_next(kind, host, place, offer, capsys):
    offer(host.url(kind), host.url("good"))
    assert_right(fetch("a set", place))
    said = capsys.readouterr().out
    assert re.search(rf"set.tar.gz: 127.0.0.1:\d+ {SAYS[kind]}.*; on to the next.\nset.tar.gz: \S+ MB from 127",
                     said), said
    assert not list(place.data.glob("*.part"))


def test_a_dead_port_is_left_for_the_next(host, place, offer, capsys):
    offer(dead_port(), host.url("good"))
    assert_right(fetch("a set", place))
    assert "fails (Connection refused); on to the next." in capsys.readouterr().out


def test_a_silent_host_is_left_for_the_next(host, place, offer, capsys):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        offer(f"http://127.0.0.1:{s.getsockname()[1]}/set.tar.gz", host.url("good"))
        assert_right(fetch("a set", place))
    assert "does not answer in 2 s; on to the next." in capsys.readouterr().out


def test_a_host_that_cuts_off_is_asked_for_the_rest(host, place, offer):
    offer(host.url("half"))
    assert_right(fetch("a set", place))
    ranges = [r for _, r in host.asked]
    assert ranges[:2] == [None, f"bytes={N // 2}-"] and len(ranges) <= 3


def test_what_a_slow_host_sent_is_not_asked_for_again(host, place, offer):
    offer(host.url("slow"), host.url("good"))
    assert_right(fetch("a set", place))
    assert host.asked[1][0] == "good" and int(host.asked[1][1][6:-1]) > 10_000


def test_slow_is_better_than_nothing(host, place, offer, monkeypatch):
    monkeypatch.setattr(fetching, "_FLOOR", 10_000_000)
    offer(host.url("404"), host.url("medium"))
    assert_right(fetch("a set", place))
    assert [k for k, _ in host.asked] == ["404", "medium", "medium"]


def test_wrong_bytes_kept_from_before_do_not_spoil_a_good_host(host, place, offer):
    (place.data / "set.tar.gz.part").write_bytes(b"nonsense" * 100)
    offer(host.url("good"))
    assert_right(fetch("a set", place))
    assert host.asked == [("good", "bytes=800-"), ("good", None)]


def test_a_part_that_is_too_long_is_thrown_away(host, place, offer):
    (place.data / "set.tar.gz.part").write_bytes(ARCHIVE + b"more")
    offer(host.url("good"))
    assert_right(fetch("a set", place))


def test_a_host_that_lies_about_ranges(host, place, offer):
    (place.data / "set.tar.gz.part").write_bytes(ARCHIVE[:1000])
    offer(host.url("lyingrange"))
    assert_right(fetch("a set", place))


def test_all_hosts_dead_lists_each_and_the_way_by_hand(host, place, offer):
    offer(host.url("404"), dead_port(), host.url("html"))
    with pytest.raises(CourseError, match="answers 404.*Connection refused.*web page.*Try again later.*set.tar.gz "
                                          ".*sha256:.*save it as .*/data/set.tar.gz"):
        fetch("a set", place)
    assert present("a set", place) is None


def test_what_has_arrived_is_kept_when_all_fail(host, place, offer):
    offer(host.url("halfnorange"))
    with pytest.raises(CourseError, match="cuts off"):
        fetch("a set", place)
    assert (place.data / "set.tar.gz.part").stat().st_size == N // 2
    offer(host.url("good"))
    assert_right(fetch("a set", place))
    assert host.asked[-1] == ("good", f"bytes={N // 2}-")


@pytest.mark.parametrize("kind", ["silenthtml", "halfnorange"])
def test_a_host_without_ranges_does_not_spoil_what_has_arrived(kind, host, place, offer):
    (place.data / "set.tar.gz.part").write_bytes(ARCHIVE[:int(0.9 * N)])
    offer(host.url(kind))
    with pytest.raises(CourseError, match="what has arrived is kept"):
        fetch("a set", place)
    assert (place.data / "set.tar.gz.part").read_bytes() == ARCHIVE[:int(0.9 * N)] \
        and len(list(place.data.glob("*.part*"))) == 1
    offer(host.url("good"))
    assert_right(fetch("a set", place))
    assert host.asked[-1] == ("good", f"bytes={int(0.9 * N)}-")


def test_a_host_that_trickles_is_left_in_the_second_round_too(host, place, offer, monkeypatch):
    monkeypatch.setattr(fetching, "_LEAST", 100_000)
    offer(host.url("slow"), host.url("500"))
    with pytest.raises(CourseError, match="sends .* kB/s.*answers 500"):
        fetch("a set", place)
    assert [k for k, _ in host.asked] == ["slow", "500", "slow", "500"]


def test_an_empty_folder_is_no_dataset(host, place, offer):
    offer(host.url("good"))
    for folder in place.data, place.local / "data":
        (folder / "set").mkdir(parents=True)
    assert_right(fetch("a set", place))


def test_an_archive_put_there_by_hand_needs_no_host(place, offer):
    (place.data / "set.tar.gz").write_bytes(ARCHIVE)
    offer(dead_port())
    assert_right(fetch("a set", place))


def test_a_truncated_archive_in_the_folder_is_fetched_anew(host, place, offer, capsys):
    (place.data / "set.tar.gz").write_bytes(ARCHIVE[:N // 3])
    offer(host.url("good"))
    assert_right(fetch("a set", place))
    assert "has other bytes than the recorded ones" in capsys.readouterr().out \
        and (place.data / "set.tar.gz").read_bytes() == ARCHIVE


@pytest.mark.parametrize("as_url", [True, False])
def test_a_mirror_of_ones_own_is_asked_first(as_url, place, offer, tmp_path, monkeypatch, capsys):
    shared = tmp_path / "a shared folder"
    shared.mkdir()
    (shared / "set.tar.gz").write_bytes(ARCHIVE)
    monkeypatch.setenv("COURSEKIT_MIRROR", shared.as_uri() if as_url else str(shared))
    offer(dead_port())
    assert_right(fetch("a set", place))
    assert "MB from the folder a shared folder" in capsys.readouterr().out


def test_a_folder_that_is_there_is_used_as_it_is(place, offer):
    offer(dead_port())
    (place.data / "set").mkdir()
    (place.data / "set" / "mine.txt").touch()
    assert fetch("a set", place) == place.data / "set" and len(list((place.data / "set").iterdir())) == 1


def test_a_second_fetch_asks_nobody(host, place, offer):
    offer(host.url("good"))
    folder = fetch("a set", place)
    assert fetch("a set", place) == folder and len(host.asked) == 1


def test_a_data_folder_that_cannot_be_written_is_left_alone(host, place, offer, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    offer(host.url("good"))
    assert_right(fetch("a set", place))
    assert not list(place.data.iterdir())


def test_a_single_text_is_not_unpacked(place, offer, tmp_path):
    text = b"Because I could not stop for Death"
    (tmp_path / "poem.txt").write_bytes(text)
    offer((tmp_path / "poem.txt").as_uri(), archive=text, file="text/poem.txt")
    sources()["a set"]["folder"] = "text/poem.txt"
    assert fetch("a set", place) == place.data / "text" / "poem.txt" and fetch("a set", place).read_bytes() == text


def test_a_text_of_ones_own_is_used_and_said(place, offer, capsys):
    offer(dead_port(), archive=b"the recorded text", file="text/poem.txt")
    sources()["a set"]["folder"] = "text/poem.txt"
    (place.data / "text").mkdir()
    (place.data / "text" / "poem.txt").write_text("my own edition")
    assert fetch("a set", place).read_text() == "my own edition"
    said = capsys.readouterr().out
    assert "poem.txt has other bytes than the recorded ones: it is used as it is; delete it to fetch" in said


def test_a_part_that_has_arrived_is_told(host, place, offer):
    offer(host.url("halfnorange"))
    with pytest.raises(CourseError):
        fetch("a set", place)
    assert "of it have arrived: coursekit data fetch 'a set'" in check_datasets(place).found["a set"]


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(CourseError, match="no dataset 'cifar10'; did you mean 'CIFAR-10'"):
        fetch("cifar10", None)
    with pytest.raises(CourseError, match=r"no dataset 'xyzzy qux'. 'coursekit data list', or catalogue"):
        fetch("xyzzy qux", None)
    with pytest.raises(CourseError, match=r"The dataset is \['CIFAR-10'\]: one name"):
        fetch(["CIFAR-10"], None)
    with pytest.raises(CourseError, match="COCO is not fetched by coursekit: see http.* and load it by"):
        fetch("COCO", None)


# Disks, interruptions and kills

def test_no_room_is_said_before_the_download(host, place, offer, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    offer(host.url("good"))
    with pytest.raises(CourseError, match="needs 0.00 GB and .* free some, or choose another folder with "
                                          "COURSEKIT_DATA"):
        fetch("a set", place)
    assert not host.asked


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_disk_that_fills_while_unpacking_leaves_the_archive(host, place, offer, monkeypatch):
    offer(host.url("good"))
    with monkeypatch.context() as m:
        m.setattr(tarfile.TarFile, "extract", full)
        with pytest.raises(CourseError, match="No space is left on the disk"):
            fetch("a set", place)
    assert present("a set", place) is None and not list((place.local / "data").iterdir())
    assert_right(fetch("a set", place))
    assert len(host.asked) == 1


FETCH = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
import json, sys
from pathlib import Path
from types import SimpleNamespace
from coursekit.fetch import fetch
from coursekit.workspace import sources
sources()["a set"] = json.loads(sys.argv[1])
print("begun", flush=True)
fetch("a set", SimpleNamespace(data=Path(sys.argv[2]), local=Path(sys.argv[3])))
"""


def start(place, *urls):
    "Fetch in a process of its own, which has begun."
    child = subprocess.Popen([sys.executable, "-c", FETCH, json.dumps(source(*urls)), str(place.data),
                              str(place.local)],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout.readline() == "begun\n"
    return child


@pytest.mark.slow
def test_kills_at_random_moments_of_fetch_and_unpack(host, place, offer):
    began = time.monotonic()
    start(place, host.url("medium")).communicate(timeout=60)
    whole = time.monotonic() - began  # about half of it is spent unpacking, after ctrl-C below it is only unpacking
    assert_right(place.local / "data" / "set")
    seed = random.randrange(1000)
    moments = sorted(random.Random(seed).uniform(0, whole) for _ in range(5))
    for folder in place.data, place.local:
        subprocess.run(["rm", "-rf", *map(str, folder.iterdir())], check=True)
    for moment in moments:
        child = start(place, host.url("medium"))
        time.sleep(moment)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if found := (place.local / "data" / "set").exists():
            assert_right(place.local / "data" / "set", (seed, moment))
        assert not found or check_datasets_of(offer, place, host)
    start(place, host.url("medium")).communicate(timeout=60)
    assert_right(place.local / "data" / "set")
    assert not [p for p in (place.local / "data").iterdir() if p.name.endswith(".part")], seed


def check_datasets_of(offer, place, host):
    offer(host.url("good"))
    return bool(check_datasets(place, ["a set"]).whole.item())


def test_a_kill_while_unpacking_leaves_no_half_folder(place, offer):
    (place.data / "set.tar.gz").write_bytes(ARCHIVE)
    for _ in range(20):
        child = start(place, dead_port())
        while not list(place.local.glob("data/.set.*.part/set/*/*.bin")) and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if list(place.local.glob("data/.set.*.part")):
            break
    else:
        pytest.fail("no kill hit the unpacking")
    assert not (place.local / "data" / "set").exists()
    offer(dead_port())
    assert_right(fetch("a set", place))
    assert not list(place.local.glob("data/.set.*.part"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_arrived(host, place):
    child = start(place, host.url("slow"))
    part = place.data / "set.tar.gz.part"
    while child.poll() is None and (not part.exists() or part.stat().st_size < 20_000):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=20)
    assert "Stopped; what has arrived of a set is kept: run this again to go on." in said
    kept = part.stat().st_size
    start(place, host.url("good")).communicate(timeout=60)
    assert host.asked[-1] == ("good", f"bytes={kept}-")
    assert_right(place.local / "data" / "set")


def test_two_notebooks_fetch_it_once(host, place):
    children = [start(place, host.url("medium")) for _ in range(2)]
    said = [c.communicate(timeout=60)[0] for c in children]
    assert [c.returncode for c in children] == [0, 0] and len(host.asked) == 1
    assert any("is being fetched by another notebook" in s for s in said)
    assert_right(place.local / "data" / "set")


# Locks

def hidden(place):
    return [p.name for folder in (place.data, place.local) for p in folder.rglob(".*.lock")]


def test_a_fetch_leaves_no_lock(host, place, offer):
    offer(host.url("404"))
    with pytest.raises(CourseError, match="could not be fetched"):
        fetch("a set", place)
    assert not hidden(place) and not list(place.data.iterdir())
    offer(host.url("good"))
    fetch("a set", place)
    assert not hidden(place) and [p.name for p in place.data.iterdir()] == ["set.tar.gz"]


def test_ctrl_c_leaves_no_lock(host, place, offer, monkeypatch):
    def stopped(*args):
        assert hidden(place) == [".a-set.lock"]
        raise KeyboardInterrupt
    offer(host.url("good"))
    monkeypatch.setattr(fetching, "_get", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch("a set", place)
    assert not hidden(place)


def test_one_at_a_time_although_the_lock_goes(place):
    "Twelve threads, each with the lock for a moment: two at once would see each other."
    inside, seen = [], []

    def enter(i):
        with fetching._alone("a set", place, place.data):
            inside.append(i)
            time.sleep(0.01)
            seen.append(list(inside))
            inside.remove(i)
    threads = [threading.Thread(target=enter, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len(seen) == 12 and all(len(s) == 1 for s in seen) and not hidden(place)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.parametrize("left", ["set.tar.gz", "set.tar.gz.part", ".a-set.lock"])
def test_what_another_user_left_is_not_in_the_way(host, place, offer, left):
    "A data folder that all may write in, and in it a file of somebody else's, cut off in the middle."
    offer(host.url("good"))
    fetch("a set", place), codecs.lookup("ascii")  # what is imported late may be closed to the other
    with tempfile.TemporaryDirectory() as room:
        os.chmod(room, 0o777)
        place = SimpleNamespace(data=Path(room) / "data", local=Path(room) / "local")
        for folder in place.data, place.local:
            folder.mkdir()
            os.chmod(folder, 0o1777)
        (place.data / left).write_bytes(ARCHIVE[:1000])
        os.chmod(place.data / left, 0o644)
        pid = os.fork()
        if pid == 0:
            os.setgid(4002), os.setuid(4002)
            try:
                assert_right(fetch("a set", place))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert (place.data / left).stat().st_uid == 0


# What is there

def test_check_sees_what_is_missing(host, place, offer):
    offer(host.url("good"))
    folder = fetch("a set", place)
    assert check_datasets(place, ["a set"]).whole.item()
    (folder / "3" / "3.bin").unlink()
    assert "1 of 400 files are missing or changed (3/3.bin)" in check_datasets(place, ["a set"]).found.item()
    (place.data / "set.tar.gz").write_bytes(b"rot")
    assert not check_datasets(place, ["a set"]).whole.item()


# The catalogue

TABLE = catalogue()


# Every dataset that the briefs name, or whose task they name, and those that later lessons need.
NAMED = {
    "CS230": """ImageNet; MNIST; CIFAR-10; CIFAR-100; COCO; Pascal VOC; Open Images; SQuAD;
        Google Books n-grams; Yelp Open Dataset;
        Yahoo Finance API; YouTube-8M; Moments in Time; Kinetics-600; Million Song; DeepBind;
        CelebA; MovieLens; Netflix Prize; CleverHans; OpenAI Gym;
        CycleGAN datasets; WikiArt;
        Kaggle challenges; Speech Commands""",
    "CS230 notes": "ImageNet; WikiArt; Speech Commands",
    "DD2424": """Oxford-IIIT Pet; CIFAR-10; CIFAR-100; Imagenette; Emily Dickinson poems; tiny Shakespeare;
        Project Gutenberg; GloVe;
        word2vec GoogleNews; LFW; Places; COCO;
        Caltech Pedestrian; Daimler; MPII Human Pose; Sports-1M; NYU Depth V2;
        MPIIGaze; Tatoeba sentence pairs; Names by language; CMU AN4 Census; LibriSpeech;
        Folk music (The Session)""",
    "VSE": """Medical Decathlon; thispersondoesnotexist; Pokemon images; EMNIST; im2latex-100k; Common Voice;
        Cornell Movie-Dialogs; UCF101;
        VSE Drive folder; VSE Colab mount example;
        VSE: fitting function 1D-1D; VSE: fitting function 5D-5D; VSE: glasses or no glasses;
        VSE: MICS MNIST; VSE: sword video classification; Kaggle challenges""",
    "later lesson": "CIFAR-100; Imagenette; Omniglot; Medical Decathlon; Project Gutenberg; Emily Dickinson poems; "
                    "Python standard library source; Olivetti faces; Free Spoken Digit Dataset",
}
TASKS = {"image classification", "object detection", "segmentation", "faces", "people", "scenes", "pose", "depth",
         "gaze", "video", "text", "time series",
         "speech and music", "computational biology", "recommendation", "generative models", "adversarial examples",
         "style transfer", "medical images",
         "reinforcement learning", "regression", "course"}
WAYS = {"coursekit", "torchvision", "torchaudio", "fastai", "hub", "pip", "web", "form", "login", "none"}


@pytest.mark.parametrize("brief", NAMED)
def test_every_name_of_a_brief_is_there(brief):
    names = {n.strip() for n in NAMED[brief].split(";")}
    assert names <= set(TABLE.index[TABLE.brief.map(lambda b: brief in b.split("; "))]), names - set(TABLE.index)


def test_the_courses_own_links_are_the_briefs():
    drive, colab = "1_KqzmBVvZKwvLi0a1W3P6wPa-IgwnmLP", "1Ummw01RU9TeSnmoUIBAPR88wfTpLvZUD"
    assert drive in TABLE.home["VSE Drive folder"] and colab in TABLE.home["VSE Colab mount example"]
    keys = ("81c8fa412fb840c0b34fe86e7dab174f 3eb9e2aa517a414aacd0c9468281a7c2 a232e4d3385b46c68921719e547b45e1 "
            "073954a6c84a4970903d5a340df28695 d6ca6181f7eb4acc93f418f7b43cbece")
    assert all(f"https://www.kaggle.com/t/{key}" in set(TABLE.home) for key in keys.split())


@pytest.mark.parametrize("name", TABLE.index)
def test_a_row(name):
    row = TABLE.loc[name]
    assert set(row.task.split("; ")) <= TASKS and row.licence and row.commercial in ("yes", "no", "unclear")
    assert row.size_gb >= 0 or "size not published" in row.pitfalls, "a size, or why there is none"
    urls = [row.home, *row.source.split("; ")]
    assert all(re.fullmatch(r"https?://[\w.-]+(/\S*)?", u) for u in urls), urls
    assert row.load and {way.split(":")[0].strip() for way in row.load.split("; ")} <= WAYS, row.load
    assert "\u2014" not in " ".join(map(str, row)) and not re.search(r"/(root|work|tmp|home)/", row.source + row.home)


def test_all_tasks_are_covered_and_no_name_comes_twice():
    assert {t for cell in TABLE.task for t in cell.split("; ")} == TASKS and TABLE.index.is_unique


def ways(kind):
    "What the rows say behind `kind:`."
    return [(name, way.split(":", 1)[1].strip()) for name, load in TABLE.load.items() for way in load.split("; ")
            if way.startswith(kind + ":")]


def test_what_coursekit_fetches_is_what_it_says():
    assert {what for _, what in ways("coursekit")} == set(sources()) == {name for name, _ in ways("coursekit")}
    for name, source in sources().items():
        assert TABLE.size_gb[name] == pytest.approx(sum(a["bytes"] for a in source["archives"]) / 1e9, rel=0.05), name
        for a in source["archives"]:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", a["hash"]) and a["bytes"] > 0 \
                and len(set(a["urls"])) == len(a["urls"])
            assert all(u.startswith("https://") for u in a["urls"])


def test_the_torchvision_classes_and_fastai_urls_exist():
    import torchvision.datasets
    from fastai.data.external import URLs

    assert not [(n, w) for n, w in ways("torchvision") if not hasattr(torchvision.datasets, re.match(r"\w+", w)[0])]
    assert not [(n, w) for n, w in ways("fastai") if not hasattr(URLs, re.search(r"URLs\.(\w+)", w)[1])]


# The page

PAGE = (ROOT / "data_links.md").read_text()
ROWS = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines()
        if line.startswith("| [")]


def test_data_links_is_written_from_the_catalogue():
    assert PAGE == links(TABLE), "run make export"


def test_data_links_has_each_set_once_in_a_whole_row():
    heads = [line for line in PAGE.splitlines() if line.startswith("| set ")]
    assert len(set(heads)) == 1 and {len(row) for row in ROWS} == {heads[0].count("|") - 1} == {len(COLUMNS)}
    assert sorted(row[0] for row in ROWS) == sorted(f"[{name}]({home})" for name, home in TABLE.home.items())
    assert all(name and licence and load and commercial in ("yes", "no", "unclear")
               for name, _, _, licence, commercial, load in ROWS)
    assert all(PAGE.count(f"- **{name}**: ") == 1 for name in TABLE.index)


def test_data_links_begins_with_six_that_the_kit_loads():
    six = ROWS[:6]
    assert [row[0].split("]")[0][1:] for row in six] == list(START) and all("`coursekit." in row[5] for row in six)
    assert {row[0].split("]")[0][1:] for row in ROWS if "`coursekit." in row[5]} >= set(sources())


def test_data_links_tables_hold_all_tasks_and_each_fold_is_closed():
    assert {task for its in TABLES.values() for task in its} == TASKS
    assert PAGE.count("<details><summary>Pitfalls</summary>\n\n") == PAGE.count("\n\n</details>\n") == len(TABLES) + 1


def test_data_links_names_no_source_and_no_list_of_mirrors():
    shown = set(re.findall(r"https?://[^\s)`]+", PAGE))
    asked = {u for cell in TABLE.source for u in cell.split("; ")} - set(TABLE.home)
    assert not shown & asked and not re.search("cvpapers|yacvid|paperswithcode", PAGE)
    assert "https://cs230.stanford.edu/past-projects" in PAGE


def test_the_same_licence_is_judged_alike():
    alike = TABLE.groupby("licence").commercial.nunique()
    assert (alike == 1).all(), alike[alike > 1]
    assert set(TABLE.commercial[TABLE.licence.str.startswith("CC BY-SA")]) == {"yes"}
    assert not (TABLE.commercial[TABLE.licence.str.contains("non-commercial|CC BY-NC|research only")] == "yes").any()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].split("]")[0][1:])
def test_a_line_to_load_of_data_links_can_be_pasted(row):
    line = row[5].split("`")[1] if row[5].startswith("`") else ""
    if not line:
        assert re.match(r"by hand.*: \[[\w.-]+\]\(https?://|withdrawn", row[5])
        return
    if line.split()[0] in ("curl", "git", "pip", "kaggle"):
        return
    call = ast.parse(line, mode="eval").body
    module, name = ast.unparse(call.func).rsplit(".", 1)
    if module.split(".")[0] in ("coursekit", "torchvision", "sklearn"):
        of = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        inspect.signature(getattr(importlib.import_module(module), name)).bind(*call.args, **of)
