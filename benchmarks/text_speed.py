"""Training and sampling a character model: coursekit against what a student would write first.

    python benchmarks/text_speed.py

Training: characters a second of one pass over the same characters in batches of 32 x 64, two LSTM layers of 128 units,
AdamW, clipped gradients: coursekit's `text_learner` in the precision that it picks, the same in fp32, a bare loop over
the fused nn.LSTM in fp32, which shows what the Learner costs, and a bare loop with an nn.LSTMCell a layer and a Python
step a character. Writing: characters a second of 500-character texts: coursekit's `generate`, 16 side by side and one
alone, each with its state carried, and a loop that reads the whole text again for every character, as the first version
of a sampler often does. The ways take turns in one process; medians of three rounds, one thread, for the hardware
named.
The text is Python's own source, so nothing is fetched.
"""
import os
import statistics
import tempfile
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from coursekit.corpora import python_source
from coursekit.learner import text_learner
from coursekit.loaders import LMLoader
from coursekit.machine import cpu_name, gpu_name
from coursekit.text import CharModel, generate
from coursekit.workspace import setup

BS, SEQ, N_HIDDEN, N_LAYERS = 32, 64, 128, 2
N_TRAIN, N_WRITTEN = 40 * BS * SEQ + 1, 500


class Cells(nn.Module):
    "The same network with an nn.LSTMCell a layer and a Python loop over time."
    def __init__(self, n_chars):
        super().__init__()
        self.embed, self.out = nn.Embedding(n_chars, 64), nn.Linear(N_HIDDEN, n_chars)
        self.cells = nn.ModuleList(nn.LSTMCell(64 if i == 0 else N_HIDDEN, N_HIDDEN) for i in range(N_LAYERS))

    def forward(self, x, state=None):
        state, outs = list(state or [None] * N_LAYERS), []
        for t in range(x.shape[1]):
            h = self.embed(x[:, t])
            for i, cell in enumerate(self.cells):
                state[i] = cell(h, state[i])
                h = state[i][0]
            outs.append(h)
        return self.out(torch.stack(outs, 1)), state


class Fused(nn.Module):
    "The same network with torch's fused layers."
    def __init__(self, n_chars):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(n_chars, 64), nn.LSTM(64, N_HIDDEN, N_LAYERS,
                                                                             batch_first=True), \
                                                                                 nn.Linear(N_HIDDEN, n_chars)

    def forward(self, x, state=None):
        h, state = self.lstm(self.embed(x), state)
        return self.out(h), state


def bare(model, text, ws):
    "Seconds of one pass in a loop of a few lines."
    model = model.to(ws.device)
    opt, state = torch.optim.AdamW(model.parameters(), lr=5e-3), None
    start = time.perf_counter()
    for xb, yb in LMLoader(text.train, BS, SEQ, device=ws.device):
        logits, state = model(xb, state)
        state = tuple(s.detach() for s in state) if isinstance(model, Fused) \
            else [tuple(s.detach() for s in pair) for pair in state]
        loss = F.cross_entropy(logits.flatten(0, 1), yb.flatten())
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.)
        opt.step()
    loss.item()
    return time.perf_counter() - start


def ours(text, ws, precision=None):
    "Seconds of one pass with coursekit's learner, with its checkpoints and a validation of two batches."
    learn = text_learner(text, CharModel(len(text.chars), "LSTM", N_HIDDEN, N_LAYERS), ws, BS, SEQ, precision=precision,
                         fresh=True)
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return time.perf_counter() - start


def read_again(model, text, n):
    "Seconds of writing `n` characters, the whole text read again for each."
    random, ids = torch.Generator().manual_seed(0), torch.as_tensor(text.encode("\n"),
                                                                    device=model.out.weight.device)[None]
    model.eval()
    start = time.perf_counter()
    for _ in range(n):
        with torch.no_grad():
            probs = model(ids)[0][0, -1].softmax(-1).cpu()
        ids = torch.cat([ids, torch.multinomial(probs, 1, generator=random).to(ids.device)[None]], 1)
    return time.perf_counter() - start


def carried(model, text, n, n_samples):
    "Seconds of writing `n` characters with `generate`."
    start = time.perf_counter()
    generate(model, text, "\n", n, n_samples=n_samples)
    return time.perf_counter() - start


def show(heading, ways, n, rounds):
    "Take turns; print characters a second and how many times as fast the first way is."
    times = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, way in ways.items():
            seconds = way() / n[name]
            if i:  # the first round is not measured: imports and kernels
                times[name].append(seconds)
    first = next(iter(times.values()))
    print(f"\n{heading:50}{'characters/s':>13}{'the first is so many times as fast':>36}")
    for name, t in times.items():
        print(f"{name:50}{1 / statistics.median(t):13,.0f}{statistics.median(b / a for a, b in zip(first, t)):36.2f}")


def main(rounds=3):
    "Print characters a second and ratios."
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as room:
        os.environ |= {"COURSEKIT_RUNS": f"{room}/runs", "COURSEKIT_CACHE": f"{room}/cache"}
        ws = setup("quick")
        text = python_source(ws)
        text = replace(text, train=text.train[:N_TRAIN], valid=text.valid[:BS * SEQ + 1])
        model = CharModel(len(text.chars), "LSTM", N_HIDDEN, N_LAYERS).to(ws.device)
        print(f"{gpu_name() or cpu_name()}, one thread, medians of {rounds} rounds")
        ways = {"coursekit": lambda: ours(text, ws), "coursekit, fp32": lambda: ours(text, ws, "fp32"),
                "bare loop, nn.LSTM, fp32": lambda: bare(Fused(len(text.chars)), text, ws),
                "bare loop, nn.LSTMCell, a Python step a character": lambda: bare(Cells(len(text.chars)), text, ws)}
        show("training", ways, dict.fromkeys(ways, N_TRAIN - 1), rounds)
        ways = {"generate, 16 side by side": lambda: carried(model, text, N_WRITTEN, 16),
                "generate, one": lambda: carried(model, text, N_WRITTEN, 1),
                "the whole text read again for each character": lambda: read_again(model, text, N_WRITTEN)}
        show("writing", ways, {name: N_WRITTEN * (16 if "16" in name else 1) for name in ways}, rounds)


if __name__ == "__main__":
    main()
