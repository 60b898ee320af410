"""Near-duplicates of CIFAR-10: coursekit's search against the loop that a student would write.

    COURSEKIT_DATA=... python benchmarks/duplicates.py

Each round searches the first 4,000 training images twice in turn, in one process: image by image with NumPy (the mean
absolute difference to all later images, smallest first), and `near_duplicates`. Prints the ratio, median of three
rounds; then how long `near_duplicates` takes on all 60,000. Seconds are an illustration for the hardware named.
"""
import os
import statistics
import tempfile
import time
from dataclasses import replace

import numpy as np

from coursekit.data import near_duplicates
from coursekit.datasets import cifar10
from coursekit.machine import cpu_name, n_cores
from coursekit.workspace import setup


def timed(f, *args):
    "Seconds that `f` takes, and what it gives."
    start = time.perf_counter()
    out = f(*args)
    return time.perf_counter() - start, out


def image_by_image(images, limit=8):
    "Pairs whose pixels differ by less than `limit` of 255 on average."
    x = images.reshape(len(images), -1).astype(np.float32)
    return [(i, i + 1 + j) for i in range(len(x) - 1) for j in np.flatnonzero(np.abs(x[i + 1:] - x[i]).mean(1) < limit)]


def main(rounds=3, n=4000):
    "Print the ratio and the whole search."
    with tempfile.TemporaryDirectory() as room:
        os.environ |= {"COURSEKIT_RUNS": f"{room}/runs", "COURSEKIT_CACHE": f"{room}/cache"}
        splits = cifar10(setup("quick"))
        images, nothing = np.asarray(splits.images), np.array([], int)
        few = replace(splits, images=images[:n], labels=splits.labels[:n], train=np.arange(n), valid=nothing,
                      test=nothing)
        ratios = []
        for _ in range(rounds):
            loop, found = timed(image_by_image, images[:n])
            ours, pairs = timed(near_duplicates, few)
            ratios.append(loop / ours)
            print(f"{n:,} images: {loop:.1f} s image by image ({len(found)} pairs), {ours:.2f} s with near_duplicates "
                  f"({len(pairs)} pairs)")
        print(f"near_duplicates is {statistics.median(ratios):.0f} times as fast, median of {rounds} rounds on "
              f"{cpu_name()}, {n_cores()} cores")
        whole, pairs = timed(near_duplicates, splits)
        print(f"{len(images):,} images: {whole:.1f} s, {len(pairs):,} pairs")


if __name__ == "__main__":
    main()
