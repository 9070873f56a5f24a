"""One thing at a time of what releases ship and admins change about units."""

from units import SERVICE, Setting, check

INSTALL = "[Install]\nWantedBy=multi-user.target\n"


def heeds_drop_ins(app):
    """a drop-in that a release ships counts, and goes with it; one for a unit of others is named"""
    limit = lambda: app.properties("app.service", "LimitNOFILE")["LimitNOFILE"]
    before = limit()
    text = "[Service]\nLimitNOFILE=12345\n"
    version = app.publish(units=[("app.service.d/limit.conf", text), ("sshd.service.d/limit.conf", text)])
    said = app.update(0)
    app.serves(version)
    check(limit() == "12345", f"it does not count: {limit()}")
    check("sshd.service.d" in said, f"the one that is not used is not told: {said}")
    app.publish()
    app.update(0)
    check(limit() == before, f"it still counts: {limit()}")


def starts_no_disabled_unit(app):
    """a shipped unit that an admin has disabled and stopped stays so, also with --now"""
    units = [("s.service", SERVICE + INSTALL)]
    app.publish(units=units)
    app.update(0)
    check(app.is_active("s.service"), "the shipped unit does not run")
    app.node.call("systemctl", "disable", "--now", "s.service")
    version = app.publish(units=units)
    app.update(0)
    app.serves(version)
    check(not app.is_active("s.service"), "a disabled unit was started")
    app.publish()
    app.update(0)


def tells_what_is_down(app):
    """a unit that is down blocks an update by the timer, and status names it"""
    with Setting(app, {"w.service": SERVICE}, ["app.service", "w.service"]):
        app.node.call("systemctl", "start", "w.service")
        app.node.call("systemctl", "stop", "w.service")
        version = app.publish()
        status = app.node.run("cutover", "update")[0]
        check(status == 15, f"the update ended with {status}")
        blocked = app.status()["blocked"]
        check("w.service" in str(blocked), f"status does not name it: {blocked}")
        app.node.call("systemctl", "start", "w.service")
        app.update(0)
        app.serves(version)
        check(not app.status()["blocked"], "it still blocks")


def names_the_wall_around_home(app):
    """where our own unit keeps a root in /home from being written, it names the setting, and that setting helps"""
    node = app.node
    node.path("/home/shop").mkdir(mode=0o755)
    node.write("/etc/cutover/home.toml", 'root = "/home/shop"\n[source]\nurl = "file:///srv/channel"\nallow_unsigned = true\n'
               '[health]\nmin_healthy = "0s"\n[store]\nreserve = "1MiB"\n')
    app.publish()
    node.run("systemctl", "start", "cutover@home.service")
    said = node.call("journalctl", "--no-pager", "-o", "cat", "-u", "cutover@home.service")
    check("ProtectHome=no" in said, f"the setting is not named: {said}")
    node.write("/etc/systemd/system/cutover@home.service.d/home.conf", "[Service]\nProtectHome=no\n")
    node.call("systemctl", "daemon-reload")
    node.call("systemctl", "start", "cutover@home.service")
    check(node.path("/home/shop/current").is_symlink(), "nothing was installed")
    node.call("rm", "-r", "/etc/systemd/system/cutover@home.service.d", "/etc/cutover/home.toml")
    node.call("systemctl", "daemon-reload")


ALONE = [heeds_drop_ins, starts_no_disabled_unit, tells_what_is_down, names_the_wall_around_home]
