"Sounds: files of all kinds, spectrograms, detectors that hear piece by piece, words over noise, events, fits cut off."
import os
import signal
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import interrupt
from scipy.io import wavfile

from coursekit import audio
from coursekit.audio import (
    HOP,
    N_FFT,
    NOISES,
    RATE,
    STEP,
    Detector,
    Listener,
    SoundNet,
    StepLoss,
    as_loud,
    best_threshold,
    clip_samples,
    end_steps,
    espeak,
    event_counts,
    find_events,
    lay_over,
    log_mel,
    made_word,
    make_noise,
    match_events,
    mel_filters,
    one_length,
    precision_recall,
    random_mask,
    random_shift,
    random_starts,
    ratio_interval,
    read_sound,
    step_times,
    steps_right,
    trigger_task,
    trim_silence,
    widen,
)
from coursekit.files import CourseError
from coursekit.learner import learner
from coursekit.splits import Splits

TONE = (0.5 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize("samples, rate", [
    ((TONE * 32767).astype(np.int16), RATE), ((TONE * (2**31 - 1)).astype(np.int32), RATE), (TONE, RATE),
    ((128 + TONE * 127).astype(np.uint8), RATE), (TONE.astype(np.float64), RATE), (np.stack([TONE, TONE], 1), RATE),
    (np.repeat(TONE, 2), 2 * RATE), (TONE[::2], RATE // 2), (np.interp(np.arange(44100) / 44100, np.arange(RATE) / RATE,
                                                                       TONE).astype(np.float32), 44100)])
def test_wavs_of_all_kinds_are_the_same_sound(samples, rate, tmp_path):
    wavfile.write(tmp_path / "tone.WAV", rate, samples)
    sound = read_sound(tmp_path / "tone.WAV")
    assert sound.dtype == np.float32 and sound.shape == (RATE,)
    assert np.abs(np.fft.rfft(sound)).argmax() == 500 and abs(np.abs(sound[500:-500]).max() - 0.5) < 0.03


def test_what_is_no_sound_is_a_sentence(tmp_path):
    for name, data in {"a.wav": b"no sound at all", "b.wav": b"", "c.wav": b"RIFF\x00\x00\x00\x00WAVEfmt "}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CourseError, match=f"{name} can't be read as sound .*: a whole WAV or FLAC file"):
            read_sound(tmp_path / name)
    with pytest.raises(CourseError, match="gone.wav can't be read as sound"):
        read_sound(tmp_path / "gone.wav")


def test_without_soundfile_a_flac_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(CourseError, match="a.flac is no WAV and the package soundfile is not here .*pip install sound"):
        read_sound(tmp_path / "a.flac")


def test_a_flac_is_the_same_sound(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", TONE, RATE)
    assert np.allclose(read_sound(tmp_path / "a.flac"), TONE, atol=1e-4)
    (tmp_path / "b.flac").write_bytes(b"fLaC and no more")
    with pytest.raises(CourseError, match="b.flac can't be read as sound"):
        read_sound(tmp_path / "b.flac")


def test_loudness_length_and_silence():
    assert np.sqrt(np.mean(as_loud(TONE, 0.1) ** 2)) == pytest.approx(0.1)
    assert not as_loud(np.zeros(4)).any() and as_loud([]).shape == (0,) and trim_silence(np.zeros(0)).shape == (0,)
    assert trim_silence(np.array([0, 0.001, 1, 0, -1, 0.01])).tolist() == [1, 0, -1]
    out = one_length([np.ones(3), np.ones(0), np.arange(9)], 5)
    assert out.tolist() == [[0, 1, 1, 1, 0], [0] * 5, [2, 3, 4, 5, 6]] and out.dtype == np.float32


def test_a_frame_knows_its_own_samples_and_no_others():
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 3000)).astype(np.float32)
    whole = log_mel(sound)
    assert whole.shape == (1, 1 + (3000 - N_FFT) // HOP, 32) and torch.isfinite(log_mel(0 * sound)).all()
    for t in 0, 7, whole.shape[1] - 1:
        assert torch.allclose(log_mel(sound[:, t * HOP:t * HOP + N_FFT])[0, 0], whole[0, t], atol=1e-4)
    assert mel_filters(16000, 512, 40).shape == (40, 257) and (mel_filters().sum(1) > 0).all()
    with pytest.raises(CourseError, match="200 bands are more than 256 samples at 8,000 a second can tell apart"):
        mel_filters(n_mels=200)
    for wrong in sound[0], sound[:, :100]:
        with pytest.raises(CourseError, match=r"\(n, samples\) with 256 samples or more is expected"):
            log_mel(wrong)


@pytest.mark.parametrize("augment", [random_shift(5, 2), random_mask(8, 5)])
def test_augmentation_draws_for_each_and_comes_from_the_seed(augment):
    xb, yb = torch.randn(1, 40, 32).expand(9, -1, -1), torch.arange(9)
    torch.manual_seed(3)
    first, labels = augment(xb, yb)
    torch.manual_seed(3)
    assert torch.equal(augment(xb, yb)[0], first) and labels is yb and first.shape == xb.shape
    assert len({x.sum().item() for x in first}) > 4 and augment(xb.half(), yb)[0].dtype == torch.float16


def test_a_shift_moves_and_repeats_edges():
    xb = torch.arange(20.).view(1, 4, 5).expand(200, -1, -1)
    moved = random_shift(1, 0)(xb, None)[0]
    assert {tuple(x[:, 0].tolist()) for x in moved} == {(0, 5, 10, 15), (0, 0, 5, 10), (5, 10, 15, 15)}
    moved = random_shift(0, 1)(xb, None)[0]
    assert {tuple(x[0].tolist()) for x in moved} == {(0, 1, 2, 3, 4), (0, 0, 1, 2, 3), (1, 2, 3, 4, 4)}


def test_networks_take_any_length():
    torch.manual_seed(0)
    for frames in 8, 61, 200:
        assert SoundNet(7, 8).eval()(torch.randn(2, frames, 32)).shape == (2, 7)
        assert Detector(8).eval()(torch.randn(2, frames, 32)).shape == (2, frames // STEP)


@pytest.mark.parametrize("length", [1, 128, 511, 512, 513, 5000])
def test_a_listener_says_what_it_says_of_the_whole(length):
    torch.manual_seed(0)
    model, sound = Detector(8), np.random.default_rng(0).normal(0, 0.1, clip_samples(9) + 300).astype(np.float32)
    sound = sound[:2000] if length == 1 else sound
    whole = model.eval()(log_mel(sound[None])).sigmoid()[0].detach().numpy()
    listener = Listener(model)
    pieces = [listener.hear(sound[k:k + length]) for k in range(0, len(sound), length)]
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-5) and len(whole) == (3 if length == 1 else 9)
    heard = np.cumsum([len(p) for p in pieces])
    for k, n in enumerate(heard):  # each step is said as soon as its last sample is there
        assert n == sum(step_times(9) <= min((k + 1) * length, len(sound)) / RATE + 1e-9)


def test_noises_have_their_loudness_and_kind():
    for kind in NOISES:
        noise = make_noise(2 * RATE + 1, kind, np.random.default_rng(0), [TONE[:2000]])
        assert noise.shape == (2 * RATE + 1,) and np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-3)
    spectrum = lambda kind: np.abs(np.fft.rfft(make_noise(RATE, kind, np.random.default_rng(0)))) ** 2
    low = {kind: spectrum(kind)[:400].sum() / spectrum(kind).sum() for kind in ("white", "pink", "hum")}
    assert low["white"] < 0.15 and low["pink"] > 0.5 and low["hum"] > 0.8
    for kind in "brown", "babble":
        with pytest.raises(CourseError, match=f"The noise is '{kind}': 'white', 'pink', 'hum', 'babble' are known"):
            make_noise(100, kind, np.random.default_rng(0))


def test_words_do_not_overlap_and_find_room_where_there_is_some():
    lengths, rng = [300, 100, 200], np.random.default_rng(0)
    for n in 1000, 1500:  # in the first there is just room
        starts = np.array([random_starts(lengths, n, rng, gap=100) for _ in range(200)])
        ends = starts + lengths
        assert starts.min() >= 100 and ends.max() <= n - 100 and (starts[:, 1:] - ends[:, :-1] >= 100).all()
        assert len(np.unique(starts, axis=0)) == 1 if n == 1000 else len(np.unique(starts, axis=0)) > 50
    with pytest.raises(CourseError, match="3 words of 600 samples and gaps of 100 do not go into 999 samples"):
        random_starts(lengths, 999, rng, gap=100)


def test_words_are_as_loud_as_said():
    noise = make_noise(RATE, "white", np.random.default_rng(0))
    out = lay_over(0.3 * noise, [TONE[:2000], TONE[:1000]], [1000, 5000], [20, 0])
    alone = out - 0.3 * noise
    loud = lambda a: np.sqrt(np.mean(a**2))
    assert loud(alone[1000:3000]) == pytest.approx(3, rel=0.01)
    assert loud(alone[5000:6000]) == pytest.approx(0.3, rel=0.01)
    assert not alone[:1000].any() and not alone[3000:5000].any() and not alone[6000:].any()


def test_a_label_is_at_the_first_step_that_has_heard_the_end():
    times = step_times(30) * RATE
    for end in np.random.default_rng(0).integers(0, clip_samples(31), 200):
        labels, late = end_steps([end], 30), np.flatnonzero(times >= end)
        assert labels.nonzero()[0].tolist() == late[:1].tolist()
    assert end_steps([], 5).tolist() == [0] * 5 and end_steps([700, 710], 5).sum() == 1


def test_labels_are_widened_to_the_right():
    rng = np.random.default_rng(0)
    labels = torch.tensor((rng.random((5, 30)) < 0.1).astype(np.float32))
    for width in 1, 4:
        wide = widen(width)(None, labels)[1]
        slow = [[float(row[max(0, k - width + 1):k + 1].any()) for k in range(30)] for row in labels.numpy()]
        assert wide.tolist() == slow


def test_the_loss_weighs_ones():
    scores, labels = torch.zeros(1, 4), torch.tensor([[1., 0, 0, 0]])
    assert StepLoss(5.)(scores, labels).item() == pytest.approx(np.log(2) * 8 / 4)
    assert steps_right(torch.full((1, 4), -1.), labels).item() == 0.75


def test_events_are_where_the_threshold_is_reached_and_then_there_is_rest():
    assert find_events([0.6, 0.7, 0.1, 0.6], 0.6, rest=2) == [0, 3] and find_events([0.6, 0, 0.6], 0.6, rest=2) == [0]
    assert find_events([], 0.5) == [] and find_events([0.4] * 9, 0.5) == []


def test_as_many_events_are_matched_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(150):
        found, true = np.sort(rng.uniform(0, 4, rng.integers(0, 5))), np.sort(rng.uniform(0, 4, rng.integers(0, 4)))
        pairs = match_events(found, true)
        near = lambda i, j, found=found, true=true: -0.1 <= found[i] - true[j] <= 0.6
        assert all(near(i, j) for i, j in pairs)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        most = max((sum(j is not None and near(i, j) for i, j in enumerate(order))
                    for order in permutations([*range(len(true)), *[None] * len(found)], len(found))), default=0)
        assert len(pairs) == most


def test_counts_add_up_and_nothing_found_has_no_precision():
    probs, ends = np.zeros((3, 40)), [[step_times(40)[9]], [1.0], []]
    probs[0, [10, 30]] = probs[2, 4] = 0.9
    counts = event_counts(probs, ends, 0.5)
    assert counts.tolist() == [[1, 2, 1], [0, 0, 1], [0, 1, 0]]
    assert precision_recall(counts) == {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5}
    silent = precision_recall(event_counts(probs, ends, 0.95))
    assert np.isnan(silent["precision"]) and silent["recall"] == silent["f1"] == 0
    assert best_threshold(np.where(probs > 0, [[0.3], [0], [0.2]], 0), [[step_times(40)[9]], [], []]) > 0.2


def test_an_interval_draws_clips():
    words = np.full(300, 2)
    alike, mixed = np.repeat([0, 2], 150), np.ones(300)
    share, low, high = ratio_interval(alike, words)
    assert share == 0.5 and (high - low) / 2 == pytest.approx(1.96 * 0.5 / 300**0.5, rel=0.1)
    assert ratio_interval(mixed, words) == (0.5, 0.5, 0.5)
    for top, bottom in ([1, 2], [1]), ([0, 0], [0, 0]):
        with pytest.raises(CourseError, match="one for each clip, and more than 0 below"):
            ratio_interval(top, bottom)


def test_made_words_differ_and_each_time_a_little():
    rng = np.random.default_rng(0)
    sounds = [[made_word(word, 1, rng) for _ in range(4)] for word in range(10)]
    pictures = np.array([log_mel(one_length(own, 4000)).numpy().reshape(4, -1) for own in sounds])
    within, between = pictures.std(1).mean(), pictures.mean(1).std(0).mean()
    assert within > 0 and between > within
    again = made_word(3, 2, np.random.default_rng(5))
    assert np.array_equal(again, made_word(3, 2, np.random.default_rng(5))) and again.dtype == np.float32


def test_without_espeak_nothing_is_said_but_why(monkeypatch, capsys):
    monkeypatch.setattr(audio.shutil, "which", lambda name: None)
    assert espeak(["one"], "en-us") is None and "apt install espeak-ng" in capsys.readouterr().out


def test_what_espeak_writes_is_read_and_a_failure_is_a_sentence(monkeypatch):
    monkeypatch.setattr(audio.shutil, "which", lambda name: name)
    def says(command, **kwargs):
        assert command[:3] == ["espeak-ng", "-v", "de+f3"] and command[-2:] == ["--", "eins"]
        wavfile.write(command[command.index("-w") + 1], 2 * RATE, np.concatenate([np.zeros(500), TONE, np.zeros(500)]))
    monkeypatch.setattr(audio.subprocess, "run", says)
    sound, = espeak(["eins"], "de+f3")
    assert 3900 < len(sound) < 4100 and np.sqrt(np.mean(sound**2)) == pytest.approx(0.05)
    def fails(command, **kwargs):
        raise subprocess.CalledProcessError(1, command)
    monkeypatch.setattr(audio.subprocess, "run", fails)
    with pytest.raises(CourseError, match="espeak-ng can't say 'one' as 'xx'.*does espeak-ng --voices list that"):
        espeak(["one"], "xx")


# Fits that are cut off

def clips() -> Splits:
    "Noise in which a band rings now and then, and labels where it stops."
    rng, n_steps = np.random.default_rng(0), 12
    images, labels = rng.normal(0, 1, (30, n_steps * STEP, 32)).astype(np.float32), np.zeros((30, n_steps), np.float32)
    for i in range(30):
        k = rng.integers(1, n_steps - 1)
        images[i, (k - 1) * STEP:k * STEP, 8:12] += 4
        labels[i, k] = 1
    names = [f"{t:.2f} s" for t in step_times(n_steps)]
    return Splits("rings", images, labels, names, [f"{i}" for i in range(30)], *np.arange(30).reshape(3, 10), "rings")


def made(ws):
    "A detector, not fitted."
    torch.manual_seed(0)
    return learner(clips(), Detector(8), ws, bs=4, lr=1e-2, seed=0, task=trigger_task(2, 3.))


def quiet(learn, n_epochs=3):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(n_epochs, 1e-2)
    return learn


def test_an_interrupted_detector_goes_on_as_if_nothing_had_been(place, capsys):
    whole = quiet(made(place))
    assert whole.epochs[-1]["valid_loss"] < whole.epochs[0]["valid_loss"]
    whole.checkpoints.forget()
    interrupt(made(place), 5, fit=quiet)
    again = quiet(made(place))
    assert "it goes on from there" in capsys.readouterr().out and again.recorder.values == whole.recorder.values
    assert all(map(torch.equal, whole.model.state_dict().values(), again.model.state_dict().values()))


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_audio import made, quiet
from coursekit.workspace import setup
learn, n = made(setup("tiny")), [0]
one_batch = learn.one_batch
def counted(*a):
    n[0] += 1
    if n[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    one_batch(*a)
learn.one_batch, learn.checkpoint_seconds = counted, 0
quiet(learn)
torch.save(learn.model.state_dict(), sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_detector_ends_as_one_that_nobody_killed(tmp_path):
    def run(name, kill):
        env = {**os.environ, "COURSEKIT_RUNS": str(tmp_path / name), "COURSEKIT_CACHE": str(tmp_path / f"{name} cache")}
        out = tmp_path / f"{name}.pt"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, os.path.dirname(__file__), str(kill),
                               str(out)], env=env, capture_output=True, text=True)
        return done.returncode, out
    assert run("killed", 6)[0] == -signal.SIGKILL
    (code, again), (whole_code, whole) = run("killed", 0), run("whole", 0)
    assert code == whole_code == 0
    assert all(map(torch.equal, *(torch.load(path, weights_only=True).values() for path in (again, whole))))
