"""A day of an SRE: in each phase of an update somebody looks, holds, goes back, bans, commits, or types Ctrl-C.

Each entry begins an update, has it stand in one phase, says one thing to it, and lets it go on. What must come of it
stands in `EXPECTED`; how long the command took is printed. All of it with CUTOVER_NODES_ALL=1, else a sample.
"""

import contextlib
import os
import pty
import time

from lab import Failed, eventually

# How long what acts at once may take on two busy cores.
AT_ONCE_SECONDS = 5
SETTINGS = '[hooks]\ntimeout = "60s"\n[health]\nmin_healthy = "{trial}"\ndeadline = "2min"\n[service]\nstop_timeout = "3s"\n'
WAITS = "#!/bin/sh\ntouch /srv/day/waits\nwhile [ -e /srv/day/wait ]; do sleep 0.05; done\n"
WINDOW = '[policy]\nwindows = [{ days = ["Mon"], start = "00:00", length = "1min", timezone = "UTC" }]\n'

LOOK, HOLD, BACK, BAN, KEEP, CTRL_C = "status", "hold", "rollback", "mark-bad", "commit", "Ctrl-C"
COMMANDS = [LOOK, HOLD, BACK, BAN, KEEP, CTRL_C]
# Per phase and command: exit codes of the command and of the update, which release runs then, and what is remembered:
# h a hold, b a ban. Releases: the one before the old one, the old and the new one. `-`: there is nobody to say it to.
EXPECTED = {
    "staging": {LOOK: (0, 0, "new", ""), HOLD: (0, 15, "old", "h"), BACK: (0, 15, "before", "h"),
                BAN: (0, 15, "old", "b"), KEEP: (1, 0, "new", ""), CTRL_C: (1, 1, "old", "")},
    "waiting for a window": {LOOK: (0, 15, "old", ""), HOLD: (0, 15, "old", "h"), BACK: (0, 15, "before", "h"),
                             BAN: (0, 15, "old", "b"), KEEP: (1, 15, "old", "")},
    "hook": {LOOK: (0, 0, "new", ""), HOLD: (0, 15, "old", "h"), BACK: (0, 15, "before", "h"),
             BAN: (0, 15, "old", "b"), KEEP: (1, 0, "new", ""), CTRL_C: (1, 1, "old", "")},
    "stop": {LOOK: (0, 0, "new", ""), HOLD: (0, 0, "new", "h"), BACK: (0, 10, "old", "h"),
             BAN: (0, 10, "old", "b"), KEEP: (1, 0, "new", ""), CTRL_C: (10, 10, "old", "h")},
    "trial": {LOOK: (0, 0, "new", ""), HOLD: (0, 0, "new", "h"), BACK: (0, 10, "old", "h"),
              BAN: (0, 10, "old", "b"), KEEP: (0, 0, "new", ""), CTRL_C: (10, 10, "old", "h")},
    "going back": {LOOK: (0, 10, "old", "b"), HOLD: (0, 10, "old", "hb"), BACK: (0, 10, "old", "hb"),
                   BAN: (0, 10, "old", "b"), KEEP: (1, 10, "old", "b"), CTRL_C: (10, 10, "old", "b")},
}
STATES = {"staging": ["staging"], "waiting for a window": ["staged", "waiting"], "hook": ["waiting", "switching"],
          "stop": ["switching"], "trial": ["trial"], "going back": ["rolling_back"]}
HOOKS = {"staging": "pre-stage", "hook": "pre-switch", "going back": "pre-rollback"}
SAMPLE = [("hook", BACK), ("trial", CTRL_C), ("stop", BACK)]


def check(is_so, text):
    if not is_so:
        raise Failed(text)


class Terminal:
    """A command on a terminal of its own, in a process group of its own."""

    def __init__(self, node, *command):
        words = node.enter("setsid", "--ctty", "--wait", *command)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)
        self.said, self.ended = b"", None

    def type(self, keys):
        os.write(self.terminal, keys)

    def code(self):
        """The exit code, or None while it runs. What it says is kept."""
        if self.ended is None:
            os.set_blocking(self.terminal, False)
            with contextlib.suppress(OSError):
                self.said += os.read(self.terminal, 65536)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.terminal)
                self.ended = os.waitstatus_to_exitcode(status)
        return self.ended

    def wait(self, seconds):
        """The exit code, once it has ended."""
        end = time.monotonic() + seconds
        while self.code() is None:
            if time.monotonic() > end:
                raise Failed(f"it does not end: {self.said.decode(errors='replace')[-600:]}")
            time.sleep(0.02)
        return self.ended


class Day:
    """One entry: an update that stands in one phase."""

    def __init__(self, app, phase):
        self.app, self.node, self.phase = app, app.node, phase
        self.node.path("/srv/day").mkdir(exist_ok=True)
        settings = SETTINGS.format(trial="60s" if phase == "trial" else "300ms")
        if phase == "waiting for a window":
            settings += WINDOW
        self.node.write("/etc/cutover/app.toml.d/day.toml", settings)
        self.hook = f"/etc/cutover/app.hooks/{HOOKS[phase]}.d/10-waits" if phase in HOOKS else None

    def begin(self):
        """Starts the update, and waits until it stands in the phase."""
        app, node = self.app, self.node
        behaviour = {"staging": {}, "going back": {"sick_after": 0}}.get(self.phase, {})
        self.old, self.before = app.version(), app.status()["previous"]["version"]
        self.new = app.publish(**behaviour)
        node.path("/srv/day/waits").unlink(missing_ok=True)
        if self.hook:
            node.write("/srv/day/wait", "")
            node.write(self.hook, WAITS, 0o755)
        # In a unit already, so that it is not handed over to another one: Ctrl-C reaches the update itself.
        words = ["cutover", "update"] if self.phase == "waiting for a window" else ["cutover", "update", "--now"]
        self.update = Terminal(node, "env", "INVOCATION_ID=x", *words)
        if self.hook:
            eventually(f"the hook of {self.phase} runs", 40, lambda: node.path("/srv/day/waits").exists())
        elif self.phase == "stop":
            eventually("the old release stops", 30, lambda: app.properties(
                "app.service", "ActiveState")["ActiveState"] == "deactivating")
        elif self.phase == "trial":
            eventually("the trial begins", 30, lambda: app.version() == self.new)
            eventually("the trial is told", 10, lambda: app.status()["state"] == "trial")
        else:
            self.code = self.update.wait(40)

    def let_go(self):
        self.node.path("/srv/day/wait").unlink(missing_ok=True)

    def say(self, command):
        """The exit code of what is typed, and how long it took. Going back waits for a hook that goes back already."""
        if command == CTRL_C:
            began = time.monotonic()
            self.update.type(b"\x03")
            if self.phase == "going back":
                self.let_go()
            self.code = self.update.wait(60)
            return self.code, time.monotonic() - began
        words = {BAN: ["mark-bad", self.new]}.get(command, [command])
        began = time.monotonic()
        if (self.phase, command) == ("going back", BACK):
            asking = self.node.spawn("cutover", *words)
            time.sleep(0.5)
            self.let_go()
            code, said = asking.wait(60), asking.stdout.read()
        else:
            code, output, errors = self.node.run("cutover", *words)
            said = output + errors
        took = time.monotonic() - began
        if command == LOOK:
            seen = self.app.status()["state"]
            check(seen in STATES[self.phase], f"status in {self.phase} says {seen}")
        self.said = said
        return code, took

    def end(self, command):
        """Lets the update go on to its end; what has come of it."""
        self.let_go()
        if self.phase == "trial" and command in (LOOK, HOLD):
            self.node.call("cutover", "commit")
        if not hasattr(self, "code"):
            self.code = self.update.wait(90)
        self.app.at_rest()
        status = self.app.status()
        runs = {self.before: "before", self.old: "old", self.new: "new"}.get(self.app.active())
        self.app.serves(self.app.active())
        is_banned = any(bad["release"]["version"] == self.new for bad in status["bad"])
        return self.code, runs, ("h" if status["hold"] else "") + ("b" if is_banned else "")

    def tidy(self):
        self.node.call("cutover", "unhold")
        self.node.run("cutover", "mark-good", self.new)
        if self.hook:
            self.node.path(self.hook).unlink()
        self.node.path("/etc/cutover/app.toml.d/day.toml").unlink()


def two_good_ones(app):
    """There is a way back, and the release that runs takes its time to stop."""
    for _ in range(2):
        app.publish(ignore_term=1)
        app.update(0)


def can_be_spoken_to(app):
    """in each phase of an update what people say acts at once, and comes to what the table says"""
    entries = [(phase, command) for phase, row in EXPECTED.items() for command in COMMANDS if command in row]
    table, wrong = [], []
    for phase, command in entries if os.environ.get("CUTOVER_NODES_ALL") else SAMPLE:
        two_good_ones(app)
        day = Day(app, phase)
        day.begin()
        code, took = day.say(command)
        found = (code, *day.end(command))
        day.tidy()
        line = f"{phase}: `{command}` took {took:.2f} s: exit {found[0]}, the update {found[1]}, {found[2]} runs {found[3]}"
        table.append(line)
        if found != EXPECTED[phase][command]:
            wrong.append(f"{line}, and not {EXPECTED[phase][command]}: {getattr(day, 'said', '')[-300:]} "
                         f"{day.update.said.decode(errors='replace')[-400:]}")
        acts_at_once = command in (LOOK, HOLD, BAN) or command == KEEP and phase != "trial"
        check(not acts_at_once or took < AT_ONCE_SECONDS, f"{line}: too long")
        if len(entries) > len(SAMPLE) and os.environ.get("CUTOVER_NODES_ALL"):
            print("    " + line, flush=True)
    check(not wrong, "\n".join(wrong))
    return "; ".join(table) if not os.environ.get("CUTOVER_NODES_ALL") else f"{len(table)} entries"


HOOK = "/etc/cutover/app.hooks/pre-switch.d/10-slip"
EXTRA = "/etc/cutover/app.toml.d/slip.toml"
# What an admin does wrong: a file, its text and mode.
SLIPS = {"a hook that fails": (HOOK, "#!/bin/sh\nexit 1\n", 0o755),
         "a hook that others may write": (HOOK, "#!/bin/sh\nexit 0\n", 0o777),
         "a hook that is no program": (HOOK, "exit 0", 0o755),
         "a unit that is not there": (EXTRA, '[service]\nunits = ["ap.service"]\n', 0o644)}


def bans_nobody_for_a_slip(app):
    """what an admin did wrong bans no release: it is told, nothing is switched, and the next update goes on"""
    told = []
    for what, (path, text, mode) in SLIPS.items():
        old, version = app.version(), app.publish()
        app.node.write(path, text, mode)
        code, output, errors = app.node.run("cutover", "update", "--now")
        app.node.path(path).unlink()
        check(code in (1, 2, 15) and app.active() == old, f"{what}: {code}, {app.active()} runs: {output}{errors}")
        banned = [bad["release"]["version"] for bad in app.status()["bad"]]
        check(version not in banned, f"{what}: banned are {banned}")
        app.update(0)
        app.serves(version)
        told.append(f"{what}: {code}")
    return "; ".join(told)


DAY = [can_be_spoken_to, bans_nobody_for_a_slip]
