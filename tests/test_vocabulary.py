"Words: tokens and back, texts in words, losses that can be compared, and vectors that others trained."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit import vocabulary
from coursekit.corpora import UNKNOWN, split_text
from coursekit.files import CourseError
from coursekit.vocabulary import (
    glove,
    in_plain_characters,
    in_words,
    losses_by_word,
    per_character,
    spaced,
    speller,
    spelt,
    tokenize,
    untokenize,
)
from coursekit.workspace import setup

RHYME = split_text("a rhyme", "The cat sat on the mat; the dog didn't.\n" * 30 + "A zebra, 30!\n" * 20, (0.8, 0.1, 0.1))


@settings(max_examples=60, deadline=None)
@given(st.text("abé'’ .,;(\n3_-\"", max_size=40))
def test_there_and_back_again_a_string_stays(string):
    tokens = tokenize(string)
    assert tokenize(untokenize(tokens)) == tokens and "".join(spaced(tokens)) == untokenize(tokens)


def test_a_text_in_words_has_the_same_parts():
    text = in_words(RHYME)
    assert text.chars[0] == UNKNOWN and text.chars[1] == "the" and "zebra" not in text.chars[:5]
    assert text.decode(text.train[:5]) == "the cat sat on the" and text.encode("ZEBRA xyz").tolist()[1] == 0
    assert [len(text.tokens[p]) for p in text.parts] == [len(text.train), len(text.valid), len(text.test)]
    assert len(in_words(RHYME, most=3).chars) == 4 and in_words(RHYME, most=3).fingerprint != text.fingerprint
    plain = in_plain_characters(text)
    assert plain.decode(plain.train) == untokenize(text.tokens["train"]) and len(plain.chars) < 30
    with pytest.raises(CourseError, match="No word stands 900 times"):
        in_words(RHYME, min_count=900)


def test_a_stand_in_stays_one(ws):
    from coursekit.corpora import dickinson
    assert in_words(dickinson(ws)).title.startswith("stand-in for Emily Dickinson poems, in words (")


def test_a_loss_by_word_is_charged_for_spelling():
    text = in_words(RHYME)
    n = len(text.test) - 1
    judged, whole = per_character(np.ones(n), text, "test"), spelt(np.ones(n), text, "test")
    unknown = np.array([t not in text.stoi for t in text.tokens["test"][1:]])
    assert (whole[unknown] > 2).all() and (whole[~unknown] == 1).all() and judged["unknown"] == unknown.mean() > 0
    n_chars = len(untokenize(text.tokens["test"])) - len(text.tokens["test"][0])
    assert judged["nats a character"] == pytest.approx(whole.sum() / n_chars)
    assert judged["perplexity"] == pytest.approx(np.e)
    for wrong in spelt, losses_by_word:
        with pytest.raises(CourseError, match="but the first is expected"):
            wrong(np.ones(n + 1000), text, "test")


def test_the_speller_is_a_distribution():
    import itertools
    nats = speller(["ab", "ba", "b"])
    total = sum(np.exp(-nats("".join(w))) for n in range(7) for w in itertools.product("ab", repeat=n))
    assert 0.7 < total < 1


def test_losses_by_word_are_sums_of_their_characters():
    text = in_words(RHYME)
    string = untokenize(text.tokens["valid"])
    losses = np.arange(1., len(string))
    sums = losses_by_word(losses, text)
    assert len(sums) == len(text.valid) - 1 and sums.sum() == losses[len(text.tokens["valid"][0]) - 1:].sum()
    assert sums[0] == losses[len(text.tokens["valid"][0]) - 1:][:len(spaced(text.tokens["valid"])[1])].sum()


def test_vectors_are_read_from_a_copy_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    (tmp_path / "glove.6B.50d.txt").write_text("the 1 0\ncat 0.8 0.6\nsat 0 1\n", encoding="utf-8")
    found = glove(setup("tiny", data=tmp_path), 3)
    assert found.words == ["the", "cat", "sat"] and found.vectors.dtype == np.float32
    assert [w for w, _ in found.nearest("the")] == ["cat", "sat"] and "stand-in" not in found.name
    matrix, there = found.of(in_words(RHYME))
    text = in_words(RHYME)
    assert there[text.stoi["cat"]] and not there[0] and np.allclose(matrix[text.stoi["cat"]], [0.8, 0.6])
    assert len(glove(setup("tiny", data=tmp_path), 2).words) == 2
    with pytest.raises(CourseError, match="no vector for 'Cat'"):
        found.nearest("Cat")
    with pytest.raises(CourseError, match="n is 0"):
        glove(setup("tiny", data=tmp_path), 0)
    (tmp_path / "glove.6B.50d.txt").write_text("the 1 0\ncat oops\n")
    with pytest.raises(CourseError, match="can't be read as word vectors"):
        glove(setup("tiny", data=tmp_path))


def test_vectors_are_read_from_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    np.savez(tmp_path / "glove_50k_fp16.npz", words=np.array(["a", "b"]), vectors=np.eye(2, dtype=np.float16))
    assert glove(setup("tiny", data=tmp_path)).words == ["a", "b"]


def test_vectors_are_made_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    ws = setup("tiny", data=tmp_path)
    made = glove(ws, 300)
    assert made.name.startswith("stand-in for GloVe") and made.vectors.shape == (300, 50)
    assert (glove(ws, 300).vectors == made.vectors).all()
    (ws.data / "glove.6B").mkdir(parents=True)
    (ws.data / "glove.6B" / "other.txt").write_text("x")
    with pytest.raises(CourseError, match="has no glove.6B.50d.txt"):
        glove(ws)
