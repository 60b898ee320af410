"Augmentations: what each does to a picture and its label, and how much of it."
import math

import pytest
import torch

from coursekit.ablate import augmentations
from coursekit.augment import affine_warp, color_jitter, cutout, mixup, random_affine, random_hflip, random_translate


def test_shift_moves_and_reflects():
    x = torch.arange(25.).view(1, 1, 5, 5).repeat(200, 3, 1, 1)
    out, _ = random_translate(2)(x, None)
    padded = torch.nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")
    crops = [padded[0, :, i:i + 5, j:j + 5] for i in range(5) for j in range(5)]
    found = [next((k for k, c in enumerate(crops) if torch.equal(c, o)), None) for o in out]
    assert None not in found and len(set(found)) == 25


def test_cutout_blanks_a_square_and_flip_mirrors():
    x = torch.ones(500, 3, 16, 16)
    blank = (cutout(6)(x, None)[0][:, 0] == 0).sum((1, 2))
    assert blank.max() == 36 and blank.min() >= 9
    x = torch.arange(16.).view(1, 1, 1, 16).repeat(400, 3, 2, 1)
    turned = (random_hflip(x, None)[0][:, 0, 0, 0] == 15).float().mean()
    assert 0.4 < turned < 0.6


def test_mixup_keeps_the_sum_of_the_labels():
    x, y = mixup(3)(torch.rand(64, 3, 4, 4), torch.arange(64) % 3)
    assert y.shape == (64, 3) and torch.allclose(y.sum(1), torch.ones(64)) and (y.max(1).values >= 0.5).all()


def test_turn_is_exact_where_the_answer_is_known():
    torch.manual_seed(0)
    x, one, none = torch.rand(3, 3, 8, 8), torch.ones(3), torch.zeros(3)
    torch.testing.assert_close(affine_warp(x, none, one, none), x)
    torch.testing.assert_close(affine_warp(x, torch.full((3,), math.pi / 2), one, none), x.rot90(1, (2, 3)), atol=1e-5,
                               rtol=0)
    ramp = torch.linspace(-7 / 8, 7 / 8, 8).expand(1, 3, 8, 8)  # each pixel's x
    torch.testing.assert_close(affine_warp(ramp, none[:1], 2 * one[:1], none[:1])[..., 1:-1, 1:-1],
                               ramp[..., 1:-1, 1:-1] / 2, atol=1e-5, rtol=0)
    slanted = affine_warp(ramp, none[:1], one[:1], 0.25 * one[:1])
    torch.testing.assert_close(slanted[0, 0, 1:-1, 3], ramp[0, 0, 0, 3] + 0.25 * ramp[0, 0, 0, 1:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["flip", "shift", "rotation", "scaling", "affine", "color", "cutout", "mixup"])
def test_an_augmentation_draws_for_each_image_from_torchs_random_numbers(name):
    x, y = torch.rand(1, 3, 16, 16).repeat(64, 1, 1, 1), torch.zeros(64).long()
    if name == "mixup":
        x = torch.rand(64, 3, 16, 16)
    f, = augmentations([name], 2)
    torch.manual_seed(1)
    first, labels = f(x, y)
    torch.manual_seed(1)
    again, _ = f(x, y)
    assert torch.equal(first, again) and first.shape == x.shape and len(labels) == 64
    assert len(first.unique(dim=0)) > (1 if name == "flip" else 20), "one draw for the whole batch"


def test_amounts_stay_within_bounds():
    torch.manual_seed(0)
    x = torch.randn(500, 3, 8, 8)
    torch.testing.assert_close(random_affine()(x, None)[0], x)
    out, _ = color_jitter(0.3)(x, None)
    centerd = lambda x: x - x.mean((2, 3), keepdim=True)
    factor = (centerd(out).std((1, 2, 3)) / centerd(x).std((1, 2, 3)))
    assert 0.69 < factor.min() < 0.75 and 1.25 < factor.max() < 1.31
