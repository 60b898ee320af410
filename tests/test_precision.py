"Precision: what is asked is used and left again, what a machine can't do is said."
import pytest
import torch
from conftest import made, net, quiet
from torch import nn

from coursekit import precision as precision_module
from coursekit.files import CourseError
from coursekit.learner import learner


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16),
                                              ("fp16", torch.float16)])
def test_precision_is_used_and_left_again(precision, dtype, place):
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    learn = quiet(learner(made(), nn.Sequential(nn.Flatten(), Spy(768, 3)), place, bs=32, precision=precision), 1, 1e-3)
    assert seen[-1] == dtype and seen.count(dtype) >= 6 and not torch.is_autocast_enabled("cpu") \
        and learn.precision == precision


def test_an_exception_leaves_no_autocast_behind(place):
    class Broken(nn.Linear):
        def forward(self, x):
            if len(x) > 16:
                raise RuntimeError("broken")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="broken"):
        quiet(learner(made(), nn.Sequential(nn.Flatten(), Broken(768, 3)), place, bs=32, precision="bf16"), 1)
    assert not torch.is_autocast_enabled("cpu")


class NoHalf(nn.Linear):
    "Like an LSTM on a CPU without bf16: it fails forwards, or backwards only, or in use only."
    def __init__(self, where):
        super().__init__(768, 3)
        self.where = where

    def forward(self, x):
        out = super().forward(x)
        if torch.is_autocast_enabled("cpu") and self.where == "forwards":
            raise RuntimeError("could not create a primitive descriptor")
        if torch.is_autocast_enabled("cpu") and self.where == "backwards" and out.requires_grad:
            out.register_hook(no_gradient)
        return out


def no_gradient(grad):
    raise RuntimeError("not implemented for 'BFloat16'")


@pytest.mark.parametrize("where", ["forwards", "backwards"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("asked", ["as an argument", "as fastai has it"])
def test_a_precision_that_this_machine_cannot_do_is_said_and_full_precision_used(where, precision, asked, place, capsys,
    monkeypatch):
    model = nn.Sequential(nn.Flatten(), NoHalf(where))
    learn = learner(made(), model, place, bs=32, **({"precision": precision} if asked == "as an argument" else {}))
    if asked != "as an argument":
        monkeypatch.setattr(precision_module, "best_precision", lambda device: precision)
        learn = getattr(learn, f"to_{precision}")()
    said = capsys.readouterr().out
    assert f"can't train this model in {precision} (" in said and said.endswith("it trains in fp32.\n") \
        and learn.precision == "fp32"
    quiet(learn, 1, 1e-3)
    with learn.no_bar():
        assert len(learn.get_preds()[0]) == len(made().valid)


@pytest.mark.parametrize("has", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("ask", ["fp16", "bf16", "fp32"])
def test_fastais_names_for_a_precision(ask, has, place, capsys, monkeypatch):
    monkeypatch.setattr(precision_module, "best_precision", lambda device: has)
    s, taken = made(), ask if ask in (has, "fp32") else has
    learn = learner(s, net(), place, bs=32)
    capsys.readouterr()
    assert getattr(learn, f"to_{ask}")() is learn and learn.precision == taken
    assert capsys.readouterr().out == ("" if taken == ask else f"{ask} is for GPUs and would make this CPU many times "
                                                               f"slower: it trains in {has}. precision='{ask}' "
                                                               f"insists.\n")
    quiet(learn, 1, 0.01)
    assert len(learn.epochs) == 1
    again = learner(s, net(), place, bs=32, **({"precision": ask} if taken == ask else {}))
    assert quiet(again, 1, 0.01).checkpoints.kept == learn.checkpoints.kept, "the same fit under either name"


def test_a_gpu_that_is_full_is_told_a_batch_size_that_fits(place):
    class Hungry(nn.Linear):
        def forward(self, x):
            if self.training and len(x) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)
    with pytest.raises(CourseError, match="too small for batches of 64; 16 was tried and fits: take bs=16"):
        quiet(learner(made(), nn.Sequential(nn.Flatten(), Hungry(768, 3)), place, bs=64), 1)
