"""The application on one node: its releases, its channel, its configuration, and what can be asked of it."""

import datetime
import hashlib
import io
import json
import pathlib
import tarfile

from lab import Failed, eventually

CONFIGURATION = """
root = "/srv/app"
[source]
url = "file:///srv/channel"
allow_unsigned = true
[store]
reserve = "16MiB"
[[data]]
path = "/srv/app/data"
[service]
units = ["app.service"]
stop_timeout = "1s"
start_timeout = "5s"
[health]
min_healthy = "800ms"
deadline = "15s"
interval = "100ms"
startup = "3s"
[[health.check]]
name = "web"
http = { url = "http://127.0.0.1:8080/health" }
"""

UNIT = """
[Unit]
Description=The application
[Service]
Type=notify
NotifyAccess=all
ExecStart=/srv/app/current/bin/app
Restart=on-failure
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""

WORKER = """
[Unit]
Description=A worker that a release ships
[Service]
ExecStart=/srv/app/current/bin/worker
[Install]
WantedBy=multi-user.target
"""


class NodeApp:
    """The application, before its first installation."""

    def __init__(self, node, cutover, program):
        self.node, self.program = node, program
        self.serial, self.count = 0, 0
        node.copy(cutover, "/usr/bin/cutover")
        node.write("/etc/cutover/app.toml", CONFIGURATION)
        node.write("/etc/systemd/system/app.service", UNIT)
        node.path("/srv/app").mkdir(mode=0o755)
        node.path("/srv/channel").mkdir(mode=0o755)
        for unit in sorted(pathlib.Path("systemd").iterdir()):
            node.copy(unit, f"/usr/lib/systemd/system/{unit.name}")

    def begin(self):
        """What is done once the node runs."""
        if self.node.kind == "btrfs":
            self.node.call("btrfs", "subvolume", "create", "/srv/app/data")
        self.node.call("systemctl", "enable", "-q", "app.service", "cutover-recover@app.service")

    def listen_by_socket(self):
        """From now on systemd listens for the application."""
        self.node.write("/etc/systemd/system/app.socket",
                        "[Socket]\nListenStream=127.0.0.1:8080\nBacklog=4096\n[Install]\nWantedBy=sockets.target\n")
        self.node.write("/etc/systemd/system/app.service", UNIT.replace("[Service]", "Requires=app.socket\n[Service]"))
        self.node.call("systemctl", "daemon-reload")
        self.node.call("systemctl", "stop", "app.service")
        self.node.call("systemctl", "enable", "-q", "--now", "app.socket")
        self.node.call("systemctl", "start", "app.service")

    def listen_by_itself(self):
        """As it was."""
        self.node.call("systemctl", "disable", "-q", "--now", "app.socket")
        self.node.path("/etc/systemd/system/app.socket").unlink()
        self.node.write("/etc/systemd/system/app.service", UNIT)
        self.node.call("systemctl", "daemon-reload")
        self.node.call("systemctl", "restart", "app.service")

    # -- releases

    def publish(self, units=(), files=(), **behaviour):
        """Makes a release of that behaviour and has the channel name it; its version."""
        self.count += 1
        version = f"1.{self.count}"
        self.offer(version, self.pack(version, units, files, behaviour))
        return version

    def pack(self, version, units=(), files=(), behaviour=()):
        """The archive of a release."""
        behaviour = dict(behaviour)
        settings = "".join(f"{key.replace('_', '-')}={value}\n" for key, value in behaviour.items())
        program = open(self.program, "rb").read()
        content = {"VERSION": version.encode(), "etc/app.conf": settings.encode(), "bin/app": program,
                   "bin/worker": b"#!/bin/sh\nexec sleep 1000000\n", "bin/fail": b"#!/bin/sh\nexit 1\n",
                   **{f"systemd/{name}": text.encode() for name, text in units}, **dict(files)}
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
            for directory in ["bin", "etc", "systemd"]:
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            for name, data in content.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o755 if name.startswith(("bin/", ".cutover/")) else 0o644
                tar.addfile(entry, io.BytesIO(data))
        return stream.getvalue()

    def offer(self, version, data):
        """Puts an archive into the channel, and has it name that release."""
        self.serial += 1
        archive = f"app-{version}.tar.gz"
        self.node.path(f"/srv/channel/{archive}").write_bytes(data)
        manifest = (f"format = 1\nproduct = app\nversion = {version}\narchive = {archive}\nsize = {len(data)}\n"
                    f"sha256 = {hashlib.sha256(data).hexdigest()}\n")
        self.node.write(f"/srv/channel/app-{version}.manifest", manifest)
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        stamp = lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha256(manifest.encode()).hexdigest()
        self.node.write("/srv/channel/stable.channel",
                        f"format = 1\nproduct = app\nchannel = stable\nserial = {self.serial}\n"
                        f"issued = {stamp(now)}\nexpires = {stamp(now + datetime.timedelta(days=7))}\n"
                        f"release = {version} sha256:{digest}\n")

    def update(self, expect, *options):
        """Runs an update that must end with this status; all that it said."""
        status, output, errors = self.node.run("cutover", "update", "--now", *options)
        if status != expect:
            raise Failed(f"update ended with {status} instead of {expect}: {errors.strip()[-1500:]}{output[-300:]}")
        return output + errors

    # -- what can be asked

    def active(self):
        return self.node.path("/srv/app/current").readlink().name

    def get(self, path):
        """The answer of the running application, or None."""
        status, output, _ = self.node.run("timeout", "5", "wget", "-q", "-O", "-", f"http://127.0.0.1:8080{path}")
        return output.strip() if status == 0 else None

    def version(self):
        return self.get("/version")

    def serves(self, version, seconds=20):
        """Waits until that release, and the pointer with it, serves."""
        eventually(f"release {version} serves (it is {self.version()})", seconds, lambda: self.version() == version)
        if self.active() != version:
            raise Failed(f"{version} serves, but the pointer names {self.active()}")

    def status(self):
        return json.loads(self.node.call("cutover", "status", "--json"))

    def history(self):
        path = self.node.path("/srv/app/.cutover/history.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def at_rest(self, seconds=40, ends_what_stages=True):
        """Waits until no update is under way, and, with `ends_what_stages`, what is cleared away after it is gone."""
        eventually("the update ends", seconds,
                   lambda: not self.node.path("/srv/app/.cutover/journal.json").exists())
        if ends_what_stages:
            eventually("what is cleared away is gone", 20, lambda: self.status()["state"] != "staging")

    def properties(self, unit, *names):
        text = self.node.call("systemctl", "show", unit, "--property=" + ",".join(names))
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def is_active(self, unit):
        return self.node.run("systemctl", "is-active", "-q", unit)[0] == 0
