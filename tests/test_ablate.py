"Ablations: the family of networks against what is known of it, runs that are trained once, and a grid that is killed."
import json
import os
import signal
import subprocess
import sys
import time

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from conftest import ROOT, made
from fastai.callback.schedule import ParamScheduler
from fastai.metrics import accuracy
from torch import nn

from coursekit.ablate import (
    Residual,
    TrainAccuracy,
    ZeroPadShortcut,
    augmentations,
    network,
    norm_layer,
    schedule,
    train_variant,
)
from coursekit.augment import random_hflip
from coursekit.baseline import vgg
from coursekit.files import CourseError
from coursekit.images import evenly_spaced
from coursekit.learner import learner, optimizer
from coursekit.ledger import count_test_evals, ledger, load_runs, references
from coursekit.notebook import read_notebook
from coursekit.plots import plot_comparison
from coursekit.resume import ResumingLearner
from coursekit.runs import ablate, count_params_flops, evaluate_test_once, summarize
from coursekit.workspace import setup

FIRST = "norm act pool drop"
SMALL = {"widths": [8, 16], "n_hidden": 16}


def count(**arguments):
    return sum(p.numel() for p in network(**arguments).parameters())


def kinds(model):
    return [type(m).__name__ for m in model]


# The network

def test_with_the_defaults_it_is_the_network_of_lesson_02():
    torch.manual_seed(3)
    old = vgg(7, side=64)
    torch.manual_seed(3)
    new = network(7, side=64)
    for model in old, new:
        torch.manual_seed(4)
        nn.init.normal_(model[-1].weight)
    x = torch.randn(2, 3, 64, 64)
    assert repr(old) == repr(new) and old.state_dict().keys() == new.state_dict().keys()
    assert all(map(torch.equal, old.state_dict().values(), new.state_dict().values())) and torch.equal(old(x), new(x))


def test_parameters_by_hand():
    convolutions = 896 + 9248 + 18_496 + 36_928 + 73_856 + 147_584
    assert count() == convolutions + 262_272 + 1290 == 550_570
    assert count(head="average") == convolutions + 1290
    assert count(pool="strided") == 550_570 + 9248 + 36_928 + 147_584
    assert count(norm="batch") == count(norm="layer") == count(norm="group") == 550_570 + 2 * (32 + 32 + 64 + 64 + 128
        + 128 + 128)
    assert count(norm="instance") == 550_570 + 2 * (32 + 32 + 64 + 64 + 128 + 128), "not after the hidden layer"
    assert count(skip="identity", order=FIRST) == 550_570 and count(skip="projection",
                                                                    order=FIRST) == 550_570 + 64 * 33 + 128 * 65
    assert count(widths=(32, 64, 128, 256)) == convolutions + 295_168 + 590_080 + 4 * 256 * 128 + 128 + 1290


def test_flops_by_hand():
    convolutions = 32 * 32 * 32 * 27 + 32 * 32 * 32 * 288 + 16 * 16 * 64 * (288 + 576) + 8 * 8 * 128 * (576 + 1152)
    assert count_params_flops(network()) == (550_570, 2 * (convolutions + 2048 * 128 + 1280))
    assert count_params_flops(network(head="average"))[1] == 2 * (convolutions + 1280)
    assert count_params_flops(network(pool="strided"))[1] == 2 * (convolutions + 16 * 16 * 32 * 288 + 8 * 8 * 64 * 576
                                                                  + 4 * 4 * 128 * 1152 + 2048 * 128 + 1280)


@pytest.mark.parametrize("norm", [None, "batch", "layer", "instance", "group"])
@pytest.mark.parametrize("skip", [None, "identity", "projection"])
@pytest.mark.parametrize("pool, head", [("max", "dense"), ("strided", "average")])
def test_shapes_and_a_gradient_to_every_parameter(norm, skip, pool, head):
    torch.manual_seed(0)
    model = network(5, (8, 16, 16, 24), 16, dropout=[0.1, 0.2, 0.2, 0.3, 0.5], norm=norm, order=FIRST, pool=pool,
                    head=head, skip=skip)
    x = torch.randn(4, 3, 32, 32)
    assert model(x).shape == (4, 5) and (model(x) == 0).all(), "the last layer starts at zero"
    nn.init.normal_(model[-1].weight)
    model.eval()  # dropout off, or a gradient may be zero by chance
    model(x).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.ndim > 1)
    assert [type(m).__name__ for m in model.modules()].count("Residual") == (3 if skip else 0), \
        "all blocks but the first"


def test_the_order_is_what_is_asked():
    strong = dict(dropout=[0.2, 0.3, 0.4, 0.5], norm="batch")
    conv = ["Conv2d", "ReLU", "BatchNorm2d"]
    assert kinds(network(**strong)) == 3 * (conv + conv + ["MaxPool2d", "Dropout"]) + ["Flatten", "Linear", "ReLU",
        "BatchNorm1d", "Dropout", "Linear"]
    assert kinds(network(order="act drop norm pool", **strong)) == 3 * (conv
                                                                        + ["Conv2d", "ReLU", "Dropout", "BatchNorm2d",
                                                                           "MaxPool2d"]) + ["Flatten", "Linear", "ReLU",
                                                                               "Dropout", "BatchNorm1d", "Linear"]
    assert kinds(network(order="norm act drop pool", **strong))[:8] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d",
                                                                        "BatchNorm2d", "ReLU", "Dropout", "MaxPool2d"]
    assert [m.p for m in network(**strong) if isinstance(m, nn.Dropout)] == [0.2, 0.3, 0.4, 0.5]
    assert [m.p for m in network(dropout=0.1)if isinstance(m, nn.Dropout)] == 4 * [0.1] \
        and "Dropout" not in kinds(network(norm="batch"))
    assert kinds(network(pool="strided", norm="batch"))[6:9] == conv and network(pool="strided")[4].stride == (2, 2)
    assert kinds(network(head="average", dropout=0.2))[-4:] == ["AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"]


@pytest.mark.parametrize("skip", ["identity", "projection"])
def test_a_residual_block_is_exactly_a_sum(skip):
    torch.manual_seed(0)
    model = network(norm="batch", order=FIRST, skip=skip).eval()
    block = next(m for m in model if isinstance(m, Residual))
    assert kinds(block.body) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"], \
        "no activation before the sum"
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean), nn.init.uniform_(m.weight)
    x = torch.randn(2, 32, 16, 16)
    conv1, norm1, _, conv2, norm2 = block.body
    if skip == "identity":
        around = torch.cat([x, torch.zeros(2, 32, 16, 16)], 1)
        assert not list(block.shortcut.parameters())
    else:
        conv, norm = block.shortcut
        assert conv.kernel_size == (1, 1) and isinstance(norm, nn.BatchNorm2d)
        around = norm(conv(x))
    torch.testing.assert_close(block(x), (norm2(conv2(norm1(conv1(x)).relu())) + around).relu())


def test_a_block_that_adds_no_channels_is_passed_by_as_it_is():
    block = next(m for m in network(widths=(16, 16), order=FIRST, skip="projection") if isinstance(m, Residual))
    assert isinstance(block.shortcut, nn.Identity)
    for p in block.body.parameters():
        nn.init.zeros_(p)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(x), x)
    assert torch.equal(ZeroPadShortcut(3)(x)[:, :16], x) and (ZeroPadShortcut(3)(x)[:, 16:] == 0).all()


def test_only_batch_norm_depends_on_the_batch():
    torch.manual_seed(0)
    image, rest = torch.randn(1, 16, 8, 8), torch.randn(3, 16, 8, 8)
    for kind in "batch", "layer", "instance", "group":
        norm = norm_layer(kind, 16)[0]
        alone, among = norm(torch.cat([image, image]))[0], norm(torch.cat([image, rest]))[0]
        assert torch.allclose(alone, among, atol=1e-5) == (kind != "batch"), kind
    x = 5 + 3 * torch.randn(4, 16, 8, 8)
    for kind, over in ("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3)):
        assert norm_layer(kind, 16)[0](x).mean(over).abs().max() < 1e-4, kind
    assert norm_layer("group", 16)[0](x).view(4, 8, -1).mean(2).abs().max() < 1e-4
    assert norm_layer(None, 16) == norm_layer("instance", 16, flat=True) == []


@pytest.mark.parametrize("arguments, says", [({"norm": "nrom"}, "normalization is 'nrom': choose 'batch', 'layer', "
                                                                "'instance', 'group', or None"),
                                             ({"norm": "group", "widths": (12,)}, "8 groups of 12 channels"),
                                             ({"side": 28}, "28 pixels a side .* a side that 8 divides"),
                                             ({"dropout": [0.1, 0.2]}, r"rates are \[0.1, 0.2\] .* a list of 4"),
                                             ({"dropout": 1.}, "from 0 to below 1"),
                                             ({"order": "act norm pool"}, "each once"),
                                             ({"order": "act norm pool dropout"}, "The order is"),
                                             ({"pool": "avg"}, "pool is 'avg': choose one of 'max', 'strided'"),
                                             ({"head": "gap"}, "head is 'gap'"), ({"skip": True}, "skip is True"),
                                             ({"skip": "identity"}, "begins with 'norm act'")])
def test_a_network_that_cannot_be_built_is_a_sentence(arguments, says):
    with pytest.raises(CourseError, match=says):
        network(**arguments)


# Augmentation and schedules

def test_an_augmentation_that_there_is_none_of_is_a_sentence():
    with pytest.raises(CourseError, match="no augmentation 'flop': choose from flip, shift"):
        augmentations(["flip", "flop"], 10)


def quiet_fit(splits, place, how, lr=0.05, n_epochs=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(768, 3))
    learn = learner(splits, model, place, bs=32, lr=lr, opt=optimizer("SGD", momentum=0.9), fresh=True)
    with learn.no_bar(), learn.no_logging():
        how(learn, n_epochs, lr)
    return learn


@pytest.mark.parametrize("shape, own", [("one cycle", lambda learn, n, lr: learn.fit_one_cycle(n, lr)),
                                        ("restarts", lambda learn, n, lr: learn.fit_sgdr(2, 1, lr)),
                                        ("constant", lambda learn, n, lr: learn.fit(n, lr))])
def test_a_schedule_is_fastais_own(shape, own, ws):
    splits = made()
    ours, theirs = quiet_fit(splits, ws, lambda learn, n, lr: learn.fit(n, cbs=ParamScheduler(schedule(shape, lr)))), \
        quiet_fit(splits, ws, own)
    assert ours.recorder.lrs == theirs.recorder.lrs and torch.equal(torch.stack(ours.recorder.losses),
                                                                    torch.stack(theirs.recorder.losses))


def test_the_other_schedules():
    at = lambda name, share: schedule(name, 1.)["lr"](share)
    assert [at("step decay", share) for share in (0, 0.49, 0.51, 0.74, 0.76)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert at("warm-up, cosine", 0) == pytest.approx(0.04) and at("warm-up, cosine", 0.1) == pytest.approx(1) \
        and at("warm-up, cosine", 0.999) < 1e-4
    with pytest.raises(CourseError, match="There is no schedule 'cosine': choose 'constant'"):
        schedule("cosine", 1.)


# Runs

SHARED = {**SMALL, "bs": 32, "n_epochs": 1}


def fit(data, ws, seed=0, **more):
    "A variant as `ablate` trains it with what is shared."
    return train_variant(data, ws, seed, **{**SHARED, **more})


def test_train_accuracy_is_of_plain_images_and_changes_nothing(ws):
    splits, losses = made(), []
    for metrics in [accuracy], [accuracy, TrainAccuracy(50)]:
        torch.manual_seed(0)
        learn = learner(splits, network(3, side=16, dropout=0.3, norm="batch", **SMALL), ws, bs=32,
                        opt=optimizer("SGD"), lr=0.05, augment=[random_hflip], metrics=metrics)
        with learn.no_bar(), learn.no_logging():
            learn.fit(2)
        losses.append(torch.stack(learn.recorder.losses))
    assert torch.equal(*losses)
    idx = evenly_spaced(splits.train, 50)
    x = (torch.as_tensor(splits.images[idx]).permute(0, 3, 1, 2) / 255 - learn.dls.train.mean) / learn.dls.train.std
    with torch.no_grad():
        right = (learn.model.eval()(x).argmax(1).numpy() == splits.labels[idx]).mean()
    assert learn.recorder.values[-1][-1] == pytest.approx(right) and learn.recorder.metric_names[4] == "train_accuracy"


def test_a_variant_is_trained_as_it_says(ws):
    splits = made()
    learn = fit(splits, ws, unit_range=True, opt="AdamW", weight_decay=0.1, lr=1e-3, augment=["flip", "mixup"],
                norm="group")
    assert type(learn.opt.opt).__name__ == "AdamW" and learn.opt.opt.param_groups[0]["weight_decay"] == 0.1
    assert (learn.dls.train.mean == 0).all() and (learn.dls.train.std == 1).all() and len(learn.dls.train.augment) == 2
    plain = fit(splits, ws)
    assert plain.opt.opt.param_groups[0]["weight_decay"] == 0 and plain.dls.train.mean.min() > 0.2 \
        and not plain.dls.train.augment


@pytest.mark.parametrize("name, row", [("baseline", {}), ("dropout", {"dropout": 0.2}),
                                       ("weight decay", {"weight_decay": 0.002}),
                                       ("augmentation", {"augment": ["flip", "shift"]}),
                                       ("all", {"dropout": [0.2, 0.3, 0.4], "norm": "batch",
                                                "augment": ["flip", "shift"]})])
def test_a_row_trained_by_the_references_recipe_says_so_in_its_words(name, row, ws):
    learn = train_variant(made(), ws, n_epochs=1, lr=1e-3, shape="constant", unit_range=True, **SMALL, **row)
    assert learn.recipe.replace(" 1 epoch,", " 400 epochs," if name == "all"
                                else " 100 epochs,") == references()[f"DD2424 {name}"]["recipe"]


def test_l2_and_decoupled_decay_differ_in_adam_alone():
    "One step on a weight without a gradient of its own: what each calls weight decay."
    def step(opt, **kwargs):
        w = nn.Parameter(torch.tensor([2.]))
        w.grad = torch.zeros(1)
        getattr(torch.optim, opt)([w], lr=0.1, weight_decay=0.5, **kwargs).step()
        return w.item()
    assert step("SGD") == pytest.approx(2 - 0.1 * 0.5 * 2) == step("AdamW") \
        and step("Adam") == pytest.approx(2 - 0.1), "Adam divides the penalty by itself"


@pytest.fixture
def steps(monkeypatch):
    "How many training batches there were."
    counted, one = [0], ResumingLearner._do_grad_opt
    monkeypatch.setattr(ResumingLearner, "_do_grad_opt", lambda self: (counted.__setitem__(0, counted[0] + 1),
                                                                       one(self)))
    return counted


def test_what_is_trained_is_not_trained_again(ws, steps, capsys):
    splits, tries = made(), {"a": {}, "b": {"dropout": [0.1, 0.2, 0.3], "norm": "batch"}, "a too": {}}
    runs = ablate(train_variant, tries, [1, 0], splits, ws, **SHARED)
    assert runs.name.tolist() == ["a", "a", "b", "b", "a too", "a too"] and runs.seed.tolist() == 3 * [0, 1] \
        and steps[0] == 4 * 4
    again = ablate(train_variant, tries, [1, 0], splits, ws, **SHARED)
    assert steps[0] == 16 and again.accuracy.equals(runs.accuracy) and again.epochs.equals(runs.epochs)
    assert "finished before" not in capsys.readouterr().out
    assert len(load_runs(ws, splits, {"b": tries["b"]}, **SHARED)) == 2
    assert not len(load_runs(ws, splits, {"b": tries["b"]}, **SHARED | {"n_epochs": 2})) \
        and not len(load_runs(ws, splits, {"b": {}}, **SHARED)) and not len(load_runs(ws, made(120), tries, **SHARED))


def test_a_rate_that_diverges_is_a_result_and_not_tried_again(ws, steps, capsys):
    splits, tries = made(), {"high": {"lr": 1e9, "shape": "constant"}, "low": {"lr": 0.01}}
    runs = ablate(train_variant, tries, [0], splits, ws, **SHARED)
    assert runs.name.tolist() == ["high", "low"] and "The loss is" in runs.diverged[0] \
        and runs.accuracy.isna().tolist() == [True, False]
    before = steps[0]
    again = ablate(train_variant, tries, [0], splits, ws, **SHARED)
    assert steps[0] == before and again.diverged[0] == runs.diverged[0] and len(ledger(ws)) == 2
    figure = plot_comparison(again, "rates")
    assert "diverged" in [t.get_text() for t in figure.axes[1].texts] and len(figure.axes[0].lines) == 1
    assert "low alone" in summarize(again)
    alone = ablate(train_variant, {"high": tries["high"]}, [0], splits, ws, **SHARED)
    plot_comparison(alone, "nothing but a run that diverged")
    with pytest.raises(CourseError, match="None of these runs has an accuracy"):
        summarize(alone)


def test_another_failure_is_an_error(ws):
    splits = made()
    with pytest.raises(CourseError, match="'typo' failed .*no schedule 'cosine'.*: mend its configuration"):
        ablate(train_variant, {"typo": {"shape": "cosine"}}, [0], splits, ws, **SHARED)
    with pytest.raises(CourseError, match="'typo' failed .*unexpected keyword argument 'droput'"):
        ablate(train_variant, {"typo": {"droput": 0.1}}, [0], splits, ws, **SHARED)


def test_the_test_part_is_looked_at_once_for_each_fit(ws):
    splits = made()
    ablate(train_variant, {"a": {}}, [0, 1], splits, ws, **SHARED)
    for _ in range(2):
        for seed in 0, 1:
            evaluate_test_once(fit(splits, ws, seed), "a", SHARED)
        ablate(train_variant, {"a": {}}, [0, 1], splits, ws, **SHARED)
    tested = load_runs(ws, splits, {"a": {"tested": True}}, **SHARED)
    assert count_test_evals(ws, splits) == 2 and tested.test_accuracy.notna().tolist() == [True, True] \
        and load_runs(ws, splits, {"a": {}}, **SHARED).test_accuracy.isna().all()
    evaluate_test_once(fit(splits, ws, lr=0.03), "a", SHARED)
    assert count_test_evals(ws, splits) == 3, "another fit"


# The lesson, and a kill

@pytest.mark.slow
def test_the_lesson_run_again_trains_nothing_and_looks_at_no_test_part(ws, steps, monkeypatch, capsys):
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    matplotlib.use("Agg")
    cells = [c.source for c in read_notebook(ROOT / "nbs" / "04_ablate.ipynb").cells if c.cell_type == "code"
             and "%pip" not in c.source]
    def run():
        space = {"display": lambda *_: None, "__name__": "lesson"}
        for source in cells:
            exec(source.replace('scale = "quick"', 'scale = "tiny"').replace("extensions = False", "extensions = True"),
                 space)
        return space
    first, n = run(), steps[0]
    looked, second = count_test_evals(first["ws"], first["splits"]), run()
    assert n > 200 and steps[0] == n and looked == 10 == count_test_evals(first["ws"], first["splits"])
    assert first["table"].test_accuracy.equals(second["table"].test_accuracy) \
        and first["five"].epochs.equals(second["five"].epochs)


def whole_grid(ws):
    "Three small runs through `ablate`; their table as text."
    splits, tries = made(), {"plain": {}, "dropout": {"dropout": 0.2, "augment": ["flip", "shift", "affine"]},
                             "norm": {"norm": "batch"}}
    runs = ablate(train_variant, tries, [0], splits, ws, **SMALL, bs=16, n_epochs=15)
    return runs[["name", "seed", "accuracy", "train_accuracy", "valid_loss", "train_loss", "epochs"]].to_json()


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_ablate import whole_grid
from coursekit.workspace import setup
print("begun", flush=True)
print(whole_grid(setup("tiny")))
"""


@pytest.mark.slow
def test_a_killed_grid_gives_the_same_table(tmp_path, monkeypatch):
    def start():
        env = {**os.environ, "COURSEKIT_CACHE": str(tmp_path / "b" / "cache"),
               "COURSEKIT_RUNS": str(tmp_path / "b" / "runs"), "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen([sys.executable, "-c", CHILD, os.path.dirname(__file__)], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, env=env)
        assert child.stdout.readline() == "begun\n"
        return child
    monkeypatch.setenv("COURSEKIT_CACHE", str(tmp_path / "a" / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the child, or the last bits differ
    try:
        whole = whole_grid(setup("tiny"))
    finally:
        torch.set_num_threads(threads)
    child, end = start(), time.monotonic() + 60
    while not (list(tmp_path.glob("b/runs/ledger/plain-0-*.json")) and list(tmp_path.glob("b/cache/fits/*/[ab].pt"))) \
        and time.monotonic() < end:
        time.sleep(0.005)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL and len(list(tmp_path.glob("b/runs/ledger/*.json"))) < 3, \
        "it was over before it was killed"
    again = start().communicate(timeout=120)[0].splitlines()
    assert any("it goes on from there." in line for line in again), again
    assert again[-1] == whole and len(json.loads(whole)["name"]) == 3
