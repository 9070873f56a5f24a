#!/usr/bin/env python3
"""What two builds of cutover cost beside each other: first installation, 1 % update and verify of small files, and the look at
all processes for those that use a tree.

usage: benches/versions.py OLD NEW [ROUNDS [FILES]]    root; prints medians, and the ratio of NEW to OLD

Both read archives that OLD has packed; "new, own" reads those of NEW. They take turns, on ext4, xfs and btrfs in loop
devices.
"""
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

OLD, NEW = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
FILES = int(sys.argv[4]) if len(sys.argv) > 4 else 20_000
KINDS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
VARIANTS = {"old": (OLD, "old"), "new": (NEW, "old"), "new, own": (NEW, "new")}


def call(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def text(length):
    """Words that compress as programs do."""
    pieces, have = [], 0
    while have < length:
        pieces.append(random.choice(WORDS) + random.choice(" \n(;"))
        have += len(pieces[-1])
    return "".join(pieces)[:length]


def make_trees(one, two):
    paths = [pathlib.Path(f"{number // 100:04}") / f"{number % 100:02}.js" for number in range(FILES)]
    for path in paths:
        (one / path).parent.mkdir(parents=True, exist_ok=True)
        (one / path).write_text(text(int(random.paretovariate(1.2) * 900) % 40_000 + 50))
    shutil.copytree(one, two)
    for path in random.sample(paths, FILES // 100):
        (two / path).write_text(text((two / path).stat().st_size + 7))


def measured(*words):
    """Seconds that passed, and seconds of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    call(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(mount, program, archives):
    """A root of its own: first installation, update, verify."""
    root, config = mount / "root", mount / "node.toml"
    root.mkdir()
    config.write_text(f'root = "{root}"\n')
    run = [program, "--config", config, "-q"]
    call("sync")
    first = measured(*run, "stage", archives[0], "--allow-unsigned")
    call(*run, "switch", "1")
    call("sync")
    update = measured(*run, "stage", archives[1], "--allow-unsigned")
    verify = measured(*run, "verify", "2")
    # It asks of each process which tree it uses.
    look = measured(*run, "prune", "--dry-run")
    return {"first": first, "update": update, "verify": verify, "look": look}


def on(kind, place, archives):
    found = {name: [] for name in VARIANTS}
    for number in range(ROUNDS):
        # A file system of its own for each: what was removed before would be cleared away meanwhile.
        for name in list(VARIANTS)[:: 1 if number % 2 == 0 else -1]:
            image, mount = place / "image", place / "mount"
            mount.mkdir(exist_ok=True)
            with open(image, "wb") as file:
                file.truncate(8 << 30)
            call(*KINDS[kind], image)
            call("mount", "-o", "loop", image, mount)
            try:
                program, packer = VARIANTS[name]
                found[name].append(one_round(mount, program, archives[packer]))
            finally:
                call("umount", mount)
                image.unlink()
    for what in ["first", "update", "verify", "look"]:
        middle = {name: [statistics.median(one[what][at] for one in rounds) for at in [0, 1]]
                  for name, rounds in found.items()}
        told = [f"{name} {wall * 1000:.0f} ms ({wall / middle['old'][0]:.2f}), "
                f"CPU {cpu * 1000:.0f} ({cpu / middle['old'][1]:.2f})" for name, (wall, cpu) in middle.items()]
        print(f"{kind:5} {what:6}  " + "; ".join(told), flush=True)


# Whoever is asked about: processes of a node that is well used.
OTHERS = [subprocess.Popen(["sleep", "infinity"]) for _ in range(300)]
random.seed(5)
WORDS = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=random.randint(3, 9))) for _ in range(3000)]
try:
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        trees = [place / "1", place / "2"]
        make_trees(*trees)
        archives = {name: [place / f"{name}-{number}.tar.zst" for number in [1, 2]] for name in ["old", "new"]}
        for name, program in [("old", OLD), ("new", NEW)]:
            for number, (tree, archive) in enumerate(zip(trees, archives[name]), 1):
                call(program, "-q", "pack", tree, "--product", "shop", "--version", number, "-o", archive)
        for kind in KINDS:
            on(kind, place, archives)
finally:
    for other in OTHERS:
        other.kill()
