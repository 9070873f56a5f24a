"""What must hold on a real node, told as scenarios: each runs on ext4, xfs and btrfs, the file systems side by side.

A scenario's first line of documentation is the sentence that it proves. What fails is tried once more, on a new node.
"""

import os
import pathlib
import pty
import signal
import statistics
import sys
import threading
import time
import traceback

from day import DAY
from deadlines import DEADLINES, TIMERS
from lab import Failed, Lab, eventually
from load import Load
from node_app import UNIT, WORKER, NodeApp
from old_code import OLD_CODE
from rehearsals import REHEARSALS, measure_rehearsals, rehearsal_precedes_the_switch, rehearsal_refuses_lost_records
from truth import TRUTHS
from units import UNITS
from units_alone import ALONE

KINDS = ["ext4", "xfs", "btrfs"]
# How many changes of the disk a switch makes, at most; a run that ends before its stop point ends the search.
POINTS_MAX = 200


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def installs_by_timer(app):
    """a first release that is sick leaves nothing running; the timer fires, and the next is installed and committed"""
    bare = app.node.path("/etc/cutover/app.toml.d/bare.toml")
    app.node.write("/etc/cutover/app.toml.d/bare.toml", "data = []\n")
    app.publish(sick_after=0)
    app.update(1)
    check(not app.is_active("app.service"), "a release that is not installed runs")
    bare.unlink()
    version, before = app.publish(), len(app.history())
    app.node.write("/etc/systemd/system/cutover@app.timer.d/soon.conf",
                   "[Timer]\nOnCalendar=\nOnActiveSec=200ms\nRandomizedDelaySec=0\nAccuracySec=10ms\n")
    app.node.call("systemctl", "daemon-reload")
    app.node.call("systemctl", "start", "cutover@app.timer")
    eventually("the timer's update ends", 30, lambda: len(app.history()) > before)
    app.at_rest()
    app.serves(version)
    check(app.history()[-1]["outcome"] == "committed", f"the outcome is {app.history()[-1]}")
    # A unit that ends with "nothing newer" is no failure.
    app.node.call("systemctl", "start", "cutover@app.service")


def updates(app):
    """the unit commits a good release, and the old one was never gone for long"""
    old, version = app.version(), app.publish()
    app.node.call("systemctl", "start", "cutover@app.service")
    app.serves(version)
    last = app.history()[-1]
    check((last["from"], last["to"], last["outcome"]) == (old, version, "committed"), f"history says {last}")
    check(last["downtime_ms"] < 2000, f"it was away for {last['downtime_ms']} ms")


def rolls_back_sick(app):
    """the unit rolls a release back that answers 503, fails so that OnFailure= tells, and does not try it again"""
    old, version = app.version(), app.publish(sick_after=0)
    app.node.write("/etc/systemd/system/tell.service", "[Service]\nExecStart=/bin/touch /run/told\n")
    app.node.write("/etc/systemd/system/cutover@app.service.d/tell.conf", "[Unit]\nOnFailure=tell.service\n")
    app.node.call("systemctl", "daemon-reload")
    app.node.run("systemctl", "start", "cutover@app.service")
    app.serves(old)
    status = app.properties("cutover@app.service", "ExecMainStatus")["ExecMainStatus"]
    check(status == "10", f"the unit ended with {status}")
    eventually("OnFailure= fires", 5, lambda: app.node.run("test", "-e", "/run/told")[0] == 0)
    said = app.history()[-1]["reason"]
    check("503" in said and "web" in said, f"the message does not name check and answer: {said}")
    again = app.node.run("cutover", "update", "--now")[0]
    app.node.run("systemctl", "start", "cutover@app.service")
    check(again in (0, 12, 15, 77) and app.active() == old, f"a bad release was tried again: status {again}")
    check(version in app.node.call("cutover", "status", "--json"), "the status does not name the bad release")


def rolls_back_crashing(app):
    """a release that crashes at its start is rolled back, with its last words"""
    old = app.version()
    app.publish(crash=0)
    said = app.update(10)
    app.serves(old)
    check("crashes, as it should" in said, f"the last words of the release are missing: {said}")


def rolls_back_later(app):
    """a release that falls sick after it had answered well is rolled back"""
    old = app.version()
    app.publish(sick_after=0.5)
    app.update(10)
    app.serves(old)


def rolls_back_restarting(app):
    """a release that dies and is restarted by systemd is rolled back, although it is active at every look"""
    old = app.version()
    app.publish(crash=0.4)
    said = app.update(10)
    app.serves(old)
    check("restarted" in said or "no answer" in said or "fails" in said, f"no word of restarts: {said}")


def stops_what_hangs(app):
    """a release that does not stop is killed after its time, and the next one serves"""
    stubborn = app.publish(ignore_term=1)
    app.update(0)
    app.serves(stubborn)
    version = app.publish()
    app.update(0)
    app.serves(version)


def restarts_where_no_data_are(app):
    """without data services are restarted when the pointer has moved: also one that hangs, and back from a sick one"""
    app.node.write("/etc/cutover/app.toml.d/bare.toml", "data = []\n")
    # Nor is a release blamed for how often its unit was started before it.
    limit = "/etc/systemd/system/app.service.d/limit.conf"
    app.node.write(limit, "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n")
    app.node.call("systemctl", "daemon-reload")
    stubborn = app.publish(ignore_term=1)
    app.update(0)
    app.serves(stubborn)
    version = app.publish()
    app.update(0)
    app.serves(version)
    app.publish(sick_after=0.3)
    app.update(10)
    app.serves(version)
    app.publish(crash=0)
    app.update(10)
    app.serves(version)
    app.node.path("/etc/cutover/app.toml.d/bare.toml").unlink()
    app.node.path(limit).unlink()
    app.node.call("systemctl", "daemon-reload")


def brings_data_back(app):
    """data that a failed release migrated are as before, and the newer ones are kept aside"""
    old = app.version()
    check(app.get("/add?before") == "added", "the application takes no records")
    before = app.node.path("/srv/app/data/records").read_text()
    app.publish(schema=2, sick_after=0.4)
    app.update(10)
    app.serves(old)
    check(app.node.path("/srv/app/data/records").read_text() == before, "the data are not as before")
    check(app.node.path("/srv/app/data/schema").read_text() == "1", "the schema is not as before")
    aside = [path.read_text() for path in app.node.path("/srv/app/.cutover/aside").rglob("records")]
    check(any("(schema 2)" in text for text in aside), f"the newer data are gone: {aside}")


def refuses_data_that_others_have_mounted(app):
    """data that another service has mounted are refused before the stop; what only our own unit has mounted is not"""
    walls = "/etc/systemd/system/app.service.d/walls.conf"
    app.node.write(walls, "[Service]\nProtectSystem=full\nReadWritePaths=/srv/app/data\nBindPaths=/srv/app/data:/mnt\n")
    app.node.write("/etc/systemd/system/side.service",
                   "[Service]\nBindPaths=/srv/app/data:/mnt\nExecStart=/bin/sleep 1000000\n")
    app.node.call("systemctl", "daemon-reload")
    app.node.call("systemctl", "restart", "app.service")
    version = app.publish()
    app.update(0)
    app.serves(version)
    app.node.call("systemctl", "start", "side.service")
    app.publish()
    said = app.update(2)
    pid = app.properties("side.service", "MainPID")["MainPID"]
    check("/mnt" in said and pid in said, f"no word of the mount, or of process {pid}: {said}")
    app.serves(version)
    # A service that stops with ours is no hindrance.
    app.node.write("/etc/systemd/system/side.service.d/part.conf", "[Unit]\nPartOf=app.service\n")
    app.node.call("systemctl", "daemon-reload")
    version = app.publish()
    app.update(0)
    app.serves(version)
    check(app.is_active("side.service"), "what had stopped with the application is not up again")
    app.node.call("systemctl", "stop", "side.service")
    for path in [walls, "/etc/systemd/system/side.service", "/etc/systemd/system/side.service.d/part.conf"]:
        app.node.path(path).unlink()
    app.node.call("systemctl", "daemon-reload")
    app.node.call("systemctl", "restart", "app.service")


def moves_units_with_the_release(app):
    """a unit that a release ships comes with it, goes with it, and comes back with it"""
    worker = ("app-worker.service", WORKER)
    shipping = app.publish(units=[worker])
    app.update(0)
    app.serves(shipping)
    check(app.is_active("app-worker.service"), "the shipped unit does not run")
    check(app.node.run("systemctl", "is-enabled", "-q", "app-worker.service")[0] == 0, "it is not enabled")
    # A release without the unit, and with another, that fails: all must be as before.
    app.publish(units=[("app-other.service", WORKER)], sick_after=0.2)
    app.update(10)
    app.serves(shipping)
    check(app.is_active("app-worker.service"), "the unit did not come back")
    check(not app.node.path("/etc/systemd/system/app-other.service").is_symlink(), "a stale unit is left")
    check(app.properties("app-other.service", "LoadState")["LoadState"] == "not-found", "it is still loaded")
    version = app.publish()
    app.update(0)
    app.serves(version)
    check(not app.is_active("app-worker.service"), "the dropped unit still runs")
    check(app.properties("app-worker.service", "LoadState")["LoadState"] == "not-found", "it is still loaded")


def names_old_processes(app):
    """a process left behind by the old release fails the update, with its number and unit"""
    app.node.write("/etc/systemd/system/app.service.d/leave.conf", "[Service]\nKillMode=process\n")
    app.node.call("systemctl", "daemon-reload")
    leaving = app.publish(leave_behind=1)
    app.update(0)
    app.serves(leaving)
    app.publish()
    said = app.update(10)
    check("app.service" in said and f"/releases/{leaving}/" in said, f"no word of the old process: {said}")
    app.serves(leaving)
    app.node.path("/etc/systemd/system/app.service.d/leave.conf").unlink()
    app.node.call("systemctl", "daemon-reload")
    app.node.call("systemctl", "restart", "app.service")
    version = app.publish()
    app.update(0)
    app.serves(version)


def needs_no_terminal(app):
    """a lost connection (a closed terminal, SIGHUP to all) in the middle ends nothing"""
    old, version = app.version(), app.publish(start_delay=0.5)
    child, terminal = pty.fork()
    if child == 0:
        command = app.node.enter("setsid", "--ctty", "sh", "-c", "cutover update --now; true")
        os.execvp(command[0], command)
    eventually("the new release is started", 20, lambda: app.active() == version)
    units = app.node.call("systemctl", "list-units", "--plain", "--no-legend", "cutover-app-update-*")
    check("running" in units, f"no unit does the work: {units}")
    os.close(terminal)
    for pid in app.node.call("sh", "-c", "pgrep -f 'cutover update' || true").split():
        app.node.run("kill", "-HUP", pid)
    os.kill(child, signal.SIGHUP)
    app.at_rest()
    app.serves(version)
    check(app.history()[-1]["outcome"] == "committed", f"{old} -> {version} ended {app.history()[-1]}")


def ends_without_its_updater(app):
    """an updater that is killed or stopped in the middle is replaced at once, and its update ends with a commit"""
    for end in [["systemctl", "kill", "--signal=SIGKILL", "cutover@app.service"],
                ["systemctl", "stop", "cutover@app.service"]]:
        version = app.publish(start_delay=0.3)
        app.node.call("systemctl", "start", "--no-block", "cutover@app.service")
        eventually("the new release is started", 20, lambda: app.active() == version)
        app.node.call(*end)
        app.at_rest()
        app.serves(version)
        check(app.history()[-1]["outcome"] == "committed", f"{end}: it ended {app.history()[-1]}")
    # Run by nobody's unit, it leaves its timer, whose service does the same when its time has come.
    version = app.publish()
    updater = app.node.spawn("cutover", "update", "--now")
    eventually("the trial begins", 20, lambda: app.active() == version and app.version() == version)
    app.node.call("pkill", "-KILL", "-x", "cutover")
    updater.wait(20)
    timer = app.properties("cutover-deadline-app.timer", "ActiveState")
    check(timer["ActiveState"] == "active", f"no timer is armed: {timer}")
    app.node.call("systemctl", "start", "cutover-deadline-app.service")
    app.at_rest()
    app.serves(version)


def refuses_no_connection(app):
    """at 200 requests a second a socket-activated release is replaced and rolled back without one failure"""
    app.listen_by_socket()
    with Load(app.node, 8080, per_second=200) as load:
        time.sleep(0.5)
        version = app.publish()
        app.update(0)
        app.publish(sick_after=0)
        app.update(10)
        time.sleep(0.5)
    check(load.failed == 0, f"{load.failed} of {load.asked} requests failed: {load.failures}")
    app.serves(version)
    app.listen_by_itself()
    return f"{load.asked} requests, the slowest took {load.slowest * 1000:.0f} ms"


def updates_itself(app):
    """cutover is an application of its own: it replaces itself, watches the new one, and goes back from a broken one"""
    node = app.node
    node.write("/etc/cutover/self.toml", 'root = "/opt/cutover"\n[health]\nmin_healthy = "200ms"\n[[health.check]]\n'
               'name = "runs"\nexec = { command = ["bin/cutover", "--version"] }\ninterval = "100ms"\n')
    node.path("/opt/cutover").mkdir(mode=0o755, exist_ok=True)
    program = node.path("/usr/bin/cutover").read_bytes()
    for version, content in [("1", program), ("2", program), ("3", b"#!/bin/sh\nexit 1\n")]:
        node.write(f"/srv/self/{version}/bin/cutover", "")
        node.path(f"/srv/self/{version}/bin/cutover").write_bytes(content)
        node.path(f"/srv/self/{version}/bin/cutover").chmod(0o755)
        node.call("tar", "-C", f"/srv/self/{version}", "-cf", f"/srv/self/self-{version}.tar", "bin")
        command = "/usr/bin/cutover" if version == "1" else "/opt/cutover/current/bin/cutover"
        status = node.run(command, "--app", "self", "update", "--allow-unsigned", f"/srv/self/self-{version}.tar")
        check(status[0] == (10 if version == "3" else 0), f"version {version} ended with {status}")
    check(node.path("/opt/cutover/current").readlink().name == "2", "the broken cutover stays")
    node.call("/opt/cutover/current/bin/cutover", "--app", "self", "status")
    node.path("/etc/cutover/self.toml").unlink()


def runs_hooks(app):
    """hooks of the admin and of the release run with what they need to know, and "not now" changes nothing"""
    old = app.version()
    hook = ("#!/bin/sh\necho $CUTOVER_PHASE $CUTOVER_APP $CUTOVER_FROM_VERSION $CUTOVER_TO_VERSION "
            "$(basename $PWD) >>/run/hooks\n")
    app.node.write("/etc/cutover/app.hooks/pre-switch.d/10-wait",
                   "#!/bin/sh\ntest -e /run/ready || { echo wait for it; exit 75; }\n", 0o755)
    app.node.write("/etc/cutover/app.hooks/committed.d/10-note", hook, 0o755)
    version = app.publish(files=[(".cutover/hooks/post-switch", hook.encode())])
    said = app.update(15)
    check("wait for it" in said, f"the hook's words are missing: {said}")
    app.serves(old)
    app.node.call("touch", "/run/ready")
    app.update(0)
    app.serves(version)
    notes = app.node.call("cat", "/run/hooks").splitlines()
    wanted = [f"post-switch app {old} {version} {version}", f"committed app {old} {version} {version}"]
    check(notes == wanted, f"hooks noted {notes} instead of {wanted}")
    for path in ["pre-switch.d/10-wait", "committed.d/10-note"]:
        app.node.path(f"/etc/cutover/app.hooks/{path}").unlink()


def keeps_trees_in_use(app):
    """a tree that a process runs from is not pruned, and goes when the process has ended"""
    app.node.write("/etc/cutover/app.toml.d/keep.toml", "[store]\nkeep = 1\n")
    busy = app.version()
    user = app.node.spawn("sh", "-c", f"cd /srv/app/releases/{busy} && sleep 600")
    for _ in range(2):
        app.publish()
        app.update(0)
    app.node.call("cutover", "prune")
    check(app.node.path(f"/srv/app/releases/{busy}").is_dir(), f"release {busy} was pruned under a process")
    user.kill()
    app.node.run("pkill", "-x", "sleep")
    eventually("the tree goes", 10, lambda: app.node.call("cutover", "prune") is not None
               and not app.node.path(f"/srv/app/releases/{busy}").is_dir())
    app.node.path("/etc/cutover/app.toml.d/keep.toml").unlink()


def has_sound_units(app):
    """systemd finds nothing wrong with our units, and the updater's exposure is what docs/systemd.md says"""
    for unit in ["cutover@app.service", "cutover@app.timer", "cutover-recover@app.service",
                 "cutover-boot-check@app.service"]:
        _, output, errors = app.node.run("systemd-analyze", "verify", "--man=no", unit)
        check(not (output + errors).strip(), f"{unit}: {output}{errors}")
    rated = app.node.call("systemd-analyze", "security", "--threshold=40", "--no-pager", "cutover@app.service")
    app.node.call("systemctl", "start", "cutover-boot-check@app.service")
    return rated.strip().splitlines()[-1].strip("→ ")


def leaves_what_takes_the_node_down(app):
    """a release under which the node goes down again and again is left before it starts once more"""
    node, journal = app.node, app.node.path("/srv/app/.cutover/journal.json")
    node.write("/etc/cutover/app.toml.d/long.toml", '[health]\nmin_healthy = "60s"\ndeadline = "2min"\n')
    old, version = app.version(), app.publish()
    node.spawn("cutover", "update", "--now")
    for resumes in range(3):
        eventually(f"trial {resumes} is under way", 30, lambda: journal.exists()
                   and f'"resumes":{resumes}' in journal.read_text().replace(" ", "") and app.version() == version)
        node.crash()
        node.boot()
    check(app.active() == old, f"{app.active()} was started once more")
    node.path("/etc/cutover/app.toml.d/long.toml").unlink()
    app.serves(old)
    app.at_rest(60)
    check(app.history()[-1]["outcome"] == "rolled_back", f"it ended {app.history()[-1]}")


def survives_crashes(app):
    """a node that dies at any point of a switch serves one whole release after its boot, with data that fit it"""
    node, stops = app.node, []
    # Each file system takes its share of every second point; CUTOVER_NODES_ALL=1: of all.
    share = len(KINDS) if os.environ.get("CUTOVER_NODES_ALL") else 2 * len(KINDS)
    first, step = share // len(KINDS) * KINDS.index(node.kind), share
    for point in range(first, POINTS_MAX, step):
        # Good and sick ones in turn: the way back is interrupted, too.
        is_sick = (point // step) % 2 == 1
        old = app.version()
        version = app.publish(**({"schema": 2, "sick_after": 0.2} if is_sick else {}))
        app.node.call("cutover", "stage")
        updater = node.spawn("env", f"CUTOVER_STOP_BEFORE={point}:stop", "cutover", "update", "--now")
        if not stopped_or_ended(node, updater):
            if stops and stops[-1] > 2 * step and not is_sick:
                break
            continue
        stops.append(point)
        node.crash()
        node.start()
        node.await_boot()
        after = app.active()
        check(after in (old, version), f"before change {point}: the pointer names {after}")
        tree = {path.name for path in node.path(f"/srv/app/releases/{after}").iterdir()}
        check({"bin", "etc", "VERSION"} <= tree, f"before change {point}: the tree of {after} has only {tree}")
        times = app.properties("app.service", "ExecMainStartTimestampMonotonic")
        recovered = app.properties("cutover-recover@app.service", "ExecMainExitTimestampMonotonic", "Result")
        check(recovered["Result"] == "success", f"before change {point}: recovery at boot: {recovered}")
        check(int(recovered["ExecMainExitTimestampMonotonic"]) < int(times["ExecMainStartTimestampMonotonic"]) or
              times["ExecMainStartTimestampMonotonic"] == "0",
              f"before change {point}: the application started before the recovery had ended")
        status, _, errors = node.run("cutover", "recover", timeout=60)
        # 1: nothing had changed yet. 11: the timer's own recovery is at it.
        check(status in (0, 1, 10, 11, 15), f"before change {point}: recover ended with {status}: {errors}")
        app.at_rest()
        ended = app.active()
        check(not is_sick or ended == old, f"before change {point}: the sick release stays")
        app.serves(ended)
        schema = node.path("/srv/app/data/schema").read_text()
        check(schema == "1", f"before change {point}: release {ended} has data of schema {schema}")
    check(len(stops) >= 8, f"only {len(stops)} points were tried")
    return f"{len(stops)} points"


def stopped_or_ended(node, updater):
    """Whether the updater stands still at its stop point; False when it has ended instead."""
    while updater.poll() is None:
        states = node.run("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null")[1]
        if any(line.split(" ")[1:3] == ["(cutover)", "T"] for line in states.splitlines()):
            return True
        time.sleep(0.05)
    return False


SCENARIOS = [installs_by_timer, updates, rolls_back_sick, rolls_back_crashing, rolls_back_later,
             rolls_back_restarting, stops_what_hangs, restarts_where_no_data_are, brings_data_back,
             refuses_data_that_others_have_mounted, moves_units_with_the_release,
             names_old_processes, needs_no_terminal, ends_without_its_updater, refuses_no_connection,
             updates_itself, runs_hooks, keeps_trees_in_use, has_sound_units,
             *UNITS, *ALONE, *OLD_CODE, *TRUTHS, *REHEARSALS, *DAY, *DEADLINES, *TIMERS, leaves_what_takes_the_node_down,
             survives_crashes]
# What depends on how trees, pointer and data are kept. The others run on whichever node comes first.
ON_EACH_KIND = {installs_by_timer, updates, rolls_back_sick, brings_data_back, ends_without_its_updater, keeps_trees_in_use,
                *OLD_CODE, rehearsal_refuses_lost_records, rehearsal_precedes_the_switch,
                *DEADLINES, survives_crashes}


class Work:
    """the scenarios of several nodes: some once on each kind of node, the rest once, in the order of the list"""

    def __init__(self, scenarios, kinds, is_all_for_each):
        self.begin = [one for one in scenarios if one is installs_by_timer]
        scenarios = [one for one in scenarios if one not in self.begin]
        each = [one for one in scenarios if is_all_for_each or one in ON_EACH_KIND]
        self.each = {kind: each.copy() for kind in kinds}
        self.once = [one for one in scenarios if one not in each]
        self.lock = threading.Lock()

    def of_one_node(self, kind):
        yield from self.begin
        while True:
            with self.lock:
                queue = self.each[kind] or self.once
                if not queue:
                    break
                scenario = queue.pop(0)
            yield scenario


def measure_downtime(app):
    """how long the service is away, in a switch, a rollback, and a plain restart"""
    runs = 20
    app.node.write("/etc/cutover/app.toml.d/bare.toml", "[health]\nmin_healthy = \"0s\"\n")
    app.publish()
    app.update(0)
    away = {"restart": [], "switch": [], "rollback": []}
    for _ in range(runs):
        with Load(app.node, 8080, per_second=500) as load:
            time.sleep(0.1)
            app.node.call("systemctl", "restart", "app.service")
            time.sleep(0.1)
        away["restart"].append(load.away)
        app.publish()
        app.node.call("cutover", "stage")
        for name, command in [("switch", ["cutover", "update", "--now"]),
                              ("rollback", ["cutover", "rollback", "--no-hold"])]:
            with Load(app.node, 8080, per_second=500) as load:
                time.sleep(0.1)
                app.node.call(*command)
                time.sleep(0.1)
            away[name].append(load.away)
    return ", ".join(f"{name} {statistics.median(times) * 1000:.0f} ms (worst {max(times) * 1000:.0f})"
                     for name, times in away.items())


def run_all(lab, number, kind, make, work, results):
    """All scenarios of one kind of node. One that fails is tried once more on another node: these machines share two
    processors, and a scenario may be late; what fails twice has failed."""
    app, failed, count = None, [], 0
    for scenario in work.of_one_node(kind):
        for attempt in [1, 2]:
            try:
                if app is None:
                    count += 1
                    app = make(lab.node(f"n{number}-{count}", kind))
                    app.node.boot()
                    app.begin()
                    if scenario is not installs_by_timer:
                        installs_by_timer(app)
                began = time.monotonic()
                note = scenario(app)
                seconds = time.monotonic() - began
                note = f" ({note})" if note else ""
                late = " [AT THE SECOND ATTEMPT]" if attempt == 2 else ""
                print(f"{kind:6} ok   {seconds:5.1f} s  {scenario.__doc__}{note}{late}", flush=True)
                break
            except BaseException as error:
                where = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
                print(f"{kind:6} FAIL {' > '.join(where)}: {error}", flush=True)
                if not isinstance(error, Failed):
                    traceback.print_exc()
                if app is not None:
                    print_journal(app.node)
                    lab.drop(app.node)
                    app = None
        else:
            failed.append(f"{kind}: {scenario.__name__}")
    results[kind] = failed


def print_journal(node):
    try:
        print(node.run("journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic", "-u", "cutover*", "-u", "app*", timeout=20)[1], flush=True)
    except Exception as error:  # the failure itself is told already
        print(f"(no journal: {error})", flush=True)


def main(image, name, cutover, program, *words):
    lab = Lab(image, name)
    kinds = [kind for kind in KINDS if f"--{kind}" in words] or KINDS
    names = [word for word in words if not word.startswith("--")]
    if "--downtime" in words:
        scenarios = [installs_by_timer, measure_downtime]
    elif "--rehearsals" in words:
        scenarios = [installs_by_timer, measure_rehearsals]
    else:
        scenarios = [one for one in SCENARIOS
                     if not names or one is installs_by_timer or any(name in one.__name__ for name in names)]
    is_measured = "--downtime" in words or "--rehearsals" in words
    results = {}
    work = Work(scenarios, kinds, is_measured or bool(names) or "--everywhere" in words)
    began = time.monotonic()
    threads = [threading.Thread(target=run_all, args=(
        lab, number, kind, lambda node: NodeApp(node, pathlib.Path(cutover), program), work, results))
        for number, kind in enumerate(kinds, 1)]
    for thread in threads:
        thread.start()
        if is_measured:
            thread.join()
    for thread in threads:
        thread.join()
    lab.end()
    # A thread that died has said nothing.
    is_good = all(results.get(kind) == [] for kind in kinds)
    print(f"{'passed' if is_good else 'FAILED'}: {len(scenarios)} scenarios on {', '.join(kinds)} "
          f"in {time.monotonic() - began:.0f} s", flush=True)
    failed = [name for kind in kinds for name in results.get(kind, [f"{kind}: all"])]
    # So that CI can name them at its end.
    pathlib.Path(program).with_name("failed").write_text("".join(f"  {name}\n" for name in failed))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
