#!/usr/bin/env python3
"""Measures cutover beside other tools, on file systems in loop devices. Needs root.

    compare.py --inputs DIR [--fs ext4,xfs,btrfs] [--tools cutover,tar,…] [--rounds N] [--work DIR] [--out FILE.json]
    compare.py --inputs DIR --prepare      only makes the archives, so that nothing is left to do but to measure
    compare.py --inputs DIR --before FILE  with an older build of cutover among the tools, which packs its own archives
    compare.py --show FILE.json …          prints the tables of measurements that were made

DIR holds old, new1 and perhaps new10 (inputs.py makes them). Tools take turns in each round, every job ends with the
file system synced, and medians of all rounds are printed with ratios to cutover. Load of the machine shows in wall
times; CPU times and bytes repeat well.
"""
import argparse
import json
import os
import shutil
import statistics
import sys

from fs import Mounted, measure
from peers import tools

HERE = os.path.dirname(os.path.abspath(__file__))


def run(options):
    releases = [name for name in ("old", "new1", "new10") if os.path.isdir(f"{options.inputs}/{name}")]
    store = f"{options.work}/store"
    os.makedirs(store, exist_ok=True)
    chosen = {}
    for name in options.tools.split(","):
        program = {"tar": "zstd", "cutover": options.program, "cutover-tar": options.program, "before": options.before}.get(name, name)
        if shutil.which(program) is None:
            print(f"SKIPPED {name}: it is not installed", file=sys.stderr)
            continue
        chosen[name] = tools(options.program, options.before)[name]
        chosen[name].prepare(options.inputs, store, releases)
    if options.prepare:
        return None
    samples = {}
    for round in range(options.rounds):
        for kind in options.fs.split(","):
            names = list(chosen)
            for name in names[round % len(names):] + names[:round % len(names)]:
                with Mounted(kind, options.work, options.size << 30) as mounted:
                    for job, command in chosen[name].jobs(mounted, releases):
                        sample = measure(mounted, command)
                        samples.setdefault(kind, {}).setdefault(name, {}).setdefault(job, []).append(sample)
                        print(f"{kind} round {round + 1} {name} {job}: {sample['wall']:.2f} s", file=sys.stderr)
    sizes = {file: os.path.getsize(f"{store}/{file}") for file in sorted(os.listdir(store)) if file.endswith(".zst")}
    return {"inputs": options.label, "load": os.getloadavg(), "samples": samples, "archives": sizes}


JOBS = {"old": "first install", "new1": "1 % update", "new10": "10 % update"}
NAMES = {
    "before": "cutover, the older build",
    "cutover-tar": "cutover, ordinary archive",
    "tar": "`zstd -d \\| tar x`",
    "rsync": "rsync, --link-dest",
    "ostree": "ostree pull-local, checkout",
    "casync": "casync, with a seed",
    "nix": "nix copy",
    "btrfs": "btrfs receive, -p",
}


def tables(result):
    """Medians, each with its ratio to cutover's wall time: as in docs/performance.md."""
    text = []
    for kind, of_tools in result["samples"].items():
        jobs = []
        for of_jobs in of_tools.values():
            jobs += [job for job in of_jobs if job not in jobs]
        titles = " | ".join(JOBS.get(job, job) for job in jobs)
        text += [f"\n| {result['inputs']}, {kind}: wall s / CPU s / MB written | {titles} |", "|---" * (len(jobs) + 1) + "|"]

        def median(tool, job, fact):
            return statistics.median(sample[fact] for sample in of_tools[tool][job])

        for tool, of_jobs in of_tools.items():
            cells = []
            for job in jobs:
                if job not in of_jobs:
                    cells.append("")
                    continue
                wall = median(tool, job, "wall")
                cell = f"{wall:.2f} / {median(tool, job, 'cpu'):.2f} / {median(tool, job, 'written'):.0f}"
                if tool != "cutover" and job in of_tools.get("cutover", {}):
                    cell += f" ({wall / median('cutover', job, 'wall'):.1f}×)"
                cells.append(cell)
            text.append(f"| {NAMES.get(tool, tool)} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def merged(files):
    """The measurements of several runs on the same inputs as if they had been one."""
    result = {"inputs": "", "samples": {}}
    for name in files:
        with open(name) as file:
            one = json.load(file)
        result["inputs"] = one["inputs"]
        for kind, of_tools in one["samples"].items():
            for tool, of_jobs in of_tools.items():
                for job, samples in of_jobs.items():
                    result["samples"].setdefault(kind, {}).setdefault(tool, {}).setdefault(job, []).extend(samples)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--show", nargs="+")
    parser.add_argument("--label", default="inputs")
    parser.add_argument("--fs", default="ext4,xfs,btrfs")
    parser.add_argument("--tools", default="cutover,cutover-tar,tar,bsdtar,rsync,ostree,casync,nix,btrfs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=8, help="GiB of each file system")
    parser.add_argument("--work", default="/var/tmp/cutover-bench")
    parser.add_argument("--program", default=f"{HERE}/../target/release/cutover")
    parser.add_argument("--before", default="", help="an older build, the tool `before`")
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.show:
        return print(tables(merged(options.show)))
    if os.geteuid() != 0:
        sys.exit("SKIPPED: needs root, to mount file systems")
    options.inputs, options.work = os.path.abspath(options.inputs), os.path.abspath(options.work)
    os.makedirs(options.work, exist_ok=True)
    result = run(options)
    if result is None:
        return
    if options.out:
        with open(options.out, "w") as file:
            json.dump(result, file, indent=1)
    print(tables(result))


if __name__ == "__main__":
    main()
