"Lesson 12: drawn scenes by scene, sprites by family from a folder of their layout, a judge of real and made."
import json

import numpy as np
import pytest
from PIL import Image

from coursekit.files import CourseError
from coursekit.pixels import COLORS, evolutions, marbled, scenes, sprites, told_apart
from coursekit.workspace import setup


def test_a_pattern_is_the_same_each_time_and_has_its_inks():
    one = marbled(64)
    assert one.shape == (64, 64, 3) and one.dtype == np.uint8 and np.array_equal(one, marbled(64))
    assert (marbled(64, seed=1) != one).any() and len(np.unique(one.reshape(-1, 3), axis=0)) > 5


def test_scenes_have_masks_of_their_ellipses_and_stay_together(ws):
    s = scenes(ws, 10, 3, 24)
    assert s.images.shape == (30, 24, 24, 3) and s.labels.shape == (30, 24, 24) and set(np.unique(s.labels)) == {0, 1}
    of = lambda part: {s.files[i].split("/")[0] for i in getattr(s, part)}
    assert not (of("train") & of("valid") or of("train") & of("test") or of("valid") & of("test"))
    share = s.labels.mean((1, 2))
    assert 0.01 < share.mean() < 0.35 and not s.stand_in
    light = s.images[..., 0].astype(float)
    brighter = [light[k][s.labels[k] == 1].mean() - light[k][s.labels[k] == 0].mean() for k in range(30) if share[k]]
    assert np.mean(brighter) > 10, "an ellipse is lighter than what is around it"
    assert s.fingerprint == scenes(ws, 10, 3, 24).fingerprint


@pytest.fixture
def folder(tmp_path):
    "Six creatures in two families and one alone, in the layout of PokéSprite with PokéAPI's tables."
    root = tmp_path / "mine" / "pokemon"
    (root / "pokemon-gen8" / "regular").mkdir(parents=True), (root / "data").mkdir()
    names = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
    for k, name in enumerate(names):
        im = Image.new("RGBA", (68, 56))
        im.paste((10 * k, 200, 50, 255), (20, 10, 24 + 4 * k, 50 - k))
        im.save(root / "pokemon-gen8" / "regular" / f"{name}.png")
    (root / "data" / "pokemon.json").write_text(json.dumps({f"{k:03d}": {"slug": {"eng": name}}
                                                            for k, name in enumerate(names, 1)}))
    species = [(1, "", 1, 5), (2, 1, 1, 5), (3, 2, 1, 8), (4, "", 2, 1), (5, 4, 2, 1), (6, "", 3, 10), (7, "", 4, 2),
               (8, "", 5, 2)]
    rows = ["id,evolves_from_species_id,evolution_chain_id,color_id", *(",".join(map(str, row)) for row in species)]
    (root / "pokemon_species.csv").write_text("\n".join(rows))
    (root / "types.csv").write_text("\n".join(["id,identifier", *(f"{k},kind {k}" for k in range(1, 22))]))
    (root / "pokemon_types.csv").write_text("\n".join(["pokemon_id,type_id,slot",
                                                       *(f"{k},{k + 3},1\n{k},1,2" for k in range(1, 9))]))
    return root


def test_sprites_of_a_folder(folder):
    ws = setup("quick", data=folder.parent)
    s = sprites(ws, 16)
    assert s.files == ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"] and s.images.shape == (7, 16, 16, 3)
    assert [s.classes[c] for c in s.labels] == ["green", "green", "red", "black", "black", "yellow", "blue"]
    assert not s.stand_in and s.title == "Pokemon sprites by color (7 of 905 images)"
    family = dict(zip(s.files, [1, 1, 1, 2, 2, 3, 4]))
    parts = [{family[s.files[i]] for i in getattr(s, part)} for part in s.parts]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]), "no family is in two parts"
    assert [(s.files[a], s.files[b]) for a, b in evolutions(ws, s)] == [("ant", "bee"), ("bee", "cat"), ("dog", "elk")]
    assert (s.images[:, 0, 0] == 255).all() and (s.images[6].min(-1) < 100).any(), "on white, in the middle"
    inked = np.argwhere(s.images[0].min(-1) < 250)
    assert abs(inked.mean(0) - 7.5).max() <= 1 and np.ptp(inked[:, 0]) == 15, "40 pixels high, made 16"
    by_type = sprites(ws, 16, "type")
    assert [by_type.classes[c] for c in by_type.labels][:2] == ["kind 4", "kind 5"] and len(by_type.classes) == 18
    with pytest.raises(CourseError, match="The target is 'kind': 'color' or 'type'"):
        sprites(ws, target="kind")


def test_sprites_that_are_not_there_or_not_whole_are_a_sentence(folder, tmp_path):
    with pytest.raises(CourseError, match="There are no sprites in .* clone github.com/msikma/pokesprite"):
        sprites(setup("quick", data=tmp_path / "nothing"))
    (folder / "types.csv").unlink()
    with pytest.raises(CourseError, match="has no sprites to read .* are expected there"):
        sprites(setup("quick", data=folder.parent))


def test_without_data_creatures_are_drawn_and_say_so(ws):
    s = sprites(ws, 16)
    assert s.title == "stand-in for Pokemon sprites by color (drawn blobs)" and s.classes == COLORS and s.n == 90
    pairs = evolutions(ws, s)
    inked = (s.images.min(-1) < 255).sum((1, 2))
    assert len(pairs) == 60 and (inked[pairs[:, 1]] > inked[pairs[:, 0]]).all(), "they grow"
    assert (s.labels[pairs[:, 0]] == s.labels[pairs[:, 1]]).all()


def test_a_judge_tells_what_differs_and_not_what_does_not(place):
    rng = np.random.default_rng(0)
    draw = lambda n, low: rng.integers(low, 256, (n, 16, 16, 3)).astype(np.uint8)
    right = told_apart(draw(60, 0), draw(60, 120), draw(20, 0), draw(30, 120), place, 4)
    assert right.shape == (50,) and right.mean() > 0.9
    assert 0.2 < told_apart(draw(60, 0), draw(60, 0), draw(40, 0), draw(40, 0), place, 2).mean() < 0.8
