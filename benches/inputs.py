#!/usr/bin/env python3
"""Makes trees to measure on: OUT/{old,new1,new10}.

    inputs.py npm OUT              three sets of pinned npm packages: 59,000 files, 0.69 GB; needs npm and its registry
    inputs.py wheels OUT           three sets of pinned Python packages: 4200 files, 0.61 GB; needs pip and its registry
    inputs.py generated FILES OUT  FILES files of text-like content; new1 and new10 change 1 % and 10 % of them
    inputs.py few FILES OUT        FILES small files; new1 changes 100 of them
    inputs.py shares FILES OUT     FILES small files; old, and changed1 … changed100, which change so many percent
    inputs.py steps FILES N OUT    FILES small files; old, and step1 … stepN, each of which changes 100 more
    inputs.py large OUT            small (10 MB) and large (10 GB, nine tenths of them holes), of 1000 files each

What does not change is linked to old, to save time and room. The time of a file follows from its content, so that the same content has the same time in every release.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
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


def wheels(out):
    """Unpacks the pinned wheels of each set, for one kind of machine, whatever this one is."""
    linux = [f"--platform=manylinux{version}_x86_64" for version in ("2014", "_2_17", "_2_27", "_2_28")]
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes",
                "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", *linux]
    for name in ("old", "new1", "new10"):
        with tempfile.TemporaryDirectory(dir=out) as place:
            subprocess.run([*download, "-r", f"{HERE}/wheels/{name}.txt", "-d", place], check=True)
            for wheel in sorted(os.listdir(place)):
                with zipfile.ZipFile(f"{place}/{wheel}") as archive:
                    archive.extractall(f"{out}/{name}")
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
                # Nobody else's content: `Random` takes -n for n.
                file.write(content(number + files if number in picked else number, words))
        stamp(f"{out}/{name}")


def small(path, key):
    """A small file: a slice of text that nobody else has, with a time that follows from its key."""
    dice = random.Random(key)
    start, length = dice.randrange(len(TEXT) - 8000), min(8000, int(dice.lognormvariate(6.2, 1.0)) + 20)
    with open(path, "w") as file:
        file.write(f"{key}\n{TEXT[start:start + length]}")
    time = EPOCH + dice.randrange(10_000_000)
    os.utime(path, (time, time))


def place(number):
    return f"{number % 997 // 31}/{number % 997}/{number}.js" if FILES <= 100_000 else (
        f"{number % 9973 // 100}/{number % 9973}/{number}.js")


def changed_tree(out, base, name, changed, generation):
    """The tree `name`: all files of `base`, linked, but for those that changed."""
    subprocess.run(["cp", "-al", f"{out}/{base}", f"{out}/{name}"], check=True)
    touched = set()
    for number in changed:
        path = f"{out}/{name}/{place(number)}"
        os.remove(path)
        small(path, f"{number} {generation}")
        touched.add(os.path.dirname(path))
    for directory in touched:
        os.utime(directory, (EPOCH, EPOCH))


def old_tree(out):
    made = set()
    for number in range(FILES):
        path = f"{out}/old/{place(number)}"
        directory = os.path.dirname(path)
        if directory not in made:
            os.makedirs(directory, exist_ok=True)
            made.add(directory)
        small(path, str(number))
    for directory, _, _ in os.walk(f"{out}/old", topdown=False):
        os.utime(directory, (EPOCH, EPOCH))


def large(out):
    for name, block, hole in (("small", 10 << 10, 0), ("large", 1 << 20, 9 << 20)):
        os.makedirs(f"{out}/{name}")
        for number in range(1000):
            with open(f"{out}/{name}/{number}", "wb") as file:
                file.write(random.Random(number).randbytes(2048) * (block // 2048))
                file.truncate(block + hole)


def main():
    global FILES, TEXT
    kind, *rest = sys.argv[1:]
    out = os.path.abspath(rest[-1])
    os.makedirs(out)
    dice = random.Random(7)
    words = ["".join(dice.choices("etaoinshrdlucmfw", k=dice.randint(2, 9))) for _ in range(3000)]
    TEXT = " ".join(dice.choices(words, k=200_000))
    if kind == "npm":
        npm(out)
    elif kind == "wheels":
        wheels(out)
    elif kind == "large":
        large(out)
    elif kind == "generated":
        files = int(rest[0])
        generated(files, out, {"new1": files // 100, "new10": files // 10})
    else:
        FILES = int(rest[0])
        old_tree(out)
        pick = lambda name, count: random.Random(name).sample(range(FILES), min(count, FILES))
        if kind == "few":
            changed_tree(out, "old", "new1", pick("new1", 100), 1)
        elif kind == "shares":
            for share in (1, 5, 10, 25, 50, 75, 100):
                changed_tree(out, "old", f"changed{share}", pick("share", FILES * share // 100), 1)
            changed_tree(out, "old", "changed0", [], 1)
        else:
            before = "old"
            for step in range(1, int(rest[1]) + 1):
                changed_tree(out, before, f"step{step}", pick(f"step{step}", 100), step)
                before = f"step{step}"


main()
