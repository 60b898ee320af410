"Spoken digits, clips with a trigger word and synthetic languages: who is in which part, and what the labels say."
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import wavfile

from coursekit import sound
from coursekit.audio import RATE, clip_samples, step_times
from coursekit.files import CourseError
from coursekit.sound import (
    DIGITS,
    VARIANTS,
    digit_splits,
    fsdd,
    sentences,
    synthetic_digits,
    trigger_clips,
    trigger_fold,
    trigger_splits,
    without_speaker,
)
from coursekit.workspace import setup


@pytest.fixture
def spoken(ws):
    "Six made voices, six takes of each word."
    return fsdd(ws)


def write(folder, names):
    "WAVs whose loudest sample tells the digit."
    folder.mkdir(parents=True)
    for name in names:
        wave = np.sin(np.arange(3000) / 3) * (int(name[0]) + 1) / 20 if name[0].isdigit() else np.zeros(9)
        wavfile.write(folder / name, RATE, wave.astype(np.float32))


def test_a_copy_of_ones_own_is_read_by_its_names(tmp_path):
    names = [f"{word}_{who}_{take}.wav" for word in range(10) for who in ("ann", "bob") for take in (0, 7, 11, 30)]
    write(tmp_path / "data" / "fsdd" / "recordings", [*names, "notes_to_self.wav", "x_ann_1.wav"])
    with pytest.warns(UserWarning, match="holds 80 recordings and version 1.0.10 has 3,000"):
        own = fsdd(setup("quick", data=tmp_path / "data"))
    assert len(own.sounds) == 80 and not own.stand_in and set(own.speakers) == {"ann", "bob"}
    assert all(abs(np.abs(s).max() - (w + 1) / 20) < 1e-3 for s, w in zip(own.sounds, own.words))
    assert sorted(set(own.takes)) == [0, 7, 11, 30]
    few = fsdd(setup("tiny", data=tmp_path / "data"))
    assert sorted(set(few.takes)) == [0, 11] and not few.stand_in, "tiny takes a part of the real ones"


def test_a_folder_without_recordings_is_a_sentence(tmp_path):
    write(tmp_path / "data" / "fsdd", ["notes_to_self.wav"])
    with pytest.raises(CourseError, match="holds no recordings: files such as 7_jackson_32.wav"):
        fsdd(setup("quick", data=tmp_path / "data"))


def test_without_data_voices_are_made_and_say_so(spoken, ws):
    assert spoken.stand_in == "made voices" and len(spoken.sounds) == 360
    s = digit_splits(spoken, ws)
    assert "stand-in for Free Spoken Digit Dataset (made voices)" in s.title and s.images.shape == (360, 61, 32)


def test_the_usual_test_has_everybody_in_every_part(spoken, ws):
    s = digit_splits(spoken, ws)
    for part, takes in (("test", {0}), ("valid", {5}), ("train", {10, 11, 12, 13})):
        idx = getattr(s, part)
        assert set(spoken.takes[idx]) == takes and len(set(spoken.speakers[idx])) == 6
        assert set(s.labels[idx]) == {*range(10)}
    assert s.files[s.test[0]] == "0_voice 0_0" and (s.labels == spoken.words).all()


def test_a_speaker_left_out_is_nowhere_else(spoken, ws):
    s = digit_splits(spoken, ws)
    out = without_speaker(s, spoken.speakers, "voice 2")
    assert set(spoken.speakers[out.test]) == {"voice 2"} and len(out.test) == 60
    for part in out.train, out.valid:
        assert len(set(spoken.speakers[part])) == 5 and "voice 2" not in spoken.speakers[part]
    assert set(out.train) <= set(s.train) and set(out.valid) <= set(s.valid) and out.title != s.title
    with pytest.raises(CourseError, match="There is no speaker 'jackson': choose from voice 0, voice 1"):
        without_speaker(s, spoken.speakers, "jackson")


def test_labels_follow_the_trigger_word(spoken):
    which = np.flatnonzero(spoken.speakers == "voice 1")
    sounds, labels, spans = trigger_clips(spoken, which, 4, 30, seed=3)
    assert sounds.shape == (30, clip_samples(78)) and labels.shape == (30, 78) and sounds.dtype == np.float32
    times, seen = step_times(78), 0
    for row, words in zip(labels, spans):
        ends = [end for _, end, word in words if word == 4]
        late = [np.flatnonzero(times >= end - 1e-9)[:1] for end in ends]
        assert row.nonzero()[0].tolist() == sorted({int(k[0]) for k in late if len(k)})
        assert 2 <= len(words) <= 4 and all(b[0] >= a[1] for a, b in zip(words, words[1:])) and words[-1][1] < times[-1]
        seen += len(ends)
    assert 15 < seen < 50
    again = trigger_clips(spoken, which, 4, 30, seed=3)
    assert np.array_equal(again[0], sounds)
    assert not np.array_equal(trigger_clips(spoken, which, 4, 30, seed=4)[0], sounds)


def test_words_too_long_are_left_out_and_none_left_is_a_sentence(spoken):
    long = replace(spoken, sounds=[np.tile(s, 9) if w == 4 else s for s, w in zip(spoken.sounds, spoken.words)])
    with pytest.raises(CourseError, match="There are 0 recordings of 4 and 324 of other words"):
        trigger_clips(long, range(360), 4, 2, seed=0)
    with pytest.raises(CourseError, match="There are 36 recordings of 4 and 0 of other words"):
        trigger_clips(spoken, np.flatnonzero(spoken.words == 4), 4, 2, seed=0)


def test_clips_to_train_on_and_to_test_on_share_no_recording(spoken, ws, monkeypatch):
    drawn = []
    def noted(spoken, which, *args, **kwargs):
        drawn.append(which)
        return trigger_clips(spoken, which, *args, **kwargs)
    monkeypatch.setattr(sound, "trigger_clips", noted)
    splits, who, sounds, spans = trigger_splits(spoken, ws, 7, n_train=3, n_test=2)
    assert len(drawn) == 12 and all(len(set(spoken.speakers[which])) == 1 for which in drawn)
    assert not set(np.concatenate(drawn[::2])) & set(np.concatenate(drawn[1::2]))
    assert splits.images.shape == (30, 312, 32) and splits.labels.shape == (30, 78) and len(spans) == len(sounds) == 30
    assert set(spoken.takes[drawn[0]]) == {10, 11, 12, 13} and set(spoken.takes[drawn[1]]) == {0, 5}
    for part, n in (("train", 3), ("valid", 1), ("test", 1)):
        assert [sum(who[getattr(splits, part)] == f"voice {k}") for k in range(6)] == [n] * 6


def test_a_known_speaker_takes_the_place_of_another(spoken, ws):
    splits, who, _, _ = trigger_splits(spoken, ws, 7, n_train=3, n_test=2)
    for name in "voice 0", "voice 5":
        unknown, known = (trigger_fold(splits, who, name, is_known) for is_known in (False, True))
        assert np.array_equal(unknown.test, known.test) and np.array_equal(unknown.valid, known.valid)
        assert set(who[unknown.test]) == {name} and len(unknown.test) == len(unknown.valid) == 2
        assert len(unknown.train) == len(known.train) == 12 and name not in who[unknown.train]
        assert name in who[known.train] and len(set(who[known.train])) == len(set(who[unknown.train])) == 4
        judge, = set(who[unknown.valid])
        assert judge not in who[known.train] and judge not in who[unknown.train] and judge != name
        assert not set(known.train) & set(known.test) and unknown.title != known.title


def test_synthetic_voices_are_named_and_missing_ones_are_none(monkeypatch):
    asked = []
    def says(texts, voice, speed, pitch):
        asked.append((voice, speed, pitch))
        return [np.full(100 + len(text), 0.1, np.float32) for text in texts]
    monkeypatch.setattr(sound, "espeak", says)
    made = synthetic_digits({"m1": "train", "f5": "new voice"})
    assert len(made.sounds) == 80 and set(made.speakers) == {f"{lang}/{v}" for lang in DIGITS for v in ("m1", "f5")}
    assert [voice for voice, _, _ in asked[:3]] == ["en-us+m1", "en-us+f5", "de+m1"] and len(set(asked)) == 8
    assert all(len(texts.split()) == 10 for _, texts in DIGITS.values())
    assert set(VARIANTS.values()) == {"train", "valid", "new voice", "new engine"}
    monkeypatch.setattr(sound, "espeak", lambda *a: None)
    assert synthetic_digits() is None


def test_sentences_are_of_one_speaker_and_run_backwards(spoken):
    one = sentences(spoken, "voice 3", 3, seed=1)
    assert one.shape == (3, 2 * RATE) and one.dtype == np.float32
    assert np.allclose(sentences(spoken, "voice 3", 3, seed=1, backwards=True), one[:, ::-1], atol=1e-6)
    assert not np.allclose(sentences(spoken, "voice 4", 3, seed=1), one)
    assert np.sqrt(np.mean(one[0] ** 2)) == pytest.approx(0.05, rel=1e-3)
