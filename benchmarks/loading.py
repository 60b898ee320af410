"""Loading CIFAR-10's 60,000 PNG files: coursekit against torchvision's ImageFolder read through PIL.

    COURSEKIT_DATA=... python benchmarks/loading.py

Each round reads the same files three ways in turn, in one process: what a student would write (every file through
ImageFolder, as one epoch of a DataLoader without workers does), coursekit without its cache, coursekit with it.
Prints the ratios, medians of three rounds; seconds are an illustration for the hardware named.
"""
import os
import statistics
import tempfile
import time

import numpy as np
from torchvision.datasets import ImageFolder

from coursekit.datasets import cifar10
from coursekit.machine import cpu_name, n_cores
from coursekit.workspace import find_folder, setup


def timed(f, *args):
    "Seconds that `f` takes, and what it gives."
    start = time.perf_counter()
    out = f(*args)
    return time.perf_counter() - start, out


def image_folder(root):
    "Every image of both parts, decoded by torchvision's own loader."
    return [np.asarray(image) for part in ("train", "test") for image, _ in ImageFolder(root / part)]


def main(rounds=3):
    "Print the ratios."
    with tempfile.TemporaryDirectory() as room:
        os.environ["COURSEKIT_RUNS"] = f"{room}/runs"
        times = []
        for i in range(rounds):
            os.environ["COURSEKIT_CACHE"] = f"{room}/{i}"
            ws = setup("quick")
            root = find_folder(["cifar10"], ws.data, ws.local)
            if root is None:
                raise SystemExit(f"No folder cifar10 in {ws.data}: point COURSEKIT_DATA at the folder that holds it.")
            plain, images = timed(image_folder, root)
            cold, splits = timed(cifar10, ws)
            warm, again = timed(cifar10, ws)
            assert all((splits.images[j] == images[j]).all() for j in range(0, len(images), 997))
            assert again.fingerprint == splits.fingerprint and np.asarray(again.images).sum() > 0
            times.append((plain, cold, warm))
    ratio = lambda k: statistics.median(t[0] / t[k] for t in times)
    seconds = [statistics.median(t[k] for t in times) for k in range(3)]
    print(f"{len(images):,} files, {cpu_name()}, {n_cores()} cores, median of {rounds} rounds")
    print(f"{'':34}{'seconds':>8}{'times as fast':>15}")
    for k, name in enumerate(["ImageFolder through PIL", "coursekit, first time (decodes)",
                              "coursekit, from then on (mapped)"]):
        print(f"{name:34}{seconds[k]:8.2f}{ratio(k):15.1f}")


if __name__ == "__main__":
    main()
