#!/usr/bin/env python3
"""How a synchronous fleet switches, seen from outside: nodes are processes with roots of their own on one machine.

usage: benches/fleet.py CUTOVER skew [NODES[,NODES..]] [ROLLOUTS]    how long after the agreed instant pointers move
       benches/fleet.py CUTOVER bounds [NODES]                       how long releases are mixed when nodes fail, with
                                                                     the default times; some minutes

A pointer's move is seen by inotify, in a thread that goes before all others (as root): the moment at which it was told, so
never too early. Beside it stands what each node says that it has read from its clock right after its rename. Run it on a
quiet machine.
"""
import ctypes
import datetime
import glob
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

# As short as so many nodes on two cores can hold: the wait for the instant is what takes long.
FAST = {"late": "5s", "trial": "60s", "settle": "30s", "back": "2s", "decider_step": "300ms", "io": "10s", "skew": "2s",
        "visibility": "100ms"}
PACE = [(10, {"poll": "200ms", "lead": "2s"}), (50, {"poll": "300ms", "lead": "4s"}),
        (sys.maxsize, {"poll": "1s", "lead": "15s"})]


class Moves(threading.Thread):
    """All moves of pointers, as they come: (seconds, node)."""

    IN_MOVED_TO = 0x80

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.seen, self.nodes = [], {}
        library = ctypes.CDLL(None, use_errno=True)
        self.events = library.inotify_init()
        for number, root in enumerate(roots):
            self.nodes[library.inotify_add_watch(self.events, root.encode(), self.IN_MOVED_TO)] = number
        self.start()

    def run(self):
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        except PermissionError:
            print("not root: moves may be seen late")
        while True:
            events = os.read(self.events, 1 << 16)
            now, at = time.time(), 0
            while at < len(events):
                watch, _, _, length = struct.unpack_from("=iIII", events, at)
                name = events[at + 16:at + 16 + length].rstrip(b"\0")
                at += 16 + length
                if name == b"current":
                    self.seen.append((now, self.nodes[watch]))


class Fleet:
    def __init__(self, cutover, size, health, fleet):
        self.cutover, self.size = os.path.realpath(cutover), size
        self.place = tempfile.mkdtemp(prefix="fleet-")
        self.share, self.rollout, self.running = f"{self.place}/share", 0, {}
        os.mkdir(self.share)
        for version in "123":
            os.mkdir(f"{self.place}/{version}")
            with open(f"{self.place}/{version}/app", "w") as file:
                file.write(version)
            self.call("pack", f"{self.place}/{version}", "--product", "shop", "--version", version, "-o", self.archive(version))
        for number in range(size):
            os.mkdir(self.root(number))
            self.plug(number)
            self.configure(number, {"min_healthy": "0s", "baseline": "off"}, fleet)
        self.node(0, "fleet", "init")
        for number in range(size):
            self.node(number, "update", self.archive("1"), "--allow-unsigned")
            self.node(number, "fleet", "join")
            for version in "23":
                self.node(number, "stage", self.archive(version), "--allow-unsigned")
            self.configure(number, health, fleet)
        self.node(0, "fleet", "members", "--all")
        self.moves = Moves([self.root(number) for number in range(size)])

    def configure(self, number, health, fleet):
        check = f"! grep -qsf {self.place}/sick{number} {self.root(number)}/current/app"
        table = {"mode": "synchronous", "name": "shop", "directory": f"{self.place}/mount{number}/share",
                 "node": f"n{number}", **fleet}
        lines = [f'root = "{self.root(number)}"', "[policy]", 'jitter = "0s"', "[health]",
                 *[f"{key} = {json.dumps(value)}" for key, value in health.items()],
                 "[[health.check]]", 'name = "well"', f"exec = {{ command = ['/bin/sh', '-c', '{check}'] }}",
                 "[fleet]", "allow_unsigned = true", *[f'{key} = "{value}"' for key, value in table.items()]]
        with open(self.config(number), "w") as file:
            file.write("\n".join(lines) + "\n")

    def root(self, number):
        return f"{self.place}/n{number}"

    def config(self, number):
        return f"{self.place}/n{number}.toml"

    def archive(self, version):
        return f"{self.place}/shop-{version}.tar.zst"

    def plug(self, number):
        os.symlink(self.place, f"{self.place}/mount{number}")

    def unplug(self, number):
        os.unlink(f"{self.place}/mount{number}")

    def call(self, *words):
        done = subprocess.run([self.cutover, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"cutover {' '.join(words)}: status {done.returncode}: {done.stderr}")
        return done.stdout

    def node(self, number, *words):
        return self.call("--config", self.config(number), *words)

    def begin(self, number):
        with open(f"{self.root(number)}.log", "a") as log:
            self.running[number] = subprocess.Popen([self.cutover, "--config", self.config(number), "update"],
                                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def propose(self, version):
        self.rollout += 1
        self.node(0, "fleet", "propose", version)
        for number in range(self.size):
            self.begin(number)

    def fact(self, name):
        """A fact of the rollout under way: `plan`, `n2/switched`; None before it is there."""
        node, _, kind = name.rpartition("/")
        path = f"{self.share}/nodes/{node}/{self.rollout:06}.{kind}"
        if not node:
            # Decisions stand in a directory that has the digest of the proposal in its name.
            found = glob.glob(f"{self.share}/rollouts/{self.rollout:06}.????????????????")
            path = f"{found[0] if found else self.share}/{kind}"
        try:
            with open(path) as file:
                return json.loads(file.readline())
        except FileNotFoundError:
            return None

    def await_fact(self, name, pause=0.05):
        while not (fact := self.fact(name)):
            time.sleep(pause)
        return fact

    def active(self):
        return [os.path.basename(os.readlink(f"{self.root(number)}/current")) for number in range(self.size)]

    def finish(self):
        """Goes on, as a timer does, until nobody has anything left to do."""
        while True:
            for process in self.running.values():
                process.wait()
            self.running = {}
            left = [number for number in range(self.size) if not self.is_at_rest(number)]
            if not left:
                return
            for number in left:
                self.begin(number)

    def is_at_rest(self, number):
        with open(f"{self.root(number)}/.cutover/fleet.json") as file:
            is_over = json.load(file)["body"]["part"] is None
        return is_over and not os.path.exists(f"{self.root(number)}/.cutover/journal.json")

    def end(self):
        for process in self.running.values():
            process.kill()
        shutil.rmtree(self.place)


def seconds_of(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * percent // 100)]


def one_switch(fleet, version):
    """How many milliseconds after the instant each pointer moved, as seen and as told by its node; or why none has."""
    fleet.moves.seen.clear()
    fleet.propose(version)
    fleet.finish()
    plan, outcome = fleet.fact("plan"), fleet.fact("outcome")
    if not outcome or outcome["decision"] != "keep":
        return (outcome or fleet.fact("go") or plan)["why"]
    at = seconds_of(plan["at"])
    told = [fleet.fact(f"n{number}/switched")["late_ms"] for number in range(fleet.size)]
    return [(moment - at) * 1000 for moment, _ in fleet.moves.seen], told


def skew(cutover, sizes="10,50,200", rollouts="50"):
    print(f"kernel {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for size in map(int, sizes.split(",")):
        pace = next(pace for most, pace in PACE if size <= most)
        fleet = Fleet(cutover, size, {"min_healthy": "200ms", "interval": "100ms", "baseline": "off"},
                      {**FAST, **pace})
        late, told, spreads, failures = [], [], [], []
        began = time.monotonic()
        for rollout in range(int(rollouts)):
            moved = one_switch(fleet, "32"[rollout % 2] if not failures else ("3" if "2" in fleet.active() else "2"))
            if isinstance(moved, str):
                failures.append(moved)
                continue
            late += moved[0]
            told += moved[1]
            spreads.append(max(moved[0]) - min(moved[0]))
        print(f"{size} nodes, {len(spreads)} of {rollouts} rollouts kept, {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
        for name, values in [("after the instant, as seen", late), ("after the instant, as told", told),
                             ("last after first", spreads)]:
            if values:
                print(f"  {name:30} median {statistics.median(values):6.2f}  p99 {percentile(values, 99):6.2f}  "
                      f"most {max(values):6.2f} ms")
        for failure in failures:
            print(f"  not kept: {failure}")
        sys.stdout.flush()
        fleet.end()


def mixed(before, moves):
    """The stretches of time, in seconds, in which not all nodes had the same release."""
    active, since, stretches = dict(before), None, []
    for moment, number, release in moves:
        active[number] = release
        is_mixed = len(set(active.values())) > 1
        if is_mixed and since is None:
            since = moment
        elif not is_mixed and since is not None:
            stretches.append(moment - since)
            since = None
    return stretches


def bounds(cutover, size="5"):
    """B1 to B4 of docs/fleet.md, with the default times: no failure; a member dead at the instant; sick after it; cut off
    after it, heard or not."""
    fleet = Fleet(cutover, int(size), {"baseline": "off", "fail_threshold": 1}, {})
    for name, trouble in [("B1  no failure", calm), ("B2  a member is dead at the instant", dead),
                          ("B3  a member is sick after it", sick), ("B4  cut off before it was heard", unheard),
                          ("B4  cut off after it was heard", heard)]:
        wanted = "3" if "3" not in fleet.active() else "2"
        before = enumerate(fleet.active())
        fleet.moves.seen.clear()
        fleet.wanted = wanted
        fleet.propose(wanted)
        at = trouble(fleet)
        while not (fleet.fact("outcome") and is_over(fleet, wanted)):
            time.sleep(0.2)
        outcome, seen = fleet.fact("outcome"), sorted(fleet.moves.seen)
        restore(fleet)
        # A pointer moves there and, if at all, back.
        count, moves = {}, []
        for moment, number in seen:
            count[number] = count.get(number, 0) + 1
            moves.append((moment, number, wanted if count[number] % 2 else "old"))
        stretches = mixed(((number, "old") for number, _ in before), moves)
        print(f"{name}: {outcome['decision']} ({outcome['why']}); mixed for "
              f"{' and '.join(f'{one:.4f}' for one in stretches) or '0'} s; first moved at T {moves[0][0] - at:+.4f} s, "
              f"last at T {moves[-1][0] - at:+.4f} s"
              f"{' (to go back at T %+.3f s)' % (seconds_of(outcome['at']) - at) if outcome.get('at') else ''}", flush=True)
    fleet.end()


def is_over(fleet, wanted):
    if fleet.fact("outcome")["decision"] == "keep":
        return all(release == wanted for release in fleet.active())
    return all(release != wanted for release in fleet.active())


def instant(fleet):
    return seconds_of(fleet.await_fact("plan")["at"])


def calm(fleet):
    return instant(fleet)


def dead(fleet):
    at = instant(fleet)
    fleet.await_fact("go")
    fleet.running[1].kill()
    return at


def sick(fleet):
    with open(f"{fleet.place}/sick1", "w") as file:
        file.write(fleet.wanted)
    return instant(fleet)


def unheard(fleet):
    at = instant(fleet)
    fleet.await_fact("go")
    # It has read it, and sleeps.
    time.sleep(max(0, at - time.time() - 0.5))
    fleet.unplug(1)
    return at


def heard(fleet):
    at = instant(fleet)
    fleet.await_fact("n1/switched")
    fleet.unplug(1)
    return at


def restore(fleet):
    if os.path.exists(f"{fleet.place}/sick1"):
        os.unlink(f"{fleet.place}/sick1")
    if not os.path.islink(f"{fleet.place}/mount1"):
        fleet.plug(1)
    fleet.finish()
    for number in range(fleet.size):
        for version in "23":
            subprocess.run([fleet.cutover, "--config", fleet.config(number), "mark-good", version], capture_output=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] not in ("skew", "bounds"):
        sys.exit(__doc__)
    {"skew": skew, "bounds": bounds}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
