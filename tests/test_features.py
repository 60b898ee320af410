"Features of a frozen body: the same as without the file, read again, and made again where they would be wrong."
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import bright

from coursekit import features
from coursekit.augment import random_hflip
from coursekit.features import cached_features
from coursekit.files import CourseError
from coursekit.finetune import LinearProbe, linear_probe, random_view
from coursekit.pretrained import Pretrained, with_head


def test_cached_and_uncached_logits_agree(pre, ws):
    s = bright(side=48)
    kept = cached_features(pre, s, ws, precision="fp32")
    assert isinstance(kept.images, np.memmap) and kept.images.dtype == np.float32 and kept.images.shape == (60, 512)
    x = (torch.as_tensor(s.images).permute(0, 3, 1, 2) / 255 - torch.tensor(pre.mean).view(3, 1, 1)) \
        / torch.tensor(pre.std).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(pre.model.fc(torch.as_tensor(np.array(kept.images))), pre.model(x), atol=1e-4)
    learn = linear_probe(kept, ws, 5)
    whole = with_head(pre.model, 3)
    whole.fc.load_state_dict(learn.model.state_dict())
    with learn.no_bar(), torch.no_grad():
        assert torch.allclose(learn.get_preds()[0], whole.eval()(x[s.valid]).softmax(1), atol=1e-4)


def test_the_cache_is_read_again_and_not_made_again(pre, place, monkeypatch):
    first = np.array(cached_features(pre, bright(), place).images)
    monkeypatch.setattr(features, "_write_features", lambda *a: pytest.fail("computed again"))
    assert np.array_equal(cached_features(pre, bright(), place).images, first)


@pytest.mark.parametrize("harm, says", [("half", "torn"), ("gone", "No such file"), ("facts", "."),
                                        ("other", "another network")])
def test_a_torn_or_stale_cache_is_said_and_made_again(harm, says, pre, place, capsys):
    good = np.array(cached_features(pre, bright(), place).images)
    folder, = (place.local / "features").iterdir()
    file = folder / "features.npy"
    if harm == "half":
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    elif harm == "gone":
        file.unlink()
    elif harm == "facts":
        (folder / "facts.json").write_text("{")
    else:  # whole, but of another network
        import hashlib
        import json
        np.save(file, np.random.default_rng(0).random((60, 1, 512), np.float32))
        (folder / "facts.json").write_text(json.dumps({"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    assert np.allclose(cached_features(pre, bright(), place).images, good, atol=1e-5)
    said = capsys.readouterr().out
    assert "can't be used" in said and says in said and "computed again" in said
    cached_features(pre, bright(), place)
    assert not capsys.readouterr().out


def test_what_the_cache_depends_on(pre, place):
    # cut by hand: the fingerprint is still that of all
    few = replace(bright(), images=bright().images[:48], labels=bright().labels[:48])
    assert cached_features(pre, few, place).images.shape == (48, 512)
    assert not np.allclose(cached_features(replace(pre, std=[0.3] * 3), bright(), place).images,
                           cached_features(pre, bright(), place).images)
    with pytest.raises(CourseError, match="1 views and 1 augmentations"):
        cached_features(pre, bright(), place, augment=[random_hflip])
    other = Pretrained("resnet18", with_head(pre.model, 5, seed=3), pre.mean, pre.std, 224, pre.categories,
                       pre.accuracy)
    with torch.no_grad():
        other.model.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
    for p, s, kwargs in (pre, bright(), {}), (pre, bright(side=40), {}), (pre, bright(n=63), {}), \
        (other, bright(), {}), (pre, bright(), {"views": 2, "augment": [random_hflip]}):
        cached_features(p, s, place, **kwargs)
    assert len(list((place.local / "features").iterdir())) == 7


def test_views_differ_and_the_first_is_the_image_as_it_is(pre, ws):
    plain, viewed = (np.array(cached_features(pre, bright(), ws, **kw).images)
                     for kw in ({}, {"views": 3, "augment": [random_hflip]}))
    assert viewed.shape == (60, 3, 512) and np.allclose(viewed[:, 0], plain, atol=1e-4)
    mirrored = np.abs(viewed[:, 1:] - plain[:, None]).max(2) > 1e-3
    assert 0.3 < mirrored.mean() < 0.7, "half of the views are mirrored"
    torch.manual_seed(0)
    x, y = random_view(torch.arange(24.).view(4, 3, 2), torch.arange(4))
    assert x.shape == (4, 2) and all(x[i].tolist() in [[6 * i + 2 * v, 6 * i + 2 * v + 1] for v in range(3)]
                                     for i in range(4))
    head = LinearProbe(2, 5)
    assert torch.equal(head(torch.ones(4, 3, 2)), head(torch.ones(4, 2)))
