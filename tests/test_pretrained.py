"Networks that were trained elsewhere: their weights, their stages, another head, and the squares that they can read."
import math

import pytest
import torch
from torchvision.models import get_model

from coursekit.files import CourseError
from coursekit.pretrained import _last_linear, check_side, layer_groups, map_sizes, pretrained, splitter, with_head


def test_stages_of_a_resnet_and_of_others():
    assert list(layer_groups(get_model("resnet18", weights=None))) == ["conv1", "layer1", "layer2", "layer3", "layer4",
                                                                       "fc"]
    for name in "resnet18", "convnext_tiny", "efficientnet_b0", "swin_t", "vit_b_16", "shufflenet_v2_x0_5":
        with torch.device("meta"):
            model = get_model(name, weights=None)
        groups = splitter(model)
        assert sorted(map(id, (p for g in groups for p in g))) == sorted(map(id, model.parameters())), \
            f"{name}: each parameter in one stage"
        assert any(p is groups[-1][-1] for p in _last_linear(model)[1].parameters()), (f"{name}: the last stage holds "
                                                                                       f"the head")


def test_a_new_head_leaves_the_network_that_it_came_from_alone(pre):
    before = {k: v.clone() for k, v in pre.model.state_dict().items()}
    new = with_head(pre.model, 7, seed=1)
    assert new(torch.rand(2, 3, 32, 32)).shape == (2, 7) and pre.model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert torch.equal(new.fc.weight, with_head(pre.model, 7, seed=1).fc.weight) and not torch.equal(new.fc.weight,
        with_head(pre.model, 7, seed=2).fc.weight)
    assert all(torch.equal(before[k], v) for k, v in pre.model.state_dict().items())


def test_map_sizes_are_those_of_a_real_pass(pre):
    table = map_sizes(pre.model, [16, 33, 224]).set_index("input")
    assert table.loc[224].tolist() == [112, 56, 28, 14, 7] and table.loc[33].tolist() == [17, 9, 5, 3, 2]
    alexnet = get_model("alexnet", weights=None)
    assert map_sizes(alexnet, [20]).iloc[0, 1:].eq(0).all()


@pytest.mark.parametrize("name, side, says", [("alexnet", 20, "vanish below 63"), ("vgg11", 20, "vanish below 32"),
                                              ("vit_b_16", 32, "takes 224 only")])
def test_an_input_that_is_too_small_is_told_the_smallest(name, side, says):
    with torch.device("meta"):
        model = get_model(name, weights=None)
    with pytest.raises(CourseError, match=says):
        check_side(model, side)
    check_side(model, 224)


def test_an_unknown_network_is_told_the_nearest(ws):
    with pytest.raises(CourseError, match="no classifier 'ResNet-18': did you mean 'resnet18'"):
        pretrained("ResNet-18", ws)


def test_no_weights_and_no_network(ws, monkeypatch):
    from dataclasses import replace
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(ws.local / "torch"))
    with pytest.raises(CourseError, match="scale 'tiny' downloads nothing: download https.*resnet18-f37072fd.pth .* "
                                          "put it into"):
        pretrained("resnet18", ws)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a,
                        **k: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(CourseError, match="could not be downloaded .no route to host.*put it into .* Scale 'tiny' "
                                          "needs none"):
        pretrained("resnet18", replace(ws, scale="quick"))


@pytest.mark.parametrize("content, says", [("torn", "does not hold the weights of resnet18"),
                                           ("other", "does not hold the weights of resnet18"),
                                           ("good", "is not torchvision's file")])
def test_weights_of_ones_own(content, says, pre, place, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place.local / "torch"))
    file = place.local / "torch" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(get_model("resnet18", weights=None, num_classes=1000 if content == "good" else 3).state_dict(), file)
    if content == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    if content == "good":
        got = pretrained("resnet18", place)
        assert says in capsys.readouterr().out and math.isnan(got.accuracy) and "other weights" in got.title \
            and not got.model.training and got.side == 224
    else:
        with pytest.raises(CourseError, match=says):
            pretrained("resnet18", place)
