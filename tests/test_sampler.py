"Choosing, writing, showing and measuring, each against something known; samples in columns, and the widget."
import sys
from itertools import count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text import made, model_of

from coursekit.corpora import split_text
from coursekit.evaluate import char_losses, windows
from coursekit.files import CourseError
from coursekit.sampler import (
    copy_rate,
    generate,
    in_vocab_rate,
    nucleus,
    probability_strip,
    repetition,
    sampler_picture,
    sampler_widget,
    samples_side_by_side,
    shared_phrases,
    stream,
    text_metrics,
    tokenize_words,
    top_k,
    word_lists,
)
from coursekit.text import CharModel


def numbers(prompt, temperature, p, seed):
    "What it was asked, and then numbers without end."
    yield f" {prompt}|{temperature:g}|{p:g}|{seed} <"
    yield from map(str, count())


def test_samples_are_a_table_and_plain_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    samples_side_by_side({"<a>": "x < y", "b": "z"}, "made & shown")
    assert shown[0]["text/plain"] == "made & shown\n\n--- <a>\nx < y\n\n--- b\nz"
    assert all(part in shown[0]["text/html"] for part in ("made &amp; shown</caption>", "&lt;a&gt;</th>",
                                                          ">x &lt; y</pre>"))


def test_the_widget_writes_what_it_is_given():
    box = sampler_widget(numbers, n=12)
    prompt, (temperature, p), (seed, button), out = box.children[0], box.children[1].children, \
        box.children[2].children, box.children[3]
    assert [w.description for w in (prompt, temperature, p, seed, button)] == ["prompt", "temperature", "p", "seed",
        "write"] and not out.value
    button.click()
    assert "The  The |0.8|0.95|0 &lt;012345678910</pre>" in out.value
    prompt.value, temperature.value, p.value, seed.value = "<b>", 0.1, 0.05, 7
    button.click()
    assert "&lt;b&gt; &lt;b&gt;|0.1|0.05|7 &lt;012345678910</pre>" in out.value, "what it writes is text, not HTML"


def test_it_shows_the_text_as_it_grows():
    seen = []
    box = sampler_widget(numbers, n=25)
    box.children[3].observe(lambda change: seen.append(len(change.new)), "value")
    box.children[2].children[1].click()
    assert len(seen) == 3 and seen == sorted(seen), "after ten, twenty and all"


# Sampling

LOGITS = st.lists(st.one_of(st.floats(-20, 20), st.sampled_from([0., 1., -torch.inf])), min_size=1,
                  max_size=12).filter(lambda v: max(v) > -torch.inf)


@settings(deadline=None, max_examples=300)
@given(LOGITS, st.one_of(st.floats(1e-6, 1), st.just(1.)))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(values, p):
    logits = torch.tensor(values, dtype=torch.float64)
    probs, kept = logits.softmax(-1), nucleus(logits, p) > -torch.inf
    mass = probs[kept].sum().item()
    assert mass >= p - 1e-9 and torch.equal(nucleus(logits, p)[kept], logits[kept])
    if p < 1:
        assert mass - probs[kept].min().item() < p + 1e-9, "without its least likely it should be below p"
        assert kept.all() or probs[~kept].max() <= probs[kept].min(), "the likeliest are kept"
    else:
        assert torch.equal(kept, logits > -torch.inf)


@settings(deadline=None, max_examples=100)
@given(LOGITS, st.integers(1, 15))
def test_top_k_keeps_k(values, k):
    logits = torch.tensor(values)
    kept = top_k(logits, k) > -torch.inf
    assert kept.sum() == min(k, (logits > -torch.inf).sum()) and (kept.all() or logits[~kept].max()
                                                                  <= logits[kept].min())


def test_rows_are_cut_one_by_one_and_the_surest_character_is_always_kept():
    logits = torch.tensor([[10., 0., 0.], [0., 0., 0.]])
    assert (nucleus(logits, 0.5) > -torch.inf).tolist() == [[True, False, False], [True, True, False]]
    assert (nucleus(torch.tensor([0., 1000., 0.]), 1e-9) > -torch.inf).tolist() == [False, True, False]


class Fixed(CharModel):
    "A model that always gives the same scores."
    def __init__(self, logits):
        super().__init__(len(logits), n_hidden=2)
        self.logits = torch.tensor(logits)

    def forward(self, x, state=None):
        return self.logits.expand(*x.shape, -1), torch.zeros(1)


@pytest.mark.parametrize("temperature, keep",
                         [(1., None), (0.5, None), (2., None), (1., lambda logits: nucleus(logits, 0.8)),
                          (1., lambda logits: top_k(logits, 3))])
def test_frequencies_agree_with_the_distribution(temperature, keep):
    from scipy.stats import chisquare

    text = split_text("x", "abcde" * 100)
    logits = [9., 0.5, 1.5, -0.5, 0., 1.]  # the unknown mark would be likeliest and is never written
    samples = "".join(generate(Fixed(logits), text, "a", 200, temperature, keep, n_samples=100, seed=3))
    scores = torch.tensor([-torch.inf, *logits[1:]]) / temperature
    probs = (keep(scores) if keep else scores).softmax(-1)[1:]
    counts = np.array([samples.count(c) for c in "abcde"])
    possible = probs.numpy() > 0
    assert counts.sum() == 20_000 and (counts[~possible] == 0).all()
    assert chisquare(counts[possible], 20_000 * probs.double().numpy()[possible] / probs.double().sum().item()).pvalue \
        > 0.001


def test_writing_goes_on_from_the_state_and_the_seed_decides():
    text = made()
    model = model_of(text)
    once = generate(model, text, "the ", 60, n_samples=2, seed=1)
    assert once == generate(model, text, "the ", 60, n_samples=2, seed=1) != generate(model, text, "the ", 60,
        n_samples=2, seed=2)
    assert [len(s) for s in once] == [60, 60] and "".join(islice(stream(model, text, "the ", seed=5), 20)) \
        == generate(model, text, "the ", 20, seed=5)[0]
    greedy = generate(model, text, "the ", 30, keep=top_k)[0]
    ids = text.encode("the ")
    for c in greedy:  # the whole prefix read again for every character
        logits = model(torch.as_tensor(ids[None]))[0][0, -1]
        logits[0] = -torch.inf
        assert text.chars[logits.argmax()] == c
        ids = np.append(ids, text.stoi[c])


def test_unknown_characters_of_a_prompt_are_said(capsys):
    text = made()
    assert len(generate(model_of(text), text, "été", 5)[0]) == 5 and generate(model_of(text), text, "",
                                                                              5) == generate(model_of(text), text, "\n",
                                                                                  5)
    assert "'é' of the prompt is not in made and is read as the unknown mark" in capsys.readouterr().out


# Measures

def test_spelling_repetition_and_copying_of_known_texts():
    assert tokenize_words("Don't sing, O Été_2 'tis") == ["don't", "sing", "o", "été", "tis"]
    assert in_vocab_rate(["the cat zat on", "a mat cu"], {"the", "cat", "on", "a", "mat"}) == pytest.approx(4 / 5) \
        and np.isnan(in_vocab_rate(["..."], {"a"}))
    looping = "a b c d a b c d a b c d"
    assert repetition([[1, 2, 3] * 2]) == 0.25 and repetition([list("aaaa")], 1) == 0.75, "numbers of words do too"
    assert repetition(["a b c d e f g"]) == 0 and repetition([looping]) == pytest.approx(1 - 4 / 10) \
        == repetition([looping] * 20) and np.isnan(repetition(["a b"])) and repetition(["a b c", "a b c d"]) == 0
    assert shared_phrases([looping]) == 0 and shared_phrases([looping] * 20) == 1 and np.isnan(shared_phrases([])) \
        and shared_phrases(["a b c", "a b c d"]) == pytest.approx(2 / 3)
    assert copy_rate(["xxabcdexx"], "..abcde..", n=5) == pytest.approx(5 / 9) and copy_rate(["abcde"], "abcde",
        n=5) == 1 and copy_rate(["abc"], "abc", n=5) == 0


def test_the_list_of_english_words_is_an_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "spellchecker", None)
    assert list(word_lists(made())) == ["own words"] \
        and "There is no list of English words here (pip install pyspellchecker)" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "spellchecker")
    pytest.importorskip("spellchecker")
    lists = word_lists(made())
    assert {"cat", "mat"} <= lists["own words"] and {"ocean", "walked"} <= lists["English"] \
        and "xqzt" not in lists["English"]


def test_what_is_copied_is_found_and_what_is_not_is_not():
    text = made(20_000)
    source, rng = text.decode(text.train), np.random.default_rng(0)
    passages = [source[i:i + 500] for i in range(0, 10_000, 500)]
    letters = ["".join(rng.choice(list("abcdefgh "), 500)) for _ in passages]
    assert copy_rate(passages, source) == 1 and copy_rate(letters, source) == 0
    half = [a[:250] + b[:250] for a, b in zip(passages, letters)]
    assert copy_rate(half, source) == pytest.approx(0.5, abs=0.01)
    assert copy_rate([source[100:129]], source) == 0 and copy_rate([source[100:130]], source) == 1, "30 or more"


def test_prompts_of_their_own_are_read_side_by_side(capsys):
    text = made()
    model = model_of(text)
    alone = [generate(model, text, p, 30, keep=top_k)[0] for p in ("the cat ", "saw the ")]
    assert generate(model, text, ["the cat ", "saw the "], 30, keep=top_k) == alone
    assert generate(model, text, ["the "] * 3, 20, seed=4) == generate(model, text, "the ", 20, n_samples=3, seed=4)
    for prompts in ["the ", "sea"], [], ["", ""]:
        with pytest.raises(CourseError, match="each must have as many, and at least one"):
            generate(model, text, prompts, 3)
    generate(model, text, ["thé", "saw"], 3)
    assert "'é' of the prompt is not in made" in capsys.readouterr().out


def test_the_loss_of_a_sample_is_that_after_its_prompt():
    text = made()
    model, string = model_of(text), text.decode(text.valid[:120])
    after = text_metrics([string[20:]], text, model, {}, [string[:20]])["nats"]
    assert after == pytest.approx(char_losses(model, text.encode(string))[0, 19:].mean(), abs=1e-6)
    assert text_metrics([string], text, model, {})["nats"] == pytest.approx(char_losses(model,
        text.encode(string)).mean(), abs=1e-6)


def test_quality_and_windows():
    text = made()
    model, samples = model_of(text), [text.decode(text.train[i:i + 100]) for i in (0, 100)]
    found = text_metrics(samples, text, model, {"own words": set(tokenize_words(text.decode(text.train)))})
    assert found["spelt right (own words)"] > 0.9 and found["copied"] == 1 \
        and found["nats"] == pytest.approx(np.log(len(text.chars)), abs=0.3)
    assert windows(np.arange(10), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


@pytest.mark.parametrize("name, string", [("$^$.txt", "a $ and $^$ and \\frac{"), (r"\x$y$", "5 % of $10_0$"),
                                          ("_$1_$", "\\$ $_$ {}$^")])
def test_any_character_is_drawn_as_it_is(name, string):
    text = split_text(name, (string + "\n") * 200)
    figure = probability_strip(model_of(text), text, string)
    figure.canvas.draw()
    texts = [*figure.axes[0].texts, figure.axes[0].title]
    assert [t.get_text() for t in texts[:-1]] == list(string[1:]) and name in texts[-1].get_text() \
        and not any(t.get_parse_math() for t in texts)


def test_the_strip_of_probabilities_has_a_cell_for_each_character():
    text = made()
    figure = probability_strip(model_of(text), text, text.decode(text.valid[:100]))
    assert len(figure.axes[0].texts) == 99 and figure.axes[0].images[0].get_array().shape == (2, 60)


def test_the_picture_shows_what_the_widget_would_write():
    figure = sampler_picture(numbers, "the $x$ ", 0.5, 0.75, 3, n=12, width=30)
    shown = [t.get_text() for t in figure.axes[0].texts]
    assert shown[:-1] == ["prompt", "the $x$ ", "seed", "3", "temperature", "0.5", "p", "0.75"]
    assert "".join(shown[-1].split("\n")).replace(" ", "") == "the$x$the$x$|0.5|0.75|3<012345678910"
    assert max(map(len, shown[-1].split("\n"))) <= 30
    figure.canvas.draw()
