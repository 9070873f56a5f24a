#!/usr/bin/env python3
"""How the cost of staging an update grows. Needs root.

    growth.py files   with the number of files, of which 100 change
    growth.py share   with the share of files that change, of 20,000
    growth.py kept    with the number of releases that are kept, of 10,000 files, of which 100 change each time

    options: [--fs btrfs,ext4,xfs] [--rounds N] [--sizes 1000,10000,…] [--work DIR] [--svg FILE] [--out FILE.json]
             --prepare    only makes the archives (the trees are removed when they are packed)
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

from fs import Mounted, measure, sh
from plot import plot

HERE = os.path.dirname(os.path.abspath(__file__))
SHARES = (0, 1, 5, 10, 25, 50, 75, 100)
KEPT = (1, 2, 5, 10, 20, 30, 40, 50)


def archives(options, name, arguments, releases):
    """Makes a tree and its successors, packs them, and removes them; says where the archives are."""
    store = f"{options.work}/{name}"
    if os.path.exists(f"{store}/done"):
        return store
    trees = f"{options.work}/{name}-trees"
    shutil.rmtree(trees, ignore_errors=True)
    os.makedirs(store, exist_ok=True)
    subprocess.run([sys.executable, f"{HERE}/inputs.py", *map(str, arguments), trees], check=True)
    before = None
    for release in releases:
        base = f"--base {store}/shop-{before}.tar.zst" if before else ""
        sh(f"{options.program} pack {trees}/{release} --product shop --version {release} --level 3 "
           f"-o {store}/shop-{release}.tar.zst {base}", stdout=subprocess.DEVNULL)
        if before is None or release.startswith("step"):
            before = release
    shutil.rmtree(trees)
    open(f"{store}/done", "w").close()
    return store


def stage(options, mounted, store, release):
    root = f"{mounted.path}/cutover"
    os.makedirs(root, exist_ok=True)
    return measure(mounted, f"{options.program} --root {root} -q stage --allow-unsigned {store}/shop-{release}.tar.zst")


def by_files(options):
    for files in map(int, options.sizes.split(",")):
        store = archives(options, f"few-{files}", ("few", files), ("old", "new1"))
        if options.prepare:
            continue
        for kind in options.fs.split(","):
            for _ in range(options.rounds if files < 1_000_000 else 1):
                with Mounted(kind, options.work, 24 << 30) as mounted:
                    yield kind, "first install", files, stage(options, mounted, store, "old")
                    yield kind, "update", files, stage(options, mounted, store, "new1")


def by_share(options):
    names = [f"changed{share}" for share in SHARES]
    store = archives(options, "shares", ("shares", 20000), ["old", *names])
    for kind in [] if options.prepare else options.fs.split(","):
        for _ in range(options.rounds):
            for share, name in zip(SHARES, names):
                with Mounted(kind, options.work, 8 << 30) as mounted:
                    stage(options, mounted, store, "old")
                    yield kind, "update", share, stage(options, mounted, store, name)


def by_kept(options):
    names = [f"step{step}" for step in range(1, max(KEPT) + 1)]
    store = archives(options, "steps", ("steps", 10000, max(KEPT)), ["old", *names])
    for kind in [] if options.prepare else options.fs.split(","):
        for _ in range(options.rounds):
            with Mounted(kind, options.work, 8 << 30) as mounted:
                stage(options, mounted, store, "old")
                for kept, name in enumerate(names, 1):
                    sample = stage(options, mounted, store, name)
                    if kept in KEPT:
                        yield kind, "update", kept, sample


AXES = {
    "files": (by_files, "files of the release, 100 of them changed", True),
    "share": (by_share, "changed files of 20,000, percent", False),
    "kept": (by_kept, "releases kept, of 10,000 files", False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=AXES)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--fs", default="btrfs,ext4,xfs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default="/var/tmp/cutover-bench/growth")
    parser.add_argument("--program", default=f"{HERE}/../target/release/cutover")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--svg")
    parser.add_argument("--out")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("SKIPPED: needs root, to mount file systems")
    os.makedirs(options.work, exist_ok=True)
    measured, name, is_logarithmic = AXES[options.axis]
    samples = {}
    for kind, job, x, sample in measured(options):
        samples.setdefault((kind, job), {}).setdefault(x, []).append(sample)
        print(f"{kind} {job} {x}: {sample['wall']:.2f} s", file=sys.stderr)
    if options.prepare:
        return
    print(f"| file system | job | {name} | wall s | CPU s | MB written | peak MiB |\n|---|---|---|---|---|---|---|")
    series = {}
    for (kind, job), points in samples.items():
        for x, of_x in points.items():
            median = {fact: statistics.median(sample[fact] for sample in of_x) for fact in of_x[0]}
            print(f"| {kind} | {job} | {x:,} | {median['wall']:.2f} | {median['cpu']:.2f} | {median['written']:.1f} "
                  f"| {median['rss']:.0f} |", flush=True)
            if job == "update":
                series.setdefault(kind, []).append((x, median["wall"]))
    if options.svg:
        plot(options.svg, "Time to stage an update", name, series, is_logarithmic)
    if options.out:
        with open(options.out, "w") as file:
            json.dump([[*key, points] for key, points in samples.items()], file, indent=1)


if __name__ == "__main__":
    main()
