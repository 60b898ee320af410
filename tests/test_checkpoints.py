"Checkpoints: a plain loop that goes on, what makes it another one, and files that are torn or find no room."
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import cut_off, made, net, quiet
from torch import nn

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
