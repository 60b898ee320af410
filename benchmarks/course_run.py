"""All lessons at tiny scale, offline: `coursekit run` against a plain loop of papermill over the same notebooks.

    python benchmarks/course_run.py [repeats]

Each run has fresh folders, so that neither finds the other's work. The two are run in turn; the ratio is the median
over the repeats.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coursekit.cli import lesson_paths
from coursekit.report import machine_info

LOOP = """
import sys, papermill
for path in sys.argv[2:]:
    papermill.execute_notebook(path, f"{sys.argv[1]}/{path.split('/')[-1]}", {"scale": "tiny"}, progress_bar=False,
                               cwd="nbs")
"""
PATHS = [str(p) for p in lesson_paths()]
WAYS = {"papermill, one after the other": lambda out: [sys.executable, "-c", LOOP, out, *PATHS],
        "coursekit run": lambda out: [str(Path(sys.executable).with_name("coursekit")), "run", *PATHS, "--scale",
                                      "tiny", "--out", out]}


def seconds(way):
    "How long one run takes, from an empty cache on."
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if k != "COURSEKIT_DATA"}
        env |= {"COURSEKIT_RUNS": f"{folder}/runs", "COURSEKIT_CACHE": f"{folder}/cache"}
        os.mkdir(f"{folder}/out")
        start = time.perf_counter()
        subprocess.run(WAYS[way](f"{folder}/out"), env=env, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    here = machine_info()
    print(f"{len(PATHS)} lessons at tiny scale; {here['CPU']}, GPU {here['GPU']}, torch {here['torch']}; "
          f"{repeats} repeats in turn")
    took = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            took[way].append(seconds(way))
    for way, times in took.items():
        print(f"{way:32}{statistics.median(times):7.1f} s  ({', '.join(f'{t:.0f}' for t in times)})")
    slow, fast = took.values()
    print(f"ratio, median of {repeats}: {statistics.median(s / f for s, f in zip(slow, fast)):.2f}")
