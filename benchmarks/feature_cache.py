"""Comparing heads on a frozen ResNet-18: cached features against plain fine-tuning as torchvision's tutorials write it.

    COURSEKIT_DATA=... python benchmarks/feature_cache.py

Five configurations, three folds of Oxford-IIIT Pet, five epochs each. The plain way is torchvision and PyTorch alone:
images through PIL in every epoch, the frozen body run on each, a new last layer trained. Coursekit runs the body once,
which is counted in, and trains on the features. Both use the same weights, folds, learning rates and batch size, so the
accuracies should agree within noise: they are printed side by side. Times hold for the hardware named.
"""
import os
import statistics
import tempfile
import time
import warnings
from functools import partial

import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import ResNet18_Weights, resnet18

from coursekit.datasets import pets
from coursekit.features import cached_features
from coursekit.fetch import fetch
from coursekit.finetune import linear_probe
from coursekit.learner import optimizer
from coursekit.machine import cpu_name, gpu_name, n_cores
from coursekit.pretrained import pretrained
from coursekit.splits import center_crop_all, kfold_splits
from coursekit.task import CrossEntropy
from coursekit.workspace import setup

SIDE, EPOCHS, BS = 128, 5, 64
CONFIGURATIONS = {  # optimizer, its arguments, highest rate of one cycle, label smoothing
    "Adam 5e-3": ("Adam", {}, 5e-3, 0.),
    "Adam 1e-2": ("Adam", {}, 1e-2, 0.),
    "NAG 0.05": ("SGD", {"momentum": 0.9, "nesterov": True}, 0.05, 0.),
    "AdamW 5e-3": ("AdamW", {"weight_decay": 0.1}, 5e-3, 0.),
    "Adam 5e-3, smoothed labels": ("Adam", {}, 5e-3, 0.1),
}


class Files(torch.utils.data.Dataset):
    "Images read from their files, each time."
    def __init__(self, root, files, labels, steps):
        self.root, self.files, self.labels, self.steps = root, files, labels, steps

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return self.steps(Image.open(self.root / self.files[i]).convert("RGB")), int(self.labels[i])


def plain(root, part, weights, device, seed, name, kwargs, lr, smoothing):
    "Accuracy of one run with torchvision alone."
    steps = transforms.Compose([transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor(),
                                transforms.Normalize(ResNet18_Weights.DEFAULT.transforms().mean,
                                                     ResNet18_Weights.DEFAULT.transforms().std)])
    train, valid = (torch.utils.data.DataLoader(Files(root, [part.files[i] for i in idx], part.labels[idx], steps), BS,
                                                shuffle=shuffle, num_workers=2)
                    for idx, shuffle in ((part.train, True), (part.valid, False)))
    torch.manual_seed(seed)
    model = resnet18()
    model.load_state_dict(weights)
    model.requires_grad_(False)
    model.fc = nn.Linear(512, len(part.classes))
    model.to(device).eval()
    opt = getattr(torch.optim, name)(model.fc.parameters(), lr=lr, **kwargs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=EPOCHS * len(train))
    loss_func = nn.CrossEntropyLoss(label_smoothing=smoothing)
    for _ in range(EPOCHS):
        for xb, yb in train:
            loss = loss_func(model(xb.to(device)), yb.to(device))
            opt.zero_grad()
            loss.backward()
            opt.step(), schedule.step()
        with torch.no_grad():
            right = sum((model(xb.to(device)).argmax(1).cpu() == yb).sum().item() for xb, yb in valid)
    return right / len(part.valid)


def main(seeds=range(3)):
    "Print accuracies and the ratio of the times."
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as room:
        os.environ |= {"COURSEKIT_RUNS": f"{room}/runs", "COURSEKIT_CACHE": f"{room}/cache"}
        ws = setup("quick")
        pre, root = pretrained("resnet18", ws), fetch("Oxford-IIIT Pet", ws)
        began = time.perf_counter()  # reading the files is counted in, as it is in the plain way
        splits = center_crop_all(pets(ws, size=SIDE))
        print(f"{splits.title}, {SIDE} pixels, {pre.title}; {len(CONFIGURATIONS)} configurations x {len(seeds)} folds "
              f"x {EPOCHS} epochs; {gpu_name() or cpu_name()}, {n_cores()} cores")

        features = cached_features(pre, splits, ws)
        filled, ours = time.perf_counter() - began, {}
        parts = kfold_splits(features)
        for name, (opt, kwargs, lr, smoothing) in CONFIGURATIONS.items():
            learners = [linear_probe(parts[s], ws, EPOCHS, optimizer(opt, **kwargs), lr,
                                     CrossEntropy(label_smoothing=smoothing), seed=s) for s in seeds]
            ours[name] = [float(learn.recorder.values[-1][2]) for learn in learners]
        seconds = time.perf_counter() - began

        began, theirs = time.perf_counter(), {}
        one = partial(plain, root, weights=pre.model.state_dict(), device=ws.device)
        for name, configuration in CONFIGURATIONS.items():
            theirs[name] = [one(parts[s], seed=s, name=configuration[0], kwargs=configuration[1], lr=configuration[2],
                                smoothing=configuration[3]) for s in seeds]
        plainly = time.perf_counter() - began

    print(f"{'':28}{'coursekit':>16}{'torchvision':>16}   accuracy: mean, std of {len(seeds)} folds")
    for name in CONFIGURATIONS:
        print(f"{name:28}" + "".join(f"{statistics.mean(a):9.3f} ±{statistics.stdev(a):.3f}"
                                     for a in (ours[name], theirs[name])))
    print(f"with the cache {seconds:.0f} s, of which {filled:.1f} s fill it; plainly {plainly:.0f} s: "
          f"{plainly / seconds:.0f} times as fast")


if __name__ == "__main__":
    main()
