"""A day of an SRE in a fleet: while a node waits for votes, or for its wave, somebody there looks, holds, goes back, bans,
commits, or types Ctrl-C. The command acts at once; what comes of the rollout stands in `EXPECTED`.
"""

import os
import time

from day import AT_ONCE_SECONDS, BACK, BAN, COMMANDS, CTRL_C, HOLD, KEEP, LOOK, Terminal
from lab import Failed

# Per phase and command: exit code of the command, what the node runs when the rollout has ended, what it remembers (h a
# hold, b a ban), and how the rollout ended.
EXPECTED = {
    "vote": {LOOK: (0, "new", "", "kept"), HOLD: (0, "old", "h", "cancelled"), BACK: (0, "before", "h", "cancelled"),
             BAN: (0, "old", "b", "cancelled"), KEEP: (1, "new", "", "kept"), CTRL_C: (1, "old", "", "cancelled")},
    "wave": {LOOK: (0, "new", "", "kept"), HOLD: (0, "old", "h", "kept"), BACK: (0, "before", "h", "kept"),
             BAN: (0, "old", "b", "kept"), KEEP: (1, "new", "", "kept"), CTRL_C: (1, "old", "", "kept")},
}
SAMPLE = [("vote", BACK), ("wave", HOLD)]


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def can_be_spoken_to(fleet):
    """while a member waits for votes, or for its wave, what people say on it acts at once, and asks nobody"""
    entries = [(phase, command) for phase in EXPECTED for command in COMMANDS]
    wrong, table = [], []
    # So that there is a way back everywhere.
    good = fleet.publish()
    fleet.roll_out(good, 0)
    fleet.all_serve(good)
    for phase, command in entries if os.environ.get("CUTOVER_NODES_ALL") else SAMPLE:
        found, took, said = one(fleet, phase, command)
        line = f"{phase}: `{command}` took {took:.2f} s: exit {found[0]}, {found[1]} runs {found[2]}, the rollout was {found[3]}"
        print("    " + line, flush=True)
        table.append(line)
        if found != EXPECTED[phase][command]:
            wrong.append(f"{line}, and not {EXPECTED[phase][command]}: {said[-400:]}")
        check(command in (BACK, CTRL_C) or took < AT_ONCE_SECONDS, f"{line}: too long")
    check(not wrong, "\n".join(wrong))
    return f"{len(table)} entries"


def one(fleet, phase, command):
    first, app, last = fleet.apps[0], fleet.apps[1], fleet.apps[-1]
    node, others = app.node, [one for one in fleet.apps if one is not app]
    if phase == "wave":
        # A ninth of them at once, so that it takes as long with many.
        at_once = max(1, len(others) // 9)
        fleet.configure("rolling", f'at_once = {at_once}\n' 'waves = [{ nodes = ["n1"] }, { percent = 100 }]')
        fleet.slow(first, fleet.longer + 3)
    old, before = app.version(), app.status()["previous"]["version"]
    new = fleet.publish()
    node.call("systemctl", "stop", "cutover@app.timer", "cutover@app.service")
    if phase == "vote":
        # Whose vote is waited for.
        last.node.call("systemctl", "stop", "cutover@app.timer", "cutover@app.service")
    fleet.propose(new)
    update = waiting(fleet, app, phase)
    began = time.monotonic()
    if command == CTRL_C:
        update.type(b"\x03")
        code, said = update.wait(60 + fleet.patience), update.said.decode(errors="replace")
    else:
        words = {BAN: ["mark-bad", new]}.get(command, [command])
        code, output, errors = node.run("cutover", *words)
        said = output + errors
    took = time.monotonic() - began
    if phase == "vote":
        last.node.call("systemctl", "start", "cutover@app.timer")
    if command != CTRL_C:
        update.wait(120 + fleet.patience)
        said += update.said.decode(errors="replace")
    if phase == "wave":
        fleet.eventually("the others have switched", 90, lambda: all(other.active() == new for other in others))
        app.at_rest(40 + fleet.patience)
    else:
        fleet.eventually(f"rollout {fleet.rollout} ends: {fleet.why()}", 90, fleet.outcome)
        app.at_rest(40 + fleet.patience)
    status = app.status()
    runs = {before: "before", old: "old", new: "new"}.get(app.active())
    is_banned = any(bad["release"]["version"] == new for bad in status["bad"])
    remembers = ("h" if status["hold"] else "") + ("b" if is_banned else "")
    # All as before: the node follows its fleet again.
    node.call("cutover", "unhold")
    node.run("cutover", "mark-good", new)
    node.run("cutover", "fleet", "resume")
    node.call("systemctl", "start", "cutover@app.timer")
    outcome = fleet.eventually(f"rollout {fleet.rollout} ends: {fleet.why()}", 120, fleet.outcome)
    if phase == "wave":
        fleet.slow(first, None)
        fleet.configure()
    fleet.all_serve(new if outcome == "kept" else old)
    return (code, runs, remembers, outcome), took, said


def waiting(fleet, app, phase):
    """An update by hand, on a terminal, that waits; begun again as long as there is nothing to take part in."""
    journal = app.node.path("/srv/app/.cutover/journal.json")
    end = time.monotonic() + 60 + fleet.patience
    while time.monotonic() < end:
        update = Terminal(app.node, "env", "INVOCATION_ID=x", "cutover", "update")
        while update.code() is None and time.monotonic() < end:
            is_there = journal.exists() and '"staged"' in journal.read_text()
            if is_there and (phase == "wave" or fleet.fact(f"{app.node.name}.vote")):
                return update
            time.sleep(0.1)
        said = update.said.decode(errors="replace")
        time.sleep(0.5)
    raise Failed(f"the update does not wait: {said[-600:]}")
