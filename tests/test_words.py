"Lesson 07: fits on words with vectors of others, and autocomplete."
import numpy as np
import pytest
import torch

from coursekit import vocabulary
from coursekit.corpora import dickinson, split_text
from coursekit.files import CourseError
from coursekit.vocabulary import glove, in_words
from coursekit.words import TokenModel, autocomplete_widget, suggest, train_tokens


@pytest.fixture(autouse=True)
def made_vectors(monkeypatch):
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)


def test_vectors_stay_or_move_as_was_asked(ws):
    text = in_words(dickinson(ws), most=50)
    given = glove(ws).of(text)[0]
    fits = {how: train_tokens(text, ws, 0, 1, 16, 16, 1e-2, how, n_hidden=6).model.embed.weight.detach().numpy()
            for how in ("random", "frozen", "tuned", "shuffled", "shuffled frozen")}
    assert np.array_equal(fits["frozen"], given) and not np.array_equal(fits["tuned"], given)
    other = fits["shuffled frozen"]
    assert not np.array_equal(other, given) and sorted(map(tuple, other)) == sorted(map(tuple, given))
    near = {how: np.abs(fits[how] - given).mean() for how in fits}
    assert near["tuned"] < min(near["shuffled"], near["random"]) / 3
    with pytest.raises(CourseError, match="'random', 'frozen', 'tuned', 'shuffled' or"):
        train_tokens(text, ws, 0, 1, 16, 16, 1e-2, "glove")


def test_what_is_proposed_begins_as_was_typed():
    text = in_words(split_text("x", "the cat sat on the mat, the cow saw the cat.\n" * 20))
    torch.manual_seed(0)
    model = TokenModel(len(text.chars), 8)
    assert {w for w, _ in suggest(model, text, "the c")} == {"cat", "cow"} and suggest(model, text, "the xq") == []
    assert sum(p for _, p in suggest(model, text, "The c")) == pytest.approx(1, abs=1e-5)
    after, start = suggest(model, text, "the "), suggest(model, text, "")
    assert len(after) == len(start) == 3 and all(w[0].isalpha() for w, _ in after + start)
    assert [p for _, p in after] == sorted((p for _, p in after), reverse=True)


def test_a_tap_takes_the_word():
    box = autocomplete_widget(lambda string: [(f"{string.split(' ')[-1]}x", 0.5), ("two", 0.3)], "my l")
    line, buttons = box.children[0], box.children[1].children
    assert [b.description for b in buttons] == ["lx", "two", ""]
    buttons[0].click()
    assert line.value == "my lx "
    buttons[2].click()
    assert line.value == "my lx " and buttons[0].description == "x"
    line.value = ""
    assert buttons[1].description == "two"
