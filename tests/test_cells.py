"Cells of an LSTM, and what they are held against."
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from coursekit.cells import cell_states, correlations, find_cell, indentation, inside_quotes, line_position, plot_cell
from coursekit.files import CourseError
from coursekit.language import TokenModel


def test_the_cells_are_those_of_the_network():
    torch.manual_seed(0)
    model, ids = TokenModel(7, 5, 2), np.arange(21) % 7
    states = cell_states(model, ids, 1)
    with torch.no_grad():
        _, state = model.eval()(torch.as_tensor(ids[None]))
    assert states.shape == (21, 10) and np.allclose(states[-1], torch.tanh(state[1, :, 0]).flatten(), atol=1e-5)
    assert cell_states(model, ids, 2).shape == (20, 10)
    with pytest.raises(CourseError, match="two or more for each"):
        cell_states(model, ids, 20)


def test_what_stands_inside_quotes():
    source = "a = 'it\\'s' + \"b's\"  # isn't\nc = '''x\n'y' '''\nd = 1"
    inside = "".join(c for c, q in zip(source, inside_quotes(source)) if q)
    assert inside == "'it\\'s'\"b's\"'''x\n'y' '''"


@pytest.mark.parametrize("string", ["", "a", "\n", "ab\n", "\n\nabc", "  a\n    b\n"])
def test_positions_have_a_number_for_each_character(string):
    assert len(line_position(string)) == len(indentation(string)) == len(inside_quotes(string)) == len(string)
    lines = string.split("\n")
    assert line_position(string).tolist() == [i for line in lines for i in range(len(line) + 1)][:len(string)]


def test_a_cell_is_judged_on_other_text():
    rng = np.random.default_rng(0)
    states, truth = rng.normal(size=(3000, 50)), rng.normal(size=3000)
    states[:, 3] = 0  # a cell that never changes
    assert correlations(states, truth)[3] == 0
    states[:1000, 8] -= 3 * truth[:1000]  # knows it in the first part only
    found = find_cell(states[:1000], truth[:1000], states[1000:], truth[1000:])
    assert found["cell"] == 8 and found["picked"] < -0.9 and abs(found["held_out"]) < 0.1
    assert correlations(states, states[:, 5])[5] == pytest.approx(1)
    with pytest.raises(CourseError, match="the same tokens"):
        correlations(states, truth[:5])


def test_the_picture_has_every_character():
    string = "a$b = 1\n\n" + "x" * 100
    fig = plot_cell(string, np.linspace(-1, 1, len(string)), "a $title", per_row=40)
    ax = fig.axes[0]
    assert "".join(t.get_text() for t in ax.texts) == string.replace("\n", "")
    assert np.isfinite(ax.images[0].get_array().filled(np.nan)).sum() == len(string.replace("\n", ""))
    assert not plt.get_fignums()
