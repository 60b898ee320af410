"A model of tokens, and ways to write with it."
from functools import partial

import numpy as np
import pytest
import torch

from coursekit.corpora import split_text
from coursekit.evaluate import char_losses
from coursekit.files import CourseError
from coursekit.language import TokenModel, beam_search, sample_tokens
from coursekit.sampler import nucleus

TEXT = split_text("letters", "the cat sat on the mat. " * 20)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TokenModel(len(TEXT.chars), 10, 2, n_embed=6)


def test_a_carried_state_equals_one_pass(model):
    x = torch.as_tensor(TEXT.train[None, :50])
    first, state = model.eval()(x[:, :20])
    assert state.shape == (2, 2, 1, 10)
    assert torch.allclose(torch.cat([first, model(x[:, 20:], state)[0]], 1), model(x)[0], atol=1e-5)


def test_vectors_are_frozen_or_tuned():
    vectors = np.ones((5, 3))
    frozen, tuned = (TokenModel(5, 4, n_embed=3, vectors=vectors, tuned=t) for t in (False, True))
    assert not frozen.embed.weight.requires_grad and tuned.embed.weight.requires_grad
    assert (tuned.embed.weight == 1).all()
    with torch.no_grad():
        tuned.embed.weight += 1
    assert (vectors == 1).all(), "the vectors that were given stay as they are"
    for settings, why in ({"vectors": np.ones((4, 3)), "n_embed": 3}, "one for each token"), \
            ({"n_hidden": 0}, "at least"), ({"dropout": 1}, "dropout"):
        with pytest.raises(CourseError, match=why):
            TokenModel(5, **settings)


def test_losses_are_those_of_one_pass(model):
    losses = char_losses(model, TEXT.train[:60])[0]
    logits = model.eval()(torch.as_tensor(TEXT.train[None, :59]))[0][0]
    assert np.allclose(losses, torch.nn.functional.cross_entropy(logits, torch.as_tensor(TEXT.train[1:60]),
                                                                 reduction="none").detach(), atol=1e-5)
    with pytest.raises(CourseError, match="two or more"):
        char_losses(model, TEXT.train[:1])


class Chain(torch.nn.Module):
    "After `a`: b with 0.6, c with 0.4; after b anything with 0.25; after c always d."
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(1, 5)

    def forward(self, x, state=None):
        table = torch.tensor([[1e-9] * 5, [1e-9, 1e-9, 0.6, 0.4, 1e-9], [1e-9, 0.25, 0.25, 0.25, 0.25],
                              [1e-9, 1e-9, 1e-9, 1e-9, 1.], [1e-9, 1., 1e-9, 1e-9, 1e-9]]).log()
        return table[x], torch.zeros(2, 1, len(x), 1)


def test_a_beam_finds_what_greedy_misses():
    text = split_text("abcd", "abcd" * 50)
    greedy, wide = (beam_search(Chain(), text, "a", 2, width) for width in (1, 3))
    assert text.decode(greedy[0][0])[0] == "b" and text.decode(wide[0][0]) == "cd"
    assert [beams[0][1] for beams in (wide, greedy)] == pytest.approx([-np.log(0.4), -np.log(0.15)], abs=1e-3)
    assert [nats for _, nats in wide] == sorted(nats for _, nats in wide)
    with pytest.raises(CourseError, match="whole number above 0"):
        beam_search(Chain(), text, "a", 2, 0)


def test_tokens_are_drawn_from_what_is_kept():
    text = split_text("abcd", "abcd" * 50)
    drawn = sample_tokens(Chain(), text, "a", 1, keep=partial(nucleus, p=0.5), n_samples=50)
    assert {text.decode(s) for s in drawn} == {"b"}, "b alone reaches a half"
    both = sample_tokens(Chain(), text, "a", 1, keep=partial(nucleus, p=0.9), n_samples=200)
    assert {text.decode(s) for s in both} == {"b", "c"} and 0.45 < np.mean([text.decode(s) == "b" for s in both]) < 0.75
    with pytest.raises(CourseError, match="above 0 is expected"):
        sample_tokens(Chain(), text, "a", 1, temperature=0)
    with pytest.raises(CourseError, match="at least one token"):
        sample_tokens(Chain(), text, "", 1)


def test_the_unknown_mark_is_never_written(model):
    with torch.no_grad():
        model.out.bias[0] = 50
    assert not any(0 in s for s in sample_tokens(model, TEXT, n=20, n_samples=3, prompt="the"))
    assert not any(0 in beam for beam, _ in beam_search(model, TEXT, "the", 5, 4))
