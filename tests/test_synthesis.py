"Networks that give pictures: losses against slow ones, colors there and back, loops that are killed and go on."
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import interrupt
from torch import nn

from coursekit.files import CourseError
from coursekit.learner import learner
from coursekit.splits import Splits
from coursekit.synthesis import (
    Critic,
    Generator,
    LayerOutputs,
    StyleLoss,
    UNet,
    ab_error,
    ab_of,
    as_bytes,
    color_centers,
    color_task,
    dice_scores,
    gram_matrix,
    gray_and_ab,
    gray_and_nearest,
    in_between,
    invert,
    lab_to_rgb,
    mean_dice,
    pixel_scores,
    predicted_ab,
    rgb_to_lab,
    rms_distances,
    shift_and_mirror,
    style_transfer,
    train_gan,
)
from coursekit.task import SEGMENTATION


def drawn(n=24, side=8, masks=False) -> Splits:
    "Squares of two colors, a third of them for each part."
    rng, of = np.random.default_rng(0), np.arange(n) % 2
    images, truth = np.full((n, side, side, 3), 255, np.uint8), np.zeros((n, side, side), np.uint8)
    for image, mask, c, (x, y) in zip(images, truth, of, rng.integers(0, side // 2, (n, 2))):
        image[y:y + side // 2, x:x + side // 2] = [(220, 30, 30), (30, 30, 220)][c]
        mask[y:y + side // 2, x:x + side // 2] = 1
    return Splits("squares", images, truth if masks else of, ["red", "blue"], [f"{i}.png" for i in range(n)],
                  *np.arange(n).reshape(3, -1), "squares")


def style_run(ws, **kwargs):
    "A small style transfer."
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, stride=2))
    outputs, photos = LayerOutputs(chain, (1, 2), [0.5] * 3, [0.25] * 3), torch.rand(2, 3, 12, 12)
    return style_transfer(outputs, photos, torch.rand(3, 12, 12).round(), ws, n_steps=12, **kwargs)


def gan_run(ws, **kwargs):
    "A small GAN."
    s = drawn()
    return train_gan(s.images[s.train], s.labels[s.train], s.classes, ws, n_steps=12, bs=6, n_z=5, width=4,
                     shots_at=(4, 12), **kwargs)


def same(a, b):
    "Whether two runs ended alike, bit for bit."
    if isinstance(a, tuple):
        return torch.equal(a[0], b[0]) and a[1] == b[1]
    nets = zip((a.generator, a.critic), (b.generator, b.critic))
    return a.history == b.history and all(map(np.array_equal, a.shots, b.shots)) and all(
        map(torch.equal, [t for one, _ in nets for t in one.state_dict().values()],
            [t for net in (b.generator, b.critic) for t in net.state_dict().values()]))


def test_dice_is_counted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 4, 5, 6))
    b[1][b[1] == 2] = 0
    a[1][a[1] == 2] = 0
    found = dice_scores(a, b, 3)
    assert found.shape == (4, 2) and found[1, 1] == 1, "nothing there and nothing said"
    for i in range(4):
        for c in (1, 2):
            pixels = [(int(p == c), int(q == c)) for p, q in zip(a[i].ravel(), b[i].ravel())]
            both, sizes = sum(p * q for p, q in pixels), sum(p + q for p, q in pixels)
            assert found[i, c - 1] == (2 * both / sizes if sizes else 1)
    scores = torch.nn.functional.one_hot(torch.tensor(a), 3).permute(0, 3, 1, 2).float()
    assert mean_dice(scores, torch.tensor(b)).item() == pytest.approx(found.mean())
    assert dice_scores(np.zeros((1, 2, 2)), np.ones((1, 2, 2))).item() == 0
    with pytest.raises(CourseError, match="masks .n, h, w. of the same images"):
        dice_scores(a, b[:2])


def test_a_unet_keeps_the_size_and_says_which_it_takes():
    for n_levels, side in (2, 6), (3, 12), (4, 8):
        assert UNet(2, 3, 4, n_levels)(torch.rand(2, 2, side, 2 * side)).shape == (2, 3, side, 2 * side)
    with pytest.raises(CourseError, match="8 x 10 pixels and are halved 2 times: sides that 4 divides"):
        UNet()(torch.rand(1, 3, 8, 10))
    count = lambda net: sum(p.numel() for p in net.parameters())
    assert count(UNet(skips=False)) < count(UNet())


def test_skips_bring_what_the_way_down_had():
    torch.manual_seed(0)
    for skips in True, False:
        net, moved = UNet(1, 1, 4, 2, skips).eval(), torch.rand(1, 1, 8, 8)
        with torch.no_grad():
            for p in net.up.parameters():
                p.zero_()  # what comes from below is gone
            change = (net(moved) - net(1 - moved)).abs().max()
        assert (change > 1e-4) == skips


def test_colors_there_and_back():
    levels = torch.linspace(0, 1, 7)
    every = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(1, 3, 7, 49)
    lab = rgb_to_lab(every)
    assert torch.allclose(lab_to_rgb(lab), every, atol=2e-3) and 0 <= lab[:, 0].min() and lab[:, 0].max() <= 100.01
    gray = rgb_to_lab(levels.repeat(3, 1)[None, :, :, None])
    assert gray[:, 1:].abs().max() < 0.02 and (gray[0, 0, :, 0].diff() > 0).all()
    impossible = lab_to_rgb(torch.tensor([50., 200., -200.])[None, :, None, None])
    assert 0 <= impossible.min() and impossible.max() <= 1


def test_targets_of_coloring_and_their_middles():
    s = drawn()
    xb = torch.tensor(s.images[:4]).permute(0, 3, 1, 2) / 255
    gray, ab = gray_and_ab(xb, None)
    assert gray.shape == (4, 1, 8, 8) and ab.shape == (4, 2, 8, 8) and torch.equal(gray, rgb_to_lab(xb)[:, :1] / 50 - 1)
    middles = color_centers(s.images, 3)
    _, nearest = gray_and_nearest(middles, xb, None)
    assert nearest.shape == (4, 8, 8) and len(nearest.unique()) == 3, "white, red and blue"
    assert (middles[nearest].movedim(-1, 1) - 50 * ab).abs().max() < 0.1
    assert ab_error(ab_of(s.images[:4])[:, 1:], 50 * ab).max() < 1e-3


def test_a_temperature_goes_from_the_mean_to_the_likeliest():
    middles = torch.tensor([[40., 0], [-40, 0]])
    class Sure(nn.Module):
        def forward(self, xb):
            return torch.tensor([1., 0.])[None, :, None, None].expand(len(xb), 2, *xb.shape[2:])
    class Learn:
        model = Sure()
        class dls:
            class valid:
                of = staticmethod(lambda images, labels: [(torch.zeros(len(images), 1, 2, 2), labels)])
    at = lambda t: predicted_ab(Learn, np.zeros((3, 2, 2, 3)), middles, t)[0, 0, 0, 0].item()
    assert at(0.01) == pytest.approx(40) and abs(at(1000.)) < 0.1 and 0 < at(1.) < 40
    assert predicted_ab(Learn, np.zeros((3, 2, 2, 3)))[0, :, 0, 0].tolist() == [50., 0.]


@pytest.mark.parametrize("kind", ["a and b", "classes", "masks"])
def test_a_unet_is_trained_by_the_learner_and_goes_on(kind, place, capsys):
    s = drawn(masks=kind == "masks")
    middles = color_centers(s.images, 3) if kind == "classes" else None
    def made():
        torch.manual_seed(0)
        n_out = {"a and b": 2, "classes": 3, "masks": 2}[kind]
        task = {"task": SEGMENTATION, "metrics": [mean_dice]} if kind == "masks" else {"task": color_task(middles),
                                                                                      "mean": 0., "std": 1.}
        return learner(s, UNet(3 if kind == "masks" else 1, n_out, 4, 2), place, bs=4, seed=0, **task)
    def quiet(learn):
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e-2)
        return learn
    whole = quiet(made())
    assert not whole._unknown, "another process knows this fit again"
    whole.checkpoints.forget()
    interrupt(made(), 4, fit=quiet)
    again = quiet(made())
    assert "it goes on from there" in capsys.readouterr().out
    assert all(map(torch.equal, whole.model.state_dict().values(), again.model.state_dict().values()))
    assert pixel_scores(again, s.images[s.test]).shape == (8, 3 if kind == "classes" else 2, 8, 8)


def test_a_gram_matrix_forgets_where():
    maps = torch.rand(2, 3, 4, 5)
    found, order = gram_matrix(maps), torch.randperm(20)
    by_hand = [[[(maps[n, i] * maps[n, j]).mean().item() for j in range(3)] for i in range(3)] for n in range(2)]
    assert torch.allclose(found, torch.tensor(by_hand)) and torch.allclose(found, found.mT)
    assert torch.allclose(gram_matrix(maps.flatten(2)[..., order].reshape(2, 3, 4, 5)), found)
    assert not torch.allclose(gram_matrix(maps[:, [1, 0, 2]]), found), "but not of which channel"


def test_losses_are_in_units_of_the_two_pictures():
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3))
    photos, style = torch.rand(3, 3, 10, 10), torch.rand(3, 10, 10)
    losses = StyleLoss(LayerOutputs(chain, (0, 1, 2), [0.] * 3, [1.] * 3), photos, style)
    content, styles = losses(photos)
    assert content.max() < 1e-9 and torch.allclose(styles, torch.ones(3, 3))
    content, styles = losses(style.expand(3, -1, -1, -1))
    assert torch.allclose(content, torch.ones(3)) and styles.max() < 1e-9
    assert torch.equal(losses.outputs(photos)[1], losses.outputs(photos)[0].relu()), "no layer writes over another's"
    assert chain[1].inplace and chain[0].weight.requires_grad, "the network itself is left alone"


def test_a_generator_has_a_size_and_a_critic_a_number():
    for side in 8, 16, 64:
        made = Generator(3, 4, 4, side)(torch.randn(2, 4), torch.tensor([0, 2]))
        assert made.shape == (2, 3, side, side) and Critic(3, 4, side)(made, torch.tensor([0, 2])).shape == (2,)
    for side in 4, 12, 48:
        with pytest.raises(CourseError, match=f"The side is {side}: 8, 16, 32, 64"):
            Generator(3, side=side)


def test_pictures_are_shifted_each_by_itself_and_gradients_pass():
    torch.manual_seed(0)
    dots = torch.ones(20, 1, 9, 9, requires_grad=True)
    with torch.no_grad():
        dots[:, :, 4, 6] = 0
    out = shift_and_mirror(dots, 0.2)
    places = {tuple(p.nonzero()[0].tolist()) for p in (out[:, 0] == 0)}
    assert len(places) > 5 and out.shape == dots.shape and ((out == 0).sum((1, 2, 3)) == 1).all()
    out.sum().backward()
    assert dots.grad.abs().sum() > 0


@pytest.mark.parametrize("run", [style_run, gan_run])
def test_a_loop_that_is_cut_off_goes_on_as_if_nothing_had_been(run, place, capsys):
    def stop(step):
        if step == 6:
            raise KeyboardInterrupt
    whole = run(place)
    assert same(whole, run(place)) and "finished before" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        run(place, fresh=True, each=stop, every=0)
    again = run(place)
    assert "cut off before step 6" in capsys.readouterr().out and same(whole, again)


def test_what_decides_a_loop_makes_it_another(place):
    assert not same(style_run(place), style_run(place, weight=30.)) and not same(gan_run(place), gan_run(place, seed=1))


def test_codes_of_given_pictures_and_what_lies_between(place):
    gan, s = gan_run(place), drawn()
    codes, tuned = invert(gan.generator, s.images[:2], s.labels[:2], 40)
    frames = in_between(tuned, codes, s.labels[:2], 4)
    assert frames.shape == (4, 8, 8, 3) and frames.dtype == np.uint8
    ends = as_bytes(tuned(codes, torch.tensor(s.labels[:2])))
    assert np.abs(frames[[0, -1]].astype(int) - ends).max() <= 1
    off = lambda net: np.diag(rms_distances(as_bytes(net(codes, torch.tensor(s.labels[:2]))), s.images[:2])).mean()
    assert off(tuned) < off(gan.generator), "the weights were tuned, those of a copy"
    assert np.array_equal(gan.draw([0, 1, 1]), gan.draw([0, 1, 1])) and (gan.draw([0, 1]) != gan.draw([0, 1], 1)).any()
    assert rms_distances(np.zeros((1, 2, 2, 3)), np.full((2, 2, 2, 3), 7)).tolist() == [[7., 7.]]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import test_synthesis
from coursekit.workspace import setup
at = int(sys.argv[3])
kill = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == at else None
made = getattr(test_synthesis, sys.argv[2])(setup("tiny"), each=kill, every=0)
torch.save(made[0] if isinstance(made, tuple) else made.generator.state_dict(), sys.argv[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("run", [style_run, gan_run])
def test_a_killed_loop_ends_as_the_one_that_nobody_killed(run, tmp_path, place):
    def ended(at):
        env = {**os.environ, "COURSEKIT_CACHE": str(tmp_path / "c"), "COURSEKIT_RUNS": str(tmp_path / "r")}
        return subprocess.run([sys.executable, "-c", KILLED, os.path.dirname(__file__), run.__name__, str(at),
                               str(tmp_path / "end.pt")], env=env, capture_output=True, text=True)
    assert ended(7).returncode == -signal.SIGKILL
    assert "cut off before step 7: it goes on from there." in ended(-1).stdout
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole, end = run(place), torch.load(tmp_path / "end.pt", weights_only=True)
    torch.set_num_threads(n_threads)
    if isinstance(whole, tuple):
        assert torch.equal(whole[0], end)
    else:
        assert all(torch.equal(end[name], value) for name, value in whole.generator.state_dict().items())
