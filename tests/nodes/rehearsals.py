"""Rehearsals on a real node: a release runs beside the one that serves, and nobody notices.

What is looked at after each: the requests that failed, the data byte by byte, and every trace that may be left.
"""

import hashlib
import json
import os
import statistics
import time

from lab import Failed, eventually
from load import Load
from memory import Memory
from node_app import UNIT

SETTINGS = """
[rehearsal]
network = "private"
min_healthy = "300ms"
deadline = "8s"
[health]
startup = "2s"
[[health.check]]
name = "web"
http = { url = "http://127.0.0.1:8080/health" }
[[health.check]]
name = "records"
exec = { command = ["sh", "-c", "test -s $CUTOVER_DATA_PATH/records"] }
"""
FILL = ("mkdir /srv/app/data/much; cd /srv/app/data/much; "
        "for n in $(seq 1000); do head -c 262144 /dev/urandom >$n; done; sync")
PLACE = "/etc/cutover/app.toml.d/rehearsal.toml"
MORE = "/etc/cutover/app.toml.d/rehearsal2.toml"
# How many changes of the disk a rehearsal makes, at most; a run that ends before its stop point ends the search.
POINTS_MAX = 200
KINDS = ["ext4", "xfs", "btrfs"]


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def fingerprint(app):
    """The live data: names, modes, owners, times and contents."""
    digest = hashlib.sha256()
    top = app.node.path("/srv/app/data")
    for path in [top, *sorted(top.rglob("*"))]:
        found = path.lstat()
        digest.update(repr((path.name, found.st_mode, found.st_uid, found.st_ino, found.st_mtime_ns)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def traces(app):
    """All that a rehearsal may leave: units, unit files, processes, directories, copies, mounts, subvolumes."""
    found = []
    for word in ["cutover-rehearsal*", "cutover_rehearsal*"]:
        units = app.node.call("systemctl", "list-units", "--all", "--plain", "--no-legend", word)
        found += [line.strip() for line in units.splitlines() if line.strip()]
    for place in ["/run/systemd/system", "/run/cutover/app", "/srv/app/.cutover"]:
        listed = app.node.run("ls", place)[1].split()
        found += [f"{place}/{name}" for name in listed if "rehearsal" in name]
    mounts = app.node.call("sh", "-c", "cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -c rehearsal || true").strip()
    found += [f"{mounts} mounts"] if mounts != "0" else []
    groups = app.node.call("sh", "-c", "find /sys/fs/cgroup -name '*rehearsal*'").split()
    found += groups + app.node.call("find", "/var/lib", "/srv", "-xdev", "-name", "*.cutover-rehearsal*").split()
    if app.node.kind == "btrfs":
        found += [line for line in app.node.call("btrfs", "subvolume", "list", "/srv").splitlines()
                  if "rehearsal" in line]
    return found


def begin(app, more=""):
    app.node.write(PLACE, SETTINGS)
    app.node.write(MORE, more)
    app.get("/add?kept")


def end(app):
    for place in [PLACE, MORE]:
        app.node.path(place).unlink(missing_ok=True)


def refuses(app, words, more="", **behaviour):
    """A release of that behaviour is refused by its rehearsal, and whoever asks the old one notices nothing."""
    begin(app, more)
    old, before = app.version(), fingerprint(app)
    pid = app.properties("app.service", "MainPID")
    version = app.publish(**behaviour)
    app.node.call("cutover", "stage")
    with Load(app.node, 8080, per_second=100) as load:
        time.sleep(0.1)
        said = app.update(12)
        time.sleep(0.1)
    what = f"{behaviour}"
    check(load.failed == 0, f"{what}: {load.failed} of {load.asked} requests failed: {load.failures}")
    check(fingerprint(app) == before, f"{what}: the live data have changed")
    check(app.properties("app.service", "MainPID") == pid, f"{what}: the old release was stopped")
    check(app.active() == old, f"{what}: {app.active()} is active")
    check(all(word in said for word in words), f"{what}: it says {said}")
    last = app.history()[-1]
    check((last["outcome"], last["exit_code"], last["to"]) == ("refused", 12, version), f"{what}: {last}")
    check(traces(app) == [], f"{what}: it leaves {traces(app)}")
    bad = [bad["release"]["version"] for bad in app.status()["bad"]]
    check(version in bad, f"{what}: the release is not banned")
    again = app.node.run("cutover", "update", "--now")[0]
    check(again == 15 and app.history()[-1] == last, f"{what}: it was tried again: {again}")
    end(app)


def rehearsal_refuses_a_crash(app):
    """a release that crashes at its start is refused by its rehearsal, and the old one never notices"""
    refuses(app, ["rehearsal", "crashes, as it should"], crash=0)


def rehearsal_refuses_the_sick(app):
    """a release that answers 503, at once or later, is refused by its rehearsal"""
    refuses(app, ["web", "503"], sick_after=0)
    refuses(app, ["web", "503"], sick_after=0.2)


def rehearsal_refuses_lost_records(app):
    """a release that migrates the data wrongly is refused, and the live data are the same byte by byte"""
    refuses(app, ["records"], schema=2, lose_records=1)


def rehearsal_refuses_a_taken_port(app):
    """a release that listens on a second port, which somebody else has or nobody allowed, is refused"""
    app.node.call("systemd-run", "-q", "--unit=other", "systemd-socket-activate", "-l", "9100", "/bin/cat")
    eventually("the port is taken", 5, lambda: ":238C " in app.node.call("cat", "/proc/net/tcp6"))
    refuses(app, ["9100", "systemd-socket"], second_port=9100)
    app.node.call("systemctl", "stop", "other.service")
    refuses(app, ["9100", "rehearsal.ports"], "[rehearsal]\nports = [8080]\n", second_port=9100)


def rehearsal_refuses_what_hangs(app):
    """a release that hangs at its start is refused in time, and killed"""
    refuses(app, ["rehearsal"], start_delay=1000, ignore_term=1)


def rehearsal_precedes_the_switch(app):
    """a good release is rehearsed, then switched to; it migrates the copy once, and the data once"""
    begin(app)
    old, version = app.version(), app.publish(schema=2)
    records = app.node.path("/srv/app/data/records")
    before = records.read_text()
    app.node.call("systemctl", "start", "cutover@app.service")
    app.serves(version)
    wanted = "".join(f"{line} (schema 2)\n" for line in before.splitlines())
    check(records.read_text() == wanted, f"{old} -> {version}: the data were not migrated once: {records.read_text()}")
    journal = app.node.call("journalctl", "-o", "cat", "--no-pager", "-u", "cutover-rehearsal-app:app.service")
    check(f"app {version} starts" in journal, "the release was not started in a rehearsal")
    check(traces(app) == [], f"it leaves {traces(app)}")
    # Back to the data's first form, for whoever comes next.
    app.node.call("cutover", "rollback", "--no-hold", "--data", "restore")
    app.serves(old)
    end(app)


FLEET = """
[fleet]
mode = "synchronous"
name = "app"
directory = "/srv/coord"
allow_unsigned = true
overlap = "rehearsed"
poll = "100ms"
visibility = "100ms"
lead = "1s"
late = "2s"
trial = "10s"
settle = "2s"
back = "1s"
"""


def rehearsal_precedes_the_vote(app):
    """in a fleet a node rehearses before it votes: no for a sick release, and yes for a good one"""
    node, old = app.node, app.version()
    begin(app, FLEET)
    node.path("/srv/coord").mkdir()
    for words in [["init"], ["join"], ["members", "--all"]]:
        node.call("cutover", "fleet", *words)
    votes = []
    for number, (behaviour, status) in enumerate([({"sick_after": 0}, 12), ({}, 0)], 1):
        version = app.publish(**behaviour)
        node.call("cutover", "stage")
        node.call("cutover", "fleet", "propose", version)
        code, output, errors = node.run("cutover", "update")
        check(code == status, f"{behaviour}: update ended with {code}: {errors[-600:]}{output}")
        votes += [path.read_text() for path in node.path("/srv/coord/nodes").glob(f"*/{number:06}.vote")]
        check(app.active() == (version if code == 0 else old), f"{behaviour}: {app.active()} is active")
    check('"vote":"no"' in votes[0] and "rehearsal failed" in votes[0], f"it voted {votes[0]}")
    check('"vote":"yes"' in votes[1] and '"beside":"rehearsed"' in votes[1], f"it voted {votes[1]}")
    check(traces(app) == [], f"it leaves {traces(app)}")
    end(app)
    node.path("/srv/app/.cutover/fleet.json").unlink()
    node.call("rm", "-r", "/srv/coord")


def rehearsal_leaves_no_trace(app, step=None):
    """killed or crashed at any point of a rehearsal, a node is as before once `recover` has run, without a trace"""
    begin(app)
    # Each file system takes its share of the points; CUTOVER_NODES_ALL=1 has each take all.
    step = step or (1 if os.environ.get("CUTOVER_NODES_ALL") else 2 * len(KINDS))
    node, old, first = app.node, app.version(), 2 * KINDS.index(app.node.kind) % step
    before, stops, crashes = fingerprint(app), 0, 0
    sick = app.publish(schema=2, sick_after=0)
    node.call("cutover", "stage")
    for command in [["rehearse", sick], ["update", "--now"]]:
        for point in range(first, POINTS_MAX, step):
            updater = node.spawn("env", f"CUTOVER_STOP_BEFORE={point}:kill", "cutover", *command)
            output = updater.communicate(timeout=60)[0]
            # 15: the recovery from the point before has banned it already.
            if updater.returncode == 12 or (updater.returncode == 15 and "is banned" in output):
                break
            where = f"{command[0]}, before change {point}"
            check(updater.returncode in (-9, 137), f"{where}: it ended with {updater.returncode}: {output}")
            check(fingerprint(app) == before, f"{where}: the live data have changed")
            stops += 1
            if stops % 12 == 5 and crashes < 4:
                crashes += 1
                node.crash()
                node.boot()
                eventually(f"{where}: the boot's recovery has ended", 30, lambda: not traces(app))
                before = fingerprint(app)
            status, output, errors = node.run("cutover", "recover")
            # 12: it was killed when all was over but the bookkeeping.
            check(status in (0, 11, 12, 15), f"{where}: recover ended with {status}: {output}{errors}")
            app.at_rest()
            check(traces(app) == [], f"{where}: after recover there is {traces(app)}")
            check(app.version() == old and app.active() == old, f"{where}: {app.version()} serves")
            check(fingerprint(app) == before, f"{where}: the live data have changed")
        node.call("cutover", "mark-good", sick)
    # While it runs, where no change of the disk is made.
    updater = node.spawn("cutover", "update", "--now")
    eventually("it is rehearsed", 10, lambda: app.is_active("cutover-rehearsal-app:app.service"))
    node.call("pkill", "-KILL", "-x", "cutover")
    updater.wait(20)
    check(traces(app) != [], "nothing was left of a rehearsal that was killed")
    check(node.run("cutover", "recover")[0] in (0, 15), "recover ended badly")
    check(traces(app) == [] and fingerprint(app) == before, f"after recover there is {traces(app)}")
    check(stops >= 20, f"only {stops} points were tried")
    end(app)
    return f"{stops} points, {crashes} of them crashes of the node"


def rehearsal_says_what_does_not_go(app):
    """options that do not combine, and data that do not fit, are named before anything is begun"""
    begin(app)
    old, version = app.version(), app.publish()
    drop_in = app.node.path("/etc/systemd/system/app.service.d/odd.conf")
    for line, word in [("BindPaths=/srv/app:/mnt", "BindPaths=/srv/app:/mnt"), ("PIDFile=/srv/app/pid", "PIDFile=")]:
        app.node.write("/etc/systemd/system/app.service.d/odd.conf", f"[Service]\n{line}\n")
        app.node.call("systemctl", "daemon-reload")
        for command in [["update", "--now"], ["rehearse"]]:
            status, output, errors = app.node.run("cutover", *command)
            check(status == 2 and "app.service" in errors and word in errors, f"{command}: {status}: {errors}")
        shown = app.node.run("cutover", "update", "--dry-run")[1] + app.node.run("cutover", "check")[1]
        check(shown.count(word) == 2, f"nobody says beforehand that `{word}` stands against it: {shown}")
    drop_in.unlink()
    app.node.call("systemctl", "daemon-reload")
    # Each socket that would be seen is hidden by a mount.
    listen = ('use Socket; mkdir "/srv/many"; for (1..301) { socket(my $s, AF_UNIX, SOCK_STREAM, 0); '
              'bind($s, sockaddr_un("/srv/many/$_")) or die; push @all, $s } sleep 600')
    app.node.call("systemd-run", "--quiet", "--unit=many-sockets", "perl", "-e", listen)
    eventually("301 sockets", 10, lambda: len(app.node.run("ls", "/srv/many")[1].split()) == 301)
    for command in [["update", "--now"], ["rehearse"]]:
        status, output, errors = app.node.run("cutover", *command)
        check(status == 2 and "300 sockets" in errors and 'network = "off"' in errors, f"{command}: {status}: {errors}")
    app.node.call("systemctl", "stop", "many-sockets.service")
    app.node.call("rm", "-r", "/srv/many")
    if app.node.kind == "ext4":
        # A copy takes real room there.
        app.node.write(MORE, '[store]\nreserve = "900MiB"\n')
        app.node.call("sh", "-c", "head -c 60M /dev/zero >/srv/app/data/big; "
                      "fallocate -l $(($(df -B1 --output=avail /srv | tail -1) - 120000000)) /srv/fill")
        status, output, errors = app.node.run("cutover", "rehearse", version)
        check(status == 16 and "/srv/app/data" in errors, f"{status}: {output}{errors}")
        app.node.path("/srv/app/data/big").unlink()
        app.node.path("/srv/fill").unlink()
    check(traces(app) == [] and app.version() == old and not app.status()["bad"][-1:] == [version], "it did something")
    end(app)


def reaches_near():
    """The words that say whether the socket in /srv/near answers."""
    return ["perl", "-MIO::Socket::UNIX", "-e", "exit(!IO::Socket::UNIX->new('/srv/near/near.sock'))"]


def rehearsal_has_sockets_and_ways_out(app):
    """a socket-activated release is rehearsed with a socket of its own, and reaches nobody but those who are named"""
    node = app.node
    node.write("/etc/systemd/system/app.socket", "[Socket]\nListenStream=127.0.0.1:8080\n")
    node.write("/etc/systemd/system/app.service", UNIT.replace("[Service]", "Requires=app.socket\n[Service]"))
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "stop", "app.service")
    node.call("systemctl", "start", "app.socket", "app.service")
    node.call("systemd-run", "-q", "--unit=peer", "systemd-socket-activate", "-a", "--inetd", "-l", "127.0.0.1:9200",
              "/bin/echo", "peer")
    # Bound by a name relative to where it works, as is usual: the kernel's list of sockets knows no more of it.
    node.path("/srv/near").mkdir(exist_ok=True)
    node.call("systemd-run", "-q", "--unit=near", "--property=WorkingDirectory=/srv/near", "perl", "-MIO::Socket::UNIX",
              "-e", "my $near = IO::Socket::UNIX->new(Local => 'near.sock', Listen => 5) or die; sleep 1000")
    eventually("it listens", 10, lambda: node.run(*reaches_near())[0] == 0)
    begin(app, '''
[rehearsal]
outgoing = [{ listen = "127.0.0.1:9300", to = "127.0.0.1:9200" }]
[[rehearsal.check]]
name = "out"
exec = { command = ["bash", "-c", "read word </dev/tcp/127.0.0.1/9300; test $word = peer"] }
[[rehearsal.check]]
name = "closed"
exec = { command = ["bash", "-c", "! : </dev/tcp/127.0.0.1/9200"] }
[[rehearsal.check]]
name = "near"
exec = { command = ["perl", "-MIO::Socket::UNIX", "-e", "exit(!!IO::Socket::UNIX->new('/srv/near/near.sock'))"] }
''')
    version = app.publish()
    with Load(node, 8080, per_second=100) as load:
        said = app.update(0)
    check(load.failed == 0, f"{load.failed} of {load.asked} requests failed: {load.failures}")
    app.serves(version)
    check(traces(app) == [], f"it leaves {traces(app)}: {said}")
    end(app)
    check(node.run(*reaches_near())[0] == 0, "nobody listens any more")
    node.call("systemctl", "stop", "near.service", "peer.service", "app.service", "app.socket")
    node.path("/etc/systemd/system/app.socket").unlink()
    node.write("/etc/systemd/system/app.service", UNIT)
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "start", "app.service")


def rehearsal_leaves_no_socket_open(app):
    """where there are more sockets than can be closed, nothing is rehearsed, and nothing is held against the release"""
    node, old, banned = app.node, app.version(), app.status()["bad"]
    listen = 'my @all = map { IO::Socket::UNIX->new(Local => "/srv/many/$_", Listen => 5) or die } 1..400; sleep 1000'
    node.path("/srv/many").mkdir()
    node.call("systemd-run", "-q", "--unit=many", "perl", "-MIO::Socket::UNIX", "-e", listen)
    eventually("all listen", 10, lambda: node.path("/srv/many/400").exists())
    begin(app)
    app.publish()
    status, output, said = node.run("cutover", "update", "--now")
    check(status and "more than 300 sockets" in output + said, f"it ended with {status}: {output}{said}")
    check(app.active() == old and app.status()["bad"] == banned, f"{app.active()} is active: {app.status()['bad']}")
    check(traces(app) == [], f"it leaves {traces(app)}: {said}")
    end(app)
    node.call("systemctl", "stop", "many.service")
    node.call("rm", "-r", "/srv/many")


OWN_WAYS = """[Service]
User=daemon
RuntimeDirectory=app
StateDirectory=app
LogsDirectory=app
ReadWritePaths=/srv/app/data
EnvironmentFile=/srv/app/current/etc/app.env
ExecStartPre=+/bin/sh -c 'echo %n >>/srv/app/data/starts'
ExecStartPre=/bin/sh -c 'test -w /run/app && test -w "$LOGS_DIRECTORY" && echo $GREETING >>/var/lib/app/greetings'
ExecStartPost=/bin/sh -c 'echo x >/run/app/up; echo x >$LOGS_DIRECTORY/log'
ExecStopPost=/bin/sh -c 'echo stopped >>/var/lib/app/greetings'
"""
FORKER = """[Service]
Type=forking
PIDFile=/run/forker.pid
ExecStart=/bin/sh -c 'sleep 1000 & echo $! >/run/forker.pid'
"""


def rehearsal_keeps_the_units_own_ways(app):
    """users, directories, environment, root's commands and pid files of a unit are the rehearsal's own"""
    node, drop_in = app.node, "/etc/systemd/system/app.service.d/own.conf"
    node.write("/etc/systemd/system/forker.service", FORKER)
    first = app.publish(files=[("etc/app.env", b"GREETING=first\n")])
    app.update(0)
    for more in ["", "DynamicUser=yes\nUser=\n"]:
        node.write(drop_in, OWN_WAYS + more)
        node.call("chmod", "-R", "a+rwX", "/srv/app/data")
        node.call("systemctl", "daemon-reload")
        node.call("systemctl", "restart", "app.service", "forker.service")
        begin(app, '[rehearsal]\nunits = ["app.service", "forker.service"]\n')
        version = app.publish(files=[("etc/app.env", b"GREETING=second\n")])
        look = "cat /var/lib/app/greetings /srv/app/data/starts /run/forker.pid; ls /run/app /var/log/app; " \
               "stat -c %u:%a /run/app /var/lib/app/ /var/log/app/"
        before = node.call("sh", "-c", look)
        told = json.loads(node.call("cutover", "rehearse", version, "--json"))
        check(told["outcome"] == "well", f"{more}: {told}")
        after = node.call("sh", "-c", look)
        check(after == before, f"{more}: the rehearsal has changed what is the unit's: {before} became {after}")
        check(traces(app) == [] and app.is_active("forker.service"), f"{more}: it leaves {traces(app)}")
        check(app.version() == first, f"{more}: {app.version()} serves")
        # Something that only the new release's environment brings is missed by its rehearsal.
        broken = app.publish()
        status, output, errors = node.run("cutover", "rehearse", broken)
        check(status == 12 and "environment files" in output + errors, f"{more}: {status}: {output}{errors}")
    node.path(drop_in).unlink()
    node.call("systemctl", "stop", "forker.service")
    node.path("/etc/systemd/system/forker.service").unlink()
    node.call("chown", "-R", "root:", "/srv/app/data")
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "restart", "app.service")
    end(app)


TEMPLATE = UNIT.replace("/srv/app/current", "/srv/app/releases/%I").replace("[Service]", "[Service]\nEnvironment=PORT=8090")
HOST = """
[rehearsal]
network = "host"
unit = "app-rehearsal@.service"
min_healthy = "300ms"
deadline = "8s"
[[rehearsal.check]]
name = "beside"
http = { url = "http://127.0.0.1:8090/health" }
"""


def rehearsal_on_the_hosts_network(app):
    """an instance runs beside the old release on the host's network; a sick one is refused, a good one is promoted"""
    node, old, before = app.node, app.version(), fingerprint(app)
    node.write("/etc/systemd/system/app-rehearsal@.service", TEMPLATE)
    node.call("systemctl", "daemon-reload")
    node.write(PLACE, HOST)
    app.publish(schema=2, sick_after=0)
    said = app.update(12)
    check("beside" in said and "503" in said, f"it says {said}")
    check(app.version() == old and fingerprint(app) == before and traces(app) == [], f"it leaves {traces(app)}")
    # Promoted, it serves while the units are switched: the hook looks between stop and start.
    node.write(PLACE, "data = []\n" + HOST.replace("[[rehearsal", "promote = true\n[[rehearsal"))
    node.write("/etc/cutover/app.hooks/pre-switch.d/10-look",
               "#!/bin/sh\nbusybox wget -q -O /run/promoted http://127.0.0.1:8090/version\n", 0o755)
    version = app.publish()
    app.update(0)
    app.serves(version)
    check(node.call("cat", "/run/promoted") == version, "the instance did not serve before the switch")
    left = node.call("systemctl", "list-units", "--all", "--plain", "--no-legend", "app-rehearsal@*").strip()
    check(not left, f"the instance is left: {left}")
    node.path("/etc/cutover/app.hooks/pre-switch.d/10-look").unlink()
    node.path("/etc/systemd/system/app-rehearsal@.service").unlink()
    node.call("systemctl", "daemon-reload")
    end(app)


def rehearsal_of_a_command(app):
    """a command of the settings is rehearsed in place of units: a bad one is refused, a good one is well"""
    # It runs, and answers nobody.
    refuses(app, ["web"], '[rehearsal]\ncommand = ["bin/worker"]\n')
    begin(app, '[rehearsal]\ncommand = ["bin/app"]\ncpu_percent = 50\n')
    old, version = app.version(), app.publish()
    with Load(app.node, 8080, per_second=100) as load:
        told = json.loads(app.node.call("cutover", "rehearse", version, "--json"))
    check(told["outcome"] == "well" and load.failed == 0, f"{told}; {load.failed} of {load.asked} requests failed")
    check(app.version() == old and traces(app) == [], f"{app.version()} serves; it leaves {traces(app)}")
    journal = app.node.call("journalctl", "-o", "cat", "--no-pager", "-u", "cutover-rehearsal-app:command.service")
    check(f"app {version} starts" in journal, f"the command was not started: {journal}")
    end(app)


REHEARSALS = [rehearsal_refuses_a_crash, rehearsal_refuses_the_sick, rehearsal_refuses_lost_records,
              rehearsal_refuses_a_taken_port, rehearsal_refuses_what_hangs, rehearsal_precedes_the_switch,
              rehearsal_says_what_does_not_go, rehearsal_has_sockets_and_ways_out, rehearsal_leaves_no_socket_open,
              rehearsal_on_the_hosts_network, rehearsal_precedes_the_vote, rehearsal_keeps_the_units_own_ways,
              rehearsal_of_a_command, rehearsal_leaves_no_trace]


def measure_rehearsals(app):
    """what a rehearsal costs: time from the command to its end, memory, bytes copied"""
    app.node.write(PLACE, SETTINGS.replace("300ms", "0s"))
    app.get("/add?kept")
    version, told = app.publish(), []
    app.node.call("cutover", "stage")
    for label, fill in [("data of some KiB", "true"), ("250 MiB in 1000 files", FILL)]:
        app.node.call("sh", "-c", fill)
        seen = []
        for _ in range(7):
            seen.append(json.loads(app.node.call("cutover", "rehearse", version, "--json"))["cost"])
        middle = {key: statistics.median(one[key] or 0 for one in seen) for key in seen[0]}
        told.append(f"{label}: {middle['took_ms']:.0f} ms, {middle['copied_bytes'] / 2**20:.1f} MiB copied")
    app.node.write(PLACE, SETTINGS)
    for ballast in [0, 64]:
        version = app.publish(ballast=ballast)
        app.node.call("cutover", "stage")
        with Memory(app.node) as memory:
            app.node.call("cutover", "rehearse", version)
        told.append(f"a release of {ballast} MiB and itself: {memory.release / 2**20:.1f} MiB, "
                    f"the updater {memory.updater / 2**20:.1f} MiB")
    app.node.call("rm", "-r", "/srv/app/data/much")
    end(app)
    return "; ".join(told)
