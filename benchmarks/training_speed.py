"""Training the three-block VGG network on CIFAR-10 with flip and shift: coursekit against two usual ways.

    COURSEKIT_DATA=... python benchmarks/training_speed.py

Each round trains on the same 5,000 images for one epoch, in turn in one process: coursekit's `learner` in the precision
that it picks, the same in fp32, a loop as PyTorch's tutorials write it (ImageFolder through PIL, crop and flip, two
workers, fp32) and fastai's ImageDataLoaders.from_folder with its own crop and flip. Images are read before the clock
starts where they are kept in memory, as that is paid once and not in every epoch; `benchmarks/loading.py` measures it.
Then what the Learner costs over a bare loop on the same batches: measured with a model that does next to nothing, where
noise can't hide it, as milliseconds a batch, and put beside the network's own time. Prints images a second and ratios,
medians of three rounds; they hold for the hardware named.
"""
import contextlib
import io
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision import transforms
from torchvision.datasets import ImageFolder

from coursekit.augment import random_hflip, random_translate
from coursekit.baseline import vgg
from coursekit.datasets import cifar10
from coursekit.learner import learner, optimizer
from coursekit.machine import cpu_name, gpu_name, n_cores
from coursekit.workspace import find_folder, setup

BS, PER_CLASS = 64, 500


def coursekit(splits, ws, precision=None, model=vgg):
    """Seconds of one epoch with coursekit's learner, without validation; with finding the fit's key and writing its
    checkpoints."""
    learn = learner(splits, model(), ws, bs=BS, opt=optimizer("SGD", momentum=0.9), lr=1e-3,
                    augment=[random_hflip, random_translate(4)], precision=precision, fresh=True)
    learn.dls.loaders[1].images, learn.dls.loaders[1].labels = (t[:BS]
                                                                for t in (learn.dls.valid.images,
                                                                          learn.dls.valid.labels))
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        learn.fit(1)
    return time.perf_counter() - start


def bare(splits, ws, model=vgg):
    "Seconds of the same work in a loop of a few lines."
    learn = learner(splits, model(), ws, bs=BS, augment=[random_hflip, random_translate(4)])
    model, opt = learn.model, torch.optim.SGD(learn.model.parameters(), lr=1e-3, momentum=0.9)
    start = time.perf_counter()
    for xb, yb in learn.dls.train:
        with learn._autocast():
            loss = F.cross_entropy(model(xb).float(), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
    loss.item()
    return time.perf_counter() - start


def nearly_nothing():
    "A model whose own work takes next to no time, with as much to write into a checkpoint as VGG and its momentum."
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10))
    model.register_buffer("ballast", torch.zeros(2 * sum(p.numel() for p in vgg().parameters())))
    return model


def overhead(splits, ws):
    "Milliseconds a batch that the Learner adds to a bare loop, everything that it writes counted in."
    n_batches = -(-len(splits.train) // BS)
    return 1000 * (coursekit(splits, ws, model=nearly_nothing) - bare(splits, ws, nearly_nothing)) / n_batches


def tutorial(root, device):
    "Seconds of one epoch as PyTorch's tutorials write it."
    steps = transforms.Compose([transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
                                transforms.RandomHorizontalFlip(), transforms.ToTensor(),
                                transforms.Normalize((0.5,) * 3, (0.25,) * 3)])
    loader = torch.utils.data.DataLoader(ImageFolder(root, steps), BS, shuffle=True, num_workers=2)
    model = vgg().to(device)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    start = time.perf_counter()
    for xb, yb in loader:
        opt.zero_grad()
        loss = F.cross_entropy(model(xb.to(device)), yb.to(device))
        loss.backward()
        opt.step()
        loss.item()
    return time.perf_counter() - start


def fastai(root, device):
    "Seconds of one epoch with fastai's ImageDataLoaders."
    from fastai.vision.all import (
        CropPad,
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Learner,
        OptimWrapper,
        RandomCrop,
        partial,
    )
    from fastai.vision.augment import Flip

    dls = ImageDataLoaders.from_folder(root, valid_pct=0.0001, item_tfms=[CropPad(40), RandomCrop(32)],
                                       batch_tfms=[Flip()], bs=BS, num_workers=2, device=device)
    learn = Learner(dls, vgg(), loss_func=CrossEntropyLossFlat(),
                    opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=0.9))
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    return time.perf_counter() - start


def main(rounds=3):
    "Print images a second and ratios."
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as room:
        os.environ |= {"COURSEKIT_RUNS": f"{room}/runs", "COURSEKIT_CACHE": f"{room}/cache"}
        ws = setup("quick")
        found = find_folder(["cifar10"], ws.data, ws.local)
        if found is None:
            raise SystemExit(f"No folder cifar10 in {ws.data}: point COURSEKIT_DATA at the folder that holds it.")
        splits, root = cifar10(ws, per_class=PER_CLASS), Path(room) / "train"
        for i in splits.train:
            (root / splits.files[i]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found / splits.files[i], root / splits.files[i])
        root /= "train"
        ways = {"coursekit": lambda: coursekit(splits, ws), "coursekit, fp32": lambda: coursekit(splits, ws, "fp32"),
                "bare loop on coursekit's batches": lambda: bare(splits, ws),
                "tutorial loop": lambda: tutorial(root, ws.device),
                "fastai's ImageDataLoaders": lambda: fastai(root, ws.device)}
        for way in ways.values():
            way()  # once, unmeasured: imports, kernels, the disk's cache
        times = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(way())
        print(f"{len(splits.train):,} images, {gpu_name() or cpu_name()}, {n_cores()} cores, medians of {rounds} "
              f"rounds")
        print(f"{'':34}{'images/s':>9}{'coursekit is so many times as fast':>36}")
        for name, t in times.items():
            ratio = statistics.median(b / a for a, b in zip(times["coursekit"], t))
            print(f"{name:34}{len(splits.train) / statistics.median(t):9.0f}{ratio:36.2f}")
        many = cifar10(ws, per_class=5 * PER_CLASS)
        added = statistics.median(overhead(many, ws) for _ in range(2 * rounds + 1))
        batch = 1000 * statistics.median(times["bare loop on coursekit's batches"]) * BS / len(splits.train)
        print(f"The Learner adds {added:.2f} ms to a batch of {batch:.1f} ms: {added / batch:.1%} ({len(many.train):,} "
              f"images an epoch, all that a fit writes counted in)")


if __name__ == "__main__":
    main()
