#!/usr/bin/env python3
"""How the cost of a small update grows with the number of files: 100 of them change. Needs root.

    growth.py [--files 1000,10000,100000] [--fs btrfs,ext4] [--rounds N] [--work DIR] [--svg FILE]
"""
import argparse
import os
import statistics
import subprocess
import sys

from compare import HERE, Cutover, Mounted, measure


def plot(series, path):
    """Both axes logarithmic; one line for each file system."""
    import math
    width, height, left, bottom = 640, 360, 60, 40
    xs = [files for points in series.values() for files, _ in points]
    ys = [seconds for points in series.values() for _, seconds in points]
    low_x, high_x = math.log10(min(xs)), math.log10(max(xs)) + 1e-9
    low_y, high_y = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def place(files, seconds):
        x = left + (math.log10(files) - low_x) / (high_x - low_x) * (width - left - 90)
        y = height - bottom - (math.log10(seconds) - low_y) / (high_y - low_y) * (height - bottom - 20)
        return f"{x:.0f},{y:.0f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{width / 2:.0f}" y="{height - 6}" text-anchor="middle">files of the release, 100 of them changed</text>',
             f'<text x="14" y="{height / 2:.0f}" transform="rotate(-90 14 {height / 2:.0f})" text-anchor="middle">seconds</text>']
    for power in range(low_y, high_y + 1):
        y = place(min(xs), 10 ** power).split(",")[1]
        parts.append(f'<path d="M{left} {y}H{width - 90}" stroke="#ddd"/><text x="{left - 6}" y="{y}" text-anchor="end">{10 ** power:g}</text>')
    for files in sorted(set(xs)):
        x = place(files, 10 ** low_y).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - 24}" text-anchor="middle">{files:,}</text>')
    for (name, points), colour in zip(series.items(), ("#0b62a4", "#b5651d", "#3a7d44")):
        line = " ".join(place(*point) for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = place(*points[-1]).split(",")
        parts.append(f'<text x="{float(x) + 6}" y="{y}" fill="{colour}">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join(parts + ["</svg>\n"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="1000,10000,100000")
    parser.add_argument("--fs", default="btrfs,ext4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default="/var/tmp/cutover-bench")
    parser.add_argument("--program", default=f"{HERE}/../target/release/cutover")
    parser.add_argument("--svg")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("SKIPPED: needs root, to mount file systems")
    series = {}
    print("| files | file system | wall s | CPU s | MB written | peak MiB |\n|---|---|---|---|---|---|")
    for files in map(int, options.files.split(",")):
        place = f"{options.work}/few-{files}"
        if not os.path.isdir(f"{place}/new1"):
            subprocess.run([f"{HERE}/inputs.py", "few", str(files), place], check=True)
        for kind in options.fs.split(","):
            cutover = Cutover(options.program)
            os.makedirs(f"{place}/store", exist_ok=True)
            cutover.prepare(place, f"{place}/store", ["old", "new1"])
            samples = []
            for _ in range(options.rounds):
                mounted = Mounted(kind, options.work, 8 << 30)
                try:
                    jobs = {job: command for job, command in cutover.jobs(mounted, ["old", "new1"])}
                    measure(mounted, jobs["old"])
                    samples.append(measure(mounted, jobs["new1"]))
                finally:
                    mounted.close()
            median = {fact: statistics.median(sample[fact] for sample in samples) for fact in samples[0]}
            print(f"| {files:,} | {kind} | {median['wall']:.2f} | {median['cpu']:.2f} | {median['written']:.1f} "
                  f"| {median['rss']:.0f} |", flush=True)
            series.setdefault(kind, []).append((files, median["wall"]))
    if options.svg:
        plot(series, options.svg)


main()
