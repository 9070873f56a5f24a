"""An updater that is stopped (SIGSTOP) before each change of the disk, good and sick releases: whatever the change, the
node is settled within the bound that `config show` prints and half a minute, with nobody doing anything, and no reboot.

`tests/nodes/run still` runs all changes on eight nodes at once, most of whose time is waiting; it takes half an hour.
"""

import pathlib
import sys
import threading
import time
import traceback

from deadlines import QUICK, at_rest_within, bound
from lab import Failed, Lab
from node_app import NodeApp
from scenarios import stopped_or_ended

KINDS = ["ext4", "xfs", "btrfs"]
NODES = 8
# Points count from 1: before its first change an updater has not said yet who it is.
# No update has more changes.
POINTS_MAX = 160
GRACE_SECONDS = 30
# Whoever stands still with a lock for longer is ended by the next who wants it.
STANDS_STILL_SECONDS = 61


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def settles(app, point, is_sick):
    """Seconds until rest, or None when the update has fewer changes."""
    node, old = app.node, app.version()
    version = app.publish(**({"sick_after": 0} if is_sick else {}))
    node.call("cutover", "stage")
    within = bound(app)
    updater = node.spawn("env", f"CUTOVER_STOP_BEFORE={point}:stop", "cutover", "update", "--now")
    if not stopped_or_ended(node, updater):
        node.run("cutover", "mark-good", version)
        return None
    what = f"stopped before change {point}{' of a sick release' if is_sick else ''}"
    phase = app.status()["state"]
    seconds = at_rest_within(app, within + GRACE_SECONDS, ends_what_stages=False)
    if app.status()["state"] == "staging":
        # It stands still and clears away, when all is decided: whoever comes after a minute ends it.
        time.sleep(STANDS_STILL_SECONDS)
        node.call("cutover", "prune")
        check(app.status()["state"] != "staging", f"{what}: it stands still after somebody came")
    node.run("pkill", "-KILL", "-x", "cutover")
    updater.wait(20)
    app.serves(app.active())
    status = app.status()
    # Waiting: what is staged has its turn in the jitter still.
    check(status["state"] in ("idle", "staged", "waiting"), f"{what}: the node is {status['state']}")
    check(app.active() == old or app.active() == version and not is_sick, f"{what}: {app.active()} runs")
    is_banned = version in [bad["release"]["version"] for bad in status["bad"]]
    check(is_sick or not is_banned, f"{what}: it is banned: {status['bad']}")
    print(f"  {node.name} {node.kind:5} {what} ({phase}): at rest after {seconds:.0f} s of {within:.0f}", flush=True)
    node.run("cutover", "mark-good", version)
    return seconds


def run_on(app, first, results):
    try:
        app.node.boot()
        app.begin()
        app.node.write("/etc/cutover/app.toml.d/quick.toml", QUICK)
        app.publish()
        app.update(0)
        for is_sick in (False, True):
            for point in range(first, POINTS_MAX, NODES):
                seconds = settles(app, point, is_sick)
                if seconds is None:
                    break
                results.append(seconds)
    except BaseException as error:
        print(f"{app.node.name} FAIL: {error}", flush=True)
        if not isinstance(error, Failed):
            traceback.print_exc()
        print(app.node.run("journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic", "-u", "cutover*")[1], flush=True)
        results.append(None)


def main(image, name, cutover, program, *words):
    lab, results = Lab(image, name), []
    apps = [NodeApp(lab.node(f"n{number}", KINDS[number % len(KINDS)]), pathlib.Path(cutover), program)
            for number in range(1, NODES + 1)]
    began = time.monotonic()
    threads = [threading.Thread(target=run_on, args=(app, first, results)) for first, app in enumerate(apps, start=1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lab.end()
    is_good = None not in results and len(results) > NODES
    print(f"{'passed' if is_good else 'FAILED'}: {len(results)} points, the slowest at rest after "
          f"{max(filter(None, results), default=0):.0f} s, in {time.monotonic() - began:.0f} s", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
