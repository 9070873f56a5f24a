#!/usr/bin/env python3
"""What two builds of cutover cost beside each other where a release comes from a web server.

usage: benches/web.py OLD NEW [ROUNDS]    prints medians, and the ratio of NEW to OLD

    loopback   first install of 316 MB that do not compress, by HTTP from this machine, and the same archive from a directory
    far        100,000 small files in 100 directories, one changed in each: the update, from a server that answers 20 ms late;
               requests and bytes are counted

In the first both read the archive that OLD has packed, in the second each reads its own. They take turns; roots are in TMPDIR.
"""
import hashlib
import http.server
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAMS = {name: os.path.realpath(word) for name, word in zip(("old", "new"), sys.argv[1:3])}
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 9


class Handler(http.server.BaseHTTPRequestHandler):
    """Files below a directory, and parts of them."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        time.sleep(self.server.late)
        with self.server.requests.get_lock():
            self.server.requests.value += 1
        path = self.server.directory / self.path.rsplit("/", 1)[-1]
        if not path.exists():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        first, last, asked = 0, size - 1, self.headers.get("Range")
        if asked:
            first, last = map(int, asked.split("=")[1].split("-"))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        # For programs that believe a part only with one.
        self.send_header("ETag", '"1"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        self.wfile.flush()
        with self.server.bytes.get_lock():
            self.server.bytes.value += last + 1 - first
        with open(path, "rb") as file:
            self.connection.sendfile(file, first, last + 1 - first)


class Served:
    """A server in a process of its own, so that its CPU is nobody else's."""

    def __init__(self, directory, late):
        self.requests, self.bytes = multiprocessing.Value("q"), multiprocessing.Value("q")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.directory, server.late, server.requests, server.bytes = directory, late, self.requests, self.bytes
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
        self.process.start()
        server.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()


def call(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def publish(program, directory, tree, version, base=None):
    """Packs a release, and lets the channel name it."""
    archive = directory / f"app-{version}.tar.zst"
    call(program, "pack", tree, "--product", "app", "--version", version, "-o", archive,
         *(["--base", directory / f"app-{base}.tar.zst"] if base else []))
    name(directory, version)


def name(directory, version):
    digest = hashlib.sha256((directory / f"app-{version}.manifest").read_bytes()).hexdigest()
    stamp = lambda then: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))
    (directory / "stable.channel").write_text(
        f"format = 1\nproduct = app\nchannel = stable\nserial = {version}\nissued = {stamp(time.time())}\n"
        f"expires = {stamp(time.time() + 86400)}\nrelease = {version} sha256:{digest}\n")


class Node:
    """A root that follows a source."""

    def __init__(self, place, url):
        self.root = tempfile.mkdtemp(dir=place)
        self.config = self.root + ".toml"
        pathlib.Path(self.config).write_text(f"root = '{self.root}'\n[source]\nurl = '{url}'\nallow_unsigned = true\n")

    def measured(self, program, *words):
        """Seconds that passed, and seconds of CPU."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        call(program, "--config", self.config, "-q", *words)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turns():
    for number in range(ROUNDS):
        yield from list(PROGRAMS.items())[:: 1 if number % 2 == 0 else -1]


def tell(what, found):
    for at, fact in enumerate(("wall", "CPU")):
        old, new = (statistics.median(sample[at] for sample in found[name]) for name in PROGRAMS)
        print(f"{what}, {fact}: {old:.3f} s, {new:.3f} s, ratio {new / old:.2f}", flush=True)


def loopback(place):
    source, tree, dice = place / "source", place / "tree", random.Random(1)
    source.mkdir()
    tree.mkdir()
    for number in range(1200):
        (tree / f"{number:04}").write_bytes(dice.randbytes(256 << 10))
    publish(PROGRAMS["old"], source, tree, "1")
    shutil.rmtree(tree)
    found = {kind: {name: [] for name in PROGRAMS} for kind in ("http", "directory")}
    with Served(source, 0) as server:
        for build, program in in_turns():
            for kind, url in ("http", server.url), ("directory", source):
                node = Node(place, url)
                found[kind][build].append(node.measured(program, "stage"))
                shutil.rmtree(node.root)
    for kind, samples in found.items():
        tell(f"first install of {(source / 'app-1.tar.zst').stat().st_size / 1e6:.0f} MB, {kind}", samples)


def far(place):
    tree = place / "many"
    for number in range(100_000):
        path = tree / f"{number // 1000:03}" / f"{number}"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"content {number}\n")
    for version in "1", "2":
        for build, program in PROGRAMS.items():
            (place / build).mkdir(exist_ok=True)
            publish(program, place / build, tree, version, "1" if version == "2" else None)
        for directory in tree.iterdir():
            (directory / f"{int(directory.name) * 1000}").write_text(f"changed {directory.name}\n")
    found, counts = {name: [] for name in PROGRAMS}, {}
    for build, program in in_turns():
        with Served(place / build, 0.02) as server:
            node = Node(place, server.url)
            name(place / build, "1")
            node.measured(program, "update")
            requests, read = server.requests.value, server.bytes.value
            name(place / build, "2")
            found[build].append(node.measured(program, "update"))
            counts[build] = server.requests.value - requests, server.bytes.value - read
            shutil.rmtree(node.root)
    for build, (requests, read) in counts.items():
        size = (place / build / "app-2.tar.zst").stat().st_size
        print(f"100 of 100,000 files, {build}: {requests} requests, {read / 1e6:.2f} of {size / 1e6:.2f} MB")
    tell("100 of 100,000 files, 20 ms a request", found)


with tempfile.TemporaryDirectory() as place:
    loopback(pathlib.Path(place))
    far(pathlib.Path(place))
