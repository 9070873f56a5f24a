"""What a node tells of itself is what is so: its units, its journal, its down time, also to ordinary users."""

import json

from lab import Failed
from load import Load
from node_app import UNIT

# How far what is told may be from what visitors saw, on two busy cores.
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


def measures_as_visitors_do(app):
    """how long nobody was answered is told as visitors saw it: a switch, a crash, a release that fails late"""
    for behaviour, code in (({}, 0), ({"crash": 0}, 10), ({"sick_after": 0.4}, 10)):
        app.publish(**behaviour)
        with Load(app.node, 8080, 100, "/health") as load:
            app.update(code)
        told = app.history()[-1]["unanswered_ms"]
        seen = load.gone * 1000
        print(f"    {behaviour or 'good'}: visitors {seen:.0f} ms, status {told} ms")
        check(abs(told - seen) < DEVIATION_MS, f"{behaviour}: visitors saw {seen:.0f} ms, and {told} ms are told")


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
