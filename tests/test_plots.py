"Figures: what they show, read back from their axes."
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import runs_of

from coursekit.ablate import network
from coursekit.datasets import cifar10, hippocampus
from coursekit.files import CourseError
from coursekit.plots import (
    contact_sheet,
    plot_comparison,
    plot_curves,
    plot_differences,
    plot_dots,
    plot_gaps,
    plot_networks,
    plot_top_losses,
)
from coursekit.splits import Splits, kfold_splits, subsample
from coursekit.stats import compare_paired, wilson_interval

FIRST = "norm act pool drop"
SMALL = {"widths": [8, 16], "n_hidden": 16}


def several(ws, per_image):
    "CIFAR-10's images with classes beside their own; `per_image` says how many an image has."
    splits = cifar10(ws)
    labels = np.array([np.isin(np.arange(10), (label + np.arange(n)) % 10)
                       for label, n in zip(splits.labels, per_image)]).astype(np.uint8)
    return replace(splits, labels=labels, classes=["a $^$ b", "_hidden", *[f"a class named {c}" for c in range(2, 10)]])


def shown(figure):
    "The images of a sheet, without what lies over them."
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def test_a_sheet_has_each_class(ws):
    splits = cifar10(ws)
    figure = contact_sheet(splits, per_class=2, part="valid")
    assert [ax.get_title() for ax in figure.axes] == splits.classes * 2 and not figure.legends \
        and figure._suptitle.get_text().endswith(": valid images")
    with pytest.raises(CourseError, match="The part is 'unlabeled': choose 'train', 'valid' or 'test'"):
        contact_sheet(splits, part="unlabeled")
    with pytest.raises(CourseError, match="The splits are 'photos': what image_folder"):
        contact_sheet("photos")
    with pytest.raises(CourseError, match="There are no test images in .*: choose a part"):
        contact_sheet(kfold_splits(splits)[0], part="test")


def test_masks_are_drawn_over_their_images(ws):
    splits = hippocampus(ws)
    figure = contact_sheet(splits, per_class=2)
    figure.canvas.draw()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["anterior", "posterior"]
    at = [int(k) for k in np.arange(20) * len(splits.train) // 20]
    assert len(figure.axes) == 20, "two rows of evenly spaced images"
    colors = [patch.get_facecolor() for patch in figure.legends[0].get_patches()]
    assert colors[0][:3] != colors[1][:3]
    for ax, i in zip(figure.axes, splits.train[at]):
        image, over = (np.asarray(drawn.get_array()) for drawn in ax.images)
        assert (image == splits.images[i]).all() and not ax.get_title()
        assert not over[splits.labels[i] == 0, 3].any(), "no class, no color"
        assert all((over[splits.labels[i] == c] == colors[c - 1]).all() for c in (1, 2))


@pytest.mark.parametrize("classes", [1, 2, 8, 20])
def test_masks_of_any_classes(classes):
    k = np.arange(40)
    masks = np.broadcast_to((k % classes)[:, None, None], (40, 8, 8)).astype(np.int64).copy()
    masks[:, 0] = 255  # what is no class
    splits = Splits("made", np.zeros((40, 8, 8, 3), np.uint8), masks, [f"$_{c}$" for c in range(classes)],
                    [str(i) for i in k], k, k[:0], k[:0], "made")
    figure = contact_sheet(splits, per_class=4)
    figure.canvas.draw()
    texts = [t for legend in figure.legends for t in legend.get_texts()]
    assert len(texts) == classes - 1 and not any(t.get_parse_math() for t in texts)
    drawn = {tuple(np.asarray(ax.images[1].get_array())[-1, -1]) for ax in figure.axes}
    assert len(drawn) == classes, "each class its own color"
    assert not any(np.asarray(ax.images[1].get_array())[0, :, 3].any() for ax in figure.axes)


def test_several_labels_are_named(ws):
    splits = several(ws, np.arange(len(cifar10(ws).labels)) % 8)
    figure = contact_sheet(splits)
    figure.canvas.draw()
    at = splits.train[[k * len(splits.train) // 10 for k in range(10)]]
    assert all((a == b).all() for a, b in zip(shown(figure), splits.images[at], strict=True))
    for ax, i in zip(figure.axes, at):
        names = [splits.classes[c].replace("_", " ") for c in np.flatnonzero(splits.labels[i])]
        said = ", ".join([*names[:4], *[f"{len(names) - 4} more"] * (len(names) > 4)]) or "none"
        assert " ".join(ax.get_title().split()) == " ".join(said.split()) and not ax.title.get_parse_math()
    assert contact_sheet(several(ws, [4] * splits.n)).get_figheight() > contact_sheet(cifar10(ws)).get_figheight()


@pytest.mark.parametrize("kind", ["classes", "several", "masks"])
def test_unlabeled_images_are_a_part_and_show_no_label(ws, kind):
    one = hippocampus(ws) if kind == "masks" else several(ws, [2] * len(cifar10(ws).labels)) if kind == "several" \
        else cifar10(ws)
    splits = subsample(one, 0.5, unlabeled=True)
    figure = contact_sheet(splits, part="unlabeled", ncols=5)
    at = splits.unlabeled[[k * len(splits.unlabeled) // 5 for k in range(5)]]
    assert all((a == b).all() for a, b in zip(shown(figure), splits.images[at], strict=True))
    assert not figure.legends and not any(ax.get_title() or len(ax.images) > 1 for ax in figure.axes)
    with pytest.raises(CourseError, match="choose 'train', 'valid', 'test' or 'unlabeled'"):
        contact_sheet(splits, part="trian")


def test_mistakes_want_one_label_an_image(ws):
    for splits, has in (hippocampus(ws), "masks"), (several(ws, [2] * len(cifar10(ws).labels)), "several labels"):
        with pytest.raises(CourseError, match=f"^plot_top_losses wants one label an image .* has {has}"):
            plot_top_losses(splits, np.zeros((len(splits.valid), 10)))


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
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["validation", "training"]
    plt.close(fig)


def test_differences_are_shown_with_their_seeds_and_small_ones_look_small():
    table = compare_paired(pd.concat([runs_of([0.6, 0.6]), runs_of([0.61, 0.602], "b"), runs_of([0.7], "c"),
                                      runs_of([0.9, 0.9], "d")[:0],
                                      pd.DataFrame([{"name": "d", "seed": 0, "diverged": "The loss is nan"},
                                                    {"name": "e", "seed": 9, "right": {"valid": np.ones(1000)}}])]))
    fig, (few, all_rows) = plt.subplots(1, 2)
    plot_differences(table[:2], few)
    interval, dot, rings, zero = few.lines
    assert interval.get_xdata() == pytest.approx([table.low[1], table.high[1]]) \
        and dot.get_xdata() == pytest.approx([0.6]) and rings.get_xdata() == pytest.approx([1, 0.2])
    assert list(zero.get_xdata()) == [0, 0] and few.get_xlim()[0] <= -2 and few.get_xlim()[1] >= 2
    plot_differences(table, all_rows, title="By seed")
    assert [t.get_text() for t in all_rows.texts] == ["the first", "diverged", "no seed in common"] \
        and [t.get_text() for t in all_rows.get_yticklabels()] == list("abcde") and all_rows.get_title() == "By seed"
    assert all_rows.get_xlim()[1] > 10
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
                             f"{name} and others")
    figure.canvas.draw()
    legend, ticks = figure.axes[0].get_legend().get_texts(), figure.axes[1].get_yticklabels()
    assert [t.get_text() for t in legend] == [t.get_text() for t in ticks] == [name, "_other"]
    drawing = plot_networks({name: network(**SMALL)})
    drawing.canvas.draw()
    row = next(t for t in drawing.axes[0].texts if "parameters" in t.get_text())
    assert row.get_text().startswith(f"{name}\n") and not any(t.get_parse_math()
                                                              for t in [*legend, *ticks, row, figure._suptitle]), \
                                                                  "drawn as they are"
