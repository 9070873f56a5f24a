"""The table of docs/systemd.md, walked on a real node: every kind of unit, in every operation."""

import os
import socket
import time

from lab import Failed, eventually
from node_app import WORKER

SLEEP = "ExecStart=/bin/sleep 1000000\n"
SERVICE = f"[Service]\nWorkingDirectory=/srv/app/current\n{SLEEP}"
# Units of the admin's: name and text. What is named in `units` is in KINDS.
ADMINS = {
    "k.service": SERVICE,
    "k-once.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'readlink /srv/app/current >>/run/once'\n",
    "k.socket": "[Socket]\nListenStream=127.0.0.1:7001\nService=k-tick.service\n",
    "k-accept.socket": "[Socket]\nListenStream=127.0.0.1:7002\nAccept=yes\n",
    "k-accept@.service": "[Service]\nWorkingDirectory=/srv/app/current\nExecStart=/bin/cat\nStandardInput=socket\n",
    "k.timer": "[Timer]\nOnCalendar=yearly\nUnit=k-tick.service\n",
    "k-tick.service": SERVICE,
    "k.path": "[Path]\nPathExists=/run/never\nUnit=k-tick.service\n",
    "k.target": "[Unit]\nWants=k-part.service k-loose.service k-other.service\n",
    "k-part.service": f"[Unit]\nPartOf=k.target\n{SERVICE}",
    "k-loose.service": SERVICE,
    "k-other.service": f"[Service]\n{SLEEP}",
    "k.slice": "[Slice]\n",
    "k-inside.service": f"{SERVICE}Slice=k.slice\n",
    "mnt-k.mount": "[Mount]\nWhat=tmpfs\nWhere=/mnt/k\nType=tmpfs\n",
    "k-job@.service": SERVICE,
}
KINDS = ["app.service", "k.service", "k-once.service", "k.socket", "k-accept.socket", "k.timer", "k.path", "k.target",
         "k.slice", "mnt-k.mount", "k-job@.service"]
RESTARTED = ["app.service", "k.service", "k-part.service", "k-loose.service", "k-inside.service", "k.target", "k-job@a.service"]
STAYING = ["k.socket", "k.timer", "k.path", "mnt-k.mount", "k-other.service"]
UP = RESTARTED + STAYING + ["k-accept.socket", "k.slice"]
DEPENDANTS = {
    "d-requires.service": "Requires=app.service\nAfter=app.service\n",
    "d-binds.service": "BindsTo=app.service\nAfter=app.service\n",
    "d-part.service": "PartOf=app.service\nAfter=app.service\n",
    "d-an\\x2dother@a\\x2db.service": "BindsTo=app.service\nAfter=app.service\n",
    "d-further.service": "Requires=d-requires.service\nAfter=d-requires.service\n",
}


def check(is_so, text):
    if not is_so:
        raise Failed(text)


class Setting:
    """Units of the admin's and a fragment of the configuration; both go when it ends."""

    def __init__(self, app, units, declared, more=""):
        self.app, self.units, self.node = app, units, app.node
        self.text = f"[service]\nunits = [{', '.join(f'{chr(34)}{unit}{chr(34)}' for unit in declared)}]\n{more}"

    def __enter__(self):
        for name, text in self.units.items():
            self.node.write(f"/usr/local/lib/systemd/system/{name}", text)
        self.fragment(self.text)
        self.node.call("systemctl", "daemon-reload")
        return self

    def fragment(self, text):
        self.node.write("/etc/cutover/app.toml.d/units.toml", text)

    def __exit__(self, kind, *_):
        if kind:
            return
        self.node.path("/etc/cutover/app.toml.d/units.toml").unlink()
        names = [name for name in self.units if "@." not in name]
        instances = [f"{name.split('@')[0]}@*" for name in self.units if "@." in name]
        self.node.run("systemctl", "stop", *names, *instances)
        self.node.run("systemctl", "unmask", *names)
        for name in self.units:
            self.node.path(f"/usr/local/lib/systemd/system/{name}").unlink(missing_ok=True)
        self.node.call("systemctl", "daemon-reload")


def runs(app, units):
    """The run of each unit, by its name; fails for one that is not up."""
    found = {}
    for unit in units:
        seen = app.properties(unit, "ActiveState", "SubState", "InvocationID")
        check(seen["ActiveState"] == "active", f"{unit} is {seen['ActiveState']} ({seen['SubState']})")
        found[unit] = seen["InvocationID"]
    return found


def compare(app, before, what):
    after = runs(app, UP)
    for unit in RESTARTED:
        check(after[unit] != before[unit], f"{what}: {unit} still is what ran before")
    for unit in STAYING:
        check(after[unit] == before[unit], f"{what}: {unit} was restarted")
    return after


def brings_every_kind_over(app):
    """units of every kind are healthy, and come over an update, a failed one and a rollback, with and without data"""
    with Setting(app, ADMINS, KINDS) as setting:
        check(app.node.run("cutover", "config", "check")[0] == 0, "config check refuses the units")
        app.node.call("systemctl", "start", *[unit for unit in KINDS if "@." not in unit], "k-inside.service",
                      "k-job@a.service")
        for more in ["data = []\n", ""]:
            setting.fragment(more + setting.text)
            before, old = runs(app, UP), app.version()
            once = len(app.node.call("cat", "/run/once").splitlines())
            version = app.publish()
            app.update(0)
            app.serves(version)
            before = compare(app, before, "update")
            count = len(app.node.call("cat", "/run/once").splitlines())
            check(count == once + 1, f"the job ran {count - once} times")
            app.publish(sick_after=0.2)
            app.update(10)
            app.serves(version)
            before = compare(app, before, "failed update")
            app.node.call("cutover", "rollback", "--no-hold")
            app.serves(old)
            compare(app, before, "rollback")


def ships_every_kind(app):
    """units, a template and a drop-in come with a release, go with the next, and come back when that fails"""
    install = "[Install]\nWantedBy=multi-user.target\n"
    shipped = {
        "s.service": SERVICE + install,
        "s.socket": f"[Socket]\nListenStream=127.0.0.1:7101\nService=s.service\n{install}",
        "s.timer": f"[Timer]\nOnCalendar=yearly\nUnit=s-idle.service\n{install}",
        "s-idle.service": SERVICE,
        "s.path": f"[Path]\nPathExists=/run/never\nUnit=s-idle.service\n{install}",
        "s.target": f"[Unit]\nDescription=s\n{install}",
        "s.slice": f"[Slice]\n{install}",
        "s-job@.service": f"{SERVICE}{install}DefaultInstance=main\n",
        "s-a\\x2db@.service": f"{SERVICE}{install}DefaultInstance=c\\x2dd\n",
        "app.service.d/limit.conf": "[Service]\nLimitNOFILE=12345\n",
        "sshd.service.d/limit.conf": "[Service]\nLimitNOFILE=12345\n",
    }
    started = ["s.service", "s.socket", "s.timer", "s.path", "s.target", "s.slice", "s-job@main.service",
               "s-a\\x2db@c\\x2dd.service"]

    def is_there():
        runs(app, started)
        limit = app.properties("app.service", "LimitNOFILE")["LimitNOFILE"]
        check(limit == "12345", f"the drop-in does not count: {limit}")

    def is_gone():
        for unit in started + ["s-idle.service", "s-job@a.service"]:
            seen = app.properties(unit, "LoadState", "ActiveState")
            check(seen["ActiveState"] == "inactive", f"{unit} still is {seen}")
            # A slice needs no file.
            check(seen["LoadState"] == "not-found" or unit == "s.slice", f"{unit} still is {seen}")
        left = app.node.call("find", "/etc/systemd/system", "-name", "s.*", "-o", "-name", "s-*", "-o", "-name", "limit.conf")
        # An admin's instance would stay enabled; the default one is no different.
        left = [path for path in left.split() if "@main" not in path and "@c" not in path]
        check(not left, f"left behind: {left}")
        limit = app.properties("app.service", "LimitNOFILE")["LimitNOFILE"]
        check(limit != "12345", "the drop-in still counts")

    shipping = app.publish(units=list(shipped.items()))
    said = app.update(0)
    check("sshd.service.d" in said, f"a drop-in that is not used is not told: {said}")
    app.serves(shipping)
    is_there()
    app.node.call("systemctl", "start", "s-job@a.service")
    app.publish(sick_after=0.2)
    app.update(10)
    app.serves(shipping)
    is_there()
    runs(app, ["s-job@a.service"])
    version = app.publish()
    app.update(0)
    app.serves(version)
    is_gone()
    app.node.call("cutover", "rollback", "--no-hold")
    app.serves(shipping)
    is_there()
    # One that is disabled and runs comes over, and stays disabled. Others are enabled as each release says.
    before = runs(app, ["s.service"])
    app.node.call("systemctl", "disable", "s.service")
    install = {"s.timer": shipped["s.timer"].replace("multi-user", "timers") + "Alias=s-alias.timer\n"}
    next_one = app.publish(units=list({**shipped, **install}.items()))
    app.update(0)
    app.serves(next_one)
    check(runs(app, ["s.service"]) != before, "a disabled unit still runs the old code")
    links = ["multi-user.target.wants/s.service", "multi-user.target.wants/s.timer", "timers.target.wants/s.timer",
             "s-alias.timer"]

    def enabled():
        return [link for link in links if app.node.path(f"/etc/systemd/system/{link}").is_symlink()]

    check(enabled() == links[2:], f"enabled by {enabled()}")
    app.node.call("cutover", "rollback", "--no-hold")
    runs(app, ["s.service"])
    check(enabled() == links[1:2], f"after the rollback enabled by {enabled()}")
    app.publish()
    app.update(0)
    is_gone()


def leaves_down_what_is_down(app):
    """what an admin has stopped or masked blocks an update by the timer, and is left so by one with --now"""
    with Setting(app, {"w.service": SERVICE, "m.service": SERVICE}, ["app.service", "w.service", "m.service"]):
        app.node.call("systemctl", "start", "w.service", "m.service")
        for stop, state in [(["systemctl", "stop", "w.service"], "w.service"),
                            (["systemctl", "mask", "--now", "m.service"], "m.service")]:
            app.node.call(*stop)
            version = app.publish()
            status = app.node.run("cutover", "update")[0]
            check(status == 15, f"{state}: the update ended with {status}")
            app.update(0)
            app.serves(version)
            check(not app.is_active(state), f"{state} was started")
            app.publish(sick_after=0.2)
            app.update(10)
            app.serves(version)
            check(not app.is_active(state), f"{state} was started by the way back")
            app.node.call("cutover", "rollback", "--no-hold")
            check(not app.is_active(state), f"{state} was started by a rollback")
        app.node.call("systemctl", "unmask", "m.service")
        # The whole application is down: then somebody wants it up.
        app.node.call("systemctl", "stop", "app.service", "w.service", "m.service")
        version = app.publish()
        app.update(0)
        app.serves(version)
        check(app.is_active("w.service"), "a part of an application that was down is not started")


def refuses_what_cannot_be_brought_back(app):
    """units that are missing, broken, transient, or masked and running are refused before anything is stopped"""
    node = app.node
    with Setting(app, {"x.service": SERVICE}, ["app.service", "x.service"]) as setting:
        node.call("systemctl", "start", "x.service")
        before = runs(app, ["app.service"])
        version = app.publish()

        banned = app.status()["bad"]

        def is_refused(word, by_check=2):
            status, _, said = node.run("cutover", "config", "check")
            check(status == by_check, f"{word}: config check ended with {status}: {said}")
            status, output, said = node.run("cutover", "update", "--now")
            check(status == 15 and word in output + said, f"{word}: update ended with {status}: {output}{said}")
            check(runs(app, ["app.service"]) == before, f"{word}: the application was stopped")
            status = app.status()
            check(status["bad"] == banned, f"{word}: the release is banned")
            check([one["policy"] for one in status["blocked"]] == ["units"], f"{word}: {status['blocked']}")
            check(not any("--now" in line for line in status["next"]), f"{word}: {status['next']}")

        setting.fragment(setting.text.replace("x.service", "typo.service"))
        is_refused("typo.service")
        setting.fragment(setting.text.replace("x.service", "typo@.service"))
        is_refused("typo@.service")
        setting.fragment(setting.text)
        for refusal in ["RefuseManualStop=yes", "RefuseManualStart=yes"]:
            node.write("/etc/systemd/system/x.service.d/no.conf", f"[Unit]\n{refusal}\n")
            node.call("systemctl", "daemon-reload")
            is_refused("RefuseManualStart=")
        node.call("rm", "-r", "/etc/systemd/system/x.service.d")
        node.call("systemctl", "daemon-reload")
        node.call("systemctl", "mask", "x.service")
        is_refused("masked", by_check=0)
        node.call("systemctl", "unmask", "x.service")
        node.call("systemctl", "stop", "x.service")
        node.path("/usr/local/lib/systemd/system/x.service").unlink()
        node.call("systemctl", "daemon-reload")
        node.call("systemd-run", "--unit=x", "sleep", "1000000")
        is_refused("transient")
        node.call("systemctl", "stop", "x.service")
        node.write("/usr/local/lib/systemd/system/x.service", "[Service]\nType=oneshot\n")
        node.call("systemctl", "daemon-reload")
        is_refused("x.service")
        node.write("/usr/local/lib/systemd/system/x.service", SERVICE)
        node.call("systemctl", "daemon-reload")
        app.update(0)
        app.serves(version)
        # A file of the admin's with a shipped unit's name.
        node.write("/etc/systemd/system/app-worker.service", WORKER)
        app.publish(units=[("app-worker.service", WORKER)])
        said = app.update(15)
        check("app-worker.service" in said, f"the file in the way is not named: {said}")
        app.serves(version)
        node.path("/etc/systemd/system/app-worker.service").unlink()


def brings_dependants_back(app):
    """what ran and depends on the application is up again after an update, a failed one and a rollback"""
    units = {name: f"[Unit]\n{unit}{SERVICE}".replace("WorkingDirectory=/srv/app/current\n", "")
             for name, unit in DEPENDANTS.items()}
    # It cannot listen any more when its service is started first.
    listen = "[Unit]\nPartOf=app.service\n[Socket]\nListenStream=127.0.0.1:7201\nService=d-part.service\n"
    others = {"d-listen.socket": listen, "d-down.service": units["d-requires.service"]}
    with Setting(app, {**units, **others}, ["app.service"]) as setting:
        app.node.call("systemctl", "start", "d-listen.socket")
        app.node.call("systemctl", "start", *DEPENDANTS)
        for more in ["data = []\n", ""]:
            setting.fragment(more + setting.text)
            old, version = app.version(), app.publish()
            app.update(0)
            app.serves(version)
            runs(app, ["d-listen.socket", *DEPENDANTS])
            app.publish(sick_after=0.2)
            app.update(10)
            runs(app, ["d-listen.socket", *DEPENDANTS])
            app.node.call("cutover", "rollback", "--no-hold")
            app.serves(old)
            runs(app, ["d-listen.socket", *DEPENDANTS])
            check(not app.is_active("d-down.service"), "a unit that was down was started")
        # One that cannot come back changes nothing of the end, and is named.
        app.node.write("/etc/systemd/system/d-binds.service.d/no.conf", "[Service]\nExecStartPre=/bin/test ! -e /run/no\n")
        app.node.call("systemctl", "daemon-reload")
        app.node.call("touch", "/run/no")
        app.publish()
        said = app.update(0)
        check("d-binds.service" in said, f"the end does not say what is down: {said}")
        app.node.call("rm", "-r", "/run/no", "/etc/systemd/system/d-binds.service.d")


def tell(path, what):
    """Says hello to a FIFO, a socket or a file; fails when nobody listens there."""
    parent = os.open(path.parent, os.O_PATH)
    try:
        if path.is_file():
            path.write_text("hello\n")
        elif path.is_fifo():
            to = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(to, b"hello\n")
            os.close(to)
        else:
            with socket.socket(socket.AF_UNIX) as to:
                # The name of a socket may have 107 bytes.
                to.connect(f"/proc/self/fd/{parent}/{path.name}")
                to.sendall(b"hello\n")
    except OSError as error:
        raise Failed(f"{what} is not reached: {error}") from error
    finally:
        os.close(parent)


def reaches_what_listens_within_data(app):
    """a socket, FIFO or file within the data, the application's or another's, is heard after a failed update and a rollback"""
    say = "[Service]\nExecStart=/bin/sh -c 'while read line; do echo \"$line\" >>/run/%N.said; done'\nStandardInput=socket\n"
    within = "/srv/app/data/run"
    units = {
        # Named in `units`; found since it starts what is named; nobody's but its own.
        "in.socket": f"[Socket]\nListenFIFO={within}/in\n",
        "in.service": say,
        "in-found.socket": f"[Socket]\nListenFIFO={within}/in-found\n",
        "in-found.service": say,
        "in-other.socket": f"[Socket]\nListenStream={within}/in-other\nAccept=yes\n",
        "in-other@.service": say.replace("%N", "%p"),
        "in-idle.socket": f"[Socket]\nListenFIFO={within}/in-idle\n",
        "in-idle.service": say,
        "in-seen.path": f"[Path]\nPathModified={within}/in-seen\n",
        "in-seen.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\n"
                           "ExecStart=/bin/sh -c 'echo seen >>/run/in-seen.said'\n",
    }
    listening = [name for name in units if name.endswith((".socket", ".path"))]
    node = app.node

    def are_reached(when):
        runs(app, listening)
        for name in [unit.rsplit(".", 1)[0] for unit in listening]:
            node.run("rm", "-f", f"/run/{name}.said")
            tell(node.path(f"{within}/{name}"), f"{when}: {name}")
            eventually(f"{when}: {name} hears what is said", 10, lambda: node.run("test", "-s", f"/run/{name}.said")[0] == 0)
        node.run("systemctl", "stop", "in-idle.service")

    with Setting(app, units, ["app.service", "in.socket", "in.service", "in-found.service"]):
        node.call("systemctl", "start", *listening)
        node.write(f"{within}/in-seen", "")
        node.call("systemctl", "start", "in.service", "in-found.service")
        are_reached("before")
        old, version = app.version(), app.publish()
        app.update(0)
        app.serves(version)
        are_reached("after an update")
        app.publish(sick_after=0.2)
        app.update(10)
        app.serves(version)
        are_reached("after a failed update")
        node.call("cutover", "rollback", "--no-hold")
        app.serves(old)
        are_reached("after a rollback")


def starts_nothing_while_data_are_copied(app):
    """what keeps the application up (another unit, a watchdog) does not start the old release while data are copied"""
    keeper = {"keep.target": "[Unit]\nUpholds=app.service\n"}
    with Setting(app, keeper, ["app.service"]):
        app.node.path("/srv/app/data/large").write_bytes(b"0" * (64 << 20))
        watchdog = "while :; do systemctl is-active -q app.service || systemctl start app.service; sleep 0.02; done"
        for begin in [["systemctl", "start", "keep.target"], ["systemd-run", "--unit=watchdog", "sh", "-c", watchdog]]:
            app.node.call(*begin)
            old, version = app.version(), app.publish()
            app.update(0)
            app.serves(version)
            app.publish(sick_after=0.2)
            app.update(10)
            app.serves(version)
            app.node.call("cutover", "rollback", "--no-hold")
            app.serves(old)
            app.node.call("systemctl", "stop", "keep.target")
        app.node.call("systemctl", "stop", "watchdog.service")
        app.node.path("/srv/app/data/large").unlink()


def reads_what_the_pointer_leads_to(app):
    """a unit file that an admin has linked into the release is read anew with each release, forth and back"""
    node = app.node
    text = lambda seconds: f"[Service]\nWorkingDirectory=/srv/app/current\nExecStart=/bin/sleep {seconds}\n"
    release = lambda seconds: app.publish(files=[("etc/linked.service", text(seconds).encode())])
    command = lambda: node.call("cat", f"/proc/{app.properties('linked.service', 'MainPID')['MainPID']}/cmdline")
    release(1001)
    app.update(0)
    node.call("systemctl", "link", "-q", "/srv/app/current/etc/linked.service")
    with Setting(app, {}, ["app.service", "linked.service"]):
        node.call("systemctl", "start", "linked.service")
        release(1002)
        app.update(0)
        check("1002" in command(), f"the old unit file is in use: {command()}")
        app.publish(files=[("etc/linked.service", text(1003).encode())], sick_after=0.2)
        app.update(10)
        check("1002" in command(), f"after a failure: {command()}")
        node.call("cutover", "rollback", "--no-hold")
        check("1001" in command(), f"after a rollback: {command()}")
        node.call("systemctl", "stop", "linked.service")
    node.path("/etc/systemd/system/linked.service").unlink()
    node.call("systemctl", "daemon-reload")


def bounds_the_start(app):
    """a start may take `start_timeout` and no longer, also in a restart"""
    with Setting(app, {}, ["app.service"]) as setting:
        setting.fragment("data = []\n[service]\nstop_timeout = \"4s\"\nstart_timeout = \"2s\"\n")
        app.publish(start_delay=3)
        began = time.monotonic()
        said = app.update(10)
        check("not done after 2s" in said, f"the reason is another one: {said}")
        setting.fragment("data = []\n[service]\nstop_timeout = \"1s\"\nstart_timeout = \"6s\"\n")
        version = app.publish(start_delay=3)
        app.update(0)
        app.serves(version)
        return f"{time.monotonic() - began:.0f} s"


def comes_back_without_reload(app):
    """a release whose services refuse to reload goes back, though these refuse that, too"""
    reloads = "ExecReload=/bin/sh -c 'test ! -e /run/no-reload'\n"
    with Setting(app, {"r.service": SERVICE + reloads}, ["app.service", "r.service"],
                 "action = \"reload-or-restart\"\n") as setting:
        setting.fragment("data = []\n" + setting.text)
        app.node.call("systemctl", "start", "r.service")
        old, before = app.version(), runs(app, ["r.service"])
        app.node.call("touch", "/run/no-reload")
        app.publish()
        app.update(10)
        app.serves(old)
        check(runs(app, ["r.service"]) != before, "it was not restarted")
        app.node.call("rm", "/run/no-reload")


UNITS = [brings_every_kind_over, ships_every_kind, leaves_down_what_is_down, refuses_what_cannot_be_brought_back,
         brings_dependants_back, reaches_what_listens_within_data, starts_nothing_while_data_are_copied,
         reads_what_the_pointer_leads_to, bounds_the_start, comes_back_without_reload]
