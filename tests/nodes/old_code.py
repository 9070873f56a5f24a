"""Old code is never taken for new: in a process that was left behind, in a mount, in a connection, in an instance."""

from lab import eventually
from units import ADMINS, SERVICE, Setting, check, runs


def sees_what_was_left_behind(app):
    """old code is seen in an interpreter that was left behind, which has nothing of a tree open"""
    left = ("[Service]\nKillMode=process\nExecStart=/bin/sh -c 'cd /; (exec sleep 1000000) & exec sleep 1000000'\n")
    with Setting(app, {"old.service": left}, ["app.service", "old.service"]):
        app.node.call("systemctl", "start", "old.service")
        app.publish()
        said = app.update(10)
        check("older than the switch" in said and "old.service" in said, f"no word of the old process: {said}")
        app.node.call("systemctl", "kill", "--signal=KILL", "old.service")


def sees_old_code_in_a_mount(app):
    """old code is seen in a service that has it in a bind mount of its own"""
    bound = ("[Service]\nBindReadOnlyPaths=/srv/app/current:/opt\nExecStart=/opt/bin/worker\nExecReload=/bin/true\n")
    with Setting(app, {"bound.service": bound}, ["app.service", "bound.service"], "action = \"reload-or-restart\"\n"
                 ) as setting:
        app.node.call("systemctl", "start", "bound.service")
        old = app.version()
        setting.fragment("data = []\n" + setting.text)
        app.publish()
        said = app.update(10)
        check(f"/releases/{old}" in said and "bound.service" in said, f"no word of the old mount: {said}")


def says_what_it_may_not_look_at(app):
    """where cutover may not look at a process, it does not say that none runs old code"""
    bare = ["systemd-run", "-q", "--wait", "--pipe", "--property=CapabilityBoundingSet=~CAP_SYS_PTRACE"]
    with Setting(app, {"theirs.service": f"{SERVICE}User=daemon\n"}, ["app.service", "theirs.service"]):
        app.node.call("systemctl", "start", "theirs.service")
        pid = app.properties("theirs.service", "MainPID")["MainPID"]
        status, output, said = app.node.run(*bare, "cutover", "health")
        check(status == 1 and "may not be looked at" in output and pid in output, f"{status}: {output}{said}")
        status, output, said = app.node.run("cutover", "health")
        check(status == 0, f"{status}: {output}{said}")


def ends_connections_of_the_old_release(app):
    """what serves a connection for an `Accept=yes` socket goes with the old release"""
    accept = {name: ADMINS[name] for name in ["k-accept.socket", "k-accept@.service"]}
    with Setting(app, accept, ["app.service", "k-accept.socket"]):
        app.node.call("systemctl", "start", "k-accept.socket")
        client = app.node.spawn("sh", "-c", "sleep 60 | busybox nc 127.0.0.1 7002")
        eventually("a connection is served", 10, lambda: app.node.run("pidof", "cat")[0] == 0)
        version = app.publish()
        app.update(0)
        app.serves(version)
        check(app.node.run("pidof", "cat")[0] != 0, "a connection of the old release is still served")
        runs(app, ["k-accept.socket"])
        client.kill()


def takes_no_data_from_an_instance(app):
    """an instance of a shipped template has ended before the data of the old release come back"""
    node, old = app.node, app.version()
    job = ("[Service]\nWorkingDirectory=/srv/app/current\n"
           "ExecStart=/bin/sh -c 'exec 9>>/srv/app/data/held; exec sleep 1000000'\n")
    version = app.publish(units=[("s-job@.service", job)])
    app.update(0)
    app.serves(version)
    node.call("systemctl", "start", "s-job@a.service")
    eventually("it has a file of the data open", 10, lambda: node.path("/srv/app/data/held").exists())
    status, _, said = node.run("cutover", "rollback", "--no-hold")
    held = node.run("sh", "-c", "ls -l /proc/[0-9]*/fd/9 2>/dev/null | grep /held")[1]
    check(not held, f"rollback {status}: an instance of {version} has its data open: {held}")
    check(status == 0, f"rollback ended with {status}: {said}")
    app.serves(old)


OLD_CODE = [sees_what_was_left_behind, sees_old_code_in_a_mount, says_what_it_may_not_look_at,
            ends_connections_of_the_old_release, takes_no_data_from_an_instance]
