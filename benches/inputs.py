#!/usr/bin/env python3
"""Makes trees to measure on: OUT/{old,new1,new10}.

    inputs.py npm OUT              three sets of pinned npm packages: 59,000 files, 0.69 GB; needs npm and its registry
    inputs.py generated FILES OUT  FILES files of text-like content; new1 and new10 change 1 % and 10 % of them
    inputs.py few FILES OUT        the same, but new1 changes 100 files, whatever there are

The time of a file follows from its content, so that the same content has the same time in every release.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = 1_690_000_000


def stamp(root):
    """Gives each file a time that follows from its content."""
    for directory, names, files in os.walk(root, topdown=False):
        for name in files + [name for name in names if os.path.islink(os.path.join(directory, name))]:
            path = os.path.join(directory, name)
            time = EPOCH
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    time += zlib.crc32(file.read()) % 10_000_000
            os.utime(path, (time, time), follow_symlinks=False)
        os.utime(directory, (EPOCH, EPOCH))


def npm(out):
    """Installs the pinned packages, and with each patch another set."""
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--loglevel=error"]
    for name in ("old", "new1", "new10"):
        with tempfile.TemporaryDirectory(dir=out) as place:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(f"{HERE}/npm/{file}", place)
            if name != "old":
                with open(f"{HERE}/npm/{name}.patch", "rb") as patch:
                    subprocess.run(["patch", "-s", "-p1"], cwd=place, stdin=patch, check=True)
            subprocess.run(install, cwd=place, check=True, stdout=subprocess.DEVNULL)
            listing = f"{place}/node_modules/.package-lock.json"
            if os.path.exists(listing):
                os.remove(listing)
            os.mkdir(f"{out}/{name}")
            shutil.move(f"{place}/node_modules", f"{out}/{name}/node_modules")
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", f"{out}/{name}"], check=True)
        stamp(f"{out}/{name}")


def content(number, words):
    """Text that compresses as sources do: a few hundred bytes to some ten thousand, most of them short."""
    dice = random.Random(number)
    length = min(60_000, int(dice.lognormvariate(7.2, 1.3)))
    return " ".join(dice.choices(words, k=length // 6 + 1))


def generated(files, out, changed):
    """Trees of which `changed[name]` files differ from the old one."""
    dice = random.Random(7)
    words = ["".join(dice.choices("etaoinshrdlucmfw", k=dice.randint(2, 9))) for _ in range(3000)]
    for name, count in {"old": 0, **changed}.items():
        picked = set(random.Random(name).sample(range(files), min(count, files)))
        for number in range(files):
            directory = f"{out}/{name}/{number % 997 // 31}/{number % 997}"
            if number < 997:
                os.makedirs(directory, exist_ok=True)
            with open(f"{directory}/{number}.js", "w") as file:
                file.write(content(-number - 1 if number in picked else number, words))
        stamp(f"{out}/{name}")


def main():
    kind, *rest = sys.argv[1:]
    out = os.path.abspath(rest[-1])
    os.makedirs(out)
    if kind == "npm":
        npm(out)
    else:
        files = int(rest[0])
        new1 = 100 if kind == "few" else files // 100
        generated(files, out, {"new1": new1} if kind == "few" else {"new1": new1, "new10": files // 10})


main()
