"""A terminal for trials: tmux, whose keys are typed and whose screen is read; and a node to be looked at."""

import http.server
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time

PATIENCE_S = 60


class Terminal:
    """One tmux server with one window, of its own; its shell prints no prompt that could be taken for output."""

    def __init__(self, directory, columns=80, lines=30, environment=()):
        self.socket = str(directory / f"tmux-{columns}-{random.randrange(10**6)}")
        words = ["new-session", "-d", "-x", str(columns), "-y", str(lines), "env", *environment, "PS1=$ ", "sh", "-i"]
        self.commands = 0
        self.tmux("-f", "/dev/null", *words)
        self.wait_for("$")

    def tmux(self, *words):
        return subprocess.run(["tmux", "-S", self.socket, *words], check=True, capture_output=True, text=True).stdout

    def screen(self, escapes=False, joined=True):
        """What is to be seen, and what was scrolled away; lines that the terminal broke are joined."""
        words = ["capture-pane", "-p", "-S", "-500"] + (["-e"] if escapes else []) + (["-J"] if joined else [])
        return self.tmux(*words)

    def type(self, text):
        for line in text.split("\n"):
            self.tmux("send-keys", "-l", line)
            self.tmux("send-keys", "Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def wait_for(self, wanted, what=None):
        """Until a text is on the screen, or a function of the screen says so."""
        is_there = wanted if callable(wanted) else lambda screen: wanted in screen
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            screen = self.screen()
            if is_there(screen):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"never on the screen: {what or wanted}\n{self.screen()}")

    def run(self, command):
        """Types a command and says what came of it: screen and exit code."""
        self.start(command)
        return self.end()

    def start(self, command):
        self.commands += 1
        self.type(f"{command}; echo \"ended-{self.commands}=$?.\"")

    def end(self):
        """The screen when the command has ended that was typed last, and its exit code."""
        mark = re.compile(rf"ended-{self.commands}=(\d+)\.")
        screen = self.wait_for(mark.search, "the end")
        return screen, int(mark.search(screen)[1])

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True)


class Releases(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as any web server does."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = pathlib.Path(self.directory) / self.path.rsplit("/", 1)[-1]
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        part = self.headers.get("Range")
        first, last = 0, len(data) - 1
        if part:
            first, last = (int(number) for number in part.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
        self.send_response(206 if part else 200)
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("Content-Length", str(last - first + 1))
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        try:
            self.wfile.write(data[first : last + 1])
        except OSError:
            pass
        return None


CONFIG = """root = "{root}"
[source]
url = "{url}"
keys = ["{keys}"]
rate_limit = "{rate}"
[store]
reserve = "1MiB"
[service]
command = {{ start = "{place}/start", stop = "{place}/stop" }}
[health]
min_healthy = "{min_healthy}"
deadline = "60s"
interval = "100ms"
startup = "0s"
[[health.check]]
name = "well"
exec = {{ command = ["/bin/sh", "-c", "test ! -e sick && kill -0 $(cat {place}/pid)"] }}
"""


class Node:
    """A node without systemd, whose application is a process that sleeps. Release 1 runs; 2 is good, 3 falls sick."""

    def __init__(self, program, rate="1GiB", min_healthy="200ms"):
        self.program = program
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="cutover-terminal-"))
        for name in ["root", "releases"]:
            (self.place / name).mkdir()
        handler = lambda *words: Releases(*words, directory=str(self.place / "releases"))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.script("start", f"setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >{self.place}/pid")
        self.script("stop", f"[ -e {self.place}/pid ] && kill $(cat {self.place}/pid); rm -f {self.place}/pid")
        self.terminals = []
        self.configure("1GiB", "0s")
        self.command("keygen", self.place / "team")
        self.release(1)
        assert self.command("update") == 0
        self.configure(rate, min_healthy)

    def configure(self, rate, min_healthy):
        url = f"http://127.0.0.1:{self.server.server_port}"
        text = CONFIG.format(root=self.place / "root", url=url, keys=self.place / "team.pub", place=self.place,
                             rate=rate, min_healthy=min_healthy)
        (self.place / "shop.toml").write_text(text)

    def script(self, name, text):
        path = self.place / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def release(self, number, sick=False):
        tree = self.place / f"tree-{number}"
        tree.mkdir()
        noise = random.Random(number)
        for name in range(40):
            (tree / f"{name:02}").write_bytes(noise.randbytes(100_000))
        if sick:
            (tree / "sick").touch()
        archive = self.place / "releases" / f"shop-{number}.tar.zst"
        self.command("pack", tree, "--product", "shop", "--version", number, "-o", archive)
        self.command("publish", self.place / "releases", number, "--key", self.place / "team")

    def words(self, *words):
        return [self.program, "--config", str(self.place / "shop.toml"), *map(str, words)]

    def line(self, words):
        return " ".join(self.words(words))

    def command(self, *words):
        return subprocess.run(self.words(*words), capture_output=True).returncode

    def status(self):
        import json

        done = subprocess.run(self.words("status", "--json"), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def active(self):
        return os.readlink(self.place / "root" / "current").rsplit("/", 1)[-1]

    def serves(self):
        """The application's process lives, and its directory is that of the active release."""
        pid = (self.place / "pid").read_text().strip()
        return pathlib.Path(f"/proc/{pid}/stat").exists()

    def terminal(self, columns=80, environment=()):
        terminal = Terminal(self.place, columns, environment=environment)
        self.terminals.append(terminal)
        return terminal

    def wait_for_phase(self, phase):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            update = self.status()["update"]
            if update and update["phase"] == phase:
                return
            time.sleep(0.02)
        raise AssertionError(f"never in phase {phase}: {self.status()}")

    def is_at_rest(self, version):
        """Nothing is under way, and this release serves."""
        status = self.status()
        assert status["update"] is None and status["state"] in ("idle", "staged", "waiting"), status
        assert self.active() == str(version) and self.serves(), (self.active(), status)

    def close(self):
        for terminal in self.terminals:
            terminal.close()
        self.server.shutdown()
        subprocess.run(["sh", str(self.place / "stop")], capture_output=True)
        shutil.rmtree(self.place, ignore_errors=True)
