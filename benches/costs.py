#!/usr/bin/env python3
"""What else cutover costs on a node. Needs root.

    costs.py fetched --inputs DIR   bytes read from archives for an update of 1 % and of 10 %, by strace
    costs.py rollback               going back between two releases of 10,000 files: CPU, system calls that sync
    costs.py memory                 the largest resident set for releases of 10 MB and 10 GB, 1000 files each

    options: [--fs ext4,btrfs] [--work DIR] [--program FILE]; fetched reads the archives that compare.py made in WORK
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys

from fs import Mounted, measure, sh
from growth import archives

HERE = os.path.dirname(os.path.abspath(__file__))


def fetched(options, kind):
    """The index of the base is not counted: it is kept on the node."""
    with Mounted(kind, options.work, 8 << 30) as mounted:
        root = f"{mounted.path}/cutover"
        os.makedirs(root)
        for name in ("old", "new1", "new10"):
            archive = f"{options.work}/store/cutover-{name}.tar.zst"
            if not os.path.exists(archive):
                continue
            trace = f"{options.work}/trace"
            sh(f"strace -f -y -o {trace} -e trace=read,pread64 {options.program} --root {root} -q "
               f"stage --allow-unsigned {archive}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            calls = []
            with open(trace, errors="replace") as lines:
                for line in lines:
                    found = re.search(r"(?:read|pread64)\(\d+<(.*?)>.* = (\d+)$", line.strip())
                    if found and found.group(1) == archive:
                        calls.append(int(found.group(2)))
            os.remove(trace)
            size = os.path.getsize(archive)
            yield f"{name}: read of the archive", f"{sum(calls) / 1e6:.1f} of {size / 1e6:.1f} MB ({100 * sum(calls) / size:.1f} %)"


def rollback(options, kind):
    store = archives(options, "few-10000", ("few", 10000), ("old", "new1"))
    with Mounted(kind, options.work, 8 << 30) as mounted:
        root = f"{mounted.path}/cutover"
        os.makedirs(root)
        run = f"{options.program} --root {root} -q"
        for name in ("old", "new1"):
            sh(f"{run} stage --allow-unsigned {store}/shop-{name}.tar.zst; {run} switch --now {name}",
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples = []
        for _ in range(10):
            samples.append(measure(mounted, f"{run} rollback"))
            sh(f"{run} unhold; {run} mark-good new1; {run} switch --now new1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fact, unit in (("wall", 1000), ("cpu", 1000)):
            median = statistics.median(sample[fact] for sample in samples) * unit
            yield f"rollback, {fact} with the shell around it and a last sync", f"{median:.1f} ms"
        if shutil.which("strace"):
            trace = f"{options.work}/trace"
            sh(f"strace -f -y -o {trace} {run} rollback", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with open(trace) as lines:
                lines = list(lines)
            os.remove(trace)
            syncs = [line for line in lines if re.search(r" (fsync|fdatasync|syncfs)\(\d+<" + re.escape(root), line)]
            yield "rollback, syncs under the root", str(len(syncs))
            yield "rollback, system calls", str(len(lines))


def memory(options, kind):
    store = archives(options, "large", ("large",), ("small", "large"))
    for name in ("small", "large"):
        with Mounted(kind, options.work, 16 << 30) as mounted:
            root = f"{mounted.path}/cutover"
            os.makedirs(root)
            sample = measure(mounted, f"{options.program} --root {root} -q stage --allow-unsigned {store}/shop-{name}.tar.zst")
            verified = measure(mounted, f"{options.program} --root {root} -q verify {name}")
            size = {"small": "10 MB", "large": "10 GB"}[name]
            yield f"memory, a release of {size}", (f"stage {sample['rss']:.0f} MiB ({sample['wall']:.1f} s), "
                                                   f"verify {verified['rss']:.0f} MiB ({verified['wall']:.1f} s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fetched", "rollback", "memory"))
    parser.add_argument("--fs", default="ext4,btrfs")
    parser.add_argument("--work", default="/var/tmp/cutover-bench/growth")
    parser.add_argument("--program", default=f"{HERE}/../target/release/cutover")
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("SKIPPED: needs root, to mount file systems")
    os.makedirs(options.work, exist_ok=True)
    if options.prepare:
        return archives(options, "large", ("large",), ("small", "large"))
    print("| file system | what | measured |\n|---|---|---|")
    for kind in options.fs.split(","):
        for what, found in {"fetched": fetched, "rollback": rollback, "memory": memory}[options.what](options, kind):
            print(f"| {kind} | {what} | {found} |", flush=True)


if __name__ == "__main__":
    main()
