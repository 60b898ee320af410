"Widgets, clicked."
from dataclasses import replace

import pytest

from coursekit.datasets import pets
from coursekit.fetch import catalogue
from coursekit.files import CourseError
from coursekit.widgets import dataset_picker, resolution_game, resolution_score, resolution_sheet, widget_picture


def play(game, splits, right):
    "Click through a game, right or wrong."
    buttons = game.children[1].children
    while not buttons[0].disabled:
        label = splits.labels[turn(game)]
        buttons[label if right(len(game.answers)) else 1 - label].click()


def turn(game):
    "The image that is shown."
    return game.turns[len(game.answers)][1]


def test_the_game_scores_what_was_clicked(ws, caplog):
    splits = pets(ws, size=64, target="species")
    game = resolution_game(splits, sizes=(8, 64), n_each=5)
    shown = [game.children[0].value]
    play(game, splits, right=lambda k: k % 2 == 0)
    score = resolution_score(game.answers)
    assert len(game.answers) == 10 and score.pictures.tolist() == [5, 5] and score.right.sum() == 5
    assert "accuracy" in game.children[2].value and "5 of 10 right" in game.children[2].value \
        and game.children[0].value != shown[0]
    assert len({i for _, i in game.turns}) == 10, "a picture came twice"
    assert splits.labels[[i for _, i in game.turns]].sum() == 5, "as many cats as dogs"
    game.children[1].children[0].click()  # a click after the end changes nothing
    assert len(game.answers) == 10 and not caplog.records


def test_the_game_shares_few_pictures_out_among_the_sizes(ws):
    splits = pets(ws, size=64, target="species")
    sizes = [size for size, _ in resolution_game(replace(splits, valid=splits.valid[:11]), n_each=1000).turns]
    assert sorted(sizes) == sorted([8, 16, 32, 64, 128] * 2)
    with pytest.raises(CourseError, match="3 validation images and n_each = 4: .* an image for each of 5 sizes"):
        resolution_game(replace(splits, valid=splits.valid[:3]))
    with pytest.raises(CourseError, match="37 classes"):
        resolution_game(pets(ws, size=64))


def test_the_game_says_what_it_was(ws):
    splits = pets(ws, size=64, target="species")
    game = resolution_game(splits, sizes=(8,), n_each=4)
    play_one = lambda wrong: game.children[1].children[splits.labels[turn(game)] ^ wrong].click()
    play_one(0)
    assert game.children[2].value.startswith("right; picture 2 of 4")
    label = splits.labels[turn(game)]
    play_one(1)
    assert game.children[2].value.startswith(f"it was {splits.classes[label]}; picture 3")


def test_the_picker_filters():
    table = catalogue()
    picker = dataset_picker(table)
    (task, size, use), out = picker.children[0].children, picker.children[1]
    assert f"{len(table)} of {len(table)}" in out.value and all(f">{size}</td>" in out.value
                                                                for size in ("811&nbsp;MB", "155&nbsp;GB",
                                                                             "0.16&nbsp;MB", ""))
    task.value, size.value = "text", 0.1
    assert "tiny Shakespeare" in out.value and "1.1&nbsp;MB" in out.value and "CIFAR-10" not in out.value \
        and "GloVe" not in out.value
    task.value, size.value, use.value = "segmentation", float("inf"), "any"
    assert "COCO" in out.value and "Medical Decathlon" in out.value
    use.value = "no"
    assert all(name not in out.value for name in table.index[table.commercial == "yes"])


def test_the_picker_shows_names_as_text():
    row = catalogue().head(1).rename(index=lambda _: "<script>x</script>")
    assert "<script>" not in dataset_picker(row).children[1].value


def test_a_sheet_has_a_row_a_size(ws):
    splits = pets(ws, size=64, target="species")
    figure = resolution_sheet(splits, splits.test[:3], sizes=(8, 16))
    assert len(figure.axes) == 6 and "stand-in" in figure._suptitle.get_text()


def texts(figure):
    "All text of a figure."
    return [t.get_text() for ax in figure.axes
            for t in [ax._left_title, *ax.texts,
                      *(c.get_text() for table in ax.tables for c in table.get_celld().values())]]


def test_a_widget_is_drawn_as_it_is_at_this_moment(ws):
    splits = pets(ws, size=64, target="species")
    game = resolution_game(splits, sizes=(8,), n_each=4)
    figure = widget_picture(game)
    assert {"cat", "dog", "picture 1 of 4, 8 pixels"} <= set(texts(figure)) and len(figure.axes[0].images) == 1
    play(game, splits, right=lambda k: True)
    assert any("4 of 4 right" in t for t in texts(widget_picture(game)))


def test_the_picture_of_the_picker_has_its_first_rows():
    table = catalogue()
    odd = table.rename(index={table.index[0]: "$a_1$ & <b>"})
    picker = dataset_picker(odd)
    shown = texts(widget_picture(picker))
    assert len(odd) > 8 and f"{len(odd)} sets; the first 8:" in " ".join(shown)
    assert {"$a_1$ & <b>", odd.index[7]} <= set(shown) and odd.index[8] not in shown
    picker.children[0].children[0].value = "text"
    assert any(t.startswith("task:  text") for t in texts(widget_picture(picker)))
