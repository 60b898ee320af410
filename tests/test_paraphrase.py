"Synonyms and back-translation, which are optional."
import subprocess

import numpy as np
import pytest

from coursekit import paraphrase
from coursekit.corpora import split_text
from coursekit.files import CourseError
from coursekit.paraphrase import back_translate, with_more, with_synonyms, wordnet
from coursekit.vocabulary import in_words
from coursekit.workspace import setup

LICENSE = "  1 This software and database is provided as is\n"
DATA = {"noun": "00000010 03 n 02 dog 0 domestic_dog 0 001 @ 00000000 n 0000 | an animal\n"
                "00000020 03 n 03 big_deal 0 Fuss 0 to-do 0 000 | trouble\n"
                "00000030 03 n 02 hound 0 dog 0 000 | to hunt\n",
        "verb": "00000040 29 v 02 dog 0 chase 0 000 01 + 02 00 | to follow\n", "adv": "",
        "adj": "00000050 00 a 03 large(a) 0 big 0 Great 1 000 | above average\n"}
INDEX = {"noun": "big_deal n 1 0 1 0 00000020\ndog n 2 1 @ 2 2 00000010 00000030\nfuss n 1 0 1 0 00000020\n",
         "verb": "dog v 1 1 @ 1 1 00000040\n", "adv": "", "adj": "big a 1 0 1 1 00000050\nxy a 1 0 1 1 00000050\n"}


def write(folder):
    folder.mkdir(parents=True)
    for part in DATA:
        (folder / f"data.{part}").write_text(LICENSE + DATA[part])
        (folder / f"index.{part}").write_text(LICENSE + INDEX[part])


def test_synonyms_are_of_the_part_of_speech_that_is_most_used(tmp_path):
    ws = setup("tiny", data=tmp_path)
    write(ws.data / "wordnet")
    assert wordnet(ws) == {"dog": ["hound"], "big": ["great", "large"]}
    assert "dog" not in wordnet(ws, n_meanings=1), "its first meaning has no other single word"


def test_a_broken_wordnet_is_a_sentence(tmp_path):
    ws = setup("tiny", data=tmp_path)
    write(ws.data / "wordnet")
    (ws.data / "wordnet" / "index.noun").write_text("dog n 1 1 @ 1 1 00000099\n")
    with pytest.raises(CourseError, match="can't be read as WordNet"):
        wordnet(ws)


def test_what_is_not_here_is_said(ws, monkeypatch, capsys):
    monkeypatch.setattr(paraphrase.Path, "is_file", lambda path: False)
    monkeypatch.setattr(paraphrase.shutil, "which", lambda name: None)
    assert wordnet(ws) is None and back_translate(["a line"]) is None
    said = capsys.readouterr().out
    assert "WordNet is not here" in said and "Apertium is not here" in said


def test_words_are_replaced_as_often_as_asked():
    tokens = ["big", "cat"] * 500
    new = with_synonyms(tokens, {"big": ["large", "great"]}, 0.25)
    assert len(new) == 1000 and new[1::2] == ["cat"] * 500
    assert 0.18 < np.mean([w != "big" for w in new[::2]]) < 0.32 and {"large", "great"} <= set(new)
    assert with_synonyms(tokens, {"big": ["large"]}, 1, known={"great"}) == tokens
    with pytest.raises(CourseError, match="from 0 to 1"):
        with_synonyms(tokens, {}, 2)


def test_lines_go_there_and_back(monkeypatch):
    def translate(command, input, **kwargs):
        lines = input.rstrip("\n").split("\n\n")
        return subprocess.CompletedProcess(command, 0, "\n\n".join(f"{line}!" for line in lines) + "\n")
    monkeypatch.setattr(paraphrase.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(paraphrase.subprocess, "run", translate)
    assert back_translate(["one", "", "two\nthree"]) == ["one!!", "", "two three!!"]
    monkeypatch.setattr(paraphrase.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "one"))
    with pytest.raises(CourseError, match="gave 1 lines for 2"):
        back_translate(["one", "two"])

    def fails(*args, **kwargs):
        raise subprocess.CalledProcessError(1, "apertium")
    monkeypatch.setattr(paraphrase.subprocess, "run", fails)
    with pytest.raises(CourseError, match="is apertium-eng-spa installed"):
        back_translate(["one"])


def test_more_text_keeps_what_it_is_judged_by():
    text = in_words(split_text("x", "the cat sat on the mat.\n" * 40))
    more = with_more(text, ["the", "lynx", "sat"])
    assert more.decode(more.train[-3:]) == "the \ufffd sat" and len(more.train) == len(text.train) + 3
    assert (more.valid == text.valid).all() and more.chars == text.chars and more.fingerprint != text.fingerprint
