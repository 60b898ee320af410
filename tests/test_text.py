"Text: streams with a carried state, kills and the test part, each against something known."
import os
import random
import signal
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, quiet
from torch import nn

from coursekit.corpora import split_text
from coursekit.evaluate import char_losses, compare_texts, evaluate_text, windows
from coursekit.files import CourseError
from coursekit.learner import text_learner
from coursekit.ledger import count_test_evals, data_facts, ledger, load_runs, references, results
from coursekit.loaders import LMLoader
from coursekit.notebook import read_notebook
from coursekit.runs import count_flops, evaluate_test_once, record, run_grid
from coursekit.sampler import sampler_widget
from coursekit.text import CharModel, generate, nucleus, stream, top_k

torch.set_num_threads(1)


def made(n=6000):
    "Sentences of few words."
    rng, words = np.random.default_rng(0), "the cat sat on a mat and saw the sea".split()
    return split_text("made", " ".join(rng.choice(words, n))[:n])


def model_of(text, kind="LSTM", n_hidden=16, **kwargs):
    torch.manual_seed(0)
    return CharModel(len(text.chars), kind, n_hidden, **kwargs)


# Streams and the carried state

def test_streams_go_on_where_they_were_and_windows_do_not():
    ids = np.arange(1000)
    dl = LMLoader(ids, bs=4, seq_len=30)
    xs, ys = (torch.cat(parts, 1) for parts in zip(*dl))
    assert xs.shape == (4, 249) and torch.equal(xs, torch.arange(996).view(4, 249)) and torch.equal(ys, xs + 1) \
        and len(dl) == 9
    shuffled = LMLoader(ids, bs=4, seq_len=30, shuffle=True, seed=1)
    first = [x for x, _ in shuffled]
    assert len(first) == 9 and all((x[:, 1:] - x[:, :-1] == 1).all() and torch.equal(y, x + 1) for x, y in shuffled)
    assert all(torch.equal(x, again) for x, (again, _) in zip(first, shuffled)) \
        and torch.equal(first[5], next(shuffled.batches(5))[1][0])
    shuffled.epoch = 1
    assert not torch.equal(first[0], next(iter(shuffled))[0]) and dl.sample_batch(2)[0].shape == (2, 30)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_carried_state_is_one_long_pass(kind):
    text = made()
    model = model_of(text, kind, n_layers=2, norm=True).eval()
    whole, end = model(torch.as_tensor(text.train[None, :300]))
    state, pieces = None, []
    for a, b in (0, 1), (1, 50), (50, 300):
        logits, state = model(torch.as_tensor(text.train[None, a:b]), state)
        pieces.append(logits)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5) and torch.allclose(state, end, atol=1e-5)
    assert char_losses(model,
                       text.train[:301])[0] == pytest.approx(nn.functional.cross_entropy(whole[0],
                           torch.as_tensor(text.train[1:301]), reduction="none").detach().numpy(), abs=1e-5)


def test_the_state_is_carried_in_training_and_emptied_for_validation_and_epochs(ws):
    text, seen = made(), []

    class Spy(CharModel):
        def forward(self, x, state=None):
            seen.append((self.training, state is not None))
            return super().forward(x, state)

    torch.manual_seed(0)
    learn = text_learner(text, Spy(len(text.chars), n_hidden=8), ws, bs=8, seq_len=64)
    del seen[:]
    quiet(learn, 2, 1e-2)
    n_train, n_valid = len(learn.dls.train), len(learn.dls.valid)
    epoch = [(True, False)] + [(True, True)] * (n_train - 1) + [(False, False)] + [(False, True)] * (n_valid - 1)
    assert seen[-2 * len(epoch):] == epoch * 2
    del seen[:]
    quiet(text_learner(text, Spy(len(text.chars), n_hidden=8), ws, bs=8, seq_len=64, shuffle=True), 1, 1e-2)
    assert seen[-len(epoch):] == [(True, False)] * n_train + epoch[n_train:], "windows begin empty, validation carries"


def test_the_validation_loss_is_that_of_its_characters(ws):
    text = made()
    # one stream, whose last batch is shorter
    learn = quiet(text_learner(text, model_of(text), ws, bs=8, seq_len=50), 1, 1e-2)
    assert learn.recorder.values[-1][1] == pytest.approx(char_losses(learn.model, text.valid).mean(), abs=1e-5)


def test_a_short_text_trains_and_a_shorter_one_is_told(ws):
    learn = quiet(text_learner(made(2700), model_of(made(2700)), ws), 1, 1e-2)
    assert len(learn.dls.train) == 2 and learn.recorder.values[-1][1] > 0
    with pytest.raises(CourseError, match="This part has 1,600 characters and one batch takes 32 x 64"):
        text_learner(made(2000), model_of(made(2000)), ws)


def test_the_gradients_by_hand_are_torchs():
    source = next(c.source for c in read_notebook(ROOT / "nbs" / "05_text.ipynb").cells
                  if "def rnn_by_hand" in c.source)
    space = {"np": np}
    exec(source.split("\nrng = ")[0], space)
    rng = np.random.default_rng(1)
    parameters = [rng.normal(0, 0.5, s) for s in ((5, 7), (5, 5), (7, 5), 5, 7)]
    x, y = rng.integers(0, 7, 20), rng.integers(0, 7, 20)
    loss, grads = space["rnn_by_hand"](*parameters, x, y)
    U, W, V, b, c = tensors = [torch.tensor(a, requires_grad=True) for a in parameters]
    layer = nn.RNN(7, 5, dtype=torch.float64)
    names = {"weight_ih_l0": U, "weight_hh_l0": W, "bias_ih_l0": b, "bias_hh_l0": torch.zeros(5, dtype=torch.float64)}
    h = torch.func.functional_call(layer, names, nn.functional.one_hot(torch.as_tensor(x), 7).double())[0]
    truth = nn.functional.cross_entropy(h @ V.T + c, torch.as_tensor(y))
    truth.backward()
    assert loss == pytest.approx(truth.item()) and all(np.allclose(g, t.grad, atol=1e-12)
                                                       for g, t in zip(grads, tensors))


@pytest.mark.parametrize("make, says", [
    (lambda ws, t: CharModel(5, "Transformer"), "kind is 'Transformer': choose 'RNN', 'GRU' or 'LSTM'"),
    (lambda ws, t: CharModel(5, n_layers=0), "There are 0 layers of 128 units"),
    (lambda ws, t: CharModel(5, dropout=1), "with dropout 1"),
    (lambda ws, t: text_learner(t, CharModel(5), ws), "The model has 5 characters and made has 13"),
    (lambda ws, t: text_learner(t, model_of(t), ws, bs=0), "The batch is 0 x 64"),
    (lambda ws, t: text_learner(t, model_of(t), ws, seq_len=1.5), "The batch is 32 x 1.5"),
    (lambda ws, t: text_learner(t, model_of(t), ws, bs=100, seq_len=100), "has 4,800 characters and one batch takes "
                                                                          "100 x 100 and one more: take a longer text, "
                                                                          "or a smaller bs or seq_len"),
    (lambda ws, t: generate(model_of(t), t, temperature=0), "temperature is 0: a number above 0 is expected"),
    (lambda ws, t: generate(model_of(t), t, temperature=float("nan")), "temperature is nan"),
    (lambda ws, t: nucleus(torch.zeros(3), 0), "p is 0: a probability above 0 and at most 1"),
    (lambda ws, t: nucleus(torch.zeros(3), 1.1), "p is 1.1"),
    (lambda ws, t: top_k(torch.zeros(3), 0), "k is 0"),
    (lambda ws, t: windows(t.valid, 5000), "There are 600 characters and a window takes 5,000"),
])
def test_bad_input_is_a_sentence(make, says, ws):
    with pytest.raises(CourseError, match=says):
        make(ws, made())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_each_kind_learns_in_each_precision_that_this_machine_has(kind, precision, ws, capsys):
    text = made()
    learn = quiet(text_learner(text, model_of(text, kind), ws, bs=8, seq_len=32, precision=precision), 3, 2e-2)
    assert learn.recorder.values[-1][1] < 0.6 * np.log(len(text.chars))
    assert learn.precision == ("fp32" if f"can't train this model in {precision}" in capsys.readouterr().out
                               else precision)


# What a fit is, and kills

def test_a_finished_fit_is_known_again_and_other_settings_are_another(ws, capsys):
    text = made()
    first = quiet(text_learner(text, model_of(text), ws, bs=8, seq_len=32), 1, 1e-2)
    again = quiet(text_learner(text, model_of(text), ws, bs=8, seq_len=32), 1, 1e-2)
    assert "was finished before" in capsys.readouterr().out and again.recorder.values == first.recorder.values
    for change in {"seq_len": 40}, {"shuffle": True}, {"clip": 0.5}, {"seed": 1}:
        quiet(text_learner(text, model_of(text), ws, **{"bs": 8, "seq_len": 32, **change}), 1, 1e-2)
        assert "was finished before" not in capsys.readouterr().out, change


RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from test_text import made, model_of, quiet, text_learner
from coursekit.workspace import setup
out, die = sys.argv[2], int(sys.argv[3])
text = made(20_000)
learn = text_learner(text, model_of(text, n_layers=2, dropout=0.2), setup("tiny"), bs=8, seq_len=32)
learn.checkpoint_seconds = 0
step = learn._step
def step_or_die():  # after the backward pass of this batch, before its step
    if learn.train_iter == die:
        os.kill(os.getpid(), 9)
    step()
learn._step = step_or_die
quiet(learn, 3, 1e-2)
r = learn.recorder
torch.save({"weights": list(learn.model.state_dict().values()), "values": [list(v) for v in r.values],
            "losses": torch.stack(list(r.losses)).as_subclass(torch.Tensor)}, out)
"""


def run(folder, name, die=-1):
    env = {**os.environ, "COURSEKIT_CACHE": str(folder / name / "cache"), "COURSEKIT_RUNS": str(folder / name / "runs"),
           "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, os.path.dirname(__file__), str(folder / f"{name}.pt"),
                             str(die)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)


@pytest.mark.slow
def test_a_killed_text_fit_ends_as_the_one_that_nobody_killed(tmp_path):
    at = random.SystemRandom().randrange(5, 180)  # of 189 batches in three epochs
    whole, killed = run(tmp_path, "whole"), run(tmp_path, "killed", at)
    assert killed.wait(timeout=100) == -signal.SIGKILL and whole.wait(timeout=100) == 0
    again = run(tmp_path, "killed")
    said = again.communicate(timeout=100)[0]
    assert f"This fit was cut off in epoch {at // 63}, batch {at % 63}: it goes on from there." in said, (at, said)
    whole, again = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed"))
    assert all(map(torch.equal, whole["weights"], again["weights"])) and whole["values"] == again["values"] \
        and torch.equal(whole["losses"], again["losses"]), at


@pytest.mark.parametrize("kind, shuffle", [("LSTM", False), ("GRU", False), ("RNN", True)])
def test_a_fit_cut_off_in_the_middle_of_an_epoch_goes_on_with_its_state(kind, shuffle, ws, capsys):
    text = made()
    begin = lambda: text_learner(text, model_of(text, kind, dropout=0.2), ws, bs=8, seq_len=32, shuffle=shuffle)
    whole = quiet(begin(), 2, 1e-2)
    whole.checkpoints.forget()
    learn = begin()
    one_batch, n = learn.one_batch, [0]

    def counted(*batch):
        if n[0] == 7:
            raise ConnectionError
        n[0] += 1
        one_batch(*batch)

    learn.one_batch, learn.checkpoint_seconds = counted, 0
    with pytest.raises(ConnectionError):
        quiet(learn, 2, 1e-2)
    again = quiet(begin(), 2, 1e-2)
    assert "was cut off in epoch 0, batch 7: it goes on from there." in capsys.readouterr().out
    assert again.recorder.values == whole.recorder.values and all(map(torch.equal, again.model.parameters(),
                                                                      whole.model.parameters()))


def test_grid_ledger_and_results_know_a_text(ws):
    text = made()

    def train(data, ws, seed, bs, **shape):
        torch.manual_seed(seed)
        return quiet(text_learner(data, CharModel(len(data.chars), n_hidden=8, **shape), ws, bs=bs, seq_len=32,
                                  seed=seed), 1, 1e-2)

    networks = {"RNN": {"kind": "RNN"}, "none": {"kind": "none"}}
    done = run_grid(train, networks, (0, 1), text, ws, bs=8)
    assert done.status.tolist() == ["finished", "failed"] * 2 and "choose 'RNN'" in done.why[1]
    row = load_runs(ws, text, networks, bs=8).iloc[0]
    assert row.config == {"bs": 8, "kind": "RNN"} and row.recipe.startswith("AdamW, lr 0.0004 to 0.01 to ") \
        and row.recipe.endswith("batch 8 x 32, 1 epoch, GradientClip")
    assert not len(load_runs(ws, text, networks, bs=16)) and not len(load_runs(ws, made(3000), networks, bs=8))
    facts = {"title": "made", "fingerprint": text.fingerprint, "stand_in": False, "train": 4800, "valid": 600}
    assert row.data == {**facts, "part": False, "split": data_facts(text)["split"]} and row.bs == 8
    assert row.parameters > 0
    table = results(ledger(ws), "valid_loss", {"RNN": "nanoGPT, CPU"})
    assert table.n.tolist() == [2, 0] and table.failed.tolist() == [0, 2] and "1.88" in table.reference[0] \
        and "different recipe" in table.reference[0]
    assert references()["nanoGPT, GPU"]["value"] == 1.4697


@pytest.mark.parametrize("kind, gates", [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_flops_of_fused_layers_are_counted(kind, gates):
    text = made()
    model = model_of(text, kind, 16)
    expected = 2 * 64 * (gates * 16 * (64 + 16) + 16 * len(text.chars))
    assert count_flops(model, LMLoader(text.train, bs=4, seq_len=64)) == expected


# The test part

def test_a_fit_is_tested_once_however_often_the_lesson_is_run(ws):
    text = made()
    for seed in (0, 1, 0, 1, 1):
        learn = quiet(text_learner(text, model_of(text), ws, bs=8, seq_len=32, seed=seed), 1, 1e-2)
        evaluate_test_once(learn, "LSTM", {"kind": "LSTM"})
        record(learn, "LSTM", {"kind": "LSTM"})  # as a grid does that is run again: the figure stays
    tested = load_runs(ws, text, {"LSTM": {"kind": "LSTM", "tested": True}})
    assert count_test_evals(ws, text) == 2 and tested.seed.tolist() == [0, 1]
    assert tested.test_nats[1] == pytest.approx(char_losses(learn.model, text.test).mean(), abs=1e-6)
    assert tested.test_looks.max() == 2 and results(tested, "test_nats").looks.tolist() == [2]


def test_networks_on_one_text_are_compared_character_by_character(ws):
    text = made(25_000)
    fit = lambda n, seed: quiet(text_learner(text, model_of(text, n_hidden=n), ws, bs=8, seq_len=32, seed=seed), 1,
                                1e-2)
    learners = {f"{n} units": [fit(n, seed) for seed in (0, 1)] for n in (4, 24)}
    table = compare_texts(learners)
    losses = [[char_losses(learn.model, text.valid)[0] for learn in own] for own in learners.values()]
    assert table.nats.tolist() == pytest.approx([np.mean(own) for own in losses], abs=1e-6)
    assert table.by_seed[1] == pytest.approx([np.mean(b) - np.mean(a) for a, b in zip(*losses)], abs=1e-6)
    assert table.high[1] < 0 and table.difference[0] == 0 and table.parameters.is_monotonic_increasing
    assert table.lowest.tolist() == pytest.approx([np.mean([learn.epochs[0]["valid_loss"] for learn in own])
                                                   for own in learners.values()])


def test_the_test_part_is_read_once_and_counted(ws):
    text = made()
    learn = quiet(text_learner(text, model_of(text), ws, bs=8, seq_len=32), 1, 1e-2)
    tested = evaluate_text(learn)
    assert tested["bits"] == pytest.approx(tested["nats"] / np.log(2)) \
        and tested["perplexity"] == pytest.approx(np.exp(tested["nats"])) and tested["n"] == 599
    assert evaluate_text(learn)["looks"] == tested["looks"] + 1
    customary = split_text("made", text.decode(text.train), (0.9, 0.1, 0))
    with pytest.raises(CourseError, match="cut without a test part"):
        evaluate_text(text_learner(customary, model_of(customary), ws, bs=8, seq_len=32))


def test_what_the_lessons_widget_writes_is_what_the_network_writes():
    source = next(c.source for c in read_notebook(ROOT / "nbs" / "05_text.ipynb").cells
                  if "sampler_widget(write" in c.source and "def write" in c.source)
    text, space = made(), {"stream": stream, "nucleus": nucleus, "partial": partial}
    model = model_of(text)
    space |= {"customary": text, "held": SimpleNamespace(model=model)}
    exec(source[source.index("def write"):source.index("display(")], space)
    box = sampler_widget(space["write"], n=25)
    prompt, (seed, button), out = box.children[0], box.children[2].children, box.children[3]
    prompt.value, seed.value = "the ", 7
    button.click()
    written, = generate(model, text, "the ", 25, 0.8, partial(nucleus, p=0.95), seed=7)
    assert f">the {written}</pre>" in out.value
