"""A fleet of real nodes: the application on each, one shared directory, and an operator on the first two nodes."""

import concurrent.futures
import json
import pathlib

from lab import Failed, eventually
from node_app import NodeApp

KINDS = ["ext4", "xfs", "btrfs"]

# Times as short as real nodes on two cores carry them; the proposal freezes those of the node that proposes.
FLEET = """
[policy]
jitter = "0s"
[health]
startup = "{startup}s"
[fleet]
mode = "{mode}"
name = "shop"
directory = "/shared/fleet"
keys = ["/etc/cutover/operator.pub"]
signing_key = "/etc/cutover/operator"
poll = "{poll}"
visibility = "500ms"
lead = "{lead}s"
late = "{late}s"
stop = "{stop}s"
trial = "{trial}s"
settle = "{settle}s"
back = "{back}s"
decider_step = "500ms"
io = "{io}s"
soak = "0s"
{more}
"""
# The nodes' timer: every few seconds, so that nobody waits for it.
TIMER = """
[Timer]
OnCalendar=
OnActiveSec=500ms
OnUnitInactiveSec={pause}s
RandomizedDelaySec=0
AccuracySec=50ms
"""
LIMIT = "[Unit]\nStartLimitIntervalSec=0\n"
# What is sent to a node's clock, seen by its updater alone.
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


class Fleet:
    """Nodes n1, n2, … that run the first release and have joined."""

    def __init__(self, lab, cutover, program, size):
        self.lab = lab
        self.nodes = [lab.node(f"n{number}", KINDS[number % len(KINDS)], is_sharing=True)
                      for number in range(1, size + 1)]
        self.apps = [NodeApp(node, pathlib.Path(cutover), program) for node in self.nodes]
        self.board = lab.share / "fleet"
        self.pool = concurrent.futures.ThreadPoolExecutor(8)
        # On two cores a large fleet needs longer to read all votes, to start and watch its services, and to be heard.
        few = {"poll": "500ms", "late": 3, "stop": 2, "settle": 4, "back": 2, "io": 2, "startup": 3}
        many = {"poll": "2s", "late": 20, "stop": 15, "settle": 20, "back": 6, "io": 8, "startup": 15}
        paces = {**few, "lead": 6 + size // 5, "trial": 8 + size // 5}
        self.times = paces if size <= 20 else {**many, "lead": size, "trial": size}
        # Whoever waits for a fleet is as patient as the fleet's own times are long.
        self.patience = 4 * (self.times["lead"] + self.times["trial"])
        # Fifty nodes that look every two seconds keep two cores busy with that alone.
        self.pause = 2 if size <= 20 else 10
        # How much longer than the others a node watches that shall be the last to report.
        self.longer = 5 if size <= 20 else 10
        self.count, self.rollout = 0, 0

    def eventually(self, what, seconds, attempt):
        return eventually(what, seconds + self.patience, attempt)

    def each(self, work, apps=None):
        return list(self.pool.map(work, apps or self.apps))

    def begin(self):
        self.each(lambda app: app.node.boot())
        self.each(lambda app: app.begin())
        self.publish()
        self.each(lambda app: app.update(0))
        self.operator = self.nodes[0]
        self.board.mkdir(mode=0o777)
        self.operator.call("cutover", "keygen", "/etc/cutover/operator")
        public = self.operator.path("/etc/cutover/operator.pub")
        public.write_text(f'operator@shop namespaces="cutover-fleet" {public.read_text()}')
        self.configure()
        for node in self.nodes:
            for name in ["operator", "operator.pub"]:
                if node is not self.operator:
                    node.copy(self.operator.path(f"/etc/cutover/{name}"), f"/etc/cutover/{name}")
            node.write("/etc/systemd/system/cutover@app.timer.d/soon.conf", TIMER.format(pause=self.pause))
            node.write("/etc/systemd/system/cutover@app.service.d/limit.conf", LIMIT)
        self.operator.call("cutover", "fleet", "init")
        self.each(lambda app: app.node.call("cutover", "fleet", "join"))
        self.operator.call("cutover", "fleet", "members", "--all")
        self.each(lambda app: app.node.call("systemctl", "daemon-reload"))
        self.each(lambda app: app.node.call("systemctl", "enable", "-q", "--now", "cutover@app.timer"))

    def configure(self, mode="synchronous", more=""):
        for node in self.nodes:
            text = FLEET.format(mode=mode, more=more, **self.times)
            node.write("/etc/cutover/app.toml.d/fleet.toml", text)

    # -- releases and rollouts

    def publish(self, **behaviour):
        """Makes a release and has every node's channel name it."""
        self.count += 1
        version = f"1.{self.count}"
        archive = self.apps[0].pack(version, behaviour=behaviour)
        for app in self.apps:
            app.offer(version, archive)
        return version

    def propose(self, version, *options, node=None):
        """Begins a rollout, and goes on."""
        self.rollout += 1
        (node or self.operator).call("cutover", "fleet", "propose", version, *options)

    def roll_out(self, version, expect, seconds=120):
        """A rollout to its end, which must have this exit code; what was said of it."""
        self.rollout += 1
        status, output, errors = self.operator.run("cutover", "fleet", "propose", version, "--wait",
                                                   timeout=seconds + self.patience)
        if status != expect:
            raise Failed(f"propose ended with {status} instead of {expect}: {output.strip()} {errors.strip()[-800:]}"
                         f"\n{self.why()}")
        return output.strip()

    def why(self):
        return self.operator.run("cutover", "fleet", "status", "--why")[1]

    def fact(self, name):
        """A fact of the rollout under way (`plan`, `n2.vote`), or None."""
        node, _, kind = name.rpartition(".")
        if node:
            path = self.board / f"nodes/{node}/{self.rollout:06}.{kind}"
        else:
            # Decisions stand in a directory that has the digest of the proposal in its name.
            directory = next(self.board.glob(f"rollouts/{self.rollout:06}.????????????????"), None)
            path = (directory or self.board / "rollouts/none") / kind
        return json.loads(path.read_text().splitlines()[0]) if path.exists() else None

    def await_fact(self, name, seconds=60):
        return self.eventually(f"fact {name} of rollout {self.rollout}", seconds, lambda: self.fact(name))

    def outcome(self):
        status, output, _ = self.operator.run("cutover", "fleet", "status", "--json")
        return json.loads(output)["outcome"] if status == 0 else None

    def await_outcome(self, word, seconds=90):
        seen = self.eventually(f"rollout {self.rollout} ends: {self.why()}", seconds, self.outcome)
        if seen != word:
            raise Failed(f"rollout {self.rollout} was {seen} instead of {word}: {self.why()}")

    def all_serve(self, version, seconds=60, was_called_off=False):
        """Waits until nobody has anything left to do; then all must serve this release. Of a rollout that halts, or is aborted
        at once, those know nothing who came too late for it."""
        def rests(app):
            root = app.node.path("/srv/app/.cutover")
            own = json.loads((root / "fleet.json").read_text())["body"]
            return not (root / "journal.json").exists() and own["part"] is None \
                and (was_called_off or (own["last"] or {"rollout": 0})["rollout"] >= self.rollout)
        self.eventually(f"rollout {self.rollout} is over everywhere: {self.why()}", seconds,
                        lambda: all(rests(app) for app in self.apps))
        self.each(lambda app: app.serves(version))

    # -- trouble

    def sicken(self, app, version, place="/run/sick"):
        """On this node alone that release will be sick; with `/etc/sick` also in its rehearsal."""
        app.node.call("sh", "-c", f"echo {version} >{place}")

    def slow(self, app, seconds):
        """This node alone watches a new release longer; None: as the others again."""
        path = app.node.path("/etc/cutover/app.toml.d/slow.toml")
        if seconds is None:
            path.unlink()
        else:
            path.write_text(f'[health]\nmin_healthy = "{seconds}s"\n')

    def shift_clock(self, app, seconds):
        """This node's updater sees another time; 0: the right one again."""
        path = app.node.path("/etc/systemd/system/cutover@app.service.d/clock.conf")
        if seconds:
            path.write_text(f"[Service]\nEnvironment=LD_PRELOAD={FAKETIME} FAKETIME={seconds:+}s"
                            " FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n")
        else:
            path.unlink()
        app.node.call("systemctl", "daemon-reload")
