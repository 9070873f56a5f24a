"""What a node tells of itself is what is so: its units, its journal, its down time, also to ordinary users."""

import json

from lab import Failed
from load import Load
from node_app import UNIT

# How far what is told may be from what visitors saw: so much, and a fifth, since on a machine that is overloaded visitors are
# late as well. A quiet one stays below 100.
DEVIATION_MS = 300


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def tells_a_stopped_unit(app):
    """a unit that is stopped is told, whatever the pointer says; an ordinary user sees the last status"""
    node = app.node
    release = app.active()
    node.call("systemctl", "stop", "app.service")
    status = app.status()
    unit = next(unit for unit in status["running"] if unit["unit"] == "app.service")
    check((unit["active"], unit["ok"], status["active"]["version"]) == ("inactive", False, release), f"{unit}")
    screen = node.call("cutover", "status")
    check(f"release {release} is active, but `app.service` is stopped" in screen, screen)
    node.call("systemctl", "start", "app.service")
    app.serves(release)
    unit = app.status()["running"][0]
    check(unit["ok"] and unit["release"] == release and unit["pid"], f"{unit}")
    node.call("cutover", "hold", "--reason", "a test")
    node.call("cutover", "unhold")
    code, output, errors = node.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                    "cutover", "--app", "app", "status", "--json")
    check(code == 0 and json.loads(output)["active"]["version"] == release, f"an ordinary user: {code} {errors}")


def journals_once(app):
    """each outcome stands in the journal once, by hand and by the timer, with who it was"""
    node = app.node
    for begin in (lambda: app.update(0), lambda: node.call("systemctl", "start", "cutover@app.service")):
        version = app.publish()
        begin()
        app.serves(version)
        lines = [json.loads(line) for line in
                 node.call("journalctl", "--output=json", f"TO={version}", "PHASE=committed").splitlines()]
        check(len(lines) == 1 and lines[0]["TRANSACTION"] == app.history()[-1]["transaction"], f"{version}: {lines}")
        told = [line for line in node.call("journalctl", "--output=cat").splitlines()
                if f"release {version} is committed" in line]
        check(len(told) == 1, f"{version} was told {len(told)} times: {told}")


def kinds_of_updates(app):
    """Ways to update: a name, the behaviour of the release, and what is typed, with the status it must end with."""
    update = ["cutover", "update", "--now"]
    back = ["cutover", "rollback", "--no-hold", "--reason", "a test"]
    return [
        ("quick", {}, update, 0),
        ("slow to start", {"start_delay": 0.7}, update, 0),
        ("by hand, back", None, back, 0),
        ("does not stop", {"ignore_term": 1}, update, 0),
        ("after one that does not stop", {}, update, 0),
        ("start hangs", {"start_delay": 60}, update, 10),
        ("crashes at once", {"crash": 0}, update, 10),
        ("crashes later", {"crash": 0.4}, update, 10),
        ("sick late in its trial", {"sick_after": 0.4}, update, 10),
        ("sick from its start", {"sick_after": 0}, update, 10),
        ("data copied and brought back", {"schema": 2, "sick_after": 0.3}, update, 10),
        ("through a socket", {}, update, 0),
    ]


def measures_as_visitors_do(app):
    """how long nobody was answered is told as visitors saw it, in a dozen kinds of updates"""
    node, deviations = app.node, []
    app.get("/add?before")
    node.call("sh", "-c", "dd if=/dev/urandom of=/srv/app/data/ballast bs=1M count=64 status=none")
    for name, behaviour, words, code in kinds_of_updates(app):
        if behaviour is not None:
            app.publish(**behaviour)
        if name == "through a socket":
            app.listen_by_socket()
        with Load(node, 8080, 100, "/health") as load:
            status, output, errors = node.run(*words)
        check(status == code, f"{name}: status {status}: {errors[-600:]}{output[-200:]}")
        told = app.history()[-1]["unanswered_ms"]
        seen = load.gone * 1000
        deviations.append(abs(told - seen))
        print(f"    {node.kind:6} {name:30} visitors {seen:6.0f} ms, status {told:6} ms", flush=True)
        check(abs(told - seen) < DEVIATION_MS + seen / 5, f"{name}: visitors saw {seen:.0f} ms, and {told} ms are told")
    app.listen_by_itself()
    node.path("/srv/app/data/ballast").unlink()
    return f"off by {max(deviations):.0f} ms at most"


def begins_from_a_unit(app):
    """`init` finds the root, the port and the page of a unit that runs, and what it writes is a configuration"""
    node = app.node
    text = node.call("cutover", "--app", "other", "init", "--unit", "app.service", "--print")
    for wanted in ('root = "/srv/app"', 'units = ["app.service"]', "127.0.0.1:8080"):
        check(wanted in text, f"{wanted} is missing in\n{text}")
    node.write("/etc/other.toml", text)
    node.call("cutover", "--config", "/etc/other.toml", "config", "check")
    check(UNIT.splitlines()[1] == "[Unit]", "the unit is as it was")


TRUTHS = [tells_a_stopped_unit, journals_once, measures_as_visitors_do, begins_from_a_unit]
