"Figures: what they show, read back from their axes."
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import runs_of

from coursekit.ablate import network
from coursekit.datasets import cifar10
from coursekit.plots import plot_comparison, plot_curves, plot_dots, plot_gaps, plot_networks, plot_top_losses
from coursekit.stats import wilson_interval

FIRST = "norm act pool drop"
SMALL = {"widths": [8, 16], "n_hidden": 16}


def test_mistakes_are_the_surest_wrong_ones(ws):
    splits = cifar10(ws)
    preds = np.full((len(splits.valid), 10), 0.01)
    preds[np.arange(len(preds)), splits.labels[splits.valid]] = 0.9
    preds[3, (splits.labels[splits.valid[3]] + 1) % 10] = 0.95
    figure = plot_top_losses(splits, preds)
    assert "95%" in figure.axes[0].get_title() and not figure.axes[1].get_title() \
        and (figure.axes[0].images[0].get_array() == splits.images[splits.valid[3]]).all()


@pytest.mark.parametrize("name", ["$^$", r"\frac{$x$}", "_$1_$", "a$b$ & 5 %"])
def test_a_class_may_have_any_name(name, ws):
    splits = replace(cifar10(ws), name=name, classes=[name] * 10)
    preds = np.full((len(splits.valid), 10), 0.01)
    preds[:, 0] = 0.95
    figure = plot_top_losses(splits, preds)
    figure.canvas.draw()
    texts = [figure.axes[0].title, figure._suptitle]
    assert texts[0].get_text() == f"{name} 95%\n(is {name})" and name in texts[1].get_text() \
        and not any(t.get_parse_math() for t in texts), "drawn as it is"


def test_curves_have_a_band_from_the_lowest_to_the_highest():
    fig, ax = plt.subplots()
    plot_curves(runs_of([0.6, 0.7, 0.8]), ax)
    low, high = (f(ax.collections[0].get_paths()[0].vertices[:, 1]) for f in (min, max))
    assert (low, high) == pytest.approx((0.5, 0.8)) and ax.lines[0].get_ydata().tolist() == pytest.approx([0.6, 0.7]) \
        and ax.get_xlabel() == "epoch"
    plt.close(fig)


def test_dots_have_intervals_and_references():
    fig, (one, three) = plt.subplots(1, 2)
    plot_dots(runs_of([0.6, 0.7]), 200, one, references={"a": 0.73})
    assert np.ravel(one.lines[0].get_xdata()).tolist() == pytest.approx(list(wilson_interval(120, 200))) \
        and one.lines[-1].get_xdata()[0] == 0.73
    assert len(one.lines) == 2 * 2 + 1, "no interval over two seeds"
    plot_dots(runs_of([0.6, 0.7, 0.8]), 200, three)
    half = 4.302653 * 0.1 / 3**0.5
    assert three.lines[-1].get_xdata() == pytest.approx([0.7 - half, 0.7 + half]) and "200 images" in three.get_title()
    plt.close(fig)


def test_gaps_are_in_points_and_names_go_down():
    fig, ax = plt.subplots()
    plot_gaps(pd.concat([runs_of([0.6]), runs_of([0.95], "b")]), ax)
    assert [t.get_text() for t in ax.texts] == ["+30", "-5"] and [t.get_text() for t in ax.get_yticklabels()] == ["a",
        "b"] and ax.get_yticks().tolist() == [0, -1]
    plt.close(fig)


def test_a_drawing_shows_layers_sizes_and_shortcuts():
    fig = plot_networks({"plain": network(norm="layer", dropout=0.25),
                         "around": network(norm="group", order=FIRST, skip="projection", pool="strided",
                                           head="average")})
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert "plain\n551,722 parameters, 78 MFLOPs" in texts and texts.count("1 x 1 convolution") == 2 \
        and {".25", "max", "avg", "L", "G", "+", "64\n/2"} <= set(texts)


@pytest.mark.parametrize("name", ["$^$", r"\frac{$x$}", "_$1_$", "lr=$10^{-3$"])
def test_a_run_may_have_any_name(name):
    figure = plot_comparison(pd.concat([runs_of([0.6, 0.7, 0.8], name), runs_of([0.5], "_other")], ignore_index=True),
                             200, f"{name} and others")
    figure.canvas.draw()
    legend, ticks = figure.axes[0].get_legend().get_texts(), figure.axes[1].get_yticklabels()
    assert [t.get_text() for t in legend] == [t.get_text() for t in ticks] == [name, "_other"]
    drawing = plot_networks({name: network(**SMALL)})
    drawing.canvas.draw()
    row = next(t for t in drawing.axes[0].texts if "parameters" in t.get_text())
    assert row.get_text().startswith(f"{name}\n") and not any(t.get_parse_math()
                                                              for t in [*legend, *ticks, row, figure._suptitle]), \
                                                                  "drawn as they are"
