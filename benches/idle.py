#!/usr/bin/env python3
"""What a timer's run costs that finds nothing new: `cutover update` on a node that is up to date.

usage: benches/idle.py CUTOVER [RUNS]    prints medians; strace, where it is installed, counts the system calls
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

cutover = os.path.realpath(sys.argv[1])
# As systemd starts it for a timer: nobody is looked up who may have typed this.
os.environ["INVOCATION_ID"] = "0" * 32
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
runs = int(sys.argv[2]) if len(sys.argv) > 2 else 100


def call(*words):
    subprocess.run([cutover, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def portrait(root):
    """Every name under the root with its times and size: to see that nothing was touched."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found.append((path, status.st_mtime_ns, status.st_ctime_ns, status.st_size))
    return sorted(found)


def peak(words):
    """Peak memory in MiB. The kernel counts what a process was before `exec` as well, and Python is larger than cutover:
    so it is started by the small `time`, which a shell starts.
    """
    script = '/usr/bin/time -f "peak %M" "$@" > /dev/null; :'
    found = []
    for _ in range(min(runs, 20)):
        lines = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True).stderr.splitlines()
        found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("peak ")]
    return statistics.median(found)


place = tempfile.mkdtemp()
root, source, tree = (os.path.join(place, name) for name in ("root", "source", "tree"))
for path in (root, source, tree):
    os.mkdir(path)
for number in range(1000):
    with open(os.path.join(tree, f"file{number}"), "w") as file:
        file.write(str(number) * 100)
config = os.path.join(place, "app.toml")
with open(config, "w") as file:
    file.write(f"root = '{root}'\n[source]\nurl = 'file://{source}'\nallow_unsigned = true\n")
call("pack", tree, "--product", "app", "--version", "1", "-o", os.path.join(source, "app-1.tar.zst"))
manifest = os.path.join(source, "app-1.manifest")
digest = subprocess.run(["sha256sum", manifest], check=True, capture_output=True, text=True).stdout.split()[0]
now = time.time()
stamp = lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
with open(os.path.join(source, "stable.channel"), "w") as file:
    file.write(
        f"format = 1\nproduct = app\nchannel = stable\nserial = 1\nissued = {stamp(now)}\n"
        f"expires = {stamp(now + 86400)}\nrelease = 1 sha256:{digest}\n"
    )
words = [cutover, "--config", config, "update"]
subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
before = portrait(root)
wall, cpu = [], []
for _ in range(runs):
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall.append(time.perf_counter() - began)
    assert status == 0, status
    cpu.append(usage.ru_utime + usage.ru_stime)
print(f"runs                {runs}")
print(f"wall, median        {statistics.median(wall) * 1000:.2f} ms")
print(f"cpu, median         {statistics.median(cpu) * 1000:.2f} ms")
print(f"peak memory, median {f'{peak(words):.1f} MiB' if shutil.which('time') else 'not measured: needs `time`'}")
print(f"changed under root  {'nothing' if portrait(root) == before else 'SOMETHING'}")
if shutil.which("strace"):
    trace = subprocess.run(["strace", "-f", *words], capture_output=True, text=True).stderr.splitlines()
    calls = [line for line in trace if "(" in line and "=" in line]
    print(f"system calls        {len(calls)}, with those of the loader")
shutil.rmtree(place)
