"""Updates whose program is killed, stands still, or loses its power: each ends by itself, within its bound."""

import json
import os
import time

from day import Terminal
from lab import Failed, eventually

# The moments at which the updater stands still, each in another phase.
MOMENTS = ["pre-switch", "post-switch", "healthy", "pre-rollback", "committed"]
# One on some kinds of nodes; all of them, on each, with CUTOVER_NODES_ALL=1.
SAMPLE = {"ext4": ["healthy"], "xfs": [], "btrfs": ["post-switch"]}
QUICK = '[hooks]\ntimeout = "1s"\n[health]\nmin_healthy = "800ms"\ndeadline = "3s"\n'
STANDS_STILL = "#!/bin/sh\n[ -e /srv/stand-still ] || exit 0\nrm /srv/stand-still\nkill -STOP $PPID\n"


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def at_rest_within(app, seconds, ends_what_stages=True):
    began = time.monotonic()
    app.at_rest(seconds, ends_what_stages)
    return time.monotonic() - began


def bound(app):
    """What `config show` says that an update may take, in seconds; a program that does not say it gets a minute and a half."""
    shown = json.loads(app.node.call("cutover", "config", "show", "--json"))
    return shown.get("bounds_ms", {}).get("whole", 90_000) / 1000


def ends_what_stands_still(app):
    """an updater that stands still in any phase is ended, and its update finished, within the bound that is printed"""
    node, took = app.node, []
    node.write("/etc/cutover/app.toml.d/quick.toml", QUICK)
    for moment in MOMENTS if os.environ.get("CUTOVER_NODES_ALL") else SAMPLE[node.kind]:
        hook = f"/etc/cutover/app.hooks/{moment}.d/10-stands-still"
        node.write(hook, STANDS_STILL, 0o755)
        within = bound(app)
        old = app.version()
        version = app.publish(**({"sick_after": 0} if moment == "pre-rollback" else {}))
        node.write("/srv/stand-still", "")
        updater = node.spawn("cutover", "update", "--now")
        eventually(f"the updater stands still in {moment}", 30, lambda: not node.path("/srv/stand-still").exists())
        seconds = at_rest_within(app, within + 30)
        updater.wait(20)
        app.serves(app.active())
        # Pruning comes last, counts as staging, and may begin only now.
        eventually(f"after {moment} the node is at rest", 20,
                   lambda: app.status()["state"] in ["idle", "staged", "waiting"])
        status = app.status()
        wanted = [version] if moment == "committed" else [old] if moment == "pre-rollback" else [old, version]
        check(app.active() in wanted, f"after {moment} {app.active()} runs")
        is_banned = version in [bad["release"]["version"] for bad in status["bad"]]
        check(is_banned == (moment == "pre-rollback"), f"after {moment} banned are {status['bad']}")
        timer = app.properties("cutover-deadline-app.timer", "ActiveState")
        check(timer["ActiveState"] == "inactive", f"after {moment} the timer is {timer}")
        took.append(f"{moment} {seconds:.0f} s of {within:.0f}")
        node.path(hook).unlink()
        node.run("cutover", "mark-good", version)
    node.path("/etc/cutover/app.toml.d/quick.toml").unlink()
    return ", ".join(took)


def recovers_although_killed(app):
    """a recovery that is killed is begun again by the timer, before and after a reboot"""
    node = app.node
    node.write("/etc/cutover/app.toml.d/slow.toml", '[health]\nmin_healthy = "8s"\ndeadline = "60s"\n')
    version = app.publish()
    node.spawn("cutover", "update", "--now")
    eventually("the trial begins", 20, lambda: app.active() == version and app.version() == version)
    node.crash()
    node.boot()
    journal = node.path("/srv/app/.cutover/journal.json")
    eventually("the recovery watches", 30, lambda: node.run("pgrep", "-f", "cutover --app app recover$")[0] == 0)
    node.call("pkill", "-KILL", "-x", "cutover")
    check(journal.exists(), "the update has ended already")
    timer = app.properties("cutover-deadline-app.timer", "ActiveState")
    check(timer["ActiveState"] == "active", f"nothing is armed after the boot: {timer}")
    app.at_rest(60)
    app.serves(version)
    check(app.history()[-1]["outcome"] == "committed", f"it ended {app.history()[-1]}")
    node.path("/etc/cutover/app.toml.d/slow.toml").unlink()


# Who is at work when the node goes down, and in which moment.
REBOOTS = [("by hand", "trial"), ("unit", "trial"), ("terminal", "trial"), ("recovery", "trial"), ("unit", "post-switch"),
           ("by hand", "pre-switch"), ("unit", "pre-rollback")]


def bans_nothing_for_a_reboot(app):
    """a clean reboot speaks against nobody: the node goes down at once, and the update goes on after it"""
    node, took = app.node, []
    node.write("/etc/cutover/app.toml.d/slow.toml",
               '[health]\nmin_healthy = "6s"\ndeadline = "60s"\n[hooks]\ntimeout = "60s"\n')
    # So that the updater sees for a while how everything is stopped.
    slow_stop = "/etc/systemd/system/app.service.d/slow-stop.conf"
    node.write(slow_stop, "[Service]\nTimeoutStopSec=3s\n")
    node.call("systemctl", "daemon-reload")
    for who, moment in REBOOTS:
        hook = f"/etc/cutover/app.hooks/{moment}.d/10-waits"
        if moment != "trial":
            node.write(hook, "#!/bin/sh\n[ -e /srv/once ] || exit 0\nrm /srv/once\nsleep 600\n", 0o755)
            node.write("/srv/once", "")
        old, version = app.version(), app.publish(ignore_term=1, **({"sick_after": 0} if moment == "pre-rollback" else {}))
        is_there = lambda: (app.active() == version and app.version() == version if moment == "trial"
                            else not node.path("/srv/once").exists())
        begin_update(app, who)
        eventually(f"{moment} is reached", 40, is_there)
        if who == "recovery":
            node.call("pkill", "-KILL", "-x", "cutover")
            node.call("systemctl", "start", "cutover-deadline-app.service")
            eventually("the recovery watches", 30, lambda: node.run("pgrep", "-f", "cutover --app app recover$")[0] == 0)
        took.append(f"{who}, {moment}: down after {node.reboot():.1f} s")
        app.at_rest(120)
        last = {"trial": version, "post-switch": version}.get(moment, old)
        app.serves(last)
        banned = [bad["release"]["version"] for bad in app.status()["bad"]]
        check((version in banned) == (moment == "pre-rollback"), f"{who}, {moment}: banned are {banned}")
        if moment != "trial":
            node.path(hook).unlink()
        node.run("cutover", "mark-good", version)
    node.path("/etc/cutover/app.toml.d/slow.toml").unlink()
    node.path(slow_stop).unlink()
    return "; ".join(took)


def begin_update(app, who):
    """Begins an update in a unit, by hand in no unit, or by hand on a terminal (in a transient unit)."""
    if who == "unit":
        app.node.call("systemctl", "start", "--no-block", "cutover@app.service")
    elif who == "terminal":
        Terminal(app.node, "cutover", "update", "--now")
    else:
        app.node.spawn("cutover", "update", "--now")


def leaves_a_rollback_alone(app):
    """going back has a time of its own: a recovery, past the deadline of the trial, leaves it alone"""
    node = app.node
    # Longer than what came after the deadline of the trial in a program whose rollbacks had no time of their own: minutes.
    takes, later = (110, 95) if os.environ.get("CUTOVER_NODES_ALL") else (12, 9)
    node.write("/etc/cutover/app.toml.d/quick.toml", QUICK.replace('"1s"', '"200s"'))
    hook = "/etc/cutover/app.hooks/pre-rollback.d/10-slow"
    node.write(hook, f"#!/bin/sh\necho begun >>/srv/began\nsleep {takes}\n", 0o755)
    old = app.version()
    app.publish(sick_after=0)
    updater = node.spawn("cutover", "update", "--now")
    eventually("going back begins", 30, lambda: node.path("/srv/began").exists())
    time.sleep(later)
    status = node.run("cutover", "recover")[0]
    check(status == 11, f"recover ended with {status}")
    check(updater.wait(60) == 10, f"the updater ended with {updater.returncode}")
    check(node.path("/srv/began").read_text() == "begun\n", "the hook ran twice")
    app.serves(old)
    node.path(hook).unlink()
    node.path("/srv/began").unlink()
    node.path("/etc/cutover/app.toml.d/quick.toml").unlink()


def comes_again_for_who_died_late(app):
    """an updater that is killed in a hook long after the deadline of a trial would have been is missed all the same"""
    node = app.node
    node.write("/etc/cutover/app.toml.d/late.toml",
               '[hooks]\ntimeout = "3min"\n[health]\nmin_healthy = "800ms"\ndeadline = "3s"\n')
    hook = "/etc/cutover/app.hooks/post-switch.d/10-slow"
    node.write(hook, "#!/bin/sh\n[ -e /srv/once ] || exit 0\nrm /srv/once\nsleep 170\n", 0o755)
    node.write("/srv/once", "")
    within, old, version = bound(app), app.version(), app.publish()
    node.spawn("cutover", "update", "--now")
    eventually("the hook runs", 30, lambda: not node.path("/srv/once").exists())
    time.sleep(100)
    node.call("pkill", "-KILL", "-x", "cutover")
    seconds = at_rest_within(app, within + 30)
    check(app.active() in [old, version], f"{app.active()} runs")
    app.serves(app.active())
    node.path(hook).unlink()
    node.path("/etc/cutover/app.toml.d/late.toml").unlink()
    return f"{seconds:.0f} s of {within:.0f}"


def comes_again_for_a_recovery_that_dies(app):
    """a recovery that the timer has begun, and that is killed while it goes back, is begun again"""
    node, began, calm = app.node, app.node.path("/srv/began"), app.node.path("/srv/calm")
    node.write("/etc/cutover/app.toml.d/quick.toml", QUICK.replace('"1s"', '"60s"'))
    hook = "/etc/cutover/app.hooks/pre-rollback.d/10-slow"
    node.write(hook, "#!/bin/sh\n[ -e /srv/calm ] && exit 0\necho begun >>/srv/began\nsleep 50\n", 0o755)
    within, old = bound(app), app.version()
    app.publish(sick_after=0)
    node.spawn("cutover", "update", "--now")
    for count in [1, 2]:
        eventually(f"going back begins for time {count}", within + 30,
                   lambda: began.exists() and began.read_text().count("begun") == count)
        node.call("pkill", "-KILL", "-x", "cutover")
    calm.touch()
    seconds = at_rest_within(app, within + 30)
    app.serves(old)
    for path in [began, calm, node.path(hook), node.path("/etc/cutover/app.toml.d/quick.toml")]:
        path.unlink()
    return f"{seconds:.0f} s of {within:.0f}"


def leaves_what_takes_the_node_down_early(app):
    """a release under which the node goes down right after its recovery at boot, again and again, is given up"""
    node, recovered = app.node, app.node.path("/srv/recovered")
    node.write("/etc/cutover/app.toml.d/long.toml", '[health]\nmin_healthy = "60s"\ndeadline = "2min"\n')
    old, version = app.version(), app.publish()
    updater = node.spawn("cutover", "update", "--now")
    eventually("the trial begins", 30, lambda: app.active() == version and app.version() == version)
    early = "/etc/systemd/system/cutover-recover@app.service.d/early.conf"
    node.write(early, "[Service]\nExecStartPost=touch /srv/recovered\nExecStartPost=sleep 600\nTimeoutStartSec=infinity\n")
    ran = []
    for _ in range(3):
        node.crash()
        node.start()
        eventually("the recovery at boot is through", 60, recovered.exists)
        ran.append(app.active())
        recovered.unlink()
    updater.wait(20)
    node.crash()
    node.path(early).unlink()
    node.boot()
    check(ran == [version, version, old], f"at its boots it ran {ran}, and not {version}, {version}, {old}")
    app.at_rest(60)
    app.serves(old)
    check(version in [bad["release"]["version"] for bad in app.status()["bad"]], "it is not banned")
    node.path("/etc/cutover/app.toml.d/long.toml").unlink()


def takes_its_timer_down(app):
    """a timer that is left of an update that has ended takes itself down"""
    app.node.call("systemctl", "start", "cutover-deadline-app.timer")
    eventually("the timer is gone", 60, lambda: not app.is_active("cutover-deadline-app.timer"))


def names_the_boot_alike(app):
    """a boot has one name, in the walls of the unit and outside: deadlines go by the boot clock"""
    node = app.node
    node.write("/etc/cutover/app.toml.d/slow.toml", '[health]\nmin_healthy = "60s"\ndeadline = "2min"\n')
    version = app.publish()
    node.call("systemctl", "start", "--no-block", "cutover@app.service")
    journal = node.path("/srv/app/.cutover/journal.json")
    eventually("the trial begins", 30, lambda: journal.exists() and '"trial"' in journal.read_text())
    boot = node.call("cat", "/proc/sys/kernel/random/boot_id").strip()
    record = json.loads(journal.read_text())["body"]
    node.call("cutover", "commit")
    app.serves(version)
    check((record["boot_id"], record["deadline"]["boot_id"]) == (boot, boot), f"{record} is not of boot {boot}")
    node.path("/etc/cutover/app.toml.d/slow.toml").unlink()


def arms_the_program_that_is_there(app):
    """the program is upgraded while a release is staged: what the dead man's switch runs is there, and ends the update"""
    node = app.node
    node.write("/etc/cutover/app.toml.d/slow.toml", '[health]\nmin_healthy = "8s"\ndeadline = "20s"\n')
    hook = "/etc/cutover/app.hooks/pre-stage.d/10-upgrade"
    node.write(hook, "#!/bin/sh\ncp /usr/bin/cutover /usr/bin/cutover.new && mv /usr/bin/cutover.new /usr/bin/cutover\n",
               0o755)
    version = app.publish()
    node.spawn("cutover", "update", "--now")
    eventually("the trial begins", 30, lambda: app.active() == version and app.version() == version)
    service = app.properties("cutover-deadline-app.service", "ExecStart")["ExecStart"]
    check("/usr/bin/cutover" in service and "deleted" not in service, f"the timer would run {service}")
    node.call("pkill", "-KILL", "-x", "cutover")
    app.at_rest(bound(app) + 30)
    app.serves(app.active())
    node.path(hook).unlink()
    node.path("/etc/cutover/app.toml.d/slow.toml").unlink()


DEADLINES = [ends_what_stands_still, recovers_although_killed, leaves_a_rollback_alone]
# Nodes of systemd-nspawn do not always go down when they should: not in every run.
if os.environ.get("CUTOVER_NODES_ALL"):
    DEADLINES.insert(2, bans_nothing_for_a_reboot)
# What has nothing to do with the file system.
TIMERS = [takes_its_timer_down, names_the_boot_alike, arms_the_program_that_is_there, leaves_what_takes_the_node_down_early]
# It is slow: the time in which nothing may happen goes by.
if os.environ.get("CUTOVER_NODES_ALL"):
    TIMERS += [comes_again_for_who_died_late, comes_again_for_a_recovery_that_dies]
