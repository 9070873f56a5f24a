#!/usr/bin/env python3
"""Measures cutover beside other tools, on file systems in loop devices. Needs root.

    compare.py --inputs DIR [--fs ext4,xfs,btrfs] [--tools cutover,tar,…] [--rounds N] [--work DIR] [--out FILE.json]

DIR holds old, new1 and perhaps new10 (inputs.py makes them). Tools take turns in each round, every job ends with the
file system synced, and medians of all rounds are printed with ratios to cutover. Load of the machine shows in wall
times; CPU times and bytes repeat well.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LEVEL = "9"


def sh(command, **options):
    return subprocess.run(["bash", "-ec", "set -o pipefail; " + command], check=True, **options)


class Mounted:
    """A fresh file system in a loop device."""

    def __init__(self, kind, work, size):
        self.kind, self.image, self.path = kind, f"{work}/{kind}.img", f"{work}/{kind}"
        os.makedirs(self.path, exist_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(size)
        quiet = {"ext4": "-q -F", "xfs": "-q -f -m reflink=1", "btrfs": "-q -f"}[kind]
        sh(f"mkfs.{kind} {quiet} {self.image}", stderr=subprocess.DEVNULL)
        self.loop = sh(f"losetup -f --show {self.image}", capture_output=True, text=True).stdout.strip()
        sh(f"mount {self.loop} {self.path}")

    def written(self):
        with open(f"/sys/block/{os.path.basename(self.loop)}/stat") as stat:
            return int(stat.read().split()[6]) * 512

    def close(self):
        sh(f"umount {self.path}; losetup -d {self.loop}; rm -f {self.image}")


def measure(mounted, command, environment=None):
    """Runs a command; its wall and CPU seconds, peak memory of its largest process, and bytes that reached the device."""
    sh(f"sync -f {mounted.path}")
    before, start = mounted.written(), time.monotonic()
    words = ["bash", "-ec", f"set -o pipefail; {command}; sync -f {mounted.path}"]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command}: {error.decode()}")
    return {
        "wall": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss / 1024,
        "written": (mounted.written() - before) / 1e6,
    }


class Cutover:
    """Packs on a base; stages each release into one root."""

    def __init__(self, program):
        self.program = program

    def prepare(self, inputs, store, releases):
        base = ""
        for name in releases:
            archive = f"{store}/shop-{name}.tar.zst"
            if not os.path.exists(archive):
                sh(f"{self.program} pack {inputs}/{name} --product shop --version {name} -o {archive} --level {LEVEL} {base}",
                   stdout=subprocess.DEVNULL)
            base = f"--base {store}/shop-old.tar.zst"
        self.store = store

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/cutover"
        os.makedirs(root)
        run = f"{self.program} --root {root} -q"
        for name in releases:
            yield name, f"{run} stage --allow-unsigned {self.store}/shop-{name}.tar.zst"
        yield "verify", f"{run} verify {releases[0]}"
        yield "remove", f"rm -rf {root}/.cutover/state.json; {self.removal(root, releases[-1])}"

    def removal(self, root, name):
        return f"btrfs subvolume delete {root}/releases/{name}" if "btrfs" in root else f"rm -rf {root}/releases/{name}"


class Tar:
    """A plain tar.zst of the same level, unpacked whole each time."""

    def __init__(self, unpack):
        self.unpack = unpack

    def prepare(self, inputs, store, releases):
        self.store = store
        for name in releases:
            archive = f"{store}/plain-{name}.tar.zst"
            if not os.path.exists(archive):
                sh(f"tar --sort=name -C {inputs}/{name} -c . | zstd -q -{LEVEL} -T0 > {archive}")

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/{self.unpack[0]}"
        for name in releases:
            unpack = self.unpack[1].format(archive=f"{self.store}/plain-{name}.tar.zst", root=f"{root}/{name}")
            yield name, f"mkdir -p {root}/{name}; {unpack}"
        yield "remove", f"rm -rf {root}/{releases[-1]}"


class Rsync:
    """Links what did not change since the tree before."""

    def prepare(self, inputs, store, releases):
        self.inputs = inputs

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/rsync"
        os.makedirs(root)
        for name in releases:
            link = "" if name == releases[0] else f"--link-dest={root}/{releases[0]}"
            yield name, f"rsync -a {link} {self.inputs}/{name}/ {root}/{name}/"
        yield "verify", f"rsync -anc {self.inputs}/{releases[0]}/ {root}/{releases[0]}/"
        yield "remove", f"rm -rf {root}/{releases[-1]}"


class Ostree:
    """pull-local from a repository for many, then a checkout of hard links; without an fsync for each object."""

    def prepare(self, inputs, store, releases):
        self.remote = f"{store}/ostree"
        if not os.path.exists(self.remote):
            sh(f"ostree --repo={self.remote} init --mode=archive", stdout=subprocess.DEVNULL)
            for name in releases:
                sh(f"ostree --repo={self.remote} commit -b {name} --tree=dir={inputs}/{name}", stdout=subprocess.DEVNULL)

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/ostree"
        os.makedirs(root)
        sh(f"ostree --repo={root}/repo init --mode=bare; ostree --repo={root}/repo config set core.fsync false",
           stdout=subprocess.DEVNULL)
        for name in releases:
            yield name, (f"ostree --repo={root}/repo pull-local {self.remote} {name};"
                         f"ostree --repo={root}/repo checkout -H {name} {root}/{name}")
        yield "verify", f"ostree --repo={root}/repo fsck"
        yield "remove", (f"rm -rf {root}/{releases[-1]}; ostree --repo={root}/repo refs --delete {releases[-1]};"
                         f"ostree --repo={root}/repo prune --refs-only")


class Casync:
    """Chunks, with the tree before as the seed."""

    def prepare(self, inputs, store, releases):
        self.store = f"{store}/casync"
        os.makedirs(self.store, exist_ok=True)
        for name in releases:
            index = f"{self.store}/{name}.caidx"
            if not os.path.exists(index):
                sh(f"casync make --with=unix {index} {inputs}/{name} --store={self.store}/chunks", stdout=subprocess.DEVNULL)

    def jobs(self, mounted, releases):
        root = f"{mounted.path}/casync"
        os.makedirs(root)
        for name in releases:
            seed = "" if name == releases[0] else f"--seed={root}/{releases[0]}"
            yield name, f"casync extract --with=unix {seed} {self.store}/{name}.caidx {root}/{name} --store={self.store}/chunks"
        yield "remove", f"rm -rf {root}/{releases[-1]}"


def tools(program):
    return {
        "cutover": Cutover(program),
        "tar": Tar(("tar", "zstd -dcq {archive} | tar -xp -C {root}")),
        "bsdtar": Tar(("bsdtar", "bsdtar --zstd -xpf {archive} -C {root}")),
        "rsync": Rsync(),
        "ostree": Ostree(),
        "casync": Casync(),
    }


def run(options):
    releases = [name for name in ("old", "new1", "new10") if os.path.isdir(f"{options.inputs}/{name}")]
    store = f"{options.work}/store"
    os.makedirs(store, exist_ok=True)
    chosen = {}
    for name in options.tools.split(","):
        programs = {"tar": "zstd", "cutover": options.program}.get(name, name)
        if shutil.which(programs) is None:
            print(f"SKIPPED {name}: it is not installed", file=sys.stderr)
            continue
        chosen[name] = tools(options.program)[name]
        chosen[name].prepare(options.inputs, store, releases)
    samples = {}
    for kind in options.fs.split(","):
        for round in range(options.rounds):
            names = list(chosen)
            for name in names[round % len(names):] + names[:round % len(names)]:
                mounted = Mounted(kind, options.work, options.size << 30)
                try:
                    for job, command in chosen[name].jobs(mounted, releases):
                        sample = measure(mounted, command)
                        samples.setdefault(kind, {}).setdefault(name, {}).setdefault(job, []).append(sample)
                        print(f"{kind} round {round + 1} {name} {job}: {sample['wall']:.2f} s", file=sys.stderr)
                finally:
                    mounted.close()
    sizes = {file: os.path.getsize(f"{store}/{file}") for file in sorted(os.listdir(store)) if file.endswith(".zst")}
    return {"inputs": options.label, "load": os.getloadavg(), "samples": samples, "archives": sizes}


def tables(result):
    """Medians, each with its ratio to cutover's wall and CPU."""
    text = []
    for kind, of_tools in result["samples"].items():
        jobs = []
        for of_jobs in of_tools.values():
            jobs += [job for job in of_jobs if job not in jobs]
        text += [f"\n**{result['inputs']} on {kind}**: wall s / CPU s / MB written / peak MiB (times cutover's wall, CPU)\n"]
        text += ["| | " + " | ".join(jobs) + " |", "|---" * (len(jobs) + 1) + "|"]

        def median(tool, job, fact):
            return statistics.median(sample[fact] for sample in of_tools[tool][job])

        for tool, of_jobs in of_tools.items():
            cells = []
            for job in jobs:
                if job not in of_jobs:
                    cells.append("")
                    continue
                wall, cpu = median(tool, job, "wall"), median(tool, job, "cpu")
                cell = f"{wall:.2f} / {cpu:.2f} / {median(tool, job, 'written'):.0f} / {median(tool, job, 'rss'):.0f}"
                if tool != "cutover" and job in of_tools.get("cutover", {}):
                    own = median("cutover", job, "wall"), median("cutover", job, "cpu")
                    cell += f" ({wall / own[0]:.1f}×, {cpu / max(own[1], 0.005):.1f}×)"
                cells.append(cell)
            text.append(f"| {tool} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--label", default="inputs")
    parser.add_argument("--fs", default="ext4,xfs,btrfs")
    parser.add_argument("--tools", default="cutover,tar,bsdtar,rsync,ostree,casync")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=8, help="GiB of each file system")
    parser.add_argument("--work", default="/var/tmp/cutover-bench")
    parser.add_argument("--program", default=f"{HERE}/../target/release/cutover")
    parser.add_argument("--out")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("SKIPPED: needs root, to mount file systems")
    options.inputs, options.work = os.path.abspath(options.inputs), os.path.abspath(options.work)
    os.makedirs(options.work, exist_ok=True)
    result = run(options)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(result, file, indent=1)
    print(tables(result))


if __name__ == "__main__":
    main()
