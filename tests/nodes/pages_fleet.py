"""docs/fleet.md, on two nodes that share a directory: the operator's is web-2, so that web-1 can be replaced as the page says."""

import json
import re
import time

from lab import Failed, eventually
from pages import check, instead, prepare

STORAGE = "tests/storage/etcd.sh", "tests/storage/object.sh"
ELSEWHERE = {
    "cutover fleet import FILE": "as `cutover fleet import outcome`",
    "cutover fleet check NODE…": "as `cutover fleet check web-1 web-2`",
    "cutover fleet members --remove NODE": "tests/it/fleet_known.rs: --remove",
    "cutover rollback --now": "tests/nodes/day.py: --now",
    "--nodes=50": "tests/nodes/fleet.py: --nodes=",
    "--endpoint": f"{STORAGE[0]}: --endpoint",
    "--timeout-ms": "boards/etcd/src/main.rs: timeout_ms",
    "--cert": f"{STORAGE[0]}: --cert",
    "--key": f"{STORAGE[0]}: --key",
    "--user": f"{STORAGE[0]}: --user",
    "--password-file": f"{STORAGE[0]}: --password-file",
    "--options": f"{STORAGE[1]}: --options",
    "--auto-compaction-retention=1h": "etcd's own option",
}
UNIT = """
[Service]
ExecStart=/bin/sleep infinity
WorkingDirectory=/srv/shop/current
[Install]
WantedBy=multi-user.target
"""
SETTINGS = """
root = "/srv/shop"
[source]
url = "/srv/releases"
[service]
units = ["shop.service"]
[policy]
jitter = "0s"
[health]
min_healthy = "500ms"
interval = "200ms"
[[health.check]]
name = "well"
exec = { command = ["/srv/shop/current/well"] }
"""
# Times that a test can wait for.
FLEET = """
[fleet]
mode = "synchronous"
name = "shop-web"
directory = "/mnt/coord/shop-web"
keys = ["/etc/cutover/keys/anna-fleet.pub"]
poll = "200ms"
visibility = "200ms"
lead = "3s"
late = "2s"
trial = "2s"
settle = "5s"
back = "1s"
decider_step = "500ms"
io = "2s"
"""
QUICK = "[Timer]\nOnCalendar=\nOnActiveSec=100ms\nOnUnitInactiveSec=300ms\nRandomizedDelaySec=0\nAccuracySec=10ms\n"
LIMIT = "[Unit]\nStartLimitIntervalSec=0\n"


class Pair:
    """web-1, and web-2 where the operator sits."""

    def __init__(self, lab, page, cutover):
        self.lab, self.page, self.cutover = lab, page, cutover
        self.operator = self.machine("web-2", "2.3.0")
        self.other = self.machine("web-1", "2.3.0")
        self.board = lab.share / "shop-web"

    @property
    def nodes(self):
        return [self.other, self.operator]

    def machine(self, name, version):
        """A machine with an application, and with the storage where the page has it."""
        node = self.lab.node(name, "ext4", is_sharing=True)
        prepare(node, self.cutover)
        node.boot()
        node.call("sh", "-c", "mkdir -p /mnt/coord /srv/shop && mount --bind /shared /mnt/coord && groupadd cutover")
        node.write("/etc/cutover/shop.toml", SETTINGS)
        node.write("/etc/systemd/system/shop.service", UNIT)
        if name == "web-1":
            for place in ["/root/releases.key", "/root/releases.key.pub"]:
                node.copy(self.operator.path(place), place)
            node.copy(self.operator.path("/srv/releases"), "/srv/releases")
        else:
            self.operator = node
            node.call("sh", "-c", "cd /root && cutover keygen releases.key")
            self.release(version, [])
        node.call("sh", "-c", "mkdir -p /etc/cutover/keys && cp /root/releases.key.pub /etc/cutover/keys/releases.pub")
        node.call("cutover", "update", "--now")
        node.call("systemctl", "enable", "-q", "shop.service")
        return node

    def release(self, version, others=None, is_sick=False):
        """A new release, in the channel of both."""
        node = self.operator
        node.write("/root/build/well", f"#!/bin/sh\nexit {int(is_sick)}\n", 0o755)
        node.write("/root/build/version", version)
        node.call("mkdir", "-p", "/srv/releases")
        node.call("sh", "-c", f"cd /root && cutover pack build --product shop --version {version} "
                  f"-o /srv/releases/shop-{version}.tar.zst && cutover publish /srv/releases {version} --key releases.key")
        for other in [self.other] if others is None else others:
            other.copy(node.path("/srv/releases"), "/srv/releases")

    def type(self, line, expect=0, add="", node=None, **filled):
        return self.page.type(node or self.operator, line, expect, add, **filled)

    def propose(self, version, expect=0, add=""):
        self.type("cutover fleet propose 2.4.0 --wait", expect, add, **{"2.4.0": version})

    def configure(self, name, text, nodes=None):
        for node in nodes or self.nodes:
            node.write(f"/etc/cutover/shop.toml.d/{name}.toml", text)

    def runs(self, version, nodes=None):
        """Waits until these are at rest on this release."""
        def is_there(node):
            return node.path("/srv/shop/current").readlink().name == version \
                and not node.path("/srv/shop/.cutover/journal.json").exists()
        for node in nodes or self.nodes:
            try:
                eventually(f"{node.name} runs {version}", 60, lambda node=node: is_there(node))
            except Failed as why:
                raise Failed(f"{why}\n{node.run('cutover', 'status')[1]}{node.run('cutover', 'update')}"
                             f"{self.operator.run('cutover', 'fleet', 'status', '--why')[1]}") from None

    def when_idle(self, line, expect=0, add="", node=None, **filled):
        """What is busy (11) while the timer's update looks, a moment later."""
        def attempt():
            try:
                return self.type(line, expect, add, node, **filled) or "nothing"
            except Failed as why:
                if "another cutover" in str(why):
                    return None
                raise
        return eventually(line, 20, attempt)

    def status(self):
        return json.loads(self.type("cutover fleet status --json"))


def set_up(pair):
    page, nodes = pair.page, pair.nodes
    lines = page.lines("Set up")
    keygen, key, directory, init, join, members, race, propose, watch = lines
    pair.type(keygen)
    pair.other.copy(pair.operator.path("/root/anna-fleet.pub"), "/root/anna-fleet.pub")
    for node in nodes:
        pair.type(key, node=node)
    pair.configure("10-fleet", FLEET)
    signing_key = re.search(r"\[fleet\] (signing_key = \"[^\"]*\")", page.block("Set up", "sh")).group(1)
    pair.configure("11-key", f"[fleet]\n{signing_key}\n", [pair.operator])
    pair.type(directory)
    pair.type(init)
    for node in nodes:
        pair.type(join, node=node)
    pair.type(members)
    instead("ten races and not fifty")
    second = pair.other.spawn("sh", "-c", f"{race} --rounds 10")
    pair.type(race, add="--rounds 10")
    check(second.wait(60) == 0, second.stdout.read())

    for node in nodes:
        node.write("/etc/systemd/system/cutover@shop.timer.d/override.conf", page.block("Set up", "ini"))
        node.call("systemctl", "daemon-reload")
        timer = node.call("systemctl", "show", "cutover@shop.timer", "--property=TimersCalendar,RandomizedDelayUSec")
        check("*-*-* *:*:00" in timer and "hour" not in timer and "20s" in timer, timer)
        quicken(node)
    instead("the timers fire each second")
    pair.release("2.4.0")
    pair.type(propose)
    pair.runs("2.4.0")
    said = pair.type(watch)
    check("kept" in said, said)


def quicken(node):
    node.write("/etc/systemd/system/cutover@shop.timer.d/quick.conf", QUICK)
    node.write("/etc/systemd/system/cutover@shop.service.d/limit.conf", LIMIT)
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "enable", "-q", "--now", "cutover@shop.timer")


def watching(pair):
    check("web-1" in pair.type("cutover fleet status", add="--why"), "the status names no node")
    check("2.4.0" in pair.type("cutover fleet report"), "the report names no release")
    pair.type("cutover report --html FILE --fleet DIRECTORY", FILE="/root/fleet.html", DIRECTORY="/mnt/coord/shop-web",
              add="--rollouts 3")
    check("web-1" in pair.operator.path("/root/fleet.html").read_text(), "the page names no node")


def by_hand(pair):
    """What the section has, with the exit codes of the page's table."""
    other = pair.other
    pair.release("2.5.0", is_sick=True)
    pair.propose("2.5.0", 10)
    pair.runs("2.4.0")
    pair.release("2.6.0")
    eventually("it is staged there", 20, lambda: other.run("cutover", "stage")[0] == 0)
    pair.when_idle("cutover mark-bad", add="2.6.0", node=other)
    pair.propose("2.6.0", 13)
    other.call("cutover", "mark-good", "2.6.0")

    pair.when_idle("cutover hold", add="--reason 'a test'", node=other)
    pair.operator.call("cutover", "fleet", "propose", "2.6.0")
    eventually("the hold is told", 20, lambda: "hold" in pair.type("cutover fleet status", add="--why"))
    pair.type("cutover fleet waive NODE", NODE="web-1")
    pair.runs("2.6.0", [pair.operator])
    # What the fleet has kept, and this node must not take.
    pair.when_idle("cutover mark-bad", add="2.6.0", node=other)
    other.call("cutover", "unhold")
    pair.when_idle("cutover update", 15, node=other)
    pair.when_idle("cutover mark-good", add="2.6.0", node=other)
    pair.runs("2.6.0")

    pair.when_idle("cutover rollback", node=other)
    eventually("it is there by hand", 20, lambda: "by hand" in pair.type("cutover fleet status"))
    pair.type("cutover fleet resume", node=other)
    other.call("cutover", "mark-good", "2.6.0")
    pair.type("cutover unhold", node=other)
    pair.runs("2.6.0")
    pair.type("cutover fleet propose --rollback", add="--wait")
    pair.runs("2.4.0")

    pair.release("2.7.0")
    instead("nobody waits for the hour of `--not-before`")
    for end in ["cutover fleet abort", "cutover fleet void"]:
        pair.type("cutover fleet propose 2.4.0", add="--not-before 1h --valid 2h", **{"2.4.0": "2.7.0"})
        pair.type(end)
        check(pair.status()["outcome"], "it has not ended")


def in_doubt(pair):
    """A node that lost the storage after it vouched learns the outcome from a file."""
    other = pair.other
    # The operator's node reports after the other one has.
    pair.configure("50-late", '[health]\nmin_healthy = "4s"\n', [pair.operator])
    pair.operator.call("cutover", "fleet", "propose", "2.7.0")
    number = pair.status()["rollout"]
    report = pair.board / f"nodes/web-1/{number:06}.report"
    eventually("web-1 has vouched", 60, report.exists)
    other.cut_off("EIO")
    pair.runs("2.7.0", [pair.operator])
    eventually("web-1 says that it is in doubt", 20, lambda: "IN DOUBT" in pair.type("cutover status", node=other))
    pair.type("cutover fleet export > outcome")
    other.copy(pair.operator.path("/root/outcome"), "/root/outcome")
    pair.type("cutover fleet import outcome", node=other)
    pair.runs("2.7.0")
    pair.when_idle("cutover recover", node=other)
    other.join()
    pair.operator.path("/etc/cutover/shop.toml.d/50-late.toml").unlink()

    (pair.board / "FLEET").unlink()
    said = pair.type("cutover fleet repair", node=other)
    check("FLEET" in said and (pair.board / "FLEET").exists(), said)
    for option in ["--accept", "--reopen"]:
        pair.type("cutover fleet repair", add=option)
    pair.type("cutover fleet gc")


def another_machine(pair):
    replace, join, members = pair.page.lines("A name and its machine")
    pair.lab.drop(pair.other)
    pair.type(replace)
    pair.other = pair.machine("web-1", "2.7.0")
    pair.other.copy(pair.operator.path("/etc/cutover/keys/anna-fleet.pub"), "/etc/cutover/keys/anna-fleet.pub")
    pair.configure("10-fleet", FLEET, [pair.other])
    pair.type(join, node=pair.other)
    pair.type(members)
    quicken(pair.other)
    pair.runs("2.7.0")


def rolling(pair):
    pair.configure("20-page", pair.page.block("Rolling: so many at once", "toml"))
    instead("soak = 0s")
    pair.configure("30-quick", '[fleet]\nsoak = "0s"\n')
    pair.release("2.8.0")
    pair.propose("2.8.0")
    pair.runs("2.8.0")
    # A ticket that nobody can read.
    for node in pair.nodes:
        node.call("systemctl", "stop", "cutover@shop.timer", "cutover@shop.service")
    pair.release("2.9.0")
    pair.operator.call("cutover", "fleet", "propose", "2.9.0")
    number = pair.status()["rollout"]
    directory = next(pair.board.glob(f"rollouts/{number:06}.????????????????"))
    (directory / "t.0000.0000").write_text("")
    pair.type("cutover fleet waive --ticket 1.3", **{"1.3": "0.0"})
    for node in pair.nodes:
        node.call("systemctl", "start", "cutover@shop.timer")
    pair.runs("2.9.0")


def cells(pair):
    """The page's cell, and a second one; in a directory of their own."""
    instead("the nodes are named as those of the page, in a fleet of their own")
    for node in pair.nodes:
        node.call("systemctl", "stop", "cutover@shop.timer", "cutover@shop.service")
        node.path("/srv/shop/.cutover/fleet.json").unlink()
    names = dict(zip(["ams-2-r1", "ams-1-r1"], pair.nodes))
    block = pair.page.block("Cells: together inside, in turns outside", "toml")
    for name, node in names.items():
        check(name in block or name == "ams-1-r1", f"the page has no {name}")
        fragment = f'[fleet]\nname = "cells"\ndirectory = "/mnt/coord/cells"\nnode = "{name}"\n'
        pair.configure("20-page", block, [node])
        pair.configure("40-names", fragment, [node])
    pair.operator.call("install", "-d", "-m", "2770", "-g", "cutover", "/mnt/coord/cells")
    pair.type("cutover fleet init")
    for node in pair.nodes:
        pair.type("cutover fleet join", node=node)
    pair.type("cutover fleet members --all")
    pair.type("cutover fleet members --cell NODE=CELL", NODE="ams-1-r1", CELL="ams-1")
    for node in pair.nodes:
        node.call("systemctl", "start", "cutover@shop.timer")
    pair.release("3.0.0")
    pair.propose("3.0.0")
    pair.runs("3.0.0")
    states = {cell["cell"]: cell["state"] for cell in pair.status()["cells"]}
    check(set(states) == {"ams-1", "ams-2"}, f"the cells are {states}")
    pair.release("3.1.0")
    pair.propose("3.1.0", add="--only ams-2-r1")
    pair.runs("3.1.0", [names["ams-2-r1"]])
    pair.runs("3.0.0", [names["ams-1-r1"]])


def run(lab, page, cutover):
    pair = Pair(lab, page, cutover)
    for step in [set_up, watching, by_hand, in_doubt, another_machine, rolling, cells]:
        began = time.monotonic()
        step(pair)
        print(f"  {step.__name__}: {time.monotonic() - began:.0f} s", flush=True)
