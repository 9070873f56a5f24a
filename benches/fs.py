"""Fresh file systems in loop devices, and what a command costs on them."""
import os
import shutil
import subprocess
import sys
import time

MKFS = {"ext4": "-q -F", "xfs": "-q -f -m reflink=1", "btrfs": "-q -f"}


def sh(command, **options):
    return subprocess.run(["bash", "-ec", "set -o pipefail; " + command], check=True, **options)


class Mounted:
    """A fresh file system in a loop device that passes the page cache of the file it is in, as a disk does."""

    def __init__(self, kind, work, size):
        self.kind, self.image, self.path = kind, f"{work}/{kind}.img", f"{work}/{kind}"
        os.makedirs(self.path, exist_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(size)
        sh(f"mkfs.{kind} {MKFS[kind]} {self.image}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        show = f"losetup -f --direct-io=on --show {self.image} || losetup -f --show {self.image}"
        self.loop = sh(show, capture_output=True, text=True).stdout.strip()
        sh(f"mount {self.loop} {self.path}")

    def written(self):
        with open(f"/sys/block/{os.path.basename(self.loop)}/stat") as stat:
            return int(stat.read().split()[6]) * 512

    def close(self):
        sh(f"umount {self.path}; losetup -d {self.loop}; rm -f {self.image}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def measure(mounted, command):
    """Runs a command and syncs; its wall and CPU seconds, the peak memory of its largest process, and bytes that reached
    the device.

    The kernel counts what a process was before `exec` as well, so memory is taken by the small `time`.
    """
    sh(f"sync -f {mounted.path}")
    peak = f"{mounted.image}.peak"
    words = ["bash", "-ec", f"set -o pipefail; {command}; sync -f {mounted.path}"]
    if shutil.which("time"):
        words = [shutil.which("time"), "-q", "-o", peak, "-f", "%M"] + words
    before, start = mounted.written(), time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        sys.exit(f"{command}: {error.decode()}")
    memory = 0
    if os.path.exists(peak):
        with open(peak) as file:
            memory = int(file.read()) / 1024
        os.remove(peak)
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": memory,
        "written": (mounted.written() - before) / 1e6,
    }
