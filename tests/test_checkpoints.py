"Checkpoints: a plain loop that goes on, what makes it another one, and files that are torn or find no room."
import subprocess
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import cut_off, made, net, quiet
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coursekit import checkpoints
from coursekit.checkpoints import resumable, to_plain
from coursekit.files import CourseError
from coursekit.learner import learner, optimizer


def parts_of(seed=0):
    torch.manual_seed(seed)
    net = nn.Linear(3, 1)
    return {"net": net, "opt": torch.optim.AdamW(net.parameters(), 0.01), "picture": torch.zeros(2, 2), "losses": [],
            "best": {"loss": 9.}}


def loop(ws, n=12, config=(), stop=None, parts=None, **kwargs):
    "Steps that use every kind of part, and torch's, NumPy's and Python's random numbers; how many were done."
    parts, done = parts or parts_of(), []
    for step in resumable(n, ws, parts, list(config), every=0, **kwargs):
        if step == stop:
            raise KeyboardInterrupt
        loss = parts["net"](torch.randn(4, 3) + np.random.rand()).square().mean()
        parts["opt"].zero_grad()
        loss.backward()
        parts["opt"].step()
        parts["picture"] += torch.rand(2, 2)
        parts["losses"].append(loss.item())
        parts["best"]["loss"] = min(parts["best"]["loss"], loss.item())
        done.append(step)
    return parts, done


def same(a, b):
    return all(map(torch.equal, a["net"].state_dict().values(), b["net"].state_dict().values())) \
        and torch.equal(a["picture"], b["picture"]) \
        and a["losses"] == b["losses"] and a["best"] == b["best"]


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_loop_that_was_cut_off_ends_as_the_whole_one(stop, place, capsys):
    whole, done = loop(place)
    assert done == list(range(12)) and capsys.readouterr().out == ""
    elsewhere = replace(place, runs=place.runs / "b", local=place.local / "b")
    with pytest.raises(KeyboardInterrupt):
        loop(elsewhere, stop=stop)
    again, done = loop(elsewhere)
    assert done == list(range(stop, 12)) and same(whole, again)
    assert capsys.readouterr().out == f"This loop was cut off before step {stop}: it goes on from there.\n"


def test_a_finished_loop_gives_its_end_and_fresh_starts_over(place, capsys):
    whole, _ = loop(place)
    again, done = loop(place)
    assert done == [] and same(whole, again) and "its end is loaded" in capsys.readouterr().out
    assert loop(place, fresh=True)[1] == list(range(12))


@pytest.mark.parametrize("other", [{"n": 13}, {"config": [0.5]}, {"config": [lambda x: x + 1]}, {"seed": 7},
                                   {"parts": parts_of(1)}])
def test_what_differs_is_another_loop(other, place):
    loop(place)
    assert len(loop(place, **other)[1]) == other.get("n", 12)


def test_what_cannot_be_described_starts_over_and_says_so(place):
    for _ in range(2):
        with pytest.warns(UserWarning, match="This loop starts over, whatever was kept: config .*generator"):
            assert len(loop(place, config=[(x for x in "ab")])[1]) == 12


def test_a_part_that_no_checkpoint_can_keep_is_a_sentence(place):
    with pytest.raises(CourseError, match="A object can't be kept in a checkpoint"):
        loop(place, parts={**parts_of(), "losses": [object()]})
    assert to_plain({"a": (1, np.float32(2))}) == {"a": [1, 2.0]}


def test_a_torn_checkpoint_is_said_and_the_one_before_is_used(place, capsys):
    whole, _ = loop(replace(place, runs=place.runs / "b", local=place.local / "b"))
    with pytest.raises(KeyboardInterrupt):
        loop(place, stop=6)
    newest = max(place.local.glob("fits/*/[ab].pt"), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    again, done = loop(place)
    assert "can't be used" in capsys.readouterr().out and done[0] == 5 and same(whole, again)


def test_parts_that_were_used_are_not_taken_for_new_ones(place, capsys):
    parts = parts_of()
    with pytest.raises(KeyboardInterrupt):
        loop(place, stop=6, parts=parts)
    assert "been through a loop" not in capsys.readouterr().out
    assert len(loop(place, parts=parts)[1]) == 12 and "Make them anew, in the same cell" in capsys.readouterr().out


class Layer(nn.Module):
    "One that holds what its state_dict leaves out."
    def __init__(self, k=1):
        super().__init__()
        self.linear, self.k, self.calls, self.carry = nn.Linear(2, 1), k, 0, None
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.carry = self.seen = self.seen + 1
        return self.linear(x) * self.k + self.carry


class Counting(Layer):
    "One that notes something."
    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class CountingWell(Counting):
    "One that keeps what it notes."
    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, calls):
        self.calls = calls


def steps(ws, parts, step=lambda: None, n=3, stop=None, config=()):
    "A loop of parts that are newly made; which steps were done."
    done = []
    for i in resumable(n, ws, parts, list(config), every=0):
        if i == stop:
            break
        step()
        done.append(i)
    return done


def trained(**changes):
    "Parts with one thing changed."
    torch.manual_seed(0)
    net = changes.get("net", lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))()
    opt = torch.optim.SGD((net[changes["trains"]] if "trains" in changes else net).parameters(), 0.1)
    return {"net": net, "opt": opt, **{name: make(net, opt) for name, make in changes.get("more", {}).items()}}


def frozen(first=True):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(not first)
    return net


def decays(rate):
    return {"more": {"schedule": lambda net, opt: lr_scheduler.SequentialLR(opt, [
        lr_scheduler.LambdaLR(opt, lambda e: rate ** e), lr_scheduler.ExponentialLR(opt, 0.9)], [2])}}


def averages(rate):
    return {"more": {"ema": lambda net, opt: AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(rate))}}


def transformer(first):
    return {"net": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=first)}


@pytest.mark.parametrize("one, other", [
    (decays(0.9), decays(0.1)), (averages(0.9), averages(0.5)), ({"net": Layer}, {"net": lambda: Layer(5)}),
    ({"net": frozen}, {"net": lambda: frozen(False)}), ({"trains": 0}, {"trains": 1}),
    (transformer(True), transformer(False))], ids=["schedule", "average", "attribute", "frozen", "trains", "library"])
def test_loops_whose_parts_do_something_else_are_told_apart(one, other, place, capsys):
    assert steps(place, trained(**one)) == [0, 1, 2] == steps(place, trained(**other))
    assert capsys.readouterr().out == "" and steps(place, trained(**one)) == [] == steps(place, trained(**other))
    assert capsys.readouterr().out.count("finished before") == 2


@pytest.mark.parametrize("make", [
    lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, 20), lambda opt: lr_scheduler.CyclicLR(opt, 0.1, 0.2),
    lambda opt: lr_scheduler.ReduceLROnPlateau(opt), lambda opt: torch.amp.GradScaler("cpu"),
    lambda opt: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(opt, 0.9)]),
    lambda opt: torch.optim.LBFGS([nn.Parameter(torch.ones(2))]), lambda opt: nn.LSTM(2, 2),
    lambda opt: type("Own", (nn.LSTM,), {})(2, 2), lambda opt: torch.compile(nn.Linear(2, 2)),
    lambda opt: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), lambda opt: np.random.default_rng(0)],
    ids=["one cycle", "cyclic", "plateau", "scaler", "chained", "lbfgs", "lstm", "own lstm", "compiled", "weight norm",
         "generator"])
def test_what_holds_other_things_is_a_part_like_any(make, place, capsys):
    made = lambda: trained(more={"x": lambda net, opt: make(opt)})
    assert steps(place, made(), stop=2) == [0, 1] and steps(place, made()) == [2] and steps(place, made()) == []
    assert "can't be" not in capsys.readouterr().out


def images():
    "Tensors that an optimizer holds, in a list; and what will be put in their places, and be added."
    torch.manual_seed(0)
    pair = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    best = {"pair": (pair[0], 0), "net": {"w": pair[1].detach()}, "array": np.zeros(2), "free": [torch.ones(2)]}
    return {"pair": pair, "opt": torch.optim.Adam(pair, 0.1), "best": best, "all": []}


def paint(parts):
    def step():
        parts["opt"].zero_grad()
        sum(((x - torch.rand(len(x))) ** 2).sum() for x in parts["pair"]).backward()
        parts["opt"].step()
        parts["best"]["array"] = parts["best"]["array"] + 1
        parts["best"]["free"] = [(parts["best"]["free"][0] * 2).detach().requires_grad_()]
        if not parts["all"]:
            parts["best"]["net"] = {"w": parts["pair"][1].detach().clone()}
        parts["all"].append(parts["pair"][0].detach().clone())
    return step


def test_tensors_in_lists_and_dicts_are_those_that_the_optimizer_holds(place):
    whole = images()
    steps(replace(place, runs=place.runs / "b", local=place.local / "b"), whole, paint(whole), 8)
    cut = images()
    steps(place, cut, paint(cut), 8, stop=4)
    again = images()
    pair, best = list(again["pair"]), again["best"]
    assert steps(place, again, paint(again), 8) == [4, 5, 6, 7]
    assert all(a is b and a.requires_grad for a, b in zip(again["pair"], pair)) and again["best"] is best
    assert all(map(torch.equal, again["pair"] + again["all"], whole["pair"] + whole["all"]))
    assert isinstance(best["pair"], tuple) and best["pair"][0] is pair[0]
    assert isinstance(best["array"], np.ndarray) and best["array"].tolist() == [8, 8]
    assert torch.equal(best["net"]["w"], whole["best"]["net"]["w"]) and best["free"][0].requires_grad
    # the first is kept apart, and not written into what trains
    assert not torch.equal(best["net"]["w"], pair[1])


def test_generators_are_parts(place):
    made = lambda: {"torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1), "drawn": []}
    step = lambda p: lambda: p["drawn"].append([torch.rand((), generator=p["torch"]).item(), p["numpy"].random()])
    whole, cut, again = made(), made(), made()
    steps(replace(place, runs=place.runs / "b", local=place.local / "b"), whole, step(whole), 6)
    steps(place, cut, step(cut), 6, stop=3)
    assert steps(place, again, step(again), 6) == [3, 4, 5] and again["drawn"] == whole["drawn"]


@pytest.mark.parametrize("make", [Layer, CountingWell])
def test_what_a_state_dict_leaves_out_is_kept(make, place):
    whole, cut, again = ({"net": make()} for _ in range(3))
    for copy in (cut["net"], again["net"]):
        copy.linear.load_state_dict(whole["net"].linear.state_dict())
    step = lambda p: lambda: p["net"](torch.ones(1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(replace(place, runs=place.runs / "b", local=place.local / "b"), whole, step(whole), 6)
        steps(place, cut, step(cut), 6, stop=3)
        assert steps(place, again, step(again), 6) == [3, 4, 5]
    assert again["net"].seen == again["net"].carry == 6 and again["net"].calls == whole["net"].calls
    assert "seen" in dict(again["net"].named_buffers())


def test_of_a_module_that_notes_something_nothing_is_kept_and_that_is_said(place, capsys):
    for _ in range(2):
        torch.manual_seed(0)
        counting = nn.Sequential(Counting())
        with pytest.warns(UserWarning, match="^net.0.calls changes while it trains, and checkpoints don't have that: "
                                             "none is kept of this loop, and after a kill it begins anew") as said:
            assert steps(place, {"net": counting}, partial(counting, torch.ones(1, 2))) == [0, 1, 2]
        assert len(said) == 1 and not list(place.runs.rglob("*.pt")) + list(place.local.rglob("*.pt"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("part, says", [
    (3, "The part 'x' is of type int, which no checkpoint can put back"), ((1, 2), "of type tuple"),
    ([{1}], "A set can't be kept"), (np.array(["a"]), "A ndarray can't be kept"), ({object(): 1}, "A object can't")])
def test_what_cannot_be_kept_is_said_before_the_first_step(part, says, place):
    done = []
    with pytest.raises(CourseError, match=says):
        steps(place, {"x": part}, lambda: done.append(1))
    assert not done


@pytest.mark.parametrize("make", [
    lambda far: {"a": torch.zeros(2), "b": far}, lambda far: {"a": [torch.zeros(2)], "b": [{"c": far}]},
    lambda far: {"net": nn.Linear(2, 2), "opt": torch.optim.SGD([far.requires_grad_()], 0.1)},
    lambda far: {"net": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))}])
def test_the_device_of_a_loop_is_the_first_that_is_no_cpu(make, place):
    assert checkpoints._Parts(make(torch.zeros(2, device="meta"))).device.type == "meta"
    assert checkpoints._Parts({"a": [1.], "net": nn.Linear(2, 2)}).device.type == "cpu"


# Those of a fit

@pytest.mark.parametrize("harm", [lambda data: data[:len(data) // 2], lambda data: b"", lambda data: data[:1000] + b"x"
                                  + data[1001:], lambda data: b"0" * 64 + data[64:]])
def test_a_torn_checkpoint_of_a_fit_is_said_and_the_one_before_is_used(harm, place, capsys):
    s, opt = made(), optimizer("SGD", momentum=0.9)
    whole = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    subprocess.run(["rm", "-rf", str(place.runs / "fits")], check=True)
    learn = learner(s, net(), place, bs=32, opt=opt)
    cut_off(learn, 6, 3, 0.05)
    slots = sorted(learn.checkpoints.local.glob("*.pt"), key=lambda p: p.stat().st_mtime_ns)
    slots[-1].write_bytes(harm(slots[-1].read_bytes()))
    again = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    said = capsys.readouterr().out
    assert f"{slots[-1].name} can't be used" in said and "was cut off in epoch 1, batch 0: it goes on" in said
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))


def test_a_full_disk_is_a_warning_and_the_training_goes_on(place, monkeypatch):
    learn = learner(made(), net(), place, bs=32)
    write = checkpoints.write_checkpoint
    def full(path, state):
        if path.name in checkpoints.SLOTS:
            raise CourseError("No space is left on the disk.")
        write(path, state)
    monkeypatch.setattr(checkpoints, "write_checkpoint", full)
    with pytest.warns(UserWarning, match="checkpoint was not kept: No space is left"):
        quiet(learn, 2, 0.01)
    assert len(learn.recorder.values) == 2


def test_a_new_machine_goes_on_from_the_runs_folder(place, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "COPY_EVERY", 0)
    s, opt = made(), optimizer("SGD", momentum=0.9)
    learn = learner(s, net(), place, bs=32, opt=opt)
    cut_off(learn, 5, 3, 0.05)
    subprocess.run(["rm", "-rf", str(place.local / "fits")], check=True)
    again = quiet(learner(s, net(), place, bs=32, opt=opt), 3, 0.05)
    assert "it goes on from there" in capsys.readouterr().out
    whole = quiet(learner(s, net(), place, bs=32, opt=opt, fresh=True), 3, 0.05)
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))


def test_a_probe_is_alike_on_another_number_of_threads_and_not_on_another_model():
    probe = [torch.linspace(-2, 2, 20)]
    assert checkpoints._alike([probe[0] + 5e-4], probe)  # what batch norm makes of round-off, measured on CIFAR-10
    assert not checkpoints._alike([probe[0] * 1.02], probe) and not checkpoints._alike([], probe)
